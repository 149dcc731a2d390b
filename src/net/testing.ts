// For tests: virtual time, a cable that loses, repeats and reorders frames, a host without sockets, and a guest with UDP and TCP of this folder.
import { type Address, familyOf, flowKey, sameAddress } from './address.ts';
import type { NetBackend } from './backend.ts';
import { get16 } from './bytes.ts';
import { fold, pseudoSum, sum16 } from './checksum.ts';
import type {
  HostAddress,
  HostListener,
  HostSockets,
  HostStream,
  HostUdp,
  NetClock,
  StreamEvents,
  StreamPeer,
  UdpEvents,
  UdpOptions,
} from './host.ts';
import { etherHeader, etherType, ipHeader, parseIpv4Packet, parseIpv6Packet, protocol } from './ip.ts';
import { Link, ownMac } from './link.ts';
import { Reassembly } from './reassembly.ts';
import { TcpConnection, type TcpOptions } from './tcp/connection.ts';
import { flag, headerLength, type OutSegment, parseSegment, writeSegment } from './tcp/segment.ts';
import { type Datagram, parseUdp, sendUdp } from './udp.ts';

/** Random numbers below 1 from a seed (xorshift32). */
export function seeded(seed: number): () => number {
  let x = seed | 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

interface VirtualTimer {
  readonly at: number;
  readonly order: number;
  readonly action: () => void;
}

/** Time that passes only in `run`. */
export class VirtualClock implements NetClock {
  #now = 0;
  #timers: VirtualTimer[] = [];
  #order = 0;

  now(): number {
    return this.#now;
  }

  after(ms: number, action: () => void): () => void {
    const t = { at: this.#now + Math.max(0, ms), order: this.#order++, action };
    this.#timers.push(t);
    return () => {
      this.#timers = this.#timers.filter((x) => x !== t);
    };
  }

  /** Fires all timers of the next `ms`, or fewer when `until` holds. */
  run(ms: number, until: () => boolean = () => false): void {
    const end = this.#now + ms;
    while (!until()) {
      let next = this.#timers[0];
      for (const t of this.#timers) if (t.at < next.at || (t.at === next.at && t.order < next.order)) next = t;
      if (next === undefined || next.at > end) {
        this.#now = end;
        return;
      }
      this.#timers = this.#timers.filter((t) => t !== next);
      this.#now = Math.max(this.#now, next.at);
      next.action();
    }
  }
}

/** Parts of all frames that are lost, come twice, or come after frames sent later; each 0 to 1. */
export interface Trouble {
  readonly loss: number;
  readonly repeat: number;
  readonly reorder: number;
}
export const noTrouble: Trouble = { loss: 0, repeat: 0, reorder: 0 };

/** One direction of a cable: hands on what it takes a moment later. */
export function cable<T>(
  clock: NetClock,
  random: () => number,
  trouble: Trouble,
  deliver: (item: T) => void,
  delay = 0.1,
): (item: T) => void {
  let queue: T[] = [];
  const flush = (): void => {
    const items = queue;
    queue = [];
    for (const item of items) deliver(item);
  };
  return (item) => {
    if (random() < trouble.loss) return;
    if (queue.length === 0) clock.after(delay, flush);
    queue.push(item);
    if (random() < trouble.repeat) queue.push(item);
    if (random() < trouble.reorder && queue.length > 1) {
      const at = Math.max(0, queue.length - 2 - Math.floor(random() * 4));
      queue.splice(at, 0, queue.pop()!);
    }
  };
}

/** A host whose sockets are what the test makes of them: everything that is asked for is listed. */
export class FakeHost implements HostSockets {
  readonly clock: NetClock;
  readonly #random: () => number;
  readonly streams: {
    readonly to: HostAddress;
    readonly events: StreamEvents;
    readonly log: string[];
    readonly written: Uint8Array[];
  }[] = [];
  readonly sockets: {
    readonly options: UdpOptions;
    readonly events: UdpEvents;
    readonly sent: { bytes: Uint8Array; address: string; port: number }[];
    open: boolean;
  }[] = [];
  readonly listeners: {
    readonly at: HostAddress;
    readonly accept: (s: HostStream, p: StreamPeer) => StreamEvents | undefined;
    open: boolean;
  }[] = [];
  nameservers: { address: string; port: number }[] = [];

  constructor(clock: NetClock, seed = 1) {
    this.clock = clock;
    this.#random = seeded(seed);
  }

  now(): number {
    return this.clock.now();
  }
  after(ms: number, action: () => void): () => void {
    return this.clock.after(ms, action);
  }
  connect(to: HostAddress, events: StreamEvents): HostStream {
    const log: string[] = [];
    const written: Uint8Array[] = [];
    this.streams.push({ to, events, log, written });
    const note = (what: string) => () => void log.push(what);
    return {
      write: (b) => void written.push(b),
      end: note('end'),
      reset: note('reset'),
      pause: note('pause'),
      resume: note('resume'),
    };
  }
  async listen(at: HostAddress, accept: (s: HostStream, p: StreamPeer) => StreamEvents | undefined): Promise<HostListener> {
    const l = { at, accept, open: true };
    this.listeners.push(l);
    return {
      port: 'port' in at ? at.port : 0,
      close() {
        l.open = false;
      },
    };
  }
  udp(options: UdpOptions, events: UdpEvents): HostUdp {
    const s = { options, events, sent: [] as { bytes: Uint8Array; address: string; port: number }[], open: true };
    this.sockets.push(s);
    this.clock.after(0, () => s.open && events.bound(options.port || 40_000));
    return {
      send: (bytes, address, port) => void s.sent.push({ bytes, address, port }),
      close() {
        s.open = false;
      },
    };
  }
  resolvers(): { address: string; port: number }[] {
    return this.nameservers;
  }
  random(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.#random() * 256);
  }
}

/** A guest's end of a TCP connection. */
export class GuestSocket {
  readonly received: Uint8Array[] = [];
  /** What happened, in order: `established`, `ended`, `done`, `reset`, `timeout`. */
  readonly log: string[] = [];
  connection!: TcpConnection;
  /** Takes what comes; while false the window fills. */
  reading = true;
  onData: (bytes: Uint8Array) => void = () => {};
  onEvent: (what: string) => void = () => {};
  onWritable: () => void = () => {};

  get bytes(): number {
    return this.received.reduce((n, b) => n + b.length, 0);
  }

  read(): void {
    const b = this.connection.read();
    if (b.length === 0) return;
    this.received.push(b);
    this.connection.release(b.length);
    this.onData(b);
  }

  /** The options that tie a connection to this socket. */
  options(clock: NetClock, iss: number, mss: number, window: number, transmit: (s: OutSegment) => void): TcpOptions {
    const note = (what: string): void => {
      this.log.push(what);
      this.onEvent(what);
    };
    return {
      clock,
      iss,
      mss,
      receiveLimit: () => window,
      transmit,
      events: {
        established: () => note('established'),
        readable: () => this.reading && this.read(),
        ended: () => note('ended'),
        writable: () => this.onWritable(),
        closed: (why) => note(why),
      },
    };
  }
}

/** A guest with one IPv4 and one IPv6 address behind a back-end. Every checksum that comes is verified; `faults` counts what is wrong. */
export class TestGuest {
  readonly link: Link;
  readonly frames: Uint8Array[] = [];
  /** Keeps copies of all frames in `frames`. */
  record = false;
  faults = 0;
  readonly datagrams: Datagram[] = [];
  onDatagram: (d: Datagram) => void = () => {};
  accept: ((port: number) => GuestSocket | undefined) | undefined;
  readonly #clock: NetClock;
  readonly #addresses: readonly Address[];
  readonly #router: Address;
  readonly #reassembly = new Reassembly();
  readonly #connections = new Map<string, TcpConnection>();
  #port = 40_000;
  #iss = 0xffff_0000;

  constructor(
    net: NetBackend,
    clock: NetClock,
    addresses: readonly Address[],
    router: Address,
    trouble: Trouble = noTrouble,
    seed = 1,
  ) {
    this.#clock = clock;
    this.#addresses = addresses;
    this.#router = router;
    const random = seeded(seed);
    const out = cable<Uint8Array>(clock, random, trouble, (f) => net.send(f));
    this.link = new Link({
      mtu: 1500,
      now: () => clock.now(),
      deliver: out,
      asker: (family) => addresses.find((a) => familyOf(a) === family)!,
      owns: (a) => addresses.some((x) => sameAddress(a, x)),
      firstId: 1,
    });
    net.receive = cable<Uint8Array>(clock, random, trouble, (f) => this.input(f));
  }

  input(frame: Uint8Array): void {
    if (this.record) this.frames.push(frame.slice());
    const b = frame.subarray(etherHeader);
    const kind = get16(frame, 12);
    if (kind === etherType.arp) return this.link.inputArp(frame, () => true);
    const part = kind === etherType.ipv4 ? parseIpv4Packet(b) : parseIpv6Packet(b);
    const p = part === undefined ? undefined : this.#reassembly.add(part, this.#clock.now());
    if (part === undefined) this.faults++;
    if (p === undefined) return;
    if (p.protocol === protocol.icmpv6 && p.payload[0] === 135) {
      const target = p.payload.slice(8, 24);
      if (this.#addresses.some((a) => sameAddress(a, target)))
        this.link.sendNeighbour(136, target, p.src.slice(), target, 0x60, frame.slice(6, 12));
    }
    if (p.protocol === protocol.udp) {
      const d = parseUdp(p);
      if (d === undefined) this.faults++;
      else {
        const copy = { ...d, src: d.src.slice(), dst: d.dst.slice(), data: d.data.slice() };
        this.datagrams.push(copy);
        this.onDatagram(copy);
      }
    }
    if (p.protocol !== protocol.tcp) return;
    const s = parseSegment(p.payload);
    if (
      s === undefined ||
      fold(sum16(p.payload, 0, p.payload.length, pseudoSum(p.src, p.dst, protocol.tcp, p.payload.length))) !== 0
    ) {
      this.faults++;
      return;
    }
    const key = flowKey(p.src, s.srcPort, p.dst, s.dstPort);
    const c = this.#connections.get(key);
    if (c !== undefined && c.state !== 'closed') return c.input(s);
    const socket = (s.flags & (flag.syn | flag.ack)) === flag.syn ? this.accept?.(s.dstPort) : undefined;
    if (socket === undefined) return;
    socket.connection = TcpConnection.accept(this.#options(socket, p.dst.slice(), s.dstPort, p.src.slice(), s.srcPort), s);
    this.#connections.set(key, socket.connection);
  }

  connect(to: Address, port: number, window = 1 << 18): GuestSocket {
    const socket = new GuestSocket();
    const own = this.#addresses.find((a) => a.length === to.length)!;
    const ownPort = this.#port++;
    socket.connection = TcpConnection.open(this.#options(socket, own, ownPort, to, port, window));
    this.#connections.set(flowKey(to, port, own, ownPort), socket.connection);
    return socket;
  }

  datagram(to: Address, port: number, data: Uint8Array, from = 5000): void {
    const own = this.#addresses.find((a) => a.length === to.length)!;
    sendUdp(this.link, { src: own, srcPort: from, dst: to, dstPort: port, data }, { mac: ownMac(this.#router) });
  }

  /** Sends an IP packet with this payload through the router; a checksum is put in at `checksumAt`. */
  packet(
    to: Address,
    proto: number,
    payload: Uint8Array,
    checksumAt: number,
    from = this.#addresses.find((a) => a.length === to.length)!,
  ): void {
    const frame = this.link.frame(familyOf(to), payload.length);
    frame.set(payload, this.link.bodyAt(familyOf(to)));
    this.link.sendSummed(frame, from, to, proto, checksumAt, { hopLimit: 255, mac: ownMac(this.#router) });
  }

  #options(socket: GuestSocket, own: Address, ownPort: number, to: Address, port: number, window = 1 << 18): TcpOptions {
    const family = familyOf(own);
    this.#iss = (this.#iss + 64_001) >>> 0;
    return socket.options(this.#clock, this.#iss, 1500 - ipHeader(family) - 20, window, (s) => {
      const frame = this.link.frame(family, headerLength(s) + (s.payload?.length ?? 0));
      writeSegment(frame, this.link.bodyAt(family), ownPort, port, s);
      this.link.sendSummed(frame, own, to, protocol.tcp, 16, { mac: ownMac(this.#router) });
    });
  }
}

/** Bytes whose order and number can be checked: position and seed give each. */
export function pattern(length: number, seed: number): Uint8Array {
  const b = new Uint8Array(length);
  const random = seeded(seed);
  const words = Uint32Array.from({ length: 1021 }, () => random() * 2 ** 32);
  for (let i = 0; i < length; i++) b[i] = words[(i >>> 2) % 1021] >>> (8 * (i & 3));
  return b;
}

/** A number that differs when bytes differ or change places (FNV-1a over words). */
export function digest(parts: readonly Uint8Array[]): number {
  let h = 0x811c_9dc5;
  for (const p of parts) for (let i = 0; i < p.length; i++) h = Math.imul(h ^ p[i], 0x0100_0193);
  return h >>> 0;
}
