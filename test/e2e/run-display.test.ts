// `nonroot run --display web` in a real Chromium: the guest's text mode is seen, and what is typed on the page reaches its shell.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Chromium, noChromium } from './chromium.ts';
import { missing, programPath } from './program.ts';

/** Pictures go here when it is set, for people to look at. */
const pictures = process.env['NONROOT_TEST_PICTURES'];
const LIMIT = 120;
const skip = noChromium || (await missing('debian-cloud'));
/** Bright pixels of the picture, none while there is none. */
const bright = `(() => {
  const canvas = document.querySelector('.display canvas');
  if (!canvas || canvas.width < 640) return 0;
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i] > 100 && data[i + 1] > 100) n++;
  return n;
})()`;

test('a guest is seen and typed to on a page', { skip, timeout: LIMIT * 1000 }, async () => {
  const guest = spawn(programPath('nonroot'), ['run', '--display', 'web', '--timeout', String(LIMIT - 10)], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let said = '';
  const ended = new Promise<number | null>((resolve) => guest.once('exit', resolve));
  for (const stream of [guest.stdout, guest.stderr]) stream.on('data', (bytes: Buffer) => (said += bytes));
  const until = async <T>(what: string, look: () => Promise<T> | T, good: (value: T) => boolean): Promise<T> => {
    for (let left = LIMIT * 2; ; left--) {
      const value = await look();
      if (good(value)) return value;
      assert.ok(left > 0 && guest.exitCode === null, `${what} did not come; the guest said: ${said}`);
      await sleep(500);
    }
  };
  let page: Chromium | undefined;
  const type = async (text: string): Promise<void> => {
    for (const c of text) await page!.key(c);
  };
  try {
    const [, url] = await until(
      'the address',
      () => /the display is at (http\S+)/.exec(said) ?? [],
      (found) => found.length > 0,
    );
    page = await Chromium.start();
    await page.open(url!);
    await until(
      'the shell',
      () => said.includes('nonroot:/root#'),
      (there) => there,
    );
    const before = (await until(
      'a picture with text',
      () => page!.value(bright) as Promise<number>,
      (n) => n > 100,
    )) as number;
    await page.value("document.querySelector('.display canvas').focus()");
    // Letters that only the shell on the display can have echoed.
    await type('echo wwwwwwwwwwwwwwwwwwwwwwwwwwwwww');
    await until(
      'the echo',
      () => page!.value(bright) as Promise<number>,
      (n) => n > before + 300,
    );
    if (pictures !== undefined) writeFileSync(join(pictures, 'run-display.png'), await page.picture());
    await page.key('Enter');
    await type('poweroff');
    await page.key('Enter');
    assert.equal(await ended, 0, said);
    assert.deepEqual(page.complaints, []);
  } finally {
    guest.kill('SIGKILL');
    await page?.close();
  }
});
