// What the MMX and SSE rows share: row options, vector and immediate helpers, the MMX state transition (Intel SDM volume 1, section 9.5).

import type { Value } from '../../../ir/ir.ts';
import type { Type } from '../../../ir/ops.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import { fpTop, fpValid } from '../state.ts';
import { wait } from './x87-stack.ts';

export const SSE: RowOptions = { fp: 'sse' };
export const MMX: RowOptions = { fp: 'mmx' };

// -- vectors

export type Unary = (c: Emit, x: Value) => Value;
export type Binary = (c: Emit, x: Value, y: Value) => Value;
/** One WebAssembly operation, operands in order. */
export const wasm =
  (name: string): Binary =>
  (c, x, y) =>
    c.b.op(name, x, y);
/** One WebAssembly operation, operands swapped. */
export const swapped =
  (name: string): Binary =>
  (c, x, y) =>
    c.b.op(name, y, x);

/** A constant of four 32-bit lanes. */
export function lanes32(c: Emit, a: number, b = a, d = a, e = b): Value {
  return c.b.v128(new Uint8Array(Uint32Array.of(a, b, d, e).buffer));
}
/** A constant of eight equal 16-bit lanes. */
export const lanes16 = (c: Emit, x: number): Value => lanes32(c, (x & 0xffff) * 0x10001);
/** A constant of two equal 64-bit lanes. */
export const lanes64 = (c: Emit, x: bigint): Value => lanes32(c, Number(x & 0xffffffffn), Number((x >> 32n) & 0xffffffffn));
export const zeroVec = (c: Emit): Value => c.b.v128(new Uint8Array(16));
/** Bytes 0 to 15 in their lanes. */
export const iota = (c: Emit): Value => c.b.v128(Array.from({ length: 16 }, (_, i) => i));
/** Sixteen byte indices from pieces: `bytes(4, [0, 2])` takes four bytes from element 0, then four from element 2. */
export const bytes = (size: number, elements: readonly number[]): number[] =>
  elements.flatMap((e) => Array.from({ length: size }, (_, i) => e * size + i));
export const shuffle = (c: Emit, indices: readonly number[], x: Value, y: Value): Value =>
  c.b.lane('i8x16.shuffle', indices, x, y);
/** Two 64-bit values as one vector. */
export const join = (c: Emit, low: Value, high: Value): Value =>
  c.b.lane('i64x2.replace_lane', [1], c.b.op('i64x2.splat', low), high);
export const lowHalf = (c: Emit, x: Value): Value => c.b.lane('i64x2.extract_lane', [0], x);
export const highHalf = (c: Emit, x: Value): Value => c.b.lane('i64x2.extract_lane', [1], x);

/** Runs the case that the i32 `selector` (0 to cases.length − 1, a power of two of them) names: fixed at build time where it can be. */
export function choice(c: Emit, type: Type, selector: Value, cases: readonly (() => Value)[]): Value {
  if (selector.kind === 'const') return cases[selector.value as number]();
  if (cases.length === 1) return cases[0]();
  const half = cases.length / 2;
  const upper = c.b.and(selector, c.b.i32(half));
  const rest = c.b.and(selector, c.b.i32(half - 1));
  return c.choose(
    type,
    upper,
    () => choice(c, type, rest, cases.slice(half)),
    () => choice(c, type, rest, cases.slice(0, half)),
  );
}
/** The value of an immediate where it is known at build time. */
export const known = (imm: Value): number | undefined => (imm.kind === 'const' ? (imm.value as number) : undefined);

/** A vector of all ones in each lane of `width` bits whose bit of `bits` (i32, from bit 0) is set. */
export function maskOf(c: Emit, width: 8 | 16 | 32 | 64, bits: Value): Value {
  const b = c.b;
  const size = width / 8;
  const fixed = known(bits);
  if (fixed !== undefined) return b.v128(Array.from({ length: 16 }, (_, i) => ((fixed >> Math.floor(i / size)) & 1 ? 0xff : 0)));
  const shape = laneShape[width];
  // Bit i of the byte that is its lane's lowest; with 16 lanes the upper eight look at the second byte.
  const chosen = b.v128(Array.from({ length: 16 }, (_, i) => (i % size === 0 ? 1 << ((i / size) & 7) : 0)));
  let spread: Value;
  if (width === 8) {
    const second = b.v128(Array.from({ length: 16 }, (_, i) => i >> 3));
    spread = b.op('i8x16.swizzle', b.op('i16x8.splat', bits), second);
  } else spread = b.op(`${shape}.splat`, width === 64 ? b.extu(bits) : bits);
  return b.op(`${shape}.eq`, b.op('v128.and', spread, chosen), chosen);
}
export const laneShape = { 8: 'i8x16', 16: 'i16x8', 32: 'i32x4', 64: 'i64x2' } as const;

// -- MMX

/** What every MMX instruction begins with: a pending x87 exception comes first. */
export const mmxCheck = (c: Emit): void => wait(c);
/** The transition to MMX state: TOP = 0, all registers valid. After the last access that may fault. */
export function mmxEnter(c: Emit): void {
  c.set(fpTop, c.b.i32(0));
  c.set(fpValid, c.b.i32(0xff));
}
/** Writes an MMX register or a memory operand, and makes the transition. */
export function mmxWrite(c: InsnEmit, o: Operand, value: Value): void {
  c.writeVec(o, 'i64', value);
  mmxEnter(c);
}

/** A row on whole SSE registers: destination and source in, destination out. */
export const vector = (opcode: string, name: string, f: Binary): Row =>
  insn(opcode, `${name} Vx,Wx`, SSE, (c, d, s) => {
    const y = c.readVec(s, 'v128');
    c.writeVec(d, 'v128', f(c, c.readVec(d, 'v128'), y));
  });
/** A row on MMX registers of an operation given on vectors whose low halves count. */
export const mmxVector = (opcode: string, name: string, f: Binary): Row =>
  insn(opcode, `${name} Pq,Qq`, MMX, (c, d, s) => {
    mmxCheck(c);
    const y = c.b.op('i64x2.splat', c.readVec(s, 'i64'));
    const x = c.b.op('i64x2.splat', c.readVec(d, 'i64'));
    mmxWrite(c, d, lowHalf(c, f(c, x, y)));
  });
/** The SSE2 row (prefix 66) and the MMX row of one operation. `mmx` is given where halves depend on each other. */
export const both = (opcode: string, name: string, f: Binary, mmx: Binary = f): Row[] => [
  vector(`66 ${opcode}`, name, f),
  mmxVector(`NP ${opcode}`, name, mmx),
];
/** For `both`: an operation that puts a result of each operand into one half works on MMX operands put side by side. */
export const sideBySide =
  (f: Binary): Binary =>
  (c, x, y) => {
    const v = shuffle(c, bytes(8, [0, 2]), x, y);
    return f(c, v, v);
  };
