// Far JMP and CALL: code segments, call gates, task gates and TSS (Intel SDM volume 3, sections 5.8 and 7.3; volume 2, CALL, JMP).

import type { Value } from '../../ir/ir.ts';
import { isCanonical } from './canonical.ts';
import { updateContext } from './context.ts';
import type { Emit, InsnEmit } from './emit.ts';
import { commitFrame, Frame, frameCurrent, frameFlat, frameOn, framePush } from './frame.ts';
import { stackFromTss, stackFromTss64 } from './gate.ts';
import { Attr, anyOf, checkStackSegment, descAttr, descLimit, dpl, fail, failIf, inLongMode, inProtectedMode, isNull, markAccessed, readDescriptor, readUpperDescriptor, rpl, segCheck, setNullSegment, setRealCs, setSegment } from './segments.ts'; // biome-ignore format: one line
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { sub } from './sub.ts';
import { finishTask, switchTask } from './tasks.ts';

/** `how` of a far transfer: bytes of the operand size in bits 0–7, and this bit for CALL. */
export const FAR_CALL = 0x100;

/** Ends a row after `rip` and perhaps mode, privilege and CS have been set by a subroutine. */
export function resume(c: InsnEmit): void {
  c.jump(c.get(st.rip));
}

/** #GP(0) unless `ip` (i64) lies in the code segment of this descriptor: canonical in 64-bit code, within the limit elsewhere. */
export function checkTarget(c: Emit, ip: Value, desc: Value): void {
  const b = c.b;
  const long = b.and(inLongMode(c), b.wrap(b.and(b.shru(desc, b.i64(53)), b.i64(1))));
  c.gpIf(b.select(long, b.eqz(isCanonical(c, ip)), b.gtu(ip, b.extu(descLimit(c, desc)))));
}
/** 1 where an `attr` has both L and D set in IA-32e mode: no code segment. */
export const longAndBig = (c: Emit, attr: Value): Value => c.b.and(inLongMode(c), c.b.eq(c.b.and(attr, c.b.i32(Attr.long | Attr.big)), c.b.i32(Attr.long | Attr.big))); // biome-ignore format: one line

/** Pushes CS and the return address on the frame. */
function pushReturn(c: Emit, nextIp: Value): void {
  c.do(framePush, c.b.extu(c.get(st.segSelector[S.cs])));
  c.do(framePush, nextIp);
}
function enterCode(c: Emit, selector: Value, level: Value, desc: Value, ip: Value): void {
  const b = c.b;
  setSegment(c, b.i32(S.cs), b.or(b.and(selector, b.i32(0xfffc)), level), desc);
  c.set(st.cpl, level);
  c.set(st.rip, ip);
  c.do(updateContext);
}

/** Through a call gate to an inner privilege level: a new stack with the old one's address and parameters on it. */
const callInner = sub(
  'callInner',
  ['i32', 'i64', 'i64', 'i64', 'i64'],
  null,
  { faults: true },
  (c, selector, code, gate, target, nextIp) => {
    const b = c.b;
    const level = dpl(c, descAttr(c, code));
    const oldSs = b.extu(c.get(st.segSelector[S.ss]));
    b.if(inLongMode(c), () => {
      const sp = c.call(stackFromTss64, level, b.i32(0), b.i32(0));
      const marked = markAccessed(c, selector, code);
      frameFlat(c, sp, b.i32(8 | Frame.system));
      c.do(framePush, oldSs);
      c.do(framePush, c.reg(R.rsp));
      pushReturn(c, nextIp);
      c.set(st.gpr[R.rsp], c.get(st.frameSp));
      setNullSegment(c, b.i32(S.ss), level, level);
      enterCode(c, selector, level, marked, target);
      b.ret();
    });
    const bytes = b.select(b.and(descAttr(c, gate), b.i32(8)), b.i32(4), b.i32(2));
    const stack = c.call(stackFromTss, level, b.i32(0));
    const ss = b.wrap(b.shru(stack, b.i64(32)));
    const ts = b.i32(X.ts);
    failIf(c, isNull(c, ss), ts, b.i32(0));
    const ssFound = c.call(readDescriptor, ss, ts);
    checkStackSegment(c, ss, ssFound, level, ts);
    const ssDesc = markAccessed(c, ss, ssFound);
    const error = b.shl(b.and(ss, b.i32(0xfffc)), b.i32(16));
    c.do(frameOn, ssDesc, b.and(stack, b.i64(0xffffffffn)), b.or(b.or(bytes, b.i32(Frame.system)), error));
    c.do(framePush, oldSs);
    c.do(framePush, c.reg(R.rsp));
    const left = b.variable(b.and(b.wrap(b.shru(gate, b.i64(32))), b.i32(0x1f)));
    b.block((done) => {
      b.loop((again) => {
        const n = b.getVar(left);
        b.br(done, b.eqz(n));
        const index = b.sub(n, b.i32(1));
        b.setVar(left, index);
        const offset = b.and(b.add(c.reg(R.rsp), b.extu(b.mul(index, bytes))), c.get(st.spMask));
        const address = c.call(segCheck, b.i32(S.ss), offset, bytes);
        const value = c.choose(
          'i32',
          b.eq(bytes, b.i32(4)),
          () => c.load(address, 32),
          () => c.load(address, 16),
        );
        c.do(framePush, b.extu(value));
        b.br(again);
      });
    });
    pushReturn(c, nextIp);
    const desc = markAccessed(c, selector, code);
    commitFrame(c);
    setSegment(c, b.i32(S.ss), ss, ssDesc);
    enterCode(c, selector, level, desc, target);
    b.ret();
  },
);

/** Through a call gate. */
const farGate = sub('farGate', ['i32', 'i64', 'i32', 'i64'], null, { faults: true }, (c, gateSelector, gate, how, nextIp) => {
  const b = c.b;
  const long = inLongMode(c);
  const wide = b.and(descAttr(c, gate), b.i32(8));
  const gp = b.i32(X.gp);
  const upper = c.choose(
    'i64',
    long,
    () => c.call(readUpperDescriptor, gateSelector, gp),
    () => b.i64(0),
  );
  const selector = b.and(b.wrap(b.shru(gate, b.i64(16))), b.i32(0xffff));
  const middle = b.and(b.shru(gate, b.i64(32)), b.select(wide, b.i64(0xffff0000n), b.i64(0)));
  const target = b.or(b.or(b.and(gate, b.i64(0xffff)), middle), b.shl(upper, b.i64(32)));
  failIf(c, isNull(c, selector), gp, b.i32(0));
  const code = c.call(readDescriptor, selector, gp);
  const attr = descAttr(c, code);
  const cpl = c.get(st.cpl);
  const level = dpl(c, attr);
  const notCode = b.ne(b.and(attr, b.i32(Attr.s | Attr.code)), b.i32(Attr.s | Attr.code));
  const notLong = b.and(long, b.ne(b.and(attr, b.i32(Attr.long | Attr.big)), b.i32(Attr.long)));
  const inner = b.and(b.eqz(b.and(attr, b.i32(Attr.conforming))), b.ltu(level, cpl));
  const isCall = anyOf(c, how, FAR_CALL);
  const refused = b.and(inner, b.eqz(isCall));
  failIf(c, b.or(b.or(notCode, notLong), b.or(b.gtu(level, cpl), refused)), gp, selector);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), b.i32(X.np), selector);
  checkTarget(c, target, code);
  b.if(inner, () => {
    c.do(callInner, selector, code, gate, target, nextIp);
    b.ret();
  });
  const bytes = b.select(long, b.i32(8), b.select(wide, b.i32(4), b.i32(2)));
  const desc = markAccessed(c, selector, code);
  b.if(isCall, () => {
    c.do(frameCurrent, bytes);
    pushReturn(c, nextIp);
    commitFrame(c);
  });
  enterCode(c, selector, cpl, desc, target);
  b.ret();
});

/** To a system descriptor: a gate or a TSS. */
const farSystem = sub('farSystem', ['i32', 'i64', 'i32', 'i64'], null, { faults: true }, (c, selector, desc, how, nextIp) => {
  const b = c.b;
  const attr = descAttr(c, desc);
  const type = b.and(attr, b.i32(0xf));
  const gp = b.i32(X.gp);
  // In IA-32e mode the 64-bit call gate alone is left of 1, 4, 5, 9 and 12.
  const allowed = b.and(b.shru(b.select(inLongMode(c), b.i32(1 << 12), b.i32(0x1232)), type), b.i32(1));
  const level = dpl(c, attr);
  failIf(c, b.or(b.eqz(allowed), b.or(b.ltu(level, c.get(st.cpl)), b.ltu(level, rpl(c, selector)))), gp, selector);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), b.i32(X.np), selector);
  b.if(b.eq(b.and(type, b.i32(7)), b.i32(4)), () => {
    c.do(farGate, selector, desc, how, nextIp);
    b.ret();
  });
  const inGate = b.and(b.wrap(b.shru(desc, b.i64(16))), b.i32(0xffff));
  const tss = b.select(b.eq(type, b.i32(5)), inGate, selector);
  c.do(switchTask, tss, b.shru(how, b.i32(8)), b.i32(0), nextIp);
  finishTask(c);
  b.ret();
});

/**
 * Far JMP or CALL to `selector` (i32) and `offset` (i64). `how` (i32): see `FAR_CALL`; `nextIp` (i64): the address after the instruction.
 * Sets `rip` and the context of the target.
 */
export const farTransfer = sub(
  'farTransfer',
  ['i32', 'i64', 'i32', 'i64'],
  null,
  { faults: true },
  (c, selector, offset, how, nextIp) => {
    const b = c.b;
    const bytes = b.and(how, b.i32(0xff));
    const isCall = anyOf(c, how, FAR_CALL);
    b.if(b.eqz(inProtectedMode(c)), () => {
      c.gpIf(b.gtu(offset, b.extu(c.get(st.segLimit[S.cs]))));
      b.if(isCall, () => {
        c.do(frameCurrent, bytes);
        pushReturn(c, nextIp);
        commitFrame(c);
      });
      setRealCs(c, selector);
      c.set(st.rip, offset);
      c.do(updateContext);
      b.ret();
    });
    const gp = b.i32(X.gp);
    failIf(c, isNull(c, selector), gp, b.i32(0));
    const found = c.call(readDescriptor, selector, gp);
    const attr = descAttr(c, found);
    b.if(b.eqz(b.and(attr, b.i32(Attr.s))), () => {
      c.do(farSystem, selector, found, how, nextIp);
      b.ret();
    });
    const cpl = c.get(st.cpl);
    const level = dpl(c, attr);
    b.if(b.eqz(b.and(attr, b.i32(Attr.code))), () => fail(c, gp, selector));
    const strict = b.or(b.gtu(rpl(c, selector), cpl), b.ne(level, cpl));
    const wrong = b.select(b.and(attr, b.i32(Attr.conforming)), b.gtu(level, cpl), strict);
    failIf(c, b.or(wrong, longAndBig(c, attr)), gp, selector);
    failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), b.i32(X.np), selector);
    checkTarget(c, offset, found);
    const desc = markAccessed(c, selector, found);
    b.if(isCall, () => {
      c.do(frameCurrent, bytes);
      pushReturn(c, nextIp);
      commitFrame(c);
    });
    enterCode(c, selector, cpl, desc, offset);
    b.ret();
  },
);
