// Near control flow: JMP, Jcc, CALL, RET, LOOP, JCXZ (Intel SDM volume 2).

import type { Value } from '../../../ir/ir.ts';
import { CONDITIONS, type InsnEmit, type Operand, type Size } from '../emit.ts';
import { probeWrite } from '../memory.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import { R, S, segLimit } from '../state.ts';

const near: RowOptions = { size: 'f64', ends: true, near: true };

/** #GP(0) where the target (of the operand size) is not canonical or lies beyond the limit of the code segment: before anything else happens. */
function within(c: InsnEmit, target: Value): void {
  if (c.size === 64) return c.checkTarget(target);
  if (!c.limited) return;
  const b = c.b;
  c.gpIf(b.gtu(target.type === 'i64' ? target : b.extu(target), b.extu(c.get(segLimit[S.cs]!))));
}
function branch(c: InsnEmit, o: Operand): void {
  if (c.limited) within(c, c.branchTarget(o));
  c.branch(o);
}

/** Goes to `target`, of the operand size: outside 64-bit code IP is cut to it. */
function jumpTo(c: InsnEmit, target: Value): void {
  c.jump(c.size === 64 ? target : c.b.extu(target));
}

/**
 * Of a call: processors write the return address, then check the target, then move the stack pointer. Where the target is not canonical they
 * write nothing, but what the write raises (#SS, #PF) comes first.
 */
function callWithin(c: InsnEmit, target: Value, back: Value): void {
  if (c.size === 64)
    return c.checkTarget(target, () => c.do(probeWrite, c.stackAddress(c.stackPointer(-8), 8, true), c.b.i32(8), c.b.i32(0)));
  if (!c.limited) return;
  const bytes = c.size / 8;
  c.store(c.stackAddress(c.stackPointer(-bytes), bytes, true), c.size, c.truncate(c.b.wrap(back), c.size));
  within(c, target);
}

const call = (c: InsnEmit, o: Operand): void => {
  const back = c.nextIp();
  if (o.from === 'rel') {
    if (c.limited) callWithin(c, c.branchTarget(o), back);
    c.push(c.size === 64 ? back : c.truncate(c.b.wrap(back), c.size), c.size);
    return c.branch(o);
  }
  const target = c.read(o);
  callWithin(c, target, back);
  c.push(c.size === 64 ? back : c.truncate(c.b.wrap(back), c.size), c.size);
  jumpTo(c, target);
};

const ret = (c: InsnEmit, extra?: Operand): void => {
  const { value, done } = c.pop(c.size);
  within(c, value);
  done();
  if (extra) c.setStackPointer(c.b.add(c.reg(R.rsp), c.b.extu(c.imm(extra))));
  jumpTo(c, value);
};

/** The count register cut to the address size, as i64. */
const counter = (c: InsnEmit): Value => (c.addressSize === 64 ? c.reg(R.rcx) : c.b.extu(c.reg(R.rcx, c.addressSize)));

const loop =
  (kind: 'loop' | 'loopz' | 'loopnz') =>
  (c: InsnEmit, o: Operand): void => {
    const b = c.b;
    const n = b.sub(counter(c), b.i64(1));
    const value = c.addressSize === 64 ? n : c.truncate(b.wrap(n), c.addressSize);
    const left = c.addressSize === 64 ? b.ne(value, b.i64(0)) : b.ne(value, b.i32(0));
    const cond = kind === 'loop' ? left : b.and(left, kind === 'loopz' ? c.zf() : b.eqz(c.zf()));
    if (c.limited) b.if(cond, () => within(c, c.branchTarget(o)));
    c.setReg(R.rcx, c.addressSize as Size, value);
    b.if(cond, () => c.branch(o));
  };

const hex = (n: number): string => n.toString(16).toUpperCase();

export const flowRows: readonly Row[] = [
  insn('E9', 'jmp Jz', near, (c, o) => branch(c, o)),
  insn('EB', 'jmp Jb', near, (c, o) => branch(c, o)),
  insn('FF /4', 'jmp Ev', near, (c, o) => {
    const target = c.read(o);
    within(c, target);
    jumpTo(c, target);
  }),
  insn('E8', 'call Jz', near, call),
  insn('FF /2', 'call Ev', near, call),
  insn('C3', 'ret', near, ret),
  insn('C2', 'ret Iw', near, ret),
  ...CONDITIONS.flatMap((name, code) => {
    const emit: Row['emit'] = (c, o) => c.b.if(c.cond(code), () => branch(c, o));
    return [insn(`7${hex(code)}`, `j${name} Jb`, near, emit), insn(`0F 8${hex(code)}`, `j${name} Jz`, near, emit)];
  }),
  insn('E0', 'loopnz Jb', near, loop('loopnz')),
  insn('E1', 'loopz Jb', near, loop('loopz')),
  insn('E2', 'loop Jb', near, loop('loop')),
  insn('E3', 'jcxz Jb', near, (c, o) => c.b.if(c.b.eqz(counter(c)), () => branch(c, o))),
];
