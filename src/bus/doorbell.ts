// Doorbells: how a device's registers, on any thread, wake the device's work on the I/O thread. A ring never waits and never gets lost;
// rings that were not yet heard are one.
import { struct, type ViewOf } from '../bits/struct.ts';

/** The word on which the I/O thread sleeps: 1 while a bell was rung that it has not looked at. One per machine. */
export const bellsLayout = struct({ rung: ['i32', 1] });
/** The state of one doorbell: 1 while it was rung and not heard. */
export const doorbellLayout = struct({ flag: ['i32', 1] }, { name: 'doorbell', version: 1 });

/** Longest sleep of the I/O thread. */
const LOOK_MS = 200;

/** What a ring changes, in shared memory: where it is 0, `kicked` and then `flag` become 1, and who sleeps on `rung` wakes. */
export interface BellWords {
  /** Why it was rung: cleared by who heard it. */
  readonly kicked: Int32Array;
  readonly flag: Int32Array;
  readonly rung: Int32Array;
}
/** Rings from the words alone, from any thread; false where it was rung before and nobody has looked since. */
export function ringWords({ kicked, flag, rung }: BellWords): boolean {
  if (Atomics.exchange(kicked, 0, 1) !== 0) return false;
  if (Atomics.exchange(flag, 0, 1) === 0 && Atomics.exchange(rung, 0, 1) === 0) Atomics.notify(rung, 0);
  return true;
}

export class Doorbell {
  /** What the I/O thread does when it was rung; set by the device's I/O side. */
  heard: (() => void) | undefined;
  readonly #flag: Int32Array;
  readonly #rung: Int32Array;

  constructor(state: ViewOf<typeof doorbellLayout>, bells: ViewOf<typeof bellsLayout>) {
    this.#flag = state.flag;
    this.#rung = bells.rung;
  }
  /** From any thread. */
  ring(): void {
    if (Atomics.exchange(this.#flag, 0, 1) !== 0) return;
    if (Atomics.exchange(this.#rung, 0, 1) === 0) Atomics.notify(this.#rung, 0);
  }
  /** For who rings it without this object; `kicked` says what for. */
  words(kicked: Int32Array): BellWords {
    return { kicked, flag: this.#flag, rung: this.#rung };
  }
  /** True, once, when it was rung. */
  take(): boolean {
    return Atomics.load(this.#flag, 0) !== 0 && Atomics.exchange(this.#flag, 0, 0) !== 0;
  }
}

/** All doorbells of a machine, as one thread sees them. */
export class Bells {
  readonly #state: ViewOf<typeof bellsLayout>;
  readonly #bells = new Set<Doorbell>();
  #open = true;

  constructor(state: ViewOf<typeof bellsLayout>) {
    this.#state = state;
  }
  add(state: ViewOf<typeof doorbellLayout>): Doorbell {
    const bell = new Doorbell(state, this.#state);
    this.#bells.add(bell);
    return bell;
  }
  remove(bell: Doorbell): void {
    this.#bells.delete(bell);
  }
  /** Hears what was rung: how many bells. */
  hear(): number {
    Atomics.store(this.#state.rung, 0, 0);
    let count = 0;
    for (const bell of this.#bells) {
      if (!bell.take()) continue;
      bell.heard?.();
      count++;
    }
    return count;
  }
  /**
   * Hears until `close`; only on the I/O thread. `turn` resolves when all else that waits for this thread has had its turn; `rang` is told how many bells were
   * heard.
   */
  async serve(turn: () => Promise<void>, rang: (count: number) => void = () => {}): Promise<void> {
    while (this.#open) {
      // A look now and then, whatever the word says: a restored state may hold bells that were rung before it was saved.
      const wait = Atomics.waitAsync(this.#state.rung, 0, 0, LOOK_MS);
      if (wait.async) await wait.value;
      // A guest that rings without end must not keep this thread from anything else.
      else await turn();
      const count = this.hear();
      if (count > 0) rang(count);
    }
  }
  close(): void {
    this.#open = false;
    Atomics.store(this.#state.rung, 0, 1);
    Atomics.notify(this.#state.rung, 0);
  }
}
