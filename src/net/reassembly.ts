// Datagrams put together from fragments, within limits. RFC 791, section 3.2; RFC 8200, section 4.5; overlaps as RFC 5722.
import { addressKey } from './address.ts';
import type { IpPacket } from './ip.ts';

/** Limits on what a guest can leave unfinished: datagrams, fragments of one, ms since the first. */
const limits = { datagrams: 32, fragments: 64, age: 30_000, bytes: 65_535 } as const;

interface Pending {
  readonly since: number;
  readonly pieces: { readonly offset: number; readonly bytes: Uint8Array }[];
  /** Bytes of the whole, once the last fragment is here. */
  total: number | undefined;
  have: number;
  bad: boolean;
}

export class Reassembly {
  readonly #pending = new Map<string, Pending>();

  get pending(): number {
    return this.#pending.size;
  }

  /** Takes a fragment at time `now` in ms; gives the whole datagram when it is the last missing one. */
  add(p: IpPacket, now: number): IpPacket | undefined {
    const f = p.fragment;
    if (f === undefined) return p;
    const end = f.offset + p.payload.length;
    if (end > limits.bytes || (f.more && p.payload.length % 8 !== 0) || p.payload.length === 0) return undefined;
    const key = `${addressKey(p.src)}${addressKey(p.dst)}${p.protocol}/${f.id}`;
    for (const [k, d] of this.#pending) {
      if (now - d.since <= limits.age) break;
      this.#pending.delete(k);
    }
    let d = this.#pending.get(key);
    if (d === undefined) {
      if (this.#pending.size >= limits.datagrams) this.#pending.delete(this.#pending.keys().next().value!);
      d = { since: now, pieces: [], total: undefined, have: 0, bad: false };
      this.#pending.set(key, d);
    }
    if (d.bad) return undefined;
    for (const piece of d.pieces) {
      if (piece.offset === f.offset && piece.bytes.length === p.payload.length) return undefined;
      if (piece.offset < end && f.offset < piece.offset + piece.bytes.length) return this.#spoil(d);
    }
    if (!f.more && d.total !== undefined) return this.#spoil(d);
    if (!f.more) d.total = end;
    if (d.pieces.length >= limits.fragments) return this.#spoil(d);
    d.pieces.push({ offset: f.offset, bytes: p.payload.slice() });
    d.have += p.payload.length;
    if (d.total === undefined || d.have < d.total) return undefined;
    if (d.have > d.total) return this.#spoil(d);
    this.#pending.delete(key);
    const payload = new Uint8Array(d.total);
    for (const piece of d.pieces) payload.set(piece.bytes, piece.offset);
    return { ...p, payload, fragment: undefined };
  }

  /** The datagram is ignored with all that still comes of it, until its time is over. */
  #spoil(d: Pending): undefined {
    d.bad = true;
    d.pieces.length = 0;
    return undefined;
  }
}
