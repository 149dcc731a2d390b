// Arithmetic on 128-bit unsigned fractions in IR, for the transcendental functions. A fraction is a v128: lane 1 holds the upper
// 64 bits. Results are truncated; the functions built on them need some 75 good bits.

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { lane1, mant, pair } from './float80.ts';
import { type Sub, sub } from './sub.ts';
import { mulHighUnsigned } from './wide.ts';

/** A fraction as its halves, for arithmetic in line. */
export interface Wide {
  readonly h: Value;
  readonly l: Value;
}
export const wide = (c: Emit, v: Value): Wide => ({ h: lane1(c, v), l: mant(c, v) });
export const packed = (c: Emit, w: Wide): Value => pair(c, w.l, w.h);
export const wideConstant = (c: Emit, v: bigint): Wide => ({ h: c.b.i64(v >> 64n), l: c.b.i64(v) });

export function plus(c: Emit, x: Wide, y: Wide): Wide {
  const { b } = c;
  const l = b.add(x.l, y.l);
  return { h: b.add(b.add(x.h, y.h), b.extu(b.ltu(l, x.l))), l };
}
export function minus(c: Emit, x: Wide, y: Wide): Wide {
  const { b } = c;
  return { h: b.sub(b.sub(x.h, y.h), b.extu(b.ltu(x.l, y.l))), l: b.sub(x.l, y.l) };
}
/** i32 0 or 1: x < y. */
export function below(c: Emit, x: Wide, y: Wide): Value {
  const { b } = c;
  return b.or(b.ltu(x.h, y.h), b.and(b.eq(x.h, y.h), b.ltu(x.l, y.l)));
}
export const choose = (c: Emit, cond: Value, x: Wide, y: Wide): Wide => ({
  h: c.b.select(cond, x.h, y.h),
  l: c.b.select(cond, x.l, y.l),
});
/** Shifted right by `n` bits, 1 to 63, fixed when the code is built. */
export function downBy(c: Emit, x: Wide, n: number): Wide {
  const { b } = c;
  return { h: b.shru(x.h, b.i64(n)), l: b.or(b.shru(x.l, b.i64(n)), b.shl(x.h, b.i64(64 - n))) };
}
/** Zeros above the top bit, i64: 0 to 128. */
export function leadingZeros(c: Emit, x: Wide): Value {
  const { b } = c;
  return b.select(b.eqz(x.h), b.add(b.clz(x.l), b.i64(64)), b.clz(x.h));
}

/** high:low shifted left by `n` (i64, 0 to 127). */
export const shiftLeft: Sub = sub('u128.shl', ['i64', 'i64', 'i64'], 'v128', {}, (c, high, low, n) => {
  const { b } = c;
  b.if(b.geu(n, b.i64(64)), () => b.ret(pair(c, b.i64(0), b.shl(low, n))));
  const across = b.shru(b.shru(low, b.i64(1)), b.sub(b.i64(63), n));
  b.ret(pair(c, b.shl(low, n), b.or(b.shl(high, n), across)));
});

/** x * y / 2^128, some units of the last place too small. */
export const times: Sub = sub('u128.fraction.mul', ['v128', 'v128'], 'v128', {}, (c, x, y) => {
  const { b } = c;
  const [p, q] = [wide(c, x), wide(c, y)];
  const low = b.mul(p.h, q.h);
  const cross1 = mulHighUnsigned(c, p.h, q.l);
  const cross2 = mulHighUnsigned(c, p.l, q.h);
  const sum1 = b.add(low, cross1);
  const sum2 = b.add(sum1, cross2);
  const carries = b.add(b.extu(b.ltu(sum1, low)), b.extu(b.ltu(sum2, sum1)));
  b.ret(pair(c, sum2, b.add(mulHighUnsigned(c, p.h, q.h), carries)));
});

/** x * 2^128 / y for x < y. */
export const over: Sub = sub('u128.fraction.div', ['v128', 'v128'], 'v128', {}, (c, x, y) => {
  const { b } = c;
  const [start, d] = [wide(c, x), wide(c, y)];
  const [rh, rl, qh, ql] = [b.variable(start.h), b.variable(start.l), b.variable(b.i64(0)), b.variable(b.i64(0))];
  const count = b.variable(b.i32(128));
  b.loop((again) => {
    const [h, l] = [b.getVar(rh), b.getVar(rl)];
    const r: Wide = { h: b.or(b.shl(h, b.i64(1)), b.shru(l, b.i64(63))), l: b.shl(l, b.i64(1)) };
    const fits = b.or(b.lts(h, b.i64(0)), b.eqz(below(c, r, d)));
    const next = choose(c, fits, minus(c, r, d), r);
    const [oldHigh, oldLow] = [b.getVar(qh), b.getVar(ql)];
    b.setVar(rh, next.h);
    b.setVar(rl, next.l);
    b.setVar(qh, b.or(b.shl(oldHigh, b.i64(1)), b.shru(oldLow, b.i64(63))));
    b.setVar(ql, b.or(b.shl(oldLow, b.i64(1)), b.extu(fits)));
    const n = b.sub(b.getVar(count), b.i32(1));
    b.setVar(count, n);
    b.br(again, b.ne(n, b.i32(0)));
  });
  b.ret(pair(c, b.getVar(ql), b.getVar(qh)));
});

/** z * (a0 + z * (a1 + z * …)) as a subroutine of z; with `alternating` the signs are a0 - a1 + a2 …. Coefficients times 2^128. */
export function series(name: string, coefficients: readonly bigint[], alternating: boolean): Sub {
  return sub(`u128.series.${name}`, ['v128'], 'v128', {}, (c, z) => {
    let sum = wideConstant(c, coefficients[coefficients.length - 1]);
    for (const a of coefficients.slice(0, -1).reverse()) {
      const product = wide(c, c.call(times, z, packed(c, sum)));
      sum = alternating ? minus(c, wideConstant(c, a), product) : plus(c, wideConstant(c, a), product);
    }
    c.b.ret(c.call(times, z, packed(c, sum)));
  });
}
