// SSE comparisons into masks and flags, and rounding to integral values (Intel SDM volume 2: CMPxx, COMISx, UCOMISx, ROUNDxx).
// Fast and exact paths: see sse-math.ts.

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { softCompare } from '../softfloat.ts';
import { softRound } from '../softfloat-convert.ts';
import { Order, type Width } from '../softfloat-core.ts';
import { fA, fC, fN, fO, fZ } from '../state.ts';
import { choice, SSE } from './sse.ts';
import {
  bitsOf,
  type Exact,
  exact,
  floatOf,
  forWidths,
  guarded,
  isFast,
  laneBits,
  noNan,
  packedForm,
  scalarForm,
  shapes,
  widths,
  withLane,
} from './sse-math.ts';

// -- comparisons

/** Predicates 0–3 of CMPxx as sets of `Order`; 4–7 are their complements. */
const predicates = [Order.equal, Order.less, Order.less | Order.equal, Order.unordered];
/** Whether predicate `p` (i32, 0–7) holds for an `Order`: 0 or 1. LT and LE, and their complements, are invalid for quiet NaNs. */
function compareLane(c: Emit, w: Width, mode: Value, x: Value, y: Value, p: Value): Value {
  const b = c.b;
  const kind = b.and(p, b.i32(3));
  const signal = b.ltu(b.sub(kind, b.i32(1)), b.i32(2));
  const found = c.call(softCompare[w], mode, x, y, signal);
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
  exact(`comis.f${w}`, ['i64', 'i64', 'i32'], 'i32', (c, mode, x, y, signal) => c.call(softCompare[w], mode, x, y, signal)),
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
  return c.call(softRound[w], mode, rc, b.and(b.shru(imm, b.i32(3)), b.i32(1)), x);
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

export const sseCompareRows: readonly Row[] = [...cmpRows, ...comisRows, ...roundRows];
