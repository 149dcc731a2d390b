// An ATA disk or ATAPI drive behind whatever carries its task file: what a command comes to. IDE channels and AHCI ports carry it out.
// ATA8-ACS (T10/1699-D), chapter 7; ATA/ATAPI-6 (T13/1410D) for what is older.

import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Medium } from '../scsi/plan.ts';
import { ScsiTarget } from '../scsi/target.ts';
import { geometryOf, identifyDisk, identifyPacket, MULTIPLE_MAX } from './identify.ts';

export const ataLayout = struct(
  {
    /** Sectors of a block of READ MULTIPLE; 0 while it is off. */
    multiple: 'u8',
    writeCache: 'u8',
    /** Words 62, 63 and 88 of the identification. */
    modes: ['u16', 3],
    smart: 'u8',
  },
  { name: 'ata', version: 1 },
);

export const ataStatus = { busy: 0x80, ready: 0x40, fault: 0x20, seek: 0x10, request: 8, error: 1 } as const;
export const ataError = { aborted: 4, notFound: 0x10, uncorrectable: 0x40 } as const;
export const SECTOR = 512;

export interface AtaOptions {
  readonly arena: Arena;
  /** Unique in the machine; names the state in snapshots. */
  readonly name: string;
  readonly kind: 'disk' | 'cdrom';
  readonly model: string;
  readonly serial: string;
  /** Up to 8 characters. */
  readonly version: string;
  readonly wwn?: bigint;
  /** DATA SET MANAGEMENT is there. */
  readonly discard?: boolean;
  /** The native command queue is there (AHCI). */
  readonly ncq: boolean;
  readonly medium: () => Medium | undefined;
  /** The guest moved the tray. */
  readonly tray?: (open: boolean) => void;
}

/** A command's registers. */
export interface TaskFile {
  readonly command: number;
  readonly feature: number;
  /** As many bits as the carrier has: 16 with the previous contents, for 48-bit commands. */
  readonly count: number;
  /** 48 bits; the low 24 are those of the current contents. */
  readonly lba: number;
  readonly device: number;
}

export interface AtaTransfer {
  readonly kind: 'read' | 'write';
  readonly offset: number;
  readonly length: number;
  readonly dma: boolean;
  /** Bytes of a block of PIO. */
  readonly block: number;
  readonly force: boolean;
}

/** What a command comes to. Offsets and lengths are bytes of the medium. */
export type AtaPlan =
  /** Over; registers that it leaves. */
  | { readonly kind: 'done'; readonly count?: number; readonly lba?: number }
  | { readonly kind: 'fail'; readonly error: number }
  /** `data` is read by PIO, one block of 512 bytes. */
  | { readonly kind: 'in'; readonly data: Uint8Array }
  | AtaTransfer
  | { readonly kind: 'flush' }
  /** Lists of ranges come by DMA. */
  | { readonly kind: 'trim'; readonly length: number }
  /** A packet of 12 bytes comes. */
  | { readonly kind: 'packet'; readonly dma: boolean }
  /** Registers take the signature of the device. */
  | { readonly kind: 'signature'; readonly diagnostic: boolean };

const abort: AtaPlan = { kind: 'fail', error: ataError.aborted };
const done: AtaPlan = { kind: 'done' };

/** How a read or write is addressed and carried. */
interface Transfer {
  readonly kind: 'read' | 'write';
  readonly wide: boolean;
  readonly how: 'pio' | 'multiple' | 'dma';
  readonly force?: boolean;
}

const transfers: ReadonlyMap<number, Transfer> = new Map([
  [0x20, { kind: 'read', wide: false, how: 'pio' }],
  [0x21, { kind: 'read', wide: false, how: 'pio' }],
  [0x24, { kind: 'read', wide: true, how: 'pio' }],
  [0x25, { kind: 'read', wide: true, how: 'dma' }],
  [0x29, { kind: 'read', wide: true, how: 'multiple' }],
  [0xc4, { kind: 'read', wide: false, how: 'multiple' }],
  [0xc8, { kind: 'read', wide: false, how: 'dma' }],
  [0xc9, { kind: 'read', wide: false, how: 'dma' }],
  [0x30, { kind: 'write', wide: false, how: 'pio' }],
  [0x31, { kind: 'write', wide: false, how: 'pio' }],
  [0x34, { kind: 'write', wide: true, how: 'pio' }],
  [0x35, { kind: 'write', wide: true, how: 'dma' }],
  [0x39, { kind: 'write', wide: true, how: 'multiple' }],
  [0x3c, { kind: 'write', wide: false, how: 'pio' }],
  [0x3d, { kind: 'write', wide: true, how: 'dma', force: true }],
  [0xc5, { kind: 'write', wide: false, how: 'multiple' }],
  [0xca, { kind: 'write', wide: false, how: 'dma' }],
  [0xcb, { kind: 'write', wide: false, how: 'dma' }],
  [0xce, { kind: 'write', wide: true, how: 'multiple', force: true }],
]);

const countOf = (t: TaskFile, wide: boolean): number => (wide ? t.count || 0x1_0000 : t.count & 0xff || 0x100);
/** The blocks of a task file whose address is linear; undefined where it is a cylinder, head and sector. */
function linear(t: TaskFile, wide: boolean): { readonly lba: number; readonly count: number } | undefined {
  const count = countOf(t, wide);
  if (wide) return { lba: t.lba, count };
  return t.device & 0x40 ? { lba: (t.lba % 0x100_0000) + (t.device & 15) * 0x100_0000, count } : undefined;
}

/** Commands that succeed and do nothing: power management, seeks, idle. */
const accepted = new Set([
  ...[0x70, 0x91, 0x94, 0x95, 0x96, 0x97, 0x99, 0xe0, 0xe1, 0xe2, 0xe3, 0xe6],
  ...Array.from({ length: 16 }, (_, i) => 0x10 + i),
]);
/** Those of them that ATAPI drives have. */
const acceptedPacket = new Set([0xe0, 0xe1, 0xe2, 0xe3, 0xe6, 0x94, 0x95, 0x96, 0x97, 0x99]);

export class AtaDevice {
  readonly o: AtaOptions;
  readonly s: ViewOf<typeof ataLayout>;
  /** The drive that packets are for; undefined for disks. */
  readonly packet: ScsiTarget | undefined;

  constructor(o: AtaOptions) {
    this.o = o;
    this.s = o.arena.alloc(ataLayout, o.name);
    this.packet =
      o.kind === 'cdrom'
        ? new ScsiTarget({
            arena: o.arena,
            name: `${o.name}.target`,
            kind: 'cdrom',
            vendor: 'QEMU',
            product: o.model,
            version: o.version,
            serial: o.serial,
            blockSize: 2048,
            atapi: true,
            medium: o.medium,
            ...(o.tray === undefined ? {} : { tray: o.tray }),
          })
        : undefined;
  }

  reset(): void {
    const { s } = this;
    Object.assign(s, { multiple: MULTIPLE_MAX, writeCache: 1, smart: 1 });
    s.modes.set([7, 7, 0x203f]);
    this.packet?.reset();
  }

  /** Sectors of a disk. */
  get blocks(): number {
    return Math.floor((this.o.medium()?.size ?? 0) / SECTOR);
  }

  /** The signature that registers have after a reset: sector count 1, then LBA. */
  get signature(): number {
    return this.packet ? 0xeb_1401 : 0x00_0001;
  }

  /** What a command comes to. With the board's lock held. */
  plan(t: TaskFile): AtaPlan {
    const c = t.command;
    if (this.packet) return this.#planPacket(t);
    const transfer = transfers.get(c);
    if (transfer) return this.#transfer(t, transfer);
    if (accepted.has(c)) return done;
    switch (c) {
      case 0xec:
        return { kind: 'in', data: this.#identify() };
      case 0x40:
      case 0x41:
      case 0x42: {
        const place = this.#place(t, c === 0x42);
        return place === undefined ? { kind: 'fail', error: ataError.notFound } : done;
      }
      case 0xe7:
      case 0xea:
        return { kind: 'flush' };
      case 0xc6:
        if ((t.count & 0xff) > MULTIPLE_MAX || (t.count & (t.count - 1) & 0xff) !== 0) return abort;
        this.s.multiple = t.count & 0xff;
        return done;
      case 0xef:
        return this.#setFeatures(t);
      case 0x90:
        return { kind: 'signature', diagnostic: true };
      case 0xe5:
      case 0x98:
        return { kind: 'done', count: 0xff };
      case 0xf8:
        return { kind: 'done', lba: Math.min(this.blocks, 0x0fff_ffff) - 1 };
      case 0x27:
        return { kind: 'done', lba: this.blocks - 1 };
      case 0x06:
        // TRIM, with lists of up to 8 blocks.
        if (!this.o.discard || (t.feature & 1) === 0 || t.count === 0 || this.o.medium()?.readOnly) return abort;
        return { kind: 'trim', length: Math.min(t.count, 8) * SECTOR };
      case 0xb0:
        return this.#smart(t);
      default:
        return abort;
    }
  }

  /** Offset and length of what a task file addresses; undefined where it is not on the medium. */
  span(lba: number, count: number): { readonly offset: number; readonly length: number } | undefined {
    return lba >= 0 && lba + count <= this.blocks ? { offset: lba * SECTOR, length: count * SECTOR } : undefined;
  }

  /**
   * What is read by a command with a linear address, whether the medium has it or not: for threads that do not know the medium. With the board's lock held.
   */
  reads(t: TaskFile): AtaTransfer | undefined {
    const transfer = this.packet ? undefined : transfers.get(t.command);
    if (transfer?.kind !== 'read' || (transfer.how === 'multiple' && this.s.multiple === 0)) return undefined;
    const place = linear(t, transfer.wide);
    return place && this.#carried(transfer, { offset: place.lba * SECTOR, length: place.count * SECTOR });
  }

  /** A packet follows. Overlapped commands are not possible. */
  takesPacket(t: TaskFile): boolean {
    return this.packet !== undefined && t.command === 0xa0 && (t.feature & 2) === 0;
  }

  #planPacket(t: TaskFile): AtaPlan {
    const c = t.command;
    switch (c) {
      case 0xa0:
        return !this.takesPacket(t) ? abort : { kind: 'packet', dma: (t.feature & 1) !== 0 };
      case 0xa1:
        return { kind: 'in', data: this.#identify() };
      case 0x08:
      case 0x90:
        return { kind: 'signature', diagnostic: c === 0x90 };
      case 0xef:
        return this.#setFeatures(t);
      case 0xe5:
      case 0x98:
        return { kind: 'done', count: 0xff };
      default:
        return acceptedPacket.has(c) ? done : abort;
    }
  }

  /** IDENTIFY DEVICE (disks) and READ SECTORS show this signature when they are sent to an ATAPI drive: hosts tell the two apart by it. */
  showsSignature(command: number): boolean {
    return this.packet !== undefined && (command === 0xec || command === 0x20 || command === 0x21);
  }

  #place(t: TaskFile, wide: boolean): { readonly offset: number; readonly length: number } | undefined {
    const place = linear(t, wide);
    if (place) return this.span(place.lba, place.count);
    // Cylinder, head and sector.
    const { heads, sectors } = geometryOf(this.blocks);
    const sector = t.lba & 0xff;
    const cylinder = Math.floor(t.lba / 256) & 0xffff;
    if (sector === 0) return undefined;
    return this.span((cylinder * heads + (t.device & 15)) * sectors + sector - 1, countOf(t, wide));
  }

  #transfer(t: TaskFile, transfer: Transfer): AtaPlan {
    const { kind, wide, how } = transfer;
    const place = this.#place(t, wide);
    if (how === 'multiple' && this.s.multiple === 0) return abort;
    if (place === undefined) return { kind: 'fail', error: ataError.notFound | ataError.aborted };
    if (kind === 'write' && this.o.medium()?.readOnly) return abort;
    return this.#carried(transfer, place);
  }

  #carried({ kind, how, force = false }: Transfer, place: { readonly offset: number; readonly length: number }): AtaTransfer {
    return {
      kind,
      ...place,
      dma: how === 'dma',
      block: how === 'multiple' ? this.s.multiple * SECTOR : SECTOR,
      force: force || (kind === 'write' && this.s.writeCache === 0),
    };
  }

  #identify(): Uint8Array {
    const { s, o } = this;
    const state = {
      blocks: this.blocks,
      multiple: s.multiple,
      writeCache: s.writeCache !== 0,
      modes: [s.modes[0]!, s.modes[1]!, s.modes[2]!] as const,
      ncq: o.ncq,
    };
    return this.packet ? identifyPacket(o, state) : identifyDisk(o, state);
  }

  #setFeatures(t: TaskFile): AtaPlan {
    const { s } = this;
    switch (t.feature & 0xff) {
      case 0x02:
      case 0x82:
        if (this.packet) return abort;
        s.writeCache = t.feature === 0x02 ? 1 : 0;
        return s.writeCache ? done : { kind: 'flush' };
      case 0x03: {
        const bit = 0x100 << (t.count & 7);
        switch ((t.count & 0xff) >> 3) {
          case 0:
          case 1:
            return done;
          case 2:
            s.modes.set([7 | bit, 7, 0x3f]);
            return done;
          case 4:
            s.modes.set([7, 7 | bit, 0x3f]);
            return done;
          case 8:
            s.modes.set([7, 7, 0x3f | bit]);
            return done;
          default:
            return abort;
        }
      }
      // Look-ahead, ECC, advanced power management, acoustics, retries, power-on defaults: as it is.
      case 0x05:
      case 0x42:
      case 0x55:
      case 0x66:
      case 0x69:
      case 0x67:
      case 0x85:
      case 0x96:
      case 0x9a:
      case 0xaa:
      case 0xc2:
      case 0xcc:
        return done;
      default:
        return abort;
    }
  }

  #smart(t: TaskFile): AtaPlan {
    // The signature that guards SMART.
    if ((Math.floor(t.lba / 256) & 0xffff) !== 0xc24f) return abort;
    const sector = (fill: (b: Uint8Array) => void): AtaPlan => {
      const data = new Uint8Array(SECTOR);
      fill(data);
      data[511] = -data.reduce((sum, byte) => sum + byte, 0);
      return { kind: 'in', data };
    };
    switch (t.feature & 0xff) {
      case 0xd8:
        this.s.smart = 1;
        return done;
      case 0xd9:
        this.s.smart = 0;
        return done;
      case 0xda:
        return this.s.smart ? { kind: 'done', lba: t.lba } : abort;
      case 0xd2:
        return this.s.smart ? done : abort;
      case 0xd0:
        // Values: hours powered on, temperature of 31 °C.
        return this.s.smart
          ? sector((b) => {
              b[0] = 1;
              b.set([9, 3, 0, 100, 100, 0, 0, 0, 0, 0, 0, 0], 2);
              b.set([190, 3, 0, 69, 69, 31, 0, 31, 0, 0, 0, 0], 14);
              b.set([2, 0, 0x20, 1, 0x1b], 362);
            })
          : abort;
      case 0xd1:
        return this.s.smart
          ? sector((b) => {
              b[0] = 1;
              b.set([9, 0], 2);
              b.set([190, 50], 14);
            })
          : abort;
      default:
        return abort;
    }
  }
}

/** Ranges of a TRIM list: 48 bits of address and 16 of length each; undefined where one is not on the medium. */
export function trimRanges(device: AtaDevice, list: Uint8Array): [number, number][] | undefined {
  const view = new DataView(list.buffer, list.byteOffset, list.byteLength);
  const ranges: [number, number][] = [];
  for (let at = 0; at + 8 <= list.length; at += 8) {
    const count = view.getUint16(at + 6, true);
    if (count === 0) continue;
    const lba = view.getUint16(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
    const span = device.span(lba, count);
    if (span === undefined) return undefined;
    ranges.push([span.offset, span.length]);
  }
  return ranges;
}
