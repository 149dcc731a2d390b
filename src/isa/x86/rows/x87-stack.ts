// The x87 register stack and its exceptions: what every x87 instruction is made of (Intel SDM volume 1, sections 8.1, 8.5 and 8.6).

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { clean, indefinite, Sw, statusOf } from '../float80.ts';
import { enter, type Raw } from '../float80-quick.ts';
import { cr0, fpCw, fpDp, fpIp, fpr, fpSw, fpTop, fpValid, X } from '../state.ts';
import { type Sub, sub } from '../sub.ts';

const FIRST = fpr[0].mant.offset;
const STRIDE = fpr[1].mant.offset - FIRST;

/** Physical number of ST(i), i32. */
export const physical = (c: Emit, i: Value): Value => c.b.and(c.b.add(c.get(fpTop), i), c.b.i32(7));
const place = (c: Emit, i: Value): Value => c.b.add(c.b.env, c.b.mul(physical(c, i), c.b.i32(STRIDE)));
/** ST(i) as a v128, whatever its tag. */
export const readSt = (c: Emit, i: Value): Value => c.b.raw('v128', place(c, i), FIRST);
/** ST(i) as integers, whatever its tag. */
export const readRaw = (c: Emit, i: Value): Raw => ({
  m: c.b.raw('i64', place(c, i), FIRST),
  h: c.b.raw('i64', place(c, i), FIRST + 8),
});
/** Writes ST(i) without touching its tag; `v` has no status bits. */
export const writeSt = (c: Emit, i: Value, v: Value): void => c.b.setRaw('v128', place(c, i), v, FIRST);
/** i32 0 or 1: ST(i) is not empty. */
export const isValid = (c: Emit, i: Value): Value => c.b.and(c.b.shru(c.get(fpValid), physical(c, i)), c.b.i32(1));
/** Marks ST(i) as not empty. */
export const markValid = (c: Emit, i: Value): void => c.set(fpValid, c.b.or(c.get(fpValid), c.b.shl(c.b.i32(1), physical(c, i))));
/** i32 0 or 1: neither ST(i) nor ST(j) is empty. */
export function bothValid(c: Emit, i: Value, j: Value): Value {
  const { b } = c;
  const needed = b.or(b.shl(b.i32(1), physical(c, i)), b.shl(b.i32(1), physical(c, j)));
  return b.eq(b.and(c.get(fpValid), needed), needed);
}
/** Frees ST(0) and moves TOP where `n` (i32) is 1; does nothing where it is 0. */
export function pop(c: Emit, n: Value): void {
  const { b } = c;
  const top = c.get(fpTop);
  c.set(fpValid, b.and(c.get(fpValid), b.not(b.shl(n, top))));
  c.set(fpTop, b.and(b.add(top, n), b.i32(7)));
}
/** ST(i), or the indefinite NaN with a stack fault where it is empty. */
export const operand: Sub = sub('x87.operand', ['i32'], 'v128', {}, (c, i) => {
  const { b } = c;
  b.if(isValid(c, i), () => b.ret(readSt(c, i)));
  b.ret(indefinite(c, Sw.ie | Sw.sf));
});

const EARLY = Sw.ie | Sw.de | Sw.ze;

/**
 * Enters exceptions and C1 (i32, status word bits) into the status word; gives those that are unmasked. Where IE, DE or ZE is among
 * them, the instruction has no result, so nothing that concerns a result is entered either.
 */
export const except: Sub = sub('x87.except', ['i32'], 'i32', {}, (c, status) => {
  const { b } = c;
  const unmasked = b.and(b.and(status, b.not(c.get(fpCw))), b.i32(0x3f));
  const early = b.and(unmasked, b.i32(EARLY));
  const kept = b.select(b.and(b.ne(early, b.i32(0)), b.eqz(b.and(status, b.i32(Sw.sf)))), b.and(status, b.i32(EARLY)), status);
  const summary = b.select(unmasked, b.i32(Sw.es | Sw.busy), b.i32(0));
  c.set(fpSw, b.or(b.and(c.get(fpSw), b.i32(~Sw.c1)), b.or(kept, summary)));
  b.ret(unmasked);
});
/** Enters exceptions, as `except` does; in line where none of them is unmasked. */
export function settle(c: Emit, status: Value): void {
  const { b } = c;
  b.if(
    b.and(b.and(status, b.not(c.get(fpCw))), b.i32(0x3f)),
    () => c.do(except, status),
    () => enter(c, status),
  );
}
/** As `except`; gives 1 where the result is to be written, 0 where an unmasked exception forbids it. */
export const proceeds = (c: Emit, status: Value): Value => c.b.eqz(c.b.and(c.call(except, status), c.b.i32(EARLY)));

/** Ends an instruction with result `v` (status bits in lane 1) for ST(i), popping `n` (0 or 1) times afterwards. */
export const finish: Sub = sub('x87.finish', ['i32', 'v128', 'i32'], null, {}, (c, i, v, n) => {
  c.b.if(proceeds(c, statusOf(c, v)), () => {
    writeSt(c, i, clean(c, v));
    markValid(c, i);
    pop(c, n);
  });
});

/** Pushes `v` (no status bits), whatever the register below TOP holds. */
export function pushOver(c: Emit, v: Value): void {
  c.set(fpTop, physical(c, c.b.i32(7)));
  writeSt(c, c.b.i32(0), v);
  markValid(c, c.b.i32(0));
}
/** i32 0 or 1: a push would overflow the stack. */
export const isFull = (c: Emit): Value => isValid(c, c.b.i32(7));

/** Pushes `v` (status bits in lane 1), or handles stack overflow. An unmasked DE does not keep it from being pushed. */
export const push: Sub = sub('x87.push', ['v128'], null, {}, (c, v) => {
  const { b } = c;
  b.if(b.eqz(b.or(statusOf(c, v), isFull(c))), () => {
    c.set(fpSw, b.and(c.get(fpSw), b.i32(~Sw.c1)));
    pushOver(c, v);
    b.ret();
  });
  const missing = b.and(statusOf(c, v), b.i32(Sw.sf));
  const value = c.choose('v128', b.and(isFull(c), b.eqz(missing)), () => indefinite(c, Sw.ie | Sw.sf | Sw.c1), () => v); // biome-ignore format: one choice
  const unmasked = c.call(except, statusOf(c, value));
  b.if(b.eqz(b.and(unmasked, b.i32(Sw.ie))), () => pushOver(c, clean(c, value)));
});

/** Recomputes ES and B after the control word or the status word was written. */
export function summarise(c: Emit): void {
  const { b } = c;
  const sw = b.and(c.get(fpSw), b.i32(~(Sw.es | Sw.busy)));
  const pending = b.and(b.and(sw, b.not(c.get(fpCw))), b.i32(0x3f));
  c.set(fpSw, b.or(sw, b.select(pending, b.i32(Sw.es | Sw.busy), b.i32(0))));
}

/** A pending unmasked exception: #MF with CR0.NE. Without it the instruction runs on, as with IGNNE# asserted. */
const pending: Sub = sub('x87.pending', [], null, { faults: true }, (c) => {
  c.raiseIf(c.b.wrap(c.b.and(c.get(cr0), c.b.i64(0x20))), X.mf);
  c.b.ret();
});
/** What every waiting instruction does first. */
export function wait(c: Emit): void {
  c.b.if(c.b.and(c.get(fpSw), c.b.i32(Sw.es)), () => c.do(pending));
}
/** Remembers the instruction, and the address of its memory operand, once nothing more can fault. */
export function note(c: InsnEmit, memory?: Operand): void {
  c.set(fpIp, c.thisIp());
  if (memory) c.set(fpDp, c.effective(memory));
}
/** Status word with TOP, i32. */
export const statusWord = (c: Emit): Value => c.b.or(c.get(fpSw), c.b.shl(c.get(fpTop), c.b.i32(11)));

/** An empty operand, or (`full`) no room for a second result: gives 1 where both results become indefinite, 0 where there are none. */
export const stackFault = (c: Emit, full: Value): Value =>
  proceeds(c, c.b.or(c.b.i32(Sw.ie | Sw.sf), c.b.select(full, c.b.i32(Sw.c1), c.b.i32(0))));
