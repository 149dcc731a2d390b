// Requests between the vCPUs of one machine about decoded code: "drop write permission for this page" and "this page's code has
// changed". Each vCPU has a ring in shared memory; senders wait until a running receiver has done what keeps the guest coherent.

import { kick } from '../../isa/x86/state.ts';
import type { MemoryLayout } from '../accel.ts';
import { Area } from './layout.ts';

/** Requests. */
export const Request = { protect: 1, changed: 2 } as const;

const ENTRIES = 512;
// i32 words: lock, head (next to read), tail (next to write), running, overflow, then the entries.
const LOCK = 0;
const HEAD = 1;
const TAIL = 2;
const RUNNING = 3;
const OVERFLOW = 4;
const FIRST = 16;
/** The number of a request that found no room: the receiver forgets everything instead. */
const EVERYTHING = -1;

/** Bytes of a mailbox. */
export const MAILBOX_BYTES = (FIRST + ENTRIES) * 4;

export class Mailbox {
  readonly #words: Int32Array;
  readonly #kick: () => void;

  /** `kick` makes the receiver drain its box soon. */
  constructor(memory: SharedArrayBuffer, offset: number, kick: () => void) {
    this.#words = new Int32Array(memory, offset, FIRST + ENTRIES);
    this.#kick = kick;
  }

  /** The receiver is about to run guest code (then it must drain first), or has stopped doing so. */
  setRunning(running: boolean): void {
    Atomics.store(this.#words, RUNNING, running ? 1 : 0);
  }
  /** Whether requests wait. */
  get waiting(): boolean {
    return Atomics.load(this.#words, OVERFLOW) !== 0 || Atomics.load(this.#words, HEAD) !== Atomics.load(this.#words, TAIL);
  }
  /** Handles all waiting requests: kind, and page number of RAM; or `everything` where some found no room. */
  drain(handle: (kind: number, page: number) => void, everything: () => void): void {
    const w = this.#words;
    for (let head = Atomics.load(w, HEAD); head !== Atomics.load(w, TAIL); ) {
      const entry = w[FIRST + (head % ENTRIES)];
      handle(entry >>> 28, entry & 0xfffffff);
      head = (head + 1) | 0;
      Atomics.store(w, HEAD, head);
    }
    if (Atomics.load(w, OVERFLOW) !== 0) {
      everything();
      Atomics.store(w, OVERFLOW, 0);
    }
  }
  /** Posts a request and gives its number, for `done`. */
  post(kind: number, page: number): number {
    const w = this.#words;
    while (Atomics.compareExchange(w, LOCK, 0, 1) !== 0);
    const tail = Atomics.load(w, TAIL);
    const full = tail - Atomics.load(w, HEAD) >= ENTRIES;
    if (full) Atomics.store(w, OVERFLOW, 1);
    else {
      w[FIRST + (tail % ENTRIES)] = (kind << 28) | page;
      Atomics.store(w, TAIL, (tail + 1) | 0);
    }
    Atomics.store(w, LOCK, 0);
    this.#kick();
    return full ? EVERYTHING : tail;
  }
  /** Whether request `number` has been handled, or its receiver does not run now and will handle it before it does. */
  done(number: number): boolean {
    const w = this.#words;
    const handled = number === EVERYTHING ? Atomics.load(w, OVERFLOW) === 0 : Atomics.load(w, HEAD) - number > 0;
    return handled || Atomics.load(w, RUNNING) === 0;
  }
}

/** A function that tells all vCPUs of a machine, from any thread and without waiting, that a page of RAM has changed (`WriteWatch`). */
export function codeNotifier(memory: SharedArrayBuffer, layout: MemoryLayout, cpus: number): (page: number) => void {
  const words = new Int32Array(memory);
  const boxes = Array.from({ length: cpus }, (_, n) => {
    const area = layout.vcpuBase + n * layout.vcpuBytes;
    return new Mailbox(memory, area + Area.mailbox, () => Atomics.or(words, (area + kick.offset) >> 2, 1));
  });
  return (page) => {
    for (const box of boxes) box.post(Request.changed, page);
  };
}
