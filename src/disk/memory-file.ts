// A file in memory, sparse: for overlays that vanish, and for tests.

import { type ByteFile, DiskError } from './block.ts';

const CHUNK = 1 << 16;

/** Memory that files may take together, in bytes. */
export class MemoryBudget {
  readonly limit: number;
  #taken = 0;

  constructor(limit: number) {
    this.limit = limit;
  }
  /** @throws DiskError where there is no room for so much more */
  check(bytes: number): void {
    if (this.#taken + bytes > this.limit)
      throw new DiskError(`no space is left: temporary disks may take ${this.limit} bytes of memory together`);
  }
  take(bytes: number): void {
    this.#taken += bytes;
  }
  give(bytes: number): void {
    this.#taken -= bytes;
  }
}

export class MemoryFile implements ByteFile {
  readonly name: string;
  readonly readOnly = false;
  readonly #chunks = new Map<number, Uint8Array>();
  readonly #budget: MemoryBudget | undefined;
  #size = 0;

  /** @param budget what it may take; as much as it needs when not given */
  constructor(name = 'memory', budget?: MemoryBudget) {
    this.name = name;
    this.#budget = budget;
  }

  async size(): Promise<number> {
    return this.#size;
  }

  async allocated(): Promise<number> {
    return this.#chunks.size * CHUNK;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#each(offset, into.length, (index, within, done, length) => {
      const chunk = this.#chunks.get(index);
      if (chunk) into.set(chunk.subarray(within, within + length), done);
      else into.fill(0, done, done + length);
    });
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#each(offset, from.length, (index, within, done, length) => {
      let chunk = this.#chunks.get(index);
      if (!chunk) {
        this.#budget?.take(CHUNK);
        this.#chunks.set(index, (chunk = new Uint8Array(CHUNK)));
      }
      chunk.set(from.subarray(done, done + length), within);
    });
    this.#size = Math.max(this.#size, offset + from.length);
  }

  makeRoom(bytes: number): void {
    this.#budget?.check(bytes);
  }

  async flush(): Promise<void> {}

  async truncate(size: number): Promise<void> {
    if (size < this.#size) this.#zero(size, this.#size - size);
    this.#size = size;
  }

  async punch(offset: number, length: number): Promise<boolean> {
    this.#zero(offset, length);
    return true;
  }

  async nextData(offset: number): Promise<number> {
    for (let at = offset; at < this.#size; at = (Math.floor(at / CHUNK) + 1) * CHUNK)
      if (this.#chunks.has(Math.floor(at / CHUNK))) return at;
    return this.#size;
  }

  async close(): Promise<void> {
    // What is temporary is gone; else the file may be opened again.
    if (!this.#budget) return;
    this.#budget.give(this.#chunks.size * CHUNK);
    this.#chunks.clear();
  }

  #zero(offset: number, length: number): void {
    this.#each(offset, length, (index, within, _done, part) => {
      if (part === CHUNK) {
        if (this.#chunks.delete(index)) this.#budget?.give(CHUNK);
      } else this.#chunks.get(index)?.fill(0, within, within + part);
    });
  }

  #each(offset: number, length: number, visit: (index: number, within: number, done: number, length: number) => void): void {
    for (let done = 0; done < length; ) {
      const within = (offset + done) % CHUNK;
      const part = Math.min(CHUNK - within, length - done);
      visit(Math.floor((offset + done) / CHUNK), within, done, part);
      done += part;
    }
  }
}
