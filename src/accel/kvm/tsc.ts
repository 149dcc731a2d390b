// Time-stamp counters of vCPUs that KVM counts as one. Each thread measures how far its guest's is ahead of the board's, a little differently; to the guest
// they are the same to the last bit, and it may read one's clock with another's counter (kvm-clock's stable flag).

import { tscOffset } from '../../isa/x86/state.ts';
import type { MemoryLayout } from '../accel.ts';

/** ms by which measurements of one counter may differ. */
const SAME = 20;

/** Gives all of `cpus` the first one's offset, but for those that their guest has set apart. `khz` is the counters' frequency. */
export function alignTsc(memory: SharedArrayBuffer, layout: MemoryLayout, cpus: readonly number[], khz: number): void {
  const view = new DataView(memory);
  const at = (cpu: number): number => layout.vcpuBase + cpu * layout.vcpuBytes + tscOffset.offset;
  const first = view.getBigInt64(at(cpus[0]!), true);
  for (const cpu of cpus) {
    const apart = Number(view.getBigInt64(at(cpu), true) - first);
    if (Math.abs(apart) < SAME * khz) view.setBigInt64(at(cpu), first, true);
  }
}
