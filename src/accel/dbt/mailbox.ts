// Requests between the vCPUs of one machine about decoded code: "drop write permission for this page" and "this page's code has
// changed". Each vCPU has a ring in shared memory; senders wait until a running receiver has done what keeps the guest coherent.

/** Requests. */
export const Request = { protect: 1, changed: 2 } as const;

const ENTRIES = 512;
// i32 words: lock, head (next to read), tail (next to write), running, then the entries.
const LOCK = 0;
const HEAD = 1;
const TAIL = 2;
const RUNNING = 3;
const FIRST = 16;

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
    return Atomics.load(this.#words, HEAD) !== Atomics.load(this.#words, TAIL);
  }
  /** Handles all waiting requests: kind, and page number of RAM. */
  drain(handle: (kind: number, page: number) => void): void {
    const w = this.#words;
    for (let head = Atomics.load(w, HEAD); head !== Atomics.load(w, TAIL); ) {
      const entry = w[FIRST + (head % ENTRIES)];
      handle(entry >>> 28, entry & 0xfffffff);
      head++;
      Atomics.store(w, HEAD, head);
    }
  }
  /** Posts a request and gives its number; -1 while the box is full. */
  post(kind: number, page: number): number {
    const w = this.#words;
    while (Atomics.compareExchange(w, LOCK, 0, 1) !== 0);
    const tail = Atomics.load(w, TAIL);
    const full = tail - Atomics.load(w, HEAD) >= ENTRIES;
    if (!full) {
      w[FIRST + (tail % ENTRIES)] = (kind << 28) | page;
      Atomics.store(w, TAIL, tail + 1);
    }
    Atomics.store(w, LOCK, 0);
    this.#kick();
    return full ? -1 : tail;
  }
  /** Whether request `number` has been handled, or its receiver does not run now and will handle it before it does. */
  done(number: number): boolean {
    return Atomics.load(this.#words, HEAD) - number > 0 || Atomics.load(this.#words, RUNNING) === 0;
  }
}
