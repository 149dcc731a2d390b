import {
  daz,
  each,
  Flag,
  flag,
  flagIf,
  formats,
  isDenormal,
  isInf,
  isNan,
  isSignalling,
  isZero,
  nanOf,
  roundPack,
  roundsUp,
  signed,
  signOf,
  unpack,
  type Width,
} from './softfloat-core.ts';
import { type Sub, sub } from './sub.ts';

/** (mode, a binary32): the same as binary64. */
export const softWiden = sub('soft.widen', ['i32', 'i64'], 'i64', {}, (c, mode, x) => {
  const b = c.b;
  const [f, g] = [formats[32], formats[64]];
  const p = daz(c, f, mode, x);
  const sign = signOf(c, f, p);
  b.if(isNan(c, f, p), () => {
    flagIf(c, isSignalling(c, f, p), Flag.ie);
    const payload = b.shl(b.and(p, b.i64((1 << f.frac) - 1)), b.i64(g.frac - f.frac));
    b.ret(b.or(signed(c, g, sign, g.infinity | g.quiet), payload));
  });
  b.if(isInf(c, f, p), () => b.ret(signed(c, g, sign, g.infinity)));
  b.if(isZero(c, f, p), () => b.ret(signed(c, g, sign, 0n)));
  flagIf(c, isDenormal(c, f, p), Flag.de);
  const u = unpack(c, f, p);
  b.ret(c.call(roundPack[64], mode, sign, u.exp, u.sig));
});

/** (mode, a binary64): rounded to binary32. */
export const softNarrow = sub('soft.narrow', ['i32', 'i64'], 'i64', {}, (c, mode, x) => {
  const b = c.b;
  const [f, g] = [formats[64], formats[32]];
  const p = daz(c, f, mode, x);
  const sign = signOf(c, f, p);
  b.if(isNan(c, f, p), () => {
    flagIf(c, isSignalling(c, f, p), Flag.ie);
    const payload = b.shru(b.and(p, b.i64((1n << BigInt(f.frac)) - 1n)), b.i64(f.frac - g.frac));
    b.ret(b.or(signed(c, g, sign, g.infinity | g.quiet), payload));
  });
  b.if(isInf(c, f, p), () => b.ret(signed(c, g, sign, g.infinity)));
  b.if(isZero(c, f, p), () => b.ret(signed(c, g, sign, 0n)));
  flagIf(c, isDenormal(c, f, p), Flag.de);
  const u = unpack(c, f, p);
  b.ret(c.call(roundPack[32], mode, sign, u.exp, u.sig));
});

/**
 * (mode, rc i32, a): as a signed integer of `bits` bits, zero-extended to i64, rounded by `rc` (0 nearest even, 1 down, 2 up,
 * 3 towards zero); NaNs and what does not fit give the integer indefinite (the sign bit alone) and IE. There is no DE.
 */
const toInteger = (bits: Width): Readonly<Record<Width, Sub>> =>
  each((f) =>
    sub(`soft.to_i${bits}.f${f.bits}`, ['i32', 'i32', 'i64'], 'i64', {}, (c, mode, rc, x) => {
      const b = c.b;
      const p = daz(c, f, mode, x);
      b.if(isZero(c, f, p), () => b.ret(b.i64(0)));
      const lowest = 1n << BigInt(bits - 1);
      const u = unpack(c, f, p);
      const indefinite = (): void => {
        flag(c, Flag.ie);
        b.ret(b.i64(lowest));
      };
      // Exponent field all ones (infinities, NaNs) gives an exponent beyond 63 as well.
      b.if(b.gts(u.exp, b.i32(62)), () => {
        const exact = b.and(b.and(b.eq(u.exp, b.i32(63)), u.sign), b.eq(u.sig, b.i64(1n << 62n)));
        b.if(b.and(exact, b.i32(bits === 64 ? 1 : 0)), () => b.ret(b.i64(lowest)));
        indefinite();
      });
      const n = b.extu(b.sub(b.i32(62), u.exp));
      const far = b.gtu(n, b.i64(63));
      const sig = b.select(far, b.i64(1), u.sig);
      const shift = b.select(far, b.i64(63), n);
      const whole = b.shru(sig, shift);
      const rem = b.and(sig, b.sub(b.shl(b.i64(1), shift), b.i64(1)));
      const half = b.shl(b.i64(1), b.sub(shift, b.i64(1)));
      const odd = b.and(b.wrap(whole), b.i32(1));
      const rounded = b.add(whole, b.extu(roundsUp(c, rc, u.sign, rem, half, odd)));
      b.if(b.gtu(rounded, b.add(b.i64(lowest - 1n), b.extu(u.sign))), indefinite);
      flagIf(c, b.ne(rem, b.i64(0)), Flag.pe);
      const value = b.select(u.sign, b.neg(rounded), rounded);
      b.ret(bits === 32 ? b.and(value, b.i64(0xffffffffn)) : value);
    }),
  );
/** Conversions to 32-bit and 64-bit integers: see `toInteger`; indexed by the width of the integer, then of the float. */
export const softToInt: Readonly<Record<Width, Readonly<Record<Width, Sub>>>> = { 32: toInteger(32), 64: toInteger(64) };

/** (mode, a): a signed 64-bit integer as a float. */
export const softFromInt = each((f) =>
  sub(`soft.from_int.f${f.bits}`, ['i32', 'i64'], 'i64', {}, (c, mode, x) => {
    const b = c.b;
    b.if(b.eqz(x), () => b.ret(x));
    const sign = b.wrap(b.shru(x, b.i64(63)));
    const size = b.select(sign, b.neg(x), x);
    const z = b.clz(size);
    // −2^63 has its leading bit at 63; the bit that the shift to 62 loses is jammed.
    const sig = b.or(b.shru(b.shl(size, z), b.i64(1)), b.and(b.shl(size, z), b.i64(1)));
    b.ret(c.call(roundPack[f.bits], mode, sign, b.sub(b.i32(63), b.wrap(z)), sig));
  }),
);

/** (mode, rc i32, quiet i32, a): rounded to an integral value; without PE where `quiet` is 1. There is no DE. */
export const softRound = each((f) =>
  sub(`soft.round.f${f.bits}`, ['i32', 'i32', 'i32', 'i64'], 'i64', {}, (c, mode, rc, quiet, x) => {
    const b = c.b;
    const p = daz(c, f, mode, x);
    b.if(isNan(c, f, p), () => b.ret(c.call(nanOf[f.bits], p, p)));
    b.if(isZero(c, f, p), () => b.ret(p));
    const u = unpack(c, f, p);
    b.if(b.ges(u.exp, b.i32(f.frac)), () => b.ret(p));
    const loud = b.and(b.not(quiet), b.i32(1));
    b.if(b.lts(u.exp, b.i32(0)), () => {
      flagIf(c, loud, Flag.pe);
      // Below one: the remainder in units of 2^-63, with everything under a half as 1.
      const rem = b.select(b.eq(u.exp, b.i32(-1)), u.sig, b.i64(1));
      const up = roundsUp(c, rc, u.sign, rem, b.i64(1n << 62n), b.i32(0));
      const one = BigInt(f.bias) << BigInt(f.frac);
      b.ret(b.or(signed(c, f, u.sign, 0n), b.select(up, b.i64(one), b.i64(0))));
    });
    const unit = b.shl(b.i64(1), b.extu(b.sub(b.i32(f.frac), u.exp)));
    const rem = b.and(p, b.sub(unit, b.i64(1)));
    // For numbers below two the last integral bit is the implicit one, which is odd: the field's lowest bit is odd as well,
    // since the bias is odd.
    const odd = b.ne(b.and(p, unit), b.i64(0));
    const up = roundsUp(c, rc, u.sign, rem, b.shru(unit, b.i64(1)), odd);
    flagIf(c, b.and(loud, b.ne(rem, b.i64(0))), Flag.pe);
    b.ret(b.add(b.sub(p, rem), b.and(unit, b.neg(b.extu(up)))));
  }),
);
