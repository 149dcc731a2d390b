import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { nativeFiles } from './file-native.ts';
import { openImageFile, writeSparse } from './image-file.ts';

const MIB = 1 << 20;
/** Data at the start, in the middle and at the end, between zeros. */
const bytes = new Uint8Array(8 * MIB + 5);
for (const at of [0, 3 * MIB - 1, 3 * MIB, 5 * MIB + 77, bytes.length - 1]) bytes[at] = at % 255 || 9;
const head = Uint8Array.of(1, 2, 3);

test('a file with holes is what was written, and where zeros are already they are not written again', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-image-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'file');
  writeSparse(path, bytes, head);
  assert.deepEqual(new Uint8Array(readFileSync(path)), new Uint8Array(Buffer.concat([head, bytes])));
  const { size, blocks } = statSync(path);
  const file = openImageFile(path);
  t.after(() => file.close());
  for (const [start, length] of [
    [3, bytes.length],
    [3 + 3 * MIB, 1],
    [2 * MIB, 2 * MIB],
    [4 * MIB, 4096],
  ] as const) {
    const whole = new Uint8Array(readFileSync(path).subarray(start, start + length));
    for (const zeroed of [false, true]) {
      const place = new Uint8Array(length);
      file.copy(start, place, zeroed);
      assert.deepEqual(place, whole, `${start} ${zeroed}`);
    }
  }
  // Where the file system has holes: what is not read stays as it is.
  if (nativeFiles() && blocks * 512 < size / 2) {
    const place = new Uint8Array(4096).fill(7);
    file.copy(4 * MIB, place, true);
    assert.ok(place.every((b) => b === 7));
    file.copy(4 * MIB, place);
    assert.ok(place.every((b) => b === 0));
  }
  truncateSync(path, MIB);
  for (const zeroed of [false, true]) assert.throws(() => file.copy(3, new Uint8Array(2 * MIB), zeroed), /it became shorter/);
});

test('a file that must stay as it was is read under any name, and not once it was written to', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-image-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'file');
  writeFileSync(path, 'initramfs');
  utimesSync(path, 1, 1);
  const file = openImageFile(path, true);
  t.after(() => file.close());
  renameSync(path, `${path}.old`);
  writeFileSync(path, 'another');
  const place = new Uint8Array(9);
  file.copy(0, place);
  assert.equal(Buffer.from(place).toString(), 'initramfs');
  assert.equal(Buffer.from(file.bytes(4, 7)).toString(), 'ram');
  writeFileSync(`${path}.old`, 'INITRAMFS');
  assert.throws(() => file.copy(0, place), /Cannot read .*: it was written to meanwhile/);
  assert.throws(() => file.bytes(4, 7), /Cannot read .*: it was written to meanwhile/);
});
