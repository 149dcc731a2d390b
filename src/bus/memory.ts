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
  /**
   * The bytes themselves, not a copy; undefined unless all of them are RAM and lie together. Who writes into them calls `written`
   * afterwards.
   */
  slice(gpa: number, length: number): Uint8Array | undefined;
  /** Tells those who keep what they know of memory (decoded code, dirty pages) that bytes of it were written. */
  written(gpa: number, length: number): void;
}

/** Who is told of devices' writes. Maps are by page of the buffer from `base` on, one byte each, in shared memory. */
export interface WriteWatch {
  readonly base: number;
  /** Not 0: vCPUs hold decoded code of the page, `codeChanged` is to be called. */
  readonly codeMap: Uint8Array;
  /** 1: the page is clean, and its next write puts 0 here. 0: dirty, or writes are not logged. */
  readonly dirtyMap: Uint8Array;
  codeChanged(page: number): void;
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
  readonly #ranges: () => readonly RamRange[];
  readonly #watch: WriteWatch | undefined;
  readonly #hides: ((from: number, to: number) => boolean) | undefined;

  /** `ranges` by address; a function where they change. `hides`: some of the bytes from one guest-physical address to another are not to be reached now. */
  constructor(
    buffer: ArrayBufferLike,
    ranges: readonly RamRange[] | (() => readonly RamRange[]),
    watch?: WriteWatch,
    hides?: (from: number, to: number) => boolean,
  ) {
    this.#ranges = typeof ranges === 'function' ? ranges : () => ranges;
    for (const r of this.ranges) {
      if (r.offset < 0 || r.offset + r.length > buffer.byteLength) {
        throw new Error(`Cannot place RAM at offset ${r.offset}, ${r.length} bytes: the buffer has ${buffer.byteLength}`);
      }
    }
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
    this.#watch = watch;
    this.#hides = hides;
  }

  get ranges(): readonly RamRange[] {
    return this.#ranges();
  }

  /** Offset in the buffer of `length` bytes at `gpa`; -1 unless all of them are RAM. */
  offset(gpa: number, length: number): number {
    for (const r of this.ranges) {
      if (gpa >= r.gpa && gpa + length <= r.gpa + r.length) return this.#hides?.(gpa, gpa + length) ? -1 : gpa - r.gpa + r.offset;
    }
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
    if (o < 0) return;
    this.#view.setUint8(o, value);
    this.#touched(o, 1);
  }
  write16(gpa: number, value: number): void {
    const o = this.offset(gpa, 2);
    if (o < 0) return;
    this.#view.setUint16(o, value, true);
    this.#touched(o, 2);
  }
  write32(gpa: number, value: number): void {
    const o = this.offset(gpa, 4);
    if (o < 0) return;
    this.#view.setUint32(o, value, true);
    this.#touched(o, 4);
  }
  write64(gpa: number, value: bigint): void {
    const o = this.offset(gpa, 8);
    if (o < 0) return;
    this.#view.setBigUint64(o, value, true);
    this.#touched(o, 8);
  }
  slice(gpa: number, length: number): Uint8Array | undefined {
    const o = this.offset(gpa, length);
    return o < 0 ? undefined : this.#bytes.subarray(o, o + length);
  }
  written(gpa: number, length: number): void {
    const o = this.offset(gpa, length);
    if (o >= 0 && length > 0) this.#touched(o, length);
  }
  #touched(offset: number, length: number): void {
    const watch = this.#watch;
    if (!watch) return;
    const last = Math.floor((offset + length - 1 - watch.base) / 4096);
    for (let page = Math.floor((offset - watch.base) / 4096); page <= last; page++) {
      if (watch.dirtyMap[page] !== 0) watch.dirtyMap[page] = 0;
      // An atomic load: a vCPU that has just counted itself here decodes what was written before.
      if (Atomics.load(watch.codeMap, page) !== 0) watch.codeChanged(page);
    }
  }
}
