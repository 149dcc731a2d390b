import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { BoundedFile } from './bounded-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'bounded-'));
after(() => rmSync(folder, { recursive: true }));
const text = (path: string): string => readFileSync(path, 'latin1');
const bytes = (value: string): Uint8Array => Buffer.from(value, 'latin1');
async function write(file: BoundedFile, ...pieces: string[]): Promise<void> {
  for (const piece of pieces) void file.write(bytes(piece));
  await file.written;
}

test('what does not fit goes to backups, the newest first, at the end of a line where there is one', async () => {
  const path = join(folder, 'lines');
  const file = await BoundedFile.open(path, false, { size: 20, backups: 2 });
  await write(file, 'one\ntwo\nthree\n', 'four\nfive\nsix\n', 'seven\neight\nnine\n');
  assert.deepEqual(
    [text(path), text(`${path}.0`), text(`${path}.1`)],
    ['eight\nnine\n', 'five\nsix\nseven\n', 'one\ntwo\nthree\nfour\n'],
  );
  await write(file, 'x'.repeat(45));
  assert.deepEqual(
    [text(path), text(`${path}.0`), text(`${path}.1`)],
    ['x'.repeat(16), 'x'.repeat(20), `eight\nnine\n${'x'.repeat(9)}`],
  );
  file.close();
  assert.deepEqual(readdirSync(folder).sort(), ['lines', 'lines.0', 'lines.1']);
});

test('without backups the file begins anew; a file that is appended to counts what it has', async () => {
  const path = join(folder, 'single');
  writeFileSync(path, 'a'.repeat(15));
  const file = await BoundedFile.open(path, true, { size: 20, backups: 0 });
  await write(file, 'b'.repeat(4));
  assert.equal(text(path), 'a'.repeat(15) + 'b'.repeat(4));
  await write(file, 'c'.repeat(6));
  assert.equal(text(path), 'c'.repeat(5));
  file.close();
  assert.equal(existsSync(`${path}.0`), false);
});

test('a guest that writes without end is asked for patience, and never has more than the files of the limit', async () => {
  const path = join(folder, 'flood');
  const limit = { size: 100_000, backups: 2 };
  const file = await BoundedFile.open(path, false, limit);
  let asked = 0;
  for (let n = 0; n < 40; n++) {
    const taken = file.write(Buffer.alloc(50_000, 0x61 + (n % 26)));
    if (taken) {
      asked++;
      await taken;
    }
    for (const one of [path, `${path}.0`, `${path}.1`])
      if (existsSync(one)) assert.ok(readFileSync(one).length <= limit.size, one);
  }
  assert.ok(asked > 10);
  file.close();
});

test('a backup that cannot be made is not there, and the bound holds', async () => {
  const path = join(folder, 'blocked');
  const file = await BoundedFile.open(path, false, { size: 10, backups: 1 });
  mkdirSync(`${path}.0`);
  await write(file, 'a'.repeat(25));
  assert.equal(text(path), 'a'.repeat(5));
  file.close();
});

test('what is no file has no limit', async () => {
  const file = await BoundedFile.open('/dev/null', false, { size: 10, backups: 1 });
  await write(file, 'a'.repeat(100));
  file.close();
  assert.equal(existsSync('/dev/null.0'), false);
});
