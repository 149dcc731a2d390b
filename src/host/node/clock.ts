// The host's clocks as the machine's: every thread of one machine reads the same time.

import type { Clock, WallClock } from '../../bus/clock.ts';

/** Monotonic time of this host in ns, for `machineClock` of all threads. */
export const hostEpoch = (): bigint => process.hrtime.bigint();

/** Nanoseconds since `epoch`, the same in every thread. */
export function machineClock(epoch: bigint): Clock {
  // The cheapest of Node's clocks for guests that read their time-stamp counter: `performance.now()` looks at what it is called on.
  const { hrtime } = process;
  const seconds = Number(epoch / 1_000_000_000n);
  const rest = Number(epoch % 1_000_000_000n);
  return {
    now: () => {
      const [s, ns] = hrtime();
      return (s - seconds) * 1e9 + (ns - rest);
    },
  };
}

interface Instant {
  readonly epochNanoseconds: bigint;
}
/** `Temporal.Now.instant` where this JavaScript has it: `Date.now()` gives whole milliseconds, the RTC shows its last 244 µs of a second. */
const instant = (globalThis as { Temporal?: { Now: { instant(): Instant } } }).Temporal?.Now.instant;

export const wallClock: WallClock = {
  epochSeconds: instant ? () => Number(instant().epochNanoseconds) / 1e9 : () => Date.now() / 1000,
};
