// The daemon's sockets: unix, TCP and TLS as byte streams, terminals of emulators, names that one process has. Node documentation, "Net", "TLS", "TTY".

import { once } from 'node:events';
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { chmod, lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { ReadStream, WriteStream } from 'node:tty';
import { reasonOf } from '../../daemon/errors.ts';
import type { ClientInfo, Listener, Sockets, TlsFiles } from '../../daemon/host.ts';
import type { ByteDuplex } from '../../rpc/transport.ts';
import { fdPasser } from './daemon-fds.ts';
import { oneRecord } from './tls-streams.ts';

/** A socket as the protocols see it. */
export function duplexOf(socket: Socket): ByteDuplex {
  return overStreams(socket, socket, () => {
    socket.end();
    // A peer that never reads must not hold the socket for ever.
    socket.destroySoon();
  });
}

/** The number of an open socket's descriptor. */
const fdOf = (socket: Socket): number => (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle?.fd ?? -1;

/** A unix socket that passes descriptors, where this host's system calls can be reached. */
function passingDuplex(socket: Socket): ByteDuplex {
  const duplex = duplexOf(socket);
  const pass = fdPasser();
  if (pass === undefined) return duplex;
  // While descriptors go out, other packets wait: nothing may come between a packet and its descriptors.
  let busy: Promise<void> | undefined;
  return {
    ...duplex,
    write: (bytes) => (busy === undefined ? duplex.write(bytes) : busy.then(() => duplex.write(bytes))),
    writeWithFds(bytes, fds, carrier = 0) {
      const before = busy ?? Promise.resolve();
      const own = before
        .then(() => new Promise<void>((resolve, reject) => socket.write(bytes, (error) => (error ? reject(error) : resolve()))))
        .then(async () => {
          for (const fd of fds) {
            // The buffer of the socket may be full for a moment.
            while (!pass(fdOf(socket), fd, carrier)) {
              if (socket.destroyed) throw new Error('the connection is closed');
              await new Promise((resolve) => setTimeout(resolve, 5));
            }
          }
        });
      const settled = own.catch(() => {});
      busy = settled;
      void settled.then(() => {
        if (busy === settled) busy = undefined;
      });
      return own;
    },
  };
}

function overStreams(input: Readable, output: Writable, close: () => void): ByteDuplex {
  input.on('error', () => {});
  output.on('error', () => {});
  return {
    input,
    async write(bytes) {
      if (output.destroyed) throw new Error('the connection is closed');
      if (output.write(bytes)) return;
      await Promise.race([once(output, 'drain'), once(output, 'close')]);
    },
    close,
  };
}

/** Whether nobody listens at a unix socket that is there. */
const isStale = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });

const listening = (server: Server, at: ListenOptions): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(at, () => {
      server.off('error', reject);
      // Out of descriptors: that client is lost, the listener stays.
      server.on('error', () => {});
      resolve();
    });
  });

function listenerOf(server: Server, sockets: Set<Socket>): Listener {
  const address = server.address();
  return {
    port: address !== null && typeof address === 'object' ? address.port : 0,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Keeps the open sockets of a server, so that they can be closed with it. */
function tracked(server: Server): Set<Socket> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  return sockets;
}

/** `sun_path` of unix(7) with its NUL. */
const longestPath = 107;

async function listenUnix(path: string, mode: number, accept: (duplex: ByteDuplex) => void): Promise<Listener> {
  const fail = (why: string): Error => new Error(`Cannot listen at ${path}: ${why}`);
  if (Buffer.byteLength(path) > longestPath) {
    throw fail(`its path has ${Buffer.byteLength(path)} bytes, a unix socket's may have ${longestPath}`);
  }
  const there = await lstat(path).catch(() => undefined);
  if (there && !there.isSocket()) throw fail('something that is no socket is in its way');
  const server = createServer((socket) => accept(passingDuplex(socket)));
  const sockets = tracked(server);
  try {
    await listening(server, { path });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || !(await isStale(path))) throw fail(reasonOf(error));
    await unlink(path);
    await listening(server, { path });
  }
  await chmod(path, mode);
  return listenerOf(server, sockets);
}

const readTls = (files: TlsFiles) => ({
  ca: readFileSync(files.ca),
  cert: readFileSync(files.certificate),
  key: readFileSync(files.key),
});

/** `C=DE,O=Org,CN=name`: the order in which libvirt's allow list has it. */
function distinguishedName(socket: TLSSocket): string {
  const subject = socket.getPeerCertificate().subject as unknown as Record<string, string | string[]> | undefined;
  return Object.entries(subject ?? {})
    .flatMap(([key, value]) => [value].flat().map((one) => `${key}=${one}`))
    .join(',');
}

async function listenTcp(
  host: string,
  port: number,
  accept: (duplex: ByteDuplex, client: ClientInfo) => void,
  tls?: TlsFiles,
): Promise<Listener> {
  const info = (socket: Socket): Omit<ClientInfo, 'transport'> => ({
    address: `${socket.remoteAddress ?? ''};${socket.remotePort ?? 0}`,
    readOnly: false,
  });
  const server = tls
    ? process
        .getBuiltinModule('node:tls')
        .createServer({ ...readTls(tls), requestCert: true, rejectUnauthorized: true, ...oneRecord }, (socket) => {
          // libvirt's server says inside of TLS that the certificate is good.
          socket.write(Uint8Array.of(1));
          accept(duplexOf(socket), { ...info(socket), transport: 'tls', distinguishedName: distinguishedName(socket) });
        })
    : createServer({ noDelay: true }, (socket) => accept(duplexOf(socket), { ...info(socket), transport: 'tcp' }));
  server.on('tlsClientError', () => {});
  const sockets = tracked(server);
  try {
    await listening(server, { host, port });
  } catch (error) {
    throw new Error(`Cannot listen at ${host}:${port}: ${reasonOf(error)}`);
  }
  return listenerOf(server, sockets);
}

async function connected(socket: Socket, event: 'connect' | 'secureConnect'): Promise<Socket> {
  try {
    await once(socket, event);
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function connectTcp(host: string, port: number, tls?: TlsFiles): Promise<ByteDuplex> {
  if (!tls) return duplexOf(await connected(connect({ host, port, noDelay: true }), 'connect'));
  const socket = process
    .getBuiltinModule('node:tls')
    .connect({ host, port, ...readTls(tls), servername: /^[\d.:]+$/.test(host) ? '' : host });
  await connected(socket, 'secureConnect');
  const duplex = duplexOf(socket);
  return { ...duplex, input: withoutVerdict(duplex.input) };
}

/** The server's first byte inside of TLS says whether it takes our certificate. */
async function* withoutVerdict(input: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let first = true;
  for await (const chunk of input) {
    if (first && chunk[0] !== 1) throw new Error('server verification of our certificate or IP address failed');
    const rest = first ? chunk.subarray(1) : chunk;
    first = false;
    if (rest.length > 0) yield rest;
  }
}

async function freePort(from: number, to: number, taken: ReadonlySet<number>): Promise<number | undefined> {
  for (let port = from; port <= to; port++) {
    if (taken.has(port)) continue;
    const server = createServer();
    try {
      await listening(server, { host: '0.0.0.0', port, exclusive: true });
      return port;
    } catch {
      // Somebody has it.
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  }
  return undefined;
}

function terminal(path: string): ByteDuplex {
  const fds = [0, 0].map(() => openSync(path, constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK));
  try {
    const input = new ReadStream(fds[0]!);
    const output = new WriteStream(fds[1]!);
    return overStreams(input, output, () => {
      input.destroy();
      output.destroy();
    });
  } catch (error) {
    for (const fd of fds) closeSync(fd);
    throw error;
  }
}

/** Closes our descriptor of a connection that somebody else has too, without ending the connection. */
const closeQuietly = (socket: Socket): Socket => socket.destroy();

export const nodeSockets: Sockets = {
  connect: async (path) => passingDuplex(await connected(connect({ path }), 'connect')),
  connectTcp,
  async connectFd(to) {
    const socket = await connected(connect('path' in to ? { path: to.path } : { ...to, noDelay: true }), 'connect');
    socket.on('error', () => {});
    return { fd: fdOf(socket), close: () => void closeQuietly(socket) };
  },
  listen: listenUnix,
  listenTcp,
  freePort,
  terminal: async (path) => terminal(path),
  async claim(name) {
    // A name in Linux's abstract space goes with the process, however it ends.
    const server = createServer((socket) => socket.destroy());
    try {
      await listening(server, { path: `\0${name}` });
      server.unref();
      return true;
    } catch {
      return false;
    }
  },
};
