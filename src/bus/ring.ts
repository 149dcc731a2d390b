// A byte ring in shared memory between one writer and one reader on any threads (single producer, single consumer).
import { type Layout, struct } from '../bits/struct.ts';

/** Counters run freely over 32 bits; their difference is the fill. `signal` changes with every write and read. */
type RingFields = {
  readonly head: readonly ['i32', 1];
  readonly tail: readonly ['i32', 1];
  readonly signal: readonly ['i32', 1];
  readonly data: readonly ['u8', number];
};

/** Layout of a ring of `size` bytes, a power of two up to 2^30. */
export function ringLayout(size: number, as: { name?: string; version?: number } = {}): Layout<RingFields> {
  if (!(size > 0 && size <= 2 ** 30 && (size & (size - 1)) === 0)) {
    throw new Error(`Cannot lay out a ring of ${size} bytes: the size must be a power of two up to 2^30`);
  }
  return struct({ head: ['i32', 1], tail: ['i32', 1], signal: ['i32', 1], data: ['u8', size] }, as);
}

export interface RingState {
  readonly head: Int32Array;
  readonly tail: Int32Array;
  readonly signal: Int32Array;
  readonly data: Uint8Array;
}

export class Ring {
  readonly #s: RingState;
  readonly #mask: number;
  /** Word for `Atomics.wait` and `Atomics.waitAsync`, index 0: load it, find the ring empty (or full), wait for it to change. */
  readonly signal: Int32Array;

  constructor(state: RingState) {
    this.#s = state;
    this.#mask = state.data.length - 1;
    this.signal = state.signal;
  }

  get capacity(): number {
    return this.#s.data.length;
  }

  /** Bytes that can be read. */
  get available(): number {
    return (Atomics.load(this.#s.tail, 0) - Atomics.load(this.#s.head, 0)) >>> 0;
  }

  /** Bytes that can be written. */
  get free(): number {
    return this.capacity - this.available;
  }

  /** Empties the ring; neither side may be at work. */
  reset(): void {
    Atomics.store(this.#s.head, 0, Atomics.load(this.#s.tail, 0));
  }

  /** Writes what fits, without waiting; returns how many bytes that were. Only for the writer. */
  write(bytes: Uint8Array): number {
    const { data, tail } = this.#s;
    const n = Math.min(bytes.length, this.free);
    const at = Atomics.load(tail, 0) & this.#mask;
    const first = Math.min(n, data.length - at);
    data.set(bytes.subarray(0, first), at);
    data.set(bytes.subarray(first, n), 0);
    if (n > 0) this.#moved(tail, n);
    return n;
  }

  /** Writes one byte; false when the ring is full. Only for the writer. */
  push(byte: number): boolean {
    const { data, tail } = this.#s;
    if (this.free === 0) return false;
    data[Atomics.load(tail, 0) & this.#mask] = byte;
    this.#moved(tail, 1);
    return true;
  }

  /** A copy of up to `max` bytes, which are taken. Only for the reader. */
  read(max: number = this.capacity): Uint8Array<ArrayBuffer> {
    const { data, head } = this.#s;
    const n = Math.min(max, this.available);
    const at = Atomics.load(head, 0) & this.#mask;
    const first = Math.min(n, data.length - at);
    const out = new Uint8Array(n);
    out.set(data.subarray(at, at + first), 0);
    out.set(data.subarray(0, n - first), first);
    if (n > 0) this.#moved(head, n);
    return out;
  }

  /** Takes one byte; -1 when there is none. Only for the reader. */
  shift(): number {
    const { data, head } = this.#s;
    if (this.available === 0) return -1;
    const byte = data[Atomics.load(head, 0) & this.#mask]!;
    this.#moved(head, 1);
    return byte;
  }

  /** Wakes the other side only when it may sleep: when the ring was empty (a write) or full (a read) until now. */
  #moved(counter: Int32Array, n: number): void {
    const before = Atomics.add(counter, 0, n);
    Atomics.add(this.signal, 0, 1);
    const { head, tail } = this.#s;
    // The other counter is loaded after this one has moved, so a side that saw the old value and sleeps is not missed.
    const edge = counter === tail ? Atomics.load(head, 0) === before : (Atomics.load(tail, 0) - before) >>> 0 === this.capacity;
    if (edge) Atomics.notify(this.signal, 0);
  }
}
