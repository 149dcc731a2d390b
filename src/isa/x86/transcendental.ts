// FSIN, FCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1 (Intel SDM volume 1, section 8.3.7 to 8.3.10; special cases of volume 2's tables).
// Each is computed on 128-bit fractions to better than 2^-100 of its value and rounded once, so that the result is nearly always
// the correctly rounded one; arguments of the trigonometric functions are reduced by the processors' 66-bit pi.

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import {
  BIAS, constant, denormal, flag, indefinite, isBad, isMax, isNegative, isZero, nan, normal, type Parts, pair, parts, round,
  Sw, shiftRightJam, TOP, withStatus,
} from './float80.ts'; // biome-ignore format: a list
import { type Sub, sub } from './sub.ts';
import {
  below, choose, downBy, leadingZeros, minus, over, packed, plus, series, shiftLeft, times, type Wide, wide, wideConstant,
} from './wide-fraction.ts'; // biome-ignore format: a list

const ONE = 1n << 128n;
const factorial = (n: number): bigint => (n < 2 ? 1n : BigInt(n) * factorial(n - 1));
const upTo = <T>(n: number, f: (k: number) => T): T[] => Array.from({ length: n }, (_, k) => f(k));

const PI = 0xc90fdaa22168c234c4c6628b80dc1cd1n; // times 2^-126
const PI66 = 0x3243f6a8885a308d3n << 61n; // pi/2 of 66 bits, times 2^-126
const LN2 = 0xb17217f7d1cf79abc9e3b39803f2f6afn; // times 2^-128
const LOG2E = 0xb8aa3b295c17f0bbbe87fed0691d3e89n; // times 2^-127

const sinTail = series('sin', upTo(12, (k) => ONE / factorial(2 * k + 3)), true); // biome-ignore format: one series
const cosTail = series('cos', upTo(13, (k) => ONE / factorial(2 * k + 2)), true); // biome-ignore format: one series
const expTail = series('exp', upTo(25, (k) => ONE / factorial(k + 2)), false); // biome-ignore format: one series
const expTailNegative = series('exp.negative', upTo(25, (k) => ONE / factorial(k + 2)), true); // biome-ignore format: one series
const atanTail = series('atan', upTo(12, (k) => ONE / BigInt(2 * k + 3)), true); // biome-ignore format: one series
const atanhTail = series('atanh', upTo(18, (k) => ONE / BigInt(2 * k + 3)), false); // biome-ignore format: one series

/** Rounds m * 2^(e - 127), e unbiased, as an inexact result. */
const inexactly = (c: Emit, sign: Value, e: Value, m: Wide, status: Value): Value =>
  withStatus(c, c.call(round, sign, c.b.add(e, c.b.i64(BIAS)), m.h, c.b.or(m.l, c.b.i64(1)), c.b.i32(3)), status);
const withSign = (c: Emit, sign: Value, signExponent: number, significand: bigint, status = 0): Value =>
  c.b.op('v128.or', constant(c, signExponent, significand, status), pair(c, c.b.i64(0), sign));
const shiftRight = (c: Emit, x: Wide, n: Value): Wide => wide(c, c.call(shiftRightJam, x.h, x.l, n));
/** Below 2^-67 in magnitude the processors take sin x and tan x for x, and cos x for 1, in every rounding mode. */
const isTiny = (c: Emit, p: Parts): Value => c.b.lts(normal(c, p).e, c.b.i64(BIAS - 67));
/** The operand as an inexact result. */
function itself(c: Emit, p: Parts): Value {
  const { b } = c;
  const n = normal(c, p);
  const under = b.select(b.les(n.e, b.i64(0)), b.i64(flag(Sw.ue | Sw.pe)), b.i64(flag(Sw.pe)));
  return withStatus(c, c.call(round, p.s, n.e, n.m, b.i64(0), b.i32(3)), b.or(under, denormal(c, p)));
}
/** The square of m * 2^(e - 127) as a fraction, for e below 0. */
const squared = (c: Emit, m: Wide, e: Value): Value => {
  const { b } = c;
  const product = c.call(times, packed(c, m), packed(c, m));
  return packed(c, shiftRight(c, wide(c, product), b.sub(b.i64(-2), b.shl(e, b.i64(1)))));
};
const flipped = (c: Emit, sign: Value): Value => c.b.xor(sign, c.b.i64(0x8000));

// -- sine, cosine, tangent

/** i32 0 or 1: a finite argument of 2^63 or more, which the trigonometric instructions leave alone, with C2 set. */
export function isTooLarge(c: Emit, x: Value): Value {
  const p = parts(c, x);
  const finite = c.b.eqz(c.b.or(isMax(c, p), isBad(c, p)));
  return c.b.and(finite, c.b.geu(p.e, c.b.i64(BIAS + 63)));
}

/**
 * |x| = k * pi/2 + r or k * pi/2 - r, r at most pi/4: r as a normal fraction of 128 bits whose low ones, always zero, hold k (bits 0–1),
 * "minus" (bit 2), and the negated exponent of r (bits 3–18).
 */
const angle: Sub = sub('trig.angle', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const n = normal(c, parts(c, x));
  const e = b.sub(n.e, b.i64(BIAS));
  b.if(b.lts(e, b.i64(-1)), () => b.ret(pair(c, b.shl(b.neg(e), b.i64(3)), n.m)));
  // In units of 2^-126, shift and subtract; an argument of one half or more starts below pi.
  const start: Wide = { h: b.shru(n.m, b.i64(1)), l: b.shl(n.m, b.i64(63)) };
  const first = choose(c, b.lts(e, b.i64(0)), downBy(c, start, 1), start);
  const [h, l, k, i] = [b.variable(first.h), b.variable(first.l), b.variable(b.i64(0)), b.variable(e)];
  const quarter = wideConstant(c, PI66);
  b.block((done) => {
    b.br(done, b.lts(e, b.i64(0)));
    b.loop((again) => {
      const r: Wide = { h: b.getVar(h), l: b.getVar(l) };
      const fits = b.eqz(below(c, r, quarter));
      const rest = choose(c, fits, minus(c, r, quarter), r);
      b.setVar(k, b.or(b.shl(b.getVar(k), b.i64(1)), b.extu(fits)));
      const at = b.getVar(i);
      b.setVar(h, rest.h);
      b.setVar(l, rest.l);
      b.if(b.ne(at, b.i64(0)), () => {
        b.setVar(h, b.or(b.shl(rest.h, b.i64(1)), b.shru(rest.l, b.i64(63))));
        b.setVar(l, b.shl(rest.l, b.i64(1)));
        b.setVar(i, b.sub(at, b.i64(1)));
        b.br(again);
      });
    });
  });
  const r: Wide = { h: b.getVar(h), l: b.getVar(l) };
  const fold = b.eqz(below(c, r, wideConstant(c, PI66 >> 1n)));
  const near = choose(c, fold, minus(c, quarter, r), r);
  const zeros = leadingZeros(c, near);
  const m = wide(c, c.call(shiftLeft, near.h, near.l, zeros));
  const k1 = b.and(b.add(b.getVar(k), b.extu(fold)), b.i64(3));
  const notes = b.or(b.or(k1, b.shl(b.extu(fold), b.i64(2))), b.shl(b.sub(zeros, b.i64(1)), b.i64(3)));
  b.ret(pair(c, b.or(m.l, notes), m.h));
});
interface Angle {
  readonly r: Wide;
  readonly e: Value;
  /** k, 0 to 3, and whether r is subtracted; i32. */
  readonly k: Value;
  readonly minus: Value;
}
function angleOf(c: Emit, x: Value): Angle {
  const { b } = c;
  const v = wide(c, c.call(angle, x));
  const notes = b.wrap(v.l);
  return {
    r: { h: v.h, l: b.and(v.l, b.i64(~0x7ffff)) },
    e: b.neg(b.and(b.shru(v.l, b.i64(3)), b.i64(0xffff))),
    k: b.and(notes, b.i32(3)),
    minus: b.and(b.shru(notes, b.i32(2)), b.i32(1)),
  };
}
/** sin r as a fraction times 2^(e + 1): r - r * tail, a little less. */
function sine(c: Emit, a: Angle): Wide {
  const tail = c.call(sinTail, squared(c, a.r, a.e));
  return minus(c, minus(c, a.r, wide(c, c.call(times, packed(c, a.r), tail))), wideConstant(c, 1n));
}
/** cos r as a fraction, less than 1. */
function cosine(c: Emit, a: Angle): Wide {
  const tail = wide(c, c.call(cosTail, squared(c, a.r, a.e)));
  return minus(c, wideConstant(c, 0n), choose(c, c.b.eqz(c.b.or(tail.h, tail.l)), wideConstant(c, 1n), tail));
}
const signIf = (c: Emit, cond: Value): Value => c.b.shl(c.b.extu(cond), c.b.i64(15));

/** sin x, or with `cos` 1 (i32) cos x, for |x| < 2^63. */
const sinCos: Sub = sub('f80.sincos', ['v128', 'i32'], 'v128', {}, (c, x, cos) => {
  const { b } = c;
  const p = parts(c, x);
  b.if(isBad(c, p), () => b.ret(c.call(nan, x, x)));
  b.if(isMax(c, p), () => b.ret(indefinite(c, Sw.ie)));
  b.if(isZero(c, p), () => b.ret(b.select(cos, constant(c, BIAS, TOP), x)));
  b.if(isTiny(c, p), () => {
    b.if(cos, () => b.ret(withStatus(c, constant(c, BIAS, TOP, Sw.pe), denormal(c, p))));
    b.ret(itself(c, p));
  });
  const a = angleOf(c, x);
  const k = b.add(a.k, cos);
  const own = b.and(isNegative(c, p), b.eqz(cos));
  const half = b.and(b.shru(k, b.i32(1)), b.i32(1));
  b.if(b.and(k, b.i32(1)), () => b.ret(inexactly(c, signIf(c, b.xor(own, half)), b.i64(-1), cosine(c, a), denormal(c, p))));
  const sign = signIf(c, b.xor(b.xor(own, half), a.minus));
  b.ret(inexactly(c, sign, a.e, sine(c, a), denormal(c, p)));
});
export const sin: Sub = sub('f80.sin', ['v128'], 'v128', {}, (c, x) => c.b.ret(c.call(sinCos, x, c.b.i32(0))));
export const cos: Sub = sub('f80.cos', ['v128'], 'v128', {}, (c, x) => c.b.ret(c.call(sinCos, x, c.b.i32(1))));

export const tan: Sub = sub('f80.tan', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const p = parts(c, x);
  b.if(isBad(c, p), () => b.ret(c.call(nan, x, x)));
  b.if(isMax(c, p), () => b.ret(indefinite(c, Sw.ie)));
  b.if(isZero(c, p), () => b.ret(x));
  b.if(isTiny(c, p), () => b.ret(itself(c, p)));
  const a = angleOf(c, x);
  // A little more than x: x^2 / 3 is lost in the fractions' last places.
  b.if(b.lts(a.e, b.i64(-33)), () => b.ret(inexactly(c, p.s, a.e, a.r, denormal(c, p))));
  const odd = b.and(a.k, b.i32(1));
  const [s, t] = [sine(c, a), cosine(c, a)];
  const quotient = wide(c, c.call(over, packed(c, downBy(c, choose(c, odd, t, s), 2)), packed(c, choose(c, odd, s, t))));
  // sin r has exponent e, cos r exponent -1; the dividend was divided by 4.
  const distance = b.add(a.e, b.i64(1));
  const e = b.add(b.select(odd, b.neg(distance), distance), b.i64(1));
  const sign = signIf(c, b.xor(b.xor(isNegative(c, p), a.minus), odd));
  b.ret(inexactly(c, sign, e, quotient, denormal(c, p)));
});

// -- arc tangent

/** atan(j / 8) * 2^126 by its series. */
function atanEighths(j: number): bigint {
  if (j === 8) return PI >> 2n;
  const scale = 1n << 200n;
  let sum = 0n;
  let power = (scale * BigInt(j)) / 8n;
  for (let k = 1n; power > 0n; k += 2n) {
    sum += k % 4n === 1n ? power / k : -(power / k);
    power = (power * BigInt(j * j)) / 64n;
  }
  return sum >> 74n;
}

/** atan(b / a) in units of 2^-126, for normal significands b, a and b's exponent `distance` (i64, 0 or more) below a's, b <= a. */
const atanFixed: Sub = sub('atan.fixed', ['v128', 'i64'], 'v128', {}, (c, m, e) => {
  const { b } = c;
  const one = 1n << 126n;
  const t = shiftRight(c, wide(c, m), b.sub(b.i64(1), e));
  const j = b.shru(b.add(b.shru(t.h, b.i64(58)), b.i64(1)), b.i64(1));
  const eighths = (n: Value): Wide => ({ h: b.shl(n, b.i64(59)), l: b.i64(0) });
  // (t - j/8) / (1 + t * j/8), at most 1/16.
  const lower = below(c, t, eighths(j));
  const numerator = choose(c, lower, minus(c, eighths(j), t), minus(c, t, eighths(j)));
  const step = downBy(c, t, 3);
  let product = wideConstant(c, 0n);
  for (let bit = 0; bit < 4; bit++) {
    const part: Wide = bit
      ? { h: b.or(b.shl(step.h, b.i64(bit)), b.shru(step.l, b.i64(64 - bit))), l: b.shl(step.l, b.i64(bit)) }
      : step;
    const on = b.wrap(b.and(b.shru(j, b.i64(bit)), b.i64(1)));
    product = choose(c, on, plus(c, product, part), product);
  }
  const delta = c.call(over, packed(c, numerator), packed(c, plus(c, wideConstant(c, one), product)));
  const tail = c.call(atanTail, c.call(times, delta, delta));
  const small = downBy(c, minus(c, wide(c, delta), wide(c, c.call(times, delta, tail))), 2);
  let base = wideConstant(c, 0n);
  for (let n = 1; n <= 8; n++) base = choose(c, b.eq(j, b.i64(n)), wideConstant(c, atanEighths(n)), base);
  b.ret(packed(c, choose(c, lower, minus(c, base, small), plus(c, base, small))));
});

/** The angle of the point (x, y), -pi to pi. */
export const atan: Sub = sub('f80.atan', ['v128', 'v128'], 'v128', {}, (c, y, x) => {
  const { b } = c;
  const [p, q] = [parts(c, y), parts(c, x)];
  b.if(b.or(isBad(c, p), isBad(c, q)), () => b.ret(c.call(nan, y, x)));
  const status = b.or(denormal(c, p), denormal(c, q));
  const left = isNegative(c, q);
  /** n * pi/4. */
  const eighth = (n: Value): Value => {
    const quarter = wideConstant(c, PI >> 2n);
    const multiples = choose(c, b.eq(n, b.i32(3)), wideConstant(c, (3n * PI) >> 2n), quarter);
    const even = choose(c, b.eq(n, b.i32(4)), wideConstant(c, PI), wideConstant(c, PI >> 1n));
    return inexactly(c, p.s, b.i64(1), choose(c, b.and(n, b.i32(1)), multiples, even), status);
  };
  const onAxis = (): void => {
    b.if(left, () => b.ret(eighth(b.i32(4))));
    b.ret(pair(c, b.i64(0), b.or(p.s, status)));
  };
  b.if(isMax(c, p), () => {
    b.if(isMax(c, q), () => b.ret(eighth(b.select(left, b.i32(3), b.i32(1)))));
    b.ret(eighth(b.i32(2)));
  });
  b.if(b.or(isMax(c, q), isZero(c, p)), onAxis);
  b.if(isZero(c, q), () => b.ret(eighth(b.i32(2))));
  const [n, d] = [normal(c, p), normal(c, q)];
  const steep = b.or(b.gts(n.e, d.e), b.and(b.eq(n.e, d.e), b.gtu(n.m, d.m)));
  const [smallM, largeM] = [b.select(steep, d.m, n.m), b.select(steep, n.m, d.m)];
  const distance = b.select(steep, b.sub(n.e, d.e), b.sub(d.e, n.e));
  const ratio = wide(c, c.call(over, packed(c, downBy(c, { h: smallM, l: b.i64(0) }, 1)), pair(c, b.i64(0), largeM)));
  const zeros = leadingZeros(c, ratio);
  const t = wide(c, c.call(shiftLeft, ratio.h, ratio.l, zeros));
  const e = b.neg(b.add(distance, zeros));
  const direct = b.eqz(b.or(steep, left));
  // Small angles keep their relative precision.
  b.if(b.and(direct, b.les(e, b.i64(-5))), () => {
    const tail = c.call(atanTail, squared(c, t, e));
    const m = minus(c, minus(c, t, wide(c, c.call(times, packed(c, t), tail))), wideConstant(c, 1n));
    b.ret(inexactly(c, p.s, e, m, status));
  });
  const acute = wide(c, c.call(atanFixed, packed(c, t), e));
  const axis = choose(c, steep, wideConstant(c, PI >> 1n), wideConstant(c, PI));
  const turned = choose(c, b.and(steep, left), plus(c, axis, acute), minus(c, axis, acute));
  b.ret(inexactly(c, p.s, b.i64(1), choose(c, direct, acute, turned), status));
});

// -- exponential

/** 2^x - 1 for |x| <= 1; a larger x, whose result the manual leaves undefined, comes back as it is, with PE. */
export const exp2Minus1: Sub = sub('f80.exp2m1', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const p = parts(c, x);
  b.if(isBad(c, p), () => b.ret(c.call(nan, x, x)));
  b.if(isZero(c, p), () => b.ret(x));
  const negative = isNegative(c, p);
  b.if(isMax(c, p), () => b.ret(b.select(negative, constant(c, 0x8000 | BIAS, TOP), x)));
  b.if(b.geu(p.e, b.i64(BIAS)), () => {
    const minusOne = b.and(b.and(negative, b.eq(p.e, b.i64(BIAS))), b.eq(p.m, b.i64(TOP)));
    b.ret(withStatus(c, b.select(minusOne, constant(c, 0x8000 | (BIAS - 1), TOP), x), b.i64(flag(Sw.pe))));
  });
  const n = normal(c, p);
  const e = b.sub(n.e, b.i64(BIAS));
  // y = x ln 2; 2^x - 1 = y * (1 + y/2 + y^2/6 + …).
  const y = wide(c, c.call(times, pair(c, b.i64(0), n.m), packed(c, wideConstant(c, LN2))));
  const fixed = packed(c, shiftRight(c, y, b.sub(b.i64(-1), e)));
  const tail = c.choose('v128', negative, () => c.call(expTailNegative, fixed), () => c.call(expTail, fixed)); // biome-ignore format: one choice
  const half = downBy(c, y, 1);
  const part = wide(c, c.call(times, packed(c, half), tail));
  const less = minus(c, minus(c, half, part), wideConstant(c, 1n));
  b.ret(inexactly(c, p.s, b.add(e, b.i64(1)), choose(c, negative, less, plus(c, half, part)), denormal(c, p)));
});

// -- logarithm

// A logarithm travels as a normal fraction of 128 bits whose low ones hold its sign (bit 0), "exact" (bit 1), exponent + 0x8000 (2–17).
const LOG_NOTES = 0x3ffff;
function packLog(c: Emit, m: Wide, e: Value, negative: Value, exact: number): Value {
  const { b } = c;
  const notes = b.or(b.or(b.extu(negative), b.i64(exact << 1)), b.shl(b.add(e, b.i64(0x8000)), b.i64(2)));
  return pair(c, b.or(b.and(m.l, b.i64(~LOG_NOTES)), notes), m.h);
}
function normalised(c: Emit, m: Wide, e: Value): { m: Wide; e: Value } {
  const zeros = leadingZeros(c, m);
  return { m: wide(c, c.call(shiftLeft, m.h, m.l, zeros)), e: c.b.sub(e, zeros) };
}
/** 2 atanh(s) / ln 2 for s = m * 2^(e - 127): (v128 fraction, exponent) to a packed logarithm. */
const log2Series: Sub = sub('log2.series', ['v128', 'i64', 'i32'], 'v128', {}, (c, s, e, negative) => {
  const { b } = c;
  const m = wide(c, s);
  const tail = c.call(atanhTail, squared(c, m, e));
  const half = downBy(c, m, 1);
  const sum = plus(c, half, wide(c, c.call(times, packed(c, half), tail)));
  const product = wide(c, c.call(times, packed(c, sum), packed(c, wideConstant(c, LOG2E))));
  const r = normalised(c, product, b.add(e, b.i64(3)));
  b.ret(packLog(c, r.m, r.e, negative, 0));
});
/** log2 of m * 2^(e - 127), m normal, not 1. */
const log2: Sub = sub('log2', ['v128', 'i64'], 'v128', {}, (c, v, exponent) => {
  const { b } = c;
  const m = wide(c, v);
  // Between sqrt(1/2) and sqrt(2) after halving the larger ones.
  const halve = b.gtu(m.h, b.i64(0xb504f333f9de6484n));
  const one = wideConstant(c, 1n << 126n);
  const e = b.add(exponent, b.extu(halve));
  const [at2, at4] = [downBy(c, m, 1), downBy(c, m, 2)];
  const numerator = choose(c, halve, downBy(c, minus(c, wideConstant(c, 0n), m), 2), minus(c, at2, one));
  const denominator = plus(c, one, choose(c, halve, at4, at2));
  const whole = b.select(b.lts(e, b.i64(0)), b.neg(e), e);
  const integer = normalised(c, { h: b.shl(whole, b.i64(48)), l: b.i64(0) }, b.i64(15));
  b.if(b.eqz(b.or(numerator.h, numerator.l)), () => b.ret(packLog(c, integer.m, integer.e, b.lts(e, b.i64(0)), 1)));
  const zeros = leadingZeros(c, numerator);
  const top = downBy(c, wide(c, c.call(shiftLeft, numerator.h, numerator.l, zeros)), 2);
  const s = normalised(c, wide(c, c.call(over, packed(c, top), packed(c, denominator))), b.sub(b.i64(1), zeros));
  const fraction = c.call(log2Series, packed(c, s.m), s.e, halve);
  b.if(b.eqz(e), () => b.ret(fraction));
  // e + fraction in units of 2^-112.
  const f = wide(c, fraction);
  const fe = b.sub(b.and(b.shru(f.l, b.i64(2)), b.i64(0xffff)), b.i64(0x8000));
  const fixed = shiftRight(c, { h: f.h, l: b.and(f.l, b.i64(~LOG_NOTES)) }, b.sub(b.i64(15), fe));
  const units: Wide = { h: b.shl(whole, b.i64(48)), l: b.i64(0) };
  const opposite = b.xor(halve, b.lts(e, b.i64(0)));
  const sum = normalised(c, choose(c, opposite, minus(c, units, fixed), plus(c, units, fixed)), b.i64(15));
  b.ret(packLog(c, sum.m, sum.e, b.lts(e, b.i64(0)), 0));
});
/** y * logarithm, rounded. */
function scaled(c: Emit, y: Parts, logarithm: Value, status: Value): Value {
  const { b } = c;
  const v = wide(c, logarithm);
  const e = b.sub(b.and(b.shru(v.l, b.i64(2)), b.i64(0xffff)), b.i64(0x8000));
  const n = normal(c, y);
  const m: Wide = { h: v.h, l: b.and(v.l, b.i64(~LOG_NOTES)) };
  const product = wide(c, c.call(times, pair(c, b.i64(0), n.m), packed(c, m)));
  const sign = b.xor(y.s, b.shl(b.and(v.l, b.i64(1)), b.i64(15)));
  const sticky = b.xor(b.and(b.shru(v.l, b.i64(1)), b.i64(1)), b.i64(1));
  const at = b.add(b.add(n.e, e), b.i64(1));
  // The processors report an inexact result even of a power of two.
  const all = b.or(status, b.i64(flag(Sw.pe)));
  return withStatus(c, c.call(round, sign, at, product.h, b.or(product.l, sticky), b.i32(3)), all);
}
const infinite = (c: Emit, sign: Value, status = 0): Value => withSign(c, sign, 0x7fff, TOP, status);

/** y * log2(x). */
export const yLog2x: Sub = sub('f80.yl2x', ['v128', 'v128'], 'v128', {}, (c, y, x) => {
  const { b } = c;
  const [p, q] = [parts(c, y), parts(c, x)];
  b.if(b.or(isBad(c, p), isBad(c, q)), () => b.ret(c.call(nan, y, x)));
  const status = b.or(denormal(c, p), denormal(c, q));
  const invalid = (): void => b.ret(indefinite(c, Sw.ie));
  b.if(isZero(c, q), () => {
    b.if(isZero(c, p), invalid);
    b.if(isMax(c, p), () => b.ret(infinite(c, flipped(c, p.s))));
    b.ret(withStatus(c, infinite(c, flipped(c, p.s), Sw.ze), b.i64(0)));
  });
  b.if(isNegative(c, q), invalid);
  b.if(isMax(c, q), () => {
    b.if(isZero(c, p), invalid);
    b.ret(withStatus(c, infinite(c, p.s), status));
  });
  const isOne = b.and(b.eq(q.e, b.i64(BIAS)), b.eq(q.m, b.i64(TOP)));
  const less = b.ltu(q.e, b.i64(BIAS));
  const sign = b.select(less, flipped(c, p.s), p.s);
  b.if(isMax(c, p), () => {
    b.if(isOne, invalid);
    b.ret(withStatus(c, infinite(c, sign), status));
  });
  b.if(b.or(isZero(c, p), isOne), () => b.ret(pair(c, b.i64(0), b.or(sign, status))));
  const n = normal(c, q);
  b.ret(scaled(c, p, c.call(log2, pair(c, b.i64(0), n.m), b.sub(n.e, b.i64(BIAS))), status));
});

/** y * log2(x + 1); exact in x near zero. x <= -1, which the manual leaves undefined, comes back as it is, with PE. */
export const yLog2xPlus1: Sub = sub('f80.yl2xp1', ['v128', 'v128'], 'v128', {}, (c, y, x) => {
  const { b } = c;
  const [p, q] = [parts(c, y), parts(c, x)];
  b.if(b.or(isBad(c, p), isBad(c, q)), () => b.ret(c.call(nan, y, x)));
  const status = b.or(denormal(c, p), denormal(c, q));
  const invalid = (): void => b.ret(indefinite(c, Sw.ie));
  const negative = isNegative(c, q);
  const sign = b.xor(p.s, q.s);
  b.if(b.and(negative, isMax(c, q)), invalid);
  b.if(isMax(c, q), () => {
    b.if(isZero(c, p), invalid);
    b.ret(withStatus(c, infinite(c, sign), status));
  });
  b.if(isMax(c, p), () => {
    b.if(isZero(c, q), invalid);
    b.ret(withStatus(c, infinite(c, sign), status));
  });
  b.if(b.or(isZero(c, p), isZero(c, q)), () => b.ret(pair(c, b.i64(0), b.or(sign, status))));
  b.if(b.and(negative, b.geu(q.e, b.i64(BIAS))), () => b.ret(withStatus(c, x, b.or(status, b.i64(flag(Sw.pe))))));
  const n = normal(c, q);
  const e = b.sub(n.e, b.i64(BIAS));
  const m: Wide = { h: n.m, l: b.i64(0) };
  const logarithm = c.choose(
    'v128',
    b.les(e, b.i64(-3)),
    () => {
      // s = x / (2 + x), in units of 2^-126 below the line.
      const part = shiftRight(c, downBy(c, m, 1), b.neg(e));
      const two = wideConstant(c, 1n << 127n);
      const d = choose(c, negative, minus(c, two, part), plus(c, two, part));
      const s = normalised(c, wide(c, c.call(over, packed(c, downBy(c, m, 2)), packed(c, d))), e);
      return c.call(log2Series, packed(c, s.m), s.e, negative);
    },
    () => {
      // 1 + x with 128 bits: the larger exponent leads.
      const large = b.ges(e, b.i64(0));
      const one: Wide = { h: b.i64(1n << 62n), l: b.i64(0) };
      const lead = choose(c, large, downBy(c, m, 1), one);
      const distance = b.select(large, e, b.neg(e));
      const other = shiftRight(c, choose(c, large, one, downBy(c, m, 1)), distance);
      const sum = choose(c, negative, minus(c, lead, other), plus(c, lead, other));
      const r = normalised(c, sum, b.add(b.select(large, e, b.i64(0)), b.i64(1)));
      return c.call(log2, packed(c, r.m), r.e);
    },
  );
  b.ret(scaled(c, p, logarithm, status));
});
