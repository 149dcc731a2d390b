// Counts the references to each host cluster of a qcow2 image from all its metadata: "Qcow2 Image File Format", sections
// "Host cluster management", "Cluster mapping", "Snapshots" and "Bitmaps". What is damaged is reported, never followed.

import { type ByteFile, DiskError } from '../block.ts';
import { type Entry, isCopied, offsetOf, readEntry } from './entry.ts';
import { BITMAPS, EXTENSION, type Header } from './header.ts';
import { readSnapshots } from './snapshot-table.ts';

/** Clusters that are counted at most: 1 GiB of memory. */
const MAX_CLUSTERS = 2 ** 29;
const MAX_BITMAPS = 65_535;
const MAX_DIRECTORY = 64 << 20;

/** A number for each host cluster: references, or the image's own counts. */
export class ReferenceCounts {
  readonly clusters: number;
  readonly #small: Uint16Array;
  readonly #large = new Map<number, number>();

  constructor(clusters: number) {
    this.clusters = clusters;
    this.#small = new Uint16Array(clusters);
  }

  get(cluster: number): number {
    const count = this.#small[cluster] ?? 0;
    return count === 0xffff ? (this.#large.get(cluster) ?? count) : count;
  }

  add(cluster: number): void {
    this.set(cluster, this.get(cluster) + 1);
  }

  set(cluster: number, count: number): void {
    this.#small[cluster] = Math.min(count, 0xffff);
    if (count > 0xfffe) this.#large.set(cluster, count);
  }

  /** One above the highest cluster with a reference. */
  get end(): number {
    let c = this.clusters;
    while (c > 0 && this.#small[c - 1] === 0) c--;
    return c;
  }
}

/** An L2 table that the active L1 table leads to, for its flags. */
export interface ActiveTable {
  readonly l1Index: number;
  readonly offset: number;
}

export interface References {
  readonly counts: ReferenceCounts;
  readonly active: readonly ActiveTable[];
  /** Of the active disk. */
  readonly allocated: number;
  readonly fragmented: number;
  readonly compressed: number;
  /** Refcount blocks by index that can be used; the others were reported. */
  readonly blocks: ReadonlyMap<number, number>;
  /** What is wrong with the refcount structures themselves. */
  readonly structure: number;
}

/** Counts everything. `report` takes one line for each error that is not one of counts. */
export async function countReferences(file: ByteFile, header: Header, report: (line: string) => void): Promise<References> {
  const cluster = 2 ** header.clusterBits;
  const fileSize = await file.size();
  const clusters = Math.ceil(fileSize / cluster) + 1;
  if (clusters > MAX_CLUSTERS)
    throw new DiskError(`Cannot check ${file.name}: it has ${clusters} clusters, accepted are at most ${MAX_CLUSTERS}`);
  const counts = new ReferenceCounts(clusters);
  const stats = { allocated: 0, fragmented: 0, compressed: 0, structure: 0 };

  /** Counts the clusters of a range; false when it leaves the file by a cluster or more. */
  const refer = (what: string, offset: number, length: number): boolean => {
    if (length === 0) return true;
    if (!(offset + length < fileSize + cluster)) {
      report(`${what} at ${offset} lies beyond the end of the file`);
      return false;
    }
    const last = Math.floor((offset + length - 1) / cluster);
    for (let c = Math.floor(offset / cluster); c <= last; c++) counts.add(c);
    return true;
  };
  const aligned = (what: string, offset: number): boolean => {
    if (offset % cluster === 0) return true;
    report(`${what} lies at ${offset}, which is not a cluster's start`);
    return false;
  };
  const load = async (offset: number, length: number): Promise<DataView> => {
    const bytes = new Uint8Array(length);
    await file.read(offset, bytes);
    return new DataView(bytes.buffer);
  };

  let contiguous = 0;
  const entryOf = (entry: Entry, index: number, isActive: boolean): void => {
    if (entry.kind === 'unallocated') return;
    if (entry.kind === 'compressed') {
      if (isActive) {
        stats.allocated++;
        stats.compressed++;
        stats.fragmented++;
      }
      refer(`compressed guest cluster ${index}`, entry.offset, entry.length);
      return;
    }
    if (entry.offset === 0 || !aligned(`guest cluster ${index}`, entry.offset)) return;
    if (isActive) {
      stats.allocated++;
      if (contiguous !== 0 && entry.offset !== contiguous) stats.fragmented++;
      contiguous = entry.offset + cluster;
    }
    refer(`guest cluster ${index}`, entry.offset, cluster);
  };

  const active: ActiveTable[] = [];
  const walk = async (what: string, offset: number, size: number, isActive: boolean): Promise<void> => {
    if (size === 0 || !refer(`${what} L1 table`, offset, size * 8)) return;
    const l1 = await load(offset, size * 8);
    const seen = new Set<number>();
    for (let i = 0; i < size; i++) {
      const l2 = offsetOf(l1, i);
      if (l2 === 0 || !aligned(`${what} L2 table ${i}`, l2) || !refer(`${what} L2 table ${i}`, l2, cluster)) continue;
      if (seen.has(l2)) {
        report(`${what} L2 table ${i} is the same as another one`);
        continue;
      }
      seen.add(l2);
      if (isActive) active.push({ l1Index: i, offset: l2 });
      const table = await load(l2, cluster);
      contiguous = 0;
      for (let j = 0; j < cluster / 8; j++)
        entryOf(readEntry(table, j, header.clusterBits, header.version), i * (cluster / 8) + j, isActive);
    }
  };

  refer('the header', 0, Math.min(cluster, fileSize));
  await walk('active', header.l1Offset, header.l1Size, true);
  const { snapshots, bytes } = await readSnapshots(file, header);
  if (bytes > 0) refer('the snapshot table', header.snapshotsOffset, bytes);
  for (const s of snapshots) await walk(`snapshot ${s.id}`, s.l1Offset, s.l1Size, false);
  await countBitmaps(file, header, load, refer, aligned, report);

  // The refcount structures come last: what they overlap with is their fault.
  const blocks = new Map<number, number>();
  const tableBytes = header.reftableClusters * cluster;
  if (!refer('the refcount table', header.reftableOffset, tableBytes)) stats.structure++;
  const table = await load(header.reftableOffset, tableBytes);
  for (let k = 0; k < tableBytes / 8; k++) {
    const offset = offsetOf(table, k);
    if (offset === 0) continue;
    const usable = aligned(`refcount block ${k}`, offset) && refer(`refcount block ${k}`, offset, cluster);
    if (usable) blocks.set(k, offset);
    if (!usable || counts.get(offset / cluster) !== 1) stats.structure++;
  }
  for (let c = 0; c < header.reftableClusters; c++) if (counts.get(header.reftableOffset / cluster + c) > 1) stats.structure++;
  return { counts, active, blocks, ...stats };
}

/** References of persistent bitmaps, unless a program that does not know them has written to the image. */
async function countBitmaps(
  file: ByteFile,
  header: Header,
  load: (offset: number, length: number) => Promise<DataView>,
  refer: (what: string, offset: number, length: number) => boolean,
  aligned: (what: string, offset: number) => boolean,
  report: (line: string) => void,
): Promise<void> {
  const data = header.extensions.find((e) => e.type === EXTENSION.bitmaps)?.data;
  if (!data || (header.autoclear & BITMAPS) === 0n) return;
  if (data.length < 24) return report(`the bitmaps extension has ${data.length} bytes, accepted are 24`);
  const d = new DataView(data.buffer, data.byteOffset, data.length);
  const [count, size, offset] = [d.getUint32(0), Number(d.getBigUint64(8)), Number(d.getBigUint64(16))];
  if (count > MAX_BITMAPS || size > MAX_DIRECTORY) return report(`the bitmap directory has ${count} bitmaps in ${size} bytes`);
  if (!aligned('the bitmap directory', offset) || !refer('the bitmap directory', offset, size)) return;
  const directory = await load(offset, size);
  const fileSize = await file.size();
  for (let i = 0, at = 0; i < count; i++) {
    if (at + 24 > size) return report(`bitmap ${i} leaves its directory`);
    const tableOffset = Number(directory.getBigUint64(at));
    const entries = directory.getUint32(at + 8);
    at = Math.ceil((at + 24 + directory.getUint32(at + 20) + directory.getUint16(at + 18)) / 8) * 8;
    if (
      entries * 8 > fileSize ||
      !aligned(`bitmap table ${i}`, tableOffset) ||
      !refer(`bitmap table ${i}`, tableOffset, entries * 8)
    )
      continue;
    const table = await load(tableOffset, entries * 8);
    for (let j = 0; j < entries; j++) {
      const place = offsetOf(table, j);
      if (place !== 0 && aligned(`bitmap data ${i}`, place)) refer(`bitmap data ${i}`, place, 2 ** header.clusterBits);
    }
  }
}

/** Entries of the active tables whose COPIED flag is not what the counts say. */
export async function wrongFlags(
  file: ByteFile,
  header: Header,
  references: References,
  count: (cluster: number) => number,
): Promise<{ l1: { index: number; copied: boolean }[]; l2: { offset: number; index: number; copied: boolean }[] }> {
  const cluster = 2 ** header.clusterBits;
  const l1Bytes = new Uint8Array(header.l1Size * 8);
  await file.read(header.l1Offset, l1Bytes);
  const l1View = new DataView(l1Bytes.buffer);
  const l1: { index: number; copied: boolean }[] = [];
  const l2: { offset: number; index: number; copied: boolean }[] = [];
  for (const { l1Index, offset } of references.active) {
    const own = count(offset / cluster) === 1;
    if (isCopied(l1View, l1Index) !== own) l1.push({ index: l1Index, copied: own });
    const bytes = new Uint8Array(cluster);
    await file.read(offset, bytes);
    const view = new DataView(bytes.buffer);
    for (let j = 0; j < cluster / 8; j++) {
      const entry = readEntry(view, j, header.clusterBits, header.version);
      if ((entry.kind !== 'data' && entry.kind !== 'zero') || entry.offset === 0 || entry.offset % cluster !== 0) continue;
      const copied = count(entry.offset / cluster) === 1;
      if (entry.copied !== copied) l2.push({ offset, index: j, copied });
    }
  }
  return { l1, l2 };
}
