// Sockets of Node for disks that are elsewhere, and for those that are served (disk/nbd/protocol.ts).

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { DiskError } from '../../disk/block.ts';
import type { NbdSockets, NbdStream } from '../../disk/nbd/protocol.ts';
import type { AdmittedFiles } from './admitted.ts';
import { certificates, securedClient, securedServer } from './tls-streams.ts';

/** ms that the other side may take for the handshake. */
const HANDSHAKE = 30_000;
const sockets = new WeakMap<NbdStream, Socket>();
/** Whom a client wanted to reach. */
const hosts = new WeakMap<NbdStream, string>();

function streamOf(socket: Socket): NbdStream {
  socket.setNoDelay(true);
  socket.on('error', () => {});
  const stream: NbdStream = {
    // Who stops to read may go on with the socket.
    input: { [Symbol.asyncIterator]: () => socket.iterator({ destroyOnReturn: false }) },
    async write(bytes) {
      if (socket.destroyed) throw new Error('the connection was closed');
      if (socket.write(bytes)) return;
      await new Promise<void>((resolve) => {
        const go = (): void => {
          socket.off('drain', go).off('close', go);
          resolve();
        };
        socket.on('drain', go).on('close', go);
      });
    },
    // What was written leaves first; a peer that does not read cannot hold the descriptor for ever.
    close: () => void socket.end(() => socket.destroy()).setTimeout(1000, () => socket.destroy()),
  };
  sockets.set(stream, socket);
  return stream;
}

/** `admitted` has certificates that this process may not open by itself. */
export const diskSockets = (admitted?: AdmittedFiles): NbdSockets => ({
  async connect(to) {
    const socket = connect('path' in to ? { path: to.path } : { host: to.host, port: to.port });
    await once(socket, 'connect');
    const stream = streamOf(socket);
    if ('host' in to) hosts.set(stream, to.host);
    return stream;
  },
  async secure(stream, end, tls) {
    const socket = sockets.get(stream);
    if (!socket) throw new DiskError('this connection takes no TLS');
    const timer = setTimeout(() => socket.destroy(), HANDSHAKE);
    try {
      // An address that is none of a host has a certificate of this one.
      const host = socket.remoteAddress ?? 'localhost';
      const secured =
        end === 'client'
          ? securedClient(socket, tls, hosts.get(stream) ?? host, 'the server', admitted)
          : securedServer(socket, certificates(tls, 'server', admitted), tls.verifyPeer, 'the server');
      return streamOf(await secured);
    } finally {
      clearTimeout(timer);
    }
  },
  async listen(at, accept) {
    const server = createServer((socket) => accept(streamOf(socket)));
    server.listen('path' in at ? { path: at.path } : { host: at.host, port: at.port });
    await once(server, 'listening');
    return () => void server.close();
  },
});
