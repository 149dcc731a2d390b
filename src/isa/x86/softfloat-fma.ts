// The exact fused multiply-add: one rounding of a · b + c (Intel SDM volume 1, section 14.5.2, table 14-16 for NaNs and infinities).

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import {
  daz, defaultNan, each, Flag, type Format, flag, flagIf, isDenormal, isInf, isNan, isSignalling, isZero, quietNan, rounding, roundPack, signed, signOf, unpack,
} from './softfloat-core.ts'; // biome-ignore format: one list
import { sub } from './sub.ts';
import { mulHighUnsigned } from './wide.ts';

/** A 128-bit number as two i64. */
interface Pair {
  readonly high: Value;
  readonly low: Value;
}

/** x >> n for n (i64) from 0 on, with 1 in the last place where bits were lost. */
function shiftJam(c: Emit, x: Pair, n: Value): Pair {
  const b = c.b;
  const zero = b.i64(0);
  const rest = b.sub(b.i64(64), n);
  const lostOf = (v: Value, count: Value): Value => b.ne(b.and(v, b.sub(b.shl(b.i64(1), count), b.i64(1))), zero);
  // 1 to 63 places, 64 to 127, more.
  const near = {
    high: b.shru(x.high, n),
    low: b.or(b.or(b.shru(x.low, n), b.shl(x.high, rest)), b.extu(lostOf(x.low, n))),
  };
  const m = b.sub(n, b.i64(64));
  const far = b.or(b.shru(x.high, m), b.extu(b.or(lostOf(x.high, m), b.ne(x.low, zero))));
  const gone = b.extu(b.ne(b.or(x.high, x.low), zero));
  const isNear = b.ltu(n, b.i64(64));
  const high = b.select(isNear, near.high, zero);
  const low = b.select(isNear, near.low, b.select(b.ltu(n, b.i64(128)), far, gone));
  return { high: b.select(b.eqz(n), x.high, high), low: b.select(b.eqz(n), x.low, low) };
}
const choose = (c: Emit, cond: Value, x: Pair, y: Pair): Pair => ({
  high: c.b.select(cond, x.high, y.high),
  low: c.b.select(cond, x.low, y.low),
});

function invalid(c: Emit, f: Format): void {
  flag(c, Flag.ie);
  c.b.ret(defaultNan(c, f));
}

/** (mode, a, b, c): a · b + c with one rounding. */
export const softFma = each((f) =>
  sub(`soft.fma.f${f.bits}`, ['i32', 'i64', 'i64', 'i64'], 'i64', {}, (c, mode, x0, y0, z0) => {
    const b = c.b;
    const [x, y, z] = [x0, y0, z0].map((v) => daz(c, f, mode, v)) as [Value, Value, Value];
    const infinite = b.or(isInf(c, f, x), isInf(c, f, y));
    const zero = b.or(isZero(c, f, x), isZero(c, f, y));
    const noProduct = b.and(infinite, zero);
    const anyNan = b.or(b.or(isNan(c, f, x), isNan(c, f, y)), isNan(c, f, z));
    b.if(anyNan, () => {
      const signalling = b.or(b.or(isSignalling(c, f, x), isSignalling(c, f, y)), isSignalling(c, f, z));
      flagIf(c, signalling, Flag.ie);
      b.ret(quietNan(c, f, b.select(isNan(c, f, x), x, b.select(isNan(c, f, y), y, z))));
    });
    b.if(noProduct, () => invalid(c, f));
    const sign = b.xor(signOf(c, f, x), signOf(c, f, y));
    const signZ = signOf(c, f, z);
    const infiniteZ = isInf(c, f, z);
    b.if(b.and(b.and(infinite, infiniteZ), b.ne(sign, signZ)), () => invalid(c, f));
    flagIf(c, b.or(b.or(isDenormal(c, f, x), isDenormal(c, f, y)), isDenormal(c, f, z)), Flag.de);
    b.if(infinite, () => b.ret(signed(c, f, sign, f.infinity)));
    b.if(infiniteZ, () => b.ret(z));
    const zeroZ = isZero(c, f, z);
    b.if(zero, () => {
      // A sum of zeros of two signs is +0, but −0 when rounding down.
      const mixed = b.extu(b.eq(rounding(c, mode), b.i32(1)));
      const sum = b.select(b.eq(sign, signZ), z, b.shl(mixed, b.i64(f.bits - 1)));
      b.if(zeroZ, () => b.ret(sum));
      // The addend alone is rounded, too: it may be denormal.
      const alone = unpack(c, f, z);
      b.ret(c.call(roundPack[f.bits], mode, alone.sign, alone.exp, alone.sig));
    });
    const p = unpack(c, f, x);
    const q = unpack(c, f, y);
    // Significands with the leading bit at 62: the product has it at 124 or 125 of 128, taken as 2^(exp) at 124.
    const product: Pair = { high: mulHighUnsigned(c, p.sig, q.sig), low: b.mul(p.sig, q.sig) };
    const exp = b.add(p.exp, q.exp);
    const finish = (resultSign: Value, v: Pair, e: Value): void => {
      // Up until the leading bit is at 126, then 64 bits of it with everything below in the last place.
      const inHigh = b.ne(v.high, b.i64(0));
      const n = b.sub(b.select(inHigh, b.clz(v.high), b.add(b.i64(64), b.clz(v.low))), b.i64(1));
      const small = b.ltu(n, b.i64(64));
      const moved = b.select(
        small,
        b.select(b.eqz(n), v.high, b.or(b.shl(v.high, n), b.shru(v.low, b.sub(b.i64(64), n)))),
        b.shl(v.low, b.sub(n, b.i64(64))),
      );
      const below = b.select(small, b.shl(v.low, n), b.i64(0));
      const sig = b.or(moved, b.extu(b.ne(below, b.i64(0))));
      b.ret(c.call(roundPack[f.bits], mode, resultSign, b.sub(b.add(e, b.i32(2)), b.wrap(n)), sig));
    };
    b.if(zeroZ, () => finish(sign, product, exp));
    const r = unpack(c, f, z);
    const addend: Pair = { high: b.shru(r.sig, b.i64(2)), low: b.shl(r.sig, b.i64(62)) };
    const distance = b.sub(exp, r.exp);
    const productLarger = b.ges(distance, b.i32(0));
    const by = b.exts(b.select(productLarger, distance, b.neg(distance)));
    const e = b.select(productLarger, exp, r.exp);
    // The smaller one moves down; two places below the leading bit at most are lost without harm to the other.
    const u = choose(c, productLarger, product, shiftJam(c, product, by));
    const v = choose(c, productLarger, shiftJam(c, addend, by), addend);
    const same = b.eq(sign, signZ);
    b.if(same, () => {
      const low = b.add(u.low, v.low);
      finish(sign, { high: b.add(b.add(u.high, v.high), b.extu(b.ltu(low, u.low))), low }, e);
    });
    const uLess = b.or(b.ltu(u.high, v.high), b.and(b.eq(u.high, v.high), b.ltu(u.low, v.low)));
    const [m, n] = [choose(c, uLess, v, u), choose(c, uLess, u, v)];
    const low = b.sub(m.low, n.low);
    const high = b.sub(b.sub(m.high, n.high), b.extu(b.ltu(m.low, n.low)));
    b.if(b.eqz(b.or(high, low)), () => {
      const down = b.extu(b.eq(rounding(c, mode), b.i32(1)));
      b.ret(b.shl(down, b.i64(f.bits - 1)));
    });
    finish(b.select(uLess, signZ, sign), { high, low }, e);
  }),
);
