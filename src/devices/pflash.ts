// Parallel NOR flash with the Intel command set in a system's memory below 4 GiB: firmware's code and variables.
// Intel StrataFlash P30 datasheet (306666), chapters 9 to 11; JEDEC JESD68.01 (CFI); commands as QEMU's cfi.pflash01 takes them.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import type { MemorySlot } from '../bus/slots.ts';
import type { Handler } from '../bus/space.ts';

const WRITE_BUFFER = 2048;
export const pflashLayout = struct(
  {
    /** The command under way; 0xff: array read. */
    command: 'u8',
    /** Write cycles of the command that were seen. */
    cycle: 'u8',
    status: 'u8',
    /** Of a buffered write: bytes that still come, where it goes, first dirty byte. */
    counter: 'u32',
    block: 'u32',
    /** Bytes of the write buffer, which holds the block around `block`. */
    buffer: ['u8', WRITE_BUFFER],
    /** Range that was changed and is not in the file yet; `from` is not below `to` where there is none. */
    dirtyFrom: 'u32',
    dirtyTo: 'u32',
  },
  { name: 'pflash', version: 1 },
);

/** Bytes of an erase block. */
export const flashSector = 4096;
const status = { ready: 0x80, eraseError: 0x20, programError: 0x10, locked: 2 } as const;
const ids = { manufacturer: 0x89, device: 0x18 } as const;

export interface PflashOptions {
  readonly arena: Arena;
  readonly name: string;
  /** Where its bytes are: host address in `buffer`, a multiple of 4,096. */
  readonly buffer: ArrayBufferLike;
  readonly host: number;
  /** Bytes, a multiple of `flashSector`. */
  readonly length: number;
  /** Guest-physical address. */
  readonly base: number;
  readonly slot: MemorySlot;
  readonly readOnly: boolean;
  /** Contents changed: the I/O thread is to write them back. */
  readonly changed?: () => void;
  readonly report?: Report;
}

export class Pflash {
  readonly s: ViewOf<typeof pflashLayout>;
  readonly handler: Handler;
  readonly #o: PflashOptions;
  readonly #bytes: Uint8Array;
  readonly #cfi: Uint8Array;

  constructor(o: PflashOptions) {
    this.#o = o;
    this.s = o.arena.alloc(pflashLayout, o.name);
    this.#bytes = new Uint8Array(o.buffer, o.host, o.length);
    this.#cfi = cfiTable(o.length);
    this.handler = {
      max: 4,
      read: (offset, size) => this.#read(offset, size),
      write: (offset, size, value) => this.#write(offset, size, value),
    };
  }

  /** Commands count while `trusted` alone; else writes are lost, and reads are of the contents. */
  guarded(trusted: () => boolean): Handler {
    return {
      max: 4,
      read: (offset, size) => (trusted() ? this.#read(offset, size) : this.#data(offset, size)),
      write: (offset, size, value) => {
        if (trusted()) this.#write(offset, size, value);
      },
    };
  }

  get base(): number {
    return this.#o.base;
  }
  /** Host address of the contents. */
  get host(): number {
    return this.#o.host;
  }
  get length(): number {
    return this.#o.length;
  }
  /** The contents. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** Array read; the contents stay. With the board's lock held. */
  reset(): void {
    Object.assign(this.s, {
      command: 0xff,
      cycle: 0,
      status: status.ready,
      counter: 0,
      block: 0,
      dirtyFrom: 0xffff_ffff,
      dirtyTo: 0,
    });
    this.#array();
  }

  /** The changed range, which is taken as written back; undefined for none. With the board's lock held. */
  takeDirty(): { readonly from: number; readonly to: number } | undefined {
    const { dirtyFrom: from, dirtyTo: to } = this.s;
    if (from >= to) return undefined;
    this.s.dirtyFrom = 0xffff_ffff;
    this.s.dirtyTo = 0;
    return { from, to };
  }

  /** Reads come from memory directly. */
  #array(): void {
    this.s.command = 0xff;
    this.s.cycle = 0;
    this.#o.slot.map(this.#o.base, this.#o.length, this.#o.host, true);
  }

  #data(offset: number, size: number): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + (this.#bytes[offset + i] ?? 0xff);
    return value;
  }

  #read(offset: number, size: number): number {
    const spread = (byte: number): number => (size === 4 ? byte * 0x1_0001 : byte);
    switch (this.s.command) {
      case 0xff:
        return this.#data(offset, size);
      case 0x90: {
        const place = offset & 0xff;
        return place === 0 ? (size === 1 ? ids.device : (ids.manufacturer << 8) | ids.device) : 0;
      }
      case 0x98:
        return this.#cfi[offset & 0xff] ?? 0;
      default:
        return spread(this.s.status);
    }
  }

  #write(offset: number, size: number, value: number): void {
    const s = this.s;
    const byte = value & 0xff;
    if (s.cycle === 0) {
      // The first cycle of any command ends array read.
      if (s.command === 0xff && byte !== 0xff) this.#o.slot.unmap();
      this.#begin(offset, byte);
      return;
    }
    switch (s.command) {
      case 0x10:
      case 0x40:
        this.#program(offset, size, value);
        s.cycle = 0;
        break;
      case 0x20:
      case 0x28:
        if (byte === 0xd0) s.cycle = 0;
        else this.#array();
        s.status |= status.ready;
        break;
      case 0x60:
        if (byte === 0xd0 || byte === 0x01) s.cycle = 0;
        else this.#array();
        s.status |= status.ready;
        break;
      case 0xe8:
        this.#buffered(offset, size, value);
        break;
      default:
        this.#array();
    }
  }

  #begin(offset: number, byte: number): void {
    const s = this.s;
    s.command = byte;
    switch (byte) {
      case 0x10:
      case 0x40:
      case 0x60:
        s.cycle = 1;
        return;
      case 0x20:
      case 0x28: {
        const at = offset - (offset % flashSector);
        if (this.#o.readOnly) s.status |= status.eraseError;
        else {
          this.#bytes.fill(0xff, at, at + flashSector);
          this.#dirty(at, at + flashSector);
        }
        s.status |= status.ready;
        s.cycle = 1;
        return;
      }
      case 0x50:
        s.status = 0;
        this.#array();
        return;
      case 0x70:
      case 0x90:
      case 0x98:
        return;
      case 0xe8:
        s.status |= status.ready;
        s.cycle = 1;
        return;
      default:
        // 0x00, 0xF0, 0xFF and what is no command.
        if (byte !== 0xff && byte !== 0xf0 && byte !== 0)
          this.#o.report?.(this.#o.name, `command 0x${byte.toString(16)}: there is none of that number`);
        this.#array();
    }
  }

  #program(offset: number, size: number, value: number): void {
    if (this.#o.readOnly) {
      this.s.status |= status.programError;
      return;
    }
    for (let i = 0; i < size && offset + i < this.#bytes.length; i++) this.#bytes[offset + i] = value >>> (8 * i);
    this.#dirty(offset, offset + size);
    this.s.status |= status.ready;
  }

  /** The cycles of a buffered write: count, data, confirmation. */
  #buffered(offset: number, size: number, value: number): void {
    const s = this.s;
    if (s.cycle === 1) {
      s.counter = Math.min((value & 0xffff) + 1, WRITE_BUFFER);
      s.block = 0xffff_ffff;
      s.cycle = 2;
      return;
    }
    if (s.cycle === 2) {
      const start = offset - (offset % WRITE_BUFFER);
      if (s.block === 0xffff_ffff) {
        s.block = start;
        s.buffer.set(this.#bytes.subarray(start, start + WRITE_BUFFER));
      }
      // Data outside of the block that was begun cannot be programmed.
      if (start === s.block) {
        for (let i = 0; i < size && (offset % WRITE_BUFFER) + i < WRITE_BUFFER; i++)
          s.buffer[(offset % WRITE_BUFFER) + i] = value >>> (8 * i);
      } else s.status |= status.programError;
      s.counter = Math.max(0, s.counter - size);
      if (s.counter === 0) s.cycle = 3;
      return;
    }
    if ((value & 0xff) === 0xd0 && s.block < this.#bytes.length && (s.status & status.programError) === 0) {
      if (this.#o.readOnly) s.status |= status.programError;
      else {
        this.#bytes.set(s.buffer.subarray(0, Math.min(WRITE_BUFFER, this.#bytes.length - s.block)), s.block);
        this.#dirty(s.block, s.block + WRITE_BUFFER);
      }
      s.cycle = 0;
      s.status |= status.ready;
    } else this.#array();
  }

  #dirty(from: number, to: number): void {
    this.s.dirtyFrom = Math.min(this.s.dirtyFrom, from);
    this.s.dirtyTo = Math.max(this.s.dirtyTo, Math.min(to, this.#bytes.length));
    this.#o.changed?.();
  }
}

/** The query table (JESD68.01, section 2), one byte for each place. */
function cfiTable(length: number): Uint8Array {
  const t = new Uint8Array(0x52);
  const ascii = (at: number, text: string) => {
    for (const [i, c] of [...text].entries()) t[at + i] = c.charCodeAt(0);
  };
  ascii(0x10, 'QRY');
  // Intel extended command set, its table at 0x31; no alternate.
  t.set([1, 0, 0x31], 0x13);
  // Voltages; times of programming and erasing.
  t.set([0x45, 0x55, 0, 0, 7, 7, 0x0a, 0, 4, 4, 4, 0], 0x1b);
  t[0x27] = Math.floor(Math.log2(length));
  // 16 bits wide; write buffer; one region of equal blocks.
  t.set([2, 0, Math.log2(WRITE_BUFFER), 0, 1], 0x28);
  const blocks = Math.floor(length / flashSector) - 1;
  t.set([blocks & 0xff, blocks >>> 8, (flashSector >>> 8) & 0xff, flashSector >>> 16], 0x2d);
  ascii(0x31, 'PRI10');
  t[0x3f] = 1;
  return t;
}
