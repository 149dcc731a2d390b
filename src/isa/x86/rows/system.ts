// Halting, caches, ordering, hints, hypercalls, random numbers, deliberate #UD, user-page access (Intel SDM volume 2: HLT, INVD,
// WBINVD, RSM, CLFLUSH, CLWB, LFENCE, PREFETCHh, VMCALL, RDRAND, RDSEED, UD, CLAC, STAC; AMD APM volume 3: VMMCALL).

import { selectSupervisorTlb } from '../context.ts';
import { CR4, writePkru } from '../control.ts';
import { type InsnEmit, type Operand, requires } from '../emit.ts';
import { fence } from '../memory.ts';
import { hypercall, random } from '../outside.ts';
import { insn, type Row } from '../row.ts';
import * as st from '../state.ts';
import { Absent, Exit, R, X } from '../state.ts';

const AC = 1 << 18;

const nothing: Row['emit'] = () => {};
const privilegedNothing: Row['emit'] = (c) => c.privileged();
const undefinedOpcode: Row['emit'] = (c) => c.ud();
/** #UD outside CPL 0. */
const supervisorOnly = (c: InsnEmit): void => c.b.if(c.b.ne(c.get(st.cpl), c.b.i32(0)), () => c.ud());

/** Cache line instructions fault as a read of one byte does. */
const touchLine: Row['emit'] = (c, line) => {
  c.load(c.linear(line, 1, false), 8);
};

const callHost: Row['emit'] = (c) => {
  c.do(hypercall);
  c.resync();
};

function drawRandom(c: InsnEmit, o: Operand): void {
  const b = c.b;
  const bits = c.call(random);
  c.write(o, c.size === 64 ? bits : c.truncate(b.wrap(bits), c.size));
  // CF = 1, all others 0: a result of 1 has ZF, SF and PF clear.
  c.setZNP(8, b.i32(1));
  c.setC(b.i32(1));
  c.setO(b.i32(0));
  c.setA(b.i32(0));
}

/** Sets or clears RFLAGS.AC; it decides which TLB explicit accesses at CPL 0 use, and nothing else that runs at CPL 0. */
const alignment =
  (ac: 0 | 1): Row['emit'] =>
  (c) => {
    const b = c.b;
    requires(c, Absent.smap);
    supervisorOnly(c);
    const flags = c.get(st.sysFlags);
    c.set(st.sysFlags, ac ? b.or(flags, b.i32(AC)) : b.and(flags, b.i32(~AC)));
    selectSupervisorTlb(c, ac);
  };

export const systemRows: readonly Row[] = [
  insn('F4', 'hlt', { ends: true }, (c) => {
    c.privileged();
    c.exit(Exit.hlt);
  }),
  insn('0F AA', 'rsm', { ends: true }, (c) => {
    c.b.if(c.b.eqz(c.get(st.smm)), () => c.ud());
    c.exit(Exit.rsm);
  }),
  insn('0F 08', 'invd', privilegedNothing),
  insn('0F 09', 'wbinvd', privilegedNothing),
  insn('NP 0F AE /7m', 'clflush Mb', touchLine),
  insn('66 0F AE /7m', 'clflushopt Mb', touchLine),
  insn('66 0F AE /6m', 'clwb Mb', touchLine),
  insn('NP 0F AE /5r', 'lfence', nothing),
  insn('NP 0F AE /6r', 'mfence', (c) => fence(c)),
  insn('NP 0F AE /7r', 'sfence', nothing),
  insn('F3 90', 'pause', nothing),
  insn('0F 0D', 'prefetchw Ev', nothing),
  insn('0F 18 /0m', 'prefetchnta Mb', nothing),
  insn('0F 18 /1m', 'prefetcht0 Mb', nothing),
  insn('0F 18 /2m', 'prefetcht1 Mb', nothing),
  insn('0F 18 /3m', 'prefetcht2 Mb', nothing),

  insn('0F 01 C1', 'vmcall', { ends: true }, callHost),
  insn('0F 01 D9', 'vmmcall', { ends: true }, callHost),

  ...['NP', '66'].flatMap((prefix) => [
    insn(`${prefix} 0F C7 /6r`, 'rdrand Rv', drawRandom),
    insn(`${prefix} 0F C7 /7r`, 'rdseed Rv', drawRandom),
  ]),

  insn('NP 0F 01 EE', 'rdpkru', (c) => {
    const b = c.b;
    c.raiseIf(b.eqz(b.and(b.wrap(c.get(st.cr4)), b.i32(CR4.pke))), X.ud);
    c.gpIf(c.reg(R.rcx, 32));
    c.setReg(R.rax, 32, c.get(st.pkru));
    c.setReg(R.rdx, 32, b.i32(0));
  }),
  insn('NP 0F 01 EF', 'wrpkru', (c) => {
    const b = c.b;
    c.raiseIf(b.eqz(b.and(b.wrap(c.get(st.cr4)), b.i32(CR4.pke))), X.ud);
    c.gpIf(b.or(c.reg(R.rcx, 32), c.reg(R.rdx, 32)));
    c.do(writePkru, c.reg(R.rax, 32));
  }),
  insn('NP 0F 01 CA', 'clac', alignment(0)),
  insn('NP 0F 01 CB', 'stac', alignment(1)),

  insn('0F FF', 'ud0 Gv,Ev', undefinedOpcode),
  insn('0F B9', 'ud1 Gv,Ev', undefinedOpcode),
  insn('0F 0B', 'ud2', undefinedOpcode),
];
