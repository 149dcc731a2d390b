// IPv4 and IPv6 headers. RFC 791, section 3.1; RFC 8200, sections 3 and 4.
import type { Address, Family } from './address.ts';
import { get16, get32, put16, put32 } from './bytes.ts';
import { fold, sum16 } from './checksum.ts';

export const protocol = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58 } as const;
export const etherType = { ipv4: 0x0800, arp: 0x0806, ipv6: 0x86dd } as const;
export const etherHeader = 14;

/** Where a fragment belongs: bytes from the datagram's beginning, and what tells datagrams apart. */
export interface Fragment {
  readonly id: number;
  readonly offset: number;
  readonly more: boolean;
}

/** A packet, or a fragment of one. All arrays are views of the frame. */
export interface IpPacket {
  readonly src: Address;
  readonly dst: Address;
  readonly protocol: number;
  readonly hopLimit: number;
  readonly payload: Uint8Array;
  readonly fragment: Fragment | undefined;
  /** The packet from its IP header on, for ICMP errors. */
  readonly whole: Uint8Array;
}

/** The IPv4 packet at the start of `b` (padding may follow), or `undefined` where the header is bad. Options are skipped. */
export function parseIpv4Packet(b: Uint8Array): IpPacket | undefined {
  if (b.length < 20 || b[0] >>> 4 !== 4) return undefined;
  const header = (b[0] & 15) * 4;
  const total = get16(b, 2);
  if (header < 20 || total < header || total > b.length || fold(sum16(b, 0, header)) !== 0) return undefined;
  const where = get16(b, 6);
  const fragmented = (where & 0x3fff) !== 0;
  return {
    src: b.subarray(12, 16),
    dst: b.subarray(16, 20),
    protocol: b[9],
    hopLimit: b[8],
    payload: b.subarray(header, total),
    fragment: fragmented ? { id: get16(b, 4), offset: (where & 0x1fff) * 8, more: (where & 0x2000) !== 0 } : undefined,
    whole: b.subarray(0, total),
  };
}

const extension = { hopByHop: 0, routing: 43, fragment: 44, none: 59, destination: 60 } as const;

/** The IPv6 packet at the start of `b`, its extension headers skipped; `undefined` where it is bad or source-routed. */
export function parseIpv6Packet(b: Uint8Array): IpPacket | undefined {
  if (b.length < 40 || b[0] >>> 4 !== 6) return undefined;
  const end = 40 + get16(b, 4);
  if (end > b.length) return undefined;
  const whole = b.subarray(0, end);
  const base = { src: b.subarray(8, 24), dst: b.subarray(24, 40), hopLimit: b[7], whole };
  const rest = skipExtensions(b, b[6], 40, end);
  if (rest === undefined) return undefined;
  if (rest.next !== extension.fragment) {
    return { ...base, protocol: rest.next, payload: b.subarray(rest.at, end), fragment: undefined };
  }
  if (rest.at + 8 > end) return undefined;
  const where = get16(b, rest.at + 2);
  const fragment = { id: get32(b, rest.at + 4), offset: where & 0xfff8, more: (where & 1) !== 0 };
  return { ...base, protocol: b[rest.at], payload: b.subarray(rest.at + 8, end), fragment };
}

/** The upper-layer protocol and payload behind more extension headers, as a reassembled datagram may have; `undefined` if bad. */
export function upperLayer(next: number, payload: Uint8Array): { protocol: number; payload: Uint8Array } | undefined {
  const rest = skipExtensions(payload, next, 0, payload.length);
  return rest === undefined ? undefined : { protocol: rest.next, payload: payload.subarray(rest.at) };
}

function skipExtensions(b: Uint8Array, first: number, start: number, end: number): { next: number; at: number } | undefined {
  let next = first;
  let at = start;
  while (next === extension.hopByHop || next === extension.routing || next === extension.destination) {
    if (at + 8 > end) return undefined;
    if (next === extension.routing && b[at + 3] !== 0) return undefined;
    next = b[at];
    at += 8 * (b[at + 1] + 1);
    if (at > end) return undefined;
  }
  return next === extension.none ? undefined : { next, at };
}

/** Bytes of the IP header that `writeIp` writes. */
export const ipHeader = (family: Family): number => (family === 4 ? 20 : 40);

/** Writes the IP header at `at` for `length` bytes of payload behind it. A fragment's IPv6 header is part of the payload. */
export function writeIp(
  b: Uint8Array,
  at: number,
  length: number,
  p: {
    readonly src: Address;
    readonly dst: Address;
    readonly protocol: number;
    readonly hopLimit: number;
    readonly id?: number;
    readonly fragment?: Fragment;
  },
): void {
  if (p.src.length === 4) {
    put16(b, at, 0x4500);
    put16(b, at + 2, 20 + length);
    put16(b, at + 4, p.fragment?.id ?? p.id ?? 0);
    put16(b, at + 6, p.fragment === undefined ? 0x4000 : (p.fragment.offset >>> 3) | (p.fragment.more ? 0x2000 : 0));
    b[at + 8] = p.hopLimit;
    b[at + 9] = p.protocol;
    put16(b, at + 10, 0);
    b.set(p.src, at + 12);
    b.set(p.dst, at + 16);
    put16(b, at + 10, fold(sum16(b, at, at + 20)));
    return;
  }
  put32(b, at, 0x6000_0000);
  put16(b, at + 4, length);
  b[at + 6] = p.fragment === undefined ? p.protocol : extension.fragment;
  b[at + 7] = p.hopLimit;
  b.set(p.src, at + 8);
  b.set(p.dst, at + 24);
}

/** Writes an IPv6 fragment header, 8 bytes. */
export function writeFragmentHeader(b: Uint8Array, at: number, next: number, f: Fragment): void {
  b[at] = next;
  b[at + 1] = 0;
  put16(b, at + 2, f.offset | (f.more ? 1 : 0));
  put32(b, at + 4, f.id);
}
