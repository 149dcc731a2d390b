// For the tests of this folder: guest RAM in an array, and small kernel files made from fields instead of a compiler.

import { HDR, LOADED_HIGH } from './setup-header.ts';
import { GIB4, type LoadTarget } from './target.ts';

export interface FakeRam extends LoadTarget {
  /** A view of `length` written bytes from `gpa`. */
  bytes(gpa: number, length: number): Uint8Array;
  view(gpa: number, length: number): DataView;
  /** The zero-terminated text at `gpa`. */
  text(gpa: number): string;
}

/** RAM that refuses writes outside of it; filled with 0xCC, so that what was not cleared shows. */
export const fakeRam = (ramBelow4G: number, ramAbove4G = 0): FakeRam => {
  const low = new Uint8Array(ramBelow4G).fill(0xcc);
  const high = new Uint8Array(ramAbove4G).fill(0xcc);
  const bytes = (gpa: number, length: number): Uint8Array => {
    const [memory, start] = gpa >= GIB4 ? [high, gpa - GIB4] : [low, gpa];
    if (start + length > memory.length) throw new Error(`outside of RAM: 0x${gpa.toString(16)} + ${length}`);
    return memory.subarray(start, start + length);
  };
  return {
    ramBelow4G,
    ramAbove4G,
    write: (gpa, data) => bytes(gpa, data.length).set(data),
    load: (gpa, file, start, end, zeroed) => file.copy(start, bytes(gpa, end - start), zeroed),
    bytes,
    view: (gpa, length) => {
      const part = bytes(gpa, length);
      return new DataView(part.buffer, part.byteOffset, part.length);
    },
    text: (gpa) => {
      const part = low.subarray(gpa, gpa + 4096);
      return new TextDecoder().decode(part.subarray(0, part.indexOf(0)));
    },
  };
};

export interface FakeSegment {
  readonly virtual?: number | bigint;
  readonly physical: number | bigint;
  readonly data?: Uint8Array;
  readonly memorySize?: number | bigint;
  /** p_type; 1 (PT_LOAD) when not given. */
  readonly type?: number;
}

/** An executable ELF file for x86-64 or i386 with these segments. */
export const fakeElf = (bits: 32 | 64, entry: number | bigint, segments: readonly FakeSegment[]): Uint8Array<ArrayBuffer> => {
  const headerSize = bits === 64 ? 64 : 52;
  const entrySize = bits === 64 ? 56 : 32;
  let end = headerSize + entrySize * segments.length;
  const offsets = segments.map((s) => {
    const at = end;
    end += s.data?.length ?? 0;
    return at;
  });
  const bytes = new Uint8Array(end);
  const view = new DataView(bytes.buffer);
  const word = (at: number, value: number | bigint): void => {
    if (bits === 64) view.setBigUint64(at, BigInt(value), true);
    else view.setUint32(at, Number(value), true);
  };
  bytes.set([0x7f, 0x45, 0x4c, 0x46, bits / 32, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, bits === 64 ? 62 : 3, true);
  word(24, entry);
  word(bits === 64 ? 32 : 28, headerSize);
  view.setUint16(bits === 64 ? 54 : 42, entrySize, true);
  view.setUint16(bits === 64 ? 56 : 44, segments.length, true);
  for (const [i, segment] of segments.entries()) {
    const at = headerSize + i * entrySize;
    const data = segment.data ?? new Uint8Array(0);
    const fields = bits === 64 ? [8, 16, 24, 32, 40] : [4, 8, 12, 16, 20];
    const values = [
      offsets[i]!,
      segment.virtual ?? segment.physical,
      segment.physical,
      data.length,
      segment.memorySize ?? data.length,
    ];
    view.setUint32(at, segment.type ?? 1, true);
    for (const [n, offset] of fields.entries()) word(at + offset, values[n]!);
    bytes.set(data, offsets[i]!);
  }
  return bytes;
};

/** An ELF note section's bytes for one note. */
export const fakeNote = (name: string, type: number, data: Uint8Array): Uint8Array => {
  const pad = (n: number): number => Math.ceil(n / 4) * 4;
  const bytes = new Uint8Array(12 + pad(name.length + 1) + pad(data.length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, name.length + 1, true);
  view.setUint32(4, data.length, true);
  view.setUint32(8, type, true);
  bytes.set(new TextEncoder().encode(name), 12);
  bytes.set(data, 12 + pad(name.length + 1));
  return bytes;
};

export interface FakeBzImage {
  readonly version?: number;
  readonly loadflags?: number;
  readonly xloadflags?: number;
  readonly initrdAddrMax?: number;
  readonly cmdlineSize?: number;
  readonly prefAddress?: number;
  readonly initSize?: number;
  /** The protected-mode code; the payload comes after it. */
  readonly code?: Uint8Array;
  readonly payload?: Uint8Array;
}

/** A bzImage of protocol 2.15 with two setup sectors, kernel version "6.9-fake", 64-bit entry. */
export const fakeBzImage = (fields: FakeBzImage = {}): Uint8Array<ArrayBuffer> => {
  const code = fields.code ?? Uint8Array.from({ length: 1024 }, (_, i) => i * 7);
  const payload = fields.payload ?? new Uint8Array(0);
  const setup = 3 * 512;
  const bytes = new Uint8Array(setup + Math.ceil((code.length + payload.length) / 16) * 16);
  const view = new DataView(bytes.buffer);
  bytes[HDR.setupSects] = 2;
  view.setUint32(HDR.syssize, (bytes.length - setup) / 16, true);
  view.setUint16(HDR.bootFlag, 0xaa55, true);
  bytes.set([0xeb, 0x6a], HDR.jump);
  view.setUint32(HDR.magic, 0x5372_6448, true);
  view.setUint16(HDR.version, fields.version ?? 0x20f, true);
  view.setUint16(HDR.kernelVersion, 0x300 - 0x200, true);
  bytes.set(new TextEncoder().encode('6.9-fake (test)\0'), 0x300);
  bytes[HDR.loadflags] = fields.loadflags ?? LOADED_HIGH;
  view.setUint32(HDR.code32Start, 0x100000, true);
  view.setUint32(HDR.initrdAddrMax, fields.initrdAddrMax ?? 0x7fff_ffff, true);
  view.setUint32(HDR.kernelAlignment, 0x200000, true);
  bytes[HDR.relocatable] = 1;
  view.setUint16(HDR.xloadflags, fields.xloadflags ?? 3, true);
  view.setUint32(HDR.cmdlineSize, fields.cmdlineSize ?? 2047, true);
  view.setUint32(HDR.payloadOffset, code.length, true);
  view.setUint32(HDR.payloadLength, payload.length, true);
  view.setBigUint64(HDR.prefAddress, BigInt(fields.prefAddress ?? 0x200000), true);
  view.setUint32(HDR.initSize, fields.initSize ?? 0x10000, true);
  bytes.set(code, setup);
  bytes.set(payload, setup + code.length);
  return bytes;
};

/** `data` as the payload of a kernel build: compressed bytes and, except for gzip, the size behind them. */
export const withSize = (compressed: Uint8Array, size: number): Uint8Array => {
  const bytes = new Uint8Array(compressed.length + 4);
  bytes.set(compressed);
  new DataView(bytes.buffer).setUint32(compressed.length, size, true);
  return bytes;
};
