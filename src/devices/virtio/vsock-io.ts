// The host's side of vsock without the host's kernel: unix sockets. Who connects to PATH and says "CONNECT PORT\n" reaches that port of
// the guest, and hears "OK PORT\n" first; a guest that connects to a port of the host reaches PATH_PORT. This is the protocol of
// Firecracker ("docs/vsock.md") and of vhost-device-vsock. Credit and states: Virtual I/O Device (VIRTIO) 1.2, section 5.10.6.
import type { Chain } from './chain.ts';
import type { VirtioCore } from './core.ts';
import {
  HOST_CID,
  readVsockHeader,
  VSOCK_HEADER,
  VSOCK_PAYLOAD,
  VSOCK_STREAM,
  VSOCK_TRANSPORT_RESET,
  type VsockHeader,
  VsockOp,
  VsockQueue,
  VsockShutdown,
  writeVsockHeader,
} from './vsock.ts';

/** What a stream of the host tells. Never called from inside one of its own methods. */
export interface VsockStreamEvents {
  /** A stream that was asked for is up. */
  connected(): void;
  data(bytes: Uint8Array): void;
  /** So many bytes of what was written have gone. */
  written(count: number): void;
  /** The other side sends no more. */
  end(): void;
  /** The last event. Not after `reset`. */
  closed(): void;
}
export interface VsockStream {
  write(bytes: Uint8Array): void;
  /** Sends no more after what was written. */
  end(): void;
  /** Drops it at once. */
  reset(): void;
  pause(): void;
  resume(): void;
}
/** Unix sockets of the host. */
export interface VsockSockets {
  connect(path: string, events: VsockStreamEvents): VsockStream;
  /** Accepted streams are paused; without events they are dropped. Rejects with one line. */
  listen(path: string, accept: (stream: VsockStream) => VsockStreamEvents | undefined): Promise<{ close(): void }>;
}

export interface VsockOptions {
  readonly cid: number;
  readonly path: string;
  readonly sockets: VsockSockets;
  after(ms: number, action: () => void): { cancel(): void };
}

/** Bytes that are kept of what a guest has sent, of each connection. */
const BUFFER = 256 << 10;
/** Bytes of the host's that wait for the guest before its stream is paused. */
const WAITING = 128 << 10;
const CONNECTIONS = 256;
/** Answers that wait for a place in the guest's buffers before no more of its packets are taken. */
const ANSWERS = 128;
/** Ports of the host's ends of connections that the host began. */
const FIRST_PORT = 2 ** 30;
/** ms for the end of a connection: what was written leaves, the guest answers. */
const LINGER = 2000;
const LINE = 32;

interface Connection {
  guestPort: number;
  hostPort: number;
  /** `greeting`: the host has not said its port yet; `asked`: the guest, or the host's server, has not answered yet. */
  state: 'greeting' | 'asked' | 'open' | 'over';
  readonly byHost: boolean;
  stream: VsockStream;
  greeting: string;
  /** For the guest. */
  waiting: Uint8Array[];
  waitingBytes: number;
  paused: boolean;
  /** Of the guest's buffer: its size, what it has passed on, what was sent, modulo 2³². */
  room: number;
  passed: number;
  sent: number;
  /** Of ours: what came, what has gone to the host, what the guest was told of that. */
  received: number;
  forwarded: number;
  told: number;
  /** Bytes that were given to the stream and have not gone, and how many of those next in order are not the guest's. */
  unwritten: number;
  ours: number;
  /** The guest is to be told of our room. */
  owesCredit: boolean;
  /** What the host's end has shut down, and what the guest was told of it. */
  shut: number;
  toldShut: number;
  /** What the guest has shut down. */
  guestShut: number;
}

type Answer = Pick<VsockHeader, 'sourcePort' | 'targetPort' | 'op'> & { readonly connection?: Connection };

const key = (guestPort: number, hostPort: number): string => `${guestPort}:${hostPort}`;

export class VsockIo {
  readonly #core: VirtioCore;
  readonly #o: VsockOptions;
  /** Rejects where nobody can listen at the path. */
  readonly ready: Promise<void>;
  readonly #connections = new Map<string, Connection>();
  /** Streams of all connections, also of those that have no ports yet or are over. */
  readonly #streams = new Set<VsockStream>();
  /** In the order in which they are served. */
  readonly #busy = new Set<Connection>();
  #answers: Answer[] = [];
  #nextPort = FIRST_PORT;
  #listener: { close(): void } | undefined;
  #closed = false;
  /** The machine was put into another state: connections of the guest's are gone. */
  #lost = false;

  constructor(core: VirtioCore, o: VsockOptions) {
    this.#core = core;
    this.#o = o;
    core.serve(VsockQueue.rx, () => this.#work());
    core.serve(VsockQueue.tx, () => this.#work());
    core.serve(VsockQueue.event, () => {});
    core.onReset = () => this.#drop();
    this.ready = o.sockets
      .listen(o.path, (stream) => this.#accept(stream))
      .then((listener) => {
        if (this.#closed) listener.close();
        else this.#listener = listener;
      });
    this.ready.catch(() => {});
  }
  /** Connections and the streams of the host, for tests of the limit. */
  get size(): number {
    return Math.max(this.#connections.size, this.#streams.size);
  }
  reset(): void {
    this.#drop();
    this.#lost = true;
  }
  resumed(): void {
    if (this.#lost && this.#core.ready) {
      const [chain] = this.#core.take(VsockQueue.event, 1);
      if (chain) {
        const event = Uint8Array.of(VSOCK_TRANSPORT_RESET, 0, 0, 0);
        this.#core.give(VsockQueue.event, [[chain, chain.in.write(0, event)]]);
      }
    }
    this.#lost = false;
  }
  close(): void {
    this.#closed = true;
    this.#listener?.close();
    this.#drop();
  }
  #drop(): void {
    for (const stream of this.#streams) stream.reset();
    this.#streams.clear();
    for (const c of this.#connections.values()) c.state = 'over';
    this.#connections.clear();
    this.#busy.clear();
    this.#answers = [];
  }

  // -- the guest's packets

  #work(): void {
    for (;;) {
      this.#send();
      if (this.#answers.length >= ANSWERS) return;
      const [chain] = this.#core.take(VsockQueue.tx, 1);
      if (!chain) return;
      this.#packet(chain);
      this.#core.give(VsockQueue.tx, [[chain, 0]]);
    }
  }
  #packet(chain: Chain): void {
    const { out } = chain;
    if (out.length < VSOCK_HEADER) return;
    const h = readVsockHeader(out.bytes(0, VSOCK_HEADER));
    // Nobody else can be answered.
    if (h.sourceCid !== BigInt(this.#o.cid)) return;
    const c = this.#connections.get(key(h.sourcePort, h.targetPort));
    if (h.targetCid !== BigInt(HOST_CID) || h.type !== VSOCK_STREAM) {
      if (h.op !== VsockOp.reset) this.#answers.push({ sourcePort: h.targetPort, targetPort: h.sourcePort, op: VsockOp.reset });
      return;
    }
    if (c) {
      c.room = h.bufferSize;
      c.passed = h.forwarded;
      this.#busy.add(c);
    }
    if (h.op === VsockOp.request && !c) return this.#request(h);
    if (h.op === VsockOp.reset) {
      if (c) this.#end(c, false);
      return;
    }
    if (!c || !this.#serve(c, h, chain)) {
      if (c) this.#end(c, true, true);
      else this.#answers.push({ sourcePort: h.targetPort, targetPort: h.sourcePort, op: VsockOp.reset });
    }
  }
  /** The guest connects to a port of the host. */
  #request(h: VsockHeader): void {
    if (this.size >= CONNECTIONS) {
      this.#answers.push({ sourcePort: h.targetPort, targetPort: h.sourcePort, op: VsockOp.reset });
      return;
    }
    const c = this.#connection(h.sourcePort, h.targetPort, false);
    c.room = h.bufferSize;
    c.passed = h.forwarded;
    this.#connections.set(key(c.guestPort, c.hostPort), c);
    c.stream = this.#o.sockets.connect(`${this.#o.path}_${c.hostPort}`, this.#events(c));
    this.#streams.add(c.stream);
  }
  /** A packet of a connection; false for one that breaks the rules. */
  #serve(c: Connection, h: VsockHeader, { out }: Chain): boolean {
    switch (h.op) {
      case VsockOp.response:
        if (c.state !== 'asked' || !c.byHost) return false;
        c.state = 'open';
        this.#write(c, new TextEncoder().encode(`OK ${c.hostPort}\n`), false);
        this.#flow(c);
        return true;
      case VsockOp.data: {
        const held = (c.received - c.forwarded) >>> 0;
        if (c.state !== 'open' || h.length > out.length - VSOCK_HEADER || h.length > VSOCK_PAYLOAD) return false;
        if (held + h.length > BUFFER || c.guestShut & VsockShutdown.noSend) return false;
        c.received = (c.received + h.length) >>> 0;
        if (h.length > 0) this.#write(c, out.bytes(VSOCK_HEADER, h.length), true);
        return true;
      }
      case VsockOp.shutdown:
        if (c.state !== 'open') return false;
        c.guestShut |= h.flags & 3;
        if (c.guestShut === 3) {
          this.#end(c, true);
          return true;
        }
        if (c.guestShut & VsockShutdown.noSend) c.stream.end();
        if (c.guestShut & VsockShutdown.noReceive) {
          c.waiting = [];
          c.waitingBytes = 0;
        }
        return true;
      case VsockOp.creditUpdate:
        return true;
      case VsockOp.creditRequest:
        c.owesCredit = true;
        return true;
      default:
        return false;
    }
  }

  // -- the host's streams

  #connection(guestPort: number, hostPort: number, byHost: boolean, stream?: VsockStream): Connection {
    return {
      guestPort, hostPort, byHost, state: byHost ? 'greeting' : 'asked', stream: stream as VsockStream, greeting: '', waiting: [], waitingBytes: 0, paused: false,
      room: 0, passed: 0, sent: 0, received: 0, forwarded: 0, told: 0, unwritten: 0, ours: 0, owesCredit: false, shut: 0, toldShut: 0, guestShut: 0,
    }; // biome-ignore format: one object
  }
  #accept(stream: VsockStream): VsockStreamEvents | undefined {
    if (this.#closed || !this.#core.ready || this.size >= CONNECTIONS) return undefined;
    const c = this.#connection(0, 0, true, stream);
    this.#streams.add(stream);
    stream.resume();
    return this.#events(c);
  }
  #events(c: Connection): VsockStreamEvents {
    return {
      connected: () => {
        if (c.state !== 'asked') return;
        c.state = 'open';
        this.#answer(c, VsockOp.response);
      },
      data: (bytes) => {
        if (c.state === 'greeting') return this.#greeted(c, bytes);
        if (c.state === 'over' || c.guestShut & VsockShutdown.noReceive || bytes.length === 0) return;
        c.waiting.push(bytes);
        c.waitingBytes += bytes.length;
        this.#flow(c);
        this.#busy.add(c);
        this.#work();
      },
      written: (count) => {
        c.unwritten -= count;
        // The greeting's answer is no data of the guest's.
        const data = Math.max(0, count - c.ours);
        c.ours -= count - data;
        c.forwarded = (c.forwarded + data) >>> 0;
        if (c.state === 'over') {
          if (c.unwritten === 0) this.#forget(c.stream);
          return;
        }
        if ((c.forwarded - c.told) >>> 0 >= BUFFER / 2) c.owesCredit = true;
        if (c.owesCredit) {
          this.#busy.add(c);
          this.#work();
        }
      },
      end: () => this.#shut(c, VsockShutdown.noSend),
      closed: () => {
        this.#streams.delete(c.stream);
        if (c.state === 'asked') {
          this.#end(c, true);
          this.#work();
        } else this.#shut(c, VsockShutdown.noSend | VsockShutdown.noReceive);
      },
    };
  }
  /** `CONNECT PORT\n`, and what follows. */
  #greeted(c: Connection, bytes: Uint8Array): void {
    const end = bytes.indexOf(10);
    const line = c.greeting + new TextDecoder('latin1').decode(bytes.subarray(0, end < 0 ? LINE : end));
    const found = /^CONNECT (\d{1,10})\r?$/.exec(line);
    const port = Number(found?.[1]);
    if (end < 0 && line.length < LINE) {
      c.greeting = line;
      return;
    }
    if (end < 0 || !found || port > 0xffff_ffff || !this.#core.ready) return this.#forget(c.stream);
    c.guestPort = port;
    do {
      c.hostPort = this.#nextPort;
      this.#nextPort = this.#nextPort >= 0xffff_fffe ? FIRST_PORT : this.#nextPort + 1;
    } while (this.#connections.has(key(port, c.hostPort)));
    c.state = 'asked';
    if (end + 1 < bytes.length) {
      c.waiting.push(bytes.subarray(end + 1));
      c.waitingBytes += bytes.length - end - 1;
    }
    this.#connections.set(key(port, c.hostPort), c);
    c.paused = true;
    c.stream.pause();
    this.#answer(c, VsockOp.request);
  }
  #shut(c: Connection, what: number): void {
    if (c.state === 'greeting') return this.#forget(c.stream);
    if (c.state === 'over') return;
    c.shut |= what;
    this.#busy.add(c);
    this.#work();
  }
  /** Holds the host back while much waits, and lets it go on. */
  #flow(c: Connection): void {
    const full = c.waitingBytes >= WAITING;
    if (full === c.paused) return;
    c.paused = full;
    if (full) c.stream.pause();
    else c.stream.resume();
  }
  #write(c: Connection, bytes: Uint8Array, data: boolean): void {
    if (!data) c.ours += bytes.length;
    c.unwritten += bytes.length;
    c.stream.write(bytes);
  }
  #answer(c: Connection, op: number): void {
    this.#answers.push({ sourcePort: c.hostPort, targetPort: c.guestPort, op, connection: c });
    this.#work();
  }
  /** The connection is over; what the guest has sent still goes to the host, unless it is cut off. */
  #end(c: Connection, tell: boolean, cut = false): void {
    this.#connections.delete(key(c.guestPort, c.hostPort));
    this.#busy.delete(c);
    const wasOpen = c.state === 'open';
    c.state = 'over';
    if (tell) this.#answers.push({ sourcePort: c.hostPort, targetPort: c.guestPort, op: VsockOp.reset });
    if (cut || !wasOpen || c.unwritten === 0) this.#forget(c.stream, wasOpen && !cut);
    else {
      c.stream.end();
      this.#o.after(LINGER, () => this.#forget(c.stream));
    }
  }
  #forget(stream: VsockStream, gently = false): void {
    if (!this.#streams.delete(stream)) return;
    if (gently) stream.end();
    stream.reset();
  }

  // -- packets for the guest

  /** Fills the guest's buffers with what there is for it. */
  #send(): void {
    for (;;) {
      const answer = this.#answers[0];
      const c = answer ? undefined : this.#nextBusy();
      if (!answer && !c) return;
      const [chain] = this.#core.take(VsockQueue.rx, 1);
      if (!chain) return;
      if (chain.in.length < VSOCK_HEADER) {
        this.#core.give(VsockQueue.rx, [[chain, 0]]);
        this.#core.fail(VsockQueue.rx, `a buffer has ${chain.in.length} bytes, a header ${VSOCK_HEADER}`);
        return;
      }
      const length = answer ? this.#fill(chain, answer) : this.#fillFrom(chain, c!);
      this.#core.give(VsockQueue.rx, [[chain, length]]);
    }
  }
  #fill(chain: Chain, answer: Answer): number {
    this.#answers.shift();
    return chain.in.write(0, this.#header(answer, 0, 0));
  }
  /** Bytes that the guest can take. */
  #credit(c: Connection): number {
    return Math.max(0, c.room - ((c.sent - c.passed) >>> 0));
  }
  /** A connection that has something to say; those that have not leave the list. */
  #nextBusy(): Connection | undefined {
    for (const c of this.#busy) {
      const says = c.state === 'open' && ((c.waitingBytes > 0 && this.#credit(c) > 0) || c.owesCredit || this.#owesShut(c));
      if (says) return c;
      this.#busy.delete(c);
    }
    return undefined;
  }
  /** All that the host has sent has gone before its end is told. */
  #owesShut = (c: Connection): boolean =>
    c.shut !== c.toldShut && (c.waitingBytes === 0 || (c.guestShut & VsockShutdown.noReceive) !== 0);
  #fillFrom(chain: Chain, c: Connection): number {
    // Others come before it is its turn again.
    this.#busy.delete(c);
    this.#busy.add(c);
    const ports = { sourcePort: c.hostPort, targetPort: c.guestPort, connection: c };
    const room = Math.min(chain.in.length - VSOCK_HEADER, VSOCK_PAYLOAD, this.#credit(c));
    if (c.waitingBytes > 0 && room > 0) {
      const first = c.waiting[0]!;
      const bytes = first.subarray(0, room);
      if (bytes.length === first.length) c.waiting.shift();
      else c.waiting[0] = first.subarray(room);
      c.waitingBytes -= bytes.length;
      c.sent = (c.sent + bytes.length) >>> 0;
      const header = this.#header({ ...ports, op: VsockOp.data }, bytes.length, 0);
      const length = chain.in.write(0, header) + chain.in.write(VSOCK_HEADER, bytes);
      this.#flow(c);
      return length;
    }
    if (this.#owesShut(c)) {
      c.toldShut = c.shut;
      // The guest answers the end of both directions by a reset; one that does not is told.
      if (c.shut === 3)
        this.#o.after(LINGER, () => {
          if (c.state === 'over') return;
          this.#end(c, true);
          this.#work();
        });
      return chain.in.write(0, this.#header({ ...ports, op: VsockOp.shutdown }, 0, c.shut));
    }
    return chain.in.write(0, this.#header({ ...ports, op: VsockOp.creditUpdate }, 0, 0));
  }
  #header({ sourcePort, targetPort, op, connection: c }: Answer, length: number, flags: number): Uint8Array {
    if (c) {
      c.told = c.forwarded;
      c.owesCredit = false;
    }
    return writeVsockHeader({
      sourceCid: BigInt(HOST_CID), targetCid: BigInt(this.#o.cid), sourcePort, targetPort, length, type: VSOCK_STREAM, op, flags,
      bufferSize: c ? BUFFER : 0, forwarded: c?.forwarded ?? 0,
    }); // biome-ignore format: one object
  }
}
