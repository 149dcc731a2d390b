// A vCPU's dirty ring: the kernel writes down each page that the guest writes for the first time, in place of a bitmap of all memory. Linux
// 6.1, Documentation/virt/kvm/api.rst, section 8.29.

import type { ViewOf } from '../../bits/struct.ts';
import { DIRTY_RING_AT, dirtyGfnLayout, gfnFlag } from './abi.ts';
import type { Holding } from './holdings.ts';
import type { KvmHost } from './host.ts';

export class DirtyRing {
  readonly #entries: readonly ViewOf<typeof dirtyGfnLayout>[];
  #next = 0;

  /** Of the vCPU whose descriptor is `fd`. The mapping is written down in `held`. */
  constructor(host: KvmHost, fd: number, entries: number, held: Holding) {
    const { size } = dirtyGfnLayout;
    const area = host.map(fd, entries * size, DIRTY_RING_AT);
    held.ring = host.address(new Uint8Array(area));
    held.ringBytes = area.byteLength;
    this.#entries = Array.from({ length: entries }, (_, n) => dirtyGfnLayout.view(area, n * size));
  }

  /**
   * Gives what was written since the last time, by memory slot and page within; how many. While the vCPU does not run, on its thread. Throws
   * where the ring ran over: the kernel leaves the guest before that, unless it executes many of the guest's instructions at a go.
   */
  take(written: (slot: number, page: number) => void): number {
    for (let count = 0; ; count++) {
      if (count === this.#entries.length)
        throw new Error(
          `Cannot tell which pages the guest has written: its dirty ring of ${count} entries ran over; a larger dirty-ring-size, or none, may be accepted`,
        );
      const e = this.#entries[this.#next]!;
      // One that was taken and not yet given back is not written again.
      if ((e.flags & (gfnFlag.dirty | gfnFlag.reset)) !== gfnFlag.dirty) return count;
      written(e.slot & 0xffff, e.pageHigh * 2 ** 32 + e.page);
      e.flags = gfnFlag.reset;
      this.#next = (this.#next + 1) % this.#entries.length;
    }
  }
}
