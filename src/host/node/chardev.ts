// Character devices on Node: standard streams, files, pipes, datagrams; sockets and terminals have files of their own.

import { createSocket } from 'node:dgram';
import { constants, createReadStream, createWriteStream, openSync, type WriteStream } from 'node:fs';
import type { CharBackend, CharEvents, CharHost } from '../../chardev/chardev.ts';
import type { CharOptions, FileLimit } from '../../chardev/options.ts';
import type { ProgramHost } from '../../cli/host.ts';
import { BoundedFile } from './bounded-file.ts';
import { openPty } from './chardev-pty.ts';
import { openSocket } from './chardev-socket.ts';

/** `namedFd` looks up a descriptor that a monitor's getfd named. */
export function nodeChars(
  host: Pick<ProgramHost, 'input' | 'out'>,
  namedFd: (name: string) => number | undefined = () => undefined,
): CharHost {
  return {
    async openChar(id, options, events) {
      const backend = await open(host, options, events, namedFd).catch((error: NodeJS.ErrnoException) => {
        throw new Error(`Cannot open character device ${id}: ${error.message}`);
      });
      return options.log ? logged(backend, options.log, options.limit) : backend;
    },
  };
}

async function open(
  host: Pick<ProgramHost, 'input' | 'out'>,
  options: CharOptions,
  events: CharEvents,
  namedFd: (name: string) => number | undefined,
): Promise<CharBackend> {
  switch (options.kind) {
    case 'stdio':
      return openStdio(host, options.signal, events);
    case 'file':
      return openFile(options, events);
    case 'pipe':
      return openPipe(options.path, events);
    case 'udp':
      return openUdpChar(options, events);
    case 'pty':
      return openPty(events);
    case 'socket':
      return openSocket(options, events, namedFd);
    case 'null':
    case 'ringbuf':
      throw new Error('it needs no host');
  }
}

const CTRL_C = 0x03;

function openStdio({ input, out }: Pick<ProgramHost, 'input' | 'out'>, signal: boolean, events: CharEvents): CharBackend {
  const session = input.open({
    input: (bytes) => {
      if (signal && input.isTTY && bytes.includes(CTRL_C)) process.kill(process.pid, 'SIGINT');
      else void events.receive(bytes);
    },
    // The end of a pipe ends nothing, as in QEMU; a terminal that is gone does.
    end: () => {
      if (input.isTTY) process.kill(process.pid, 'SIGHUP');
    },
  });
  return { filename: 'stdio', connected: true, write: (bytes) => out.write(bytes), close: () => session.close() };
}

/** Opens, or rejects with the reason. */
async function opened(stream: WriteStream): Promise<WriteStream> {
  await new Promise<void>((resolve, reject) => {
    stream.once('open', () => resolve());
    stream.once('error', reject);
  });
  // A full disk drops what the guest says; it does not end the guest.
  stream.on('error', () => {});
  return stream;
}
const writer =
  (stream: NodeJS.WritableStream) =>
  (bytes: Uint8Array): void | Promise<void> => {
    if (!stream.write(bytes.slice())) return new Promise((resolve) => stream.once('drain', resolve));
  };

async function outputFile(
  { path, append }: { readonly path: string; readonly append: boolean },
  limit: FileLimit | undefined,
): Promise<Pick<CharBackend, 'write' | 'close'>> {
  if (limit) return BoundedFile.open(path, append, limit);
  const stream = await opened(createWriteStream(path, { flags: append ? 'a' : 'w' }));
  return { write: writer(stream), close: () => stream.end() };
}

async function openFile(o: CharOptions & { kind: 'file' }, events: CharEvents): Promise<CharBackend> {
  const file = await outputFile(o, o.limit);
  if (o.input !== undefined) pump(createReadStream(o.input), events);
  return { filename: 'file', connected: true, write: (bytes) => file.write(bytes), close: () => file.close() };
}

/** `PATH.in` and `PATH.out`, or one named pipe for both directions. */
async function openPipe(path: string, events: CharEvents): Promise<CharBackend> {
  const flags = constants.O_RDWR | constants.O_NONBLOCK;
  let input: number;
  let output: number;
  try {
    input = openSync(`${path}.in`, flags);
    output = openSync(`${path}.out`, flags);
  } catch {
    input = output = openSync(path, flags);
  }
  const { Socket } = await import('node:net');
  const reader = new Socket({ fd: input, readable: true, writable: input === output });
  const sender = input === output ? reader : new Socket({ fd: output, readable: false, writable: true });
  for (const s of new Set([reader, sender])) s.on('error', () => {});
  pump(reader, events);
  return {
    filename: 'pipe',
    connected: true,
    write: writer(sender),
    close: () => {
      reader.destroy();
      sender.destroy();
    },
  };
}

/** Gives a stream's bytes on, no faster than they are taken. */
function pump(stream: NodeJS.ReadableStream, events: CharEvents): void {
  stream.on('error', () => {});
  stream.on('data', (bytes: Uint8Array) => {
    const taken = events.receive(bytes);
    if (!taken) return;
    stream.pause();
    void taken.then(() => stream.resume());
  });
}

async function openUdpChar(o: CharOptions & { kind: 'udp' }, events: CharEvents): Promise<CharBackend> {
  const family = (o.localHost ?? o.host).includes(':') ? 'udp6' : 'udp4';
  const socket = createSocket(family);
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(o.localPort, o.localHost, () => resolve());
  });
  socket.on('error', () => {});
  socket.on('message', (bytes) => void events.receive(bytes));
  return {
    filename: `udp:${o.host}:${o.port}`,
    connected: true,
    write: (bytes) => new Promise((resolve) => socket.send(bytes.slice(), o.port, o.host, () => resolve())),
    close: () => socket.close(),
  };
}

async function logged(
  backend: CharBackend,
  log: { readonly path: string; readonly append: boolean },
  limit: FileLimit | undefined,
): Promise<CharBackend> {
  const file = await outputFile(log, limit);
  return {
    get filename() {
      return backend.filename;
    },
    get connected() {
      return backend.connected;
    },
    write(bytes) {
      const [first, second] = [file.write(bytes), backend.write(bytes)];
      return first ? first.then(() => second) : second;
    },
    takeFd: () => backend.takeFd?.(),
    close() {
      file.close();
      backend.close();
    },
  };
}
