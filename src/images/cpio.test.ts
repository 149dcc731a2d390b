import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dir, file, symlink, writeCpio } from './cpio.ts';
import { concatenate } from './initramfs.ts';

type Read = { name: string; mode: string; major: number; minor: number; data: string };

/** A reader of newc as the kernel's init/initramfs.c works: archives in a row, zeroes between them skipped. */
function readCpio(bytes: Uint8Array): Read[] {
  const text = (from: number, length: number) => new TextDecoder().decode(bytes.subarray(from, from + length));
  const files: Read[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] === 0) {
      at += 4;
      continue;
    }
    assert.equal(at % 4, 0);
    assert.equal(text(at, 6), '070701');
    const field = (index: number) => Number.parseInt(text(at + 6 + 8 * index, 8), 16);
    const [mode, size, major, minor, nameSize] = [1, 6, 9, 10, 11].map(field) as [number, number, number, number, number];
    assert.deepEqual([field(2), field(3), field(5)], [0, 0, 0], 'owner and time are fixed');
    const name = text(at + 110, nameSize - 1);
    const start = (at + 110 + nameSize + 3) & ~3;
    if (name !== 'TRAILER!!!') files.push({ name, mode: mode.toString(8), major, minor, data: text(start, size) });
    at = (start + size + 3) & ~3;
  }
  return files;
}

test('every kind of entry is written with its type, mode and contents, parents first', () => {
  const archive = writeCpio([
    file('a/b/c', 'text', 0o755),
    symlink('a/link', '/bin/busybox'),
    { path: 'dev/console', mode: 0o600, type: 'char', major: 5, minor: 1 },
    { path: 'dev/vda', mode: 0o660, type: 'block', major: 254, minor: 0 },
    dir('empty'),
  ]);
  const none = { major: 0, minor: 0 };
  assert.deepEqual(readCpio(archive), [
    { name: 'a', mode: '40755', ...none, data: '' },
    { name: 'a/b', mode: '40755', ...none, data: '' },
    { name: 'a/b/c', mode: '100755', ...none, data: 'text' },
    { name: 'a/link', mode: '120777', ...none, data: '/bin/busybox' },
    { name: 'dev', mode: '40755', ...none, data: '' },
    { name: 'dev/console', mode: '20600', major: 5, minor: 1, data: '' },
    { name: 'dev/vda', mode: '60660', major: 254, minor: 0, data: '' },
    { name: 'empty', mode: '40755', ...none, data: '' },
  ]);
});

test('equal input makes equal bytes, and archives can be put in a row', () => {
  const first = writeCpio([file('a', 'x')]);
  assert.deepEqual(first, writeCpio([file('a', 'x')]));
  assert.equal(first.length % 512, 0);
  const both = concatenate([first, writeCpio([file('a', 'y'), file('é', 'z')])]);
  assert.deepEqual(
    readCpio(both).map(({ name, data }) => [name, data]),
    [
      ['a', 'x'],
      ['a', 'y'],
      ['é', 'z'],
    ],
  );
});

test('a directory named after its child keeps the explicit mode, other doubles and bad paths are refused', () => {
  assert.deepEqual(
    readCpio(writeCpio([file('tmp/x', ''), { path: 'tmp', type: 'dir', mode: 0o1777 }])).map((entry) => [entry.name, entry.mode]),
    [
      ['tmp', '41777'],
      ['tmp/x', '100644'],
    ],
  );
  assert.throws(() => writeCpio([file('a', ''), file('a', '')]), /"a" occurs twice/);
  for (const path of ['/a', '../a', '']) assert.throws(() => writeCpio([file(path, '')]), /^Error: Cannot/);
});
