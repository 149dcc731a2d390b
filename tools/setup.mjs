// Prepares a clone and runs a TypeScript program of the project on the Node that the project brings.
// Plain JavaScript without dependencies: it must run on any Node from 20 on, before anything is installed.
// Usage: node tools/setup.mjs PROGRAM [ARGS...]
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const lock = join(root, 'package-lock.json');
const stamp = join(root, 'node_modules', '.nonroot-lock');
const node = join(root, 'node_modules', '.bin', process.platform === 'win32' ? 'node.cmd' : 'node');

if (!existsSync(node) || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== readFileSync(lock, 'utf8')) {
  process.stderr.write('nonroot: installing dependencies (first run only)\n');
  const npm = (...args) =>
    spawnSync('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], { cwd: root, encoding: 'utf8' });
  let done = npm('ci');
  // `ci` refuses where the registry lacks an optional package of the lock (another platform's binary); `install` goes on without it.
  if (done.status !== 0) done = npm('install', '--no-save');
  if (done.status !== 0 || !existsSync(node)) {
    process.stderr.write(
      `${done.stderr ?? ''}nonroot: Cannot install dependencies: npm failed${done.error ? ` (${done.error.message})` : ''}; is the npm registry reachable?\n`,
    );
    process.exit(1);
  }
  writeFileSync(stamp, readFileSync(lock, 'utf8'));
}

/** Whether a file or folder in `path` was changed after `time`. */
const newer = (path, time) =>
  statSync(path).mtimeMs > time ||
  (statSync(path).isDirectory() && readdirSync(path).some((name) => newer(join(path, name), time)));

const bundled = join(root, 'dist', '.bundle');
const time = existsSync(bundled) ? statSync(bundled).mtimeMs : 0;
if (['src', 'bin', 'package-lock.json'].some((name) => newer(join(root, name), time))) {
  // Where this fails, the launchers start the sources.
  const { status, stderr } = spawnSync(node, [join(root, 'tools', 'bundle.ts')], { encoding: 'utf8' });
  if (status !== 0) process.stderr.write(`${stderr}nonroot: Cannot bundle the programs: they start from their sources\n`);
}

const [program, ...args] = process.argv.slice(2);
if (program) {
  // The programs are started by their launchers. Everything else as these would, where the reasons stand.
  const launched = program.startsWith('bin/') && process.platform !== 'win32';
  const words = launched ? [program.replace(/\.ts$/, '')] : [node, '--no-memory-protection-keys', program];
  const [command, ...before] = words.map((word) => (word.includes('/') ? resolve(root, word) : word));
  const env = { MALLOC_ARENA_MAX: '2', GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1', ...process.env };
  const child = spawn(command, [...before, ...args], { stdio: 'inherit', env });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => process.exit(signal ? 128 + 15 : (code ?? 1)));
}
