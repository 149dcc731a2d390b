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
  codePlace,
  DATA,
  DATA_BYTES,
  EDGE,
  GS_BASE,
  type Mode,
  pristineData,
  type Result,
  State,
  WRITABLE_BYTES,
} from './case.ts';

/** Instructions, counted once for each burst of a repeated one, after which a case counts as endless: more than a loop of fifteen with a 16-bit counter takes. */
const MAX_STEPS = 1_000_000;
/** Bit of the slot `mxcsr` that asks for every exception flag: see rows/sse.ts. */
const EXACT = 1 << 31;

const TF = 0x100;

/** Something that runs cases as the host does. */
export interface Runner {
  readonly name: string;
  /** Arithmetic flags are exact where an instruction faults, even those that it overwrites when it is resumed. */
  readonly flagsAtFaults: boolean;
  /** Said of cases that come next: what is made once for all of them need not be made one by one. */
  prepare?(cases: readonly Case[]): void;
  run(c: Case): Result;
}

/** Writes general registers and floating-point state into the slots of the vCPU whose state lies at `env`. */
export function putRegisters(view: DataView, env: number, { gpr, fp }: State): void {
  const top = (fp.fsw >> 11) & 7;
  for (let i = 0; i < 16; i++) view.setBigUint64(env + st.gpr[i]!.offset, gpr[i]!, true);
  view.setInt32(env + st.fpCw.offset, fp.fcw, true);
  view.setInt32(env + st.fpSw.offset, fp.fsw & ~0x3800, true);
  view.setInt32(env + st.fpTop.offset, top, true);
  view.setInt32(env + st.fpValid.offset, fp.ftw, true);
  view.setInt32(env + st.mxcsr.offset, fp.mxcsr | EXACT, true);
  for (let i = 0; i < 8; i++) {
    const { mant, exp } = st.fpr[(top + i) & 7]!;
    view.setBigUint64(env + mant.offset, fp.view.getBigUint64(fp.at('st', i), true), true);
    view.setBigUint64(env + exp.offset, BigInt(fp.view.getUint16(fp.at('st', i) + 8, true)), true);
  }
  const bytes = new Uint8Array(view.buffer, view.byteOffset);
  for (let i = 0; i < 16; i++) {
    copy16(fp.bytes, fp.at('xmm', i), bytes, env + st.xmm[i]!.offset);
    copy16(fp.bytes, fp.at('ymm', i), bytes, env + st.ymmHigh[i]!.offset);
  }
}

/** Reads them back. */
export function takeRegisters(view: DataView, env: number): State {
  const s = new State();
  const { gpr, fp } = s;
  const top = view.getInt32(env + st.fpTop.offset, true);
  for (let i = 0; i < 16; i++) gpr[i] = view.getBigUint64(env + st.gpr[i]!.offset, true);
  fp.fcw = view.getInt32(env + st.fpCw.offset, true);
  fp.fsw = view.getInt32(env + st.fpSw.offset, true) | (top << 11);
  fp.ftw = view.getInt32(env + st.fpValid.offset, true);
  fp.mxcsr = view.getInt32(env + st.mxcsr.offset, true) & 0xffff;
  for (let i = 0; i < 8; i++) {
    const { mant, exp } = st.fpr[(top + i) & 7]!;
    fp.view.setBigUint64(fp.at('st', i), view.getBigUint64(env + mant.offset, true), true);
    fp.view.setUint16(fp.at('st', i) + 8, view.getUint16(env + exp.offset, true), true);
  }
  const bytes = new Uint8Array(view.buffer, view.byteOffset);
  for (let i = 0; i < 16; i++) {
    copy16(bytes, env + st.xmm[i]!.offset, fp.bytes, fp.at('xmm', i));
    copy16(bytes, env + st.ymmHigh[i]!.offset, fp.bytes, fp.at('ymm', i));
  }
  return s;
}
function copy16(from: Uint8Array, at: number, to: Uint8Array, place: number): void {
  for (let i = 0; i < 16; i++) to[place + i] = from[at + i]!;
}

export const SEGMENTS = [S.es, S.cs, S.ss, S.ds, S.fs, S.gs] as const;
/** What the host has in segment register `n` when a case begins. */
export function selectorOf(mode: Mode, n: number): number {
  if (n === S.fs || n === S.gs) return 0;
  if (mode === 16) return n === S.cs ? 0x07 : 0x0f;
  if (n === S.cs) return mode === 64 ? 0x33 : 0x23;
  return mode === 64 && n !== S.ss ? 0 : 0x2b;
}
/** The segments of 16-bit cases. */
export function setSegments16(set: (slot: Slot, value: number | bigint) => void): void {
  for (const n of [S.es, S.cs, S.ss, S.ds]) {
    set(st.segBase[n]!, BigInt(n === S.cs ? CODE : DATA));
    set(st.segLimit[n]!, n === S.cs ? CODE_BYTES - 1 : 0xffff);
    set(st.segAttr[n]!, n === S.cs ? 0xfb : 0xf3);
  }
}

/** The data pages of one case after the other, as they are before it runs. */
export class DataPages {
  readonly #pristine = pristineData();
  readonly #before = this.#pristine.slice();
  readonly #view = new DataView(this.#before.buffer);
  #patched: Case['patches'] = [];

  /** Those of a case: they hold until the next one's. */
  of(c: Case): Uint8Array {
    for (const { offset } of this.#patched) this.#before.set(this.#pristine.subarray(offset, offset + 8), offset);
    this.#patched = c.patches.filter((p) => p.offset <= DATA_BYTES - 8);
    for (const p of this.#patched) this.#view.setBigUint64(p.offset, p.value, true);
    return this.#before;
  }
  /** Aligned words that differ from them, as `Result` has them. */
  changes(after: Uint8Array): Map<number, bigint> {
    const changes = new Map<number, bigint>();
    const before = this.#before;
    // Most of it is as it was.
    for (let from = 0; from < DATA_BYTES; from += 512) {
      if (Buffer.compare(before.subarray(from, from + 512), after.subarray(from, from + 512)) === 0) continue;
      const view = new DataView(after.buffer, after.byteOffset, DATA_BYTES);
      for (let i = from; i < from + 512; i += 8) {
        const value = view.getBigUint64(i, true);
        if (value !== this.#view.getBigUint64(i, true)) changes.set(i, value);
      }
    }
    return changes;
  }
}

export class Evaluator implements Runner {
  readonly name = 'eval';
  readonly flagsAtFaults = true;
  readonly #machine: EvalMachine;
  readonly #data = new DataPages();
  /** The vCPU's state before a case of each mode. */
  readonly #start: Readonly<Record<Mode, Uint8Array>>;

  constructor(tables: Tables) {
    const m = new EvalMachine(tables);
    m.map(CODE, CODE_BYTES, false);
    m.map(EDGE, CODE_BYTES, false);
    m.map(DATA, WRITABLE_BYTES, true, false);
    m.map(DATA + WRITABLE_BYTES, DATA_BYTES - WRITABLE_BYTES, false, false);
    this.#machine = m;
    this.#start = { 64: this.#startOf(64), 32: this.#startOf(32), 16: this.#startOf(16) };
  }
  #state(): Uint8Array {
    return new Uint8Array(this.#machine.memory.buffer, this.#machine.env, st.STATE_BYTES);
  }
  #startOf(mode: Mode): Uint8Array {
    const m = this.#machine;
    if (mode === 64) m.longMode(3);
    else m.compatibilityMode(3);
    if (mode === 16) setSegments16((slot, value) => void m.set(slot, value));
    // AVX is open.
    m.set(st.cr4, (m.get(st.cr4) as bigint) | 0x40000n);
    m.set(st.xcr0, 7n);
    m.call(updateContext);
    m.set(st.segBase[S.gs]!, mode === 64 ? BigInt(GS_BASE) : 0n);
    for (const n of SEGMENTS) m.set(st.segSelector[n]!, selectorOf(mode, n));
    m.clearPending();
    m.set(st.cr2, 0n);
    return this.#state().slice();
  }

  run(c: Case): Result {
    const m = this.#machine;
    for (const at of [BigInt(CODE), EDGE]) {
      m.bytes(at, CODE_BYTES).fill(0xcc);
      m.bytes(at + BigInt(codePlace(c.mode, c.state.rip)), c.code.length).set(c.code);
    }
    m.bytes(DATA, DATA_BYTES).set(this.#data.of(c));
    this.#state().set(this.#start[c.mode]);
    putRegisters(m.memory, m.env, c.state);
    m.rip = c.state.rip;
    m.flags = c.state.flags;
    const vector = this.#go(c.mode);
    const state = takeRegisters(m.memory, m.env);
    state.rip = m.rip;
    state.flags = m.flags;
    return {
      vector,
      error: m.pending?.error ?? 0,
      address: BigInt.asUintN(64, m.get(st.cr2) as bigint),
      state,
      changes: this.#data.changes(m.bytes(DATA, DATA_BYTES)),
    };
  }

  /** Runs to the end; gives the vector. */
  #go(mode: Mode): number {
    const m = this.#machine;
    for (let i = 0; i < MAX_STEPS; i++) {
      const at = codePlace(mode, m.rip);
      if (at >= 0 && at < CODE_BYTES && m.bytes(CODE + at, 1)[0] === 0xcc) {
        m.rip = m.rip + 1n;
        return 3;
      }
      const steps = ((m.get(st.sysFlags) as number) & TF) !== 0;
      if (steps) m.set(st.stepTrap, st.Trap.step);
      if (m.step().outcome.how === 'fault') return m.pending!.vector;
      // The machine delivers nothing, single-step traps neither.
      if (steps) return 1;
    }
    return -1;
  }
}
