// Pixels in the format that a client asked for. RFC 6143, sections 7.4 and 7.7.5.
import type { PixelFormat } from './protocol.ts';

/** Turns 0x00RRGGBB into a client's pixels. */
export class PixelWriter {
  readonly format: PixelFormat;
  /** Bytes of a pixel; and of one in `tight` and `zrle`, which leave out a byte that is always zero. */
  readonly bytes: number;
  readonly shortBytes: number;
  /** Bytes of a pixel are taken from here on where one is left out. */
  readonly #shortFrom: number;
  readonly #tightRgb: boolean;
  readonly #red = new Uint32Array(256);
  readonly #green = new Uint32Array(256);
  readonly #blue = new Uint32Array(256);
  /** The format is 0x00RRGGBB itself. */
  readonly #same: boolean;

  constructor(format: PixelFormat) {
    this.format = format;
    this.bytes = format.bits / 8;
    const tables = [this.#red, this.#green, this.#blue];
    for (const [c, table] of tables.entries()) {
      const max = format.max[c]!;
      for (let v = 0; v < 256; v++) table[v] = (Math.floor((v * max + 127) / 255) << format.shift[c]!) >>> 0;
    }
    this.#same = format.bits === 32 && format.max.every((m) => m === 255) && `${format.shift}` === '16,8,0';
    let used = 0;
    for (let c = 0; c < 3; c++) used |= format.max[c]! << format.shift[c]!;
    const fits = (mask: number): boolean => format.bits === 32 && format.depth <= 24 && (used & ~mask) === 0;
    const low = fits(0xff_ffff);
    const high = !low && fits(0xffff_ff00 | 0);
    this.shortBytes = low || high ? 3 : this.bytes;
    // The least significant bytes come first in little-endian order.
    this.#shortFrom = (low && format.bigEndian) || (high && !format.bigEndian) ? 1 : 0;
    this.#tightRgb = format.bits === 32 && format.depth === 24 && format.max.every((m) => m === 255);
  }

  value(pixel: number): number {
    if (this.#same) return pixel;
    return (this.#red[(pixel >>> 16) & 255]! | this.#green[(pixel >>> 8) & 255]! | this.#blue[pixel & 255]!) >>> 0;
  }

  /** Writes one pixel and gives the place behind it. */
  put(out: Uint8Array, at: number, pixel: number): number {
    const v = this.value(pixel);
    const { bits, bigEndian } = this.format;
    if (bits === 8) out[at] = v;
    else if (bits === 16) {
      out[at + (bigEndian ? 1 : 0)] = v;
      out[at + (bigEndian ? 0 : 1)] = v >>> 8;
    } else for (let i = 0; i < 4; i++) out[at + (bigEndian ? 3 - i : i)] = v >>> (8 * i);
    return at + this.bytes;
  }

  /** The same for `zrle`'s CPIXEL. */
  putShort(out: Uint8Array, at: number, pixel: number): number {
    if (this.shortBytes === this.bytes) return this.put(out, at, pixel);
    const v = this.value(pixel);
    const { bigEndian } = this.format;
    for (let i = 0; i < 3; i++) {
      const byte = this.#shortFrom + i;
      out[at + i] = v >>> (8 * (bigEndian ? 3 - byte : byte));
    }
    return at + 3;
  }

  /** Bytes of `tight`'s TPIXEL. */
  get tightBytes(): number {
    return this.#tightRgb ? 3 : this.bytes;
  }
  /** The same for `tight`'s TPIXEL: red, green and blue where all have 8 bits. */
  putTight(out: Uint8Array, at: number, pixel: number): number {
    if (!this.#tightRgb) return this.put(out, at, pixel);
    out[at] = pixel >>> 16;
    out[at + 1] = pixel >>> 8;
    out[at + 2] = pixel;
    return at + 3;
  }
}
