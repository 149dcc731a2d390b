import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { assertFlat, soak, stressGuest } from './stress.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-stress-'));
after(() => rmSync(folder, { recursive: true }));
const guest = await stressGuest(folder);

test("a minute of stress-ng on two vCPUs: no error, the clock keeps the host's time", {
  skip: typeof guest === 'string' && guest,
  timeout: 590_000,
}, async (t) => {
  if (typeof guest === 'string') return;
  const { drift, resident } = await soak(guest.initrd, folder, 60);
  t.diagnostic(
    `drift ${drift.atLeast.toFixed(1)} to ${drift.atMost.toFixed(1)} ms a minute, MiB: ${resident.map(Math.round).join(' ')}`,
  );
});

test('memory that grows is told from memory that is flat', () => {
  assertFlat([300, 500, 520, 530, 525, 531], '');
  assert.throws(() => assertFlat([300, 400, 500, 600, 700, 800], ''), /grew/);
});
