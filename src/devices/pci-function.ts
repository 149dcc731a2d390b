// One PCI function: its configuration space with a type 0 header, BARs, capabilities and INTx. PCI Local Bus Specification 3.0, chapter 6.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import { type IrqLine, unconnected } from '../bus/irq.ts';
import type { MemorySlot } from '../bus/slots.ts';
import type { Handler } from '../bus/space.ts';

/** A base address register; `size` is a power of two, at least 4 (io) or 16 (memory). `mem64` takes two registers. */
export interface Bar {
  readonly index: number;
  readonly kind: 'io' | 'mem32' | 'mem64';
  readonly size: number;
  readonly handler: Handler;
  /** What monitors call its range. */
  readonly name?: string;
  readonly prefetchable?: boolean;
  /** Plain memory behind the BAR (`host`: see `MemorySlot`), which the guest reaches without `handler`; the size is at least 4,096. */
  readonly memory?: { readonly slot: MemorySlot; readonly host: number };
}

export interface PciFunctionOptions {
  readonly arena: Arena;
  /** Unique in the machine; names the state in snapshots. */
  readonly name: string;
  readonly vendor: number;
  readonly device: number;
  /** Base class, subclass and interface, 24 bits. */
  readonly classCode: number;
  readonly revision?: number;
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
  /** INTA is 1; 0 or absent for none. */
  readonly interruptPin?: 0 | 1 | 2 | 3 | 4;
  readonly multifunction?: boolean;
  /** A bridge to another bus: a type 1 header (PCI-to-PCI Bridge Architecture Specification 1.2, chapter 3). */
  readonly bridge?: boolean;
  readonly bars?: readonly Bar[];
}

export const pciConfigLayout = struct({ config: ['u8', 256] }, { name: 'pci', version: 1 });

/** Offsets of the header. */
export const pci = {
  vendor: 0,
  command: 4,
  status: 6,
  bar0: 0x10,
  rom: 0x30,
  capabilities: 0x34,
  interruptLine: 0x3c,
  interruptPin: 0x3d,
  /** Of bridges. */
  secondary: 0x19,
  subordinate: 0x1a,
  ioBase: 0x1c,
  memoryBase: 0x20,
  prefetchBase: 0x24,
  prefetchUpper: 0x28,
  ioUpper: 0x30,
  bridgeControl: 0x3e,
} as const;
export const command = { io: 1, memory: 2, master: 4, intxOff: 0x400 } as const;
const statusIntx = 8;
const statusCapabilities = 0x10;

/** Whether all of `length` bytes from `base` on, of ports or memory, come through. */
export type Reached = (io: boolean, base: number, length: number) => boolean;

export class PciFunction {
  readonly name: string;
  readonly bars: readonly Bar[];
  readonly interruptPin: number;
  readonly classCode: number;
  readonly #s: ViewOf<typeof pciConfigLayout>;
  /** Derived at construction: contents at reset, bits that can be written, bits that ones clear. */
  readonly #initial = new Uint8Array(256);
  readonly #writable = new Uint8Array(256);
  readonly #clearable = new Uint8Array(256);
  readonly #listeners: ((offset: number, size: number) => void)[] = [];
  #onRead: ((offset: number, size: number) => void) | undefined;
  #nextCapability = 0x40;
  #lastCapability: number = pci.capabilities;
  #line: IrqLine = unconnected;
  /** Set by the host: mappings may have changed. */
  #moved: () => void = () => {};
  /** Set by the host: whether the bridges above pass addresses on. */
  #reached: Reached = () => true;

  constructor(o: PciFunctionOptions) {
    this.name = o.name;
    this.bars = o.bars ?? [];
    this.interruptPin = o.interruptPin ?? 0;
    this.classCode = o.classCode;
    this.#s = o.arena.alloc(pciConfigLayout, o.name);
    const set = (at: number, value: number, bytes: number) => {
      for (let i = 0; i < bytes; i++) this.#initial[at + i] = value >>> (8 * i);
    };
    set(0x00, o.vendor, 2);
    set(0x02, o.device, 2);
    set(0x08, o.revision ?? 0, 1);
    set(0x09, o.classCode, 3);
    set(0x0e, (o.multifunction ? 0x80 : 0) | (o.bridge ? 1 : 0), 1);
    if (o.bridge) this.#bridgeHeader();
    else {
      set(0x2c, o.subsystemVendor ?? o.vendor, 2);
      set(0x2e, o.subsystem ?? o.device, 2);
    }
    set(0x3d, this.interruptPin, 1);
    this.writable(pci.command, [0x47, 0x05]);
    this.#clearable.set([0x00, 0xf9], pci.status);
    this.writable(0x0c, [0xff]);
    this.writable(pci.interruptLine, [0xff]);
    for (const b of this.bars) {
      const least = b.kind === 'io' ? 4 : 16;
      if (
        b.size < least ||
        2 ** Math.round(Math.log2(b.size)) !== b.size ||
        b.index < 0 ||
        b.index > (b.kind === 'mem64' ? 4 : 5)
      ) {
        throw new Error(
          `Cannot give ${o.name} BAR ${b.index} of ${b.size} bytes: sizes are powers of two from ${least}, indexes 0 to 5`,
        );
      }
      const at = pci.bar0 + 4 * b.index;
      set(at, (b.kind === 'io' ? 1 : b.kind === 'mem64' ? 4 : 0) | (b.prefetchable ? 8 : 0), 1);
      const mask = BigInt.asUintN(64, ~(BigInt(b.size) - 1n));
      for (let i = 0; i < (b.kind === 'mem64' ? 8 : 4); i++) this.#writable[at + i] = Number((mask >> BigInt(8 * i)) & 0xffn);
    }
  }

  /** Numbers of buses, windows with 32 bits of ports and 64 bits of prefetchable memory, control. */
  #bridgeHeader(): void {
    this.writable(0x18, [0xff, 0xff, 0xff, 0xff, 0xf0, 0xf0]);
    this.preset(pci.ioBase, [1, 1]);
    this.#clearable.set([0x00, 0xf9], 0x1e);
    this.writable(pci.memoryBase, [0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff, ...new Array<number>(12).fill(0xff)]);
    this.preset(pci.prefetchBase, [1, 0, 1, 0]);
    this.writable(pci.bridgeControl, [0x7f, 0x0f]);
  }

  /** Configuration space as it is after reset, all BARs at 0. */
  reset(): void {
    this.#s.config.set(this.#initial);
    this.#line.set(0);
    this.mapMemory();
    this.#moved();
  }

  /** Puts BARs of plain memory where the guest has them. */
  mapMemory(): void {
    for (const bar of this.bars) {
      if (bar.memory === undefined) continue;
      const address = this.reachedAt(bar);
      if (address < 0) bar.memory.slot.unmap();
      else bar.memory.slot.map(address, bar.size, bar.memory.host);
    }
  }

  // ── Building; on every thread alike, before `reset` ──

  /** Contents at reset from `offset` on. */
  preset(offset: number, bytes: readonly number[]): void {
    this.#initial.set(bytes, offset);
  }

  /** The header says that the slot has other functions as well. */
  setMultifunction(): void {
    this.#initial[0x0e] = this.#initial[0x0e]! | 0x80;
  }

  /** Bits that the guest can write from `offset` on. */
  writable(offset: number, bits: readonly number[]): void {
    this.#writable.set(bits, offset);
  }

  /** Bits from `offset` on that ones clear. */
  clearable(offset: number, bits: readonly number[]): void {
    this.#clearable.set(bits, offset);
  }

  /**
   * Adds a capability of `data.length + 2` bytes: its ID and link, then `data`, of which `writable` bits can be written.
   * Returns its offset.
   */
  addCapability(id: number, data: readonly number[], writable: readonly number[] = []): number {
    const at = this.#nextCapability;
    const end = Math.ceil((at + 2 + data.length) / 4) * 4;
    if (end > 256)
      throw new Error(
        `Cannot add capability 0x${id.toString(16)} to ${this.name}: ${256 - at} bytes are left, ${end - at} needed`,
      );
    this.#initial[pci.status] = this.#initial[pci.status]! | statusCapabilities;
    this.#initial[this.#lastCapability] = at;
    this.preset(at, [id, 0, ...data]);
    this.writable(at + 2, writable);
    this.#lastCapability = at + 1;
    this.#nextCapability = end;
    return at;
  }

  /** Whether there is a capability with this ID. */
  hasCapability(id: number): boolean {
    for (let at = this.#initial[pci.capabilities]!; at !== 0; at = this.#initial[at + 1]!)
      if (this.#initial[at] === id) return true;
    return false;
  }

  /** Where the next capability goes; for chips whose registers have fixed places. */
  startCapabilitiesAt(offset: number): void {
    this.#nextCapability = offset;
  }

  /** Calls `f` after each write of the guest to configuration space. */
  onWrite(f: (offset: number, size: number) => void): void {
    this.#listeners.push(f);
  }

  /** Calls `f` before each read of configuration space; `poke` gives what is to be read. */
  onRead(f: (offset: number, size: number) => void): void {
    this.#onRead = f;
  }

  /** Called by the host bridge. */
  attach(line: IrqLine, moved: () => void, reached: Reached = () => true): void {
    this.#line = line;
    this.#moved = moved;
    this.#reached = reached;
  }

  /**
   * Gives the function an expansion ROM: a power of two of bytes, at least 2,048 (PCI 3.0, section 6.2.5.2). With `anyModel` its first image
   * is read with the function's own identifiers: one image serves several models, and firmware takes none of others.
   */
  setRom(bytes: Uint8Array, anyModel = false): void {
    if (bytes.length < 2048 || (bytes.length & (bytes.length - 1)) !== 0)
      throw new Error(`Cannot give ${this.name} a ROM of ${bytes.length} bytes: accepted are powers of two from 2048`);
    this.#rom = bytes;
    this.#anyModel = anyModel;
    const mask = ~(bytes.length - 1);
    this.writable(pci.rom, [1, (mask >>> 8) & 0xff, (mask >>> 16) & 0xff, mask >>> 24]);
  }
  #rom: Uint8Array | undefined;
  #anyModel = false;

  /** Bytes of the ROM's first image that read otherwise than the file has them: identifiers, and the checksum's byte (PCI 3.0, sections 6.3.1.1, 6.3.1.2). */
  #romPatch(rom: Uint8Array): ReadonlyMap<number, number> {
    const patch = new Map<number, number>();
    const at = rom[0x18]! | (rom[0x19]! << 8);
    const valid = rom[0] === 0x55 && rom[1] === 0xaa && [...'PCIR'].every((c, i) => rom[at + i] === c.charCodeAt(0));
    if (!this.#anyModel || !valid) return patch;
    let sum = rom[6]!;
    for (let i = 0; i < 4; i++) {
      const own = this.read(pci.vendor + i, 1);
      sum += rom[at + 4 + i]! - own;
      patch.set(at + 4 + i, own);
    }
    return patch.set(6, sum & 0xff);
  }

  /** Bytes of the expansion ROM; 0 where there is none. */
  get romSize(): number {
    return this.#rom?.length ?? 0;
  }

  /** Where the expansion ROM is decoded, and what is behind it. */
  romRange(): { readonly base: number; readonly length: number; readonly handler: Handler } | undefined {
    const rom = this.#rom;
    const register = this.read(pci.rom, 4);
    if (rom === undefined || !(register & 1) || !(this.#s.config[pci.command]! & command.memory)) return undefined;
    const base = (register & 0xffff_f800) >>> 0;
    if (base === 0 || !this.#reached(false, base, rom.length)) return undefined;
    const patch = this.#romPatch(rom);
    return {
      ...{ base, length: rom.length },
      handler: {
        read(offset, size) {
          let value = 0;
          for (let i = offset + size - 1; i >= offset; i--) value = value * 256 + (patch.get(i) ?? rom[i]!);
          return value;
        },
        write: () => {},
      },
    };
  }

  // ── Configuration space ──

  read(offset: number, size: number): number {
    this.#onRead?.(offset, size);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + this.#s.config[offset + i]!;
    return value;
  }

  /** A write of the guest: read-only bits stay. With the board's lock held. */
  write(offset: number, size: number, value: number): void {
    const { config } = this.#s;
    const before = this.read(pci.command, 2);
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      const byte = (value >>> (8 * i)) & 0xff;
      const w = this.#writable[at]!;
      config[at] = ((config[at]! & ~w) | (byte & w)) & ~(byte & this.#clearable[at]!);
    }
    // From the command register to the expansion ROM: BARs, and a bridge's windows.
    if (offset < pci.rom + 4 && offset + size > pci.command) {
      this.mapMemory();
      this.#moved();
      if ((before ^ this.read(pci.command, 2)) & command.intxOff) this.#drive();
    }
    for (const f of this.#listeners) f(offset, size);
  }

  /** A write of the device itself, which is not held to what the guest may write. */
  poke(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.#s.config[offset + i] = value >>> (8 * i);
  }

  /** True when the guest lets the function read and write memory. */
  get busMaster(): boolean {
    return (this.#s.config[pci.command]! & command.master) !== 0;
  }

  /** Address of a BAR where it is decoded, -1 elsewhere and at 0. */
  barAddress(bar: Bar): number {
    const enabled = this.#s.config[pci.command]! & (bar.kind === 'io' ? command.io : command.memory);
    if (!enabled) return -1;
    const at = pci.bar0 + 4 * bar.index;
    const low = this.read(at, 4);
    if (bar.kind === 'io') return low & 0xfffc || -1;
    const high = bar.kind === 'mem64' ? this.read(at + 4, 4) : 0;
    return high * 2 ** 32 + ((low & 0xffff_fff0) >>> 0) || -1;
  }

  /** The same; -1 also where no bridge above has a window around it. */
  reachedAt(bar: Bar): number {
    const at = this.barAddress(bar);
    return at >= 0 && this.#reached(bar.kind === 'io', at, bar.size) ? at : -1;
  }

  /** Whether a bridge passes accesses on to the bus behind it. PCI-to-PCI Bridge Architecture Specification 1.2, section 3.2.5. */
  passes(io: boolean, base: number, length: number): boolean {
    const window = (low: number, high: number): boolean => base >= low && base + length - 1 <= high;
    const enabled = this.#s.config[pci.command]! & (io ? command.io : command.memory);
    if (!enabled) return false;
    const r = (at: number, size: 1 | 2 | 4): number => this.read(at, size);
    if (io) {
      const [low, high] = [r(pci.ioBase, 1), r(pci.ioBase + 1, 1)].map((v) => (v & 0xf0) << 8) as [number, number];
      return window(low + r(pci.ioUpper, 2) * 0x1_0000, high + 0xfff + r(pci.ioUpper + 2, 2) * 0x1_0000);
    }
    const memory = (at: number, upper: number): number => (r(at, 2) & 0xfff0) * 0x1_0000 + upper * 2 ** 32;
    return (
      window(memory(pci.memoryBase, 0), memory(pci.memoryBase + 2, 0) + 0xf_ffff) ||
      window(
        memory(pci.prefetchBase, r(pci.prefetchUpper, 4)),
        memory(pci.prefetchBase + 2, r(pci.prefetchUpper + 4, 4)) + 0xf_ffff,
      )
    );
  }

  /** Sets a BAR's address, as firmware does. */
  setBar(bar: Bar, address: number): void {
    const at = pci.bar0 + 4 * bar.index;
    this.write(at, 4, (address % 2 ** 32) >>> 0);
    if (bar.kind === 'mem64') this.write(at + 4, 4, Math.floor(address / 2 ** 32));
  }

  /** The INTx wire, by the function's level: it passes on unless the guest has turned it off. With the board's lock held. */
  readonly intx: IrqLine = {
    set: (level) => {
      const { config } = this.#s;
      const was = config[pci.status]!;
      config[pci.status] = level ? was | statusIntx : was & ~statusIntx;
      if (config[pci.status] !== was) this.#drive();
    },
  };

  /** True while the function pulls its wire. */
  get asserted(): boolean {
    return (this.#s.config[pci.status]! & statusIntx) !== 0 && (this.read(pci.command, 2) & command.intxOff) === 0;
  }

  #drive(): void {
    this.#line.set(this.asserted ? 1 : 0);
  }
}
