import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { zstdFrameLength } from '../../disk/codec.ts';
import { RawImage } from '../../disk/raw.ts';
import { openFile } from './file.ts';
import { nodeCodec } from './file-codec.ts';
import { nativeFiles } from './file-native.ts';
import { inFolder } from './file-testing.ts';

test('a file reads zeros past its end and takes buffers in shared memory', () =>
  inFolder(async (folder) => {
    const path = join(folder, 'f');
    writeFileSync(path, 'abc');
    const file = await openFile(path, { readOnly: false });
    const shared = new Uint8Array(new SharedArrayBuffer(16), 4, 8).fill(9);
    await file.read(1, shared);
    assert.deepEqual([...shared], [98, 99, 0, 0, 0, 0, 0, 0]);
    await file.write(5, shared.subarray(0, 2));
    await file.flush();
    await file.close();
    assert.equal(readFileSync(path, 'latin1'), 'abc\0\0bc');
  }));

test('the last sector of a raw image is whole', () =>
  inFolder(async (folder) => {
    const path = join(folder, 'f');
    writeFileSync(path, new Uint8Array(1000).fill(7));
    const disk = await RawImage.open(await openFile(path, { readOnly: false }));
    assert.equal(disk.size, 1024);
    const sector = new Uint8Array(512).fill(1);
    await disk.read(512, sector);
    assert.deepEqual(
      sector,
      Uint8Array.from({ length: 512 }, (_, i) => (i < 488 ? 7 : 0)),
    );
    assert.deepEqual(await disk.extent(0, 1024), { kind: 'data', length: 1024 });
    assert.deepEqual(await disk.extent(512, 512), { kind: 'data', length: 512 });
    await disk.write(512, sector.fill(9));
    await disk.close();
    assert.equal(readFileSync(path).length, 1024);
  }));

test('holes are made and found', { skip: nativeFiles() === undefined && 'fallocate cannot be called here' }, () =>
  inFolder(async (folder) => {
    const path = join(folder, 'f');
    writeFileSync(path, new Uint8Array(1 << 20).fill(7));
    const disk = await RawImage.open(await openFile(path, { readOnly: false }));
    const before = await disk.file.allocated();
    await disk.writeZeroes(65_536, 524_288);
    assert.ok((await disk.file.allocated())! <= before! - 500_000);
    assert.deepEqual(await disk.extent(65_536, 900_000), { kind: 'zero', length: 524_288 });
    assert.equal((await disk.extent(0, 1 << 20)).kind, 'data');
    await disk.close();
    assert.ok(
      readFileSync(path)
        .subarray(65_536, 589_824)
        .every((v) => v === 0),
    );
  }),
);

test('a second writer is refused, readers are together', { skip: nativeFiles() === undefined && 'no locks here' }, () =>
  inFolder(async (folder) => {
    const path = join(folder, 'f');
    writeFileSync(path, 'x');
    const reader = await openFile(path, { readOnly: true });
    const other = await openFile(path, { readOnly: true });
    await assert.rejects(openFile(path, { readOnly: false }), /Cannot open .*: another process uses it/);
    await reader.close();
    await other.close();
    const writer = await openFile(path, { readOnly: false });
    await assert.rejects(openFile(path, { readOnly: true }), /another process uses it/);
    await (await openFile(path, { readOnly: true, share: true })).close();
    await writer.close();
  }),
);

test('what is no file is refused with its name', () =>
  inFolder(async (folder) => {
    await assert.rejects(openFile(folder, { readOnly: true }), /Cannot open .*: it is a directory/);
    await assert.rejects(openFile('/dev/null', { readOnly: false }), /neither a file nor a block device/);
    await assert.rejects(openFile(join(folder, 'none'), { readOnly: false }), /there is no such file/);
  }));

test('a Zstandard frame is found in what follows it, and other bytes are refused', async () => {
  for (const length of [0, 1, 300, 70_000, 400_000]) {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * i) >> 3);
    const frame = await nodeCodec.compress('zstd', bytes);
    const more = new Uint8Array(frame.length + 600).fill(0x28);
    more.set(frame);
    assert.equal(zstdFrameLength(more), frame.length);
    assert.deepEqual(Uint8Array.from(await nodeCodec.expand('zstd', more, 1 << 20)), bytes);
    assert.equal(zstdFrameLength(frame.subarray(0, frame.length - 1)), undefined);
  }
  await assert.rejects(nodeCodec.expand('zstd', new Uint8Array(100), 100), /not a Zstandard frame/);
});
