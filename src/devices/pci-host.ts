// PCI bus 0: configuration mechanism #1 and ECAM, the mapping of BARs, and the routing of INTx. PCI Local Bus Specification 3.0, section 3.2.2.3; PCI Express Base Specification 3.0, section 7.2.2.
import type { Arena } from '../bits/arena.ts';
import { ones } from '../bits/fields.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import { type IrqLine, unconnected } from '../bus/irq.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';
import { command, type PciFunction, pci } from './pci-function.ts';

export const pciHostLayout = struct({ address: 'u32' }, { name: 'pci-host', version: 1 });

/** Where free addresses are, for `assign`. Ends are exclusive. */
export interface PciWindows {
  readonly io: { readonly start: number; readonly end: number };
  readonly mem32: { readonly start: number; readonly end: number };
  /** For BARs of 64 bits that do not fit below 4 GiB. */
  readonly mem64?: { readonly start: number; readonly end: number };
}

export interface PciHostOptions {
  readonly arena: Arena;
  readonly ports: AddressSpace;
  /** Every vCPU's space. */
  readonly mmio: readonly AddressSpace[];
  /** PIRQA to PIRQH: pins 16 to 23 of the I/O APIC, and what the ISA bridge makes of them. */
  readonly pirqs: readonly IrqLine[];
  /** PIRQ of a slot's pin (1 to 4); `pirqOf` when left out. */
  readonly pirqOf?: (slot: number, pin: number) => number;
  /** Port 0xCF9, which lies among the bytes of the address register. */
  readonly resetControl?: Handler;
}

/** INTA to INTD (1 to 4) of a slot: the index of its PIRQ, 0 (A) to 7 (H). Slots 0 to 24 rotate over E to H, 25 to 31 have A to D. */
export const pirqOf = (slot: number, pin: number): number => (slot < 25 ? ((slot + pin - 1) & 3) + 4 : (pin - 1) & 3);

interface Placed {
  readonly slot: number;
  readonly fn: number;
  readonly f: PciFunction;
}

export class PciHost {
  readonly #o: PciHostOptions;
  readonly #s: ViewOf<typeof pciHostLayout>;
  readonly #pirqOf: (slot: number, pin: number) => number;
  /** By slot * 8 + function. */
  readonly #functions: (PciFunction | undefined)[] = new Array(256).fill(undefined);
  readonly #placed: Placed[] = [];
  /** The ECAM window: 4 KiB per function, bus 0 first. */
  readonly ecam: Handler;

  constructor(o: PciHostOptions) {
    this.#o = o;
    this.#pirqOf = o.pirqOf ?? pirqOf;
    this.#s = o.arena.alloc(pciHostLayout);
    this.ecam = {
      read: (offset, size) => this.#read(Math.floor(offset / 0x1000), offset & 0xfff, size),
      write: (offset, size, value) => this.#write(Math.floor(offset / 0x1000), offset & 0xfff, size, value),
    };
    o.ports.map(0xcf8, 4, this.#addressPort(), 'pci address');
    o.ports.map(
      0xcfc,
      4,
      {
        read: (offset, size) => {
          const a = this.#s.address;
          return a & 0x8000_0000 ? this.#read((a >>> 8) & 0xffff, (a & 0xfc) + offset, size) : ones(size);
        },
        write: (offset, size, value) => {
          const a = this.#s.address;
          if (a & 0x8000_0000) this.#write((a >>> 8) & 0xffff, (a & 0xfc) + offset, size, value);
        },
      },
      'pci data',
    );
    o.ports.movable((map) => this.#mapBars(map, true));
    for (const space of o.mmio) space.movable((map) => this.#mapBars(map, false));
  }

  /** Resets the bus with all its functions. */
  reset(): void {
    this.#s.address = 0;
    for (const { f } of this.#placed) f.reset();
  }

  /** Plugs a function in. Throws where the place is taken. */
  add(f: PciFunction, slot: number, fn = 0): void {
    const at = slot * 8 + fn;
    if (!(slot >= 0 && slot < 32 && fn >= 0 && fn < 8))
      throw new Error(`Cannot add ${f.name} at ${slot}.${fn}: slots are 0 to 31, functions 0 to 7`);
    const other = this.#functions[at];
    if (other !== undefined) throw new Error(`Cannot add ${f.name} at ${slot}.${fn}: ${other.name} is there`);
    this.#functions[at] = f;
    this.#placed.push({ slot, fn, f });
    f.attach({ set: () => this.#route(slot, f) }, () => {
      this.#o.ports.changed();
      this.#o.mmio[0]!.changed();
    });
  }

  /** Takes a function out; its ranges are gone with it. */
  remove(f: PciFunction): void {
    const i = this.#placed.findIndex((p) => p.f === f);
    if (i < 0) return;
    const { slot, fn } = this.#placed[i]!;
    this.#placed.splice(i, 1);
    this.#functions[slot * 8 + fn] = undefined;
    f.attach(unconnected, () => {});
    this.#route(slot, f);
    this.#o.ports.changed();
    this.#o.mmio[0]!.changed();
  }

  /** First slot from `from` on that is free; -1 for none. */
  freeSlot(from = 1): number {
    for (let slot = from; slot < 32; slot++) if (!this.#placed.some((p) => p.slot === slot)) return slot;
    return -1;
  }

  /** All functions in order of their places. */
  functions(): readonly Placed[] {
    return this.#placed.toSorted((a, b) => a.slot * 8 + a.fn - b.slot * 8 - b.fn);
  }

  /**
   * Does the firmware's work, for boards that start a kernel directly: gives every BAR an address, the largest first, and
   * enables decoding and bus mastering. `line` tells the interrupt line register of a PIRQ. Throws when a window is full.
   */
  assign(windows: PciWindows, line: (pirq: number) => number): void {
    const next = { io: windows.io.start, mem32: windows.mem32.start, mem64: windows.mem64?.start ?? 0 };
    const place = (kind: 'io' | 'mem32' | 'mem64', size: number): number => {
      const window = windows[kind];
      const at = Math.ceil(next[kind] / size) * size;
      if (window === undefined || at + size > window.end) return -1;
      next[kind] = at + size;
      return at;
    };
    const all = this.functions().flatMap(({ f }) => f.bars.map((bar) => ({ f, bar })));
    for (const { f, bar } of all.toSorted((a, b) => b.bar.size - a.bar.size)) {
      let at = place(bar.kind === 'io' ? 'io' : 'mem32', bar.size);
      if (at < 0 && bar.kind === 'mem64') at = place('mem64', bar.size);
      if (at < 0) throw new Error(`Cannot place BAR ${bar.index} of ${f.name}: its window has no ${bar.size} bytes left`);
      f.setBar(bar, at);
    }
    for (const { slot, f } of this.#placed) {
      f.write(pci.command, 2, f.read(pci.command, 2) | command.io | command.memory | command.master);
      if (f.interruptPin !== 0) f.write(pci.interruptLine, 1, line(this.#pirqOf(slot, f.interruptPin)));
    }
  }

  #addressPort(): Handler {
    return {
      read: (offset, size) => {
        if (size === 4) return this.#s.address;
        return offset === 1 && size === 1 && this.#o.resetControl !== undefined ? this.#o.resetControl.read(0, 1) : ones(size);
      },
      write: (offset, size, value) => {
        if (size === 4) this.#s.address = (value & 0x80ff_fffc) >>> 0;
        else if (offset === 1 && size === 1) this.#o.resetControl?.write(0, 1, value);
      },
    };
  }

  #read(place: number, offset: number, size: number): number {
    const f = this.#functions[place];
    if (f === undefined) return ones(size);
    // No function has extended capabilities; that space reads as zeros.
    return offset + size > 256 ? 0 : f.read(offset, size);
  }

  #write(place: number, offset: number, size: number, value: number): void {
    if (offset + size <= 256) this.#functions[place]?.write(offset, size, value);
  }

  #mapBars(map: (r: { base: number; length: number; name: string; handler: Handler }) => void, io: boolean): void {
    for (const { f } of this.#placed) {
      const rom = io ? undefined : f.romRange();
      if (rom) map({ ...rom, name: `${f.name} ROM` });
      for (const bar of f.bars) {
        if ((bar.kind === 'io') !== io) continue;
        const base = f.barAddress(bar);
        if (base >= 0) map({ base, length: bar.size, name: `${f.name} BAR ${bar.index}`, handler: bar.handler });
      }
    }
  }

  /** True while any function pulls PIRQ `n`, 0 (A) to 7 (H). */
  pirqLevel(n: number): boolean {
    return this.#placed.some((p) => p.f.interruptPin !== 0 && this.#pirqOf(p.slot, p.f.interruptPin) === n && p.f.asserted);
  }

  #route(slot: number, f: PciFunction): void {
    if (f.interruptPin === 0) return;
    const n = this.#pirqOf(slot, f.interruptPin);
    this.#o.pirqs[n]?.set(this.pirqLevel(n) ? 1 : 0);
  }
}
