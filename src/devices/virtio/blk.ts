// Block device: what a request is, and its configuration space. Virtual I/O Device (VIRTIO) 1.2, section 5.2; defaults are QEMU 7.2's.
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Chain } from './chain.ts';
import type { VirtioModel } from './core.ts';

export const BlkFeature = {
  segMax: 1n << 2n,
  geometry: 1n << 4n,
  readOnly: 1n << 5n,
  blockSize: 1n << 6n,
  flush: 1n << 9n,
  topology: 1n << 10n,
  configWce: 1n << 11n,
  multiqueue: 1n << 12n,
  discard: 1n << 13n,
  writeZeroes: 1n << 14n,
} as const;

export const blkLayout = struct(
  {
    /** Of 512 bytes; what the I/O side found. */
    sectors: 'f64',
    readOnly: 'u8',
    /** The driver may find its writes in a cache: it flushes. */
    writeBack: 'u8',
  },
  { name: 'virtio-blk', version: 1 },
);
export type BlkState = ViewOf<typeof blkLayout>;

export interface BlkOptions {
  readonly queues: number;
  readonly queueSize: number;
  readonly blockSize: number;
  readonly physicalBlockSize: number;
  readonly minIo: number;
  readonly optIo: number;
  readonly discard: boolean;
  readonly writeZeroes: boolean;
  readonly configWce: boolean;
  readonly writeCache: boolean;
  readonly maxDiscardSectors: number;
  readonly maxWriteZeroesSectors: number;
}

const SECTOR = 512;
const CONFIG_BYTES = 60;
const WCE = 32;

export function blkModel(s: BlkState, o: BlkOptions, direct: Pick<VirtioModel, 'atOnce' | 'servesAtOnce'> = {}): VirtioModel {
  const bytes = new DataView(new ArrayBuffer(CONFIG_BYTES));
  const config = (): DataView => {
    const cylinders = Math.min(16383, Math.max(2, Math.floor(s.sectors / (16 * 63))));
    const physical = Math.max(o.blockSize, o.physicalBlockSize);
    bytes.setBigUint64(0, BigInt(s.sectors), true);
    bytes.setUint32(12, o.queueSize - 2, true);
    bytes.setUint16(16, cylinders, true);
    bytes.setUint8(18, 16);
    bytes.setUint8(19, 63);
    bytes.setUint32(20, o.blockSize, true);
    bytes.setUint8(24, Math.log2(physical / o.blockSize));
    bytes.setUint16(26, o.minIo / o.blockSize, true);
    bytes.setUint32(28, o.optIo / o.blockSize, true);
    bytes.setUint8(WCE, s.writeBack);
    bytes.setUint16(34, o.queues, true);
    bytes.setUint32(36, o.maxDiscardSectors, true);
    bytes.setUint32(40, 1, true);
    bytes.setUint32(44, o.blockSize / SECTOR, true);
    bytes.setUint32(48, o.maxWriteZeroesSectors, true);
    bytes.setUint32(52, 1, true);
    bytes.setUint8(56, 1);
    return bytes;
  };
  return {
    ...direct,
    id: 2,
    queues: new Array<number>(o.queues).fill(o.queueSize),
    get features() {
      return (
        BlkFeature.segMax |
        BlkFeature.geometry |
        BlkFeature.topology |
        BlkFeature.blockSize |
        BlkFeature.flush |
        (o.configWce ? BlkFeature.configWce : 0n) |
        (s.readOnly ? BlkFeature.readOnly : 0n) |
        (o.queues > 1 ? BlkFeature.multiqueue : 0n) |
        (o.discard ? BlkFeature.discard : 0n) |
        (o.writeZeroes ? BlkFeature.writeZeroes : 0n)
      );
    },
    config: {
      length: CONFIG_BYTES,
      read: (offset) => config().getUint8(offset),
      write: (offset, byte) => {
        if (offset === WCE && o.configWce) s.writeBack = byte & 1;
      },
    },
    statusChanged: (status) => {
      if (status === 0) s.writeBack = o.writeCache ? 1 : 0;
    },
  };
}

export const BlkStatus = { ok: 0, error: 1, unsupported: 2 } as const;

/** A request as the driver wrote it; offsets and lengths are bytes. */
export type BlkRequest =
  | { readonly kind: 'read'; readonly offset: number; readonly length: number }
  | { readonly kind: 'write'; readonly offset: number; readonly length: number }
  | { readonly kind: 'flush' }
  | { readonly kind: 'id' }
  | { readonly kind: 'discard' | 'writeZeroes'; readonly offset: number; readonly length: number; readonly unmap: boolean }
  | { readonly kind: 'bad'; readonly status: 1 | 2 };

/** Bytes of the header that every request begins with. */
export const BLK_HEADER = 16;

/** Reads a request. Undefined for one that has no room for its status: the driver is broken. */
export function blkRequest(chain: Chain, s: BlkState, o: BlkOptions): BlkRequest | undefined {
  if (chain.in.length < 1 || chain.out.length < BLK_HEADER) return undefined;
  const size = s.sectors * SECTOR;
  const head = new DataView(chain.out.bytes(0, BLK_HEADER).buffer);
  const sector = head.getUint32(12, true) * 2 ** 32 + head.getUint32(8, true);
  const within = (offset: number, length: number): boolean =>
    Number.isSafeInteger(offset) && offset % o.blockSize === 0 && length % o.blockSize === 0 && offset + length <= size;
  const bad = { kind: 'bad', status: BlkStatus.error } as const;
  switch (head.getUint32(0, true)) {
    case 0: {
      const length = chain.in.length - 1;
      return within(sector * SECTOR, length) ? { kind: 'read', offset: sector * SECTOR, length } : bad;
    }
    case 1: {
      const length = chain.out.length - BLK_HEADER;
      return !s.readOnly && within(sector * SECTOR, length) ? { kind: 'write', offset: sector * SECTOR, length } : bad;
    }
    case 4:
      return { kind: 'flush' };
    case 8:
      return { kind: 'id' };
    case 11:
    case 13: {
      const zeroes = head.getUint32(0, true) === 13;
      // One range, as `max_discard_seg` says.
      if (s.readOnly || chain.out.length !== BLK_HEADER + 16) return bad;
      if (!(zeroes ? o.writeZeroes : o.discard)) return { kind: 'bad', status: BlkStatus.unsupported };
      const range = new DataView(chain.out.bytes(BLK_HEADER, 16).buffer);
      const [offset, length] = [Number(range.getBigUint64(0, true)) * SECTOR, range.getUint32(8, true) * SECTOR];
      const flags = range.getUint32(12, true);
      if (flags & (zeroes ? ~1 : ~0)) return { kind: 'bad', status: BlkStatus.unsupported };
      if (!within(offset, length) || length / SECTOR > (zeroes ? o.maxWriteZeroesSectors : o.maxDiscardSectors)) return bad;
      return { kind: zeroes ? 'writeZeroes' : 'discard', offset, length, unmap: (flags & 1) !== 0 };
    }
    default:
      return { kind: 'bad', status: BlkStatus.unsupported };
  }
}
