// Between the 80-bit format and single, double, integer and packed BCD memory operands (Intel SDM volume 1, sections 4.2 and 8.2,
// tables 4-3 and 8-2).

import type { Value } from '../../ir/ir.ts';

import {
  BIAS, denormal, flag, inexact, isBad, isMax, isNegative, isUnsupported, isZero, lane1, mant, normal, overflowsToInfinity, pair, parts,
  restBelow, roundingControl, roundsUp, roundsUpToNearest, Sw, shiftRightJam, TOP,
} from './float80.ts'; // biome-ignore format: a list
import { fpCw } from './state.ts';
import { type Sub, sub } from './sub.ts';

/** An IEEE interchange format: bits, bits of the fraction. */
interface Format {
  readonly bits: 32 | 64;
  readonly fraction: 23 | 52;
}
const single: Format = { bits: 32, fraction: 23 };
const double: Format = { bits: 64, fraction: 52 };

/** From the bits (i64). A denormal comes with DE; a signalling NaN stays one. */
function widen({ bits, fraction }: Format): Sub {
  return sub(`f80.of.f${bits}`, ['i64'], 'v128', {}, (c, v) => {
    const { b } = c;
    const maxE = 2 ** (bits - 1 - fraction) - 1;
    const s = b.and(b.shru(v, b.i64(bits - 16)), b.i64(0x8000));
    const e = b.and(b.shru(v, b.i64(fraction)), b.i64(maxE));
    const m = b.shl(v, b.i64(64 - fraction));
    const whole = b.or(b.shru(m, b.i64(1)), b.i64(TOP));
    b.if(b.eqz(e), () => {
      b.if(b.eqz(m), () => b.ret(pair(c, b.i64(0), s)));
      const n = b.clz(m);
      const e80 = b.sub(b.i64(BIAS - (maxE >> 1)), n);
      b.ret(pair(c, b.shl(m, n), b.or(b.or(s, e80), b.i64(flag(Sw.de)))));
    });
    const e80 = b.select(b.eq(e, b.i64(maxE)), b.i64(0x7fff), b.add(e, b.i64(BIAS - (maxE >> 1))));
    b.ret(pair(c, whole, b.or(s, e80)));
  });
}
export const fromSingle = widen(single);
export const fromDouble = widen(double);

/** To the bits, in lane 0, with status bits in lane 1 as in every result. An unmasked OE or UE comes alone, without a value. */
function narrow({ bits, fraction }: Format): Sub {
  return sub(`f80.to.f${bits}`, ['v128'], 'v128', {}, (c, x) => {
    const { b } = c;
    const maxE = 2 ** (bits - 1 - fraction) - 1;
    const drop = b.i64(63 - fraction);
    const ulp = 1n << BigInt(63 - fraction);
    const p = parts(c, x);
    // Rounded to nearest, normal before and after.
    const quickE = b.sub(p.e, b.i64(BIAS - (maxE >> 1)));
    const plain = b.and(b.lts(p.m, b.i64(0)), b.ltu(b.sub(quickE, b.i64(1)), b.i64(maxE - 2)));
    b.if(b.and(plain, b.eqz(roundingControl(c))), () => {
      const kept = b.shru(p.m, drop);
      const rest = b.shl(p.m, b.i64(fraction + 1));
      const up = roundsUpToNearest(c, b.and(kept, b.i64(1)), rest);
      // The integer bit counts as one of the exponent, and so does a carry.
      const magnitude = b.add(b.add(b.shl(b.sub(quickE, b.i64(1)), b.i64(fraction)), kept), b.extu(up));
      b.ret(pair(c, b.or(b.shl(p.s, b.i64(bits - 16)), magnitude), inexact(c, rest, up)));
    });
    const s = b.shl(p.s, b.i64(bits - 16));
    const infinity = b.i64(BigInt(maxE) << BigInt(fraction));
    const quiet = b.i64(1n << BigInt(fraction - 1));
    const cutFraction = (m: Value): Value => b.shru(b.shl(m, b.i64(1)), b.i64(64 - fraction));
    b.if(isBad(c, p), () => {
      b.if(isUnsupported(c, p), () => {
        const negative = b.i64(1n << BigInt(bits - 1));
        b.ret(pair(c, b.or(b.or(negative, infinity), quiet), b.i64(flag(Sw.ie))));
      });
      const signals = b.shl(b.extu(b.eqz(b.and(p.m, b.i64(1n << 62n)))), b.i64(32));
      b.ret(pair(c, b.or(b.or(s, infinity), b.or(quiet, cutFraction(p.m))), signals));
    });
    b.if(isMax(c, p), () => b.ret(pair(c, b.or(s, infinity), b.i64(0))));
    b.if(isZero(c, p), () => b.ret(pair(c, s, b.i64(0))));
    const n = normal(c, p);
    const e = b.sub(n.e, b.i64(BIAS - (maxE >> 1)));
    const rc = roundingControl(c);
    const negative = isNegative(c, p);
    const roundAt = (high: Value, low: Value): { m: Value; rest: Value; up: Value; carry: Value } => {
      const rest = restBelow(c, high, low, drop);
      const up = roundsUp(c, rc, negative, b.ne(b.and(high, b.i64(ulp)), b.i64(0)), rest);
      const m = b.add(b.and(high, b.i64(-ulp)), b.select(up, b.i64(ulp), b.i64(0)));
      return { m, rest, up, carry: b.and(up, b.eqz(m)) };
    };
    const r = roundAt(n.m, b.i64(0));
    const e1 = b.add(e, b.extu(r.carry));
    const status = inexact(c, r.rest, r.up);
    const cw = c.get(fpCw);
    b.if(b.les(e, b.i64(0)), () => {
      const tiny = b.les(e1, b.i64(0));
      b.if(b.and(tiny, b.eqz(b.and(cw, b.i32(Sw.ue)))), () => b.ret(pair(c, b.i64(0), b.i64(flag(Sw.ue)))));
      const shifted = c.call(shiftRightJam, n.m, b.i64(0), b.sub(b.i64(1), e));
      const t = roundAt(lane1(c, shifted), mant(c, shifted));
      const under = b.shl(b.extu(b.and(tiny, b.ne(t.rest, b.i64(0)))), b.i64(36));
      // A carry into the top bit is the smallest normal number: its exponent field is 1.
      b.ret(pair(c, b.or(s, b.shru(t.m, drop)), b.or(inexact(c, t.rest, t.up), under)));
    });
    b.if(b.lts(e1, b.i64(maxE)), () => b.ret(pair(c, b.or(b.or(s, b.shl(e1, b.i64(fraction))), cutFraction(r.m)), status)));
    b.if(b.eqz(b.and(cw, b.i32(Sw.oe))), () => b.ret(pair(c, b.i64(0), b.i64(flag(Sw.oe)))));
    const infinite = overflowsToInfinity(c, rc, negative);
    const value = b.sub(infinity, b.extu(b.eqz(infinite)));
    const how = b.or(b.i64(flag(Sw.oe | Sw.pe)), b.shl(b.extu(infinite), b.i64(41)));
    b.ret(pair(c, b.or(s, value), how));
  });
}
export const toSingle = narrow(single);
export const toDouble = narrow(double);

/** A signed integer. */
export const fromInteger: Sub = sub('f80.of.int', ['i64'], 'v128', {}, (c, v) => {
  const { b } = c;
  b.if(b.eqz(v), () => b.ret(pair(c, v, v)));
  const negative = b.shrs(v, b.i64(63));
  const m = b.sub(b.xor(v, negative), negative);
  const n = b.clz(m);
  b.ret(pair(c, b.shl(m, n), b.or(b.and(negative, b.i64(0x8000)), b.sub(b.i64(BIAS + 63), n))));
});

/**
 * The magnitude of x rounded by `rc` (i32) to an integer, in lane 0, with its status in lane 1; IE alone, and no magnitude, where it is
 * not below 2^64 or x is no number.
 */
const magnitude: Sub = sub('f80.magnitude', ['v128', 'i32'], 'v128', {}, (c, x, rc) => {
  const { b } = c;
  const p = parts(c, x);
  b.if(b.or(isBad(c, p), b.gtu(p.e, b.i64(BIAS + 63))), () => b.ret(pair(c, b.i64(0), b.i64(flag(Sw.ie)))));
  const shifted = c.call(shiftRightJam, p.m, b.i64(0), b.sub(b.i64(BIAS + 63), p.e));
  const [high, rest] = [lane1(c, shifted), mant(c, shifted)];
  const up = roundsUp(c, rc, isNegative(c, p), b.wrap(b.and(high, b.i64(1))), rest);
  const whole = b.add(high, b.extu(up));
  b.ret(pair(c, whole, inexact(c, rest, up)));
});

/** x as an integer of `bits` (i64: 16, 32 or 64), sign-extended, in lane 0; the integer indefinite and IE where it does not fit. */
export const toInteger: Sub = sub('f80.to.int', ['v128', 'i32', 'i64'], 'v128', {}, (c, x, rc, bits) => {
  const { b } = c;
  const r = c.call(magnitude, x, rc);
  const [m, status] = [mant(c, r), lane1(c, r)];
  const negative = isNegative(c, parts(c, x));
  const limit = b.shl(b.i64(1), b.sub(bits, b.i64(1)));
  const fits = b.ltu(m, b.add(limit, b.extu(negative)));
  const valid = b.and(fits, b.eqz(b.and(status, b.i64(flag(Sw.ie)))));
  b.if(b.eqz(valid), () => b.ret(pair(c, b.neg(limit), b.i64(flag(Sw.ie)))));
  b.ret(pair(c, b.select(negative, b.neg(m), m), status));
});

/** Packed BCD: digits 0–15 in `low` (i64), digits 16–17 and the sign in `high` (i64, 16 bits). */
export const fromBcd: Sub = sub('f80.of.bcd', ['i64', 'i64'], 'v128', {}, (c, low, high) => {
  const { b } = c;
  const sum = b.variable(b.add(b.mul(b.and(b.shru(high, b.i64(4)), b.i64(15)), b.i64(10)), b.and(high, b.i64(15))));
  const shift = b.variable(b.i64(60));
  b.loop((again) => {
    const at = b.getVar(shift);
    const next = b.and(b.shru(low, at), b.i64(15));
    b.setVar(sum, b.add(b.mul(b.getVar(sum), b.i64(10)), next));
    b.setVar(shift, b.sub(at, b.i64(4)));
    b.br(again, b.ne(at, b.i64(0)));
  });
  const value = c.call(fromInteger, b.getVar(sum));
  b.ret(pair(c, mant(c, value), b.or(lane1(c, value), b.and(high, b.i64(0x8000)))));
});

/** Digits 0–15 of x as packed BCD in lane 0; in lane 1 bits 0–15 digits 16–17 and the sign, and the status. */
export const toBcd: Sub = sub('f80.to.bcd', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const r = c.call(magnitude, x, roundingControl(c));
  const [m, status] = [mant(c, r), lane1(c, r)];
  b.if(b.or(b.gtu(m, b.i64(999999999999999999n)), b.ne(b.and(status, b.i64(flag(Sw.ie))), b.i64(0))), () =>
    b.ret(pair(c, b.i64(3n << 62n), b.i64(0xffffn | flag(Sw.ie)))),
  );
  const left = b.variable(m);
  const digits = b.variable(b.i64(0));
  const count = b.variable(b.i64(16));
  b.loop((again) => {
    const v = b.getVar(left);
    b.setVar(digits, b.or(b.shru(b.getVar(digits), b.i64(4)), b.shl(b.remu(v, b.i64(10)), b.i64(60))));
    b.setVar(left, b.divu(v, b.i64(10)));
    const n = b.sub(b.getVar(count), b.i64(1));
    b.setVar(count, n);
    b.br(again, b.ne(n, b.i64(0)));
  });
  const top = b.getVar(left);
  const upper = b.or(b.remu(top, b.i64(10)), b.shl(b.divu(top, b.i64(10)), b.i64(4)));
  b.ret(pair(c, b.getVar(digits), b.or(b.or(upper, parts(c, x).s), status)));
});

/** The exact value of a memory operand's conversion with its quiet NaN: what FLD pushes. IE for a signalling NaN. */
export const quieted: Sub = sub('f80.quieted', ['v128'], 'v128', {}, (c, x) => {
  const { b } = c;
  const p = parts(c, x);
  const signals = b.and(isBad(c, p), b.eqz(b.and(p.m, b.i64(1n << 62n))));
  b.if(signals, () => b.ret(pair(c, b.or(p.m, b.i64(1n << 62n)), b.or(b.or(p.s, b.i64(0x7fff)), b.i64(flag(Sw.ie))))));
  b.ret(pair(c, p.m, b.or(b.or(p.s, p.e), denormal(c, p))));
});
