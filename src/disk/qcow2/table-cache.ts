// Tables of one cluster each (L2 tables, refcount blocks), kept in memory and written when their owner says so.

import type { ByteFile } from '../block.ts';

export interface Table {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  dirty: boolean;
}

export class TableCache {
  readonly #file: ByteFile;
  readonly #bytes: number;
  readonly #limit: number;
  /** In the order of last use. */
  readonly #tables = new Map<number, Table>();
  #dirty = 0;

  /** @param limit tables that are kept when nothing is dirty */
  constructor(file: ByteFile, clusterBytes: number, limit: number) {
    this.#file = file;
    this.#bytes = clusterBytes;
    this.#limit = limit;
  }

  get dirty(): boolean {
    return this.#dirty > 0;
  }

  /** True when the owner should write: dirty tables take half of the cache. */
  get full(): boolean {
    return this.#dirty * 2 >= this.#limit;
  }

  /** The table at byte `offset`. Change it before the next `await`, and call `touch`: it may be evicted later. */
  async get(offset: number): Promise<Table> {
    const known = this.#tables.get(offset);
    if (known) {
      this.#tables.delete(offset);
      this.#tables.set(offset, known);
      return known;
    }
    const bytes = new Uint8Array(this.#bytes);
    await this.#file.read(offset, bytes);
    // Another reader may have been faster.
    return this.#tables.get(offset) ?? this.#add(offset, bytes, false);
  }

  /** The table at `offset` when it is in memory. */
  peek(offset: number): Table | undefined {
    return this.#tables.get(offset);
  }

  /** A new table, dirty; zeros, or a copy of `from`. */
  create(offset: number, from?: Uint8Array): Table {
    this.drop(offset);
    const table = this.#add(offset, from ? from.slice() : new Uint8Array(this.#bytes), true);
    this.#dirty++;
    return table;
  }

  touch(table: Table): void {
    if (table.dirty) return;
    table.dirty = true;
    this.#dirty++;
    this.#tables.set(table.offset, table);
  }

  /** Forgets a table whose cluster is no longer one. */
  drop(offset: number): void {
    if (this.#tables.get(offset)?.dirty) this.#dirty--;
    this.#tables.delete(offset);
  }

  /** Writes all dirty tables, lowest offset first. What fails stays dirty. */
  async write(check: (offset: number) => Promise<void>): Promise<void> {
    const dirty = [...this.#tables.values()].filter((t) => t.dirty).sort((a, b) => a.offset - b.offset);
    for (const table of dirty) {
      await check(table.offset);
      await this.#file.write(table.offset, table.bytes);
      table.dirty = false;
      this.#dirty--;
    }
  }

  #add(offset: number, bytes: Uint8Array, dirty: boolean): Table {
    const table = { offset, bytes, view: new DataView(bytes.buffer), dirty };
    this.#tables.set(offset, table);
    if (this.#tables.size > this.#limit + this.#dirty) {
      for (const old of this.#tables.values()) {
        if (old.dirty || old === table) continue;
        this.#tables.delete(old.offset);
        break;
      }
    }
    return table;
  }
}
