// WebSockets of the page's server: a request of node:http taken over by rpc's WebSocket, with data held back at both ends. RFC 6455.

import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from '../../rpc/websocket.ts';

/** Bytes that may wait for a browser that does not read. */
const unreadMax = 4 << 20;

export interface WebChannel {
  /** Sends a message; resolves when more is welcome. */
  send(message: Uint8Array | string): Promise<void>;
  close(): void;
  /** Resolves when it is over. */
  readonly closed: Promise<void>;
}

/** Takes a request over. `data` gets the payload in order, and the browser waits while it does. */
export function webChannel(
  request: IncomingMessage,
  socket: Duplex,
  head: Uint8Array,
  data: (bytes: Uint8Array) => Promise<void> | void,
): WebChannel {
  const over = Promise.withResolvers<void>();
  let work: Promise<void> = Promise.resolve();
  let waiting = 0;
  const drains: (() => void)[] = [];
  const wake = (): void => {
    for (const resolve of drains.splice(0)) resolve();
  };
  const write = (bytes: Uint8Array): boolean => {
    if (socket.destroyed || !socket.writable) return true;
    if (socket.writableLength > unreadMax) {
      socket.destroy();
      return true;
    }
    return socket.write(bytes);
  };
  const ws = new WebSocketServer({
    sha1: (text) => createHash('sha1').update(text).digest('base64'),
    protocols: ['binary'],
    send: write,
    data: (bytes) => {
      waiting++;
      if (waiting === 1) socket.pause();
      work = work
        .then(() => data(bytes))
        .catch(() => void socket.destroy())
        .then(() => {
          waiting--;
          if (waiting === 0) socket.resume();
        });
    },
    end: () => socket.end(),
  });
  socket.on('error', () => {});
  socket.on('drain', wake);
  socket.on('end', () => socket.end());
  socket.on('close', () => {
    wake();
    over.resolve();
  });
  socket.on('data', (bytes: Uint8Array) => ws.receive(bytes));
  // The handshake is the WebSocket's own: it gets the request as it came.
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`];
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) lines.push(`${request.rawHeaders[i]}: ${request.rawHeaders[i + 1]}`);
  ws.receive(Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'));
  if (head.length > 0) ws.receive(head);
  return {
    closed: over.promise,
    send(message) {
      const text = typeof message === 'string';
      const room = write(WebSocketServer.frame(text ? new TextEncoder().encode(message) : message, text ? 1 : 2));
      return room || socket.destroyed ? Promise.resolve() : new Promise((resolve) => drains.push(resolve));
    },
    close() {
      if (!socket.destroyed && socket.writable) {
        write(WebSocketServer.frame(Uint8Array.of(0x03, 0xe8), 8));
        socket.end();
      }
      // A browser that never answers must not hold the socket for ever.
      setTimeout(() => socket.destroy(), 1000).unref();
    },
  };
}
