// Creating, applying and deleting internal snapshots: "Qcow2 Image File Format", section "Snapshots". While counts and flags
// of many clusters change, version 3 images are marked dirty: whoever opens them after a cut repairs them first.

import { DiskError } from '../block.ts';
import type { Entry } from './entry.ts';
import { isCopied, offsetOf, readEntry, setPointer, writeEntry } from './entry.ts';
import { FIELD, l1EntriesFor } from './header.ts';
import { encodeSnapshots, type Snapshot } from './snapshot-table.ts';
import type { Tables } from './tables.ts';

/** What a caller says of a new snapshot. */
export interface SnapshotDetails {
  readonly name: string;
  readonly seconds: number;
  readonly nanoseconds: number;
  /** Time that the guest has run, in ns. */
  readonly guestTime?: bigint;
  /** Bytes of VM state that were written to the VM state area. */
  readonly vmStateSize?: number;
}

/** Snapshots of one image, in the order of its table. */
export class Snapshots {
  readonly #tables: Tables;
  #list: readonly Snapshot[];
  #bytes: number;

  constructor(tables: Tables, list: readonly Snapshot[], bytes: number) {
    this.#tables = tables;
    this.#list = list;
    this.#bytes = bytes;
    this.#map();
  }

  get list(): readonly Snapshot[] {
    return this.#list;
  }

  async create(details: SnapshotDetails): Promise<Snapshot> {
    const t = this.#tables;
    const id = String(this.#list.reduce((max, s) => Math.max(max, /^\d+$/.test(s.id) ? Number(s.id) : 0), 0) + 1);
    await t.flushMetadata();
    await this.#assertRoom(t.l1);
    return this.#announced(async () => {
      // Without its COPIED flag a cluster is only copied once more than needed; with it and two owners it would be overwritten.
      await this.#flags(t.l1, () => Promise.resolve(false));
      await t.flushMetadata();
      await this.#refer(t.l1);
      const bytes = new Uint8Array(t.l1.buffer).slice();
      const l1Offset = await this.#store(bytes);
      const snapshot: Snapshot = {
        id,
        name: details.name,
        l1Offset,
        l1Size: bytes.length / 8,
        seconds: details.seconds,
        nanoseconds: details.nanoseconds,
        guestTime: details.guestTime ?? 0n,
        vmStateSize: details.vmStateSize ?? 0,
        diskSize: t.header.size,
        icount: undefined,
        unknownExtra: new Uint8Array(0),
      };
      await this.#replace([...this.#list, snapshot]);
      return snapshot;
    });
  }

  /** Makes the disk what it was, its size included. */
  async apply(snapshot: Snapshot): Promise<void> {
    const t = this.#tables;
    await t.flushMetadata();
    const l1 = await this.#load(snapshot);
    await this.#assertRoom(l1);
    const needed = l1EntriesFor(snapshot.diskSize, t.header.clusterBits);
    if (needed > snapshot.l1Size)
      throw new DiskError(
        `Cannot apply snapshot ${snapshot.name}: its L1 table has ${snapshot.l1Size} entries, its disk of ${snapshot.diskSize} bytes needs ${needed}`,
      );
    await this.#announced(async () => {
      await this.#refer(l1);
      await this.#flags(l1, () => Promise.resolve(false));
      const old = new DataView(t.l1.buffer.slice(0));
      await t.switchL1(new Uint8Array(l1.buffer), snapshot.diskSize);
      await releaseTree(t, old, 0);
      await t.flushMetadata();
      await this.#exactFlags();
    });
  }

  async delete(snapshot: Snapshot): Promise<void> {
    const t = this.#tables;
    await t.flushMetadata();
    const l1 = await this.#load(snapshot);
    await this.#announced(async () => {
      await this.#replace(this.#list.filter((s) => s !== snapshot));
      await releaseTree(t, l1, 0);
      t.releaseClusters(snapshot.l1Offset / t.cluster, Math.ceil((snapshot.l1Size * 8) / t.cluster));
      await t.flushMetadata();
      await this.#exactFlags();
    });
  }

  async #announced<T>(change: () => Promise<T>): Promise<T> {
    const t = this.#tables;
    await t.setDirty(true);
    t.unfinished = true;
    const result = await change();
    await t.settle();
    t.unfinished = false;
    if (!t.lazy) await t.setDirty(false);
    return result;
  }

  async #load(snapshot: Snapshot): Promise<DataView> {
    const bytes = new Uint8Array(snapshot.l1Size * 8);
    await this.#tables.file.read(snapshot.l1Offset, bytes);
    return new DataView(bytes.buffer);
  }

  /** Writes bytes to clusters of their own. */
  async #store(bytes: Uint8Array): Promise<number> {
    const t = this.#tables;
    const clusters = Math.max(1, Math.ceil(bytes.length / t.cluster));
    const first = await t.refcounts.allocate(clusters);
    await t.refcounts.write();
    const padded = new Uint8Array(clusters * t.cluster);
    padded.set(bytes);
    await t.file.write(first * t.cluster, padded);
    return first * t.cluster;
  }

  /** Writes a new table, makes it valid in one write, and releases the old one. */
  async #replace(list: readonly Snapshot[]): Promise<void> {
    const t = this.#tables;
    const bytes = encodeSnapshots(list);
    const offset = list.length === 0 ? 0 : await this.#store(bytes);
    await t.file.flush();
    const field = new DataView(new ArrayBuffer(12));
    field.setUint32(0, list.length);
    field.setBigUint64(4, BigInt(offset));
    await t.file.write(FIELD.snapshots, new Uint8Array(field.buffer));
    await t.file.flush();
    if (this.#bytes > 0) t.releaseClusters(t.header.snapshotsOffset / t.cluster, Math.ceil(this.#bytes / t.cluster));
    t.header.snapshotCount = list.length;
    t.header.snapshotsOffset = offset;
    this.#list = list;
    this.#bytes = bytes.length;
    this.#map();
  }

  #map(): void {
    const { map, cluster, header } = this.#tables;
    map.setRanges(
      'snapshot table',
      this.#bytes > 0 ? [[header.snapshotsOffset / cluster, Math.ceil(this.#bytes / cluster)]] : [],
    );
    map.setRanges(
      'snapshot L1 table',
      this.#list.map((s) => [s.l1Offset / cluster, Math.ceil((s.l1Size * 8) / cluster)]),
    );
  }

  /** Throws when a cluster would have more owners than its count can hold. */
  async #assertRoom(l1: DataView): Promise<void> {
    const { refcounts, file } = this.#tables;
    // Compressed clusters share clusters of the file, each with a reference of its own.
    const shared = new Map<number, number>();
    await this.#walk(l1, async (first, count, compressed) => {
      for (let c = first; c < first + count; c++) {
        const more = (shared.get(c) ?? 0) + 1;
        if (compressed) shared.set(c, more);
        if ((await refcounts.get(c)) + more > refcounts.max)
          throw new DiskError(
            `Cannot take or apply a snapshot of ${file.name}: cluster ${c} would have more than ${refcounts.max} references, the most that its refcounts hold`,
          );
      }
    });
  }

  /** Adds a reference to all that an L1 table leads to. */
  async #refer(l1: DataView): Promise<void> {
    await this.#walk(l1, async (first, count) => {
      await this.#tables.refcounts.add(first, count, 1);
      await this.#tables.relieve();
    });
  }

  /** Calls for the clusters of each L2 table and of each entry that has some. */
  async #walk(l1: DataView, visit: (first: number, count: number, compressed: boolean) => Promise<void>): Promise<void> {
    const t = this.#tables;
    for (let i = 0; i * 8 < l1.byteLength; i++) {
      const offset = offsetOf(l1, i);
      if (offset === 0) continue;
      for (const entry of await entriesAt(t, offset)) {
        const range = clustersOf(t, entry);
        if (range) await visit(range.first, range.count, entry.kind === 'compressed');
      }
      await visit(offset / t.cluster, 1, false);
    }
  }

  /** Sets the COPIED flags below an L1 table, and in it when it is the active one. */
  async #flags(l1: DataView, copied: (cluster: number) => Promise<boolean>): Promise<void> {
    const t = this.#tables;
    for (let i = 0; i * 8 < l1.byteLength; i++) {
      const offset = offsetOf(l1, i);
      if (offset === 0) continue;
      const own = await copied(offset / t.cluster);
      if (isCopied(l1, i) !== own) {
        if (l1 === t.l1) t.setL1(i, offset, own);
        else setPointer(l1, i, offset, own);
      }
      for (let j = 0; j < t.perL2; j++) {
        const entry = readEntry((await t.l2At(offset)).view, j, t.header.clusterBits, t.header.version);
        if ((entry.kind !== 'data' && entry.kind !== 'zero') || entry.offset === 0) continue;
        const flag = await copied(entry.offset / t.cluster);
        if (flag === entry.copied) continue;
        const table = await t.l2At(offset);
        writeEntry(table.view, j, { ...entry, copied: flag }, t.header.clusterBits);
        t.touchL2(table);
      }
      await t.relieve();
    }
  }

  /** Sets the active tables' flags by the counts. */
  async #exactFlags(): Promise<void> {
    const t = this.#tables;
    await this.#flags(t.l1, async (cluster) => (await t.refcounts.get(cluster)) === 1);
  }
}

/** The entries of the L2 table at `offset`, those that are unallocated left out. */
async function entriesAt(t: Tables, offset: number): Promise<Entry[]> {
  const { view } = await t.l2At(offset);
  const entries: Entry[] = [];
  for (let j = 0; j < t.perL2; j++) {
    const entry = readEntry(view, j, t.header.clusterBits, t.header.version);
    if (entry.kind !== 'unallocated') entries.push(entry);
  }
  return entries;
}

function clustersOf(t: Tables, entry: Entry): { first: number; count: number } | undefined {
  if (entry.kind === 'unallocated' || entry.offset === 0) return undefined;
  const first = Math.floor(entry.offset / t.cluster);
  if (entry.kind !== 'compressed') return { first, count: 1 };
  return { first, count: Math.floor((entry.offset + entry.length - 1) / t.cluster) - first + 1 };
}

/** Releases one reference to all that the entries of an L1 table from `from` on lead to, once they are not used any more. */
export async function releaseTree(t: Tables, l1: DataView, from: number): Promise<void> {
  for (let i = from; i * 8 < l1.byteLength; i++) {
    const offset = offsetOf(l1, i);
    if (offset === 0) continue;
    for (const entry of await entriesAt(t, offset)) t.release(entry);
    t.releaseClusters(offset / t.cluster, 1);
    await t.relieve();
  }
}
