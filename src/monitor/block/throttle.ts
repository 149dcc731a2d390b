// Limits of a disk's rate: leaky buckets, as QEMU's "I/O throttling" (docs/throttle.txt in words): a level that leaks at the average
// rate and may rise to the burst's size.

import type { Timers } from '../../rpc/transport.ts';

/** Per second; 0 is no limit. `…_max` is what a burst of `…_max_length` seconds may have. */
export interface Limits {
  readonly bps: number;
  readonly bps_rd: number;
  readonly bps_wr: number;
  readonly iops: number;
  readonly iops_rd: number;
  readonly iops_wr: number;
  readonly bps_max: number;
  readonly bps_rd_max: number;
  readonly bps_wr_max: number;
  readonly iops_max: number;
  readonly iops_rd_max: number;
  readonly iops_wr_max: number;
  /** Bytes that count as one request; 0 counts requests of any size as one. */
  readonly iops_size: number;
  readonly group: string;
}
export const limitNames = ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr'] as const;
export const noLimits: Limits = {
  bps: 0,
  bps_rd: 0,
  bps_wr: 0,
  iops: 0,
  iops_rd: 0,
  iops_wr: 0,
  bps_max: 0,
  bps_rd_max: 0,
  bps_wr_max: 0,
  iops_max: 0,
  iops_rd_max: 0,
  iops_wr_max: 0,
  iops_size: 0,
  group: '',
};
/** A burst of this many seconds is let through where none is given. */
const SLACK = 0.1;

export class Throttle {
  readonly #timers: Timers;
  readonly #clock: () => number;
  readonly #levels = new Map<string, number>();
  #limits: Limits = noLimits;
  #on = false;
  #last = 0;
  #queue: Promise<void> = Promise.resolve();

  constructor(timers: Timers, clock: () => number) {
    this.#timers = timers;
    this.#clock = clock;
  }
  set(limits: Limits): void {
    this.#limits = limits;
    this.#on = limitNames.some((name) => limits[name] > 0);
    this.#levels.clear();
    this.#last = this.#clock();
  }
  /** Resolves when a request of so many bytes may go; requests go in their order. */
  wait(kind: 'read' | 'write', bytes: number): Promise<void> {
    if (!this.#on) return Promise.resolve();
    return (this.#queue = this.#queue.then(() => this.#turn(kind, bytes)));
  }
  async #turn(kind: 'read' | 'write', bytes: number): Promise<void> {
    const suffix = kind === 'read' ? '_rd' : '_wr';
    const names = [
      ['bps', 'iops'],
      [`bps${suffix}`, `iops${suffix}`],
    ].flat() as (typeof limitNames)[number][];
    for (;;) {
      this.#leak();
      const late = Math.max(0, ...names.map((name) => this.#lateness(name)));
      if (late === 0) break;
      await new Promise<void>((resolve) => this.#timers.after(late, resolve));
    }
    const size = this.#limits.iops_size;
    for (const name of names) {
      const units = name.startsWith('bps') ? bytes : size > 0 ? Math.max(1, bytes / size) : 1;
      this.#levels.set(name, (this.#levels.get(name) ?? 0) + units);
    }
  }
  /** ms until the bucket has room. */
  #lateness(name: (typeof limitNames)[number]): number {
    const rate = this.#limits[name];
    if (rate === 0) return 0;
    const room = this.#limits[`${name}_max`] || rate * SLACK;
    const over = (this.#levels.get(name) ?? 0) - room;
    return over > 0 ? Math.max(1, (over / rate) * 1000) : 0;
  }
  #leak(): void {
    const now = this.#clock();
    const seconds = (now - this.#last) / 1000;
    this.#last = now;
    for (const [name, level] of this.#levels)
      this.#levels.set(name, Math.max(0, level - this.#limits[name as (typeof limitNames)[number]] * seconds));
  }
}
