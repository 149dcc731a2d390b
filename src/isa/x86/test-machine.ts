// A vCPU with paged guest memory for tests: subroutines and single instructions run through the evaluator, guest accesses through
// the real slow paths. What a host would provide is recorded or answered from tables.

import { type Datum, readDatum, writeDatum } from '../../ir/datum.ts';
import { evaluate, type HostFunction, type Outcome, type Surroundings } from '../../ir/evaluate.ts';
import type { Callee, Func, RmwOp, Slot } from '../../ir/ir.ts';
import type { Access } from '../../ir/ops.ts';
import { updateContext } from './context.ts';
import { Decode, decode, Insn } from './decode.ts';
import { Emit } from './emit.ts';
import { cmpxchgSlow, loadSlow, RMW, rmwSlow, storeSlow } from './memory.ts';
import { How, loadPointers, translate } from './mmu.ts';
import * as st from './state.ts';
import { S } from './state.ts';
import { emitRow, StaticEmit, variantOf } from './static.ts';
import type { Sub } from './sub.ts';
import type { Tables } from './table.ts';
import { flushAll } from './tlb.ts';

const ENV = 0x1000;
const TLBS = 0x10000;
const JUMPS = 0x50000;
const CODE_MAP = 0x80000;
const RAM = 0x100000;
/** Bytes of RAM from guest-physical 0. */
export const RAM_BYTES = 0x300000;
/** Bytes of RAM from 4 GiB. */
export const RAM_HIGH = 0x10000;

const CR0 = { pe: 1, wp: 0x10000, pg: 0x80000000 } as const;

/** Paging modes, by the names of SDM volume 3, section 4.1.1. */
export type Mode = 'real' | 'unpaged' | '32-bit' | 'pae' | '4-level';

function bodyOf(s: Sub): Func {
  const e = new Emit();
  s.build(e, ...s.params.map((type, i) => e.b.param(i, type)));
  return e.b.finish(s.name, s.params, s.result);
}

const known = (callee: Callee): callee is Sub => 'build' in callee;

export class TestMachine {
  readonly memory = new DataView(new ArrayBuffer(RAM + RAM_BYTES + RAM_HIGH));
  /** Calls of host functions, as name and arguments. */
  readonly calls: [string, ...Datum[]][] = [];
  /** Host functions that answer; the others record only and give 0. */
  readonly hosts: Record<string, HostFunction> = {};
  readonly #bodies = new Map<string, Func>();
  readonly #around: Surroundings;

  constructor() {
    this.hosts.cas = (at, expected, value, log2) => {
      const ptr = Number(at);
      const bytes = 1 << (log2 as number);
      if (ptr % bytes !== 0) throw new Error(`Cannot compare and exchange at ${ptr}: it must be a multiple of ${bytes}`);
      const read = (): bigint =>
        [0, 1, 2, 3, 4, 5, 6, 7]
          .slice(0, bytes)
          .reduce((v, i) => v | (BigInt(this.memory.getUint8(ptr + i)) << BigInt(8 * i)), 0n);
      const old = read();
      if (old === BigInt.asUintN(64, expected as bigint)) {
        for (let i = 0; i < bytes; i++) this.memory.setUint8(ptr + i, Number(((value as bigint) >> BigInt(8 * i)) & 0xffn));
      }
      return BigInt.asIntN(64, old);
    };
    this.hosts.mmioRead = (gpa, bytes) => {
      this.calls.push(['mmioRead', gpa!, bytes!]);
      return 0x8877665544332211n & ((1n << BigInt(8 * (bytes as number))) - 1n) & 0x7fffffffffffffffn;
    };
    this.#around = {
      memory: this.memory,
      env: ENV,
      excOffset: st.exc.offset,
      maxSteps: 10_000_000,
      resolve: (callee) => this.#resolve(callee),
      guest: {
        load: (access, addr, space, forWrite) =>
          this.#load(access, addr, (space === 'system' ? How.system : 0) | (forWrite ? How.write : 0)),
        store: (access, addr, value, space) => this.#store(access, addr, value, space === 'system' ? How.system : 0),
        rmw: (op, access, addr, value) => this.#rmw(op, access, addr, value),
        cmpxchg: (access, addr, expected, value) => {
          const wide = [expected, value].map((v) => BigInt.asUintN(access.bits, BigInt(v as number | bigint)));
          const old = this.run(cmpxchgSlow, addr, ...wide, Math.log2(access.bits / 8)).value as bigint | null;
          return this.#narrow(access, old);
        },
      },
    };
    st.tlbs.forEach((slot, i) => {
      this.set(slot, TLBS + i * 0x10000);
    });
    this.set(st.jumpCache, JUMPS);
    this.set(st.codeMap, CODE_MAP);
    this.set(st.ramBase, RAM);
    this.set(st.ramLow, RAM_BYTES);
    this.set(st.ramHigh, BigInt(RAM_HIGH));
    this.set(st.ramSplit, RAM + RAM_BYTES);
    this.set(st.dr[6], 0xffff0ff0n);
    this.set(st.dr[7], 0x400n);
    this.set(st.cr0, 0x10n);
    for (const n of [S.cs, S.ss]) this.set(st.segAttr[n], 0x93);
    this.run(flushAll);
    this.run(updateContext);
  }

  get(slot: Slot): Datum {
    return readDatum(this.memory, ENV + slot.offset, slot.access);
  }
  set(slot: Slot, value: Datum): void {
    writeDatum(this.memory, ENV + slot.offset, slot.access, value);
  }
  /** A 64-bit slot as an unsigned number. */
  u64(slot: Slot): bigint {
    return BigInt.asUintN(64, this.get(slot) as bigint);
  }

  /** Runs a subroutine. */
  run(s: Sub, ...args: Datum[]): Outcome {
    return evaluate(this.#resolve(s) as Func, args.map((a) => (typeof a === 'bigint' ? BigInt.asIntN(64, a) : a)), this.#around); // biome-ignore format: one call
  }

  /** Takes the pending exception: vector and error code (null for none), or null. */
  exception(): { vector: number; error: number | null } | null {
    const vector = (this.get(st.exc) as number) - 1;
    const error = this.get(st.excError) as number;
    this.set(st.exc, 0);
    return vector < 0 ? null : { vector, error: error === -1 ? null : error };
  }

  /** Sets up a mode with CPL 0. Tables are the test's business. */
  mode(mode: Mode, options: { cr4?: number; efer?: number; wp?: boolean; cr3?: number; legacyCode?: boolean } = {}): void {
    const paged = mode !== 'real' && mode !== 'unpaged';
    const long = mode === '4-level';
    const pae = long || mode === 'pae' ? 0x20 : 0;
    this.set(st.cr0, BigInt(0x10 + (mode === 'real' ? 0 : CR0.pe) + (paged ? CR0.pg : 0) + (options.wp === false ? 0 : CR0.wp)));
    this.set(st.cr4, BigInt(pae | 0x200 | (options.cr4 ?? 0)));
    this.set(st.efer, BigInt((long ? 0x500 : 0) | (options.efer ?? 0)));
    this.set(st.cr3, BigInt(options.cr3 ?? 0x1000));
    this.set(st.segAttr[S.cs], mode === 'real' ? 0x93 : long && !options.legacyCode ? 0xa09b : 0xc09b);
    this.set(st.segAttr[S.ss], mode === 'real' ? 0x93 : 0xc093);
    for (const n of [S.es, S.cs, S.ss, S.ds, S.fs, S.gs]) {
      if (n !== S.cs && n !== S.ss) this.set(st.segAttr[n], mode === 'real' ? 0x93 : 0xc093);
      this.set(st.segLimit[n], mode === 'real' ? 0xffff : -1);
    }
    this.privilege(0);
    this.run(flushAll);
  }
  privilege(cpl: number): void {
    this.set(st.cpl, cpl);
    this.run(updateContext);
  }

  /** Guest-physical memory. Pointers of PAE paging count at once. */
  write64(gpa: number, value: bigint): void {
    this.memory.setBigUint64(RAM + gpa, value, true);
    this.run(loadPointers);
  }
  read64(gpa: number): bigint {
    return this.memory.getBigUint64(RAM + gpa, true);
  }
  write32(gpa: number, value: number): void {
    this.memory.setUint32(RAM + gpa, value, true);
  }
  read32(gpa: number): number {
    return this.memory.getUint32(RAM + gpa, true);
  }
  write8(gpa: number, value: number): void {
    this.memory.setUint8(RAM + gpa, value);
  }
  read8(gpa: number): number {
    return this.memory.getUint8(RAM + gpa);
  }
  /** Host address of RAM at guest-physical `gpa` below 4 GiB. */
  host(gpa: number): number {
    return RAM + gpa;
  }
  /** Marks a page of RAM as holding decoded code (bits by vCPU). */
  setCode(gpa: number, bits: number): void {
    this.memory.setUint8(CODE_MAP + (gpa >>> 12), bits);
  }
  /** Makes the pages from 0 to 2 MiB appear at the linear addresses of the same number in 4-level paging, by one large page. */
  identity(flags = 0x83n): void {
    this.write64(0x1000, 0x2007n);
    this.write64(0x2000, 0x3007n);
    this.write64(0x3000, flags);
  }

  /** Translates for an access; gives the guest-physical address, or null with the exception pending. */
  translate(addr: bigint, how = 0): bigint | null {
    const r = this.run(translate, addr, how);
    return r.how === 'fault' ? null : (r.value as bigint);
  }

  /** Decodes and runs one instruction in the current context; the bytes need not lie in guest memory. */
  exec(tables: Tables, ...bytes: number[]): Outcome | 'undefined' {
    const insn = new Insn();
    const code = Uint8Array.from([...bytes, ...Array(15).fill(0)]);
    const ctx = this.get(st.ctx) as number;
    if (decode(tables, code, 0, code.length, ctx, insn) !== Decode.ok) return 'undefined';
    if (insn.length !== bytes.length) throw new Error(`Cannot run ${bytes}: it decodes to ${insn.length} bytes`);
    const c = new StaticEmit(variantOf(insn, ctx, true), insn, 0);
    emitRow(c);
    return evaluate(c.b.finish(insn.row.mnemonic, [], null), [], this.#around);
  }

  #resolve(callee: Callee): Func | HostFunction {
    if (!known(callee)) {
      const own = this.hosts[callee.name];
      if (own) return own;
      return (...args) => {
        this.calls.push([callee.name, ...args]);
        return callee.result === 'i64' ? 0n : callee.result ? 0 : undefined;
      };
    }
    let body = this.#bodies.get(callee.name);
    if (!body) this.#bodies.set(callee.name, (body = bodyOf(callee)));
    return body;
  }
  #narrow(access: Access, wide: bigint | null): Datum {
    const v = wide ?? 0n;
    if (access.type === 'i64') return BigInt.asIntN(64, access.name.endsWith('s') ? BigInt.asIntN(access.bits, v) : v);
    return Number(
      access.name.endsWith('s') || access.bits === 32 ? BigInt.asIntN(access.bits, v) : BigInt.asUintN(access.bits, v),
    );
  }
  #load(access: Access, addr: bigint, how: number): Datum {
    return this.#narrow(access, this.run(loadSlow, addr, how | Math.log2(access.bits / 8)).value as bigint | null);
  }
  #store(access: Access, addr: bigint, value: Datum, how: number): void {
    this.run(storeSlow, addr, BigInt.asUintN(access.bits, BigInt(value as number | bigint)), how | Math.log2(access.bits / 8));
  }
  #rmw(op: RmwOp, access: Access, addr: bigint, value: Datum): Datum {
    const v = BigInt.asUintN(access.bits, BigInt(value as number | bigint));
    return this.#narrow(access, this.run(rmwSlow, addr, v, (RMW[op] << 8) | Math.log2(access.bits / 8)).value as bigint | null);
  }
}
