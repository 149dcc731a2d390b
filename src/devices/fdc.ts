// A floppy disk controller of a PC as processors see it: an Intel 82078 with up to two drives. Sectors are moved by the I/O thread, see
// fdc-io.ts, over DMA. Intel 82078 data sheet, chapters 2, 4 and 5.

import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import type { IrqLine } from '../bus/irq.ts';
import { registers, ro, rw, wo } from '../bus/registers.ts';
import type { Handler } from '../bus/space.ts';

export const DRIVES = 2;
/** Where a PC has its controller: the first of eight ports. */
export const fdcPort = 0x3f0;
const msr = { busy: 0x10, noDma: 0x20, fromController: 0x40, ready: 0x80 } as const;
const dor = { select: 3, notReset: 4, gate: 8, motor: 0x10 } as const;
/** Status register 0 (table 5-1). */
export const st0 = { seekEnd: 0x20, failed: 0x40, invalid: 0x80, changed: 0xc0 } as const;
/** Status registers 1 and 2. */
export const st1 = { noAddressMark: 1, writeProtected: 2, noData: 4, crc: 0x20, pastEnd: 0x80 } as const;
const DISK_CHANGE = 0x80;
const VERSION = 0x90;
const PART = 0x41;

/** The geometry of a disk; no sectors: the drive is empty. */
export const driveLayout = struct({
  track: 'u8',
  heads: 'u8',
  tracks: 'u8',
  sectors: 'u8',
  readOnly: 'u8',
  changed: 'u8',
  /** CMOS' number of the kind of drive: 0 none, 2 1.2M, 4 1.44M, 5 2.88M. */
  kind: 'u8',
});
export const fdcLayout = struct(
  {
    dor: 'u8',
    tdr: 'u8',
    msr: 'u8',
    rate: 'u8',
    /** Bytes of the command that have come, or of the result: how many there are, and the next. */
    length: 'u8',
    at: 'u8',
    bytes: ['u8', 16],
    /** 1 while a command is the I/O thread's. */
    active: 'u8',
    interrupt: 'u8',
    st0: 'u8',
    /** Drives that have to tell of a reset. */
    polls: 'u8',
    timer0: 'u8',
    timer1: 'u8',
    config: 'u8',
    precomp: 'u8',
    lock: 'u8',
    perpendicular: 'u8',
    lastSector: 'u8',
    /** Counted up when what is under way is dropped. */
    epoch: 'u32',
    drives: [driveLayout, DRIVES],
  },
  { name: 'fdc', version: 1 },
);
export type FdcState = ViewOf<typeof fdcLayout>;

/** Bytes of the commands, with the code; those that are not here are invalid. Bits 5 to 7 of some are flags. */
const lengths: Readonly<Record<number, number>> = {
  2: 9, 3: 3, 4: 2, 5: 9, 6: 9, 7: 2, 8: 1, 9: 9, 10: 2, 12: 9, 13: 6, 14: 1, 15: 3, 16: 1, 18: 2, 19: 4, 20: 1, 22: 9, 23: 2, 24: 1, 51: 2, 142: 6,
}; // biome-ignore format: one line
/** Commands that are whole bytes; of all others the upper three bits are flags. */
const plainCodes: readonly number[] = [3, 4, 7, 8, 14, 15, 16, 18, 19, 20, 23, 24, 51, 142];
export const code = { readTrack: 2, specify: 3, senseDrive: 4, write: 5, read: 6, recalibrate: 7, senseInterrupt: 8, writeDeleted: 9, readId: 10, readDeleted: 12, format: 13, dump: 14, seek: 15, version: 16, perpendicular: 18, configure: 19, lock: 20, verify: 22, powerDown: 23, part: 24, option: 51, driveSpec: 142 } as const; // biome-ignore format: one line

/** What a command's first byte means: its code without flags; undefined for what is no command. */
export function commandOf(byte: number): { readonly code: number; readonly length: number } | undefined {
  const plain =
    byte === 0x94 ? code.lock : byte === 0x8f || byte === 0xcf ? code.seek : plainCodes.includes(byte) ? byte : undefined;
  const found = plain ?? (plainCodes.includes(byte & 0x1f) ? undefined : byte & 0x1f);
  const length = found === undefined ? undefined : lengths[found];
  return found === undefined || length === undefined ? undefined : { code: found, length };
}

export interface FdcOptions {
  readonly arena: Arena;
  readonly name: string;
  readonly irq: IrqLine;
  /** A command waits for the I/O thread. */
  readonly ring: () => void;
  readonly report?: Report;
}

const map = registers<Fdc>('fdc', 8, [
  ro(1, 1, 'SRB', (d) => 0xc0 | (d.s.dor & 1) | ((d.s.dor >>> 4) & 3)),
  rw(2, 1, 'DOR', (d) => d.s.dor | (d.s.dor & 3), (d, v) => d.setOutput(v)),
  rw(3, 1, 'TDR', (d) => d.s.tdr, (d, v) => { d.s.tdr = v & 3; }),
  rw(4, 1, 'MSR', (d) => d.s.msr, (d, v) => d.setRate(v)),
  rw(5, 1, 'FIFO', (d) => d.next(), (d, v) => d.take(v)),
  ro(7, 1, 'DIR', (d) => d.changeLine),
], { empty: 0xff, max: 1 }); // biome-ignore format: one line each
const mapRate = registers<Fdc>('fdc rate', 1, [wo(0, 1, 'CCR', (d, v) => { d.s.rate = v & 3; })], { empty: 0xff, max: 1 }); // biome-ignore format: one line

export class Fdc {
  readonly s: FdcState;
  /** Ports 1 to 5 of the controller, and its last one. */
  readonly handler: Handler;
  readonly rateHandler: Handler;
  readonly #o: FdcOptions;

  constructor(o: FdcOptions) {
    this.#o = o;
    this.s = o.arena.alloc(fdcLayout, o.name);
    const all = map.bind(this, o.report);
    const rate = mapRate.bind(this, o.report);
    this.handler = {
      max: 1,
      read: (offset, size) => all.read(offset + 1, size),
      write: (offset, size, v) => all.write(offset + 1, size, v),
    };
    this.rateHandler = { max: 1, read: (_, size) => all.read(7, size), write: (_, size, v) => rate.write(0, size, v) };
  }

  /** Power-on state; disks stay where they are. With the board's lock held, as all here. */
  reset(): void {
    Object.assign(this.s, {
      dor: dor.notReset | dor.gate,
      tdr: 0,
      rate: 2,
      config: 0x60,
      precomp: 0,
      lock: 0,
      perpendicular: 0,
      lastSector: 0,
    });
    Object.assign(this.s, { timer0: 0, timer1: 0, st0: 0, polls: 0 });
    for (const d of this.s.drives) d.track = 0;
    this.#idle();
    this.#interrupt(0);
  }
  /** Another disk is in a drive, or none. */
  insert(n: number, disk: { tracks: number; heads: number; sectors: number; readOnly: boolean } | undefined): void {
    const { tracks = 0, heads = 0, sectors = 0, readOnly = false } = disk ?? {};
    Object.assign(this.s.drives[n]!, { tracks, heads, sectors, readOnly: readOnly ? 1 : 0, changed: 1 });
  }
  get drive(): number {
    return this.s.dor & dor.select;
  }
  get changeLine(): number {
    const d = this.s.drives[this.drive];
    return d?.kind && (d.changed || d.sectors === 0) ? DISK_CHANGE : 0;
  }

  #idle(): void {
    Object.assign(this.s, { msr: msr.ready, length: 0, at: 0, active: 0 });
    this.s.epoch++;
  }
  #interrupt(level: 0 | 1): void {
    this.s.interrupt = level;
    this.#o.irq.set(level && this.s.dor & dor.gate ? 1 : 0);
  }

  setOutput(value: number): void {
    const { s } = this;
    const before = s.dor;
    s.dor = value;
    if (!(value & dor.notReset)) {
      this.#idle();
      s.msr = 0;
      this.#interrupt(0);
    } else if (!(before & dor.notReset)) this.#restarted();
    else if ((before ^ value) & dor.gate) this.#interrupt(s.interrupt ? 1 : 0);
  }
  /** Out of reset: the controller says of each drive that it has been polled. */
  #restarted(): void {
    const { s } = this;
    this.#idle();
    if (!s.lock) {
      s.config = 0x60;
      s.precomp = 0;
    }
    s.perpendicular = 0;
    s.polls = 4;
    s.st0 = st0.changed;
    this.#interrupt(1);
  }
  setRate(value: number): void {
    const [reset] = [0x80];
    this.s.rate = value & 3;
    if (value & reset && this.s.dor & dor.notReset) this.#restarted();
  }

  // -- commands

  take(byte: number): void {
    const { s } = this;
    if ((s.msr & (msr.ready | msr.fromController)) !== msr.ready) return;
    if (s.length === 0) s.msr |= msr.busy;
    s.bytes[s.length++] = byte;
    const command = commandOf(s.bytes[0]!);
    if (!command) this.#result([st0.invalid]);
    else if (s.length >= Math.min(command.length, 9)) this.#execute(command.code);
  }
  next(): number {
    const { s } = this;
    if ((s.msr & (msr.ready | msr.fromController)) !== (msr.ready | msr.fromController)) return 0;
    const byte = s.bytes[s.at++]!;
    if (s.at >= s.length) {
      s.msr = msr.ready;
      s.length = s.at = 0;
    }
    // Whoever reads results has seen the interrupt that told of them.
    if (s.at <= 1) this.#interrupt(0);
    return byte;
  }
  #result(bytes: readonly number[]): void {
    const { s } = this;
    s.bytes.set(bytes);
    Object.assign(s, { length: bytes.length, at: 0, msr: msr.ready | msr.busy | msr.fromController });
  }
  #silent(): void {
    Object.assign(this.s, { length: 0, at: 0, msr: msr.ready });
  }
  #execute(command: number): void {
    const { s } = this;
    const [first = 0, second = 0, third = 0] = s.bytes;
    const unit = second & 3;
    switch (command) {
      case code.specify:
        s.timer0 = second;
        s.timer1 = third;
        return this.#silent();
      case code.senseDrive: {
        const d = s.drives[unit & 1]!;
        const [twoSided, ready, atZero, protect] = [0x08, 0x20, 0x10, 0x40];
        return this.#result([(second & 7) | twoSided | ready | (d.track === 0 ? atZero : 0) | (d.readOnly ? protect : 0)]);
      }
      case code.recalibrate:
        this.#seek(unit, 0);
        return this.#silent();
      case code.seek: {
        const now = s.drives[unit & 1]!.track;
        const [relative, inward] = [0x80, 0x40];
        this.#seek(unit, first & relative ? (first & inward ? now + third : Math.max(0, now - third)) : third);
        return this.#silent();
      }
      case code.senseInterrupt:
        return this.#sense();
      case code.dump: {
        const tracks = [0, 1, 2, 3].map((n) => s.drives[n]?.track ?? 0);
        return this.#result([
          ...tracks,
          s.timer0,
          s.timer1,
          s.lastSector,
          (s.lock << 7) | (s.perpendicular << 2),
          s.config,
          s.precomp,
        ]);
      }
      case code.version:
        return this.#result([VERSION]);
      case code.perpendicular:
        if (second & 0x80) s.perpendicular = second & 7;
        return this.#silent();
      case code.configure:
        s.config = third;
        s.precomp = s.bytes[3]!;
        return this.#silent();
      case code.lock:
        s.lock = first >>> 7;
        return this.#result([s.lock << 4]);
      case code.powerDown:
        return this.#result([second]);
      case code.part:
        return this.#result([PART]);
      case code.option:
      case code.driveSpec:
        return this.#silent();
      default:
        // The I/O thread moves sectors, and gives the result.
        s.dor = (s.dor & ~dor.select) | unit;
        Object.assign(s, { msr: msr.busy, active: 1 });
        this.#o.ring();
    }
  }
  #seek(unit: number, track: number): void {
    const d = this.s.drives[unit];
    if (d) {
      d.track = Math.min(track, 255);
      if (d.sectors > 0) d.changed = 0;
    }
    this.s.st0 = st0.seekEnd | unit;
    this.#interrupt(1);
  }
  #sense(): void {
    const { s } = this;
    if (s.polls > 0) {
      const n = 4 - s.polls--;
      this.#interrupt(0);
      return this.#result([st0.changed | n, s.drives[n]?.track ?? 0]);
    }
    if (!s.interrupt) return this.#result([st0.invalid]);
    const [at] = [s.drives[s.st0 & 3]?.track ?? 0];
    this.#interrupt(0);
    this.#result([s.st0, at]);
  }
  /** What the I/O thread has come to: three status bytes, then where the next sector is. */
  finished(status: readonly [number, number, number], place: readonly [number, number, number, number]): void {
    const { s } = this;
    s.active = 0;
    s.st0 = status[0];
    this.#result([...status, ...place]);
    this.#interrupt(1);
  }
}
