// The user-mode network: a router, DHCP server and nameserver for guests, made of the host's ordinary sockets. QEMU 7.2 system manual, "-netdev user".
import {
  type Address,
  type Family,
  familyOf,
  inPrefix,
  isLinkLocal,
  isMulticast,
  isUnspecified,
  sameAddress,
} from './address.ts';
import { type GuestOffloads, maxFrame, type NetBackend, type PacketOffload } from './backend.ts';
import { get16, get32 } from './bytes.ts';
import { DhcpServer } from './dhcp.ts';
import { DnsForwarder } from './dns.ts';
import type { HostSockets } from './host.ts';
import { advertiseEvery, advertiseRouter, inputIcmp, quote, routerLinkLocal, sendUnreachable } from './icmp.ts';
import { etherHeader, etherType, type IpPacket, parseIpv4Packet, parseIpv6Packet, protocol, upperLayer } from './ip.ts';
import { Link } from './link.ts';
import { Reassembly } from './reassembly.ts';
import { routeTo, subnetOf } from './route.ts';
import { TcpNat } from './tcp-nat.ts';
import { TFTP_PORT, TftpServer } from './tftp.ts';
import { Timer } from './timer.ts';
import { parseUdp } from './udp.ts';
import { UdpNat } from './udp-nat.ts';
import type { HostForward, UserNetOptions } from './user-options.ts';

/** Frames that a guest may send from inside of `receive` before they are looked at. */
const maxQueued = 1024;

export interface UserNet extends NetBackend {
  /** All forwards of the options are bound; rejects with what the host refused. */
  readonly ready: Promise<void>;
  /** Adds a forward while the guest runs (`hostfwd_add`); gives the host's port. Rejects where the host refuses. */
  addForward(rule: HostForward): Promise<number>;
  /** Removes a forward by its host side (`hostfwd_remove`); false where there is none. */
  removeForward(rule: Pick<HostForward, 'protocol' | 'host'>): boolean;
  /** What is open at this moment: for `info usernet`, and for tests of the limits. `memory`: bytes of TCP buffers. */
  counts(): { readonly tcp: number; readonly udp: number; readonly dns: number; readonly memory: number };
}

/** A user-mode network for the guests at one cable. The host is asked for nothing until a guest or a forward needs it. */
export function createUserNet(options: UserNetOptions, host: HostSockets): UserNet {
  return new UserNetwork(options, host);
}

class UserNetwork implements UserNet {
  receive: (frame: Uint8Array, offload?: PacketOffload) => void = () => {};
  readonly ready: Promise<void>;
  readonly #o: UserNetOptions;
  readonly #host: HostSockets;
  readonly #link: Link;
  readonly #tcp: TcpNat;
  readonly #udp: UdpNat;
  readonly #dns: DnsForwarder;
  readonly #dhcp: DhcpServer | undefined;
  readonly #tftp: TftpServer | undefined;
  readonly #reassembly = new Reassembly();
  readonly #advertise: Timer;
  /** The router's addresses. */
  readonly #own: readonly Address[];
  #delivering = false;
  readonly #queue: { readonly frame: Uint8Array; readonly offload: PacketOffload | undefined }[] = [];
  #closed = false;

  constructor(options: UserNetOptions, host: HostSockets) {
    this.#o = options;
    this.#host = host;
    const own = [options.ipv4, options.ipv6].flatMap((n) => (n === undefined ? [] : [n.host, n.dns]));
    this.#own = [...own, ...(options.ipv6 === undefined ? [] : [routerLinkLocal]), ...options.guestForwards.map((f) => f.server)];
    this.#link = new Link({
      mtu: options.mtu,
      now: () => host.now(),
      deliver: (frame, offload) => this.#deliver(frame, offload),
      asker: (family) => (family === 4 ? options.ipv4!.host : routerLinkLocal),
      owns: (a) => this.#owns(a),
      firstId: get32(host.random(4), 0),
    });
    this.#tcp = new TcpNat(options, this.#link, host);
    this.#udp = new UdpNat(options, this.#link, host);
    this.#dns = new DnsForwarder(this.#link, host);
    this.#dhcp = options.ipv4 === undefined ? undefined : new DhcpServer(options, options.ipv4, this.#link, host);
    this.#tftp = options.tftp === undefined ? undefined : new TftpServer(options.tftp, options.mtu, this.#link, host);
    this.#advertise = new Timer(host, () => this.#advertiseAgain());
    if (options.ipv6 !== undefined) this.#advertise.set(advertiseEvery);
    this.ready = Promise.all(options.hostForwards.map((f) => this.addForward(f))).then(() => {});
    // Who does not ask is not interested; an unhandled rejection would end the process.
    this.ready.catch(() => {});
  }

  offloads(guest: GuestOffloads): void {
    this.#link.guest = guest;
  }

  send(frame: Uint8Array, offload?: PacketOffload): void {
    if (this.#closed || frame.length < etherHeader || frame.length > maxFrame) return;
    if (!this.#delivering) return this.#input(frame, offload !== undefined);
    // The guest answers from inside of `receive`, that is, from inside of a connection's own code: it waits until that is done.
    if (this.#queue.length >= maxQueued) return;
    this.#queue.push({ frame: frame.slice(), offload });
    if (this.#queue.length === 1) Promise.resolve().then(() => this.#drain());
  }

  #drain(): void {
    for (const { frame, offload } of this.#queue.splice(0)) this.send(frame, offload);
  }

  #deliver(frame: Uint8Array, offload?: PacketOffload): void {
    if (this.#closed) return;
    const outer = this.#delivering;
    this.#delivering = true;
    try {
      this.receive(frame, offload);
    } finally {
      this.#delivering = outer;
    }
  }

  #owns(a: Address): boolean {
    return this.#own.some((x) => sameAddress(x, a));
  }

  /** The address may be a guest's. */
  #onCable(a: Address): boolean {
    const net = subnetOf(this.#o, familyOf(a));
    if (net === undefined || isUnspecified(a) || isMulticast(a) || this.#owns(a)) return false;
    return inPrefix(a, net.network, net.prefix) || (a.length === 16 && isLinkLocal(a));
  }

  /** `unsummed`: the upper layer's checksum was left out. */
  #input(frame: Uint8Array, unsummed: boolean): void {
    // Another guest's frame, that a hub does not know where to send.
    if ((frame[0] & 1) === 0 && !(frame[0] === 0x52 && (frame[1] === 0x55 || frame[1] === 0x56))) return;
    switch (get16(frame, 12)) {
      case etherType.arp:
        if (this.#o.ipv4 !== undefined) this.#link.inputArp(frame, (a) => this.#onCable(a));
        return;
      case etherType.ipv4:
        return this.#inputIp(4, frame, unsummed, parseIpv4Packet(frame.subarray(etherHeader)));
      case etherType.ipv6:
        return this.#inputIp(6, frame, unsummed, parseIpv6Packet(frame.subarray(etherHeader)));
    }
  }

  #inputIp(family: Family, frame: Uint8Array, unsummed: boolean, packet: IpPacket | undefined): void {
    if (packet === undefined || subnetOf(this.#o, family) === undefined) return;
    const known = this.#onCable(packet.src);
    if (known) this.#link.learn(packet.src, frame.subarray(6, 12));
    else if (!isUnspecified(packet.src)) return;
    if (packet.fragment === undefined) return this.#inputPacket(packet, known, unsummed);
    const whole = this.#reassembly.add(packet, this.#host.now());
    if (whole === undefined) return;
    const upper = family === 4 ? whole : upperLayer(whole.protocol, whole.payload);
    if (upper !== undefined) this.#inputPacket({ ...whole, protocol: upper.protocol, payload: upper.payload }, known);
  }

  /** `known`: from a guest's address; without one there are only DHCP and address checks. */
  #inputPacket(p: IpPacket, known: boolean, unsummed = false): void {
    const v4 = p.src.length === 4;
    if (p.protocol === protocol.udp) this.#inputUdp(p, known, unsummed);
    else if (p.protocol === (v4 ? protocol.icmp : protocol.icmpv6) && (known || !v4)) {
      inputIcmp({ link: this.#link, options: this.#o, owns: (a) => this.#owns(a), onCable: (a) => this.#onCable(a) }, p);
    } else if (p.protocol === protocol.tcp && known && !isMulticast(p.dst)) this.#tcp.input(p, unsummed);
  }

  #inputUdp(p: IpPacket, known: boolean, unsummed: boolean): void {
    const d = parseUdp(p, unsummed);
    if (d === undefined) return;
    const v4 = d.src.length === 4;
    if (v4 && d.dstPort === 67 && (d.dst[0] === 255 || this.#owns(d.dst))) return this.#dhcp?.input(d);
    if (known && this.#tftp && d.dstPort === TFTP_PORT && this.#owns(d.dst)) return this.#tftp.input(d);
    if (!known || d.srcPort === 0 || d.dstPort === 0 || isMulticast(d.dst) || this.#udp.answer(d)) return;
    switch (routeTo(this.#o, d.dst)) {
      case 'loopback':
        return this.#udp.send(d, true);
      case 'outside':
        return this.#udp.send(d, false);
      case 'dns':
        if (d.dstPort === 53) this.#dns.query(d);
        else this.#unreachable(p);
        return;
      case 'none':
        // Broadcasts and what a restricted guest sends vanish.
        if (!this.#o.restrict && this.#owns(d.dst)) this.#unreachable(p);
    }
  }

  #unreachable(p: IpPacket): void {
    const net = subnetOf(this.#o, familyOf(p.src));
    if (net !== undefined) sendUnreachable(this.#link, net.host, p.src.slice(), quote(p), 'port');
  }

  #advertiseAgain(): void {
    if (this.#o.ipv6 !== undefined) advertiseRouter(this.#link, this.#o, this.#o.ipv6);
    this.#advertise.set(advertiseEvery);
  }

  addForward(rule: HostForward): Promise<number> {
    return rule.protocol === 'tcp' ? this.#tcp.addForward(rule) : this.#udp.addForward(rule);
  }

  removeForward({ protocol: kind, host }: Pick<HostForward, 'protocol' | 'host'>): boolean {
    const same = (r: HostForward): boolean => {
      if ('path' in r.host || 'path' in host) return 'path' in r.host && 'path' in host && r.host.path === host.path;
      return r.host.host === host.host && r.host.port === host.port;
    };
    return kind === 'tcp' ? this.#tcp.removeForward(same) : this.#udp.removeForward(same);
  }

  counts() {
    return { tcp: this.#tcp.size, udp: this.#udp.size, dns: this.#dns.size, memory: this.#tcp.memory };
  }

  close(): void {
    this.#closed = true;
    this.#advertise.close();
    this.#tftp?.close();
    this.#tcp.close();
    this.#udp.close();
    this.#dns.close();
    this.#queue.length = 0;
  }
}
