// Every vector operation of the IR in plain TypeScript, lane by lane (WebAssembly core specification 2.0, section 4.3 and 4.4.3).
// As with scalars, a NaN that arithmetic produces is always the canonical one.

import { type Datum, f32Bits, f64Bits } from './datum.ts';
import { comparing, floating, saturate } from './float.ts';
import { fusedMultiplyAdd } from './fma.ts';
import type { PureOp } from './ops.ts';

type LaneFunction = (args: readonly Datum[], lanes: readonly number[]) => Datum;

/** How many lanes there are, how wide they are, and whether they are floats. */
interface Shape {
  readonly count: number;
  readonly bits: number;
  readonly float: boolean;
}

function shapeOf(name: string): Shape {
  const [, kind, bits, count] = /^([if])(\d+)x(\d+)$/.exec(name)!;
  return { count: Number(count), bits: Number(bits), float: kind === 'f' };
}

const view = (v: Datum): DataView => new DataView((v as Uint8Array).buffer, (v as Uint8Array).byteOffset, 16);

/** Lane `i` of `width` bits as an unsigned integer. */
function lane(v: Datum, bits: number, i: number): bigint {
  const d = view(v);
  if (bits === 8) return BigInt(d.getUint8(i));
  if (bits === 16) return BigInt(d.getUint16(i * 2, true));
  if (bits === 32) return BigInt(d.getUint32(i * 4, true));
  return d.getBigUint64(i * 8, true);
}
const signedLane = (v: Datum, bits: number, i: number): bigint => BigInt.asIntN(bits, lane(v, bits, i));
const readLane = (v: Datum, bits: number, i: number, signed: boolean): bigint =>
  signed ? signedLane(v, bits, i) : lane(v, bits, i);

/** A vector from integers, each cut to its lane. */
function build({ bits, count }: Shape, f: (i: number) => bigint): Uint8Array {
  const out = new Uint8Array(16);
  const d = view(out);
  for (let i = 0; i < count; i++) {
    const value = f(i);
    if (bits === 64) d.setBigInt64(i * 8, value, true);
    else {
      const cut = Number(BigInt.asIntN(32, value));
      if (bits === 8) d.setInt8(i, cut);
      else if (bits === 16) d.setInt16(i * 2, cut, true);
      else d.setInt32(i * 4, cut, true);
    }
  }
  return out;
}

const floatLane = (v: Datum, bits: number, i: number): number =>
  bits === 32 ? view(v).getFloat32(i * 4, true) : view(v).getFloat64(i * 8, true);
const floatBits = (bits: number, x: number): bigint => (bits === 32 ? BigInt(f32Bits(x)) : f64Bits(x));

function clamp(value: bigint, bits: number, signed: boolean): bigint {
  const low = signed ? -(1n << BigInt(bits - 1)) : 0n;
  const high = (1n << BigInt(signed ? bits - 1 : bits)) - 1n;
  return value < low ? low : value > high ? high : value;
}

const bitwise: Readonly<Record<string, LaneFunction>> = {
  'v128.not': ([a]) => bytes((i) => ~at(a, i)),
  'v128.and': ([a, b]) => bytes((i) => at(a, i) & at(b, i)),
  'v128.andnot': ([a, b]) => bytes((i) => at(a, i) & ~at(b, i)),
  'v128.or': ([a, b]) => bytes((i) => at(a, i) | at(b, i)),
  'v128.xor': ([a, b]) => bytes((i) => at(a, i) ^ at(b, i)),
  'v128.bitselect': ([a, b, c]) => bytes((i) => (at(a, i) & at(c, i)) | (at(b, i) & ~at(c, i))),
  'v128.any_true': ([a]) => Number((a as Uint8Array).some((x) => x !== 0)),
  'i8x16.swizzle': ([a, b]) => bytes((i) => (at(b, i) < 16 ? at(a, at(b, i)) : 0)),
  'i8x16.shuffle': ([a, b], lanes) => bytes((i) => (lanes[i]! < 16 ? at(a, lanes[i]!) : at(b, lanes[i]! - 16))),
};

function at(v: Datum | undefined, i: number): number {
  return (v as Uint8Array)[i]!;
}
function bytes(f: (i: number) => number): Uint8Array {
  const out = new Uint8Array(16);
  for (let i = 0; i < 16; i++) out[i] = f(i);
  return out;
}

/** Integer operations on two lanes, both signed and both unsigned forms where the name says so. */
const integers: Readonly<Record<string, (a: bigint, b: bigint, bits: number, signed: boolean) => bigint>> = {
  eq: (a, b) => (a === b ? -1n : 0n),
  ne: (a, b) => (a !== b ? -1n : 0n),
  lt: (a, b) => (a < b ? -1n : 0n),
  gt: (a, b) => (a > b ? -1n : 0n),
  le: (a, b) => (a <= b ? -1n : 0n),
  ge: (a, b) => (a >= b ? -1n : 0n),
  abs: (a) => (a < 0n ? -a : a),
  neg: (a) => -a,
  popcnt: (a) => BigInt(a.toString(2).replaceAll('0', '').length),
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  min: (a, b) => (a - b < 0n ? a : b),
  max: (a, b) => (a - b > 0n ? a : b),
  avgr: (a, b) => (a + b + 1n) >> 1n,
  add_sat: (a, b, bits, signed) => clamp(a + b, bits, signed),
  sub_sat: (a, b, bits, signed) => clamp(a - b, bits, signed),
  q15mulr_sat: (a, b, bits) => clamp((a * b + 0x4000n) >> 15n, bits, true),
};

/** The function of a vector operation (a row of ops.ts whose operands or result are v128). */
export function laneFunction(op: PureOp): LaneFunction {
  const known = bitwise[op.name];
  if (known) return known;
  const [shapeName, full] = op.name.split('.') as [string, string];
  const s = shapeOf(shapeName);
  const signed = !full.endsWith('_u');
  const name = full.replace(/_[su]$/, '');
  return lanesInAndOut(s, name, signed) ?? widening(s, full) ?? (s.float ? floats(s, full) : whole(s, name, signed));
}

/** splat, extract_lane, replace_lane, bitmask, all_true, shifts. */
function lanesInAndOut(s: Shape, name: string, signed: boolean): LaneFunction | null {
  const scalar = (x: bigint): Datum => (s.bits === 64 ? BigInt.asIntN(64, x) : Number(BigInt.asIntN(32, x)));
  switch (name) {
    case 'splat':
      return ([x]) => build(s, () => BigInt(x as number | bigint));
    case 'extract_lane':
      return ([v], lanes) => scalar(readLane(v!, s.bits, lanes[0]!, signed));
    case 'replace_lane':
      return ([v, x], lanes) => build(s, (i) => (i === lanes[0] ? BigInt(x as number | bigint) : lane(v!, s.bits, i)));
    case 'bitmask':
      return ([v]) =>
        Array.from({ length: s.count }, (_, i) => (signedLane(v!, s.bits, i) < 0n ? 1 << i : 0)).reduce((a, b) => a | b);
    case 'all_true':
      return ([v]) => Number(Array.from({ length: s.count }, (_, i) => lane(v!, s.bits, i)).every((x) => x !== 0n));
    case 'shl':
      return ([v, n]) => build(s, (i) => lane(v!, s.bits, i) << BigInt((n as number) & (s.bits - 1)));
    case 'shr':
      return ([v, n]) => build(s, (i) => readLane(v!, s.bits, i, signed) >> BigInt((n as number) & (s.bits - 1)));
    default:
      return null;
  }
}

/** Operations whose lanes change width: extend, extmul, extadd, narrow, dot, and conversions between integers and floats. */
function widening(s: Shape, full: string): LaneFunction | null {
  const ext = /^(extend|extmul)_(low|high)_i\d+x\d+_([su])$/.exec(full);
  if (ext) {
    const half = s.bits / 2;
    const from = ext[2] === 'high' ? s.count : 0;
    const sign = ext[3] === 's';
    if (ext[1] === 'extend') return ([v]) => build(s, (i) => readLane(v!, half, from + i, sign));
    return ([v, w]) => build(s, (i) => readLane(v!, half, from + i, sign) * readLane(w!, half, from + i, sign));
  }
  const pairs = /^extadd_pairwise_i\d+x\d+_([su])$/.exec(full);
  if (pairs) {
    const half = s.bits / 2;
    return ([v]) =>
      build(s, (i) => readLane(v!, half, 2 * i, pairs[1] === 's') + readLane(v!, half, 2 * i + 1, pairs[1] === 's'));
  }
  const narrow = /^narrow_i\d+x\d+_([su])$/.exec(full);
  if (narrow) {
    const half = s.count / 2;
    return ([v, w]) => build(s, (i) => clamp(signedLane(i < half ? v! : w!, s.bits * 2, i % half), s.bits, narrow[1] === 's'));
  }
  switch (full) {
    case 'dot_i16x8_s':
      return ([v, w]) =>
        build(
          s,
          (i) =>
            signedLane(v!, 16, 2 * i) * signedLane(w!, 16, 2 * i) + signedLane(v!, 16, 2 * i + 1) * signedLane(w!, 16, 2 * i + 1),
        );
    case 'demote_f64x2_zero':
      return ([v]) => build(s, (i) => (i < 2 ? floatBits(32, floatLane(v!, 64, i)) : 0n));
    case 'promote_low_f32x4':
      return ([v]) => build(s, (i) => floatBits(64, floatLane(v!, 32, i)));
    case 'trunc_sat_f32x4_s':
    case 'trunc_sat_f32x4_u':
      return ([v]) => build(s, (i) => saturate(floatLane(v!, 32, i), 32, full.endsWith('_s')));
    case 'trunc_sat_f64x2_s_zero':
    case 'trunc_sat_f64x2_u_zero':
      return ([v]) => build(s, (i) => (i < 2 ? saturate(floatLane(v!, 64, i), 32, full.endsWith('_s_zero')) : 0n));
    case 'convert_i32x4_s':
    case 'convert_i32x4_u':
    case 'convert_low_i32x4_s':
    case 'convert_low_i32x4_u':
      return ([v]) => build(s, (i) => floatBits(s.bits, Number(readLane(v!, 32, i, full.endsWith('_s')))));
    default:
      return null;
  }
}

function floats(s: Shape, name: string): LaneFunction {
  const sign = 1n << BigInt(s.bits - 1);
  if (name === 'abs') return ([v]) => build(s, (i) => lane(v!, s.bits, i) & ~sign);
  if (name === 'neg') return ([v]) => build(s, (i) => lane(v!, s.bits, i) ^ sign);
  const x = (v: Datum | undefined, i: number): number => (v ? floatLane(v, s.bits, i) : 0);
  const compare = comparing[name];
  if (compare) return ([v, w]) => build(s, (i) => (compare(x(v, i), x(w, i)) ? -1n : 0n));
  // The pseudo-minimum and -maximum move one operand as it is, whatever it is.
  if (name === 'pmin') return ([v, w]) => build(s, (i) => lane(x(w, i) < x(v, i) ? w! : v!, s.bits, i));
  if (name === 'pmax') return ([v, w]) => build(s, (i) => lane(x(v, i) < x(w, i) ? w! : v!, s.bits, i));
  if (name === 'relaxed_madd')
    return ([v, w, u]) => build(s, (i) => floatBits(s.bits, fusedMultiplyAdd(s.bits as 32 | 64, x(v, i), x(w, i), x(u, i))));
  const f = floating[name]!;
  return ([v, w]) => build(s, (i) => floatBits(s.bits, f(x(v, i), x(w, i))));
}

function whole(s: Shape, name: string, signed: boolean): LaneFunction {
  const f = integers[name]!;
  // Popcnt counts the bits of the lane as it lies there, everything else sees it with its sign.
  const sign = signed && name !== 'popcnt';
  return ([v, w]) => build(s, (i) => f(readLane(v!, s.bits, i, sign), w ? readLane(w, s.bits, i, sign) : 0n, s.bits, sign));
}
