// RFLAGS as one value outside of guest code: put together from a vCPU's state slots and taken apart again (Intel SDM volume 1, section
// 3.4.3). Guest code does the same by flags.ts.

import * as st from './state.ts';

const CF = 1n;
const FIXED = 2n;
const PF = 4n;
const AF = 0x10n;
const ZF = 0x40n;
const SF = 0x80n;
const OF = 0x800n;
const ARITHMETIC = CF | PF | AF | ZF | SF | OF;
/** Everything that `sysFlags` holds. */
const SYSTEM = 0x3f7700n;

/** RFLAGS of the vCPU whose state lies at `env`. */
export function readRflags(view: DataView, env: number): bigint {
  const fN = view.getBigInt64(env + st.fN.offset, true);
  let parity = Number(fN & 0xffn);
  for (const shift of [4, 2, 1]) parity ^= parity >> shift;
  return (
    BigInt(view.getUint32(env + st.sysFlags.offset, true)) |
    FIXED |
    (view.getUint32(env + st.fC.offset, true) & 1 ? CF : 0n) |
    ((parity & 1) === 0 ? PF : 0n) |
    (view.getUint32(env + st.fA.offset, true) & 0x10 ? AF : 0n) |
    (view.getBigInt64(env + st.fZ.offset, true) === 0n ? ZF : 0n) |
    (fN < 0n ? SF : 0n) |
    (view.getInt32(env + st.fO.offset, true) < 0 ? OF : 0n)
  );
}

/** Sets RFLAGS. Whoever calls it has the context updated (`Vcpu.sync`). */
export function writeRflags(view: DataView, env: number, rflags: bigint): void {
  view.setUint32(env + st.sysFlags.offset, Number(rflags & SYSTEM & ~ARITHMETIC), true);
  view.setUint32(env + st.fC.offset, Number(rflags & CF), true);
  view.setUint32(env + st.fA.offset, Number(rflags & AF), true);
  view.setBigInt64(env + st.fZ.offset, rflags & ZF ? 0n : 1n, true);
  view.setBigInt64(env + st.fN.offset, (rflags & SF ? -(2n ** 63n) : 0n) | (rflags & PF ? 0n : 1n), true);
  view.setInt32(env + st.fO.offset, rflags & OF ? -1 : 0, true);
}
