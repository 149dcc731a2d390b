// Carries out a SCSI plan: moves bytes between the medium and the initiator's buffers, in pieces of bounded size.

import { check, type MediumStore, type ScsiPlan } from './plan.ts';
import { type Sense, senses, status } from './sense.ts';

/** Bytes that are moved at once. */
const PIECE = 1 << 20;

/** The initiator's memory of a command, as lists of pieces. Nothing is read or written past their ends. */
export interface Buffers {
  /** Filled by the device. */
  readonly in: readonly Uint8Array[];
  /** Read by the device. */
  readonly out: readonly Uint8Array[];
}

export interface ScsiResult {
  readonly status: number;
  /** With CHECK CONDITION. */
  readonly sense?: Sense;
  /** Bytes that moved. */
  readonly transferred: number;
}

/** Total bytes of a list. */
export const sizeOf = (pieces: readonly Uint8Array[]): number => pieces.reduce((n, p) => n + p.length, 0);

/** The pieces that hold bytes `from` to `to` of a list. */
function range(pieces: readonly Uint8Array[], from: number, to: number): Uint8Array[] {
  const out: Uint8Array[] = [];
  let at = 0;
  for (const p of pieces) {
    const start = Math.max(from, at);
    const end = Math.min(to, at + p.length);
    if (start < end) out.push(p.subarray(start - at, end - at));
    at += p.length;
    if (at >= to) break;
  }
  return out;
}

/** Copies `data` into a list; gives how many bytes fitted. */
export function fill(pieces: readonly Uint8Array[], data: Uint8Array): number {
  let at = 0;
  for (const p of range(pieces, 0, data.length)) {
    p.set(data.subarray(at, at + p.length));
    at += p.length;
  }
  return at;
}

/** The first `length` bytes of a list as one array of their own, shorter where the list is. */
export function gather(pieces: readonly Uint8Array[], length: number): Uint8Array {
  const parts = range(pieces, 0, length);
  const bytes = new Uint8Array(sizeOf(parts));
  let at = 0;
  for (const p of parts) {
    bytes.set(p, at);
    at += p.length;
  }
  return bytes;
}

const failed = (sense: Sense, transferred = 0): ScsiResult => ({ status: status.check, sense, transferred });
const good = (transferred = 0): ScsiResult => ({ status: status.good, transferred });

/**
 * Carries out `plan` on `medium`. Never rejects: the host's errors become sense data. A transfer for which the initiator gave too
 * little room moves what fits.
 */
export async function perform(plan: ScsiPlan, medium: MediumStore | undefined, buffers: Buffers): Promise<ScsiResult> {
  switch (plan.kind) {
    case 'done':
      return good();
    case 'check':
      return failed(plan.sense);
    case 'in':
      return good(fill(buffers.in, plan.data));
    case 'out': {
      const data = gather(buffers.out, plan.length);
      if (data.length < plan.length) return failed(senses.badLength);
      const result = await perform(plan.next(data), medium, buffers);
      return { ...result, transferred: data.length };
    }
    default:
  }
  if (medium === undefined) return failed(senses.noMedium);
  switch (plan.kind) {
    case 'read':
    case 'write':
    case 'compare':
      return move(plan, medium, buffers);
    case 'flush':
      return attempt(() => medium.flush(), senses.writeError);
    case 'discard':
      return attempt(async () => {
        for (const [offset, length] of plan.ranges) if (length > 0) await medium.discard(offset, length);
      }, senses.writeError);
    case 'same': {
      const block = gather(buffers.out, plan.block);
      if (block.length < plan.block) return failed(senses.badLength);
      return { ...(await attempt(() => same(plan, medium, block), senses.writeError)), transferred: block.length };
    }
    default:
      return perform(check(senses.hardware), medium, buffers);
  }
}

async function attempt(action: () => Promise<void>, sense: Sense): Promise<ScsiResult> {
  try {
    await action();
    return good();
  } catch (error) {
    return failed(isFull(error) ? senses.noSpace : sense);
  }
}

const isFull = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ENOSPC';

type Move = ScsiPlan & { readonly kind: 'read' | 'write' | 'compare' };

async function move(plan: Move, medium: MediumStore, buffers: Buffers): Promise<ScsiResult> {
  const list = plan.kind === 'read' ? buffers.in : buffers.out;
  const length = Math.min(plan.length, sizeOf(list));
  let moved = 0;
  try {
    for (const piece of range(list, 0, length)) {
      for (let at = 0; at < piece.length; at += PIECE) {
        const part = piece.subarray(at, at + PIECE);
        if (plan.kind === 'read') await medium.read(plan.offset + moved, part);
        else if (plan.kind === 'write') await medium.write(plan.offset + moved, part);
        else {
          const there = new Uint8Array(part.length);
          await medium.read(plan.offset + moved, there);
          if (there.some((byte, i) => byte !== part[i])) return failed({ key: 14, asc: 0x1d, ascq: 0 }, moved);
        }
        moved += part.length;
      }
    }
    if (plan.kind === 'write' && plan.force) await medium.flush();
    return good(moved);
  } catch (error) {
    return failed(plan.kind === 'write' ? (isFull(error) ? senses.noSpace : senses.writeError) : senses.readError, moved);
  }
}

async function same(plan: ScsiPlan & { readonly kind: 'same' }, medium: MediumStore, block: Uint8Array): Promise<void> {
  if (block.every((byte) => byte === 0)) {
    if (plan.discard) await medium.discard(plan.offset, plan.length);
    await medium.writeZeroes(plan.offset, plan.length);
    return;
  }
  const bytes = new Uint8Array(Math.min(plan.length, Math.floor(PIECE / block.length) * block.length));
  for (let at = 0; at < bytes.length; at += block.length) bytes.set(block, at);
  for (let at = 0; at < plan.length; at += bytes.length)
    await medium.write(plan.offset + at, bytes.subarray(0, Math.min(bytes.length, plan.length - at)));
}
