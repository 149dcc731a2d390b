// x87 loads, stores, constants and register moves (Intel SDM volume 2: FLD to FXCH; volume 1, sections 8.3.3 and 8.3.4).

import type { Value } from '../../../ir/ir.ts';
import type { Emit } from '../emit.ts';
import {
  clean,
  constant,
  indefinite,
  isMax,
  lane1,
  mant,
  pair,
  parts,
  round as roundExtended,
  roundingControl,
  Sw,
  statusOf,
} from '../float80.ts';
import * as convert from '../float80-convert.ts';
import { insn, type Row } from '../row.ts';
import { fpCw, fpSw, fpTop, fpValid } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import {
  except,
  finish,
  isValid,
  markValid,
  note,
  operand,
  physical,
  pop,
  proceeds,
  push,
  readSt,
  settle,
  wait,
  writeSt,
} from './x87-stack.ts';

const x87 = { fp: 'x87' } as const;
const STACK_FAULT = Sw.ie | Sw.sf;

// -- loads

function load(opcode: string, asm: string, toValue: (c: Emit, v: Value) => Value): Row {
  return insn(opcode, asm, x87, (c, o) => {
    wait(c);
    const size = o.bits as 16 | 32 | 64;
    const v = c.load(c.linear(o, size / 8, false), size);
    note(c, o);
    c.do(push, toValue(c, c.signed64(v, size)));
  });
}
const loadInteger = (opcode: string, code: string): Row => load(opcode, `fild ${code}`, (c, v) => c.call(convert.fromInteger, v));
/** From a single or double; only what has the exponent of a NaN is looked at for one. */
function loaded(name: string, from: Sub): Sub {
  return sub(name, ['i64'], 'v128', {}, (c, v) => {
    const x = c.call(from, v);
    c.b.if(isMax(c, parts(c, x)), () => c.b.ret(c.call(convert.quieted, x)));
    c.b.ret(x);
  });
}
const pushSingle = loaded('x87.fld.f32', convert.fromSingle);
const pushDouble = loaded('x87.fld.f64', convert.fromDouble);
/** Ten bytes of memory: the low 8 and the high 2, zero-extended. */
function loadTen(opcode: string, asm: string, toValue: (c: Emit, low: Value, high: Value) => Value): Row {
  return insn(opcode, asm, x87, (c, o) => {
    const { b } = c;
    wait(c);
    const addr = c.linear(o, 10, false);
    const low = c.load(addr, 64);
    const high = b.load('i64.16u', b.add(addr, b.i64(8)));
    note(c, o);
    c.do(push, toValue(c, low, high));
  });
}
function loadConstant(opcode: string, name: string, signExponent: number, exact: bigint): Row {
  return insn(opcode, name, x87, (c) => {
    wait(c);
    note(c);
    c.do(push, c.call(rounded, c.b.i64(exact >> 64n), c.b.i64(exact), c.b.i64(signExponent)));
  });
}
/** A constant of 128 bits rounded to 64 by the rounding control, without status bits. */
const rounded: Sub = sub('x87.constant', ['i64', 'i64', 'i64'], 'v128', {}, (c, high, low, signExponent) => {
  const value = c.call(roundExtended, c.b.i64(0), signExponent, high, low, c.b.i32(3));
  c.b.ret(clean(c, value));
});

const pushRegister: Sub = sub('x87.fld.st', ['i32'], null, {}, (c, i) => c.do(push, c.call(operand, i)));

// -- stores

/**
 * A converted ST(0) (value in lane 0, status in lane 1) on its way to memory: gives 1 where it is to be stored. An unmasked overflow or
 * underflow stores nothing either; an unmasked PE does.
 */
function stores(c: Emit, converted: Value): Value {
  const { b } = c;
  return b.eqz(b.and(b.and(statusOf(c, converted), b.not(c.get(fpCw))), b.i32(0x1f)));
}
/** Stores ST(0) at the linear address (i64), converted, and pops (i32). Memory faults come before any change of state. */
function storeSub(name: string, bits: 16 | 32 | 64, indefiniteBits: bigint, convertSt: (c: Emit, x: Value) => Value): Sub {
  return sub(`x87.${name}`, ['i64', 'i32'], null, { faults: true }, (c, addr, pops) => {
    const { b } = c;
    const zero = b.i32(0);
    const empty = (): Value => pair(c, b.i64(indefiniteBits), b.i64(BigInt(STACK_FAULT) << 32n));
    const v = c.choose('v128', isValid(c, zero), () => convertSt(c, readSt(c, zero)), empty);
    b.if(
      stores(c, v),
      () => {
        c.store(addr, bits, bits === 64 ? mant(c, v) : b.wrap(mant(c, v)));
        settle(c, statusOf(c, v));
        pop(c, pops);
      },
      () => b.do(except, statusOf(c, v)),
    );
  });
}
const integerAs = (bits: 16 | 32 | 64, truncate: boolean) => (c: Emit, x: Value): Value =>
  c.call(convert.toInteger, x, truncate ? c.b.i32(3) : roundingControl(c), c.b.i64(bits)); // biome-ignore format: one function
const integerStore = (bits: 16 | 32 | 64, truncate: boolean): Sub =>
  storeSub(truncate ? `fisttp.${bits}` : `fist.${bits}`, bits, -1n << BigInt(bits - 1), integerAs(bits, truncate));
const subs = {
  f32: storeSub('fst.f32', 32, 0xffc00000n, (c, x) => c.call(convert.toSingle, x)),
  f64: storeSub('fst.f64', 64, 0xfff8n << 48n, (c, x) => c.call(convert.toDouble, x)),
  i16: integerStore(16, false),
  i32: integerStore(32, false),
  i64: integerStore(64, false),
  t16: integerStore(16, true),
  t32: integerStore(32, true),
  t64: integerStore(64, true),
} as const;

function store(opcode: string, asm: string, what: Sub, pops: 0 | 1): Row {
  return insn(opcode, asm, x87, (c, o) => {
    wait(c);
    const addr = c.linear(o, o.bits / 8, true);
    c.do(what, addr, c.b.i32(pops));
    note(c, o);
  });
}

/** Stores ten bytes and pops. The last bytes are probed first, so that a fault leaves memory as it was. */
function storeTenSub(name: string, convertSt: (c: Emit, x: Value) => Value, empty: (c: Emit) => Value): Sub {
  return sub(`x87.${name}`, ['i64'], null, { faults: true }, (c, addr) => {
    const { b } = c;
    const zero = b.i32(0);
    const v = c.choose('v128', isValid(c, zero), () => convertSt(c, readSt(c, zero)), () => empty(c)); // biome-ignore format: one choice
    b.if(
      stores(c, v),
      () => {
        const last = b.add(addr, b.i64(8));
        c.load(last, 16, { forWrite: true });
        c.store(addr, 64, mant(c, v));
        b.store('i64.16u', last, lane1(c, v));
        settle(c, statusOf(c, v));
        pop(c, b.i32(1));
      },
      () => b.do(except, statusOf(c, v)),
    );
  });
}
const storeExtended = storeTenSub('fst.f80', (_, x) => x, (c) => indefinite(c, STACK_FAULT)); // biome-ignore format: one call
const storeBcd = storeTenSub(
  'fbstp',
  (c, x) => c.call(convert.toBcd, x),
  (c) => constant(c, 0xffff, 3n << 62n, STACK_FAULT),
);
function storeTen(opcode: string, asm: string, what: Sub): Row {
  return insn(opcode, asm, x87, (c, o) => {
    wait(c);
    c.do(what, c.linear(o, 10, true));
    note(c, o);
  });
}

const copy: Sub = sub('x87.fst.st', ['i32', 'i32'], null, {}, (c, to, pops) =>
  c.do(finish, to, c.call(operand, c.b.i32(0)), pops),
);
/** The alias D9 /3 of FSTP: an empty ST(0) is popped without a stack fault. */
const copyUnchecked: Sub = sub('x87.fstp1', ['i32'], null, {}, (c, to) => {
  const { b } = c;
  c.set(fpSw, b.and(c.get(fpSw), b.i32(~Sw.c1)));
  b.if(isValid(c, b.i32(0)), () => {
    writeSt(c, to, readSt(c, b.i32(0)));
    markValid(c, to);
  });
  pop(c, b.i32(1));
});
function storeRegister(opcode: string, name: string, pops: 0 | 1): Row {
  return insn(opcode, `${name} STi`, x87, (c, o) => {
    wait(c);
    note(c);
    c.do(copy, c.index(o), c.b.i32(pops));
  });
}

// -- the stack itself

const exchange: Sub = sub('x87.fxch', ['i32'], null, {}, (c, i) => {
  const { b } = c;
  const zero = b.i32(0);
  const [x, y] = [c.call(operand, zero), c.call(operand, i)];
  const status = b.or(statusOf(c, x), statusOf(c, y));
  b.if(proceeds(c, status), () => {
    writeSt(c, zero, clean(c, y));
    markValid(c, zero);
    writeSt(c, i, clean(c, x));
    markValid(c, i);
  });
});
function exchangeRow(opcode: string): Row {
  return insn(opcode, 'fxch STi', x87, (c, o) => {
    wait(c);
    note(c);
    c.do(exchange, c.index(o));
  });
}
function free(opcode: string, name: string, pops: 0 | 1): Row {
  return insn(opcode, `${name} STi`, x87, (c, o) => {
    const { b } = c;
    wait(c);
    note(c);
    c.set(fpValid, b.and(c.get(fpValid), b.not(b.shl(b.i32(1), physical(c, c.index(o))))));
    c.set(fpSw, b.and(c.get(fpSw), b.i32(~Sw.c1)));
    if (pops) pop(c, b.i32(1));
  });
}
function turn(opcode: string, name: string, by: 1 | 7): Row {
  return insn(opcode, name, x87, (c) => {
    const { b } = c;
    wait(c);
    note(c);
    c.set(fpTop, physical(c, b.i32(by)));
    c.set(fpSw, b.and(c.get(fpSw), b.i32(~Sw.c1)));
  });
}

/** Loads, stores and stack moves. */
export const x87MoveRows: readonly Row[] = [
  load('D9 /0m', 'fld Md', (c, v) => c.call(pushSingle, v)),
  load('DD /0m', 'fld Mq', (c, v) => c.call(pushDouble, v)),
  loadTen('DB /5m', 'fld M', pair),
  loadTen('DF /4m', 'fbld M', (c, low, high) => c.call(convert.fromBcd, low, high)),
  loadInteger('DF /0m', 'Mw'),
  loadInteger('DB /0m', 'Md'),
  loadInteger('DF /5m', 'Mq'),
  insn('D9 /0r', 'fld STi', x87, (c, o) => {
    wait(c);
    note(c);
    c.do(pushRegister, c.index(o));
  }),
  loadConstant('D9 E8', 'fld1', 0x3fff, 1n << 127n),
  // log2 10, log2 e, pi, log10 2, ln 2 to 128 bits.
  loadConstant('D9 E9', 'fldl2t', 0x4000, 0xd49a784bcd1b8afe492bf6ff4dafdb4cn),
  loadConstant('D9 EA', 'fldl2e', 0x3fff, 0xb8aa3b295c17f0bbbe87fed0691d3e89n),
  loadConstant('D9 EB', 'fldpi', 0x4000, 0xc90fdaa22168c234c4c6628b80dc1cd1n),
  loadConstant('D9 EC', 'fldlg2', 0x3ffd, 0x9a209a84fbcff7988f8959ac0b7c9178n),
  loadConstant('D9 ED', 'fldln2', 0x3ffe, 0xb17217f7d1cf79abc9e3b39803f2f6afn),
  loadConstant('D9 EE', 'fldz', 0, 0n),
  store('D9 /2m', 'fst Md', subs.f32, 0),
  store('D9 /3m', 'fstp Md', subs.f32, 1),
  store('DD /2m', 'fst Mq', subs.f64, 0),
  store('DD /3m', 'fstp Mq', subs.f64, 1),
  storeTen('DB /7m', 'fstp M', storeExtended),
  storeTen('DF /6m', 'fbstp M', storeBcd),
  store('DF /2m', 'fist Mw', subs.i16, 0),
  store('DF /3m', 'fistp Mw', subs.i16, 1),
  store('DB /2m', 'fist Md', subs.i32, 0),
  store('DB /3m', 'fistp Md', subs.i32, 1),
  store('DF /7m', 'fistp Mq', subs.i64, 1),
  store('DF /1m', 'fisttp Mw', subs.t16, 1),
  store('DB /1m', 'fisttp Md', subs.t32, 1),
  store('DD /1m', 'fisttp Mq', subs.t64, 1),
  storeRegister('DD /2r', 'fst', 0),
  storeRegister('DD /3r', 'fstp', 1),
  exchangeRow('D9 /1r'),
  free('DD /0r', 'ffree', 0),
  // Aliases that Intel's processors execute and its manual leaves out.
  insn('D9 /3r', 'fstp STi', x87, (c, o) => {
    wait(c);
    note(c);
    c.do(copyUnchecked, c.index(o));
  }),
  storeRegister('DF /2r', 'fstp', 1),
  storeRegister('DF /3r', 'fstp', 1),
  exchangeRow('DD /1r'),
  exchangeRow('DF /1r'),
  free('DF /0r', 'ffreep', 1),
  turn('D9 F6', 'fdecstp', 7),
  turn('D9 F7', 'fincstp', 1),
  insn('D9 D0', 'fnop', x87, (c) => {
    wait(c);
    note(c);
  }),
];
