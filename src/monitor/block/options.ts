// What `-blockdev` and blockdev-add take: a node of the block graph. QEMU 7.2 "QEMU QMP Reference Manual", qapi/block-core.json.

import { isHttp } from '../../disk/http/file.ts';
import { type NbdAddress, parseNbd } from '../../disk/nbd/protocol.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import {
  alternate,
  bool,
  enumeration,
  int,
  type Members,
  nullValue,
  object,
  optional,
  type Schema,
  str,
  union,
} from '../../rpc/qmp/schema.ts';

/** A schema that is looked up when it is used: nodes hold nodes. */
const later = (label: string, get: () => Schema<unknown>): Schema<Json> => ({
  label,
  check: (value, where) => get().check(value, where) as Json,
  describe: (d) => get().describe(d),
  coerce: (value) => get().coerce(value),
});

const inner = later('object', () => blockdevOptions);
/** The name of a node, or one described in its place. */
export const blockdevRef = alternate('BlockdevRef', { string: str, object: inner });
const blockdevRefOrNull = alternate('BlockdevRefOrNull', { string: str, object: inner, null: nullValue });

const base = {
  'node-name': optional(str),
  discard: optional(enumeration('BlockdevDiscardOptions', ['ignore', 'unmap'])),
  cache: optional(object('BlockdevCacheOptions', { direct: optional(bool), 'no-flush': optional(bool) })),
  'read-only': optional(bool),
  'auto-read-only': optional(bool),
  'force-share': optional(bool),
  'detect-zeroes': optional(enumeration('BlockdevDetectZeroesOptions', ['off', 'on', 'unmap'])),
} as const;

const file = {
  filename: str,
  locking: optional(enumeration('OnOffAuto', ['auto', 'on', 'off'])),
  aio: optional(enumeration('BlockdevAioOptions', ['threads', 'native', 'io_uring'])),
  'aio-max-batch': optional(int),
  'drop-cache': optional(bool),
} as const;

const http = {
  url: str,
  readahead: optional(int),
  timeout: optional(int),
  username: optional(str),
  'password-secret': optional(str),
  cookie: optional(str),
  'cookie-secret': optional(str),
} as const;

/** Where an NBD server is. */
const serverAddress = union('SocketAddress', {}, 'type', { inet: { host: str, port: str }, unix: { path: str } });

const drivers: Readonly<Record<string, Members>> = {
  file,
  host_device: file,
  http,
  https: { ...http, sslverify: optional(bool) },
  nbd: {
    server: serverAddress,
    export: optional(str),
    'tls-creds': optional(str),
    'tls-hostname': optional(str),
    'reconnect-delay': optional(int),
    'open-timeout': optional(int),
  },
  'null-co': { size: optional(int), 'read-zeroes': optional(bool) },
  raw: { file: blockdevRef, offset: optional(int), size: optional(int) },
  qcow2: {
    file: blockdevRef,
    backing: optional(blockdevRefOrNull),
    'lazy-refcounts': optional(bool),
    'pass-discard-request': optional(bool),
    'pass-discard-snapshot': optional(bool),
    'pass-discard-other': optional(bool),
    'cache-size': optional(int),
    'l2-cache-size': optional(int),
    'l2-cache-entry-size': optional(int),
    'refcount-cache-size': optional(int),
    'cache-clean-interval': optional(int),
  },
};

export const blockdevOptions = union('BlockdevOptions', base, 'driver', drivers, {
  file: ['dynamic-auto-read-only'],
  host_device: ['dynamic-auto-read-only'],
});
export const blockdevDrivers: readonly string[] = Object.keys(drivers);

/** What is known of a node from its description. */
export interface NodeOptions {
  readonly driver: string;
  readonly 'node-name'?: string;
  readonly 'read-only'?: boolean;
  readonly 'auto-read-only'?: boolean;
  readonly discard?: 'ignore' | 'unmap';
  readonly 'detect-zeroes'?: 'off' | 'on' | 'unmap';
  readonly cache?: { readonly direct?: boolean; readonly 'no-flush'?: boolean };
  readonly 'force-share'?: boolean;
  readonly filename?: string;
  readonly server?:
    | { readonly type: 'inet'; readonly host: string; readonly port: string }
    | { readonly type: 'unix'; readonly path: string };
  readonly export?: string;
  readonly 'tls-creds'?: string;
  readonly 'tls-hostname'?: string;
  readonly 'reconnect-delay'?: number;
  readonly 'open-timeout'?: number;
  readonly url?: string;
  readonly readahead?: number;
  readonly timeout?: number;
  readonly username?: string;
  readonly 'password-secret'?: string;
  readonly cookie?: string;
  readonly 'cookie-secret'?: string;
  readonly sslverify?: boolean;
  readonly size?: number;
  readonly offset?: number;
  readonly file?: Json;
  readonly backing?: Json;
}

/** A description, checked. @throws QmpError */
export const nodeOptions = (given: Json): NodeOptions => blockdevOptions.check(given, '') as unknown as NodeOptions;

/** The address that a description or a monitor gives. @throws Error for ports that are none */
export function addressOf(server: NonNullable<NodeOptions['server']>): NbdAddress {
  if (server.type === 'unix') return { path: server.path };
  const port = Number(server.port);
  if (!/^\d+$/.test(server.port) || port > 65535)
    throw new Error(`Cannot use port '${server.port}': accepted are numbers up to 65535`);
  return { host: server.host, port };
}

/** A file name or URL as a description of a protocol node. */
export function fileOptions(name: string): { readonly [name: string]: Json } {
  if (isHttp(name)) return { driver: /^https:/i.test(name) ? 'https' : 'http', url: name };
  const nbd = parseNbd(name);
  if (nbd) {
    const { address: a } = nbd;
    const server: Json = 'path' in a ? { type: 'unix', path: a.path } : { type: 'inet', host: a.host, port: String(a.port) };
    return { driver: 'nbd', server, export: nbd.name };
  }
  const plain = name.startsWith('file:') ? name.slice('file:'.length) : name;
  return { driver: 'file', filename: plain };
}
