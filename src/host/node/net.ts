// The host's sockets, resolvers, clock and entropy for the network back-ends, on Node.
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import type { HostSockets, HostUdp, UdpEvents, UdpOptions } from '../../net/host.ts';
import { fileBelow } from './below.ts';
import { connectStream, Leaving, listenStream } from './net-stream.ts';

/** ms for which the list of resolvers is good. */
const resolverAge = 5000;

/** `1.2.3.4`, `1.2.3.4:53`, `2001:db8::1` or `[2001:db8::1]:53`, as Node lists resolvers. */
export function parseResolver(text: string): { readonly address: string; readonly port: number } {
  const m = /^\[(.*)\]:(\d+)$/.exec(text) ?? /^([^:]*):(\d+)$/.exec(text);
  return m === null ? { address: text, port: 53 } : { address: m[1], port: Number(m[2]) };
}

/** A datagram socket; see `HostSockets.udp`. */
export function openUdp(options: UdpOptions, events: UdpEvents): HostUdp {
  const { family, address, port = 0, multicast } = options;
  const socket = createSocket({
    type: family === 4 ? 'udp4' : 'udp6',
    reuseAddr: multicast !== undefined,
    ipv6Only: family === 6 && port === 0,
  });
  let open = true;
  const close = (): void => {
    if (open) socket.close();
    open = false;
  };
  socket.on('error', (e) => {
    if (!open) return;
    close();
    events.failed(e.message);
  });
  socket.on('message', (b, from) => {
    if (open) events.message(new Uint8Array(b.buffer, b.byteOffset, b.length), from.address, from.port);
  });
  socket.on('listening', () => {
    if (!open) return;
    if (multicast !== undefined) {
      try {
        socket.addMembership(multicast, options.interface);
        socket.setMulticastLoopback(true);
        if (options.interface !== undefined) socket.setMulticastInterface(options.interface);
      } catch (e) {
        close();
        return events.failed(e instanceof Error ? e.message : String(e));
      }
    }
    events.bound(socket.address().port);
  });
  socket.bind({ address, port, exclusive: multicast === undefined });
  return {
    send(bytes, to, toPort) {
      // With a callback, what goes wrong is no event: the datagram is lost.
      if (open && toPort > 0 && toPort < 65_536) socket.send(bytes, toPort, to, () => {});
    },
    close,
  };
}

/**
 * What `createUserNet` and the socket back-ends use of this process. `resolvers`: instead of the system's. `drained` resolves when the bytes of
 * streams that their owners had ended are with the kernel, or were cut off after so many milliseconds.
 */
export function nodeSockets(resolvers?: readonly string[]): HostSockets & { drained(ms: number): Promise<void> } {
  const leaving = new Leaving();
  let known = { at: Number.NEGATIVE_INFINITY, list: (resolvers ?? []).map(parseResolver) };
  return {
    connect: (to, events) => connectStream(to, events, leaving),
    listen: (at, accept) => listenStream(at, accept, leaving),
    drained: (ms) => leaving.drained(ms),
    udp: openUdp,
    file: fileBelow,
    resolvers() {
      const now = performance.now();
      // A new resolver reads the system's configuration, which changes when the host changes networks.
      if (resolvers === undefined && now - known.at > resolverAge)
        known = { at: now, list: new (process.getBuiltinModule('node:dns').Resolver)().getServers().map(parseResolver) };
      return known.list;
    },
    random(count) {
      return new Uint8Array(randomBytes(count));
    },
    now: () => performance.now(),
    after(ms, action) {
      const t = setTimeout(action, ms).unref();
      return () => clearTimeout(t);
    },
  };
}
