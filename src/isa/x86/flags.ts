// RFLAGS as one value: packing and unpacking for stack frames, POPF and SYSRET (Intel SDM volume 1, section 3.4.3).

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { F } from './segments.ts';
import * as st from './state.ts';
import { sub } from './sub.ts';

/** RFLAGS as the guest sees it, bit 1 set (i32). */
export const packFlags = sub('packFlags', [], 'i32', {}, (c) => c.b.ret(c.rflags()));

/** Sets the arithmetic flags from an image, and those of the other flags that `mask` names. The caller updates the context. */
export const unpackFlags = sub('unpackFlags', ['i32', 'i32'], null, {}, (c, image, mask) => {
  const b = c.b;
  c.setArithmeticFlags(image);
  const m = b.and(mask, b.i32(F.tf | F.if | F.df | F.iopl | F.nt | F.rf | F.vm | F.ac | F.vif | F.vip | F.id));
  c.set(st.sysFlags, b.or(b.and(c.get(st.sysFlags), b.not(m)), b.and(image, m)));
  b.ret();
});

/** I/O privilege level. */
export const iopl = (c: Emit): Value => c.b.and(c.b.shru(c.get(st.sysFlags), c.b.i32(12)), c.b.i32(3));

/** What POPF and IRET may change at the current privilege, besides arithmetic flags: IF by IOPL, IOPL at CPL 0. `size` in bytes (i32). */
export function writableFlags(c: Emit, wide: Value): Value {
  const b = c.b;
  const level = c.get(st.cpl);
  let mask = b.or(b.i32(F.tf | F.df | F.nt), b.select(wide, b.i32(F.ac | F.id), b.i32(0)));
  mask = b.or(mask, b.select(b.leu(level, iopl(c)), b.i32(F.if), b.i32(0)));
  return b.or(mask, b.select(level, b.i32(0), b.i32(F.iopl)));
}

/** After RFLAGS.IF may have been set: a waiting interrupt is looked at when the block ends. */
export function openInterruptWindow(c: Emit): void {
  c.b.if(c.get(st.interruptWindow), () => c.set(st.kick, c.b.i32(1)));
}
