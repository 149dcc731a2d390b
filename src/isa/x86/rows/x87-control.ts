// x87 control instructions: control and status words, environment, whole state, waiting, EMMS (Intel SDM volume 1, section 8.1.10 with
// figures 8-9 to 8-12; volume 2, FCLEX to FSTSW).

import type { Value } from '../../../ir/ir.ts';
import type { Emit, InsnEmit } from '../emit.ts';
import { lane1, mant, pair, parts } from '../float80.ts';
import { insn, type Row } from '../row.ts';
import { cr0, fpCw, fpDp, fpIp, fpOpcode, fpr, fpSw, fpTop, fpValid, sysFlags, X } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import { readSt, statusWord, summarise, wait, writeSt } from './x87-stack.ts';

const x87 = { fp: 'x87' } as const;

/** Writes the control word (i32): bit 6 reads as 1, bits 7 and 13–15 as 0. */
export function setControl(c: Emit, value: Value): void {
  c.set(fpCw, c.b.or(c.b.and(value, c.b.i32(0x1f3f)), c.b.i32(0x40)));
  summarise(c);
}
/** Writes the status word with TOP (i32); ES and B follow from the control word, which must be written first. */
export function setStatus(c: Emit, value: Value): void {
  c.set(fpTop, c.b.and(c.b.shru(value, c.b.i32(11)), c.b.i32(7)));
  c.set(fpSw, c.b.and(value, c.b.i32(0x477f)));
  summarise(c);
}

/** FNINIT: the state after it. */
export const initialise: Sub = sub('x87.init', [], null, {}, (c) => {
  c.set(fpCw, c.b.i32(0x37f));
  for (const slot of [fpSw, fpTop, fpValid, fpOpcode]) c.set(slot, c.b.i32(0));
  for (const slot of [fpIp, fpDp]) c.set(slot, c.b.i64(0));
});

/** The tag word of 16 bits (SDM volume 1, section 8.1.7), from the registers: 0 valid, 1 zero, 2 special, 3 empty. */
const tagWord: Sub = sub('x87.tags', [], 'i32', {}, (c) => {
  const { b } = c;
  const valid = c.get(fpValid);
  let word: Value = b.i32(0);
  for (let i = 0; i < 8; i++) {
    const p = parts(c, pair(c, c.get(fpr[i].mant), c.get(fpr[i].exp)));
    const special = b.or(b.eq(p.e, b.i64(0x7fff)), b.ges(p.m, b.i64(0)));
    const kind = b.select(b.eqz(b.or(p.m, p.e)), b.i32(1), b.select(b.or(special, b.eqz(p.e)), b.i32(2), b.i32(0)));
    const tag = b.select(b.and(valid, b.i32(1 << i)), kind, b.i32(3));
    word = b.or(word, b.shl(tag, b.i32(2 * i)));
  }
  b.ret(word);
});
/** Marks the registers empty whose tag (i32, 16 bits) is 3, the others not. */
function setTags(c: Emit, word: Value): void {
  const { b } = c;
  let valid: Value = b.i32(0);
  for (let i = 0; i < 8; i++) {
    const empty = b.eq(b.and(word, b.i32(3 << (2 * i))), b.i32(3 << (2 * i)));
    valid = b.or(valid, b.shl(b.eqz(empty), b.i32(i)));
  }
  c.set(fpValid, valid);
}

/** i32 0 or 1: the real-address and virtual-8086 formats apply. */
function realFormat(c: Emit): Value {
  const { b } = c;
  const v86 = b.and(b.shru(c.get(sysFlags), b.i32(17)), b.i32(1));
  return b.or(b.xor(b.wrap(b.and(c.get(cr0), b.i64(1))), b.i32(1)), v86);
}
const at = (c: Emit, addr: Value, offset: number): Value => c.b.add(addr, c.b.i64(offset));

/** Writes the environment at `addr`. The selectors of the instruction and the operand are not kept and stored as 0. */
const storeEnvironment = (wide: boolean): Sub =>
  sub(`x87.fstenv.${wide ? 28 : 14}`, ['i64'], null, { faults: true }, (c, addr) => {
    const { b } = c;
    const bytes = wide ? 28 : 14;
    const size = wide ? 32 : 16;
    c.load(at(c, addr, bytes - size / 8), size, { forWrite: true });
    const unit = size / 8;
    const put = (n: number, v: Value): void => c.store(at(c, addr, n * unit), size, v);
    const reserved = b.i32(wide ? 0xffff0000 : 0);
    put(0, b.or(c.get(fpCw), reserved));
    put(1, b.or(statusWord(c), reserved));
    put(2, b.or(c.call(tagWord), reserved));
    const [ip, dp, opcode] = [b.wrap(c.get(fpIp)), b.wrap(c.get(fpDp)), c.get(fpOpcode)];
    const cut = (v: Value): Value => b.and(v, b.i32(0xffff));
    /** Bits 16 and up of an address from bit 12 of the next unit on. */
    const upper = (v: Value): Value => b.and(b.shl(b.shru(v, b.i32(16)), b.i32(12)), b.i32(wide ? 0x0ffff000 : 0xf000));
    b.if(
      realFormat(c),
      () => {
        put(3, b.or(cut(ip), reserved));
        put(4, b.or(upper(ip), opcode));
        put(5, b.or(cut(dp), reserved));
        put(6, upper(dp));
      },
      () => {
        put(3, wide ? ip : cut(ip));
        put(4, wide ? b.shl(opcode, b.i32(16)) : b.i32(0));
        put(5, wide ? dp : cut(dp));
        put(6, reserved);
      },
    );
  });
/** Reads the environment at `addr`: everything is loaded before anything changes. `probe` (i64): a last byte that must be readable. */
const loadEnvironment = (wide: boolean): Sub =>
  sub(`x87.fldenv.${wide ? 28 : 14}`, ['i64', 'i64'], null, { faults: true }, (c, addr, probe) => {
    const { b } = c;
    const size = wide ? 32 : 16;
    const unit = size / 8;
    const word = (n: number): Value => c.load(at(c, addr, n * unit), size);
    const [cw, sw, tags, ip, ipHigh, dp, dpHigh] = [word(0), word(1), word(2), word(3), word(4), word(5), word(6)];
    c.load(probe, 8);
    const real = realFormat(c);
    const joined = (low: Value, high: Value): Value => {
      const upper = b.shl(b.and(b.shru(high, b.i32(12)), b.i32(wide ? 0xffff : 0xf)), b.i32(16));
      return b.extu(b.select(real, b.or(b.and(low, b.i32(0xffff)), upper), low));
    };
    c.set(fpIp, joined(ip, ipHigh));
    c.set(fpDp, joined(dp, dpHigh));
    const opcode = b.select(real, ipHigh, wide ? b.shru(ipHigh, b.i32(16)) : c.get(fpOpcode));
    c.set(fpOpcode, b.and(opcode, b.i32(0x7ff)));
    setControl(c, cw);
    setStatus(c, sw);
    setTags(c, tags);
  });

/** Writes ST(0) to ST(7), ten bytes each, at `addr`. */
const storeRegisters: Sub = sub('x87.fsave.registers', ['i64'], null, { faults: true }, (c, addr) => {
  for (let i = 0; i < 8; i++) {
    const v = readSt(c, c.b.i32(i));
    c.store(at(c, addr, 10 * i), 64, mant(c, v));
    c.b.store('i64.16u', at(c, addr, 10 * i + 8), lane1(c, v));
  }
});
const loadRegisters: Sub = sub('x87.frstor.registers', ['i64'], null, { faults: true }, (c, addr) => {
  for (let i = 0; i < 8; i++) {
    const low = c.load(at(c, addr, 10 * i), 64);
    writeSt(c, c.b.i32(i), pair(c, low, c.b.load('i64.16u', at(c, addr, 10 * i + 8))));
  }
});

const environments = { wide: { bytes: 28, store: storeEnvironment(true), load: loadEnvironment(true) }, narrow: { bytes: 14, store: storeEnvironment(false), load: loadEnvironment(false) } } as const; // biome-ignore format: a table
const format = (c: InsnEmit): { bytes: number; store: Sub; load: Sub } =>
  c.size === 16 ? environments.narrow : environments.wide;

function control(opcode: string, name: string, emit: (c: InsnEmit) => void): Row {
  return insn(opcode, name, x87, (c) => emit(c));
}

/** Control and state. */
export const x87ControlRows: readonly Row[] = [
  insn('D9 /5m', 'fldcw Mw', x87, (c, o) => {
    wait(c);
    setControl(c, c.load(c.linear(o, 2, false), 16));
  }),
  insn('D9 /7m', 'fnstcw Mw', x87, (c, o) => c.store(c.linear(o, 2, true), 16, c.get(fpCw))),
  insn('DD /7m', 'fnstsw Mw', x87, (c, o) => c.store(c.linear(o, 2, true), 16, statusWord(c))),
  insn('DF E0', 'fnstsw AX', x87, (c, ax) => c.write(ax, statusWord(c))),
  insn('D9 /4m', 'fldenv Mv', x87, (c, o) => {
    wait(c);
    const { bytes, load } = format(c);
    const addr = c.linear(o, bytes, false);
    c.do(load, addr, addr);
  }),
  insn('D9 /6m', 'fnstenv Mv', x87, (c, o) => {
    const { bytes, store } = format(c);
    c.do(store, c.linear(o, bytes, true));
    c.set(fpCw, c.b.or(c.get(fpCw), c.b.i32(0x3f)));
    summarise(c);
  }),
  insn('DD /4m', 'frstor Mv', x87, (c, o) => {
    wait(c);
    const { bytes, load } = format(c);
    const addr = c.linear(o, bytes + 80, false);
    c.do(load, addr, at(c, addr, bytes + 79));
    c.do(loadRegisters, at(c, addr, bytes));
  }),
  insn('DD /6m', 'fnsave Mv', x87, (c, o) => {
    const { bytes, store } = format(c);
    const addr = c.linear(o, bytes + 80, true);
    // Both ends lie in pages that may be written: nothing in between can fault.
    c.load(at(c, addr, bytes + 79), 8, { forWrite: true });
    c.do(store, addr);
    c.do(storeRegisters, at(c, addr, bytes));
    c.do(initialise);
  }),
  control('DB E2', 'fnclex', (c) => c.set(fpSw, c.b.and(c.get(fpSw), c.b.i32(0x4700)))),
  control('DB E3', 'fninit', (c) => c.do(initialise)),
  // FNENI, FNDISI and FNSETPM of the 8087 and 80287 do nothing.
  ...['DB E0', 'DB E1', 'DB E4'].map((opcode) => control(opcode, 'fnop', () => undefined)),
  insn('9B', 'fwait', (c) => {
    const { b } = c;
    const both = b.i64(0xa);
    c.raiseIf(b.eq(b.and(c.get(cr0), both), both), X.nm);
    wait(c);
  }),
  insn('NP 0F 77', 'emms', { fp: 'mmx' }, (c) => {
    wait(c);
    c.set(fpValid, c.b.i32(0));
    c.set(fpTop, c.b.i32(0));
  }),
];
