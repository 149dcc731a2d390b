// Makes what the launchers in bin/ start: the programs and the files of their threads in dist/, as few files of JavaScript, since Node takes
// about a millisecond to find, read and link each module; and what the translator starts with. A clone without them, or with newer sources, runs the TypeScript.
// Usage: node tools/bundle.ts

import { globSync, mkdirSync, renameSync, statSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { build } from 'esbuild';
import { prebuild } from '../src/accel/dbt/dbt.ts';
import { writePrebuilt } from '../src/host/node/prebuilt.ts';

const root = dirname(import.meta.dirname);
const out = join(root, 'dist');
/** The launchers compare the sources with this file: its time is that of the start of the build. */
const stamp = join(out, '.bundle');
/** A program that was started before loads more files of its own build for as long as it runs. */
const KEPT_MS = 24 * 3600 * 1000;

const started = new Date();
const { outputFiles } = await build({
  absWorkingDir: root,
  entryPoints: ['bin/nonroot*.ts', 'src/host/node/*-worker.ts', 'src/host/node/translator.ts', 'src/host/node/api.ts'],
  outdir: out,
  outbase: root,
  // Where the modules are that look for files beside themselves.
  chunkNames: 'src/host/node/[name]-[hash]',
  bundle: true,
  splitting: true,
  packages: 'external',
  format: 'esm',
  platform: 'node',
  target: 'es2024',
  sourcemap: 'linked',
  write: false,
  logLevel: 'warning',
});
const made = new Set<string>();
for (const { path, contents } of outputFiles) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.${process.pid}`, contents);
  renameSync(`${path}.${process.pid}`, path);
  made.add(path);
}
for (const name of globSync('{bin,src/host/node}/*.{js,map}', { cwd: out })) {
  const path = join(out, name);
  if (!made.has(path) && started.getTime() - statSync(path).mtimeMs > KEPT_MS) unlinkSync(path);
}
for (const wide of [false, true]) writePrebuilt(join(out, 'src/host/node'), prebuild(wide));
writeFileSync(stamp, '');
utimesSync(stamp, started, started);
