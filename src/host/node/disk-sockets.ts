// Sockets of Node for disks that are elsewhere, and for those that are served (disk/nbd/protocol.ts).

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { NbdSockets, NbdStream } from '../../disk/nbd/protocol.ts';

function streamOf(socket: Socket): NbdStream {
  socket.setNoDelay(true);
  socket.on('error', () => {});
  return {
    input: socket,
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
}

export const diskSockets: NbdSockets = {
  async connect(to) {
    const socket = connect('path' in to ? { path: to.path } : { host: to.host, port: to.port });
    await once(socket, 'connect');
    return streamOf(socket);
  },
  async listen(at, accept) {
    const server = createServer((socket) => accept(streamOf(socket)));
    server.listen('path' in at ? { path: at.path } : { host: at.host, port: at.port });
    await once(server, 'listening');
    return () => void server.close();
  },
};
