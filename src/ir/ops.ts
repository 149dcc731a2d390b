// The pure operations of the IR, one row each: name, WebAssembly opcode, operand types and result type.
// Builder, verifier, evaluator, printer and backend derive from this table. Names, opcodes and meanings are those of the
// WebAssembly core specification 2.0, sections 4.3 (numerics) and 5.4 (binary format); relaxed_madd is of the relaxed SIMD proposal.

/** Value types of the IR. */
export type Type = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

/** A pure operation: the result depends on the operands and the immediate only. */
export interface PureOp {
  readonly name: string;
  /** Opcode byte; for SIMD the number that follows the 0xFD prefix, plus 0x10000; for 0xFC operations plus 0x20000. */
  readonly code: number;
  readonly args: readonly Type[];
  readonly result: Type;
  /** Number of immediate lane-index bytes (0, 1, or 16 for a shuffle). */
  readonly lanes: 0 | 1 | 16;
  /** True where operands may be swapped. */
  readonly commutes: boolean;
}

const SIMD = 0x10000;
const FC = 0x20000;
const letters: Readonly<Record<string, Type>> = { i: 'i32', l: 'i64', f: 'f32', d: 'f64', v: 'v128' };
const commutative = /\.(add|mul|and|or|xor|eq|ne|min_[su]|max_[su]|avgr_u|add_sat_[su]|dot_i16x8_s|q15mulr_sat_s|extmul_\w+)$/;

// Signature letters: i i32, l i64, f f32, d f64, v v128; operands, then ':' and the result.
const scalar = `
i32.eqz 45 i:i|i32.eq 46 ii:i|i32.ne 47 ii:i|i32.lt_s 48 ii:i|i32.lt_u 49 ii:i|i32.gt_s 4a ii:i|i32.gt_u 4b ii:i|i32.le_s 4c ii:i
i32.le_u 4d ii:i|i32.ge_s 4e ii:i|i32.ge_u 4f ii:i
i64.eqz 50 l:i|i64.eq 51 ll:i|i64.ne 52 ll:i|i64.lt_s 53 ll:i|i64.lt_u 54 ll:i|i64.gt_s 55 ll:i|i64.gt_u 56 ll:i|i64.le_s 57 ll:i
i64.le_u 58 ll:i|i64.ge_s 59 ll:i|i64.ge_u 5a ll:i
f32.eq 5b ff:i|f32.ne 5c ff:i|f32.lt 5d ff:i|f32.gt 5e ff:i|f32.le 5f ff:i|f32.ge 60 ff:i
f64.eq 61 dd:i|f64.ne 62 dd:i|f64.lt 63 dd:i|f64.gt 64 dd:i|f64.le 65 dd:i|f64.ge 66 dd:i
i32.clz 67 i:i|i32.ctz 68 i:i|i32.popcnt 69 i:i|i32.add 6a ii:i|i32.sub 6b ii:i|i32.mul 6c ii:i|i32.div_s 6d ii:i|i32.div_u 6e ii:i
i32.rem_s 6f ii:i|i32.rem_u 70 ii:i|i32.and 71 ii:i|i32.or 72 ii:i|i32.xor 73 ii:i|i32.shl 74 ii:i|i32.shr_s 75 ii:i|i32.shr_u 76 ii:i
i32.rotl 77 ii:i|i32.rotr 78 ii:i
i64.clz 79 l:l|i64.ctz 7a l:l|i64.popcnt 7b l:l|i64.add 7c ll:l|i64.sub 7d ll:l|i64.mul 7e ll:l|i64.div_s 7f ll:l|i64.div_u 80 ll:l
i64.rem_s 81 ll:l|i64.rem_u 82 ll:l|i64.and 83 ll:l|i64.or 84 ll:l|i64.xor 85 ll:l|i64.shl 86 ll:l|i64.shr_s 87 ll:l|i64.shr_u 88 ll:l
i64.rotl 89 ll:l|i64.rotr 8a ll:l
f32.abs 8b f:f|f32.neg 8c f:f|f32.ceil 8d f:f|f32.floor 8e f:f|f32.trunc 8f f:f|f32.nearest 90 f:f|f32.sqrt 91 f:f|f32.add 92 ff:f
f32.sub 93 ff:f|f32.mul 94 ff:f|f32.div 95 ff:f|f32.min 96 ff:f|f32.max 97 ff:f|f32.copysign 98 ff:f
f64.abs 99 d:d|f64.neg 9a d:d|f64.ceil 9b d:d|f64.floor 9c d:d|f64.trunc 9d d:d|f64.nearest 9e d:d|f64.sqrt 9f d:d|f64.add a0 dd:d
f64.sub a1 dd:d|f64.mul a2 dd:d|f64.div a3 dd:d|f64.min a4 dd:d|f64.max a5 dd:d|f64.copysign a6 dd:d
i32.wrap_i64 a7 l:i|i64.extend_i32_s ac i:l|i64.extend_i32_u ad i:l
f32.convert_i32_s b2 i:f|f32.convert_i32_u b3 i:f|f32.convert_i64_s b4 l:f|f32.convert_i64_u b5 l:f|f32.demote_f64 b6 d:f
f64.convert_i32_s b7 i:d|f64.convert_i32_u b8 i:d|f64.convert_i64_s b9 l:d|f64.convert_i64_u ba l:d|f64.promote_f32 bb f:d
i32.reinterpret_f32 bc f:i|i64.reinterpret_f64 bd d:l|f32.reinterpret_i32 be i:f|f64.reinterpret_i64 bf l:d
i32.extend8_s c0 i:i|i32.extend16_s c1 i:i|i64.extend8_s c2 l:l|i64.extend16_s c3 l:l|i64.extend32_s c4 l:l`;

const saturating = `
i32.trunc_sat_f32_s 0 f:i|i32.trunc_sat_f32_u 1 f:i|i32.trunc_sat_f64_s 2 d:i|i32.trunc_sat_f64_u 3 d:i
i64.trunc_sat_f32_s 4 f:l|i64.trunc_sat_f32_u 5 f:l|i64.trunc_sat_f64_s 6 d:l|i64.trunc_sat_f64_u 7 d:l`;

const simd = `
i8x16.swizzle e vv:v|i8x16.splat f i:v|i16x8.splat 10 i:v|i32x4.splat 11 i:v|i64x2.splat 12 l:v|f32x4.splat 13 f:v|f64x2.splat 14 d:v
i8x16.eq 23 vv:v|i8x16.ne 24 vv:v|i8x16.lt_s 25 vv:v|i8x16.lt_u 26 vv:v|i8x16.gt_s 27 vv:v|i8x16.gt_u 28 vv:v|i8x16.le_s 29 vv:v
i8x16.le_u 2a vv:v|i8x16.ge_s 2b vv:v|i8x16.ge_u 2c vv:v
i16x8.eq 2d vv:v|i16x8.ne 2e vv:v|i16x8.lt_s 2f vv:v|i16x8.lt_u 30 vv:v|i16x8.gt_s 31 vv:v|i16x8.gt_u 32 vv:v|i16x8.le_s 33 vv:v
i16x8.le_u 34 vv:v|i16x8.ge_s 35 vv:v|i16x8.ge_u 36 vv:v
i32x4.eq 37 vv:v|i32x4.ne 38 vv:v|i32x4.lt_s 39 vv:v|i32x4.lt_u 3a vv:v|i32x4.gt_s 3b vv:v|i32x4.gt_u 3c vv:v|i32x4.le_s 3d vv:v
i32x4.le_u 3e vv:v|i32x4.ge_s 3f vv:v|i32x4.ge_u 40 vv:v
f32x4.eq 41 vv:v|f32x4.ne 42 vv:v|f32x4.lt 43 vv:v|f32x4.gt 44 vv:v|f32x4.le 45 vv:v|f32x4.ge 46 vv:v
f64x2.eq 47 vv:v|f64x2.ne 48 vv:v|f64x2.lt 49 vv:v|f64x2.gt 4a vv:v|f64x2.le 4b vv:v|f64x2.ge 4c vv:v
v128.not 4d v:v|v128.and 4e vv:v|v128.andnot 4f vv:v|v128.or 50 vv:v|v128.xor 51 vv:v|v128.bitselect 52 vvv:v|v128.any_true 53 v:i
f32x4.demote_f64x2_zero 5e v:v|f64x2.promote_low_f32x4 5f v:v
i8x16.abs 60 v:v|i8x16.neg 61 v:v|i8x16.popcnt 62 v:v|i8x16.all_true 63 v:i|i8x16.bitmask 64 v:i|i8x16.narrow_i16x8_s 65 vv:v
i8x16.narrow_i16x8_u 66 vv:v|f32x4.ceil 67 v:v|f32x4.floor 68 v:v|f32x4.trunc 69 v:v|f32x4.nearest 6a v:v
i8x16.shl 6b vi:v|i8x16.shr_s 6c vi:v|i8x16.shr_u 6d vi:v|i8x16.add 6e vv:v|i8x16.add_sat_s 6f vv:v|i8x16.add_sat_u 70 vv:v
i8x16.sub 71 vv:v|i8x16.sub_sat_s 72 vv:v|i8x16.sub_sat_u 73 vv:v|f64x2.ceil 74 v:v|f64x2.floor 75 v:v|i8x16.min_s 76 vv:v
i8x16.min_u 77 vv:v|i8x16.max_s 78 vv:v|i8x16.max_u 79 vv:v|f64x2.trunc 7a v:v|i8x16.avgr_u 7b vv:v
i16x8.extadd_pairwise_i8x16_s 7c v:v|i16x8.extadd_pairwise_i8x16_u 7d v:v|i32x4.extadd_pairwise_i16x8_s 7e v:v
i32x4.extadd_pairwise_i16x8_u 7f v:v
i16x8.abs 80 v:v|i16x8.neg 81 v:v|i16x8.q15mulr_sat_s 82 vv:v|i16x8.all_true 83 v:i|i16x8.bitmask 84 v:i|i16x8.narrow_i32x4_s 85 vv:v
i16x8.narrow_i32x4_u 86 vv:v|i16x8.extend_low_i8x16_s 87 v:v|i16x8.extend_high_i8x16_s 88 v:v|i16x8.extend_low_i8x16_u 89 v:v
i16x8.extend_high_i8x16_u 8a v:v|i16x8.shl 8b vi:v|i16x8.shr_s 8c vi:v|i16x8.shr_u 8d vi:v|i16x8.add 8e vv:v|i16x8.add_sat_s 8f vv:v
i16x8.add_sat_u 90 vv:v|i16x8.sub 91 vv:v|i16x8.sub_sat_s 92 vv:v|i16x8.sub_sat_u 93 vv:v|f64x2.nearest 94 v:v|i16x8.mul 95 vv:v
i16x8.min_s 96 vv:v|i16x8.min_u 97 vv:v|i16x8.max_s 98 vv:v|i16x8.max_u 99 vv:v|i16x8.avgr_u 9b vv:v
i16x8.extmul_low_i8x16_s 9c vv:v|i16x8.extmul_high_i8x16_s 9d vv:v|i16x8.extmul_low_i8x16_u 9e vv:v|i16x8.extmul_high_i8x16_u 9f vv:v
i32x4.abs a0 v:v|i32x4.neg a1 v:v|i32x4.all_true a3 v:i|i32x4.bitmask a4 v:i|i32x4.extend_low_i16x8_s a7 v:v
i32x4.extend_high_i16x8_s a8 v:v|i32x4.extend_low_i16x8_u a9 v:v|i32x4.extend_high_i16x8_u aa v:v
i32x4.shl ab vi:v|i32x4.shr_s ac vi:v|i32x4.shr_u ad vi:v|i32x4.add ae vv:v|i32x4.sub b1 vv:v|i32x4.mul b5 vv:v|i32x4.min_s b6 vv:v
i32x4.min_u b7 vv:v|i32x4.max_s b8 vv:v|i32x4.max_u b9 vv:v|i32x4.dot_i16x8_s ba vv:v
i32x4.extmul_low_i16x8_s bc vv:v|i32x4.extmul_high_i16x8_s bd vv:v|i32x4.extmul_low_i16x8_u be vv:v|i32x4.extmul_high_i16x8_u bf vv:v
i64x2.abs c0 v:v|i64x2.neg c1 v:v|i64x2.all_true c3 v:i|i64x2.bitmask c4 v:i|i64x2.extend_low_i32x4_s c7 v:v
i64x2.extend_high_i32x4_s c8 v:v|i64x2.extend_low_i32x4_u c9 v:v|i64x2.extend_high_i32x4_u ca v:v
i64x2.shl cb vi:v|i64x2.shr_s cc vi:v|i64x2.shr_u cd vi:v|i64x2.add ce vv:v|i64x2.sub d1 vv:v|i64x2.mul d5 vv:v|i64x2.eq d6 vv:v
i64x2.ne d7 vv:v|i64x2.lt_s d8 vv:v|i64x2.gt_s d9 vv:v|i64x2.le_s da vv:v|i64x2.ge_s db vv:v
i64x2.extmul_low_i32x4_s dc vv:v|i64x2.extmul_high_i32x4_s dd vv:v|i64x2.extmul_low_i32x4_u de vv:v|i64x2.extmul_high_i32x4_u df vv:v
f32x4.abs e0 v:v|f32x4.neg e1 v:v|f32x4.sqrt e3 v:v|f32x4.add e4 vv:v|f32x4.sub e5 vv:v|f32x4.mul e6 vv:v|f32x4.div e7 vv:v
f32x4.min e8 vv:v|f32x4.max e9 vv:v|f32x4.pmin ea vv:v|f32x4.pmax eb vv:v
f64x2.abs ec v:v|f64x2.neg ed v:v|f64x2.sqrt ef v:v|f64x2.add f0 vv:v|f64x2.sub f1 vv:v|f64x2.mul f2 vv:v|f64x2.div f3 vv:v
f64x2.min f4 vv:v|f64x2.max f5 vv:v|f64x2.pmin f6 vv:v|f64x2.pmax f7 vv:v
i32x4.trunc_sat_f32x4_s f8 v:v|i32x4.trunc_sat_f32x4_u f9 v:v|f32x4.convert_i32x4_s fa v:v|f32x4.convert_i32x4_u fb v:v
i32x4.trunc_sat_f64x2_s_zero fc v:v|i32x4.trunc_sat_f64x2_u_zero fd v:v|f64x2.convert_low_i32x4_s fe v:v
f64x2.convert_low_i32x4_u ff v:v
f32x4.relaxed_madd 105 vvv:v|f64x2.relaxed_madd 107 vvv:v`;

const laneOps = `
i8x16.extract_lane_s 15 v:i|i8x16.extract_lane_u 16 v:i|i8x16.replace_lane 17 vi:v|i16x8.extract_lane_s 18 v:i|i16x8.extract_lane_u 19 v:i
i16x8.replace_lane 1a vi:v|i32x4.extract_lane 1b v:i|i32x4.replace_lane 1c vi:v|i64x2.extract_lane 1d v:l|i64x2.replace_lane 1e vl:v
f32x4.extract_lane 1f v:f|f32x4.replace_lane 20 vf:v|f64x2.extract_lane 21 v:d|f64x2.replace_lane 22 vd:v`;

function parse(text: string, base: number, lanes: 0 | 1 | 16): PureOp[] {
  return text
    .trim()
    .split(/[|\n]/)
    .map((row) => {
      const [name, code, signature] = row.trim().split(' ');
      const [args, result] = signature.split(':');
      return {
        name,
        code: base + Number.parseInt(code, 16),
        args: [...args].map((c) => letters[c]),
        result: letters[result],
        lanes,
        commutes: commutative.test(name) && args.length === 2 && args[0] === args[1] && !/^f(32|64)\./.test(name),
      };
    });
}

/** Every pure operation. */
export const pureOps: readonly PureOp[] = [
  ...parse(scalar, 0, 0),
  ...parse(saturating, FC, 0),
  ...parse(simd, SIMD, 0),
  ...parse(laneOps, SIMD, 1),
  ...parse('i8x16.shuffle d vv:v', SIMD, 16),
];

const byName = new Map(pureOps.map((op) => [op.name, op]));

/** The operation of that name. Throws for a name that is not in the table. */
export function pureOp(name: string): PureOp {
  const op = byName.get(name);
  if (!op) throw new Error(`Cannot find IR operation: ${name}, accepted are the names of ir/ops.ts`);
  return op;
}

/**
 * How a memory access moves a value: result or operand type, bits in memory, and whether a load sign-extends.
 * `load` and `store` are the WebAssembly opcodes (plus 0x10000 for SIMD ones).
 */
export interface Access {
  readonly name: AccessName;
  readonly type: Type;
  /** Bits moved in memory: 8 to 128. */
  readonly bits: 8 | 16 | 32 | 64 | 128;
  readonly load: number;
  readonly store: number;
}

/** Name of an access: the value's type, then bits in memory and `u` or `s` where the value is wider. */
export type AccessName =
  | 'i32.8u' | 'i32.8s' | 'i32.16u' | 'i32.16s' | 'i32'
  | 'i64.8u' | 'i64.8s' | 'i64.16u' | 'i64.16s' | 'i64.32u' | 'i64.32s' | 'i64'
  | 'f32' | 'f64' | 'v128'; // biome-ignore format: one line per type

const access = (name: AccessName, type: Type, bits: Access['bits'], load: number, store: number): Access => ({
  name,
  type,
  bits,
  load,
  store,
});

/** The memory accesses by name. */
export const accesses: Readonly<Record<AccessName, Access>> = {
  'i32.8u': access('i32.8u', 'i32', 8, 0x2d, 0x3a),
  'i32.8s': access('i32.8s', 'i32', 8, 0x2c, 0x3a),
  'i32.16u': access('i32.16u', 'i32', 16, 0x2f, 0x3b),
  'i32.16s': access('i32.16s', 'i32', 16, 0x2e, 0x3b),
  i32: access('i32', 'i32', 32, 0x28, 0x36),
  'i64.8u': access('i64.8u', 'i64', 8, 0x31, 0x3c),
  'i64.8s': access('i64.8s', 'i64', 8, 0x30, 0x3c),
  'i64.16u': access('i64.16u', 'i64', 16, 0x33, 0x3d),
  'i64.16s': access('i64.16s', 'i64', 16, 0x32, 0x3d),
  'i64.32u': access('i64.32u', 'i64', 32, 0x35, 0x3e),
  'i64.32s': access('i64.32s', 'i64', 32, 0x34, 0x3e),
  i64: access('i64', 'i64', 64, 0x29, 0x37),
  f32: access('f32', 'f32', 32, 0x2a, 0x38),
  f64: access('f64', 'f64', 64, 0x2b, 0x39),
  v128: access('v128', 'v128', 128, 0x10000, 0x1000b),
};
