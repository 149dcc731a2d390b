// One IDE channel with its bus master, as processors see it: task file, data port, interrupt. Commands are carried out by the I/O thread,
// see ide-io.ts. ATA/ATAPI-6 (T13/1410D), chapters 7 and 9; Intel "Programming Interface for Bus Master IDE Controller", revision 1.0.

import type { Arena } from '../bits/arena.ts';
import { ones } from '../bits/fields.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { Handler } from '../bus/space.ts';
import { type AtaDevice, ataStatus, SECTOR, type TaskFile } from './ata/device.ts';

/** Bytes of PIO data that go to or come from the I/O thread at once. */
export const IDE_BUFFER = 128 * SECTOR;

export const ideLayout = struct(
  {
    /** By drive: registers with their previous contents, for 48-bit commands. */
    feature: ['u8', 2],
    feature2: ['u8', 2],
    count: ['u8', 2],
    count2: ['u8', 2],
    low: ['u8', 2],
    low2: ['u8', 2],
    mid: ['u8', 2],
    mid2: ['u8', 2],
    high: ['u8', 2],
    high2: ['u8', 2],
    status: ['u8', 2],
    error: ['u8', 2],
    device: 'u8',
    control: 'u8',
    command: 'u8',
    /** See `phase`. */
    phase: 'u8',
    /** What the I/O thread is asked for: see `action`. Counted in `epoch`: results of an earlier one are dropped. */
    action: 'u8',
    irq: 'u8',
    /** The transfer under way is for a packet. */
    packet: 'u8',
    /** Data goes to the medium (or the target), not from it. */
    out: 'u8',
    epoch: 'u32',
    /** Position in the buffer, end of the block, end of what is in the buffer (or will be), bytes of a block. */
    at: 'u32',
    blockEnd: 'u32',
    end: 'u32',
    block: 'u32',
    /** What follows after the buffer: bytes, and where on the medium. */
    left: 'f64',
    offset: 'f64',
    /** Bus master. */
    bmCommand: 'u8',
    bmStatus: 'u8',
    bmTable: 'u32',
    buffer: ['u8', IDE_BUFFER],
  },
  { name: 'ide', version: 1 },
);

export const phase = { idle: 0, busy: 1, dataIn: 2, dataOut: 3, packet: 4, dma: 5 } as const;
export const action = { none: 0, command: 1, refill: 2, store: 3, packet: 4, dma: 5, reset: 6 } as const;
export const bm = { start: 1, toMemory: 8, active: 1, error: 2, interrupt: 4 } as const;
const control = { noInterrupt: 2, reset: 4, previous: 0x80 } as const;
const { busy, ready, seek, request, error: failed } = ataStatus;

export interface IdeChannelOptions {
  readonly arena: Arena;
  /** Unique in the machine. */
  readonly name: string;
  readonly irq: IrqLine;
  /** Wakes the I/O thread: `action` is set. */
  readonly ring: () => void;
  /** Does what the I/O thread would be asked for; false where that is for it to do. */
  readonly atOnce?: (what: number) => boolean;
}

export class IdeChannel {
  readonly s: ViewOf<typeof ideLayout>;
  /** Master and slave. */
  readonly drives: (AtaDevice | undefined)[] = [undefined, undefined];
  readonly #o: IdeChannelOptions;
  readonly #data16: DataView;

  constructor(o: IdeChannelOptions) {
    this.#o = o;
    this.s = o.arena.alloc(ideLayout, o.name);
    const { buffer } = this.s;
    this.#data16 = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }

  /** Plugs a drive in, 0 the master or 1 the slave. Throws where one is. */
  add(unit: 0 | 1, drive: AtaDevice): void {
    if (this.drives[unit]) throw new Error(`Cannot add ${drive.o.name}: unit ${unit} of ${this.#o.name} is in use`);
    this.drives[unit] = drive;
  }

  reset(): void {
    const { s } = this;
    Object.assign(s, { device: 0, control: 0, command: 0, bmCommand: 0, bmStatus: 0, bmTable: 0 });
    this.#signatures();
    s.irq = 0;
    this.#o.irq.set(0);
  }

  /** Drive 0 or 1, whichever is selected. */
  get unit(): 0 | 1 {
    return this.s.device & 0x10 ? 1 : 0;
  }

  /** The command's registers. */
  taskFile(): TaskFile {
    const { s, unit } = this;
    return {
      command: s.command,
      feature: s.feature[unit]! | (s.feature2[unit]! << 8),
      count: s.count[unit]! | (s.count2[unit]! << 8),
      lba:
        (s.low[unit]! | (s.mid[unit]! << 8) | (s.high[unit]! << 16)) +
        (s.low2[unit]! | (s.mid2[unit]! << 8) | (s.high2[unit]! << 16)) * 2 ** 24,
      device: s.device,
    };
  }

  setLba(unit: number, lba: number): void {
    const { s } = this;
    s.low[unit] = lba % 256;
    s.mid[unit] = Math.floor(lba / 2 ** 8) % 256;
    s.high[unit] = Math.floor(lba / 2 ** 16) % 256;
    s.low2[unit] = Math.floor(lba / 2 ** 24) % 256;
    s.mid2[unit] = Math.floor(lba / 2 ** 32) % 256;
    s.high2[unit] = Math.floor(lba / 2 ** 40) % 256;
  }

  /** A software reset was taken back, and nothing is under way. With the board's lock held. */
  resetDone(): void {
    if (this.s.action === action.none && !(this.s.control & control.reset)) this.#signatures();
  }

  /** After a reset or diagnostics: every drive shows its signature. */
  #signatures(): void {
    const { s } = this;
    s.epoch++;
    Object.assign(s, { phase: phase.idle, action: action.none, at: 0, blockEnd: 0, end: 0, left: 0, packet: 0 });
    for (const unit of [0, 1] as const) this.signature(unit);
  }

  signature(unit: 0 | 1): void {
    const { s } = this;
    const drive = this.drives[unit];
    s.count[unit] = 1;
    this.setLba(unit, 0);
    // A drive that is absent leaves the bus at ones.
    const lba = drive ? drive.signature : 0xff_ff01;
    s.low[unit] = 1;
    s.mid[unit] = (lba >>> 8) & 0xff;
    s.high[unit] = (lba >>> 16) & 0xff;
    s.error[unit] = 1;
    s.status[unit] = drive ? (drive.packet ? 0 : ready | seek) : 0;
  }

  // ── Interrupt ──

  /** With the board's lock held, as all that follows. */
  interrupt(): void {
    const { s } = this;
    s.bmStatus |= bm.interrupt;
    if (s.control & control.noInterrupt) return;
    s.irq = 1;
    this.#o.irq.set(1);
  }

  #acknowledge(): void {
    this.s.irq = 0;
    this.#o.irq.set(0);
  }

  // ── Transfers of PIO: what the I/O thread starts and the data port steps through ──

  /** The buffer holds `end` bytes for the guest. */
  beginIn(end: number, block: number): void {
    const { s } = this;
    Object.assign(s, { phase: phase.dataIn, at: 0, end, block });
    this.#nextBlock();
    this.interrupt();
  }

  /** The guest is to fill `end` bytes of the buffer. */
  beginOut(end: number, block: number, interrupt: boolean): void {
    const { s } = this;
    Object.assign(s, { phase: phase.dataOut, at: 0, end, block });
    this.#nextBlock();
    if (interrupt) this.interrupt();
  }

  /** The guest is to send a packet. */
  beginPacket(): void {
    const { s, unit } = this;
    s.packet = 0;
    this.beginOut(12, 12, false);
    s.phase = phase.packet;
    s.count[unit] = 1;
  }

  #nextBlock(): void {
    const { s, unit } = this;
    s.blockEnd = Math.min(s.at + s.block, s.end);
    s.status[unit] = ready | seek | request;
    if (s.packet) {
      const size = s.blockEnd - s.at;
      s.mid[unit] = size & 0xff;
      s.high[unit] = size >>> 8;
      s.count[unit] = s.out ? 0 : 2;
    }
  }

  /** The command is over, with an interrupt. */
  complete(error = 0): void {
    const { s, unit } = this;
    s.phase = phase.idle;
    s.error[unit] = error;
    s.status[unit] = ready | seek | (error ? failed : 0);
    if (s.packet) s.count[unit] = 3;
    s.packet = 0;
    this.interrupt();
  }

  /** Asks the I/O thread for something. */
  ask(what: number): void {
    const { s, unit } = this;
    if (this.#o.atOnce?.(what)) return;
    s.phase = phase.busy;
    s.status[unit] = busy | ready | seek;
    s.action = what;
    this.#o.ring();
  }

  #blockDone(): void {
    const { s } = this;
    if (s.phase === phase.packet) {
      s.packet = 1;
      this.ask(action.packet);
    } else if (s.at < s.end) {
      this.#nextBlock();
      this.interrupt();
    } else if (s.phase === phase.dataOut) this.ask(action.store);
    else if (s.left > 0) this.ask(action.refill);
    else if (s.packet) this.complete();
    else {
      // A PIO read ends without an interrupt.
      s.phase = phase.idle;
      s.status[this.unit] = ready | seek;
    }
  }

  #readData(size: number): number {
    const { s } = this;
    if (s.phase !== phase.dataIn || s.at + size > s.blockEnd) {
      // The last word may be half of a double word.
      if (s.phase === phase.dataIn && size === 4) return this.#readData(2) + this.#readData(2) * 0x1_0000;
      return s.phase === phase.dataIn ? this.#readTail() : ones(size);
    }
    const value =
      size === 2 ? this.#data16.getUint16(s.at, true) : size === 4 ? this.#data16.getUint32(s.at, true) : s.buffer[s.at]!;
    s.at += size;
    if (s.at === s.blockEnd) this.#blockDone();
    return value;
  }

  /** A byte count that is odd ends in half a word. */
  #readTail(): number {
    const { s } = this;
    const value = s.buffer[s.at] ?? 0;
    s.at = s.blockEnd;
    this.#blockDone();
    return value;
  }

  #writeData(size: number, value: number): void {
    const { s } = this;
    if (s.phase !== phase.dataOut && s.phase !== phase.packet) return;
    for (let i = 0; i < size && s.at < s.blockEnd; i++) s.buffer[s.at++] = value >>> (8 * i);
    if (s.at >= s.blockEnd) this.#blockDone();
  }

  // ── Registers ──

  /** The eight ports of the command block. */
  readonly commandBlock: Handler = {
    max: 4,
    read: (offset, size) => {
      if (offset === 0) return this.#readData(size);
      let value = 0;
      for (let i = size - 1; i >= 0; i--) value = value * 256 + this.#register(offset + i);
      return value;
    },
    write: (offset, size, value) => {
      if (offset === 0) this.#writeData(size, value);
      else for (let i = 0; i < size; i++) this.#setRegister(offset + i, (value >>> (8 * i)) & 0xff);
    },
  };

  /** The port of the control block: alternate status, device control. */
  readonly controlBlock: Handler = {
    max: 1,
    read: () => this.#status(),
    write: (_, __, value) => this.#control(value),
  };

  #status(): number {
    return this.drives[this.unit] ? this.s.status[this.unit]! : 0;
  }

  #register(offset: number): number {
    const { s, unit } = this;
    const hob = (s.control & control.previous) !== 0;
    // An empty channel reads as zeros, an absent slave shows what its master last got.
    if (offset !== 7 && !this.drives[0] && !this.drives[1]) return 0;
    switch (offset) {
      case 1:
        return hob ? s.feature2[unit]! : this.drives[unit] ? s.error[unit]! : 0;
      case 2:
        return (hob ? s.count2 : s.count)[unit]!;
      case 3:
        return (hob ? s.low2 : s.low)[unit]!;
      case 4:
        return (hob ? s.mid2 : s.mid)[unit]!;
      case 5:
        return (hob ? s.high2 : s.high)[unit]!;
      case 6:
        return s.device | 0xa0;
      default:
        this.#acknowledge();
        return this.#status();
    }
  }

  #setRegister(offset: number, value: number): void {
    const { s } = this;
    const both = (current: Uint8Array, previous: Uint8Array): void => {
      for (const unit of [0, 1]) {
        previous[unit] = current[unit]!;
        current[unit] = value;
      }
      s.control &= ~control.previous;
    };
    // While a command is under way, only a reset gets through.
    if (s.status[this.unit]! & (busy | request) && offset !== 7) return;
    switch (offset) {
      case 1:
        both(s.feature, s.feature2);
        return;
      case 2:
        both(s.count, s.count2);
        return;
      case 3:
        both(s.low, s.low2);
        return;
      case 4:
        both(s.mid, s.mid2);
        return;
      case 5:
        both(s.high, s.high2);
        return;
      case 6:
        s.device = value & 0x5f;
        s.control &= ~control.previous;
        return;
      case 7:
        this.#command(value);
        return;
      default:
    }
  }

  #command(value: number): void {
    const { s, unit } = this;
    const drive = this.drives[unit];
    this.#acknowledge();
    if (!drive) return;
    // DEVICE RESET is taken at any time by ATAPI drives.
    if (s.status[unit]! & (busy | request) && !(value === 0x08 && drive.packet)) return;
    s.control &= ~control.previous;
    s.command = value;
    s.error[unit] = 0;
    s.epoch++;
    Object.assign(s, { packet: 0, out: 0, left: 0, at: 0, end: 0, blockEnd: 0 });
    this.ask(action.command);
  }

  #control(value: number): void {
    const { s } = this;
    const was = s.control;
    s.control = value;
    if (value & control.reset && !(was & control.reset)) {
      // All drives are busy until the bit is taken back.
      s.epoch++;
      s.phase = phase.busy;
      s.action = action.none;
      for (const unit of [0, 1]) s.status[unit] = busy | seek;
      this.#acknowledge();
    } else if (was & control.reset && !(value & control.reset)) {
      s.device = 0;
      s.action = action.reset;
      this.#o.ring();
    }
    if (value & control.noInterrupt) this.#o.irq.set(0);
    else if (s.irq) this.#o.irq.set(1);
  }

  // ── Bus master ──

  /** The eight ports of a channel. */
  readonly busMaster: Handler = {
    max: 4,
    read: (offset, size) => {
      const { s } = this;
      const words = [s.bmCommand | (s.bmStatus << 16), s.bmTable];
      const word = words[offset >>> 2]! >>> 0;
      return size === 4 ? word : (word >>> (8 * (offset & 3))) & ones(size);
    },
    write: (offset, size, value) => {
      const { s } = this;
      if (offset >= 4) {
        const shift = 8 * (offset - 4);
        const mask = size === 4 ? 0xffff_ffff : (ones(size) << shift) >>> 0;
        s.bmTable = (((s.bmTable & ~mask) | (value << shift)) & ~3) >>> 0;
        return;
      }
      for (let i = 0; i < size; i++) {
        const byte = (value >>> (8 * i)) & 0xff;
        if (offset + i === 0) this.#bmCommand(byte);
        else if (offset + i === 2) s.bmStatus = (byte & 0x60) | (s.bmStatus & ~0x60 & ~(byte & (bm.error | bm.interrupt)));
      }
    },
  };

  #bmCommand(value: number): void {
    const { s } = this;
    const starts = value & ~s.bmCommand & bm.start;
    const stops = ~value & s.bmCommand & bm.start;
    s.bmCommand = value & (bm.start | bm.toMemory);
    if (starts) {
      s.bmStatus |= bm.active;
      if (s.phase === phase.dma) this.ask(action.dma);
    }
    if (stops) s.bmStatus &= ~bm.active;
  }

  /** The most bytes of a block that a packet's data come in. */
  packetLimit(unit: number): number {
    const bytes = this.s.mid[unit]! | (this.s.high[unit]! << 8);
    // A limit of 0 is taken as the largest; an odd one is only good for a last block.
    return bytes === 0 || bytes === 0xffff ? 0xfffe : bytes & ~1 || 2;
  }

  /** A command of the DMA protocol is ready: it goes on once the bus master is started. True when it is. */
  waitForDma(): boolean {
    const { s, unit } = this;
    if (s.bmCommand & bm.start) return true;
    s.phase = phase.dma;
    s.status[unit] = ready | seek | request;
    return false;
  }
}
