// Memory hot-plug by ACPI: the ports by which the DSDT's methods learn of memory that came or shall go. QEMU 7.2,
// docs/specs/acpi_mem_hotplug.rst.
import type { Arena } from '../bits/arena.ts';
import { PLUG_SLOTS_MAX } from '../bits/slot-table.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';

export const memoryHotplugLayout = struct(
  {
    selector: 'u32',
    inserting: ['u8', PLUG_SLOTS_MAX],
    removing: ['u8', PLUG_SLOTS_MAX],
    ostEvent: ['u32', PLUG_SLOTS_MAX],
  },
  { name: 'memory-hotplug', version: 1 },
);
/** First port, their number, and the general-purpose event that is raised. */
export const memoryHotplug = { base: 0x0a00, length: 24, event: 3 } as const;

/** Bits of the flags. */
const flag = { enabled: 1, inserting: 2, removing: 4, eject: 8 } as const;

/** A piece of memory in a slot: guest-physical address, bytes and node. */
export interface MemoryModule {
  readonly addr: number;
  readonly size: number;
  readonly node: number;
}

export interface MemoryHotplugOptions {
  readonly arena: Arena;
  readonly slots: number;
  readonly inSlot: (slot: number) => MemoryModule | undefined;
  /** Raises general-purpose event n. */
  readonly gpe: (n: number) => void;
  /** The guest has let go of what is in a slot. */
  readonly eject: (slot: number) => void;
  /** What the guest's `_OST` says of a slot; ACPI 6.4, section 6.3.5. */
  readonly ost: (slot: number, event: number, status: number) => void;
}

export class MemoryHotplug {
  readonly s: ViewOf<typeof memoryHotplugLayout>;
  readonly #o: MemoryHotplugOptions;

  constructor(o: MemoryHotplugOptions) {
    this.#o = o;
    this.s = o.arena.alloc(memoryHotplugLayout);
  }

  reset(): void {
    const { s } = this;
    s.selector = 0;
    for (const list of [s.inserting, s.removing, s.ostEvent]) list.fill(0);
  }

  map(ports: AddressSpace): void {
    ports.map(memoryHotplug.base, memoryHotplug.length, this.handler, 'acpi-mem-hotplug');
  }

  /** Memory came. With the board's lock held, as what follows. */
  plugged(slot: number): void {
    this.s.inserting[slot] = 1;
    this.#o.gpe(memoryHotplug.event);
  }

  /** Asks the guest to let go of it. */
  request(slot: number): void {
    this.s.removing[slot] = 1;
    this.#o.gpe(memoryHotplug.event);
  }

  /** It is gone. */
  gone(slot: number): void {
    this.s.inserting[slot] = 0;
    this.s.removing[slot] = 0;
  }

  /** Reads: address and bytes (8 each), node (4), flags (1). Writes: selector, event and status of `_OST` (4 each); flags. */
  readonly handler: Handler = {
    max: 4,
    read: (offset) => {
      const { s } = this;
      const slot = s.selector;
      const here = slot < this.#o.slots ? this.#o.inSlot(slot) : undefined;
      if (!here) return 0;
      switch (offset) {
        case 0x0:
          return here.addr % 2 ** 32;
        case 0x4:
          return Math.floor(here.addr / 2 ** 32);
        case 0x8:
          return here.size % 2 ** 32;
        case 0xc:
          return Math.floor(here.size / 2 ** 32);
        case 0x10:
          return here.node;
        case 0x14:
          return flag.enabled | (s.inserting[slot]! * flag.inserting) | (s.removing[slot]! * flag.removing);
        default:
          return 0;
      }
    },
    write: (offset, _, value) => {
      const { s } = this;
      if (offset === 0) s.selector = value;
      const slot = s.selector;
      if (slot >= this.#o.slots) return;
      if (offset === 0x4) s.ostEvent[slot] = value;
      else if (offset === 0x8) this.#o.ost(slot, s.ostEvent[slot]!, value);
      else if (offset === 0x14) {
        if (value & flag.inserting) s.inserting[slot] = 0;
        else if (value & flag.removing) s.removing[slot] = 0;
        else if (value & flag.eject && this.#o.inSlot(slot)) this.#o.eject(slot);
      }
    },
  };
}
