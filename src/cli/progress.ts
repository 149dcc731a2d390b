// A progress bar on a terminal's one line: carriage return and erase-to-end, ECMA-48 5th edition, 8.3.41 (EL).

import type { Report, Step } from '../images/report.ts';

/** Where the bar is drawn, usually process.stderr. */
export type BarStream = { readonly isTTY?: boolean; readonly columns?: number; write(text: string): unknown };

/** A listener that draws, and its end, which clears the line. On anything but a terminal both do nothing. */
export type ProgressBar = { readonly report: Report; readonly end: () => void };

/** Least time between two drawings of one step, milliseconds. */
const PAUSE = 50;

/** A progress bar for one run of work. `now` is a clock in milliseconds. */
export function progressBar(stream: BarStream, now: () => number = () => performance.now()): ProgressBar {
  if (!stream.isTTY) return { report: () => {}, end: () => {} };
  let label = '';
  let last = 0;
  let drawn = false;
  return {
    report(step) {
      const finished = step.total !== undefined && step.done >= step.total;
      if (step.label === label && !finished && now() - last < PAUSE) return;
      label = step.label;
      last = now();
      drawn = true;
      stream.write(`\r${renderStep(step, stream.columns ?? 80)}\x1b[K`);
    },
    end() {
      if (drawn) stream.write('\r\x1b[K');
      drawn = false;
      label = '';
    },
  };
}

/** One line for a step, shorter than `columns`; the label is cut before the bar is. */
export function renderStep(step: Step, columns: number): string {
  if (!step.total) return `${step.label}…`.slice(0, Math.max(0, columns - 1));
  const share = Math.min(1, Math.max(0, step.done / step.total));
  const width = Math.max(5, Math.min(30, Math.floor(columns / 3)));
  const full = Math.round(share * width);
  const bar = ` [${'='.repeat(full)}${' '.repeat(width - full)}] ${String(Math.floor(share * 100)).padStart(3)}%`;
  const room = columns - 1 - bar.length;
  return room < 1 ? bar.trim().slice(0, Math.max(0, columns - 1)) : step.label.slice(0, room) + bar;
}
