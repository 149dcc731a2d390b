// The client's end of a libvirt RPC connection: any number of calls at a time, streams and events. libvirt "RPC protocol", 9.0.
import { errorBody, LibvirtError, libvirtError } from './libvirt/errors.ts';
import type { ArgsOf, BodyOf, Messages, Procedure, Procedures, Program, RetOf } from './libvirt/procedure.ts';
import type { Header, Packet } from './packet.ts';
import { type Keepalive, Peer } from './peer.ts';
import { RpcStream } from './stream.ts';
import type { ByteDuplex } from './transport.ts';
import { decode, type nothing, type ValueOf } from './xdr.ts';

interface Pending {
  readonly row: Procedure;
  resolve(value: unknown): void;
  reject(error: Error): void;
}
type Arguments<A> = [A] extends [ValueOf<typeof nothing>] ? [] : [args: A];

/** One method for each procedure of a program. */
export type Bound<P extends Procedures> = {
  readonly [K in keyof P]: (...args: Arguments<ArgsOf<P[K]>>) => Promise<RetOf<P[K]>>;
};

export class RpcClient {
  readonly #peer: Peer;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Map<string, Set<(body: unknown) => void>>();
  readonly #programs = new Map<number, Program>();
  /** libvirt's clients begin with 0. */
  #serial = 0xffff_ffff;

  constructor(duplex: ByteDuplex) {
    this.#peer = new Peer(duplex, (packet) => this.#receive(packet));
    void this.#peer.closed.then((reason) => {
      for (const call of this.#pending.values()) call.reject(lost(reason));
      this.#pending.clear();
    });
    void this.#peer.run();
  }
  /** Resolves when the connection has ended, with the reason if it was not our wish. */
  get closed(): Promise<Error | undefined> {
    return this.#peer.closed;
  }
  close(): void {
    this.#peer.close();
  }
  /** Pings the server; only after it has said that it supports feature 10. */
  startKeepalive(keepalive: Keepalive): void {
    this.#peer.startKeepalive(keepalive);
  }
  /** @throws {LibvirtError} what the server answers, or that the connection is gone. @throws {XdrError} for arguments that do not fit. */
  call<P extends Procedures, M extends Messages, K extends keyof P & string>(
    program: Program<P, M>,
    name: K,
    ...args: Arguments<ArgsOf<P[K]>>
  ): Promise<RetOf<P[K]>> {
    return this.#call(program, program.procedures[name]!, args[0], this.#nextSerial()) as Promise<RetOf<P[K]>>;
  }
  /** As `call`, for a procedure with a stream. End the stream with `finish` or `abort`. */
  async open<P extends Procedures, M extends Messages, K extends keyof P & string>(
    program: Program<P, M>,
    name: K,
    ...args: Arguments<ArgsOf<P[K]>>
  ): Promise<{ readonly ret: RetOf<P[K]>; readonly stream: RpcStream }> {
    const row = program.procedures[name]!;
    if (row.stream === undefined) throw new Error(`Cannot open a stream by ${name}: the procedure has none`);
    const serial = this.#nextSerial();
    const peer = this.#peer;
    const head = headOf(program, row, serial);
    const stream = new RpcStream(
      {
        send: (type, status, body) => peer.send({ ...head, type, status }, body),
        hold: () => peer.hold(),
        release: () => peer.release(),
        errorOf: (packet) => errorIn(packet.body),
        aborted: () => peer.streams.delete(serial),
      },
      true,
    );
    void stream.gone.then(() => peer.streams.delete(serial));
    // Before the reply: data may follow it in one chunk.
    peer.streams.set(serial, stream);
    try {
      const ret = (await this.#call(program, row, args[0], serial)) as RetOf<P[K]>;
      return { ret, stream };
    } catch (error) {
      stream.fail(error as Error);
      throw error;
    }
  }
  /** Calls `listener` for each such message; returns how to stop. */
  on<P extends Procedures, M extends Messages, K extends keyof M & string>(
    program: Program<P, M>,
    name: K,
    listener: (body: BodyOf<M[K]>) => void,
  ): () => void {
    const key = `${program.number} ${program.messages[name]!.number}`;
    this.#programs.set(program.number, program);
    const set = this.#listeners.get(key) ?? new Set();
    this.#listeners.set(key, set);
    set.add(listener as (body: unknown) => void);
    return () => set.delete(listener as (body: unknown) => void);
  }
  /** The program's procedures as methods. */
  bind<P extends Procedures, M extends Messages>(program: Program<P, M>): Bound<P> {
    const methods = Object.entries(program.procedures).map(([name, row]) => [
      name,
      (args: unknown) => this.#call(program, row, args, this.#nextSerial()),
    ]);
    return Object.fromEntries(methods) as Bound<P>;
  }

  #call(program: Program, row: Procedure, args: unknown, serial: number): Promise<unknown> {
    if (!this.#peer.isOpen) return Promise.reject(lost(undefined));
    return new Promise((resolve, reject) => {
      this.#pending.set(serial, { row, resolve, reject });
      try {
        void this.#peer.send({ ...headOf(program, row, serial), type: 'call', status: 'ok' }, (w) => row.args.encode(w, args));
      } catch (error) {
        this.#pending.delete(serial);
        reject(error as Error);
      }
    });
  }
  #nextSerial(): number {
    do this.#serial = (this.#serial + 1) >>> 0;
    while (this.#pending.has(this.#serial) || this.#peer.streams.has(this.#serial));
    return this.#serial;
  }
  #receive(packet: Packet): void {
    try {
      if (packet.type === 'message') this.#message(packet);
      else if (packet.type === 'reply' || packet.type === 'replyWithFds') this.#reply(packet);
      else throw new Error(`Cannot dispatch packet: type ${packet.type}, replies, messages and stream data accepted`);
    } catch (error) {
      this.#peer.close(error as Error);
    }
  }
  #message(packet: Packet): void {
    const found = this.#programs.get(packet.program)?.messageOf.get(packet.procedure);
    const listeners = this.#listeners.get(`${packet.program} ${packet.procedure}`);
    if (found === undefined || listeners === undefined || listeners.size === 0) return;
    const body = decode(found.row.body, packet.body);
    for (const listener of [...listeners]) listener(body);
  }
  #reply(packet: Packet): void {
    const call = this.#pending.get(packet.serial);
    if (call === undefined) throw new Error(`Cannot take reply: no call has serial ${packet.serial}`);
    this.#pending.delete(packet.serial);
    try {
      if (packet.status === 'error') call.reject(errorIn(packet.body));
      else call.resolve(decode(call.row.ret, packet.body));
    } catch (error) {
      call.reject(error as Error);
    }
  }
}

const headOf = (program: Program, row: Procedure, serial: number): Omit<Header, 'type' | 'status'> => ({
  program: program.number,
  version: program.version,
  procedure: row.number,
  serial,
});

function errorIn(body: Uint8Array): Error {
  try {
    return decode(errorBody, body);
  } catch (error) {
    return error as Error;
  }
}

const lost = (reason: Error | undefined): LibvirtError =>
  reason instanceof LibvirtError ? reason : libvirtError('internalError', 'rpc', reason?.message ?? 'client socket is closed');
