// What the e1000 does to packets on their way out: checksums, and the division of large TCP and UDP packets into segments. 8254x SDM,
// sections 3.3.5 to 3.5.

import type { TxContext } from './card.ts';

/** Adds up 16-bit words of `b` from `from` up to `to`, as the Internet checksum does (RFC 1071). */
function sum16(b: Uint8Array, from: number, to: number, start = 0): number {
  let sum = start;
  const even = to - ((to - from) & 1);
  for (let i = from; i < even; i += 2) sum += (b[i]! << 8) | b[i + 1]!;
  if (even < to) sum += b[even]! << 8;
  return sum;
}
const folded = (sum: number): number => {
  let s = sum;
  while (s > 0xffff) s = (s & 0xffff) + Math.floor(s / 65_536);
  return s;
};
const get16 = (b: Uint8Array, at: number): number => (b[at]! << 8) | b[at + 1]!;
function put16(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 8;
  b[at + 1] = value;
}

/** Puts the sum of the bytes from `start` to `end` (0: to the last one) at `offset`, where that lies in the packet. */
export function insertChecksum(frame: Uint8Array, start: number, offset: number, end: number): void {
  const to = end === 0 ? frame.length : Math.min(frame.length, end + 1);
  if (offset + 2 > frame.length || start >= to) return;
  put16(frame, offset, ~folded(sum16(frame, start, to)) & 0xffff || 0xffff);
}

export interface Wanted {
  readonly ip: boolean;
  readonly tcp: boolean;
}

/** A packet that goes out as it is, with the checksums that are wanted. */
export function finish(frame: Uint8Array, c: TxContext, w: Wanted): void {
  // The inner one first: it may lie in what the outer one covers.
  if (w.tcp) insertChecksum(frame, c.start, c.offset, c.end);
  if (w.ip) insertChecksum(frame, c.ipStart, c.ipOffset, c.ipEnd);
}

/** The segments of a large packet, each with the header and checksums of its own. */
export function* segments(packet: Uint8Array, c: TxContext, w: Wanted): Generator<Uint8Array> {
  const header = Math.min(c.header, packet.length);
  const most = c.segment;
  // A header that does not hold what is changed in it, or segments of nothing: the packet goes as it is.
  const needed = Math.max(c.ipStart + (c.ipv4 ? 12 : 6), c.start + (c.tcp ? 14 : 6), c.offset + 2);
  if (most === 0 || header < needed) {
    yield packet;
    return;
  }
  const [FIN, PSH] = [0x01, 0x08];
  const payload = packet.length - header;
  for (let at = 0, n = 0; at < payload || n === 0; at += most, n++) {
    const part = packet.subarray(header + at, header + Math.min(payload, at + most));
    const out = new Uint8Array(header + part.length);
    out.set(packet.subarray(0, header));
    out.set(part, header);
    const last = at + most >= payload;
    if (c.ipv4) {
      put16(out, c.ipStart + 2, out.length - c.ipStart);
      put16(out, c.ipStart + 4, get16(packet, c.ipStart + 4) + n);
    } else put16(out, c.ipStart + 4, out.length - c.ipStart - 40);
    const length = out.length - c.start;
    if (c.tcp) {
      const sequence = (((get16(packet, c.start + 4) << 16) | get16(packet, c.start + 6)) + at) >>> 0;
      put16(out, c.start + 4, sequence >>> 16);
      put16(out, c.start + 6, sequence & 0xffff);
      if (!last) out[c.start + 13] = out[c.start + 13]! & ~(FIN | PSH);
    } else put16(out, c.start + 4, length);
    // The driver has summed the pseudo-header without its length.
    if (w.tcp) put16(out, c.offset, folded(get16(packet, c.offset) + length));
    finish(out, c, w);
    yield out;
  }
}
