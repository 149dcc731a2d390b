// The host's clocks as the machine's: every thread of one machine reads the same time.

import type { Clock, WallClock } from '../../bus/clock.ts';

/** Monotonic time of this host in ns, for `machineClock` of all threads. */
export const hostEpoch = (): bigint => process.hrtime.bigint();

/** Readings by which a thread finds its distance to the common clock. */
const READINGS = 100;

/**
 * What to add to `own` for `common`, in the unit of both: two clocks of the same pace, read in turn. Each reading of the one between two of
 * the other bounds the distance, and the closest bounds decide: where a thread loses its processor between two readings, these say little.
 */
export function clockDistance(own: () => number, common: () => number): number {
  let least = Number.NEGATIVE_INFINITY;
  let most = Number.POSITIVE_INFINITY;
  for (let n = 0; n < READINGS; n++) {
    const before = own();
    const at = common();
    const after = own();
    least = Math.max(least, at - after);
    most = Math.min(most, at - before);
  }
  return (least + most) / 2;
}

/** Nanoseconds since `epoch`, the same in every thread. */
export function machineClock(epoch: bigint): Clock {
  // `performance.now()` is the cheaper clock. Each thread has its own, at a distance to the common one that does not change.
  const own = (): number => performance.now() * 1e6;
  const offset = clockDistance(own, () => Number(process.hrtime.bigint() - epoch));
  return { now: () => performance.now() * 1e6 + offset };
}

interface Instant {
  readonly epochNanoseconds: bigint;
}
/** `Temporal.Now.instant` where this JavaScript has it: `Date.now()` gives whole milliseconds, the RTC shows its last 244 µs of a second. */
const instant = (globalThis as { Temporal?: { Now: { instant(): Instant } } }).Temporal?.Now.instant;

export const wallClock: WallClock = {
  epochSeconds: instant ? () => Number(instant().epochNanoseconds) / 1e9 : () => Date.now() / 1000,
};
