// Arithmetic of the 80-bit format as subroutines: add, subtract, multiply, divide, square root, compare, round to integer, scale,
// extract, remainder (Intel SDM volume 1, section 8.3; volume 2, the instructions' exception tables).

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import {
  BIAS, constant, denormal, divide, flag, indefinite, inexact, isBad, isMax, isNegative, isZero, lane1, mant, nan, normal,
  type Parts, pair, parts, precisionControl, round, roundingControl, roundsUp, Sw, shiftRightJam, TOP, withStatus,
} from './float80.ts'; // biome-ignore format: a list
import { type Sub, sub } from './sub.ts';
import { mulHighUnsigned as mulHigh } from './wide.ts';

const infinity = (c: Emit, sign: Value, status: Value): Value =>
  pair(c, c.b.i64(TOP), c.b.or(c.b.or(sign, c.b.i64(0x7fff)), status));
const zero = (c: Emit, sign: Value, status: Value): Value => pair(c, c.b.i64(0), c.b.or(sign, status));
/** The operand itself; a pseudo-denormal becomes the normal number that it is. */
function asIs(c: Emit, p: Parts): Value {
  const { b } = c;
  const pseudo = b.and(b.eqz(p.e), b.lts(p.m, b.i64(0)));
  return pair(c, p.m, b.or(p.s, b.or(p.e, b.extu(pseudo))));
}
/** Returns `nan(x, y)` where either operand is a NaN or unsupported. */
function nanFirst(c: Emit, x: Value, y: Value, p: Parts, q: Parts): void {
  c.b.if(c.b.or(isBad(c, p), isBad(c, q)), () => c.b.ret(c.call(nan, x, y)));
}

/** x + y, or x - y with `flip` 0x8000 (else 0). */
const addition: Sub = sub('f80.addsub', ['v128', 'v128', 'i64'], 'v128', {}, (c, x, y, flip) => {
  const { b } = c;
  const [p, q] = [parts(c, x), parts(c, y)];
  nanFirst(c, x, y, p, q);
  const status = b.or(denormal(c, p), denormal(c, q));
  const qs = b.xor(q.s, flip);
  const differ = b.ne(p.s, qs);
  b.if(b.or(isMax(c, p), isMax(c, q)), () => {
    b.if(b.and(b.and(isMax(c, p), isMax(c, q)), differ), () => b.ret(indefinite(c, Sw.ie)));
    b.ret(infinity(c, b.select(isMax(c, p), p.s, qs), status));
  });
  const pe = b.add(p.e, b.extu(b.eqz(p.e)));
  const qe = b.add(q.e, b.extu(b.eqz(q.e)));
  const swap = b.ltu(pe, qe);
  const [e, m, s] = [b.select(swap, qe, pe), b.select(swap, q.m, p.m), b.select(swap, qs, p.s)];
  const [smallE, smallM, smallS] = [b.select(swap, pe, qe), b.select(swap, p.m, q.m), b.select(swap, p.s, qs)];
  const shifted = c.call(shiftRightJam, smallM, b.i64(0), b.sub(e, smallE));
  const [low, high] = [mant(c, shifted), lane1(c, shifted)];
  const pc = precisionControl(c);
  b.if(b.eqz(differ), () => {
    const sum = b.add(m, high);
    b.if(b.ltu(sum, m), () => {
      const l = b.or(b.or(b.shru(low, b.i64(1)), b.shl(sum, b.i64(63))), b.and(low, b.i64(1)));
      const h = b.or(b.shru(sum, b.i64(1)), b.i64(TOP));
      b.ret(withStatus(c, c.call(round, s, b.add(e, b.i64(1)), h, l, pc), status));
    });
    b.ret(withStatus(c, c.call(round, s, e, sum, low, pc), status));
  });
  // The smaller exponent can hold the larger magnitude only where both are equal: nothing was shifted out then.
  b.if(b.ltu(m, high), () => b.ret(withStatus(c, c.call(round, smallS, e, b.sub(high, m), b.i64(0), pc), status)));
  const h = b.sub(b.sub(m, high), b.extu(b.ne(low, b.i64(0))));
  const none = b.eqz(b.or(h, low));
  const zeroSign = b.shl(b.extu(b.eq(roundingControl(c), b.i32(1))), b.i64(15));
  b.ret(withStatus(c, c.call(round, b.select(none, zeroSign, s), e, h, b.neg(low), pc), status));
});

export const add: Sub = sub('f80.add', ['v128', 'v128'], 'v128', {}, (c, x, y) => c.b.ret(c.call(addition, x, y, c.b.i64(0))));
export const subtract: Sub = sub('f80.sub', ['v128', 'v128'], 'v128', {}, (c, x, y) =>
  c.b.ret(c.call(addition, x, y, c.b.i64(0x8000))),
);

export const multiply: Sub = sub('f80.mul', ['v128', 'v128'], 'v128', {}, (c, x, y) => {
  const { b } = c;
  const [p, q] = [parts(c, x), parts(c, y)];
  nanFirst(c, x, y, p, q);
  const s = b.xor(p.s, q.s);
  const status = b.or(denormal(c, p), denormal(c, q));
  b.if(b.or(isMax(c, p), isMax(c, q)), () => {
    b.if(b.or(isZero(c, p), isZero(c, q)), () => b.ret(indefinite(c, Sw.ie)));
    b.ret(infinity(c, s, status));
  });
  b.if(b.or(isZero(c, p), isZero(c, q)), () => b.ret(zero(c, s, status)));
  const [n, o] = [normal(c, p), normal(c, q)];
  const e = b.sub(b.add(n.e, o.e), b.i64(BIAS - 1));
  b.ret(withStatus(c, c.call(round, s, e, mulHigh(c, n.m, o.m), b.mul(n.m, o.m), precisionControl(c)), status));
});

/** x / y. */
export const quotient: Sub = sub('f80.div', ['v128', 'v128'], 'v128', {}, (c, x, y) => {
  const { b } = c;
  const [p, q] = [parts(c, x), parts(c, y)];
  nanFirst(c, x, y, p, q);
  const s = b.xor(p.s, q.s);
  const status = b.or(denormal(c, p), denormal(c, q));
  b.if(isMax(c, p), () => {
    b.if(isMax(c, q), () => b.ret(indefinite(c, Sw.ie)));
    b.ret(infinity(c, s, status));
  });
  b.if(isMax(c, q), () => b.ret(zero(c, s, status)));
  b.if(isZero(c, q), () => {
    b.if(isZero(c, p), () => b.ret(indefinite(c, Sw.ie)));
    b.ret(infinity(c, s, b.i64(flag(Sw.ze))));
  });
  b.if(isZero(c, p), () => b.ret(zero(c, s, status)));
  const [n, d] = [normal(c, p), normal(c, q)];
  const big = b.geu(n.m, d.m);
  const high = b.select(big, b.shru(n.m, b.i64(1)), n.m);
  const low = b.select(big, b.shl(n.m, b.i64(63)), b.i64(0));
  const r = c.call(divide, high, low, d.m);
  const left = lane1(c, r);
  // What is left, as a fraction of the divisor, matters only against one half.
  const other = b.sub(d.m, left);
  const half = b.select(b.geu(left, other), b.i64(TOP), b.i64(0));
  const rest = b.or(half, b.extu(b.and(b.ne(left, b.i64(0)), b.ne(left, other))));
  const e = b.add(b.sub(n.e, d.e), b.add(b.i64(BIAS - 1), b.extu(big)));
  b.ret(withStatus(c, c.call(round, s, e, mant(c, r), rest, precisionControl(c)), status));
});

export const squareRoot: Sub = sub('f80.sqrt', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const p = parts(c, x);
  nanFirst(c, x, x, p, p);
  b.if(isZero(c, p), () => b.ret(x));
  b.if(isNegative(c, p), () => b.ret(indefinite(c, Sw.ie)));
  b.if(isMax(c, p), () => b.ret(x));
  const n = normal(c, p);
  // The radicand is high:low with 127 or 128 bits, so that the exponent is even and the root has 64 bits.
  const odd = b.wrap(b.and(b.sub(n.e, b.i64(BIAS)), b.i64(1)));
  const high = b.select(odd, n.m, b.shru(n.m, b.i64(1)));
  const low = b.select(odd, b.i64(0), b.shl(n.m, b.i64(63)));
  const estimate = b.op('f64.mul', b.op('f64.sqrt', b.op('f64.convert_i64_u', high)), b.f64(2 ** 32));
  const a = b.op('i64.trunc_sat_f64_u', estimate);
  // One Newton step from 53 bits: (radicand - a^2) / 2a, with 16 bits less on both sides of the division.
  const squareLow = b.mul(a, a);
  const errorHigh = b.sub(b.sub(high, mulHigh(c, a, a)), b.extu(b.ltu(low, squareLow)));
  const error = b.or(b.shl(errorHigh, b.i64(48)), b.shru(b.sub(low, squareLow), b.i64(16)));
  const step = b.op('f64.div', b.op('f64.convert_i64_s', error), b.op('f64.mul', estimate, b.f64(2 ** -15)));
  const root = b.variable(b.sub(b.add(a, b.op('i64.trunc_sat_f64_s', b.op('f64.floor', step))), b.i64(1)));
  const first = b.getVar(root);
  const firstLow = b.mul(first, first);
  const restLow = b.variable(b.sub(low, firstLow));
  const restHigh = b.variable(b.sub(b.sub(high, mulHigh(c, first, first)), b.extu(b.ltu(low, firstLow))));
  // (r + 1)^2 = r^2 + 2r + 1: step up while the rest allows it.
  b.loop((again) => {
    const [r, rh, rl] = [b.getVar(root), b.getVar(restHigh), b.getVar(restLow)];
    const growLow = b.or(b.shl(r, b.i64(1)), b.i64(1));
    const growHigh = b.shru(r, b.i64(63));
    const fits = b.or(b.gtu(rh, growHigh), b.and(b.eq(rh, growHigh), b.geu(rl, growLow)));
    b.if(fits, () => {
      b.setVar(root, b.add(r, b.i64(1)));
      b.setVar(restHigh, b.sub(b.sub(rh, growHigh), b.extu(b.ltu(rl, growLow))));
      b.setVar(restLow, b.sub(rl, growLow));
      b.br(again);
    });
  });
  const [r, rh, rl] = [b.getVar(root), b.getVar(restHigh), b.getVar(restLow)];
  const above = b.or(b.ne(rh, b.i64(0)), b.gtu(rl, r));
  const rest = b.select(above, b.i64(TOP | 1n), b.extu(b.ne(rl, b.i64(0))));
  const e = b.add(b.shrs(b.sub(n.e, b.i64(BIAS)), b.i64(1)), b.i64(BIAS));
  b.ret(withStatus(c, c.call(round, b.i64(0), e, r, rest, precisionControl(c)), denormal(c, p)));
});

/** Compares: C3 equal, C0 x < y, all three unordered; with IE and DE, as i32. `quiet` (i32): quiet NaNs are not invalid. */
export const compare: Sub = sub('f80.compare', ['v128', 'v128', 'i32'], 'i32', {}, (c, x, y, quiet) => {
  const { b } = c;
  const [p, q] = [parts(c, x), parts(c, y)];
  b.if(b.or(isBad(c, p), isBad(c, q)), () => {
    const signals = b.wrap(b.shru(lane1(c, c.call(nan, x, y)), b.i64(32)));
    const unordered = b.i32(Sw.c0 | Sw.c2 | Sw.c3);
    b.ret(b.or(unordered, b.select(quiet, b.and(signals, b.i32(Sw.ie)), b.i32(Sw.ie))));
  });
  const status = b.wrap(b.shru(b.or(denormal(c, p), denormal(c, q)), b.i64(32)));
  const [pe, qe] = [b.add(p.e, b.extu(b.eqz(p.e))), b.add(q.e, b.extu(b.eqz(q.e)))];
  const equal = b.and(b.eq(p.m, q.m), b.or(b.and(b.eq(pe, qe), b.eq(p.s, q.s)), b.eqz(p.m)));
  const smaller = b.or(b.ltu(pe, qe), b.and(b.eq(pe, qe), b.ltu(p.m, q.m)));
  const zeros = b.eqz(b.or(p.m, q.m));
  const less = b.select(b.ne(p.s, q.s), isNegative(c, p), b.xor(smaller, isNegative(c, p)));
  const order = b.select(b.or(equal, zeros), b.i32(Sw.c3), b.select(less, b.i32(Sw.c0), b.i32(0)));
  b.ret(b.or(status, order));
});

export const roundToInteger: Sub = sub('f80.rint', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const p = parts(c, x);
  nanFirst(c, x, x, p, p);
  b.if(b.or(isZero(c, p), b.geu(p.e, b.i64(BIAS + 63))), () => b.ret(x));
  const n = b.sub(b.i64(BIAS + 63), b.add(p.e, b.extu(b.eqz(p.e))));
  const shifted = c.call(shiftRightJam, p.m, b.i64(0), n);
  const [high, rest] = [lane1(c, shifted), mant(c, shifted)];
  const up = roundsUp(c, roundingControl(c), isNegative(c, p), b.wrap(b.and(high, b.i64(1))), rest);
  const whole = b.add(high, b.extu(up));
  const status = b.or(denormal(c, p), inexact(c, rest, up));
  b.if(b.eqz(whole), () => b.ret(zero(c, p.s, status)));
  const zeros = b.clz(whole);
  b.ret(pair(c, b.shl(whole, zeros), b.or(b.or(p.s, b.sub(b.i64(BIAS + 63), zeros)), status)));
});

/** x * 2^trunc(y). */
export const scale: Sub = sub('f80.scale', ['v128', 'v128'], 'v128', {}, (c, x, y) => {
  const { b } = c;
  const [p, q] = [parts(c, x), parts(c, y)];
  nanFirst(c, x, y, p, q);
  const status = b.or(denormal(c, p), denormal(c, q));
  b.if(isMax(c, q), () => {
    b.if(isNegative(c, q), () => {
      b.if(isMax(c, p), () => b.ret(indefinite(c, Sw.ie)));
      b.ret(zero(c, p.s, status));
    });
    b.if(isZero(c, p), () => b.ret(indefinite(c, Sw.ie)));
    b.ret(infinity(c, p.s, status));
  });
  b.if(b.or(isMax(c, p), isZero(c, p)), () => b.ret(withStatus(c, x, status)));
  // Scaling by zero does not underflow, though the result is denormal.
  b.if(isZero(c, q), () => b.ret(withStatus(c, asIs(c, p), status)));
  const n = normal(c, p);
  // 16 bits of scale cover every exponent twice over; more only means more.
  const places = b.sub(b.i64(BIAS + 63), q.e);
  const large = b.gtu(q.e, b.i64(BIAS + 15));
  const small = b.ltu(q.e, b.i64(BIAS));
  const magnitude = b.select(large, b.i64(0x10000), b.select(small, b.i64(0), b.shru(q.m, b.and(places, b.i64(63)))));
  const by = b.select(isNegative(c, q), b.neg(magnitude), magnitude);
  b.ret(withStatus(c, c.call(round, p.s, b.add(n.e, by), n.m, b.i64(0), b.i32(3)), status));
});

/** The exponent of x as a number (FXTRACT): -infinity and ZE for zero. */
export const exponentOf: Sub = sub('f80.exponent', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const p = parts(c, x);
  nanFirst(c, x, x, p, p);
  b.if(isMax(c, p), () => b.ret(infinity(c, b.i64(0), b.i64(0))));
  b.if(isZero(c, p), () => b.ret(constant(c, 0xffff, TOP, Sw.ze)));
  const e = b.sub(normal(c, p).e, b.i64(BIAS));
  const s = b.and(b.shru(e, b.i64(48)), b.i64(0x8000));
  const m = b.select(b.lts(e, b.i64(0)), b.neg(e), e);
  const value = c.call(round, s, b.i64(BIAS + 63), m, b.i64(0), b.i32(3));
  b.ret(withStatus(c, value, denormal(c, p)));
});

/** The significand of x, 1 to 2 with x's sign (FXTRACT); zero and infinity stay what they are. */
export const significandOf: Sub = sub('f80.significand', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const p = parts(c, x);
  nanFirst(c, x, x, p, p);
  b.if(b.or(isMax(c, p), isZero(c, p)), () => b.ret(x));
  b.ret(pair(c, normal(c, p).m, b.or(p.s, b.i64(BIAS))));
});

/**
 * FPREM and, with `nearest` (i32), FPREM1: the exact remainder of x / y, with C0, C3, C1 holding the quotient's low three bits, or C2 and
 * a partial remainder where the exponents are 64 or more apart.
 */
export const remainder: Sub = sub('f80.rem', ['v128', 'v128', 'i32'], 'v128', {}, (c, x, y, nearest) => {
  const { b } = c;
  const [p, q] = [parts(c, x), parts(c, y)];
  nanFirst(c, x, y, p, q);
  const status = b.or(denormal(c, p), denormal(c, q));
  b.if(b.or(isMax(c, p), isZero(c, q)), () => b.ret(indefinite(c, Sw.ie)));
  b.if(isZero(c, p), () => b.ret(withStatus(c, x, status)));
  const [n, d] = [normal(c, p), normal(c, q)];
  b.if(isMax(c, q), () => b.ret(withStatus(c, asIs(c, p), status)));
  const distance = b.sub(n.e, d.e);
  const finish = (sign: Value, e: Value, m: Value, bits: Value): void => {
    // A masked underflow cannot happen inexactly here; precision control does not apply.
    b.ret(withStatus(c, c.call(round, sign, e, m, b.i64(0), b.i32(3)), b.or(status, bits)));
  };
  b.if(b.ges(distance, b.i64(64)), () => {
    const by = b.or(b.and(distance, b.i64(31)), b.i64(32));
    const r = c.call(divide, b.shru(n.m, b.sub(b.i64(64), by)), b.shl(n.m, by), d.m);
    finish(p.s, b.sub(n.e, by), lane1(c, r), b.i64(flag(Sw.c2)));
  });
  b.if(b.lts(distance, b.i64(-1)), () => finish(p.s, n.e, n.m, b.i64(0)));
  // At distance -1 the quotient is 0 but may round to 1.
  const below = b.lts(distance, b.i64(0));
  const up = b.sub(b.i64(64), distance);
  const high = b.select(b.les(distance, b.i64(0)), b.i64(0), b.shru(n.m, up));
  const whole = c.call(divide, high, b.shl(n.m, b.select(below, b.i64(0), distance)), d.m);
  const q0 = b.select(below, b.i64(0), mant(c, whole));
  const r0 = b.select(below, n.m, lane1(c, whole));
  // Against half a divisor: d.m in units of the dividend below, else by the distance to the next multiple.
  const other = b.select(below, d.m, b.sub(d.m, r0));
  const [above, exactHalf] = [b.gtu(r0, other), b.eq(r0, other)];
  const odd = b.wrap(b.and(q0, b.i64(1)));
  const roundUp = b.and(nearest, b.or(above, b.and(exactHalf, odd)));
  const q1 = b.add(q0, b.extu(roundUp));
  const bit = (from: number, to: number): Value => b.shl(b.and(b.shru(q1, b.i64(from)), b.i64(1)), b.i64(32 + to));
  const bits = b.or(b.or(bit(0, 9), bit(1, 14)), bit(2, 8));
  b.if(b.eqz(roundUp), () => {
    b.if(b.eqz(r0), () => b.ret(zero(c, p.s, b.or(status, bits))));
    finish(p.s, b.select(below, n.e, d.e), r0, bits);
  });
  // Below, the divisor is 2 d.m in units of the dividend: 2 d.m - r0 lies in (0, d.m].
  const m = b.select(below, b.sub(b.shl(d.m, b.i64(1)), r0), b.sub(d.m, r0));
  finish(b.xor(p.s, b.i64(0x8000)), b.select(below, n.e, d.e), m, bits);
});
