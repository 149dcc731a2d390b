// The SMBus host controller of PIIX4 and ICH9, and the EEPROMs on its bus. Intel ICH9 datasheet (316972), section 22.2; System Management Bus
// Specification 2.0, section 5.5 "Bus Protocols"; what is left open as QEMU has it.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import { type IrqLine, unconnected } from '../bus/irq.ts';
import { registers, rw } from '../bus/registers.ts';
import type { Handler } from '../bus/space.ts';
import { PciFunction } from './pci-function.ts';
import type { PciHost } from './pci-host.ts';

/** Places of the EEPROMs on the bus, where memory modules have theirs; each has 256 bytes, all zeros. */
export const eeproms = { first: 0x50, count: 8, bytes: 256 } as const;
const BLOCK = 32;

export const smbusLayout = struct(
  {
    status: 'u8',
    control: 'u8',
    command: 'u8',
    address: 'u8',
    data: ['u8', 2],
    auxiliary: 'u8',
    /** The byte of a block that the guest sees, all of them, and which one it is. */
    byte: 'u8',
    block: ['u8', BLOCK],
    index: 'u8',
    /** A block is under way byte by byte: 1 out, 2 in, 3 in as they are taken from an EEPROM. */
    inBlock: 'u8',
    /** A transaction begins when its status is asked for. */
    waits: 'u8',
    /** Addresses in the EEPROMs. */
    places: ['u8', eeproms.count],
    memory: ['u8', eeproms.count * eeproms.bytes],
  },
  { name: 'smbus', version: 2 },
);
const status = { busy: 1, done: 2, deviceError: 4, failed: 0x10, byteDone: 0x80 } as const;
const control = { interrupts: 1, kill: 2, last: 0x20, start: 0x40, readable: 0x1f } as const;
/** Blocks are in a buffer, through which the data register goes. */
const buffered = 2;
const protocol = { quick: 0, byte: 1, byteData: 2, wordData: 3, block: 5, i2cRead: 6 } as const;

export class Smbus {
  readonly s: ViewOf<typeof smbusLayout>;
  readonly handler: Handler;
  readonly #irq: IrqLine;

  constructor(arena: Arena, irq: IrqLine = unconnected) {
    this.s = arena.alloc(smbusLayout);
    this.#irq = irq;
    this.handler = smbusRegisters.bind(this);
  }

  reset(): void {
    const { s } = this;
    Object.assign(s, { status: 0, control: 0, command: 0, address: 0, auxiliary: 0, byte: 0, index: 0, inBlock: 0, waits: 0 });
    for (const bytes of [s.data, s.block, s.places, s.memory]) bytes.fill(0);
    this.#drive();
  }

  readStatus(): number {
    const { s } = this;
    const now = s.status;
    if (s.waits) {
      s.waits = 0;
      s.status &= ~status.busy;
      this.#transact();
    }
    return now;
  }
  /** Ones clear; a byte that is done makes way for the next one. */
  clear(ones: number): void {
    const { s } = this;
    s.status &= ~(ones & ~status.busy);
    if (ones & status.byteDone && s.inBlock && !this.#buffered) this.#nextByte();
    this.#drive();
  }
  writeControl(v: number): void {
    const { s } = this;
    s.control = v & ~control.start;
    if (v & control.start) {
      this.#leaveBlock();
      if (v & control.interrupts) this.#transact();
      else {
        s.status |= status.busy;
        s.waits = 1;
      }
    }
    if (v & control.kill) {
      s.inBlock = 0;
      s.index = 0;
      s.status = (s.status | status.failed) & ~status.busy;
    }
    this.#drive();
  }
  readControl(): number {
    // What follows begins at the buffer's start.
    this.s.index = 0;
    return this.s.control & control.readable;
  }
  readBlock(): number {
    const { s } = this;
    if (!this.#buffered) return s.byte;
    const byte = s.block[s.index]!;
    this.#advance();
    return byte;
  }
  writeBlock(v: number): void {
    const { s } = this;
    if (this.#buffered) {
      s.block[s.index] = v;
      this.#advance();
    } else s.byte = v;
  }
  get #buffered(): boolean {
    return (this.s.auxiliary & buffered) !== 0 && this.s.inBlock !== 3;
  }
  #advance(): void {
    this.s.index = (this.s.index + 1) % BLOCK;
  }

  #drive(): void {
    this.#irq.set(this.s.control & control.interrupts && this.s.status & ~status.busy ? 1 : 0);
  }

  #transact(): void {
    const { s } = this;
    const { address, command, data } = s;
    const read = (address & 1) !== 0;
    const chip = (address >>> 1) - eeproms.first;
    const kind = (s.control >>> 2) & 7;
    // An error has to be cleared first.
    if (s.status & status.deviceError || chip < 0 || chip >= eeproms.count) return this.#fail();
    switch (kind) {
      case protocol.quick:
        break;
      case protocol.byte:
        if (read) data[0] = this.#take(chip);
        else this.#select(chip, command);
        break;
      case protocol.byteData:
        this.#select(chip, command);
        if (read) data[0] = this.#take(chip);
        else this.#put(chip, data[0]!);
        break;
      case protocol.wordData:
        this.#select(chip, command);
        for (const n of [0, 1] as const) {
          if (read) data[n] = this.#take(chip);
          else this.#put(chip, data[n]!);
        }
        break;
      case protocol.block:
        if (read) {
          this.#select(chip, command);
          const length = this.#take(chip);
          data[0] = length > BLOCK ? 0 : length;
          return this.#readBlock(chip, data[0]!);
        }
        if (s.auxiliary & buffered) {
          // All of it has to be there.
          if (s.index !== data[0]) return this.#fail();
          s.index = 0;
          this.#writeBlock(chip);
          break;
        }
        s.index = 0;
        s.block[0] = s.byte;
        return this.#begin(1);
      case protocol.i2cRead:
        this.#select(chip, data[1]!);
        s.byte = this.#take(chip);
        return this.#begin(3);
      default:
        return this.#fail();
    }
    s.status |= status.done;
    this.#drive();
  }
  #fail(): void {
    this.s.status |= status.deviceError;
    this.#drive();
  }

  /** Fills the buffer. */
  #readBlock(chip: number, length: number): void {
    const { s } = this;
    s.index = 0;
    for (let i = 0; i < length; i++) s.block[i] = this.#take(chip);
    if (s.auxiliary & buffered) {
      s.status |= status.done;
      this.#drive();
      return;
    }
    s.byte = s.block[0]!;
    this.#begin(2);
  }
  #begin(way: 1 | 2 | 3): void {
    this.s.inBlock = way;
    this.s.status |= status.busy | status.byteDone;
    this.#drive();
  }
  #nextByte(): void {
    const { s } = this;
    this.#advance();
    if (s.inBlock === 1) {
      if (s.index !== s.data[0]!) {
        s.block[s.index] = s.byte;
        s.status |= status.byteDone;
        return;
      }
      this.#writeBlock((s.address >>> 1) - eeproms.first);
    } else {
      s.byte = s.inBlock === 3 ? this.#take(((s.address >>> 1) - eeproms.first) & (eeproms.count - 1)) : s.block[s.index]!;
      if (!(s.control & control.last)) {
        s.status |= status.byteDone;
        return;
      }
    }
    this.#leaveBlock();
    s.status = (s.status | status.done) & ~status.busy;
  }
  #leaveBlock(): void {
    if (this.s.inBlock) this.s.index = 0;
    this.s.inBlock = 0;
  }
  /** Writes the buffer's first bytes behind their number. */
  #writeBlock(chip: number): void {
    const { s } = this;
    const length = Math.min(s.data[0]!, BLOCK);
    if (chip < 0 || chip >= eeproms.count) return this.#fail();
    this.#select(chip, s.command);
    this.#put(chip, length);
    for (let i = 0; i < length; i++) this.#put(chip, s.block[i]!);
  }

  // An EEPROM's address counts up with each byte.
  #select(chip: number, at: number): void {
    this.s.places[chip] = at;
  }
  #take(chip: number): number {
    const { memory, places } = this.s;
    return memory[chip * eeproms.bytes + places[chip]!++]!;
  }
  #put(chip: number, byte: number): void {
    const { memory, places } = this.s;
    memory[chip * eeproms.bytes + places[chip]!++] = byte;
  }
}

/** ICH9's function, 8086:2930 at 1f.3. */
export function ich9Smbus(arena: Arena, host: PciHost): { readonly f: PciFunction; reset(): void } {
  const smbus: Smbus = new Smbus(arena, { set: (level) => f.intx.set(level) });
  const f: PciFunction = new PciFunction({
    ...{ arena, name: 'ich9-smbus', vendor: 0x8086, device: 0x2930, revision: 2, classCode: 0x0c_0500, multifunction: true },
    ...{ subsystemVendor: 0x1af4, subsystem: 0x1100, interruptPin: 1 as const },
    bars: [{ index: 4, kind: 'io', name: 'pm-smbus', size: 0x40, handler: smbus.handler }],
  });
  // Host configuration.
  f.writable(0x40, [0x1f]);
  host.add(f, 31, 3);
  return { f, reset: () => smbus.reset() };
}

const field = (offset: number, name: string, of: 'command' | 'address' | 'auxiliary') =>
  rw<Smbus>(
    offset,
    1,
    name,
    (d) => d.s[of],
    (d, v) => {
      d.s[of] = v;
    },
  );
/** Offsets from SMBBASE. */
export const smbusRegisters = registers<Smbus>('smbus', 0x40, [
  rw(
    0,
    1,
    'HST_STS',
    (d) => d.readStatus(),
    (d, v) => d.clear(v),
  ),
  rw(
    2,
    1,
    'HST_CNT',
    (d) => d.readControl(),
    (d, v) => d.writeControl(v),
  ),
  field(3, 'HST_CMD', 'command'),
  field(4, 'XMIT_SLVA', 'address'),
  ...[0, 1].map((i) =>
    rw<Smbus>(
      5 + i,
      1,
      `HST_D${i}`,
      (d) => d.s.data[i]!,
      (d, v) => {
        d.s.data[i] = v;
      },
    ),
  ),
  rw(
    7,
    1,
    'HOST_BLOCK_DB',
    (d) => d.readBlock(),
    (d, v) => d.writeBlock(v),
  ),
  field(13, 'AUX_CTL', 'auxiliary'),
]);
