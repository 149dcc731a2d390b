// What a character device is, from the forms in which QEMU takes it: `-chardev socket,id=…`, `-serial tcp:…`, and chardev-add's JSON.
// QEMU 7.2 "System Emulation", section "Invocation", "Character device options"; qapi/char.json, qapi/sockets.json.

export type SocketAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'inet'; readonly host: string; readonly port: string; readonly family?: 4 | 6 }
  /** A descriptor that the process was started with, or the name of one that getfd brought. */
  | { readonly kind: 'fd'; readonly fd: string };

export interface SocketOptions {
  readonly kind: 'socket';
  readonly address: SocketAddress;
  readonly server: boolean;
  /** The emulator waits for the first client before it goes on. */
  readonly wait: boolean;
  readonly telnet: boolean;
  readonly nodelay: boolean;
  /** Seconds after which a client that lost its connection tries again; 0 never. */
  readonly reconnect: number;
}

type Kind =
  | { readonly kind: 'null' | 'pty' }
  | { readonly kind: 'ringbuf'; readonly size: number }
  /** `signal`: Ctrl-C ends the emulator. */
  | { readonly kind: 'stdio'; readonly signal: boolean }
  | { readonly kind: 'file'; readonly path: string; readonly append: boolean; readonly input?: string | undefined }
  | { readonly kind: 'pipe'; readonly path: string }
  | {
      readonly kind: 'udp';
      readonly host: string;
      readonly port: number;
      readonly localHost?: string | undefined;
      readonly localPort: number;
    }
  | SocketOptions;

/** An output file has at most `size` bytes; `backups` files beside it keep what came before. */
export interface FileLimit {
  readonly size: number;
  readonly backups: number;
}
/** What `limit` may be: bytes from a page on, and how many files. */
const LIMIT = { least: 4096, most: 2 ** 40, backups: 3, mostBackups: 99 } as const;

/** `max-size` and `backups` of a device with an output file. @throws CharError */
export function fileLimit(
  what: string,
  options: Pick<CharOptions, 'kind' | 'log'>,
  size: number | undefined,
  backups: number | undefined,
): Pick<CharOptions, 'limit'> {
  const fail = (text: string): never => {
    throw new CharError(`${what}: ${text}`);
  };
  if (size === undefined) return backups === undefined ? {} : fail(`backups=${backups}: accepted with max-size=`);
  if (options.kind !== 'file' && !options.log) fail(`max-size=${size}: accepted with kind file, or logfile=`);
  if (!(Number.isInteger(size) && size >= LIMIT.least && size <= LIMIT.most))
    fail(`max-size=${size}: accepted are ${LIMIT.least} to ${LIMIT.most} bytes, with K, M or G`);
  const kept = backups ?? LIMIT.backups;
  if (!(Number.isInteger(kept) && kept >= 0 && kept <= LIMIT.mostBackups))
    fail(`backups=${kept}: accepted are 0 to ${LIMIT.mostBackups}`);
  return { limit: { size, backups: kept } };
}
/** Files that `limit` keeps beside an output file. */
export const backupsOf = (path: string, limit: FileLimit | undefined): string[] =>
  Array.from({ length: limit?.backups ?? 0 }, (_, n) => `${path}.${n}`);

export type CharOptions = Kind & {
  /** Several users share it, with Ctrl-A as the key between them. */
  readonly mux?: boolean | undefined;
  /** A file that all output is copied to. */
  readonly log?: { readonly path: string; readonly append: boolean } | undefined;
  /** Of the file of a `file`, and of `log`. */
  readonly limit?: FileLimit | undefined;
};

/** Kinds by their names in QEMU; `memory` is an alias. */
export const charKinds = ['null', 'socket', 'udp', 'file', 'pipe', 'pty', 'stdio', 'ringbuf'] as const;
/** What QEMU has and we do not. */
const foreign = [
  'vc',
  'msmouse',
  'wctablet',
  'braille',
  'serial',
  'tty',
  'parallel',
  'parport',
  'spicevmc',
  'spiceport',
  'dbus',
  'qemu-vdagent',
  'testdev',
];

/** A description that cannot be used, in one line. */
export class CharError extends Error {}

/** Takes a bag of properties one at a time; what is left at the end is refused. */
class Bag {
  readonly #what: string;
  readonly #left: Map<string, string>;
  constructor(what: string, values: ReadonlyMap<string, string>) {
    this.#what = what;
    this.#left = new Map(values);
  }
  text(name: string): string | undefined {
    const value = this.#left.get(name);
    this.#left.delete(name);
    return value;
  }
  need(name: string): string {
    return this.text(name) ?? this.#fail(`${name}= is missing`);
  }
  flag(name: string, otherwise: boolean): boolean {
    const value = this.text(name);
    if (value === undefined) return otherwise;
    if (['on', 'yes', 'true', 'y'].includes(value)) return true;
    if (['off', 'no', 'false', 'n'].includes(value)) return false;
    return this.#fail(`${name}=${value}: accepted are on and off`);
  }
  /** `wait`, or its old opposite `nowait`. */
  wait(otherwise: boolean): boolean {
    const nowait = this.text('nowait');
    return nowait === undefined ? this.flag('wait', otherwise) : false;
  }
  integer(name: string, otherwise: number, most: number): number {
    const value = this.text(name);
    if (value === undefined) return otherwise;
    const n = /^\d+$/.test(value) ? Number(value) : Number.NaN;
    return n <= most ? n : this.#fail(`${name}=${value}: accepted are numbers up to ${most}`);
  }
  /** Bytes, with K, M or G. */
  bytes(name: string): number | undefined {
    const value = this.text(name);
    const found = value === undefined ? undefined : /^(\d+)([kmg]?)$/i.exec(value);
    if (found === undefined) return undefined;
    return found
      ? Number(found[1]) * 1024 ** ' kmg'.indexOf(found[2]!.toLowerCase() || ' ')
      : this.#fail(`${name}=${value}: accepted are bytes, with K, M or G`);
  }
  end(): void {
    for (const name of this.#left.keys()) this.#fail(`${name}: not supported`);
  }
  #fail(text: string): never {
    throw new CharError(`${this.#what}: ${text}`);
  }
}

/**
 * `-chardev KIND,name=value…`, without the id.
 * @throws CharError
 */
export function charOptions(kind: string, values: ReadonlyMap<string, string>): CharOptions {
  const bag = new Bag(`-chardev ${kind}`, values);
  const mux = bag.flag('mux', false);
  const logfile = bag.text('logfile');
  const logappend = bag.flag('logappend', false);
  const size = bag.bytes('max-size');
  const backups = bag.integer('backups', -1, 99);
  const options: CharOptions = {
    ...kindOptions(kind, bag),
    ...(mux ? { mux } : {}),
    ...(logfile === undefined ? {} : { log: { path: logfile, append: logappend } }),
  };
  bag.end();
  return { ...options, ...fileLimit(`-chardev ${kind}`, options, size, backups < 0 ? undefined : backups) };
}

function kindOptions(kind: string, bag: Bag): Kind {
  switch (kind) {
    case 'null':
    case 'pty':
      return { kind };
    case 'ringbuf':
    case 'memory': {
      const size = bag.integer('size', 65536, 2 ** 28);
      if (size === 0 || (size & (size - 1)) !== 0)
        throw new CharError(`-chardev ${kind}: size=${size}: accepted are powers of two`);
      return { kind: 'ringbuf', size };
    }
    case 'stdio':
      return { kind, signal: bag.flag('signal', true) };
    case 'file':
      return { kind, path: bag.need('path'), append: bag.flag('append', false), input: bag.text('input-path') };
    case 'pipe':
      return { kind, path: bag.need('path') };
    case 'udp':
      return {
        kind,
        host: bag.text('host') || 'localhost',
        port: portOf(kind, bag.need('port')),
        localHost: bag.text('localaddr') || undefined,
        localPort: portOf(kind, bag.text('localport') ?? '0'),
      };
    case 'socket':
      return socketOptions(bag);
  }
  if (foreign.includes(kind)) throw new CharError(`-chardev ${kind}: not supported`);
  throw new CharError(`-chardev ${kind}: not supported; accepted: ${charKinds.join(', ')}`);
}

function portOf(kind: string, text: string): number {
  const n = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(n <= 65535)) throw new CharError(`-chardev ${kind}: port=${text}: accepted are numbers up to 65535`);
  return n;
}

function socketOptions(bag: Bag): SocketOptions {
  const server = bag.flag('server', false);
  const telnet = bag.flag('telnet', false);
  const wait = bag.wait(server);
  const nodelay = bag.text('delay') === 'off' || bag.flag('nodelay', false);
  const reconnect = bag.integer('reconnect', 0, 2 ** 31 - 1);
  if (wait && !server) throw new CharError('-chardev socket: wait=on: accepted with server=on only');
  if (server && reconnect > 0) throw new CharError('-chardev socket: reconnect=: accepted for clients only');
  const [path, fd, ipv4, ipv6] = [bag.text('path'), bag.text('fd'), bag.flag('ipv4', false), bag.flag('ipv6', false)];
  let address: SocketAddress;
  if (path !== undefined) {
    if (bag.flag('abstract', false)) address = { kind: 'unix', path: `\0${path}` };
    else address = { kind: 'unix', path };
    bag.flag('tight', true);
  } else if (fd !== undefined) address = { kind: 'fd', fd };
  else {
    const family = ipv4 === ipv6 ? {} : { family: ipv4 ? (4 as const) : (6 as const) };
    address = { kind: 'inet', host: bag.text('host') ?? '', port: bag.need('port'), ...family };
  }
  return { kind: 'socket', address, server, wait, telnet, nodelay, reconnect };
}

/**
 * The short forms of `-serial`, `-monitor`, `-qmp` and others: `tcp:HOST:PORT,server=on,wait=off`, `unix:PATH`, `pty`, `mon:stdio`.
 * `flags` are the items after the first comma.
 * @throws CharError
 */
export function shortOptions(option: string, text: string): CharOptions {
  const mux = text.startsWith('mon:');
  const [first = '', ...rest] = (mux ? text.slice(4) : text).split(',');
  const colon = first.indexOf(':');
  const kind = colon < 0 ? first : first.slice(0, colon);
  const argument = colon < 0 ? '' : first.slice(colon + 1);
  const values = new Map<string, string>();
  for (const item of rest) {
    const equals = item.indexOf('=');
    if (equals >= 0) values.set(item.slice(0, equals), item.slice(equals + 1));
    else values.set(item, 'on');
  }
  if (mux) values.set('mux', 'on');
  const place = (host: string, port: string): void => {
    values.set('host', host.replace(/^\[(.*)\]$/, '$1'));
    values.set('port', port);
  };
  const split = (at: string): readonly [string, string] => [at.slice(0, at.lastIndexOf(':')), at.slice(at.lastIndexOf(':') + 1)];
  switch (kind) {
    case 'null':
    case 'pty':
      return charOptions(kind, values);
    case 'stdio':
      // Behind the multiplexer the guest gets Ctrl-C.
      if (mux && !values.has('signal')) values.set('signal', 'off');
      return charOptions(kind, values);
    case 'file':
    case 'pipe':
      values.set('path', argument);
      return charOptions(kind, values);
    case 'unix':
      values.set('path', argument);
      return charOptions('socket', values);
    case 'tcp':
    case 'telnet':
      place(...split(argument));
      if (kind === 'telnet') values.set('telnet', 'on');
      return charOptions('socket', values);
    case 'udp': {
      const [far = '', near = ''] = argument.split('@');
      place(...split(far));
      if (near) {
        values.set('localaddr', split(near)[0]);
        values.set('localport', split(near)[1]);
      }
      return charOptions('udp', values);
    }
  }
  throw new CharError(
    `${option} ${text}: not supported; accepted: stdio, mon:stdio, pty, null, file:, pipe:, unix:, tcp:, telnet:, udp:, chardev:`,
  );
}

/** A socket's address as QEMU writes it in `query-chardev`. */
export function addressText(o: SocketOptions): string {
  const { address } = o;
  const server = o.server ? ',server=on' : '';
  switch (address.kind) {
    case 'unix':
      return `unix:${address.path}${server}`;
    case 'inet': {
      const host = address.host.includes(':') ? `[${address.host}]` : address.host;
      return `${o.telnet ? 'telnet' : 'tcp'}:${host}:${address.port}${server}`;
    }
    case 'fd':
      return `fd:${address.fd}${server}`;
  }
}
