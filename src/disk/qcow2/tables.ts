// The metadata of an open qcow2 image: header, refcounts, L1 and L2 tables, and the order in which changes reach the file, so
// that an image is at most leaky wherever writing stops. "Qcow2 Image File Format", sections "Header", "Cluster mapping".

import { type ByteFile, DiskError } from '../block.ts';
import { type Entry, isCopied, offsetOf, readEntry, setPointer, writeEntry } from './entry.ts';
import { CORRUPT, DIRTY, encodeHeader, FIELD, type Header, LAZY_REFCOUNTS, MAX_L1_BYTES } from './header.ts';
import { MetadataMap } from './metadata-map.ts';
import { Refcounts } from './refcounts.ts';
import { type Table, TableCache } from './table-cache.ts';

const L2_CACHE_BYTES = 32 << 20;
const SECTOR = 512;
const MAX_DEFERRED = 4096;

/** Methods that change something are for one caller at a time. */
export class Tables {
  readonly file: ByteFile;
  readonly header: Header;
  readonly readOnly: boolean;
  readonly map = new MetadataMap();
  readonly cluster: number;
  /** Entries of an L2 table. */
  readonly perL2: number;
  readonly #l2: TableCache;
  #l1: DataView;
  #refcounts: Refcounts | undefined;
  readonly #l1Dirty = new Set<number>();
  /** Clusters to release when nothing on the storage refers to them any more. */
  #deferred: { readonly first: number; readonly count: number }[] = [];
  #prepared = false;
  /** Where the next compressed cluster may begin, in the rest of a cluster that others share; 0 when there is no such rest. */
  compressedTail = 0;
  /** Called before the first change: what follows writes must be told of them. */
  beforeWrites: () => Promise<void> = async () => {
    if (this.header.autoclear !== 0n) await this.writeFeatures(this.header.incompatible, 0n);
  };
  /** Called when all was written and the image is about to be closed. */
  beforeClose: () => Promise<void> = async () => {};
  /** While a change of many clusters is under way, and for ever when it failed: the dirty bit stays. */
  unfinished = false;
  #broken: string | undefined;

  private constructor(file: ByteFile, header: Header, readOnly: boolean, l1: DataView) {
    this.file = file;
    this.header = header;
    this.readOnly = readOnly;
    this.cluster = 2 ** header.clusterBits;
    this.perL2 = this.cluster / 8;
    this.#l1 = l1;
    this.#l2 = new TableCache(file, this.cluster, Math.max(8, L2_CACHE_BYTES / this.cluster));
  }

  static async load(file: ByteFile, header: Header, readOnly: boolean): Promise<Tables> {
    const bytes = new Uint8Array(header.l1Size * 8);
    await file.read(header.l1Offset, bytes);
    return new Tables(file, header, readOnly, new DataView(bytes.buffer));
  }

  get l1(): DataView {
    return this.#l1;
  }

  get refcounts(): Refcounts {
    if (!this.#refcounts) throw new DiskError(`Cannot change ${this.file.name}: it is not open for writing`);
    return this.#refcounts;
  }

  /** Reads what only writers need. Call once, before the first change. */
  async loadRefcounts(): Promise<void> {
    this.map.setRanges('header', [[0, 1]]);
    this.#mapL1();
    this.#refcounts = await Refcounts.load(this.file, this.header, this.map, (what) => this.corrupt(what));
  }

  /**
   * Makes the image ready for changes: data that only other programs keep up to date is declared stale, and refcounts that
   * are written late are announced.
   */
  async prepareWrite(): Promise<void> {
    if (this.#broken !== undefined) throw new DiskError(`Cannot write to ${this.file.name}: ${this.#broken}`);
    if (this.#prepared) return;
    if (this.readOnly) throw new DiskError(`Cannot write to ${this.file.name}: it is open for reading only`);
    await this.beforeWrites();
    if (this.lazy) await this.setDirty(true);
    this.#prepared = true;
  }

  /** True when `prepareWrite` has nothing to do. */
  get prepared(): boolean {
    return this.#prepared && this.#broken === undefined;
  }

  get lazy(): boolean {
    return this.header.version >= 3 && (this.header.compatible & LAZY_REFCOUNTS) !== 0n;
  }

  /** Sets or clears the dirty bit, where the version has one, and waits for the storage. */
  async setDirty(dirty: boolean): Promise<void> {
    const { version, incompatible, autoclear } = this.header;
    if (version < 3 || ((incompatible & DIRTY) !== 0n) === dirty) return;
    await this.file.flush();
    await this.writeFeatures(dirty ? incompatible | DIRTY : incompatible & ~DIRTY, autoclear);
    await this.file.flush();
  }

  async writeFeatures(incompatible: bigint, autoclear: bigint): Promise<void> {
    if (this.header.version < 3) return;
    const field = new DataView(new ArrayBuffer(24));
    field.setBigUint64(0, incompatible);
    field.setBigUint64(8, this.header.compatible);
    field.setBigUint64(16, autoclear);
    await this.file.write(FIELD.incompatible, new Uint8Array(field.buffer));
    this.header.incompatible = incompatible;
    this.header.autoclear = autoclear;
  }

  /** Rewrites the first cluster after a change of names or extensions. */
  async writeHeader(): Promise<void> {
    await this.file.write(0, encodeHeader(this.header));
    await this.file.flush();
  }

  /** Marks the image corrupt, refuses every later write, and rejects. */
  async corrupt(what: string): Promise<never> {
    if (this.#broken === undefined) {
      this.#broken = `it is corrupt (${what})`;
      if (!this.readOnly) await this.writeFeatures(this.header.incompatible | CORRUPT, this.header.autoclear).catch(() => {});
    }
    throw new DiskError(`Cannot use ${this.file.name}: it is corrupt: ${what}; "nonroot img check" says more`);
  }

  /** Throws, and marks the image corrupt, when clusters of guest data would overwrite metadata. */
  async assertData(offset: number, length: number): Promise<void> {
    const first = Math.floor(offset / this.cluster);
    const hit = this.map.find(first, Math.ceil((offset + length) / this.cluster) - first);
    if (hit) await this.corrupt(`guest data at ${offset} lies on the ${hit}`);
  }

  /** The L2 table for guest cluster `index`, if there is one. */
  async lookup(index: number): Promise<Table | undefined> {
    const i = Math.floor(index / this.perL2);
    if (i * 8 >= this.#l1.byteLength) return undefined;
    const offset = offsetOf(this.#l1, i);
    if (offset === 0) return undefined;
    await this.#checkL2(offset, i);
    return this.#l2.get(offset);
  }

  /** The entry of guest cluster `index`. */
  async entry(index: number): Promise<Entry> {
    const table = await this.lookup(index);
    return table ? this.entryIn(table, index) : { kind: 'unallocated' };
  }

  /** The entry of guest cluster `index` in its table. */
  entryIn(table: Table, index: number): Entry {
    return readEntry(table.view, index % this.perL2, this.header.clusterBits, this.header.version);
  }

  /** Changes the entry of guest cluster `index`; makes or copies its L2 table where that is needed. */
  async setEntry(index: number, entry: Entry): Promise<void> {
    const table = await this.#writableL2(Math.floor(index / this.perL2));
    writeEntry(table.view, index % this.perL2, entry, this.header.clusterBits);
    this.#l2.touch(table);
  }

  /** An L2 table as it is, shared or not, for changes of flags only. */
  async l2At(offset: number): Promise<Table> {
    await this.#checkL2(offset, -1);
    return this.#l2.get(offset);
  }

  touchL2(table: Table): void {
    this.#l2.touch(table);
  }

  setL1(i: number, offset: number, copied: boolean): void {
    setPointer(this.#l1, i, offset, copied);
    this.#l1Dirty.add(Math.floor((i * 8) / SECTOR));
  }

  /** Lets go of what an entry refers to, once the change that removed it is on the storage. */
  release(entry: Entry): void {
    if (entry.kind === 'unallocated' || entry.offset === 0) return;
    if (entry.kind !== 'compressed') return this.releaseClusters(entry.offset / this.cluster, 1);
    const first = Math.floor(entry.offset / this.cluster);
    this.releaseClusters(first, Math.floor((entry.offset + entry.length - 1) / this.cluster) - first + 1);
  }

  releaseClusters(first: number, count: number): void {
    this.compressedTail = 0;
    this.#deferred.push({ first, count });
  }

  /** Writes metadata when much has gathered. */
  async relieve(): Promise<void> {
    if (this.#l2.full || this.refcounts.full || this.#deferred.length > MAX_DEFERRED) await this.flushMetadata();
  }

  /** Writes all metadata in an order that is safe to cut, and releases what is no longer referred to. */
  async flushMetadata(): Promise<void> {
    if (!this.#refcounts) return;
    if (!this.lazy || this.refcounts.full) await this.refcounts.write();
    if (this.#l2.dirty || this.#l1Dirty.size > 0) {
      await this.file.flush();
      await this.#l2.write((offset) => this.#assertL2(offset));
    }
    if (this.#l1Dirty.size > 0) {
      await this.file.flush();
      for (const sector of this.#l1Dirty) {
        const from = sector * SECTOR;
        const length = Math.min(SECTOR, this.#l1.byteLength - from);
        await this.file.write(this.header.l1Offset + from, new Uint8Array(this.#l1.buffer, from, length));
        this.#l1Dirty.delete(sector);
      }
    }
    if (this.#deferred.length === 0) return;
    await this.file.flush();
    while (this.#deferred.length > 0) {
      const { first, count } = this.#deferred[0]!;
      this.#deferred.shift();
      for (const c of await this.refcounts.add(first, count, -1)) {
        this.#l2.drop(c * this.cluster);
        this.map.delete('L2 table', c);
        await this.file.punch(c * this.cluster, this.cluster);
      }
    }
  }

  /** Makes all that was written before durable. */
  async flush(): Promise<void> {
    await this.flushMetadata();
    await this.file.flush();
  }

  /** True when the image was opened for changes. */
  get writing(): boolean {
    return this.#refcounts !== undefined;
  }

  /** Makes the file say all, the refcounts that were kept back included. */
  async settle(): Promise<void> {
    await this.flushMetadata();
    await this.refcounts.write();
    await this.file.flush();
  }

  /** Writes what is left when the image is closed. */
  async finish(): Promise<void> {
    if (!this.#refcounts) return;
    if (this.#broken === undefined) {
      await this.settle();
      await this.beforeClose();
      if (this.#prepared && !this.unfinished) await this.setDirty(false);
    }
    await this.file.flush();
  }

  /** Gives the L1 table at least `entries` entries. */
  async growL1(entries: number): Promise<void> {
    if (entries <= this.header.l1Size) return;
    if (entries * 8 > MAX_L1_BYTES)
      throw new DiskError(
        `Cannot grow ${this.file.name}: its L1 table would have ${entries} entries, accepted are at most ${MAX_L1_BYTES / 8}`,
      );
    const grown = new Uint8Array(entries * 8);
    grown.set(new Uint8Array(this.#l1.buffer));
    await this.switchL1(grown, this.header.size);
  }

  /** Writes `bytes` as the active L1 table at a new place and makes it and the disk's new size valid in one write. */
  async switchL1(bytes: Uint8Array, size: number): Promise<void> {
    const { header } = this;
    const clusters = Math.max(1, Math.ceil(bytes.length / this.cluster));
    const first = await this.refcounts.allocate(clusters);
    await this.flushMetadata();
    await this.refcounts.write();
    const padded = new Uint8Array(clusters * this.cluster);
    padded.set(bytes);
    await this.file.write(first * this.cluster, padded);
    await this.file.flush();
    await this.#writeSizeAndL1(size, bytes.length / 8, first * this.cluster);
    const old = { first: header.l1Offset / this.cluster, count: Math.ceil((header.l1Size * 8) / this.cluster) };
    header.size = size;
    header.l1Size = bytes.length / 8;
    header.l1Offset = first * this.cluster;
    this.#l1 = new DataView(bytes.slice().buffer);
    this.#l1Dirty.clear();
    if (old.first > 0 && old.count > 0) this.releaseClusters(old.first, old.count);
    this.#mapL1();
  }

  /** Changes the disk's size only. */
  async writeSize(size: number): Promise<void> {
    await this.#writeSizeAndL1(size, this.header.l1Size, this.header.l1Offset);
    this.header.size = size;
  }

  async #writeSizeAndL1(size: number, l1Size: number, l1Offset: number): Promise<void> {
    const field = new DataView(new ArrayBuffer(24));
    field.setBigUint64(0, BigInt(size));
    field.setUint32(FIELD.l1 - FIELD.size, l1Size);
    field.setBigUint64(FIELD.l1 + 4 - FIELD.size, BigInt(l1Offset));
    await this.file.write(FIELD.size, new Uint8Array(field.buffer));
    await this.file.flush();
  }

  /** Takes note of where the active L1 and L2 tables are. */
  #mapL1(): void {
    const { l1Offset, l1Size } = this.header;
    this.map.setRanges('L1 table', [[l1Offset / this.cluster, Math.ceil((l1Size * 8) / this.cluster)]]);
    const offsets = Float64Array.from({ length: l1Size }, (_, i) => offsetOf(this.#l1, i) / this.cluster);
    this.map.setTables(
      'L2 table',
      offsets.filter((o) => o !== 0),
    );
  }

  async #writableL2(i: number): Promise<Table> {
    const offset = offsetOf(this.#l1, i);
    if (offset !== 0 && isCopied(this.#l1, i)) {
      await this.#checkL2(offset, i);
      await this.#assertL2(offset);
      return this.#l2.get(offset);
    }
    if (offset !== 0) await this.#checkL2(offset, i);
    const first = await this.refcounts.allocate(1);
    const old = offset === 0 ? undefined : await this.#l2.get(offset);
    const table = this.#l2.create(first * this.cluster, old?.bytes);
    this.setL1(i, table.offset, true);
    this.map.add('L2 table', first);
    if (old) this.releaseClusters(offset / this.cluster, 1);
    return table;
  }

  async #checkL2(offset: number, i: number): Promise<void> {
    if (offset % this.cluster === 0 && offset <= Number.MAX_SAFE_INTEGER) return;
    await this.corrupt(`L2 table ${i < 0 ? '' : `${i} `}lies at ${offset}, which is not a cluster's start`);
  }

  async #assertL2(offset: number): Promise<void> {
    const hit = this.map.find(offset / this.cluster, 1, 'L2 table');
    if (hit) await this.corrupt(`the L2 table at ${offset} lies on the ${hit}`);
  }
}
