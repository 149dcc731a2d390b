// Runs cases through the evaluator: each row's IR in plain TypeScript, on flat memory.

import type { Slot } from '../../src/ir/ir.ts';
import { updateContext } from '../../src/isa/x86/context.ts';
import { EvalMachine } from '../../src/isa/x86/eval-machine.ts';
import * as st from '../../src/isa/x86/state.ts';
import { S } from '../../src/isa/x86/state.ts';
import type { Tables } from '../../src/isa/x86/table.ts';
import {
  type Case,
  CODE,
  CODE_BYTES,
  codeBase,
  DATA,
  DATA_BYTES,
  type FpState,
  GS_BASE,
  pristineData,
  type Result,
  type State,
  WRITABLE_BYTES,
} from './case.ts';

/** Instructions, counted once for each burst of a repeated one, after which a case counts as endless: more than a loop of three with a 16-bit counter takes. */
const MAX_STEPS = 250_000;
/** Bit of the slot `mxcsr` that asks for every exception flag: see rows/sse.ts. */
const EXACT = 1 << 31;

/** Something that runs cases as the host does. */
export interface Runner {
  readonly name: string;
  /** Arithmetic flags are exact where an instruction faults, even those that it overwrites when it is resumed. */
  readonly flagsAtFaults: boolean;
  run(c: Case): Result;
}

/** What the runners share: moving a state in and out of the vCPU's slots. */
export interface Slots {
  get(slot: Slot): number | bigint | Uint8Array;
  set(slot: Slot, value: number | bigint | Uint8Array): void;
}

function bytesOf(value: bigint): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt.asUintN(64, value), true);
  view.setBigUint64(8, value >> 64n, true);
  return bytes;
}
function numberOf(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  return view.getBigUint64(0, true) | (view.getBigUint64(8, true) << 64n);
}

/** Writes the floating-point state into slots. */
export function putFp(m: Slots, fp: FpState): void {
  const top = (fp.fsw >> 11) & 7;
  m.set(st.fpCw, fp.fcw);
  m.set(st.fpSw, fp.fsw & ~0x3800);
  m.set(st.fpTop, top);
  m.set(st.fpValid, fp.ftw);
  m.set(st.mxcsr, fp.mxcsr | EXACT);
  fp.st.forEach((value, i) => {
    m.set(st.fpr[(top + i) & 7]!.mant, BigInt.asIntN(64, value));
    m.set(st.fpr[(top + i) & 7]!.exp, value >> 64n);
  });
  fp.xmm.forEach((value, i) => void m.set(st.xmm[i]!, bytesOf(value)));
  fp.ymm.forEach((value, i) => void m.set(st.ymmHigh[i]!, bytesOf(value)));
}

/** Reads it back. */
export function takeFp(m: Slots): FpState {
  const top = m.get(st.fpTop) as number;
  const st80 = (r: (typeof st.fpr)[number]): bigint =>
    BigInt.asUintN(64, m.get(r!.mant) as bigint) | (BigInt.asUintN(16, m.get(r!.exp) as bigint) << 64n);
  return {
    fcw: m.get(st.fpCw) as number,
    fsw: (m.get(st.fpSw) as number) | (top << 11),
    ftw: m.get(st.fpValid) as number,
    mxcsr: (m.get(st.mxcsr) as number) & 0xffff,
    st: Array.from({ length: 8 }, (_, i) => st80(st.fpr[(top + i) & 7]!)),
    xmm: st.xmm.map((slot) => numberOf(m.get(slot) as Uint8Array)),
    ymm: st.ymmHigh.map((slot) => numberOf(m.get(slot) as Uint8Array)),
  };
}

/** The segments of 16-bit cases. */
export function setSegments16(set: (slot: Slot, value: number | bigint) => void): void {
  for (const n of [S.es, S.cs, S.ss, S.ds]) {
    set(st.segBase[n]!, BigInt(n === S.cs ? CODE : DATA));
    set(st.segLimit[n]!, n === S.cs ? CODE_BYTES - 1 : 0xffff);
    set(st.segAttr[n]!, n === S.cs ? 0xfb : 0xf3);
  }
}

/** Aligned words that differ, as `Result` has them. */
export function changesOf(before: Uint8Array, after: Uint8Array): Map<number, bigint> {
  const changes = new Map<number, bigint>();
  // Most words are as they were: halves are compared as numbers.
  const [a, b] = [before, after].map((x) => new Int32Array(x.buffer, x.byteOffset, DATA_BYTES / 4)) as [Int32Array, Int32Array];
  const view = new DataView(after.buffer, after.byteOffset, DATA_BYTES);
  for (let i = 0; i < DATA_BYTES / 4; i += 2)
    if (a[i] !== b[i] || a[i + 1] !== b[i + 1]) changes.set(i * 4, view.getBigUint64(i * 4, true));
  return changes;
}

/** The data pages of a case before it runs. */
export function dataOf(c: Case, pristine: Uint8Array): Uint8Array {
  const data = pristine.slice();
  const view = new DataView(data.buffer);
  for (const p of c.patches) if (p.offset <= DATA_BYTES - 8) view.setBigUint64(p.offset, p.value, true);
  return data;
}

export class Evaluator implements Runner {
  readonly name = 'eval';
  readonly flagsAtFaults = true;
  readonly #machine: EvalMachine;
  readonly #pristine = pristineData();

  constructor(tables: Tables) {
    const m = new EvalMachine(tables);
    m.map(CODE, CODE_BYTES, false);
    m.map(DATA, WRITABLE_BYTES, true, false);
    m.map(DATA + WRITABLE_BYTES, DATA_BYTES - WRITABLE_BYTES, false, false);
    this.#machine = m;
  }

  run(c: Case): Result {
    const m = this.#machine;
    const before = dataOf(c, this.#pristine);
    m.bytes(CODE, CODE_BYTES).fill(0xcc);
    m.bytes(codeBase(c.mode) + Number(c.state.rip), c.code.length).set(c.code);
    m.bytes(DATA, DATA_BYTES).set(before);
    if (c.mode === 64) m.longMode(3);
    else m.compatibilityMode(3);
    if (c.mode === 16) setSegments16((slot, value) => void m.set(slot, value));
    // AVX is open.
    m.set(st.cr4, (m.get(st.cr4) as bigint) | 0x40000n);
    m.set(st.xcr0, 7n);
    m.call(updateContext);
    m.set(st.segBase[S.gs]!, c.mode === 64 ? BigInt(GS_BASE) : 0n);
    for (const n of [S.es, S.ds, S.fs, S.gs])
      m.set(st.segSelector[n]!, n === S.fs || n === S.gs || c.mode === 64 ? 0 : c.mode === 32 ? 0x2b : 0x0f);
    m.clearPending();
    m.set(st.cr2, 0n);
    c.state.gpr.forEach((value, i) => void m.setReg(i, value));
    m.rip = c.state.rip;
    m.flags = c.state.flags;
    putFp(m, c.state.fp);
    const vector = this.#go(codeBase(c.mode));
    const state: State = { gpr: c.state.gpr.map((_, i) => m.reg(i)), rip: m.rip, flags: m.flags, fp: takeFp(m) };
    const error = m.pending?.error ?? 0;
    return {
      vector,
      error,
      address: BigInt.asUintN(64, m.get(st.cr2) as bigint),
      state,
      changes: changesOf(before, m.bytes(DATA, DATA_BYTES)),
    };
  }

  /** Runs to the end; gives the vector. */
  #go(base: number): number {
    const m = this.#machine;
    for (let i = 0; i < MAX_STEPS; i++) {
      const at = Number(m.rip) + base - CODE;
      if (at >= 0 && at < CODE_BYTES && m.bytes(CODE + at, 1)[0] === 0xcc) {
        m.rip = m.rip + 1n;
        return 3;
      }
      if (m.step().outcome.how === 'fault') return m.pending!.vector;
    }
    return -1;
  }
}
