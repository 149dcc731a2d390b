// What Debian packages hold, decompressed.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { decompressPackage } from './unxz.ts';

/** `hello` and a line feed, by xz. */
const HELLO = '/Td6WFoAAATm1rRGAgAhARYAAAB0L+WjAQAFaGVsbG8KAAAApWCX8ZT2/eAAAR4GwS+kHR+2830BAAAAAARZWg==';

test('xz is decompressed, and damage is told', async () => {
  assert.equal(Buffer.from(await decompressPackage('xz', Buffer.from(HELLO, 'base64'))).toString(), 'hello\n');
  await assert.rejects(async () => decompressPackage('xz', Buffer.from(HELLO, 'base64').fill(0x55, 24)), /Cannot decompress xz/);
});

test('a process that does nothing besides lives until it has the result', () => {
  const script = `
    import { decompressPackage } from ${JSON.stringify(join(import.meta.dirname, 'unxz.ts'))};
    void decompressPackage('xz', Buffer.from('${HELLO}', 'base64')).then((bytes) => process.stdout.write(bytes));`;
  // Where V8 compiles lazily there is next to nothing to wait for.
  const ran = spawnSync(process.execPath, ['--no-wasm-lazy-compilation', '--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  assert.equal(ran.stdout, 'hello\n', ran.stderr);
});
