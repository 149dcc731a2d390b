// Exact binary32 and binary64 arithmetic in integer IR: every rounding mode, DAZ, FTZ, masks and exception flags of MXCSR.
// Intel SDM volume 1, sections 4.8 (formats, NaN rules), 4.9 (exceptions) and 11.5 (SSE exceptions).
//
// All subroutines take `mode` (the MXCSR image, i32) and operands as bit patterns in i64 (binary32 zero-extended), and collect
// exception flags in the slot `sseFlags`, bits 0–5 as in MXCSR: IE DE ZE OE UE PE. None of them faults.

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { sseFlags } from './state.ts';
import { type Sub, sub } from './sub.ts';

/** Exception flags, as in MXCSR bits 0–5. */
export const Flag = { ie: 1, de: 2, ze: 4, oe: 8, ue: 16, pe: 32 } as const;
/** Results of `compare`, one bit each. */
export const Order = { less: 1, equal: 2, greater: 4, unordered: 8 } as const;
/** Widths that exist: binary32 and binary64. */
export type Width = 32 | 64;

/** What is fixed of one format: fraction bits, exponent bias, highest exponent field, patterns. */
interface Format {
  readonly bits: Width;
  readonly frac: number;
  readonly bias: number;
  readonly top: number;
  readonly sign: bigint;
  readonly infinity: bigint;
  readonly quiet: bigint;
}
const format = (bits: Width, frac: number): Format => {
  const top = 2 ** (bits - 1 - frac) - 1;
  const f = BigInt(frac);
  return { bits, frac, bias: top >> 1, top, sign: 1n << BigInt(bits - 1), infinity: BigInt(top) << f, quiet: 1n << (f - 1n) };
};
const formats: Readonly<Record<Width, Format>> = { 32: format(32, 23), 64: format(64, 52) };

const RC = 13;
const DAZ = 1 << 6;
const FTZ = 1 << 15;
const OM = 1 << 10;
const UM = 1 << 11;

/** Adds exception flags (a constant). */
function flag(c: Emit, bits: number): void {
  c.set(sseFlags, c.b.or(c.get(sseFlags), c.b.i32(bits)));
}
/** Adds exception flags where `cond` is 1. */
function flagIf(c: Emit, cond: Value, bits: number): void {
  const b = c.b;
  c.set(sseFlags, b.or(c.get(sseFlags), b.and(b.neg(cond), b.i32(bits))));
}

const magnitude = (c: Emit, f: Format, x: Value): Value => c.b.and(x, c.b.i64(f.sign - 1n));
const signOf = (c: Emit, f: Format, x: Value): Value => c.b.wrap(c.b.shru(x, c.b.i64(f.bits - 1)));
const isNan = (c: Emit, f: Format, x: Value): Value => c.b.gtu(magnitude(c, f, x), c.b.i64(f.infinity));
const isInf = (c: Emit, f: Format, x: Value): Value => c.b.eq(magnitude(c, f, x), c.b.i64(f.infinity));
const isZero = (c: Emit, f: Format, x: Value): Value => c.b.eqz(magnitude(c, f, x));
/** A NaN whose quiet bit is clear. */
const isSignalling = (c: Emit, f: Format, x: Value): Value =>
  c.b.and(isNan(c, f, x), c.b.wrap(c.b.eqz(c.b.and(x, c.b.i64(f.quiet)))));
/** Exponent field 0 and fraction not 0. */
const isDenormal = (c: Emit, f: Format, x: Value): Value =>
  c.b.ltu(c.b.sub(magnitude(c, f, x), c.b.i64(1)), c.b.i64((1n << BigInt(f.frac)) - 1n));
/** A zero, an infinity, … with the sign bit `sign` (i32 0 or 1). */
const signed = (c: Emit, f: Format, sign: Value, pattern: bigint): Value =>
  c.b.or(c.b.shl(c.b.extu(sign), c.b.i64(f.bits - 1)), c.b.i64(pattern));
const quietNan = (c: Emit, f: Format, x: Value): Value => c.b.or(x, c.b.i64(f.quiet));
/** The default NaN (QNaN floating-point indefinite). */
const defaultNan = (c: Emit, f: Format): Value => c.b.i64(f.sign | f.infinity | f.quiet);
const rounding = (c: Emit, mode: Value): Value => c.b.and(c.b.shru(mode, c.b.i32(RC)), c.b.i32(3));

/** Denormals as zeros of their sign where MXCSR.DAZ is set. */
function daz(c: Emit, f: Format, mode: Value, x: Value): Value {
  const b = c.b;
  const flush = b.and(b.ne(b.and(mode, b.i32(DAZ)), b.i32(0)), isDenormal(c, f, x));
  return b.select(flush, b.and(x, b.i64(f.sign)), x);
}

/** Sign (i32), exponent of the leading bit (i32) and significand (i64, leading bit at 62) of a finite number that is not zero. */
function unpack(c: Emit, f: Format, x: Value): { sign: Value; exp: Value; sig: Value } {
  const b = c.b;
  const field = b.wrap(b.and(b.shru(x, b.i64(f.frac)), b.i64(f.top)));
  const fraction = b.and(x, b.i64((1n << BigInt(f.frac)) - 1n));
  const normal = b.ne(field, b.i32(0));
  const m = b.or(fraction, b.shl(b.extu(normal), b.i64(f.frac)));
  const z = b.clz(m);
  const sig = b.shru(b.shl(m, z), b.i64(1));
  const lowest = b.add(b.select(normal, field, b.i32(1)), b.i32(63 - f.bias - f.frac));
  return { sign: signOf(c, f, x), exp: b.sub(lowest, b.wrap(z)), sig };
}

/** x >> n, with 1 in the last place where bits were lost; n is an i64, 0 or more. */
function shiftJam(c: Emit, x: Value, n: Value): Value {
  const b = c.b;
  const lost = b.and(x, b.sub(b.shl(b.i64(1), n), b.i64(1)));
  const near = b.or(b.shru(x, n), b.extu(b.ne(lost, b.i64(0))));
  return b.select(b.gtu(n, b.i64(63)), b.extu(b.ne(x, b.i64(0))), near);
}

/** 1 where rounding by `rc` raises the magnitude, for a remainder compared with half a unit in the last place. */
function roundsUp(c: Emit, rc: Value, sign: Value, rem: Value, half: Value, odd: Value): Value {
  const b = c.b;
  const nearest = b.or(b.gtu(rem, half), b.and(b.eq(rem, half), odd));
  const directed = b.and(b.ne(rem, b.i64(0)), b.eq(rc, b.sub(b.i32(2), sign)));
  return b.select(b.eqz(rc), nearest, directed);
}

const each = (build: (f: Format) => Sub): Readonly<Record<Width, Sub>> => ({ 32: build(formats[32]), 64: build(formats[64]) });

/**
 * (mode, sign i32, exp i32, sig i64): rounds sig · 2^(exp − 62) to the format; sig has its leading bit at 62, and its last place
 * stands for everything below. Sets OE, UE, PE.
 */
const roundPack = each((f) =>
  sub(`soft.round_pack.f${f.bits}`, ['i32', 'i32', 'i32', 'i64'], 'i64', {}, (c, mode, sign, exp, sig) => {
    const b = c.b;
    const drop = 62 - f.frac;
    const mask = (1n << BigInt(drop)) - 1n;
    const half = 1n << BigInt(drop - 1);
    const rc = rounding(c, mode);
    const away = b.eq(rc, b.sub(b.i32(2), sign));
    const inc = b.select(b.eqz(rc), b.i64(half), b.select(away, b.i64(mask), b.i64(0)));
    const biased = b.add(exp, b.i32(f.bias));
    const signBit = b.shl(b.extu(sign), b.i64(f.bits - 1));
    // The significand cut to the format after rounding, and whether something was lost.
    const round = (s: Value): { m: Value; inexact: Value } => {
      const rest = b.and(s, b.i64(mask));
      const m = b.shru(b.add(s, inc), b.i64(drop));
      const tie = b.and(b.eqz(rc), b.eq(rest, b.i64(half)));
      return { m: b.and(m, b.not(b.extu(tie))), inexact: b.ne(rest, b.i64(0)) };
    };
    b.if(b.les(biased, b.i32(0)), () => {
      // Tiny after rounding to an unbounded exponent.
      const carries = b.lts(b.add(sig, inc), b.i64(0));
      const tiny = b.not(b.and(carries, b.eqz(biased)));
      const isTiny = b.and(tiny, b.i32(1));
      const masked = b.ne(b.and(mode, b.i32(UM)), b.i32(0));
      b.if(b.and(b.and(isTiny, masked), b.ne(b.and(mode, b.i32(FTZ)), b.i32(0))), () => {
        flag(c, Flag.ue | Flag.pe);
        b.ret(signBit);
      });
      const { m, inexact } = round(shiftJam(c, sig, b.extu(b.sub(b.i32(1), biased))));
      // Unmasked underflow is reported for every tiny result, and PE then is that of the unbounded exponent.
      const unbounded = b.and(isTiny, b.eqz(masked));
      const lost = b.select(unbounded, b.ne(b.and(sig, b.i64(mask)), b.i64(0)), inexact);
      flagIf(c, lost, Flag.pe);
      flagIf(c, b.and(isTiny, b.or(inexact, unbounded)), Flag.ue);
      b.ret(b.or(signBit, m));
    });
    const { m, inexact } = round(sig);
    const packed = b.add(b.shl(b.extu(b.sub(biased, b.i32(1))), b.i64(f.frac)), m);
    flagIf(c, inexact, Flag.pe);
    // `biased` alone can be too large for the field of binary32 or wrap that of binary64.
    b.if(b.or(b.ges(biased, b.i32(f.top)), b.geu(packed, b.i64(f.infinity))), () => {
      flag(c, Flag.oe);
      flagIf(c, b.ne(b.and(mode, b.i32(OM)), b.i32(0)), Flag.pe);
      b.ret(b.or(signBit, b.sub(b.i64(f.infinity), b.extu(b.eqz(inc)))));
    });
    b.ret(b.or(signBit, packed));
  }),
);

/** (a, b): the NaN that an operation on two operands gives where one is a NaN: the first NaN quieted; IE for a signalling one. */
const nanOf = each((f) =>
  sub(`soft.nan.f${f.bits}`, ['i64', 'i64'], 'i64', {}, (c, x, y) => {
    const b = c.b;
    flagIf(c, b.or(isSignalling(c, f, x), isSignalling(c, f, y)), Flag.ie);
    b.ret(quietNan(c, f, b.select(isNan(c, f, x), x, y)));
  }),
);

/** What every operation on two operands begins with: DAZ, and the answer to NaNs. */
function binary(c: Emit, f: Format, mode: Value, x: Value, y: Value): [Value, Value] {
  const b = c.b;
  const p = daz(c, f, mode, x);
  const q = daz(c, f, mode, y);
  b.if(b.or(isNan(c, f, p), isNan(c, f, q)), () => b.ret(c.call(nanOf[f.bits], p, q)));
  return [p, q];
}
function invalid(c: Emit, f: Format): void {
  flag(c, Flag.ie);
  c.b.ret(defaultNan(c, f));
}

/** (mode, a, b, flip): a + (b with its sign bit xored by `flip`); NaNs keep their sign. */
const addSub = each((f) =>
  sub(`soft.add.f${f.bits}`, ['i32', 'i64', 'i64', 'i64'], 'i64', {}, (c, mode, x, y, flip) => {
    const b = c.b;
    const [p, q0] = binary(c, f, mode, x, y);
    const q = b.xor(q0, flip);
    const same = b.eq(signOf(c, f, p), signOf(c, f, q));
    const infinite = isInf(c, f, p);
    b.if(b.and(b.and(infinite, isInf(c, f, q)), b.eqz(same)), () => invalid(c, f));
    flagIf(c, b.or(isDenormal(c, f, p), isDenormal(c, f, q)), Flag.de);
    b.if(infinite, () => b.ret(p));
    b.if(isInf(c, f, q), () => b.ret(q));
    const exactZero = (): Value => signed(c, f, b.eq(rounding(c, mode), b.i32(1)), 0n);
    b.if(isZero(c, f, p), () => {
      b.if(isZero(c, f, q), () => b.ret(b.select(same, p, exactZero())));
    });
    // The larger magnitude first.
    const swap = b.ltu(magnitude(c, f, p), magnitude(c, f, q));
    const big = unpack(c, f, b.select(swap, q, p));
    const other = b.select(swap, p, q);
    const small = unpack(c, f, other);
    const absent = isZero(c, f, other);
    const distance = b.extu(b.select(absent, b.i32(0), b.sub(big.exp, small.exp)));
    const low = b.select(absent, b.i64(0), shiftJam(c, small.sig, distance));
    b.if(same, () => {
      const sum = b.add(big.sig, low);
      const carry = b.shru(sum, b.i64(63));
      const jammed = b.or(b.shru(sum, carry), b.and(sum, carry));
      b.ret(c.call(roundPack[f.bits], mode, big.sign, b.add(big.exp, b.wrap(carry)), jammed));
    });
    const difference = b.sub(big.sig, low);
    b.if(b.eqz(difference), () => b.ret(exactZero()));
    const z = b.sub(b.clz(difference), b.i64(1));
    b.ret(c.call(roundPack[f.bits], mode, big.sign, b.sub(big.exp, b.wrap(z)), b.shl(difference, z)));
  }),
);

/** (mode, a, b): a + b. */
export const softAdd = each((f) =>
  sub(`soft.sum.f${f.bits}`, ['i32', 'i64', 'i64'], 'i64', {}, (c, mode, x, y) =>
    c.b.ret(c.call(addSub[f.bits], mode, x, y, c.b.i64(0))),
  ),
);
/** (mode, a, b): a − b. */
export const softSub = each((f) =>
  sub(`soft.sub.f${f.bits}`, ['i32', 'i64', 'i64'], 'i64', {}, (c, mode, x, y) =>
    c.b.ret(c.call(addSub[f.bits], mode, x, y, c.b.i64(f.sign))),
  ),
);

/** (mode, a, b): a · b. */
export const softMul = each((f) =>
  sub(`soft.mul.f${f.bits}`, ['i32', 'i64', 'i64'], 'i64', {}, (c, mode, x, y) => {
    const b = c.b;
    const [p, q] = binary(c, f, mode, x, y);
    const sign = b.xor(signOf(c, f, p), signOf(c, f, q));
    const infinite = b.or(isInf(c, f, p), isInf(c, f, q));
    const zero = b.or(isZero(c, f, p), isZero(c, f, q));
    b.if(b.and(infinite, zero), () => invalid(c, f));
    flagIf(c, b.or(isDenormal(c, f, p), isDenormal(c, f, q)), Flag.de);
    b.if(infinite, () => b.ret(signed(c, f, sign, f.infinity)));
    b.if(zero, () => b.ret(signed(c, f, sign, 0n)));
    const m = unpack(c, f, p);
    const n = unpack(c, f, q);
    // High half of a 64 × 64 product, by 32-bit pieces; both significands moved up to bit 63.
    const s = b.shl(m.sig, b.i64(1));
    const t = b.shl(n.sig, b.i64(1));
    const low = (v: Value): Value => b.and(v, b.i64(0xffffffffn));
    const high = (v: Value): Value => b.shru(v, b.i64(32));
    const ll = b.mul(low(s), low(t));
    const lh = b.mul(low(s), high(t));
    const hl = b.mul(high(s), low(t));
    const hh = b.mul(high(s), high(t));
    const middle = b.add(b.add(high(ll), low(lh)), low(hl));
    const top = b.add(b.add(hh, high(middle)), b.add(high(lh), high(hl)));
    const lost = b.ne(b.or(low(ll), low(middle)), b.i64(0));
    const product = b.or(top, b.extu(lost));
    const carry = b.shru(product, b.i64(63));
    const sig = b.or(b.shru(product, carry), b.and(product, carry));
    b.ret(c.call(roundPack[f.bits], mode, sign, b.add(b.add(m.exp, n.exp), b.wrap(carry)), sig));
  }),
);

/** (mode, a, b): a / b. */
export const softDiv = each((f) =>
  sub(`soft.div.f${f.bits}`, ['i32', 'i64', 'i64'], 'i64', {}, (c, mode, x, y) => {
    const b = c.b;
    const [p, q] = binary(c, f, mode, x, y);
    const sign = b.xor(signOf(c, f, p), signOf(c, f, q));
    const infinite = isInf(c, f, p);
    const byZero = isZero(c, f, q);
    b.if(b.or(b.and(infinite, isInf(c, f, q)), b.and(isZero(c, f, p), byZero)), () => invalid(c, f));
    b.if(byZero, () => {
      b.if(b.eqz(infinite), () => flag(c, Flag.ze));
      b.ret(signed(c, f, sign, f.infinity));
    });
    flagIf(c, b.or(isDenormal(c, f, p), isDenormal(c, f, q)), Flag.de);
    b.if(infinite, () => b.ret(signed(c, f, sign, f.infinity)));
    b.if(b.or(isZero(c, f, p), isInf(c, f, q)), () => b.ret(signed(c, f, sign, 0n)));
    const m = unpack(c, f, p);
    const n = unpack(c, f, q);
    // Long division, one bit of quotient per round, of a dividend not below the divisor: the leading bit is always 1.
    const less = b.ltu(m.sig, n.sig);
    const rem = b.variable(b.shl(m.sig, b.extu(less)));
    const quotient = b.variable(b.i64(0));
    const places = f.frac + 3;
    const left = b.variable(b.i32(places));
    b.loop((again) => {
      const r = b.getVar(rem);
      const fits = b.extu(b.geu(r, n.sig));
      b.setVar(quotient, b.or(b.shl(b.getVar(quotient), b.i64(1)), fits));
      b.setVar(rem, b.shl(b.sub(r, b.and(n.sig, b.neg(fits))), b.i64(1)));
      const count = b.sub(b.getVar(left), b.i32(1));
      b.setVar(left, count);
      b.br(again, count);
    });
    const sig = b.or(b.shl(b.getVar(quotient), b.i64(63 - places)), b.extu(b.ne(b.getVar(rem), b.i64(0))));
    b.ret(c.call(roundPack[f.bits], mode, sign, b.sub(b.sub(m.exp, n.exp), less), sig));
  }),
);

/** (mode, a): the square root. */
export const softSqrt = each((f) =>
  sub(`soft.sqrt.f${f.bits}`, ['i32', 'i64'], 'i64', {}, (c, mode, x) => {
    const b = c.b;
    const p = daz(c, f, mode, x);
    b.if(isNan(c, f, p), () => b.ret(c.call(nanOf[f.bits], p, p)));
    b.if(isZero(c, f, p), () => b.ret(p));
    const u = unpack(c, f, p);
    b.if(u.sign, () => invalid(c, f));
    flagIf(c, isDenormal(c, f, p), Flag.de);
    b.if(isInf(c, f, p), () => b.ret(p));
    // Digit by digit: two bits of the radicand for each bit of the root.
    const odd = b.and(u.exp, b.i32(1));
    const radicand = b.variable(b.shl(u.sig, b.extu(odd)));
    const rem = b.variable(b.i64(0));
    const root = b.variable(b.i64(0));
    const places = f.frac + 3;
    const left = b.variable(b.i32(places));
    b.loop((again) => {
      const m = b.getVar(radicand);
      const r = b.or(b.shl(b.getVar(rem), b.i64(2)), b.shru(m, b.i64(62)));
      b.setVar(radicand, b.shl(m, b.i64(2)));
      const q = b.getVar(root);
      const trial = b.or(b.shl(q, b.i64(2)), b.i64(1));
      const fits = b.extu(b.geu(r, trial));
      b.setVar(root, b.or(b.shl(q, b.i64(1)), fits));
      b.setVar(rem, b.sub(r, b.and(trial, b.neg(fits))));
      const count = b.sub(b.getVar(left), b.i32(1));
      b.setVar(left, count);
      b.br(again, count);
    });
    const rest = b.or(b.getVar(rem), b.getVar(radicand));
    const sig = b.or(b.shl(b.getVar(root), b.i64(63 - places)), b.extu(b.ne(rest, b.i64(0))));
    b.ret(c.call(roundPack[f.bits], mode, b.i32(0), b.shrs(u.exp, b.i32(1)), sig));
  }),
);

/** A key that orders finite numbers and infinities as signed integers, with both zeros at 0. */
function key(c: Emit, f: Format, x: Value): Value {
  const b = c.b;
  const m = magnitude(c, f, x);
  return b.select(signOf(c, f, x), b.neg(m), m);
}

/** (mode, a, b, signal i32): an `Order` (i32). Quiet NaNs are invalid as well where `signal` is 1. */
export const softCompare = each((f) =>
  sub(`soft.compare.f${f.bits}`, ['i32', 'i64', 'i64', 'i32'], 'i32', {}, (c, mode, x, y, signal) => {
    const b = c.b;
    const p = daz(c, f, mode, x);
    const q = daz(c, f, mode, y);
    b.if(b.or(isNan(c, f, p), isNan(c, f, q)), () => {
      flagIf(c, b.or(signal, b.or(isSignalling(c, f, p), isSignalling(c, f, q))), Flag.ie);
      b.ret(b.i32(Order.unordered));
    });
    flagIf(c, b.or(isDenormal(c, f, p), isDenormal(c, f, q)), Flag.de);
    const k = key(c, f, p);
    const l = key(c, f, q);
    b.ret(b.select(b.eq(k, l), b.i32(Order.equal), b.select(b.lts(k, l), b.i32(Order.less), b.i32(Order.greater))));
  }),
);

const extreme = (name: string, order: number): Readonly<Record<Width, Sub>> =>
  each((f) =>
    sub(`soft.${name}.f${f.bits}`, ['i32', 'i64', 'i64'], 'i64', {}, (c, mode, x, y) => {
      const b = c.b;
      const found = c.call(softCompare[f.bits], mode, x, y, b.i32(1));
      b.ret(b.select(b.eq(found, b.i32(order)), daz(c, f, mode, x), daz(c, f, mode, y)));
    }),
  );
/** (mode, a, b): a where a < b, else b: so b for NaNs and for two zeros. */
export const softMin = extreme('min', Order.less);
/** (mode, a, b): a where a > b, else b. */
export const softMax = extreme('max', Order.greater);

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
