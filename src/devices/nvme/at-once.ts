// Reads that an NVMe controller carries out at its doorbell, on the vCPU's thread.

import type { GuestMemory } from '../../bus/memory.ts';
import type { Nvme } from './controller.ts';
import { MDTS, NSID } from './identify.ts';
import { headOf, prps, put, REFUSED_FLAGS, spanOf } from './queue.ts';

const READ = 2;
/** Bytes that one doorbell reads at most: the board's lock is held meanwhile. */
const BYTES_MAX = 1 << 20;

/**
 * Carries out what is at the head of submission queue `n` as far as that is reads that `read` does. True where nothing is left for the I/O
 * thread. With the board's lock held.
 */
export function readsAtOnce(
  { nvme, memory, blockShift }: { readonly nvme: Nvme; readonly memory: GuestMemory; readonly blockShift: number },
  read: (offset: number, length: number, pieces: () => readonly Uint8Array[] | undefined) => boolean,
): (n: number) => boolean {
  const { s } = nvme;
  return (n) => {
    const q = s.queues[n]!;
    const cq = s.queues[q.cqOf]!;
    for (let left = BYTES_MAX; q.sqHead !== q.sqTail; ) {
      // Answers that wait for room go first.
      if (n === 0 || s.waiting > 0 || cq.cqSize === 0 || (cq.cqTail + 1) % cq.cqSize === cq.cqHead) return false;
      const sqe = headOf(s, memory, n);
      if (sqe.opcode !== READ || sqe.flags & REFUSED_FLAGS || sqe.nsid !== NSID) return false;
      const { offset, length } = spanOf(sqe, blockShift);
      if (length > Math.min(left, 1 << (MDTS + 12))) return false;
      let to: ReturnType<typeof prps>;
      const pieces = (): readonly Uint8Array[] | undefined => {
        to = prps(memory, sqe, length);
        return to?.pieces;
      };
      if (!read(offset, length, pieces)) return false;
      to!.written();
      q.sqHead = (q.sqHead + 1) % q.sqSize;
      put(nvme, memory, { sqe, status: 0 });
      left -= length;
    }
    return true;
  };
}
