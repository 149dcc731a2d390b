// Reads that go around the block layer: where in a file of the host the bytes of a disk are, for threads that read them there themselves.
// Whoever lends such a place takes it back before it is another's.

/** `length` bytes of a disk from `start` on, which are one after another from `at` on in a file of the host. */
export interface DirectExtent {
  readonly fd: number;
  readonly at: number;
  readonly start: number;
  readonly length: number;
}

/** Who is to hear, once, that a place is no longer lent. When a call returns, it is not used any more. */
export class Leases {
  readonly #held = new Set<() => void>();

  add(gone: () => void): void {
    this.#held.add(gone);
  }
  takeBack(): void {
    const held = [...this.#held];
    this.#held.clear();
    for (const gone of held) gone();
  }
}

/** The part of a place that `length` bytes from `start` are, with the disk's bytes counted anew: `start` is `as`. */
export function partOf(e: DirectExtent, start: number, length: number, as = start): DirectExtent {
  const from = Math.max(start, e.start);
  const end = Math.min(start + length, e.start + e.length);
  return { fd: e.fd, at: e.at + from - e.start, start: as + from - start, length: Math.max(0, end - from) };
}
