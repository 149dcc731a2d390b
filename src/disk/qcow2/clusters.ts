// Guest clusters of an open qcow2 image: reading through backing files and compression, allocation, copy on write, zeros.
// "Qcow2 Image File Format", section "Cluster mapping". Nothing here locks: image.ts does.

import { type BlockDevice, DiskError, isZero, joinPieces, piecesLength, piecesRange } from '../block.ts';
import type { Codec } from '../codec.ts';
import { type DirectExtent, partOf } from '../direct.ts';
import { compressedLimit, type Entry, UNALLOCATED, ZERO } from './entry.ts';
import type { Tables } from './tables.ts';

const MAX_RUN_BYTES = 4 << 20;

/** Neighbouring bytes that are stored alike; of data, also one after the other in the file. */
interface Run {
  readonly entry: Entry;
  /** Offset in the file of the first byte, for data. */
  readonly host: number;
  readonly length: number;
}

/** Offsets are the guest's; those from the disk's size on hold VM state. */
export class Clusters {
  readonly #tables: Tables;
  readonly codec: Codec;
  /** What unallocated clusters read as. */
  backing: BlockDevice | undefined;
  #expanded: { readonly offset: number; readonly bytes: Uint8Array } | undefined;

  constructor(tables: Tables, codec: Codec, backing: BlockDevice | undefined) {
    this.#tables = tables;
    this.codec = codec;
    this.backing = backing;
  }

  /** Call when clusters may have changed their places. */
  forget(): void {
    this.#expanded = undefined;
  }

  async run(offset: number, length: number): Promise<Run> {
    const t = this.#tables;
    const first = Math.floor(offset / t.cluster);
    const within = offset - first * t.cluster;
    const most = Math.min(Math.ceil((within + length) / t.cluster), t.perL2 - (first % t.perL2));
    const table = await t.lookup(first);
    const size = (count: number): number => Math.min(length, count * t.cluster - within);
    if (!table) return { entry: UNALLOCATED, host: 0, length: size(most) };
    const entry = t.entryIn(table, first);
    if (entry.kind === 'compressed') return { entry, host: 0, length: size(1) };
    if (entry.kind !== 'unallocated' && (entry.offset % t.cluster !== 0 || entry.offset > Number.MAX_SAFE_INTEGER))
      await t.corrupt(`guest cluster ${first} lies at ${entry.offset}, which is not a cluster's start`);
    let count = 1;
    for (; count < most; count++) {
      const next = t.entryIn(table, first + count);
      if (next.kind !== entry.kind) break;
      if (next.kind === 'unallocated' || entry.kind === 'unallocated') continue;
      if (next.copied !== entry.copied) break;
      if (next.offset !== (entry.offset === 0 ? 0 : entry.offset + count * t.cluster)) break;
    }
    return { entry, host: entry.kind === 'data' ? entry.offset + within : 0, length: size(count) };
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length; ) {
      const { entry, host, length } = await this.run(offset + done, into.length - done);
      const part = into.subarray(done, done + length);
      if (entry.kind === 'data') await this.#tables.file.read(host, part);
      else if (entry.kind === 'zero') part.fill(0);
      else if (entry.kind === 'unallocated') await this.#readBacking(offset + done, part);
      else {
        const within = (offset + done) % this.#tables.cluster;
        part.set((await this.#expand(entry)).subarray(within, within + length));
      }
      done += length;
    }
  }

  /** The same into pieces that are one after another on the disk: data goes from the file straight into them. */
  async readPieces(offset: number, into: readonly Uint8Array[]): Promise<void> {
    const { file } = this.#tables;
    const total = piecesLength(into);
    for (let done = 0; done < total; ) {
      const { entry, host, length } = await this.run(offset + done, total - done);
      const parts = piecesRange(into, done, length);
      if (entry.kind === 'data' && file.readPieces) await file.readPieces(host, parts);
      else if (entry.kind === 'zero') for (const part of parts) part.fill(0);
      else {
        let at = offset + done;
        for (const part of parts) {
          await this.read(at, part);
          at += part.length;
        }
      }
      done += length;
    }
  }

  /** `BlockDevice.direct`: data of this file from the first cluster of the range on, or the backing file's. */
  async direct(offset: number, length: number, gone: () => void): Promise<DirectExtent | undefined> {
    const start = offset - (offset % this.#tables.cluster);
    const run = await this.run(start, offset + length - start);
    if (run.entry.kind === 'data') {
      const fd = this.#tables.file.direct?.(gone);
      return fd === undefined ? undefined : { fd, at: run.host, start, length: run.length };
    }
    if (run.entry.kind !== 'unallocated' || !this.backing?.direct) return undefined;
    const end = Math.min(start + run.length, this.backing.size, this.#tables.header.size);
    if (offset >= end) return undefined;
    const below = await this.backing.direct(offset, end - offset, gone);
    return below && partOf(below, start, end - start);
  }

  /** True when unallocated bytes at `offset` may read as something else than zeros. */
  hasBacking(offset: number): boolean {
    return this.backing !== undefined && offset < Math.min(this.backing.size, this.#tables.header.size);
  }

  async #readBacking(offset: number, into: Uint8Array): Promise<void> {
    const end = this.backing ? Math.min(this.backing.size, this.#tables.header.size) : 0;
    const length = Math.max(0, Math.min(into.length, end - offset));
    if (this.backing && length > 0) await this.backing.read(offset, into.subarray(0, length));
    into.fill(0, length);
  }

  async #expand(entry: Entry & { readonly kind: 'compressed' }): Promise<Uint8Array> {
    const t = this.#tables;
    const known = this.#expanded;
    if (known?.offset === entry.offset) return known.bytes;
    if (entry.offset > Number.MAX_SAFE_INTEGER - entry.length)
      await t.corrupt(`a compressed cluster lies at ${entry.offset}, accepted is less than 2^53`);
    const packed = new Uint8Array(entry.length);
    await t.file.read(entry.offset, packed);
    const bytes = await this.codec.expand(t.header.compression, packed, t.cluster).catch((error: unknown) => {
      const found = error instanceof Error ? error.message : String(error);
      throw new DiskError(`Cannot read ${t.file.name}: its compressed cluster at ${entry.offset} is damaged (${found})`);
    });
    if (bytes.length !== t.cluster)
      throw new DiskError(
        `Cannot read ${t.file.name}: its compressed cluster at ${entry.offset} has ${bytes.length} bytes, accepted are ${t.cluster}`,
      );
    this.#expanded = { offset: entry.offset, bytes };
    return bytes;
  }

  /** Writes where clusters have places of their own already; false, and nothing is done, when one has not. */
  async overwrite(offset: number, from: readonly Uint8Array[]): Promise<boolean> {
    const t = this.#tables;
    const places: { readonly host: number; readonly length: number }[] = [];
    const total = piecesLength(from);
    for (let done = 0; done < total; ) {
      const { entry, host, length } = await this.run(offset + done, total - done);
      if (entry.kind !== 'data' || !entry.copied) return false;
      places.push({ host, length });
      done += length;
    }
    let done = 0;
    for (const { host, length } of places) {
      await t.assertData(host, length);
      const parts = piecesRange(from, done, length);
      if (parts.length === 1) await t.file.write(host, parts[0]!);
      else if (t.file.writePieces) await t.file.writePieces(host, parts);
      else await t.file.write(host, joinPieces(parts));
      done += length;
    }
    return true;
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    const t = this.#tables;
    for (let done = 0; done < from.length; ) {
      await t.relieve();
      const at = offset + done;
      const { entry, host, length } = await this.run(at, Math.min(from.length - done, MAX_RUN_BYTES));
      if (entry.kind === 'data' && entry.copied) {
        await t.assertData(host, length);
        await t.file.write(host, from.subarray(done, done + length));
        done += length;
      } else if (entry.kind === 'zero' && entry.offset !== 0 && entry.copied) {
        const part = from.subarray(done, done + Math.min(length, t.cluster - (at % t.cluster)));
        await this.#fill(at, part, entry.offset / t.cluster, 1);
        done += part.length;
      } else {
        const clusters = Math.ceil(((at % t.cluster) + length) / t.cluster);
        t.file.makeRoom?.(clusters * t.cluster);
        const { first, count } = await t.refcounts.allocateUpTo(clusters);
        const part = from.subarray(done, done + Math.min(length, count * t.cluster - (at % t.cluster)));
        try {
          await this.#fill(at, part, first, count);
        } catch (error) {
          await t.refcounts.add(first, count, -1);
          throw error;
        }
        done += part.length;
      }
    }
  }

  /** Puts `part`, and what is around it in its clusters, to `count` clusters of the file from `first`, and maps them. */
  async #fill(at: number, part: Uint8Array, first: number, count: number): Promise<void> {
    const t = this.#tables;
    const start = at - (at % t.cluster);
    const length = count * t.cluster;
    let whole = part;
    if (part.length !== length) {
      whole = new Uint8Array(length);
      const head = at - start;
      const end = head + part.length;
      if (head > 0) await this.read(start, whole.subarray(0, head));
      if (end < length) await this.read(start + end, whole.subarray(end));
      whole.set(part, head);
    }
    await t.assertData(first * t.cluster, length);
    await t.file.write(first * t.cluster, whole);
    for (let i = 0; i < count; i++) {
      const index = start / t.cluster + i;
      const old = await t.entry(index);
      const offset = (first + i) * t.cluster;
      await t.setEntry(index, { kind: 'data', offset, copied: true });
      if (old.kind === 'unallocated' || old.offset !== offset) t.release(old);
    }
  }

  /** Stores one cluster compressed, or as it is where that is not shorter. `bytes` may be shorter than a cluster at the end. */
  async writeCompressed(offset: number, bytes: Uint8Array): Promise<void> {
    const t = this.#tables;
    await t.relieve();
    let whole = bytes;
    if (bytes.length < t.cluster) {
      whole = new Uint8Array(t.cluster);
      whole.set(bytes);
    }
    const packed = await this.codec.compress(t.header.compression, whole);
    if (packed.length >= t.cluster) return this.write(offset, bytes);
    const place = await this.#allocateBytes(packed.length);
    if (place + packed.length > compressedLimit(t.header.clusterBits))
      throw new DiskError(
        `Cannot compress into ${t.file.name}: compressed clusters lie below ${compressedLimit(t.header.clusterBits)}`,
      );
    await t.assertData(place, packed.length);
    await t.file.write(place, packed);
    const index = offset / t.cluster;
    const old = await t.entry(index);
    await t.setEntry(index, { kind: 'compressed', offset: place, length: packed.length });
    const tail = t.compressedTail;
    t.release(old);
    if (old.kind === 'unallocated') t.compressedTail = tail;
  }

  async #allocateBytes(length: number): Promise<number> {
    const t = this.#tables;
    const { compressedTail: tail, cluster } = t;
    const share = tail % cluster !== 0 && (await t.refcounts.get(Math.floor(tail / cluster))) < t.refcounts.max;
    const rest = cluster - (tail % cluster);
    if (share && rest >= length) {
      await t.refcounts.add(Math.floor(tail / cluster), 1, 1);
      t.compressedTail = tail + length;
      return tail;
    }
    const first = await t.refcounts.allocate(1);
    const straddles = share && first * cluster === tail + rest;
    if (straddles) await t.refcounts.add(Math.floor(tail / cluster), 1, 1);
    const place = straddles ? tail : first * cluster;
    t.compressedTail = place + length;
    return place;
  }

  /** Makes bytes read as zeros. Whole clusters give their storage back. */
  async writeZeroes(offset: number, length: number): Promise<void> {
    const t = this.#tables;
    const size = t.header.size;
    for (let at = offset; at < offset + length; ) {
      await t.relieve();
      const run = await this.run(at, offset + length - at);
      const { entry } = run;
      if (entry.kind === 'zero' || (entry.kind === 'unallocated' && !this.hasBacking(at))) {
        at += run.length;
        continue;
      }
      const end = Math.min(offset + length, at - (at % t.cluster) + t.cluster);
      const whole = at % t.cluster === 0 && (end % t.cluster === 0 || end === size);
      if (whole && (t.header.version >= 3 || !this.hasBacking(at))) {
        await t.setEntry(at / t.cluster, this.hasBacking(at) ? ZERO : UNALLOCATED);
        t.release(entry);
      } else await this.#writeZeroBytes(at, end - at);
      at = end;
    }
  }

  async #writeZeroBytes(at: number, length: number): Promise<void> {
    const now = new Uint8Array(length);
    await this.read(at, now);
    if (!isZero(now)) await this.write(at, now.fill(0));
  }

  /** Gives whole clusters back. They read as zeros afterwards; where that can't be said without the storage, they stay. */
  async discard(offset: number, length: number): Promise<void> {
    const { cluster, header } = this.#tables;
    const start = Math.ceil(offset / cluster) * cluster;
    const end = offset + length === header.size ? offset + length : Math.floor((offset + length) / cluster) * cluster;
    for (let at = start; at < end; ) {
      await this.#tables.relieve();
      const { entry, length: alike } = await this.run(at, end - at);
      const stays = entry.kind === 'unallocated' || (entry.kind === 'zero' && entry.offset === 0);
      if (stays || (header.version < 3 && this.hasBacking(at))) {
        at += alike;
        continue;
      }
      await this.#tables.setEntry(at / cluster, this.hasBacking(at) ? ZERO : UNALLOCATED);
      this.#tables.release(entry);
      at += Math.min(cluster, end - at);
    }
  }

  /** Makes clusters unallocated, for ranges that are no part of the disk (any more, or yet). */
  async drop(offset: number, end: number): Promise<void> {
    const { cluster } = this.#tables;
    for (let at = offset; at < end; ) {
      await this.#tables.relieve();
      const { entry, length } = await this.run(at, end - at);
      if (entry.kind === 'unallocated') {
        at += length;
        continue;
      }
      await this.#tables.setEntry(at / cluster, UNALLOCATED);
      this.#tables.release(entry);
      at += cluster;
    }
  }

  /** Maps zero clusters that have a place of their own; in version 2, data clusters full of zeros. */
  async preallocate(size: number): Promise<void> {
    const t = this.#tables;
    for (let at = 0; at < size; ) {
      await t.relieve();
      const { entry, length } = await this.run(at, Math.min(size - at, MAX_RUN_BYTES));
      const empty = entry.kind === 'unallocated' || (entry.kind === 'zero' && entry.offset === 0);
      if (!empty) {
        at += length;
        continue;
      }
      const { first, count } = await t.refcounts.allocateUpTo(Math.ceil(length / t.cluster));
      await t.assertData(first * t.cluster, count * t.cluster);
      const end = (first + count) * t.cluster;
      // The file must reach as far as its clusters do. What they held before is hidden by the zero flag, where there is one.
      const fileSize = await t.file.size();
      if (t.header.version < 3 && fileSize > first * t.cluster)
        await t.file.write(first * t.cluster, new Uint8Array(count * t.cluster));
      else if (fileSize < end) await t.file.truncate(end);
      for (let i = 0; i < count; i++) {
        const kind = t.header.version >= 3 ? 'zero' : 'data';
        await t.setEntry(at / t.cluster + i, { kind, offset: (first + i) * t.cluster, copied: true });
      }
      at += count * t.cluster;
    }
  }
}
