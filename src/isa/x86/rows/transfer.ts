// Transfers that change CS or go through the IDT: INT, IRET, far JMP, CALL and RET, BOUND (Intel SDM volume 2).

import type { InsnEmit, Operand, Size } from '../emit.ts';
import { FAR_CALL, farTransfer, resume } from '../far.ts';
import { Kind } from '../gate.ts';
import { deliver, softInterrupt } from '../interrupts.ts';
import { farReturn, interruptReturn } from '../return.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import * as st from '../state.ts';
import { GuestDebug, X } from '../state.ts';

const ends: RowOptions = { ends: true };
const legacy: RowOptions = { mode: 'legacy', ends: true };

const interrupt = (c: InsnEmit, vector: number, kind: number): void => {
  c.do(deliver, c.b.i32(vector), c.b.i32(-1), c.b.i32(kind), c.nextIp());
  resume(c);
};

/** Far JMP or CALL: the pointer is two immediates (offset, selector), or in memory (offset, then selector). */
const far =
  (call: boolean) =>
  (c: InsnEmit, pointer: Operand, selector?: Operand): void => {
    const b = c.b;
    const bytes = c.size / 8;
    const how = b.i32(bytes | (call ? FAR_CALL : 0));
    if (selector) {
      const offset = c.truncate(c.imm(pointer), c.size);
      c.do(farTransfer, b.and(c.imm(selector), b.i32(0xffff)), b.extu(offset), how, c.nextIp());
    } else {
      const address = c.linear(pointer, bytes + 2, false);
      const offset = b.extu(c.load(address, c.size));
      c.do(farTransfer, c.load(b.add(address, b.i64(bytes)), 16), offset, how, c.nextIp());
    }
    resume(c);
  };

const retf = (c: InsnEmit, extra?: Operand): void => {
  const b = c.b;
  c.do(farReturn, b.i32(c.size / 8), extra ? b.extu(b.and(c.imm(extra), b.i32(0xffff))) : b.i64(0));
  resume(c);
};

export const transferRows: readonly Row[] = [
  insn('CC', 'int3', ends, (c) => {
    c.b.if(c.b.and(c.get(st.guestDebug), c.b.i32(GuestDebug.bp)), () => c.raise(X.bp));
    interrupt(c, X.bp, Kind.breakpoint);
  }),
  insn('CD', 'int Ib', ends, (c, n) => {
    c.do(softInterrupt, c.b.and(c.imm(n), c.b.i32(0xff)), c.nextIp());
    resume(c);
  }),
  insn('CE', 'into', legacy, (c) => {
    c.b.if(c.of(), () => interrupt(c, X.of, Kind.breakpoint));
  }),
  insn('F1', 'int1', ends, (c) => interrupt(c, X.db, Kind.int1)),
  insn('CF', 'iret', ends, (c) => {
    c.do(interruptReturn, c.b.i32(c.size / 8), c.nextIp());
    resume(c);
  }),
  insn('9A', 'callf Iv,Iw', legacy, far(true)),
  insn('EA', 'jmpf Iv,Iw', legacy, far(false)),
  insn('FF /3', 'callf Mv', ends, far(true)),
  insn('FF /5', 'jmpf Mv', ends, far(false)),
  insn('CA', 'retf Iw', ends, retf),
  insn('CB', 'retf', ends, retf),
  insn('62', 'bound Gv,Mv', { mode: 'legacy' }, (c, index, bounds) => {
    const b = c.b;
    const size = c.size as Exclude<Size, 8>;
    const address = c.linear(bounds, size / 4, false);
    const signed = (v: ReturnType<InsnEmit['read']>) => c.signed32(v, size);
    const value = signed(c.read(index));
    const lower = signed(c.load(address, size));
    const upper = signed(c.load(b.add(address, b.i64(size / 8)), size));
    c.raiseIf(b.or(b.lts(value, lower), b.gts(value, upper)), X.br);
  }),
];
