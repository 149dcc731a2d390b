// An address space of devices: 64 Ki ports or sparse MMIO; finds the device behind an address and makes the access under the board's lock.
import { ones } from '../bits/fields.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { BellWords } from './doorbell.ts';
import type { Lock } from './lock.ts';

/** What stands behind a range of addresses. Called with the board's lock held; never throws for what a guest does. */
export interface Handler {
  /** Largest access in bytes that the device takes as one; wider ones are split. 4 when absent. */
  readonly max?: 1 | 2 | 4 | 8;
  /** Reads 1, 2 or 4 bytes at `offset` from the range's base, as an unsigned number. */
  read(offset: number, size: number): number;
  /** Writes 1, 2 or 4 bytes; `value` is unsigned and fits. */
  write(offset: number, size: number, value: number): void;
  /** One access of 8 bytes; only called where `max` is 8. */
  read64?(offset: number): bigint;
  write64?(offset: number, value: bigint): void;
  /** Writes that do no more than ring, as things are now. */
  bells?(): readonly BellWrite[];
}

/** A write that does no more than ring a doorbell: an accelerator may ring in the handler's place. */
export interface BellWrite {
  /** From the range's base. */
  readonly offset: number;
  readonly size: 1 | 2 | 4;
  /** The value that rings it; any does where it is absent. */
  readonly match?: number;
  readonly words: BellWords;
}
/** A `BellWrite` where the guest finds it. */
export interface PlacedBell extends BellWrite {
  readonly space: 'ports' | 'mmio';
  readonly address: number;
}

/** A range of addresses and what stands behind it. */
export interface Region {
  readonly base: number;
  readonly length: number;
  readonly name: string;
  readonly handler: Handler;
  /** It lies in the memory of PCI, below what the board itself has. */
  readonly bus?: 'pci' | undefined;
}

/** An access that met no device. `value` is what was written; a read gave all ones. */
export interface BadAccess {
  readonly space: string;
  readonly kind: 'read' | 'write';
  readonly address: number;
  readonly size: number;
  readonly value: number;
}

/** The word by which threads learn that a mapping changed; one per address space of a machine. */
export const spaceLayout = struct({ generation: ['i32', 1] });

export interface SpaceOptions {
  readonly name: string;
  /** Number of addresses: 65,536 for ports, up to 2^52 for MMIO. */
  readonly size: number;
  readonly lock: Lock;
  readonly shared: ViewOf<typeof spaceLayout>;
  readonly trace?: (access: BadAccess) => void;
  /** Called, on the thread that changed it, after mappings have changed. */
  readonly moved?: () => void;
}

/** Called when mappings may have changed: maps, by `map`, the ranges of one device that can move. */
export type Mapper = (map: (region: Region) => void) => void;

const nothing: Handler = { read: (_, size) => ones(size), write: () => {} };
/** Page-wise table for spaces that are small enough. */
const flatLimit = 0x1_0000;

export class AddressSpace {
  readonly name: string;
  readonly size: number;
  readonly #lock: Lock;
  readonly #generation: Int32Array;
  readonly #trace: ((access: BadAccess) => void) | undefined;
  readonly #moved: (() => void) | undefined;
  readonly #fixed: Region[] = [];
  readonly #mappers: Mapper[] = [];
  // Caches, derived from the fixed regions and the mappers.
  #seen = -1;
  #regions: Region[] = [];
  #bases = new Float64Array(0);
  #flat: Uint16Array | undefined;
  #last: Region;
  readonly #none: Region;

  constructor(o: SpaceOptions) {
    this.name = o.name;
    this.size = o.size;
    this.#lock = o.lock;
    this.#generation = o.shared.generation;
    this.#trace = o.trace;
    this.#moved = o.moved;
    this.#none = { base: 0, length: 0, name: 'nothing', handler: nothing };
    this.#last = this.#none;
    if (o.size <= flatLimit) this.#flat = new Uint16Array(o.size);
  }

  /** Puts a device at a place that stays. Throws where the range overlaps another fixed one or leaves the space. */
  map(base: number, length: number, handler: Handler, name: string, bus?: 'pci'): void {
    if (!(length > 0) || base < 0 || base + length > this.size) {
      throw new Error(
        `Cannot map ${name} at ${hex(base)}+${hex(length)}: the ${this.name} space has ${hex(this.size)} addresses`,
      );
    }
    const other = this.#fixed.find((r) => r.base < base + length && base < r.base + r.length);
    if (other !== undefined) {
      throw new Error(
        `Cannot map ${name} at ${hex(base)}+${hex(length)}: ${other.name} is at ${hex(other.base)}+${hex(other.length)}`,
      );
    }
    this.#fixed.push({ base, length, name, handler, bus });
    this.#seen = -1;
  }

  /** Takes away the fixed range that begins at `base`; throws when there is none. */
  unmap(base: number): void {
    const i = this.#fixed.findIndex((r) => r.base === base);
    if (i < 0) throw new Error(`Cannot unmap ${hex(base)}: no device of the ${this.name} space begins there`);
    this.#fixed.splice(i, 1);
    this.#seen = -1;
  }

  /**
   * Adds a device whose ranges move at run time (PCI BARs). `mapper` derives them from shared state whenever a thread
   * has called `changed`; where ranges overlap, fixed ones win, then those of earlier mappers.
   */
  movable(mapper: Mapper): void {
    this.#mappers.push(mapper);
    this.#seen = -1;
  }

  /** Takes away what `movable` added. */
  immovable(mapper: Mapper): void {
    const i = this.#mappers.indexOf(mapper);
    if (i >= 0) this.#mappers.splice(i, 1);
    this.#seen = -1;
  }

  /** Tells every thread's address space that movable ranges have changed. */
  changed(): void {
    Atomics.add(this.#generation, 0, 1);
    this.#moved?.();
  }

  /** All ranges, by address. */
  regions(): readonly Region[] {
    this.#refresh();
    return this.#regions;
  }

  /** The range that holds `address`. */
  find(address: number): Region | undefined {
    const r = this.#find(address);
    return r === this.#none ? undefined : r;
  }

  /** Reads 1, 2 or 4 bytes as an unsigned number; all ones where nothing is. */
  read(address: number, size: number): number {
    this.#lock.acquire();
    try {
      return this.#read(address, size);
    } finally {
      this.#lock.release();
    }
  }

  /** Writes the low 1, 2 or 4 bytes of `value`; ignored where nothing is. */
  write(address: number, size: number, value: number): void {
    this.#lock.acquire();
    try {
      this.#write(address, size, size === 4 ? value >>> 0 : value & ones(size));
    } finally {
      this.#lock.release();
    }
  }

  /** Reads 8 bytes: one access where the device takes it, else the low half first. */
  read64(address: number): bigint {
    this.#lock.acquire();
    try {
      const r = this.#find(address);
      if (r.handler.max === 8 && r.handler.read64 !== undefined && address + 8 <= r.base + r.length) {
        return r.handler.read64(address - r.base);
      }
      const low = this.#read(address, 4);
      return BigInt(low) | (BigInt(this.#read(address + 4, 4)) << 32n);
    } finally {
      this.#lock.release();
    }
  }

  /** Writes 8 bytes: one access where the device takes it, else the low half first. */
  write64(address: number, value: bigint): void {
    this.#lock.acquire();
    try {
      const r = this.#find(address);
      if (r.handler.max === 8 && r.handler.write64 !== undefined && address + 8 <= r.base + r.length) {
        r.handler.write64(address - r.base, value);
        return;
      }
      this.#write(address, 4, Number(value & 0xffff_ffffn));
      this.#write(address + 4, 4, Number((value >> 32n) & 0xffff_ffffn));
    } finally {
      this.#lock.release();
    }
  }

  #read(address: number, size: number): number {
    const r = this.#find(address);
    if (size <= (r.handler.max ?? 4) && (address + size <= r.base + r.length || r === this.#none)) {
      if (r === this.#none) this.#trace?.({ space: this.name, kind: 'read', address, size, value: 0 });
      return r.handler.read(address - r.base, size) >>> 0;
    }
    const half = size >>> 1;
    return (this.#read(address, half) | (this.#read(address + half, half) << (half * 8))) >>> 0;
  }

  #write(address: number, size: number, value: number): void {
    const r = this.#find(address);
    if (size <= (r.handler.max ?? 4) && (address + size <= r.base + r.length || r === this.#none)) {
      if (r === this.#none) this.#trace?.({ space: this.name, kind: 'write', address, size, value });
      r.handler.write(address - r.base, size, value);
      return;
    }
    const half = size >>> 1;
    this.#write(address, half, value & ones(half));
    this.#write(address + half, half, value >>> (half * 8));
  }

  #find(address: number): Region {
    if (Atomics.load(this.#generation, 0) !== this.#seen) this.#refresh();
    if (this.#flat !== undefined) return this.#regions[this.#flat[address]! - 1] ?? this.#none;
    const last = this.#last;
    if (address >= last.base && address < last.base + last.length) return last;
    let low = 0;
    let high = this.#bases.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#bases[middle]! <= address) low = middle + 1;
      else high = middle;
    }
    const r = this.#regions[low - 1];
    if (r === undefined || address >= r.base + r.length) return this.#none;
    return (this.#last = r);
  }

  #refresh(): void {
    const generation = Atomics.load(this.#generation, 0);
    if (generation === this.#seen) return;
    const regions = [...this.#fixed];
    for (const mapper of this.#mappers) {
      mapper((n) => {
        if (n.length <= 0 || n.base < 0 || n.base + n.length > this.size) return;
        if (!regions.some((r) => r.base < n.base + n.length && n.base < r.base + r.length)) regions.push(n);
      });
    }
    regions.sort((a, b) => a.base - b.base);
    this.#regions = regions;
    this.#bases = Float64Array.from(regions, (r) => r.base);
    this.#last = this.#none;
    this.#flat?.fill(0);
    for (const [i, r] of regions.entries()) this.#flat?.fill(i + 1, r.base, r.base + r.length);
    this.#seen = generation;
  }
}

const hex = (n: number): string => `0x${n.toString(16)}`;
