// Where initrds, modules and strings go: free RAM chosen from the memory map, and one bump allocator for small data.
// Linux Documentation/arch/x86/boot.rst, fields initrd_addr_max and xloadflags.

import { E820_RAM, type MemoryRange } from './e820.ts';
import { STRINGS_ADDRESS, STRINGS_SIZE } from './layout.ts';
import { hex, type LoadTarget, size } from './target.ts';

const pageDown = (n: number): number => Math.floor(n / 4096) * 4096;

/**
 * The highest page-aligned address of a free place of `length` bytes in [lowest, limit); below 4 GiB if there is one.
 * @throws when no range of RAM is large enough
 */
export const placeHigh = (map: readonly MemoryRange[], length: number, lowest: number, limit: number, what: string): number => {
  let largest = 0;
  const ram = map.filter((r) => r.type === E820_RAM && r.start + r.size > 0x100000).sort((a, b) => b.start - a.start);
  const below = ram.filter((r) => r.start < 2 ** 32);
  const above = ram.filter((r) => r.start >= 2 ** 32);
  for (const range of [...below, ...above]) {
    const start = Math.max(range.start, lowest);
    const end = Math.min(range.start + range.size, limit);
    largest = Math.max(largest, end - start);
    const place = pageDown(end - length);
    if (place >= start) return place;
  }
  const room = `the largest free RAM from the kernel's end at ${hex(lowest)} up to ${hex(limit - 1)} has ${size(largest)}`;
  throw new Error(`Cannot load ${what}: it has ${size(length)}, ${room}; give the guest more memory`);
};

/** The first page-aligned address from `lowest` with `length` bytes of free RAM below 4 GiB. */
export const placeLow = (map: readonly MemoryRange[], length: number, lowest: number, what: string): number => {
  for (const range of map) {
    if (range.type !== E820_RAM) continue;
    const place = pageDown(Math.max(range.start, lowest) + 4095);
    if (place + length <= Math.min(range.start + range.size, 2 ** 32)) return place;
  }
  throw new Error(`Cannot load ${what}: it has ${size(length)}, no free RAM above ${hex(lowest)} is that large`);
};

/** Small records written one after the other into [start, start + size); `what` names them when there is no room. */
export interface Arena {
  /** Writes `bytes` at the next multiple of `align` (a power of two, at least 1) and returns that address. */
  put(bytes: Uint8Array, align?: number): number;
}

export const createArena = (target: LoadTarget, start: number, bytesThere: number, what: string): Arena => {
  let next = start;
  return {
    put: (bytes, align = 8) => {
      const at = Math.ceil(next / align) * align;
      if (at + bytes.length > start + bytesThere) {
        throw new Error(
          `Cannot load ${what}: there is room for ${size(bytesThere)}, ${size(at + bytes.length - start)} are needed`,
        );
      }
      target.write(at, bytes);
      next = at + bytes.length;
      return at;
    },
  };
};

/** The arena of command lines and module strings. */
export const createStrings = (target: LoadTarget, start = STRINGS_ADDRESS): Arena =>
  createArena(target, start, STRINGS_SIZE, 'command lines');

/** `text` in UTF-8 with its terminating zero. `limit` is the most bytes accepted, without the zero. */
export const encodeString = (text: string, limit: number): Uint8Array => {
  const bytes = new TextEncoder().encode(text);
  if (bytes.includes(0)) throw new Error('Cannot pass kernel command line: it has a NUL character');
  if (bytes.length > limit) {
    throw new Error(`Cannot pass kernel command line: it has ${bytes.length} bytes, the kernel accepts ${limit}`);
  }
  const out = new Uint8Array(bytes.length + 1);
  out.set(bytes);
  return out;
};
