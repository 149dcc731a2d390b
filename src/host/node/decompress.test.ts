import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { decompress } from './decompress.ts';

const data = new TextEncoder().encode('a kernel '.repeat(1000));

test('gzip and zstd payloads are expanded', () => {
  assert.deepEqual(new Uint8Array(decompress('gzip', gzipSync(data), data.length)!), data);
  assert.deepEqual(new Uint8Array(decompress('zstd', zstdCompressSync(data), data.length)!), data);
});

test('a payload that expands to more than it announced is refused', () => {
  assert.throws(() => decompress('gzip', gzipSync(data), data.length - 1));
  assert.throws(() => decompress('zstd', zstdCompressSync(data), data.length - 1));
});

test('bzip2 and LZO are left to the guest', () => {
  assert.equal(decompress('bzip2', data, 1), undefined);
  assert.equal(decompress('lzo', data, 1), undefined);
});
