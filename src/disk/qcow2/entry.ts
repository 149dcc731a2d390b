// L1 and L2 table entries: "Qcow2 Image File Format", section "Cluster mapping".

/** What an L2 entry says of a guest cluster. Offsets are bytes in the image; `copied` says that nothing else refers to it. */
export type Entry =
  | { readonly kind: 'unallocated' }
  | { readonly kind: 'data'; readonly offset: number; readonly copied: boolean }
  /** Reads as zeros; `offset` is a cluster that is kept for it, 0 for none. */
  | { readonly kind: 'zero'; readonly offset: number; readonly copied: boolean }
  /** `length` counts whole sectors and may be more than the stream has. */
  | { readonly kind: 'compressed'; readonly offset: number; readonly length: number };

export const UNALLOCATED: Entry = { kind: 'unallocated' };
export const ZERO: Entry = { kind: 'zero', offset: 0, copied: false };

const SECTOR = 512;
const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const HIGH_OFFSET = 0x00ff_ffff;
const LOW_OFFSET = 0xffff_fe00;
const HIGH = 2 ** 32;

/** Offset of an L1 entry, an L2 descriptor or a refcount table entry without its flags; multiples of 512 are exact up to 2^56. */
export const offsetOf = (table: DataView, index: number): number =>
  (table.getUint32(index * 8) & HIGH_OFFSET) * HIGH + ((table.getUint32(index * 8 + 4) & LOW_OFFSET) >>> 0);

/** Bit 63 of an L1 or L2 entry. */
export const isCopied = (table: DataView, index: number): boolean => (table.getUint32(index * 8) & COPIED) !== 0;

/** Writes a standard pointer: an L1 entry, or an L2 entry of kind data. */
export function setPointer(table: DataView, index: number, offset: number, copied: boolean): void {
  table.setUint32(index * 8, (Math.floor(offset / HIGH) | (copied ? COPIED : 0)) >>> 0);
  table.setUint32(index * 8 + 4, offset % HIGH);
}

/** Reads entry `index` of an L2 table. Version 2 has no zero clusters. */
export function readEntry(table: DataView, index: number, clusterBits: number, version: number): Entry {
  const high = table.getUint32(index * 8);
  const low = table.getUint32(index * 8 + 4);
  if (high & COMPRESSED) return compressed(table.getBigUint64(index * 8), clusterBits);
  const offset = (high & HIGH_OFFSET) * HIGH + ((low & LOW_OFFSET) >>> 0);
  const copied = (high & COPIED) !== 0;
  if (low & 1 && version >= 3) return { kind: 'zero', offset, copied };
  return offset === 0 ? UNALLOCATED : { kind: 'data', offset, copied };
}

function compressed(word: bigint, clusterBits: number): Entry {
  const x = BigInt(62 - (clusterBits - 8));
  const offset = Number(word & ((1n << x) - 1n));
  const sectors = Number((word & ((1n << 62n) - 1n)) >> x) + 1;
  return { kind: 'compressed', offset, length: sectors * SECTOR - (offset % SECTOR) };
}

/** Highest offset, exclusive, at which a compressed cluster may begin. */
export const compressedLimit = (clusterBits: number): number => 2 ** Math.min(53, 62 - (clusterBits - 8));

export function writeEntry(table: DataView, index: number, entry: Entry, clusterBits: number): void {
  switch (entry.kind) {
    case 'unallocated':
      return setPointer(table, index, 0, false);
    case 'data':
      return setPointer(table, index, entry.offset, entry.copied);
    case 'zero':
      setPointer(table, index, entry.offset, entry.copied);
      return table.setUint32(index * 8 + 4, (table.getUint32(index * 8 + 4) | 1) >>> 0);
    case 'compressed': {
      const x = BigInt(62 - (clusterBits - 8));
      const sectors = Math.floor((entry.offset + entry.length - 1) / SECTOR) - Math.floor(entry.offset / SECTOR);
      return table.setBigUint64(index * 8, (1n << 62n) | (BigInt(sectors) << x) | BigInt(entry.offset));
    }
    default: {
      const never: never = entry;
      return never;
    }
  }
}
