// The receiving half of a TCP connection: order, window and what to acknowledge. RFC 9293, sections 3.8.6 and 3.10.7.4; RFC 2018, section 4.

import { type Range, Ranges } from './ranges.ts';
import { ByteRing } from './ring.ts';

/** Ranges beyond a gap that are kept; what would make one more is dropped, and the guest sends it again. */
const maxGaps = 64;

export class Receiver {
  readonly ring = new ByteRing();
  readonly #limit: () => number;
  readonly #scale: number;
  readonly #mss: number;
  readonly #ahead = new Ranges(maxGaps);
  /** Next position expected, and the end of the window that the guest knows of. */
  nxt: number;
  #edge: number;
  /** Position of the guest's FIN, when it is known. */
  #fin: number | undefined;
  /** Bytes that have left the ring and are not yet with the host. */
  #outside = 0;
  /** Range that came last, first in the SACK option. */
  #latest: number | undefined;

  /** `next`: position after the SYN. `limit`: bytes that may be held at this moment. `mss`: largest segment the guest sends. */
  constructor(next: number, limit: () => number, scale: number, mss: number) {
    this.nxt = next;
    this.#edge = next;
    this.#limit = limit;
    this.#scale = scale;
    this.#mss = mss;
  }

  get edge(): number {
    return this.#edge;
  }

  /** The FIN and all before it are here. */
  get ended(): boolean {
    return this.#fin !== undefined && this.nxt > this.#fin;
  }

  get hasGaps(): boolean {
    return this.#ahead.list.length > 0;
  }

  /** The window field for a segment that is sent now. `plain`: not scaled, as in a SYN. */
  window(plain = false): number {
    const unit = plain ? 1 : 2 ** this.#scale;
    // Receiver's side of silly window avoidance; what was once promised is never taken back.
    const next = this.nxt + Math.min(0xffff, Math.floor(this.#free() / unit)) * unit;
    if (next - this.#edge >= Math.min(this.#mss, this.#limit() / 2)) this.#edge = next;
    return Math.max(0, Math.min(0xffff, Math.floor((this.#edge - this.nxt) / unit)));
  }

  /** Whether the window has grown so much that the guest should hear of it. */
  get worthUpdate(): boolean {
    return this.nxt + this.#free() - this.#edge >= Math.min(2 * this.#mss, this.#limit() / 2);
  }

  /**
   * Takes data at position `seq`, cut to the window, and a FIN after them. `inOrder`: `nxt` has moved;
   * `cut`: something was outside of the window, repeated or dropped, so that the guest needs an acknowledgement.
   */
  take(seq: number, data: Uint8Array, fin: boolean): { readonly inOrder: boolean; readonly cut: boolean } {
    const end = seq + data.length;
    const from = Math.max(seq, this.nxt);
    const to = Math.min(end, Math.max(this.#edge, this.nxt), this.#fin ?? Number.POSITIVE_INFINITY);
    const before = this.nxt;
    let cut = from !== seq || to !== end;
    if (from < to && from === this.nxt && !this.hasGaps) {
      this.ring.append(data.subarray(from - seq, to - seq));
      this.nxt = to;
    } else if (from < to) {
      cut = true;
      if (this.#ahead.add(from, to)) {
        this.ring.place(this.ring.length + from - this.nxt, data.subarray(from - seq, to - seq));
        this.#latest = from;
        const next = this.#ahead.advance(this.nxt);
        this.ring.extend(next - this.nxt);
        this.nxt = next;
      }
    }
    if (fin && to >= end && this.#fin === undefined && end >= this.nxt && this.#ahead.highest <= end) this.#fin = end;
    if (this.nxt === this.#fin) this.nxt++;
    return { inOrder: this.nxt !== before, cut: cut || (fin && this.nxt === before) };
  }

  /** Up to three ranges for a SACK option, the latest first. */
  sack(): readonly Range[] {
    const latest = this.#latest;
    const list = this.#ahead.list;
    if (list.length === 0 || latest === undefined) return list;
    const first = list.filter(([a, b]) => a <= latest && latest < b);
    return [...first, ...list.filter((r) => !first.includes(r))].slice(0, 3);
  }

  /** Takes the data that is in order; it counts against the window until `release`. */
  read(): Uint8Array {
    const bytes = this.ring.take(this.hasGaps);
    this.#outside += bytes.length;
    return bytes;
  }

  release(count: number): void {
    this.#outside -= count;
  }

  #free(): number {
    return Math.max(0, this.#limit() - this.ring.length - this.#outside);
  }
}
