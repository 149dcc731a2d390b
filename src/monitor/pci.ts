// The functions on a machine's PCI buses as monitors show them. QEMU 7.2 "QEMU QMP Reference Manual", qapi/pci.json.

import { type PciFunction, pci } from '../devices/pci-function.ts';
import type { RunningMachine } from '../machine/running.ts';

/** Names of classes that QEMU's monitor knows (PCI ID repository, class and subclass). */
const classes: Readonly<Record<number, string>> = {
  256: 'SCSI controller',
  257: 'IDE controller',
  260: 'RAID controller',
  262: 'SATA controller',
  264: 'NVMe controller',
  512: 'Ethernet controller',
  768: 'VGA controller',
  896: 'Display controller',
  1536: 'Host bridge',
  1537: 'ISA bridge',
  1540: 'PCI bridge',
  1664: 'Bridge',
  3075: 'USB controller',
  3077: 'SMBus',
};

export interface PciRegion {
  readonly bar: number;
  readonly type: 'io' | 'memory';
  readonly address: number;
  readonly size: number;
  readonly prefetch?: boolean;
  readonly mem_type_64?: boolean;
}
export interface PciDeviceInfo {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  readonly class_info: { readonly desc?: string; readonly class: number };
  readonly id: {
    readonly device: number;
    readonly vendor: number;
    readonly subsystem?: number;
    readonly 'subsystem-vendor'?: number;
  };
  readonly irq?: number;
  readonly irq_pin: number;
  readonly qdev_id: string;
  readonly regions: readonly PciRegion[];
}

function describe(machine: RunningMachine, slot: number, fn: number, f: PciFunction): PciDeviceInfo {
  const classCode = f.read(0x0a, 2);
  const desc = classes[classCode];
  const user = machine.devices.list().find((d) => d.place?.slot === slot && d.place.fn === fn);
  return {
    bus: 0,
    slot,
    function: fn,
    class_info: { ...(desc === undefined ? {} : { desc }), class: classCode },
    id: { device: f.read(2, 2), vendor: f.read(0, 2), subsystem: f.read(0x2e, 2), 'subsystem-vendor': f.read(0x2c, 2) },
    ...(f.interruptPin === 0 ? {} : { irq: f.read(pci.interruptLine, 1) }),
    irq_pin: f.interruptPin,
    qdev_id: user?.id ?? '',
    regions: [
      ...f.bars.map(
        (bar): PciRegion => ({
          bar: bar.index,
          type: bar.kind === 'io' ? 'io' : 'memory',
          address: f.barAddress(bar),
          size: bar.size,
          ...(bar.kind === 'io' ? {} : { prefetch: bar.prefetchable ?? false, mem_type_64: bar.kind === 'mem64' }),
        }),
      ),
      ...(f.romSize === 0
        ? []
        : [
            {
              bar: 6,
              type: 'memory' as const,
              address: f.romRange()?.base ?? -1,
              size: f.romSize,
              prefetch: false,
              mem_type_64: false,
            },
          ]),
    ],
  };
}

/** The class as QEMU's monitor names it. */
export const className = (f: PciFunction): string => classes[f.read(0x0a, 2)] ?? `Class ${hex(f.read(0x0a, 2), 4)}`;

/** All functions of the root bus. */
export const pciDevices = (machine: RunningMachine): PciDeviceInfo[] =>
  machine.board.pci.functions().map(({ slot, fn, f }) => describe(machine, slot, fn, f));

const hex = (n: number, digits: number): string => (n < 0 ? 'f'.repeat(16) : n.toString(16).padStart(digits, '0'));

/** As `info pci` prints them. */
export function pciText(machine: RunningMachine): string {
  return pciDevices(machine)
    .flatMap((d) => [
      `  Bus ${String(d.bus).padStart(2)}, device ${String(d.slot).padStart(3)}, function ${d.function}:`,
      `    ${d.class_info.desc ?? `Class ${hex(d.class_info.class, 4)}`}: PCI device ${hex(d.id.vendor, 4)}:${hex(d.id.device, 4)}`,
      ...(d.id['subsystem-vendor']
        ? [`      PCI subsystem ${hex(d.id['subsystem-vendor'], 4)}:${hex(d.id.subsystem ?? 0, 4)}`]
        : []),
      ...(d.irq === undefined ? [] : [`      IRQ ${d.irq}, pin ${'?ABCD'[d.irq_pin]}`]),
      ...d.regions.map((r) => {
        const end = `[0x${hex(r.address + r.size - 1, r.type === 'io' ? 4 : 8)}]`;
        return r.type === 'io'
          ? `      BAR${r.bar}: I/O at 0x${hex(r.address, 4)} ${end}.`
          : `      BAR${r.bar}: ${r.mem_type_64 ? 64 : 32} bit ${r.prefetch ? 'prefetchable ' : ''}memory at 0x${hex(r.address, 8)} ${end}.`;
      }),
      `      id "${d.qdev_id}"`,
    ])
    .join('\n');
}
