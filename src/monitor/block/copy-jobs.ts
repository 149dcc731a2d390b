// The work of block jobs over the graph: mirror, active and intermediate commit, stream, backup. QEMU 7.2, "Live Block Device
// Operations".

import { QmpError } from '../../rpc/qmp/error.ts';
import { Bitmap } from './bitmap.ts';
import type { BlockGraph } from './graph.ts';
import type { Job } from './jobs.ts';
import type { BlockNode } from './node.ts';

const CHUNK = 1 << 20;
export const GRANULARITY = 65536;

type Sync = 'full' | 'top' | 'none' | 'incremental' | 'bitmap';

/** Whether a range is stored in one of these nodes, top first: the longest prefix that is alike. */
async function stored(nodes: readonly BlockNode[], offset: number, length: number): Promise<{ own: boolean; length: number }> {
  let alike = length;
  for (const node of nodes) {
    const room = node.disk.size - offset;
    if (room <= 0) return { own: true, length: alike };
    const extent = await node.disk.extent(offset, Math.min(alike, room));
    alike = Math.min(alike, extent.length);
    if (extent.kind !== 'backing') return { own: true, length: alike };
  }
  return { own: false, length: alike };
}

/** Marks in a bitmap what the nodes hold themselves; everything when there are none. */
async function markStored(bitmap: Bitmap, size: number, nodes: readonly BlockNode[] | undefined, job: Job): Promise<void> {
  if (!nodes) return bitmap.mark(0, size);
  for (let at = 0; at < size; ) {
    const { own, length } = await stored(nodes, at, Math.min(size - at, 64 * CHUNK));
    if (own) bitmap.mark(at, length);
    at += length;
    if (at % (256 * CHUNK) === 0) await job.point();
  }
}

/** Makes a part of `target` as it is in `source`. */
async function copy(source: BlockNode, target: BlockNode, offset: number, length: number, buffer: Uint8Array): Promise<void> {
  const end = Math.min(offset + length, source.disk.size, target.disk.size);
  for (let at = offset; at < end; ) {
    const extent = await source.disk.extent(at, end - at);
    const n = Math.min(extent.length, end - at, buffer.length);
    if (extent.kind === 'zero') await target.disk.writeZeroes(at, n);
    else {
      const bytes = buffer.subarray(0, n);
      await source.disk.below.read(at, bytes);
      await target.disk.write(at, bytes);
    }
    at += n;
  }
}

export interface MirrorOptions {
  readonly graph: BlockGraph;
  readonly source: BlockNode;
  readonly target: BlockNode;
  /** What is copied first: everything, or what these nodes hold; nothing for an empty list. */
  readonly nodes: readonly BlockNode[] | undefined;
  readonly granularity?: number | undefined;
  /** In place of the source, this node is replaced. */
  readonly replaces?: BlockNode | undefined;
}

/** Copies and follows until it is told to complete, then puts the target where the source is. */
export const mirror = (o: MirrorOptions) => async (job: Job) => {
  const { graph, source, target } = o;
  const { size } = source.disk;
  const bitmap = new Bitmap({ name: '', size, granularity: o.granularity ?? GRANULARITY, persistent: false, enabled: true });
  const buffer = new Uint8Array(CHUNK);
  const hear = (offset: number, length: number): void => {
    bitmap.mark(offset, length);
    job.nudge();
  };
  source.disk.after.add(hear);
  const drain = async (): Promise<void> => {
    for (let part = bitmap.take(); part; part = bitmap.take(part.offset)) {
      await copy(source, target, part.offset, part.length, buffer);
      job.offset += part.length;
    }
  };
  try {
    await markStored(bitmap, size, o.nodes, job);
    job.length = bitmap.count;
    for (;;) {
      for (let part = bitmap.take(); part; part = bitmap.take(part.offset)) {
        await copy(source, target, part.offset, part.length, buffer);
        job.offset += part.length;
        job.length = Math.max(job.length, job.offset + bitmap.count);
        await job.point(part.length);
        // A guest that writes faster than is copied would never be caught up with: it waits a moment.
        if (job.offset > 2 * size && !job.isReady) {
          await source.disk.drained(async () => {
            await drain();
          });
          break;
        }
        // The rest is copied while the guest waits.
        if (job.completing) break;
      }
      job.length = job.offset;
      await target.disk.flush();
      job.ready();
      await job.point();
      if (job.completing) break;
      if (bitmap.count === 0) await job.changed();
    }
    return async () => {
      await source.disk.drained(async () => {
        await drain();
        await target.disk.flush();
        source.disk.after.delete(hear);
        if (job.detached) return;
        graph.replace(o.replaces ?? source, target);
        return target.disk;
      });
    };
  } catch (error) {
    source.disk.after.delete(hear);
    throw error;
  }
};

/** Writes what lies between a node that is read-only and its base into the base, and takes it out of the chain. */
export const commitBelow =
  (o: {
    readonly graph: BlockGraph;
    readonly overlay: BlockNode;
    readonly top: BlockNode;
    readonly base: BlockNode;
    readonly backingFile?: string | undefined;
  }) =>
  async (job: Job) => {
    const { graph, overlay, top, base } = o;
    const chain = graph.chain(top);
    const nodes = chain.slice(0, chain.indexOf(base));
    await graph.access(base, true);
    const { size } = top.disk;
    job.length = size;
    const buffer = new Uint8Array(CHUNK);
    for (let at = 0; at < size; ) {
      const { own, length } = await stored(nodes, at, Math.min(CHUNK, size - at));
      if (own) await copy(top, base, at, length, buffer);
      at += length;
      job.offset = at;
      await job.point(own ? length : 0);
    }
    await base.disk.flush();
    return async () => {
      await overlay.disk.drained(async () => {
        overlay.backing = base;
      });
      await graph.rename(overlay, o.backingFile ?? base.filename, base.options.driver);
      await graph.access(base, false);
    };
  };

/** Fills a node with what it has from nodes below it, down to `base`, which comes to lie right below. */
export const stream =
  (o: {
    readonly graph: BlockGraph;
    readonly node: BlockNode;
    readonly base: BlockNode | undefined;
    readonly backingFile?: string | undefined;
  }) =>
  async (job: Job) => {
    const { graph, node, base } = o;
    const chain = graph.chain(node).slice(1);
    const nodes = base ? chain.slice(0, chain.indexOf(base)) : chain;
    const { size } = node.disk;
    job.length = size;
    const buffer = new Uint8Array(CHUNK);
    for (let at = 0; at < size; ) {
      const here = await node.disk.extent(at, Math.min(CHUNK, size - at));
      let length = here.length;
      if (here.kind === 'backing' && nodes.length > 0) {
        const below = await stored(nodes, at, length);
        length = below.length;
        // The guest must not write between reading and storing.
        if (below.own)
          await node.disk.drained(async () => {
            const now = await node.disk.extent(at, length);
            if (now.kind !== 'backing') return;
            const bytes = buffer.subarray(0, Math.min(length, now.length));
            length = bytes.length;
            await node.disk.below.read(at, bytes);
            await node.disk.below.write(at, bytes);
          });
      }
      at += length;
      job.offset = at;
      await job.point(length);
    }
    await node.disk.flush();
    return async () => {
      await node.disk.drained(async () => {
        node.backing = base;
      });
      await graph.rename(node, base && (o.backingFile ?? base.filename), base?.options.driver);
    };
  };

/** Copies a node as it is now: what the guest writes meanwhile is copied away first. */
export function backup(o: {
  readonly graph: BlockGraph;
  readonly source: BlockNode;
  readonly target: BlockNode;
  readonly sync: Sync;
  readonly bitmap?: Bitmap | undefined;
  readonly bitmapMode?: 'on-success' | 'never' | 'always' | undefined;
}) {
  const { source, target } = o;
  const { size } = source.disk;
  if (target.disk.size < size) throw new QmpError(`Target '${target.name}' is smaller than the source`);
  // The point in time is now: bitmaps and followers begin here, before the job does.
  const todo = new Bitmap({ name: '', size, granularity: GRANULARITY, persistent: false, enabled: true });
  const used = o.bitmap?.copy();
  if (o.bitmap && o.bitmapMode !== 'never') o.bitmap.clear();
  let everything = false;
  if (used) todo.merge(used);
  else {
    everything = o.sync !== 'none';
    todo.mark(0, size);
  }
  const buffer = new Uint8Array(GRANULARITY);
  let last: Promise<void> = Promise.resolve();
  const part = (offset: number): Promise<void> => {
    const at = offset - (offset % GRANULARITY);
    return (last = last.then(async () => {
      if (!todo.has(at)) return;
      await copy(source, target, at, Math.min(GRANULARITY, size - at), buffer);
      todo.unmark(at);
    }));
  };
  const before = async (offset: number, length: number): Promise<void> => {
    for (let at = offset - (offset % GRANULARITY); at < offset + length; at += GRANULARITY) if (todo.has(at)) await part(at);
  };
  source.disk.before.add(before);
  const run = async (job: Job) => {
    job.length = size;
    if (!everything && !used) {
      // Only what changes is kept, until the job is ended.
      for (;;) {
        await job.changed();
        await job.point();
      }
    }
    const nodes = o.sync === 'top' ? [source] : undefined;
    for (let at = 0; at < size; at += GRANULARITY) {
      const length = Math.min(GRANULARITY, size - at);
      if (todo.has(at)) {
        if (nodes && !(await stored(nodes, at, length)).own) todo.unmark(at);
        else await part(at);
      }
      job.offset = at + length;
      await job.point(length);
    }
    await target.disk.flush();
  };
  const clean = (error: boolean): void => {
    source.disk.before.delete(before);
    if (error && o.bitmap && used && o.bitmapMode !== 'always') o.bitmap.merge(used);
  };
  return { run, clean };
}
