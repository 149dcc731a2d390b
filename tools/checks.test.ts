// The static checks: types under each of the three configurations, formatting and lint.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

function passes(tool: string, ...args: string[]): void {
  const { status, stdout, stderr, error } = spawnSync(join(root, 'node_modules', '.bin', tool), args, {
    cwd: root,
    encoding: 'utf8',
  });
  assert.equal(status, 0, `${tool} ${args.join(' ')}: ${error?.message ?? ''}\n${stdout}${stderr}`);
}

test('the core compiles without DOM and Node types', () => passes('tsc', '-p', 'tsconfig.core.json'));
test('everything that runs on Node compiles', () => passes('tsc', '-p', 'tsconfig.node.json'));
test('everything that runs in a browser compiles', () => passes('tsc', '-p', 'tsconfig.web.json'));
test('the code is formatted and lint finds nothing', () => passes('biome', 'check', '--max-diagnostics=30', '.'));
