// Bit manipulation: BMI1 and BMI2 (Intel SDM volume 2: ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, MULX, PDEP, PEXT, RORX, SARX, SHLX, SHRX).

import type { Value } from '../../../ir/ir.ts';
import { type InsnEmit, type Operand, type Size, typeOf } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { fN, R } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import { mulHighUnsigned } from '../wide.ts';

/** ZF and SF from the result, CF as given; OF is cleared, and PF and AF, which are undefined, as Intel's processors have them. */
function flags(c: InsnEmit, size: Size, r: Value, carry: Value): void {
  c.setZNP(size, r);
  // One bit set in the low byte: PF is clear.
  if (c.flagsLive) c.set(fN, c.b.or(c.b.and(c.signed64(r, size), c.b.i64(~0xff)), c.b.i64(1)));
  c.setC(carry);
  c.setO(c.b.i32(0));
  c.setA(c.b.i32(0));
}
const sizeOf = (o: Operand): Size => o.bits as Size;
const zero = (c: InsnEmit, size: Size): Value => c.b.int(typeOf(size), 0);

const andn = (c: InsnEmit, d: Operand, n: Operand, s: Operand): void => {
  const y = c.read(s);
  const r = c.b.and(c.b.not(c.read(n)), y);
  c.write(d, r);
  flags(c, sizeOf(d), r, c.b.i32(0));
};
/** The lowest bit alone, the mask up to it, all but it. `carry` tells whether CF is set for a source of zero or for any other. */
const lowest =
  (f: (c: InsnEmit, x: Value, less: Value) => Value, carry: 'zero' | 'other') =>
  (c: InsnEmit, d: Operand, s: Operand): void => {
    const b = c.b;
    const x = c.read(s);
    const r = f(c, x, b.sub(x, b.int(x.type, 1)));
    c.write(d, r);
    const none = b.eqz(x);
    flags(c, sizeOf(d), r, carry === 'zero' ? none : b.eqz(none));
  };
/** Bits `start` to `start + length - 1`, from bits 0–7 and 8–15 of the control. */
const bextr = (c: InsnEmit, d: Operand, s: Operand, n: Operand): void => {
  const b = c.b;
  const size = sizeOf(d);
  const x = c.read(s);
  const control = c.read(n);
  const byte = (at: number): Value => b.and(b.shru(control, b.int(control.type, at)), b.int(control.type, 0xff));
  const [start, length] = [byte(0), byte(8)];
  const moved = b.select(b.ltu(start, b.int(x.type, size)), b.shru(x, start), zero(c, size));
  const mask = b.sub(b.shl(b.int(x.type, 1), length), b.int(x.type, 1));
  const r = b.select(b.ltu(length, b.int(x.type, size)), b.and(moved, mask), moved);
  c.write(d, r);
  flags(c, size, r, b.i32(0));
  // SF is undefined, and clear.
  if (c.flagsLive) c.set(fN, b.i64(1));
};
const bzhi = (c: InsnEmit, d: Operand, s: Operand, n: Operand): void => {
  const b = c.b;
  const size = sizeOf(d);
  const x = c.read(s);
  const index = b.and(c.read(n), b.int(x.type, 0xff));
  const inside = b.ltu(index, b.int(x.type, size));
  const mask = b.sub(b.shl(b.int(x.type, 1), index), b.int(x.type, 1));
  const r = b.select(inside, b.and(x, mask), x);
  c.write(d, r);
  flags(c, size, r, b.eqz(inside));
};
const mulx = (c: InsnEmit, high: Operand, low: Operand, s: Operand): void => {
  const b = c.b;
  const size = sizeOf(high);
  const y = c.read(s);
  const x = c.reg(R.rdx, size);
  if (size === 64) {
    const h = mulHighUnsigned(c, x, y);
    // Where both name one register, it gets the upper half.
    c.write(low, b.mul(x, y));
    c.write(high, h);
  } else {
    const product = b.mul(b.extu(x), b.extu(y));
    c.write(low, b.wrap(product));
    c.write(high, b.wrap(b.shru(product, b.i64(32))));
  }
};
/** (source, mask): bits of the source, lowest first, to where the mask has ones. */
const deposit: Sub = sub('bmi.pdep', ['i64', 'i64'], 'i64', {}, (c, source, mask) => {
  const b = c.b;
  const rest = b.variable(mask);
  const bits = b.variable(source);
  const result = b.variable(b.i64(0));
  b.loop((again) => {
    const m = b.getVar(rest);
    b.if(b.ne(m, b.i64(0)), () => {
      const low = b.and(m, b.neg(m));
      const bit = b.neg(b.and(b.getVar(bits), b.i64(1)));
      b.setVar(result, b.or(b.getVar(result), b.and(low, bit)));
      b.setVar(bits, b.shru(b.getVar(bits), b.i64(1)));
      b.setVar(rest, b.xor(m, low));
      b.br(again);
    });
  });
  b.ret(b.getVar(result));
});
/** (source, mask): the bits of the source where the mask has ones, side by side. */
const extract: Sub = sub('bmi.pext', ['i64', 'i64'], 'i64', {}, (c, source, mask) => {
  const b = c.b;
  const rest = b.variable(mask);
  const place = b.variable(b.i64(0));
  const result = b.variable(b.i64(0));
  b.loop((again) => {
    const m = b.getVar(rest);
    b.if(b.ne(m, b.i64(0)), () => {
      const low = b.and(m, b.neg(m));
      const bit = b.extu(b.ne(b.and(source, low), b.i64(0)));
      const at = b.getVar(place);
      b.setVar(result, b.or(b.getVar(result), b.shl(bit, at)));
      b.setVar(place, b.add(at, b.i64(1)));
      b.setVar(rest, b.xor(m, low));
      b.br(again);
    });
  });
  b.ret(b.getVar(result));
});
const spread =
  (target: Sub) =>
  (c: InsnEmit, d: Operand, n: Operand, s: Operand): void => {
    const b = c.b;
    const wide = (v: Value): Value => (v.type === 'i64' ? v : b.extu(v));
    const mask = wide(c.read(s));
    c.write(d, b.fit(typeOf(sizeOf(d)) as 'i32' | 'i64', c.call(target, wide(c.read(n)), mask)));
  };
const shiftBy =
  (op: 'shl' | 'shrs' | 'shru') =>
  (c: InsnEmit, d: Operand, s: Operand, n: Operand): void => {
    const x = c.read(s);
    // WebAssembly cuts counts as these instructions do.
    c.write(d, c.b[op](x, c.read(n)));
  };
const rorx = (c: InsnEmit, d: Operand, s: Operand, i: Operand): void => {
  const b = c.b;
  const x = c.read(s);
  const count = b.and(c.imm(i), b.i32(sizeOf(d) - 1));
  c.write(d, b.op(`${x.type}.rotr`, x, x.type === 'i64' ? b.extu(count) : count));
};

export const bmiRows: readonly Row[] = [
  insn('VEX.128.NP.0F38 F2', 'andn Gy,By,Ey', andn),
  insn('VEX.128.NP.0F38 F3 /1', 'blsr By,Ey', lowest((c, x, less) => c.b.and(x, less), 'zero')), // biome-ignore format: one line each
  insn('VEX.128.NP.0F38 F3 /2', 'blsmsk By,Ey', lowest((c, x, less) => c.b.xor(x, less), 'zero')), // biome-ignore format: one line each
  insn('VEX.128.NP.0F38 F3 /3', 'blsi By,Ey', lowest((c, x) => c.b.and(x, c.b.neg(x)), 'other')), // biome-ignore format: one line each
  insn('VEX.128.NP.0F38 F7', 'bextr Gy,Ey,By', bextr),
  insn('VEX.128.NP.0F38 F5', 'bzhi Gy,Ey,By', bzhi),
  insn('VEX.128.F2.0F38 F6', 'mulx Gy,By,Ey', mulx),
  insn('VEX.128.F2.0F38 F5', 'pdep Gy,By,Ey', spread(deposit)),
  insn('VEX.128.F3.0F38 F5', 'pext Gy,By,Ey', spread(extract)),
  insn('VEX.128.66.0F38 F7', 'shlx Gy,Ey,By', shiftBy('shl')),
  insn('VEX.128.F3.0F38 F7', 'sarx Gy,Ey,By', shiftBy('shrs')),
  insn('VEX.128.F2.0F38 F7', 'shrx Gy,Ey,By', shiftBy('shru')),
  insn('VEX.128.F2.0F3A F0', 'rorx Gy,Ey,Ib', rorx),
];
