// SSE conversions between integers, binary32 and binary64 (Intel SDM volume 2, CVTxx; volume 1, section 4.8.3 and table 4-8).
// Out of range and NaN give the integer indefinite (the sign bit alone). Fast and exact paths: see sse-math.ts.

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { softFromInt, softNarrow, softToInt, softWiden } from '../softfloat-convert.ts';
import type { Width } from '../softfloat-core.ts';
import type { Sub } from '../sub.ts';
import { bytes, lanes32, lanes64, lowHalf, mmxCheck, mmxEnter, SSE, shuffle, zeroVec } from './sse.ts';
import { bitsOf, exact, floatOf, guarded, laneBits, noNan, shapes, withLane } from './sse-math.ts';

/** A 64-bit value with zeros above. */
const low64 = (c: Emit, x: Value): Value => c.b.lane('i64x2.replace_lane', [0], zeroVec(c), x);
/** Rounding control: that of MXCSR, or towards zero. */
const control = (c: Emit, mode: Value, truncate: boolean): Value =>
  truncate ? c.b.i32(3) : c.b.and(c.b.shru(mode, c.b.i32(13)), c.b.i32(3));

/** (v128) → v128: each of `count` lanes of width `from` converted to width `to`, zeros above. */
const exactLanes = (
  name: string,
  from: Width,
  to: Width,
  count: number,
  convert: (c: Emit, mode: Value, x: Value) => Value,
): Sub =>
  exact(name, ['v128'], 'v128', (c, mode, x) => {
    let r = zeroVec(c);
    for (let i = 0; i < count; i++) r = withLane(c, to, i, r, convert(c, mode, laneBits(c, from, i, x)));
    return r;
  });

// -- float to integer, scalar

const toInt = (w: Width, n: Width, truncate: boolean): Sub =>
  exact(`${truncate ? 'cvtt' : 'cvt'}.f${w}.i${n}`, ['i64'], 'i64', (c, mode, x) =>
    c.call(softToInt[n][w], mode, control(c, mode, truncate), x),
  );
const toIntExact: Readonly<Record<Width, Readonly<Record<Width, readonly [Sub, Sub]>>>> = {
  32: { 32: [toInt(32, 32, false), toInt(32, 32, true)], 64: [toInt(32, 64, false), toInt(32, 64, true)] },
  64: { 32: [toInt(64, 32, false), toInt(64, 32, true)], 64: [toInt(64, 64, false), toInt(64, 64, true)] },
};
const scalarToInt =
  (w: Width, truncate: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const { type } = shapes[w];
    const n = d.bits as Width;
    const x = c.readVec(s, type);
    const fast = (): Value => {
      const r = truncate ? x : b.op(`${type}.nearest`, x);
      const limit = w === 32 ? b.f32(2 ** (n - 1)) : b.f64(2 ** (n - 1));
      // Too low saturates to the indefinite already; NaNs and too high fail the comparison.
      const indefinite = n === 32 ? b.i32(0x80000000) : b.i64(1n << 63n);
      return b.select(b.op(`${type}.lt`, r, limit), b.op(`i${n}.trunc_sat_${type}_s`, r), indefinite);
    };
    const slow = (): Value => b.fit(`i${n}`, c.call(toIntExact[w][n][truncate ? 1 : 0], bitsOf(c, x)));
    c.write(d, guarded(c, `i${n}`, fast, slow));
  };

// -- integer to float, scalar

const fromIntExact: Readonly<Record<Width, Sub>> = {
  32: exact('from_int.f32', ['i64'], 'i64', (c, mode, x) => c.call(softFromInt[32], mode, x)),
  64: exact('from_int.f64', ['i64'], 'i64', (c, mode, x) => c.call(softFromInt[64], mode, x)),
};
const scalarFromInt =
  (w: Width) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const { type } = shapes[w];
    const x = c.read(s);
    const fast = (): Value => b.op(`${type}.convert_i${s.bits}_s`, x);
    // Every 32-bit integer is a binary64.
    const isExact = w === 64 && s.bits === 32;
    const slow = (): Value => floatOf(c, w, c.call(fromIntExact[w], b.exts(x)));
    c.writeVec(d, type, isExact ? fast() : guarded(c, type, fast, slow));
  };

// -- packed, to and from 32-bit integers

/** Lanes of `r` (rounded floats) as 32-bit integers, indefinite where they do not fit. */
function toInt32x4(c: Emit, r: Value): Value {
  const b = c.b;
  const fits = b.op('f32x4.lt', r, lanes32(c, 0x4f000000));
  return b.op('v128.bitselect', b.op('i32x4.trunc_sat_f32x4_s', r), lanes32(c, 0x80000000), fits);
}
function toInt32x2(c: Emit, r: Value): Value {
  const b = c.b;
  const fits = b.op('f64x2.lt', r, lanes64(c, 0x41e0000000000000n));
  // Two masks side by side, and ones above, where the result is zero.
  const chosen = shuffle(c, bytes(4, [0, 2, 4, 4]), fits, lanes32(c, 0xffffffff));
  return b.op('v128.bitselect', b.op('i32x4.trunc_sat_f64x2_s_zero', r), lanes32(c, 0x80000000), chosen);
}
const packedToIntExact = (w: Width, count: number): readonly [Sub, Sub] => {
  const make = (truncate: boolean): Sub =>
    exactLanes(`${truncate ? 'cvtt' : 'cvt'}.f${w}x${count}`, w, 32, count, (c, mode, x) =>
      c.call(softToInt[32][w], mode, control(c, mode, truncate), x),
    );
  return [make(false), make(true)];
};
const toIntPs = packedToIntExact(32, 4);
const toIntPsLow = packedToIntExact(32, 2);
const toIntPd = packedToIntExact(64, 2);

const packedToInt = (c: Emit, w: Width, slow: readonly [Sub, Sub], truncate: boolean, x: Value): Value => {
  const fast = (): Value => {
    const r = truncate ? x : c.b.op(`${shapes[w].name}.nearest`, x);
    return w === 32 ? toInt32x4(c, r) : toInt32x2(c, r);
  };
  return guarded(c, 'v128', fast, () => c.call(slow[truncate ? 1 : 0], x));
};
const fromIntLanes = (count: number): Sub =>
  exactLanes(`from_int.f32x${count}`, 32, 32, count, (c, mode, x) => c.call(softFromInt[32], mode, c.b.op('i64.extend32_s', x)));
const fromInt4 = fromIntLanes(4);
const fromInt2 = fromIntLanes(2);
const fromInt = (c: Emit, slow: Sub, x: Value): Value =>
  guarded(c, 'v128', () => c.b.op('f32x4.convert_i32x4_s', x), () => c.call(slow, x)); // biome-ignore format: one call

const toIntVector =
  (w: Width, truncate: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void =>
    c.writeVec(d, 'v128', packedToInt(c, w, w === 32 ? toIntPs : toIntPd, truncate, c.readVec(s, 'v128')));
const toIntMmx =
  (w: Width, truncate: boolean) =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    mmxCheck(c);
    const x = w === 64 ? c.readVec(s, 'v128') : low64(c, c.readVec(s, 'i64'));
    // The transition stays where the conversion raises #XM.
    mmxEnter(c);
    c.writeVec(d, 'i64', lowHalf(c, packedToInt(c, w, w === 32 ? toIntPsLow : toIntPd, truncate, x)));
  };

// -- between the two widths

const widenExact = exact('widen', ['i64'], 'i64', (c, mode, x) => c.call(softWiden, mode, x));
const narrowExact = exact('narrow', ['i64'], 'i64', (c, mode, x) => c.call(softNarrow, mode, x));
const widenLanes = exactLanes('widen.x2', 32, 64, 2, (c, mode, x) => c.call(softWiden, mode, x));
const narrowLanes = exactLanes('narrow.x2', 64, 32, 2, (c, mode, x) => c.call(softNarrow, mode, x));

const widthRows = [
  insn('NP 0F 5A', 'cvtps2pd Vx,Wq', SSE, (c, d, s) => {
    const x = low64(c, c.readVec(s, 'i64'));
    const fast = (): Value => c.b.op('f64x2.promote_low_f32x4', x);
    c.writeVec(
      d,
      'v128',
      guarded(c, 'v128', fast, () => c.call(widenLanes, x), noNan(c, 'f64x2')),
    );
  }),
  insn('66 0F 5A', 'cvtpd2ps Vx,Wx', SSE, (c, d, s) => {
    const x = c.readVec(s, 'v128');
    const fast = (): Value => c.b.op('f32x4.demote_f64x2_zero', x);
    c.writeVec(
      d,
      'v128',
      guarded(c, 'v128', fast, () => c.call(narrowLanes, x), noNan(c, 'f32x4')),
    );
  }),
  insn('F3 0F 5A', 'cvtss2sd Vx,Wd', SSE, (c, d, s) => {
    const x = c.readVec(s, 'f32');
    const slow = (): Value => floatOf(c, 64, c.call(widenExact, bitsOf(c, x)));
    c.writeVec(
      d,
      'f64',
      guarded(c, 'f64', () => c.b.op('f64.promote_f32', x), slow, noNan(c, 'f64')),
    );
  }),
  insn('F2 0F 5A', 'cvtsd2ss Vx,Wq', SSE, (c, d, s) => {
    const x = c.readVec(s, 'f64');
    const slow = (): Value => floatOf(c, 32, c.call(narrowExact, bitsOf(c, x)));
    c.writeVec(
      d,
      'f32',
      guarded(c, 'f32', () => c.b.op('f32.demote_f64', x), slow, noNan(c, 'f32')),
    );
  }),
];

export const sseConvertRows: readonly Row[] = [
  insn('F3 0F 2A', 'cvtsi2ss Vx,Ey', SSE, scalarFromInt(32)),
  insn('F2 0F 2A', 'cvtsi2sd Vx,Ey', SSE, scalarFromInt(64)),
  insn('F3 0F 2C', 'cvttss2si Gy,Wd', SSE, scalarToInt(32, true)),
  insn('F2 0F 2C', 'cvttsd2si Gy,Wq', SSE, scalarToInt(64, true)),
  insn('F3 0F 2D', 'cvtss2si Gy,Wd', SSE, scalarToInt(32, false)),
  insn('F2 0F 2D', 'cvtsd2si Gy,Wq', SSE, scalarToInt(64, false)),
  insn('NP 0F 2C', 'cvttps2pi Pq,Wq', SSE, toIntMmx(32, true)),
  insn('66 0F 2C', 'cvttpd2pi Pq,Wx', SSE, toIntMmx(64, true)),
  insn('NP 0F 2D', 'cvtps2pi Pq,Wq', SSE, toIntMmx(32, false)),
  insn('66 0F 2D', 'cvtpd2pi Pq,Wx', SSE, toIntMmx(64, false)),
  // From memory these two leave the x87 state alone.
  insn('NP 0F 2A', 'cvtpi2ps Vx,Qq', SSE, (c, d, s) => {
    if (!s.isMemory) mmxCheck(c);
    const x = low64(c, c.readVec(s, 'i64'));
    if (!s.isMemory) mmxEnter(c);
    c.writeVec(d, 'i64', lowHalf(c, fromInt(c, fromInt2, x)));
  }),
  insn('66 0F 2A', 'cvtpi2pd Vx,Qq', SSE, (c, d, s) => {
    if (!s.isMemory) mmxCheck(c);
    const r = c.b.op('f64x2.convert_low_i32x4_s', low64(c, c.readVec(s, 'i64')));
    if (!s.isMemory) mmxEnter(c);
    c.writeVec(d, 'v128', r);
  }),
  insn('NP 0F 5B', 'cvtdq2ps Vx,Wx', SSE, (c, d, s) => c.writeVec(d, 'v128', fromInt(c, fromInt4, c.readVec(s, 'v128')))),
  insn('66 0F 5B', 'cvtps2dq Vx,Wx', SSE, toIntVector(32, false)),
  insn('F3 0F 5B', 'cvttps2dq Vx,Wx', SSE, toIntVector(32, true)),
  insn('F2 0F E6', 'cvtpd2dq Vx,Wx', SSE, toIntVector(64, false)),
  insn('66 0F E6', 'cvttpd2dq Vx,Wx', SSE, toIntVector(64, true)),
  insn('F3 0F E6', 'cvtdq2pd Vx,Wq', SSE, (c, d, s) =>
    c.writeVec(d, 'v128', c.b.op('f64x2.convert_low_i32x4_s', low64(c, c.readVec(s, 'i64')))),
  ),
  ...widthRows,
];
