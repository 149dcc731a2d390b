// A stream inside a libvirt RPC connection, the same for both ends: data, holes, end of data, finish and abort.
// libvirt "RPC protocol", 9.0, "Data streams". Packets keep the program, procedure and serial of the call that opened the stream.
import { maxStreamData, type Packet, type PacketStatus, type PacketType } from './packet.ts';
import { hyper, struct, unsigned, XdrReader, type XdrWriter } from './xdr.ts';

/** Bytes, or a count of bytes that are zero and were not sent. */
export type StreamItem = Uint8Array | { readonly hole: bigint };

const hole = struct({ length: hyper, flags: unsigned });
/** Bytes that wait for the reader before the whole connection is held back. */
const highWater = 4 * 1024 * 1024;

export interface StreamLink {
  send(type: PacketType, status: PacketStatus, body: (w: XdrWriter) => void): Promise<void>;
  hold(): void;
  release(): void;
  /** The error that a packet of status `error` means at this end. */
  errorOf(packet: Packet): Error;
  /** The peer has ended the stream with an error. */
  aborted(): void;
}

export class RpcStream implements AsyncIterable<StreamItem> {
  /** Resolves when nothing more will come: the peer has finished or aborted, or the connection is gone. */
  readonly gone: Promise<void>;
  readonly #link: StreamLink;
  readonly #queue: StreamItem[] = [];
  #queued = 0;
  #held = false;
  #ended = false;
  #finished = false;
  #error: Error | undefined;
  #wake: (() => void)[] = [];
  #ready: Promise<void>;
  #settleReady: () => void = () => {};
  #settleGone: () => void = () => {};

  /** With `ready` false, nothing is sent before `open`. */
  constructor(link: StreamLink, ready: boolean) {
    this.#link = link;
    this.gone = new Promise((resolve) => {
      this.#settleGone = resolve;
    });
    this.#ready = ready
      ? Promise.resolve()
      : new Promise((resolve) => {
          this.#settleReady = resolve;
        });
  }
  /** The peer has confirmed, or asks for, the end of the whole stream. */
  get finished(): boolean {
    return this.#finished;
  }
  get error(): Error | undefined {
    return this.#error;
  }
  /** Sends data in packets that every peer takes; waits while the transport is full. @throws what the peer aborted with. */
  async write(data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; at += maxStreamData) {
      const part = data.subarray(at, at + maxStreamData);
      await this.#send('stream', 'continue', (w) => w.raw(part));
    }
  }
  /** Sends `length` zero bytes by their count. Only for a stream that was opened with the flag for sparse data. */
  writeHole(length: bigint): Promise<void> {
    return this.#send('streamHole', 'continue', (w) => hole.encode(w, { length, flags: 0 }));
  }
  /** Says that no more data comes; the other direction and the confirmation are still open. */
  end(): Promise<void> {
    return this.#send('stream', 'continue', () => {});
  }
  /** Ends the stream and waits for the peer's confirmation. For the client. @throws what the server failed with. */
  async finish(): Promise<void> {
    await this.#send('stream', 'ok', () => {});
    while (!this.#finished) await this.#change();
  }
  /** Gives the stream up and waits until the server has taken notice. For the client. */
  async abort(): Promise<void> {
    await this.#ready;
    if (this.#error !== undefined || this.#finished) return;
    await this.#link.send('stream', 'error', () => {});
    while (this.#error === undefined && !this.#finished) {
      this.#drop();
      await this.#anyChange();
    }
  }
  /** Items until the peer ends its data or finishes. @throws what the peer aborted with, or the connection ended by. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StreamItem> {
    for (;;) {
      if (this.#error !== undefined) throw this.#error;
      const item = this.#queue.shift();
      if (item !== undefined) {
        this.#queued -= sizeOf(item);
        if (this.#held && this.#queued < highWater / 2) {
          this.#held = false;
          this.#link.release();
        }
        yield item;
      } else if (this.#ended) return;
      else await this.#anyChange();
    }
  }
  /** Throws away what comes until the peer finishes. @throws what it aborted with. */
  async drain(): Promise<void> {
    while (!this.#finished) {
      this.#drop();
      await this.#change();
    }
  }
  /** Lets what was written go out. For the end that created the stream before the call was answered. */
  open(): void {
    this.#settleReady();
  }
  /** Takes a packet of type `stream` or `streamHole`. Never throws. */
  receive(packet: Packet): void {
    if (this.#error !== undefined || this.#finished) return;
    if (packet.status === 'error') {
      this.fail(this.#link.errorOf(packet));
      this.#link.aborted();
      return;
    }
    if (packet.status === 'ok') {
      this.#ended = true;
      this.#finished = true;
      this.#settleGone();
    } else if (packet.type === 'streamHole') this.#receiveHole(packet.body);
    else if (packet.body.length === 0) this.#ended = true;
    else this.#push(packet.body);
    this.#notify();
  }
  /** Ends the stream at this end. */
  fail(error: Error): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#drop();
    this.#settleReady();
    this.#settleGone();
    this.#notify();
  }
  #receiveHole(body: Uint8Array): void {
    try {
      const { length } = hole.decode(new XdrReader(body));
      if (length < 0n) throw new Error(`Cannot decode hole: length ${length}, at least 0 accepted`);
      this.#push({ hole: length });
    } catch (error) {
      this.fail(error as Error);
    }
  }
  #push(item: StreamItem): void {
    if (this.#ended) return;
    this.#queue.push(item);
    this.#queued += sizeOf(item);
    if (this.#queued > highWater && !this.#held) {
      this.#held = true;
      this.#link.hold();
    }
  }
  #drop(): void {
    this.#queue.length = 0;
    this.#queued = 0;
    if (this.#held) this.#link.release();
    this.#held = false;
  }
  async #send(type: PacketType, status: PacketStatus, body: (w: XdrWriter) => void): Promise<void> {
    await this.#ready;
    if (this.#error !== undefined) throw this.#error;
    await this.#link.send(type, status, body);
    if (this.#error !== undefined) throw this.#error;
  }
  async #change(): Promise<void> {
    if (this.#error !== undefined) throw this.#error;
    await this.#anyChange();
    if (this.#error !== undefined) throw this.#error;
  }
  #anyChange(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake.push(resolve);
    });
  }
  #notify(): void {
    const wake = this.#wake;
    this.#wake = [];
    for (const run of wake) run();
  }
}

/** A hole counts as a packet's worth of bookkeeping. */
const sizeOf = (item: StreamItem): number => (item instanceof Uint8Array ? item.length : 64);
