// Copying and comparing disks: what `convert`, `compare`, `commit` and `rebase` do between two of them.

import { type BlockDevice, isZero } from './block.ts';
import type { Qcow2Image } from './qcow2/image.ts';

const CHUNK = 2 << 20;

/** Called with the bytes that are done and those that there are. */
export type Progress = (done: number, total: number) => void;

export interface CopyOptions {
  /** Runs of zeros of at least this many bytes are not stored; 0 stores all. */
  readonly sparse: number;
  /** The target, a fresh disk, reads as zeros. */
  readonly targetIsZero: boolean;
  readonly progress?: Progress;
}

/** Copies all of `source` to the start of `target`, which is at least as large. */
export async function copyDisk(source: BlockDevice, target: BlockDevice, options: CopyOptions): Promise<void> {
  const buffer = new Uint8Array(CHUNK);
  for (let at = 0; at < source.size; ) {
    const extent = await source.extent(at, source.size - at);
    if (extent.kind === 'zero' && options.sparse > 0) {
      if (!options.targetIsZero) await target.writeZeroes(at, extent.length);
      at += extent.length;
    } else {
      const bytes = buffer.subarray(0, Math.min(CHUNK, extent.length));
      await source.read(at, bytes);
      await writeSparse(target, at, bytes, options);
      at += bytes.length;
    }
    options.progress?.(at, source.size);
  }
}

async function writeSparse(target: BlockDevice, at: number, bytes: Uint8Array, options: CopyOptions): Promise<void> {
  if (options.sparse === 0) return target.write(at, bytes);
  for (const run of runs(bytes, options.sparse)) {
    const part = bytes.subarray(run.start, run.end);
    if (!run.zero) await target.write(at + run.start, part);
    else if (!options.targetIsZero) await target.writeZeroes(at + run.start, part.length);
  }
}

/** Blocks of `unit` bytes, put together where neighbours are alike in being all zeros. */
function runs(bytes: Uint8Array, unit: number): { start: number; end: number; zero: boolean }[] {
  const found: { start: number; end: number; zero: boolean }[] = [];
  for (let start = 0; start < bytes.length; start += unit) {
    const end = Math.min(start + unit, bytes.length);
    const zero = isZero(bytes.subarray(start, end));
    const last = found.at(-1);
    if (last && last.zero === zero) last.end = end;
    else found.push({ start, end, zero });
  }
  return found;
}

/** Copies all of `source` to a fresh image, in compressed clusters. */
export async function copyCompressed(source: BlockDevice, target: Qcow2Image, progress?: Progress): Promise<void> {
  const buffer = new Uint8Array(target.info.clusterSize);
  for (let at = 0; at < source.size; ) {
    const extent = await source.extent(at, source.size - at);
    const rest = buffer.length - (at % buffer.length);
    if (extent.kind === 'zero' && (extent.length >= rest || at + extent.length === source.size) && at % buffer.length === 0) {
      const end = at + extent.length;
      at = end === source.size ? end : end - (end % buffer.length);
    } else {
      const bytes = buffer.subarray(0, Math.min(buffer.length, source.size - at));
      await source.read(at, bytes);
      if (!isZero(bytes)) await store(target, at, bytes);
      at += bytes.length;
    }
    progress?.(at, source.size);
  }
}

/** The target's last cluster may go on behind the source's end. */
async function store(target: Qcow2Image, at: number, bytes: Uint8Array): Promise<void> {
  const whole = Math.min(target.info.clusterSize, target.size - at);
  if (bytes.length === whole) return target.writeCompressed(at, bytes);
  const padded = new Uint8Array(whole);
  padded.set(bytes);
  return target.writeCompressed(at, padded);
}

/** Offset of the first byte that differs, of those that both have and of what only one has that is not zero. */
export async function firstDifference(a: BlockDevice, b: BlockDevice, progress?: Progress): Promise<number | undefined> {
  const common = Math.min(a.size, b.size);
  const total = Math.max(a.size, b.size);
  const left = new Uint8Array(CHUNK);
  const right = new Uint8Array(CHUNK);
  for (let at = 0; at < common; ) {
    const [x, y] = [await a.extent(at, common - at), await b.extent(at, common - at)];
    const alike = Math.min(x.length, y.length);
    if (x.kind === 'zero' && y.kind === 'zero') {
      at += alike;
      continue;
    }
    const length = Math.min(CHUNK, alike);
    await Promise.all([a.read(at, left.subarray(0, length)), b.read(at, right.subarray(0, length))]);
    for (let i = 0; i < length; i++) if (left[i] !== right[i]) return at + i;
    at += length;
    progress?.(at, total);
  }
  const longer = a.size > b.size ? a : b;
  for (let at = common; at < total; ) {
    const extent = await longer.extent(at, total - at);
    const bytes = left.subarray(0, Math.min(CHUNK, extent.length));
    if (extent.kind === 'zero') {
      at += extent.length;
      continue;
    }
    await longer.read(at, bytes);
    const i = bytes.findIndex((v) => v !== 0);
    if (i >= 0) return at + i;
    at += bytes.length;
    progress?.(at, total);
  }
  return undefined;
}

/** Writes all that `top` holds itself to `base`, which must be as large. */
export async function commitTo(top: BlockDevice, base: BlockDevice, progress?: Progress): Promise<void> {
  const buffer = new Uint8Array(CHUNK);
  for (let at = 0; at < top.size; ) {
    const extent = await top.extent(at, top.size - at);
    if (extent.kind === 'data') {
      const bytes = buffer.subarray(0, Math.min(CHUNK, extent.length));
      await top.read(at, bytes);
      await base.write(at, bytes);
      at += bytes.length;
    } else {
      if (extent.kind === 'zero') await base.writeZeroes(at, extent.length);
      at += extent.length;
    }
    progress?.(at, top.size);
  }
  await base.flush();
}

/** Stores in `top` whatever would read otherwise with `next` below it instead of `old`. Disks that are missing read as zeros. */
export async function keepContents(
  top: BlockDevice,
  old: BlockDevice | undefined,
  next: BlockDevice | undefined,
  progress?: Progress,
): Promise<void> {
  const before = new Uint8Array(CHUNK);
  const after = new Uint8Array(CHUNK);
  for (let at = 0; at < top.size; ) {
    const extent = await top.extent(at, top.size - at);
    const own = extent.kind === 'data' || (extent.kind === 'zero' && at < (old?.size ?? 0));
    const length = own ? extent.length : Math.min(CHUNK, extent.length);
    if (!own) {
      const [was, will] = [before.subarray(0, length), after.subarray(0, length)];
      await readOr(old, at, was);
      await readOr(next, at, will);
      const unit = 65_536;
      for (let i = 0; i < length; i += unit) {
        const part = was.subarray(i, Math.min(i + unit, length));
        if (!part.every((v, j) => v === will[i + j])) await top.write(at + i, part);
      }
    }
    at += length;
    progress?.(at, top.size);
  }
}

/** Writes to `target`, which reads as `base`, what `source` has otherwise. */
export async function copyDifferences(
  source: BlockDevice,
  base: BlockDevice,
  target: BlockDevice,
  progress?: Progress,
): Promise<void> {
  const [wanted, present] = [new Uint8Array(CHUNK), new Uint8Array(CHUNK)];
  for (let at = 0; at < source.size; at += CHUNK) {
    const length = Math.min(CHUNK, source.size - at);
    await source.read(at, wanted.subarray(0, length));
    await readOr(base, at, present.subarray(0, length));
    for (let i = 0; i < length; i += 4096) {
      const part = wanted.subarray(i, Math.min(i + 4096, length));
      if (!part.every((v, j) => v === present[i + j])) await target.write(at + i, part);
    }
    progress?.(at + length, source.size);
  }
}

async function readOr(disk: BlockDevice | undefined, at: number, into: Uint8Array): Promise<void> {
  const length = Math.max(0, Math.min(into.length, (disk?.size ?? 0) - at));
  if (disk && length > 0) await disk.read(at, into.subarray(0, length));
  into.fill(0, length);
}
