// What a confined process of these programs keeps: its own files, and those that its command line names.

import { closeSync, constants, lstatSync, openSync, unlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import type { Grant } from '../../cli/sandbox.ts';
import { firmwareFolders } from '../../images/firmware.ts';
import { userCache } from './cache.ts';
import { type HeldFile, heldFiles, isRestarted, restart } from './confine.ts';
import { packageFile } from './package-file.ts';

/** Where this program's `src` and `bin` are: a clone, or `dist` of the package. */
const ROOT = join(import.meta.dirname, '../../..');

/**
 * Starts the program anew, confined to its own files and `files`; see `ProgramHost.prepareToConfine`. `before` is called right before. Resolves in the
 * process that was started, with the files that came as descriptors.
 */
export async function prepareToConfine(
  files: (() => Promise<readonly Grant[]>) | undefined,
  before = (): void => {},
): Promise<readonly HeldFile[]> {
  if (isRestarted()) return heldFiles();
  const grants = files && [...ownFiles(), ...(await files())];
  grants?.forEach(makeReady);
  before();
  restart(grants);
}

/** Makes files that will be written, and removes sockets of before: later it cannot. Failures are told when they are used. */
function makeReady({ path, access }: Grant): void {
  try {
    if (access === 'create')
      closeSync(openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOCTTY | constants.O_NONBLOCK, 0o644));
    else if (access === 'socket' && lstatSync(path).isSocket()) unlinkSync(path);
  } catch {}
}

/** What the program itself needs while it runs, whatever its machine is. */
function ownFiles(): Grant[] {
  const run = [process.execPath, '/lib', '/lib64', '/usr/lib', '/usr/lib64'];
  const read = [
    ...['src', 'bin'].map((name) => join(ROOT, name)),
    // The page's sources, which are not compiled.
    ...(basename(ROOT) === 'dist' ? [join(ROOT, '../src/web')] : []),
    packageFile(ROOT),
    ...(createRequire(import.meta.url).resolve.paths('koffi') ?? []),
    ...firmwareFolders,
    userCache().root,
    // What is written there runs in later processes, so it is only read.
    ...(process.env['NODE_COMPILE_CACHE'] ? [process.env['NODE_COMPILE_CACHE']] : []),
    ...['ld.so.cache', 'ssl', 'resolv.conf', 'hosts', 'nsswitch.conf', 'gai.conf', 'host.conf', 'localtime'].map(
      (f) => `/etc/${f}`,
    ),
    '/usr/share/zoneinfo',
    '/proc',
    '/dev/urandom',
    '/dev/random',
    '/dev/zero',
  ];
  return [
    ...run.map((path) => ({ path, access: 'run' }) as const),
    ...read.map((path) => ({ path, access: 'read' }) as const),
    ...['/dev/null', '/dev/tty'].map((path) => ({ path, access: 'write' }) as const),
  ];
}
