// Pictures as files: PNG (W3C Portable Network Graphics Specification, second edition) and PPM (netpbm's P6).
import { crc32 } from '../bits/crc32.ts';

/** Compresses in zlib's format (RFC 1950). */
export type Zlib = (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>;

export interface Picture {
  readonly width: number;
  readonly height: number;
  /** 0x00RRGGBB. */
  readonly pixels: Uint32Array;
}

/** A PNG file, 8 bits for each of red, green and blue. */
export async function png(p: Picture, zlib: Zlib): Promise<Uint8Array<ArrayBuffer>> {
  const line = 1 + p.width * 3;
  const raw = new Uint8Array(line * p.height);
  for (let y = 0; y < p.height; y++) rgb(p.pixels, y * p.width, p.width, raw, y * line + 1);
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, p.width);
  view.setUint32(4, p.height);
  header.set([8, 2, 0, 0, 0], 8);
  const parts = [
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    chunk('IHDR', header),
    chunk('IDAT', await zlib(raw)),
    chunk('IEND', new Uint8Array(0)),
  ];
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** A PPM file. */
export function ppm(p: Picture): Uint8Array<ArrayBuffer> {
  const header = new TextEncoder().encode(`P6\n${p.width} ${p.height}\n255\n`);
  const out = new Uint8Array(header.length + p.width * p.height * 3);
  out.set(header);
  rgb(p.pixels, 0, p.width * p.height, out, header.length);
  return out;
}

function rgb(pixels: Uint32Array, from: number, count: number, out: Uint8Array, at: number): void {
  for (let i = 0; i < count; i++) {
    const v = pixels[from + i]!;
    out[at++] = v >>> 16;
    out[at++] = v >>> 8;
    out[at++] = v;
  }
}

function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(12 + data.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc32(out.subarray(4, 8 + data.length)));
  return out;
}
