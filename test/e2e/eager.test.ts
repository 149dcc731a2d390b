// The kernel's first part of a boot with every block through the region tier at its first execution (`-accel dbt,threshold=0`). A whole boot takes four to
// eight minutes that way: `node test/e2e/eager.test.ts --whole` goes on to the shell and runs programs there.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { EmulatorProcess } from './emulator.ts';
import { missing } from './program.ts';

const WHOLE = process.argv.includes('--whole');
const MINUTE = 60_000;
const skip = await missing('debian-cloud');

test('Linux starts with every block translated at once', { skip, timeout: (WHOLE ? 60 : 5) * MINUTE }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-eager-'));
  const start = performance.now();
  const loud = ['-append', 'console=ttyS0 earlyprintk=ttyS0 panic=-1 mitigations=off', '-no-reboot'];
  const e = await EmulatorProcess.linux(folder, 'eager', ['-accel', 'dbt,threshold=0', ...loud]);
  const limit = (WHOLE ? 50 : 4) * MINUTE;
  const until = (what: string, line: RegExp): Promise<true> =>
    e.until(what, () => (line.test(e.console) ? true : undefined), limit);
  /** Most of what has run was in regions. */
  const look = async (least: number): Promise<void> => {
    const jit = await e.hmp('info jit');
    const count = (name: string): number => Number(new RegExp(`(\\d+) ${name}`).exec(jit)?.[1] ?? Number.NaN);
    t.diagnostic(`${count('regions made')} regions, ${count('instructions retired')} instructions`);
    assert.ok(count('regions made') > least, jit);
    assert.ok(count('of these in translated regions') > 0.9 * count('instructions retired'), jit);
  };
  try {
    await until('the list of zones', /Zone ranges:[\s\S]*Early memory node ranges/);
    await look(500);
    if (!WHOLE) return;
    await until('a shell', /nonroot:.*# /);
    t.diagnostic(`a shell after ${((performance.now() - start) / 1000).toFixed(0)} s`);
    const said = await e.command('uname -m; seq 200 | sort -rn | head -1; sha256sum /bin/busybox | wc -c', limit);
    assert.match(said, /x86_64\s+200\s+\d+/, said);
    await look(50_000);
  } finally {
    await e.quit();
    rmSync(folder, { recursive: true });
  }
});
