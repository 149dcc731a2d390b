import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decompressLz4Legacy } from './lz4.ts';

const decode = (base64: string): Uint8Array => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const text = 'nonroot nonroot nonroot nonroot, the whole virtualization stack; nonroot nonroot'.repeat(4);
/** `lz4 -l -9` of `text`. */
const frame = decode('AiFMGDsAAACPbm9ucm9vdCAIAAT8EiwgdGhlIHdob2xlIHZpcnR1YWxpemF0aW9uIHN0YWNrOzEAD1AA2FBucm9vdA==');
const legacy = (...blocks: number[][]): Uint8Array =>
  Uint8Array.from([0x02, 0x21, 0x4c, 0x18, ...blocks.flatMap((b) => [b.length & 0xff, b.length >> 8, 0, 0, ...b])]);

test('a legacy frame gives back what was compressed', () => {
  assert.equal(new TextDecoder().decode(decompressLz4Legacy(frame, text.length)), text);
});

test('an overlapping match repeats its bytes', () => {
  // one literal "a", then a match of 4 + 15 + 3 bytes at distance 1, then one literal "b"
  const out = decompressLz4Legacy(legacy([0x1f, 0x61, 1, 0, 3, 0x10, 0x62]), 24);
  assert.equal(new TextDecoder().decode(out), `${'a'.repeat(23)}b`);
});

test('blocks follow each other, and no match reaches into the block before', () => {
  assert.equal(new TextDecoder().decode(decompressLz4Legacy(legacy([0x20, 0x61, 0x62], [0x10, 0x63]), 3)), 'abc');
  assert.throws(
    () => decompressLz4Legacy(legacy([0x20, 0x61, 0x62], [0x10, 0x63, 2, 0, 0x10, 0x64]), 8),
    /match offset of 2 after 1 bytes/,
  );
});

test('damaged and truncated frames end in an error', () => {
  assert.throws(() => decompressLz4Legacy(new Uint8Array(3), 1), /no legacy frame magic/);
  assert.throws(() => decompressLz4Legacy(frame.subarray(0, 20), text.length), /a block of 59 bytes wanted, 12 are left/);
  assert.throws(() => decompressLz4Legacy(frame, text.length + 1), /320 bytes came out, 321 were announced/);
  assert.throws(() => decompressLz4Legacy(frame, text.length - 1), /more than the announced 319 bytes/);
  assert.throws(() => decompressLz4Legacy(legacy([0x00, 1, 0]), 8), /match offset of 1 after 0 bytes/);
  assert.throws(() => decompressLz4Legacy(legacy([0xf0, 255]), 8), /literal bytes wanted/);
});
