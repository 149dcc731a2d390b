// Streams and listeners of the network back-ends on node:net, for TCP and unix sockets.
import { unlink } from 'node:fs/promises';
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import type { HostAddress, HostFailure, HostListener, HostStream, StreamEvents, StreamPeer } from '../../net/host.ts';

const failures: Readonly<Record<string, HostFailure>> = {
  ECONNREFUSED: 'refused',
  ENOENT: 'refused',
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
  EADDRNOTAVAIL: 'unreachable',
  EAFNOSUPPORT: 'unreachable',
  ENOTFOUND: 'unreachable',
  ETIMEDOUT: 'timeout',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
};

const codeOf = (e: unknown): string => (e instanceof Error && 'code' in e && typeof e.code === 'string' ? e.code : '');
const messageOf = (e: unknown): string => (e instanceof Error ? e.message : String(e));
const nameOf = (a: HostAddress): string => ('path' in a ? a.path : `${a.host}:${a.port}`);

/** Plain bytes: a Buffer's `slice` would share memory with what the core takes for a copy. */
const plain = (b: Buffer): Uint8Array => new Uint8Array(b.buffer, b.byteOffset, b.length);

/** Sockets that nobody holds any more, and that still have bytes of theirs to send. */
export class Leaving {
  readonly #sockets = new Set<Socket>();

  /** Lets a socket go once its bytes are with the host's kernel. */
  add(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    // What the other side says is not heard any more, but unread it would reset the connection.
    socket.resume();
    socket.destroySoon();
  }
  /** Resolves when all are gone; those that are left after `ms` are cut off. */
  async drained(ms: number): Promise<void> {
    const all = [...this.#sockets].map((s) => new Promise<void>((resolve) => void s.once('close', resolve)));
    const late = setTimeout(() => {
      for (const s of this.#sockets) s.destroy();
    }, ms);
    await Promise.all(all);
    clearTimeout(late);
  }
}

/** The core's view of a socket. `events` may come later, for an accepted socket that is still paused. */
class NodeStream implements HostStream {
  readonly #socket: Socket;
  #events: StreamEvents | undefined;
  #failure: HostFailure | undefined;
  #over = false;
  readonly #leaving: Leaving | undefined;

  constructor(socket: Socket, leaving: Leaving | undefined) {
    this.#socket = socket;
    this.#leaving = leaving;
    socket.on('error', (e) => {
      this.#failure = failures[codeOf(e)] ?? 'other';
    });
    socket.on('close', () => {
      if (!this.#over) this.#events?.closed(this.#failure);
      this.#over = true;
    });
  }

  attach(events: StreamEvents): void {
    this.#events = events;
    this.#socket.on('connect', () => this.#over || events.connected());
    this.#socket.on('data', (b) => this.#over || typeof b === 'string' || events.data(plain(b)));
    this.#socket.on('end', () => this.#over || events.end());
  }

  write(bytes: Uint8Array): void {
    if (this.#over || !this.#socket.writable) return;
    this.#socket.write(bytes, (e) => {
      if (!this.#over && !e) this.#events?.written(bytes.length);
    });
  }

  end(): void {
    if (!this.#over) this.#socket.end();
  }

  reset(): void {
    if (this.#over) return;
    this.#over = true;
    // A socket that still connects would connect first, to reset then; a unix socket knows no reset; what was sent before its end still goes.
    const { connecting, remoteFamily, writableEnded, writableFinished } = this.#socket;
    if (writableEnded && !writableFinished && !connecting && this.#leaving) return this.#leaving.add(this.#socket);
    if (connecting || remoteFamily === undefined || writableEnded) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#over) this.#socket.resume();
  }
}

/** Opens a stream; see `HostSockets.connect`. With `leaving`, a stream that is reset after its end sends its bytes first. */
export function connectStream(to: HostAddress, events: StreamEvents, leaving?: Leaving): HostStream {
  const socket =
    'path' in to ? connect({ path: to.path, allowHalfOpen: true }) : connect({ ...to, allowHalfOpen: true, noDelay: true });
  const stream = new NodeStream(socket, leaving);
  stream.attach(events);
  return stream;
}

/** Whether nobody listens at a unix socket that is there: its owner ended without removing it. */
const isStale = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = connect({ path });
    probe.on('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.on('error', (e) => resolve(codeOf(e) === 'ECONNREFUSED'));
  });

const listening = (server: Server, at: ListenOptions): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(at, () => {
      server.off('error', reject);
      resolve();
    });
  });

/** Listens; see `HostSockets.listen`. A unix socket that nobody listens at any more is replaced. */
export async function listenStream(
  at: HostAddress,
  accept: (stream: HostStream, peer: StreamPeer) => StreamEvents | undefined,
  leaving?: Leaving,
): Promise<HostListener> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
    const stream = new NodeStream(socket, leaving);
    const events = accept(stream, { address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 });
    if (events === undefined) stream.reset();
    else stream.attach(events);
  });
  try {
    try {
      await listening(server, 'path' in at ? { path: at.path } : { ...at, exclusive: true });
    } catch (e) {
      if (!('path' in at) || codeOf(e) !== 'EADDRINUSE' || !(await isStale(at.path))) throw e;
      await unlink(at.path);
      await listening(server, { path: at.path });
    }
  } catch (e) {
    throw new Error(`Cannot listen at ${nameOf(at)}: ${messageOf(e)}`);
  }
  // Out of descriptors: this client is lost, the listener stays.
  server.on('error', () => {});
  const address = server.address();
  return {
    port: address !== null && typeof address === 'object' ? address.port : 0,
    close: () => void server.close(),
  };
}
