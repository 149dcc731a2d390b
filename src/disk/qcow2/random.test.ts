// Random operations on qcow2 images against an array of bytes; each result is judged by qemu-img.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeDiskHost, openFile } from '../../host/node/file.ts';
import { inFolder, mustRun, seeded, tool, withoutTool } from '../../host/node/file-testing.ts';
import { openDisk } from '../open.ts';
import { type CreateOptions, createQcow2 } from './create.ts';
import type { Qcow2Image } from './image.ts';

const host = nodeDiskHost();
const KiB = 1024;

interface Case {
  readonly name: string;
  readonly options: CreateOptions;
  readonly backing?: 'raw' | 'qcow2';
  readonly seed: number;
  readonly operations: number;
}

const cases: readonly Case[] = [
  { name: 'the default', options: { size: 20_000 * KiB + 512 }, seed: 1, operations: 120 },
  { name: 'version 2', options: { size: 3000 * KiB, version: 2, clusterSize: 4096 }, seed: 2, operations: 150 },
  { name: 'clusters of 512 bytes', options: { size: 700 * KiB, clusterSize: 512 }, seed: 3, operations: 150 },
  { name: 'refcounts of 1 bit', options: { size: 900 * KiB, clusterSize: 1024, refcountBits: 1 }, seed: 4, operations: 150 },
  { name: 'refcounts of 2 bits', options: { size: 900 * KiB, clusterSize: 1024, refcountBits: 2 }, seed: 5, operations: 150 },
  { name: 'refcounts of 4 bits', options: { size: 900 * KiB, clusterSize: 512, refcountBits: 4 }, seed: 6, operations: 150 },
  { name: 'refcounts of 8 bits', options: { size: 900 * KiB, clusterSize: 512, refcountBits: 8 }, seed: 7, operations: 150 },
  { name: 'refcounts of 32 bits', options: { size: 900 * KiB, clusterSize: 512, refcountBits: 32 }, seed: 8, operations: 150 },
  { name: 'refcounts of 64 bits', options: { size: 1800 * KiB, clusterSize: 512, refcountBits: 64 }, seed: 9, operations: 200 },
  { name: 'clusters of 2 MiB', options: { size: 9_000 * KiB, clusterSize: 2048 * KiB }, seed: 10, operations: 20 },
  { name: 'lazy refcounts', options: { size: 2000 * KiB, clusterSize: 4096, lazyRefcounts: true }, seed: 11, operations: 150 },
  { name: 'zstd', options: { size: 2000 * KiB, clusterSize: 8192, compression: 'zstd' }, seed: 12, operations: 150 },
  { name: 'a raw backing file', options: { size: 1900 * KiB, clusterSize: 4096 }, backing: 'raw', seed: 13, operations: 150 },
  { name: 'a qcow2 backing file', options: { size: 1900 * KiB, clusterSize: 8192 }, backing: 'qcow2', seed: 14, operations: 150 },
  {
    name: 'version 2 with a backing file',
    options: { size: 1900 * KiB, clusterSize: 4096, version: 2 },
    backing: 'qcow2',
    seed: 15,
    operations: 150,
  },
];

for (const c of cases) {
  test(
    `random operations on an image with ${c.name} leave what qemu-img calls clean and equal`,
    {
      skip: withoutTool('qemu-img'),
    },
    () => inFolder((folder) => run(folder, c)),
  );
}

async function run(folder: string, c: Case): Promise<void> {
  const path = join(folder, 'disk.qcow2');
  const random = seeded(c.seed);
  let model = new Uint8Array(c.options.size);
  let options = c.options;
  if (c.backing) {
    // Shorter than the disk, and not a multiple of a cluster.
    const below = noise(random, 1300 * KiB + 512);
    writeFileSync(join(folder, 'base.raw'), below);
    if (c.backing === 'qcow2')
      mustRun('qemu-img', 'convert', '-c', '-O', 'qcow2', '-f', 'raw', join(folder, 'base.raw'), join(folder, 'base.qcow2'));
    options = { ...options, backing: `base.${c.backing}`, backingFormat: c.backing };
    model.set(below);
  }
  const file = await openFile(path, { readOnly: false, create: true, sync: false });
  await createQcow2(file, options);
  await file.close();
  const open = async (): Promise<Qcow2Image> => (await openDisk(host, path, { format: 'qcow2', sync: false })).qcow2!;
  let image = await open();
  const cluster = image.info.clusterSize;
  const saved: { id: string; model: Uint8Array }[] = [];
  for (let i = 0; i < c.operations; i++) {
    const offset = random(model.length);
    const length = Math.min(model.length - offset, 1 + random(random(4) === 0 ? 40 * cluster : 3 * cluster));
    switch (random(20)) {
      case 0:
      case 1:
        await image.writeZeroes(offset, length);
        model.fill(0, offset, offset + length);
        break;
      case 2:
      case 3: {
        await image.discard(offset, length);
        const now = new Uint8Array(length);
        await image.read(offset, now);
        now.forEach((v, j) => {
          assert.ok(v === 0 || v === model[offset + j], `seed ${c.seed}: discard left other bytes`);
        });
        model.set(now, offset);
        break;
      }
      case 4:
      case 5:
      case 6: {
        const at = offset - (offset % cluster);
        const bytes = new Uint8Array(Math.min(cluster, model.length - at)).fill(random(256), random(cluster));
        bytes[0] = random(256);
        await image.writeCompressed(at, bytes);
        model.set(bytes, at);
        break;
      }
      case 7:
        await image.flush();
        break;
      case 8:
        await image.close();
        image = await open();
        break;
      case 9:
        if (saved.length < 3 && image.info.refcountBits > 2) {
          const taken = image.createSnapshot({ name: `s${i}`, seconds: i, nanoseconds: 0 });
          // Clusters that many compressed ones share reach the limit of small counts: refused, and nothing has changed.
          if (image.info.refcountBits <= 4)
            taken.catch((error) => assert.match(String(error), /the most that its refcounts hold/));
          const { id } = await taken.catch(() => ({ id: undefined }));
          assert.ok(id !== undefined || image.info.refcountBits <= 4, `seed ${c.seed}: no snapshot`);
          if (id !== undefined) saved.push({ id, model: model.slice() });
        }
        break;
      case 10: {
        const s = saved[random(3)];
        if (s) {
          await image.applySnapshot(s.id);
          model = s.model.slice();
        }
        break;
      }
      case 11: {
        const [s] = saved.splice(random(3), 1);
        if (s) await image.deleteSnapshot(s.id);
        break;
      }
      default: {
        const bytes = noise(random, length);
        await image.write(offset, bytes);
        model.set(bytes, offset);
      }
    }
    const at = random(model.length);
    const got = new Uint8Array(Math.min(model.length - at, 2 * cluster));
    await image.read(at, got);
    assert.deepEqual(
      Buffer.compare(got, model.subarray(at, at + got.length)),
      0,
      `seed ${c.seed}, operation ${i}: other bytes at ${at}`,
    );
    if (i % 50 === 49) {
      await image.close();
      judge(folder, path, model, `seed ${c.seed}, operation ${i}`);
      image = await open();
    }
  }
  for (const s of saved) {
    await image.applySnapshot(s.id);
    await image.close();
    judge(folder, path, s.model, `seed ${c.seed}, snapshot ${s.id}`);
    image = await open();
  }
  await image.close();
}

/** Bytes that do not compress to nothing and differ from call to call. */
function noise(random: (below: number) => number, length: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  let x = random(0xffff_ffff);
  for (let i = 0; i < words.length; i++) words[i] = x = Math.imul(x, 1664525) + 1013904223;
  return new Uint8Array(words.buffer, 0, length);
}

function judge(folder: string, path: string, model: Uint8Array, when: string): void {
  const check = tool('qemu-img', 'check', '-f', 'qcow2', path);
  assert.equal(check.code, 0, `${when}: ${check.out}${check.err}`);
  assert.doesNotMatch(check.out, /[Ll]eaked/, when);
  const raw = join(folder, 'model.raw');
  writeFileSync(raw, model);
  const compare = tool('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', path, raw);
  assert.equal(compare.code, 0, `${when}: ${compare.out}${compare.err}`);
  assert.doesNotMatch(compare.out, /size mismatch/, when);
}
