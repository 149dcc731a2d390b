// A VNC server without its sockets: clients, who may stay with whom, password, events. QEMU's `-vnc` and its QMP (QEMU 7.2, "QEMU QMP Reference Manual", "VNC").
import type { Deflater } from '../rpc/rfb/encode.ts';
import type { InputSink } from './input.ts';
import { type RfbSasl, RfbSession, type RfbTransport } from './rfb-session.ts';
import type { Screen } from './screen.ts';

/** One end of a connection, as QMP tells of it. */
export interface VncAddress {
  readonly host: string;
  readonly service: string;
  readonly family: 'ipv4' | 'ipv6' | 'unix' | 'unknown';
  readonly websocket: boolean;
}

/** A client as QMP tells of it. */
export interface VncClient extends VncAddress {
  /** The name in its certificate, where one was asked for. */
  readonly x509_dname?: string;
  /** Who it is, once SASL knows. */
  readonly sasl_username?: string;
}

/** Certificates in files of QEMU's names: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`. */
export interface VncTls {
  readonly dir: string;
  /** Nobody has a certificate. */
  readonly anonymous?: boolean;
  /** Clients have to have a certificate of the authority, too. */
  readonly verifyPeer: boolean;
}

/** How clients get along: the oldest way lets one that wants to be alone throw out the others. */
export type SharePolicy = 'allow-exclusive' | 'force-shared' | 'ignore';

export interface VncOptions {
  readonly id: string;
  readonly name: string;
  readonly screen: Screen;
  readonly input: InputSink;
  /** Asks for a password; with none set nobody comes in. */
  readonly password: boolean;
  /** Asks who they are by SASL, where no password is asked. */
  readonly sasl?: RfbSasl | undefined;
  /** Of those whom SASL, or TLS with certificates, knows: who may come in; all where left out. The name is undefined where there was no certificate. */
  readonly authorized?: (by: 'sasl' | 'tls', name: string | undefined) => boolean;
  /** Clients come in under TLS alone: VeNCrypt, or WebSocket's own. */
  readonly tls?: VncTls | undefined;
  readonly share: SharePolicy;
  /** Pictures may be JPEGs for clients that ask for a quality. */
  readonly lossy?: boolean | undefined;
  /** Clients may not send input where this is set. */
  readonly readOnly?: boolean;
  /** DES in ECB mode, encrypting 8-byte blocks, under a key of 8 bytes. */
  readonly des: (key: Uint8Array, blocks: Uint8Array) => Uint8Array;
  readonly random: (bytes: number) => Uint8Array;
  readonly deflate?: (level: number) => Deflater;
  /** Seconds since 1970, for passwords that expire. */
  readonly time: () => number;
  readonly after: (ms: number, f: () => void) => () => void;
  readonly event: (name: 'VNC_CONNECTED' | 'VNC_INITIALIZED' | 'VNC_DISCONNECTED', data: VncEventData) => void;
  readonly report: (message: string) => void;
}
export interface VncEventData {
  readonly server: VncAddress & { readonly auth: string };
  readonly client: VncClient;
}

/** Where a server listens. `to`: ports up to this one are tried. */
export type VncListen =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly to?: number; readonly websocket?: number }
  | { readonly kind: 'unix'; readonly path: string };

/** Port of display 0. */
export const VNC_PORT = 5900;

/**
 * Where a server is to listen, as QEMU's `-vnc` writes it: `HOST:DISPLAY` with HOST maybe empty or in brackets, or `unix:PATH`; undefined for anything
 * else. @throws Error for display numbers that no port has
 */
export function parseVncPlace(text: string): VncListen | undefined {
  if (text.startsWith('unix:') && text.length > 5) return { kind: 'unix', path: text.slice(5) };
  const found = /^(.*):(\d+)$/.exec(text);
  if (!found) return undefined;
  const most = 65_535 - VNC_PORT;
  if (Number(found[2]) > most) throw new Error(`Cannot use VNC display ${found[2]}: accepted are 0 to ${most}`);
  return { kind: 'tcp', host: found[1]!.replace(/^\[(.*)\]$/, '$1'), port: VNC_PORT + Number(found[2]) };
}

export interface VncServerOptions extends Omit<VncOptions, 'sasl' | 'des' | 'random' | 'deflate' | 'time' | 'after'> {
  readonly listen: VncListen | undefined;
  readonly sasl?: boolean | undefined;
}

export interface VncServer {
  readonly vnc: Vnc;
  /** Where it listens, WebSocket apart. */
  readonly addresses: readonly VncAddress[];
  close(): void;
}

/** Clients at a time; more are turned away. */
const CLIENTS_MAX = 64;
/** ms that a handshake may take. */
const HANDSHAKE_MS = 30_000;

interface Client {
  readonly session: RfbSession;
  readonly server: VncAddress;
  readonly address: VncAddress;
  since: number;
  in: boolean;
  shared: boolean;
}

export class Vnc {
  readonly #o: VncOptions;
  readonly #clients = new Set<Client>();
  #password: string | undefined;
  #expires: number | undefined;
  #count = 0;

  constructor(o: VncOptions) {
    this.#o = o;
  }

  get id(): string {
    return this.#o.id;
  }
  /** As QMP has it. */
  get auth(): 'none' | 'vnc' | 'sasl' | 'vencrypt' {
    return this.#o.tls ? 'vencrypt' : this.inner;
  }
  /** What is asked apart from TLS. */
  get inner(): 'none' | 'vnc' | 'sasl' {
    return this.#o.password ? 'vnc' : this.#o.sasl ? 'sasl' : 'none';
  }
  /** What is asked under TLS. */
  get vencrypt(): `${'tls' | 'x509'}-${'none' | 'vnc' | 'sasl'}` | undefined {
    const { tls } = this.#o;
    return tls && `${tls.anonymous ? 'tls' : 'x509'}-${this.inner}`;
  }

  /** Throws where the server does not ask for passwords. */
  setPassword(password: string, connected: 'keep' | 'fail' | 'disconnect' = 'keep'): void {
    if (connected === 'fail' && this.#clients.size > 0) throw new Error('Cannot set the VNC password: clients are connected');
    if (!this.#o.password) throw new Error('Cannot set the VNC password: the server was started without password=on');
    this.#password = password;
    if (connected === 'disconnect') this.disconnectAll();
  }

  /** `when` in seconds since 1970; undefined for never. */
  expirePassword(when: number | undefined): void {
    this.#expires = when;
  }

  disconnectAll(): void {
    for (const c of [...this.#clients]) c.session.close();
  }

  /** Clients that are through the handshake's first byte, as `query-vnc` shows them. */
  clients(): readonly VncClient[] {
    return [...this.#clients].map(known);
  }

  /** A client has come. Its bytes go into `receive`, its end into `close`. Undefined where there are too many, or it may not come in. */
  connect(transport: RfbTransport, server: VncAddress, address: VncAddress): RfbSession | undefined {
    const { dname } = transport;
    // Others are asked when they have agreed on TLS.
    const mayCome = !this.#o.tls || transport.secure !== undefined || (this.#o.authorized?.('tls', dname) ?? true);
    if (!mayCome)
      this.#o.report(`client ${address.host}:${address.service}: Cannot let the client in: ${dname} is not authorized`);
    if (this.#clients.size >= CLIENTS_MAX || !mayCome) {
      transport.close();
      return undefined;
    }
    const { screen, input, name, random, deflate, after } = this.#o;
    const told = (): VncEventData => ({ server: { ...server, auth: this.auth }, client: known(client) });
    let client: Client;
    const session: RfbSession = new RfbSession(
      {
        write: (bytes) => transport.write(bytes),
        ...(transport.secure ? { secure: (last: Uint8Array) => transport.secure!(last) } : {}),
        dname,
        close: () => {
          if (!this.#clients.delete(client)) return;
          cancel();
          transport.close();
          this.#o.event('VNC_DISCONNECTED', told());
        },
      },
      {
        screen,
        input,
        name,
        random,
        ...(deflate === undefined ? {} : { deflate }),
        vencrypt: this.vencrypt,
        sasl: this.#o.sasl,
        authorized: this.#o.authorized ?? (() => true),
        ...(this.#o.password ? { password: () => this.#checker() } : {}),
        lossy: this.#o.lossy ?? false,
        after,
        readOnly: this.#o.readOnly ?? false,
        initialized: (shared) => {
          cancel();
          if (!this.#admit(client, shared)) return false;
          this.#o.event('VNC_INITIALIZED', told());
          return true;
        },
        report: (message) => this.#o.report(`client ${address.host}:${address.service}: ${message}`),
      },
    );
    const cancel = after(HANDSHAKE_MS, () => session.close());
    client = { session, server, address, since: this.#count++, in: false, shared: true };
    this.#clients.add(client);
    this.#o.event('VNC_CONNECTED', told());
    return session;
  }

  /** Whether a client may stay; others may have to go. */
  #admit(client: Client, shared: boolean): boolean {
    if (this.#o.share === 'force-shared' && !shared) return false;
    const others = [...this.#clients].filter((c) => c !== client && c.in);
    if (this.#o.share === 'allow-exclusive') {
      if (!shared) for (const c of others) c.session.close();
      else if (others.some((c) => !c.shared)) return false;
    }
    client.in = true;
    client.shared = shared;
    return true;
  }

  /** The check of a challenge's answer; undefined while nobody can come in. */
  #checker(): ((challenge: Uint8Array, answer: Uint8Array) => boolean) | undefined {
    const password = this.#password;
    if (password === undefined || password === '' || (this.#expires !== undefined && this.#expires <= this.#o.time()))
      return undefined;
    // VNC's keys have their bits in the opposite order, eight bytes at most.
    const key = new Uint8Array(8);
    for (const [i, byte] of new TextEncoder().encode(password).subarray(0, 8).entries()) key[i] = mirrored(byte);
    return (challenge, answer) => {
      const wanted = this.#o.des(key, challenge);
      let differs = 0;
      for (let i = 0; i < 16; i++) differs |= wanted[i]! ^ answer[i]!;
      return differs === 0;
    };
  }
}

const known = ({ address, session: { user, dname } }: Client): VncClient => ({
  ...address,
  ...(dname === undefined ? {} : { x509_dname: dname }),
  ...(user === undefined ? {} : { sasl_username: user }),
});

function mirrored(byte: number): number {
  let out = 0;
  for (let i = 0; i < 8; i++) out |= ((byte >>> i) & 1) << (7 - i);
  return out;
}
