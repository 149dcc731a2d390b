// A SCSI target with one logical unit, disk or CD-ROM: its state, the commands that both have, and the dispatch. SPC-4 (T10/1731-D)
// and SBC-3 (T10/BSR INCITS 514); ATAPI drives, USB mass storage and virtio-scsi carry it.

import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import { cdCommands } from './cdrom.ts';
import { type Command, ready } from './command.ts';
import { diskCommands, readSpan } from './disk.ts';
import { be16, big, check, done, type Medium, type ScsiPlan, text } from './plan.ts';
import { descriptorSense, fixedSense, type Sense, senses } from './sense.ts';

export const scsiTargetLayout = struct(
  {
    /** Sense data that REQUEST SENSE gives. */
    key: 'u8',
    asc: 'u8',
    ascq: 'u8',
    /** Unit attentions that wait, bits of `attention`. */
    attention: 'u8',
    trayOpen: 'u8',
    locked: 'u8',
    /** The guest was told of a request to eject: the next GET EVENT STATUS NOTIFICATION reports it. */
    ejectRequested: 'u8',
    /** A media event for GET EVENT STATUS NOTIFICATION: 0 none, 2 new medium, 3 removal. */
    mediaEvent: 'u8',
    /** Write cache enabled (mode page 8). */
    writeCache: 'u8',
  },
  { name: 'scsi-target', version: 1 },
);

/** Unit attentions, most important first. */
export const attention = { reset: 1, medium: 2, capacity: 4 } as const;

export interface TargetOptions {
  readonly arena: Arena;
  /** Unique in the machine; names the state in snapshots. */
  readonly name: string;
  readonly kind: 'disk' | 'cdrom';
  /** 8 and 16 characters and 4. */
  readonly vendor: string;
  readonly product: string;
  readonly version: string;
  readonly serial: string;
  /** Bytes of a block: 512 or 4096 for disks, 2048 for CD-ROMs. */
  readonly blockSize: number;
  readonly removable?: boolean;
  /** NAA identifier, 64 bits; none when left out. */
  readonly wwn?: bigint;
  /** ATAPI drives answer INQUIRY with a response format of their own. */
  readonly atapi?: boolean;
  /** What is in the drive; the I/O thread answers, which is where commands are executed. */
  readonly medium: () => Medium | undefined;
  /** The tray moved by the guest's command. */
  readonly tray?: (open: boolean) => void;
}

export class ScsiTarget {
  readonly o: TargetOptions;
  readonly s: ViewOf<typeof scsiTargetLayout>;
  readonly #commands: ReadonlyMap<number, Command>;

  constructor(o: TargetOptions) {
    this.o = o;
    this.s = o.arena.alloc(scsiTargetLayout, o.name);
    this.#commands = new Map([...common, ...(o.kind === 'cdrom' ? cdCommands : diskCommands)]);
  }

  reset(): void {
    this.setSense(senses.none);
    Object.assign(this.s, { attention: attention.reset, locked: 0, ejectRequested: 0, mediaEvent: 0, writeCache: 1 });
  }

  get removable(): boolean {
    return this.o.removable ?? this.o.kind === 'cdrom';
  }

  /** The medium, where the tray is closed over one. */
  get medium(): Medium | undefined {
    return this.s.trayOpen ? undefined : this.o.medium();
  }

  /** Blocks of the medium. */
  get blocks(): number {
    return Math.floor((this.medium?.size ?? 0) / this.o.blockSize);
  }

  setSense(s: Sense): void {
    Object.assign(this.s, s);
  }

  /** Somebody put another medium in, or took it out. With the board's lock held. */
  mediumChanged(): void {
    this.s.attention |= attention.medium;
    this.s.mediaEvent = this.o.medium() === undefined ? 3 : 2;
  }

  /** The medium has another size now. With the board's lock held. */
  capacityChanged(): void {
    this.s.attention |= attention.capacity;
  }

  /**
   * Opens or closes the tray, as its button does. False when the guest has locked it: it is asked to eject instead, and `force`
   * opens all the same. With the board's lock held.
   */
  moveTray(open: boolean, force = false): boolean {
    if (open && this.s.locked && !force) {
      this.s.ejectRequested = 1;
      return false;
    }
    if ((this.s.trayOpen !== 0) !== open) {
      this.s.trayOpen = open ? 1 : 0;
      this.mediumChanged();
      if (open) this.s.locked = 0;
    }
    return true;
  }

  /**
   * What a command block (6 to 16 bytes) for logical unit `lun` comes to. With the board's lock held. The caller carries it out and
   * then tells `finish` where it ended in CHECK CONDITION.
   */
  plan(block: Uint8Array, lun = 0): ScsiPlan {
    const cdb = new Uint8Array(16);
    cdb.set(block.subarray(0, 16));
    const op = cdb[0]!;
    if (lun !== 0 && op !== INQUIRY && op !== REQUEST_SENSE && op !== REPORT_LUNS) return this.#checked(senses.badLun);
    // Unit attentions come before any command but those that ask for them (SAM-5, section 5.14).
    if (this.s.attention && ![INQUIRY, REQUEST_SENSE, REPORT_LUNS, GET_EVENT_STATUS].includes(op)) {
      return this.#checked(this.#takeAttention());
    }
    const command = this.#commands.get(op);
    if (command === undefined) return this.#checked(senses.badOpcode);
    if (op !== REQUEST_SENSE) this.setSense(senses.none);
    if (lun !== 0 && op === INQUIRY) {
      // No device is there: qualifier 3, type 31.
      const data = new Uint8Array(36);
      data[0] = 0x7f;
      return { kind: 'in', data: data.subarray(0, be16(cdb, 3)) };
    }
    const plan = command(this, cdb);
    return plan.kind === 'check' ? this.#checked(plan.sense) : plan;
  }

  /**
   * The bytes that a command block reads where nothing stands in its way but what the medium may not have: for threads that do not know the medium. Who has
   * read them tells `readDone`. With the board's lock held.
   */
  reads(block: Uint8Array): { readonly offset: number; readonly length: number } | undefined {
    if (this.s.attention || this.s.trayOpen) return undefined;
    const span = readSpan(this.o.kind, block);
    const size = this.o.blockSize;
    return span && span.blocks > 0 ? { offset: span.lba * size, length: span.blocks * size } : undefined;
  }
  readDone(): void {
    this.setSense(senses.none);
  }

  /** Keeps the sense data of a command that failed while it was carried out. With the board's lock held. */
  finish(sense: Sense | undefined): void {
    if (sense !== undefined) this.setSense(sense);
  }

  /** Data for the initiator, cut to its allocation length. */
  reply(data: Uint8Array | readonly number[], allocation: number): ScsiPlan {
    return { kind: 'in', data: Uint8Array.from(data).subarray(0, allocation) };
  }

  #checked(sense: Sense): ScsiPlan {
    this.setSense(sense);
    return check(sense);
  }

  #takeAttention(): Sense {
    const s = this.s;
    for (const [bit, sense] of [
      [attention.reset, senses.reset],
      [attention.medium, this.medium === undefined ? senses.noMedium : senses.mediumChanged],
      [attention.capacity, senses.capacityChanged],
    ] as const) {
      if (s.attention & bit) {
        s.attention &= ~bit;
        return sense;
      }
    }
    return senses.none;
  }

  /** For REQUEST SENSE: the sense data that wait, which are gone then. */
  takeSense(): Sense {
    const { key, asc, ascq } = this.s;
    if (key === 0 && this.s.attention) return this.#takeAttention();
    this.setSense(senses.none);
    return { key, asc, ascq };
  }
}

const TEST_UNIT_READY = 0x00;
const REQUEST_SENSE = 0x03;
const INQUIRY = 0x12;
const REPORT_LUNS = 0xa0;
const GET_EVENT_STATUS = 0x4a;

const inquiry: Command = (t, cdb) => {
  const allocation = be16(cdb, 3);
  const type = t.o.kind === 'cdrom' ? 5 : 0;
  if ((cdb[1]! & 1) === 0) {
    if (cdb[2] !== 0) return check(senses.badField);
    const { vendor, product, version, atapi } = t.o;
    return t.reply(
      [
        ...[type, t.removable ? 0x80 : 0, atapi ? 0 : 5, atapi ? 0x21 : 2, 31, 0, 0, atapi ? 0 : 2],
        ...[...text(vendor, 8), ...text(product, 16), ...text(version, 4)],
      ],
      allocation,
    );
  }
  const page = vpdPages(t).get(cdb[2]!);
  if (page === undefined) return check(senses.badField);
  return t.reply([type, cdb[2]!, ...big(page.length, 2), ...page], allocation);
};

/** Vital product data (SPC-4, section 7.8; SBC-3, section 6.5). */
function vpdPages(t: ScsiTarget): ReadonlyMap<number, readonly number[]> {
  const { serial, product, wwn, kind } = t.o;
  const unit = [...text(serial === '' ? product : serial, Math.min(20, (serial || product).length))];
  const pages = new Map<number, readonly number[]>([
    [0x80, text(serial, Math.min(36, serial.length))],
    [0x83, [2, 0, 0, unit.length, ...unit, ...(wwn === undefined ? [] : [1, 3, 0, 8, ...wide(wwn)])]],
  ]);
  if (kind === 'disk') {
    const limits = new Array<number>(60).fill(0);
    const set = (at: number, value: number, n: number) => limits.splice(at - 4, n, ...big(value, n));
    set(6, 1, 2);
    set(8, 0xffff, 4);
    set(20, 0x20_0000, 4);
    set(24, 255, 4);
    set(28, 1, 4);
    set(36, 0x20_0000, 8);
    pages.set(0xb0, limits);
    // A medium that does not rotate.
    pages.set(0xb1, [0, 1, ...new Array<number>(58).fill(0)]);
    // Thin: UNMAP and WRITE SAME with the UNMAP bit.
    pages.set(0xb2, [0, 0xe0, 2, 0]);
  }
  pages.set(0, [0, ...pages.keys()]);
  return pages;
}

const wide = (value: bigint): number[] => Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(56 - 8 * i)) & 0xffn));

const startStop: Command = (t, cdb) => {
  const open = (cdb[4]! & 1) === 0;
  if ((cdb[4]! & 2) === 0 || !t.removable || cdb[4]! >> 4 !== 0) return done;
  if (open && !t.s.trayOpen && t.s.locked) return check(senses.removalPrevented);
  if ((t.s.trayOpen !== 0) !== open) {
    t.s.trayOpen = open ? 1 : 0;
    if (!open) t.mediumChanged();
    t.o.tray?.(open);
  }
  return done;
};

const common: readonly (readonly [number, Command])[] = [
  [TEST_UNIT_READY, ready(() => done)],
  [
    REQUEST_SENSE,
    (t, cdb) => {
      const s = t.takeSense();
      return t.reply(cdb[1]! & 1 ? descriptorSense(s) : fixedSense(s), cdb[4]!);
    },
  ],
  [INQUIRY, inquiry],
  [
    REPORT_LUNS,
    (t, cdb) => {
      const allocation = be16(cdb, 6) * 65536 + be16(cdb, 8);
      return allocation < 16 ? check(senses.badField) : t.reply([...big(8, 4), 0, 0, 0, 0, ...big(0, 8)], allocation);
    },
  ],
  [0x1b, startStop],
  [
    0x1e, // PREVENT ALLOW MEDIUM REMOVAL
    (t, cdb) => {
      if (t.removable) t.s.locked = cdb[4]! & 1;
      return done;
    },
  ],
  // RESERVE and RELEASE: there is one initiator.
  [0x16, () => done],
  [0x17, () => done],
];
