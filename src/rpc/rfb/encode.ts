// Rectangles of pixels in RFB's encodings: raw, hextile, zlib, ZRLE, and tight, with JPEG where a client may lose something. RFC 6143, section 7.7; rfbproto.rst, "Zlib Encoding", "Tight Encoding".
import { jpeg } from './jpeg.ts';
import type { PixelWriter } from './pixels.ts';
import { Encoding, message, rectHeader } from './protocol.ts';

/** One zlib stream: each piece is flushed (Z_SYNC_FLUSH), so that the other side can read all of it. */
export interface Deflater {
  push(bytes: Uint8Array): Promise<Uint8Array>;
  close(): void;
}

/** A rectangle with its own copy of the pixels, 0x00RRGGBB. */
export interface PixelRect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint32Array;
}

/** What is to be sent of a rectangle: bytes as they are, or through a zlib stream behind their length. */
type Piece = Uint8Array | { readonly stream: number; readonly bytes: Uint8Array; readonly length: 'u32' | 'compact' };

/** Encodings that can be chosen, best first where a client leaves it open. */
export const encodings = ['tight', 'zrle', 'zlib', 'hextile', 'raw'] as const;
export type EncodingName = (typeof encodings)[number];
/** Number of each one's zlib streams, and where they begin. */
const STREAMS = 6;
const stream = { zlib: 0, zrle: 1, tight: 2 } as const;

/** `tight` needs rectangles that are not wider. */
export const WIDTH_MAX = 2048;
/** Bytes below which `tight` does not compress. */
const TIGHT_PLAIN = 12;
/** Pixels of a rectangle from which on it may be a JPEG. */
const JPEG_MIN = 1024;

export class Encoder {
  readonly #deflate: ((level: number) => Deflater) | undefined;
  readonly #streams: (Deflater | undefined)[] = new Array(STREAMS).fill(undefined);
  #writer: PixelWriter;
  /** zlib's level for streams that are begun from now on. */
  level = 6;
  /** The last rectangle was not sent exactly. */
  lossy = false;

  /** `deflate` begins a zlib stream; without it only hextile and raw can be asked for. */
  constructor(writer: PixelWriter, deflate?: (level: number) => Deflater) {
    this.#writer = writer;
    this.#deflate = deflate;
  }

  set writer(w: PixelWriter) {
    this.#writer = w;
  }

  supports(name: EncodingName): boolean {
    return this.#deflate !== undefined || name === 'hextile' || name === 'raw';
  }

  /**
   * The bytes of one rectangle, its header first; in `tight` maybe a JPEG of this quality, 1 to 100. Calls must not overlap: the streams have
   * an order.
   */
  async rect(r: PixelRect, name: EncodingName, quality?: number): Promise<Uint8Array[]> {
    const out: Uint8Array[] = [rectHeader(r.x, r.y, r.width, r.height, Encoding[name])];
    this.lossy = false;
    for (const piece of this.#pieces(r, name, quality)) {
      if (piece instanceof Uint8Array) {
        out.push(piece);
        continue;
      }
      const packed = await this.#stream(piece.stream).push(piece.bytes);
      out.push(piece.length === 'u32' ? message([4, packed.length]) : compactLength(packed.length), packed);
    }
    return out;
  }

  /** Pixels of a pointer's shape; what is transparent is up to a mask. */
  cursor(pixels: Uint32Array): Uint8Array {
    return raw({ x: 0, y: 0, width: pixels.length, height: 1, pixels: pixels.map((p) => p & 0xffffff) }, this.#writer);
  }

  close(): void {
    for (const s of this.#streams) s?.close();
    this.#streams.fill(undefined);
  }

  #stream(n: number): Deflater {
    return (this.#streams[n] ??= this.#deflate!(this.level));
  }

  #pieces(r: PixelRect, name: EncodingName, quality: number | undefined): readonly Piece[] {
    const w = this.#writer;
    switch (name) {
      case 'raw':
        return [raw(r, w)];
      case 'hextile':
        return [hextile(r, w)];
      case 'zlib':
        return [{ stream: stream.zlib, bytes: raw(r, w), length: 'u32' }];
      case 'zrle':
        return [{ stream: stream.zrle, bytes: zrle(r, w), length: 'u32' }];
      case 'tight':
        return this.#tight(r, quality);
    }
  }

  #tight(r: PixelRect, quality: number | undefined): readonly Piece[] {
    const w = this.#writer;
    const colours = paletteOf(r.pixels, 256);
    const few = colours !== undefined && (colours.size <= 2 || colours.size * 8 < r.pixels.length);
    if (few || quality === undefined || w.bytes === 1 || r.pixels.length < JPEG_MIN)
      return tight(r, w, few ? colours : undefined);
    this.lossy = true;
    const bytes = jpeg(r.pixels, r.width, r.height, quality);
    return [Uint8Array.of(Tight.jpeg), compactLength(bytes.length), bytes];
  }
}

function compactLength(n: number): Uint8Array {
  if (n < 0x80) return Uint8Array.of(n);
  if (n < 0x4000) return Uint8Array.of((n & 0x7f) | 0x80, n >>> 7);
  return Uint8Array.of((n & 0x7f) | 0x80, ((n >>> 7) & 0x7f) | 0x80, n >>> 14);
}

function raw(r: PixelRect, w: PixelWriter): Uint8Array {
  const out = new Uint8Array(r.pixels.length * w.bytes);
  let at = 0;
  for (const p of r.pixels) at = w.put(out, at, p);
  return out;
}

/** Colours of a part of a rectangle in order of appearance with their index; undefined when there are more than `max`. */
function paletteOf(pixels: Uint32Array, max: number): Map<number, number> | undefined {
  const colours = new Map<number, number>();
  let last = -1;
  for (const p of pixels) {
    if (p === last) continue;
    last = p;
    if (colours.has(p)) continue;
    if (colours.size === max) return undefined;
    colours.set(p, colours.size);
  }
  return colours;
}

/** The tiles of a rectangle, row by row, with their pixels. */
function* tiles(r: PixelRect, size: number): Generator<PixelRect> {
  for (let y = 0; y < r.height; y += size) {
    for (let x = 0; x < r.width; x += size) {
      const [width, height] = [Math.min(size, r.width - x), Math.min(size, r.height - y)];
      const pixels = new Uint32Array(width * height);
      for (let row = 0; row < height; row++) {
        const from = (y + row) * r.width + x;
        pixels.set(r.pixels.subarray(from, from + width), row * width);
      }
      yield { x, y, width, height, pixels };
    }
  }
}

// ── Hextile ──

const Hex = { raw: 1, background: 2, foreground: 4, subrects: 8, coloured: 16 } as const;

function hextile(r: PixelRect, w: PixelWriter): Uint8Array {
  const rawBytes = 16 * 16 * w.bytes;
  const count = Math.ceil(r.width / 16) * Math.ceil(r.height / 16);
  const out = new Uint8Array(count * (rawBytes + 1));
  let at = 0;
  for (const t of tiles(r, 16)) {
    const plain = t.pixels.length * w.bytes;
    const colours = paletteOf(t.pixels, 16);
    const start = at;
    if (colours !== undefined) at = hextileRects(t, w, [...colours.keys()], out, at, plain);
    if (at === start) {
      out[at++] = Hex.raw;
      for (const p of t.pixels) at = w.put(out, at, p);
    }
  }
  return out.subarray(0, at);
}

/** A tile as runs over its background; gives `at` back where the pixels themselves are shorter. */
function hextileRects(t: PixelRect, w: PixelWriter, colours: number[], out: Uint8Array, at: number, plain: number): number {
  const start = at;
  const background = colours[0]!;
  out[at++] = Hex.background;
  at = w.put(out, at, background);
  if (colours.length === 1) return at;
  const coloured = colours.length > 2;
  out[start] = Hex.background | Hex.subrects | (coloured ? Hex.coloured : Hex.foreground);
  if (!coloured) at = w.put(out, at, colours[1]!);
  const countAt = at++;
  let count = 0;
  const done = new Uint8Array(t.pixels.length);
  for (let y = 0; y < t.height; y++) {
    for (let x = 0; x < t.width; x++) {
      const i = y * t.width + x;
      const colour = t.pixels[i]!;
      if (done[i] || colour === background) continue;
      let wide = 1;
      while (x + wide < t.width && t.pixels[i + wide] === colour && !done[i + wide]) wide++;
      let high = 1;
      const same = (row: number): boolean => {
        for (let k = 0; k < wide; k++) if (t.pixels[row * t.width + x + k] !== colour) return false;
        return true;
      };
      while (y + high < t.height && same(y + high)) high++;
      for (let k = 0; k < high; k++) done.fill(1, i + k * t.width, i + k * t.width + wide);
      if (at - start + 2 + w.bytes > plain || count === 255) return start;
      if (coloured) at = w.put(out, at, colour);
      out[at++] = (x << 4) | y;
      out[at++] = ((wide - 1) << 4) | (high - 1);
      count++;
    }
  }
  out[countAt] = count;
  return at;
}

// ── ZRLE ──

function zrle(r: PixelRect, w: PixelWriter): Uint8Array {
  const count = Math.ceil(r.width / 64) * Math.ceil(r.height / 64);
  const out = new Uint8Array(r.pixels.length * w.shortBytes + count);
  let at = 0;
  for (const t of tiles(r, 64)) at = zrleTile(t, w, out, at);
  return out.subarray(0, at);
}

function zrleTile(t: PixelRect, w: PixelWriter, out: Uint8Array, at: number): number {
  const { pixels, width, height } = t;
  const cp = w.shortBytes;
  const colours = paletteOf(pixels, 127);
  if (colours?.size === 1) {
    out[at++] = 1;
    return w.putShort(out, at, pixels[0]!);
  }
  let runBytes = 0;
  let singles = 0;
  let runs = 0;
  for (let i = 0; i < pixels.length; ) {
    let n = 1;
    while (i + n < pixels.length && pixels[i + n] === pixels[i]) n++;
    if (n === 1) singles++;
    runs++;
    runBytes += Math.floor((n - 1) / 255) + 1;
    i += n;
  }
  const plain = pixels.length * cp;
  const plainRuns = runs * cp + runBytes;
  const size = colours?.size ?? 0;
  const bits = size <= 2 ? 1 : size <= 4 ? 2 : 4;
  const packed =
    colours !== undefined && size <= 16 ? size * cp + Math.ceil((width * bits) / 8) * height : Number.POSITIVE_INFINITY;
  const paletteRuns = colours !== undefined ? size * cp + runs + runBytes - singles : Number.POSITIVE_INFINITY;
  const best = Math.min(plain, plainRuns, packed, paletteRuns);
  const run = (n: number): void => {
    let left = n - 1;
    for (; left >= 255; left -= 255) out[at++] = 255;
    out[at++] = left;
  };
  const eachRun = (f: (pixel: number, n: number) => void): void => {
    for (let i = 0; i < pixels.length; ) {
      let n = 1;
      while (i + n < pixels.length && pixels[i + n] === pixels[i]) n++;
      f(pixels[i]!, n);
      i += n;
    }
  };
  if (best === plain) {
    out[at++] = 0;
    for (const p of pixels) at = w.putShort(out, at, p);
  } else if (best === packed) {
    out[at++] = size;
    for (const p of colours!.keys()) at = w.putShort(out, at, p);
    for (let y = 0; y < height; y++) {
      let byte = 0;
      let filled = 0;
      for (let x = 0; x < width; x++) {
        byte = (byte << bits) | colours!.get(pixels[y * width + x]!)!;
        filled += bits;
        if (filled === 8) {
          out[at++] = byte;
          byte = filled = 0;
        }
      }
      if (filled > 0) out[at++] = byte << (8 - filled);
    }
  } else if (best === paletteRuns) {
    out[at++] = 128 + size;
    for (const p of colours!.keys()) at = w.putShort(out, at, p);
    eachRun((p, n) => {
      const index = colours!.get(p)!;
      out[at++] = n === 1 ? index : index | 128;
      if (n > 1) run(n);
    });
  } else {
    out[at++] = 128;
    eachRun((p, n) => {
      at = w.putShort(out, at, p);
      run(n);
    });
  }
  return at;
}

// ── Tight ──

const Tight = { fill: 0x80, jpeg: 0x90, filter: 0x40, palette: 1 } as const;

/** `colours`: the rectangle's, where they are worth a palette. */
function tight(r: PixelRect, w: PixelWriter, colours: ReadonlyMap<number, number> | undefined): readonly Piece[] {
  const pixel = (p: number): Uint8Array => {
    const out = new Uint8Array(w.tightBytes);
    w.putTight(out, 0, p);
    return out;
  };
  if (colours?.size === 1) return [Uint8Array.of(Tight.fill), pixel(r.pixels[0]!)];
  const data = (n: number, control: Uint8Array, bytes: Uint8Array): readonly Piece[] =>
    bytes.length < TIGHT_PLAIN ? [control, bytes] : [control, { stream: stream.tight + n, bytes, length: 'compact' }];
  // Streams 0 to 2: full colour, two colours, palette.
  if (colours !== undefined) {
    const n = colours.size === 2 ? 1 : 2;
    const palette = [...colours.keys()].map(pixel);
    const control = message([1, (n << 4) | Tight.filter], [1, Tight.palette], [1, colours.size - 1], ...palette);
    return data(n, control, colours.size === 2 ? twoColours(r, colours) : indexed(r, colours));
  }
  const bytes = new Uint8Array(r.pixels.length * w.tightBytes);
  let at = 0;
  for (const p of r.pixels) at = w.putTight(bytes, at, p);
  return data(0, Uint8Array.of(0), bytes);
}

/** A byte for each pixel. */
function indexed(r: PixelRect, colours: ReadonlyMap<number, number>): Uint8Array {
  const out = new Uint8Array(r.pixels.length);
  for (const [i, p] of r.pixels.entries()) out[i] = colours.get(p)!;
  return out;
}

/** A bit for each pixel, rows from whole bytes. */
function twoColours(r: PixelRect, colours: ReadonlyMap<number, number>): Uint8Array {
  const line = Math.ceil(r.width / 8);
  const out = new Uint8Array(line * r.height);
  for (let y = 0; y < r.height; y++)
    for (let x = 0; x < r.width; x++)
      if (colours.get(r.pixels[y * r.width + x]!) === 1) out[y * line + (x >>> 3)]! |= 0x80 >>> (x & 7);
  return out;
}
