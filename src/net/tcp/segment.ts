// TCP segments and their options. RFC 9293, section 3.1 and 3.2; window scale RFC 7323, section 2; SACK RFC 2018.
import { get16, get32, put16, put32 } from '../bytes.ts';
import type { Range } from './ranges.ts';

export const flag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32 } as const;

/** A segment as it came in. `seq`, `ack` and SACK edges are 32-bit unsigned; `payload` is a view of the frame. */
export interface Segment {
  readonly srcPort: number;
  readonly dstPort: number;
  readonly seq: number;
  readonly ack: number;
  /** `flag` bits. */
  readonly flags: number;
  /** As in the header, not scaled. */
  readonly window: number;
  readonly payload: Uint8Array;
  readonly mss: number | undefined;
  readonly scale: number | undefined;
  readonly sackPermitted: boolean;
  readonly sack: readonly Range[];
}

/** The segment in `packet`, or `undefined` where it is cut short. The checksum is the caller's. Bad options end the list of options. */
export function parseSegment(packet: Uint8Array): Segment | undefined {
  if (packet.length < 20) return undefined;
  const header = (packet[12] >>> 4) * 4;
  if (header < 20 || header > packet.length) return undefined;
  let mss: number | undefined;
  let scale: number | undefined;
  let sackPermitted = false;
  let sack: Range[] | undefined;
  for (let at = 20; at < header; ) {
    const kind = packet[at];
    if (kind === 0) break;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = at + 1 < header ? packet[at + 1] : 0;
    if (length < 2 || at + length > header) break;
    if (kind === 2 && length === 4) mss = get16(packet, at + 2);
    else if (kind === 3 && length === 3) scale = Math.min(14, packet[at + 2]);
    else if (kind === 4 && length === 2) sackPermitted = true;
    else if (kind === 5 && length % 8 === 2) {
      sack = [];
      for (let i = at + 2; i < at + length; i += 8) sack.push([get32(packet, i), get32(packet, i + 4)]);
    }
    at += length;
  }
  return {
    srcPort: get16(packet, 0),
    dstPort: get16(packet, 2),
    seq: get32(packet, 4),
    ack: get32(packet, 8),
    flags: packet[13],
    window: get16(packet, 14),
    payload: packet.subarray(header),
    mss,
    scale,
    sackPermitted,
    sack: sack ?? none,
  };
}
const none: readonly Range[] = [];

/** What a connection wants to be sent; ports and addresses are its owner's. Positions of any size, sent modulo 2^32. */
export interface OutSegment {
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  /** As in the header, already scaled. */
  readonly window: number;
  /** Options of a SYN. */
  readonly syn?: { readonly mss: number; readonly scale: number | undefined; readonly sack: boolean };
  readonly sack?: readonly Range[];
  /** Payload of each segment that this one is to become, where the guest divides it. */
  readonly segment?: number | undefined;
  readonly payload?: { readonly length: number; copy(target: Uint8Array, at: number): void };
}

/** Bytes that the header of `s` takes: 20 to 60. */
export function headerLength(s: OutSegment): number {
  if (s.syn !== undefined) return 20 + 4 + (s.syn.scale === undefined ? 0 : 4) + (s.syn.sack ? 4 : 0);
  return 20 + (s.sack !== undefined && s.sack.length > 0 ? 4 + 8 * s.sack.length : 0);
}

/** Writes header and payload at `at`, with a checksum field of zero. */
export function writeSegment(b: Uint8Array, at: number, srcPort: number, dstPort: number, s: OutSegment): void {
  const header = headerLength(s);
  put16(b, at, srcPort);
  put16(b, at + 2, dstPort);
  put32(b, at + 4, s.seq);
  put32(b, at + 8, s.ack);
  b[at + 12] = (header / 4) << 4;
  b[at + 13] = s.flags;
  put16(b, at + 14, s.window);
  put32(b, at + 16, 0);
  let o = at + 20;
  if (s.syn !== undefined) {
    b.set([2, 4, s.syn.mss >>> 8, s.syn.mss & 0xff], o);
    o += 4;
    if (s.syn.scale !== undefined) {
      b.set([1, 3, 3, s.syn.scale], o);
      o += 4;
    }
    if (s.syn.sack) b.set([1, 1, 4, 2], o);
  } else if (s.sack !== undefined && s.sack.length > 0) {
    b.set([1, 1, 5, 2 + 8 * s.sack.length], o);
    for (const [from, to] of s.sack) {
      put32(b, o + 4, from);
      put32(b, o + 8, to);
      o += 8;
    }
  }
  s.payload?.copy(b, at + header);
}
