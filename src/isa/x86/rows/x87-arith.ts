// x87 arithmetic, comparison and tests (Intel SDM volume 2: FADD to FXTRACT; volume 1, sections 8.3.5 and 8.3.6).

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit, Operand } from '../emit.ts';
import { clean, constant, indefinite, isMax, parts, Sw, statusOf } from '../float80.ts';
import * as f80 from '../float80-arith.ts';
import { fromDouble, fromInteger, fromSingle } from '../float80-convert.ts';
import { enter, plainControl, type Quick, quickAdd, quickMultiply, quickSubtract, raw } from '../float80-quick.ts';
import { insn, type Row } from '../row.ts';
import { fpCw, fpSw } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import {
  bothValid, finish, isFull, isValid, markValid, note, pop, proceeds, pushOver, readRaw, readSt, stackFault, wait, writeSt,
} from './x87-stack.ts'; // biome-ignore format: a list

const x87 = { fp: 'x87' } as const;
const STACK_FAULT = Sw.ie | Sw.sf;
const CONDITIONS = Sw.c0 | Sw.c1 | Sw.c2 | Sw.c3;

/** An operation on two stack registers, and on ST(0) and a converted memory operand; `reversed` swaps the operands. */
interface Binary {
  /** (destination, source, pops): destination = destination op source. */
  readonly registers: Sub;
  /** (operand): ST(0) = ST(0) op operand. */
  readonly memory: Sub;
}
function binary(name: string, operation: Sub, reversed: boolean, quick: Quick | null): Binary {
  const apply = (c: Emit, x: Value, y: Value): Value => (reversed ? c.call(operation, y, x) : c.call(operation, x, y));
  return {
    registers: sub(`x87.${name}`, ['i32', 'i32', 'i32'], null, {}, (c, to, from, pops) => {
      if (quick)
        c.b.if(c.b.and(bothValid(c, to, from), plainControl(c)), () => {
          const [x, y] = [readRaw(c, to), readRaw(c, from)];
          quick(c, reversed ? y : x, reversed ? x : y, (v, status) => {
            enter(c, status);
            writeSt(c, to, v);
            pop(c, pops);
            c.b.ret();
          });
        });
      const ok = bothValid(c, to, from);
      const v = c.choose('v128', ok, () => apply(c, readSt(c, to), readSt(c, from)), () => empty(c)); // biome-ignore format: one choice
      c.do(finish, to, v, pops);
    }),
    memory: sub(`x87.${name}.m`, ['v128'], null, {}, (c, y) => {
      const zero = c.b.i32(0);
      if (quick)
        c.b.if(c.b.and(isValid(c, zero), plainControl(c)), () => {
          const [p, q] = [readRaw(c, zero), raw(c, y)];
          quick(c, reversed ? q : p, reversed ? p : q, (v, status) => {
            enter(c, status);
            writeSt(c, zero, v);
            c.b.ret();
          });
        });
      const v = c.choose('v128', isValid(c, zero), () => apply(c, readSt(c, zero), y), () => empty(c)); // biome-ignore format: one choice
      c.do(finish, zero, v, zero);
    }),
  };
}
const empty = (c: Emit): Value => indefinite(c, STACK_FAULT);

/** Compares ST(0) with a value (`there`: it is not empty): sets the condition codes; gives 1 where the instruction may pop. */
const compareWith: Sub = sub('x87.compare', ['v128', 'i32', 'i32'], 'i32', {}, (c, y, there, quiet) => {
  const { b } = c;
  const ok = b.and(there, isValid(c, b.i32(0)));
  const unordered = Sw.c0 | Sw.c2 | Sw.c3;
  const r = c.choose('i32', ok, () => c.call(f80.compare, readSt(c, b.i32(0)), y, quiet), () => b.i32(unordered | STACK_FAULT)); // biome-ignore format: one choice
  const done = proceeds(c, b.and(r, b.i32(0x7f)));
  // The condition codes are set even where an unmasked exception keeps the instruction from popping.
  c.set(fpSw, b.or(b.and(c.get(fpSw), b.i32(~CONDITIONS)), b.and(r, b.i32(unordered))));
  b.ret(done);
});
const compareSt: Sub = sub('x87.compare.st', ['i32', 'i32', 'i32'], null, {}, (c, i, quiet, pops) => {
  const { b } = c;
  b.if(c.call(compareWith, readSt(c, i), isValid(c, i), quiet), () => {
    pop(c, b.geu(pops, b.i32(1)));
    pop(c, b.geu(pops, b.i32(2)));
  });
});
const compareMemory: Sub = sub('x87.compare.m', ['v128', 'i32'], null, {}, (c, y, pops) => {
  c.b.if(c.call(compareWith, y, c.b.i32(1), c.b.i32(0)), () => pop(c, pops));
});
/** FCOMI: gives the comparison as condition codes; pops. C1 changes with a stack fault only. */
const compareFlags: Sub = sub('x87.compare.flags', ['i32', 'i32', 'i32'], 'i32', {}, (c, i, quiet, pops) => {
  const { b } = c;
  const ok = b.and(isValid(c, i), isValid(c, b.i32(0)));
  const compared = (): Value => c.call(f80.compare, readSt(c, b.i32(0)), readSt(c, i), quiet);
  const c1 = b.select(ok, b.and(c.get(fpSw), b.i32(Sw.c1)), b.i32(0));
  const r = c.choose('i32', ok, compared, () => b.i32(Sw.c0 | Sw.c2 | Sw.c3 | STACK_FAULT));
  b.if(proceeds(c, b.and(r, b.i32(0x7f))), () => pop(c, pops));
  c.set(fpSw, b.or(c.get(fpSw), c1));
  b.ret(r);
});

/** ST(0) = operation(ST(0)); an empty register faults. */
function unary(name: string, operation: (c: Emit, x: Value) => Value): Sub {
  return sub(`x87.${name}`, [], null, {}, (c) => {
    const zero = c.b.i32(0);
    const v = c.choose('v128', isValid(c, zero), () => operation(c, readSt(c, zero)), () => empty(c)); // biome-ignore format: one choice
    c.do(finish, zero, v, zero);
  });
}
/** ST(0) = operation(ST(0), ST(1)). With `codes`, C2 is cleared before, and C0 and C3 too unless there is no result or a NaN. */
function withSt1(name: string, operation: (c: Emit, x: Value, y: Value) => Value, codes = false): Sub {
  return sub(`x87.${name}`, [], null, {}, (c) => {
    const { b } = c;
    const [zero, one] = [b.i32(0), b.i32(1)];
    const ok = b.and(isValid(c, zero), isValid(c, one));
    const v = c.choose('v128', ok, () => operation(c, readSt(c, zero), readSt(c, one)), () => empty(c)); // biome-ignore format: one choice
    if (codes) {
      const unmasked = b.and(b.and(statusOf(c, v), b.not(c.get(fpCw))), b.i32(Sw.de));
      const none = b.or(isMax(c, parts(c, v)), unmasked);
      const cleared = b.select(none, b.i32(Sw.c2), b.i32(Sw.c0 | Sw.c2 | Sw.c3));
      c.set(fpSw, b.and(c.get(fpSw), b.not(cleared)));
    }
    c.do(finish, zero, v, zero);
  });
}
const changeSign = unary('fchs', (c, x) => c.b.op('v128.xor', x, constant(c, 0x8000, 0n)));
const absolute = unary('fabs', (c, x) => c.b.op('v128.and', x, constant(c, 0x7fff, (1n << 64n) - 1n)));
const squareRoot = unary('fsqrt', (c, x) => c.call(f80.squareRoot, x));
const roundToInteger = unary('frndint', (c, x) => c.call(f80.roundToInteger, x));
const scale = withSt1('fscale', (c, x, y) => c.call(f80.scale, x, y));
const remainderTruncating = withSt1('fprem', (c, x, y) => c.call(f80.remainder, x, y, c.b.i32(0)), true);
const remainderNearest = withSt1('fprem1', (c, x, y) => c.call(f80.remainder, x, y, c.b.i32(1)), true);

const extract: Sub = sub('x87.fxtract', [], null, {}, (c) => {
  const { b } = c;
  const zero = b.i32(0);
  const missing = b.eqz(isValid(c, zero));
  const full = b.and(isFull(c), b.eqz(missing));
  b.if(b.or(missing, full), () => {
    b.if(stackFault(c, full), () => {
      writeSt(c, zero, indefinite(c, 0));
      markValid(c, zero);
      pushOver(c, indefinite(c, 0));
    });
    b.ret();
  });
  const x = readSt(c, zero);
  const exponent = c.call(f80.exponentOf, x);
  const significand = c.call(f80.significandOf, x);
  b.if(proceeds(c, statusOf(c, exponent)), () => {
    writeSt(c, zero, clean(c, exponent));
    pushOver(c, clean(c, significand));
  });
});

const examine: Sub = sub('x87.fxam', [], null, {}, (c) => {
  const { b } = c;
  const zero = b.i32(0);
  const p = parts(c, readSt(c, zero));
  const is = (cond: Value, code: number, otherwise: Value): Value => b.select(cond, b.i32(code), otherwise);
  const integerBit = b.lts(p.m, b.i64(0));
  const max = b.eq(p.e, b.i64(0x7fff));
  const top = b.select(b.eq(p.m, b.i64(1n << 63n)), b.i32(Sw.c0 | Sw.c2), b.i32(Sw.c0));
  const small = is(b.eqz(p.m), Sw.c3, b.i32(Sw.c3 | Sw.c2));
  const regular = b.select(integerBit, b.select(max, top, b.i32(Sw.c2)), b.i32(0));
  const code = b.select(isValid(c, zero), b.select(b.eqz(p.e), small, regular), b.i32(Sw.c3 | Sw.c0));
  const sign = b.wrap(b.shru(p.s, b.i64(6)));
  c.set(fpSw, b.or(b.and(c.get(fpSw), b.i32(~CONDITIONS)), b.or(code, sign)));
});

/** ST(0) with +0. */
const test: Sub = sub('x87.ftst', [], null, {}, (c) =>
  c.b.if(c.call(compareWith, constant(c, 0, 0n), c.b.i32(1), c.b.i32(0)), () => undefined),
);

/** ST(0) = ST(i) where `take` (i32) is 1; both registers must be there either way. C1 changes with a stack fault only. */
const conditionalMove: Sub = sub('x87.fcmov', ['i32', 'i32'], null, {}, (c, i, take) => {
  const { b } = c;
  const zero = b.i32(0);
  b.if(b.eqz(b.and(isValid(c, zero), isValid(c, i))), () => {
    c.do(finish, zero, empty(c), zero);
    b.ret();
  });
  b.if(take, () => writeSt(c, zero, readSt(c, i)));
});

/** A memory operand as a v128: single, double, 16- or 32-bit integer. */
function memory(c: InsnEmit, o: Operand, integer: boolean): Value {
  const size = o.bits as 16 | 32 | 64;
  const v = c.load(c.linear(o, size / 8, false), size);
  if (integer) return c.call(fromInteger, c.signed64(v, size));
  return size === 64 ? c.call(fromDouble, v) : c.call(fromSingle, c.b.extu(v));
}

const operations = {
  fadd: binary('fadd', f80.add, false, quickAdd),
  fmul: binary('fmul', f80.multiply, false, quickMultiply),
  fsub: binary('fsub', f80.subtract, false, quickSubtract),
  fsubr: binary('fsubr', f80.subtract, true, quickSubtract),
  fdiv: binary('fdiv', f80.quotient, false, null),
  fdivr: binary('fdivr', f80.quotient, true, null),
} as const;
type Name = keyof typeof operations;

/** `to` 0: ST(0) = ST(0) op ST(i); `to` 1: ST(i) = ST(i) op ST(0). */
function onRegisters(opcode: string, name: Name, to: 0 | 1, pops: 0 | 1): Row {
  return insn(opcode, `${name}${pops ? 'p' : ''} STi`, x87, (c, o) => {
    wait(c);
    note(c);
    const [i, zero] = [c.index(o), c.b.i32(0)];
    c.do(operations[name].registers, to ? i : zero, to ? zero : i, c.b.i32(pops));
  });
}
function onMemory(opcode: string, name: Name, code: 'Md' | 'Mq' | 'Mw', integer: boolean): Row {
  const text = integer ? name.replace('f', 'fi') : name;
  return insn(opcode, `${text} ${code}`, x87, (c, o) => {
    wait(c);
    const y = memory(c, o, integer);
    note(c, o);
    c.do(operations[name].memory, y);
  });
}
function compareRegister(opcode: string, name: string, quiet: 0 | 1, pops: 0 | 1): Row {
  return insn(opcode, `${name} STi`, x87, (c, o) => {
    wait(c);
    note(c);
    c.do(compareSt, c.index(o), c.b.i32(quiet), c.b.i32(pops));
  });
}
function compareTwoPops(opcode: string, name: string, quiet: 0 | 1): Row {
  return insn(opcode, name, x87, (c) => {
    wait(c);
    note(c);
    c.do(compareSt, c.b.i32(1), c.b.i32(quiet), c.b.i32(2));
  });
}
function compareOperand(opcode: string, name: string, code: 'Md' | 'Mq' | 'Mw', integer: boolean, pops: 0 | 1): Row {
  return insn(opcode, `${name} ${code}`, x87, (c, o) => {
    wait(c);
    const y = memory(c, o, integer);
    note(c, o);
    c.do(compareMemory, y, c.b.i32(pops));
  });
}
function compareToFlags(opcode: string, name: string, quiet: 0 | 1, pops: 0 | 1): Row {
  return insn(opcode, `${name} STi`, x87, (c, o) => {
    const { b } = c;
    wait(c);
    note(c);
    const r = c.call(compareFlags, c.index(o), b.i32(quiet), b.i32(pops));
    const bit = (n: number): Value => b.and(b.shru(r, b.i32(n)), b.i32(1));
    const image = b.or(b.or(bit(8), b.shl(bit(10), b.i32(2))), b.shl(bit(14), b.i32(6)));
    if (c.flagsLive) c.setArithmeticFlags(image);
  });
}
function plain(opcode: string, name: string, what: Sub): Row {
  return insn(opcode, name, x87, (c) => {
    wait(c);
    note(c);
    c.do(what);
  });
}
function move(opcode: string, name: string, condition: number): Row {
  return insn(opcode, `${name} STi`, x87, (c, o) => {
    wait(c);
    note(c);
    c.do(conditionalMove, c.index(o), c.cond(condition));
  });
}

const grid: readonly [number, Name, Name][] = [
  [0, 'fadd', 'fadd'],
  [1, 'fmul', 'fmul'],
  [4, 'fsub', 'fsubr'],
  [5, 'fsubr', 'fsub'],
  [6, 'fdiv', 'fdivr'],
  [7, 'fdivr', 'fdiv'],
];

/** Arithmetic and comparison. */
export const x87ArithRows: readonly Row[] = [
  ...grid.flatMap(([n, name, toSti]) => [
    onRegisters(`D8 /${n}r`, name, 0, 0),
    onMemory(`D8 /${n}m`, name, 'Md', false),
    onMemory(`DA /${n}m`, name, 'Md', true),
    onRegisters(`DC /${n}r`, toSti, 1, 0),
    onMemory(`DC /${n}m`, name, 'Mq', false),
    onRegisters(`DE /${n}r`, toSti, 1, 1),
    onMemory(`DE /${n}m`, name, 'Mw', true),
  ]),
  compareRegister('D8 /2r', 'fcom', 0, 0),
  compareRegister('D8 /3r', 'fcomp', 0, 1),
  compareRegister('DD /4r', 'fucom', 1, 0),
  compareRegister('DD /5r', 'fucomp', 1, 1),
  // Aliases that Intel's processors execute and its manual leaves out.
  compareRegister('DC /2r', 'fcom', 0, 0),
  compareRegister('DC /3r', 'fcomp', 0, 1),
  compareRegister('DE /2r', 'fcomp', 0, 1),
  compareTwoPops('DE D9', 'fcompp', 0),
  compareTwoPops('DA E9', 'fucompp', 1),
  compareOperand('D8 /2m', 'fcom', 'Md', false, 0),
  compareOperand('D8 /3m', 'fcomp', 'Md', false, 1),
  compareOperand('DC /2m', 'fcom', 'Mq', false, 0),
  compareOperand('DC /3m', 'fcomp', 'Mq', false, 1),
  compareOperand('DA /2m', 'ficom', 'Md', true, 0),
  compareOperand('DA /3m', 'ficomp', 'Md', true, 1),
  compareOperand('DE /2m', 'ficom', 'Mw', true, 0),
  compareOperand('DE /3m', 'ficomp', 'Mw', true, 1),
  compareToFlags('DB /6r', 'fcomi', 0, 0),
  compareToFlags('DF /6r', 'fcomip', 0, 1),
  compareToFlags('DB /5r', 'fucomi', 1, 0),
  compareToFlags('DF /5r', 'fucomip', 1, 1),
  move('DA /0r', 'fcmovb', 2),
  move('DA /1r', 'fcmove', 4),
  move('DA /2r', 'fcmovbe', 6),
  move('DA /3r', 'fcmovu', 10),
  move('DB /0r', 'fcmovnb', 3),
  move('DB /1r', 'fcmovne', 5),
  move('DB /2r', 'fcmovnbe', 7),
  move('DB /3r', 'fcmovnu', 11),
  plain('D9 E0', 'fchs', changeSign),
  plain('D9 E1', 'fabs', absolute),
  plain('D9 E4', 'ftst', test),
  plain('D9 E5', 'fxam', examine),
  plain('D9 F4', 'fxtract', extract),
  plain('D9 F5', 'fprem1', remainderNearest),
  plain('D9 F8', 'fprem', remainderTruncating),
  plain('D9 FA', 'fsqrt', squareRoot),
  plain('D9 FC', 'frndint', roundToInteger),
  plain('D9 FD', 'fscale', scale),
];
