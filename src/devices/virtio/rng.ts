// Entropy device: fills what the driver gives. Virtual I/O Device (VIRTIO) 1.2, section 5.4.
import type { VirtioCore, VirtioModel } from './core.ts';

export const rngModel: VirtioModel = { id: 4, queues: [8], features: 0n, config: { length: 0, read: () => 0 } };

/** Most bytes of one request that are filled; a driver asks again for more. */
const MOST = 65536;

/** The I/O side. `limit` bounds bytes per `period` ms, as QEMU's `max-bytes` and `period`. */
export function rngIo(
  core: VirtioCore,
  random: (count: number) => Promise<Uint8Array>,
  limit?: { readonly bytes: number; readonly period: number; after(ms: number, action: () => void): unknown },
): { drain(): Promise<void> } {
  const active = new Set<Promise<void>>();
  let left = limit?.bytes ?? Number.POSITIVE_INFINITY;
  let waiting = false;
  const work = (): void => {
    while (left > 0) {
      const [chain] = core.take(0, 1);
      if (!chain) return;
      const count = Math.min(chain.in.length, MOST, left);
      left -= count;
      if (limit && !waiting) {
        waiting = true;
        limit.after(limit.period, () => {
          waiting = false;
          left = limit.bytes;
          work();
        });
      }
      const filling = random(count).then(
        (bytes) => core.give(0, [[chain, chain.in.write(0, bytes.subarray(0, count))]]),
        () => core.give(0, [[chain, 0]]),
      );
      active.add(filling);
      void filling.finally(() => active.delete(filling));
    }
  };
  core.serve(0, work);
  return {
    async drain() {
      await Promise.all(active);
    },
  };
}
