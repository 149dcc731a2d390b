// The header of a qcow2 image and its extensions: QEMU "Qcow2 Image File Format" (docs/interop/qcow2), sections "Header",
// "Additional fields", "Header extensions" and "Feature name table".

import { DiskError } from '../block.ts';

export const MAGIC = 0x5146_49fb;
/** Bits of `incompatible`. */
export const DIRTY = 1n << 0n;
export const CORRUPT = 1n << 1n;
export const COMPRESSION = 1n << 3n;
/** Bit of `compatible`. */
export const LAZY_REFCOUNTS = 1n << 0n;
/** Bit of `autoclear`. */
export const BITMAPS = 1n << 0n;

export const EXTENSION = { backingFormat: 0xe279_2aca, features: 0x6803_f857, bitmaps: 0x2385_2875, end: 0 } as const;

/** QEMU's limits, which are also what this reader allocates at most. */
export const MAX_L1_BYTES = 32 << 20;
export const MAX_REFTABLE_BYTES = 8 << 20;
export const MAX_SNAPSHOTS = 65_536;
const MAX_BACKING_NAME = 1023;

/** Offsets of the fields that change while an image is open. All lie in its first 512 bytes, which one write changes at once. */
export const FIELD = { size: 24, l1: 36, reftable: 48, snapshots: 60, incompatible: 72, autoclear: 88 } as const;

export interface HeaderExtension {
  readonly type: number;
  readonly data: Uint8Array;
}

export interface Header {
  version: 2 | 3;
  clusterBits: number;
  /** Virtual size in bytes. */
  size: number;
  /** Entries of the active L1 table. */
  l1Size: number;
  l1Offset: number;
  reftableOffset: number;
  reftableClusters: number;
  snapshotCount: number;
  snapshotsOffset: number;
  incompatible: bigint;
  compatible: bigint;
  autoclear: bigint;
  refcountOrder: number;
  compression: 'zlib' | 'zstd';
  backing?: string;
  backingFormat?: string;
  /** All but the backing format and the feature names, which are written anew. */
  extensions: HeaderExtension[];
  /** Additional fields after `compression_type`, kept as they are. */
  additional: Uint8Array;
}

const NAMES: readonly (readonly [kind: number, bit: number, name: string])[] = [
  [0, 0, 'dirty bit'],
  [0, 1, 'corrupt bit'],
  [0, 2, 'external data file'],
  [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'],
  [1, 0, 'lazy refcounts'],
  [2, 0, 'bitmaps'],
  [2, 1, 'raw external data'],
];

const refuse = (name: string, found: string): never => {
  throw new DiskError(`Cannot open ${name}: ${found}`);
};

/** True for the bytes at the start of a qcow2 image. */
export const isQcow2 = (bytes: Uint8Array): boolean =>
  bytes.length >= 8 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) === MAGIC;

/** Cluster size in bits, read before the rest so that the caller can read the first cluster. Rejects what is not 9 to 21. */
export function clusterBitsOf(name: string, bytes: Uint8Array): number {
  if (bytes.length < 72 || !isQcow2(bytes)) refuse(name, 'it does not begin with a qcow2 header');
  const bits = new DataView(bytes.buffer, bytes.byteOffset).getUint32(20);
  if (bits < 9 || bits > 21) refuse(name, `its clusters have 2^${bits} bytes, accepted are 2^9 to 2^21`);
  return bits;
}

/**
 * Reads a header.
 * @param name what errors call the image
 * @param bytes its first cluster
 * @throws DiskError for what the format forbids and for what is not supported
 */
export function parseHeader(name: string, bytes: Uint8Array): Header {
  const clusterBits = clusterBitsOf(name, bytes);
  const cluster = 2 ** clusterBits;
  const d = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const version = d.getUint32(4);
  if (version !== 2 && version !== 3) return refuse(name, `its qcow2 version is ${version}, accepted are 2 and 3`);
  const length = version === 2 ? 72 : d.getUint32(100);
  if (length < (version === 2 ? 72 : 104) || length > Math.min(cluster, bytes.length) || length % 8 !== 0)
    refuse(name, `its header has ${length} bytes, accepted are multiples of 8 from 104 to a cluster`);
  const encryption = d.getUint32(32);
  if (encryption !== 0) refuse(name, `it is encrypted (method ${encryption}), which is not supported`);

  const incompatible = version === 2 ? 0n : d.getBigUint64(72);
  const { extensions, end } = parseExtensions(name, bytes, length);
  const unknown = incompatible & ~(DIRTY | CORRUPT | COMPRESSION);
  if (unknown !== 0n) refuse(name, `it uses features that are not supported: ${featureNames(unknown, extensions).join(', ')}`);
  const compressionType = length > 104 ? bytes[104]! : 0;
  if (((incompatible & COMPRESSION) !== 0n) !== (compressionType !== 0) || compressionType > 1)
    refuse(name, `its compression type is ${compressionType}, accepted are 0 (zlib) and, with its feature bit, 1 (zstd)`);

  const header: Header = {
    version,
    clusterBits,
    size: offsetAt(name, 'virtual size', d, 24),
    l1Size: d.getUint32(36),
    l1Offset: offsetAt(name, 'L1 table', d, 40, cluster),
    reftableOffset: offsetAt(name, 'refcount table', d, 48, cluster),
    reftableClusters: d.getUint32(56),
    snapshotCount: d.getUint32(60),
    snapshotsOffset: offsetAt(name, 'snapshot table', d, 64),
    incompatible,
    compatible: version === 2 ? 0n : d.getBigUint64(80),
    autoclear: version === 2 ? 0n : d.getBigUint64(88),
    refcountOrder: version === 2 ? 4 : d.getUint32(96),
    compression: compressionType === 1 ? 'zstd' : 'zlib',
    extensions: extensions.filter((e) => e.type !== EXTENSION.backingFormat && e.type !== EXTENSION.features),
    additional: bytes.slice(Math.min(length, 112), length),
  };
  checkLimits(name, header);
  const backing = parseBacking(name, d, cluster, end);
  if (backing !== undefined) {
    header.backing = backing;
    const format = extensions.find((e) => e.type === EXTENSION.backingFormat);
    if (format) header.backingFormat = new TextDecoder().decode(format.data);
  }
  return header;
}

function checkLimits(name: string, h: Header): void {
  const cluster = 2 ** h.clusterBits;
  if (h.refcountOrder > 6) refuse(name, `its refcounts have 2^${h.refcountOrder} bits, accepted are at most 64`);
  if (h.l1Size * 8 > MAX_L1_BYTES) refuse(name, `its L1 table has ${h.l1Size} entries, accepted are at most ${MAX_L1_BYTES / 8}`);
  if (h.l1Size > 0 && h.l1Offset === 0) refuse(name, 'its L1 table lies at 0, where the header is');
  const needed = l1EntriesFor(h.size, h.clusterBits);
  if (h.l1Size < needed) refuse(name, `its L1 table has ${h.l1Size} entries, its virtual size of ${h.size} needs ${needed}`);
  if (h.reftableClusters === 0 || h.reftableOffset === 0) refuse(name, 'it has no refcount table');
  if (h.reftableClusters * cluster > MAX_REFTABLE_BYTES)
    refuse(name, `its refcount table has ${h.reftableClusters} clusters, accepted are at most ${MAX_REFTABLE_BYTES / cluster}`);
  if (h.snapshotCount > MAX_SNAPSHOTS) refuse(name, `it has ${h.snapshotCount} snapshots, accepted are at most ${MAX_SNAPSHOTS}`);
  if (h.snapshotCount > 0 && (h.snapshotsOffset === 0 || h.snapshotsOffset % cluster !== 0))
    refuse(name, `its snapshot table lies at ${h.snapshotsOffset}, accepted are multiples of the cluster size ${cluster}`);
}

/** L1 entries that a disk of `size` bytes needs. */
export const l1EntriesFor = (size: number, clusterBits: number): number => Math.ceil(size / 2 ** (2 * clusterBits - 3));

function offsetAt(name: string, what: string, d: DataView, at: number, aligned = 1): number {
  const value = d.getBigUint64(at);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) refuse(name, `its ${what} is ${value}, accepted is less than 2^53`);
  if (value % BigInt(aligned) !== 0n) refuse(name, `its ${what} lies at ${value}, accepted are multiples of ${aligned}`);
  return Number(value);
}

function parseExtensions(name: string, bytes: Uint8Array, from: number): { extensions: HeaderExtension[]; end: number } {
  const d = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const backing = d.getBigUint64(8);
  const limit = backing === 0n ? bytes.length : Number(backing < bytes.length ? backing : BigInt(bytes.length));
  const extensions: HeaderExtension[] = [];
  let at = from;
  while (at + 8 <= limit) {
    const type = d.getUint32(at);
    if (type === EXTENSION.end) break;
    const length = d.getUint32(at + 4);
    if (length > limit - at - 8)
      refuse(name, `its header extension ${type.toString(16)} at ${at} has ${length} bytes and leaves its area`);
    extensions.push({ type, data: bytes.slice(at + 8, at + 8 + length) });
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return { extensions, end: at };
}

function parseBacking(name: string, d: DataView, cluster: number, end: number): string | undefined {
  const offset = d.getBigUint64(8);
  if (offset === 0n) return undefined;
  const length = d.getUint32(16);
  if (length > MAX_BACKING_NAME || offset < BigInt(Math.min(end, cluster)) || offset + BigInt(length) > BigInt(cluster))
    refuse(
      name,
      `its backing file's name of ${length} bytes lies at ${offset}, accepted are 1023 bytes within the first cluster`,
    );
  if (length === 0) return undefined;
  return new TextDecoder().decode(new Uint8Array(d.buffer, d.byteOffset + Number(offset), length));
}

function featureNames(bits: bigint, extensions: readonly HeaderExtension[]): string[] {
  const names: string[] = [];
  const table = extensions.find((e) => e.type === EXTENSION.features)?.data ?? new Uint8Array(0);
  for (let bit = 0; bit < 64; bit++) {
    if (((bits >> BigInt(bit)) & 1n) === 0n) continue;
    let found = NAMES.find(([kind, b]) => kind === 0 && b === bit)?.[2];
    for (let at = 0; !found && at + 48 <= table.length; at += 48) {
      if (table[at] !== 0 || table[at + 1] !== bit) continue;
      const text = table.subarray(at + 2, at + 48);
      const zero = text.indexOf(0);
      found = new TextDecoder().decode(text.subarray(0, zero < 0 ? 46 : zero)).replace(/[^\x20-\x7e]/g, '?');
    }
    names.push(found ? `${found} (bit ${bit})` : `bit ${bit}`);
  }
  return names;
}

/**
 * The first cluster that holds a header.
 * @throws DiskError when extensions and the backing file's name do not fit
 */
export function encodeHeader(h: Header): Uint8Array {
  const out = new Uint8Array(2 ** h.clusterBits);
  const d = new DataView(out.buffer);
  const length = h.version === 2 ? 72 : 112 + h.additional.length;
  d.setUint32(0, MAGIC);
  d.setUint32(4, h.version);
  d.setUint32(20, h.clusterBits);
  d.setBigUint64(24, BigInt(h.size));
  d.setUint32(36, h.l1Size);
  d.setBigUint64(40, BigInt(h.l1Offset));
  d.setBigUint64(48, BigInt(h.reftableOffset));
  d.setUint32(56, h.reftableClusters);
  d.setUint32(60, h.snapshotCount);
  d.setBigUint64(64, BigInt(h.snapshotsOffset));
  if (h.version === 3) {
    d.setBigUint64(72, h.incompatible);
    d.setBigUint64(80, h.compatible);
    d.setBigUint64(88, h.autoclear);
    d.setUint32(96, h.refcountOrder);
    d.setUint32(100, length);
    out[104] = h.compression === 'zstd' ? 1 : 0;
    out.set(h.additional, 112);
  }
  const name = new TextEncoder().encode(h.backing ?? '');
  if (name.length > MAX_BACKING_NAME)
    throw new DiskError(`Cannot store a backing file's name of ${name.length} bytes: accepted are at most ${MAX_BACKING_NAME}`);
  const extensions = [...h.extensions];
  if (h.backing && h.backingFormat)
    extensions.unshift({ type: EXTENSION.backingFormat, data: new TextEncoder().encode(h.backingFormat) });
  let at = length;
  const put = ({ type, data }: HeaderExtension): void => {
    d.setUint32(at, type);
    d.setUint32(at + 4, data.length);
    out.set(data, at + 8);
    at += 8 + Math.ceil(data.length / 8) * 8;
  };
  const needed = extensions.reduce((sum, e) => sum + 8 + Math.ceil(e.data.length / 8) * 8, length + 8 + name.length);
  if (needed > out.length)
    throw new DiskError(`Cannot store a header of ${needed} bytes: accepted is at most a cluster, which has ${out.length}`);
  for (const extension of extensions) put(extension);
  const features = featureTable();
  // Names are a help for readers that lack a feature: left out where a small cluster has no room for them.
  if (h.version === 3 && needed + 8 + features.length <= out.length) put({ type: EXTENSION.features, data: features });
  at += 8;
  if (name.length > 0) {
    d.setBigUint64(8, BigInt(at));
    d.setUint32(16, name.length);
    out.set(name, at);
  }
  return out;
}

function featureTable(): Uint8Array {
  const table = new Uint8Array(NAMES.length * 48);
  NAMES.forEach(([kind, bit, name], i) => {
    table.set([kind, bit, ...new TextEncoder().encode(name)], i * 48);
  });
  return table;
}
