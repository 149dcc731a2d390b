// The stack frames that interrupts, gates and far returns push and pop: one element at a time on a stack described by scratch slots,
// because the stack is often not the current one and its width is known only at run time (Intel SDM volume 3, sections 5.8.5 and 6.12).

import type { Value } from '../../ir/ir.ts';
import { isCanonical } from './canonical.ts';
import { PLAIN } from './context.ts';
import type { Emit } from './emit.ts';
import { Attr, anyOf, descAttr, descBase, descLimit, inLongCode, withinLimit } from './segments.ts';
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { sub } from './sub.ts';

/** `how` of a frame: bytes of an element (2, 4, 8) in bits 0–7, these bits, and the error code of its #SS in bits 16–31. */
export const Frame = {
  /** Accesses are made as supervisor, whatever the CPL is now. */
  system: 0x100,
  /** A stack without a segment: 64-bit code. */
  flat: 0x200,
  /** Elements of 4 bytes on a stack that is all of 4 GiB, with a 32-bit pointer: nothing can be wrong with its segment. */
  plain: 0x400,
} as const;

/** `how` with `Frame.plain` where that holds of the stack whose slots have been set. */
function withPlain(c: Emit, how: Value): Value {
  const b = c.b;
  const kind = PLAIN.mask | Attr.big;
  const whole = b.and(b.eqz(c.get(st.frameBase)), b.eq(c.get(st.frameLimit), b.i32(-1)));
  const data = b.eq(b.and(c.get(st.frameAttr), b.i32(kind)), b.i32(PLAIN.value | Attr.big));
  const plain = b.and(b.eq(b.and(how, b.i32(0xff)), b.i32(4)), b.and(whole, data));
  return b.or(how, b.shl(plain, b.i32(Math.log2(Frame.plain))));
}

/** Starts a frame on the current stack. `how` as above, `Frame.flat` excepted: it follows from the current code. */
export const frameCurrent = sub('frameCurrent', ['i32'], null, {}, (c, how) => {
  const b = c.b;
  c.set(st.frameBase, c.get(st.segBase[S.ss]));
  c.set(st.frameLimit, c.get(st.segLimit[S.ss]));
  c.set(st.frameAttr, c.get(st.segAttr[S.ss]));
  c.set(st.frameMask, c.get(st.spMask));
  c.set(st.frameSp, b.and(c.reg(R.rsp), c.get(st.spMask)));
  c.set(st.frameHow, b.select(inLongCode(c), b.or(how, b.i32(Frame.flat)), withPlain(c, how)));
  b.ret();
});

/** Starts a frame on the stack segment of descriptor `desc` (i64) at stack pointer `sp` (i64). */
export const frameOn = sub('frameOn', ['i64', 'i64', 'i32'], null, {}, (c, desc, sp, how) => {
  const b = c.b;
  const attr = descAttr(c, desc);
  const mask = b.select(b.and(attr, b.i32(Attr.big)), b.i64(0xffffffffn), b.i64(0xffff));
  c.set(st.frameBase, descBase(c, desc));
  c.set(st.frameLimit, descLimit(c, desc));
  c.set(st.frameAttr, attr);
  c.set(st.frameMask, mask);
  c.set(st.frameSp, b.and(sp, mask));
  c.set(st.frameHow, withPlain(c, how));
  b.ret();
});

/** Starts a frame on a 64-bit stack. */
export function frameFlat(c: Emit, sp: Value, how: Value): void {
  c.set(st.frameBase, c.b.i64(0));
  c.set(st.frameMask, c.b.i64(-1));
  c.set(st.frameSp, sp);
  c.set(st.frameHow, c.b.or(how, c.b.i32(Frame.flat)));
}

/** Linear address of an element at `sp`, checked. */
const frameAddress = sub('frameAddress', ['i64'], 'i64', { faults: true }, (c, sp) => {
  const b = c.b;
  const how = c.get(st.frameHow);
  const error = b.shru(how, b.i32(16));
  b.if(b.and(how, b.i32(Frame.flat)), () => {
    c.raiseIf(b.eqz(isCanonical(c, sp)), X.ss, error);
    b.ret(sp);
  });
  const bytes = b.and(how, b.i32(0xff));
  const attr = c.get(st.frameAttr);
  const inside = c.call(withinLimit, attr, c.get(st.frameLimit), sp, bytes);
  c.raiseIf(b.or(b.eqz(inside), anyOf(c, attr, Attr.unusable)), X.ss, error);
  b.ret(b.and(b.add(c.get(st.frameBase), sp), b.i64(0xffffffffn)));
});

/** Runs `access` for the element size and the space of the frame. */
function eachAccess(c: Emit, access: (size: 16 | 32 | 64, system: boolean) => void): void {
  const b = c.b;
  const how = c.get(st.frameHow);
  const bytes = b.and(how, b.i32(0xff));
  const sizes = (system: boolean): void => {
    b.if(b.eq(bytes, b.i32(8)), () => access(64, system));
    b.if(b.eq(bytes, b.i32(4)), () => access(32, system));
    access(16, system);
  };
  b.if(
    b.and(how, b.i32(Frame.system)),
    () => sizes(true),
    () => sizes(false),
  );
}

/** Where the frame is plain: runs `access` for its space. */
function plainAccess(c: Emit, access: (system: boolean) => void): void {
  const b = c.b;
  b.if(b.and(c.get(st.frameHow), b.i32(Frame.plain)), () => {
    b.if(
      b.and(c.get(st.frameHow), b.i32(Frame.system)),
      () => access(true),
      () => access(false),
    );
  });
}

/** Pushes an element (i64, cut to the element's size). The stack pointer in the state does not move. */
export const framePush = sub('framePush', ['i64'], null, { faults: true }, (c, value) => {
  const b = c.b;
  plainAccess(c, (system) => {
    const sp = b.and(b.sub(c.get(st.frameSp), b.i64(4)), b.i64(0xffffffffn));
    c.set(st.frameSp, sp);
    c.store(sp, 32, b.wrap(value), { system });
    b.ret();
  });
  const bytes = b.and(c.get(st.frameHow), b.i32(0xff));
  const sp = b.and(b.sub(c.get(st.frameSp), b.extu(bytes)), c.get(st.frameMask));
  const address = c.call(frameAddress, sp);
  c.set(st.frameSp, sp);
  eachAccess(c, (size, system) => {
    const wide = size === 64 ? value : b.wrap(value);
    c.store(address, size, size === 16 ? b.and(wide, b.i32(0xffff)) : wide, { system });
    b.ret();
  });
  b.ret();
});

/** Pops an element, zero-extended to i64. */
export const framePop = sub('framePop', [], 'i64', { faults: true }, (c) => {
  const b = c.b;
  plainAccess(c, (system) => {
    const sp = c.get(st.frameSp);
    c.set(st.frameSp, b.and(b.add(sp, b.i64(4)), b.i64(0xffffffffn)));
    b.ret(b.extu(c.load(sp, 32, { system })));
  });
  const sp = c.get(st.frameSp);
  const address = c.call(frameAddress, sp);
  c.set(st.frameSp, b.and(b.add(sp, b.extu(b.and(c.get(st.frameHow), b.i32(0xff)))), c.get(st.frameMask)));
  eachAccess(c, (size, system) => b.ret(b.extu(c.load(address, size, { system }))));
  b.ret(b.i64(0));
});

/** Makes the frame's stack pointer the current one. */
export function commitFrame(c: Emit): void {
  const b = c.b;
  const mask = c.get(st.frameMask);
  const sp = b.and(c.get(st.frameSp), mask);
  const big = b.ne(mask, b.i64(0xffff));
  c.set(st.gpr[R.rsp], b.select(big, sp, b.or(b.and(c.reg(R.rsp), b.i64(~0xffff)), sp)));
}
/** Moves the frame's pointer by `bytes` (i64) without an access. */
export function skipFrame(c: Emit, bytes: Value): void {
  const b = c.b;
  c.set(st.frameSp, b.and(b.add(c.get(st.frameSp), bytes), c.get(st.frameMask)));
}
