// The other side of a migration in Node: sockets, commands, files and descriptors by QEMU's URIs. QEMU 7.2, "migrate" in qapi/migration.json.

import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { createReadStream, createWriteStream } from 'node:fs';
import { connect, createServer, type NetConnectOpts, Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { StateSink, StateStreams } from '../../monitor/migration.ts';
import type { TlsCredentials } from '../../monitor/tls.ts';
import type { AdmittedFiles } from './admitted.ts';
import { certificates, securedClient, securedServer } from './tls-streams.ts';

const ACCEPTED = 'accepted are tcp:HOST:PORT, unix:PATH, exec:COMMAND, file:PATH and fd:N';

function split(uri: string): [kind: string, rest: string] {
  const colon = uri.indexOf(':');
  return colon < 0 ? ['', uri] : [uri.slice(0, colon), uri.slice(colon + 1)];
}
function address(kind: string, rest: string): NetConnectOpts & { host?: string } {
  if (kind === 'unix') return { path: rest };
  const at = rest.lastIndexOf(':');
  const port = Number(rest.slice(at + 1));
  if (at < 0 || !Number.isInteger(port) || port < 0 || port > 65535)
    throw new Error(`Cannot use address tcp:${rest}: ${ACCEPTED}`);
  const host = rest.slice(0, at).replace(/^\[(.*)\]$/, '$1');
  return { port, ...(host ? { host } : {}) };
}

/** `namedFd` finds descriptors that monitors brought, `admitted` files that this process may not open by itself. */
export function stateStreams(namedFd: (name: string) => number | undefined, admitted?: AdmittedFiles): StateStreams {
  const descriptor = (name: string): number => {
    const fd = namedFd(name) ?? (/^\d+$/.test(name) ? Number(name) : undefined);
    if (fd === undefined) throw new Error(`Cannot use fd:${name}: no descriptor of that name was given`);
    return fd;
  };
  return {
    async sink(uri, tls) {
      const [kind, rest] = split(uri);
      refuseTls(kind, tls, uri);
      switch (kind) {
        case 'tcp':
        case 'unix': {
          const to = address(kind, rest);
          const socket = await connected(to, uri);
          return sinkOf(tls ? await securedClient(socket, tls, to.host ?? 'localhost', uri, admitted) : socket);
        }
        case 'file':
          return sinkOf(await toFile(rest, admitted));
        case 'fd':
          return sinkOf(createWriteStream('', { fd: descriptor(rest) }));
        case 'exec': {
          const child = shell(rest, ['pipe', 'ignore', 'inherit']);
          const ended = new Promise<void>((resolve, reject) => {
            child.on('error', reject);
            child.on('close', (code) =>
              code === 0 ? resolve() : reject(new Error(`Cannot migrate to exec:${rest}: it ended with ${code}`)),
            );
          });
          ended.catch(() => {});
          return sinkOf(child.stdin as Writable, () => ended);
        }
        default:
          throw new Error(`Cannot migrate to ${uri}: ${ACCEPTED}`);
      }
    },
    async source(uri, listening, tls) {
      const [kind, rest] = split(uri);
      refuseTls(kind, tls, uri);
      switch (kind) {
        case 'tcp':
        case 'unix': {
          const keys = tls && certificates(tls, 'server', admitted);
          const socket = await accepted(address(kind, rest), uri, listening);
          return keys ? securedServer(socket, keys, tls.verifyPeer, uri) : socket;
        }
        case 'file':
          return opened(createReadStream(rest, { highWaterMark: 1 << 20 }));
        case 'fd':
          return readDescriptor(descriptor(rest));
        case 'exec': {
          return shell(rest, ['ignore', 'pipe', 'inherit']).stdout as Readable;
        }
        default:
          throw new Error(`Cannot take a machine from ${uri}: ${ACCEPTED}`);
      }
    },
  };
}

function refuseTls(kind: string, tls: TlsCredentials | undefined, uri: string): void {
  if (tls && kind !== 'tcp' && kind !== 'unix')
    throw new Error(`Cannot use TLS over ${uri}: accepted are tcp:HOST:PORT and unix:PATH`);
}

/** A file written from its beginning. */
async function toFile(path: string, admitted?: AdmittedFiles): Promise<Writable> {
  try {
    return await opened(createWriteStream(path));
  } catch (error) {
    const fd = admitted?.get(path, true);
    if (fd === undefined) throw error;
    return createWriteStream('', { fd, start: 0, autoClose: false });
  }
}

/** Throws Error where the process may start no others. */
function shell(command: string, stdio: StdioOptions): ChildProcess {
  try {
    return spawn('/bin/sh', ['-c', command], { stdio });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
    throw new Error(`Cannot start exec:${command}: this process starts no others (-sandbox spawn=deny)`);
  }
}

function connected(to: NetConnectOpts, uri: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(to);
    socket.once('connect', () => resolve(socket));
    socket.once('error', (error) => reject(new Error(`Cannot connect to ${uri}: ${error.message}`)));
  });
}

/** The first connection. */
function accepted(to: NetConnectOpts, uri: string, listening: () => void): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      server.close();
      resolve(socket);
    });
    server.on('error', (error) => reject(new Error(`Cannot listen on ${uri}: ${error.message}`)));
    server.listen(to, listening);
  });
}

async function opened<S extends Readable | Writable>(stream: S): Promise<S> {
  await new Promise<void>((resolve, reject) => {
    stream.once('open', () => resolve());
    stream.once('error', reject);
  });
  return stream;
}

/** A descriptor may be a file, a pipe or a socket: sockets can't be read by calls for files without blocking a thread of the pool. */
function readDescriptor(fd: number): Readable {
  try {
    return new Socket({ fd, readable: true, writable: false });
  } catch {
    return createReadStream('', { fd, highWaterMark: 1 << 20 });
  }
}

function sinkOf(stream: Writable, ended: () => Promise<void> = async () => {}): StateSink {
  let broken: Error | undefined;
  const broke: (() => void)[] = [];
  let over = false;
  stream.on('error', (error) => {
    broken = error;
    for (const tell of broke.splice(0)) tell();
  });
  // A socket whose other side has closed it ends without an error, and then never says that it took what waits.
  stream.on('close', () => {
    if (!over) broken ??= new Error('the other side has closed the connection');
    for (const tell of broke.splice(0)) tell();
  });
  const check = (): void => {
    if (broken) throw new Error(`Cannot migrate: ${broken.message}`);
  };
  return {
    async write(bytes) {
      check();
      if (!stream.write(bytes)) {
        await new Promise<void>((resolve) => {
          broke.push(resolve);
          stream.once('drain', resolve);
        });
      }
      check();
    },
    async end() {
      check();
      over = true;
      await new Promise<void>((resolve) => {
        broke.push(resolve);
        stream.end(resolve);
      });
      check();
      await ended();
    },
    destroy: () => void stream.destroy(),
  };
}
