import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jpeg } from './jpeg.ts';

/** A baseline decoder as T.81 describes it: segments (annex B), codes (C), coefficients (F.2), the transform by its definition (A.3.3). */
function decode(b: Uint8Array): { width: number; height: number; planes: Float32Array[]; across: number } {
  const quantisers: number[][] = [];
  const codes = new Map<number, Map<string, number>>();
  let at = 2;
  let [width, height] = [0, 0];
  const order: number[] = [];
  for (let sum = 0; sum < 15; sum++) {
    const line = Array.from({ length: 8 }, (_, i) => [i, sum - i] as const).filter(([, other]) => other >= 0 && other < 8);
    for (const [row, column] of sum % 2 ? line : line.reverse()) order.push(8 * row + column);
  }
  assert.deepEqual([...b.subarray(0, 2), ...b.subarray(-2)], [0xff, 0xd8, 0xff, 0xd9]);
  for (let marker = 0; marker !== 0xda; ) {
    assert.equal(b[at], 0xff);
    marker = b[at + 1]!;
    const length = b[at + 2]! * 256 + b[at + 3]!;
    const data = b.subarray(at + 4, at + 2 + length);
    at += 2 + length;
    if (marker === 0xdb) quantisers[data[0]!] = [...data.subarray(1)];
    if (marker === 0xc0) [height, width] = [data[1]! * 256 + data[2]!, data[3]! * 256 + data[4]!];
    if (marker === 0xc4) {
      const table = new Map<string, number>();
      let [code, place] = [0, 17];
      for (let size = 1; size <= 16; size++, code *= 2)
        for (let n = 0; n < data[size]!; n++) table.set((code++).toString(2).padStart(size, '0'), data[place++]!);
      assert.equal(place, data.length);
      codes.set(data[0]!, table);
    }
  }
  let bits = '';
  for (; at < b.length - 2; at++) {
    bits += b[at]!.toString(2).padStart(8, '0');
    if (b[at] === 0xff) assert.equal(b[++at], 0, 'a marker in the picture');
  }
  let bit = 0;
  const symbol = (table: Map<string, number>): number => {
    for (let size = 1; size <= 16; size++) {
      const found = table.get(bits.slice(bit, bit + size));
      if (found === undefined) continue;
      bit += size;
      return found;
    }
    throw new Error('no such code');
  };
  const number = (size: number): number => {
    if (size === 0) return 0;
    const v = Number.parseInt(bits.slice(bit, (bit += size)), 2);
    return v < 2 ** (size - 1) ? v - 2 ** size + 1 : v;
  };
  const across = Math.ceil(width / 16) * 16;
  const planes = [0, 1, 2].map(() => new Float32Array(across * Math.ceil(height / 16) * 16));
  const before = [0, 0, 0];
  const block = (component: number): Float32Array => {
    const kind = component === 0 ? 0 : 1;
    const q = quantisers[kind]!;
    const c = new Float32Array(64);
    before[component]! += number(symbol(codes.get(kind)!));
    c[0] = before[component]! * q[0]!;
    for (let i = 1; i < 64; i++) {
      const rs = symbol(codes.get(16 + kind)!);
      if (rs === 0) break;
      i += rs >> 4;
      c[order[i]!] = number(rs & 15) * q[i]!;
    }
    const out = new Float32Array(64);
    const cosine = (x: number, u: number): number => (u === 0 ? Math.SQRT1_2 : 1) * Math.cos(((2 * x + 1) * u * Math.PI) / 16);
    for (let y = 0; y < 8; y++)
      for (let x = 0; x < 8; x++)
        for (let i = 0; i < 64; i++) if (c[i]) out[8 * y + x]! += (c[i]! * cosine(y, i >> 3) * cosine(x, i & 7)) / 4;
    return out;
  };
  for (let y = 0; y < height; y += 16)
    for (let x = 0; x < width; x += 16)
      for (let n = 0; n < 6; n++) {
        const values = block(Math.max(0, n - 3));
        // Colour has half the resolution.
        const [left, top, step] = n < 4 ? [x + 8 * (n & 1), y + 8 * (n >> 1), 1] : [x, y, 2];
        for (const [i, v] of values.entries())
          for (let j = 0; j < step * step; j++)
            planes[Math.max(0, n - 3)]![
              (top + step * (i >> 3) + Math.floor(j / step)) * across + left + step * (i & 7) + (j % step)
            ] = v;
      }
  assert.ok(bits.length - bit < 8 && !bits.slice(bit).includes('0'), 'all bits are read, the rest is ones');
  return { width, height, planes, across };
}

/** Mean difference of red, green and blue. */
function difference(pixels: Uint32Array, d: ReturnType<typeof decode>): number {
  let sum = 0;
  for (const [i, p] of pixels.entries()) {
    const at = Math.floor(i / d.width) * d.across + (i % d.width);
    const [y, cb, cr] = d.planes.map((plane) => plane[at]!) as [number, number, number];
    const rgb = [y + 128 + 1.402 * cr, y + 128 - 0.344136 * cb - 0.714136 * cr, y + 128 + 1.772 * cb];
    for (const [n, v] of rgb.entries()) sum += Math.abs(((p >>> (16 - 8 * n)) & 255) - Math.max(0, Math.min(255, v)));
  }
  return sum / pixels.length / 3;
}

test('pictures of every size come back, the nearer the higher the quality', () => {
  for (const [width, height] of [
    [1, 1],
    [8, 8],
    [17, 5],
    [64, 48],
    [33, 100],
  ] as const) {
    const smooth = Uint32Array.from(
      { length: width * height },
      (_, i) => ((2 * (i % width)) << 16) | ((255 - 2 * Math.floor(i / width)) << 8) | ((i % width) + Math.floor(i / width)),
    );
    const far = [5, 50, 100].map((quality) => {
      const d = decode(jpeg(smooth, width, height, quality));
      assert.deepEqual([d.width, d.height], [width, height]);
      return difference(smooth, d);
    });
    const [worst, middle, best] = far as [number, number, number];
    assert.ok(best <= middle && middle <= worst && worst < 16 && middle < 4 && best < 1.2, `${width}x${height}: ${far}`);
  }
});

test('noise and the hardest edges come back, too', () => {
  let x = 1;
  const random = (): number => (x = (Math.imul(x, 1664525) + 1013904223) >>> 0);
  const noise = Uint32Array.from({ length: 64 * 64 }, () => (random() >>> 31 ? 0xffffff : 0));
  assert.ok(difference(noise, decode(jpeg(noise, 64, 64, 100))) < 1);
  const board = Uint32Array.from({ length: 64 * 64 }, (_, i) => ((i + (i >> 6)) & 1 ? 0xffffff : 0));
  assert.ok(difference(board, decode(jpeg(board, 64, 64, 100))) < 1);
});

test('a picture of one colour is small', () => {
  assert.ok(jpeg(new Uint32Array(256 * 256).fill(0x336699), 256, 256, 50).length < 2000);
});
