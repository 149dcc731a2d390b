// A bump allocator over a range of the machine's shared memory, and the snapshot of what it holds.
// Every thread builds the same board in the same order, so each arrives at the same offsets without a message.
import type { Fields, Layout, View } from './struct.ts';

/** State of one device as a snapshot keeps it. */
export interface Section {
  readonly name: string;
  readonly version: number;
  readonly bytes: Uint8Array;
}

interface Place {
  readonly name: string;
  readonly version: number;
  readonly offset: number;
  readonly size: number;
}

/** Cache line: blocks begin on one so that threads that write different devices do not share lines. */
const line = 64;

export class Arena {
  readonly buffer: ArrayBufferLike;
  readonly start: number;
  readonly end: number;
  #next: number;
  readonly #places: Place[] = [];

  /** Bytes `start` to `end` (exclusive) of `buffer`; `start` a multiple of 64. */
  constructor(buffer: ArrayBufferLike, start = 0, end: number = buffer.byteLength) {
    if (start % line !== 0) throw new Error(`Cannot start an arena at ${start}: not a multiple of ${line}`);
    if (end > buffer.byteLength || start > end) {
      throw new Error(`Cannot make an arena of ${start} to ${end}: the buffer has ${buffer.byteLength} bytes`);
    }
    this.buffer = buffer;
    this.start = start;
    this.end = end;
    this.#next = start;
  }

  /** Bytes that are taken, from `start`. */
  get used(): number {
    return this.#next - this.start;
  }

  /**
   * A view of `layout` in the next free place. Does not touch the bytes: another thread may already use them.
   * `instance` tells several of one kind apart in a snapshot. A layout without a name is left out of snapshots.
   */
  alloc<F extends Fields>(layout: Layout<F>, instance = ''): View<F> {
    const offset = Math.ceil(this.#next / line) * line;
    if (offset + layout.size > this.end) {
      throw new Error(
        `Cannot place ${layout.name || 'a struct'} of ${layout.size} bytes: ${Math.max(0, this.end - offset)} of the arena are free`,
      );
    }
    const name = instance === '' ? layout.name : `${layout.name}/${instance}`;
    if (layout.name !== '' && this.#places.some((p) => p.name === name)) {
      throw new Error(`Cannot place ${name}: the name is taken, give each instance its own`);
    }
    this.#next = offset + layout.size;
    if (layout.name !== '') this.#places.push({ name, version: layout.version, offset, size: layout.size });
    return layout.view(this.buffer, offset);
  }

  /** Copies of all named state. The machine must stand still. */
  save(): Section[] {
    return this.#places.map(({ name, version, offset, size }) => ({
      name,
      version,
      bytes: new Uint8Array(this.buffer, offset, size).slice(),
    }));
  }

  /** Puts saved state back. Throws, with nothing changed, where sections are missing, unknown or of another version or size. */
  restore(sections: readonly Section[]): void {
    this.check(sections);
    const known = new Set(this.#places.map((p) => p.name));
    for (const s of sections)
      if (!known.has(s.name)) throw new Error(`Cannot restore ${s.name}: this machine has no such device`);
    this.put(sections);
  }

  /** Throws where a section of this arena is missing, or of another version or size; others are not looked at. */
  check(sections: readonly Section[]): void {
    const byName = new Map(sections.map((s) => [s.name, s]));
    for (const p of this.#places) {
      const s = byName.get(p.name);
      if (s === undefined) throw new Error(`Cannot restore ${p.name}: the snapshot has no such section`);
      if (s.version !== p.version || s.bytes.length !== p.size) {
        throw new Error(
          `Cannot restore ${p.name}: version ${s.version} of ${s.bytes.length} bytes, this machine takes ${p.version} of ${p.size}`,
        );
      }
    }
  }
  /** Puts this arena's sections back, which `check` has accepted. */
  put(sections: readonly Section[]): void {
    const byName = new Map(sections.map((s) => [s.name, s]));
    for (const p of this.#places) new Uint8Array(this.buffer, p.offset, p.size).set(byName.get(p.name)!.bytes);
  }
}
