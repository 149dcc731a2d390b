// Persistent dirty bitmaps of a qcow2 image: "Qcow2 Image File Format", sections "Bitmaps extension" and "Bitmaps". They are read when the
// image is opened; whoever follows the disk's writes keeps them and gives them back when it is closed. Between the first write and that, they
// are marked as in use: after a crash they are known as inconsistent.

import { type ByteFile, DiskError } from '../block.ts';
import { BITMAPS, EXTENSION, type Header } from './header.ts';
import type { Tables } from './tables.ts';

/** Limits of QEMU's. */
const MAX_BITMAPS = 65_535;
const MAX_DIRECTORY = 64 << 20;
const MAX_NAME = 1023;
/** Bytes of an image's bitmaps that are read at most: 2^31 bits. */
const MAX_BYTES = 256 << 20;
const ENTRY = 24;
const flag = { inUse: 1, auto: 2, extraCompatible: 4 } as const;
/** The only type: a bitmap of what was written. */
const DIRTY_TRACKING = 1;
/** A table's entry without a cluster whose bits are all set. */
const ALL_ONES = 1;

/** A bitmap as an image keeps it. */
export interface StoredBitmap {
  readonly name: string;
  /** A bit stands for 2^granularityBits bytes, 9 to 31. */
  readonly granularityBits: number;
  /** It follows writes. */
  readonly enabled: boolean;
  /** It was in use when the image was last left: what it says is not to be relied on. */
  readonly inconsistent: boolean;
  /** One bit after another, the lowest of each byte first. */
  readonly bits: Uint8Array;
}

/** Whoever follows an image's writes: what its bitmaps are now. */
export type BitmapKeeper = () => readonly StoredBitmap[];

/** Bytes of a bitmap of a disk of `size` bytes. */
export const bitmapBytes = (size: number, granularityBits: number): number =>
  Math.ceil(Math.ceil(size / 2 ** granularityBits) / 8);

interface Entry {
  /** Place in the directory. */
  readonly at: number;
  readonly length: number;
  readonly tableOffset: number;
  readonly tableSize: number;
  readonly flags: number;
  readonly granularityBits: number;
  readonly name: string;
}

interface Directory {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly entries: readonly Entry[];
}

const encoder = new TextEncoder();
const align8 = (n: number): number => Math.ceil(n / 8) * 8;

/** The directory of an image whose bitmaps are up to date; undefined where it has none. Rejects where it is damaged. */
async function readDirectory(file: ByteFile, header: Header): Promise<Directory | undefined> {
  const data = header.extensions.find((e) => e.type === EXTENSION.bitmaps)?.data;
  if (!data || (header.autoclear & BITMAPS) === 0n) return undefined;
  const bad = (what: string): never => {
    throw new DiskError(`Cannot read the bitmaps of ${file.name}: ${what}`);
  };
  if (data.length < 24) return bad(`their extension has ${data.length} bytes, accepted are 24`);
  const d = new DataView(data.buffer, data.byteOffset, data.length);
  const [count, size, offset] = [d.getUint32(0), Number(d.getBigUint64(8)), Number(d.getBigUint64(16))];
  if (count > MAX_BITMAPS || size > MAX_DIRECTORY || size > (await file.size()))
    return bad(`the directory has ${count} bitmaps in ${size} bytes`);
  if (offset % 2 ** header.clusterBits !== 0 || offset === 0) return bad(`the directory lies at ${offset}`);
  const bytes = new Uint8Array(size);
  await file.read(offset, bytes);
  const view = new DataView(bytes.buffer);
  const entries: Entry[] = [];
  for (let at = 0; entries.length < count; ) {
    if (at + ENTRY > size) return bad(`bitmap ${entries.length} leaves the directory`);
    const [nameSize, extra] = [view.getUint16(at + 18), view.getUint32(at + 20)];
    const length = align8(ENTRY + extra + nameSize);
    if (at + length > size || nameSize === 0 || nameSize > MAX_NAME) return bad(`bitmap ${entries.length} leaves the directory`);
    const granularityBits = bytes[at + 17]!;
    if (bytes[at + 16] !== DIRTY_TRACKING || granularityBits < 9 || granularityBits > 31)
      return bad(`bitmap ${entries.length} has type ${bytes[at + 16]} and granularity 2^${granularityBits}`);
    const nameAt = at + ENTRY + extra;
    entries.push({
      at,
      length,
      tableOffset: Number(view.getBigUint64(at)),
      tableSize: view.getUint32(at + 8),
      flags: view.getUint32(at + 12),
      granularityBits,
      name: new TextDecoder().decode(bytes.subarray(nameAt, nameAt + nameSize)),
    });
    at += length;
  }
  return { offset, bytes, entries };
}

/** Clusters, from and so many, of a directory and all that it leads to. */
type Range = readonly [first: number, count: number];

export class Bitmaps {
  readonly #tables: Tables;
  #directory: Directory | undefined;
  #loaded: readonly StoredBitmap[];
  #ranges: readonly Range[];
  keeper: BitmapKeeper | undefined;

  private constructor(
    tables: Tables,
    directory: Directory | undefined,
    loaded: readonly StoredBitmap[],
    ranges: readonly Range[],
  ) {
    this.#tables = tables;
    this.#directory = directory;
    this.#loaded = loaded;
    this.#ranges = ranges;
    this.#map();
  }

  static async load(tables: Tables): Promise<Bitmaps> {
    const { file, header, cluster } = tables;
    const directory = await readDirectory(file, header);
    const ranges: Range[] = [];
    const loaded: StoredBitmap[] = [];
    if (directory) ranges.push([directory.offset / cluster, Math.ceil(directory.bytes.length / cluster)]);
    const fileSize = await file.size();
    let total = 0;
    for (const e of directory?.entries ?? []) {
      const length = bitmapBytes(header.size, e.granularityBits);
      const clusters = Math.max(1, Math.ceil(length / cluster));
      total += length;
      // A bitmap in use may be of before a change of the disk's size.
      const usable = (e.flags & flag.inUse) === 0;
      if (
        e.tableOffset % cluster !== 0 ||
        e.tableOffset + e.tableSize * 8 > fileSize ||
        total > MAX_BYTES ||
        (usable && e.tableSize !== clusters)
      )
        throw new DiskError(
          `Cannot read bitmap '${e.name}' of ${file.name}: its table has ${e.tableSize} entries at ${e.tableOffset}`,
        );
      const table = new DataView(new ArrayBuffer(e.tableSize * 8));
      await file.read(e.tableOffset, new Uint8Array(table.buffer));
      if (e.tableSize > 0) ranges.push([e.tableOffset / cluster, Math.ceil((e.tableSize * 8) / cluster)]);
      const bits = new Uint8Array(clusters * cluster);
      for (let i = 0; i < e.tableSize; i++) {
        const entry = table.getBigUint64(i * 8);
        const place = Number(entry & 0x00ff_ffff_ffff_fe00n);
        if (place === 0) {
          if (usable && entry & BigInt(ALL_ONES)) bits.fill(0xff, i * cluster, (i + 1) * cluster);
          continue;
        }
        if (place % cluster !== 0 || place >= fileSize)
          throw new DiskError(`Cannot read bitmap '${e.name}' of ${file.name}: its data lies at ${place}`);
        ranges.push([place / cluster, 1]);
        if (usable) await file.read(place, bits.subarray(i * cluster, (i + 1) * cluster));
      }
      loaded.push({
        name: e.name,
        granularityBits: e.granularityBits,
        enabled: (e.flags & flag.auto) !== 0,
        inconsistent: !usable,
        bits: bits.subarray(0, length),
      });
    }
    return new Bitmaps(tables, directory, loaded, ranges);
  }

  /** As they were when the image was opened, or last stored. */
  get list(): readonly StoredBitmap[] {
    return this.#loaded;
  }

  /** Before the first write: says that they are in use, or, where nobody keeps them, that they are stale. */
  async begin(): Promise<void> {
    const t = this.#tables;
    const { file, header } = t;
    if (header.autoclear === 0n) return;
    if (!this.keeper || !this.#directory) {
      await t.writeFeatures(header.incompatible, 0n);
      this.#map();
      return;
    }
    const { bytes, entries, offset } = this.#directory;
    const view = new DataView(bytes.buffer);
    for (const e of entries) view.setUint32(e.at + 12, e.flags | flag.inUse);
    await file.write(offset, bytes);
    if (header.autoclear !== BITMAPS) await t.writeFeatures(header.incompatible, BITMAPS);
    await file.flush();
  }

  /** Writes what the keeper has, when the image is closed. `written`: something was changed since it was opened. */
  async finish(written: boolean): Promise<void> {
    const list = this.keeper?.();
    if (!list || (!written && same(list, this.#loaded)) || (list.length === 0 && !this.#directory)) return;
    const t = this.#tables;
    const { file, header } = t;
    if (header.version < 3) throw new DiskError(`Cannot store bitmaps in ${file.name}: it is of version 2, accepted is 3`);
    const old = this.#ranges;
    const ranges: Range[] = [];
    const parts: Uint8Array[] = [];
    for (const b of list) parts.push(await this.#store(b, ranges));
    const directory = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
    let at = 0;
    for (const p of parts) {
      directory.set(p, at);
      at += p.length;
    }
    const offset = directory.length === 0 ? 0 : await this.#write(directory, ranges);
    await t.refcounts.write();
    await file.flush();
    header.extensions = header.extensions.filter((e) => e.type !== EXTENSION.bitmaps);
    if (list.length > 0) {
      const data = new DataView(new ArrayBuffer(24));
      data.setUint32(0, list.length);
      data.setBigUint64(8, BigInt(directory.length));
      data.setBigUint64(16, BigInt(offset));
      header.extensions.push({ type: EXTENSION.bitmaps, data: new Uint8Array(data.buffer) });
    }
    header.autoclear = list.length > 0 ? BITMAPS : 0n;
    await t.writeHeader();
    for (const [first, count] of old) t.releaseClusters(first, count);
    await t.settle();
    this.#loaded = list;
    this.#ranges = ranges;
    this.#directory = await readDirectory(file, header);
    this.#map();
  }

  /** Writes a bitmap's data and table; its entry of the directory. */
  async #store(b: StoredBitmap, ranges: Range[]): Promise<Uint8Array> {
    const { cluster, header } = this.#tables;
    const length = bitmapBytes(header.size, b.granularityBits);
    const clusters = Math.max(1, Math.ceil(length / cluster));
    const table = new DataView(new ArrayBuffer(clusters * 8));
    // One that cannot be relied on stays so, with nothing in it.
    for (let i = 0; i < clusters && !b.inconsistent; i++) {
      const piece = b.bits.subarray(i * cluster, Math.min((i + 1) * cluster, length));
      if (piece.every((byte) => byte === 0)) continue;
      if (piece.length === cluster && piece.every((byte) => byte === 0xff)) table.setBigUint64(i * 8, BigInt(ALL_ONES));
      else table.setBigUint64(i * 8, BigInt(await this.#write(piece, ranges)));
    }
    const tableOffset = await this.#write(new Uint8Array(table.buffer), ranges);
    const name = encoder.encode(b.name);
    const entry = new Uint8Array(align8(ENTRY + name.length));
    const view = new DataView(entry.buffer);
    view.setBigUint64(0, BigInt(tableOffset));
    view.setUint32(8, clusters);
    view.setUint32(12, (b.enabled ? flag.auto : 0) | (b.inconsistent ? flag.inUse : 0));
    entry[16] = DIRTY_TRACKING;
    entry[17] = b.granularityBits;
    view.setUint16(18, name.length);
    entry.set(name, ENTRY);
    return entry;
  }

  /** Writes bytes to clusters of their own; their offset. */
  async #write(bytes: Uint8Array, ranges: Range[]): Promise<number> {
    const t = this.#tables;
    const count = Math.ceil(bytes.length / t.cluster);
    const first = await t.refcounts.allocate(count);
    const padded = new Uint8Array(count * t.cluster);
    padded.set(bytes);
    await t.file.write(first * t.cluster, padded);
    ranges.push([first, count]);
    return first * t.cluster;
  }

  #map(): void {
    const { map, header } = this.#tables;
    const joined: [number, number][] = [];
    for (const [first, count] of this.#ranges.toSorted((a, b) => a[0] - b[0])) {
      const last = joined.at(-1);
      if (last && last[0] + last[1] === first) last[1] += count;
      else joined.push([first, count]);
    }
    map.setRanges('bitmap', (header.autoclear & BITMAPS) !== 0n ? joined : []);
  }
}

const same = (a: readonly StoredBitmap[], b: readonly StoredBitmap[]): boolean =>
  a.length === b.length &&
  a.every((x, i) => {
    const y = b[i]!;
    return (
      x.name === y.name &&
      x.granularityBits === y.granularityBits &&
      x.enabled === y.enabled &&
      x.inconsistent === y.inconsistent &&
      x.bits.length === y.bits.length &&
      x.bits.every((byte, n) => byte === y.bits[n])
    );
  });
