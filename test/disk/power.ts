// A power cut under a disk: random writes, discards and flushes, a cut at any moment, and what must be found then. For tests.

import assert from 'node:assert/strict';
import { seeded } from '../../src/bits/testing.ts';
import type { BlockDevice } from '../../src/disk/block.ts';
import { MemoryFile } from '../../src/disk/memory-file.ts';
import { createQcow2 } from '../../src/disk/qcow2/create.ts';
import { DIRTY } from '../../src/disk/qcow2/header.ts';
import { Qcow2Image, readHeader } from '../../src/disk/qcow2/image.ts';
import { RawImage } from '../../src/disk/raw.ts';
import { nodeCodec as codec } from '../../src/host/node/file-codec.ts';
import { LosingFile } from './losing-file.ts';

const SECTOR = 512;
const SECTORS = 2048;

/** What each sector may hold: a stamp, 0 for zeros, -1 for anything (a discard). */
class Expected {
  /** On the medium for sure, and what may have come since. */
  readonly #sure = new Int32Array(SECTORS);
  readonly #since = new Map<number, Set<number>>();

  put(first: number, count: number, stamp: number): void {
    for (let n = first; n < first + count; n++) {
      const set = this.#since.get(n) ?? new Set();
      // The last one is the last in the set.
      set.delete(stamp);
      this.#since.set(n, set.add(stamp));
    }
  }
  /** All that was put before is kept: the last stamp of each. Gives what is to be called when the flush is done. */
  flush(): () => void {
    const last = [...this.#since].map(([n, set]) => [n, [...set]] as const);
    return () => {
      for (const [n, stamps] of last) {
        this.#sure[n] = stamps.at(-1)!;
        const set = this.#since.get(n)!;
        for (const stamp of stamps) set.delete(stamp);
        if (set.size === 0) this.#since.delete(n);
      }
    };
  }
  allows(n: number, found: number): boolean {
    const allowed = [this.#sure[n]!, ...(this.#since.get(n) ?? [])];
    return allowed.includes(found) || allowed.includes(-1);
  }
  text(n: number): string {
    return `${this.#sure[n]} for sure, then ${[...(this.#since.get(n) ?? [])].join(' ')}`;
  }
}

/** A sector that says which write it is of. */
const stamped = (stamp: number, count: number): Uint8Array => {
  const words = new Int32Array((count * SECTOR) / 4);
  for (let n = 0; n < count; n++) words.fill(stamp, (n * SECTOR) / 4, ((n + 1) * SECTOR) / 4);
  return new Uint8Array(words.buffer);
};

export interface PowerCase {
  readonly format: 'raw' | 'qcow2';
  readonly clusterSize: number;
  readonly lazyRefcounts: boolean;
  readonly snapshot: boolean;
}

async function make(c: PowerCase): Promise<MemoryFile> {
  const file = new MemoryFile('start');
  if (c.format === 'raw') await file.truncate(SECTORS * SECTOR);
  else {
    await createQcow2(file, { size: SECTORS * SECTOR, clusterSize: c.clusterSize, lazyRefcounts: c.lazyRefcounts });
    const image = await Qcow2Image.open(file, { codec });
    if (c.snapshot) await image.createSnapshot({ name: 's', seconds: 0, nanoseconds: 0 });
    await image.close();
  }
  return file;
}
const open = (c: PowerCase, file: LosingFile | MemoryFile): Promise<BlockDevice> =>
  c.format === 'raw' ? RawImage.open(file) : Qcow2Image.open(file, { codec });

/** One cut. `save` gets the image as it was found, before it is looked at. @throws AssertionError with the seed */
export async function cutPower(seed: number, save?: (file: MemoryFile, c: PowerCase) => Promise<void>): Promise<void> {
  const random = seeded(seed);
  const c: PowerCase = {
    format: random(5) === 0 ? 'raw' : 'qcow2',
    clusterSize: 512 << random(8),
    lazyRefcounts: random(3) === 0,
    snapshot: random(3) === 0,
  };
  const start = await make(c);
  const lives = random(4) === 0 ? Number.POSITIVE_INFINITY : random(random(2) === 0 ? 30 : 300);
  const file = new LosingFile(await LosingFile.copy(start), await LosingFile.copy(start), lives);
  const device = await open(c, file);
  const expected = new Expected();
  const steps = 1 + random(60);
  for (let step = 1; step <= steps && !file.dead; step++) {
    // Requests at the same time are of different places, as those of a careful guest.
    const together = 1 + random(4);
    const area = Math.floor(SECTORS / together);
    const work: Promise<unknown>[] = [];
    for (let n = 0; n < together; n++) {
      const first = n * area + random(area - 1);
      const count = 1 + random(Math.min(random(3) === 0 ? 300 : 12, (n + 1) * area - first));
      const kind = random(10);
      if (kind < 7) {
        expected.put(first, count, step);
        work.push(device.write(first * SECTOR, stamped(step, count)));
      } else if (kind === 7) {
        expected.put(first, count, 0);
        work.push(device.writeZeroes(first * SECTOR, count * SECTOR));
      } else if (kind === 8) {
        expected.put(first, count, -1);
        work.push(device.discard(first * SECTOR, count * SECTOR));
      }
    }
    const last = step === steps && random(2) === 0;
    const over = Promise.allSettled(work);
    // The power goes under the last requests, or under any.
    if (last) break;
    const failed = (await over).find((w) => w.status === 'rejected');
    assert.ok(failed === undefined || file.dead, String(failed?.reason));
    if (random(4) !== 0) continue;
    const kept = expected.flush();
    await device.flush().then(kept, (error: unknown) => assert.ok(file.dead, String(error)));
  }
  const found = await file.cut(random);
  const context = `seed ${seed}, ${JSON.stringify(c)}`;
  await save?.(await LosingFile.copy(found), c);
  if (c.format === 'qcow2') {
    const checked = await Qcow2Image.open(found, { codec, forCheck: true });
    const { corruptions, lines } = await checked.check(undefined);
    const dirty = ((await readHeader(found)).incompatible & DIRTY) !== 0n;
    assert.ok(corruptions === 0 || (c.lazyRefcounts && dirty), `${context}: ${corruptions} errors\n${lines.join('\n')}`);
    await checked.close();
  }
  const again = await open(c, found);
  const sector = new Uint8Array(SECTOR);
  const words = new Int32Array(sector.buffer);
  for (let n = 0; n < SECTORS; n++) {
    await again.read(n * SECTOR, sector);
    const [first] = words;
    assert.ok(
      words.every((w) => w === first) && expected.allows(n, first!),
      `${context}: sector ${n} holds ${first}; accepted are ${expected.text(n)}`,
    );
  }
  await again.close();
}
