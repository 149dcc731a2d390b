// One end of a libvirt RPC connection: packets in and out, keepalive, streams by serial, holding back a peer that sends too fast.
// libvirt "RPC protocol", 9.0; keepalive protocol, version 1.
import { encodePacket, type Header, type Packet, PacketParser, programNumbers } from './packet.ts';
import type { RpcStream } from './stream.ts';
import type { ByteDuplex, Timers } from './transport.ts';
import type { XdrWriter } from './xdr.ts';

export interface Keepalive {
  /** Seconds without a packet before a ping goes out. */
  readonly interval: number;
  /** Pings without any answer before the connection is given up. */
  readonly count: number;
  readonly timers: Timers;
}

const ping = 1;
const pong = 2;
/** Bytes that wait for a peer that does not read. */
const maxUnsent = 64 * 1024 * 1024;

export class Peer {
  readonly streams = new Map<number, RpcStream>();
  readonly closed: Promise<Error | undefined>;
  readonly #duplex: ByteDuplex;
  readonly #receive: (packet: Packet) => void;
  readonly #parser = new PacketParser();
  #settleClosed: (reason: Error | undefined) => void = () => {};
  #open = true;
  #unsent = 0;
  #holds = 0;
  #resume: (() => void) | undefined;
  #heard = false;
  #missed = 0;
  #stopTimer: (() => void) | undefined;

  /** `receive` gets every packet but keepalive's and those of known streams; it must not throw. Call `run` to start. */
  constructor(duplex: ByteDuplex, receive: (packet: Packet) => void) {
    this.#duplex = duplex;
    this.#receive = receive;
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
  }
  get isOpen(): boolean {
    return this.#open;
  }
  async run(): Promise<void> {
    try {
      for await (const chunk of this.#duplex.input) {
        if (!this.#open) return;
        this.#parser.push(chunk);
        for (let packet = this.#parser.next(); packet !== undefined; packet = this.#parser.next()) {
          this.#heard = true;
          await this.#dispatch(packet);
          if (this.#holds > 0) await this.#room();
          if (!this.#open) return;
        }
      }
      this.close();
    } catch (error) {
      this.close(error as Error);
    }
  }
  /** Resolves when the transport takes more. @throws {XdrError} {PacketError} at once when `body` can't be encoded. */
  send(head: Header, body: (w: XdrWriter) => void): Promise<void> {
    const bytes = encodePacket(head, body);
    return this.#write(bytes);
  }
  /** Whether this connection can pass descriptors. */
  get passesFds(): boolean {
    return this.#duplex.writeWithFds !== undefined;
  }
  /** A packet of type `replyWithFds`, and the descriptors behind it. @throws as `send` */
  sendWithFds(head: Header, body: (w: XdrWriter) => void, fds: readonly number[]): Promise<void> {
    const bytes = encodePacket(head, (w) => {
      w.u32(fds.length);
      body(w);
    });
    return this.#write(bytes, fds);
  }
  /** Pings a silent peer from now on. */
  startKeepalive({ interval, count, timers }: Keepalive): void {
    this.#stopTimer?.();
    this.#stopTimer = undefined;
    if (interval <= 0 || !this.#open) return;
    this.#heard = false;
    this.#missed = 0;
    const tick = (): void => {
      // While we hold the peer back we do not hear its answers either.
      if (this.#heard || this.#holds > 0) this.#missed = 0;
      else if (this.#missed >= count) {
        this.close(new Error('connection closed due to keepalive timeout'));
        return;
      }
      if (!this.#heard) {
        this.#missed++;
        this.#keepalive(ping);
      }
      this.#heard = false;
      this.#stopTimer = timers.after(interval * 1000, tick);
    };
    this.#stopTimer = timers.after(interval * 1000, tick);
  }
  /** Reads nothing more until `release`; counted. */
  hold(): void {
    this.#holds++;
  }
  release(): void {
    if (--this.#holds > 0) return;
    this.#resume?.();
    this.#resume = undefined;
  }
  close(reason?: Error): void {
    if (!this.#open) return;
    this.#open = false;
    this.#stopTimer?.();
    this.#resume?.();
    for (const stream of this.streams.values()) stream.fail(reason ?? new Error('the connection was closed'));
    this.streams.clear();
    this.#duplex.close();
    this.#settleClosed(reason);
  }
  async #dispatch(packet: Packet): Promise<void> {
    if (packet.program === programNumbers.keepalive) {
      if (packet.type === 'message' && packet.procedure === ping) await this.#keepalive(pong);
      return;
    }
    if (packet.type !== 'stream' && packet.type !== 'streamHole') {
      this.#receive(packet);
      return;
    }
    // A stream that is over at this end may still get packets that were on their way.
    this.streams.get(packet.serial)?.receive(packet);
  }
  #keepalive(procedure: number): Promise<void> {
    const head: Header = { program: programNumbers.keepalive, version: 1, procedure, type: 'message', serial: 0, status: 'ok' };
    return this.send(head, () => {});
  }
  async #write(bytes: Uint8Array, fds: readonly number[] = []): Promise<void> {
    if (!this.#open) return;
    if (this.#unsent > maxUnsent) {
      this.close(new Error(`Cannot send packet: the peer reads too slowly, ${this.#unsent} bytes wait`));
      return;
    }
    this.#unsent += bytes.length;
    try {
      if (fds.length > 0) await this.#duplex.writeWithFds!(bytes, fds);
      else await this.#duplex.write(bytes);
    } catch (error) {
      this.close(error as Error);
    }
    this.#unsent -= bytes.length;
  }
  #room(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#open && this.#holds > 0) this.#resume = resolve;
      else resolve();
    });
  }
}
