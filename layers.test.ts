// Holds the imports of the code against the architecture in layers.ts.

import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { posix, sep } from 'node:path';
import { test } from 'node:test';
import { layers, packages, roots } from './layers.ts';

const IMPORT =
  /^\s*(?:import|export)\b[^;'"]*?\bfrom\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)/gm;
const root = import.meta.dirname;
const sources = globSync('src/**/*.ts', { cwd: root }).map((file) => file.replaceAll(sep, '/'));

/** Module specifiers that a file imports or re-exports from. */
function importsOf(file: string): string[] {
  const text = readFileSync(posix.join(root, file), 'utf8');
  return [...text.matchAll(IMPORT)].map((m) => m[1] ?? m[2] ?? m[3]);
}
/** The layer of a path: the longest listed folder that holds it. */
function layerOf(path: string): string | undefined {
  const inner = path.replace(/^src\//, '');
  return Object.keys(layers)
    .filter((name) => inner.startsWith(`${name}/`))
    .sort((a, b) => b.length - a.length)[0];
}
/** `isa` in the table stands for every folder below it. */
const allowed = (from: string, to: string): boolean =>
  from === to || layers[from].some((name) => to === name || to.startsWith(`${name}/`));
/** Layers that know their host. Tests, which run on Node, may do the same. */
const onNode = (file: string): boolean => /^src\/(host\/node|cli)\//.test(file) || file.endsWith('.test.ts');

test('every file under src/ belongs to a layer', () => {
  assert.deepEqual(
    sources.filter((file) => layerOf(file) === undefined),
    [],
    'layers.ts does not list these',
  );
});

test('every layer in the table names layers of the table', () => {
  const names = Object.keys(layers);
  for (const [name, targets] of Object.entries(layers)) {
    for (const t of targets)
      assert.ok(
        names.some((n) => n === t || n.startsWith(`${t}/`)),
        `${name} may import ${t}, which is no layer`,
      );
  }
});

test('code imports only from the layers that its own may import', () => {
  const offences: string[] = [];
  for (const file of sources) {
    const from = layerOf(file);
    for (const name of importsOf(file)) {
      if (!name.startsWith('.') || from === undefined) continue;
      const target = posix.join(posix.dirname(file), name);
      const to = layerOf(target);
      // Tests may use whatever they need of the layers above.
      if (file.endsWith('.test.ts') && to !== undefined) continue;
      if (to === undefined || !allowed(from, to)) offences.push(`${file}: ${from} -> ${to ?? target}`);
    }
  }
  assert.deepEqual(offences, []);
});

test('only host/node, cli and tests import Node modules, or packages that the table does not name', () => {
  const offences = sources
    .filter((file) => !onNode(file))
    .flatMap((file) =>
      importsOf(file)
        .filter((name) => !name.startsWith('.') && !packages[file.split('/')[1]]?.includes(name))
        .map((name) => `${file}: ${name}`),
    );
  assert.deepEqual(offences, []);
});

test('imports carry the .ts ending', () => {
  const files = [...sources, ...roots.flatMap((r) => globSync(`${r}/**/*.ts`, { cwd: root })), 'layers.ts'];
  const offences = files.flatMap((file) =>
    importsOf(file)
      .filter((name) => name.startsWith('.') && !/\.(ts|json)$/.test(name))
      .map((n) => `${file}: ${n}`),
  );
  assert.deepEqual(offences, []);
});

test('what starts with a machine has nothing of what it never runs', () => {
  const unwanted = {
    'bin/nonroot-system-x86_64.ts': /^src\/(daemon|domain|web)\//,
    'src/host/node/vcpu-worker.ts': /^src\/(daemon|domain|monitor|net|web)\//,
    'src/host/node/kvm-doorbells-worker.ts': /^src\/(isa|devices|machine)\//,
  };
  for (const [entry, pattern] of Object.entries(unwanted)) {
    const reached = new Set([entry]);
    // What is imported for its types alone is not there.
    for (const file of reached)
      for (const [statement, from, bare, late] of readFileSync(posix.join(root, file), 'utf8').matchAll(IMPORT)) {
        const name = from ?? bare ?? late;
        if (!/^\s*(import|export) type\b/.test(statement) && name.startsWith('.'))
          reached.add(posix.join(posix.dirname(file), name));
      }
    assert.deepEqual(
      [...reached].filter((file) => pattern.test(file)),
      [],
      entry,
    );
  }
});
