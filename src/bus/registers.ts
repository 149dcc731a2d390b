// Register maps as data: one row per register gives the dispatch, the report of bad accesses and the reference page.
import { ones } from '../bits/fields.ts';
import type { Report } from './events.ts';
import type { Handler } from './space.ts';

type Names<D> = { [K in keyof D]: D[K] extends number ? K : never }[keyof D] & string;
/** How a register is read: by a function of the device, or as a numeric field of it. */
type Read<D> = ((device: D) => number) | Names<D>;
type Write<D> = ((device: D, value: number) => void) | Names<D>;

/** One register of device `D`. */
export interface Register<D> {
  readonly offset: number;
  /** Bytes: 1, 2 or 4. */
  readonly width: number;
  readonly name: string;
  readonly read?: Read<D>;
  readonly write?: Write<D>;
  /** What a narrower write does with the other bytes: keeps what a read gives, or writes zeros (bits that are cleared by ones). */
  readonly narrow: 'merge' | 'zero';
}

type Narrow = Register<unknown>['narrow'];

/** Read and write; without `write`, the field named by `read` is written. */
export const rw = <D>(
  offset: number,
  width: number,
  name: string,
  read: Read<D>,
  write?: Write<D>,
  narrow: Narrow = 'merge',
): Register<D> => {
  const to = write ?? (typeof read === 'string' ? read : undefined);
  if (to === undefined) throw new Error(`Cannot describe register ${name}: it is read by a function, give what writes it`);
  return { offset, width, name, read, write: to, narrow };
};
/** Read only: writes are ignored and reported. */
export const ro = <D>(offset: number, width: number, name: string, read: Read<D>): Register<D> => ({
  offset,
  width,
  name,
  read,
  narrow: 'merge',
});
/** Write only: reads give what an empty place gives, and are reported. */
export const wo = <D>(offset: number, width: number, name: string, write: Write<D>): Register<D> => ({
  offset,
  width,
  name,
  write,
  narrow: 'zero',
});
/** Read, and write ones to clear. */
export const w1c = <D>(
  offset: number,
  width: number,
  name: string,
  read: Read<D>,
  clear: (device: D, ones: number) => void,
): Register<D> => ({
  offset,
  width,
  name,
  read,
  write: clear,
  narrow: 'zero',
});

/** One line of a reference page. */
export interface RegisterInfo {
  readonly offset: number;
  readonly width: number;
  readonly name: string;
  readonly access: 'rw' | 'ro' | 'wo';
}

interface Row<D> {
  readonly offset: number;
  readonly width: number;
  readonly name: string;
  readonly read: ((device: D) => number) | undefined;
  readonly write: ((device: D, value: number) => void) | undefined;
  readonly narrow: Narrow;
}

export interface RegisterOptions {
  /** What an offset without a register reads as, per byte: 0 (the default) or 0xff. */
  readonly empty?: 0 | 0xff;
  readonly max?: 1 | 2 | 4;
}

export interface RegisterMap<D> {
  readonly name: string;
  /** Bytes. */
  readonly length: number;
  readonly list: readonly RegisterInfo[];
  /** The handler of one device. */
  bind(device: D, report?: Report): Handler;
}

/** A map of `length` bytes. Throws where rows overlap or leave the map. */
export function registers<D>(
  name: string,
  length: number,
  rows: readonly Register<D>[],
  options: RegisterOptions = {},
): RegisterMap<D> {
  const index = new Int16Array(length).fill(-1);
  for (const [i, r] of rows.entries()) {
    for (let o = r.offset; o < r.offset + r.width; o++) {
      if (o >= length)
        throw new Error(`Cannot place register ${r.name} of ${name} at 0x${r.offset.toString(16)}: the map has ${length} bytes`);
      if (index[o]! >= 0) throw new Error(`Cannot place register ${r.name} of ${name}: it overlaps ${rows[index[o]!]!.name}`);
      index[o] = i;
    }
  }
  const table: readonly Row<D>[] = rows.map((r) => {
    const { read, write } = r;
    return {
      offset: r.offset,
      width: r.width,
      name: r.name,
      narrow: r.narrow,
      read: typeof read === 'string' ? (d) => d[read] as number : read,
      write:
        typeof write === 'string'
          ? (d, v) => {
              (d as Record<string, number>)[write] = v;
            }
          : write,
    };
  });
  const empty = options.empty ?? 0;
  const list = rows.map(
    ({ offset, width, name, read, write }): RegisterInfo => ({
      offset,
      width,
      name,
      access: read === undefined ? 'wo' : write === undefined ? 'ro' : 'rw',
    }),
  );

  return {
    name,
    length,
    list,
    bind: (device, report) => new BoundMap(name, index, table, empty, options.max ?? 4, device, report),
  };
}

class BoundMap<D> implements Handler {
  readonly max: 1 | 2 | 4;
  readonly #name: string;
  readonly #index: Int16Array;
  readonly #rows: readonly Row<D>[];
  readonly #empty: number;
  readonly #device: D;
  readonly #report: Report | undefined;

  constructor(
    name: string,
    index: Int16Array,
    rows: readonly Row<D>[],
    empty: number,
    max: 1 | 2 | 4,
    device: D,
    report: Report | undefined,
  ) {
    this.#name = name;
    this.#index = index;
    this.#rows = rows;
    this.#empty = empty;
    this.max = max;
    this.#device = device;
    this.#report = report;
  }

  read(offset: number, size: number): number {
    const row = this.#rows[this.#index[offset]!];
    if (row?.read !== undefined && row.offset === offset && row.width === size) return row.read(this.#device) >>> 0;
    // Pieces: part of a register, several of them, or nothing.
    let value = 0;
    for (let done = 0; done < size; ) {
      const at = offset + done;
      const r = this.#rows[this.#index[at] ?? -1];
      if (r?.read === undefined) {
        this.#report?.(
          this.#name,
          `read of ${size} bytes at 0x${at.toString(16)}: ${r === undefined ? 'no register' : `${r.name} is write-only`}`,
        );
        value |= this.#empty << (8 * done);
        done += 1;
        continue;
      }
      const n = Math.min(r.offset + r.width - at, size - done);
      const piece = r.read(this.#device) >>> (8 * (at - r.offset));
      value |= (n === 4 ? piece : piece & (2 ** (8 * n) - 1)) << (8 * done);
      done += n;
    }
    return value >>> 0;
  }

  write(offset: number, size: number, value: number): void {
    const row = this.#rows[this.#index[offset]!];
    if (row?.write !== undefined && row.offset === offset && row.width === size) {
      row.write(this.#device, value);
      return;
    }
    for (let done = 0; done < size; ) {
      const at = offset + done;
      const r = this.#rows[this.#index[at] ?? -1];
      if (r?.write === undefined) {
        this.#report?.(
          this.#name,
          `write of ${size} bytes at 0x${at.toString(16)}: ${r === undefined ? 'no register' : `${r.name} is read-only`}`,
        );
        done += r === undefined ? 1 : r.offset + r.width - at;
        continue;
      }
      const n = Math.min(r.offset + r.width - at, size - done);
      const shift = 8 * (at - r.offset);
      const keep = n === r.width ? 0 : ~((2 ** (8 * n) - 1) << shift);
      const piece = (value >>> (8 * done)) << shift;
      const old = keep !== 0 && r.narrow === 'merge' && r.read !== undefined ? r.read(this.#device) : 0;
      r.write(this.#device, (((old & keep) | (piece & ~keep)) & ones(r.width)) >>> 0);
      done += n;
    }
  }
}
