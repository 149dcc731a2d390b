// One request of a driver: a chain of descriptors as two lists of pieces of guest memory, first what the device reads, then what it
// writes. Virtual I/O Device (VIRTIO) 1.2, section 2.7.4: framing means nothing, so all access is by offset.
import type { GuestMemory } from '../../bus/memory.ts';

/** Most pieces of a chain, as QEMU has it. */
export const MAX_PIECES = 1024;

/** Pieces of guest memory that are one after another in a chain. */
export class Pieces {
  readonly list: Uint8Array[] = [];
  readonly #gpas: number[] = [];
  readonly #memory: GuestMemory;
  /** Bytes in all. */
  length = 0;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }
  /** Adds a piece; false where it is not RAM. Pieces that lie together become one. */
  add(gpa: number, length: number): boolean {
    const last = this.list.length - 1;
    const before = this.list[last];
    if (before && this.#gpas[last]! + before.length === gpa) {
      const joined = this.#memory.slice(this.#gpas[last]!, before.length + length);
      if (joined) {
        this.list[last] = joined;
        this.length += length;
        return true;
      }
    }
    const bytes = this.#memory.slice(gpa, length);
    if (!bytes) return false;
    this.list.push(bytes);
    this.#gpas.push(gpa);
    this.length += length;
    return true;
  }
  /** Copies bytes from `offset` on into `into`; how many there were. */
  read(offset: number, into: Uint8Array): number {
    let done = 0;
    for (const piece of this.list) {
      if (done === into.length) break;
      if (offset >= piece.length) {
        offset -= piece.length;
        continue;
      }
      const part = piece.subarray(offset, offset + into.length - done);
      into.set(part, done);
      done += part.length;
      offset = 0;
    }
    return done;
  }
  /** A copy of up to `length` bytes from `offset` on. */
  bytes(offset = 0, length: number = this.length - offset): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(Math.max(0, Math.min(length, this.length - offset)));
    this.read(offset, out);
    return out;
  }
  /** Writes bytes at `offset`; how many had room. */
  write(offset: number, from: Uint8Array): number {
    let done = 0;
    for (let i = 0; i < this.list.length && done < from.length; i++) {
      const piece = this.list[i]!;
      if (offset >= piece.length) {
        offset -= piece.length;
        continue;
      }
      const n = Math.min(piece.length - offset, from.length - done);
      piece.set(from.subarray(done, done + n), offset);
      this.#memory.written(this.#gpas[i]! + offset, n);
      done += n;
      offset = 0;
    }
    return done;
  }
  /** The pieces of a range, in order, not copies. Who writes into them calls `written` afterwards. */
  range(offset: number, length: number): Uint8Array[] {
    const out: Uint8Array[] = [];
    for (const piece of this.list) {
      if (length === 0) break;
      if (offset >= piece.length) {
        offset -= piece.length;
        continue;
      }
      const part = piece.subarray(offset, offset + length);
      out.push(part);
      length -= part.length;
      offset = 0;
    }
    return out;
  }
  /** Calls `f` with the guest-physical place of each piece. */
  places(f: (gpa: number, length: number) => void): void {
    for (const [n, piece] of this.list.entries()) f(this.#gpas[n]!, piece.length);
  }
  /** The range was written by way of `range`. */
  written(offset: number, length: number): void {
    for (let i = 0; i < this.list.length && length > 0; i++) {
      const piece = this.list[i]!;
      if (offset >= piece.length) {
        offset -= piece.length;
        continue;
      }
      const n = Math.min(piece.length - offset, length);
      this.#memory.written(this.#gpas[i]! + offset, n);
      length -= n;
      offset = 0;
    }
  }
}

/** A request, from `take` to `give`. */
export interface Chain {
  /** What the device reads. */
  readonly out: Pieces;
  /** What the device writes. */
  readonly in: Pieces;
  /** Number of the chain's first descriptor, or the packed ring's buffer ID. */
  readonly id: number;
  /** Descriptors that it takes of a packed ring. */
  readonly slots: number;
  /** When it was taken. */
  readonly epoch: number;
}
