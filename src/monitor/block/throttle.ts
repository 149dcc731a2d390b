// Limits of a disk's rate: leaky buckets, as QEMU's "I/O throttling" (docs/throttle.txt in words): a level that leaks at the average
// rate and may rise to the burst's size.

import type { Timers } from '../../rpc/transport.ts';

export const limitNames = ['bps', 'bps_rd', 'bps_wr', 'iops', 'iops_rd', 'iops_wr'] as const;
type LimitName = (typeof limitNames)[number];

/**
 * Per second; 0 is no limit. `…_max` is the rate that a burst may have for `…_max_length` seconds (1 where it is not given). `iops_size`: bytes that count as one
 * request; 0 counts requests of any size as one.
 */
export interface Limits extends Readonly<Record<LimitName | `${LimitName}_max` | `${LimitName}_max_length`, number>> {
  readonly iops_size: number;
  /** The limits are shared by all places of this name; the empty one is a place's own. */
  readonly group: string;
}
const each = (suffix: string, value: number) => Object.fromEntries(limitNames.map((name) => [`${name}${suffix}`, value]));
export const noLimits = {
  ...each('', 0),
  ...each('_max', 0),
  ...each('_max_length', 1),
  iops_size: 0,
  group: '',
} as unknown as Limits;

/** The highest rate that may be said. */
const VALUE_MAX = 1e15;

/** What is wrong with limits; undefined for good ones. */
export function limitsFault(limits: Limits): string | undefined {
  for (const suffix of ['', '_max'] as const)
    for (const all of ['bps', 'iops'] as const)
      if (limits[`${all}${suffix}`] !== 0 && (limits[`${all}_rd${suffix}`] !== 0 || limits[`${all}_wr${suffix}`] !== 0))
        return 'bps/iops/max total values and read/write values cannot be used at the same time';
  if (limits.iops_size !== 0 && limits.iops === 0 && limits.iops_rd === 0 && limits.iops_wr === 0)
    return 'iops size requires an iops value to be set';
  for (const name of limitNames) {
    const [rate, max, length] = [limits[name], limits[`${name}_max`], limits[`${name}_max_length`]];
    if ([rate, max].some((value) => value < 0 || value > VALUE_MAX))
      return `bps/iops/max values must be within [0, ${VALUE_MAX}]`;
    if (length <= 0) return 'the burst length cannot be 0';
    if (length > 1 && max === 0) return 'burst length set without burst rate';
    if (max !== 0 && length > VALUE_MAX / max) return 'burst length too high for this burst rate';
    if (max !== 0 && rate === 0) return 'bps_max/iops_max require corresponding bps/iops values';
    if (max !== 0 && max < rate) return 'bps_max/iops_max cannot be lower than bps/iops';
  }
  return undefined;
}

/** A burst of this many seconds is let through where none is given, and at a burst's own rate. */
const SLACK = 0.1;

/** What has gone through lately: `level` leaks at the average rate, `burst` at that of bursts. */
interface Bucket {
  level: number;
  burst: number;
}

export class Throttle {
  readonly #timers: Timers;
  readonly #clock: () => number;
  readonly #buckets = new Map<LimitName, Bucket>();
  #limits: Limits = noLimits;
  #on = false;
  #last = 0;
  #queue: Promise<void> = Promise.resolve();

  constructor(timers: Timers, clock: () => number) {
    this.#timers = timers;
    this.#clock = clock;
  }
  get limits(): Limits {
    return this.#limits;
  }
  /** Some rate is limited. */
  get on(): boolean {
    return this.#on;
  }
  set(limits: Limits): void {
    this.#limits = limits;
    this.#on = limitNames.some((name) => limits[name] > 0);
    this.#buckets.clear();
    this.#last = this.#clock();
  }
  /** Resolves when a request of so many bytes may go; requests go in their order. */
  wait(kind: 'read' | 'write', bytes: number): Promise<void> {
    if (!this.#on) return Promise.resolve();
    return (this.#queue = this.#queue.then(() => this.#turn(kind, bytes)));
  }
  async #turn(kind: 'read' | 'write', bytes: number): Promise<void> {
    const suffix = kind === 'read' ? '_rd' : '_wr';
    const names: readonly LimitName[] = ['bps', 'iops', `bps${suffix}`, `iops${suffix}`];
    for (;;) {
      this.#leak();
      const late = Math.max(0, ...names.map((name) => this.#lateness(name)));
      if (late === 0) break;
      await new Promise<void>((resolve) => this.#timers.after(late, resolve));
    }
    const size = this.#limits.iops_size;
    for (const name of names) {
      const units = name.startsWith('bps') ? bytes : size > 0 ? Math.max(1, bytes / size) : 1;
      const { level, burst } = this.#bucket(name);
      this.#buckets.set(name, { level: level + units, burst: burst + units });
    }
  }
  #bucket(name: LimitName): Bucket {
    return this.#buckets.get(name) ?? { level: 0, burst: 0 };
  }
  /** ms until the bucket has room. */
  #lateness(name: LimitName): number {
    const [rate, max, length] = [this.#limits[name], this.#limits[`${name}_max`], this.#limits[`${name}_max_length`]];
    if (rate === 0) return 0;
    const { level, burst } = this.#bucket(name);
    const over = level - (max > 0 ? max * length : rate * SLACK);
    if (over > 0) return Math.max(1, (over / rate) * 1000);
    const fast = length > 1 ? burst - max * SLACK : 0;
    return fast > 0 ? Math.max(1, (fast / max) * 1000) : 0;
  }
  #leak(): void {
    const now = this.#clock();
    const seconds = (now - this.#last) / 1000;
    this.#last = now;
    for (const [name, bucket] of this.#buckets) {
      bucket.level = Math.max(0, bucket.level - this.#limits[name] * seconds);
      bucket.burst = Math.max(0, bucket.burst - this.#limits[`${name}_max`] * seconds);
    }
  }
}
