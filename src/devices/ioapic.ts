// The I/O APIC: 24 pins at 0xFEC0_0000. Intel 82093AA datasheet (290566-001), section 3; the EOI register as in the ICH9 datasheet (316972), section 13.5.4.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import type { IrqLine } from '../bus/irq.ts';
import { registers, rw, wo } from '../bus/registers.ts';
import type { Handler } from '../bus/space.ts';
import { type ApicBus, delivery, type EoiListener, messageOf } from './apic-bus.ts';

export const ioapicPins = 24;

export const ioapicLayout = struct(
  {
    select: 'u32',
    id: 'u32',
    /** Redirection entries. */
    low: ['u32', ioapicPins],
    high: ['u32', ioapicPins],
    /** Levels of the pins. */
    levels: 'u32',
  },
  { name: 'ioapic', version: 1 },
);
type State = ViewOf<typeof ioapicLayout>;

const level = 0x8000;
const remoteIrr = 0x4000;
const masked = 0x1_0000;
const readOnly = 0x5000;
const version = 0x0017_0020;

export class Ioapic implements EoiListener {
  readonly s: State;
  readonly mmio: Handler;
  readonly #bus: ApicBus;
  readonly #first: boolean;

  /** The board's first one has no `instance`; only its pins are told to local APICs that are kept elsewhere. */
  constructor(o: { arena: Arena; bus: ApicBus; report?: Report; instance?: string }) {
    this.s = o.arena.alloc(ioapicLayout, o.instance);
    this.#first = o.instance === undefined;
    this.#bus = o.bus;
    this.mmio = ioapicRegisters.bind(this, o.report);
    o.bus.listen(this);
  }

  reset(): void {
    this.s.select = 0;
    this.s.id = 0;
    this.s.low.fill(masked);
    this.s.high.fill(0);
    this.rerouted();
  }

  /** The wire of pin `n`, 0 to 23. */
  pin(n: number): IrqLine {
    if (n < 0 || n >= ioapicPins) throw new Error(`Cannot wire pin ${n} of the I/O APIC: it has pins 0 to ${ioapicPins - 1}`);
    return { set: (l) => this.#set(n, l) };
  }

  eoi(vector: number): void {
    for (let n = 0; n < ioapicPins; n++) {
      const entry = this.s.low[n]!;
      if ((entry & 0xff) !== vector || (entry & remoteIrr) === 0) continue;
      this.s.low[n] = entry & ~remoteIrr;
      this.#serveLevel(n);
    }
  }

  /**
   * The local APICs were elsewhere, and are on the bus again. An end of an interrupt may not have come through: what none of them has any more is
   * over. A level that is high and not on its way goes out.
   */
  restored(): void {
    for (let n = 0; n < ioapicPins; n++) {
      const entry = this.s.low[n]!;
      if (entry & remoteIrr && !this.#bus.holds(entry & 0xff)) this.s.low[n] = entry & ~remoteIrr;
      this.#serveLevel(n);
    }
  }

  get window(): number {
    const { select, id, low, high } = this.s;
    if (select === 0 || select === 2) return id;
    if (select === 1) return version;
    const n = (select - 0x10) >> 1;
    if (select < 0x10 || n >= ioapicPins) return 0;
    return (select & 1 ? high : low)[n]!;
  }

  set window(value: number) {
    const { select, low, high } = this.s;
    if (select === 0) this.s.id = value & 0x0f00_0000;
    const n = (select - 0x10) >> 1;
    if (select < 0x10 || n >= ioapicPins) return;
    if (select & 1) {
      high[n] = value;
      this.rerouted();
      return;
    }
    let entry = (value & 0x1_ffff & ~readOnly) | (low[n]! & readOnly);
    // Guests without an EOI register end a stuck interrupt by making it edge-triggered for a moment.
    if ((entry & level) === 0) entry &= ~remoteIrr;
    low[n] = entry;
    this.rerouted();
    this.#serveLevel(n);
  }

  /** Tells local APICs that are kept elsewhere where the pins point. */
  rerouted(): void {
    const { remote } = this.#bus;
    if (!remote || !this.#first) return;
    remote.routes(
      Array.from({ length: ioapicPins }, (_, n) => {
        const entry = this.s.low[n]!;
        // A masked pin's interrupt may be in service: an accelerator tells the end of what it has a route for, and of nothing else.
        if (entry & masked && !(entry & remoteIrr)) return undefined;
        return messageOf(this.#destination(n), (entry & 0x800) !== 0, (entry >>> 8) & 7, entry & 0xff, (entry & level) !== 0);
      }),
    );
  }
  /** Bits 55:49 of an entry (the high word's 23:17) extend the destination to 15 bits, as KVM's MSI_EXT_DEST_ID has it. */
  #destination(n: number): number {
    const high = this.s.high[n]!;
    return (high >>> 24) | (((high >>> 17) & 0x7f) << 8);
  }

  #set(n: number, value: 0 | 1): void {
    const bit = 1 << n;
    const was = this.s.levels & bit;
    const chips = this.#first ? this.#bus.remote?.chips : undefined;
    if (chips) {
      // The levels are kept here all the same: they are what a chip that takes over begins with.
      this.s.levels = value ? this.s.levels | bit : this.s.levels & ~bit;
      chips.pin(n, value);
      return;
    }
    if (value === 0) {
      this.s.levels &= ~bit;
      return;
    }
    this.s.levels |= bit;
    if (this.s.low[n]! & level) this.#serveLevel(n);
    else if (was === 0 && (this.s.low[n]! & masked) === 0) this.#send(n);
  }

  #serveLevel(n: number): void {
    const entry = this.s.low[n]!;
    if ((entry & (level | masked | remoteIrr)) !== level || (this.s.levels & (1 << n)) === 0) return;
    if (this.#send(n)) this.s.low[n] = this.s.low[n]! | remoteIrr;
  }

  #send(n: number): boolean {
    const entry = this.s.low[n]!;
    const destination = this.#destination(n);
    const mode = (entry >>> 8) & 7;
    const levelTriggered = (entry & level) !== 0 && (mode === delivery.fixed || mode === delivery.lowest);
    const taken = this.#bus.send(destination, (entry & 0x800) !== 0, mode, entry & 0xff, levelTriggered, destination > 0xff);
    return taken && levelTriggered;
  }
}

/** The registers that a guest sees; those behind the window are in `window`. */
export const ioapicRegisters = registers<Ioapic>('ioapic', 0x1000, [
  rw(
    0x00,
    4,
    'IOREGSEL',
    (d) => d.s.select,
    (d, v) => {
      d.s.select = v & 0xff;
    },
  ),
  rw(0x10, 4, 'IOWIN', 'window'),
  wo(0x40, 4, 'EOI', (d, v) => d.eoi(v & 0xff)),
]);
