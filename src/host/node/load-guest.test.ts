// What a guest's memory is given ahead, and that giving it changes nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nativeFiles } from './file-native.ts';
import { usedFirst } from './load-guest.ts';

const MIB = 1 << 20;

test('memory behind a kernel and below its initramfs is used first, less of it in small guests, and never what was loaded', () => {
  const kernel = { gpa: 16 * MIB, length: 36 * MIB };
  const tables = { gpa: 9000, length: 4096 };
  const initrd = { gpa: 506 * MIB - 100, length: 5 * MIB };
  assert.deepEqual(usedFirst([kernel, tables, initrd], 512 * MIB), [
    { gpa: 52 * MIB, length: 32 * MIB },
    { gpa: 490 * MIB - 4096, length: 16 * MIB },
  ]);
  const small = usedFirst(
    [
      { gpa: 16 * MIB, length: 36 * MIB + 1 },
      { gpa: 58 * MIB, length: 5 * MIB },
    ],
    64 * MIB,
  );
  assert.deepEqual(small, [
    { gpa: 52 * MIB + 4096, length: 3 * MIB - 4096 },
    { gpa: 58 * MIB - (MIB + 512 * 1024 - 4096), length: MIB + 512 * 1024 - 4096 },
  ]);
  assert.deepEqual(usedFirst([kernel, tables], 512 * MIB), [], 'there is no initramfs');
  for (const { length } of usedFirst([kernel, { gpa: 52 * MIB, length: MIB }], 512 * MIB)) assert.equal(length, 0);
});

test('pages that are given ahead are there, with what they had', (t) => {
  const native = nativeFiles();
  if (!native) return t.skip('needs koffi on Linux');
  const bytes = new Uint8Array(new SharedArrayBuffer(32 * MIB));
  bytes[5 * MIB] = 7;
  const before = process.memoryUsage.rss();
  if (!native.populate(bytes.subarray(100, 31 * MIB))) return t.skip('needs Linux 5.14');
  assert.ok(process.memoryUsage.rss() - before > 20 * MIB);
  assert.equal(bytes[5 * MIB], 7);
  assert.equal(bytes[6 * MIB], 0);
});
