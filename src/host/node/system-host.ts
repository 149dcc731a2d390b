// The Node process as the emulator's program needs it: background start, and what monitors ask of the host.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, constants, lstatSync, open, openSync, read, unlinkSync, writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Worker } from 'node:worker_threads';
import type { SystemHost } from '../../cli/host.ts';
import type { Grant } from '../../cli/sandbox.ts';
import { firmwareFolders } from '../../images/firmware.ts';
import { AdmittedFiles } from './admitted.ts';
import { userCache } from './cache.ts';
import { nodeChars } from './chardev.ts';
import { nodeHost } from './cli-host.ts';
import { confine, isRestarted, namedDescriptors, READY, restart } from './confine.ts';
import { nodeDiskHost } from './file.ts';
import { NodeMachine } from './machine.ts';
import { nodeSockets } from './net.ts';
import { packageFile } from './package-file.ts';
import { stateStreams } from './state-streams.ts';
import { openTap, TUN } from './tap.ts';
import { startVnc, zlib } from './vnc.ts';

export function nodeSystemHost(version: string, ahead?: Worker): SystemHost {
  const host = nodeHost(version, ahead);
  const readyFd = process.env[READY] === undefined ? undefined : Number(process.env[READY]);
  delete process.env[READY];
  let machine: NodeMachine | undefined;
  const admitted = new AdmittedFiles();
  const disks = nodeDiskHost(admitted);
  return {
    ...host,
    disks,
    machine: (setup) => (machine = new NodeMachine(setup, ahead)),
    isDaemon: readyFd !== undefined,
    daemonize: () => startInBackground(),
    ready() {
      if (readyFd === undefined) return;
      writeSync(readyFd, 'ready\n');
      closeSync(readyFd);
    },
    confine,
    async prepareToConfine(files) {
      if (isRestarted()) return;
      const grants = files && [...ownFiles(), ...(await files())];
      grants?.forEach(makeReady);
      if (readyFd !== undefined) process.env[READY] = String(readyFd);
      restart(grants);
    },
    emulator: ({ log, namedFd }) => ({
      pid: process.pid,
      chars: nodeChars(host, namedFd),
      disks,
      timers: {
        after(ms, run) {
          if (ms <= 0) {
            const soon = setImmediate(run);
            return () => clearImmediate(soon);
          }
          const timer = setTimeout(run, ms);
          return () => clearTimeout(timer);
        },
      },
      clock: () => performance.now(),
      now() {
        const us = Date.now() * 1000 + (Number(process.hrtime.bigint() / 1000n) % 1000);
        return { seconds: Math.floor(us / 1e6), microseconds: us % 1e6 };
      },
      closeFd: (fd) => closeSync(fd),
      admit: (path, fd, write) => admitted.admit(path, fd, write),
      log,
      random: (path) =>
        path === undefined || path === '/dev/urandom' ? async (count) => randomBytes(count) : deviceBytes(path, admitted),
      base64: { encode: (bytes) => Buffer.from(bytes).toString('base64'), decode: (text) => Buffer.from(text, 'base64') },
      threads: async () => (process.platform === 'linux' ? ((await machine?.threads()) ?? new Map()) : new Map()),
      streams: stateStreams(namedFd, admitted),
      net: { sockets: nodeSockets(), tap: (o) => openTap(o, () => admitted.take(TUN)), namedFd },
      display: { zlib, startVnc, writeFile: (path, bytes) => writeFile(path, bytes) },
    }),
  };
}

/** Where this program's `src` and `bin` are: a clone, or `dist` of the package. */
const ROOT = join(import.meta.dirname, '../../..');

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

/** Reads a random device of the host, which may take its time. */
function deviceBytes(path: string, admitted: AdmittedFiles): (count: number) => Promise<Uint8Array> {
  let fd: Promise<number> | undefined;
  return async (count) => {
    fd ??= Promise.resolve(admitted.get(path, false)).then((given) => given ?? promisify(open)(path, 'r'));
    const { buffer, bytesRead } = await promisify(read)(await fd, new Uint8Array(count), 0, count, null);
    return buffer.subarray(0, bytesRead);
  };
}

/**
 * Starts this command line again as a process of its own, passes on what it says, and waits until it is ready or has failed. Node
 * cannot fork. Descriptors that the command line names are handed over under their numbers.
 */
function startInBackground(): Promise<number> {
  const named = namedDescriptors();
  const most = Math.max(2, ...named);
  const stdio: ('ignore' | 'pipe' | number)[] = Array.from({ length: most + 2 }, (_, fd) => (named.includes(fd) ? fd : 'ignore'));
  stdio[2] = 'pipe';
  stdio[most + 1] = 'pipe';
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    detached: true,
    stdio,
    env: { ...process.env, [READY]: String(most + 1) },
  });
  child.stderr?.pipe(process.stderr, { end: false });
  return new Promise((resolve) => {
    let ready = false;
    child.stdio[most + 1]?.on('data', () => {
      ready = true;
      resolve(0);
    });
    child.on('error', (error) => {
      process.stderr.write(`Cannot start in the background: ${error.message}\n`);
      resolve(1);
    });
    // What it has said is read to the end.
    child.on('close', (code) => {
      if (!ready) resolve(code || 1);
    });
  });
}
