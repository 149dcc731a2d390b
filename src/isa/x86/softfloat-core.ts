// The pieces of exact binary32 and binary64 arithmetic: formats, unpacking, rounding, flags. Intel SDM volume 1, sections 4.8 (formats,
// NaN rules), 4.9 (exceptions) and 11.5 (SSE exceptions).
//
// All subroutines of softfloat*.ts take `mode` (the MXCSR image, i32) and operands as bit patterns in i64 (binary32 zero-extended), and
// collect exception flags in the slot `sseFlags`, bits 0–5 as in MXCSR: IE DE ZE OE UE PE. None of them faults.

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
export interface Format {
  readonly bits: Width;
  readonly frac: number;
  readonly bias: number;
  readonly top: number;
  readonly sign: bigint;
  readonly infinity: bigint;
  readonly quiet: bigint;
}
export const format = (bits: Width, frac: number): Format => {
  const top = 2 ** (bits - 1 - frac) - 1;
  const f = BigInt(frac);
  return { bits, frac, bias: top >> 1, top, sign: 1n << BigInt(bits - 1), infinity: BigInt(top) << f, quiet: 1n << (f - 1n) };
};
export const formats: Readonly<Record<Width, Format>> = { 32: format(32, 23), 64: format(64, 52) };

const RC = 13;
const DAZ = 1 << 6;
const FTZ = 1 << 15;
const OM = 1 << 10;
const UM = 1 << 11;

/** Adds exception flags (a constant). */
export function flag(c: Emit, bits: number): void {
  c.set(sseFlags, c.b.or(c.get(sseFlags), c.b.i32(bits)));
}
/** Adds exception flags where `cond` is 1. */
export function flagIf(c: Emit, cond: Value, bits: number): void {
  const b = c.b;
  c.set(sseFlags, b.or(c.get(sseFlags), b.and(b.neg(cond), b.i32(bits))));
}

export const magnitude = (c: Emit, f: Format, x: Value): Value => c.b.and(x, c.b.i64(f.sign - 1n));
export const signOf = (c: Emit, f: Format, x: Value): Value => c.b.wrap(c.b.shru(x, c.b.i64(f.bits - 1)));
export const isNan = (c: Emit, f: Format, x: Value): Value => c.b.gtu(magnitude(c, f, x), c.b.i64(f.infinity));
export const isInf = (c: Emit, f: Format, x: Value): Value => c.b.eq(magnitude(c, f, x), c.b.i64(f.infinity));
export const isZero = (c: Emit, f: Format, x: Value): Value => c.b.eqz(magnitude(c, f, x));
/** A NaN whose quiet bit is clear. */
export const isSignalling = (c: Emit, f: Format, x: Value): Value =>
  c.b.and(isNan(c, f, x), c.b.wrap(c.b.eqz(c.b.and(x, c.b.i64(f.quiet)))));
/** Exponent field 0 and fraction not 0. */
export const isDenormal = (c: Emit, f: Format, x: Value): Value =>
  c.b.ltu(c.b.sub(magnitude(c, f, x), c.b.i64(1)), c.b.i64((1n << BigInt(f.frac)) - 1n));
/** A zero, an infinity, … with the sign bit `sign` (i32 0 or 1). */
export const signed = (c: Emit, f: Format, sign: Value, pattern: bigint): Value =>
  c.b.or(c.b.shl(c.b.extu(sign), c.b.i64(f.bits - 1)), c.b.i64(pattern));
export const quietNan = (c: Emit, f: Format, x: Value): Value => c.b.or(x, c.b.i64(f.quiet));
/** The default NaN (QNaN floating-point indefinite). */
export const defaultNan = (c: Emit, f: Format): Value => c.b.i64(f.sign | f.infinity | f.quiet);
export const rounding = (c: Emit, mode: Value): Value => c.b.and(c.b.shru(mode, c.b.i32(RC)), c.b.i32(3));

/** Denormals as zeros of their sign where MXCSR.DAZ is set. */
export function daz(c: Emit, f: Format, mode: Value, x: Value): Value {
  const b = c.b;
  const flush = b.and(b.ne(b.and(mode, b.i32(DAZ)), b.i32(0)), isDenormal(c, f, x));
  return b.select(flush, b.and(x, b.i64(f.sign)), x);
}

/** Sign (i32), exponent of the leading bit (i32) and significand (i64, leading bit at 62) of a finite number that is not zero. */
export function unpack(c: Emit, f: Format, x: Value): { sign: Value; exp: Value; sig: Value } {
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
export function shiftJam(c: Emit, x: Value, n: Value): Value {
  const b = c.b;
  const lost = b.and(x, b.sub(b.shl(b.i64(1), n), b.i64(1)));
  const near = b.or(b.shru(x, n), b.extu(b.ne(lost, b.i64(0))));
  return b.select(b.gtu(n, b.i64(63)), b.extu(b.ne(x, b.i64(0))), near);
}

/** 1 where rounding by `rc` raises the magnitude, for a remainder compared with half a unit in the last place. */
export function roundsUp(c: Emit, rc: Value, sign: Value, rem: Value, half: Value, odd: Value): Value {
  const b = c.b;
  const nearest = b.or(b.gtu(rem, half), b.and(b.eq(rem, half), odd));
  const directed = b.and(b.ne(rem, b.i64(0)), b.eq(rc, b.sub(b.i32(2), sign)));
  return b.select(b.eqz(rc), nearest, directed);
}

export const each = (build: (f: Format) => Sub): Readonly<Record<Width, Sub>> => ({
  32: build(formats[32]),
  64: build(formats[64]),
});

/**
 * (mode, sign i32, exp i32, sig i64): rounds sig · 2^(exp − 62) to the format; sig has its leading bit at 62, and its last place
 * stands for everything below. Sets OE, UE, PE.
 */
export const roundPack = each((f) =>
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
export const nanOf = each((f) =>
  sub(`soft.nan.f${f.bits}`, ['i64', 'i64'], 'i64', {}, (c, x, y) => {
    const b = c.b;
    flagIf(c, b.or(isSignalling(c, f, x), isSignalling(c, f, y)), Flag.ie);
    b.ret(quietNan(c, f, b.select(isNan(c, f, x), x, y)));
  }),
);
