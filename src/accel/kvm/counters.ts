// What a vCPU on KVM counts: exits by reason, and the time until it goes back. In shared memory, so that any thread may look.

import { exitReasons } from './abi.ts';

/** Reasons: the kernel's, runs that a kick or a timer ended, and instructions that the translator executed. */
export const exitNames = [...exitReasons, 'interrupted', 'assist'] as const;
export type ExitName = (typeof exitNames)[number];
const place = Object.fromEntries(exitNames.map((name, i) => [name, i])) as Record<ExitName, number>;

/** Bytes of a vCPU's counters: for each reason the exits, and nanoseconds outside of the guest. */
export const EXIT_COUNTER_BYTES = exitNames.length * 16;
/** So many exits of a reason are timed one by one; later ones stand for as many each. */
const SAMPLE = 16;

/** Exits of one reason, and the nanoseconds that serving them took (sampled). */
export interface ExitCount {
  readonly exits: number;
  readonly ns: number;
}

/** The counters of one vCPU. */
export class ExitCounters {
  readonly #values: Float64Array;

  constructor(buffer: ArrayBufferLike, offset: number) {
    this.#values = new Float64Array(buffer, offset, exitNames.length * 2);
  }
  /** Counts one; how many exits this one stands for where it is to be timed, else 0. */
  count(name: ExitName): number {
    const n = ++this.#values[2 * place[name]]!;
    return n <= SAMPLE ? 1 : n % SAMPLE === 0 ? SAMPLE : 0;
  }
  took(name: ExitName, ns: number): void {
    this.#values[2 * place[name] + 1]! += ns;
  }
  /** The reasons that there were. */
  read(): Partial<Record<ExitName, ExitCount>> {
    const found = exitNames.map((name, i): [ExitName, ExitCount] => [
      name,
      { exits: this.#values[2 * i]!, ns: this.#values[2 * i + 1]! },
    ]);
    return Object.fromEntries(found.filter(([, { exits }]) => exits > 0));
  }
}

/** Counters as text: one reason a line, the most frequent first. */
export function exitText(counts: Partial<Record<ExitName, ExitCount>>): string {
  const rows = Object.entries(counts).sort(([, a], [, b]) => b.exits - a.exits);
  const all = rows.reduce((sum, [, { exits }]) => sum + exits, 0);
  const line = (exits: number, text: string): string => `${String(exits).padStart(14)} ${text}`;
  return [
    line(all, 'exits'),
    ...rows.map(([name, { exits, ns }]) => line(exits, `${name}, ${(ns / 1e6).toFixed(1)} ms outside of the guest`)),
  ].join('\n');
}
