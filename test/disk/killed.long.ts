// Guests that are killed while they write, one after another: `node test/disk/killed.long.ts [GUESTS] [FIRST SEED]`.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildWriter, killGuest } from './killed.ts';

const guests = Number(process.argv[2] ?? 20);
const first = Number(process.argv[3] ?? 1);
const folder = mkdtempSync(join(tmpdir(), 'nonroot-killed-'));
const built = await buildWriter(folder);
if (typeof built === 'string') {
  console.error(`Cannot run: ${built}`);
  process.exit(1);
}
let failed = 0;
for (let seed = first; seed < first + guests; seed++)
  try {
    const { flushes, leaks } = await killGuest(built.initrd, folder, seed);
    console.log(`seed ${seed}: steps flushed ${JSON.stringify(flushes)}, images with leaked clusters: ${leaks}`);
  } catch (error) {
    failed++;
    console.log(error instanceof Error ? error.message : error);
  }
console.log(`${guests} guests, ${failed} failures`);
rmSync(folder, { recursive: true });
process.exitCode = failed > 0 ? 1 : 0;
