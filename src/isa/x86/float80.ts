// The 80-bit double extended-precision format in IR: packing, classes, NaN rules, rounding, and the wide integer arithmetic below
// them (Intel SDM volume 1, sections 4.2 "floating-point formats", 4.8 "real numbers", 4.9 "exceptions"; order 325462-083).

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { fpCw } from './state.ts';
import { type Sub, sub } from './sub.ts';

// A value of the format is one v128: the significand in 64-bit lane 0, sign and exponent in bits 0–15 of lane 1, just as `fpr` lies in
// memory. In a result, bits 32–63 of lane 1 carry what the operation adds to the status word.

/** Bits of the x87 status word. */
export const Sw = {
  ie: 1, de: 2, ze: 4, oe: 8, ue: 0x10, pe: 0x20, sf: 0x40, es: 0x80, c0: 0x100, c1: 0x200, c2: 0x400, c3: 0x4000, busy: 0x8000,
} as const; // biome-ignore format: a table

/** Exponent bias, and what an unmasked overflow or underflow subtracts from or adds to the exponent. */
export const BIAS = 16383;
const WRAP = 24576;
export const TOP = 1n << 63n;
const HALF = TOP;

/** A status-word bit at its place in lane 1. */
export const flag = (bits: number): bigint => BigInt(bits) << 32n;

export const mant = (c: Emit, v: Value): Value => c.b.lane('i64x2.extract_lane', [0], v);
/** Lane 1: sign and exponent, and the status bits above them. */
export const lane1 = (c: Emit, v: Value): Value => c.b.lane('i64x2.extract_lane', [1], v);
/** A v128 of two i64: `low` in lane 0. */
export const pair = (c: Emit, low: Value, high: Value): Value =>
  c.b.lane('i64x2.replace_lane', [1], c.b.op('i64x2.splat', low), high);
/** A constant: sign and exponent, significand, status bits. */
export function constant(c: Emit, signExponent: number, significand: bigint, status = 0): Value {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, significand, true);
  view.setBigUint64(8, BigInt(signExponent) | flag(status), true);
  return c.b.v128(bytes);
}
/** The default NaN ("real indefinite"), with status bits. */
export const indefinite = (c: Emit, status: number): Value => constant(c, 0xffff, 3n << 62n, status);
/** Status bits of a result, as i32. */
export const statusOf = (c: Emit, v: Value): Value => c.b.wrap(c.b.shru(lane1(c, v), c.b.i64(32)));
/** A result without its status bits. */
export const clean = (c: Emit, v: Value): Value => c.b.op('v128.and', v, constant(c, 0xffff, (1n << 64n) - 1n));
/** Adds status bits (i64, already in place) to a result. */
export const withStatus = (c: Emit, v: Value, bits: Value): Value => c.b.op('v128.or', v, pair(c, c.b.i64(0), bits));

/** An operand taken apart: significand, biased exponent, sign (0 or 0x8000), status bits that came with it; all i64. */
export interface Parts {
  readonly m: Value;
  readonly e: Value;
  readonly s: Value;
  readonly status: Value;
}
export function parts(c: Emit, v: Value): Parts {
  const { b } = c;
  const high = lane1(c, v);
  return {
    m: mant(c, v),
    e: b.and(high, b.i64(0x7fff)),
    s: b.and(high, b.i64(0x8000)),
    status: b.and(high, b.i64(flag(0x3f))),
  };
}
/** i32 0 or 1: zero. */
export const isZero = (c: Emit, p: Parts): Value => c.b.eqz(c.b.or(p.e, p.m));
/** i32 0 or 1: exponent all ones (infinity, once NaNs and unsupported values are excluded). */
export const isMax = (c: Emit, p: Parts): Value => c.b.eq(p.e, c.b.i64(0x7fff));
/** i32 0 or 1: negative. */
export const isNegative = (c: Emit, p: Parts): Value => c.b.ne(p.s, c.b.i64(0));
/** i32 0 or 1: unnormal, pseudo-infinity or pseudo-NaN (SDM volume 1, section 8.2.2): no operand of anything. */
export const isUnsupported = (c: Emit, p: Parts): Value => c.b.and(c.b.ne(p.e, c.b.i64(0)), c.b.ges(p.m, c.b.i64(0)));
/** i32 0 or 1: NaN with the integer bit set. */
export const isNan = (c: Emit, p: Parts): Value => c.b.and(isMax(c, p), c.b.gtu(p.m, c.b.i64(TOP)));
/** i32 0 or 1: a NaN or an unsupported value; `nan` then gives the result. */
export const isBad = (c: Emit, p: Parts): Value => c.b.or(isUnsupported(c, p), isNan(c, p));
/** DE, in place, where the operand is denormal or was converted from one; else 0. */
export function denormal(c: Emit, p: Parts): Value {
  const { b } = c;
  const here = b.and(b.eqz(p.e), b.ne(p.m, b.i64(0)));
  return b.or(p.status, b.shl(b.extu(here), b.i64(33)));
}
/** A finite nonzero operand with its significand's top bit set; the exponent may fall below 1. */
export function normal(c: Emit, p: Parts): { m: Value; e: Value } {
  const { b } = c;
  const n = b.clz(p.m);
  return { m: b.shl(p.m, n), e: b.sub(b.add(p.e, b.extu(b.eqz(p.e))), n) };
}

// -- wide integers

/** `high:low` shifted right by `n` (i64, 0 or more); bits that fall out are kept as a 1 in bit 0. Lane 1 is the upper half. */
export const shiftRightJam: Sub = sub('u128.shrjam', ['i64', 'i64', 'i64'], 'v128', {}, (c, high, low, n) => {
  const { b } = c;
  b.if(b.gtu(n, b.i64(127)), () => b.ret(pair(c, b.extu(b.ne(b.or(high, low), b.i64(0))), b.i64(0))));
  b.if(b.eqz(n), () => b.ret(pair(c, low, high)));
  const up = b.sub(b.i64(64), n);
  b.if(b.ltu(n, b.i64(64)), () => {
    const lost = b.extu(b.ne(b.shl(low, up), b.i64(0)));
    b.ret(pair(c, b.or(b.or(b.shru(low, n), b.shl(high, up)), lost), b.shru(high, n)));
  });
  // 64 to 127: the shift count counts modulo 64.
  const dropped = b.select(b.eq(n, b.i64(64)), b.i64(0), b.shl(high, up));
  const lost = b.extu(b.ne(b.or(low, dropped), b.i64(0)));
  b.ret(pair(c, b.or(b.shru(high, n), lost), b.i64(0)));
});

/** One 32-bit digit of a quotient: (u * 2^32 + next) / d, for u < d and the top bit of d set (Knuth, algorithm D). */
const digit: Sub = sub('u96.digit', ['i64', 'i64', 'i64'], 'i64', {}, (c, u, next, d) => {
  const { b } = c;
  const d1 = b.shru(d, b.i64(32));
  const d0 = b.and(d, b.i64(0xffffffffn));
  const q = b.variable(b.divu(u, d1));
  const r = b.variable(b.remu(u, d1));
  b.loop((again) => {
    const tooBig = b.gtu(b.mul(b.getVar(q), d0), b.or(b.shl(b.getVar(r), b.i64(32)), next));
    b.if(b.or(b.geu(b.getVar(q), b.i64(1n << 32n)), tooBig), () => {
      b.setVar(q, b.sub(b.getVar(q), b.i64(1)));
      b.setVar(r, b.add(b.getVar(r), d1));
      b.br(again, b.ltu(b.getVar(r), b.i64(1n << 32n)));
    });
  });
  b.ret(b.getVar(q));
});

/** `high:low` / `d` for high < d and the top bit of `d` set: quotient in lane 0, remainder in lane 1. */
export const divide: Sub = sub('u128.div', ['i64', 'i64', 'i64'], 'v128', {}, (c, high, low, d) => {
  const { b } = c;
  const next1 = b.shru(low, b.i64(32));
  const q1 = c.call(digit, high, next1, d);
  const r1 = b.sub(b.or(b.shl(high, b.i64(32)), next1), b.mul(q1, d));
  const next0 = b.and(low, b.i64(0xffffffffn));
  const q0 = c.call(digit, r1, next0, d);
  const r0 = b.sub(b.or(b.shl(r1, b.i64(32)), next0), b.mul(q0, d));
  b.ret(pair(c, b.or(b.shl(q1, b.i64(32)), q0), r0));
});

// -- rounding

/** Rounding control: 0 nearest even, 1 down, 2 up, 3 toward zero. */
export const roundingControl = (c: Emit): Value => c.b.and(c.b.shru(c.get(fpCw), c.b.i32(10)), c.b.i32(3));
/** Precision control: 0 single, 2 double, 3 extended. */
export const precisionControl = (c: Emit): Value => c.b.and(c.b.shru(c.get(fpCw), c.b.i32(8)), c.b.i32(3));

/** i32 0 or 1: whether the magnitude grows, for the discarded part `rest` (i64, as a fraction), `odd` and `negative` i32 0 or 1. */
export function roundsUp(c: Emit, rc: Value, negative: Value, odd: Value, rest: Value): Value {
  const { b } = c;
  const nearest = b.or(b.gtu(rest, b.i64(HALF)), b.and(b.eq(rest, b.i64(HALF)), odd));
  const away = b.select(b.eq(rc, b.i32(1)), negative, b.eqz(negative));
  const directed = b.and(b.and(b.ne(rest, b.i64(0)), away), b.ne(rc, b.i32(3)));
  return b.select(b.eqz(rc), nearest, directed);
}
/** i32 0 or 1: whether the magnitude grows when rounded to nearest; `odd` is i64 0 or 1. One addition carries out past half, or at half behind an odd bit. */
export const roundsUpToNearest = (c: Emit, odd: Value, rest: Value): Value =>
  c.b.ltu(c.b.add(rest, c.b.add(c.b.i64(HALF - 1n), odd)), rest);
/** i32 0 or 1: whether a magnitude too large rounds to infinity. */
export function overflowsToInfinity(c: Emit, rc: Value, negative: Value): Value {
  const { b } = c;
  return b.or(b.eqz(rc), b.select(negative, b.eq(rc, b.i32(1)), b.eq(rc, b.i32(2))));
}
/** The part of `high:low` below bit `drop` (i64) of `high`, as a 64-bit fraction of that bit with the rest jammed. */
export function restBelow(c: Emit, high: Value, low: Value, drop: Value): Value {
  const { b } = c;
  const jammed = b.or(b.shl(high, b.sub(b.i64(64), drop)), b.extu(b.ne(low, b.i64(0))));
  return b.select(b.eqz(drop), low, jammed);
}
/** PE, and C1 where the magnitude grew, in place (i64); 0 for an exact result. */
export function inexact(c: Emit, rest: Value, up: Value): Value {
  const { b } = c;
  return b.or(b.shl(b.extu(b.ne(rest, b.i64(0))), b.i64(37)), b.shl(b.extu(up), b.i64(41)));
}

/**
 * Rounds `high:low` * 2^(exponent - BIAS - 127) with `sign` (0 or 0x8000) into the format, by the control word's rounding control and
 * the precision control `pc` (i32), with the responses to overflow and underflow that the masks ask for. `high` need not be normal.
 */
export const round: Sub = sub(
  'f80.round',
  ['i64', 'i64', 'i64', 'i64', 'i32'],
  'v128',
  {},
  (c, sign, exponent, high, low, pc) => {
    const { b } = c;
    b.if(b.eqz(b.or(high, low)), () => b.ret(pair(c, b.i64(0), sign)));
    const [e, h, l] = [b.variable(exponent), b.variable(high), b.variable(low)];
    b.if(b.ges(high, b.i64(0)), () => {
      b.if(b.eqz(high), () => {
        b.setVar(h, low);
        b.setVar(l, b.i64(0));
        b.setVar(e, b.sub(exponent, b.i64(64)));
      });
      const [h1, l1] = [b.getVar(h), b.getVar(l)];
      const n = b.clz(h1);
      b.setVar(h, b.or(b.shl(h1, n), b.shru(b.shru(l1, b.i64(1)), b.sub(b.i64(63), n))));
      b.setVar(l, b.shl(l1, n));
      b.setVar(e, b.sub(b.getVar(e), n));
    });
    const rc = roundingControl(c);
    const cw = c.get(fpCw);
    const negative = b.ne(sign, b.i64(0));
    const drop = b.select(b.eqz(pc), b.i64(40), b.select(b.eq(pc, b.i32(2)), b.i64(11), b.i64(0)));
    const ulp = b.shl(b.i64(1), drop);
    const [e0, h0, l0] = [b.getVar(e), b.getVar(h), b.getVar(l)];
    // As if the exponent had no bounds.
    const rest = restBelow(c, h0, l0, drop);
    const up = roundsUp(c, rc, negative, b.ne(b.and(h0, ulp), b.i64(0)), rest);
    const cut = b.and(h0, b.neg(ulp));
    const sum = b.add(cut, b.select(up, ulp, b.i64(0)));
    const carry = b.and(up, b.eqz(sum));
    const m1 = b.select(carry, b.i64(TOP), sum);
    const e1 = b.add(e0, b.extu(carry));
    const status = inexact(c, rest, up);

    b.if(b.les(e0, b.i64(0)), () => {
      const tiny = b.les(e1, b.i64(0));
      b.if(b.and(tiny, b.eqz(b.and(cw, b.i32(Sw.ue)))), () => {
        const scaled = b.add(e1, b.i64(WRAP));
        b.if(b.les(scaled, b.i64(0)), () => b.ret(pair(c, b.i64(0), b.or(sign, b.i64(flag(Sw.ue | Sw.pe))))));
        b.ret(pair(c, m1, b.or(b.or(sign, scaled), b.or(status, b.i64(flag(Sw.ue))))));
      });
      const shifted = c.call(shiftRightJam, h0, l0, b.sub(b.i64(1), e0));
      const hs = lane1(c, shifted);
      const restS = restBelow(c, hs, mant(c, shifted), drop);
      const upS = roundsUp(c, rc, negative, b.ne(b.and(hs, ulp), b.i64(0)), restS);
      const ms = b.add(b.and(hs, b.neg(ulp)), b.select(upS, ulp, b.i64(0)));
      const under = b.shl(b.extu(b.and(tiny, b.ne(restS, b.i64(0)))), b.i64(36));
      b.ret(pair(c, ms, b.or(b.or(sign, b.shru(ms, b.i64(63))), b.or(inexact(c, restS, upS), under))));
    });
    b.if(b.lts(e1, b.i64(0x7fff)), () => b.ret(pair(c, m1, b.or(b.or(sign, e1), status))));
    b.if(b.eqz(b.and(cw, b.i32(Sw.oe))), () => {
      const scaled = b.sub(e1, b.i64(WRAP));
      b.if(b.ges(scaled, b.i64(0x7fff)), () =>
        b.ret(pair(c, b.i64(TOP), b.or(sign, b.i64(0x7fffn | flag(Sw.oe | Sw.pe | Sw.c1))))),
      );
      b.ret(pair(c, m1, b.or(b.or(sign, scaled), b.or(status, b.i64(flag(Sw.oe))))));
    });
    const infinite = overflowsToInfinity(c, rc, negative);
    const m = b.select(infinite, b.i64(TOP), b.neg(ulp));
    const high1 = b.select(infinite, b.i64(0x7fffn | flag(Sw.oe | Sw.pe | Sw.c1)), b.i64(0x7ffen | flag(Sw.oe | Sw.pe)));
    b.ret(pair(c, m, b.or(sign, high1)));
  },
);

/**
 * The result where `x` or `y` is a NaN or unsupported: the quiet NaN before the signalling one, else the larger significand, else the
 * positive one (SDM volume 1, table 4-7). One operand: pass it twice.
 */
export const nan: Sub = sub('f80.nan', ['v128', 'v128'], 'v128', {}, (c, x, y) => {
  const { b } = c;
  const [p, q] = [parts(c, x), parts(c, y)];
  b.if(b.or(isUnsupported(c, p), isUnsupported(c, q)), () => b.ret(indefinite(c, Sw.ie)));
  const quiet = (v: Parts): Value => b.wrap(b.and(b.shru(v.m, b.i64(62)), b.i64(1)));
  const [xNan, yNan] = [isNan(c, p), isNan(c, q)];
  const xSignals = b.and(xNan, b.eqz(quiet(p)));
  const ySignals = b.and(yNan, b.eqz(quiet(q)));
  const larger = b.or(b.gtu(p.m, q.m), b.and(b.eq(p.m, q.m), b.leu(p.s, q.s)));
  const both = b.select(b.eq(xSignals, ySignals), larger, ySignals);
  const takeX = b.select(b.and(xNan, yNan), both, xNan);
  const m = b.or(b.select(takeX, p.m, q.m), b.i64(1n << 62n));
  const s = b.select(takeX, p.s, q.s);
  const status = b.shl(b.extu(b.or(xSignals, ySignals)), b.i64(32));
  b.ret(pair(c, m, b.or(b.or(s, b.i64(0x7fff)), status)));
});
