// The generic event device of boards without ACPI's fixed hardware: events that the AML reads, and the registers of sleep and reset.
// ACPI specification 6.4, sections 4.8.3.7 "Sleep Control and Status Registers", 4.8.3.6 "Reset Register" and 5.6.9 "Interrupt-signaled
// ACPI events"; addresses and bits are those of QEMU's `acpi-ged`.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { IrqLine } from '../bus/irq.ts';
import { registers, rw, wo } from '../bus/registers.ts';
import type { AddressSpace } from '../bus/space.ts';

/** What the firmware's tables say of it. */
export const ged = {
  events: 0xfea0_0000,
  eventBytes: 4,
  registers: 0xfea0_0200,
  registerBytes: 3,
  irq: 9,
  /** The event's bit of a power button. */
  powerButton: 2,
  /** What the reset register takes, and SLP_TYP of S5. */
  reset: 0x42,
  s5: 5,
} as const;

const SLEEP_ENABLE = 0x20;

const gedLayout = struct({ events: 'u32' }, { name: 'ged', version: 1 });

export interface GedOptions {
  readonly arena: Arena;
  /** Edge-triggered. */
  readonly line: IrqLine;
  readonly powerOff: () => void;
  readonly reset: () => void;
}

const eventRegisters = registers<Ged>('acpi-ged', 4, [
  rw(0, 4, 'selector', (d) => d.takeEvents(), () => {}),
]); // biome-ignore format: one row per register
const powerRegisters = registers<Ged>('acpi-ged-regs', 3, [
  rw(0, 1, 'sleep control', () => 0, (d, v) => d.sleep(v)),
  rw(1, 1, 'sleep status', () => 0, () => {}),
  wo(2, 1, 'reset', (d, v) => d.resetBy(v)),
]); // biome-ignore format: one row per register

export class Ged {
  readonly s: ViewOf<typeof gedLayout>;
  readonly #o: GedOptions;

  constructor(o: GedOptions) {
    this.#o = o;
    this.s = o.arena.alloc(gedLayout);
  }
  map(space: AddressSpace): void {
    space.map(ged.events, ged.eventBytes, eventRegisters.bind(this), 'acpi-ged');
    space.map(ged.registers, ged.registerBytes, powerRegisters.bind(this), 'acpi-ged-regs');
  }
  reset(): void {
    this.s.events = 0;
  }
  /** Somebody presses the button. With the board's lock held. */
  powerButton(): void {
    this.s.events |= ged.powerButton;
    this.#o.line.set(1);
    this.#o.line.set(0);
  }

  // -- registers

  takeEvents(): number {
    const { events } = this.s;
    this.s.events = 0;
    return events;
  }
  sleep(v: number): void {
    if (v & SLEEP_ENABLE && ((v >>> 2) & 7) === ged.s5) this.#o.powerOff();
  }
  resetBy(v: number): void {
    if (v === ged.reset) this.#o.reset();
  }
}
