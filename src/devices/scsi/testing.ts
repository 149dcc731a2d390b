// A medium in memory for tests of disks: what leaves it fails the test.

import type { MediumStore } from './plan.ts';

export function memoryStore(bytes: Uint8Array, readOnly = false): MediumStore & { flushes: number } {
  const inside = (offset: number, length: number): void => {
    if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length)) throw new Error('outside of the medium');
  };
  return {
    size: bytes.length,
    readOnly,
    flushes: 0,
    async read(offset, into) {
      inside(offset, into.length);
      into.set(bytes.subarray(offset, offset + into.length));
    },
    async write(offset, from) {
      inside(offset, from.length);
      bytes.set(from, offset);
    },
    async flush() {
      this.flushes++;
    },
    async discard(offset, length) {
      inside(offset, length);
      bytes.fill(0, offset, offset + length);
    },
    async writeZeroes(offset, length) {
      inside(offset, length);
      bytes.fill(0, offset, offset + length);
    },
  };
}
