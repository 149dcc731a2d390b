// What devices report: guest mistakes and diagnostics, so many lines per second, hour and thread at most.
import type { Clock } from './clock.ts';

/** One line for the log, from a device: what the guest did, with its address. */
export type Report = (device: string, message: string) => void;

/** Characters of one report; longer ones end in `…`. */
const LONGEST = 1000;
/** Lines per second of what somebody has asked to see: a firmware's messages, undefined opcodes. */
export const TRACE_BURST = 1000;
const SECOND = 1e9;
const HOUR = 3600 * SECOND;

/**
 * A `Report` that passes on `burst` lines per second of guest time, `hourly` per hour, and counts the rest: a guest that makes mistakes
 * for ever fills no disk.
 */
export function limited(report: Report, clock: Clock, burst = 10, hourly = 100 * burst): Report {
  const windows = [
    { length: SECOND, most: burst, start: Number.NEGATIVE_INFINITY, sent: 0 },
    { length: HOUR, most: hourly, start: Number.NEGATIVE_INFINITY, sent: 0 },
  ];
  let dropped = 0;
  return (device, message) => {
    const now = clock.now();
    for (const w of windows) {
      if (now - w.start < w.length) continue;
      w.start = now;
      w.sent = 0;
    }
    if (windows.some((w) => w.sent >= w.most)) {
      dropped++;
      return;
    }
    for (const w of windows) w.sent++;
    if (dropped > 0) report(device, `${dropped} more messages were left out`);
    dropped = 0;
    report(device, message.length > LONGEST ? `${message.slice(0, LONGEST)}…` : message);
  };
}
