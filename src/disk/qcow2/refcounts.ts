// Reference counts of host clusters and the allocator over them: "Qcow2 Image File Format", section "Host cluster management".

import { type ByteFile, DiskError } from '../block.ts';
import { offsetOf } from './entry.ts';
import { FIELD, type Header, MAX_REFTABLE_BYTES } from './header.ts';
import type { MetadataMap } from './metadata-map.ts';
import { type Table, TableCache } from './table-cache.ts';

const CACHE_BYTES = 4 << 20;
const SECTOR = 512;
/** Offsets in L1 and L2 entries end below this. */
const MAX_OFFSET = 2 ** 53;

/** Reads count `index` of a refcount block; counts of 2^53 and more are not exact. */
export function readCount(block: DataView, index: number, order: number): number {
  switch (order) {
    case 6:
      return block.getUint32(index * 8) * 2 ** 32 + block.getUint32(index * 8 + 4);
    case 5:
      return block.getUint32(index * 4);
    case 4:
      return block.getUint16(index * 2);
    case 3:
      return block.getUint8(index);
    default: {
      const shift = (index << order) & 7;
      return (block.getUint8((index << order) >>> 3) >> shift) & ((1 << (1 << order)) - 1);
    }
  }
}

export function writeCount(block: DataView, index: number, order: number, count: number): void {
  switch (order) {
    case 6:
      block.setUint32(index * 8, Math.floor(count / 2 ** 32));
      return block.setUint32(index * 8 + 4, count % 2 ** 32);
    case 5:
      return block.setUint32(index * 4, count);
    case 4:
      return block.setUint16(index * 2, count);
    case 3:
      return block.setUint8(index, count);
    default: {
      const shift = (index << order) & 7;
      const at = (index << order) >>> 3;
      const mask = ((1 << (1 << order)) - 1) << shift;
      return block.setUint8(at, (block.getUint8(at) & ~mask) | (count << shift));
    }
  }
}

/** Highest count of an order, as far as numbers are exact. */
export const maxCount = (order: number): number => (order >= 6 ? Number.MAX_SAFE_INTEGER : 2 ** (1 << order) - 1);

/** All in clusters. Changes stay in memory until `write`. */
export class Refcounts {
  readonly #file: ByteFile;
  readonly #header: Header;
  readonly #map: MetadataMap;
  readonly #corrupt: (what: string) => Promise<never>;
  readonly #blocks: TableCache;
  readonly #cluster: number;
  readonly #perBlock: number;
  /** Byte offset of each refcount block, 0 for none. */
  #table: Float64Array;
  readonly #dirtySectors = new Set<number>();
  /** Where the table moves at the next `write`. */
  #move: { readonly first: number; readonly clusters: number } | undefined;
  /** No cluster below is free. */
  #hint = 0;

  private constructor(
    file: ByteFile,
    header: Header,
    map: MetadataMap,
    corrupt: (what: string) => Promise<never>,
    table: Float64Array,
  ) {
    this.#file = file;
    this.#header = header;
    this.#map = map;
    this.#corrupt = corrupt;
    this.#cluster = 2 ** header.clusterBits;
    this.#perBlock = 2 ** (header.clusterBits + 3 - header.refcountOrder);
    this.#blocks = new TableCache(file, this.#cluster, Math.max(8, CACHE_BYTES / this.#cluster));
    this.#table = table;
  }

  /** Reads the refcount table. `corrupt` marks the image and rejects. */
  static async load(
    file: ByteFile,
    header: Header,
    map: MetadataMap,
    corrupt: (what: string) => Promise<never>,
  ): Promise<Refcounts> {
    const bytes = new Uint8Array(header.reftableClusters * 2 ** header.clusterBits);
    await file.read(header.reftableOffset, bytes);
    const view = new DataView(bytes.buffer);
    const table = Float64Array.from({ length: bytes.length / 8 }, (_, i) => offsetOf(view, i));
    const used = table.filter((o) => o !== 0).sort();
    const twice = used.findIndex((o, i) => o === used[i + 1]);
    // A search for free clusters would read the same full block over and over.
    if (twice >= 0) await corrupt(`the refcount block at ${used[twice]} is in the refcount table twice`);
    const refcounts = new Refcounts(file, header, map, corrupt, table);
    refcounts.#mapTable();
    map.setTables(
      'refcount block',
      used.map((o) => o / 2 ** header.clusterBits),
    );
    return refcounts;
  }

  get max(): number {
    return maxCount(this.#header.refcountOrder);
  }

  /** True when blocks should be written before more changes. */
  get full(): boolean {
    return this.#blocks.full;
  }

  /** Byte offsets of the blocks, 0 for none, in order. */
  get table(): Float64Array {
    return this.#table;
  }

  async get(cluster: number): Promise<number> {
    const block = await this.#block(Math.floor(cluster / this.#perBlock));
    return block ? readCount(block.view, cluster % this.#perBlock, this.#header.refcountOrder) : 0;
  }

  /** Sets a count; makes the block that holds it where there is none, beyond cluster `from`. */
  async set(cluster: number, count: number, from = cluster): Promise<void> {
    const k = Math.floor(cluster / this.#perBlock);
    if (!(await this.#block(k))) {
      if (count === 0) return;
      await this.#ensureCapacity(k);
      if (!(await this.#block(k))) await this.#createBlock(k, from);
    }
    const block = (await this.#block(k))!;
    writeCount(block.view, cluster % this.#perBlock, this.#header.refcountOrder, count);
    this.#blocks.touch(block);
    if (count === 0) this.#hint = Math.min(this.#hint, cluster);
  }

  /** Adds `delta`, 1 or -1, to the counts of `count` clusters; the clusters that became free. */
  async add(first: number, count: number, delta: 1 | -1): Promise<number[]> {
    const freed: number[] = [];
    for (let c = first; c < first + count; c++) {
      const now = (await this.get(c)) + delta;
      if (now < 0) await this.#corrupt(`cluster ${c} is in use and has refcount 0`);
      if (now > this.max)
        throw new DiskError(
          `Cannot refer to cluster ${c} once more: its refcount is ${this.max}, the most that ${1 << this.#header.refcountOrder} bits hold`,
        );
      await this.set(c, now);
      if (now === 0) freed.push(c);
    }
    return freed;
  }

  /** Takes `count` free clusters in a row, each with refcount 1; the first of them. */
  async allocate(count: number): Promise<number> {
    for (;;) {
      const first = await this.#findRun(count, this.#hint);
      const end = first + count;
      const blocks = Math.ceil(count / this.#perBlock) + 2;
      const capacity = this.#table.length;
      await this.#ensureCapacity(Math.floor((end + blocks) / this.#perBlock));
      if (this.#table.length !== capacity) continue;
      for (let k = Math.floor(first / this.#perBlock); k * this.#perBlock < end; k++)
        if (this.#table[k] === 0) await this.#createBlock(k, end);
      const hit = this.#map.find(first, count);
      if (hit) await this.#corrupt(`cluster ${first} has refcount 0 and holds the ${hit}`);
      if (first * this.#cluster + count * this.#cluster > MAX_OFFSET)
        throw new DiskError(`Cannot allocate in ${this.#file.name}: the file would have more than 2^53 bytes`);
      for (let c = first; c < end; c++) await this.set(c, 1);
      if (count === 1 || first <= this.#hint) this.#hint = end;
      return first;
    }
  }

  /** Takes 1 to `most` free clusters in a row. */
  async allocateUpTo(most: number): Promise<{ first: number; count: number }> {
    const first = await this.allocate(1);
    let count = 1;
    // Each further one is taken only where the next free cluster follows directly.
    while (count < most && (await this.#findRun(1, first + count)) === first + count) {
      const next = await this.allocate(1);
      if (next !== first + count) {
        await this.set(next, 0);
        break;
      }
      count++;
    }
    return { first, count };
  }

  /** Writes blocks, then the table that points at them, in this order also on the storage. */
  async write(): Promise<void> {
    if (!this.#move && this.#table.length > (this.#header.reftableClusters * this.#cluster) / 8) await this.#place();
    await this.#blocks.write((offset) => this.#assertOnly(offset));
    if (!this.#move && this.#dirtySectors.size === 0) return;
    await this.#file.flush();
    if (this.#move) await this.#writeMoved(this.#move);
    else {
      for (const sector of this.#dirtySectors) {
        await this.#file.write(this.#header.reftableOffset + sector * SECTOR, this.#tableBytes(sector * 64, sector * 64 + 64));
        this.#dirtySectors.delete(sector);
      }
    }
  }

  async #writeMoved(move: { readonly first: number; readonly clusters: number }): Promise<void> {
    const h = this.#header;
    const old = { first: h.reftableOffset / this.#cluster, clusters: h.reftableClusters };
    await this.#file.write(move.first * this.#cluster, this.#tableBytes(0, this.#table.length));
    await this.#file.flush();
    const field = new DataView(new ArrayBuffer(12));
    field.setBigUint64(0, BigInt(move.first * this.#cluster));
    field.setUint32(8, move.clusters);
    await this.#file.write(FIELD.reftable, new Uint8Array(field.buffer));
    await this.#file.flush();
    h.reftableOffset = move.first * this.#cluster;
    h.reftableClusters = move.clusters;
    this.#move = undefined;
    this.#dirtySectors.clear();
    this.#mapTable();
    await this.add(old.first, old.clusters, -1);
    await this.#blocks.write((offset) => this.#assertOnly(offset));
  }

  #mapTable(): void {
    this.#map.setRanges('refcount table', [[this.#header.reftableOffset / this.#cluster, this.#header.reftableClusters]]);
  }

  #tableBytes(from: number, to: number): Uint8Array {
    const bytes = new Uint8Array((to - from) * 8);
    const view = new DataView(bytes.buffer);
    for (let i = from; i < to; i++) view.setBigUint64((i - from) * 8, BigInt(this.#table[i] ?? 0));
    return bytes;
  }

  async #block(k: number): Promise<Table | undefined> {
    const offset = this.#table[k] ?? 0;
    if (offset === 0) return undefined;
    if (offset % this.#cluster !== 0 || offset > MAX_OFFSET)
      return this.#corrupt(`refcount block ${k} lies at ${offset}, which is not a cluster's start`);
    return this.#blocks.get(offset);
  }

  async #assertOnly(offset: number): Promise<void> {
    const hit = this.#map.find(offset / this.#cluster, 1, 'refcount block');
    if (hit) await this.#corrupt(`the refcount block at ${offset} lies on the ${hit}`);
  }

  /** First cluster, at or after `from`, of `count` that are free. */
  async #findRun(count: number, from: number): Promise<number> {
    let start = from;
    let c = from;
    while (c - start < count) {
      const k = Math.floor(c / this.#perBlock);
      const end = (k + 1) * this.#perBlock;
      const block = await this.#block(k);
      if (!block) {
        c = end;
        continue;
      }
      for (; c < end && c - start < count; c++)
        if (readCount(block.view, c % this.#perBlock, this.#header.refcountOrder) !== 0) start = c + 1;
    }
    return start;
  }

  /** Makes block `k` in a free cluster at or after `from`; a block that covers itself counts itself. */
  async #createBlock(k: number, from: number): Promise<void> {
    const place = await this.#findRun(1, from);
    const holder = Math.floor(place / this.#perBlock);
    await this.#ensureCapacity(Math.max(k, holder));
    if (this.#table[k] !== 0) return;
    if (holder !== k && this.#table[holder] === 0) {
      await this.#createBlock(holder, place);
      return this.#createBlock(k, place);
    }
    if ((await this.get(place)) !== 0) return this.#createBlock(k, place);
    const hit = this.#map.find(place, 1);
    if (hit) await this.#corrupt(`cluster ${place} has refcount 0 and holds the ${hit}`);
    this.#table[k] = place * this.#cluster;
    this.#dirtySectors.add(k >>> 6);
    this.#map.add('refcount block', place);
    this.#blocks.create(place * this.#cluster);
    const block = (await this.#block(holder))!;
    writeCount(block.view, place % this.#perBlock, this.#header.refcountOrder, 1);
    this.#blocks.touch(block);
  }

  /** Grows the table so that block `k` has an entry. Its new place is written by `write`. */
  async #ensureCapacity(k: number): Promise<void> {
    if (k < this.#table.length) return;
    const clusters = Math.ceil((Math.max(k + 1, this.#table.length * 1.5) * 8) / this.#cluster) + 1;
    if (clusters * this.#cluster > MAX_REFTABLE_BYTES)
      throw new DiskError(`Cannot grow ${this.#file.name}: its refcount table would have more than ${MAX_REFTABLE_BYTES} bytes`);
    const grown = new Float64Array((clusters * this.#cluster) / 8);
    grown.set(this.#table);
    this.#table = grown;
    await this.#place();
  }

  /** Allocates a place for the table, which is longer than its present one. */
  async #place(): Promise<void> {
    const entries = this.#table.length;
    const clusters = (entries * 8) / this.#cluster;
    const first = await this.allocate(clusters);
    if (this.#table.length !== entries) {
      // Finding room for it has grown it once more.
      await this.add(first, clusters, -1);
      return;
    }
    if (this.#move) await this.add(this.#move.first, this.#move.clusters, -1);
    this.#move = { first, clusters };
  }
}
