// The host's clocks as the machine's: every thread of one machine reads the same time.

import type { Clock, WallClock } from '../../bus/clock.ts';

/** Monotonic time of this host in ns, for `machineClock` of all threads. */
export const hostEpoch = (): bigint => process.hrtime.bigint();

/** Nanoseconds since `epoch`, the same in every thread. */
export function machineClock(epoch: bigint): Clock {
  // `performance.now()` is the cheaper clock; the offset to the common one is taken once.
  const offset = Number(process.hrtime.bigint() - epoch) - performance.now() * 1e6;
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
