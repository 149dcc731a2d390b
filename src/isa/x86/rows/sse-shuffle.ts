// Rearranging vectors: pack, unpack, shuffle, blend, insert, extract, extend (Intel SDM volume 2, MMX and SSE to SSE4.1).
// With an immediate known at build time a shuffle has constant lanes; else its byte indices are computed.

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { xmm } from '../state.ts';
import {
  type Binary, both, bytes, highHalf, iota, join, known, laneShape, lanes32, lowHalf, MMX, maskOf, mmxCheck, mmxEnter, mmxVector, mmxWrite, SSE, shuffle, sideBySide, vector, wasm,
} from './sse.ts'; // biome-ignore format: one list

// -- unpack: elements of both operands in turn, from the low or the high halves

const interleave =
  (size: number, high: boolean): Binary =>
  (c, x, y) => {
    const count = 16 / size;
    const first = high ? count / 2 : 0;
    const order = Array.from({ length: count }, (_, i) => first + (i >> 1) + (i & 1 ? count : 0));
    return shuffle(c, bytes(size, order), x, y);
  };
/** The high halves of 64-bit operands are in the high half of their low unpack. */
const mmxHigh =
  (size: number): Binary =>
  (c, x, y) =>
    c.b.op('i64x2.splat', highHalf(c, interleave(size, false)(c, x, y)));

const unpackRows = [1, 2, 4].flatMap((size, i) => {
  const name = ['bw', 'wd', 'dq'][i];
  return [
    vector(`66 0F ${60 + i}`, `punpckl${name}`, interleave(size, false)),
    // The low form reads 32 bits of memory.
    insn(`NP 0F ${60 + i}`, `punpckl${name} Pq,Qd`, MMX, (c, d, s) => {
      mmxCheck(c);
      const y = c.b.op('i32x4.splat', c.readVec(s, 'i32'));
      mmxWrite(c, d, lowHalf(c, interleave(size, false)(c, c.b.op('i64x2.splat', c.readVec(d, 'i64')), y)));
    }),
    vector(`66 0F ${68 + i === 70 ? '6A' : 68 + i}`, `punpckh${name}`, interleave(size, true)),
    mmxVector(`NP 0F ${68 + i === 70 ? '6A' : 68 + i}`, `punpckh${name}`, mmxHigh(size)),
  ];
});

// -- shuffles by an immediate of four 2-bit indices

/** Element `i` (0–3) of the immediate in lane i, as the low bits of 32-bit lanes. */
function fields32(c: Emit, imm: Value): Value {
  const b = c.b;
  const moved = b.op('i32x4.mul', b.op('i32x4.splat', imm), lanes32(c, 64, 16, 4, 1));
  return b.op('v128.and', b.op('i32x4.shr_u', moved, b.i32(6)), lanes32(c, 3));
}
const field = (imm: number, i: number): number => (imm >> (2 * i)) & 3;

/** Byte indices of 32-bit elements chosen by the immediate. */
const indices32 = (c: Emit, imm: Value): Value =>
  c.b.op('i32x4.add', c.b.op('i32x4.mul', fields32(c, imm), lanes32(c, 0x04040404)), lanes32(c, 0x03020100));

function pshufd(c: Emit, x: Value, imm: Value): Value {
  const fixed = known(imm);
  if (fixed !== undefined) return shuffle(c, bytes(4, [0, 1, 2, 3].map((i) => field(fixed, i))), x, x); // biome-ignore format: one call
  return c.b.op('i8x16.swizzle', x, indices32(c, imm));
}
/** Shuffles the four words of the low (`half` 0) or high half (1), the other words stay. */
function shuffleWords(c: Emit, half: 0 | 1, x: Value, imm: Value): Value {
  const b = c.b;
  const fixed = known(imm);
  const inHalf = (i: number): boolean => i >> 2 === half;
  if (fixed !== undefined) {
    const order = Array.from({ length: 8 }, (_, i) => (inHalf(i) ? half * 4 + field(fixed, i & 3) : i));
    return shuffle(c, bytes(2, order), x, x);
  }
  // In a 16-bit lane: 2 · field in both bytes, over the half's first byte; or the lane's own bytes.
  const words = (of: (i: number) => number): Value =>
    b.v128(new Uint8Array(Uint16Array.from({ length: 8 }, (_, i) => of(i)).buffer));
  const moved = b.op(
    'i16x8.mul',
    b.op('i16x8.splat', imm),
    words((i) => (inHalf(i) ? 64 >> (2 * (i & 3)) : 0)),
  );
  const fields = b.op(
    'v128.and',
    b.op('i16x8.shr_u', moved, b.i32(6)),
    words(() => 3),
  );
  const from = (i: number): number => (inHalf(i) ? half * 8 : 2 * i);
  const base = words((i) => from(i) | ((from(i) + 1) << 8));
  return b.op(
    'i8x16.swizzle',
    x,
    b.op(
      'i16x8.add',
      b.op(
        'i16x8.mul',
        fields,
        words(() => 0x0202),
      ),
      base,
    ),
  );
}
function shufps(c: Emit, x: Value, y: Value, imm: Value): Value {
  const fixed = known(imm);
  if (fixed !== undefined) return shuffle(c, bytes(4, [0, 1, 2, 3].map((i) => field(fixed, i) + (i & 2 ? 4 : 0))), x, y); // biome-ignore format: one call
  const at = indices32(c, imm);
  return shuffle(c, bytes(4, [0, 1, 6, 7]), c.b.op('i8x16.swizzle', x, at), c.b.op('i8x16.swizzle', y, at));
}
function shufpd(c: Emit, x: Value, y: Value, imm: Value): Value {
  const b = c.b;
  const fixed = known(imm);
  if (fixed !== undefined) return shuffle(c, bytes(8, [fixed & 1, 2 + ((fixed >> 1) & 1)]), x, y);
  const half = (v: Value, bit: number): Value => b.select(b.and(imm, b.i32(bit)), highHalf(c, v), lowHalf(c, v));
  return join(c, half(x, 1), half(y, 2));
}
const twoOperands = (opcode: string, name: string, f: (c: Emit, x: Value, y: Value, imm: Value) => Value): Row =>
  insn(opcode, `${name} Vx,Wx,Ib`, SSE, (c, d, s, i) => {
    const y = c.readVec(s, 'v128');
    c.writeVec(d, 'v128', f(c, c.readVec(d, 'v128'), y, c.imm(i)));
  });
const ofSource = (opcode: string, name: string, f: (c: Emit, x: Value, imm: Value) => Value): Row =>
  insn(opcode, `${name} Vx,Wx,Ib`, SSE, (c, d, s, i) => c.writeVec(d, 'v128', f(c, c.readVec(s, 'v128'), c.imm(i))));

// -- shuffles by a register, and PALIGNR

const pshufb =
  (mask: number): Binary =>
  (c, x, y) =>
    c.b.op('i8x16.swizzle', x, c.b.op('v128.and', y, lanes32(c, mask)));

/** Bytes `n` and up of the source with the destination above it. */
function alignRight(c: Emit, x: Value, y: Value, imm: Value): Value {
  const b = c.b;
  const n = b.select(b.ltu(imm, b.i32(32)), imm, b.i32(32));
  const from = b.op('i8x16.add', iota(c), b.op('i8x16.splat', n));
  if (n.kind === 'const') {
    const start = n.value as number;
    if (start <= 16) return shuffle(c, Array.from({ length: 16 }, (_, i) => i + start), y, x); // biome-ignore format: one call
    return b.op('i8x16.swizzle', x, b.op('i8x16.sub', from, lanes32(c, 0x10101010)));
  }
  // Indices outside 0–15 give zero.
  const above = b.op('i8x16.swizzle', x, b.op('i8x16.sub', from, lanes32(c, 0x10101010)));
  return b.op('v128.or', b.op('i8x16.swizzle', y, from), above);
}
const palignrMmx = insn('NP 0F 3A 0F', 'palignr Pq,Qq,Ib', MMX, (c, d, s, i) => {
  const b = c.b;
  mmxCheck(c);
  const y = c.readVec(s, 'i64');
  const whole = join(c, y, c.readVec(d, 'i64'));
  const imm = c.imm(i);
  const n = b.select(b.ltu(imm, b.i32(16)), imm, b.i32(16));
  mmxWrite(c, d, lowHalf(c, b.op('i8x16.swizzle', whole, b.op('i8x16.add', iota(c), b.op('i8x16.splat', n)))));
});

// -- blends

/** Lanes of the source where the immediate has a bit, else of the destination. */
const blend =
  (width: 16 | 32 | 64) =>
  (c: Emit, x: Value, y: Value, imm: Value): Value =>
    c.b.op('v128.bitselect', y, x, maskOf(c, width, imm));
/** Lanes of the source where XMM0's lane has its sign bit set. */
const blendBySign =
  (shape: string, width: number): Binary =>
  (c, x, y) =>
    c.b.op('v128.bitselect', y, x, c.b.op(`${shape}.shr_s`, c.get(xmm[0]), c.b.i32(width - 1)));

// -- insert and extract

type LaneWidth = 8 | 16 | 32 | 64;
const mulOf: Readonly<Record<LaneWidth, number>> = { 8: 1, 16: 2, 32: 4, 64: 8 };
/** Lane `imm` modulo the number of lanes: 8 and 16 bits zero-extended. */
function extract(c: Emit, width: LaneWidth, x: Value, imm: Value): Value {
  const b = c.b;
  const lane = b.and(imm, b.i32(128 / width - 1));
  const op = `${laneShape[width]}.extract_lane${width < 32 ? '_u' : ''}`;
  if (lane.kind === 'const') return b.lane(op, [lane.value as number], x);
  const from = b.op('i8x16.add', iota(c), b.op('i8x16.splat', b.mul(lane, b.i32(mulOf[width]))));
  return b.lane(op, [0], b.op('i8x16.swizzle', x, from));
}
function insert(c: Emit, width: LaneWidth, x: Value, value: Value, imm: Value): Value {
  const b = c.b;
  const shape = laneShape[width];
  const lane = b.and(imm, b.i32(128 / width - 1));
  if (lane.kind === 'const') return b.lane(`${shape}.replace_lane`, [lane.value as number], x, value);
  const size = mulOf[width];
  const numbers = b.v128(Array.from({ length: 16 }, (_, i) => (i % size ? 0 : i / size)));
  const here = b.op(`${shape}.eq`, numbers, b.op(`${shape}.splat`, width === 64 ? b.extu(lane) : lane));
  return b.op('v128.bitselect', b.op(`${shape}.splat`, value), x, here);
}
const pinsr =
  (width: LaneWidth) =>
  (c: InsnEmit, d: Operand, s: Operand, i: Operand): void => {
    const value = c.read(s);
    c.writeVec(d, 'v128', insert(c, width, c.readVec(d, 'v128'), value, c.imm(i)));
  };
const pextr =
  (width: LaneWidth) =>
  (c: InsnEmit, d: Operand, s: Operand, i: Operand): void =>
    c.write(d, extract(c, width, c.readVec(s, 'v128'), c.imm(i)));

/** Bits 6–7 choose the source's lane (of a register), bits 4–5 the place, bits 0–3 lanes to clear. */
const insertps = insn('66 0F 3A 21', 'insertps Vx,Wd,Ib', SSE, (c, d, s, i) => {
  const b = c.b;
  const imm = c.imm(i);
  const value = s.isMemory ? c.readVec(s, 'i32') : extract(c, 32, c.readVec(s, 'v128'), b.shru(imm, b.i32(6)));
  const placed = insert(c, 32, c.readVec(d, 'v128'), value, b.shru(imm, b.i32(4)));
  c.writeVec(d, 'v128', b.op('v128.andnot', placed, maskOf(c, 32, b.and(imm, b.i32(15)))));
});

// -- extensions

/** PMOVSX and PMOVZX: from and to width in bytes, operand of the source. */
const extensions = [
  ['bw', 1, 2, 'Wq'], ['bd', 1, 4, 'Wd'], ['bq', 1, 8, 'Ww'], ['wd', 2, 4, 'Wq'], ['wq', 2, 8, 'Wd'], ['dq', 4, 8, 'Wq'],
] as const; // biome-ignore format: a table
const SHAPES = { 1: 'i8x16', 2: 'i16x8', 4: 'i32x4', 8: 'i64x2' } as const;
const extensionRows = (['s', 'u'] as const).flatMap((sign) =>
  extensions.map(([name, from, to, source], i) =>
    insn(`66 0F 38 ${sign === 's' ? 20 + i : 30 + i}`, `pmov${sign === 's' ? 's' : 'z'}x${name} Vx,${source}`, SSE, (c, d, s) => {
      const b = c.b;
      let v =
        source === 'Wq'
          ? b.op('i64x2.splat', c.readVec(s, 'i64'))
          : b.op('i32x4.splat', c.readVec(s, source === 'Wd' ? 'i32' : 'i32.16u'));
      for (let size: number = from; size < to; size *= 2) {
        v = b.op(`${SHAPES[(size * 2) as 2 | 4 | 8]}.extend_low_${SHAPES[size as 1 | 2 | 4]}_${sign}`, v);
      }
      c.writeVec(d, 'v128', v);
    }),
  ),
);

const packs = [
  ['0F 63', 'packsswb', 'i8x16.narrow_i16x8_s'], ['0F 67', 'packuswb', 'i8x16.narrow_i16x8_u'], ['0F 6B', 'packssdw', 'i16x8.narrow_i32x4_s'],
] as const; // biome-ignore format: a table

export const sseShuffleRows: readonly Row[] = [
  ...unpackRows,
  vector('66 0F 6C', 'punpcklqdq', interleave(8, false)),
  vector('66 0F 6D', 'punpckhqdq', interleave(8, true)),
  vector('NP 0F 14', 'unpcklps', interleave(4, false)),
  vector('66 0F 14', 'unpcklpd', interleave(8, false)),
  vector('NP 0F 15', 'unpckhps', interleave(4, true)),
  vector('66 0F 15', 'unpckhpd', interleave(8, true)),
  ...packs.flatMap(([opcode, name, op]) => both(opcode, name, wasm(op), sideBySide(wasm(op)))),
  vector('66 0F 38 2B', 'packusdw', wasm('i16x8.narrow_i32x4_u')),
  ofSource('66 0F 70', 'pshufd', pshufd),
  ofSource('F3 0F 70', 'pshufhw', (c, x, imm) => shuffleWords(c, 1, x, imm)),
  ofSource('F2 0F 70', 'pshuflw', (c, x, imm) => shuffleWords(c, 0, x, imm)),
  insn('NP 0F 70', 'pshufw Pq,Qq,Ib', MMX, (c, d, s, i) => {
    mmxCheck(c);
    const x = c.b.op('i64x2.splat', c.readVec(s, 'i64'));
    mmxWrite(c, d, lowHalf(c, shuffleWords(c, 0, x, c.imm(i))));
  }),
  twoOperands('NP 0F C6', 'shufps', shufps),
  twoOperands('66 0F C6', 'shufpd', shufpd),
  ...both('0F 38 00', 'pshufb', pshufb(0x8f8f8f8f), pshufb(0x87878787)),
  twoOperands('66 0F 3A 0F', 'palignr', alignRight),
  palignrMmx,
  twoOperands('66 0F 3A 0C', 'blendps', blend(32)),
  twoOperands('66 0F 3A 0D', 'blendpd', blend(64)),
  twoOperands('66 0F 3A 0E', 'pblendw', blend(16)),
  vector('66 0F 38 10', 'pblendvb', blendBySign('i8x16', 8)),
  vector('66 0F 38 14', 'blendvps', blendBySign('i32x4', 32)),
  vector('66 0F 38 15', 'blendvpd', blendBySign('i64x2', 64)),
  insn('NP 0F C4', 'pinsrw Pq,Ew,Ib', MMX, (c, d, s, i) => {
    const b = c.b;
    mmxCheck(c);
    const value = c.read(s);
    const x = b.op('i64x2.splat', c.readVec(d, 'i64'));
    mmxWrite(c, d, lowHalf(c, insert(c, 16, x, value, b.and(c.imm(i), b.i32(3)))));
  }),
  insn('66 0F C4', 'pinsrw Vx,Ew,Ib', SSE, pinsr(16)),
  insn('66 0F 3A 20', 'pinsrb Vx,Rd,Ib', SSE, pinsr(8)),
  insn('66 0F 3A 20', 'pinsrb Vx,Mb,Ib', SSE, pinsr(8)),
  insn('66 0F 3A 22', 'pinsrd Vx,Ey,Ib', SSE, (c, d, s, i) => pinsr(s.bits as LaneWidth)(c, d, s, i)),
  insn('NP 0F C5', 'pextrw Gd,Nq,Ib', MMX, (c, d, s, i) => {
    const b = c.b;
    mmxCheck(c);
    const x = b.op('i64x2.splat', c.readVec(s, 'i64'));
    c.write(d, extract(c, 16, x, b.and(c.imm(i), b.i32(3))));
    mmxEnter(c);
  }),
  insn('66 0F C5', 'pextrw Gd,Ux,Ib', SSE, pextr(16)),
  insn('66 0F 3A 14', 'pextrb Rd,Vx,Ib', SSE, pextr(8)),
  insn('66 0F 3A 14', 'pextrb Mb,Vx,Ib', SSE, pextr(8)),
  insn('66 0F 3A 15', 'pextrw Rd,Vx,Ib', SSE, pextr(16)),
  insn('66 0F 3A 15', 'pextrw Mw,Vx,Ib', SSE, pextr(16)),
  insn('66 0F 3A 16', 'pextrd Ey,Vx,Ib', SSE, (c, d, s, i) => pextr(d.bits as LaneWidth)(c, d, s, i)),
  insn('66 0F 3A 17', 'extractps Ed,Vx,Ib', SSE, pextr(32)),
  insertps,
  ...extensionRows,
];
