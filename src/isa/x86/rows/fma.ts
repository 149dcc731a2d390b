// Fused multiply-add (Intel SDM volume 2: VFMADD132PD and its relatives). WebAssembly's relaxed multiply-add is fused where the host's
// processor has such an instruction, which the engine finds out when it starts; elsewhere, and for NaNs and unusual MXCSR, the exact path runs.

import type { Value } from '../../../ir/ir.ts';
import type { Emit } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import type { Width } from '../softfloat-core.ts';
import { softFma } from '../softfloat-fma.ts';
import { fusedMadd } from '../state.ts';
import { lanes32 } from './sse.ts';
import { bitsOf, exact, floatOf, forWidths, guarded, laneBits, noNan, shapes, widths, withLane } from './sse-math.ts';
import { AVX, readAll, writeAll } from './vex.ts';

/** Signs of the product and of the addend by lane parity: [even, odd]. */
interface Kind {
  readonly name: string;
  readonly product: 1 | -1;
  readonly addend: readonly [1 | -1, 1 | -1];
  readonly scalar: boolean;
}
const kinds: readonly (readonly [packed: number, Kind])[] = [
  [0x6, { name: 'fmaddsub', product: 1, addend: [-1, 1], scalar: false }],
  [0x7, { name: 'fmsubadd', product: 1, addend: [1, -1], scalar: false }],
  [0x8, { name: 'fmadd', product: 1, addend: [1, 1], scalar: true }],
  [0xa, { name: 'fmsub', product: 1, addend: [-1, -1], scalar: true }],
  [0xc, { name: 'fnmadd', product: -1, addend: [1, 1], scalar: true }],
  [0xe, { name: 'fnmsub', product: -1, addend: [-1, -1], scalar: true }],
];
/** Which of destination, first and second source are multiplied, and which is added. */
const orders = { 132: [0, 2, 1], 213: [1, 0, 2], 231: [1, 2, 0] } as const;

const signMask = (c: Emit, w: Width, negative: readonly [boolean, boolean]): Value => {
  const [even, odd] = negative.map((n) => (n ? 0x80000000 : 0)) as [number, number];
  if (w === 32) return lanes32(c, even, odd);
  return lanes32(c, 0, even, 0, odd);
};
/** x with the sign of each lane turned where `signs` has −1. NaNs keep theirs. */
function turned(c: Emit, w: Width, x: Value, signs: readonly [1 | -1, 1 | -1]): Value {
  if (signs[0] === 1 && signs[1] === 1) return x;
  const flipped = c.b.op('v128.xor', x, signMask(c, w, [signs[0] < 0, signs[1] < 0]));
  return c.b.op('v128.bitselect', flipped, x, c.b.op(`${shapes[w].name}.eq`, x, x));
}

const fmaExact = {
  scalar: forWidths((w) =>
    exact(`fma.f${w}`, ['i64', 'i64', 'i64'], 'i64', (c, mode, x, y, z) => c.call(softFma[w], mode, x, y, z)),
  ),
  packed: forWidths((w) =>
    exact(`fma.${shapes[w].name}`, ['v128', 'v128', 'v128'], 'v128', (c, mode, x, y, z) => {
      let r = x;
      for (let i = 0; i < shapes[w].count; i++)
        r = withLane(c, w, i, r, c.call(softFma[w], mode, laneBits(c, w, i, x), laneBits(c, w, i, y), laneBits(c, w, i, z)));
      return r;
    }),
  ),
};
/** `guarded`, where the fast path must round once. */
const guardedFused = (
  c: Emit,
  type: 'v128' | 'f32' | 'f64',
  fast: () => Value,
  slow: () => Value,
  shape: Parameters<typeof noNan>[1],
): Value => {
  const b = c.b;
  return guarded(c, type, fast, slow, (r) => b.and(noNan(c, shape)(r), c.get(fusedMadd)));
};
/** x · y + z on whole vectors. */
function fused(c: Emit, w: Width, x: Value, y: Value, z: Value): Value {
  const { name } = shapes[w];
  return guardedFused(c, 'v128', () => c.b.op(`${name}.relaxed_madd`, x, y, z), () => c.call(fmaExact.packed[w], x, y, z), name); // biome-ignore format: one call
}

function rowsOf(order: keyof typeof orders, first: number, packed: number, kind: Kind): Row[] {
  const [a, m, n] = orders[order];
  const wbit = (w: Width): string => (w === 64 ? 'W1' : 'W0');
  return widths.flatMap((w) => {
    const product = [kind.product, kind.product] as const;
    const hex = (low: number): string => (first * 16 + low).toString(16).toUpperCase();
    const list = [
      insn(
        `VEX.66.0F38.${wbit(w)} ${hex(packed)}`,
        `v${kind.name}${order}p${w === 32 ? 's' : 'd'} Vx,Hx,Wu`,
        AVX,
        (c, d, h, s) => {
          const y = readAll(c, s);
          const results = y.map((v, k) => {
            const half = k as 0 | 1;
            const all = [c.readHalf(d, half), c.readHalf(h, half), v];
            return fused(c, w, turned(c, w, all[a]!, product), all[m]!, turned(c, w, all[n]!, kind.addend));
          });
          writeAll(c, d, results);
        },
      ),
    ];
    if (kind.scalar) {
      const { type, name } = shapes[w];
      const code = w === 32 ? 'Wd' : 'Wq';
      list.push(
        insn(`VEX.66.0F38.${wbit(w)} ${hex(packed + 1)}`, `v${kind.name}${order}s${w === 32 ? 's' : 'd'} Vx,Hx,${code}`, AVX, (c, d, h, s) => {
          const b = c.b;
          const y = c.readVec(s, type);
          const old = c.readVec(d, 'v128');
          const splat = b.op(`${name}.splat`, y);
          const all = [old, c.readVec(h, 'v128'), splat];
          const [x, p, q] = [turned(c, w, all[a]!, product), all[m]!, turned(c, w, all[n]!, kind.addend)];
          const low = (v: Value): Value => b.lane(`${name}.extract_lane`, [0], v);
          const fast = (): Value => low(b.op(`${name}.relaxed_madd`, x, p, q));
          const bits = (v: Value): Value => bitsOf(c, low(v));
          const slow = (): Value => floatOf(c, w, c.call(fmaExact.scalar[w], bits(x), bits(p), bits(q)));
          const r = guardedFused(c, type, fast, slow, type);
          c.writeHalves(d, b.lane(`${name}.replace_lane`, [0], old, r), null);
        }), // biome-ignore format: one row
      );
    }
    return list;
  });
}

export const fmaRows: readonly Row[] = kinds.flatMap(([packed, kind]) => [
  ...rowsOf(132, 0x9, packed, kind),
  ...rowsOf(213, 0xa, packed, kind),
  ...rowsOf(231, 0xb, packed, kind),
]);
