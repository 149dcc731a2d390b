// A file as a drive with a cache keeps it, for tests: what was not flushed may be lost in part when the power goes, sector by sector, in any order.

import type { ByteFile } from '../../src/disk/block.ts';
import { MemoryFile } from '../../src/disk/memory-file.ts';

const SECTOR = 512;

type Change =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'punch'; readonly offset: number; readonly length: number }
  | { readonly kind: 'truncate'; readonly size: number };

async function apply(file: MemoryFile, change: Change): Promise<void> {
  if (change.kind === 'write') await file.write(change.offset, change.bytes);
  else if (change.kind === 'punch') await file.punch(change.offset, change.length);
  else await file.truncate(change.size);
}

export class LosingFile implements ByteFile {
  readonly name = 'losing';
  readonly readOnly = false;
  /** What programs see, and what is on the medium for sure. */
  readonly #seen: MemoryFile;
  readonly #kept: MemoryFile;
  #unflushed: Change[] = [];
  /** Changes and flushes until the power goes by itself. */
  #left: number;

  constructor(seen: MemoryFile, kept: MemoryFile, lives = Number.POSITIVE_INFINITY) {
    this.#seen = seen;
    this.#kept = kept;
    this.#left = lives;
  }

  get dead(): boolean {
    return this.#left <= 0;
  }
  #live(): void {
    if (this.dead) throw new Error('the power is off');
    this.#left--;
  }

  /** A copy of a file's bytes. */
  static async copy(file: ByteFile): Promise<MemoryFile> {
    const out = new MemoryFile('copy');
    const bytes = new Uint8Array(await file.size());
    await file.read(0, bytes);
    await out.write(0, bytes);
    return out;
  }

  /** The power goes: nothing more is written. The medium as it is found, where `random` decides on each sector that was not flushed. */
  async cut(random: (below: number) => number): Promise<MemoryFile> {
    this.#left = 0;
    const chance = 1 + random(4);
    const sizes = [await this.#kept.size(), await this.#seen.size()];
    for (const change of this.#unflushed) {
      if (change.kind !== 'write') {
        if (random(4) < chance) await apply(this.#kept, change);
        continue;
      }
      for (let at = 0; at < change.bytes.length; ) {
        const length = Math.min(SECTOR - ((change.offset + at) % SECTOR), change.bytes.length - at);
        if (random(4) < chance) await this.#kept.write(change.offset + at, change.bytes.subarray(at, at + length));
        at += length;
      }
    }
    // The file system has the size of before or of now, or one between.
    await this.#kept.truncate(Math.max(await this.#kept.size(), sizes[random(2)]!));
    return this.#kept;
  }

  async #change(change: Change): Promise<void> {
    this.#live();
    this.#unflushed.push(change);
    await apply(this.#seen, change);
  }
  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#change({ kind: 'write', offset, bytes: from.slice() });
  }
  truncate(size: number): Promise<void> {
    return this.#change({ kind: 'truncate', size });
  }
  async punch(offset: number, length: number): Promise<boolean> {
    await this.#change({ kind: 'punch', offset, length });
    return true;
  }
  async flush(): Promise<void> {
    this.#live();
    const changes = this.#unflushed;
    this.#unflushed = [];
    for (const change of changes) await apply(this.#kept, change);
  }
  size(): Promise<number> {
    return this.#seen.size();
  }
  allocated(): Promise<number> {
    return this.#seen.allocated();
  }
  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#seen.read(offset, into);
  }
  nextData(offset: number): Promise<number> {
    return this.#seen.nextData(offset);
  }
  async close(): Promise<void> {}
}
