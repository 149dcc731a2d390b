// A qcow2 image as a disk: QEMU "Qcow2 Image File Format" (docs/interop/qcow2), versions 2 and 3. Requests that change only
// guest data run side by side; those that change metadata run alone.

import { type BlockDevice, type ByteFile, checkRange, DiskError, type Extent, joinPieces, piecesLength } from '../block.ts';
import type { Codec } from '../codec.ts';
import { type DirectExtent, Leases } from '../direct.ts';
import { SharedLock } from '../lock.ts';
import { type BitmapKeeper, Bitmaps, type StoredBitmap } from './bitmaps.ts';
import { type CheckResult, checkImage, type Repair, repairImage } from './check.ts';
import { Clusters } from './clusters.ts';
import { CORRUPT, clusterBitsOf, DIRTY, type Header, LAZY_REFCOUNTS, l1EntriesFor, parseHeader } from './header.ts';
import { readSnapshots, type Snapshot } from './snapshot-table.ts';
import { releaseTree, type SnapshotDetails, Snapshots } from './snapshots.ts';
import { Tables } from './tables.ts';

export interface Qcow2Options {
  readonly codec: Codec;
  readonly readOnly?: boolean;
  /** What unallocated clusters read as. The image closes it. */
  readonly backing?: BlockDevice | undefined;
  /** Opens the disk as this snapshot (identifier or name) kept it, for reading. */
  readonly snapshot?: string | undefined;
  /** Opens what is damaged as it is, for `check` alone. */
  readonly forCheck?: boolean;
}

/** What `info` tells of an image. */
export interface Qcow2Info {
  readonly compat: '0.10' | '1.1';
  readonly clusterSize: number;
  readonly compression: 'zlib' | 'zstd';
  readonly lazyRefcounts: boolean;
  readonly refcountBits: number;
  readonly dirty: boolean;
  readonly corrupt: boolean;
  readonly backing: string | undefined;
  readonly backingFormat: string | undefined;
}

/** The first cluster of an image, as its header. */
export async function readHeader(file: ByteFile): Promise<Header> {
  const start = new Uint8Array(512);
  await file.read(0, start);
  const first = new Uint8Array(2 ** clusterBitsOf(file.name, start));
  await file.read(0, first);
  return parseHeader(file.name, first);
}

export class Qcow2Image implements BlockDevice {
  readonly readOnly: boolean;
  readonly #tables: Tables;
  readonly #clusters: Clusters;
  readonly #snapshots: Snapshots;
  readonly #bitmaps: Bitmaps | undefined;
  readonly #lock = new SharedLock();
  readonly #leases = new Leases();

  private constructor(tables: Tables, clusters: Clusters, snapshots: Snapshots, bitmaps: Bitmaps | undefined) {
    this.#bitmaps = bitmaps;
    if (bitmaps) {
      tables.beforeWrites = () => bitmaps.begin();
      tables.beforeClose = () => bitmaps.finish(tables.prepared);
    }
    this.#tables = tables;
    this.#clusters = clusters;
    this.#snapshots = snapshots;
    this.readOnly = tables.readOnly;
  }

  /**
   * Opens an image. Opening for writing repairs what a crash left behind (the dirty bit).
   * @throws DiskError (rejects) for an image that is damaged, hostile, or uses what is not supported
   */
  static async open(file: ByteFile, options: Qcow2Options): Promise<Qcow2Image> {
    let header = await readHeader(file);
    const readOnly = options.readOnly === true || file.readOnly;
    if (!readOnly && !options.forCheck) {
      if ((header.incompatible & CORRUPT) !== 0n)
        throw new DiskError(`Cannot open ${file.name} for writing: it is marked corrupt; "nonroot img check -r all" repairs it`);
      if ((header.incompatible & DIRTY) !== 0n) {
        const { corruptions } = await repairImage(file, header, 'all');
        if (corruptions > 0)
          throw new DiskError(`Cannot open ${file.name} for writing: ${corruptions} errors are left after its repair`);
        header = await readHeader(file);
      }
    }
    const { snapshots, bytes } = await readSnapshots(file, header);
    if (options.snapshot !== undefined) header = atSnapshot(header, findSnapshot(snapshots, options.snapshot));
    const tables = await Tables.load(file, header, readOnly || options.snapshot !== undefined);
    const image = new Qcow2Image(
      tables,
      new Clusters(tables, options.codec, options.backing),
      new Snapshots(tables, snapshots, bytes),
      options.forCheck || options.snapshot !== undefined ? undefined : await Bitmaps.load(tables),
    );
    if (!tables.readOnly && !options.forCheck) await tables.loadRefcounts();
    return image;
  }

  get size(): number {
    return this.#tables.header.size;
  }

  get info(): Qcow2Info {
    const h = this.#tables.header;
    return {
      compat: h.version === 2 ? '0.10' : '1.1',
      clusterSize: this.#tables.cluster,
      compression: h.compression,
      lazyRefcounts: (h.compatible & LAZY_REFCOUNTS) !== 0n,
      refcountBits: 1 << h.refcountOrder,
      dirty: (h.incompatible & DIRTY) !== 0n,
      corrupt: (h.incompatible & CORRUPT) !== 0n,
      backing: h.backing,
      backingFormat: h.backingFormat,
    };
  }

  /** The persistent bitmaps of what was written, as they were when the image was opened. */
  get bitmaps(): readonly StoredBitmap[] {
    return this.#bitmaps?.list ?? [];
  }
  /** Who follows the writes to this image, and gives its bitmaps back when it is closed; without, the first write makes them stale. */
  keepBitmaps(keeper: BitmapKeeper): void {
    if (this.#bitmaps) this.#bitmaps.keeper = keeper;
  }

  get backing(): BlockDevice | undefined {
    return this.#clusters.backing;
  }

  get snapshots(): readonly Snapshot[] {
    return this.#snapshots.list;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    checkRange('read', offset, into.length, this.size);
    return this.#lock.shared(() => this.#clusters.read(offset, into));
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    checkRange('write', offset, from.length, this.size);
    await this.#write(offset, [from]);
  }

  readPieces(offset: number, into: readonly Uint8Array[]): Promise<void> {
    checkRange('read', offset, piecesLength(into), this.size);
    return this.#lock.shared(() => this.#clusters.readPieces(offset, into));
  }

  async writePieces(offset: number, from: readonly Uint8Array[]): Promise<void> {
    checkRange('write', offset, piecesLength(from), this.size);
    await this.#write(offset, from);
  }

  /** Where clusters have places of their own, the pieces go there as they are; else they are put together first. */
  async #write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    if (piecesLength(from) === 0) return;
    const done = this.#tables.prepared && (await this.#lock.shared(() => this.#clusters.overwrite(offset, from)));
    if (done) return;
    const whole = from.length === 1 ? from[0]! : joinPieces(from);
    await this.#change(() => this.#clusters.write(offset, whole));
  }

  /** Stores one cluster compressed. `offset` is a multiple of the cluster size; only the last cluster may be shorter. */
  async writeCompressed(offset: number, from: Uint8Array): Promise<void> {
    checkRange('write', offset, from.length, this.size);
    const { cluster } = this.#tables;
    if (offset % cluster !== 0 || (from.length !== cluster && offset + from.length !== this.size))
      throw new DiskError(`Cannot compress ${from.length} bytes at ${offset}: accepted are whole clusters of ${cluster} bytes`);
    await this.#change(() => this.#clusters.writeCompressed(offset, from));
  }

  async discard(offset: number, length: number): Promise<void> {
    checkRange('discard', offset, length, this.size);
    await this.#change(() => this.#clusters.discard(offset, length));
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    checkRange('write zeros to', offset, length, this.size);
    await this.#change(() => this.#clusters.writeZeroes(offset, length));
  }

  extent(offset: number, length: number): Promise<Extent> {
    checkRange('look at', offset, length, this.size);
    return this.#lock.shared(async () => {
      const run = await this.#clusters.run(offset, length);
      if (run.entry.kind === 'data' || run.entry.kind === 'compressed') return { kind: 'data', length: run.length };
      if (run.entry.kind === 'zero') return { kind: 'zero', length: run.length };
      return { kind: this.#clusters.hasBacking(offset) ? 'backing' : 'zero', length: run.length };
    });
  }

  direct(offset: number, length: number, gone: () => void): Promise<DirectExtent | undefined> {
    checkRange('look at', offset, length, this.size);
    return this.#lock.shared(async () => {
      const extent = await this.#clusters.direct(offset, length, gone);
      if (extent) this.#leases.add(gone);
      return extent;
    });
  }

  async flush(): Promise<void> {
    if (!this.readOnly) await this.#lock.alone(() => this.#tables.flush());
  }

  /** `flush`, after which the file alone says all: nothing is left for closing, and `check` finds no leaks. */
  async settle(): Promise<void> {
    if (!this.readOnly) await this.#lock.alone(() => this.#tables.settle());
  }

  async close(): Promise<void> {
    try {
      if (!this.readOnly) await this.#lock.alone(() => this.#tables.finish());
    } finally {
      await this.#tables.file.close();
      await this.#clusters.backing?.close();
    }
  }

  /** Grows or shrinks the disk. What grows reads as zeros; what is cut off is lost. */
  async resize(size: number): Promise<void> {
    checkRange('resize the disk to', 0, size, Number.MAX_SAFE_INTEGER);
    const { header } = this.#tables;
    if (header.version < 3 && this.snapshots.length > 0)
      throw new DiskError(
        `Cannot resize ${this.#tables.file.name}: it has snapshots and version 2, which does not keep their sizes`,
      );
    await this.#change(() => (size >= header.size ? this.#grow(size) : this.#shrink(size)));
  }

  async #grow(size: number): Promise<void> {
    const t = this.#tables;
    const old = t.header.size;
    const end = Math.ceil(size / t.cluster) * t.cluster;
    await this.#clusters.drop(Math.ceil(old / t.cluster) * t.cluster, end);
    await t.growL1(l1EntriesFor(size, t.header.clusterBits));
    const rest = Math.min(size, Math.max(Math.ceil(old / t.cluster) * t.cluster, this.#clusters.backing?.size ?? 0)) - old;
    t.header.size = size;
    try {
      // Beyond its old end the disk shows neither what its last cluster has there nor the backing file.
      if (rest > 0) await this.#clusters.writeZeroes(old, rest);
      await t.flushMetadata();
      await t.writeSize(size);
    } catch (error) {
      t.header.size = old;
      throw error;
    }
  }

  async #shrink(size: number): Promise<void> {
    const t = this.#tables;
    const old = t.header.size;
    await t.flushMetadata();
    await t.writeSize(size);
    const kept = l1EntriesFor(size, t.header.clusterBits);
    const spanned = kept * t.perL2 * t.cluster;
    await this.#clusters.drop(Math.ceil(size / t.cluster) * t.cluster, Math.min(spanned, Math.ceil(old / t.cluster) * t.cluster));
    const end = l1EntriesFor(old, t.header.clusterBits);
    const gone = new DataView(t.l1.buffer.slice(0, end * 8));
    for (let i = kept; i < end; i++) t.setL1(i, 0, false);
    await t.flushMetadata();
    await releaseTree(t, gone, kept);
    await t.flush();
  }

  /** Byte offset, for `readVmState` and `writeVmState` 0, at which the VM state area begins. */
  get #vmStateStart(): number {
    const span = this.#tables.perL2 * this.#tables.cluster;
    return Math.ceil(this.size / span) * span;
  }

  /** Reads VM state of the snapshot that was applied last, or of what was written since. */
  readVmState(offset: number, into: Uint8Array): Promise<void> {
    return this.#lock.shared(() => this.#clusters.read(this.#vmStateStart + offset, into));
  }

  /** Writes VM state, which the next `createSnapshot` keeps. */
  async writeVmState(offset: number, from: Uint8Array): Promise<void> {
    checkRange('write VM state', offset, from.length, Number.MAX_SAFE_INTEGER - this.#vmStateStart);
    await this.#change(async () => {
      const end = this.#vmStateStart + offset + from.length;
      await this.#tables.growL1(l1EntriesFor(end, this.#tables.header.clusterBits));
      await this.#clusters.write(this.#vmStateStart + offset, from);
    });
  }

  /** Keeps the disk as it is, with the VM state that was written, which the active disk then has no more. */
  async createSnapshot(details: SnapshotDetails): Promise<Snapshot> {
    return this.#change(async () => {
      const snapshot = await this.#snapshots.create(details);
      const { header, perL2, cluster } = this.#tables;
      await this.#clusters.drop(this.#vmStateStart, header.l1Size * perL2 * cluster);
      await this.#tables.flush();
      return snapshot;
    });
  }

  /** The image as it was, to read; it goes with this one, and is not to be closed. */
  async atSnapshot(idOrName: string): Promise<Qcow2Image> {
    return this.#change(async () => {
      await this.#tables.flush();
      return Qcow2Image.open(this.#tables.file, { codec: this.#clusters.codec, readOnly: true, snapshot: idOrName });
    });
  }

  /** The disk, its size included, and the VM state area become what they were. */
  async applySnapshot(idOrName: string): Promise<void> {
    await this.#change(() => this.#snapshots.apply(findSnapshot(this.snapshots, idOrName)));
  }

  async deleteSnapshot(idOrName: string): Promise<void> {
    await this.#change(() => this.#snapshots.delete(findSnapshot(this.snapshots, idOrName)));
  }

  /** Makes every cluster unallocated, so that the disk reads as its backing file. */
  async empty(): Promise<void> {
    await this.#change(async () => {
      await this.#clusters.drop(0, Math.ceil(this.size / this.#tables.cluster) * this.#tables.cluster);
      await this.#tables.flush();
    });
  }

  /** Gives every cluster that has none a place in the file; it reads as zeros still. For images without backing file. */
  async preallocate(): Promise<void> {
    await this.#change(() => this.#clusters.preallocate(this.size));
  }

  /** Names another backing file in the header. `backing` is the new one, opened; the old one is closed. */
  async setBacking(name: string | undefined, format: string | undefined, backing: BlockDevice | undefined): Promise<void> {
    await this.#change(async () => {
      const { header } = this.#tables;
      await this.#tables.flush();
      const before = { backing: header.backing, backingFormat: header.backingFormat };
      assignNames(header, name, format);
      await this.#tables.writeHeader().catch((error: unknown) => {
        assignNames(header, before.backing, before.backingFormat);
        throw error;
      });
      await this.#clusters.backing?.close();
      this.#clusters.backing = backing;
    });
  }

  /** Compares counts with references. Repairs only what was opened with `forCheck`. */
  check(repair: Repair | undefined): Promise<CheckResult> {
    const { file, header, writing } = this.#tables;
    return this.#lock.alone(async () => {
      if (!repair) {
        if (writing) await this.#tables.settle();
        return checkImage(file, header);
      }
      if (writing) throw new DiskError(`Cannot repair ${file.name}: it is in use`);
      return repairImage(file, header, repair);
    });
  }

  #change<T>(action: () => Promise<T>): Promise<T> {
    return this.#lock.alone(async () => {
      await this.#tables.prepareWrite();
      this.#leases.takeBack();
      this.#clusters.forget();
      return action();
    });
  }
}

/** By identifier, else by name. */
function findSnapshot(snapshots: readonly Snapshot[], idOrName: string): Snapshot {
  const snapshot = snapshots.find((s) => s.id === idOrName) ?? snapshots.find((s) => s.name === idOrName);
  if (snapshot) return snapshot;
  const names = snapshots.map((s) => s.name).join(', ');
  throw new DiskError(`Cannot find snapshot '${idOrName}': accepted are ${names || 'none, there are no snapshots'}`);
}

function atSnapshot(header: Header, snapshot: Snapshot): Header {
  if (snapshot.l1Size < l1EntriesFor(snapshot.diskSize, header.clusterBits))
    throw new DiskError(`Cannot open snapshot '${snapshot.name}': its L1 table is shorter than its disk needs`);
  return { ...header, l1Offset: snapshot.l1Offset, l1Size: snapshot.l1Size, size: snapshot.diskSize };
}

function assignNames(header: Header, name: string | undefined, format: string | undefined): void {
  delete header.backing;
  delete header.backingFormat;
  if (name !== undefined) header.backing = name;
  if (format !== undefined) header.backingFormat = format;
}
