// An hour of stress-ng on two vCPUs: `node test/e2e/stress.long.ts [SECONDS]`.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { soak, stressGuest } from './stress.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-stress-'));
const guest = await stressGuest(folder);
if (typeof guest === 'string') {
  console.error(`Cannot run: ${guest}`);
  process.exit(1);
}
try {
  await soak(guest.initrd, folder, Number(process.argv[2] ?? 3600), console.log);
} finally {
  rmSync(folder, { recursive: true });
}
