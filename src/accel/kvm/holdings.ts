// What the vCPUs of a machine hold of the kernel: descriptors, mappings, timers. A vCPU's thread is ended from outside and gives nothing back,
// so what it has made is written down in shared memory, and whoever ends the machine gives it back.

import { struct, type ViewOf } from '../../bits/struct.ts';
import { type MemoryLayout, VCPUS_MAX } from '../accel.ts';
import type { KvmHost } from './host.ts';

const entryLayout = struct({
  /** Addresses of the run area and the dirty ring. */
  area: 'u64',
  ring: 'u64',
  areaBytes: 'u32',
  ringBytes: 'u32',
  /** Descriptor; 0 for none. */
  fd: 'i32',
  /** The thread's timer plus 1; 0 for none. */
  timer: 'i32',
});
export type Holding = ViewOf<typeof entryLayout>;
/** By vCPU. */
export const holdingsLayout = struct({ vcpus: [entryLayout, VCPUS_MAX] });

/** What vCPU `index` holds. */
export const holdingOf = (buffer: SharedArrayBuffer, layout: MemoryLayout, index: number): Holding =>
  holdingsLayout.view(buffer, layout.holdings).vcpus[index]!;

/** Gives back what a vCPU holds, whose thread is gone or does not use it any more. */
export function giveBack(host: KvmHost, h: Holding): void {
  if (h.timer > 0) host.freeTimer(h.timer - 1);
  if (h.ringBytes > 0) host.unmapAt(h.ring, h.ringBytes);
  if (h.areaBytes > 0) host.unmapAt(h.area, h.areaBytes);
  if (h.fd > 0) host.close(h.fd);
  Object.assign(h, { area: 0n, ring: 0n, areaBytes: 0, ringBytes: 0, fd: 0, timer: 0 });
}

/** Gives back what all vCPUs hold. Their threads are gone. */
export function giveAllBack(host: KvmHost, buffer: SharedArrayBuffer, layout: MemoryLayout): void {
  for (const h of holdingsLayout.view(buffer, layout.holdings).vcpus) giveBack(host, h);
}
