// SSE floating-point arithmetic: ADD to SQRT, MIN and MAX, horizontal forms, dot products, comparisons, rounding, reciprocals
// (Intel SDM volume 2; volume 1, chapters 10 to 12). Fast and exact paths: see sse-math.ts.

import type { Value } from '../../../ir/ir.ts';
import type { Emit } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import * as soft from '../softfloat.ts';
import type { Width } from '../softfloat-core.ts';
import type { Sub } from '../sub.ts';
import { type Binary, bytes, lanes32, maskOf, SSE, shuffle, swapped, zeroVec } from './sse.ts';
import {
  type ByWidth,
  bitsOf,
  type Exact,
  exact,
  floatOf,
  forWidths,
  guarded,
  laneBits,
  noNan,
  packedForm,
  scalarForm,
  shapes,
  sseFinish,
  widths,
  withLane,
} from './sse-math.ts';

// -- operations of two operands

const exactBinary = (name: string, op: ByWidth<Sub>): Exact => ({
  scalar: forWidths((w) => exact(`${name}.f${w}`, ['i64', 'i64'], 'i64', (c, mode, x, y) => c.call(op[w], mode, x, y))),
  packed: forWidths((w) =>
    exact(`${name}.${shapes[w].name}`, ['v128', 'v128'], 'v128', (c, mode, x, y) => {
      let r = x;
      for (let i = 0; i < shapes[w].count; i++)
        r = withLane(c, w, i, r, c.call(op[w], mode, laneBits(c, w, i, x), laneBits(c, w, i, y)));
      return r;
    }),
  ),
});

const scalarValue = (c: Emit, w: Width, slow: Sub, fast: Binary, x: Value, y: Value, checked: boolean): Value =>
  guarded(
    c,
    shapes[w].type,
    () => fast(c, x, y),
    () => floatOf(c, w, c.call(slow, bitsOf(c, x), bitsOf(c, y))),
    checked ? noNan(c, shapes[w].type) : undefined,
  );
const packedValue = (c: Emit, w: Width, slow: Sub, fast: Binary, x: Value, y: Value, checked: boolean): Value =>
  guarded(
    c,
    'v128',
    () => fast(c, x, y),
    () => c.call(slow, x, y),
    checked ? noNan(c, shapes[w].name) : undefined,
  );

/** The four forms of an operation. `fast` gives the WebAssembly arithmetic of a lane or vector shape. */
function arithmetic(opcode: string, name: string, op: ByWidth<Sub>, fast: (shape: string) => Binary, checked = true): Row[] {
  const slow = exactBinary(name, op);
  return widths.flatMap((w) => [
    insn(`${packedForm[w].prefix} ${opcode}`, `${name}${packedForm[w].suffix} Vx,Wx`, SSE, (c, d, s) => {
      const y = c.readVec(s, 'v128');
      c.writeVec(d, 'v128', packedValue(c, w, slow.packed[w], fast(shapes[w].name), c.readVec(d, 'v128'), y, checked));
    }),
    insn(`${scalarForm[w].prefix} ${opcode}`, `${name}${scalarForm[w].suffix} Vx,${scalarForm[w].source}`, SSE, (c, d, s) => {
      const { type } = shapes[w];
      const y = c.readVec(s, type);
      c.writeVec(d, type, scalarValue(c, w, slow.scalar[w], fast(type), c.readVec(d, type), y, checked));
    }),
  ]);
}
const plain =
  (name: string) =>
  (shape: string): Binary =>
  (c, x, y) =>
    c.b.op(`${shape}.${name}`, x, y);
/** MIN and MAX: the first operand only where it compares so, else the second. */
const minMax =
  (packed: 'pmin' | 'pmax', scalar: 'lt' | 'gt') =>
  (shape: string): Binary =>
    shape.includes('x') ? swapped(`${shape}.${packed}`) : (c, x, y) => c.b.select(c.b.op(`${shape}.${scalar}`, x, y), x, y);

// -- square root

const sqrtExact: Exact = {
  scalar: forWidths((w) => exact(`sqrt.f${w}`, ['i64'], 'i64', (c, mode, x) => c.call(soft.softSqrt[w], mode, x))),
  packed: forWidths((w) =>
    exact(`sqrt.${shapes[w].name}`, ['v128'], 'v128', (c, mode, x) => {
      let r = x;
      for (let i = 0; i < shapes[w].count; i++) r = withLane(c, w, i, r, c.call(soft.softSqrt[w], mode, laneBits(c, w, i, x)));
      return r;
    }),
  ),
};
const sqrtRows = widths.flatMap((w) => [
  insn(`${packedForm[w].prefix} 0F 51`, `sqrt${packedForm[w].suffix} Vx,Wx`, SSE, (c, d, s) => {
    const { name } = shapes[w];
    const x = c.readVec(s, 'v128');
    const r = guarded(c, 'v128', () => c.b.op(`${name}.sqrt`, x), () => c.call(sqrtExact.packed[w], x), noNan(c, name)); // biome-ignore format: one call
    c.writeVec(d, 'v128', r);
  }),
  insn(`${scalarForm[w].prefix} 0F 51`, `sqrt${scalarForm[w].suffix} Vx,${scalarForm[w].source}`, SSE, (c, d, s) => {
    const { type } = shapes[w];
    const x = c.readVec(s, type);
    const slow = (): Value => floatOf(c, w, c.call(sqrtExact.scalar[w], bitsOf(c, x)));
    c.writeVec(
      d,
      type,
      guarded(c, type, () => c.b.op(`${type}.sqrt`, x), slow, noNan(c, type)),
    );
  }),
]);

// -- horizontal and alternating forms

const addExact = exactBinary('hadd', soft.softAdd).packed;
const subExact = exactBinary('hsub', soft.softSub).packed;
/** ADDSUB: even lanes subtract, odd lanes add. */
const addSubExact = forWidths((w) =>
  exact(`addsub.${shapes[w].name}`, ['v128', 'v128'], 'v128', (c, mode, x, y) => {
    let r = x;
    for (let i = 0; i < shapes[w].count; i++) {
      const op = i & 1 ? soft.softAdd[w] : soft.softSub[w];
      r = withLane(c, w, i, r, c.call(op, mode, laneBits(c, w, i, x), laneBits(c, w, i, y)));
    }
    return r;
  }),
);
const evenSigns: ByWidth<(c: Emit) => Value> = {
  32: (c) => lanes32(c, 0x80000000, 0),
  64: (c) => c.b.v128([0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]),
};
const evenLanes: ByWidth<number[]> = { 32: bytes(4, [0, 2, 4, 6]), 64: bytes(8, [0, 2]) };
const oddLanes: ByWidth<number[]> = { 32: bytes(4, [1, 3, 5, 7]), 64: bytes(8, [1, 3]) };
const horizontalForms: ByWidth<{ prefix: string; suffix: string }> = {
  32: { prefix: 'F2', suffix: 'ps' },
  64: { prefix: '66', suffix: 'pd' },
};

const horizontalRows = widths.flatMap((w) => {
  const { prefix, suffix } = horizontalForms[w];
  const { name } = shapes[w];
  const horizontal = (opcode: string, mnemonic: string, slow: Sub, op: string): Row =>
    insn(`${prefix} ${opcode}`, `${mnemonic}${suffix} Vx,Wx`, SSE, (c, d, s) => {
      const y = c.readVec(s, 'v128');
      const x = c.readVec(d, 'v128');
      const even = shuffle(c, evenLanes[w], x, y);
      const odd = shuffle(c, oddLanes[w], x, y);
      c.writeVec(d, 'v128', packedValue(c, w, slow, plain(op)(name), even, odd, true));
    });
  return [
    horizontal('0F 7C', 'hadd', addExact[w], 'add'),
    horizontal('0F 7D', 'hsub', subExact[w], 'sub'),
    insn(`${prefix} 0F D0`, `addsub${suffix} Vx,Wx`, SSE, (c, d, s) => {
      const y = c.readVec(s, 'v128');
      const fast: Binary = (_, p, q) => c.b.op(`${name}.add`, p, c.b.op('v128.xor', q, evenSigns[w](c)));
      c.writeVec(d, 'v128', packedValue(c, w, addSubExact[w], fast, c.readVec(d, 'v128'), y, true));
    }),
  ];
});

// -- dot products: products chosen by the high half of the immediate, the sum put where its low half says

const dotExact = forWidths((w) =>
  exact(`dot.${shapes[w].name}`, ['v128', 'v128', 'i32'], 'v128', (c, mode, x, y, imm) => {
    const b = c.b;
    const products = Array.from({ length: shapes[w].count }, (_, i) =>
      c.choose(
        'i64',
        b.and(imm, b.i32(0x10 << i)),
        () => c.call(soft.softMul[w], mode, laneBits(c, w, i, x), laneBits(c, w, i, y)),
        () => b.i64(0),
      ),
    );
    // The steps raise their exceptions one after the other. With NaNs the order counts, lane by lane: DPPS adds pairs with the neighbour first, everything else with its own part first.
    let sums = products;
    for (let distance = 1; distance < shapes[w].count; distance *= 2) {
      c.do(sseFinish);
      const swap = w === 32 && distance === 1;
      sums = sums.map((p, i) => {
        const other = sums[i ^ distance]!;
        return c.call(soft.softAdd[w], mode, swap ? other : p, swap ? p : other);
      });
    }
    const all = sums.reduce((v, sum, i) => withLane(c, w, i, v, sum), x);
    return b.op('v128.and', all, maskOf(c, w, imm));
  }),
);
const dotRows = widths.map((w) =>
  insn(`66 0F 3A ${w === 32 ? '40' : '41'}`, `dp${packedForm[w].suffix} Vx,Wx,Ib`, SSE, (c, d, s, i) => {
    const b = c.b;
    const { name } = shapes[w];
    const y = c.readVec(s, 'v128');
    const x = c.readVec(d, 'v128');
    const imm = c.imm(i);
    const fast = (): Value => {
      const chosen = b.op('v128.and', b.op(`${name}.mul`, x, y), maskOf(c, w, b.shru(imm, b.i32(4))));
      const swap = (v: Value, order: number[]): Value => shuffle(c, bytes(w / 8, order), v, v);
      if (w === 64) return b.op(`${name}.add`, chosen, swap(chosen, [1, 0]));
      const pairs = b.op(`${name}.add`, chosen, swap(chosen, [1, 0, 3, 2]));
      return b.op(`${name}.add`, pairs, swap(pairs, [2, 3, 0, 1]));
    };
    const r = guarded(c, 'v128', () => fast(), () => c.call(dotExact[w], x, y, imm), noNan(c, name)); // biome-ignore format: one call
    // The exact path has masked its result already; masking twice changes nothing.
    c.writeVec(d, 'v128', b.op('v128.and', r, maskOf(c, w, imm)));
  }),
);

// -- reciprocals: no exceptions, no rounding control, denormals are zeros; more precise than the 12 bits that are promised

function approximate(c: Emit, op: 'rcp' | 'rsqrt', x: Value): Value {
  const b = c.b;
  const sign = lanes32(c, 0x80000000);
  const flush = (v: Value): Value => {
    const small = b.op('f32x4.lt', b.op('f32x4.abs', v), lanes32(c, 0x00800000));
    return b.op('v128.bitselect', b.op('v128.and', v, sign), v, small);
  };
  const p = flush(x);
  const one = lanes32(c, 0x3f800000);
  const r = op === 'rcp' ? flush(b.op('f32x4.div', one, p)) : b.op('f32x4.div', one, b.op('f32x4.sqrt', p));
  // NaN operands come back quieted, invalid ones give the default NaN.
  const isNan = b.op('f32x4.ne', r, r);
  const wasNan = b.op('f32x4.ne', x, x);
  const quiet = b.op('v128.bitselect', b.op('v128.or', x, lanes32(c, 0x00400000)), lanes32(c, 0xffc00000), wasNan);
  return b.op('v128.bitselect', quiet, r, isNan);
}
const reciprocalRows = (['rsqrt', 'rcp'] as const).flatMap((op, i) => [
  insn(`NP 0F ${52 + i}`, `${op}ps Vx,Wx`, SSE, (c, d, s) => c.writeVec(d, 'v128', approximate(c, op, c.readVec(s, 'v128')))),
  insn(`F3 0F ${52 + i}`, `${op}ss Vx,Wd`, SSE, (c, d, s) => {
    const x = c.b.lane('i32x4.replace_lane', [0], zeroVec(c), c.readVec(s, 'i32'));
    c.writeVec(d, 'i32', c.b.lane('i32x4.extract_lane', [0], approximate(c, op, x)));
  }),
]);

// -- bitwise logic on floats is the same for both widths

const logicRows = ([['54', 'and', (c, x, y) => c.b.op('v128.and', x, y)], ['55', 'andn', (c, x, y) => c.b.op('v128.andnot', y, x)],
  ['56', 'or', (c, x, y) => c.b.op('v128.or', x, y)], ['57', 'xor', (c, x, y) => c.b.op('v128.xor', x, y)]] as [string, string, Binary][]).flatMap(
  ([code, name, f]) =>
    widths.map((w) =>
      insn(`${packedForm[w].prefix} 0F ${code}`, `${name}${packedForm[w].suffix} Vx,Wx`, SSE, (c, d, s) => {
        const y = c.readVec(s, 'v128');
        c.writeVec(d, 'v128', f(c, c.readVec(d, 'v128'), y));
      }),
    ),
); // biome-ignore format: a table

export const sseFloatRows: readonly Row[] = [
  ...arithmetic('0F 58', 'add', soft.softAdd, plain('add')),
  ...arithmetic('0F 59', 'mul', soft.softMul, plain('mul')),
  ...arithmetic('0F 5C', 'sub', soft.softSub, plain('sub')),
  ...arithmetic('0F 5D', 'min', soft.softMin, minMax('pmin', 'lt'), false),
  ...arithmetic('0F 5E', 'div', soft.softDiv, plain('div')),
  ...arithmetic('0F 5F', 'max', soft.softMax, minMax('pmax', 'gt'), false),
  ...sqrtRows,
  ...horizontalRows,
  ...dotRows,
  ...reciprocalRows,
  ...logicRows,
];
