import assert from 'node:assert/strict';
import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeDiskHost, openFile } from '../../host/node/file.ts';
import { nodeCodec as codec } from '../../host/node/file-codec.ts';
import { inFolder, mustRun, seeded, tool, withoutTool } from '../../host/node/file-testing.ts';
import { MemoryFile } from '../memory-file.ts';
import { openDisk } from '../open.ts';
import { openOverlay } from '../overlay.ts';
import { RawImage } from '../raw.ts';
import { createQcow2 } from './create.ts';
import { BITMAPS, DIRTY } from './header.ts';
import { Qcow2Image, readHeader } from './image.ts';

const host = nodeDiskHost();
const MiB = 1 << 20;

async function fresh(size: number, clusterSize = 65_536): Promise<{ file: MemoryFile; image: Qcow2Image }> {
  const file = new MemoryFile('disk');
  await createQcow2(file, { size, clusterSize });
  return { file, image: await Qcow2Image.open(file, { codec }) };
}

const read = async (image: Qcow2Image, offset: number, length: number): Promise<Uint8Array> => {
  const bytes = new Uint8Array(length);
  await image.read(offset, bytes);
  return bytes;
};

test('requests at the same time each see whole earlier ones, and all are kept', async () => {
  const { image } = await fresh(4 * MiB, 4096);
  const random = seeded(7);
  // Each sector has one writer at a time: writers go on with their own sectors in any order.
  await Promise.all(
    Array.from({ length: 64 }, async (_, k) => {
      for (let i = 0; i < 20; i++) {
        const sector = k + 64 * random(90);
        await image.write(sector * 512, new Uint8Array(512).fill(k + 1));
        assert.deepEqual(await read(image, sector * 512, 512), new Uint8Array(512).fill(k + 1));
        if (random(8) === 0) await image.flush();
        if (random(8) === 0) await image.discard(3 * MiB, 65_536);
      }
    }),
  );
  const { corruptions, leaks } = await image.check(undefined);
  assert.deepEqual({ corruptions, leaks }, { corruptions: 0, leaks: 0 });
  await assert.rejects(image.check('all'), /it is in use/);
  await image.close();
});

test('ranges outside the disk are refused', async () => {
  const { image } = await fresh(MiB);
  for (const action of [
    async () => image.read(MiB - 1, new Uint8Array(2)),
    async () => image.write(MiB, new Uint8Array(1)),
    async () => image.discard(-512, 512),
    async () => image.writeZeroes(0, MiB + 1),
    async () => image.read(0.5, new Uint8Array(1)),
  ])
    await assert.rejects(action, /accepted are ranges within the disk's 1048576 bytes/);
});

test('an overlay takes all writes and leaves the disk below as it was', async () => {
  const base = new MemoryFile('base');
  await base.write(0, new Uint8Array(MiB + 512).fill(5));
  const overlay = await openOverlay(await RawImage.open(base), codec);
  await overlay.write(100, new Uint8Array(1000).fill(6));
  await overlay.writeZeroes(200_000, 300_000);
  assert.deepEqual(
    [...(await read(overlay, 99, 2)), ...(await read(overlay, MiB + 511, 1)), ...(await read(overlay, 300_000, 1))],
    [5, 6, 5, 0],
  );
  const below = new Uint8Array(MiB + 512);
  await base.read(0, below);
  assert.ok(below.every((v) => v === 5));
  await overlay.close();
});

test('VM state is kept with its snapshot, and the disk does not show it', async () => {
  const { file, image } = await fresh(MiB + 512, 4096);
  const state = Uint8Array.from({ length: 3 * MiB + 77 }, (_, i) => i % 251);
  await image.write(0, new Uint8Array(4096).fill(1));
  await image.writeVmState(0, state);
  await image.createSnapshot({ name: 'running', seconds: 1, nanoseconds: 2, guestTime: 3n, vmStateSize: state.length });
  await image.write(0, new Uint8Array(4096).fill(2));
  await image.resize(8 * MiB);
  assert.ok((await read(image, MiB + 512, 7 * MiB - 512)).every((v) => v === 0));
  await image.close();
  const again = await Qcow2Image.open(file, { codec });
  // It can be looked at without going back to it.
  const then = await again.atSnapshot('running');
  const seen = new Uint8Array(state.length);
  await then.readVmState(0, seen);
  assert.deepEqual(seen, state);
  assert.deepEqual(await read(again, 0, 1), new Uint8Array([2]));
  await again.applySnapshot('running');
  assert.equal(again.size, MiB + 512);
  const back = new Uint8Array(state.length);
  await again.readVmState(0, back);
  assert.deepEqual(back, state);
  assert.deepEqual(await read(again, 0, 1), new Uint8Array([1]));
  assert.equal(again.snapshots[0]?.vmStateSize, state.length);
  await again.close();
  const checked = await Qcow2Image.open(file, { codec, forCheck: true });
  const { corruptions, leaks } = await checked.check(undefined);
  assert.deepEqual({ corruptions, leaks }, { corruptions: 0, leaks: 0 });
});

test('a dirty image is repaired when it is opened for writing, and read as it is', { skip: withoutTool('qemu-io') }, () =>
  inFolder(async (folder) => {
    const path = join(folder, 'd.qcow2');
    mustRun('qemu-img', 'create', '-f', 'qcow2', '-o', 'lazy_refcounts=on', path, '4M');
    // The abort leaves the counts behind.
    tool('qemu-io', '-c', 'write -P 5 0 1M', '-c', 'flush', '-c', 'abort', path);
    const before = await openDisk(host, path, { readOnly: true });
    assert.equal(before.qcow2?.info.dirty, true);
    assert.equal((await read(before.qcow2!, MiB - 1, 1))[0], 5);
    await before.device.close();
    const { qcow2 } = await openDisk(host, path);
    assert.equal(qcow2?.info.dirty, false);
    await qcow2!.write(2 * MiB, new Uint8Array(MiB).fill(6));
    const file = await openFile(path, { readOnly: true, share: true });
    assert.equal((await readHeader(file)).incompatible & DIRTY, DIRTY);
    await file.close();
    await qcow2!.close();
    mustRun('qemu-img', 'check', path);
    mustRun('qemu-io', '-c', 'read -P 5 0 1M', '-c', 'read -P 6 2M 1M', path);
  }),
);

test(
  'persistent bitmaps stay valid while nothing is written, and are declared stale by the first write',
  {
    skip: withoutTool('qemu-img'),
  },
  () =>
    inFolder(async (folder) => {
      const path = join(folder, 'd.qcow2');
      mustRun('qemu-img', 'create', '-f', 'qcow2', path, '4M');
      mustRun('qemu-img', 'bitmap', '--add', path, 'backup');
      mustRun('qemu-io', '-c', 'write 0 1M', path);
      await (await openDisk(host, path)).device.close();
      assert.match(mustRun('qemu-img', 'info', path), /name: backup/);
      const whole = await openDisk(host, path, { readOnly: true, forCheck: true });
      assert.equal((await whole.qcow2!.check(undefined)).leaks, 0);
      await whole.device.close();
      const { qcow2, file } = await openDisk(host, path);
      await qcow2!.write(0, new Uint8Array(512));
      assert.equal((await readHeader(file)).autoclear & BITMAPS, 0n);
      await qcow2!.close();
      assert.doesNotMatch(mustRun('qemu-img', 'info', path), /name: backup/);
      const check = tool('qemu-img', 'check', '-r', 'leaks', path);
      assert.equal(check.code, 0, check.out);
    }),
);

test(
  'images of qemu-img with zero clusters, metadata preallocation and 1-bit refcounts are read and written',
  {
    skip: withoutTool('qemu-io'),
  },
  () =>
    inFolder(async (folder) => {
      const path = join(folder, 'd.qcow2');
      for (const options of [
        'preallocation=metadata',
        'refcount_bits=1,cluster_size=512',
        'compat=0.10,preallocation=metadata',
      ]) {
        mustRun('qemu-img', 'create', '-f', 'qcow2', '-o', options, path, '2M');
        mustRun('qemu-io', '-c', 'write -P 3 64k 300k', '-c', 'write -z 100k 90k', '-c', 'discard 256k 64k', path);
        copyFileSync(path, `${path}.theirs`);
        const { qcow2 } = await openDisk(host, path);
        await qcow2!.write(90_000, new Uint8Array(50_000).fill(4));
        await qcow2!.write(1_000_000, new Uint8Array(100_000).fill(5));
        await qcow2!.close();
        mustRun('qemu-img', 'check', path);
        mustRun('qemu-io', '-c', 'write -P 4 90000 50000', '-c', 'write -P 5 1000000 100000', `${path}.theirs`);
        assert.match(mustRun('qemu-img', 'compare', path, `${path}.theirs`), /identical/, options);
      }
    }),
);

test('names of backing files are relative to the image that holds them, and chains that loop are refused', () =>
  inFolder(async (folder) => {
    const at = (name: string): string => join(folder, name);
    const make = async (name: string, backing: string, format: string): Promise<void> => {
      const file = await openFile(at(name), { readOnly: false, create: true });
      await createQcow2(file, { size: MiB, backing, backingFormat: format });
      await file.close();
    };
    writeFileSync(at('base.raw'), new Uint8Array(MiB).fill(7));
    await make('middle', './base.raw', 'raw');
    await make('top', 'file:middle', 'qcow2');
    const { qcow2 } = await openDisk(host, at('top'));
    assert.deepEqual(await read(qcow2!, MiB - 1, 1), new Uint8Array([7]));
    await qcow2!.close();
    await make('middle', 'top', 'qcow2');
    await assert.rejects(openDisk(host, at('top'), { readOnly: true }), /it is its own backing file/);
    await make('middle', 'middle', 'qcow2');
    await assert.rejects(openDisk(host, at('middle'), { readOnly: true }), /it is its own backing file/);
    for (const [name, format, error] of [
      ['nbd://host/export', 'raw', /accepted are names of local files/],
      ['json:{}', 'raw', /accepted are names of local files/],
      ['missing', 'raw', /there is no such file/],
      ['base.raw', 'vmdk', /Cannot use format vmdk/],
    ] as const) {
      await make('bad', name, format);
      await assert.rejects(openDisk(host, at('bad')), error);
    }
    writeFileSync(at('foreign'), 'KDMV');
    await assert.rejects(openDisk(host, at('foreign')), /its format is vmdk, accepted are raw, qcow2/);
  }));

test('a write that the storage refuses changes nothing and can be tried again', async () => {
  const inner = new MemoryFile('disk');
  await createQcow2(inner, { size: MiB, clusterSize: 4096 });
  let full = false;
  const image = await Qcow2Image.open(
    new Proxy(inner, {
      get(target, name) {
        if (name === 'write' && full) return () => Promise.reject(new Error('no space is left'));
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    }),
    { codec },
  );
  await image.write(0, new Uint8Array(4096).fill(1));
  full = true;
  await assert.rejects(image.write(8192, new Uint8Array(20_000).fill(2)), /no space is left/);
  await assert.rejects(image.flush(), /no space is left/);
  assert.deepEqual(await read(image, 0, 1), new Uint8Array([1]));
  full = false;
  await image.write(8192, new Uint8Array(20_000).fill(2));
  await image.close();
  const again = await Qcow2Image.open(inner, { codec });
  assert.deepEqual([...(await read(again, 4095, 1)), ...(await read(again, 8192, 1))], [1, 2]);
  const { corruptions, leaks } = await again.check(undefined);
  assert.deepEqual({ corruptions, leaks }, { corruptions: 0, leaks: 0 });
});

test('pieces of a request are read and written as if they were one, over data, zeros, backing file and new clusters', () =>
  inFolder(async (folder) => {
    const size = MiB;
    const random = seeded(3);
    const expected = Uint8Array.from({ length: size }, () => random(256));
    const path = join(folder, 'disk');
    writeFileSync(path, '');
    const file = await openFile(path, { readOnly: false });
    await createQcow2(file, { size, clusterSize: 4096 });
    const base = new MemoryFile('base');
    await base.write(0, expected);
    const image = await Qcow2Image.open(file, { codec, backing: await RawImage.open(base) });
    for (let n = 0; n < 400; n++) {
      const lengths = Array.from({ length: 1 + random(6) }, () => 512 * (1 + random(24)));
      const length = lengths.reduce((a, b) => a + b, 0);
      const offset = 512 * random((size - length) / 512);
      const pieces = lengths.map((l) => new Uint8Array(l));
      if (n % 10 === 0) {
        await image.writeZeroes(offset, length);
        expected.fill(0, offset, offset + length);
      } else if (n % 3 === 0) {
        for (const piece of pieces) piece.forEach((_, i) => void (piece[i] = random(256)));
        await image.writePieces(offset, pieces);
        expected.set(Buffer.concat(pieces), offset);
      } else {
        await image.readPieces(offset, pieces);
        assert.ok(Buffer.concat(pieces).equals(expected.subarray(offset, offset + length)), `request ${n} at ${offset}`);
      }
    }
    await assert.rejects(async () => image.readPieces(size - 512, [new Uint8Array(512), new Uint8Array(512)]), /Cannot read/);
    const { corruptions, leaks } = await image.check(undefined);
    assert.deepEqual({ corruptions, leaks }, { corruptions: 0, leaks: 0 });
    await image.close();
  }));
