// Exact addition, subtraction, multiplication, division, square root, comparison, minimum and maximum of binary32 and binary64 in
// integer IR: see softfloat-core.ts. Intel SDM volume 1, sections 4.8, 4.9 and 11.5.

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import {
  daz,
  defaultNan,
  each,
  Flag,
  type Format,
  flag,
  flagIf,
  isDenormal,
  isInf,
  isNan,
  isSignalling,
  isZero,
  magnitude,
  nanOf,
  Order,
  rounding,
  roundPack,
  shiftJam,
  signed,
  signOf,
  unpack,
  type Width,
} from './softfloat-core.ts';
import { type Sub, sub } from './sub.ts';

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
