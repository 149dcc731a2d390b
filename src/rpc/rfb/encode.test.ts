import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Encoder, type EncodingName, encodings, type PixelRect } from './encode.ts';
import { PixelWriter } from './pixels.ts';
import { Encoding, type PixelFormat, serverFormat } from './protocol.ts';

/** Bytes as a client reads them. */
class Reader {
  at = 0;
  readonly b: Uint8Array;
  constructor(b: Uint8Array) {
    this.b = b;
  }
  u8(): number {
    assert.ok(this.at < this.b.length, 'the message is too short');
    return this.b[this.at++]!;
  }
  int(n: number): number {
    let v = 0;
    for (let i = 0; i < n; i++) v = v * 256 + this.u8();
    return v;
  }
  pixel(n: number): number {
    let v = 0;
    for (let i = 0; i < n; i++) v += this.u8() * 256 ** i;
    return v;
  }
  rgb(): number {
    return this.int(3);
  }
  compact(): number {
    let v = 0;
    for (let i = 0; i < 3; i++) {
      const b = this.u8();
      v |= (b & 0x7f) << (7 * i);
      if (!(b & 0x80)) break;
    }
    return v;
  }
}

/** What a client makes of a rectangle (RFC 6143, section 7.7) whose zlib streams are left as they are. */
function decode(bytes: Uint8Array, size: number): Uint32Array {
  const r = new Reader(bytes);
  r.int(4);
  const [width, height, encoding] = [r.int(2), r.int(2), r.int(4) | 0];
  const out = new Uint32Array(width * height);
  const fill = (x: number, y: number, w: number, h: number, v: number) => {
    for (let i = 0; i < h; i++) out.fill(v, (y + i) * width + x, (y + i) * width + x + w);
  };
  const tiles = (step: number, f: (x: number, y: number, w: number, h: number) => void) => {
    for (let y = 0; y < height; y += step)
      for (let x = 0; x < width; x += step) f(x, y, Math.min(step, width - x), Math.min(step, height - y));
  };
  if (encoding === Encoding.zlib) r.int(4);
  if (encoding === Encoding.raw || encoding === Encoding.zlib) for (let i = 0; i < out.length; i++) out[i] = r.pixel(size);
  else if (encoding === Encoding.hextile) {
    let [back, fore] = [0, 0];
    tiles(16, (x, y, w, h) => {
      const flags = r.u8();
      if (flags & 1) {
        for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) out[(y + i) * width + x + j] = r.pixel(size);
        return;
      }
      if (flags & 2) back = r.pixel(size);
      if (flags & 4) fore = r.pixel(size);
      fill(x, y, w, h, back);
      for (let n = flags & 8 ? r.u8() : 0; n > 0; n--) {
        const colour = flags & 16 ? r.pixel(size) : fore;
        const [at, wh] = [r.u8(), r.u8()];
        fill(x + (at >> 4), y + (at & 15), (wh >> 4) + 1, (wh & 15) + 1, colour);
      }
    });
  } else if (encoding === Encoding.zrle) {
    r.int(4);
    const short = size === 4 ? 3 : size;
    tiles(64, (x, y, w, h) => {
      const kind = r.u8();
      const put = (i: number, v: number) => {
        out[(y + Math.floor(i / w)) * width + x + (i % w)] = v;
      };
      const palette = Array.from({ length: kind > 129 ? kind - 128 : kind < 128 ? kind : 0 }, () => r.pixel(short));
      if (kind === 0) for (let i = 0; i < w * h; i++) put(i, r.pixel(short));
      else if (kind === 1) fill(x, y, w, h, palette[0]!);
      else if (kind <= 16) {
        const bits = kind <= 2 ? 1 : kind <= 4 ? 2 : 4;
        for (let i = 0; i < h; i++) {
          let byte = 0;
          for (let j = 0, left = 0; j < w; j++, left -= bits) {
            if (left === 0) {
              byte = r.u8();
              left = 8;
            }
            put(i * w + j, palette[(byte >> (left - bits)) & ((1 << bits) - 1)]!);
          }
        }
      } else
        for (let i = 0; i < w * h; ) {
          const index = kind === 128 ? 0 : r.u8();
          const v = kind === 128 ? r.pixel(short) : palette[index & 127]!;
          let n = 1;
          if (kind === 128 || index & 128) {
            let b: number;
            do {
              b = r.u8();
              n += b;
            } while (b === 255);
          }
          while (n-- > 0) put(i++, v);
        }
    });
  } else if (encoding === Encoding.tight) {
    const pixel = () => (size === 4 ? r.rgb() : r.pixel(size));
    const control = r.u8();
    if (control === 0x80) out.fill(pixel());
    else if (control & 0x40) {
      assert.equal(r.u8(), 1);
      const palette = Array.from({ length: r.u8() + 1 }, pixel);
      const line = palette.length === 2 ? Math.ceil(width / 8) : width;
      if (line * height >= 12) assert.equal(r.compact(), line * height);
      for (let y = 0; y < height; y++) {
        const row = r.b.subarray(r.at, r.at + line);
        r.at += line;
        for (let x = 0; x < width; x++)
          out[y * width + x] = palette[palette.length === 2 ? (row[x >> 3]! >> (7 - (x & 7))) & 1 : row[x]!]!;
      }
    } else {
      const plain = out.length * (size === 4 ? 3 : size);
      if (plain >= 12) assert.equal(r.compact(), plain);
      for (let i = 0; i < out.length; i++) out[i] = pixel();
    }
  }
  assert.equal(r.at, bytes.length, 'the rectangle has more bytes than it needs');
  return out;
}

const joined = (parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]));
/** Streams that leave bytes as they are. */
const plain = () => ({ push: async (bytes: Uint8Array) => bytes, close: () => {} });

const formats: readonly PixelFormat[] = [
  serverFormat,
  { bits: 16, depth: 16, bigEndian: false, trueColour: true, max: [31, 63, 31], shift: [11, 5, 0] },
  { bits: 8, depth: 8, bigEndian: false, trueColour: true, max: [7, 7, 3], shift: [0, 3, 6] },
];

function picture(kind: number, width: number, height: number, random: () => number): PixelRect {
  const colours = [1, 2, 3, 5, 17, 60, 200, 100000][kind % 8]!;
  const palette = Array.from({ length: Math.min(colours, 300) }, () => random() & 0xffffff);
  const pixels = new Uint32Array(width * height);
  let run = 0;
  let colour = 0;
  for (let i = 0; i < pixels.length; i++) {
    if (run-- <= 0) {
      run = random() % (kind > 8 ? 40 : 3);
      colour = colours === 100000 ? random() & 0xffffff : palette[random() % palette.length]!;
    }
    pixels[i] = colour;
  }
  return { x: 3, y: 4, width, height, pixels };
}

test('every encoding gives the picture back, in every format', async () => {
  let x = 12345;
  const random = (): number => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return x >>> 4;
  };
  for (const format of formats) {
    const writer = new PixelWriter(format);
    const encoder = new Encoder(writer, plain);
    for (let kind = 0; kind < 16; kind++) {
      for (const [width, height] of [
        [1, 1],
        [7, 3],
        [64, 64],
        [130, 70],
      ] as const) {
        const r = picture(kind, width, height, random);
        const wanted = r.pixels.map((p) => writer.value(p));
        for (const name of encodings) {
          const got = decode(joined(await encoder.rect(r, name)), writer.bytes);
          assert.deepEqual(got, wanted, `${name} ${format.bits} bits, kind ${kind}, ${width}x${height}`);
        }
      }
    }
  }
});

test('without zlib only the plain encodings are there', () => {
  const encoder = new Encoder(new PixelWriter(serverFormat));
  assert.deepEqual(
    encodings.filter((name: EncodingName) => encoder.supports(name)),
    ['hextile', 'raw'],
  );
});

test('big-endian clients have their bytes the other way round, and short pixels from the right end', () => {
  const out = new Uint8Array(4);
  const w = new PixelWriter({ ...serverFormat, bigEndian: true });
  w.put(out, 0, 0x123456);
  assert.deepEqual([...out], [0, 0x12, 0x34, 0x56]);
  w.putShort(out, 0, 0x123456);
  assert.deepEqual([...out.subarray(0, 3)], [0x12, 0x34, 0x56]);
  const high = new PixelWriter({ ...serverFormat, shift: [24, 16, 8] });
  high.putShort(out, 0, 0x123456);
  assert.deepEqual([...out.subarray(0, 3)], [0x56, 0x34, 0x12]);
});
