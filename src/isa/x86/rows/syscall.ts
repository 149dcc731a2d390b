// Fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT (Intel SDM volume 2; AMD64 manual volume 2, section 6.1, for SYSCALL and SYSRET
// outside 64-bit code, which Intel refuses).

import type { Value } from '../../../ir/ir.ts';
import { isCanonical } from '../canonical.ts';
import { updateContext } from '../context.ts';
import type { Emit } from '../emit.ts';
import { resume } from '../far.ts';
import { packFlags, unpackFlags } from '../flags.ts';
import { insn, type Row } from '../row.ts';
import { Attr, anyOf, F, inLongCode, inLongMode } from '../segments.ts';
import * as st from '../state.ts';
import { Ctx, R, S, Trap, X } from '../state.ts';
import { sub } from '../sub.ts';

const CODE = 0xb | Attr.s | Attr.present | Attr.granular;
const DATA = 0x3 | Attr.s | Attr.present | Attr.granular | Attr.big;
const EVERY_FLAG = F.tf | F.if | F.df | F.iopl | F.nt | F.rf | F.vm | F.ac | F.vif | F.vip | F.id;

/** Loads CS and SS with flat segments of privilege `level`. `long` (i32): 64-bit code, else 32-bit. */
function flatSegments(c: Emit, cs: Value, ss: Value, level: 0 | 3, long: Value): void {
  const b = c.b;
  const load = (n: number, selector: Value, attr: Value): void => {
    c.set(st.segBase[n], b.i64(0));
    c.set(st.segLimit[n], b.i32(-1));
    c.set(st.segAttr[n], attr);
    c.set(st.segSelector[n], level ? b.or(selector, b.i32(level)) : selector);
  };
  const privilege = level << 5;
  load(S.cs, cs, b.select(long, b.i32(CODE | Attr.long | privilege), b.i32(CODE | Attr.big | privilege)));
  load(S.ss, ss, b.i32(DATA | privilege));
  c.set(st.cpl, b.i32(level));
}

/** #UD unless EFER.SCE is set and the mode is protected. */
function needSyscall(c: Emit): void {
  const b = c.b;
  const enabled = b.wrap(b.and(c.get(st.efer), b.i64(1)));
  c.raiseIf(b.or(b.eqz(enabled), b.eqz(b.and(c.get(st.ctx), b.i32(Ctx.protected)))), X.ud);
}

/** The selector in an MSR from bit `at`, its RPL cleared. */
const selectorAt = (c: Emit, msr: Value, at: number): Value => c.b.and(c.b.wrap(c.b.shru(msr, c.b.i64(at))), c.b.i32(0xfffc));

/**
 * TF as it is after SYSCALL and SYSRET decides on a single-step trap there, not as it was before: none in a kernel that masks TF, one at
 * the instruction that a kernel with R11.TF returns to. Breakpoints that MOV SS holds off strike as ever.
 */
function stepByLoaded(c: Emit, flags: Value): void {
  const b = c.b;
  const step = b.and(b.shru(flags, b.i32(8)), b.i32(Trap.step));
  c.set(st.stepTrap, b.or(b.and(c.get(st.stepTrap), b.i32(~Trap.step)), step));
}

const systemCall = sub('systemCall', ['i64'], null, { faults: true }, (c, nextIp) => {
  const b = c.b;
  needSyscall(c);
  const star = c.get(st.star);
  const cs = selectorAt(c, star, 32);
  const ss = b.add(cs, b.i32(8));
  c.set(st.gpr[R.rcx], nextIp);
  b.if(
    inLongMode(c),
    () => {
      const flags = b.and(c.call(packFlags), b.i32(~F.rf));
      const masked = b.and(flags, b.not(b.wrap(c.get(st.sfmask))));
      const target = b.select(inLongCode(c), c.get(st.lstar), c.get(st.cstar));
      c.set(st.gpr[R.r11], b.extu(flags));
      c.do(unpackFlags, masked, b.i32(EVERY_FLAG));
      c.set(st.rip, target);
      flatSegments(c, cs, ss, 0, b.i32(1));
      stepByLoaded(c, masked);
    },
    () => {
      c.set(st.sysFlags, b.and(c.get(st.sysFlags), b.i32(~(F.if | F.vm | F.rf))));
      c.set(st.rip, b.and(star, b.i64(0xffffffffn)));
      flatSegments(c, cs, ss, 0, b.i32(0));
    },
  );
  c.do(updateContext);
  b.ret();
});

const systemReturn = sub('systemReturn', ['i32'], null, { faults: true }, (c, wide) => {
  const b = c.b;
  needSyscall(c);
  c.gpIf(c.get(st.cpl));
  const target = c.reg(R.rcx);
  c.gpIf(b.and(wide, b.eqz(isCanonical(c, target))));
  const star = c.get(st.star);
  const base = selectorAt(c, star, 48);
  b.if(
    inLongMode(c),
    () => {
      const image = b.and(c.reg(R.r11, 32), b.i32(0x3c7fd7));
      c.do(unpackFlags, image, b.i32(EVERY_FLAG));
      stepByLoaded(c, image);
    },
    () => c.set(st.sysFlags, b.or(c.get(st.sysFlags), b.i32(F.if))),
  );
  c.set(st.rip, b.select(wide, target, b.and(target, b.i64(0xffffffffn))));
  flatSegments(c, b.select(wide, b.add(base, b.i32(16)), base), b.add(base, b.i32(8)), 3, wide);
  c.do(updateContext);
  b.ret();
});

const systemEnter = sub('systemEnter', [], null, { faults: true }, (c) => {
  const b = c.b;
  const cs = selectorAt(c, c.get(st.sysenterCs), 0);
  c.gpIf(b.or(b.eqz(cs), b.eqz(b.and(c.get(st.ctx), b.i32(Ctx.protected)))));
  const long = inLongMode(c);
  const mask = b.select(long, b.i64(-1), b.i64(0xffffffffn));
  c.set(st.sysFlags, b.and(c.get(st.sysFlags), b.i32(~(F.if | F.vm | F.rf))));
  c.set(st.gpr[R.rsp], b.and(c.get(st.sysenterEsp), mask));
  c.set(st.rip, b.and(c.get(st.sysenterEip), mask));
  flatSegments(c, cs, b.add(cs, b.i32(8)), 0, long);
  c.do(updateContext);
  b.ret();
});

const systemExit = sub('systemExit', ['i32'], null, { faults: true }, (c, wide) => {
  const b = c.b;
  const cs = selectorAt(c, c.get(st.sysenterCs), 0);
  const unprotected = b.eqz(anyOf(c, c.get(st.ctx), Ctx.protected));
  c.gpIf(b.or(b.or(b.eqz(cs), unprotected), c.get(st.cpl)));
  const ip = c.reg(R.rdx);
  const sp = c.reg(R.rcx);
  c.gpIf(b.and(wide, b.eqz(b.and(isCanonical(c, ip), isCanonical(c, sp)))));
  const mask = b.select(wide, b.i64(-1), b.i64(0xffffffffn));
  c.set(st.rip, b.and(ip, mask));
  c.set(st.gpr[R.rsp], b.and(sp, mask));
  const target = b.add(cs, b.select(wide, b.i32(32), b.i32(16)));
  flatSegments(c, target, b.add(target, b.i32(8)), 3, wide);
  c.do(updateContext);
  b.ret();
});

export const syscallRows: readonly Row[] = [
  insn('0F 05', 'syscall', { ends: true }, (c) => {
    c.do(systemCall, c.nextIp());
    resume(c);
  }),
  insn('0F 07', 'sysret', { ends: true }, (c) => {
    c.do(systemReturn, c.b.i32(c.size === 64 ? 1 : 0));
    resume(c);
  }),
  insn('0F 34', 'sysenter', { ends: true }, (c) => {
    c.do(systemEnter);
    resume(c);
  }),
  insn('0F 35', 'sysexit', { ends: true }, (c) => {
    c.do(systemExit, c.b.i32(c.size === 64 ? 1 : 0));
    resume(c);
  }),
];
