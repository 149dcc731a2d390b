// The microvm board: what it has of a PC, where its virtio transports are, and what the kernel's command line says of them. Addresses,
// interrupts and options are QEMU 7.2's ("microvm machine"; hw/i386/microvm.c's constants).

import type { IrqLine } from '../bus/irq.ts';
import type { AddressSpace } from '../bus/space.ts';
import { emptyVirtioMmio, virtioMmioSize } from '../devices/virtio/mmio.ts';
import type { VirtioBus } from './buses.ts';
import type { MachineConfig } from './config.ts';

/** Parts of the board that can be left out: QEMU's options of `-M microvm`. */
export interface MicrovmParts {
  readonly pic: boolean;
  readonly pit: boolean;
  readonly rtc: boolean;
  readonly isaSerial: boolean;
  /** A second I/O APIC, whose pins are the transports'; with ACPI only. */
  readonly ioapic2: boolean;
  /** Transports are told on the kernel's command line where ACPI does not tell them. */
  readonly autoKernelCommandLine: boolean;
  /** Transports have the legacy registers: QEMU's `-global virtio-mmio.force-legacy`. */
  readonly legacyTransports: boolean;
}
export const microvmDefaults: MicrovmParts = {
  pic: true,
  pit: true,
  rtc: true,
  isaSerial: true,
  ioapic2: true,
  autoKernelCommandLine: true,
  legacyTransports: true,
};

/** Where a guest jumps to start its firmware again. */
export const RESET_VECTOR = 0xffff0;
/**
 * What is there without firmware: `lidt cs:[8]; int3`, with an empty table at 8. The triple fault is the reset that Linux does not find on
 * a board without ACPI and keyboard controller.
 */
export const tripleFault = Uint8Array.of(0x2e, 0x0f, 0x01, 0x1e, 0x08, 0x00, 0xcc, 0xf4, 0, 0, 0, 0, 0, 0, 0, 0);

const FIRST = 0xfeb0_0000;
const PINS = 24;

/** A transport with a device. */
export interface VirtioPlace {
  readonly base: number;
  readonly size: number;
  readonly gsi: number;
}

/** The parts of a machine's board; of other boards than microvm undefined. */
export const microvmParts = (config: MachineConfig): MicrovmParts | undefined =>
  config.machine === 'microvm' ? { ...microvmDefaults, ...config.microvm } : undefined;

/** Whether the second I/O APIC is there. */
export const hasIoapic2 = (config: MachineConfig): boolean =>
  (microvmParts(config)?.ioapic2 ?? false) && (config.acpi ?? true) && config.accel !== 'kvm';

/** The transports, the one that is used first at the beginning: QEMU's last. Each is a bus for one device. */
export function virtioBuses(config: MachineConfig, gsi: (n: number) => IrqLine, mmio: readonly AddressSpace[]): VirtioBus[] {
  const acpi = config.acpi ?? true;
  const [first, count] = hasIoapic2(config) ? [PINS, PINS] : [acpi ? 16 : 5, 8];
  const legacy = microvmParts(config)?.legacyTransports ?? false;
  const empty = emptyVirtioMmio(legacy);
  return Array.from({ length: count }, (_, n): VirtioBus => {
    const place = { base: FIRST + n * virtioMmioSize, size: virtioMmioSize, gsi: first + n };
    let device = empty;
    let used = false;
    const handler = {
      read: (offset: number, size: number) => device.read(offset, size),
      write: (offset: number, size: number, value: number) => device.write(offset, size, value),
      bells: () => device.bells?.() ?? [],
    };
    for (const space of mmio) space.map(place.base, place.size, handler, 'virtio-mmio');
    return {
      kind: 'virtio-bus',
      name: `virtio-mmio-bus.${n}`,
      hotplug: false,
      place,
      legacy,
      line: gsi(place.gsi),
      bootPath: `/virtio-mmio@${place.base.toString(16).padStart(16, '0')}`,
      hasRoom: () => !used,
      get used() {
        return used;
      },
      attach(h) {
        if (used) throw new Error(`Bus 'virtio-mmio-bus.${n}' is full`);
        used = true;
        device = h;
        return () => {
          used = false;
          device = empty;
        };
      },
    };
  }).reverse();
}

/** What the board adds to the kernel's command line. */
export function commandLineAddition(config: MachineConfig, places: readonly VirtioPlace[]): string {
  const parts = microvmParts(config);
  if (!parts?.autoKernelCommandLine || (config.acpi ?? true)) return '';
  return places.map((p) => ` virtio_mmio.device=${p.size}@0x${p.base.toString(16)}:${p.gsi}`).join('');
}
