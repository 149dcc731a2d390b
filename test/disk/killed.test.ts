// One guest that is killed while it writes; test/disk/killed.long.ts goes on.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { missing } from '../e2e/program.ts';
import { buildWriter, killGuest } from './killed.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-killed-'));
after(() => rmSync(folder, { recursive: true }));
const image = await missing('debian-amd64');
const built = image || (await buildWriter(folder));

test('what a guest has flushed survives its emulator, on every controller and in both formats', {
  skip: typeof built === 'string' ? built : false,
  timeout: 240_000,
}, async () => {
  if (typeof built === 'string') return;
  await killGuest(built.initrd, folder, 1);
});
