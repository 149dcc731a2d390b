// PCI hot-plug by ACPI: the ports by which the DSDT's methods learn of devices that came or shall go. QEMU "ACPI PCI hotplug interface",
// docs/specs/acpi_pci_hotplug.rst.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import { registers, ro, wo } from '../bus/registers.ts';
import type { AddressSpace } from '../bus/space.ts';

export const acpiHotplugLayout = struct({ up: 'u32', down: 'u32' }, { name: 'acpi-hotplug', version: 1 });
/** Ports, and the general-purpose event that is raised. */
export const acpiHotplug = { base: 0xae00, length: 0x10, event: 1 } as const;

export interface AcpiHotplugOptions {
  readonly arena: Arena;
  /** Raises general-purpose event n. */
  readonly gpe: (n: number) => void;
  /** Slots whose devices may come and go, one bit for each. */
  readonly removable: () => number;
  /** The guest has let go of what is in a slot. */
  readonly eject: (slot: number) => void;
}

export class AcpiHotplug {
  readonly s: ViewOf<typeof acpiHotplugLayout>;
  readonly o: AcpiHotplugOptions;

  constructor(o: AcpiHotplugOptions) {
    this.o = o;
    this.s = o.arena.alloc(acpiHotplugLayout);
  }

  reset(): void {
    this.s.up = 0;
    this.s.down = 0;
  }

  map(ports: AddressSpace): void {
    ports.map(acpiHotplug.base, acpiHotplug.length, acpiHotplugRegisters.bind(this), 'acpi-pci-hotplug');
  }

  /** A device came into a slot. With the board's lock held, as what follows. */
  plugged(slot: number): void {
    this.s.up = (this.s.up | (1 << slot)) >>> 0;
    this.o.gpe(acpiHotplug.event);
  }

  /** Asks the guest to let go of what is in a slot. */
  request(slot: number): void {
    this.s.down = (this.s.down | (1 << slot)) >>> 0;
    this.o.gpe(acpiHotplug.event);
  }

  /** Slots that were filled, which is told once. */
  takeUp(): number {
    const { up } = this.s;
    this.s.up = 0;
    return up;
  }

  ejected(bits: number): void {
    this.s.down = (this.s.down & ~bits) >>> 0;
    for (let slot = 0; slot < 32; slot++) if (bits & (1 << slot)) this.o.eject(slot);
  }
}

/** Offsets from the first port. */
export const acpiHotplugRegisters = registers<AcpiHotplug>('acpi-hotplug', acpiHotplug.length, [
  ro(0x00, 4, 'PCIU', (d) => d.takeUp()),
  ro(0x04, 4, 'PCID', (d) => d.s.down),
  wo(0x08, 4, 'B0EJ', (d, v) => d.ejected(v)),
  ro(0x0c, 4, 'RMV', (d) => d.o.removable()),
]);
