// PCI buses behind a host bridge: configuration mechanism #1 and ECAM, the mapping of BARs, and the routing of INTx. PCI Local Bus Specification 3.0, section 3.2.2.3; PCI Express Base Specification 3.0, section 7.2.2.
import type { Arena } from '../bits/arena.ts';
import { ones } from '../bits/fields.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import { type IrqLine, unconnected } from '../bus/irq.ts';
import type { AddressSpace, Handler, Region } from '../bus/space.ts';
import { command, type PciFunction, pci } from './pci-function.ts';

/** The register that says where the next access to configuration space goes. */
export const CONFIG_ADDRESS = { port: 0xcf8, size: 4 } as const;

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

/** One bus: the host bridge's own, or one behind a bridge. */
interface Segment {
  readonly bridge: PciFunction | undefined;
  /** By slot * 8 + function. */
  readonly functions: (PciFunction | undefined)[];
  readonly placed: Placed[];
}
const segment = (bridge: PciFunction | undefined): Segment => ({ bridge, functions: new Array(256).fill(undefined), placed: [] });

/** A bus behind a bridge. */
export interface SecondaryBus {
  add(f: PciFunction, slot: number, fn: number): void;
  remove(f: PciFunction): void;
  /** First slot that is free; -1 for none. */
  freeSlot(from?: number): number;
  functions(): readonly Placed[];
  /** The bus is gone with its bridge. */
  close(): void;
}

export class PciHost {
  readonly #o: PciHostOptions;
  readonly #s: ViewOf<typeof pciHostLayout>;
  readonly #pirqOf: (slot: number, pin: number) => number;
  readonly #root = segment(undefined);
  /** The root first. */
  readonly #segments: Segment[] = [this.#root];
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
    o.ports.map(CONFIG_ADDRESS.port, CONFIG_ADDRESS.size, this.#addressPort(), 'pci-conf-idx');
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
      'pci-conf-data',
    );
    o.ports.movable((map) => this.#mapBars(map, true));
    for (const space of o.mmio) space.movable((map) => this.#mapBars(map, false));
  }

  /** Resets the bus with all its functions. */
  reset(): void {
    this.#s.address = 0;
    for (const { placed } of this.#segments) for (const { f } of placed) f.reset();
  }

  /** Plugs a function in. Throws where the place is taken. */
  add(f: PciFunction, slot: number, fn = 0): void {
    this.#add(this.#root, f, slot, fn);
  }
  #add(to: Segment, f: PciFunction, slot: number, fn: number): void {
    const at = slot * 8 + fn;
    if (!(slot >= 0 && slot < 32 && fn >= 0 && fn < 8))
      throw new Error(`Cannot add ${f.name} at ${slot}.${fn}: slots are 0 to 31, functions 0 to 7`);
    const other = to.functions[at];
    if (other !== undefined) throw new Error(`Cannot add ${f.name} at ${slot}.${fn}: ${other.name} is there`);
    to.functions[at] = f;
    to.placed.push({ slot, fn, f });
    f.attach(
      { set: () => this.#route(to, slot, f) },
      () => this.#moved(f),
      (io, base, length) => this.#reaches(to, io, base, length),
    );
  }
  /** A function's BARs or a bridge's windows are others. */
  #moved(f: PciFunction): void {
    this.#mapBehind(f);
    this.#changed();
  }
  #mapBehind(bridge: PciFunction): void {
    for (const s of this.#segments) {
      if (s.bridge !== bridge) continue;
      for (const { f } of s.placed) {
        f.mapMemory();
        this.#mapBehind(f);
      }
    }
  }
  /** Whether accesses come to a bus through all bridges above it. */
  #reaches(s: Segment, io: boolean, base: number, length: number): boolean {
    const { bridge } = s;
    if (bridge === undefined) return true;
    const above = this.#segments.find((other) => other.placed.some((p) => p.f === bridge));
    return above !== undefined && bridge.passes(io, base, length) && this.#reaches(above, io, base, length);
  }
  #changed(): void {
    this.#o.ports.changed();
    this.#o.mmio[0]!.changed();
  }

  /** Takes a function out; its ranges are gone with it. */
  remove(f: PciFunction): void {
    this.#remove(this.#root, f);
  }
  #remove(from: Segment, f: PciFunction): void {
    const i = from.placed.findIndex((p) => p.f === f);
    if (i < 0) return;
    const { slot, fn } = from.placed[i]!;
    from.placed.splice(i, 1);
    from.functions[slot * 8 + fn] = undefined;
    f.attach(unconnected, () => {});
    this.#route(from, slot, f);
    this.#changed();
  }

  /** First slot from `from` on that is free; -1 for none. */
  freeSlot(from = 1): number {
    return free(this.#root, from);
  }

  /** The bus behind a bridge, which is plugged in already or will be. */
  behind(bridge: PciFunction): SecondaryBus {
    const s = segment(bridge);
    this.#segments.push(s);
    return {
      add: (f, slot, fn) => this.#add(s, f, slot, fn),
      remove: (f) => this.#remove(s, f),
      freeSlot: (from = 0) => free(s, from),
      functions: () => sorted(s),
      close: () => {
        this.#segments.splice(this.#segments.indexOf(s), 1);
        this.#changed();
      },
    };
  }

  /** All buses, the root first: the bridge that each is behind, and what is on it. */
  buses(): readonly { readonly bridge: PciFunction | undefined; readonly functions: readonly Placed[] }[] {
    return this.#segments.map((s) => ({ bridge: s.bridge, functions: sorted(s) }));
  }

  /** All functions in order of their places. */
  functions(): readonly Placed[] {
    return sorted(this.#root);
  }

  /**
   * Does the firmware's work, for boards that start a kernel directly: gives every BAR an address, the largest first, numbers buses,
   * opens windows of bridges, and enables decoding and bus mastering. `line` tells the interrupt line register of a PIRQ. Throws when a
   * window is full.
   */
  assign(windows: PciWindows, line: (pirq: number) => number): void {
    const next = { io: windows.io.start, mem32: windows.mem32.start, mem64: windows.mem64?.start ?? 0 };
    const align = (kind: 'io' | 'mem32', to: number): number => (next[kind] = Math.ceil(next[kind] / to) * to);
    let buses = 0;
    const place = (kind: 'io' | 'mem32' | 'mem64', size: number): number => {
      const window = windows[kind];
      const at = Math.ceil(next[kind] / size) * size;
      if (window === undefined || at + size > window.end) return -1;
      next[kind] = at + size;
      return at;
    };
    const bus = (s: Segment): void => {
      const all = sorted(s).flatMap(({ f }) => f.bars.map((bar) => ({ f, bar })));
      for (const { f, bar } of all.toSorted((a, b) => b.bar.size - a.bar.size)) {
        let at = place(bar.kind === 'io' ? 'io' : 'mem32', bar.size);
        // A window of a bridge is below 4 GiB.
        if (at < 0 && bar.kind === 'mem64' && s.bridge === undefined) at = place('mem64', bar.size);
        if (at < 0) throw new Error(`Cannot place BAR ${bar.index} of ${f.name}: its window has no ${bar.size} bytes left`);
        f.setBar(bar, at);
      }
      for (const { slot, f } of sorted(s)) {
        f.write(pci.command, 2, f.read(pci.command, 2) | command.io | command.memory | command.master);
        if (f.interruptPin !== 0) f.write(pci.interruptLine, 1, line(this.#pirq(s, slot, f.interruptPin)));
        const behind = this.#segments.find((other) => other.bridge === f);
        if (behind) bridge(s, f, behind);
      }
    };
    const bridge = (above: Segment, f: PciFunction, behind: Segment): void => {
      const first = { io: align('io', 0x1000), memory: align('mem32', MIB) };
      f.write(0x18, 1, above.bridge?.read(pci.secondary, 1) ?? 0);
      f.write(pci.secondary, 1, ++buses);
      bus(behind);
      f.write(pci.subordinate, 1, buses);
      // Room for what is plugged in later.
      next.io = Math.max(next.io, first.io + 0x1000);
      next.mem32 = Math.max(next.mem32, first.memory + 2 * MIB);
      const last = { io: align('io', 0x1000) - 1, memory: align('mem32', MIB) - 1 };
      f.write(pci.ioBase, 2, ((first.io >>> 8) & 0xf0) | (last.io & 0xf000));
      f.write(pci.memoryBase, 4, ((first.memory >>> 16) & 0xfff0) | (last.memory & 0xfff0_0000));
      f.write(pci.prefetchBase, 4, 0xfff0);
    };
    bus(this.#root);
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

  #find(place: number): PciFunction | undefined {
    const bus = place >>> 8;
    const s = bus === 0 ? this.#root : this.#segments.find((other) => other.bridge?.read(pci.secondary, 1) === bus);
    return s?.functions[place & 0xff];
  }

  #read(place: number, offset: number, size: number): number {
    const f = this.#find(place);
    if (f === undefined) return ones(size);
    // No function has extended capabilities; that space reads as zeros.
    return offset + size > 256 ? 0 : f.read(offset, size);
  }

  #write(place: number, offset: number, size: number, value: number): void {
    if (offset + size <= 256) this.#find(place)?.write(offset, size, value);
  }

  #mapBars(map: (r: Region) => void, io: boolean): void {
    for (const { placed } of this.#segments) {
      for (const { f } of placed) {
        const rom = io ? undefined : f.romRange();
        if (rom) map({ ...rom, name: `${f.name}.rom`, bus: 'pci' });
        for (const bar of f.bars) {
          if ((bar.kind === 'io') !== io) continue;
          const base = f.reachedAt(bar);
          if (base >= 0)
            map({ base, length: bar.size, name: bar.name ?? `${f.name} BAR ${bar.index}`, handler: bar.handler, bus: 'pci' });
        }
      }
    }
  }

  /** PIRQ of a slot's pin; behind bridges pins rotate by slot (PCI-to-PCI Bridge Architecture Specification 1.2, section 9.1). */
  #pirq(s: Segment, slot: number, pin: number): number {
    let [at, place, wire] = [s, slot, pin];
    for (let depth = 0; at.bridge !== undefined && depth < 256; depth++) {
      wire = ((wire - 1 + place) & 3) + 1;
      const above = this.#segments.find((other) => other.placed.some((p) => p.f === at.bridge));
      if (above === undefined) return -1;
      place = above.placed.find((p) => p.f === at.bridge)!.slot;
      at = above;
    }
    return this.#pirqOf(place, wire);
  }

  /** True while any function pulls PIRQ `n`, 0 (A) to 7 (H). */
  pirqLevel(n: number): boolean {
    return this.#segments.some((s) =>
      s.placed.some((p) => p.f.interruptPin !== 0 && p.f.asserted && this.#pirq(s, p.slot, p.f.interruptPin) === n),
    );
  }

  #route(s: Segment, slot: number, f: PciFunction): void {
    if (f.interruptPin === 0) return;
    const n = this.#pirq(s, slot, f.interruptPin);
    this.#o.pirqs[n]?.set(this.pirqLevel(n) ? 1 : 0);
  }
}

const MIB = 1 << 20;
const sorted = (s: Segment): readonly Placed[] => s.placed.toSorted((a, b) => a.slot * 8 + a.fn - b.slot * 8 - b.fn);
function free(s: Segment, from: number): number {
  for (let slot = from; slot < 32; slot++) if (!s.placed.some((p) => p.slot === slot)) return slot;
  return -1;
}
