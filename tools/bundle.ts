// Makes what the launchers in bin/ start: programs and threads in dist/, each as one file of JavaScript (Node takes about a millisecond to find, read
// and link each module), with the code that V8 made of it in a start; and what the translator starts with. A clone without them, or with newer sources,
// runs the TypeScript.
// Usage: node tools/bundle.ts

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { globSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { type BuildOptions, build } from 'esbuild';
import { prebuild } from '../src/accel/dbt/dbt.ts';
import { writePrebuilt } from '../src/host/node/prebuilt.ts';
import { multiboot } from '../test/e2e/program.ts';
import { late } from './late.ts';

const root = dirname(import.meta.dirname);
const out = join(root, 'dist');
/** Where the modules are that look for files beside themselves. */
const place = join(out, 'src/host/node');
/** The launchers compare the sources with this file: its time is that of the start of the build. */
const stamp = join(out, '.bundle');
/** A program that was started before loads more files of its own build for as long as it runs. */
const KEPT_MS = 24 * 3600 * 1000;
/** Flags that V8's code goes by: as the launchers give them on processors with protection keys, and on others. */
const FLAGS = { plain: [], unprotected: ['--no-memory-protection-keys'] } as const;

const common = {
  absWorkingDir: root,
  bundle: true,
  packages: 'external',
  platform: 'node',
  target: 'es2024',
  sourcemap: 'linked',
  sourcesContent: false,
  write: false,
  logLevel: 'warning',
} satisfies BuildOptions;

const started = new Date();
const programs = globSync('bin/nonroot*.ts', { cwd: root });
const threads = globSync('src/host/node/*-worker.ts', { cwd: root });
const here = { 'import.meta.url': 'url', 'import.meta.dirname': '__dirname' };
const made = new Set<string>();
function write(path: string, contents: Uint8Array | string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.${process.pid}`, contents);
  renameSync(`${path}.${process.pid}`, path);
  made.add(path);
}

const { outputFiles } = await build({
  ...common,
  entryPoints: [...programs, ...threads],
  outdir: place,
  entryNames: '[name]-[hash]',
  outExtension: { '.js': '.cjs' },
  format: 'cjs',
  define: here,
  // A function, which the file of the program's or thread's name calls.
  banner: {
    js: "(function (require, module, exports, __filename, __dirname) { const url = require('url').pathToFileURL(__filename).href;",
  },
  footer: { js: '})' },
  plugins: [late],
});
const api = await build({
  ...common,
  entryPoints: ['src/host/node/api.ts'],
  outdir: place,
  format: 'esm',
  define: here,
  // The threads that it starts are bundles.
  banner: { js: "const url = new URL('./api.cjs', import.meta.url).href, __dirname = import.meta.dirname;" },
});
for (const { path, contents } of [...outputFiles, ...api.outputFiles]) write(path, contents);

/**
 * A file that runs a bundle with what V8 has kept of it. V8 looks whether that is of this V8 and these flags, the name says of which text. All that is
 * kept is taken in, used or not: a vCPU's thread that starts on KVM has its own, without the translator's.
 */
function loader(path: string, bundle: string): void {
  const at = relative(dirname(path), bundle);
  const vcpu = basename(path) === 'vcpu-worker.cjs';
  const data = vcpu ? "const { workerData } = require('node:worker_threads');\n" : '';
  const kind = vcpu ? "workerData.kvm || workerData.ahead === 'modules' ? '.kvm' : ''" : "''";
  write(
    path,
    `'use strict';
// Made by tools/bundle.ts.
const { readFileSync } = require('node:fs');
const { dirname, join } = require('node:path');
const { constants, Script } = require('node:vm');
${data}const filename = join(__dirname, '${at}');
const flags = process.execArgv.includes('${FLAGS.unprotected[0]}') ? 'unprotected' : 'plain';
const kept = \`\${filename}\${${kind}}.\${flags}\`;
let cachedData;
for (const path of [kept, \`\${filename}.\${flags}\`])
  try {
    cachedData ??= readFileSync(path);
  } catch {}
const importModuleDynamically = constants.USE_MAIN_CONTEXT_DEFAULT_LOADER;
new Script(readFileSync(filename, 'latin1'), { filename, cachedData, importModuleDynamically, kept })
  .runInThisContext()(require, module, exports, filename, dirname(filename));
`,
  );
}
for (const source of [...programs, ...threads]) {
  const name = basename(source, '.ts');
  const bundle = outputFiles.find(({ path }) => basename(path).replace(/-[A-Z0-9]+\.cjs$/, '') === name)!.path;
  loader(join(source.startsWith('bin/') ? join(out, 'bin') : place, `${name}.cjs`), bundle);
}
// What earlier runs have left of translated code holds for the same translator.
const translator = outputFiles.find(({ path }) => basename(path).startsWith('region-worker-') && path.endsWith('.cjs'))!;
const id = createHash('sha256').update(translator.contents).digest('hex');
for (const wide of [false, true]) writePrebuilt(place, { ...prebuild(wide), id });
await keepCode();
for (const name of globSync('{bin,src/host/node}/*.{js,cjs,map,plain,unprotected}', { cwd: out })) {
  const path = join(out, name);
  if (!made.has(path.replace(/(\.kvm)?\.(plain|unprotected)$/, '')) && started.getTime() - statSync(path).mtimeMs > KEPT_MS)
    unlinkSync(path);
}
writeFileSync(stamp, '');
utimesSync(stamp, started, started);

/** Starts the programs, each with the flags that it may be started with, so that code-cache.ts keeps what V8 has compiled. */
async function keepCode(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-bundle-'));
  const guest = (name: string, code: readonly number[]): string => {
    const path = join(folder, name);
    writeFileSync(path, multiboot(code));
    return path;
  };
  const exit = [0x66, 0xba, 0x01, 0x05, 0xee, 0xf4]; // mov dx, 0x501; out dx, al; hlt
  // mov ecx, 0x4000000; L: add eax, ecx; dec ecx; jnz L: long enough for a region.
  const loop = guest('loop', [0xb9, 0, 0, 0, 4, 0x01, 0xc8, 0x49, 0x75, 0xfb, ...exit]);
  const short = guest('short', exit);
  const fault = guest('fault', [0x0f, 0x0b]); // ud2
  const machine = ['-M', 'q35', '-nodefaults', '-display', 'none', '-serial', 'stdio', '-device', 'isa-debug-exit'];
  const drive = ['-drive', `file=${short},format=raw,if=none,id=d,readonly=on`, '-device', 'virtio-blk-pci,drive=d'];
  const devices = [...drive, '-nic', 'user,model=virtio-net-pci', '-monitor'];
  const starts = (socket: string): string[][] => [
    ['nonroot-system-x86_64', ...machine, ...devices, `unix:${socket},server=on,wait=off`, '-kernel', loop],
    // Where there is no KVM, what only this needs is compiled when it is run.
    ['nonroot-system-x86_64', ...machine, ...devices, 'none', '-accel', 'kvm', '-kernel', short],
    ['nonroot', 'run', '--kernel', fault],
    ['nonrootd', '--version'],
  ];
  const preload = ['--import', join(import.meta.dirname, 'code-cache.ts')];
  const start = (program: string, args: readonly string[]): Promise<void> =>
    new Promise((resolve) => void execFile(program, args, { timeout: 60_000 }, () => resolve()).stdin?.end());
  const kinds = Object.entries(FLAGS).map(async ([kind, flags]) => {
    await start(process.execPath, [...flags, join(import.meta.dirname, 'native-code.ts'), place]);
    for (const [name, ...words] of starts(join(folder, kind)))
      await start(process.execPath, [...flags, ...preload, join(out, 'bin', `${name}.cjs`), ...words]);
  });
  await Promise.all(kinds);
  rmSync(folder, { recursive: true });
}
