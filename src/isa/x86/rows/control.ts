// Control registers, debug registers, descriptor table registers, TLB invalidation, extended control registers
// (Intel SDM volume 2: MOV CR, MOV DR, LMSW, SMSW, CLTS, INVLPG, INVPCID, LGDT, SGDT, XGETBV, XSETBV).

import type { Slot, Value } from '../../../ir/ir.ts';
import { fitsBase } from '../canonical.ts';
import { updateContext } from '../context.ts';
import { CR0, CR4, checkUmip, readControl, readDebug, writeControl, writeCr0, writeDebug } from '../control.ts';
import { type Emit, type InsnEmit, type Operand, requires } from '../emit.ts';
import { probeWrite } from '../memory.ts';
import { cpuid } from '../outside.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import * as st from '../state.ts';
import { Absent, R } from '../state.ts';
import { sub } from '../sub.ts';
import { flushAll, flushNonGlobal, flushPage } from '../tlb.ts';

const long: RowOptions = { mode: 'long' };
const legacy: RowOptions = { mode: 'legacy' };
const longEnds: RowOptions = { mode: 'long', ends: true };
const legacyEnds: RowOptions = { mode: 'legacy', ends: true };

type Emitter = Row['emit'];

const readWith =
  (callee: typeof readControl): Emitter =>
  (c, r, n) => {
    c.privileged();
    c.write(r, c.b.fit(c.long ? 'i64' : 'i32', c.call(callee, c.index(n))));
  };
const writeWith =
  (callee: typeof writeControl): Emitter =>
  (c, n, r) => {
    c.privileged();
    c.do(callee, c.index(n), c.b.extu(c.read(r)));
    c.resync();
  };

/** LMSW: the low four bits of CR0; PE cannot be cleared. Raises #GP(0). */
const loadStatus = sub('loadStatus', ['i32'], null, { faults: true }, (c, value) => {
  const b = c.b;
  const old = b.wrap(c.get(st.cr0));
  const kept = b.and(old, b.i32(~(CR0.mp | CR0.em | CR0.ts)));
  c.do(writeCr0, b.extu(b.or(kept, b.and(value, b.i32(15)))));
  b.ret();
});

function clearTaskSwitched(c: InsnEmit): void {
  const b = c.b;
  c.privileged();
  c.set(st.cr0, b.and(c.get(st.cr0), b.i64(~CR0.ts)));
  c.do(updateContext);
  c.resync();
}

function storeStatus(c: InsnEmit, o: Operand): void {
  checkUmip(c);
  const value = c.get(st.cr0);
  c.write(o, o.bits === 64 ? value : c.truncate(c.b.wrap(value), o.bits === 16 ? 16 : 32));
}

// -- descriptor table registers: a limit of 16 bits, then the base

/** The address after `n` bytes; legacy addresses have 32 bits. */
function further(c: InsnEmit, addr: Value, n: number): Value {
  const sum = c.b.add(addr, c.b.i64(n));
  return c.long ? sum : c.b.and(sum, c.b.i64(0xffffffffn));
}

const loadTable =
  (base: Slot, limit: Slot): Emitter =>
  (c, o) => {
    const b = c.b;
    c.privileged();
    const at = c.linear(o, c.long ? 10 : 6, false);
    const newLimit = c.load(at, 16);
    const read = b.extu(c.load(further(c, at, 2), c.long ? 64 : 32));
    if (c.long) c.gpIf(b.eqz(fitsBase(c, read)));
    c.set(limit, newLimit);
    c.set(base, c.size === 16 && !c.long ? b.and(read, b.i64(0xffffff)) : read);
  };

const storeTable =
  (base: Slot, limit: Slot): Emitter =>
  (c, o) => {
    const b = c.b;
    checkUmip(c);
    const bytes = c.long ? 10 : 6;
    const at = c.linear(o, bytes, true);
    c.do(probeWrite, at, b.i32(bytes), b.i32(0));
    c.store(at, 16, c.get(limit));
    const value = c.get(base);
    c.store(further(c, at, 2), c.long ? 64 : 32, c.long ? value : b.wrap(value));
  };

// -- TLB invalidation

/** INVPCID of `type` with the descriptor's halves. Entries of other PCIDs than the current one are never held. Raises #GP(0). */
const invalidate = sub('invalidate', ['i64', 'i64', 'i64'], null, { faults: true }, (c, type, pcid, addr) => {
  const b = c.b;
  c.gpIf(b.or(b.gtu(type, b.i64(3)), b.ne(b.and(pcid, b.i64(~0xfffn)), b.i64(0))));
  const pcide = b.and(b.wrap(c.get(st.cr4)), b.i32(CR4.pcide));
  const named = b.ltu(type, b.i64(2));
  c.gpIf(b.and(named, b.and(b.eqz(pcide), b.ne(pcid, b.i64(0)))));
  c.gpIf(b.and(b.eqz(type), b.eqz(fitsBase(c, addr))));
  const current = b.select(pcide, b.and(c.get(st.cr3), b.i64(0xfff)), b.i64(0));
  b.if(b.and(named, b.ne(pcid, current)), () => b.ret());
  const when = (n: number, flush: () => void): void => b.if(b.eq(type, b.i64(n)), flush);
  when(0, () => c.do(flushPage, addr));
  when(1, () => c.do(flushNonGlobal));
  when(2, () => c.do(flushAll));
  when(3, () => c.do(flushNonGlobal));
  b.ret();
});

const invpcid: Emitter = (c, type, descriptor) => {
  const b = c.b;
  requires(c, Absent.invpcid);
  c.privileged();
  const at = c.linear(descriptor, 16, false);
  const pcid = c.load(at, 64);
  const addr = c.load(further(c, at, 8), 64);
  c.do(invalidate, b.extu(c.read(type)), pcid, addr);
  c.resync();
};

// -- extended control registers

const checkXsave = (c: InsnEmit): void => c.b.if(c.b.eqz(c.b.and(c.b.wrap(c.get(st.cr4)), c.b.i32(CR4.osxsave))), () => c.ud());

/** XSETBV. What XCR0 may hold is what CPUID leaf 0xD says. Raises #GP(0). */
const setExtended = sub('setExtended', ['i32', 'i64'], null, { faults: true }, (c, index, value) => {
  const b = c.b;
  c.do(cpuid, b.i32(0xd), b.i32(0));
  const possible = b.or(b.extu(c.get(st.cpuidResult[0]!)), b.shl(b.extu(c.get(st.cpuidResult[3]!)), b.i64(32)));
  const bits = b.and(b.wrap(value), b.i32(7));
  c.gpIf(b.ne(index, b.i32(0)));
  c.gpIf(b.ne(b.and(value, b.not(possible)), b.i64(0)));
  // x87 state always; AVX state only with SSE state.
  c.gpIf(b.or(b.eqz(b.and(bits, b.i32(1))), b.eq(b.and(bits, b.i32(6)), b.i32(4))));
  c.set(st.xcr0, value);
  b.ret();
});

const pair = (c: Emit): Value => c.b.or(c.b.shl(c.reg(R.rdx), c.b.i64(32)), c.b.extu(c.reg(R.rax, 32)));

export const controlRows: readonly Row[] = [
  insn('0F 20', 'mov Rq,Cy', long, readWith(readControl)),
  insn('0F 20', 'mov Rd,Cy', legacy, readWith(readControl)),
  insn('0F 22', 'mov Cy,Rq', longEnds, writeWith(writeControl)),
  insn('0F 22', 'mov Cy,Rd', legacyEnds, writeWith(writeControl)),
  insn('0F 21', 'mov Rq,Dy', long, readWith(readDebug)),
  insn('0F 21', 'mov Rd,Dy', legacy, readWith(readDebug)),
  insn('0F 23', 'mov Dy,Rq', longEnds, writeWith(writeDebug)),
  insn('0F 23', 'mov Dy,Rd', legacyEnds, writeWith(writeDebug)),

  insn('0F 01 /6', 'lmsw Ew', { ends: true }, (c, o) => {
    c.privileged();
    c.do(loadStatus, c.read(o));
    c.resync();
  }),
  insn('0F 01 /4m', 'smsw Mw', storeStatus),
  insn('0F 01 /4r', 'smsw Rv', storeStatus),
  insn('0F 06', 'clts', { ends: true }, clearTaskSwitched),

  insn('0F 01 /0m', 'sgdt M', storeTable(st.gdtBase, st.gdtLimit)),
  insn('0F 01 /1m', 'sidt M', storeTable(st.idtBase, st.idtLimit)),
  insn('0F 01 /2m', 'lgdt M', loadTable(st.gdtBase, st.gdtLimit)),
  insn('0F 01 /3m', 'lidt M', loadTable(st.idtBase, st.idtLimit)),

  insn('0F 01 /7m', 'invlpg M', { ends: true }, (c, o) => {
    c.privileged();
    c.do(flushPage, c.linear(o, 1, false));
    c.resync();
  }),
  insn('66 0F 38 82', 'invpcid Gq,Mdq', longEnds, invpcid),
  insn('66 0F 38 82', 'invpcid Gd,Mdq', legacyEnds, invpcid),

  insn('NP 0F 01 D0', 'xgetbv', (c) => {
    const b = c.b;
    checkXsave(c);
    const index = c.reg(R.rcx, 32);
    c.gpIf(b.gtu(index, b.i32(1)));
    c.gpIf(b.and(index, b.ne(b.and(c.get(st.absent), b.i32(Absent.xgetbv1)), b.i32(0))));
    // Index 1 gives the components in use: those enabled, since none is tracked.
    const value = c.get(st.xcr0);
    c.setReg(R.rax, 32, b.wrap(value));
    c.setReg(R.rdx, 32, b.wrap(b.shru(value, b.i64(32))));
  }),
  insn('NP 0F 01 D1', 'xsetbv', { ends: true }, (c) => {
    checkXsave(c);
    c.privileged();
    c.do(setExtended, c.reg(R.rcx, 32), pair(c));
    c.do(updateContext);
    c.resync();
  }),
];
