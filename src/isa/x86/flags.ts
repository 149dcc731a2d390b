// RFLAGS as one value: packing and unpacking for stack frames, POPF and SYSRET (Intel SDM volume 1, section 3.4.3).

import type { Value } from '../../ir/ir.ts';
import { updateContext } from './context.ts';
import type { Emit } from './emit.ts';
import { anyOf, F } from './segments.ts';
import * as st from './state.ts';
import { sub } from './sub.ts';

/** RFLAGS as the guest sees it, bit 1 set (i32). */
export const packFlags = sub('packFlags', [], 'i32', {}, (c) => c.b.ret(c.rflags()));

/** Sets the arithmetic flags from an image, and those of the other flags that `mask` names. The caller updates the context. */
export const unpackFlags = sub('unpackFlags', ['i32', 'i32'], null, {}, (c, image, mask) => {
  // What an instruction before this one held off is over; IF may be set now.
  c.set(st.shadow, c.b.i32(0));
  const b = c.b;
  c.setArithmeticFlags(image);
  const m = b.and(mask, b.i32(F.tf | F.if | F.df | F.iopl | F.nt | F.rf | F.vm | F.ac | F.vif | F.vip | F.id));
  c.set(st.sysFlags, b.or(b.and(c.get(st.sysFlags), b.not(m)), b.and(image, m)));
  b.ret();
});

/** I/O privilege level. */
export const iopl = (c: Emit): Value => c.b.and(c.b.shru(c.get(st.sysFlags), c.b.i32(12)), c.b.i32(3));

/** What POPF and IRET may change at the current privilege, besides arithmetic flags: IF by IOPL, IOPL at CPL 0. `wide` (i32): not 16 bits. */
export function writableFlags(c: Emit, wide: Value): Value {
  const b = c.b;
  const level = c.get(st.cpl);
  let mask = b.or(b.i32(F.tf | F.df | F.nt), b.select(wide, b.i32(F.ac | F.id), b.i32(0)));
  mask = b.or(mask, b.select(b.leu(level, iopl(c)), b.i32(F.if), b.i32(0)));
  return b.or(mask, b.select(level, b.i32(0), b.i32(F.iopl)));
}

/** POPF outside virtual-8086 mode: `image` (i32), `wide` (i32) 1 unless the operand has 16 bits. Clears RF. */
export const popFlags = sub('popFlags', ['i32', 'i32'], null, {}, (c, image, wide) => {
  const b = c.b;
  const old = c.get(st.sysFlags);
  c.do(unpackFlags, b.and(image, b.i32(~F.rf)), b.or(writableFlags(c, wide), b.i32(F.rf)));
  const changed = b.and(b.xor(old, c.get(st.sysFlags)), b.i32(F.tf | F.ac));
  b.if(changed, () => c.do(updateContext));
  b.ret();
});

/** POPF and IRET of 16 bits in virtual-8086 mode with CR4.VME below IOPL 3: VIF takes IF's place. */
export const popVirtualFlags = sub('popVirtualFlags', ['i32'], null, { faults: true }, (c, image) => {
  const b = c.b;
  const pending = b.and(anyOf(c, image, F.if), anyOf(c, c.get(st.sysFlags), F.vip));
  c.gpIf(b.or(anyOf(c, image, F.tf), pending));
  const vif = b.shl(b.and(image, b.i32(F.if)), b.i32(10));
  c.do(unpackFlags, b.or(b.and(image, b.i32(0xffff)), vif), b.i32(F.tf | F.df | F.nt | F.vif));
  b.ret();
});

/** 1 in virtual-8086 mode below IOPL 3, where what touches IF is virtual (16 bits and CR4.VME) or else #GP(0), raised here. */
export const virtualInterrupts = sub('virtualInterrupts', ['i32'], 'i32', { faults: true }, (c, wide) => {
  const b = c.b;
  const restricted = b.and(anyOf(c, c.get(st.sysFlags), F.vm), b.ne(iopl(c), b.i32(3)));
  const vme = b.and(b.wrap(c.get(st.cr4)), b.i32(1));
  c.gpIf(b.and(restricted, b.or(wide, b.eqz(vme))));
  b.ret(restricted);
});

/** Shows VIF in place of IF, and IOPL 3, as virtual-8086 mode extensions do in a pushed image. */
export function virtualImage(c: Emit, flags: Value): Value {
  const b = c.b;
  const vif = b.and(b.shru(flags, b.i32(10)), b.i32(F.if));
  return b.or(b.or(b.and(flags, b.i32(~F.if)), vif), b.i32(F.iopl));
}
