// ICMP and ICMPv6 of the router: echo of its own addresses, unreachable messages, neighbours and router advertisements.
// RFC 792; RFC 4443; RFC 4861 (neighbour discovery); RFC 4862 (stateless addresses); RFC 8106 (DNS in advertisements).
// Echo requests for other addresses are refused: the host's ICMP sockets need rights that a plain process does not have.
import { type Address, familyOf, isMulticast, isUnspecified, parseIpv6 } from './address.ts';
import { put16, put32 } from './bytes.ts';
import { fold, pseudoSum, sum16 } from './checksum.ts';
import { domainNames } from './dhcp.ts';
import { type IpPacket, protocol } from './ip.ts';
import { type Link, ownMac } from './link.ts';
import type { Subnet, UserNetOptions } from './user-options.ts';

/** The router's link-local address, from which advertisements come. */
export const routerLinkLocal: Address = parseIpv6('fe80::2')!;
const allNodes: Address = parseIpv6('ff02::1')!;
/** Seconds for which the router and its resolver are good, and ms between advertisements that nobody asked for (RFC 4861, section 6.2.1). */
const routerLifetime = 1800;
export const advertiseEvery = 300_000;

/** Why a packet can't go on. */
export type Unreachable = 'host' | 'port' | 'prohibited';
const codes: Readonly<Record<Unreachable, readonly [v4: number, v6: number]>> = {
  host: [1, 3],
  port: [3, 4],
  prohibited: [13, 1],
};

/** As much of a packet as an error message quotes; a copy. */
export const quote = (p: IpPacket): Uint8Array => p.whole.slice(0, p.src.length === 4 ? 548 : 1232);

/** Tells the sender of the packet that begins with `original` that it did not arrive. `from`: the router's address. */
export function sendUnreachable(link: Link, from: Address, to: Address, original: Uint8Array, why: Unreachable): void {
  const family = familyOf(from);
  const frame = link.frame(family, 8 + original.length);
  const at = link.bodyAt(family);
  frame[at] = family === 4 ? 3 : 1;
  frame[at + 1] = codes[why][family === 4 ? 0 : 1];
  frame.set(original, at + 8);
  link.sendSummed(frame, from, to, family === 4 ? protocol.icmp : protocol.icmpv6, 2);
}

/** Whether the packet's payload carries the right ICMP checksum. */
function intact(p: IpPacket): boolean {
  const b = p.payload;
  const pseudo = p.protocol === protocol.icmpv6 ? pseudoSum(p.src, p.dst, p.protocol, b.length) : 0;
  return b.length >= 8 && fold(sum16(b, 0, b.length, pseudo)) === 0;
}

export interface IcmpOptions {
  readonly link: Link;
  readonly options: UserNetOptions;
  owns(address: Address): boolean;
  onCable(address: Address): boolean;
}

/** Answers an ICMP or ICMPv6 packet. */
export function inputIcmp(o: IcmpOptions, p: IpPacket): void {
  if (!intact(p)) return;
  const b = p.payload;
  const v6 = p.protocol === protocol.icmpv6;
  if (b[0] === (v6 ? 128 : 8)) return inputEcho(o, p);
  if (!v6 || p.hopLimit !== 255 || b[1] !== 0) return;
  if (b[0] === 133 && o.options.ipv6 !== undefined) advertiseRouter(o.link, o.options, o.options.ipv6);
  else if (b[0] === 135) inputSolicitation(o, p);
  else if (b[0] === 136 && b.length >= 24) learnOption(o, b.subarray(8, 24), b, 2);
}

function inputEcho(o: IcmpOptions, p: IpPacket): void {
  if (isMulticast(p.dst)) return;
  if (!o.owns(p.dst)) {
    const net = familyOf(p.dst) === 4 ? o.options.ipv4 : o.options.ipv6;
    if (net === undefined || o.options.restrict) return;
    return sendUnreachable(o.link, net.host, p.src.slice(), quote(p), o.onCable(p.dst) ? 'host' : 'prohibited');
  }
  const family = familyOf(p.src);
  const frame = o.link.frame(family, p.payload.length);
  const at = o.link.bodyAt(family);
  frame.set(p.payload, at);
  frame[at] = family === 4 ? 0 : 129;
  frame[at + 1] = 0;
  o.link.sendSummed(frame, p.dst.slice(), p.src.slice(), p.protocol, 2);
}

/** Learns `address` from the link-layer option of type `kind` (1 source, 2 target) of a message whose options begin at byte 24. */
function learnOption(o: IcmpOptions, address: Address, b: Uint8Array, kind: 1 | 2): void {
  for (let at = 24; at + 8 <= b.length; ) {
    const length = b[at + 1] * 8;
    if (length === 0 || at + length > b.length) return;
    if (b[at] === kind && length === 8 && o.onCable(address)) return o.link.learn(address, b.subarray(at + 2, at + 8));
    at += length;
  }
}

function inputSolicitation(o: IcmpOptions, p: IpPacket): void {
  const b = p.payload;
  if (b.length < 24) return;
  const target = b.subarray(8, 24);
  // Who checks whether an address is free has none yet, and hears the answer as all do.
  const probing = isUnspecified(p.src);
  if (!probing) learnOption(o, p.src, b, 1);
  if (!o.owns(target)) return;
  o.link.sendNeighbour(
    136,
    target.slice(),
    probing ? allNodes : p.src.slice(),
    target.slice(),
    0x80 | (probing ? 0 : 0x40) | 0x20,
  );
}

/** Sends a router advertisement to all nodes: prefix, MTU, own MAC, resolver, search list. Under `restrict` no default route. */
export function advertiseRouter(link: Link, o: UserNetOptions, net: Subnet): void {
  const options: Uint8Array[] = [];
  const prefix = new Uint8Array(32);
  prefix.set([3, 4, net.prefix, 0xc0]);
  put32(prefix, 4, 86_400);
  put32(prefix, 8, 14_400);
  prefix.set(net.network, 16);
  options.push(prefix, Uint8Array.of(1, 1, ...ownMac(routerLinkLocal)));
  const mtu = Uint8Array.of(5, 1, 0, 0, 0, 0, 0, 0);
  put32(mtu, 4, o.mtu);
  options.push(mtu);
  if (!o.restrict) {
    const dns = new Uint8Array(24);
    dns.set([25, 3]);
    put32(dns, 4, routerLifetime);
    dns.set(net.dns, 8);
    options.push(dns);
    const names = domainNames(o.dnsSearch);
    if (names.length > 0 && names.length < 1000) {
      const search = new Uint8Array(8 + ((names.length + 7) & ~7));
      search.set([31, search.length / 8]);
      put32(search, 4, routerLifetime);
      search.set(names, 8);
      options.push(search);
    }
  }
  const length = 16 + options.reduce((n, x) => n + x.length, 0);
  const frame = link.frame(6, length);
  const at = link.bodyAt(6);
  frame.set([134, 0, 0, 0, 64, 0], at);
  put16(frame, at + 6, o.restrict ? 0 : routerLifetime);
  let next = at + 16;
  for (const x of options) {
    frame.set(x, next);
    next += x.length;
  }
  link.sendSummed(frame, routerLinkLocal, allNodes, protocol.icmpv6, 2, { hopLimit: 255 });
}
