// The bytes of one direction of a TCP connection: a ring that grows with what it holds, with gaps filled in any order.

const smallest = 4096;

export class ByteRing {
  #bytes = new Uint8Array(0);
  #head = 0;
  #length = 0;

  /** Bytes in order from the head on. What `place` put beyond a gap does not count. */
  get length(): number {
    return this.#length;
  }

  /** Bytes of memory that are held. */
  get capacity(): number {
    return this.#bytes.length;
  }

  append(bytes: Uint8Array): void {
    this.place(this.#length, bytes);
    this.#length += bytes.length;
  }

  /** Puts bytes at an offset from the head, at or beyond the end; `extend` makes them part of the content. */
  place(offset: number, bytes: Uint8Array): void {
    this.#reserve(offset + bytes.length);
    const size = this.#bytes.length;
    const at = (this.#head + offset) % size;
    const first = Math.min(bytes.length, size - at);
    this.#bytes.set(first === bytes.length ? bytes : bytes.subarray(0, first), at);
    if (first < bytes.length) this.#bytes.set(bytes.subarray(first), 0);
  }

  /** The `count` bytes after the end, placed before, are content now. */
  extend(count: number): void {
    this.#length += count;
  }

  /** Copies `count` bytes from an offset into `target` at `at`. They must be there. */
  copy(offset: number, count: number, target: Uint8Array, at: number): void {
    if (count === 0) return;
    const size = this.#bytes.length;
    const from = (this.#head + offset) % size;
    const first = Math.min(count, size - from);
    target.set(this.#bytes.subarray(from, from + first), at);
    if (first < count) target.set(this.#bytes.subarray(0, count - first), at + first);
  }

  /** Drops `count` bytes from the head. `keep` says that something lies beyond a gap, so that memory can't be given back. */
  drop(count: number, keep = false): void {
    this.#length -= count;
    if (this.#length === 0 && !keep) {
      this.#head = 0;
      if (this.#bytes.length > smallest) this.#bytes = new Uint8Array(0);
    } else this.#head = (this.#head + count) % this.#bytes.length;
  }

  /** Takes everything out as one new array. */
  take(keep = false): Uint8Array {
    const out = new Uint8Array(this.#length);
    this.copy(0, out.length, out, 0);
    this.drop(out.length, keep);
    return out;
  }

  #reserve(size: number): void {
    if (size <= this.#bytes.length) return;
    let capacity = Math.max(smallest, this.#bytes.length);
    while (capacity < size) capacity *= 2;
    const grown = new Uint8Array(capacity);
    // Everything is copied, not only the content: there may be bytes beyond a gap.
    grown.set(this.#bytes.subarray(this.#head), 0);
    grown.set(this.#bytes.subarray(0, this.#head), this.#bytes.length - this.#head);
    this.#bytes = grown;
    this.#head = 0;
  }
}
