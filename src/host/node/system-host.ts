// The Node process as the emulator's program needs it: background start, and what monitors ask of the host.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, open, read, readFileSync, writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { SystemHost } from '../../cli/host.ts';
import { AdmittedFiles } from './admitted.ts';
import { nodeChars } from './chardev.ts';
import { namedDescriptors, READY } from './confine.ts';
import { prepareToConfine } from './confinement.ts';
import { nodeDiskHost } from './file.ts';
import { NodeMachine } from './machine.ts';
import { nodeSockets } from './net.ts';
import { programHost } from './program-host.ts';
import { stateStreams } from './state-streams.ts';
import { openTap, TUN } from './tap.ts';
import type { ThreadAhead } from './vcpu-thread.ts';
import { saslFiles, startVnc, zlib } from './vnc.ts';

export function nodeSystemHost(version: string, ahead?: ThreadAhead): SystemHost {
  const host = programHost(version, ahead);
  const readyFd = process.env[READY] === undefined ? undefined : Number(process.env[READY]);
  delete process.env[READY];
  let machine: NodeMachine | undefined;
  const admitted = new AdmittedFiles();
  const disks = nodeDiskHost(admitted);
  return {
    ...host,
    disks,
    machine: (setup) => (machine = new NodeMachine(setup, ahead)),
    saslFiles,
    isDaemon: readyFd !== undefined,
    daemonize: () => startInBackground(),
    ready() {
      if (readyFd === undefined) return;
      writeSync(readyFd, 'ready\n');
      closeSync(readyFd);
    },
    async prepareToConfine(files) {
      const held = await prepareToConfine(files, () => {
        if (readyFd !== undefined) process.env[READY] = String(readyFd);
      });
      for (const { path, fd, write } of held) admitted.admit(path, fd, write);
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
      readText: (path) => readFileSync(path, 'utf8'),
      display: { zlib, startVnc, writeFile: (path, bytes) => writeFile(path, bytes) },
    }),
  };
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
