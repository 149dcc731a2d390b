// Port input and output (Intel SDM volume 1, chapter 19; volume 2: IN, OUT, INS, OUTS).

import type { Value } from '../../../ir/ir.ts';
import { CR0 } from '../control.ts';
import { inspectPort } from '../debug.ts';
import type { InsnEmit, Operand, Size } from '../emit.ts';
import { probeWrite } from '../memory.ts';
import { portIn, portOut } from '../outside.ts';
import { insn, type Row } from '../row.ts';
import * as st from '../state.ts';
import { R, S } from '../state.ts';
import { sub } from '../sub.ts';
import { betweenIterations, iterates } from './string.ts';

const VM = 17;
const DF = 0x400;
const TSS_BITMAP = 102;

/**
 * #GP(0) unless `bytes` ports from `port` may be used: always in real mode, by IOPL in protected mode, else and in virtual-8086
 * mode by the TSS's I/O permission bitmap.
 */
const checkPorts = sub('checkPorts', ['i32', 'i32'], null, { faults: true }, (c, port, bytes) => {
  const b = c.b;
  const flags = c.get(st.sysFlags);
  const v86 = b.and(b.shru(flags, b.i32(VM)), b.i32(1));
  const iopl = b.and(b.shru(flags, b.i32(12)), b.i32(3));
  const byLevel = b.and(b.leu(c.get(st.cpl), iopl), b.xor(v86, b.i32(1)));
  const real = b.eqz(b.and(b.wrap(c.get(st.cr0)), b.i32(CR0.pe)));
  b.if(b.or(byLevel, real), () => b.ret());
  // A 32- or 64-bit TSS (available or busy) that reaches to the bitmap's offset.
  const attr = c.get(st.segAttr[S.tr]!);
  const limit = c.get(st.segLimit[S.tr]!);
  c.gpIf(b.or(b.ne(b.and(attr, b.i32(0x1009d)), b.i32(0x89)), b.ltu(limit, b.i32(TSS_BITMAP + 1))));
  const base = c.get(st.segBase[S.tr]!);
  const at = b.add(c.load(b.add(base, b.i64(TSS_BITMAP)), 16, { system: true }), b.shru(port, b.i32(3)));
  c.gpIf(b.geu(at, limit));
  const map = c.load(b.add(base, b.extu(at)), 16, { system: true });
  const mask = b.shl(b.sub(b.shl(b.i32(1), bytes), b.i32(1)), b.and(port, b.i32(7)));
  c.gpIf(b.ne(b.and(map, mask), b.i32(0)));
  b.ret();
});

/** Breakpoints on ports, which trap after the instruction. */
function watchPort(c: InsnEmit, port: Value, bytes: Value): void {
  c.b.if(c.get(st.watch), () => c.do(inspectPort, port, bytes));
}

/** Bits moved by a form of operand size: at most 32. */
const sized = (c: InsnEmit): Size => (c.size === 16 ? 16 : 32);

function input(c: InsnEmit, port: Value, size: Size): void {
  const bytes = c.b.i32(size / 8);
  c.do(checkPorts, port, bytes);
  c.setReg(R.rax, size, c.call(portIn, port, bytes));
  watchPort(c, port, bytes);
}
function output(c: InsnEmit, port: Value, size: Size): void {
  const bytes = c.b.i32(size / 8);
  c.do(checkPorts, port, bytes);
  c.do(portOut, port, c.reg(R.rax, size), bytes);
  watchPort(c, port, bytes);
  ended(c);
}
/** The device may have raised an interrupt, which comes before the next instruction: the shadow of one before this is over. */
function ended(c: InsnEmit): void {
  c.b.if(c.get(st.kick), () => {
    c.set(st.shadow, c.b.i32(0));
    c.resync();
  });
}
const dx = (c: InsnEmit): Value => c.reg(R.rdx, 16);
const immediate = (c: InsnEmit, o: Operand): Value => c.b.and(c.imm(o), c.b.i32(0xff));

// -- strings: one element each time, so that an interrupt or a fault finds the registers in step with the device

/** A register cut to the address size, as i64. */
function offset(c: InsnEmit, n: number): Value {
  return c.addressSize === 64 ? c.reg(n) : c.b.extu(c.reg(n, c.addressSize));
}
function advance(c: InsnEmit, n: number, by: Value): void {
  const sum = c.b.add(c.reg(n), by);
  c.setReg(n, c.addressSize, c.addressSize === 64 ? sum : c.truncate(c.b.wrap(sum), c.addressSize));
}
function step(c: InsnEmit, n: number, size: Size): void {
  const b = c.b;
  advance(c, n, b.select(b.and(c.get(st.sysFlags), b.i32(DF)), b.i64(-size / 8), b.i64(size / 8)));
}
function repeated(c: InsnEmit, one: () => void): void {
  const b = c.b;
  if (c.rep) {
    iterates(c);
    b.if(b.eqz(offset(c, R.rcx)), () => b.leave('next'));
  }
  one();
  if (c.rep) {
    advance(c, R.rcx, b.i64(-1));
    b.if(b.ne(offset(c, R.rcx), b.i64(0)), () => {
      // A debug trap comes after each iteration.
      betweenIterations(c);
      b.if(c.get(st.stepTrap), () => b.leave('jump', c.thisIp()));
      b.if(c.get(st.kick), () => c.set(st.shadow, b.i32(0)));
      b.leave('repeat');
    });
  }
  ended(c);
}

function inputString(c: InsnEmit, size: Size): void {
  const b = c.b;
  const bytes = b.i32(size / 8);
  repeated(c, () => {
    c.do(checkPorts, dx(c), bytes);
    const to = c.linearIn(S.es, offset(c, R.rdi), size / 8, true);
    // The port is read only where the store cannot fail.
    c.do(probeWrite, to, bytes, b.i32(0));
    c.store(to, size, c.call(portIn, dx(c), bytes));
    watchPort(c, dx(c), bytes);
    step(c, R.rdi, size);
  });
}
function outputString(c: InsnEmit, size: Size): void {
  const bytes = c.b.i32(size / 8);
  repeated(c, () => {
    c.do(checkPorts, dx(c), bytes);
    const value = c.load(c.linearData(offset(c, R.rsi), size / 8, false), size);
    c.do(portOut, dx(c), value, bytes);
    watchPort(c, dx(c), bytes);
    step(c, R.rsi, size);
  });
}

export const ioRows: readonly Row[] = [
  insn('E4', 'in AL,Ib', (c, _, port) => input(c, immediate(c, port), 8)),
  insn('E5', 'in rAX,Ib', (c, _, port) => input(c, immediate(c, port), sized(c))),
  insn('EC', 'in AL,DX', (c) => input(c, dx(c), 8)),
  insn('ED', 'in rAX,DX', (c) => input(c, dx(c), sized(c))),
  insn('E6', 'out Ib,AL', (c, port) => output(c, immediate(c, port), 8)),
  insn('E7', 'out Ib,rAX', (c, port) => output(c, immediate(c, port), sized(c))),
  insn('EE', 'out DX,AL', (c) => output(c, dx(c), 8)),
  insn('EF', 'out DX,rAX', (c) => output(c, dx(c), sized(c))),
  insn('6C', 'insb', { rep: true }, (c) => inputString(c, 8)),
  insn('6D', 'insv', { rep: true }, (c) => inputString(c, sized(c))),
  insn('6E', 'outsb', { rep: true }, (c) => outputString(c, 8)),
  insn('6F', 'outsv', { rep: true }, (c) => outputString(c, sized(c))),
];
