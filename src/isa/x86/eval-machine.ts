// A vCPU made of the evaluator alone: it decodes one instruction at a time and evaluates its IR. The slow, plain oracle of the
// tiers, and the bench of row tests. Guest memory is either a few flat pages at any linear address, or the real MMU's subroutines.

import { type Datum, readDatum, writeDatum, zeroOf } from '../../ir/datum.ts';
import { combine, evaluate, type GuestMemory, type HostFunction, type Outcome, type Surroundings } from '../../ir/evaluate.ts';
import type { Callee, Func, RmwOp, Slot, Space } from '../../ir/ir.ts';
import type { Access } from '../../ir/ops.ts';
import { edgeContext } from './canonical.ts';
import { updateContext } from './context.ts';
import { Decode, decode, Insn } from './decode.ts';
import { Emit, type Size } from './emit.ts';
import { cmpxchgSlow, loadSlow, loadVectorSlow, RMW, rmwSlow, storeSlow, storeVectorSlow } from './memory.ts';
import { fetchTranslate, How, ramAddress } from './mmu.ts';
import type { Row } from './row.ts';
import { throughStack } from './stack-access.ts';
import * as st from './state.ts';
import { Ctx, S, X } from './state.ts';
import { emitRow, StaticEmit, variantOf } from './static.ts';
import type { Sub } from './sub.ts';
import { buildTables, type Tables } from './table.ts';

const ENV = 0x1000;
const TLBS = 0x10000;
const TLB_BYTES = st.TLB_ENTRIES * st.TLB_ENTRY_BYTES;
const JUMP_CACHE = TLBS + 4 * TLB_BYTES;
const CODE_MAP = JUMP_CACHE + st.JUMP_ENTRIES * st.JUMP_ENTRY_BYTES;
const RAM = CODE_MAP + 0x1000;

export interface EvalOptions {
  /** `flat`: only the pages that `map` names exist, and linear addresses need no tables. `paged`: the subroutines of mmu.ts. */
  readonly memory?: 'flat' | 'paged';
  /** Bytes of RAM, a multiple of 4,096: 1 MiB unless given. */
  readonly ram?: number;
  /** Host functions by name, besides those that the machine brings (`cas`, empty MMIO, no decoded code). */
  readonly hosts?: Readonly<Record<string, HostFunction>>;
}

/** How an instruction ended; `undefined` and `truncated` are #UD and a fetch fault, already pending in the state. */
export interface Step {
  readonly outcome: Outcome;
  /** The decoded instruction's row as text, or why there is none. */
  readonly text: string;
}

interface Page {
  /** Offset of the page in RAM. */
  readonly at: number;
  readonly writable: boolean;
  readonly executable: boolean;
}

/** One x86 vCPU over the rows given. It starts in 64-bit code at CPL 0, all segments flat, `rip` 0. */
export class EvalMachine {
  readonly memory: DataView;
  readonly env = ENV;
  /** Host address of guest-physical 0. */
  readonly ramBase = RAM;
  readonly tables: Tables;
  readonly #around: Surroundings;
  readonly #flat: boolean;
  readonly #hosts: Readonly<Record<string, HostFunction>>;
  readonly #subs = new Map<Callee, Func>();
  readonly #pages = new Map<bigint, Page>();
  readonly #insn = new Insn();
  readonly #ramBytes: number;
  #nextPage = 0;

  constructor(rows: readonly Row[] | Tables, options: EvalOptions = {}) {
    this.tables = 'first' in rows ? rows : buildTables(rows);
    this.#ramBytes = options.ram ?? 1 << 20;
    this.#flat = (options.memory ?? 'flat') === 'flat';
    this.memory = new DataView(new ArrayBuffer(RAM + this.#ramBytes));
    const open: Record<string, HostFunction> = {
      cas: (ptr, expected, value, log2) => this.#cas(Number(ptr), expected as bigint, value as bigint, log2 as number),
      mmioRead: () => -1n,
      mmioWrite: () => undefined,
      codeWrite: () => undefined,
      stopSoon: () => undefined,
      watchChanged: () => undefined,
      usesStack: () => 0,
      leaveSoon: () => undefined,
      tscChanged: () => undefined,
    };
    const flat: Record<string, HostFunction> = {
      hostSpan: (addr, how) => BigInt(this.#flatAt(addr as bigint, ((how as number) & How.write) !== 0) ?? 0),
      probeRead: (addr, bytes) => void this.#flatCheck(addr as bigint, bytes as number, false),
      probeWrite: (addr, bytes) => void this.#flatCheck(addr as bigint, bytes as number, true),
    };
    this.#hosts = { ...open, ...(this.#flat ? flat : {}), ...options.hosts };
    this.#around = {
      memory: this.memory,
      env: ENV,
      excOffset: st.exc.offset,
      guest: this.#flat ? this.#flatMemory() : this.#pagedMemory(),
      resolve: (callee) => this.#resolve(callee),
    };
    this.#reset();
  }

  #reset(): void {
    [...st.tlbs, st.tlbNone].forEach((slot, i) => {
      this.set(slot, TLBS + i * TLB_BYTES);
      for (let e = 0; e < st.TLB_ENTRIES; e++)
        this.memory.setBigInt64(TLBS + i * TLB_BYTES + e * 16, BigInt(e ^ 0x800) << 12n, true);
    });
    this.set(st.jumpCache, JUMP_CACHE);
    this.set(st.codeMap, CODE_MAP);
    this.set(st.fusedMadd, 1);
    this.set(st.ramBase, RAM);
    this.set(st.ramLow, this.#ramBytes);
    this.set(st.ramSplit, RAM + this.#ramBytes);
    this.set(st.mxcsr, 0x1f80);
    this.set(st.fpCw, 0x37f);
    this.set(st.fZ, 1);
    this.set(st.dr[6], 0xffff0ff0n);
    this.set(st.dr[7], 0x400n);
    this.longMode();
  }

  // -- state

  get(slot: Slot): Datum {
    return readDatum(this.memory, ENV + slot.offset, slot.access);
  }
  set(slot: Slot, value: Datum): void {
    const fit = slot.access.type === 'i64' && typeof value === 'number' ? BigInt(value) : value;
    writeDatum(this.memory, ENV + slot.offset, slot.access, fit);
  }
  /** General register `n` as an unsigned 64-bit number. */
  reg(n: number): bigint {
    return BigInt.asUintN(64, this.get(st.gpr[n]!) as bigint);
  }
  setReg(n: number, value: bigint | number): void {
    this.set(st.gpr[n]!, BigInt(value));
  }
  get rip(): bigint {
    return BigInt.asUintN(64, this.get(st.rip) as bigint);
  }
  set rip(value: bigint | number) {
    this.set(st.rip, BigInt(value));
  }
  /** RFLAGS as the guest sees it. */
  get flags(): number {
    const bit = (condition: boolean, n: number): number => (condition ? 1 << n : 0);
    const fN = this.get(st.fN) as bigint;
    let low = Number(BigInt.asUintN(8, fN));
    low ^= low >> 4;
    const parity = (0x6996 >> (low & 15)) & 1;
    return (
      (this.get(st.sysFlags) as number) | 2 | ((this.get(st.fC) as number) & 1) | bit(parity === 0, 2) | ((this.get(st.fA) as number) & 16) |
      bit(this.get(st.fZ) === 0n, 6) | bit(fN < 0n, 7) | bit((this.get(st.fO) as number) < 0, 11)
    ); // biome-ignore format: one line of bits each
  }
  set flags(value: number) {
    this.set(st.fC, value & 1);
    this.set(st.fA, value & 16);
    this.set(st.fZ, value & 64 ? 0 : 1);
    this.set(st.fN, BigInt.asIntN(64, (value & 128 ? 1n << 63n : 0n) | (value & 4 ? 0n : 1n)));
    this.set(st.fO, value & 0x800 ? -1 : 0);
    this.set(st.sysFlags, value & 0x3f7700);
  }
  /** The pending exception, or null. Error code -1: none. */
  get pending(): { vector: number; error: number } | null {
    const exc = this.get(st.exc) as number;
    return exc === 0 ? null : { vector: exc - 1, error: this.get(st.excError) as number };
  }
  clearPending(): void {
    // A fetch that goes astray leaves an address that delivery does not judge.
    this.set(st.offLimits, 0n);
    this.set(st.exc, 0);
  }

  // -- modes

  /** 64-bit code at `cpl`, flat segments, SSE and x87 open; paging bits are set, with CR3 as it is. */
  longMode(cpl: 0 | 3 = 0): void {
    this.#segments(cpl, 0xa09b, cpl === 3 ? 0x33 : 0x10);
    this.#control(0x8005_0033n, 0x6f0n, 0xd01n);
  }
  /** 32-bit protected mode without paging (`flat` memory: user code sees its faults all the same). */
  protectedMode(cpl: 0 | 3 = 0): void {
    this.#segments(cpl, 0xc09b, cpl === 3 ? 0x23 : 0x10);
    this.#control(0x33n, 0x600n, 0n);
  }
  /** 32-bit code under IA-32e mode. */
  compatibilityMode(cpl: 0 | 3 = 3): void {
    this.#segments(cpl, 0xc09b, cpl === 3 ? 0x23 : 0x10);
    this.#control(0x8005_0033n, 0x6f0n, 0xd01n);
  }
  /** Real-address mode, all segment bases 0. */
  realMode(): void {
    this.#segments(0, 0x9b, 0);
    for (const n of [S.es, S.cs, S.ss, S.ds, S.fs, S.gs]) {
      this.set(st.segLimit[n]!, 0xffff);
      this.set(st.segAttr[n]!, 0x93);
      this.set(st.segSelector[n]!, 0);
    }
    this.#control(0x10n, 0x600n, 0n);
  }
  #control(cr0: bigint, cr4: bigint, efer: bigint): void {
    this.set(st.cr0, cr0);
    this.set(st.cr4, cr4);
    this.set(st.efer, efer);
    this.call(updateContext);
  }
  #segments(cpl: number, csAttr: number, csSelector: number): void {
    const dpl = cpl << 5;
    for (const n of [S.es, S.cs, S.ss, S.ds, S.fs, S.gs]) {
      this.set(st.segBase[n]!, 0n);
      this.set(st.segLimit[n]!, -1);
      this.set(st.segAttr[n]!, (n === S.cs ? csAttr : 0xc093) | dpl);
      this.set(st.segSelector[n]!, n === S.cs ? csSelector : cpl === 3 ? 0x2b : 0x18);
    }
    this.set(st.cpl, cpl);
  }

  // -- guest memory

  /** Flat memory: gives the pages of `linear` … `linear + bytes - 1` backing, zeroed. */
  map(linear: bigint | number, bytes: number, writable = true, executable = true): void {
    const first = BigInt.asUintN(64, BigInt(linear)) >> 12n;
    const last = (BigInt.asUintN(64, BigInt(linear)) + BigInt(bytes - 1)) >> 12n;
    for (let page = first; page <= last; page++) {
      if (this.#nextPage + 4096 > this.#ramBytes)
        throw new Error(`Cannot map page ${page}: the machine's ${this.#ramBytes} bytes of RAM are used up`);
      const old = this.#pages.get(page);
      this.#pages.set(page, { at: old?.at ?? this.#nextPage, writable, executable });
      if (!old) this.#nextPage += 4096;
    }
  }
  /** Writes bytes at a linear address (flat memory, whatever its permissions) or guest-physical address (paged). */
  poke(addr: bigint | number, bytes: ArrayLike<number>): void {
    for (let i = 0; i < bytes.length; i++) this.memory.setUint8(this.#byteAt(BigInt(addr) + BigInt(i)), bytes[i]!);
  }
  /** Reads bytes as `poke` writes them. */
  peek(addr: bigint | number, length: number): Uint8Array {
    return Uint8Array.from({ length }, (_, i) => this.memory.getUint8(this.#byteAt(BigInt(addr) + BigInt(i))));
  }
  /** The bytes themselves, of flat pages that were mapped one after the other, or of RAM (paged). */
  bytes(addr: bigint | number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, this.#byteAt(BigInt(addr)), length);
  }
  #byteAt(addr: bigint): number {
    if (!this.#flat) return RAM + Number(addr);
    const page = this.#pages.get(BigInt.asUintN(64, addr) >> 12n);
    if (!page) throw new Error(`Cannot reach linear address ${addr.toString(16)}: its page is not mapped`);
    return RAM + page.at + Number(addr & 4095n);
  }

  #pageFault(addr: bigint, error: number): void {
    this.set(st.cr2, BigInt.asIntN(64, addr));
    this.#raise(X.pf, error | (this.get(st.cpl) === 3 ? 4 : 0));
  }
  #raise(vector: number, error: number): void {
    this.set(st.excError, error);
    this.set(st.exc, vector + 1);
  }
  /** Host address of a byte and the rest of its page, or null with an exception pending. */
  #flatAt(addr: bigint, write: boolean): number | null {
    const linear = BigInt.asUintN(64, addr);
    if (BigInt.asIntN(48, linear) !== BigInt.asIntN(64, linear)) {
      this.#raise(X.gp, 0);
      this.set(st.offLimits, BigInt.asIntN(64, linear));
      return null;
    }
    const page = this.#pages.get(linear >> 12n);
    if (!page || (write && !page.writable)) {
      this.#pageFault(linear, (page ? 1 : 0) | (write ? 2 : 0));
      return null;
    }
    return RAM + page.at + (Number(linear) & 4095);
  }
  /** True where all pages of the range allow the access; else an exception is pending. */
  #flatCheck(addr: bigint, bytes: number, write: boolean): boolean {
    for (let done = 0; done < bytes; ) {
      const at = addr + BigInt(done);
      if (this.#flatAt(at, write) === null) return false;
      done += 4096 - Number(BigInt.asUintN(64, at) & 4095n);
    }
    return true;
  }
  #flatMemory(): GuestMemory {
    const buffer = new DataView(new ArrayBuffer(16));
    const read = (access: Access, addr: bigint): Datum => {
      for (let i = 0; i < access.bits / 8; i++) buffer.setUint8(i, this.memory.getUint8(this.#byteAt(addr + BigInt(i))));
      return readDatum(buffer, 0, access);
    };
    const write = (access: Access, addr: bigint, value: Datum): void => {
      writeDatum(buffer, 0, access, value);
      for (let i = 0; i < access.bits / 8; i++) this.memory.setUint8(this.#byteAt(addr + BigInt(i)), buffer.getUint8(i));
    };
    return {
      load: (access, addr, _, forWrite) =>
        this.#flatCheck(addr, access.bits / 8, forWrite) ? read(access, addr) : zeroOf(access.type),
      store: (access, addr, value, _, span) => {
        if (this.#flatCheck(addr, span, true)) write(access, addr, value);
      },
      rmw: (op, access, addr, value) => {
        if (!this.#flatCheck(addr, access.bits / 8, true)) return zeroOf(access.type);
        const old = read(access, addr);
        write(access, addr, combine(op, access, old, value));
        return old;
      },
      cmpxchg: (access, addr, expected, value) => {
        if (!this.#flatCheck(addr, access.bits / 8, true)) return zeroOf(access.type);
        const old = read(access, addr);
        if (old === expected) write(access, addr, value);
        return old;
      },
    };
  }
  #pagedMemory(): GuestMemory {
    const how = (access: Access, space: Space, write: boolean): number =>
      (access.bits === 128 ? 0 : Math.log2(access.bits / 8)) | (write ? How.write : 0) | (space === 'system' ? How.system : 0);
    const wide = (value: Datum): bigint => BigInt.asUintN(64, BigInt(value as number | bigint));
    /** From 64 zero-extended bits to what `access` gives. */
    const narrow = (access: Access, value: bigint): Datum => {
      const buffer = new DataView(new ArrayBuffer(8));
      buffer.setBigInt64(0, value, true);
      return readDatum(buffer, 0, access);
    };
    return {
      load: (access, addr, space, forWrite) => {
        const value = this.#callValue(access.bits === 128 ? loadVectorSlow : loadSlow, addr, how(access, space, forWrite));
        return access.bits === 128 ? value : narrow(access, value as bigint);
      },
      store: (access, addr, value, space, span) => {
        const h = how(access, space, true);
        if (access.bits === 128) this.call(storeVectorSlow, addr, value, span, h);
        else this.call(storeSlow, addr, BigInt.asIntN(64, wide(value)), h);
      },
      rmw: (op: RmwOp, access, addr, value) =>
        narrow(
          access,
          this.#callValue(rmwSlow, addr, BigInt.asIntN(64, wide(value)), how(access, 'current', true) | (RMW[op] << 8)) as bigint,
        ),
      cmpxchg: (access, addr, expected, value) => {
        const args = [BigInt.asIntN(64, wide(expected)), BigInt.asIntN(64, wide(value))] as const;
        return narrow(access, this.#callValue(cmpxchgSlow, addr, ...args, how(access, 'current', true)) as bigint);
      },
    };
  }
  #cas(ptr: number, expected: bigint, value: bigint, log2: number): bigint {
    const name = (['i64.8u', 'i64.16u', 'i64.32u', 'i64'] as const)[log2]!;
    const access: Access = { name, type: 'i64', bits: (8 << log2) as Access['bits'], load: 0, store: 0 };
    const old = readDatum(this.memory, ptr, access) as bigint;
    if (BigInt.asUintN(access.bits, old) === BigInt.asUintN(access.bits, expected)) writeDatum(this.memory, ptr, access, value);
    return old;
  }

  // -- running

  #resolve(callee: Callee): Func | HostFunction {
    const host = this.#hosts[callee.name];
    if (host) return host;
    if (callee.host) throw new Error(`Cannot call host function ${callee.name}: the machine was made without it`);
    let func = this.#subs.get(callee);
    if (!func) {
      const c = new Emit();
      (callee as Sub).build(c, ...callee.params.map((type, i) => c.b.param(i, type)));
      func = c.b.finish(callee.name, callee.params, callee.result);
      this.#subs.set(callee, func);
    }
    return func;
  }
  /** Calls a subroutine; gives its value, or undefined where it has none or faulted (see `pending`). */
  call(callee: Sub, ...args: Datum[]): Datum | undefined {
    return this.run(this.#resolve(callee) as Func, args).value ?? undefined;
  }
  #callValue(callee: Sub, ...args: Datum[]): Datum {
    return this.call(callee, ...args) ?? zeroOf(callee.result!);
  }
  /** Evaluates any function over this machine's state and memory. */
  run(func: Func, args: readonly Datum[] = []): Outcome {
    return evaluate(func, args, this.#around);
  }

  /** Instruction bytes at `rip`: up to 15, fewer before a page that cannot be fetched. */
  #fetch(): Uint8Array {
    const base = (this.get(st.ctx) as number) & Ctx.long ? 0n : (this.get(st.segBase[S.cs]!) as bigint);
    const bytes: number[] = [];
    for (let i = 0n; i < 15n; i++) {
      let addr = BigInt.asIntN(64, base + this.rip + i);
      if (!((this.get(st.ctx) as number) & Ctx.long)) addr = BigInt.asUintN(32, addr);
      if (i > 0n && (addr & 4095n) !== 0n) bytes.push(this.memory.getUint8(this.#fetchAt + Number(i)));
      else {
        const at = this.#fetchPlace(addr);
        if (at === null) break;
        this.#fetchAt = at - Number(i);
        bytes.push(this.memory.getUint8(at));
      }
    }
    return Uint8Array.from(bytes);
  }
  #fetchAt = 0;
  #fetchPlace(addr: bigint): number | null {
    if (this.#flat) {
      const at = this.#flatAt(addr, false);
      const page = this.#pages.get(BigInt.asUintN(64, addr) >> 12n);
      if (at !== null && page?.executable) return at;
      if (this.pending?.vector !== X.gp) this.#pageFault(addr, page ? 17 : 16);
      return null;
    }
    const gpa = this.#callValue(fetchTranslate, addr) as bigint;
    if (this.pending) return null;
    return Number(this.#callValue(ramAddress, gpa)) || null;
  }

  /**
   * Decodes and evaluates the instruction at `rip`, and moves `rip` on. Where it faults, `rip` stays and the exception is left
   * pending; `repeat` leaves `rip` too. An `exit` and a `resync` are complete instructions.
   */
  step(): Step {
    const ctx = this.get(st.ctx) as number;
    const bytes = this.#fetch();
    const insn = this.#insn;
    const result = decode(this.tables, bytes, 0, bytes.length, ctx, insn);
    const fault = (text: string): Step => ({ outcome: { how: 'fault', value: null, reason: 0 }, text });
    if (result === Decode.truncated) return fault('truncated');
    this.clearPending();
    if (result !== Decode.ok) {
      this.#raise(result === Decode.tooLong ? X.gp : X.ud, result === Decode.tooLong ? 0 : -1);
      return fault('undefined');
    }
    const at = this.rip;
    this.set(st.pageBase, BigInt.asIntN(64, at & ~4095n));
    const c = new StaticEmit(variantOf(insn, ctx | edgeContext(at), true), insn, Number(at & 4095n));
    emitRow(c);
    const outcome = this.run(c.b.finish(insn.row.row.asm, [], null));
    if (outcome.how === 'fault') this.#judge(bytes);
    if (outcome.how === 'jump' || outcome.how === 'branch') this.rip = outcome.value as bigint;
    else if (outcome.how !== 'fault' && outcome.how !== 'repeat') {
      const next = at + BigInt(insn.length);
      this.rip = ctx & Ctx.long ? BigInt.asIntN(64, next) : ctx & Ctx.big ? next & 0xffffffffn : next & 0xffffn;
    }
    return { outcome, text: `${insn.row.row.opcode} ${insn.row.row.asm}` };
  }

  /** What delivery decides: an access to an address that is not canonical was one through SS. */
  #judge(bytes: Uint8Array): void {
    const address = this.get(st.offLimits) as bigint;
    this.set(st.offLimits, 0n);
    if (address === 0n || this.pending?.vector !== X.gp) return;
    const base = (n: number): bigint => this.get(st.segBase[n]!) as bigint;
    const ctx = this.get(st.ctx) as number;
    if (throughStack(this.tables, bytes, this.rip, ctx, address, (n) => this.reg(n), base)) this.#raise(X.ss, 0);
  }

  /** Where the machine decodes: size of the last decoded instruction, for tests of the decoder. */
  get lastInsn(): { length: number; size: Size } {
    return { length: this.#insn.length, size: this.#insn.size as Size };
  }
}
