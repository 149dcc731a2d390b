// Model-specific registers, time stamps, identification, segment bases (Intel SDM volume 2: RDMSR, WRMSR, RDTSC, RDTSCP, RDPMC,
// RDPID, CPUID, SWAPGS, RDFSBASE to WRGSBASE).

import type { Value } from '../../../ir/ir.ts';
import { fitsBase } from '../canonical.ts';
import { CR4 } from '../control.ts';
import { type InsnEmit, requires } from '../emit.ts';
import { readMsr, writeMsr } from '../msr.ts';
import { cpuid, rdpmc, tsc } from '../outside.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import * as st from '../state.ts';
import { Absent, Exit, R, S } from '../state.ts';

const long: RowOptions = { mode: 'long' };

/** EDX:EAX = value, their upper halves cleared. */
function setPair(c: InsnEmit, value: Value): void {
  const b = c.b;
  c.setReg(R.rax, 64, b.and(value, b.i64(0xffffffffn)));
  c.setReg(R.rdx, 64, b.shru(value, b.i64(32)));
}

const cr4Bit = (c: InsnEmit, bits: number): Value => c.b.and(c.b.wrap(c.get(st.cr4)), c.b.i32(bits));

/** #GP(0) outside CPL 0 while CR4.TSD is set. */
function checkTimeStamp(c: InsnEmit): void {
  const b = c.b;
  c.gpIf(b.and(b.ne(cr4Bit(c, CR4.tsd), b.i32(0)), b.ne(c.get(st.cpl), b.i32(0))));
}
const timeStamp = (c: InsnEmit): Value => c.b.add(c.b.op('i64.trunc_sat_f64_s', c.call(tsc)), c.get(st.tscOffset));

function baseRows(name: string, segment: number, read: number, write: number): Row[] {
  const slot = st.segBase[segment]!;
  const check = (c: InsnEmit): void => c.b.if(c.b.eqz(cr4Bit(c, CR4.fsgsbase)), () => c.ud());
  return [
    insn(`F3 0F AE /${read}r`, `rd${name}base Ry`, long, (c, o) => {
      check(c);
      c.write(o, c.b.fit(o.bits === 64 ? 'i64' : 'i32', c.get(slot)));
    }),
    insn(`F3 0F AE /${write}r`, `wr${name}base Ry`, long, (c, o) => {
      const b = c.b;
      check(c);
      const value = b.extu(c.read(o));
      if (o.bits === 64) c.gpIf(b.eqz(fitsBase(c, value)));
      c.set(slot, value);
    }),
  ];
}

function readProcessorId(c: InsnEmit, o: Parameters<Row['emit']>[1]): void {
  requires(c, Absent.rdpid);
  c.write(o!, c.b.fit(o!.bits === 64 ? 'i64' : 'i32', c.get(st.tscAux)));
}

export const msrRows: readonly Row[] = [
  insn('0F 32', 'rdmsr', { ends: true }, (c) => {
    c.privileged();
    setPair(c, c.call(readMsr, c.reg(R.rcx, 32)));
    c.b.if(c.get(st.pmAsked), () => c.exit(Exit.pmc));
    c.resync();
  }),
  insn('0F 30', 'wrmsr', { ends: true }, (c) => {
    const b = c.b;
    c.privileged();
    const value = b.or(b.shl(c.reg(R.rdx), b.i64(32)), b.extu(c.reg(R.rax, 32)));
    c.do(writeMsr, c.reg(R.rcx, 32), value);
    c.resync();
  }),
  insn('0F 31', 'rdtsc', (c) => {
    checkTimeStamp(c);
    setPair(c, timeStamp(c));
  }),
  insn('0F 01 F9', 'rdtscp', (c) => {
    requires(c, Absent.rdtscp);
    checkTimeStamp(c);
    setPair(c, timeStamp(c));
    c.setReg(R.rcx, 64, c.b.and(c.get(st.tscAux), c.b.i64(0xffffffffn)));
  }),
  insn('0F 33', 'rdpmc', { ends: true }, (c) => {
    const b = c.b;
    c.gpIf(b.and(b.eqz(cr4Bit(c, CR4.pce)), b.ne(c.get(st.cpl), b.i32(0))));
    c.do(rdpmc, c.reg(R.rcx, 32));
    c.exit(Exit.pmc);
  }),
  insn('F3 0F C7 /7r', 'rdpid Rq', long, readProcessorId),
  insn('F3 0F C7 /7r', 'rdpid Rd', { mode: 'legacy' }, readProcessorId),
  insn('0F A2', 'cpuid', (c) => {
    c.do(cpuid, c.reg(R.rax, 32), c.reg(R.rcx, 32));
    [R.rax, R.rbx, R.rcx, R.rdx].forEach((n, i) => {
      c.setReg(n, 32, c.get(st.cpuidResult[i]!));
    });
  }),
  insn('0F 01 F8', 'swapgs', long, (c) => {
    c.privileged();
    const base = c.get(st.segBase[S.gs]!);
    c.set(st.segBase[S.gs]!, c.get(st.kernelGsBase));
    c.set(st.kernelGsBase, base);
  }),
  ...baseRows('fs', S.fs, 0, 2),
  ...baseRows('gs', S.gs, 1, 3),
];
