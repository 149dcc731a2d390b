// What queries tell of nodes and places. QEMU 7.2 "QEMU QMP Reference Manual", qapi/block-core.json.

import { Qcow2Image } from '../../disk/qcow2/image.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import type { Backend, Counts } from './backend.ts';
import type { BlockGraph } from './graph.ts';
import type { BlockNode } from './node.ts';
import { type Limits, limitNames, noLimits } from './throttle.ts';

const driverOf = (node: BlockNode): string => node.options.driver;

async function imageInfo(graph: BlockGraph, node: BlockNode, flat: boolean): Promise<{ readonly [name: string]: Json }> {
  const { format, backing } = node;
  const protocol = node.protocol ?? node.file?.protocol;
  const qcow2 = format instanceof Qcow2Image ? format : undefined;
  const info = qcow2?.info;
  const allocated = await protocol?.allocated();
  return {
    filename: node.filename,
    format: driverOf(node),
    'virtual-size': node.disk.size,
    ...(allocated === undefined ? {} : { 'actual-size': allocated }),
    'dirty-flag': info?.dirty ?? false,
    ...(info
      ? {
          'cluster-size': info.clusterSize,
          'format-specific': {
            type: 'qcow2',
            data: {
              compat: info.compat,
              'compression-type': info.compression,
              'lazy-refcounts': info.lazyRefcounts,
              'refcount-bits': info.refcountBits,
              corrupt: info.corrupt,
              ...(qcow2 && qcow2.bitmaps.length > 0
                ? {
                    bitmaps: qcow2.bitmaps.map((b) => ({
                      name: b.name,
                      granularity: 2 ** b.granularityBits,
                      flags: [...(b.inconsistent ? ['in-use'] : []), ...(b.enabled ? ['auto'] : [])],
                    })),
                  }
                : {}),
              'extended-l2': false,
            },
          },
        }
      : {}),
    ...(info?.backing === undefined
      ? {}
      : { 'backing-filename': info.backing, 'full-backing-filename': backing?.filename ?? info.backing }),
    ...(info?.backingFormat === undefined ? {} : { 'backing-filename-format': info.backingFormat }),
    ...(qcow2 && qcow2.snapshots.length > 0
      ? {
          snapshots: qcow2.snapshots.map((s) => ({
            id: s.id,
            name: s.name,
            'vm-state-size': s.vmStateSize,
            'date-sec': s.seconds,
            'date-nsec': s.nanoseconds,
            'vm-clock-sec': Number(s.guestTime / 1_000_000_000n),
            'vm-clock-nsec': Number(s.guestTime % 1_000_000_000n),
          })),
        }
      : {}),
    ...(!flat && backing ? { 'backing-image': await imageInfo(graph, backing, flat) } : {}),
  };
}

/** Bursts, with their lengths, and the group, of a place that has limits. */
function moreLimits(limits: Limits, backend: Backend | undefined): { readonly [name: string]: Json } {
  if (limitNames.every((name) => limits[name] === 0)) return {};
  const bursts = limitNames.flatMap((name) => {
    const max = limits[`${name}_max`];
    return max === 0 ? [] : [[`${name}_max`, max] as const, [`${name}_max_length`, limits[`${name}_max_length`]] as const];
  });
  return {
    ...Object.fromEntries(bursts),
    ...(limits.iops_size === 0 ? {} : { iops_size: limits.iops_size }),
    group: limits.group || (backend ? qdev(backend) : ''),
  };
}

/** A node with its image, as `query-named-block-nodes` has it. */
export async function nodeInfo(
  graph: BlockGraph,
  node: BlockNode,
  backend: Backend | undefined,
  flat: boolean,
): Promise<{ readonly [name: string]: Json }> {
  const limits = backend?.throttle.limits ?? noLimits;
  const bitmaps = [...node.bitmaps.values()].map((b) => ({
    name: b.name,
    recording: b.enabled && !b.inconsistent,
    busy: b.busy,
    persistent: b.persistent,
    ...(b.inconsistent ? { inconsistent: true } : {}),
    granularity: b.granularity,
    count: b.count,
  }));
  return {
    'node-name': node.name,
    drv: driverOf(node),
    file: node.filename,
    ro: node.readOnly,
    encrypted: false,
    backing_file_depth: graph.chain(node).length - 1,
    ...(node.backing ? { backing_file: node.backing.filename } : {}),
    detect_zeroes: backend?.detectZeroes ?? 'off',
    ...Object.fromEntries(limitNames.map((name) => [name, limits[name]])),
    ...moreLimits(limits, backend),
    image: await imageInfo(graph, node, flat),
    cache: {
      writeback: !(backend?.writeThrough ?? false),
      direct: node.options.cache?.direct ?? false,
      'no-flush': node.options.cache?.['no-flush'] ?? false,
    },
    write_threshold: node.threshold.at,
    ...(bitmaps.length > 0 ? { 'dirty-bitmaps': bitmaps } : {}),
  } as { readonly [name: string]: Json };
}

const stats = (b: Backend | undefined): { readonly [name: string]: Json } => {
  b?.settle?.();
  const none: Counts = { operations: 0, bytes: 0, ns: 0, failed: 0 };
  const { rd, wr, flush, unmap, highest } = b?.stats ?? { rd: none, wr: none, flush: none, unmap: none, highest: 0 };
  return {
    rd_bytes: rd.bytes, wr_bytes: wr.bytes, unmap_bytes: unmap.bytes,
    rd_operations: rd.operations, wr_operations: wr.operations, flush_operations: flush.operations, unmap_operations: unmap.operations,
    rd_total_time_ns: rd.ns, wr_total_time_ns: wr.ns, flush_total_time_ns: flush.ns, unmap_total_time_ns: unmap.ns,
    wr_highest_offset: highest,
    rd_merged: 0, wr_merged: 0, unmap_merged: 0,
    failed_rd_operations: rd.failed, failed_wr_operations: wr.failed, failed_flush_operations: flush.failed, failed_unmap_operations: unmap.failed,
    invalid_rd_operations: 0, invalid_wr_operations: 0, invalid_flush_operations: 0, invalid_unmap_operations: 0,
    account_invalid: b !== undefined, account_failed: b !== undefined, timed_stats: [],
  }; // biome-ignore format: one table
};

/** Counts of a place, or of a node alone, with those of the nodes below. */
export function statsInfo(node: BlockNode | undefined, backend: Backend | undefined): { readonly [name: string]: Json } {
  return {
    ...(backend ? { device: backend.id, ...(backend.user === undefined ? {} : { qdev: qdev(backend) }) } : {}),
    ...(node ? { 'node-name': node.name } : {}),
    stats: stats(backend),
    ...(node?.protocol
      ? {
          'driver-specific': {
            driver: node.options.driver,
            'discard-nb-ok': node.protocol.discards.ok,
            'discard-nb-failed': node.protocol.discards.failed,
            'discard-bytes-ok': node.protocol.discards.bytes,
          },
        }
      : {}),
    ...(node?.file ? { parent: statsInfo(node.file, undefined) } : {}),
    ...(node?.backing ? { backing: statsInfo(node.backing, undefined) } : {}),
  };
}

/** The path under which QEMU shows who has a place: virtio disks are the part behind their PCI function. */
export function qdev(backend: Backend): string {
  const user = backend.user ?? '';
  return backend.virtio ? `${user}/virtio-backend` : user.replace(/^\/machine\/peripheral\//, '');
}
