// Time as devices see it: a clock and a wall clock that the machine gives them, and the timers that they keep.
import { struct, type ViewOf } from '../bits/struct.ts';

/** Guest time since power-on, in ns; never goes back. The machine decides whether it follows the host or a record. */
export interface Clock {
  now(): number;
}

/** Seconds since 1970-01-01T00:00:00Z, with fractions. */
export interface WallClock {
  epochSeconds(): number;
}

/** A device that acts at times. */
export interface Timed {
  /** Time of the next action in ns of the `Clock`, `Infinity` when there is none. May be read without the lock. */
  next(): number;
  /** Does what is due at or before `now`; harmless when nothing is. With the board's lock held. */
  tick(now: number): void;
}

export const timersLayout = struct({ changes: ['i32', 1] });

/** The timers that one thread serves. Any thread that makes an action earlier calls `changed`, which wakes the server. */
export class Timers implements Timed {
  readonly #list: Timed[] = [];
  /** Word for `Atomics.wait` and `Atomics.waitAsync`, index 0: load it, ask `next()`, wait for a change or that time. */
  readonly signal: Int32Array;

  constructor(shared: ViewOf<typeof timersLayout>) {
    this.signal = shared.changes;
  }

  add(timed: Timed): void {
    this.#list.push(timed);
  }
  remove(timed: Timed): void {
    const i = this.#list.indexOf(timed);
    if (i >= 0) this.#list.splice(i, 1);
  }

  next(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const t of this.#list) next = Math.min(next, t.next());
    return next;
  }

  tick(now: number): void {
    for (const t of this.#list) if (t.next() <= now) t.tick(now);
  }

  changed(): void {
    Atomics.add(this.signal, 0, 1);
    Atomics.notify(this.signal, 0);
  }
}
