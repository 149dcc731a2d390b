// TCP between guests and the host's sockets: one host stream per connection, forwards from host ports and to host addresses, limits.
import { type Address, familyOf, flowKey, formatAddress, isLoopback, parseAddress, sameAddress } from './address.ts';
import { get32 } from './bytes.ts';
import { fold, pseudoSum, sum16 } from './checksum.ts';
import type { HostAddress, HostListener, HostSockets, HostStream, StreamEvents, StreamPeer } from './host.ts';
import { quote, sendUnreachable } from './icmp.ts';
import { type IpPacket, ipHeader, protocol } from './ip.ts';
import type { Link } from './link.ts';
import { loopbackOf, routeTo, subnetOf } from './route.ts';
import { TcpFlow } from './tcp/flow.ts';
import { flag, headerLength, type OutSegment, parseSegment, type Segment, writeSegment } from './tcp/segment.ts';
import type { HostForward, UserNetOptions } from './user-options.ts';

/** Bytes for each direction of all connections together, shared evenly, and the least and most of one. */
const memory = { all: 64 << 20, least: 32 << 10, most: 256 << 10 } as const;

/** Payload of the largest packet that a guest divides itself. */
const LARGEST = 65_535 - 40 - 60;

/** Addresses of a connection as the guest sees them: `near` is the virtual network's end. */
interface Ends {
  readonly near: Address;
  readonly nearPort: number;
  readonly guest: Address;
  readonly guestPort: number;
}

export class TcpNat {
  readonly #o: UserNetOptions;
  readonly #link: Link;
  readonly #host: HostSockets;
  readonly #flows = new Map<string, TcpFlow>();
  readonly #forwards: { readonly rule: HostForward; readonly listener: HostListener }[] = [];
  #closed = false;

  constructor(options: UserNetOptions, link: Link, host: HostSockets) {
    this.#o = options;
    this.#link = link;
    this.#host = host;
  }

  /** Connections, those in TIME-WAIT included. */
  get size(): number {
    return this.#flows.size;
  }

  /** Bytes that all connections' buffers take. */
  get memory(): number {
    return [...this.#flows.values()].reduce((n, f) => n + f.memory, 0);
  }

  /** Takes a guest's TCP packet; `unsummed`: its checksum was left out, as nothing could have happened to it. */
  input(p: IpPacket, unsummed = false): void {
    const b = p.payload;
    if (!unsummed && fold(sum16(b, 0, b.length, pseudoSum(p.src, p.dst, protocol.tcp, b.length))) !== 0) return;
    const s = parseSegment(b);
    if (s === undefined || s.srcPort === 0 || s.dstPort === 0) return;
    const key = flowKey(p.dst, s.dstPort, p.src, s.srcPort);
    const flow = this.#flows.get(key);
    if (flow !== undefined && !flow.yieldsTo(s)) return flow.input(s);
    if (flow !== undefined) this.#remove(key, flow);
    const ends = { near: p.dst.slice(), nearPort: s.dstPort, guest: p.src.slice(), guestPort: s.srcPort };
    if ((s.flags & (flag.syn | flag.ack | flag.rst | flag.fin)) === flag.syn) this.#opened(key, ends, s, p);
    else this.#refuse(ends, s);
  }

  /** The guest opens a connection. */
  #opened(key: string, ends: Ends, syn: Segment, p: IpPacket): void {
    const to = this.#destination(ends);
    if (to === undefined) {
      // A guest that is shut in hears nothing but from the addresses that are there.
      if (!this.#o.restrict || subnetOf(this.#o, familyOf(ends.near))?.host.every((x, i) => x === ends.near[i]))
        this.#refuse(ends, syn);
      return;
    }
    this.#makeRoom();
    const original = quote(p);
    const flow = this.#flow(key, ends);
    flow.connect(syn, to, (failure) => {
      const net = subnetOf(this.#o, familyOf(ends.near));
      if (failure === 'unreachable' && net !== undefined) {
        sendUnreachable(this.#link, net.host, ends.guest, original, 'host');
      } else this.#refuse(ends, syn);
    });
  }

  #destination({ near, nearPort }: Ends): HostAddress | undefined {
    const forward = this.#o.guestForwards.find((f) => f.port === nearPort && sameAddress(f.server, near));
    if (forward !== undefined) return forward.to;
    switch (routeTo(this.#o, near)) {
      case 'loopback':
        return { host: loopbackOf(familyOf(near)), port: nearPort };
      case 'outside':
        return { host: formatAddress(near), port: nearPort };
      case 'dns': {
        const resolver = nearPort === 53 ? this.#host.resolvers()[0] : undefined;
        return resolver === undefined ? undefined : { host: resolver.address, port: resolver.port };
      }
      case 'none':
        return undefined;
    }
  }

  #flow(key: string, ends: Ends): TcpFlow {
    const family = familyOf(ends.near);
    const flow: TcpFlow = new TcpFlow({
      host: this.#host,
      iss: get32(this.#host.random(4), 0),
      mss: this.#link.mtu - ipHeader(family) - 20,
      burst: () => ((family === 4 ? this.#link.guest.tso4 : this.#link.guest.tso6) ? LARGEST : 0),
      limit: () => Math.max(memory.least, Math.min(memory.most, Math.floor(memory.all / Math.max(1, this.#flows.size)))),
      transmit: (s) => this.#transmit(ends, s),
      gone: () => this.#remove(key, flow),
    });
    this.#flows.set(key, flow);
    return flow;
  }

  #remove(key: string, flow: TcpFlow): void {
    flow.drop();
    if (this.#flows.get(key) === flow) this.#flows.delete(key);
  }

  /** Closes one connection where there are as many as may be: the one longest in TIME-WAIT, else the one longest unused. */
  #makeRoom(): void {
    if (this.#flows.size < this.#o.maxTcp) return;
    let oldest: [string, TcpFlow] | undefined;
    for (const e of this.#flows) {
      if (oldest === undefined || (e[1].over !== oldest[1].over ? e[1].over : e[1].used < oldest[1].used)) oldest = e;
    }
    if (oldest === undefined) return;
    oldest[1].abort();
    this.#remove(...oldest);
  }

  #transmit(e: Ends, s: OutSegment): void {
    const family = familyOf(e.near);
    const header = headerLength(s);
    const frame = this.#link.frame(family, header + (s.payload?.length ?? 0));
    writeSegment(frame, this.#link.bodyAt(family), e.nearPort, e.guestPort, s);
    this.#link.sendSummed(frame, e.near, e.guest, protocol.tcp, 16, { segment: s.segment });
  }

  /** The reset that answers a segment for no connection (RFC 9293, section 3.10.7.1). */
  #refuse(e: Ends, s: Segment): void {
    if (s.flags & flag.rst) return;
    const length = s.payload.length + (s.flags & flag.syn ? 1 : 0) + (s.flags & flag.fin ? 1 : 0);
    const known = (s.flags & flag.ack) !== 0;
    this.#transmit(e, {
      seq: known ? s.ack : 0,
      ack: known ? 0 : s.seq + length,
      flags: flag.rst | (known ? 0 : flag.ack),
      window: 0,
    });
  }

  /** Listens for a forward. Rejects where the host refuses; gives the bound port. */
  async addForward(rule: HostForward): Promise<number> {
    const listener = await this.#host.listen(rule.host, (stream, peer) => this.#accepted(rule, stream, peer));
    if (this.#closed) listener.close();
    else this.#forwards.push({ rule, listener });
    return listener.port;
  }

  /** Ends the first forward that `match` takes, its connections go on; false where there is none. */
  removeForward(match: (rule: HostForward) => boolean): boolean {
    const i = this.#forwards.findIndex((f) => match(f.rule));
    if (i < 0) return false;
    this.#forwards.splice(i, 1)[0].listener.close();
    return true;
  }

  #accepted(rule: HostForward, stream: HostStream, peer: StreamPeer): StreamEvents | undefined {
    const family = familyOf(rule.guest);
    const net = subnetOf(this.#o, family);
    if (this.#closed || net === undefined) return undefined;
    const from = parseAddress(peer.address);
    // The host's own clients are seen as the router: their address would mean the guest itself.
    const near = from === undefined || familyOf(from) !== family || isLoopback(from) ? net.host : from;
    this.#makeRoom();
    let nearPort = peer.port === 0 ? 1024 : peer.port;
    let key = flowKey(near, nearPort, rule.guest, rule.port);
    for (let i = 0; this.#flows.has(key) && i < this.#o.maxTcp; i++) {
      nearPort = nearPort >= 65_535 ? 1024 : nearPort + 1;
      key = flowKey(near, nearPort, rule.guest, rule.port);
    }
    return this.#flow(key, { near, nearPort, guest: rule.guest, guestPort: rule.port }).serve(stream);
  }

  close(): void {
    this.#closed = true;
    for (const f of this.#forwards) f.listener.close();
    for (const f of this.#flows.values()) f.drop();
    this.#forwards.length = 0;
    this.#flows.clear();
  }
}
