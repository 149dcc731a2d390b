import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readTar, safePath } from './tar.ts';
import { join, makeTar, makeTarEntry } from './testing.ts';

const list = (bytes: Uint8Array) =>
  [...readTar(bytes)].map((entry) => [entry.type, entry.path, entry.target || new TextDecoder().decode(entry.data)]);

test('files, directories and links come with normal relative paths, the root is left out', () => {
  const tar = makeTar(
    { name: './', type: '5' },
    { name: './boot/', type: '5', mode: '0000755' },
    { name: './boot/vmlinuz', data: 'kernel' },
    { name: 'bin/sh', type: '2', link: '/bin/busybox' },
    { name: 'bin/ash', type: '1', link: './bin/busybox' },
  );
  assert.deepEqual(list(tar), [
    ['dir', 'boot', ''],
    ['file', 'boot/vmlinuz', 'kernel'],
    ['symlink', 'bin/sh', '/bin/busybox'],
    ['link', 'bin/ash', './bin/busybox'],
  ]);
  assert.equal([...readTar(tar)][0]!.mode, 0o755);
});

test('long names come from the ustar prefix, from GNU entries and from pax records, each for one entry only', () => {
  const long = `${'d/'.repeat(120)}file`;
  const record = ` path=${long}\n`;
  const length = record.length + String(record.length + 3).length;
  assert.deepEqual(
    list(
      makeTar(
        { name: 'tail', prefix: 'some/prefix', data: '1' },
        { name: '././@LongLink', type: 'L', data: `${long}\0` },
        { name: 'short', data: '2' },
        { name: 'PaxHeader', type: 'x', data: `${length}${record}` },
        { name: 'short', data: '3' },
        { name: 'plain', data: '4' },
      ),
    ),
    [
      ['file', 'some/prefix/tail', '1'],
      ['file', long, '2'],
      ['file', long, '3'],
      ['file', 'plain', '4'],
    ],
  );
});

test('sizes may be in base 256, and a size beyond the archive is an error, not a short file', () => {
  const binary = (size: number) => `\x80${'\0'.repeat(9)}${String.fromCharCode(size >> 8, size & 0x7f)}`;
  const header = makeTarEntry({ name: 'a', size: '0' }).slice(0, 512);
  const set = (size: number) => {
    const bytes = header.slice();
    bytes.set(
      [...binary(size)].map((char) => char.charCodeAt(0)),
      124,
    );
    bytes.set(new Uint8Array(8).fill(0x20), 148);
    const sum = bytes.reduce((total, byte) => total + byte, 0);
    bytes.set(
      [...`${sum.toString(8).padStart(6, '0')}\0 `].map((char) => char.charCodeAt(0)),
      148,
    );
    return bytes;
  };
  assert.deepEqual(list(join(set(3), 'xyz', new Uint8Array(509))), [['file', 'a', 'xyz']]);
  assert.throws(() => list(join(set(0x300), 'xyz', new Uint8Array(509))), /holds 768 bytes, 512 are left/);
});

test('paths that leave the archive are refused', () => {
  for (const path of ['../etc/passwd', 'a/../../b', '/etc/passwd', 'a/..']) {
    assert.throws(() => list(makeTar({ name: path, data: 'x' })), /Cannot take/);
    assert.throws(() => safePath(path), /without "\.\."/);
  }
});

test('damaged headers are refused', () => {
  const tar = makeTar({ name: 'a', data: 'x' });
  tar[0]! ^= 1;
  assert.throws(() => list(tar), /checksum at offset 0/);
  assert.throws(() => list(makeTar({ name: 'a', type: 'Z' })), /type "Z"/);
  assert.throws(() => list(makeTar({ name: 'p', type: 'x', data: '99 path=a\n' }, { name: 'a' })), /bad pax record/);
});
