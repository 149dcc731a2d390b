// What one boot has translated is there for the next one: `info jit` says so, and the guest cannot tell.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { userCache } from '../../src/host/node/cache.ts';
import { hasLandlock } from '../../src/host/node/confine.ts';
import { nativeCode } from '../../src/host/node/native-code.ts';
import { EmulatorProcess } from './emulator.ts';
import { missing } from './program.ts';

const MINUTE = 60_000;
const root = join(import.meta.dirname, '../..');
const bundled = existsSync(join(root, 'dist/src/host/node/translator.json'));
const skip =
  (await missing('debian-cloud')) ||
  (nativeCode() === undefined && 'needs a Node whose binary interface is known, on Linux') ||
  (!bundled && 'needs the bundles (npm start, npm test)');
const folder = mkdtempSync(join(tmpdir(), 'nonroot-kept-'));
after(() => rmSync(folder, { recursive: true }));

/** Boots with a cache of its own, runs some programs and powers off; counts of `info jit`, by what they count. */
async function boot(name: string, accel = 'dbt', others: readonly string[] = []): Promise<(what: string) => number> {
  const before = process.env['XDG_CACHE_HOME'];
  const e = await (async () => {
    try {
      // The images are those of the user's cache, and code is this test's.
      const images = userCache().root;
      process.env['XDG_CACHE_HOME'] = folder;
      if (!existsSync(join(folder, 'nonroot'))) {
        mkdirSync(join(folder, 'nonroot'));
        for (const part of ['images', 'kernels'])
          if (existsSync(join(images, part))) symlinkSync(join(images, part), join(folder, 'nonroot', part));
      }
      return await EmulatorProcess.linux(folder, name, ['-accel', accel, '-no-reboot', ...others]);
    } finally {
      if (before === undefined) delete process.env['XDG_CACHE_HOME'];
      else process.env['XDG_CACHE_HOME'] = before;
    }
  })();
  try {
    await e.until('a shell', () => (/nonroot:\S+# /.test(e.console) ? true : undefined), 2 * MINUTE);
    const said = await e.command('i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done; echo $i; seq 3000 | sha256sum', MINUTE);
    assert.match(said, /40000\s+[0-9a-f]{64}/, said);
    const jit = await e.hmp('info jit');
    await e.qmp('quit');
    await e.ended;
    return (what) => Number(new RegExp(`(\\d+) ${what}`).exec(jit)?.[1] ?? Number.NaN);
  } finally {
    await e.quit();
  }
}
const files = (): string[] => {
  const place = join(folder, 'nonroot/regions');
  return existsSync(place) ? readdirSync(place) : [];
};
const KEPT = 'of these from earlier runs';

test('a second boot takes the regions of the first one', { skip, timeout: 10 * MINUTE }, async (t) => {
  const first = await boot('first');
  assert.equal(first(KEPT), 0);
  assert.equal(files().length, 1);
  const second = await boot('second');
  t.diagnostic(`${second(KEPT)} of ${second('regions made')} regions`);
  assert.ok(second(KEPT) > 30, `${second(KEPT)} kept`);
  assert.ok(second(KEPT) <= second('regions made'));

  const path = join(folder, 'nonroot/regions', files()[0]!);
  if (hasLandlock()) {
    const before = readFileSync(path);
    const confined = await boot('confined', 'dbt', ['-sandbox', 'on,spawn=deny,files=deny']);
    assert.ok(confined(KEPT) > 30, `${confined(KEPT)} taken by a process that is confined to its files`);
    assert.equal(Buffer.compare(readFileSync(path), before), 0, 'it has left something');
  }

  // A file that is damaged costs time only.
  const bytes = readFileSync(path);
  bytes.fill(0x5a, 1000, 2000);
  writeFileSync(path, bytes);
  const off = await boot('off', 'dbt,cache=off');
  assert.equal(off(KEPT), 0);
  assert.equal(Buffer.compare(readFileSync(path), bytes), 0, 'without a cache nothing is written');
  const third = await boot('third');
  assert.equal(third(KEPT), 0);
  assert.notEqual(Buffer.compare(readFileSync(path), bytes), 0, 'it was not written anew');
});
