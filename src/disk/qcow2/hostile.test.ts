// Damaged and hostile images: errors in words, no crash, no endless work, no memory beyond the format's limits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCodec as codec } from '../../host/node/file-codec.ts';
import { seeded } from '../../host/node/file-testing.ts';
import { DiskError } from '../block.ts';
import { MemoryFile } from '../memory-file.ts';
import { type CreateOptions, createQcow2 } from './create.ts';
import { encodeHeader } from './header.ts';
import { Qcow2Image, readHeader } from './image.ts';

const KiB = 1024;

async function sample(options: Partial<CreateOptions> = {}): Promise<MemoryFile> {
  const file = new MemoryFile('disk');
  await createQcow2(file, { size: 1024 * KiB, clusterSize: 4096, ...options });
  const image = await Qcow2Image.open(file, { codec });
  await image.write(0, new Uint8Array(100 * KiB).fill(1));
  await image.writeCompressed(200 * KiB, new Uint8Array(image.info.clusterSize).fill(2));
  await image.createSnapshot({ name: 'one', seconds: 1, nanoseconds: 0 });
  await image.write(50 * KiB, new Uint8Array(100 * KiB).fill(3));
  await image.close();
  return file;
}

async function poke(file: MemoryFile, at: number, bytes: number, value: bigint): Promise<void> {
  const d = new DataView(new ArrayBuffer(8));
  d.setBigUint64(0, value);
  await file.write(at, new Uint8Array(d.buffer, 8 - bytes));
}

const opening = (file: MemoryFile) => Qcow2Image.open(file, { codec });

const headers: readonly (readonly [what: string, at: number, bytes: number, value: bigint, error: RegExp])[] = [
  ['another magic', 0, 4, 0x5146_4900n, /does not begin with a qcow2 header/],
  ['version 4', 4, 4, 4n, /its qcow2 version is 4, accepted are 2 and 3/],
  ['a backing name beyond the cluster', 8, 8, 1n << 40n, /backing file's name/],
  ['clusters of 256 bytes', 20, 4, 8n, /2\^8 bytes, accepted are 2\^9 to 2\^21/],
  ['clusters of 2^40 bytes', 20, 4, 40n, /2\^40 bytes/],
  ['a size of 2^63', 24, 8, 1n << 63n, /virtual size is 9223372036854775808/],
  ['a size that its L1 table cannot hold', 24, 8, 1n << 40n, /L1 table has 1 entries/],
  ['encryption', 32, 4, 2n, /it is encrypted \(method 2\)/],
  ['an L1 table of 4 G entries', 36, 4, 0xffff_ffffn, /L1 table has 4294967295 entries, accepted are at most 4194304/],
  ['an L1 table that is not aligned', 40, 8, 4097n, /L1 table lies at 4097/],
  ['no L1 table', 40, 8, 0n, /L1 table lies at 0/],
  ['no refcount table', 48, 8, 0n, /no refcount table/],
  ['a refcount table of 16 TiB', 56, 4, 0xffff_ffffn, /refcount table has 4294967295 clusters/],
  ['a million snapshots', 60, 4, 1_000_000n, /1000000 snapshots, accepted are at most 65536/],
  ['a snapshot table that is not aligned', 64, 8, 77n, /snapshot table lies at 77/],
  ['an external data file', 72, 8, 4n, /not supported: external data file \(bit 2\)/],
  ['extended L2 entries', 72, 8, 16n, /not supported: extended L2 entries \(bit 4\)/],
  ['a feature without name', 72, 8, 1n << 60n, /not supported: bit 60/],
  ['a compression type without its bit', 104, 1, 1n, /compression type is 1/],
  ['refcounts of 128 bits', 96, 4, 7n, /2\^7 bits/],
  ['a header of 2 GiB', 100, 4, 0x8000_0000n, /header has 2147483648 bytes/],
  ['an extension that leaves its area', 116, 4, 0xffff_fff0n, /leaves its area/],
  ['the corrupt bit', 72, 8, 2n, /marked corrupt/],
];
for (const [what, at, bytes, value, error] of headers) {
  test(`an image with ${what} is refused by name`, async () => {
    const file = await sample();
    await poke(file, at, bytes, value);
    await assert.rejects(opening(file), (e: Error) => e instanceof DiskError && error.test(e.message));
  });
}

test('a feature that the image names is refused by that name', async () => {
  const file = await sample();
  await poke(file, 72, 8, 1n << 33n);
  // The first row of the feature name table.
  await poke(file, 112 + 8, 2, 33n);
  await file.write(112 + 10, new TextEncoder().encode('time travel\0'));
  await assert.rejects(opening(file), /not supported: time travel \(bit 33\)/);
});

test('an L1 or L2 entry that is not aligned marks the image corrupt, and no write follows', async () => {
  for (const value of [0x8000_0000_0000_0200n, 0x80ff_ffff_ffff_fe00n]) {
    const file = await sample();
    const { l1Offset } = await readHeader(file);
    await poke(file, l1Offset, 8, value);
    const image = await opening(file);
    await assert.rejects(image.read(0, new Uint8Array(512)), /it is corrupt: L2 table/);
    await assert.rejects(image.write(900 * KiB, new Uint8Array(512)), /it is corrupt/);
    assert.equal((await readHeader(file)).incompatible & 2n, 2n);
    await image.close();
  }
});

test('guest data that the tables put on metadata is not written', async () => {
  const file = await sample();
  const { l1Offset, reftableOffset } = await readHeader(file);
  const l1 = new Uint8Array(8);
  await file.read(l1Offset, l1);
  const l2 = Number(new DataView(l1.buffer).getBigUint64(0) & 0x00ff_ffff_ffff_fe00n);
  for (const target of [l1Offset, reftableOffset, l2]) {
    const damaged = await sample();
    await poke(damaged, l2, 8, (1n << 63n) | BigInt(target));
    const before = new Uint8Array(4096);
    await damaged.read(target, before);
    const image = await opening(damaged);
    await assert.rejects(image.write(0, new Uint8Array(4096).fill(0xee)), /it is corrupt: guest data at/);
    await image.close();
    const after = new Uint8Array(4096);
    await damaged.read(target, after);
    // The L1 table at the header's place is not compared: the corrupt bit is there.
    assert.deepEqual(after, before);
  }
});

test('refcounts of zero for clusters in use do not have metadata allocated', async () => {
  const file = await sample();
  const { reftableOffset } = await readHeader(file);
  const entry = new Uint8Array(8);
  await file.read(reftableOffset, entry);
  const block = Number(new DataView(entry.buffer).getBigUint64(0));
  await file.write(block, new Uint8Array(4096));
  const image = await opening(file);
  await assert.rejects(image.write(600 * KiB, new Uint8Array(4096)), /refcount 0 and holds the header/);
  await image.close();
});

test('a refcount block that the table has twice is refused, since a search would not end', async () => {
  const file = await sample();
  const { reftableOffset } = await readHeader(file);
  const entry = new Uint8Array(8);
  await file.read(reftableOffset, entry);
  for (let i = 1; i < 512; i++) await file.write(reftableOffset + i * 8, entry);
  await assert.rejects(opening(file), /in the refcount table twice/);
});

test('a compressed cluster that expands to too much or too little is an error', async () => {
  for (const [stream, error] of [
    [await codec.compress('zlib', new Uint8Array(1 << 20)), /damaged/],
    [await codec.compress('zlib', new Uint8Array(100)), /has 100 bytes, accepted are 4096/],
    [new Uint8Array(512).fill(0xff), /damaged/],
  ] as const) {
    const file = await sample();
    const image = await opening(file);
    await image.writeCompressed(
      400 * KiB,
      Uint8Array.from({ length: 4096 }, (_, i) => (i * i) >> 4),
    );
    await image.flush();
    const size = await file.size();
    // The stream was appended in the last cluster that is in use.
    const bytes = new Uint8Array(size);
    await file.read(0, bytes);
    const packed = await codec.compress(
      'zlib',
      Uint8Array.from({ length: 4096 }, (_, i) => (i * i) >> 4),
    );
    const at = Buffer.from(bytes).indexOf(Buffer.from(packed));
    assert.ok(at > 0);
    await file.write(at, new Uint8Array(packed.length));
    await file.write(at, stream.subarray(0, packed.length));
    await assert.rejects(image.read(400 * KiB, new Uint8Array(512)), error);
    await image.close();
  }
});

test('images with random bytes in their metadata never crash, hang or throw anything but a DiskError', async () => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = seeded(seed);
    const file = await sample({ clusterSize: 512 << random(4), refcountBits: 1 << (3 + random(4)), version: 3 });
    const { clusterBits } = await readHeader(file);
    const size = await file.size();
    for (let n = 1 + random(6); n > 0; n--) {
      const at = random(3) === 0 ? 8 + random(100) : random(Math.min(size, 40 << clusterBits));
      await file.write(
        at,
        Uint8Array.from({ length: 1 + random(8) }, () => (random(3) ? random(256) : random(2) * 255)),
      );
    }
    try {
      const image = await opening(file);
      const steps = [
        () => image.read(0, new Uint8Array(image.size < 1 << 22 ? image.size : 4096)),
        () => image.write(random(image.size - 9000), new Uint8Array(9000).fill(random(256))),
        () => image.discard(0, 64 * KiB),
        () => image.createSnapshot({ name: 'x', seconds: 0, nanoseconds: 0 }),
        () => image.applySnapshot('one'),
        () => image.deleteSnapshot('one'),
        () => image.resize(1500 * KiB),
        () => image.close(),
      ];
      for (const step of steps) await step().catch(expected(seed));
      const broken = await Qcow2Image.open(file, { codec, forCheck: true });
      await broken.check(undefined);
      await broken.check('all');
      await broken.close();
    } catch (error) {
      expected(seed)(error);
    }
  }
});

const expected =
  (seed: number) =>
  (error: unknown): void => {
    if (!(error instanceof DiskError)) throw new Error(`seed ${seed}`, { cause: error });
  };

test('a header with names that do not fit its first cluster is refused', async () => {
  const header = await readHeader(await sample({ clusterSize: 512 }));
  assert.throws(
    () => encodeHeader({ ...header, backing: 'x'.repeat(600), backingFormat: 'raw' }),
    /Cannot store a header of \d+ bytes/,
  );
  assert.throws(() => encodeHeader({ ...header, backing: 'x'.repeat(2000) }), /name of 2000 bytes/);
});
