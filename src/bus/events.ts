// What devices report: guest mistakes and diagnostics, a few lines per second and thread at most.
import type { Clock } from './clock.ts';

/** One line for the log, from a device: what the guest did, with its address. */
export type Report = (device: string, message: string) => void;

/** A `Report` that passes on `burst` lines per second of guest time and counts the rest. */
export function limited(report: Report, clock: Clock, burst = 10): Report {
  let windowStart = Number.NEGATIVE_INFINITY;
  let sent = 0;
  let dropped = 0;
  return (device, message) => {
    const now = clock.now();
    if (now - windowStart >= 1e9) {
      if (dropped > 0) report(device, `${dropped} more messages were left out`);
      windowStart = now;
      sent = 0;
      dropped = 0;
    }
    if (sent++ < burst) report(device, message);
    else dropped++;
  };
}
