// The common case of x87 arithmetic, in few instructions: normal operands and a normal result, rounded to nearest with 64 bits and PE
// masked, as programs leave the control word that FNINIT sets (Intel SDM volume 1, section 8.1.5). Whatever is not so falls through to
// the whole operation (float80-arith.ts), which gives the same results here.

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { BIAS, lane1, mant, pair, roundsUpToNearest, Sw } from './float80.ts';
import { fpCw, fpSw } from './state.ts';
import { mulHighUnsigned } from './wide.ts';

/** Rounding control, precision control and the mask of PE, and what they are. */
const CONTROL = 0xf20;
const PLAIN = 0x320;

/** A value as it lies in a register: significand, and sign and exponent with whatever status bits came along; i64. */
export interface Raw {
  readonly m: Value;
  readonly h: Value;
}
/** What a quick way came to, without status bits, and how it goes into the status word (i32: PE, C1). */
export type Done = (result: Value, status: Value) => void;
/** Calls `done` where x and y are quick to compute with; whatever that emits has to leave. */
export type Quick = (c: Emit, x: Raw, y: Raw, done: Done) => void;

export const raw = (c: Emit, v: Value): Raw => ({ m: mant(c, v), h: lane1(c, v) });

/** i32 0 or 1: the control word is as programs have it. */
export const plainControl = (c: Emit): Value => c.b.eq(c.b.and(c.get(fpCw), c.b.i32(CONTROL)), c.b.i32(PLAIN));
/** Enters exceptions that are masked, and C1, into the status word. */
export const enter = (c: Emit, status: Value): void => c.set(fpSw, c.b.or(c.b.and(c.get(fpSw), c.b.i32(~Sw.c1)), status));

const exponent = (c: Emit, x: Raw): Value => c.b.and(x.h, c.b.i64(0x7fff));
const sign = (c: Emit, x: Raw): Value => c.b.and(x.h, c.b.i64(0x8000));
/** i32 0 or 1: exponents of both from 1 to 0x7ffe, the integer bits set, no status. */
function bothNormal(c: Emit, x: Raw, y: Raw): Value {
  const { b } = c;
  const inner = (v: Raw): Value => b.ltu(b.sub(exponent(c, v), b.i64(1)), b.i64(0x7ffe));
  const whole = b.and(b.lts(b.and(x.m, y.m), b.i64(0)), b.ltu(b.or(x.h, y.h), b.i64(0x10000)));
  return b.and(whole, b.and(inner(x), inner(y)));
}
/** Rounds `high:low`, whose top bit is set. */
function rounded(c: Emit, s: Value, e: Value, high: Value, low: Value, done: Done): void {
  const { b } = c;
  const up = roundsUpToNearest(c, b.and(high, b.i64(1)), low);
  const sum = b.add(high, b.extu(up));
  const carry = b.extu(b.eqz(sum));
  // What rounds to a larger exponent is within the range, too.
  b.if(b.ltu(b.sub(e, b.i64(1)), b.i64(0x7ffd)), () => {
    const result = pair(c, b.or(sum, b.shl(carry, b.i64(63))), b.or(s, b.add(e, carry)));
    done(result, b.or(b.shl(b.ne(low, b.i64(0)), b.i32(5)), b.shl(up, b.i32(9))));
  });
}
/** `high:low` shifted left by `n` (i64, 0 to 63). */
function shiftedUp(c: Emit, high: Value, low: Value, n: Value): [Value, Value] {
  const { b } = c;
  return [b.or(b.shl(high, n), b.shru(b.shru(low, b.i64(1)), b.sub(b.i64(63), n))), b.shl(low, n)];
}

export const quickMultiply: Quick = (c, x, y, done) => {
  const { b } = c;
  b.if(bothNormal(c, x, y), () => {
    const product = mulHighUnsigned(c, x.m, y.m);
    // The product of two numbers from 1 to 2 is one from 1 to 4.
    const n = b.xor(b.shru(product, b.i64(63)), b.i64(1));
    const [high, low] = shiftedUp(c, product, b.mul(x.m, y.m), n);
    const e = b.sub(b.sub(b.add(exponent(c, x), exponent(c, y)), b.i64(BIAS - 1)), n);
    rounded(c, b.xor(sign(c, x), sign(c, y)), e, high, low, done);
  });
};

function sum(c: Emit, x: Raw, y: Raw, flip: bigint, done: Done): void {
  const { b } = c;
  const [xe, ye] = [exponent(c, x), exponent(c, y)];
  const swap = b.ltu(xe, ye);
  const distance = b.select(swap, b.sub(ye, xe), b.sub(xe, ye));
  b.if(b.and(bothNormal(c, x, y), b.ltu(distance, b.i64(64))), () => {
    const ys = b.xor(sign(c, y), b.i64(flip));
    const [e, m, s] = [b.select(swap, ye, xe), b.select(swap, y.m, x.m), b.select(swap, ys, sign(c, x))];
    const small = b.select(swap, x.m, y.m);
    const part = b.shru(small, distance);
    const lost = b.shl(b.shl(small, b.i64(1)), b.sub(b.i64(63), distance));
    b.if(
      b.eq(sign(c, x), ys),
      () => {
        const total = b.add(m, part);
        const carry = b.extu(b.ltu(total, m));
        const high = b.or(b.shru(total, carry), b.shl(carry, b.i64(63)));
        const low = b.or(b.or(b.shru(lost, carry), b.shl(b.and(total, carry), b.i64(63))), b.and(lost, carry));
        rounded(c, s, b.add(e, carry), high, low, done);
      },
      () => {
        // The one with the smaller exponent is the larger one only where both exponents are equal, and nothing is lost.
        const less = b.ltu(m, part);
        const rest = b.select(less, b.sub(part, m), b.sub(b.sub(m, part), b.extu(b.ne(lost, b.i64(0)))));
        b.if(b.ne(rest, b.i64(0)), () => {
          const n = b.clz(rest);
          const [high, low] = shiftedUp(c, rest, b.neg(lost), n);
          rounded(c, b.xor(s, b.shl(b.extu(less), b.i64(15))), b.sub(e, n), high, low, done);
        });
      },
    );
  });
}
export const quickAdd: Quick = (c, x, y, done) => sum(c, x, y, 0n, done);
export const quickSubtract: Quick = (c, x, y, done) => sum(c, x, y, 0x8000n, done);
