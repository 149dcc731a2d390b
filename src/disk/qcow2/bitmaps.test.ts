import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeDiskHost } from '../../host/node/file.ts';
import { nodeCodec as codec } from '../../host/node/file-codec.ts';
import { inFolder, mustRun, withoutTool } from '../../host/node/file-testing.ts';
import { MemoryFile } from '../memory-file.ts';
import { openDisk } from '../open.ts';
import { bitmapBytes, type StoredBitmap } from './bitmaps.ts';
import { createQcow2 } from './create.ts';
import { BITMAPS, EXTENSION } from './header.ts';
import { Qcow2Image, readHeader } from './image.ts';

const SIZE = 96 << 20;
/** Bits of all three kinds of clusters: some set, none, all. */
const some = (granularityBits: number): Uint8Array => {
  const bits = new Uint8Array(bitmapBytes(SIZE, granularityBits));
  bits.fill(0xff, 4096, 8192);
  bits[5] = 0x81;
  return bits;
};
const list: readonly StoredBitmap[] = [
  { name: 'fine', granularityBits: 9, enabled: true, inconsistent: false, bits: some(9) },
  { name: 'coarse', granularityBits: 20, enabled: false, inconsistent: false, bits: some(20) },
];

async function fresh(clusterSize = 4096): Promise<MemoryFile> {
  const file = new MemoryFile('disk');
  await createQcow2(file, { size: SIZE, clusterSize });
  return file;
}
/** What a file of these bytes is after a program that has it open is gone. */
const again = (file: MemoryFile): Promise<Qcow2Image> => Qcow2Image.open(file, { codec });
async function store(file: MemoryFile, bitmaps: readonly StoredBitmap[]): Promise<void> {
  const image = await again(file);
  image.keepBitmaps(() => bitmaps);
  await image.close();
}
const clean = async (file: MemoryFile): Promise<void> => {
  const image = await Qcow2Image.open(file, { codec, forCheck: true });
  const { corruptions, leaks, lines } = await image.check(undefined);
  assert.deepEqual({ corruptions, leaks }, { corruptions: 0, leaks: 0 }, lines.join('\n'));
};

test('bitmaps come back as they were kept, and what they had is released when they change or go', async () => {
  const file = await fresh();
  const before = await file.size();
  await store(file, list);
  await clean(file);
  assert.deepEqual((await again(file)).bitmaps, list);
  for (let i = 0; i < 4; i++) await store(file, [{ ...list[0]!, enabled: i % 2 === 0 }]);
  await clean(file);
  assert.ok((await file.size()) < before + (200 << 10), 'clusters are used again');
  await store(file, []);
  await clean(file);
  assert.equal((await readHeader(file)).autoclear, 0n);
  assert.ok(!(await readHeader(file)).extensions.some((e) => e.type === EXTENSION.bitmaps));
});

test('from the first write on they are in use: who comes after a crash knows them as inconsistent, and they stay so', async () => {
  const file = await fresh();
  await store(file, list);
  const crashed = await again(file);
  crashed.keepBitmaps(() => list);
  await crashed.write(0, new Uint8Array(512));
  await crashed.flush();
  const image = await again(file);
  assert.deepEqual(
    image.bitmaps.map((b) => [b.name, b.inconsistent]),
    [
      ['fine', true],
      ['coarse', true],
    ],
  );
  const kept = image.bitmaps;
  image.keepBitmaps(() => kept.slice(0, 1));
  await image.write(0, new Uint8Array(512));
  await image.close();
  await clean(file);
  assert.deepEqual((await again(file)).bitmaps, kept.slice(0, 1));
});

test('where nobody keeps them, the first write makes them stale', async () => {
  const file = await fresh();
  await store(file, list);
  const image = await again(file);
  await image.write(0, new Uint8Array(512));
  assert.equal((await readHeader(file)).autoclear & BITMAPS, 0n);
  await image.close();
  assert.deepEqual((await again(file)).bitmaps, []);
});

test('guest data is not written over a bitmap, and a damaged directory is refused in words', async () => {
  const file = await fresh();
  await store(file, list);
  const d = new DataView((await readHeader(file)).extensions.find((e) => e.type === EXTENSION.bitmaps)!.data.buffer);
  const directory = Number(d.getBigUint64(16));
  const entry = new Uint8Array(24);
  await file.read(directory, entry);
  const damage: [number, number, RegExp][] = [
    [3, 0xff, /its table has|its data lies/],
    [8, 0xff, /its table has/],
    [16, 7, /has type 7/],
    [17, 40, /granularity 2\^40/],
    [18, 0xff, /leaves the directory/],
    [20, 0xff, /leaves the directory/],
  ];
  for (const [at, value, message] of damage) {
    await file.write(directory + at, Uint8Array.of(value));
    await assert.rejects(again(file), message, `byte ${at}`);
    await file.write(directory + at, entry.subarray(at, at + 1));
  }
  assert.deepEqual((await again(file)).bitmaps, list);
});

test('QEMU reads our bitmaps, and we read QEMU’s', { skip: withoutTool('qemu-img') }, () =>
  inFolder(async (folder) => {
    const path = join(folder, 'd.qcow2');
    mustRun('qemu-img', 'create', '-q', '-f', 'qcow2', path, String(SIZE));
    mustRun('qemu-img', 'bitmap', '--add', '-g', '4096', path, 'theirs');
    mustRun('qemu-io', '-c', 'write 1M 8k', path);
    const host = nodeDiskHost();
    const { qcow2, device } = await openDisk(host, path);
    const [theirs] = qcow2!.bitmaps;
    assert.deepEqual([theirs!.name, theirs!.granularityBits, theirs!.enabled, theirs!.bits[32]], ['theirs', 12, true, 3]);
    qcow2!.keepBitmaps(() => [theirs!, ...list]);
    await device.close();
    mustRun('qemu-img', 'check', path);
    assert.match(mustRun('qemu-img', 'info', path), /name: theirs[\s\S]*name: fine[\s\S]*name: coarse/);
    // QEMU stores the sum of two of ours.
    mustRun('qemu-img', 'bitmap', '--add', '-g', '512', '--merge', 'fine', '--merge', 'theirs', path, 'sum');
    const merged = await openDisk(host, path, { readOnly: true });
    const sum = merged.qcow2!.bitmaps.find((b) => b.name === 'sum')!;
    assert.deepEqual([sum.bits[5], sum.bits[256], sum.bits[257], sum.bits[258], sum.bits[4096]], [0x81, 0xff, 0xff, 0, 0xff]);
    await merged.device.close();
  }),
);
