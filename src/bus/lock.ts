// The board's lock: a mutex in shared memory that spins briefly, then sleeps (as U. Drepper, "Futexes Are Tricky", section 6, with the holder's id in the word).
// Whoever calls a device holds it; devices themselves never take it, so it need not be recursive.
import { struct, type ViewOf } from '../bits/struct.ts';

/** `word`: 0 free, else the holder's id times two, plus one while others may sleep. */
export const lockLayout = struct({ word: ['i32', 1] });

const spins = 200;

export class Lock {
  readonly #word: Int32Array;
  readonly #mine: number;

  /** `id` names this thread, from 1; every thread of a machine has its own. */
  constructor(shared: ViewOf<typeof lockLayout>, id: number) {
    if (!(id > 0)) throw new Error(`Cannot make a lock for thread ${id}: ids begin at 1`);
    this.#word = shared.word;
    this.#mine = id * 2;
  }

  /** Id of the thread that holds the lock, 0 for none; for diagnostics. */
  get owner(): number {
    return Atomics.load(this.#word, 0) >>> 1;
  }

  /** True when this thread holds the lock. */
  get held(): boolean {
    return this.owner === this.#mine >>> 1;
  }

  acquire(): void {
    if (Atomics.compareExchange(this.#word, 0, 0, this.#mine) !== 0) this.#wait();
  }

  release(): void {
    if (Atomics.exchange(this.#word, 0, 0) & 1) Atomics.notify(this.#word, 0, 1);
  }

  /** Runs `f` with the lock held. */
  run<T>(f: () => T): T {
    this.acquire();
    try {
      return f();
    } finally {
      this.release();
    }
  }

  #wait(): void {
    const word = this.#word;
    if (this.held) throw new Error(`Cannot take the board's lock: thread ${this.#mine >>> 1} already holds it`);
    for (let i = 0; i < spins; i++) {
      if (Atomics.load(word, 0) === 0 && Atomics.compareExchange(word, 0, 0, this.#mine) === 0) return;
    }
    for (;;) {
      // Whoever has slept takes the lock as contended: it cannot know whether others still sleep.
      const seen = Atomics.compareExchange(word, 0, 0, this.#mine | 1);
      if (seen === 0) return;
      if (seen & 1 || Atomics.compareExchange(word, 0, seen, seen | 1) === seen) Atomics.wait(word, 0, seen | 1);
    }
  }
}
