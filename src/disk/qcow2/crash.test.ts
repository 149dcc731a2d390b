// Writing that stops anywhere leaves an image that is at most leaky, with all that was flushed; each state is judged by qemu-img.

import assert from 'node:assert/strict';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeDiskHost, openFile } from '../../host/node/file.ts';
import { dyingFile, inFolder, mustRun, tool, withoutTool } from '../../host/node/file-testing.ts';
import { openDisk } from '../open.ts';
import { type CreateOptions, createQcow2 } from './create.ts';
import { DIRTY } from './header.ts';
import { Qcow2Image, readHeader } from './image.ts';

const { codec } = nodeDiskHost();
const SIZE = 512 * 1024;
const OLD = 0x11;
const NEW = 0x22;

type Action = (image: Qcow2Image) => Promise<void>;
const pattern = (value: number, length: number): Uint8Array => new Uint8Array(length).fill(value);

interface Crash {
  readonly name: string;
  readonly options: Partial<CreateOptions>;
  readonly before?: Action;
  readonly action: Action;
  /** Snapshots change counts and flags of many clusters: those images may be marked dirty, and are repaired when opened. */
  readonly mayBeDirty?: boolean;
}

const fill: Action = async (image) => {
  await image.write(0, pattern(OLD, 60_000));
  await image.write(300_000, pattern(OLD, 9000));
};

const crashes: readonly Crash[] = [
  { name: 'allocating writes', options: {}, action: (image) => image.write(1000, pattern(NEW, 200_000)) },
  {
    name: 'growing refcount tables',
    options: { clusterSize: 512, refcountBits: 64 },
    action: async (image) => {
      await image.write(0, pattern(NEW, 150_000));
      await image.flush();
      await image.write(150_000, pattern(NEW, 150_000));
    },
  },
  {
    name: 'discards and rewrites of what they freed',
    options: { clusterSize: 512 },
    before: fill,
    action: async (image) => {
      await image.discard(0, 30_000);
      await image.flush();
      await image.writeZeroes(30_000, 20_000);
      await image.write(100_000, pattern(NEW, 60_000));
      await image.flush();
      await image.write(0, pattern(NEW, 40_000));
    },
  },
  {
    name: 'compressed clusters that are written and overwritten',
    options: { clusterSize: 4096 },
    before: fill,
    action: async (image) => {
      for (let i = 0; i < 12; i++) await image.writeCompressed(i * 8192, pattern(NEW, 4096));
      await image.flush();
      for (let i = 0; i < 12; i++) await image.write(i * 8192, pattern(NEW, 4096));
    },
  },
  {
    name: 'copies of clusters that a snapshot keeps',
    options: { clusterSize: 1024 },
    before: async (image) => {
      await fill(image);
      await image.createSnapshot({ name: 's', seconds: 0, nanoseconds: 0 });
    },
    action: (image) => image.write(500, pattern(NEW, 50_000)),
  },
  { name: 'resizing up', options: { clusterSize: 512 }, before: fill, action: (image) => image.resize(SIZE * 8) },
  { name: 'resizing down', options: { clusterSize: 512 }, before: fill, action: (image) => image.resize(20_000) },
  {
    name: 'a snapshot that is taken',
    options: { clusterSize: 1024 },
    before: fill,
    action: async (image) => void (await image.createSnapshot({ name: 's', seconds: 0, nanoseconds: 0 })),
    mayBeDirty: true,
  },
  {
    name: 'a snapshot that is applied and deleted',
    options: { clusterSize: 1024 },
    before: async (image) => {
      await fill(image);
      await image.createSnapshot({ name: 's', seconds: 0, nanoseconds: 0 });
      await image.write(0, pattern(NEW, 20_000));
    },
    action: async (image) => {
      await image.applySnapshot('s');
      await image.deleteSnapshot('s');
    },
    mayBeDirty: true,
  },
  {
    name: 'writes with lazy refcounts',
    options: { lazyRefcounts: true, clusterSize: 1024 },
    before: fill,
    action: (image) => image.write(1000, pattern(NEW, 100_000)),
    mayBeDirty: true,
  },
];

for (const crash of crashes) {
  test(`${crash.name}: cut at any write, the image is at most leaky`, { skip: withoutTool('qemu-img') }, () =>
    inFolder(async (folder) => {
      const start = join(folder, 'start.qcow2');
      const file = await openFile(start, { readOnly: false, create: true, sync: false });
      await createQcow2(file, { size: SIZE, ...crash.options });
      const image = await Qcow2Image.open(file, { codec });
      await crash.before?.(image);
      await image.close();
      // All cuts of short actions, about 40 of long ones.
      const total = await cutAfter(folder, start, crash, Infinity);
      assert.ok(total > 2, `the action makes ${total} writes`);
      const step = Math.max(1, Math.floor(total / 40));
      for (let n = 0; n < total; n += step) {
        await cutAfter(folder, start, crash, n);
        await judge(join(folder, 'cut.qcow2'), crash, n);
      }
    }),
  );
}

/** Runs the action on a copy, with `writes` writes; how many there were. */
async function cutAfter(folder: string, start: string, crash: Crash, writes: number): Promise<number> {
  const path = join(folder, 'cut.qcow2');
  copyFileSync(start, path);
  const file = await openFile(path, { readOnly: false, sync: false });
  const dying = dyingFile(file, writes);
  try {
    const image = await Qcow2Image.open(dying, { codec });
    await crash.action(image);
    await image.close();
  } catch (error) {
    assert.match(String(error), /the power is off/);
    await file.close().catch(() => {});
  }
  return dying.done;
}

async function judge(path: string, crash: Crash, n: number): Promise<void> {
  const file = await openFile(path, { readOnly: true });
  const dirty = ((await readHeader(file)).incompatible & DIRTY) !== 0n;
  await file.close();
  let check = tool('qemu-img', 'check', '-f', 'qcow2', path);
  if (dirty) {
    assert.ok(crash.mayBeDirty, `cut after ${n}: the dirty bit is set`);
    const copy = `${path}.ours`;
    copyFileSync(path, copy);
    check = tool('qemu-img', 'check', '-f', 'qcow2', '-r', 'all', path);
    const { device } = await openDisk(nodeDiskHost(), copy, { format: 'qcow2', sync: false });
    await device.close();
    mustRun('qemu-img', 'check', '-f', 'qcow2', copy);
    assert.match(
      mustRun('qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', path, copy),
      /identical/,
      `cut after ${n}: repairs differ`,
    );
  }
  assert.ok(check.code === 0 || check.code === 3, `cut after ${n}: ${check.out}${check.err}`);
  await readable(path, n);
}

/** What no action touches is still there, and nothing but old, new and empty bytes is. */
async function readable(path: string, n: number): Promise<void> {
  const { device } = await openDisk(nodeDiskHost(), path, { format: 'qcow2', readOnly: true });
  const bytes = new Uint8Array(Math.min(device.size, SIZE));
  await device.read(0, bytes);
  assert.ok(
    bytes.every((v) => v === 0 || v === OLD || v === NEW),
    `cut after ${n}: strange bytes`,
  );
  await device.close();
}
