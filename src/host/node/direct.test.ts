import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { readSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BlockDevice } from '../../disk/block.ts';
import { createQcow2 } from '../../disk/qcow2/create.ts';
import { Qcow2Image } from '../../disk/qcow2/image.ts';
import { RawImage } from '../../disk/raw.ts';
import { nodeDiskHost } from './file.ts';
import { nativeFiles } from './file-native.ts';

const SIZE = 1 << 20;
const CLUSTER = 1 << 16;
const skip = nativeFiles() ? false : 'needs Linux and koffi';

/** What a thread reads that was told where; undefined where it was not. */
async function readDirect(disk: BlockDevice, offset: number, length: number, gone: () => void): Promise<Buffer | undefined> {
  const e = await disk.direct!(offset, length, gone);
  if (!e) return undefined;
  assert.ok(e.start <= offset && e.start + e.length > offset, 'it has the first byte');
  const bytes = Buffer.alloc(Math.min(length, e.start + e.length - offset));
  assert.equal(readSync(e.fd, bytes, 0, bytes.length, e.at + offset - e.start), bytes.length);
  return bytes;
}

test('places in files have the bytes that the disk has, through a chain of images, until something moves', { skip }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'nonroot-direct-'));
  const host = nodeDiskHost();
  try {
    const base = randomFillSync(Buffer.alloc(SIZE));
    writeFileSync(join(folder, 'base'), base);
    const raw = await RawImage.open(await host.open(join(folder, 'base'), { readOnly: true }));
    const file = await host.open(join(folder, 'top'), { readOnly: false, create: true });
    await createQcow2(file, { size: SIZE, clusterSize: CLUSTER, backing: 'base', backingFormat: 'raw' });
    const disk = await Qcow2Image.open(file, { codec: host.codec, backing: raw });
    let gone = 0;
    const told = (): void => void gone++;
    const expected = Buffer.from(base);
    const change = async (offset: number, length: number): Promise<void> => {
      const bytes = randomFillSync(Buffer.alloc(length));
      bytes.copy(expected, offset);
      await disk.write(offset, bytes);
    };
    const compare = async (): Promise<number> => {
      let found = 0;
      for (let offset = 0; offset < SIZE; offset += 40_000) {
        const bytes = await readDirect(disk, offset, Math.min(70_000, SIZE - offset), told);
        if (!bytes) continue;
        found++;
        assert.ok(bytes.equals(expected.subarray(offset, offset + bytes.length)), `bytes at ${offset}`);
      }
      return found;
    };
    const all = Math.ceil(SIZE / 40_000);
    assert.equal(await compare(), all, 'all of the backing file');

    await change(3 * CLUSTER + 100, CLUSTER);
    assert.equal(gone, 1, 'a new cluster takes all places back');
    await change(8 * CLUSTER, 2 * CLUSTER);
    assert.equal(await compare(), all);
    const before = gone;
    await change(3 * CLUSTER + 5000, 512);
    assert.equal(gone, before, 'an overwritten cluster stays where it is');
    assert.equal(await compare(), all);

    await disk.discard(8 * CLUSTER, CLUSTER);
    assert.equal(gone, before + 1);
    expected.fill(0, 8 * CLUSTER, 9 * CLUSTER);
    assert.equal(await readDirect(disk, 8 * CLUSTER, 512, told), undefined, 'zeros are in no file');
    await compare();
    await disk.createSnapshot({ name: 'one', seconds: 0, nanoseconds: 0 });
    assert.equal(gone, before + 2);
    await change(3 * CLUSTER, 512);
    assert.ok((await compare()) > 0);
    const last = gone;
    await disk.close();
    assert.ok(gone > last, 'a file that is closed takes its places back');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('compressed clusters and files without a number are in no place', { skip }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'nonroot-direct-'));
  const host = nodeDiskHost();
  try {
    const file = await host.open(join(folder, 'disk'), { readOnly: false, create: true });
    await createQcow2(file, { size: SIZE, clusterSize: CLUSTER });
    const disk = await Qcow2Image.open(file, { codec: host.codec });
    await disk.writeCompressed(0, new Uint8Array(CLUSTER).fill(9));
    assert.equal(await readDirect(disk, 0, 512, () => {}), undefined);
    assert.equal(await readDirect(disk, CLUSTER, 512, () => {}), undefined);
    await disk.close();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
