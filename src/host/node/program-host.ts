// The Node process as every program sees it (cli/host.ts): standard streams, signals, files, machines.

import { createWriteStream, readFileSync, statSync } from 'node:fs';
import { readFile as readAny, rm, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { probeKvm } from '../../accel/kvm/probe.ts';
import type { KvmFinding } from '../../cli/accel.ts';
import type { HostSignal, Output, ProgramHost } from '../../cli/host.ts';
import { confine } from './confine.ts';
import { prepareToConfine } from './confinement.ts';
import { readFirmware } from './fetch-firmware.ts';
import { nodeDiskHost } from './file.ts';
import { openFolder } from './folder.ts';
import { openImageFile } from './image-file.ts';
import { fileIdentity, openKernel } from './kept-kernel.ts';
import { kvmHost } from './kvm-native.ts';
import { NodeMachine } from './machine.ts';
import { openTerminal } from './terminal.ts';
import type { ThreadAhead } from './vcpu-thread.ts';
import { startVnc } from './vnc.ts';

const SIGNALS: readonly HostSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** The host of this process. `version` is the package's. */
export function programHost(version: string, ahead?: ThreadAhead): ProgramHost {
  const listeners: ((signal: HostSignal | 'SIGPIPE') => void)[] = [];
  const tell = (signal: HostSignal | 'SIGPIPE'): void => {
    for (const listener of listeners) listener(signal);
  };
  const kvm = new Map<boolean, KvmFinding>();
  const readFile = (path: string): Promise<Uint8Array> =>
    readWhole(path).catch((error: NodeJS.ErrnoException) => reject(`Cannot read ${path}`, error));
  return {
    version,
    disks: nodeDiskHost(),
    out: output(process.stdout, () => tell('SIGPIPE')),
    err: output(process.stderr, () => {}),
    input: {
      isTTY: process.stdin.isTTY === true,
      open: (listener) => {
        // A standard input that is closed or cannot be read has ended.
        const failed = (): void => listener.end?.();
        process.stdin.on('error', failed);
        const terminal = openTerminal(listener);
        return {
          close: () => {
            terminal.close();
            process.stdin.off('error', failed);
            process.stdin.unref?.();
          },
        };
      },
    },
    bar: process.stderr,
    term: process.env['TERM'],
    size: () => {
      const { isTTY, rows, columns } = process.stdout;
      return isTTY && rows > 0 && columns > 0 ? { rows, cols: columns } : undefined;
    },
    pid: process.pid,
    readFile,
    async readKernel(path) {
      // What Node says of it is said as for any other file.
      try {
        const kernel = openKernel(path);
        if (kernel) return kernel;
      } catch {}
      return { kernel: await readFile(path) };
    },
    async readInitrd(path) {
      // What Node says of it is said as for any other file.
      try {
        if (fileIdentity(path) !== undefined) return openImageFile(path, true);
      } catch {}
      return readFile(path);
    },
    writeFile: (path, text) =>
      writeFile(path, text).catch((error: NodeJS.ErrnoException) => reject(`Cannot write ${path}`, error)),
    removeFile: (path) => rm(path, { force: true }),
    writer: (path) => openWriter(path),
    absolute: (path) => resolve(path),
    firmware: (name, folders, report) => readFirmware(name, folders, { report }),
    startVnc,
    folder: openFolder,
    base64: (bytes) => Buffer.from(bytes).toString('base64'),
    fromBase64: (text) => Buffer.from(text, 'base64'),
    machine: (setup) => new NodeMachine(setup, ahead),
    confine,
    async prepareToConfine(files) {
      await prepareToConfine(files);
    },
    kvm(trial) {
      const known = kvm.get(trial);
      if (known) return known;
      try {
        const found = probeKvm(kvmHost(), trial);
        kvm.set(trial, found);
        return found;
      } catch (error) {
        return { usable: false, why: (error as Error).message, tscKhz: 0, tscControl: false };
      }
    },
    onSignal(listener) {
      listeners.push(listener);
      if (listeners.length === 1) for (const signal of SIGNALS) process.on(signal, () => tell(signal));
    },
    now: () => performance.now(),
    after(ms, action) {
      const timer = setTimeout(action, ms);
      return { cancel: () => clearTimeout(timer) };
    },
  };
}

/** A regular file in one piece: Node reads 512 KiB at a time otherwise, each on a thread of its pool. */
export async function readWhole(path: string): Promise<Uint8Array> {
  return statSync(path).isFile() ? readFileSync(path) : readAny(path);
}

function reject(what: string, error: NodeJS.ErrnoException): never {
  const reasons: Record<string, string> = {
    ENOENT: 'there is no such file',
    EISDIR: 'it is a directory',
    EACCES: 'permission denied',
  };
  throw new Error(`${what}: ${reasons[error.code ?? ''] ?? error.message}`);
}

/** A stream as an Output: waits while its reader is slow, drops bytes when the reader is gone. */
function output(stream: NodeJS.WriteStream, broken: () => void): Output {
  let gone = false;
  let wakes: (() => void)[] = [];
  const wake = (): void => {
    const waiting = wakes;
    wakes = [];
    for (const w of waiting) w();
  };
  stream.on('error', () => {
    if (!gone) broken();
    gone = true;
    wake();
  });
  stream.on('drain', wake);
  return {
    isTTY: stream.isTTY === true,
    write(data) {
      if (gone || stream.write(data)) return Promise.resolve();
      return new Promise((resolve) => wakes.push(resolve));
    },
  };
}

async function openWriter(path: string): Promise<(data: Uint8Array | string) => Promise<void>> {
  const stream = createWriteStream(path);
  await new Promise<void>((resolve, fail) => {
    stream.once('open', () => resolve());
    stream.once('error', fail);
  }).catch((error: NodeJS.ErrnoException) => reject(`Cannot write ${path}`, error));
  stream.on('error', () => {});
  return (data) => new Promise((resolve) => stream.write(data, () => resolve()));
}
