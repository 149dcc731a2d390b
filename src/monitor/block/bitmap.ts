// Dirty bitmaps: which parts of a node were written since somebody asked. QEMU 7.2, "Dirty Bitmaps and Incremental Backup".

import type { StoredBitmap } from '../../disk/qcow2/bitmaps.ts';

export class Bitmap {
  readonly name: string;
  /** Bytes of one bit, a power of two. */
  readonly granularity: number;
  readonly persistent: boolean;
  enabled: boolean;
  /** It was in use when its image was last left: it can only be removed. */
  readonly inconsistent: boolean;
  /** A job uses it. */
  busy = false;
  #bits: Uint8Array;
  #size: number;

  constructor(o: {
    name: string;
    size: number;
    granularity: number;
    persistent: boolean;
    enabled: boolean;
    inconsistent?: boolean;
  }) {
    this.name = o.name;
    this.granularity = o.granularity;
    this.persistent = o.persistent;
    this.enabled = o.enabled;
    this.inconsistent = o.inconsistent ?? false;
    this.#size = o.size;
    this.#bits = new Uint8Array(Math.ceil(o.size / o.granularity));
  }
  /** One that an image of a disk of `size` bytes keeps. */
  static from(b: StoredBitmap, size: number): Bitmap {
    const { name, enabled, inconsistent, bits } = b;
    const made = new Bitmap({ name, size, granularity: 2 ** b.granularityBits, persistent: true, enabled, inconsistent });
    for (let i = 0; i < made.#bits.length; i++) made.#bits[i] = (bits[i >>> 3]! >>> (i & 7)) & 1;
    return made;
  }
  /** As an image keeps it. */
  stored(): StoredBitmap {
    const bits = new Uint8Array(Math.ceil(this.#bits.length / 8));
    for (let i = 0; i < this.#bits.length; i++) if (this.#bits[i]) bits[i >>> 3]! |= 1 << (i & 7);
    const { name, enabled, inconsistent } = this;
    return { name, granularityBits: Math.log2(this.granularity), enabled, inconsistent, bits };
  }
  /** Ranges that are marked, or are not, in order: what a part of the disk begins with. */
  run(offset: number, length: number): { readonly dirty: boolean; readonly length: number } {
    const first = Math.floor(offset / this.granularity);
    const value = this.#bits[first] ?? 0;
    const next = this.#bits.indexOf(value ? 0 : 1, first);
    const end = next < 0 ? this.#size : next * this.granularity;
    return { dirty: value === 1, length: Math.min(length, end - offset) };
  }
  /** Marks what overlaps a range. */
  mark(offset: number, length: number): void {
    if (length <= 0) return;
    const last = Math.min(Math.floor((offset + length - 1) / this.granularity), this.#bits.length - 1);
    for (let i = Math.floor(offset / this.granularity); i <= last; i++) this.#bits[i] = 1;
  }
  clear(): void {
    this.#bits.fill(0);
  }
  /** Takes the next marked part at or after `from` out; undefined when there is none. */
  take(from = 0): { readonly offset: number; readonly length: number } | undefined {
    const i = this.#bits.indexOf(1, Math.floor(from / this.granularity));
    if (i < 0) return from > 0 ? this.take(0) : undefined;
    this.#bits[i] = 0;
    const offset = i * this.granularity;
    return { offset, length: Math.min(this.granularity, this.#size - offset) };
  }
  has(offset: number): boolean {
    return this.#bits[Math.floor(offset / this.granularity)] === 1;
  }
  /** Takes the marks of one part away. */
  unmark(offset: number): void {
    this.#bits[Math.floor(offset / this.granularity)] = 0;
  }
  /** Bytes that are marked. */
  get count(): number {
    let n = 0;
    for (const bit of this.#bits) n += bit;
    return n * this.granularity;
  }
  /** Adds another one's marks. */
  merge(other: Bitmap): void {
    for (let i = 0; i < other.#bits.length; i++) if (other.#bits[i]) this.mark(i * other.granularity, other.granularity);
  }
  copy(name = this.name): Bitmap {
    const made = new Bitmap({
      name,
      size: this.#size,
      granularity: this.granularity,
      persistent: this.persistent,
      enabled: this.enabled,
      inconsistent: this.inconsistent,
    });
    made.#bits.set(this.#bits);
    return made;
  }
  /** The disk has another size now. */
  resize(size: number): void {
    const bits = new Uint8Array(Math.ceil(size / this.granularity));
    bits.set(this.#bits.subarray(0, bits.length));
    this.#bits = bits;
    this.#size = size;
  }
}
