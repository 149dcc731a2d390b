// UDP datagrams. RFC 768; over IPv6 RFC 8200, section 8.1.
import { type Address, familyOf } from './address.ts';
import { get16, put16 } from './bytes.ts';
import { fold, pseudoSum, sum16 } from './checksum.ts';
import { type IpPacket, protocol } from './ip.ts';
import type { Link, SendOptions } from './link.ts';

export interface Datagram {
  readonly src: Address;
  readonly dst: Address;
  readonly srcPort: number;
  readonly dstPort: number;
  /** A view of the frame. */
  readonly data: Uint8Array;
}

/** The datagram of a packet, or `undefined` where its length or checksum is wrong. IPv4 allows none. `trusted`: it was left out. */
export function parseUdp(p: IpPacket, trusted = false): Datagram | undefined {
  const b = p.payload;
  if (b.length < 8) return undefined;
  const length = get16(b, 4);
  if (length < 8 || length > b.length) return undefined;
  const unsummed = get16(b, 6) === 0;
  if (trusted) return { src: p.src, dst: p.dst, srcPort: get16(b, 0), dstPort: get16(b, 2), data: b.subarray(8, length) };
  if (unsummed ? p.src.length !== 4 : fold(sum16(b, 0, length, pseudoSum(p.src, p.dst, protocol.udp, length))) !== 0)
    return undefined;
  return { src: p.src, dst: p.dst, srcPort: get16(b, 0), dstPort: get16(b, 2), data: b.subarray(8, length) };
}

/** Sends a datagram to the guest. Data that no datagram can hold are dropped. */
export function sendUdp(link: Link, d: Datagram, options: SendOptions = {}): void {
  if (d.data.length > 65_535 - 28) return;
  const family = familyOf(d.src);
  const frame = link.frame(family, 8 + d.data.length);
  const at = link.bodyAt(family);
  put16(frame, at, d.srcPort);
  put16(frame, at + 2, d.dstPort);
  put16(frame, at + 4, 8 + d.data.length);
  frame.set(d.data, at + 8);
  link.sendSummed(frame, d.src, d.dst, protocol.udp, 6, options);
}
