// UDP between guests and the host's sockets: one socket per guest port, replies only from addresses that the guest has written to,
// forwards from host ports. RFC 4787 (endpoint-independent mapping, address-dependent filtering; time-outs).
import { type Address, addressKey, familyOf, flowKey, formatAddress, isLoopback, parseAddress } from './address.ts';
import type { HostSockets, HostUdp } from './host.ts';
import type { Link } from './link.ts';
import { loopbackOf, subnetOf } from './route.ts';
import { Timer } from './timer.ts';
import { type Datagram, sendUdp } from './udp.ts';
import type { HostForward, UserNetOptions } from './user-options.ts';

/** ms without traffic after which a mapping ends (RFC 4787, REQ-5: not less than two minutes), and how often that is looked at. */
const idle = 240_000;
const sweep = 10_000;
/** Remote addresses per mapping that may answer, clients per forward that are answered; the oldest is forgotten. */
const maxPeers = 64;
/** Most bytes of one IPv4 or IPv6 datagram. */
const maxData = 65_507;

interface Mapping {
  readonly socket: HostUdp;
  used: number;
  /** Addresses that the guest has written to. */
  readonly peers: Set<string>;
}

interface Forward {
  readonly rule: HostForward;
  readonly socket: HostUdp;
  /** Clients by how the guest sees them. */
  readonly clients: Map<string, { readonly address: string; readonly port: number }>;
}

function bound<K>(set: { size: number; keys(): Iterator<K>; delete(k: K): boolean }, max: number): void {
  if (set.size > max) set.delete(set.keys().next().value as K);
}

export class UdpNat {
  readonly #o: UserNetOptions;
  readonly #link: Link;
  readonly #host: HostSockets;
  /** In order of use, the longest unused first. */
  readonly #mappings = new Map<string, Mapping>();
  readonly #forwards: Forward[] = [];
  readonly #sweep: Timer;
  #closed = false;

  constructor(options: UserNetOptions, link: Link, host: HostSockets) {
    this.#o = options;
    this.#link = link;
    this.#host = host;
    this.#sweep = new Timer(host, () => this.#expire());
  }

  /** Host sockets of guest ports that are open. */
  get size(): number {
    return this.#mappings.size;
  }

  /** Whether a datagram is the answer to a client of a forward; it is sent then. */
  answer(d: Datagram): boolean {
    for (const f of this.#forwards) {
      if (f.rule.port !== d.srcPort || addressKey(f.rule.guest) !== addressKey(d.src)) continue;
      const client = f.clients.get(addressKey(d.dst) + String.fromCharCode(d.dstPort));
      if (client === undefined) continue;
      f.socket.send(d.data.slice(), client.address, client.port);
      return true;
    }
    return false;
  }

  /** Sends a guest's datagram from the guest port's own socket. `loopback`: to the host itself, from a socket only it can reach. */
  send(d: Datagram, loopback: boolean): void {
    const key = `${loopback ? 'l' : 'o'}${flowKey(d.src, d.srcPort, d.src, 0)}`;
    let m = this.#mappings.get(key);
    if (m === undefined) m = this.#open(key, d, loopback);
    else {
      this.#mappings.delete(key);
      this.#mappings.set(key, m);
    }
    m.used = this.#host.now();
    const to = loopback ? loopbackOf(familyOf(d.dst)) : formatAddress(d.dst);
    m.peers.delete(to);
    m.peers.add(to);
    bound(m.peers, maxPeers);
    m.socket.send(d.data.slice(), to, d.dstPort);
  }

  #open(key: string, d: Datagram, loopback: boolean): Mapping {
    const [guest, guestPort, family] = [d.src.slice(), d.srcPort, familyOf(d.src)];
    const m: Mapping = {
      used: 0,
      peers: new Set(),
      socket: this.#host.udp(
        { family, address: loopback ? loopbackOf(family) : undefined },
        {
          bound: () => {},
          failed: () => {
            if (this.#mappings.get(key) === m) this.#mappings.delete(key);
          },
          message: (data, address, port) => {
            const from = parseAddress(address);
            if (from === undefined || familyOf(from) !== family || data.length > maxData) return;
            const net = subnetOf(this.#o, family);
            if (net === undefined || !(m.peers.has(address) || m.peers.has(formatAddress(from)))) return;
            m.used = this.#host.now();
            sendUdp(this.#link, { src: loopback ? net.host : from, srcPort: port, dst: guest, dstPort: guestPort, data });
          },
        },
      ),
    };
    this.#mappings.set(key, m);
    if (this.#mappings.size > this.#o.maxUdp) this.#drop(this.#mappings.keys().next().value!);
    if (!this.#sweep.armed) this.#sweep.set(sweep);
    return m;
  }

  #drop(key: string): void {
    const m = this.#mappings.get(key);
    this.#mappings.delete(key);
    m?.socket.close();
  }

  #expire(): void {
    const now = this.#host.now();
    for (const [key, m] of this.#mappings) if (now - m.used > idle) this.#drop(key);
    if (this.#mappings.size > 0) this.#sweep.set(sweep);
  }

  /** Binds a forward. Rejects where the host refuses; gives the bound port. */
  addForward(rule: HostForward): Promise<number> {
    const at = rule.host;
    if ('path' in at) return Promise.reject(new Error(`Cannot forward UDP from ${at.path}: only TCP goes over a unix socket`));
    const bindTo = parseAddress(at.host);
    const bindFamily = bindTo === undefined ? 4 : familyOf(bindTo);
    return new Promise((resolve, reject) => {
      const clients: Forward['clients'] = new Map();
      const socket = this.#host.udp(
        { family: bindFamily, address: at.host, port: at.port },
        {
          bound: (port) => {
            if (this.#closed) return socket.close();
            this.#forwards.push({ rule, socket, clients });
            resolve(port);
          },
          failed: (message) => reject(new Error(`Cannot forward UDP ${at.host}:${at.port}: ${message}`)),
          message: (data, address, port) => this.#fromClient(rule, clients, data, address, port),
        },
      );
    });
  }

  #fromClient(rule: HostForward, clients: Forward['clients'], data: Uint8Array, address: string, port: number): void {
    const family = familyOf(rule.guest);
    const from = parseAddress(address);
    const net = subnetOf(this.#o, family);
    if (from === undefined || net === undefined || data.length > maxData) return;
    const seen: Address = familyOf(from) !== family || isLoopback(from) ? net.host : from;
    const key = addressKey(seen) + String.fromCharCode(port);
    clients.delete(key);
    clients.set(key, { address, port });
    bound(clients, maxPeers);
    sendUdp(this.#link, { src: seen, srcPort: port, dst: rule.guest, dstPort: rule.port, data });
  }

  /** Ends the first forward that `match` takes; false where there is none. */
  removeForward(match: (rule: HostForward) => boolean): boolean {
    const i = this.#forwards.findIndex((f) => match(f.rule));
    if (i < 0) return false;
    this.#forwards.splice(i, 1)[0].socket.close();
    return true;
  }

  close(): void {
    this.#closed = true;
    this.#sweep.close();
    for (const m of this.#mappings.values()) m.socket.close();
    for (const f of this.#forwards) f.socket.close();
    this.#mappings.clear();
    this.#forwards.length = 0;
  }
}
