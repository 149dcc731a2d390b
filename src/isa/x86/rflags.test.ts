import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readRflags, writeRflags } from './rflags.ts';
import { STATE_BYTES } from './state.ts';

test('every combination of RFLAGS bits reads back as it was written, bit 1 always set', () => {
  const view = new DataView(new ArrayBuffer(STATE_BYTES + 64));
  const bits = [0, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21];
  for (let n = 0; n < 1 << bits.length; n += 97) {
    const flags = bits.reduce((f, bit, i) => (n & (1 << i) ? f | (1n << BigInt(bit)) : f), 0n);
    writeRflags(view, 64, flags);
    assert.equal(readRflags(view, 64), flags | 2n);
  }
});
