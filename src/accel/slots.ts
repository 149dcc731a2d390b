// Values of state slots (isa/x86/state.ts) by their access, for whoever names state from outside.

import type { Access } from '../ir/ops.ts';

/** The value of a slot at byte `at`, unsigned. */
export function readSlot(view: DataView, at: number, access: Access): bigint {
  if (access.bits === 128) return (view.getBigUint64(at + 8, true) << 64n) | view.getBigUint64(at, true);
  if (access.bits === 64) return view.getBigUint64(at, true);
  return BigInt(view.getUint32(at, true));
}
/** Sets a slot at byte `at`; bits above its width are dropped. */
export function writeSlot(view: DataView, at: number, access: Access, value: bigint): void {
  if (access.bits === 128) {
    view.setBigUint64(at, BigInt.asUintN(64, value), true);
    view.setBigUint64(at + 8, BigInt.asUintN(64, value >> 64n), true);
  } else if (access.bits === 64) view.setBigUint64(at, BigInt.asUintN(64, value), true);
  else view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
}
