// Samples of a guest as rates over time, for its plots.

import { type GuestSample, isActive } from '../api.ts';

/** What a plot shows of a guest. */
export interface Series {
  readonly title: string;
  readonly key: 'cpu' | 'memory' | 'disk' | 'network';
  /** The value as text. */
  readonly text: (value: number, guest: GuestSample) => string;
  /** Top of the scale; undefined for the largest value seen. */
  readonly top: (guest: GuestSample) => number | undefined;
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;
export function bytes(value: number): string {
  let unit = 0;
  let left = value;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit++;
  }
  return `${left >= 100 || unit === 0 ? Math.round(left) : left.toFixed(1)} ${units[unit]}`;
}

export const series: readonly Series[] = [
  { title: 'CPU', key: 'cpu', text: (value) => `${Math.round(value)} %`, top: () => 100 },
  { title: 'Memory', key: 'memory', text: (value) => bytes(value), top: (guest) => guest.memoryMax * 1024 },
  { title: 'Disk', key: 'disk', text: (value) => `${bytes(value)}/s`, top: () => undefined },
  { title: 'Network', key: 'network', text: (value) => `${bytes(value)}/s`, top: () => undefined },
];

/** A value for each moment; null where there is none. */
export type Values = Readonly<Record<Series['key'], readonly (number | null)[]>>;
/** Moments that are kept: two minutes. */
export const moments = 120;

export class GuestHistory {
  readonly values: Record<Series['key'], (number | null)[]> = { cpu: [], memory: [], disk: [], network: [] };
  #last: { readonly at: number; readonly guest: GuestSample } | undefined;

  add(at: number, guest: GuestSample): void {
    const last = this.#last;
    // Two samples of one moment have no rate.
    if (last !== undefined && at - last.at < 500 && last.guest.state === guest.state) return;
    this.#last = { at, guest };
    const active = isActive(guest.state);
    const seconds = last === undefined ? 0 : (at - last.at) / 1000;
    const rate = (now: number | null, before: number | null | undefined): number | null =>
      !active ||
      now === null ||
      before === null ||
      before === undefined ||
      seconds <= 0 ||
      now < before ||
      last?.guest.id !== guest.id
        ? null
        : (now - before) / seconds;
    const cpu = rate(guest.cpuTime, last?.guest.cpuTime);
    this.#push('cpu', cpu === null ? null : Math.min(100, cpu / 1e7 / Math.max(1, guest.cpus)));
    this.#push('memory', active ? guest.memory * 1024 : null);
    this.#push('disk', rate(guest.disk, last?.guest.disk));
    this.#push('network', rate(guest.network, last?.guest.network));
  }
  #push(key: Series['key'], value: number | null): void {
    const list = this.values[key];
    list.push(value);
    if (list.length > moments) list.shift();
  }
}
