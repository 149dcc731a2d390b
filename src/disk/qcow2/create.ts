// Makes an empty qcow2 image: "Qcow2 Image File Format", sections "Header" and "Host cluster management".

import { type ByteFile, DiskError } from '../block.ts';
import {
  COMPRESSION,
  encodeHeader,
  type Header,
  LAZY_REFCOUNTS,
  l1EntriesFor,
  MAX_L1_BYTES,
  MAX_REFTABLE_BYTES,
} from './header.ts';
import { writeCount } from './refcounts.ts';

export interface CreateOptions {
  /** Of the disk in bytes. */
  readonly size: number;
  /** Bytes, a power of two from 512 to 2 MiB; 64 KiB when not given. */
  readonly clusterSize?: number;
  /** 3 when not given. */
  readonly version?: 2 | 3;
  /** A power of two from 1 to 64; 16 when not given, which is what version 2 has. */
  readonly refcountBits?: number;
  readonly lazyRefcounts?: boolean;
  readonly compression?: 'zlib' | 'zstd';
  /** As it stands in the header: relative names are relative to the image. */
  readonly backing?: string;
  readonly backingFormat?: string;
}

const bitsOf = (what: string, value: number, low: number, high: number): number => {
  const log = Math.log2(value);
  if (Number.isInteger(log) && log >= low && log <= high) return log;
  throw new DiskError(`Cannot create image: ${what} is ${value}, accepted are powers of two from ${2 ** low} to ${2 ** high}`);
};

/**
 * Makes the file an empty image; what it held is lost.
 * @throws DiskError for options that the format or the version has not
 */
export async function createQcow2(file: ByteFile, options: CreateOptions): Promise<void> {
  const version = options.version ?? 3;
  const clusterBits = bitsOf('cluster_size', options.clusterSize ?? 65_536, 9, 21);
  const refcountOrder = bitsOf('refcount_bits', options.refcountBits ?? 16, 0, 6);
  const zstd = options.compression === 'zstd';
  if (version === 2 && (refcountOrder !== 4 || options.lazyRefcounts || zstd))
    throw new DiskError('Cannot create image: refcount_bits other than 16, lazy_refcounts and zstd need compat=1.1');
  if (!Number.isSafeInteger(options.size) || options.size < 0)
    throw new DiskError(`Cannot create image: its size is ${options.size}, accepted are 0 to 2^53 bytes`);
  const cluster = 2 ** clusterBits;
  const l1Size = Math.max(1, l1EntriesFor(options.size, clusterBits));
  if (l1Size * 8 > MAX_L1_BYTES)
    throw new DiskError(
      `Cannot create image: ${options.size} bytes are too many for clusters of ${cluster}, accepted are at most ${(MAX_L1_BYTES / 8) * (cluster / 8) * cluster}`,
    );

  const perBlock = (cluster * 8) >>> refcountOrder;
  const l1Clusters = Math.ceil((l1Size * 8) / cluster);
  let blocks = 1;
  let tableClusters = 1;
  for (let total = 0; total !== 1 + tableClusters + blocks + l1Clusters; ) {
    total = 1 + tableClusters + blocks + l1Clusters;
    blocks = Math.ceil(total / perBlock);
    tableClusters = Math.ceil((blocks * 8) / cluster);
  }
  if (tableClusters * cluster > MAX_REFTABLE_BYTES)
    throw new DiskError(`Cannot create image: its refcount table would have more than ${MAX_REFTABLE_BYTES} bytes`);
  const header: Header = {
    version,
    clusterBits,
    size: options.size,
    l1Size,
    l1Offset: (1 + tableClusters + blocks) * cluster,
    reftableOffset: cluster,
    reftableClusters: tableClusters,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible: zstd ? COMPRESSION : 0n,
    compatible: options.lazyRefcounts ? LAZY_REFCOUNTS : 0n,
    autoclear: 0n,
    refcountOrder,
    compression: zstd ? 'zstd' : 'zlib',
    extensions: [],
    additional: new Uint8Array(0),
    ...(options.backing === undefined ? {} : { backing: options.backing }),
    ...(options.backingFormat === undefined ? {} : { backingFormat: options.backingFormat }),
  };
  const first = encodeHeader(header);
  await file.truncate(0);
  const total = 1 + tableClusters + blocks + l1Clusters;
  const table = new DataView(new ArrayBuffer(tableClusters * cluster));
  for (let k = 0; k < blocks; k++) {
    const offset = (1 + tableClusters + k) * cluster;
    table.setBigUint64(k * 8, BigInt(offset));
    const block = new DataView(new ArrayBuffer(cluster));
    for (let i = 0; i < perBlock && k * perBlock + i < total; i++) writeCount(block, i, refcountOrder, 1);
    await file.write(offset, new Uint8Array(block.buffer));
  }
  await file.write(cluster, new Uint8Array(table.buffer));
  await file.write(header.l1Offset, new Uint8Array(l1Clusters * cluster));
  await file.flush();
  await file.write(0, first);
  await file.flush();
}
