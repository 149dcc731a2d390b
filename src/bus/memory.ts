// Guest-physical memory as devices see it (DMA, paravirtual structures): RAM only, no devices behind it.

/**
 * RAM by guest-physical address (a number, up to 2^52). Reads outside RAM give all ones, writes there are ignored.
 * Nothing here is ordered or atomic; where a guest's CPU races, take `slice` and `Atomics`.
 */
export interface GuestMemory {
  read8(gpa: number): number;
  read16(gpa: number): number;
  read32(gpa: number): number;
  read64(gpa: number): bigint;
  write8(gpa: number, value: number): void;
  write16(gpa: number, value: number): void;
  write32(gpa: number, value: number): void;
  write64(gpa: number, value: bigint): void;
  /** The bytes themselves, not a copy; undefined unless all of them are RAM and lie together. */
  slice(gpa: number, length: number): Uint8Array | undefined;
}

/** A piece of RAM: `length` bytes at `gpa`, which lie at `offset` of the buffer. */
export interface RamRange {
  readonly gpa: number;
  readonly length: number;
  readonly offset: number;
}

/** Guest RAM in one buffer. */
export class Ram implements GuestMemory {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #ranges: readonly RamRange[];

  constructor(buffer: ArrayBufferLike, ranges: readonly RamRange[]) {
    for (const r of ranges) {
      if (r.offset < 0 || r.offset + r.length > buffer.byteLength) {
        throw new Error(`Cannot place RAM at offset ${r.offset}, ${r.length} bytes: the buffer has ${buffer.byteLength}`);
      }
    }
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    this.#ranges = ranges;
  }

  /** Offset in the buffer of `length` bytes at `gpa`; -1 unless all of them are RAM. */
  offset(gpa: number, length: number): number {
    for (const r of this.#ranges) if (gpa >= r.gpa && gpa + length <= r.gpa + r.length) return gpa - r.gpa + r.offset;
    return -1;
  }

  read8(gpa: number): number {
    const o = this.offset(gpa, 1);
    return o < 0 ? 0xff : this.#view.getUint8(o);
  }
  read16(gpa: number): number {
    const o = this.offset(gpa, 2);
    return o < 0 ? 0xffff : this.#view.getUint16(o, true);
  }
  read32(gpa: number): number {
    const o = this.offset(gpa, 4);
    return o < 0 ? 0xffff_ffff : this.#view.getUint32(o, true);
  }
  read64(gpa: number): bigint {
    const o = this.offset(gpa, 8);
    return o < 0 ? 0xffff_ffff_ffff_ffffn : this.#view.getBigUint64(o, true);
  }
  write8(gpa: number, value: number): void {
    const o = this.offset(gpa, 1);
    if (o >= 0) this.#view.setUint8(o, value);
  }
  write16(gpa: number, value: number): void {
    const o = this.offset(gpa, 2);
    if (o >= 0) this.#view.setUint16(o, value, true);
  }
  write32(gpa: number, value: number): void {
    const o = this.offset(gpa, 4);
    if (o >= 0) this.#view.setUint32(o, value, true);
  }
  write64(gpa: number, value: bigint): void {
    const o = this.offset(gpa, 8);
    if (o >= 0) this.#view.setBigUint64(o, value, true);
  }
  slice(gpa: number, length: number): Uint8Array | undefined {
    const o = this.offset(gpa, length);
    return o < 0 ? undefined : this.#bytes.subarray(o, o + length);
  }
}
