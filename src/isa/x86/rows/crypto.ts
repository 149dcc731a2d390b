// AES, carry-less multiplication, SHA and Galois field instructions (Intel SDM volume 2; FIPS 197 and FIPS 180-4 for the ciphers). Their
// AVX forms follow in vex.ts.

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { xmm } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import { type Binary, highHalf, join, lanes32, lowHalf, SSE, shuffle, vector, zeroVec } from './sse.ts';

// -- arithmetic in GF(2^8) at build time, modulo x^8 + x^4 + x^3 + x + 1

const doubled = (x: number): number => ((x << 1) ^ (x & 0x80 ? 0x11b : 0)) & 0xff;
function product(x: number, y: number): number {
  let r = 0;
  for (let a = x, b = y; b > 0; b >>= 1, a = doubled(a)) if (b & 1) r ^= a;
  return r;
}
const inverses = Array.from({ length: 256 }, (_, x) => {
  for (let y = 1; y < 256; y++) if (product(x, y) === 1) return y;
  return 0;
});
const rotated = (x: number, n: number): number => ((x << n) | (x >> (8 - n))) & 0xff;
const SBOX = inverses.map((x) => x ^ rotated(x, 1) ^ rotated(x, 2) ^ rotated(x, 3) ^ rotated(x, 4) ^ 0x63);
const INVERSE_SBOX = SBOX.reduce<number[]>((table, y, x) => {
  table[y] = x;
  return table;
}, []);

/** (v): each byte replaced by its entry in a table of 256, sixteen of them at a time: swizzle gives zero for the other fifteen. */
const lookup = (name: string, table: readonly number[]): Sub =>
  sub(name, ['v128'], 'v128', {}, (c, v) => {
    const b = c.b;
    let result = zeroVec(c);
    for (let high = 0; high < 16; high++) {
      const index = high === 0 ? v : b.op('v128.xor', v, lanes32(c, high * 0x10101010));
      result = b.op('v128.or', result, b.op('i8x16.swizzle', b.v128(table.slice(high * 16, high * 16 + 16)), index));
    }
    b.ret(result);
  });
const substitute = lookup('aes.sbox', SBOX);
const substituteBack = lookup('aes.inverse_sbox', INVERSE_SBOX);
const inverse = lookup('gf.inverse', inverses);

// -- AES: a column is a 32-bit lane, row 0 lowest

const shiftRows = (direction: 1 | -1): number[] =>
  Array.from({ length: 16 }, (_, i) => ((i & 3) + 4 * (((i >> 2) + direction * (i & 3)) & 3)) & 15);
/** Each byte times x. */
function times2(c: Emit, v: Value): Value {
  const b = c.b;
  const high = b.op('i8x16.shr_s', v, b.i32(7));
  return b.op('v128.xor', b.op('i8x16.shl', v, b.i32(1)), b.op('v128.and', high, lanes32(c, 0x1b1b1b1b)));
}
/** Bytes of each column turned down by n rows. */
const turnColumns = (c: Emit, v: Value, n: number): Value =>
  shuffle(c, Array.from({ length: 16 }, (_, i) => (i & 12) | ((i + n) & 3)), v, v); // biome-ignore format: one call
const xor = (c: Emit, ...list: Value[]): Value => list.reduce((x, y) => c.b.op('v128.xor', x, y));
const mixColumns: Sub = sub('aes.mix', ['v128'], 'v128', {}, (c, v) => {
  const next = turnColumns(c, v, 1);
  const three = xor(c, times2(c, next), next);
  c.b.ret(xor(c, times2(c, v), three, turnColumns(c, v, 2), turnColumns(c, v, 3)));
});
const unmixColumns: Sub = sub('aes.unmix', ['v128'], 'v128', {}, (c, v) => {
  const v2 = times2(c, v);
  const v4 = times2(c, v2);
  const v8 = times2(c, v4);
  const e = xor(c, v8, v4, v2);
  const turn = (x: Value, n: number): Value => turnColumns(c, x, n);
  c.b.ret(xor(c, e, turn(xor(c, v8, v2, v), 1), turn(xor(c, v8, v4, v), 2), turn(xor(c, v8, v), 3)));
});
const round =
  (direction: 1 | -1, last: boolean): Binary =>
  (c, x, key) => {
    const rows = shuffle(c, shiftRows(direction), x, x);
    const bytes = c.call(direction > 0 ? substitute : substituteBack, rows);
    return xor(c, last ? bytes : c.call(direction > 0 ? mixColumns : unmixColumns, bytes), key);
  };
const keyAssist = insn('66 0F 3A DF', 'aeskeygenassist Vx,Wx,Ib', SSE, (c, d, s, i) => {
  const b = c.b;
  const v = c.call(substitute, c.readVec(s, 'v128'));
  // Words 1 and 3, as they are and turned by a byte with the constant added.
  const words = shuffle(c, [4, 5, 6, 7, 5, 6, 7, 4, 12, 13, 14, 15, 13, 14, 15, 12], v, v);
  const constant = b.op('v128.and', b.op('i32x4.splat', b.and(c.imm(i), b.i32(0xff))), lanes32(c, 0, 0xff, 0, 0xff));
  c.writeVec(d, 'v128', xor(c, words, constant));
});

// -- carry-less multiplication

/** (x, y): the 128-bit product of polynomials over GF(2). */
const carryless: Sub = sub('clmul', ['i64', 'i64'], 'v128', {}, (c, x, y) => {
  const b = c.b;
  const low = b.variable(b.i64(0));
  const high = b.variable(b.i64(0));
  const i = b.variable(b.i64(0));
  b.loop((again) => {
    const n = b.getVar(i);
    const chosen = b.neg(b.and(b.shru(y, n), b.i64(1)));
    const upper = b.select(b.eqz(n), b.i64(0), b.shru(x, b.sub(b.i64(64), n)));
    b.setVar(low, b.xor(b.getVar(low), b.and(b.shl(x, n), chosen)));
    b.setVar(high, b.xor(b.getVar(high), b.and(upper, chosen)));
    const next = b.add(n, b.i64(1));
    b.setVar(i, next);
    b.br(again, b.ne(next, b.i64(64)));
  });
  b.ret(join(c, b.getVar(low), b.getVar(high)));
});
const pclmulqdq = insn('66 0F 3A 44', 'pclmulqdq Vx,Wx,Ib', SSE, (c, d, s, i) => {
  const b = c.b;
  const y = c.readVec(s, 'v128');
  const x = c.readVec(d, 'v128');
  const half = (v: Value, bit: number): Value => b.select(b.and(c.imm(i), b.i32(bit)), highHalf(c, v), lowHalf(c, v));
  c.writeVec(d, 'v128', c.call(carryless, half(x, 1), half(y, 16)));
});

// -- GFNI

/** x · y by bytes. */
const multiplyBytes: Sub = sub('gf.mul', ['v128', 'v128'], 'v128', {}, (c, x, y) => {
  const b = c.b;
  let result = zeroVec(c);
  let power = x;
  for (let bit = 0; bit < 8; bit++) {
    const chosen = b.op('i8x16.shr_s', b.op('i8x16.shl', y, b.i32(7 - bit)), b.i32(7));
    result = xor(c, result, b.op('v128.and', power, chosen));
    if (bit < 7) power = times2(c, power);
  }
  b.ret(result);
});
/** (x, matrix): bit i of each byte is the parity of that byte and byte 7 − i of the matrix in the same 64 bits. */
const transform: Sub = sub('gf.affine', ['v128', 'v128'], 'v128', {}, (c, x, matrix) => {
  const b = c.b;
  let result = zeroVec(c);
  for (let bit = 0; bit < 8; bit++) {
    const row = shuffle(c, Array.from({ length: 16 }, (_, i) => (i & 8) | (7 - bit)), matrix, matrix); // biome-ignore format: one call
    const odd = b.op('v128.and', b.op('i8x16.popcnt', b.op('v128.and', x, row)), lanes32(c, 0x01010101));
    result = b.op('v128.or', result, b.op('i8x16.shl', odd, b.i32(bit)));
  }
  b.ret(result);
});
const affine = (opcode: string, name: string, before: (c: InsnEmit, x: Value) => Value): Row =>
  insn(`66 0F 3A ${opcode}`, `${name} Vx,Wx,Ib`, SSE, (c, d, s, i) => {
    const matrix = c.readVec(s, 'v128');
    const r = c.call(transform, before(c, c.readVec(d, 'v128')), matrix);
    c.writeVec(d, 'v128', xor(c, r, c.b.op('i8x16.splat', c.imm(i))));
  });

// -- SHA: lanes are numbered 0 to 3 from the lowest

const lane = (c: Emit, v: Value, n: number): Value => c.b.lane('i32x4.extract_lane', [n], v);
function lanes(c: Emit, ...values: Value[]): Value {
  return values.reduce((v, x, n) => c.b.lane('i32x4.replace_lane', [n], v, x), zeroVec(c));
}
const rotl = (c: Emit, x: Value, n: number): Value => c.b.op('i32.rotl', x, c.b.i32(n));
const rotr = (c: Emit, x: Value, n: number): Value => c.b.op('i32.rotr', x, c.b.i32(n));

const K1 = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6];
/** (state, words, function 0–3): four rounds of SHA-1. */
const sha1Rounds: Sub = sub('sha1.rounds', ['v128', 'v128', 'i32'], 'v128', {}, (c, state, words, kind) => {
  const b = c.b;
  const is = (n: number): Value => b.eq(kind, b.i32(n));
  const constant = b.select(
    is(0),
    b.i32(K1[0]! | 0),
    b.select(is(1), b.i32(K1[1]! | 0), b.select(is(2), b.i32(K1[2]! | 0), b.i32(K1[3]! | 0))),
  );
  let [A, B, C, D] = [3, 2, 1, 0].map((n) => lane(c, state, n)) as [Value, Value, Value, Value];
  let E: Value = b.i32(0);
  for (let i = 0; i < 4; i++) {
    const ch = b.xor(b.and(B, C), b.and(b.not(B), D));
    const parity = b.xor(b.xor(B, C), D);
    const majority = b.xor(b.xor(b.and(B, C), b.and(B, D)), b.and(C, D));
    const f = b.select(is(0), ch, b.select(is(2), majority, parity));
    const sum = b.add(b.add(b.add(b.add(f, rotl(c, A, 5)), lane(c, words, 3 - i)), E), constant);
    [A, B, C, D, E] = [sum, A, rotl(c, B, 30), C, D];
  }
  b.ret(lanes(c, D, C, B, A));
});
const sha1 = {
  nexte: vector('NP 0F 38 C8', 'sha1nexte', (c, x, y) => {
    const sum = c.b.add(lane(c, y, 3), rotl(c, lane(c, x, 3), 30));
    return c.b.lane('i32x4.replace_lane', [3], y, sum);
  }),
  msg1: vector('NP 0F 38 C9', 'sha1msg1', (c, x, y) =>
    c.b.op('v128.xor', x, shuffle(c, [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23], y, x)),
  ),
  msg2: vector('NP 0F 38 CA', 'sha1msg2', (c, x, y) => {
    const b = c.b;
    const w = (n: number): Value => lane(c, x, n);
    const w16 = rotl(c, b.xor(w(3), lane(c, y, 2)), 1);
    const w17 = rotl(c, b.xor(w(2), lane(c, y, 1)), 1);
    const w18 = rotl(c, b.xor(w(1), lane(c, y, 0)), 1);
    const w19 = rotl(c, b.xor(w(0), w16), 1);
    return lanes(c, w19, w18, w17, w16);
  }),
  rnds4: insn('NP 0F 3A CC', 'sha1rnds4 Vx,Wx,Ib', SSE, (c, d, s, i) => {
    const y = c.readVec(s, 'v128');
    c.writeVec(d, 'v128', c.call(sha1Rounds, c.readVec(d, 'v128'), y, c.b.and(c.imm(i), c.b.i32(3))));
  }),
};
/** (state CDGH, state ABEF, two words with their constants): two rounds of SHA-256; gives ABEF. */
const sha256Rounds: Sub = sub('sha256.rounds', ['v128', 'v128', 'v128'], 'v128', {}, (c, cdgh, abef, words) => {
  const b = c.b;
  let [A, B, E, F] = [3, 2, 1, 0].map((n) => lane(c, abef, n)) as [Value, Value, Value, Value];
  let [C, D, G, H] = [3, 2, 1, 0].map((n) => lane(c, cdgh, n)) as [Value, Value, Value, Value];
  for (let i = 0; i < 2; i++) {
    const ch = b.xor(b.and(E, F), b.and(b.not(E), G));
    const s1 = b.xor(b.xor(rotr(c, E, 6), rotr(c, E, 11)), rotr(c, E, 25));
    const t = b.add(b.add(b.add(ch, s1), lane(c, words, i)), H);
    const majority = b.xor(b.xor(b.and(A, B), b.and(A, C)), b.and(B, C));
    const s0 = b.xor(b.xor(rotr(c, A, 2), rotr(c, A, 13)), rotr(c, A, 22));
    [A, B, C, D, E, F, G, H] = [b.add(b.add(t, majority), s0), A, B, C, b.add(t, D), E, F, G];
  }
  b.ret(lanes(c, F, E, B, A));
});
const sigma0 = (c: Emit, x: Value): Value => c.b.xor(c.b.xor(rotr(c, x, 7), rotr(c, x, 18)), c.b.shru(x, c.b.i32(3)));
const sigma1 = (c: Emit, x: Value): Value => c.b.xor(c.b.xor(rotr(c, x, 17), rotr(c, x, 19)), c.b.shru(x, c.b.i32(10)));
const sha256 = {
  rnds2: insn('NP 0F 38 CB', 'sha256rnds2 Vx,Wx', SSE, (c, d, s) => {
    const y = c.readVec(s, 'v128');
    c.writeVec(d, 'v128', c.call(sha256Rounds, c.readVec(d, 'v128'), y, c.get(xmm[0]!)));
  }),
  msg1: vector('NP 0F 38 CC', 'sha256msg1', (c, x, y) => {
    const next = (n: number): Value => (n < 3 ? lane(c, x, n + 1) : lane(c, y, 0));
    return lanes(c, ...[0, 1, 2, 3].map((n) => c.b.add(lane(c, x, n), sigma0(c, next(n)))));
  }),
  msg2: vector('NP 0F 38 CD', 'sha256msg2', (c, x, y) => {
    const w16 = c.b.add(lane(c, x, 0), sigma1(c, lane(c, y, 2)));
    const w17 = c.b.add(lane(c, x, 1), sigma1(c, lane(c, y, 3)));
    const w18 = c.b.add(lane(c, x, 2), sigma1(c, w16));
    const w19 = c.b.add(lane(c, x, 3), sigma1(c, w17));
    return lanes(c, w16, w17, w18, w19);
  }),
};

const unary =
  (target: Sub): Binary =>
  (c, _, y) =>
    c.call(target, y);
export const cryptoRows: readonly Row[] = [
  vector('66 0F 38 DB', 'aesimc', unary(unmixColumns)),
  vector('66 0F 38 DC', 'aesenc', round(1, false)),
  vector('66 0F 38 DD', 'aesenclast', round(1, true)),
  vector('66 0F 38 DE', 'aesdec', round(-1, false)),
  vector('66 0F 38 DF', 'aesdeclast', round(-1, true)),
  keyAssist,
  pclmulqdq,
  vector('66 0F 38 CF', 'gf2p8mulb', (c, x, y) => c.call(multiplyBytes, x, y)),
  affine('CE', 'gf2p8affineqb', (_, x) => x),
  affine('CF', 'gf2p8affineinvqb', (c, x) => c.call(inverse, x)),
  ...Object.values(sha1),
  ...Object.values(sha256),
];
/** Of these there are AVX forms. */
export const vexCrypto: readonly Row[] = cryptoRows.filter((row) => !row.asm.startsWith('sha'));
