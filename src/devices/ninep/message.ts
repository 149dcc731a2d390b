// The fields of 9P messages: little-endian integers, counted strings, qids. 9P2000.L as the Linux kernel's client speaks it
// (`include/net/9p/9p.h`); base protocol: Plan 9 manual, section 5.

export const Type = {
  error: 7, statfs: 8, lopen: 12, lcreate: 14, symlink: 16, mknod: 18, rename: 20, readlink: 22, getattr: 24, setattr: 26,
  xattrwalk: 30, xattrcreate: 32, readdir: 40, fsync: 50, lock: 52, getlock: 54, link: 70, mkdir: 72, renameat: 74, unlinkat: 76,
  version: 100, auth: 102, attach: 104, flush: 108, walk: 110, read: 116, write: 118, clunk: 120, remove: 122,
} as const; // biome-ignore format: a table

/** size[4] type[1] tag[2]. */
export const HEADER = 7;

/** Thrown for a message that ends too early. */
export class ShortMessage extends Error {}

export class MessageReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  at: number;

  constructor(bytes: Uint8Array, at = HEADER) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.at = at;
  }
  #take(n: number): number {
    const at = this.at;
    if (at + n > this.#bytes.length) throw new ShortMessage();
    this.at = at + n;
    return at;
  }
  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }
  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }
  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }
  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }
  /** An offset or size as a number; what no file can have becomes the largest. */
  number(): number {
    return Math.min(Number(this.u64()), Number.MAX_SAFE_INTEGER);
  }
  text(): string {
    const n = this.u16();
    const at = this.#take(n);
    return new TextDecoder().decode(this.#bytes.slice(at, at + n));
  }
  bytes(n: number): Uint8Array {
    const at = this.#take(n);
    return this.#bytes.subarray(at, at + n);
  }
}

/** Builds an answer's fields. */
export class MessageWriter {
  #bytes = new Uint8Array(256);
  length = 0;

  #room(n: number): number {
    const at = this.length;
    if (at + n > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(at + n, 2 * this.#bytes.length));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.length = at + n;
    return at;
  }
  #view(): DataView {
    return new DataView(this.#bytes.buffer);
  }
  u8(v: number): this {
    this.#bytes[this.#room(1)] = v;
    return this;
  }
  u16(v: number): this {
    const at = this.#room(2);
    this.#view().setUint16(at, v, true);
    return this;
  }
  u32(v: number): this {
    const at = this.#room(4);
    this.#view().setUint32(at, v, true);
    return this;
  }
  u64(v: bigint): this {
    const at = this.#room(8);
    this.#view().setBigUint64(at, v, true);
    return this;
  }
  text(v: string): this {
    const bytes = new TextEncoder().encode(v);
    return this.u16(bytes.length).bytes(bytes);
  }
  bytes(v: Uint8Array): this {
    const at = this.#room(v.length);
    this.#bytes.set(v, at);
    return this;
  }
  qid(q: Qid): this {
    return this.u8(q.type).u32(q.version).u64(q.path);
  }
  result(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
}

/** What identifies a file to the client. `type`: 0x80 folder, 0x02 link, 0 file. */
export interface Qid {
  readonly type: number;
  readonly version: number;
  readonly path: bigint;
}
