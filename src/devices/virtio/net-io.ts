// The I/O side of the network device: frames between the driver's queues and a back-end.
// Virtual I/O Device (VIRTIO) 1.2, section 5.1.6.
import type { Chain } from './chain.ts';
import type { VirtioCore } from './core.ts';
import {
  control,
  fillChecksum,
  Gso,
  headerBytes,
  NetFeature,
  type NetHeader,
  type NetState,
  readNetHeader,
  wanted,
  writeNetHeader,
} from './net.ts';

/** What a packet still lacks: its checksum, and to be cut into segments of `gsoSize` bytes of payload (0: it is whole). */
export interface PacketOffload {
  readonly checksumStart: number;
  readonly checksumOffset: number;
  readonly gsoSize: number;
}
/** What carries the device's frames; `src/net/backend.ts` has more of it. */
export interface NetPort {
  send(frame: Uint8Array, offload?: PacketOffload): void;
  receive: (frame: Uint8Array, offload?: PacketOffload) => void;
  /** Told what packets the guest takes unfinished; absent where the back-end knows whole packets only. */
  offloads?: (guest: { readonly checksum: boolean; readonly tso4: boolean; readonly tso6: boolean }) => void;
}

/** Longest packet with its headers. */
const LONGEST = 65536 + 18;
/** Bytes of frames that wait for the driver's buffers. */
const WAITING = 4 << 20;
/** Chains that are taken from a receive queue ahead of frames. */
const AHEAD = 32;
const NOTHING: NetHeader = { needsChecksum: false, gso: Gso.none, gsoSize: 0, checksumStart: 0, checksumOffset: 0 };

interface Waiting {
  readonly frame: Uint8Array;
  readonly offload: PacketOffload | undefined;
}

export class NetIo {
  readonly #core: VirtioCore;
  readonly #s: NetState;
  readonly #port: NetPort;
  readonly #pairs: number;
  /** By pair: chains that were taken ahead, and those that are filled and not given back. */
  readonly #spare: Chain[][];
  readonly #filled: (readonly [Chain, number])[][];
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #flushing = false;
  #turn = 0;
  #told = '';
  readonly #frame = new Uint8Array(LONGEST);
  readonly #header = new Uint8Array(12);

  constructor(core: VirtioCore, s: NetState, port: NetPort, pairs: number) {
    this.#core = core;
    this.#s = s;
    this.#port = port;
    this.#pairs = pairs;
    this.#spare = Array.from({ length: pairs }, () => []);
    this.#filled = Array.from({ length: pairs }, () => []);
    s.offload = port.offloads ? 1 : 0;
    s.link = 1;
    for (let pair = 0; pair < pairs; pair++) {
      core.serve(2 * pair, () => this.#retry());
      core.serve(2 * pair + 1, () => this.#transmit(2 * pair + 1));
    }
    core.serve(2 * pairs, () => this.#control());
    port.receive = (frame, offload) => this.#receive(frame, offload);
    core.onReset = () => this.reset();
  }

  /** Gives all chains back that were taken ahead: for a machine that is held or reset. */
  drain(): void {
    this.#flush();
    for (let pair = 0; pair < this.#pairs; pair++) this.#core.untake(2 * pair, this.#spare[pair]!.splice(0));
  }
  /** The device was reset: what is still here is of an earlier time. */
  reset(): void {
    for (let pair = 0; pair < this.#pairs; pair++) {
      const spare = this.#spare[pair]!.splice(0);
      this.#core.give(
        2 * pair,
        spare.map((chain) => [chain, 0] as const),
      );
    }
    this.#flush();
    this.#waiting = [];
    this.#waitingBytes = 0;
  }
  close(): void {
    this.drain();
    this.#port.receive = () => {};
  }
  /** The link went up or down (`set_link`). */
  setLink(up: boolean): void {
    this.#core.lock.run(() => {
      this.#s.link = up ? 1 : 0;
      this.#core.configChanged();
    });
  }

  // -- to the network

  #transmit(queue: number): void {
    for (;;) {
      const chains = this.#core.take(queue);
      if (chains.length === 0) return;
      this.#tell();
      for (const chain of chains) this.#send(chain);
      this.#core.give(
        queue,
        chains.map((chain) => [chain, 0] as const),
      );
    }
  }
  #send({ out }: Chain): void {
    const header = headerBytes(this.#core.features);
    const length = out.length - header;
    if (length < 14 || length > LONGEST || (this.#s.link & 1) === 0) return;
    out.read(0, this.#header.subarray(0, header));
    // A copy: the guest may change its memory while the frame is looked at.
    const frame = this.#frame.subarray(0, length);
    out.read(header, frame);
    const h = readNetHeader(this.#header);
    if (!h.needsChecksum && h.gso === Gso.none) return this.#port.send(frame);
    const { checksumStart, checksumOffset } = h;
    if (this.#s.offload) this.#port.send(frame, { checksumStart, checksumOffset, gsoSize: h.gso === Gso.none ? 0 : h.gsoSize });
    else if (h.gso === Gso.none) {
      fillChecksum(frame, checksumStart, checksumOffset);
      this.#port.send(frame);
    }
  }
  /** Tells the back-end what was agreed, when that changes. */
  #tell(): void {
    const { features } = this.#core;
    const on = (f: bigint): boolean => (features & f & BigInt(this.#s.guestOffloads)) !== 0n;
    const guest = { checksum: on(NetFeature.guestChecksum), tso4: on(NetFeature.guestTso4), tso6: on(NetFeature.guestTso6) };
    const text = JSON.stringify(guest);
    if (text !== this.#told) this.#port.offloads?.(guest);
    this.#told = text;
  }

  // -- from the network

  #receive(frame: Uint8Array, offload?: PacketOffload): void {
    if (!this.#core.ready || (this.#s.link & 1) === 0 || frame.length > LONGEST) return;
    if (!wanted(this.#s, this.#core.features, frame)) return;
    if (this.#waiting.length === 0 && this.#put(frame, offload)) return;
    if (this.#waitingBytes + frame.length > WAITING) return;
    this.#waiting.push({ frame: frame.slice(), offload });
    this.#waitingBytes += frame.length;
  }
  /** The driver has new buffers. */
  #retry(): void {
    let done = 0;
    for (const { frame, offload } of this.#waiting) {
      if (!this.#put(frame, offload)) break;
      done++;
      this.#waitingBytes -= frame.length;
    }
    this.#waiting.splice(0, done);
    if (this.#waiting.length === 0) this.#waitingBytes = 0;
  }
  /** Puts a frame into the driver's buffers; false when there are not enough. */
  #put(frame: Uint8Array, offload: PacketOffload | undefined): boolean {
    const { features } = this.#core;
    const pair = this.#s.pairs > 1 ? this.#turn++ % Math.min(this.#s.pairs, this.#pairs) : 0;
    const spare = this.#spare[pair]!;
    const bytes = headerBytes(features);
    const mergeable = (features & NetFeature.mergeable) !== 0n;
    const need = bytes + frame.length;
    let room = 0;
    let count = 0;
    while (room < need) {
      if (count === spare.length) {
        const more = this.#core.take(2 * pair, AHEAD);
        if (more.length === 0) return false;
        spare.push(...more);
      }
      room += spare[count++]!.in.length;
      // Without mergeable buffers a frame must fit into one; what does not is lost.
      if (!mergeable && room < need) return true;
    }
    const header = this.#header.subarray(0, bytes);
    const v6 = frame[12] === 0x86;
    writeNetHeader(
      header,
      offload
        ? {
            needsChecksum: true,
            gso: offload.gsoSize === 0 ? Gso.none : v6 ? Gso.tcp6 : Gso.tcp4,
            gsoSize: offload.gsoSize,
            checksumStart: offload.checksumStart,
            checksumOffset: offload.checksumOffset,
          }
        : NOTHING,
      offload ? offload.checksumStart + 20 : 0,
    );
    if (bytes === 12) header[10] = count;
    const chains = spare.splice(0, count);
    let at = 0;
    chains.forEach((chain, n) => {
      const from = n === 0 ? chain.in.write(0, header) : 0;
      const put = chain.in.write(from, frame.subarray(at, at + chain.in.length - from));
      at += put;
      this.#filled[pair]!.push([chain, from + put]);
    });
    if (!this.#flushing) {
      this.#flushing = true;
      void Promise.resolve().then(() => this.#flush());
    }
    return true;
  }
  /** All that was filled in this turn goes back with one interrupt. */
  #flush(): void {
    this.#flushing = false;
    for (let pair = 0; pair < this.#pairs; pair++) this.#core.give(2 * pair, this.#filled[pair]!.splice(0));
  }

  // -- commands

  #control(): void {
    const queue = 2 * this.#pairs;
    for (const chain of this.#core.take(queue, 64)) {
      const answer =
        chain.out.length < 2 || chain.out.length > 1 << 20 || chain.in.length < 1
          ? 1
          : this.#core.lock.run(() => control(this.#s, this.#core.features, this.#pairs, chain.out.bytes()));
      chain.in.write(0, Uint8Array.of(answer));
      this.#core.give(queue, [[chain, 1]]);
    }
    this.#tell();
  }
}
