// What the launchers start: the bundle where it is as new as the sources, else the sources.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { multiboot } from '../test/e2e/program.ts';

const top = mkdtempSync(join(tmpdir(), 'nonroot-launcher-'));
after(() => rmSync(top, { recursive: true }));

/** Writes files below `root` that were changed `age` seconds ago, and their folders. */
function place(root: string, files: readonly string[], age: number): void {
  const time = Date.now() / 1000 - age;
  for (const file of files) {
    const path = join(root, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '#!/bin/sh\necho "$@"\n', { mode: 0o755 });
    for (let p = path; p !== root; p = dirname(p)) utimesSync(p, time, time);
  }
}

const SOURCES = ['src/a/b.ts', 'bin/nonroot.ts', 'package-lock.json'];
const BUNDLE = ['dist/bin/nonroot.cjs', 'dist/.bundle'];

/** A clone, or a package in node_modules, with a Node that says what it was started with. Returns its root. */
function project(name: string): string {
  const root = join(top, name);
  place(root, ['node_modules/node/bin/node'], 0);
  place(root, SOURCES, 200);
  copyFileSync(join(dirname(import.meta.dirname), 'bin/nonroot'), join(root, 'bin/nonroot'));
  utimesSync(join(root, 'bin/nonroot'), Date.now() / 1000 - 200, Date.now() / 1000 - 200);
  utimesSync(join(root, 'bin'), Date.now() / 1000 - 200, Date.now() / 1000 - 200);
  return root;
}

function started(root: string): string {
  const { stdout, stderr } = spawnSync(join(root, 'bin/nonroot'), ['list', '--all'], { encoding: 'utf8' });
  assert.equal(stderr, '');
  const words = stdout.trim().split(' ');
  assert.deepEqual(words.slice(-2), ['list', '--all']);
  return words.at(-3)!.slice(root.length + 1);
}

test('a clone starts its sources until it is bundled', () => {
  const root = project('clone');
  assert.equal(started(root), 'bin/nonroot.ts');
  place(root, BUNDLE, 100);
  assert.equal(started(root), 'dist/bin/nonroot.cjs');
});

test('a source, a folder or the lockfile that is newer makes a clone start its sources', () => {
  const root = project('changed');
  place(root, BUNDLE, 100);
  for (const file of ['src/a/b.ts', 'package-lock.json']) {
    place(root, [file], 50);
    assert.equal(started(root), 'bin/nonroot.ts', file);
    place(root, [file], 200);
    assert.equal(started(root), 'dist/bin/nonroot.cjs', file);
  }
  rmSync(join(root, 'src/a/b.ts'));
  assert.equal(started(root), 'bin/nonroot.ts', 'a file is gone');
});

test('a bundle without its programs is not one', () => {
  const root = project('half');
  place(root, ['dist/.bundle'], 100);
  assert.equal(started(root), 'bin/nonroot.ts');
});

test('an installed package starts its bundle whatever the times are', () => {
  const root = project('node_modules/nonroot');
  place(root, BUNDLE, 300);
  assert.equal(started(root), 'dist/bin/nonroot.cjs');
});

/** Prints the files of code that V8 does not take. */
const LOOK = `
const [extension, ...paths] = process.argv.slice(1);
for (const filename of paths) {
  const cachedData = fs.readFileSync(filename + '.' + extension);
  const text = filename.replace(/\\.kvm$/, '');
  if (new vm.Script(fs.readFileSync(text, 'latin1'), { filename, cachedData }).cachedDataRejected) console.log(filename);
}`;
const dist = join(dirname(import.meta.dirname), 'dist');

test('V8 takes what the bundles keep of its code, with the flags of either kind of processor', {
  skip: !existsSync(join(dist, '.bundle')) && 'this clone has no bundle',
}, () => {
  for (const [extension, flags] of [
    ['plain', []],
    ['unprotected', ['--no-memory-protection-keys']],
  ] as const) {
    const files = globSync(`src/host/node/*.cjs*.${extension}`, { cwd: dist });
    for (const name of ['nonroot-system-x86_64', 'nonroot', 'nonrootd', 'vcpu-worker', 'region-worker'])
      assert.ok(
        files.some((file) => new RegExp(`/${name}-[A-Z0-9]+\\.cjs`).test(file)),
        `${name} ${extension}`,
      );
    const paths = files.map((file) => join(dist, file.slice(0, -extension.length - 1)));
    const { stdout, stderr } = spawnSync(process.execPath, [...flags, '-e', LOOK, extension, ...paths], { encoding: 'utf8' });
    assert.equal(stdout + stderr, '');
  }
});

/** Modules below a folder that a machine's threads have run, by bundle, as V8 has counted them. The machine ends by itself. */
function run(name: string, folder: string, args: readonly string[]): Record<string, string[]> {
  const kernel = join(top, 'end');
  writeFileSync(kernel, multiboot([0x66, 0xba, 0x01, 0x05, 0xee, 0xf4])); // mov dx, 0x501; out dx, al; hlt
  const coverage = join(top, name);
  const machine = ['-M', 'q35', '-nodefaults', '-display', 'none', '-device', 'isa-debug-exit', '-kernel', kernel];
  const { stderr } = spawnSync(process.execPath, [join(dist, 'bin/nonroot-system-x86_64.cjs'), ...machine, ...args], {
    encoding: 'utf8',
    env: { ...process.env, NODE_V8_COVERAGE: coverage },
  });
  assert.equal(stderr, '');
  const all: Record<string, string[]> = {};
  for (const file of readdirSync(coverage)) {
    const { result } = JSON.parse(readFileSync(join(coverage, file), 'utf8')) as {
      result: { url: string; functions: { functionName: string; ranges: { count: number }[] }[] }[];
    };
    for (const { url, functions } of result) {
      const bundle = /\/([\w-]+)-[A-Z0-9]+\.cjs$/.exec(url)?.[1];
      if (bundle === undefined) continue;
      // esbuild names the function that runs a module after it.
      all[bundle] = functions
        .filter((f) => f.functionName.startsWith(folder) && f.ranges[0]!.count > 0)
        .map((f) => f.functionName.slice(folder.length))
        .sort();
    }
  }
  return all;
}

test('threads run the modules of devices that their machine has, and of no others', {
  skip: !existsSync(join(dist, '.bundle')) && 'this clone has no bundle',
}, () => {
  const types = 'src/machine/types/';
  const few = run('few', types, []);
  // The board has an AHCI controller.
  for (const thread of ['nonroot-system-x86_64', 'vcpu-worker'])
    assert.deepEqual(
      few[thread]!.filter((file) => file !== 'cpu.ts'),
      ['ahci.ts', 'isa.ts'],
      thread,
    );
  const more = run('more', types, ['-device', 'qemu-xhci', '-device', 'e1000', '-device', 'virtio-rng-pci']);
  for (const thread of ['nonroot-system-x86_64', 'vcpu-worker'])
    assert.deepEqual(
      ['e1000.ts', 'usb.ts', 'virtio-rng.ts'].filter((file) => !more[thread]!.includes(file)),
      [],
      thread,
    );
});
