// Integer arithmetic on vectors: MMX and SSE2 to SSE4.2 (Intel SDM volume 2). Operations that exist for MMX and SSE are described
// once, on 128-bit vectors.

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { fA, fC, fN, fO, fZ } from '../state.ts';
import {
  type Binary, both, bytes, iota, known, lanes16, lanes32, lanes64, lowHalf, MMX, mmxCheck, mmxWrite, SSE, shuffle, sideBySide, swapped, type Unary, vector, wasm, zeroVec,
} from './sse.ts'; // biome-ignore format: one list

/** Operations that are one of WebAssembly's: opcode, mnemonic, name. */
const direct = `
0F_FC paddb i8x16.add|0F_FD paddw i16x8.add|0F_FE paddd i32x4.add|0F_D4 paddq i64x2.add
0F_F8 psubb i8x16.sub|0F_F9 psubw i16x8.sub|0F_FA psubd i32x4.sub|0F_FB psubq i64x2.sub
0F_EC paddsb i8x16.add_sat_s|0F_ED paddsw i16x8.add_sat_s|0F_DC paddusb i8x16.add_sat_u|0F_DD paddusw i16x8.add_sat_u
0F_E8 psubsb i8x16.sub_sat_s|0F_E9 psubsw i16x8.sub_sat_s|0F_D8 psubusb i8x16.sub_sat_u|0F_D9 psubusw i16x8.sub_sat_u
0F_D5 pmullw i16x8.mul|0F_F5 pmaddwd i32x4.dot_i16x8_s|0F_E0 pavgb i8x16.avgr_u|0F_E3 pavgw i16x8.avgr_u
0F_DA pminub i8x16.min_u|0F_DE pmaxub i8x16.max_u|0F_EA pminsw i16x8.min_s|0F_EE pmaxsw i16x8.max_s
0F_74 pcmpeqb i8x16.eq|0F_75 pcmpeqw i16x8.eq|0F_76 pcmpeqd i32x4.eq
0F_64 pcmpgtb i8x16.gt_s|0F_65 pcmpgtw i16x8.gt_s|0F_66 pcmpgtd i32x4.gt_s
0F_DB pand v128.and|0F_EB por v128.or|0F_EF pxor v128.xor`;
const direct41 = `
0F_38_29 pcmpeqq i64x2.eq|0F_38_37 pcmpgtq i64x2.gt_s|0F_38_38 pminsb i8x16.min_s|0F_38_39 pminsd i32x4.min_s|0F_38_3A pminuw i16x8.min_u
0F_38_3B pminud i32x4.min_u|0F_38_3C pmaxsb i8x16.max_s|0F_38_3D pmaxsd i32x4.max_s|0F_38_3E pmaxuw i16x8.max_u
0F_38_3F pmaxud i32x4.max_u|0F_38_40 pmulld i32x4.mul`;
const table = (text: string): [string, string, string][] =>
  text
    .trim()
    .split(/[|\n]/)
    .map((row) => row.split(' ') as [string, string, string])
    .map(([opcode, name, op]) => [opcode.replaceAll('_', ' '), name, op]);

// -- products

/** High halves of 16-bit products. */
const mulHigh =
  (sign: 's' | 'u'): Binary =>
  (c, x, y) => {
    const low = c.b.op(`i32x4.extmul_low_i16x8_${sign}`, x, y);
    const high = c.b.op(`i32x4.extmul_high_i16x8_${sign}`, x, y);
    return shuffle(c, bytes(2, [1, 3, 5, 7, 9, 11, 13, 15]), low, high);
  };
/** Products of the even 32-bit lanes. */
const mulEven =
  (sign: 's' | 'u'): Binary =>
  (c, x, y) => {
    const even = (v: Value): Value => shuffle(c, bytes(4, [0, 2, 0, 2]), v, v);
    return c.b.op(`i64x2.extmul_low_i32x4_${sign}`, even(x), even(y));
  };
/** Unsigned bytes times signed bytes, neighbours added with saturation. */
const maddubs: Binary = (c, x, y) => {
  const b = c.b;
  const eight = b.i32(8);
  const even = b.op('i16x8.mul', b.op('v128.and', x, lanes16(c, 0xff)), b.op('i16x8.shr_s', b.op('i16x8.shl', y, eight), eight));
  const odd = b.op('i16x8.mul', b.op('i16x8.shr_u', x, eight), b.op('i16x8.shr_s', y, eight));
  return b.op('i16x8.add_sat_s', even, odd);
};
/** Rounded high part of the product; −1 · −1 wraps to −1, where WebAssembly saturates. */
const mulhrs: Binary = (c, x, y) => {
  const b = c.b;
  const lowest = lanes16(c, 0x8000);
  const wraps = b.op('v128.and', b.op('i16x8.eq', x, lowest), b.op('i16x8.eq', y, lowest));
  return b.op('v128.xor', b.op('i16x8.q15mulr_sat_s', x, y), wraps);
};

// -- sums

/** Sums of absolute differences of eight bytes each. */
const sad: Binary = (c, x, y) => {
  const b = c.b;
  const differences = b.op('i8x16.sub', b.op('i8x16.max_u', x, y), b.op('i8x16.min_u', x, y));
  const fours = b.op('i32x4.extadd_pairwise_i16x8_u', b.op('i16x8.extadd_pairwise_i8x16_u', differences));
  return b.op('i64x2.add', b.op('i64x2.shr_u', fours, b.i32(32)), b.op('v128.and', fours, lanes64(c, 0xffffffffn)));
};
const evenWords = bytes(2, [0, 2, 4, 6, 8, 10, 12, 14]);
const oddWords = bytes(2, [1, 3, 5, 7, 9, 11, 13, 15]);
const evenDoubles = bytes(4, [0, 2, 4, 6]);
const oddDoubles = bytes(4, [1, 3, 5, 7]);
/** Neighbours combined, those of the destination below those of the source. */
const pairs =
  (op: string, even: number[], odd: number[]): Binary =>
  (c, x, y) =>
    c.b.op(op, shuffle(c, even, x, y), shuffle(c, odd, x, y));

/** Where y is negative −x, where it is zero 0, else x. */
const sign =
  (shape: 'i8x16' | 'i16x8' | 'i32x4'): Binary =>
  (c, x, y) => {
    const b = c.b;
    const zero = zeroVec(c);
    const negative = b.op(`${shape}.lt_s`, y, zero);
    const value = b.op(`${shape}.sub`, b.op('v128.xor', x, negative), negative);
    return b.op('v128.andnot', value, b.op(`${shape}.eq`, y, zero));
  };
const ofSource =
  (f: Unary): Binary =>
  (c, _, y) =>
    f(c, y);

// -- shifts

type Shape = 'i16x8' | 'i32x4' | 'i64x2';
const bitsIn: Readonly<Record<Shape, number>> = { i16x8: 16, i32x4: 32, i64x2: 64 };
/** Shifts by a count (i32 or i64) that may reach or pass the width. */
function shift(c: Emit, shape: Shape, op: 'shl' | 'shr_u' | 'shr_s', x: Value, count: Value): Value {
  const b = c.b;
  const width = bitsIn[shape];
  const inside = b.ltu(count, b.int(count.type, width));
  const n = b.wrap(count);
  if (op === 'shr_s') return b.op(`${shape}.shr_s`, x, b.select(inside, n, b.i32(width - 1)));
  return b.select(inside, b.op(`${shape}.${op}`, x, n), zeroVec(c));
}
function shiftRows(register: string, group: string, name: string, shape: Shape, op: 'shl' | 'shr_u' | 'shr_s'): Row[] {
  const byRegister: Binary = (c, x, y) => shift(c, shape, op, x, lowHalf(c, y));
  return [
    ...both(`0F ${register}`, name, byRegister),
    insn(`66 0F ${group}r`, `${name} Ux,Ib`, SSE, (c, d, i) =>
      c.writeVec(d, 'v128', shift(c, shape, op, c.readVec(d, 'v128'), c.imm(i))),
    ),
    insn(`NP 0F ${group}r`, `${name} Nq,Ib`, MMX, (c, d, i) => {
      mmxCheck(c);
      const x = c.b.op('i64x2.splat', c.readVec(d, 'i64'));
      mmxWrite(c, d, lowHalf(c, shift(c, shape, op, x, c.imm(i))));
    }),
  ];
}
/** Whole bytes: right for a positive `direction`. Swizzle gives zero for indices from 16 up. */
const byteShift =
  (direction: 1 | -1) =>
  (c: InsnEmit, d: Operand, i: Operand): void => {
    const b = c.b;
    const x = c.readVec(d, 'v128');
    const imm = c.imm(i);
    const n = b.select(b.ltu(imm, b.i32(16)), imm, b.i32(16));
    const fixed = known(n);
    if (fixed === undefined) {
      const from = b.op(`i8x16.${direction > 0 ? 'add' : 'sub'}`, iota(c), b.op('i8x16.splat', n));
      c.writeVec(d, 'v128', b.op('i8x16.swizzle', x, from));
    } else {
      // Index 16 names a byte of the second vector, zero.
      const from = Array.from({ length: 16 }, (_, k) => k + direction * fixed).map((k) => (k < 0 || k > 16 ? 16 : k));
      c.writeVec(d, 'v128', shuffle(c, from, x, zeroVec(c)));
    }
  };

// -- SSE4.1 odds and ends

/** Lowest unsigned word, and its place. */
const minPos: Unary = (c, x) => {
  const b = c.b;
  let m = x;
  for (const distance of [8, 4, 2]) {
    const turned = shuffle(c, Array.from({ length: 16 }, (_, i) => (i + distance) & 15), m, m); // biome-ignore format: one call
    m = b.op('i16x8.min_u', m, turned);
  }
  const place = b.ctz(b.op('i16x8.bitmask', b.op('i16x8.eq', x, m)));
  const found = b.or(b.lane('i16x8.extract_lane_u', [0], m), b.shl(place, b.i32(16)));
  return b.lane('i32x4.replace_lane', [0], zeroVec(c), found);
};

/** Eight sums of four absolute differences; bits 0–1 of the immediate choose the source's four bytes, bit 2 the destination's start. */
const mpsadbw = insn('66 0F 3A 42', 'mpsadbw Vx,Wx,Ib', SSE, (c, d, s, i) => {
  const b = c.b;
  const y = c.readVec(s, 'v128');
  const x = c.readVec(d, 'v128');
  const imm = c.imm(i);
  const start = b.op('i8x16.add', iota(c), b.op('i8x16.splat', b.and(imm, b.i32(4))));
  const block = b.shl(b.and(imm, b.i32(3)), b.i32(2));
  let sum = zeroVec(c);
  for (let k = 0; k < 4; k++) {
    const left = b.op('i16x8.extend_low_i8x16_u', b.op('i8x16.swizzle', x, b.op('i8x16.add', start, lanes32(c, k * 0x01010101))));
    const right = b.op('i16x8.extend_low_i8x16_u', b.op('i8x16.swizzle', y, b.op('i8x16.splat', b.add(block, b.i32(k)))));
    sum = b.op('i16x8.add', sum, b.op('i16x8.abs', b.op('i16x8.sub', left, right)));
  }
  c.writeVec(d, 'v128', sum);
});

const ptest = insn('66 0F 38 17', 'ptest Vx,Wx', SSE, (c, d, s) => {
  const b = c.b;
  const y = c.readVec(s, 'v128');
  const x = c.readVec(d, 'v128');
  if (!c.flagsLive) return;
  c.set(fZ, b.extu(b.op('v128.any_true', b.op('v128.and', x, y))));
  c.set(fC, b.eqz(b.op('v128.any_true', b.op('v128.andnot', y, x))));
  // SF and PF are cleared: not negative, one bit set.
  c.set(fN, b.i64(1));
  c.set(fO, b.i32(0));
  c.set(fA, b.i32(0));
});

export const sseIntRows: readonly Row[] = [
  ...table(direct).flatMap(([opcode, name, op]) => both(opcode, name, wasm(op))),
  ...table(direct41).map(([opcode, name, op]) => vector(`66 ${opcode}`, name, wasm(op))),
  ...both('0F DF', 'pandn', swapped('v128.andnot')),
  ...both('0F E5', 'pmulhw', mulHigh('s')),
  ...both('0F E4', 'pmulhuw', mulHigh('u')),
  ...both('0F F4', 'pmuludq', mulEven('u')),
  vector('66 0F 38 28', 'pmuldq', mulEven('s')),
  ...both('0F F6', 'psadbw', sad),
  ...both('0F 38 04', 'pmaddubsw', maddubs),
  ...both('0F 38 0B', 'pmulhrsw', mulhrs),
  ...([['01', 'phaddw', 'i16x8.add'], ['03', 'phaddsw', 'i16x8.add_sat_s'], ['05', 'phsubw', 'i16x8.sub'], ['07', 'phsubsw', 'i16x8.sub_sat_s']] as const).flatMap(
    ([code, name, op]) => both(`0F 38 ${code}`, name, pairs(op, evenWords, oddWords), sideBySide(pairs(op, evenWords, oddWords))),
  ), // biome-ignore format: a table
  ...both(
    '0F 38 02',
    'phaddd',
    pairs('i32x4.add', evenDoubles, oddDoubles),
    sideBySide(pairs('i32x4.add', evenDoubles, oddDoubles)),
  ),
  ...both(
    '0F 38 06',
    'phsubd',
    pairs('i32x4.sub', evenDoubles, oddDoubles),
    sideBySide(pairs('i32x4.sub', evenDoubles, oddDoubles)),
  ),
  ...both('0F 38 08', 'psignb', sign('i8x16')),
  ...both('0F 38 09', 'psignw', sign('i16x8')),
  ...both('0F 38 0A', 'psignd', sign('i32x4')),
  ...both(
    '0F 38 1C',
    'pabsb',
    ofSource((c, x) => c.b.op('i8x16.abs', x)),
  ),
  ...both(
    '0F 38 1D',
    'pabsw',
    ofSource((c, x) => c.b.op('i16x8.abs', x)),
  ),
  ...both(
    '0F 38 1E',
    'pabsd',
    ofSource((c, x) => c.b.op('i32x4.abs', x)),
  ),
  ...shiftRows('F1', '71 /6', 'psllw', 'i16x8', 'shl'),
  ...shiftRows('F2', '72 /6', 'pslld', 'i32x4', 'shl'),
  ...shiftRows('F3', '73 /6', 'psllq', 'i64x2', 'shl'),
  ...shiftRows('D1', '71 /2', 'psrlw', 'i16x8', 'shr_u'),
  ...shiftRows('D2', '72 /2', 'psrld', 'i32x4', 'shr_u'),
  ...shiftRows('D3', '73 /2', 'psrlq', 'i64x2', 'shr_u'),
  ...shiftRows('E1', '71 /4', 'psraw', 'i16x8', 'shr_s'),
  ...shiftRows('E2', '72 /4', 'psrad', 'i32x4', 'shr_s'),
  insn('66 0F 73 /3r', 'psrldq Ux,Ib', SSE, byteShift(1)),
  insn('66 0F 73 /7r', 'pslldq Ux,Ib', SSE, byteShift(-1)),
  vector('66 0F 38 41', 'phminposuw', ofSource(minPos)),
  mpsadbw,
  ptest,
];
