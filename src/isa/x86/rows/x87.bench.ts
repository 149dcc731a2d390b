// Runs single x87 instructions through the evaluator, for tests: state goes in and comes out as the 108-byte image of FNSAVE
// (32-bit protected-mode format, Intel SDM volume 1, figure 8-9), as on a real processor.

import { type Datum, readDatum, writeDatum } from '../../../ir/datum.ts';
import { evaluate, type GuestMemory, type Surroundings } from '../../../ir/evaluate.ts';
import type { Callee, Func } from '../../../ir/ir.ts';
import { Decode, decode, Insn } from '../decode.ts';
import { Emit } from '../emit.ts';
import type { Row } from '../row.ts';
import * as st from '../state.ts';
import { Ctx } from '../state.ts';
import { emitRow, StaticEmit, variantOf } from '../static.ts';
import type { Sub } from '../sub.ts';
import { buildTables } from '../table.ts';

/** What an instruction saw or left. */
export interface X87State {
  /** FNSAVE image, 108 bytes. */
  readonly image: Uint8Array;
  /** Bytes at the address in RSI. */
  readonly memory: Uint8Array;
  /** RFLAGS, arithmetic flags only. */
  readonly flags: number;
}

/** The result: as `X87State`, and the vector of the exception that was raised, or -1. */
export interface X87Result extends X87State {
  readonly vector: number;
}

const ENV = 64;
/** Linear address of the memory operand; accesses outside its bytes fault with #PF. */
export const OPERAND = 0x2000n;

/** Builds a bench for `rows`. `run(code, state)` executes one instruction of 64-bit code with RSI = `OPERAND`. */
export function x87Bench(rows: readonly Row[]): { run: (code: Uint8Array, before: X87State, cr0?: bigint) => X87Result } {
  const tables = buildTables(rows);
  const subs = new Map<Callee, Func>();
  const resolve = (callee: Callee): Func => {
    let f = subs.get(callee);
    if (!f) {
      const c = new Emit();
      const s = callee as Sub;
      s.build(c, ...s.params.map((t, i) => c.b.param(i, t)));
      f = c.b.finish(s.name, s.params, s.result);
      subs.set(callee, f);
    }
    return f;
  };
  const programs = new Map<string, Func>();
  const program = (code: Uint8Array): Func => {
    const key = code.join();
    let f = programs.get(key);
    if (!f) {
      const insn = new Insn();
      const found = decode(tables, code, 0, code.length, Ctx.long | Ctx.protected, insn);
      if (found !== Decode.ok) throw new Error(`Cannot decode ${key}: no row claims it`);
      const c = new StaticEmit(variantOf(insn, Ctx.long | Ctx.protected, true), insn, 0);
      emitRow(c);
      f = c.b.finish(insn.row.mnemonic, [], null);
      programs.set(key, f);
    }
    return f;
  };
  const memory = new DataView(new ArrayBuffer(ENV + st.STATE_BYTES));
  const get = (slot: (typeof st)['fpSw']): Datum => readDatum(memory, ENV + slot.offset, slot.access);
  const set = (slot: (typeof st)['fpSw'], value: Datum): void => writeDatum(memory, ENV + slot.offset, slot.access, value);

  function run(code: Uint8Array, before: X87State, cr0 = 0x80000033n): X87Result {
    new Uint8Array(memory.buffer).fill(0);
    const image = new DataView(before.image.buffer, before.image.byteOffset, 108);
    const sw = image.getUint16(4, true);
    const top = (sw >> 11) & 7;
    const tags = image.getUint16(8, true);
    set(st.cr0, cr0);
    set(st.fpCw, image.getUint16(0, true));
    set(st.fpTop, top);
    set(st.fpSw, sw & ~0x3800);
    let valid = 0;
    for (let i = 0; i < 8; i++) if (((tags >> (2 * i)) & 3) !== 3) valid |= 1 << i;
    set(st.fpValid, valid);
    for (let i = 0; i < 8; i++) {
      set(st.fpr[(top + i) & 7].mant, image.getBigInt64(28 + 10 * i, true));
      set(st.fpr[(top + i) & 7].exp, BigInt(image.getUint16(36 + 10 * i, true)));
    }
    set(st.gpr[st.R.rsi], OPERAND);
    set(st.fC, before.flags & 1);
    set(st.fZ, before.flags & 0x40 ? 0n : 1n);
    set(st.fN, (before.flags & 0x80 ? -256n : 0n) | (before.flags & 4 ? 0n : 1n));
    set(st.fO, before.flags & 0x800 ? -1 : 0);
    set(st.fA, before.flags & 0x10);
    const bytes = Uint8Array.from(before.memory);
    const guest: GuestMemory = guestOf(new DataView(bytes.buffer), () => set(st.exc, st.X.pf + 1));
    const around: Surroundings = { memory, env: ENV, excOffset: st.exc.offset, guest, resolve };
    evaluate(program(code), [], around);

    const out = new DataView(new ArrayBuffer(108));
    const after = get(st.fpTop) as number;
    out.setUint32(0, 0xffff0000 | (get(st.fpCw) as number), true);
    out.setUint32(4, 0xffff0000 | (get(st.fpSw) as number) | (after << 11), true);
    let word = 0;
    for (let i = 0; i < 8; i++) {
      const m = get(st.fpr[i].mant) as bigint;
      const e = Number(get(st.fpr[i].exp) as bigint) & 0x7fff;
      const kind = e === 0 && m === 0n ? 1 : e === 0 || e === 0x7fff || m >= 0n ? 2 : 0;
      word |= ((get(st.fpValid) as number) & (1 << i) ? kind : 3) << (2 * i);
    }
    out.setUint32(8, 0xffff0000 | word, true);
    for (let i = 0; i < 8; i++) {
      out.setBigInt64(28 + 10 * i, get(st.fpr[(after + i) & 7].mant) as bigint, true);
      out.setUint16(36 + 10 * i, Number(BigInt.asUintN(16, get(st.fpr[(after + i) & 7].exp) as bigint)), true);
    }
    const n = get(st.fN) as bigint;
    let ones = 0;
    for (let v = Number(BigInt.asUintN(8, n)); v; v &= v - 1) ones++;
    let flags = (get(st.fC) as number) | ((get(st.fA) as number) & 0x10);
    if ((get(st.fZ) as bigint) === 0n) flags |= 0x40;
    if (n < 0n) flags |= 0x80;
    if (ones % 2 === 0) flags |= 4;
    if ((get(st.fO) as number) < 0) flags |= 0x800;
    return { image: new Uint8Array(out.buffer), memory: bytes, flags, vector: (get(st.exc) as number) - 1 };
  }
  return { run };
}

function guestOf(bytes: DataView, fault: () => void): GuestMemory {
  const refuse = (): never => {
    throw new Error('Cannot run an atomic access: x87 has none');
  };
  const place = (addr: bigint, bits: number): number | null => {
    const at = Number(addr - OPERAND);
    if (at >= 0 && at + bits / 8 <= bytes.byteLength) return at;
    fault();
    return null;
  };
  return {
    load: (access, addr) => {
      const at = place(addr, access.bits);
      return at === null ? (access.type === 'i64' ? 0n : 0) : readDatum(bytes, at, access);
    },
    store: (access, addr, value) => {
      const at = place(addr, access.bits);
      if (at !== null) writeDatum(bytes, at, access, value);
    },
    rmw: refuse,
    cmpxchg: refuse,
  };
}
