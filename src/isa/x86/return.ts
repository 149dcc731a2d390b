// Far RET and IRET in every mode (Intel SDM volume 2, IRET, RET; volume 3, sections 5.8.6, 6.12.1, 7.4 and 20.2).

import type { Value } from '../../ir/ir.ts';
import { isCanonical } from './canonical.ts';
import { updateContext } from './context.ts';
import type { Emit } from './emit.ts';
import { checkTarget, longAndBig } from './far.ts';
import { popVirtualFlags, unpackFlags, virtualInterrupts, writableFlags } from './flags.ts';
import { commitFrame, frameCurrent, framePop, skipFrame } from './frame.ts';
import { Attr, anyOf, checkStackSegment, descAttr, dpl, F, failIf, inLongCode, inLongMode, inProtectedMode, isNull, markAccessed, readDescriptor, rpl, setNullSegment, setRealCs, setSegment, setV86Segment } from './segments.ts'; // biome-ignore format: one line
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { sub } from './sub.ts';
import { finishTask, switchTask, TaskSource } from './tasks.ts';

/** IRET lets NMIs through again; one that waits is taken at once. */
function unblockNmi(c: Emit): void {
  const b = c.b;
  c.set(st.nmiBlocked, b.i32(0));
  b.if(c.get(st.nmiPending), () => c.set(st.kick, b.or(c.get(st.kick), b.i32(1))));
}

/** The descriptor of the code segment that a far return goes to, checked. */
const returnCode = sub('returnCode', ['i32'], 'i64', { faults: true }, (c, selector) => {
  const b = c.b;
  const gp = b.i32(X.gp);
  failIf(c, isNull(c, selector), gp, b.i32(0));
  const desc = c.call(readDescriptor, selector, gp);
  const attr = descAttr(c, desc);
  const level = rpl(c, selector);
  const notCode = b.ne(b.and(attr, b.i32(Attr.s | Attr.code)), b.i32(Attr.s | Attr.code));
  const wrong = b.select(b.and(attr, b.i32(Attr.conforming)), b.gtu(dpl(c, attr), level), b.ne(dpl(c, attr), level));
  failIf(c, b.or(b.or(notCode, wrong), b.or(b.ltu(level, c.get(st.cpl)), longAndBig(c, attr))), gp, selector);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), b.i32(X.np), selector);
  b.ret(markAccessed(c, selector, desc));
});

/** The descriptor of the stack segment that goes with it, checked; 0 for a null selector that 64-bit code below CPL 3 may have. */
const returnStack = sub('returnStack', ['i32', 'i32', 'i64'], 'i64', { faults: true }, (c, selector, level, code) => {
  const b = c.b;
  const gp = b.i32(X.gp);
  b.if(isNull(c, selector), () => {
    const long = b.and(inLongMode(c), b.wrap(b.and(b.shru(code, b.i64(53)), b.i64(1))));
    const allowed = b.and(long, b.and(b.ne(level, b.i32(3)), b.eq(rpl(c, selector), level)));
    failIf(c, b.eqz(allowed), gp, b.i32(0));
    b.ret(b.i64(0));
  });
  const desc = c.call(readDescriptor, selector, gp);
  checkStackSegment(c, selector, desc, level, gp);
  b.ret(markAccessed(c, selector, desc));
});

/** Makes the data segment registers unusable that privilege `level` (i32) may not keep. */
export const dropSegments = sub('dropSegments', ['i32'], null, {}, (c, level) => {
  const b = c.b;
  const dropped = b.variable(b.i32(0));
  for (const s of [S.es, S.ds, S.fs, S.gs]) {
    const attr = c.get(st.segAttr[s]);
    const usable = b.eqz(b.and(attr, b.i32(Attr.unusable)));
    b.if(b.and(usable, b.ltu(dpl(c, attr), level)), () => {
      const conforming = b.eq(b.and(attr, b.i32(Attr.code | Attr.conforming)), b.i32(Attr.code | Attr.conforming));
      b.if(b.eqz(conforming), () => {
        // Base and limit stay: kernels have GS hold their own data's base under a selector of theirs.
        c.set(st.segAttr[s], b.i32(Attr.unusable));
        c.set(st.segSelector[s], b.i32(0));
        b.setVar(dropped, b.i32(1));
      });
    });
  }
  b.if(b.getVar(dropped), () => c.do(updateContext));
  b.ret();
});

/** Loads SS with a checked descriptor, or a null selector for descriptor 0. */
function setStack(c: Emit, selector: Value, desc: Value, level: Value): void {
  const b = c.b;
  b.if(
    b.eqz(desc),
    () => setNullSegment(c, b.i32(S.ss), selector, level),
    () => setSegment(c, b.i32(S.ss), selector, desc),
  );
}

/** Flags of an IRET: RF counts only while breakpoints are enabled, because nothing else clears or reads it. */
function returnFlags(c: Emit, image: Value, wide: Value, realMode = false): void {
  const b = c.b;
  const breakpoints = anyOf(c, b.wrap(c.get(st.dr[7])), 0xff);
  const rf = b.shl(b.and(wide, breakpoints), b.i32(16));
  const virtual = realMode ? b.i32(0) : b.select(b.or(c.get(st.cpl), b.eqz(wide)), b.i32(0), b.i32(F.vif | F.vip));
  const mask = b.or(writableFlags(c, wide), virtual);
  const clean = b.or(b.and(image, b.i32(~F.rf)), b.and(image, rf));
  c.do(unpackFlags, clean, b.or(mask, b.select(wide, b.i32(F.rf), b.i32(0))));
}

/** Far RET: `bytes` (i32) of the operand size, `extra` (i64) bytes of parameters to drop. */
export const farReturn = sub('farReturn', ['i32', 'i64'], null, { faults: true }, (c, bytes, extra) => {
  const b = c.b;
  c.do(frameCurrent, bytes);
  const ip = c.call(framePop);
  const selector = b.and(b.wrap(c.call(framePop)), b.i32(0xffff));
  b.if(b.eqz(inProtectedMode(c)), () => {
    c.gpIf(b.gtu(ip, b.extu(c.get(st.segLimit[S.cs]))));
    skipFrame(c, extra);
    commitFrame(c);
    setRealCs(c, selector);
    c.set(st.rip, ip);
    c.do(updateContext);
    b.ret();
  });
  const code = c.call(returnCode, selector);
  const level = rpl(c, selector);
  skipFrame(c, extra);
  b.if(
    b.gtu(level, c.get(st.cpl)),
    () => {
      const sp = c.call(framePop);
      const ss = b.and(b.wrap(c.call(framePop)), b.i32(0xffff));
      const stack = c.call(returnStack, ss, level, code);
      checkTarget(c, ip, code);
      setStack(c, ss, stack, level);
      setSegment(c, b.i32(S.cs), selector, code);
      c.set(st.cpl, level);
      c.do(updateContext);
      const mask = c.get(st.spMask);
      const moved = b.and(b.add(sp, extra), mask);
      c.set(st.gpr[R.rsp], b.select(b.eq(mask, b.i64(0xffff)), b.or(b.and(sp, b.i64(~0xffff)), moved), moved));
      c.do(dropSegments, level);
    },
    () => {
      checkTarget(c, ip, code);
      commitFrame(c);
      setSegment(c, b.i32(S.cs), selector, code);
      c.do(updateContext);
    },
  );
  c.set(st.rip, ip);
  b.ret();
});

/** IRET in real mode, and in virtual-8086 mode with IOPL 3 or, for 16 bits, with CR4.VME. */
const iretReal = sub('iretReal', ['i32'], null, { faults: true }, (c, bytes) => {
  const b = c.b;
  const wide = b.eq(bytes, b.i32(4));
  const virtual = c.call(virtualInterrupts, wide);
  c.do(frameCurrent, bytes);
  const ip = c.call(framePop);
  const selector = b.and(b.wrap(c.call(framePop)), b.i32(0xffff));
  const image = b.wrap(c.call(framePop));
  c.gpIf(b.gtu(ip, b.extu(c.get(st.segLimit[S.cs]))));
  b.if(
    virtual,
    () => c.do(popVirtualFlags, image),
    () => {
      // IOPL is out of reach in virtual-8086 mode; in real mode, at CPL 0, it is not.
      returnFlags(c, image, wide, true);
    },
  );
  commitFrame(c);
  setRealCs(c, selector);
  c.set(st.rip, ip);
  c.do(updateContext);
  unblockNmi(c);
  b.ret();
});

/** IRET to virtual-8086 mode: the frame holds the whole context of the 8086 program. */
const iretV86 = sub('iretV86', ['i64', 'i32', 'i32'], null, { faults: true }, (c, ip, cs, image) => {
  const b = c.b;
  const sp = c.call(framePop);
  const order = [S.ss, S.es, S.ds, S.fs, S.gs];
  const selectors = order.map(() => b.and(b.wrap(c.call(framePop)), b.i32(0xffff)));
  c.do(unpackFlags, image, b.i32(F.tf | F.if | F.df | F.iopl | F.nt | F.vm | F.ac | F.vif | F.vip | F.id));
  setV86Segment(c, b.i32(S.cs), cs);
  order.forEach((s, i) => {
    setV86Segment(c, b.i32(s), selectors[i]);
  });
  c.set(st.gpr[R.rsp], sp);
  c.set(st.rip, b.and(ip, b.i64(0xffff)));
  c.set(st.cpl, b.i32(3));
  c.do(updateContext);
  unblockNmi(c);
  b.ret();
});

/** IRET with RFLAGS.NT: back to the task that the TSS links to. */
const iretTask = sub('iretTask', ['i64'], null, { faults: true }, (c, nextIp) => {
  const b = c.b;
  const link = c.load(c.get(st.segBase[S.tr]), 16, { system: true });
  c.do(switchTask, link, b.i32(TaskSource.iret), b.i32(0), nextIp);
  finishTask(c);
  unblockNmi(c);
  b.ret();
});

/** Every IRET but that of 64 bits in 64-bit code. */
const iretSlow = sub('iretSlow', ['i32', 'i64'], null, { faults: true }, (c, bytes, nextIp) => {
  const b = c.b;
  b.if(b.eqz(inProtectedMode(c)), () => {
    c.do(iretReal, bytes);
    b.ret();
  });
  b.if(anyOf(c, c.get(st.sysFlags), F.nt), () => {
    c.gpIf(inLongMode(c));
    c.do(iretTask, nextIp);
    b.ret();
  });
  c.do(frameCurrent, bytes);
  const ip = c.call(framePop);
  const selector = b.and(b.wrap(c.call(framePop)), b.i32(0xffff));
  const image = b.wrap(c.call(framePop));
  const wide = b.gtu(bytes, b.i32(2));
  const toV86 = b.and(b.and(anyOf(c, image, F.vm), b.eqz(c.get(st.cpl))), b.and(wide, b.eqz(inLongMode(c))));
  b.if(toV86, () => {
    c.do(iretV86, ip, selector, image);
    b.ret();
  });
  const code = c.call(returnCode, selector);
  const level = rpl(c, selector);
  const outer = b.gtu(level, c.get(st.cpl));
  b.if(
    b.or(outer, inLongCode(c)),
    () => {
      const sp = c.call(framePop);
      const ss = b.and(b.wrap(c.call(framePop)), b.i32(0xffff));
      const stack = c.call(returnStack, ss, level, code);
      checkTarget(c, ip, code);
      returnFlags(c, image, wide);
      setStack(c, ss, stack, level);
      setSegment(c, b.i32(S.cs), selector, code);
      c.set(st.cpl, level);
      c.do(updateContext);
      const mask = c.get(st.spMask);
      const big = b.ne(mask, b.i64(0xffff));
      c.set(st.gpr[R.rsp], b.select(big, b.and(sp, mask), b.or(b.and(c.reg(R.rsp), b.i64(~0xffff)), b.and(sp, mask))));
      b.if(outer, () => c.do(dropSegments, level));
    },
    () => {
      checkTarget(c, ip, code);
      returnFlags(c, image, wide);
      commitFrame(c);
      setSegment(c, b.i32(S.cs), selector, code);
      c.do(updateContext);
    },
  );
  c.set(st.rip, ip);
  unblockNmi(c);
  b.ret();
});

/** IRET: `bytes` (i32) of the operand size; `nextIp` (i64) is what a task that ends by it resumes at. Sets `rip` and the context. */
export const interruptReturn = sub('interruptReturn', ['i32', 'i64'], null, { faults: true }, (c, bytes, nextIp) => {
  const b = c.b;
  const sp = c.reg(R.rsp);
  const nested = anyOf(c, c.get(st.sysFlags), F.nt);
  const quick = b.and(b.and(inLongCode(c), b.eq(bytes, b.i32(8))), b.and(b.eqz(nested), isCanonical(c, b.add(sp, b.i64(39)))));
  b.if(b.eqz(quick), () => {
    c.do(iretSlow, bytes, nextIp);
    b.ret();
  });
  const pop = (i: number): Value => c.load(b.add(sp, b.i64(i * 8)), 64);
  const ip = pop(0);
  const selector = b.and(b.wrap(pop(1)), b.i32(0xffff));
  const image = b.wrap(pop(2));
  const newSp = pop(3);
  const ss = b.and(b.wrap(pop(4)), b.i32(0xffff));
  const code = c.call(returnCode, selector);
  const level = rpl(c, selector);
  const stack = c.call(returnStack, ss, level, code);
  checkTarget(c, ip, code);
  returnFlags(c, image, b.i32(1));
  setSegment(c, b.i32(S.cs), selector, code);
  setStack(c, ss, stack, level);
  b.if(b.ne(level, c.get(st.cpl)), () => {
    c.set(st.cpl, level);
    c.do(dropSegments, level);
  });
  c.do(updateContext);
  // A return to compatibility mode has a stack pointer of 32 bits.
  c.set(st.gpr[R.rsp], b.and(newSp, b.select(inLongCode(c), b.i64(-1), b.i64(0xffffffffn))));
  c.set(st.rip, ip);
  unblockNmi(c);
  b.ret();
});
