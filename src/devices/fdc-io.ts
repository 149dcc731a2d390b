// The I/O side of the floppy controller: commands that read, write, verify and format, between a disk and a DMA channel. Intel 82078
// data sheet, section 5.1.

import type { Lock } from '../bus/lock.ts';
import type { DmaChannel } from './dma.ts';
import { code, commandOf, type Fdc, st0, st1 } from './fdc.ts';

const SECTOR = 512;
const SIZE_CODE = 2;

/** A disk as its drive has it; sectors are read and written whole. */
export interface FloppyDisk {
  read(offset: number, into: Uint8Array): Promise<void>;
  write(offset: number, from: Uint8Array): Promise<void>;
}

/** Known formats: bytes, tracks, heads, sectors, kind of drive in CMOS. */
const formats: readonly (readonly [kib: number, tracks: number, heads: number, sectors: number, kind: number])[] = [
  [1440, 80, 2, 18, 4], [2880, 80, 2, 36, 5], [1200, 80, 2, 15, 2], [720, 80, 2, 9, 4], [1680, 80, 2, 21, 4], [1722, 82, 2, 21, 4], [1476, 82, 2, 18, 4], [1600, 80, 2, 20, 4], [360, 40, 2, 9, 2], [320, 40, 2, 8, 2], [180, 40, 1, 9, 2], [160, 40, 1, 8, 2], [1760, 80, 2, 22, 4], [2988, 83, 2, 36, 5], [3200, 80, 2, 40, 5], [3520, 80, 2, 44, 5], [820, 82, 2, 10, 4], [830, 83, 2, 10, 4], [1040, 80, 2, 13, 4], [1120, 80, 2, 14, 4],
]; // biome-ignore format: one table
/** The format of an image; that of a 1.44M disk where its size is none, as far as it goes. */
export function floppyFormat(bytes: number): { tracks: number; heads: number; sectors: number; kind: number } {
  const [, tracks, heads, sectors, kind] = formats.find(([kib]) => kib * 1024 === bytes) ?? formats[0]!;
  return { tracks, heads, sectors, kind };
}

interface Place {
  track: number;
  head: number;
  sector: number;
}

export class FdcIo {
  readonly #fdc: Fdc;
  readonly #lock: Lock;
  readonly #dma: DmaChannel;
  readonly #disk: (n: number) => FloppyDisk | undefined;
  #work: Promise<void> | undefined;

  constructor(fdc: Fdc, o: { lock: Lock; dma: DmaChannel; disk: (n: number) => FloppyDisk | undefined }) {
    this.#fdc = fdc;
    this.#lock = o.lock;
    this.#dma = o.dma;
    this.#disk = o.disk;
  }
  /** A command waits. */
  serve(): void {
    if (this.#work !== undefined || !this.#fdc.s.active) return;
    this.#work = this.#run().finally(() => {
      this.#work = undefined;
      this.serve();
    });
  }
  async drain(): Promise<void> {
    await this.#work;
  }

  async #run(): Promise<void> {
    const { s } = this.#fdc;
    const { epoch } = s;
    const bytes = s.bytes.slice(0, 9);
    const unit = bytes[1]! & 1;
    const { code: command } = commandOf(bytes[0]!)!;
    const done = await this.#carryOut(command, unit, bytes, () => s.epoch !== epoch);
    if (!done) return;
    this.#lock.run(() => {
      if (s.epoch !== epoch) return;
      const { status, error, at } = done;
      if (s.drives[unit]) s.drives[unit]!.track = at.track;
      this.#fdc.finished(
        [(error || status & st0.failed ? st0.failed : 0) | (at.head << 2) | (bytes[1]! & 3), error, 0],
        [at.track, at.head, at.sector, SIZE_CODE],
      );
    });
  }

  /** What came of a command, and where it ended; undefined where it was dropped. */
  async #carryOut(
    command: number,
    unit: number,
    b: Uint8Array,
    dropped: () => boolean,
  ): Promise<{ status: number; error: number; at: Place } | undefined> {
    const d = this.#fdc.s.drives[unit]!;
    const disk = this.#disk(unit);
    const head = (b[1]! >>> 2) & 1;
    const failed = (error: number, at: Place = { track: b[2]!, head: b[3]! & 1, sector: b[4]! }) => ({
      status: st0.failed,
      error,
      at,
    });
    if (command === code.readId)
      return disk && d.sectors > 0
        ? { status: 0, error: 0, at: { track: d.track, head, sector: 1 } }
        : failed(st1.noAddressMark, { track: d.track, head, sector: 1 });
    if (!disk || d.sectors === 0) return failed(st1.noAddressMark);
    const writes = [code.write, code.writeDeleted, code.format].some((c) => c === command);
    if (writes && d.readOnly) return failed(st1.writeProtected);
    if (command === code.format) return this.#format(disk, unit, b, head, dropped);
    const at: Place = { track: b[2]!, head: b[3]! & 1, sector: b[4]! };
    if (at.track >= d.tracks || at.head >= d.heads || at.sector === 0 || at.sector > d.sectors || b[5] !== SIZE_CODE)
      return failed(st1.noData);
    if (at.track !== d.track && !(this.#fdc.s.config & 0x40)) return failed(st1.noData);
    const many = (b[0]! & 0x80) !== 0;
    let count = command === code.verify && b[1]! & 0x80 ? b[8]! : Number.POSITIVE_INFINITY;
    const buffer = new Uint8Array(SECTOR);
    for (;;) {
      const offset = SECTOR * ((at.track * d.heads + at.head) * d.sectors + at.sector - 1);
      let more = true;
      try {
        if (writes) {
          const left = this.#lock.run(() => this.#dma.left('fromMemory'));
          if (left === 0) return { status: 0, error: 0, at };
          buffer.fill(0);
          this.#lock.run(() => this.#dma.move('fromMemory', buffer));
          await disk.write(offset, buffer);
          more = left > SECTOR;
        } else {
          await disk.read(offset, buffer);
          if (dropped()) return undefined;
          if (command === code.verify) more = --count > 0 && at.sector !== b[6];
          else {
            const left = this.#lock.run(() => this.#dma.left('toMemory'));
            this.#lock.run(() => this.#dma.move('toMemory', buffer));
            more = left > SECTOR;
          }
        }
      } catch {
        return failed(st1.crc, at);
      }
      if (dropped()) return undefined;
      const within = this.#advance(at, unit, many, b[6]!);
      if (!more) return { status: 0, error: 0, at };
      if (!within) return failed(st1.pastEnd, at);
    }
  }
  /** To the next sector, over heads where the command says so; false past the end of the track or cylinder. */
  #advance(at: Place, unit: number, many: boolean, last: number): boolean {
    const d = this.#fdc.s.drives[unit]!;
    if (at.sector < d.sectors && at.sector !== last) {
      at.sector++;
      return true;
    }
    at.sector = 1;
    if (many && at.head === 0 && d.heads === 2) {
      at.head = 1;
      return true;
    }
    if (many) at.head = 0;
    at.track++;
    return false;
  }
  /** Fills the sectors of a track whose marks come over DMA. */
  async #format(
    disk: FloppyDisk,
    unit: number,
    b: Uint8Array,
    head: number,
    dropped: () => boolean,
  ): Promise<{ status: number; error: number; at: Place } | undefined> {
    const d = this.#fdc.s.drives[unit]!;
    const filled = new Uint8Array(SECTOR).fill(b[5]!);
    const at: Place = { track: d.track, head, sector: 1 };
    for (let n = 0; n < b[3]!; n++) {
      const mark = new Uint8Array(4);
      if (this.#lock.run(() => this.#dma.move('fromMemory', mark)) < 4) break;
      Object.assign(at, { track: mark[0], head: mark[1]! & 1, sector: mark[2] });
      if (at.track >= d.tracks || at.head >= d.heads || at.sector === 0 || at.sector > d.sectors)
        return { status: st0.failed, error: st1.noData, at };
      try {
        await disk.write(SECTOR * ((at.track * d.heads + at.head) * d.sectors + at.sector - 1), filled);
      } catch {
        return { status: st0.failed, error: st1.crc, at };
      }
      if (dropped()) return undefined;
    }
    return { status: 0, error: 0, at };
  }
}
