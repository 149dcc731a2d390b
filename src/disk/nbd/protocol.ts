// Numbers, addresses and reading of the network block device protocol. NBD "The NBD protocol" (doc/proto.md), fixed newstyle.

import { DiskError } from '../block.ts';

/** Where a server is or listens. */
export type NbdAddress = { readonly path: string } | { readonly host: string; readonly port: number };

/** A connection, as `rpc/transport.ts` has it. */
export interface NbdStream {
  readonly input: AsyncIterable<Uint8Array>;
  write(bytes: Uint8Array): Promise<void> | void;
  close(): void;
}

/** TLS by certificates in files of QEMU's names: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, `client-…`. */
export interface NbdTls {
  readonly dir: string;
  /** Who connects has to have a certificate of the authority, too. */
  readonly verifyPeer: boolean;
  /** The name that the server's certificate must have; the address's where it is absent. */
  readonly hostname?: string | undefined;
}

/** What NBD needs of the host. */
export interface NbdSockets {
  /** The connection under TLS, which begins with the next byte; the old one is not used any more, nor is its input being read. Rejects with one line. */
  secure?(stream: NbdStream, end: 'client' | 'server', tls: NbdTls): Promise<NbdStream>;
  /** Rejects with one line. */
  connect(to: NbdAddress): Promise<NbdStream>;
  /** Resolves with how to stop listening, which leaves connections as they are. */
  listen(at: NbdAddress, accept: (stream: NbdStream) => void): Promise<() => void>;
}

export const DEFAULT_PORT = 10_809;
export const magic = {
  hello: 0x4e42444d41474943n,
  option: 0x49484156454f5054n,
  optionReply: 0x3e889045565a9n,
  request: 0x25609513,
  simple: 0x67446698,
  structured: 0x668e33ef,
} as const;
export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structured: 8,
  listMeta: 9,
  setMeta: 10,
} as const;
export const reply = {
  ack: 1,
  server: 2,
  info: 3,
  meta: 4,
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  tlsRequired: 0x80000005,
  unknown: 0x80000006,
} as const;
export const command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, zeroes: 6, status: 7 } as const;
export const flag = { has: 1, readOnly: 2, flush: 4, fua: 8, trim: 32, zeroes: 64, df: 128, multi: 256 } as const;
export const chunk = { none: 0, data: 1, hole: 2, status: 5, error: 0x8001 } as const;
export const errno = { perm: 1, io: 5, invalid: 22, noSpace: 28, unsupported: 95 } as const;
/** The meta context whose extents say where data is: bit 0 is a hole, bit 1 reads as zeros. */
export const ALLOCATION = 'base:allocation';
/** With a bitmap's name behind it, the context whose extents say what it has marked: bit 0. */
export const DIRTY_BITMAP = 'qemu:dirty-bitmap:';
/** Most bytes of one request. */
export const MAX_REQUEST = 32 << 20;

/** Big-endian fields one after another: `[bytes, value]`, or bytes as they are. */
export function pack(...fields: readonly (readonly [1 | 2 | 4 | 8, number | bigint] | Uint8Array)[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(fields.reduce((n, f) => n + (f instanceof Uint8Array ? f.length : f[0]), 0));
  const view = new DataView(out.buffer);
  let at = 0;
  for (const f of fields) {
    if (f instanceof Uint8Array) out.set(f, at);
    else if (f[0] === 8) view.setBigUint64(at, BigInt(f[1]));
    else if (f[0] === 4) view.setUint32(at, Number(f[1]));
    else if (f[0] === 2) view.setUint16(at, Number(f[1]));
    else view.setUint8(at, Number(f[1]));
    at += f instanceof Uint8Array ? f.length : f[0];
  }
  return out;
}

/** A view of all of some bytes. */
export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** Takes counted bytes from a connection. */
export class Taker {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #left: Uint8Array = new Uint8Array(0);

  constructor(stream: NbdStream) {
    this.#chunks = stream.input[Symbol.asyncIterator]();
  }
  /** Rejects when the connection ends first. */
  async take(count: number): Promise<Uint8Array> {
    const out = new Uint8Array(count);
    for (let at = 0; at < count; ) {
      if (this.#left.length === 0) {
        const next = await this.#chunks.next();
        if (next.done) throw new DiskError('the connection was closed');
        this.#left = next.value;
      }
      const part = this.#left.subarray(0, count - at);
      out.set(part, at);
      at += part.length;
      this.#left = this.#left.subarray(part.length);
    }
    return out;
  }
  /** Lets go of the connection. @throws DiskError (rejects) where the other side went ahead: what it said was not yet under TLS */
  async leave(): Promise<void> {
    await this.#chunks.return?.();
    if (this.#left.length > 0) throw new DiskError('the other side did not wait for TLS');
  }
}

/**
 * The address and export of `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`; undefined for other names.
 * @throws DiskError for what begins as one and is none
 */
export function parseNbd(name: string): { readonly address: NbdAddress; readonly name: string } | undefined {
  const wrong = `Cannot open ${name}: accepted are nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH`;
  const found = /^nbd(\+tcp|\+unix)?:\/\/([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/.exec(name);
  if (!found) {
    if (/^nbd(\+\w+)?:/.test(name)) throw new DiskError(wrong);
    return undefined;
  }
  const [, kind, authority = '', path = '', search = ''] = found;
  try {
    const exported = decodeURIComponent(path);
    if (kind === '+unix') {
      const socket = /^socket=(.+)$/.exec(search)?.[1];
      if (authority !== '' || socket === undefined) throw new DiskError(wrong);
      return { address: { path: decodeURIComponent(socket) }, name: exported };
    }
    const at = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(authority);
    const port = Number(at?.[3] ?? DEFAULT_PORT);
    if (!at || search !== '' || port < 1 || port > 65535) throw new DiskError(wrong);
    return { address: { host: at[1] ?? at[2]!, port }, name: exported };
  } catch {
    throw new DiskError(wrong);
  }
}

/** The URI of an export. */
export function nbdUri(address: NbdAddress, name: string): string {
  const plain = encodeURIComponent(name);
  if ('path' in address) return `nbd+unix:///${plain}?socket=${address.path}`;
  return `nbd://${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}/${plain}`;
}
