// The DHCP server of the virtual network. RFC 2131 (protocol), RFC 2132 (options), RFC 3397 (domain search); plain BOOTP clients as RFC 1534.
import { type Address, formatMac, hostAddress, inPrefix, type Mac, maskOf, sameAddress } from './address.ts';
import { concat, get16, get32, put16, put32, sameBytes } from './bytes.ts';
import type { NetClock } from './host.ts';
import { broadcastMac, type Link } from './link.ts';
import { type Datagram, sendUdp } from './udp.ts';
import type { UserNetOptions } from './user-options.ts';

/** Addresses in the pool, seconds of a lease. */
const poolSize = 16;
const leaseTime = 86_400;
const magic = 0x6382_5363;

const type = { discover: 1, offer: 2, request: 3, decline: 4, ack: 5, nak: 6, release: 7, inform: 8 } as const;
const option = {
  mask: 1,
  router: 3,
  dns: 6,
  hostname: 12,
  domain: 15,
  mtu: 26,
  address: 50,
  lease: 51,
  overload: 52,
  type: 53,
  server: 54,
  message: 56,
  tftpServer: 66,
  bootfile: 67,
  search: 119,
} as const; // prettier-ignore

interface Lease {
  /** Client's hardware address as text. */
  readonly client: string;
  readonly address: Address;
  /** ms of the host's clock when it ends. */
  until: number;
}

/** Options of a message from byte 240 on, the first of each kind; `undefined` where they run past the end. */
function parseOptions(b: Uint8Array): ReadonlyMap<number, Uint8Array> | undefined {
  const found = new Map<number, Uint8Array>();
  for (let at = 240; at < b.length && b[at] !== 255; ) {
    if (b[at] === 0) {
      at++;
      continue;
    }
    const end = at + 2 + b[at + 1];
    if (at + 1 >= b.length || end > b.length) return undefined;
    if (!found.has(b[at])) found.set(b[at], b.subarray(at + 2, end));
    at = end;
  }
  return found;
}

const text = (s: string): Uint8Array => new TextEncoder().encode(s).subarray(0, 255);

/** Domain names one behind the other, in the form of RFC 1035, section 3.1, without compression; names that can't be written are left out. */
export function domainNames(names: readonly string[]): Uint8Array {
  const out: Uint8Array[] = [];
  for (const name of names) {
    const labels = name
      .replace(/\.$/, '')
      .split('.')
      .map((l) => new TextEncoder().encode(l));
    if (labels.some((l) => l.length === 0 || l.length > 63)) continue;
    out.push(...labels.map((l) => concat(Uint8Array.of(l.length), l)), Uint8Array.of(0));
  }
  return concat(...out);
}

/** One option, in pieces of at most 255 bytes (RFC 3396). */
function optionBytes(code: number, data: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at === 0 || at < data.length; at += 255) {
    const piece = data.subarray(at, at + 255);
    parts.push(Uint8Array.of(code, piece.length), piece);
  }
  return concat(...parts);
}

const word = (v: number): Uint8Array => {
  const b = new Uint8Array(4);
  put32(b, 0, v);
  return b;
};

export class DhcpServer {
  readonly #o: UserNetOptions;
  readonly #net: NonNullable<UserNetOptions['ipv4']>;
  readonly #link: Link;
  readonly #clock: NetClock;
  /** At most one for each address of the pool. */
  #leases: Lease[] = [];

  constructor(options: UserNetOptions, net: NonNullable<UserNetOptions['ipv4']>, link: Link, clock: NetClock) {
    this.#o = options;
    this.#net = net;
    this.#link = link;
    this.#clock = clock;
  }

  /** Takes a datagram for port 67. */
  input(d: Datagram): void {
    const b = d.data;
    if (b.length < 236 || b[0] !== 1 || b[1] !== 1 || b[2] !== 6) return;
    const bootp = b.length < 240 || get32(b, 236) !== magic;
    const options = bootp ? new Map<number, Uint8Array>() : parseOptions(b);
    if (options === undefined) return;
    const mac = b.subarray(28, 34);
    const client = formatMac(mac);
    const kind = options.get(option.type)?.[0];
    const server = options.get(option.server);
    const forUs = server === undefined || sameBytes(server, this.#net.host);
    const ciaddr = b.subarray(12, 16);
    const wanted = options.get(option.address) ?? ciaddr;
    switch (kind) {
      case undefined:
      case type.discover: {
        const lease = this.#lease(client, wanted);
        if (lease !== undefined) this.#reply(b, mac, kind === undefined ? undefined : type.offer, lease.address);
        return;
      }
      case type.request: {
        if (!forUs) return this.#forget(client);
        const lease = this.#lease(client, wanted);
        if (lease !== undefined && sameAddress(lease.address, wanted)) {
          lease.until = this.#clock.now() + leaseTime * 1000;
          return this.#reply(b, mac, type.ack, lease.address);
        }
        return this.#reply(b, mac, type.nak, undefined);
      }
      case type.decline:
        // The client found the address in use: nobody gets it until the lease is over.
        if (forUs && wanted.length === 4) this.#decline(client, wanted);
        return;
      case type.release:
        return this.#forget(client);
      case type.inform:
        return this.#reply(b, mac, type.ack, undefined);
      default:
        return;
    }
  }

  #forget(client: string): void {
    this.#leases = this.#leases.filter((l) => l.client !== client);
  }

  #decline(client: string, address: Address): void {
    const lease = this.#leases.find((l) => l.client === client && sameAddress(l.address, address));
    if (lease === undefined) return;
    this.#forget(client);
    this.#leases.push({ client: `declined ${client}`, address: lease.address, until: this.#clock.now() + leaseTime * 1000 });
  }

  #inPool(a: Address): boolean {
    const offset = a.length === 4 ? get32(a, 0) - get32(this.#net.dhcpStart, 0) : -1;
    return offset >= 0 && offset < poolSize && this.#usable(a);
  }

  #usable(a: Address): boolean {
    const { network, prefix, host, dns } = this.#net;
    const last = hostAddress(network, 2 ** (32 - prefix) - 1);
    const taken = [host, dns, last, ...this.#o.guestForwards.map((f) => f.server)];
    return inPrefix(a, network, prefix) && !taken.some((t) => sameAddress(t, a));
  }

  /** The client's lease, or a new one: of the wanted address if that is free, else the first free, else the one that ended longest ago. */
  #lease(client: string, wanted: Address): Lease | undefined {
    const now = this.#clock.now();
    const own = this.#leases.find((l) => l.client === client);
    if (own !== undefined) return own;
    const pool = Array.from({ length: poolSize }, (_, i) => hostAddress(this.#net.dhcpStart, i)).filter((a) => this.#usable(a));
    const holder = (a: Address): Lease | undefined => this.#leases.find((l) => sameAddress(l.address, a));
    let address =
      this.#inPool(wanted) && holder(wanted) === undefined ? wanted.slice() : pool.find((a) => holder(a) === undefined);
    if (address === undefined) {
      const ended = this.#leases.filter((l) => l.until <= now).sort((a, b) => a.until - b.until)[0];
      if (ended === undefined) return undefined;
      this.#leases = this.#leases.filter((l) => l !== ended);
      address = ended.address;
    }
    // An offer that is not taken up is kept for a minute.
    const lease = { client, address, until: now + 60_000 };
    this.#leases.push(lease);
    return lease;
  }

  #options(kind: number | undefined): Uint8Array[] {
    const { host, dns, prefix } = this.#net;
    const list: [number, Uint8Array][] = [];
    if (kind !== undefined) list.push([option.type, Uint8Array.of(kind)], [option.server, host]);
    if (kind === type.nak) return list.map(([c, d]) => optionBytes(c, d));
    list.push([option.mask, word(maskOf(prefix))]);
    if (!this.#o.restrict) list.push([option.router, host], [option.dns, dns]);
    if (kind !== undefined) list.push([option.lease, word(leaseTime)]);
    if (this.#o.mtu !== 1500) list.push([option.mtu, Uint8Array.of(this.#o.mtu >>> 8, this.#o.mtu & 0xff)]);
    if (this.#o.hostname !== undefined) list.push([option.hostname, text(this.#o.hostname)]);
    if (this.#o.domainName !== undefined) list.push([option.domain, text(this.#o.domainName)]);
    if (this.#o.tftpServerName !== undefined) list.push([option.tftpServer, text(this.#o.tftpServerName)]);
    if (this.#o.bootfile !== undefined) list.push([option.bootfile, text(this.#o.bootfile)]);
    const search = domainNames(this.#o.dnsSearch);
    if (search.length > 0) list.push([option.search, search]);
    return list.map(([c, d]) => optionBytes(c, d));
  }

  #reply(request: Uint8Array, mac: Mac, kind: number | undefined, address: Address | undefined): void {
    const { host } = this.#net;
    const head = new Uint8Array(240);
    head.set([2, 1, 6, 0]);
    head.set(request.subarray(4, 8), 4);
    put16(head, 10, get16(request, 10));
    if (kind !== type.nak) head.set(request.subarray(12, 16), 12);
    if (address !== undefined) head.set(address, 16);
    head.set(host, 20);
    head.set(request.subarray(24, 44), 24);
    if (kind !== type.nak) {
      if (this.#o.tftpServerName !== undefined) head.set(text(this.#o.tftpServerName).subarray(0, 63), 44);
      if (this.#o.bootfile !== undefined) head.set(text(this.#o.bootfile).subarray(0, 127), 108);
    }
    put32(head, 236, magic);
    const body = concat(head, ...this.#options(kind), Uint8Array.of(255));
    // Old clients take no message shorter than BOOTP's 300 bytes.
    const data = body.length >= 300 ? body : concat(body, new Uint8Array(300 - body.length));
    const ciaddr = request.subarray(12, 16);
    // A client that has its address gets the answer there; all others by broadcast, which every client takes (RFC 2131, section 4.1).
    const known = kind !== type.nak && this.#inNet(ciaddr);
    const dst = known ? ciaddr.slice() : Uint8Array.of(255, 255, 255, 255);
    if (address !== undefined) this.#link.learn(address, mac);
    sendUdp(this.#link, { src: host, srcPort: 67, dst, dstPort: 68, data }, { mac: known ? mac.slice() : broadcastMac });
  }

  #inNet(a: Address): boolean {
    return inPrefix(a, this.#net.network, this.#net.prefix);
  }
}
