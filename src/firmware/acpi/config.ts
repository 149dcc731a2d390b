// What a board tells the ACPI and SMBIOS tables about itself, and the interrupt wiring of q35 and i440fx.
// Intel ICH9 datasheet (316972-004), sections 10.1.48–10.1.53 "DnnIR"; PIIX3 datasheet (290549), section 2.2.5 "PIRQRC".

export interface Window {
  readonly base: number;
  readonly size: number;
}

export interface PciConfig {
  /** Memory-mapped configuration space for buses 0 to 255, where the board has it; 256 MiB at `base`. */
  readonly mmconfig?: { readonly base: number };
  /** The windows that PCI devices may use, below and above 4 GiB. */
  readonly memory: readonly Window[];
  /** The GSI of pin 0–3 (INTA–INTD) of the device in `slot` (0–31) on bus 0. */
  readonly intx: (slot: number, pin: number) => number;
  /** Slots of bus 0 whose devices come and go by ACPI; the event methods and their ports are described where this is given. */
  readonly hotplug?: { readonly base: number; readonly slots: readonly number[] };
  /** _ADR of the ISA bridge: slot in the upper half, function in the lower. */
  readonly isaBridge: number;
}

/** A proximity domain's memory. */
export interface NumaRange extends Window {
  readonly node: number;
}

export interface AcpiConfig {
  /** APIC ids, the boot CPU first; ids from 255 up get x2APIC entries. */
  readonly cpus: readonly number[];
  /** Numbers of the CPUs that are not there yet. */
  readonly absent?: readonly number[];
  /** First of the ports by which CPUs come and go; their methods are described where this is given. */
  readonly cpuHotplug?: number;
  /** Modules of memory come and go: first port of what tells of them, how many there can be, and addresses at which they may lie. */
  readonly memoryHotplug?: { readonly port: number; readonly slots: number; readonly window: Window };
  readonly pci?: PciConfig;
  /** Proximity domains: memory, the domain of each CPU of `cpus`, and distances of all pairs, row by row. */
  readonly numa?: {
    readonly nodes: number;
    readonly memory: readonly NumaRange[];
    readonly cpus: readonly number[];
    readonly distances?: readonly number[];
  };
  /** ISA interrupts that are level-triggered and active high besides 9 (PCI interrupts on i440fx). */
  readonly levelIrqs?: readonly number[];
  /** There is no fixed hardware: events come by a generic event device, and sleep and reset are registers in memory. */
  readonly reduced?: {
    readonly events: number;
    readonly registers: number;
    readonly irq: number;
    readonly powerButton: number;
    readonly reset: number;
    readonly s5: number;
  };
  /** SLP_TYP of suspend to RAM, where the board has it: \\_S3. */
  readonly s3?: number;
  /** A second I/O APIC at 0xFEC1_0000, for GSI 24 to 47. */
  readonly secondIoapic?: boolean;
  /** Ports of the power management block (events; control at +4, timer at +8); 0x600 when not given. */
  readonly pmBase?: number;
  /** General-purpose event registers; 0x620 when not given, and 16 bytes. */
  readonly gpeBase?: number;
  readonly gpeLength?: number;
  readonly hpet?: boolean;
  /** Serial ports, `{ port: 0x3f8, irq: 4 }` for COM1. */
  readonly serial?: readonly { readonly port: number; readonly irq: number }[];
  readonly rtc?: boolean;
  readonly ps2?: boolean;
  /** True when a VGA display is there. */
  readonly vga?: boolean;
  /** fw_cfg at ports 0x510–0x51B. */
  readonly fwCfg?: boolean;
  /** Registers of the store of error records; 0 where firmware has not placed them yet. */
  readonly errorRecords?: number;
  /** Port of pvpanic. */
  readonly pvpanic?: number;
  /** Parallel ports. */
  readonly parallel?: readonly { readonly port: number; readonly irq: number }[];
  /** A floppy disk controller at ports 0x3F2 to 0x3F7, interrupt 6, DMA channel 2. */
  readonly floppy?: boolean;
  /** virtio-mmio devices. */
  readonly virtioMmio?: readonly { readonly base: number; readonly size: number; readonly gsi: number }[];
}

/** q35: slots 0–24 and 30 rotate over PIRQE–PIRQH, the chipset's own slots have PIRQA–PIRQD; PIRQA is GSI 16. */
export const q35Intx = (slot: number, pin: number): number =>
  slot < 25 || slot === 30 ? 20 + ((slot + pin) & 3) : 16 + (pin & 3);

/** i440fx: the slots rotate over PIRQA–PIRQD, which the firmware routes to ISA interrupts 10, 10, 11, 11. */
export const i440fxIntx = (slot: number, pin: number): number => [10, 10, 11, 11][(slot - 1 + pin) & 3]!;

/** The four serial ports of a PC. */
export const comPorts = [
  { port: 0x3f8, irq: 4 },
  { port: 0x2f8, irq: 3 },
  { port: 0x3e8, irq: 4 },
  { port: 0x2e8, irq: 3 },
] as const;

export const HPET_BASE = 0xfed0_0000;
export const SCI = 9;
