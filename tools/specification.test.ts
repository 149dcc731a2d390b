// Holds SPECIFICATION.md: each test that it names exists.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

test('every test that the specification names exists', () => {
  const text = readFileSync(join(root, 'SPECIFICATION.md'), 'utf8');
  const named = [...text.matchAll(/`([\w./-]+\.test\.ts)`: "([^"]+)"/g)];
  assert.ok(named.length > 10);
  const missing = named.filter(([, file, name]) => {
    const path = join(root, file);
    return !existsSync(path) || !readFileSync(path, 'utf8').includes(name);
  });
  assert.deepEqual(
    missing.map(([all]) => all),
    [],
  );
});
