// NVMe's queues in guest memory: commands out of submission queues, entries into completion queues, and the memory that a command names.
// NVM Express Base Specification 1.4, chapter 4. All with the board's lock held.

import type { GuestMemory } from '../../bus/memory.ts';
import { Scatter } from '../scatter.ts';
import { type Nvme, type NvmeState, PAGE } from './controller.ts';

export interface Sqe {
  readonly queue: number;
  readonly epoch: number;
  readonly opcode: number;
  readonly id: number;
  readonly flags: number;
  readonly nsid: number;
  readonly prp1: number;
  readonly prp2: number;
  /** Double words 10 to 15. */
  readonly dw: readonly number[];
}
export interface Answer {
  readonly status: number;
  readonly result?: number;
}
export interface Posted extends Answer {
  readonly sqe: Pick<Sqe, 'queue' | 'id' | 'epoch'>;
}

/** Bits of the flags that are of scatter gather lists and fused commands, which are not offered. */
export const REFUSED_FLAGS = 0xc3;

/** The command at the head of submission queue `n`, which is not empty. */
export function headOf(s: NvmeState, memory: GuestMemory, n: number): Sqe {
  const q = s.queues[n]!;
  const at = q.sqBase + 64 * q.sqHead;
  const word = (k: number): number => memory.read32(at + 4 * k);
  const first = word(0);
  return {
    ...{ queue: n, epoch: s.epoch, opcode: first & 0xff, flags: (first >>> 8) & 0xff, id: first >>> 16, nsid: word(1) },
    prp1: word(7) * 2 ** 32 + word(6),
    prp2: word(9) * 2 ** 32 + word(8),
    dw: [10, 11, 12, 13, 14, 15].map(word),
  };
}

/** Where a command that reads, writes or compares is, in bytes; whether that is on the medium is not looked at. */
export function spanOf({ dw: [low = 0, high = 0, d12 = 0] }: Sqe, blockShift: number): { offset: number; length: number } {
  return { offset: (high * 2 ** 32 + low) * 2 ** blockShift, length: ((d12 & 0xffff) + 1) * 2 ** blockShift };
}

/** Writes an entry; false where the queue is full. */
export function put(nvme: Nvme, memory: GuestMemory, { sqe, status, result = 0 }: Posted): boolean {
  const { s } = nvme;
  if (sqe.epoch !== s.epoch) return true;
  const sq = s.queues[sqe.queue]!;
  if (sq.sqSize === 0) return true;
  const cq = s.queues[sq.cqOf]!;
  if (cq.cqSize === 0) return true;
  const next = (cq.cqTail + 1) % cq.cqSize;
  if (next === cq.cqHead) return false;
  const at = cq.cqBase + 16 * cq.cqTail;
  memory.write32(at, result);
  memory.write32(at + 4, 0);
  memory.write32(at + 8, sq.sqHead | (sqe.queue << 16));
  // The phase bit makes the entry valid: it comes last.
  memory.write32(at + 12, (sqe.id | (cq.phase << 16) | (status << 17)) >>> 0);
  cq.cqTail = next;
  if (next === 0) cq.phase ^= 1;
  nvme.raise(sq.cqOf);
  return true;
}

/** Guest memory of `length` bytes by the command's physical region pages; undefined where they are not well formed. */
export function prps(memory: GuestMemory, sqe: Sqe, length: number): Scatter | undefined {
  const scatter = new Scatter(memory);
  if (sqe.prp1 % 4 !== 0) return undefined;
  let left = length;
  const take = (gpa: number): void => {
    const n = Math.min(left, PAGE - (gpa % PAGE));
    scatter.add(gpa, n);
    left -= n;
  };
  take(sqe.prp1);
  if (left === 0) return scatter;
  if (left <= PAGE) {
    if (sqe.prp2 % PAGE !== 0) return undefined;
    take(sqe.prp2);
    return scatter;
  }
  let list = sqe.prp2;
  if (list % 8 !== 0) return undefined;
  while (left > 0) {
    const entry = memory.read32(list + 4) * 2 ** 32 + memory.read32(list);
    if (entry % PAGE !== 0) return undefined;
    // The last entry of a page of a list points to the next one, unless it is all that is left.
    if (list % PAGE === PAGE - 8 && left > PAGE) {
      list = entry;
      continue;
    }
    take(entry);
    list += 8;
  }
  return scatter;
}
