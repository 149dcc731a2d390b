import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCodec } from '../host/node/file-codec.ts';
import { MemoryBudget, MemoryFile } from './memory-file.ts';
import { openOverlay } from './overlay.ts';
import type { Qcow2Image } from './qcow2/image.ts';
import { RawImage } from './raw.ts';

const MIB = 1 << 20;

async function overlay(budget: MemoryBudget): Promise<Qcow2Image> {
  const base = new MemoryFile('base');
  await base.truncate(64 * MIB);
  return openOverlay(await RawImage.open(base), nodeCodec, budget);
}
/** Writes MiB after MiB until there is no space; how many were written. */
async function fill(disk: Qcow2Image, byte: number): Promise<number> {
  for (let n = 0; ; n++) {
    const failed = await disk.write(n * MIB, new Uint8Array(MIB).fill(byte)).then(
      () => undefined,
      (error: Error) => error,
    );
    if (!failed) continue;
    assert.match(failed.message, /no space is left/);
    return n;
  }
}

test('temporary disks take no more memory than they may together, keep what was written, and give it back', async () => {
  const budget = new MemoryBudget(16 * MIB);
  const [first, second] = [await overlay(budget), await overlay(budget)];
  await second.write(0, new Uint8Array(4 * MIB).fill(2));
  const written = await fill(first, 1);
  assert.ok(written >= 9 && written <= 12, `${written} MiB`);
  const found = new Uint8Array(written * MIB);
  await first.read(0, found);
  assert.ok(found.every((b) => b === 1));
  await assert.rejects(second.write(8 * MIB, new Uint8Array(4 * MIB)), /no space is left/);
  await first.discard(0, 4 * MIB);
  await first.flush();
  await second.write(8 * MIB, new Uint8Array(2 * MIB).fill(3));
  await first.close();
  const more = await fill(second, 4);
  assert.ok(more >= 14, `${more} MiB once the other is closed`);
  await second.close();
  budget.check(16 * MIB);
});
