// SSE floating-point arithmetic: ADD to SQRT, MIN and MAX, horizontal forms, dot products, comparisons, rounding, reciprocals
// (Intel SDM volume 2; volume 1, chapters 10 to 12). Fast and exact paths: see sse.ts.

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import * as soft from '../softfloat.ts';
import { Order, type Width } from '../softfloat.ts';
import { fA, fC, fN, fO, fZ } from '../state.ts';
import type { Sub } from '../sub.ts';
import {
  type Binary, bitsOf, bytes, choice, exact, floatOf, guarded, isFast, laneBits, lanes32, maskOf, noNan, SSE, shapes, shuffle, sseFinish, swapped, withLane, zeroVec,
} from './sse.ts'; // biome-ignore format: one list

type ByWidth<T> = Readonly<Record<Width, T>>;
const widths: readonly Width[] = [32, 64];
const forWidths = <T>(make: (w: Width) => T): ByWidth<T> => ({ 32: make(32), 64: make(64) });

/** Mandatory prefix, suffix of the mnemonic and operands of the four forms of one instruction. */
const packedForm: ByWidth<{ prefix: string; suffix: string }> = {
  32: { prefix: 'NP', suffix: 'ps' },
  64: { prefix: '66', suffix: 'pd' },
};
const scalarForm: ByWidth<{ prefix: string; suffix: string; source: string }> = {
  32: { prefix: 'F3', suffix: 'ss', source: 'Wd' },
  64: { prefix: 'F2', suffix: 'sd', source: 'Wq' },
};

// -- operations of two operands

interface Exact {
  readonly scalar: ByWidth<Sub>;
  readonly packed: ByWidth<Sub>;
}
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

// -- comparisons

/** Predicates 0–3 of CMPxx as sets of `Order`; 4–7 are their complements. */
const predicates = [Order.equal, Order.less, Order.less | Order.equal, Order.unordered];
/** Whether predicate `p` (i32, 0–7) holds for an `Order`: 0 or 1. LT and LE, and their complements, are invalid for quiet NaNs. */
function compareLane(c: Emit, w: Width, mode: Value, x: Value, y: Value, p: Value): Value {
  const b = c.b;
  const kind = b.and(p, b.i32(3));
  const signal = b.ltu(b.sub(kind, b.i32(1)), b.i32(2));
  const found = c.call(soft.softCompare[w], mode, x, y, signal);
  const packed = predicates.reduce((v, set, i) => v | (set << (4 * i)), 0);
  const accepted = b.and(b.shru(b.i32(packed), b.shl(kind, b.i32(2))), b.i32(15));
  const holds = b.ne(b.and(found, accepted), b.i32(0));
  return b.xor(holds, b.and(b.shru(p, b.i32(2)), b.i32(1)));
}
const cmpExact: Exact = {
  scalar: forWidths((w) =>
    exact(`cmp.f${w}`, ['i64', 'i64', 'i32'], 'i64', (c, mode, x, y, p) => c.b.neg(c.b.extu(compareLane(c, w, mode, x, y, p)))),
  ),
  packed: forWidths((w) =>
    exact(`cmp.${shapes[w].name}`, ['v128', 'v128', 'i32'], 'v128', (c, mode, x, y, p) => {
      let r = x;
      for (let i = 0; i < shapes[w].count; i++) {
        r = withLane(c, w, i, r, c.b.neg(c.b.extu(compareLane(c, w, mode, laneBits(c, w, i, x), laneBits(c, w, i, y), p))));
      }
      return r;
    }),
  ),
};
const cmpRows = widths.flatMap((w) => {
  const { name, type } = shapes[w];
  const { prefix, suffix } = packedForm[w];
  const compare = (
    c: InsnEmit,
    shape: string,
    x: Value,
    y: Value,
    imm: Value,
    unordered: (p: Value, q: Value) => Value,
  ): Value => {
    const one = (op: string) => (): Value => c.b.op(`${shape}.${op}`, x, y);
    const nan = (): Value => unordered(c.b.op(`${shape}.ne`, x, x), c.b.op(`${shape}.ne`, y, y));
    return choice(c, shape === name ? 'v128' : 'i32', c.b.and(imm, c.b.i32(3)), [one('eq'), one('lt'), one('le'), nan]);
  };
  return [
    insn(`${prefix} 0F C2`, `cmp${suffix} Vx,Wx,Ib`, SSE, (c, d, s, i) => {
      const b = c.b;
      const y = c.readVec(s, 'v128');
      const x = c.readVec(d, 'v128');
      const p = c.b.and(c.imm(i), b.i32(7));
      const fast = (): Value => {
        const holds = compare(c, name, x, y, p, (u, v) => b.op('v128.or', u, v));
        const invert = b.and(p, b.i32(4));
        if (invert.kind === 'const') return invert.value ? b.op('v128.not', holds) : holds;
        return b.op('v128.xor', holds, b.op('i32x4.splat', b.neg(b.shru(invert, b.i32(2)))));
      };
      c.writeVec(
        d,
        'v128',
        guarded(c, 'v128', fast, () => c.call(cmpExact.packed[w], x, y, p)),
      );
    }),
    insn(`${scalarForm[w].prefix} 0F C2`, `cmp${scalarForm[w].suffix} Vx,${scalarForm[w].source},Ib`, SSE, (c, d, s, i) => {
      const b = c.b;
      const y = c.readVec(s, type);
      const x = c.readVec(d, type);
      const p = b.and(c.imm(i), b.i32(7));
      const fast = (): Value => {
        const holds = compare(c, type, x, y, p, (u, v) => b.or(u, v));
        return b.neg(b.fit(w === 64 ? 'i64' : 'i32', b.xor(holds, b.shru(p, b.i32(2)))));
      };
      const slow = (): Value => b.fit(w === 64 ? 'i64' : 'i32', c.call(cmpExact.scalar[w], bitsOf(c, x), bitsOf(c, y), p));
      const result = w === 64 ? 'i64' : 'i32';
      c.writeVec(d, result, guarded(c, result, fast, slow));
    }),
  ];
});

/** (a, b, signal): the flags of COMISx and UCOMISx by the exact path. */
const comisExact = forWidths((w) =>
  exact(`comis.f${w}`, ['i64', 'i64', 'i32'], 'i32', (c, mode, x, y, signal) => c.call(soft.softCompare[w], mode, x, y, signal)),
);
/** ZF, PF, CF: unordered 111, greater 000, less 001, equal 100; OF, SF and AF are cleared. */
function comis(w: Width, signal: 0 | 1) {
  return (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const { type } = shapes[w];
    const y = c.readVec(s, type);
    const x = c.readVec(d, type);
    const [differs, below, ordered] = [b.variable(b.i32(0)), b.variable(b.i32(0)), b.variable(b.i32(0))];
    b.if(
      isFast(c),
      () => {
        const less = b.op(`${type}.lt`, x, y);
        const notLess = b.op(`${type}.ge`, x, y);
        b.setVar(differs, b.or(less, b.op(`${type}.gt`, x, y)));
        b.setVar(below, b.eqz(notLess));
        b.setVar(ordered, b.or(less, notLess));
      },
      () => {
        const found = c.call(comisExact[w], bitsOf(c, x), bitsOf(c, y), b.i32(signal));
        const is = (set: number): Value => b.ne(b.and(found, b.i32(set)), b.i32(0));
        b.setVar(differs, is(Order.less | Order.greater));
        b.setVar(below, is(Order.less | Order.unordered));
        b.setVar(ordered, is(Order.less | Order.equal | Order.greater));
      },
    );
    if (!c.flagsLive) return;
    // PF is even parity of fN's low byte: 0 for unordered, 1 for the rest.
    c.set(fZ, b.extu(b.getVar(differs)));
    c.set(fN, b.extu(b.getVar(ordered)));
    c.set(fC, b.getVar(below));
    c.set(fO, b.i32(0));
    c.set(fA, b.i32(0));
  };
}
const comisRows = [
  insn('NP 0F 2E', 'ucomiss Vx,Wd', SSE, comis(32, 0)),
  insn('66 0F 2E', 'ucomisd Vx,Wq', SSE, comis(64, 0)),
  insn('NP 0F 2F', 'comiss Vx,Wd', SSE, comis(32, 1)),
  insn('66 0F 2F', 'comisd Vx,Wq', SSE, comis(64, 1)),
];

// -- ROUNDxx

/** Rounding control by the immediate: bits 0–1, or that of MXCSR where bit 2 is set; bit 3 suppresses PE. */
const roundLane = (c: Emit, w: Width, mode: Value, x: Value, imm: Value): Value => {
  const b = c.b;
  const fromMode = b.and(b.shru(mode, b.i32(13)), b.i32(3));
  const rc = b.select(b.and(imm, b.i32(4)), fromMode, b.and(imm, b.i32(3)));
  return c.call(soft.softRound[w], mode, rc, b.and(b.shru(imm, b.i32(3)), b.i32(1)), x);
};
const roundExact: Exact = {
  scalar: forWidths((w) => exact(`round.f${w}`, ['i64', 'i32'], 'i64', (c, mode, x, imm) => roundLane(c, w, mode, x, imm))),
  packed: forWidths((w) =>
    exact(`round.${shapes[w].name}`, ['v128', 'i32'], 'v128', (c, mode, x, imm) => {
      let r = x;
      for (let i = 0; i < shapes[w].count; i++) r = withLane(c, w, i, r, roundLane(c, w, mode, laneBits(c, w, i, x), imm));
      return r;
    }),
  ),
};
/** The rounding of the immediate, under an MXCSR that rounds to nearest. */
function roundFast(c: Emit, shape: string, x: Value, imm: Value): Value {
  const b = c.b;
  const by = (op: string) => (): Value => b.op(`${shape}.${op}`, x);
  const rc = b.select(b.and(imm, b.i32(4)), b.i32(0), b.and(imm, b.i32(3)));
  return choice(c, shape.includes('x') ? 'v128' : (shape as 'f32'), rc, [by('nearest'), by('floor'), by('ceil'), by('trunc')]);
}
const roundRows = widths.flatMap((w) => [
  insn(`66 0F 3A ${w === 32 ? '08' : '09'}`, `round${packedForm[w].suffix} Vx,Wx,Ib`, SSE, (c, d, s, i) => {
    const { name } = shapes[w];
    const x = c.readVec(s, 'v128');
    const imm = c.imm(i);
    const slow = (): Value => c.call(roundExact.packed[w], x, imm);
    c.writeVec(
      d,
      'v128',
      guarded(c, 'v128', () => roundFast(c, name, x, imm), slow, noNan(c, name)),
    );
  }),
  insn(`66 0F 3A ${w === 32 ? '0A' : '0B'}`, `round${scalarForm[w].suffix} Vx,${scalarForm[w].source},Ib`, SSE, (c, d, s, i) => {
    const { type } = shapes[w];
    const x = c.readVec(s, type);
    const imm = c.imm(i);
    const slow = (): Value => floatOf(c, w, c.call(roundExact.scalar[w], bitsOf(c, x), imm));
    c.writeVec(
      d,
      type,
      guarded(c, type, () => roundFast(c, type, x, imm), slow, noNan(c, type)),
    );
  }),
]);

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
  ...cmpRows,
  ...comisRows,
  ...roundRows,
  ...reciprocalRows,
  ...logicRows,
];
