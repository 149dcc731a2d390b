// Every pure scalar operation of the IR in plain TypeScript: the meaning that the backend is held against
// (WebAssembly core specification 2.0, section 4.3). A NaN that arithmetic produces is always the canonical one, which the
// specification allows and no host does for all inputs: IR that depends on a host's NaN is found out.

import { type Datum, f32Bits, f32Value, f64Bits, f64Value } from './datum.ts';
import { comparing, floating, saturate } from './float.ts';
import { laneFunction } from './lanes.ts';
import { type PureOp, pureOps } from './ops.ts';

/** The function of a pure operation: operands in order, then the lane immediates. */
export type PureFunction = (args: readonly Datum[], lanes: readonly number[]) => Datum;

/** Integer arithmetic of one width, by the operation's name without its type. Operands and results are signed. */
const int32: Readonly<Record<string, (a: number, b: number) => number>> = {
  eqz: (a) => Number(a === 0),
  eq: (a, b) => Number(a === b),
  ne: (a, b) => Number(a !== b),
  lt_s: (a, b) => Number(a < b),
  lt_u: (a, b) => Number(a >>> 0 < b >>> 0),
  gt_s: (a, b) => Number(a > b),
  gt_u: (a, b) => Number(a >>> 0 > b >>> 0),
  le_s: (a, b) => Number(a <= b),
  le_u: (a, b) => Number(a >>> 0 <= b >>> 0),
  ge_s: (a, b) => Number(a >= b),
  ge_u: (a, b) => Number(a >>> 0 >= b >>> 0),
  clz: (a) => Math.clz32(a),
  ctz: (a) => (a === 0 ? 32 : 31 - Math.clz32(a & -a)),
  popcnt: (a) => ones(BigInt(a >>> 0)),
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => Math.imul(a, b),
  div_s: (a, b) => {
    if (b === 0 || (a === -0x8000_0000 && b === -1)) throw new Error(`Cannot divide ${a} by ${b}: the quotient is no i32`);
    return a / b;
  },
  div_u: (a, b) => {
    if (b === 0) throw new Error(`Cannot divide ${a} by 0: a divisor other than 0 is needed`);
    return Math.floor((a >>> 0) / (b >>> 0));
  },
  rem_s: (a, b) => {
    if (b === 0) throw new Error(`Cannot divide ${a} by 0: a divisor other than 0 is needed`);
    return a % b;
  },
  rem_u: (a, b) => {
    if (b === 0) throw new Error(`Cannot divide ${a} by 0: a divisor other than 0 is needed`);
    return (a >>> 0) % (b >>> 0);
  },
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << b,
  shr_s: (a, b) => a >> b,
  shr_u: (a, b) => a >>> b,
  rotl: (a, b) => (a << b) | (b & 31 ? a >>> (32 - (b & 31)) : 0),
  rotr: (a, b) => (a >>> b) | (b & 31 ? a << (32 - (b & 31)) : 0),
  extend8_s: (a) => (a << 24) >> 24,
  extend16_s: (a) => (a << 16) >> 16,
};

const u64 = (a: bigint): bigint => BigInt.asUintN(64, a);

const int64: Readonly<Record<string, (a: bigint, b: bigint) => bigint | number>> = {
  eqz: (a) => Number(a === 0n),
  eq: (a, b) => Number(a === b),
  ne: (a, b) => Number(a !== b),
  lt_s: (a, b) => Number(a < b),
  lt_u: (a, b) => Number(u64(a) < u64(b)),
  gt_s: (a, b) => Number(a > b),
  gt_u: (a, b) => Number(u64(a) > u64(b)),
  le_s: (a, b) => Number(a <= b),
  le_u: (a, b) => Number(u64(a) <= u64(b)),
  ge_s: (a, b) => Number(a >= b),
  ge_u: (a, b) => Number(u64(a) >= u64(b)),
  clz: (a) => BigInt(64 - (a === 0n ? 0 : u64(a).toString(2).length)),
  ctz: (a) => (a === 0n ? 64n : BigInt(u64(a & -a).toString(2).length - 1)),
  popcnt: (a) => BigInt(ones(u64(a))),
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div_s: (a, b) => {
    if (b === 0n || (a === -(1n << 63n) && b === -1n)) throw new Error(`Cannot divide ${a} by ${b}: the quotient is no i64`);
    return a / b;
  },
  div_u: (a, b) => {
    if (b === 0n) throw new Error(`Cannot divide ${a} by 0: a divisor other than 0 is needed`);
    return u64(a) / u64(b);
  },
  rem_s: (a, b) => {
    if (b === 0n) throw new Error(`Cannot divide ${a} by 0: a divisor other than 0 is needed`);
    return a % b;
  },
  rem_u: (a, b) => {
    if (b === 0n) throw new Error(`Cannot divide ${a} by 0: a divisor other than 0 is needed`);
    return u64(a) % u64(b);
  },
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << (b & 63n),
  shr_s: (a, b) => a >> (b & 63n),
  shr_u: (a, b) => u64(a) >> (b & 63n),
  rotl: (a, b) => (u64(a) << (b & 63n)) | (u64(a) >> (64n - (b & 63n))),
  rotr: (a, b) => (u64(a) >> (b & 63n)) | (u64(a) << (64n - (b & 63n))),
  extend8_s: (a) => BigInt.asIntN(8, a),
  extend16_s: (a) => BigInt.asIntN(16, a),
  extend32_s: (a) => BigInt.asIntN(32, a),
  extend_i32_s: (a) => a,
  extend_i32_u: (a) => BigInt.asUintN(32, a),
};

function ones(a: bigint): number {
  return a.toString(2).replaceAll('0', '').length;
}

/** The i64 (signed or unsigned) rounded once to f32. */
function f32OfInt(a: bigint): number {
  const m = a < 0n ? -a : a;
  if (m < 1n << 53n) return Math.fround(Number(a));
  // Number() would round to 53 bits first: keep what it would lose as one sticky bit.
  const sticky = (m >> 11n) | (m & 0x7ffn ? 1n : 0n);
  const r = Math.fround(Number(sticky)) * 2048;
  return a < 0n ? -r : r;
}

const SIGN64 = -(1n << 63n);

const special: Readonly<Record<string, (a: never, b: never) => Datum>> = {
  'i32.wrap_i64': (a: bigint) => Number(BigInt.asIntN(32, a)),
  'i32.reinterpret_f32': (a: number) => a,
  'i64.reinterpret_f64': (a: bigint) => a,
  'f32.reinterpret_i32': (a: number) => a,
  'f64.reinterpret_i64': (a: bigint) => a,
  'f32.abs': (a: number) => a & 0x7fffffff,
  'f32.neg': (a: number) => a ^ -0x80000000,
  'f32.copysign': (a: number, b: number) => (a & 0x7fffffff) | (b & -0x80000000),
  'f64.abs': (a: bigint) => a & ~SIGN64,
  'f64.neg': (a: bigint) => a ^ SIGN64,
  'f64.copysign': (a: bigint, b: bigint) => (a & ~SIGN64) | (b & SIGN64),
  'f32.convert_i32_s': (a: number) => f32Bits(a),
  'f32.convert_i32_u': (a: number) => f32Bits(a >>> 0),
  'f32.convert_i64_s': (a: bigint) => f32Bits(f32OfInt(a)),
  'f32.convert_i64_u': (a: bigint) => f32Bits(f32OfInt(u64(a))),
  'f64.convert_i32_s': (a: number) => f64Bits(a),
  'f64.convert_i32_u': (a: number) => f64Bits(a >>> 0),
  'f64.convert_i64_s': (a: bigint) => f64Bits(Number(a)),
  'f64.convert_i64_u': (a: bigint) => f64Bits(Number(u64(a))),
  'f32.demote_f64': (a: bigint) => f32Bits(f64Value(a)),
  'f64.promote_f32': (a: number) => f64Bits(f32Value(a)),
};

function scalarFunction(op: PureOp): PureFunction {
  const known = special[op.name];
  if (known) return (args) => known(args[0] as never, args[1] as never);
  const [type, name] = op.name.split('.') as [string, string];
  const cut = /^trunc_sat_f(32|64)_([su])$/.exec(name);
  if (cut) {
    const bits = type === 'i32' ? 32 : 64;
    const float = (a: Datum): number => (cut[1] === '32' ? f32Value(a as number) : f64Value(a as bigint));
    return (args) => {
      const r = saturate(float(args[0]!), bits, cut[2] === 's');
      return bits === 32 ? Number(BigInt.asIntN(32, r)) : BigInt.asIntN(64, r);
    };
  }
  if (type === 'i32') {
    const f = int32[name]!;
    return (args) => f(args[0] as number, args[1] as number) | 0;
  }
  if (type === 'i64') {
    const f = int64[name]!;
    const narrow = op.args[0] === 'i32';
    return (args) => {
      const r = f(narrow ? BigInt(args[0] as number) : (args[0] as bigint), args[1] as bigint);
      return typeof r === 'number' ? r : BigInt.asIntN(64, r);
    };
  }
  const compare = comparing[name];
  if (type === 'f32') {
    if (compare) return (args) => Number(compare(f32Value(args[0] as number), f32Value(args[1] as number)));
    const f = floating[name]!;
    return (args) => f32Bits(f(f32Value(args[0] as number), args.length > 1 ? f32Value(args[1] as number) : 0));
  }
  if (compare) return (args) => Number(compare(f64Value(args[0] as bigint), f64Value(args[1] as bigint)));
  const f = floating[name]!;
  return (args) => f64Bits(f(f64Value(args[0] as bigint), args.length > 1 ? f64Value(args[1] as bigint) : 0));
}

const functions: ReadonlyMap<PureOp, PureFunction> = new Map(
  pureOps.map((op) => [op, op.code >= 0x10000 && op.code < 0x20000 ? laneFunction(op) : scalarFunction(op)]),
);

/** What `op` computes. */
export function pureFunction(op: PureOp): PureFunction {
  return functions.get(op)!;
}
