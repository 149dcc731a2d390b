// Conversions between binary16 and binary32 (Intel SDM volume 2: VCVTPH2PS, VCVTPS2PH; volume 1, section 14.4.1).

import type { Value } from '../../../ir/ir.ts';
import type { Emit } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { Flag, flagIf, rounding, roundsUp, shiftJam } from '../softfloat-core.ts';
import { sseFlags } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import { join, lanes32, lowHalf, zeroVec } from './sse.ts';
import { exact, sseFinish } from './sse-math.ts';
import { AVX, lowPart, writeAll } from './vex.ts';

/** (v): the low halves of four 32-bit lanes widened. Denormals are exact and raise nothing; signalling NaNs raise IE. */
const widen: Sub = sub('f16c.widen', ['v128'], 'v128', { faults: true }, (c, v) => {
  const b = c.b;
  const and = (x: Value, mask: number): Value => b.op('v128.and', x, lanes32(c, mask));
  const magnitude = and(v, 0x7fff);
  const sign = b.op('i32x4.shl', and(v, 0x8000), b.i32(16));
  // The exponent moves by 112: a multiplication does that for denormals as well.
  const scaled = b.op('f32x4.mul', b.op('i32x4.shl', magnitude, b.i32(13)), lanes32(c, 0x77800000));
  const special = b.op('i32x4.gt_u', magnitude, lanes32(c, 0x7bff));
  const isNan = b.op('i32x4.gt_u', magnitude, lanes32(c, 0x7c00));
  const signalling = b.op('v128.andnot', isNan, b.op('i32x4.ne', and(v, 0x200), zeroVec(c)));
  b.if(b.op('v128.any_true', signalling), () => {
    c.set(sseFlags, b.i32(Flag.ie));
    c.do(sseFinish);
  });
  const wide = b.op('v128.or', b.op('i32x4.shl', magnitude, b.i32(13)), lanes32(c, 0x7f800000));
  const quiet = b.op('v128.or', wide, b.op('v128.and', isNan, lanes32(c, 0x00400000)));
  b.ret(b.op('v128.or', b.op('v128.bitselect', quiet, scaled, special), sign));
});

/** (mode, x): a binary32 pattern (i64) as binary16. DAZ counts, FTZ does not. */
const narrowOne: Sub = sub('f16c.narrow', ['i32', 'i64'], 'i64', {}, (c, mode, x) => {
  const b = c.b;
  const sign = b.and(b.shru(x, b.i64(16)), b.i64(0x8000));
  const given = b.and(x, b.i64(0x7fffffff));
  b.if(b.gtu(given, b.i64(0x7f800000)), () => {
    flagIf(c, b.wrap(b.eqz(b.and(x, b.i64(0x400000)))), Flag.ie);
    b.ret(b.or(sign, b.or(b.i64(0x7e00), b.and(b.shru(x, b.i64(13)), b.i64(0x1ff)))));
  });
  b.if(b.eq(given, b.i64(0x7f800000)), () => b.ret(b.or(sign, b.i64(0x7c00))));
  const denormal = b.ltu(given, b.i64(0x800000));
  const flushed = b.and(denormal, b.ne(b.and(mode, b.i32(0x40)), b.i32(0)));
  const m = b.select(flushed, b.i64(0), given);
  b.if(b.eqz(m), () => b.ret(sign));
  flagIf(c, denormal, Flag.de);
  const field = b.wrap(b.shru(m, b.i64(23)));
  const significand = b.or(b.and(m, b.i64(0x7fffff)), b.select(denormal, b.i64(0), b.i64(0x800000)));
  // Ten bits of fraction are left; below the least exponent, -14, fewer.
  const exp = b.sub(b.select(denormal, b.i32(1), field), b.i32(112));
  const tiny = b.les(exp, b.i32(0));
  const extra = b.select(tiny, b.sub(b.i32(1), exp), b.i32(0));
  const wide = c.b.shl(significand, b.i64(30));
  const moved = shiftJam(c, wide, b.extu(extra));
  const rest = b.and(moved, b.i64((1n << 43n) - 1n));
  const cut = b.shru(moved, b.i64(43));
  const signBit = b.wrap(b.shru(sign, b.i64(15)));
  const up = roundsUp(c, rounding(c, mode), signBit, rest, b.i64(1n << 42n), b.wrap(b.and(cut, b.i64(1))));
  const inexact = b.ne(rest, b.i64(0));
  const biased = b.select(tiny, b.i64(0), b.extu(b.sub(exp, b.i32(1))));
  const packed = b.add(b.add(b.shl(biased, b.i64(10)), cut), b.extu(up));
  flagIf(c, inexact, Flag.pe);
  // Tininess is judged after rounding to an unbounded exponent.
  const unboundedRest = b.and(wide, b.i64((1n << 43n) - 1n));
  const unboundedUp = roundsUp(
    c,
    rounding(c, mode),
    signBit,
    unboundedRest,
    b.i64(1n << 42n),
    b.wrap(b.and(b.shru(wide, b.i64(43)), b.i64(1))),
  );
  const carries = b.eq(b.add(b.shru(wide, b.i64(43)), b.extu(unboundedUp)), b.i64(0x800));
  const isTiny = b.and(tiny, b.eqz(b.and(carries, b.eqz(exp))));
  const masked = b.ne(b.and(mode, b.i32(1 << 11)), b.i32(0));
  flagIf(c, b.and(isTiny, b.or(inexact, b.eqz(masked))), Flag.ue);
  b.if(b.geu(packed, b.i64(0x7c00)), () => {
    flagIf(c, b.i32(1), Flag.oe | Flag.pe);
    const away = b.or(b.eqz(rounding(c, mode)), b.eq(rounding(c, mode), b.sub(b.i32(2), signBit)));
    b.ret(b.or(sign, b.select(away, b.i64(0x7c00), b.i64(0x7bff))));
  });
  b.ret(b.or(sign, packed));
});
/** (v, rounding in bits 13–14 of the second operand as in MXCSR, with the rest of MXCSR): four floats to 64 bits. */
const narrow: Sub = exact('f16c.narrow4', ['v128', 'i32'], 'i64', (c, mode, v, imm) => {
  const b = c.b;
  // Bit 2 of the immediate: MXCSR's own rounding.
  const own = b.or(b.and(mode, b.i32(~0x6000)), b.shl(b.and(imm, b.i32(3)), b.i32(13)));
  const used = b.select(b.and(imm, b.i32(4)), mode, own);
  let r: Value = b.i64(0);
  for (let i = 0; i < 4; i++) {
    const one = c.call(narrowOne, used, b.extu(b.lane('i32x4.extract_lane', [i], v)));
    r = b.or(r, b.shl(one, b.i64(16 * i)));
  }
  return r;
});

const spread = (c: Emit, quad: Value): Value => c.b.op('i32x4.extend_low_i16x8_u', c.b.op('i64x2.splat', quad));

export const f16cRows: readonly Row[] = [
  insn('VEX.66.0F38.W0 13', 'vcvtph2ps Vx,Wu', AVX, (c, d, s) => {
    const b = c.b;
    const first = s.isMemory ? b.load('i64', c.linear(s, c.wide ? 16 : 8, false)) : lowHalf(c, c.readVec(s, 'v128'));
    const parts = [first];
    if (c.wide) {
      parts.push(
        s.isMemory ? b.load('i64', b.add(c.linear(s, 16, false), b.i64(8))) : lowPart(c, c.readVec(s, 'v128'), 'i64', 1),
      );
    }
    writeAll(c, d, parts.map((v) => c.call(widen, spread(c, v)))); // biome-ignore format: one call
  }),
  insn('VEX.66.0F3A.W0 1D', 'vcvtps2ph Wu,Vx,Ib', AVX, (c, d, s, i) => {
    const b = c.b;
    const imm = c.imm(i);
    const low = c.call(narrow, c.readHalf(s, 0), imm);
    const high = c.wide ? c.call(narrow, c.readHalf(s, 1), imm) : null;
    if (!d.isMemory) c.writeHalves(d, high ? join(c, low, high) : b.lane('i64x2.replace_lane', [0], zeroVec(c), low), null);
    else if (high) c.writeVec(d, 'v128', join(c, low, high));
    else b.store('i64', c.linear(d, 8, true), low);
  }),
];
