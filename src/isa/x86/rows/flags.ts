// Instructions on RFLAGS: PUSHF, POPF, CLI, STI, LAHF, SAHF, carry and direction (Intel SDM volume 2; volume 3, section 20.3 for VME and PVI).

import type { Value } from '../../../ir/ir.ts';
import type { InsnEmit } from '../emit.ts';
import { packFlags, popFlags, popVirtualFlags, virtualImage, virtualInterrupts } from '../flags.ts';
import { insn, type Row } from '../row.ts';
import { anyOf, F } from '../segments.ts';
import * as st from '../state.ts';
import { R, S, Shadow } from '../state.ts';
import { sub } from '../sub.ts';

/** RFLAGS for PUSHF outside 64-bit code. */
const legacyImage = sub('legacyImage', ['i32'], 'i32', { faults: true }, (c, wide) => {
  const b = c.b;
  const virtual = c.call(virtualInterrupts, wide);
  const flags = c.call(packFlags);
  b.ret(b.select(virtual, virtualImage(c, flags), flags));
});

/** POPF outside 64-bit code. */
const legacyPop = sub('legacyPop', ['i32', 'i32'], null, { faults: true }, (c, image, wide) => {
  const b = c.b;
  b.if(
    c.call(virtualInterrupts, wide),
    () => c.do(popVirtualFlags, image),
    () => c.do(popFlags, image, wide),
  );
  b.ret();
});

/** CLI (`set` 0) or STI (1) where CPL is above IOPL: on VIF with VME in virtual-8086 mode or PVI at CPL 3, else #GP(0). */
const virtualIf = sub('virtualIf', ['i32'], null, { faults: true }, (c, set) => {
  const b = c.b;
  const flags = c.get(st.sysFlags);
  const cr4 = b.wrap(c.get(st.cr4));
  // CR4.VME is bit 0, CR4.PVI bit 1.
  const enabled = b.select(b.and(flags, b.i32(F.vm)), b.and(cr4, b.i32(1)), b.and(cr4, b.i32(2)));
  const refused = b.or(b.eqz(enabled), b.ne(c.get(st.cpl), b.i32(3)));
  c.gpIf(b.or(refused, b.and(set, anyOf(c, flags, F.vip))));
  c.set(st.sysFlags, b.or(b.and(flags, b.i32(~F.vif)), b.select(set, b.i32(F.vif), b.i32(0))));
  b.ret();
});

/** Where IF has just been set and an interrupt may wait: no instruction more than the shadow allows. `before`: the flags before. */
function takeWaiting(c: InsnEmit, before: Value): void {
  const b = c.b;
  const opened = b.and(b.and(b.not(before), c.get(st.sysFlags)), b.i32(F.if));
  b.if(b.and(b.ne(opened, b.i32(0)), b.ne(c.get(st.kick), b.i32(0))), () => c.resync());
}

export const flagRows: readonly Row[] = [
  insn('9C', 'pushf', { size: 'd64' }, (c) => {
    const b = c.b;
    // Flat segments are not those of virtual-8086 mode.
    const all = c.long || c.flatIn(S.ss) ? c.rflags() : c.call(legacyImage, b.i32(c.size === 16 ? 0 : 1));
    const image = b.and(all, b.i32(c.size === 16 ? 0xffff : ~(F.vm | F.rf)));
    c.push(c.size === 64 ? b.extu(image) : image, c.size);
  }),
  insn('9D', 'popf', { size: 'd64', ends: true }, (c) => {
    const b = c.b;
    const { value, done } = c.pop(c.size);
    const before = c.get(st.ctx);
    const flags = c.get(st.sysFlags);
    c.do(c.long ? popFlags : legacyPop, b.wrap(value), b.i32(c.size === 16 ? 0 : 1));
    done();
    b.if(b.ne(c.get(st.ctx), before), () => c.resync());
    takeWaiting(c, flags);
  }),
  insn('FA', 'cli', (c) => {
    const b = c.b;
    const flags = c.get(st.sysFlags);
    b.if(
      b.gtu(c.get(st.cpl), b.and(b.shru(flags, b.i32(12)), b.i32(3))),
      () => c.do(virtualIf, b.i32(0)),
      () => c.set(st.sysFlags, b.and(flags, b.i32(~F.if))),
    );
  }),
  insn('FB', 'sti', { ends: true }, (c) => {
    const b = c.b;
    const flags = c.get(st.sysFlags);
    b.if(
      b.gtu(c.get(st.cpl), b.and(b.shru(flags, b.i32(12)), b.i32(3))),
      () => c.do(virtualIf, b.i32(1)),
      () => {
        // Interrupts stay off for one more instruction only where they were off before.
        b.if(b.eqz(b.and(flags, b.i32(F.if))), () => c.set(st.shadow, b.i32(Shadow.sti)));
        c.set(st.sysFlags, b.or(flags, b.i32(F.if)));
      },
    );
    takeWaiting(c, flags);
  }),
  insn('9F', 'lahf', (c) => {
    const b = c.b;
    const low = b.and(c.call(packFlags), b.i32(0xff));
    c.set(st.gpr[R.rax], b.or(b.and(c.reg(R.rax), b.i64(~0xff00)), b.shl(b.extu(low), b.i64(8))));
  }),
  insn('9E', 'sahf', (c) => {
    if (c.flagsLive) c.setArithmeticFlags(c.b.shru(c.reg(R.rax, 32), c.b.i32(8)), 0xd5);
  }),
  insn('F5', 'cmc', (c) => c.setC(c.b.xor(c.cf(), c.b.i32(1)))),
  insn('F8', 'clc', (c) => c.setC(c.b.i32(0))),
  insn('F9', 'stc', (c) => c.setC(c.b.i32(1))),
  insn('FC', 'cld', (c) => c.set(st.sysFlags, c.b.and(c.get(st.sysFlags), c.b.i32(~F.df)))),
  insn('FD', 'std', (c) => c.set(st.sysFlags, c.b.or(c.get(st.sysFlags), c.b.i32(F.df)))),
];
