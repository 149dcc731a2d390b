// Network back-ends by id: `-netdev` and netdev_add, over the host's sockets. QEMU 7.2 "QEMU QMP Reference Manual", qapi/net.json.

import type { NetBackend } from '../net/backend.ts';
import type { HostAddress, HostSockets } from '../net/host.ts';
import { createDgramNet, createStreamNet } from '../net/socket.ts';
import { createUserNet } from '../net/user.ts';
import { parseUserNet } from '../net/user-options.ts';
import { QmpError } from '../rpc/qmp/error.ts';
import type { Json } from '../rpc/qmp/json.ts';
import { isObject } from '../rpc/qmp/json.ts';
import { array, bool, int, object, optional, str, union } from '../rpc/qmp/schema.ts';
import { validId } from './qom/user-objects.ts';

const texts = array(object('String', { str }));
const inet = {
  host: str,
  port: str,
  numeric: optional(bool),
  to: optional(int),
  ipv4: optional(bool),
  ipv6: optional(bool),
} as const;
const address = union('SocketAddress', {}, 'type', { inet, unix: { path: str }, fd: { str } });

/** What `-netdev` and netdev_add take. */
export const netdevOptions = union('Netdev', { id: str }, 'type', {
  user: {
    hostname: optional(str),
    restrict: optional(bool),
    ipv4: optional(bool),
    ipv6: optional(bool),
    net: optional(str),
    host: optional(str),
    bootfile: optional(str),
    dhcpstart: optional(str),
    dns: optional(str),
    dnssearch: optional(texts),
    domainname: optional(str),
    'ipv6-prefix': optional(str),
    'ipv6-prefixlen': optional(int),
    'ipv6-host': optional(str),
    'ipv6-dns': optional(str),
    hostfwd: optional(texts),
    guestfwd: optional(texts),
    'tftp-server-name': optional(str),
    tftp: optional(str),
  },
  socket: {
    fd: optional(str),
    listen: optional(str),
    connect: optional(str),
    mcast: optional(str),
    localaddr: optional(str),
    udp: optional(str),
  },
  stream: { addr: address, server: optional(bool), reconnect: optional(int) },
  dgram: { local: optional(address), remote: optional(address) },
  tap: {
    ifname: optional(str),
    fd: optional(str),
    fds: optional(str),
    script: optional(str),
    downscript: optional(str),
    br: optional(str),
    helper: optional(str),
    sndbuf: optional(int),
    vnet_hdr: optional(bool),
    vhost: optional(bool),
    vhostfd: optional(str),
    vhostforce: optional(bool),
    queues: optional(int),
    'poll-us': optional(int),
  },
});

/** Frames through a cable that can be pulled. */
export class Cable implements NetBackend {
  readonly id: string;
  readonly type: string;
  /** As `info network` shows it. */
  readonly info: string;
  receive: (frame: Uint8Array) => void = () => {};
  up = true;
  /** Frames and their bytes that went through, as the guest sees them. Frames that a card sends as one for many count as one. */
  readonly counters = { 'rx-bytes': 0, 'rx-packets': 0, 'tx-bytes': 0, 'tx-packets': 0 };
  readonly #below: NetBackend;

  constructor(id: string, type: string, info: string, below: NetBackend) {
    this.id = id;
    this.type = type;
    this.info = info;
    this.#below = below;
    below.receive = (frame) => {
      if (!this.up) return;
      this.counters['rx-bytes'] += frame.length;
      this.counters['rx-packets']++;
      this.receive(frame);
    };
  }
  send(frame: Uint8Array): void {
    if (!this.up) return;
    this.counters['tx-bytes'] += frame.length;
    this.counters['tx-packets']++;
    this.#below.send(frame);
  }
  close(): void {
    this.#below.close();
  }
}

/** A tap device by its descriptor or name; absent where the host has none. */
export type OpenTap = (o: { readonly fd?: number; readonly ifname?: string }) => NetBackend;

export interface NetdevHost {
  readonly sockets: HostSockets;
  readonly tap?: OpenTap;
  readonly namedFd: (name: string) => number | undefined;
}

/** `host:port`, the host may be left out. */
function place(text: string): { readonly host: string; readonly port: number } {
  const at = text.lastIndexOf(':');
  const port = Number(text.slice(at + 1));
  if (at < 0 || !/^\d+$/.test(text.slice(at + 1)) || port > 65535) throw new QmpError(`'${text}': accepted is HOST:PORT`);
  return { host: text.slice(0, at), port };
}
function hostAddress(a: Readonly<Record<string, unknown>>): HostAddress {
  if (a['type'] === 'unix') return { path: String(a['path']) };
  if (a['type'] === 'inet') return { host: String(a['host']), port: Number(a['port']) };
  throw new QmpError("netdev: addr of type 'fd' is not supported");
}
function udpAddress(a: Readonly<Record<string, unknown>> | undefined): { host: string; port: number } | undefined {
  if (!a) return undefined;
  if (a['type'] !== 'inet') throw new QmpError("netdev dgram: accepted are addresses of type 'inet'");
  return { host: String(a['host']), port: Number(a['port']) };
}

/**
 * Opens one. `given` is JSON, or the pairs of a command line as text.
 * @throws QmpError (rejects)
 */
export async function openNetdev(given: { readonly [name: string]: Json }, host: NetdevHost): Promise<Cable> {
  const checked = netdevOptions.check(given, '') as Readonly<Record<string, unknown>> & { id: string; type: string };
  const { id, type, ...o } = checked;
  if (!validId(id)) throw new QmpError("Parameter 'id' expects an identifier");
  const { backend, ready, info } = open(type, o, host);
  try {
    await ready;
  } catch (error) {
    backend.close();
    throw new QmpError(error instanceof Error ? error.message : String(error));
  }
  return new Cable(id, type, info, backend);
}

type Opened = { readonly backend: NetBackend; readonly ready?: Promise<unknown>; readonly info: string };

function open(type: string, o: Readonly<Record<string, unknown>>, host: NetdevHost): Opened {
  switch (type) {
    case 'user': {
      const options = parseUserNet(pairs(o));
      const made = createUserNet(options, host.sockets);
      const net = options.ipv4 ? `net=${options.ipv4.network.join('.')},` : '';
      return { backend: made, ready: made.ready, info: `${net}restrict=${options.restrict ? 'on' : 'off'}` };
    }
    case 'socket': {
      const text = (name: string): string | undefined => o[name] as string | undefined;
      const given = ['fd', 'listen', 'connect', 'mcast', 'udp'].filter((name) => o[name] !== undefined);
      if (given.length !== 1) throw new QmpError('exactly one of listen=, connect=, mcast= or udp= is required');
      const [kind] = given;
      if (kind === 'fd') throw new QmpError('netdev socket: fd= is not supported');
      if (kind === 'listen' || kind === 'connect') {
        const at = place(text(kind)!);
        const made = createStreamNet(
          { address: { host: at.host || '0.0.0.0', port: at.port }, server: kind === 'listen' },
          host.sockets,
        );
        return { backend: made, ready: made.ready, info: `socket: ${kind}=${text(kind)}` };
      }
      const local = text('localaddr');
      if (kind === 'mcast') {
        const made = createDgramNet(
          { remote: place(text('mcast')!), multicast: true, ...(local === undefined ? {} : { local: { host: local, port: 0 } }) },
          host.sockets,
        );
        return { backend: made, ready: made.ready, info: `socket: mcast=${text('mcast')}` };
      }
      if (local === undefined) throw new QmpError('localaddr= is mandatory with udp=');
      const made = createDgramNet({ remote: place(text('udp')!), local: place(local) }, host.sockets);
      return { backend: made, ready: made.ready, info: `socket: udp=${text('udp')}` };
    }
    case 'stream': {
      const addr = o['addr'] as Readonly<Record<string, unknown>>;
      const reconnect = Number(o['reconnect'] ?? 0);
      const made = createStreamNet(
        { address: hostAddress(addr), server: o['server'] === true, ...(reconnect > 0 ? { reconnect: reconnect * 1000 } : {}) },
        host.sockets,
      );
      return { backend: made, ready: made.ready, info: `stream: ${JSON.stringify(addr)}` };
    }
    case 'dgram': {
      const local = udpAddress(o['local'] as Readonly<Record<string, unknown>> | undefined);
      const remote = udpAddress(o['remote'] as Readonly<Record<string, unknown>> | undefined);
      if (!remote) throw new QmpError('netdev dgram: remote= is required');
      const multicast = /^(22[4-9]|23\d)\./.test(remote.host);
      const made = createDgramNet({ remote, multicast, ...(local ? { local } : {}) }, host.sockets);
      return { backend: made, ready: made.ready, info: `dgram: ${remote.host}:${remote.port}` };
    }
    case 'tap': {
      if (!host.tap) throw new QmpError('netdev tap: this host has no tap devices');
      for (const name of ['fds', 'helper', 'br', 'vhost', 'vhostforce'])
        if (o[name] !== undefined && o[name] !== false) throw new QmpError(`netdev tap: ${name}= is not supported`);
      for (const name of ['script', 'downscript'])
        if (o[name] !== undefined && o[name] !== 'no') throw new QmpError(`netdev tap: ${name}= is not supported; accepted: no`);
      const fd = o['fd'] as string | undefined;
      const number = fd === undefined ? undefined : /^\d+$/.test(fd) ? Number(fd) : host.namedFd(fd);
      if (fd !== undefined && number === undefined) throw new QmpError(`File descriptor named '${fd}' has not been found`);
      const ifname = o['ifname'] as string | undefined;
      let backend: NetBackend;
      try {
        backend = host.tap({ ...(number === undefined ? {} : { fd: number }), ...(ifname === undefined ? {} : { ifname }) });
      } catch (error) {
        throw new QmpError(`netdev tap: ${(error as Error).message}`);
      }
      return { backend, info: number === undefined ? `ifname=${ifname ?? 'tap0'}` : `fd=${number}` };
    }
  }
  throw new QmpError(`netdev ${type}: not supported`);
}

/** The options as the command line has them. */
function pairs(o: Readonly<Record<string, unknown>>): [string, string][] {
  return Object.entries(o).flatMap(([key, value]): [string, string][] => {
    if (value === undefined) return [];
    if (Array.isArray(value)) return value.map((v) => [key, String((v as { str: string }).str)]);
    return [[key === 'ipv6-prefix' ? 'ipv6-prefix' : key, typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value)]];
  });
}

/** A command line's pairs as JSON: keys that may come several times are lists of `{str}`. */
export function netdevJson(text: string): { readonly [name: string]: Json } {
  const out: Record<string, Json> = {};
  const parts = text.replaceAll(',,', '\0').split(',');
  parts.forEach((part, n) => {
    const equals = part.indexOf('=');
    const key = equals >= 0 ? part.slice(0, equals) : n === 0 ? 'type' : part;
    const value = (equals >= 0 ? part.slice(equals + 1) : n === 0 ? part : 'on').replaceAll('\0', ',');
    if (['hostfwd', 'guestfwd', 'dnssearch'].includes(key)) {
      const list = Array.isArray(out[key]) ? (out[key] as readonly Json[]) : [];
      out[key] = [...list, { str: value }];
    } else nest(out, key.split('.'), value);
  });
  return netdevOptions.coerce(out) as { readonly [name: string]: Json };
}
function nest(out: Record<string, Json>, path: readonly string[], value: string): void {
  const [first = '', ...rest] = path;
  if (rest.length === 0) out[first] = value;
  else {
    const inner = isObject(out[first]) ? { ...out[first] } : {};
    nest(inner as Record<string, Json>, rest, value);
    out[first] = inner;
  }
}
