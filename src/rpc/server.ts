// The server's end of a libvirt RPC connection: calls run side by side and are answered as they finish. libvirt "RPC protocol", 9.0.
import { errorBody, LibvirtError, libvirtError } from './libvirt/errors.ts';
import type { ArgsOf, BodyOf, Messages, Procedure, Procedures, Program, RetOf } from './libvirt/procedure.ts';
import type { Header, Packet } from './packet.ts';
import { type Keepalive, Peer } from './peer.ts';
import { RpcStream } from './stream.ts';
import type { ByteDuplex } from './transport.ts';
import { decode, XdrError } from './xdr.ts';

/** What a handler knows of the call besides its arguments. */
export interface Call {
  readonly connection: ServerConnection;
  readonly program: string;
  /** The procedure's name in the table. */
  readonly name: string;
  /**
   * For procedures with a stream: `body` runs after the reply. While it runs the stream is open; when it returns, the client's
   * finish is awaited and confirmed; when it throws, the stream ends with that error.
   */
  stream(body: (stream: RpcStream) => Promise<void>): void;
  /** For procedures whose reply brings descriptors: these; `sent` runs when they are on their way, or will not be. */
  passFds(fds: readonly number[], sent: () => void): void;
}

export type Handlers<P extends Procedures> = {
  readonly [K in keyof P]?: (args: ArgsOf<P[K]>, call: Call) => RetOf<P[K]> | Promise<RetOf<P[K]>>;
};
/** Streams of one connection at a time. */
const maxStreams = 256;

type Handler = (args: unknown, call: Call) => unknown;

/** A program with the procedures that a server carries out. */
export interface Service {
  readonly program: Program;
  readonly handlers: Readonly<Record<string, Handler | undefined>>;
}
export const service = <P extends Procedures, M extends Messages>(
  program: Program<P, M>,
  handlers: NoInfer<Handlers<P>>,
): Service => ({
  program,
  handlers: handlers as unknown as Service['handlers'],
});

export interface ServeOptions {
  /** Calls that run at one time (32). */
  readonly maxCalls?: number;
  /** Calls that wait for those before the client is held back (64). */
  readonly maxWaiting?: number;
  /** Throws to refuse a call before its arguments are looked at, for example before the connection is opened. */
  readonly admit?: (name: string, program: string) => void;
  /** Hears of errors that are the server's own fault: what a handler threw that is no LibvirtError. */
  readonly report?: (error: unknown, procedure: string) => void;
}

export class ServerConnection {
  readonly #peer: Peer;
  readonly #services: readonly Service[];
  readonly #options: ServeOptions;
  readonly #waiting: Packet[] = [];
  #running = 0;
  #held = false;
  #closing = false;

  constructor(duplex: ByteDuplex, services: readonly Service[], options: ServeOptions = {}) {
    this.#services = services;
    this.#options = options;
    this.#peer = new Peer(duplex, (packet) => this.#receive(packet));
    void this.#peer.run();
  }
  /** Resolves when the connection has ended, with the reason if it was not the client's wish. */
  get closed(): Promise<Error | undefined> {
    return this.#peer.closed;
  }
  /** Whether replies may bring descriptors. */
  get passesFds(): boolean {
    return this.#peer.passesFds;
  }
  close(reason?: Error): void {
    this.#peer.close(reason);
  }
  /** Closes when all calls that have come are answered. */
  closeWhenIdle(): void {
    this.#closing = true;
    this.#next();
  }
  /** Pings the client; to be called when it has asked for the keepalive feature. */
  startKeepalive(keepalive: Keepalive): void {
    this.#peer.startKeepalive(keepalive);
  }
  /** Sends a message of `program`. @throws {XdrError} for a body that is not the message's. */
  notify<P extends Procedures, M extends Messages, K extends keyof M & string>(
    program: Program<P, M>,
    name: K,
    body: BodyOf<M[K]>,
  ): void {
    const row = program.messages[name]!;
    const head = { program: program.number, version: program.version, procedure: row.number };
    void this.#peer.send({ ...head, type: 'message', serial: 0, status: 'ok' }, (w) => row.body.encode(w, body));
  }

  #receive(packet: Packet): void {
    if (packet.type !== 'call' && packet.type !== 'callWithFds') {
      this.#peer.close(new Error(`Cannot dispatch packet: type ${packet.type}, calls and stream data accepted`));
      return;
    }
    this.#waiting.push(packet);
    this.#next();
  }
  #next(): void {
    const { maxCalls = 32, maxWaiting = 64 } = this.#options;
    while (this.#running < maxCalls && this.#waiting.length > 0) {
      this.#running++;
      void this.#answer(this.#waiting.shift()!).finally(() => {
        this.#running--;
        this.#next();
      });
    }
    const full = this.#waiting.length >= maxWaiting;
    if (full && !this.#held) this.#peer.hold();
    if (!full && this.#held) this.#peer.release();
    this.#held = full;
    if (this.#closing && this.#running === 0) this.#peer.close();
  }
  async #answer(packet: Packet): Promise<void> {
    let label = `procedure ${packet.procedure}`;
    try {
      const { service, name, row } = this.#find(packet);
      label = name;
      this.#options.admit?.(name, service.program.name);
      const handler = service.handlers[name];
      if (handler === undefined) throw libvirtError('rpc', 'rpc', `unknown procedure: ${packet.procedure}`);
      if (packet.fds > 0) throw libvirtError('noSupport', 'rpc', 'file descriptors can not be passed on this connection');
      let body: ((stream: RpcStream) => Promise<void>) | undefined;
      let fds: readonly number[] = [];
      let fdsSent = (): void => {};
      const call: Call = {
        connection: this,
        program: service.program.name,
        name,
        stream(run) {
          body = run;
        },
        passFds(given, sent) {
          fds = given;
          fdsSent = sent;
        },
      };
      const stream = row.stream === undefined ? undefined : this.#openStream(packet);
      try {
        const ret = await handler(decodeArgs(row, packet.body), call);
        if (stream !== undefined && body === undefined) throw new Error(`Cannot answer ${name}: its handler opened no stream`);
        if (fds.length > 0) {
          if (!this.#peer.passesFds)
            throw libvirtError('noSupport', 'rpc', 'file descriptors can not be passed on this connection');
          await this.#peer.sendWithFds(answerTo(packet, 'replyWithFds', 'ok'), (w) => row.ret.encode(w, ret), fds);
        } else await this.#peer.send(answerTo(packet, 'reply', 'ok'), (w) => row.ret.encode(w, ret));
        fdsSent();
      } catch (error) {
        fdsSent();
        stream?.fail(error as Error);
        this.#peer.streams.delete(packet.serial);
        throw error;
      }
      // The stream outlives its call, which is answered now.
      if (stream !== undefined && body !== undefined) void this.#runStream(packet, row, stream, body, name);
    } catch (error) {
      const asError = this.#asError(error, label);
      await this.#peer.send(answerTo(packet, 'reply', 'error'), (w) => errorBody.encode(w, asError));
    }
  }
  #find(packet: Packet): { service: Service; name: string; row: Procedure } {
    const service = this.#services.find((s) => s.program.number === packet.program);
    if (service === undefined || service.program.version !== packet.version) {
      throw libvirtError('rpc', 'rpc', `Cannot find program ${packet.program} version ${packet.version}`);
    }
    const found = service.program.procedureOf.get(packet.procedure);
    if (found === undefined) throw libvirtError('rpc', 'rpc', `unknown procedure: ${packet.procedure}`);
    return { service, ...found };
  }
  #asError(error: unknown, procedure: string): LibvirtError {
    if (error instanceof LibvirtError) return error;
    this.#options.report?.(error, procedure);
    return libvirtError('internalError', 'rpc', error instanceof Error ? error.message : String(error));
  }

  #openStream(packet: Packet): RpcStream {
    const peer = this.#peer;
    if (peer.streams.has(packet.serial)) throw libvirtError('rpc', 'rpc', `serial ${packet.serial} already has a stream`);
    if (peer.streams.size >= maxStreams) throw libvirtError('rpc', 'rpc', `${maxStreams} streams are open on this connection`);
    const stream = new RpcStream(
      {
        send: (type, status, body) => peer.send(answerTo(packet, type, status), body),
        hold: () => peer.hold(),
        release: () => peer.release(),
        errorOf: () => libvirtError('rpc', 'rpc', 'stream aborted at client request'),
        // libvirtd confirms an abort like a finish.
        aborted: () => {
          peer.streams.delete(packet.serial);
          void peer.send(answerTo(packet, 'stream', 'ok'), () => {});
        },
      },
      false,
    );
    peer.streams.set(packet.serial, stream);
    return stream;
  }
  async #runStream(
    packet: Packet,
    row: Procedure,
    stream: RpcStream,
    body: (stream: RpcStream) => Promise<void>,
    name: string,
  ): Promise<void> {
    // The connection may have ended while the handler worked.
    if (!this.#peer.isOpen) stream.fail(new Error('the connection was closed'));
    stream.open();
    try {
      await body(stream);
      if (!stream.finished && row.stream === 'from') await stream.end();
      await stream.drain();
      this.#peer.streams.delete(packet.serial);
      await this.#peer.send(answerTo(packet, 'stream', 'ok'), () => {});
    } catch (error) {
      // An abort was answered when it came.
      if (stream.error !== undefined) return;
      const asError = this.#asError(error, name);
      this.#peer.streams.delete(packet.serial);
      stream.fail(asError);
      void this.#peer.send(answerTo(packet, 'stream', 'error'), (w) => errorBody.encode(w, asError));
    }
  }
}

const answerTo = (packet: Packet, type: Header['type'], status: Header['status']): Header => ({
  program: packet.program,
  version: packet.version,
  procedure: packet.procedure,
  serial: packet.serial,
  type,
  status,
});

function decodeArgs(row: Procedure, body: Uint8Array): unknown {
  try {
    return decode(row.args, body);
  } catch (error) {
    if (!(error instanceof XdrError)) throw error;
    throw libvirtError('rpc', 'rpc', `Unable to decode message payload: ${error.message}`);
  }
}
