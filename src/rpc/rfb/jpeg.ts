// A baseline JPEG encoder, colour at half the resolution (4:2:0): ITU-T T.81 (09/92). The cosine transform is that of Arai, Agui and Nakajima
// ("A fast DCT-SQ scheme for images", 1988), whose factors are part of the quantisation.

/** Places of coefficients in the order in which they are sent: T.81, figure A.6. */
const zigzag = (() => {
  const out = new Uint8Array(64);
  let [x, y] = [0, 0];
  for (let i = 0; i < 64; i++) {
    out[i] = 8 * y + x;
    const up = (x + y) % 2 === 0;
    if (up && x === 7) y++;
    else if (up && y === 0) x++;
    else if (!up && y === 7) x++;
    else if (!up && x === 0) y++;
    else [x, y] = up ? [x + 1, y - 1] : [x - 1, y + 1];
  }
  return out;
})();

/** Quantisation at quality 50, row by row: T.81, tables K.1 and K.2. */
const luminance = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
  18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
]; // biome-ignore format: rows
const chrominance = [17, 18, 24, 47, 18, 21, 26, 66, 24, 26, 56, 99, 47, 66, 99, 99];

/** A code by its lengths, 1 to 16, and its values: T.81, tables K.3 to K.6. */
interface Code {
  readonly counts: Uint8Array;
  readonly values: Uint8Array;
  /** Bits and their number by value. */
  readonly bits: Uint16Array;
  readonly length: Uint8Array;
}
function code(counts: string, values: string): Code {
  const made = { counts: fromHex(counts), values: fromHex(values), bits: new Uint16Array(256), length: new Uint8Array(256) };
  let next = 0;
  let at = 0;
  for (const [i, count] of made.counts.entries()) {
    for (let n = 0; n < count; n++) {
      const value = made.values[at++]!;
      made.bits[value] = next++;
      made.length[value] = i + 1;
    }
    next <<= 1;
  }
  return made;
}
const fromHex = (text: string): Uint8Array => Uint8Array.from(text.match(/\w\w/g)!, (byte) => Number.parseInt(byte, 16));
/** First coefficients, and the rest: of brightness, then of colour. */
const codes = {
  dc: [code('00010501010101010100000000000000', '000102030405060708090a0b'), code('00030101010101010101010000000000', '000102030405060708090a0b')],
  ac: [
    code(
      '0002010303020403050504040000017d',
      '01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a' +
        '434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aa' +
        'b2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa',
    ),
    code(
      '00020102040403040705040400010277',
      '000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728292a35363738393a' +
        '434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aa' +
        'b2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa',
    ),
  ],
} as const; // biome-ignore format: rows

/** Factors of the transform's results by row and column. */
const scale = Array.from({ length: 8 }, (_, k) => (k === 0 ? 1 : Math.cos((k * Math.PI) / 16) * Math.SQRT2));

interface Quantiser {
  /** As sent, row by row. */
  readonly steps: Uint8Array;
  /** What results of the transform are multiplied by. */
  readonly factors: Float32Array;
}
function quantiser(base: (row: number, column: number) => number, quality: number): Quantiser {
  const percent = quality < 50 ? 5000 / quality : 200 - 2 * quality;
  const steps = new Uint8Array(64);
  const factors = new Float32Array(64);
  for (let i = 0; i < 64; i++) {
    const [row, column] = [i >> 3, i & 7];
    steps[i] = Math.max(1, Math.min(255, Math.floor((base(row, column) * percent + 50) / 100)));
    factors[i] = 1 / (steps[i]! * scale[row]! * scale[column]! * 8);
  }
  return { steps, factors };
}

/** A picture of 0x00RRGGBB, at least one pixel and at most 65,535 each way; quality 1 to 100. */
export function jpeg(pixels: Uint32Array, width: number, height: number, quality: number): Uint8Array {
  const quantisers = [
    quantiser((row, column) => luminance[8 * row + column]!, quality),
    quantiser((row, column) => (row < 4 && column < 4 ? chrominance[4 * row + column]! : 99), quality),
  ] as const;
  const out = new Bits();
  header(out, width, height, quantisers);
  const blocks = Array.from({ length: 6 }, () => new Float32Array(64));
  const before = [0, 0, 0];
  for (let y = 0; y < height; y += 16) {
    for (let x = 0; x < width; x += 16) {
      sample(pixels, width, height, x, y, blocks);
      // Four blocks of brightness, one for each colour difference.
      for (const [n, block] of blocks.entries()) {
        const component = Math.max(0, n - 3);
        const kind = n < 4 ? 0 : 1;
        transform(block);
        before[component] = send(out, block, quantisers[kind].factors, before[component]!, codes.dc[kind], codes.ac[kind]);
      }
    }
  }
  return out.end();
}

/** Segments up to the picture's bits. T.81, annex B. */
function header(out: Bits, width: number, height: number, quantisers: readonly Quantiser[]): void {
  const segment = (marker: number, ...bytes: readonly number[]): void =>
    out.bytes(0xff, marker, (bytes.length + 2) >> 8, (bytes.length + 2) & 255, ...bytes);
  out.bytes(0xff, 0xd8);
  for (const [n, { steps }] of quantisers.entries()) segment(0xdb, n, ...zigzag.map((i) => steps[i]!));
  // Three components: number, blocks of a unit across and down, quantiser.
  segment(0xc0, 8, height >> 8, height & 255, width >> 8, width & 255, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1);
  for (const [kind, list] of [codes.dc, codes.ac].entries())
    for (const [n, { counts, values }] of list.entries()) segment(0xc4, (kind << 4) | n, ...counts, ...values);
  segment(0xda, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0);
}

/** Takes 16 by 16 pixels apart, from (x, y) on; at the edges the last ones go on. T.871, section 7. */
function sample(pixels: Uint32Array, width: number, height: number, x: number, y: number, blocks: readonly Float32Array[]): void {
  const [blue, red] = [blocks[4]!.fill(0), blocks[5]!.fill(0)];
  for (let j = 0; j < 16; j++) {
    const line = Math.min(y + j, height - 1) * width;
    for (let i = 0; i < 16; i++) {
      const p = pixels[line + Math.min(x + i, width - 1)]!;
      const [r, g, b] = [(p >>> 16) & 255, (p >>> 8) & 255, p & 255];
      blocks[(j >> 3) * 2 + (i >> 3)]![(j & 7) * 8 + (i & 7)] = 0.299 * r + 0.587 * g + 0.114 * b - 128;
      const at = (j >> 1) * 8 + (i >> 1);
      blue[at]! += (-0.168736 * r - 0.331264 * g + 0.5 * b) / 4;
      red[at]! += (0.5 * r - 0.418688 * g - 0.081312 * b) / 4;
    }
  }
}

function transform(b: Float32Array): void {
  for (let row = 0; row < 64; row += 8) transformLine(b, row, 1);
  for (let column = 0; column < 8; column++) transformLine(b, column, 8);
}
/** Eight values, `step` apart. */
function transformLine(b: Float32Array, at: number, step: number): void {
  const v = (n: number): number => b[at + n * step]!;
  const put = (n: number, value: number): void => void (b[at + n * step] = value);
  const [s0, s1, s2, s3] = [v(0) + v(7), v(1) + v(6), v(2) + v(5), v(3) + v(4)];
  const [d0, d1, d2, d3] = [v(0) - v(7), v(1) - v(6), v(2) - v(5), v(3) - v(4)];
  const [a, c, e, f] = [s0 + s3, s1 + s2, s0 - s3, s1 - s2];
  put(0, a + c);
  put(4, a - c);
  const even = (e + f) * Math.SQRT1_2;
  put(2, e + even);
  put(6, e - even);
  const [p, q, r] = [d3 + d2, d2 + d1, d1 + d0];
  const turn = (p - r) * 0.382683433; // sin π/8
  const low = p * 0.5411961 + turn; // √2 sin π/8
  const high = r * 1.306562965 + turn; // √2 cos π/8
  const middle = q * Math.SQRT1_2;
  put(5, d0 - middle + low);
  put(3, d0 - middle - low);
  put(1, d0 + middle + high);
  put(7, d0 + middle - high);
}

/** Sends a block; `before` is the component's last first coefficient. Returns this one's. T.81, section F.1.2. */
function send(out: Bits, block: Float32Array, factors: Float32Array, before: number, dc: Code, ac: Code): number {
  const first = Math.round(block[0]! * factors[0]!);
  value(out, first - before, 0, dc);
  let zeros = 0;
  for (let i = 1; i < 64; i++) {
    const at = zigzag[i]!;
    const v = Math.round(block[at]! * factors[at]!);
    if (v === 0) {
      zeros++;
      continue;
    }
    for (; zeros > 15; zeros -= 16) out.bits(ac.bits[0xf0]!, ac.length[0xf0]!);
    value(out, v, zeros, ac);
    zeros = 0;
  }
  if (zeros > 0) out.bits(ac.bits[0]!, ac.length[0]!);
  return first;
}
/** A number behind `zeros` zeros: its size in code, then its bits, of a negative one those of the next lower. */
function value(out: Bits, v: number, zeros: number, by: Code): void {
  const size = 32 - Math.clz32(Math.abs(v));
  const symbol = (zeros << 4) | size;
  out.bits(by.bits[symbol]!, by.length[symbol]!);
  if (size > 0) out.bits((v < 0 ? v - 1 : v) & ((1 << size) - 1), size);
}

/** Bytes and bits; a byte of ones in the picture is followed by one of zeros. */
class Bits {
  #out = new Uint8Array(1 << 14);
  #at = 0;
  #held = 0;
  #count = 0;

  bytes(...list: readonly number[]): void {
    for (const byte of list) this.#byte(byte);
  }
  /** 1 to 16 bits. */
  bits(value: number, count: number): void {
    this.#held = (this.#held << count) | value;
    this.#count += count;
    while (this.#count >= 8) {
      this.#count -= 8;
      const byte = (this.#held >>> this.#count) & 255;
      this.#byte(byte);
      if (byte === 255) this.#byte(0);
    }
    this.#held &= (1 << this.#count) - 1;
  }
  /** All of it, with the rest filled up and the marker of the end. */
  end(): Uint8Array {
    if (this.#count > 0) this.bits((1 << (8 - this.#count)) - 1, 8 - this.#count);
    this.bytes(0xff, 0xd9);
    return this.#out.subarray(0, this.#at);
  }

  #byte(byte: number): void {
    if (this.#at === this.#out.length) {
      const more = new Uint8Array(2 * this.#at);
      more.set(this.#out);
      this.#out = more;
    }
    this.#out[this.#at++] = byte;
  }
}
