// Character devices on sockets: servers that take one client at a time, clients that come back, Telnet, descriptors that were inherited.

import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { CharBackend, CharEvents } from '../../chardev/chardev.ts';
import { addressText, type SocketOptions } from '../../chardev/options.ts';
import { TelnetInput, telnetGreeting, telnetOutput } from '../../chardev/telnet.ts';
import { readWithFds } from './socket-fds.ts';

/** Opens it: listens, or connects (once, where it does not try again). Rejects when that fails. */
export async function openSocket(
  o: SocketOptions,
  events: CharEvents,
  namedFd: (name: string) => number | undefined,
): Promise<CharBackend> {
  const line = new Line(o, events);
  if (o.server) await listen(o, line, namedFd);
  else await dial(o, line, namedFd);
  return line;
}

/** One socket device, whoever is connected. */
class Line implements CharBackend {
  readonly #o: SocketOptions;
  readonly #events: CharEvents;
  #socket: Socket | undefined;
  #fds: (() => number | undefined) | undefined;
  /** Ends the server, or stops the attempts of a client. */
  end: () => void = () => {};
  /** The address after binding. */
  bound: SocketOptions['address'];
  closed = false;
  /** Called when the connection is over. */
  lost: () => void = () => {};

  constructor(o: SocketOptions, events: CharEvents) {
    this.#o = o;
    this.#events = events;
    this.bound = o.address;
  }
  get connected(): boolean {
    return this.#socket !== undefined;
  }
  get filename(): string {
    const text = addressText({ ...this.#o, address: this.bound });
    return this.#o.server && !this.connected ? `disconnected:${text}` : text;
  }
  /** Takes a connection that does not read yet into use. */
  use(socket: Socket): void {
    this.#socket = socket;
    const telnet = this.#o.telnet ? new TelnetInput() : undefined;
    const receive = (bytes: Uint8Array): void | Promise<void> => this.#events.receive(telnet ? telnet.push(bytes) : bytes);
    let over = false;
    const gone = (): void => {
      if (over) return;
      over = true;
      socket.destroy();
      this.#socket = undefined;
      this.#fds = undefined;
      this.#events.connected(false);
      this.lost();
    };
    socket.on('error', gone);
    socket.on('close', gone);
    if (this.#o.address.kind === 'inet') socket.setNoDelay(true);
    if (telnet && this.#o.server) socket.write(Uint8Array.from(telnetGreeting));
    this.#events.connected(true);
    // Descriptors come over unix sockets only, and only to those who read with recvmsg.
    const reader = this.#o.address.kind === 'inet' ? undefined : readWithFds(socket, receive, gone);
    if (reader) {
      this.#fds = reader.takeFd;
      return;
    }
    socket.on('end', gone);
    socket.on('data', (bytes: Uint8Array) => {
      const taken = receive(bytes);
      if (!taken) return;
      socket.pause();
      void taken.then(() => socket.resume());
    });
    socket.resume();
  }
  write(bytes: Uint8Array): void | Promise<void> {
    const socket = this.#socket;
    if (!socket || socket.destroyed) return;
    const all = this.#o.telnet ? telnetOutput(bytes) : bytes;
    if (socket.write(all.slice())) return;
    return new Promise((resolve) => {
      socket.once('drain', resolve);
      socket.once('close', () => resolve());
    });
  }
  takeFd(): number | undefined {
    return this.#fds?.();
  }
  close(): void {
    this.closed = true;
    this.end();
    this.#socket?.end();
    const socket = this.#socket;
    setImmediate(() => socket?.destroy());
  }
}

async function listen(o: SocketOptions, line: Line, namedFd: (name: string) => number | undefined): Promise<void> {
  const { address } = o;
  // Clients that come while one is there wait, unread, until it is gone.
  const waiting: Socket[] = [];
  let first: () => void = () => {};
  const next = (): void => {
    const socket = waiting.shift();
    if (!socket) return;
    line.use(socket);
    first();
  };
  const server: Server = createServer({ pauseOnConnect: true, allowHalfOpen: false }, (socket) => {
    socket.on('error', () => {});
    waiting.push(socket);
    if (!line.connected) next();
  });
  line.lost = next;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => resolve());
    if (address.kind === 'unix') {
      if (!address.path.startsWith('\0')) rmSync(address.path, { force: true });
      server.listen(address.path);
    } else if (address.kind === 'fd') server.listen({ fd: descriptor(address.fd, namedFd) });
    else server.listen({ port: Number(address.port), host: address.host || (address.family === 4 ? '0.0.0.0' : '::') });
  });
  server.on('error', () => {});
  const at = server.address();
  if (typeof at === 'object' && at !== null) line.bound = { kind: 'inet', host: at.address, port: String(at.port) };
  else if (address.kind === 'fd' && typeof at === 'string') line.bound = { kind: 'unix', path: at };
  line.end = () => {
    server.close();
    for (const socket of waiting) socket.destroy();
  };
  if (o.wait) await new Promise<void>((resolve) => (first = resolve));
}

async function dial(o: SocketOptions, line: Line, namedFd: (name: string) => number | undefined): Promise<void> {
  const { address } = o;
  const { Socket: NetSocket } = await import('node:net');
  const attempt = (): Promise<void> =>
    new Promise<void>((resolve, reject) => {
      if (address.kind === 'fd') {
        line.use(new NetSocket({ fd: descriptor(address.fd, namedFd), readable: true, writable: true }));
        resolve();
        return;
      }
      const socket =
        address.kind === 'unix'
          ? connect({ path: address.path })
          : connect({
              host: address.host || 'localhost',
              port: Number(address.port),
              ...(address.family ? { family: address.family } : {}),
            });
      socket.pause();
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        line.use(socket);
        resolve();
      });
    });
  let timer: NodeJS.Timeout | undefined;
  line.end = () => clearTimeout(timer);
  if (o.reconnect === 0) return attempt();
  const again = (): void => {
    if (line.closed) return;
    timer = setTimeout(() => void attempt().catch(again), o.reconnect * 1000);
  };
  line.lost = again;
  await attempt().catch(again);
}

function descriptor(text: string, namedFd: (name: string) => number | undefined): number {
  const fd = /^\d+$/.test(text) ? Number(text) : namedFd(text);
  if (fd === undefined) throw new Error(`there is no file descriptor named ${text}`);
  return fd;
}
