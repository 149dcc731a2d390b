// The board's lock: a mutex in shared memory that spins briefly, then sleeps (three states, as U. Drepper, "Futexes Are Tricky", section 6, mutex 2).
// Whoever calls a device holds it; devices themselves never take it, so it need not be recursive.
import { struct, type ViewOf } from '../bits/struct.ts';

/** `word`: 0 free, 1 held, 2 held with sleepers; `owner`: the holder's id, 0 for none. */
export const lockLayout = struct({ word: ['i32', 1], owner: ['i32', 1] });

const spins = 200;

export class Lock {
  readonly #word: Int32Array;
  readonly #owner: Int32Array;
  readonly #id: number;

  /** `id` names this thread, from 1; every thread of a machine has its own. */
  constructor(shared: ViewOf<typeof lockLayout>, id: number) {
    if (!(id > 0)) throw new Error(`Cannot make a lock for thread ${id}: ids begin at 1`);
    this.#word = shared.word;
    this.#owner = shared.owner;
    this.#id = id;
  }

  /** Id of the thread that holds the lock, 0 for none; for diagnostics. */
  get owner(): number {
    return Atomics.load(this.#owner, 0);
  }

  /** True when this thread holds the lock. */
  get held(): boolean {
    return Atomics.load(this.#owner, 0) === this.#id;
  }

  acquire(): void {
    if (Atomics.compareExchange(this.#word, 0, 0, 1) !== 0) this.#wait();
    Atomics.store(this.#owner, 0, this.#id);
  }

  release(): void {
    Atomics.store(this.#owner, 0, 0);
    if (Atomics.exchange(this.#word, 0, 0) === 2) Atomics.notify(this.#word, 0, 1);
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
    if (this.held) throw new Error(`Cannot take the board's lock: thread ${this.#id} already holds it`);
    for (let i = 0; i < spins; i++) {
      if (Atomics.load(this.#word, 0) === 0 && Atomics.compareExchange(this.#word, 0, 0, 1) === 0) return;
    }
    while (Atomics.exchange(this.#word, 0, 2) !== 0) Atomics.wait(this.#word, 0, 2);
  }
}
