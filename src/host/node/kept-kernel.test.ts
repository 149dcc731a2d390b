import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { keptKernel } from './kept-kernel.ts';

test('a kernel is decompressed once, whatever else was kept in its place, and a broken cache does no harm', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'nonroot-kernels-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  let made = 0;
  const get = (n: number): Uint8Array | undefined => {
    const file = keptKernel(Uint8Array.of(n), () => Uint8Array.of(n, n, n).fill(++made > 0 ? n : 0), { root });
    const bytes = file?.bytes(0, file.length);
    file?.close?.();
    return bytes;
  };
  assert.deepEqual([...get(1)!], [1, 1, 1]);
  assert.deepEqual([...get(1)!], [1, 1, 1]);
  assert.equal(made, 1);
  for (let n = 2; n < 12; n++) assert.deepEqual([...get(n)!], [n, n, n]);
  assert.ok(readdirSync(join(root, 'kernels')).length <= 4);
  for (const name of readdirSync(join(root, 'kernels'))) writeFileSync(join(root, 'kernels', name), 'cut');
  assert.deepEqual([...get(11)!], [11, 11, 11]);
  assert.equal(
    keptKernel(Uint8Array.of(1), () => undefined, { root }),
    undefined,
  );
});
