// A timer that is set again far more often than it fires (RFC 6298's retransmission timer is set with every acknowledgement).
import type { NetClock } from './host.ts';

export class Timer {
  readonly #clock: NetClock;
  readonly #action: () => void;
  #deadline = Number.POSITIVE_INFINITY;
  #hostDeadline = Number.POSITIVE_INFINITY;
  #cancel: (() => void) | undefined;

  constructor(clock: NetClock, action: () => void) {
    this.#clock = clock;
    this.#action = action;
  }

  get armed(): boolean {
    return this.#deadline !== Number.POSITIVE_INFINITY;
  }

  /** Fires once, `ms` from now, in place of what was set before. */
  set(ms: number): void {
    this.#deadline = this.#clock.now() + ms;
    // A host timer that fires too early only looks again: setting a later deadline then costs no host timer.
    if (this.#hostDeadline <= this.#deadline) return;
    this.#cancel?.();
    this.#arm(ms);
  }

  /** Does not fire until it is set again. The host's timer stays, and finds nothing to do. */
  clear(): void {
    this.#deadline = Number.POSITIVE_INFINITY;
  }

  /** As `clear`, and gives back the host's timer. */
  close(): void {
    this.clear();
    this.#cancel?.();
    this.#cancel = undefined;
    this.#hostDeadline = Number.POSITIVE_INFINITY;
  }

  #arm(ms: number): void {
    this.#hostDeadline = this.#clock.now() + ms;
    this.#cancel = this.#clock.after(ms, () => this.#look());
  }

  #look(): void {
    this.#hostDeadline = Number.POSITIVE_INFINITY;
    this.#cancel = undefined;
    if (!this.armed) return;
    const left = this.#deadline - this.#clock.now();
    // Hosts round timers to a millisecond and may fire a fraction early.
    if (left > 0.5) return this.#arm(left);
    this.clear();
    this.#action();
  }
}
