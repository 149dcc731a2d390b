// The chips of a board that are not devices of its configuration, as monitors show them: names and properties are QEMU's.

import { dmaControllers } from '../devices/dma.ts';
import { ged } from '../devices/ged.ts';
import { hpetBase, hpetBytes } from '../devices/hpet.ts';
import { ioapicPins } from '../devices/ioapic.ts';
import type { PciFunction } from '../devices/pci-function.ts';
import { elcrWritable, picPorts } from '../devices/pic.ts';
import { pitPorts } from '../devices/pit.ts';
import { rtcPort } from '../devices/rtc.ts';
import { comPorts } from '../devices/uart.ts';
import type { VirtioBus } from './buses.ts';
import type { MachineConfig } from './config.ts';
import { hasIoapic2, microvmParts } from './microvm.ts';
import { bool, int32, type PropertyTable, uint8, uint16, uint32 } from './properties.ts';
import { hasHpet } from './tables.ts';

export interface Chip {
  /** QEMU's name of its type. */
  readonly type: string;
  /** Name of the bus that it is on. */
  readonly bus: string;
  /** Their defaults are what the chip has. */
  readonly properties?: PropertyTable;
  /** Numbers of lines: inputs and outputs by name. */
  readonly inputs?: Readonly<Record<string, number>>;
  readonly outputs?: Readonly<Record<string, number>>;
  readonly mmio?: readonly (readonly [base: number, length: number])[];
  readonly f?: PciFunction;
  /** Names of the machine's buses that are behind it. */
  readonly buses?: readonly string[];
  /** A bus of the chip's own, with chips alone. */
  readonly ownBus?: { readonly name: string; readonly kind: string };
}

const SYSTEM = 'main-system-bus';
const ISA = 'isa.0';
export const ioapicPages = [0xfec00000, 0xfec10000] as const;
const IOAPIC_BYTES = 0x1000;

const ioapic = (page: number): Chip => ({
  ...{ type: 'ioapic', bus: SYSTEM, inputs: { '': ioapicPins } },
  properties: { version: uint8(0x20) },
  mmio: [[page, IOAPIC_BYTES]],
});

const vmportChips: readonly Chip[] = [
  {
    ...{ type: 'vmport', bus: ISA },
    properties: {
      'x-read-set-eax': bool(true),
      'x-signal-unsupported-cmd': bool(true),
      'x-report-vmx-type': bool(true),
      'x-cmds-v2': bool(true),
    },
  },
  { type: 'vmmouse', bus: ISA },
];

/** All chips of a board, those made first at the beginning. `chipset` has the functions on PCI, `transports` what virtio plugs into. */
export function boardChips(config: MachineConfig, chipset: readonly Chip[], transports: readonly VirtioBus[]): readonly Chip[] {
  const micro = microvmParts(config);
  const has8259 = micro?.pic ?? true;
  const controlled = config.machine === 'pc' || config.machine === 'q35';
  const rows: readonly (readonly [there: boolean, chips: readonly Chip[]])[] = [
    [true, [{ type: 'fw_cfg_io', bus: SYSTEM, properties: { dma_enabled: bool(true) } }]],
    [true, chipset],
    [micro !== undefined, [{ type: 'isabus-bridge', bus: SYSTEM, buses: [ISA] }]],
    [true, [ioapic(ioapicPages[0])]],
    [hasIoapic2(config), [ioapic(ioapicPages[1])]],
    [
      hasHpet(config),
      [
        {
          ...{ type: 'hpet', bus: SYSTEM, inputs: { '': 2 }, outputs: { '': 1, 'sysbus-irq': 32 } },
          properties: { timers: uint8(3), msi: bool(false) },
          mmio: [[hpetBase, hpetBytes]],
        },
      ],
    ],
    [
      controlled,
      dmaControllers.map(({ base, pages, spacing }) => ({
        ...{ type: 'i8257', bus: ISA },
        properties: { base: int32(base), 'page-base': int32(pages), 'pageh-base': int32(-1), dshift: int32(spacing - 1) },
      })),
    ],
    [
      has8259,
      picPorts.base.map((base, n) => ({
        ...{ type: 'isa-i8259', bus: ISA, inputs: { '': 8 }, outputs: { '': 1 } },
        properties: {
          iobase: uint32(base),
          elcr_addr: uint32(picPorts.elcr + n),
          elcr_mask: uint8(elcrWritable[n]!),
          master: bool(n === 0),
        },
      })),
    ],
    [
      micro?.rtc ?? true,
      [{ type: 'mc146818rtc', bus: ISA, outputs: { '': 1 }, properties: { iobase: uint16(rtcPort), irq: uint8(8) } }],
    ],
    [
      config.microvm?.pit ?? true,
      [{ type: 'isa-pit', bus: ISA, inputs: { '': 1 }, outputs: { '': 1 }, properties: { iobase: uint32(pitPorts.base) } }],
    ],
    [!micro, [{ type: 'isa-pcspk', bus: ISA, properties: { iobase: uint32(pitPorts.speaker) } }]],
    [
      config.machine === undefined,
      comPorts.flatMap(({ base, irq }, index) =>
        config.serial?.includes(index)
          ? [{ type: 'isa-serial', bus: ISA, properties: { index: uint32(index), iobase: uint32(base), irq: uint32(irq) } }]
          : [],
      ),
    ],
    [
      !micro,
      [
        {
          ...{ type: 'i8042', bus: ISA, inputs: { 'ps2-mouse-input-irq': 1, 'ps2-kbd-input-irq': 1 } },
          ...{ outputs: { '': 2, a20: 1 }, properties: { 'kbd-irq': uint8(1), 'mouse-irq': uint8(12) } },
        },
        ...(config.vmport ? vmportChips : []),
        { type: 'port92', bus: ISA, outputs: { a20: 1 } },
        ...['ps2-kbd', 'ps2-mouse'].map((type) => ({ type, bus: SYSTEM, outputs: { '': 1 } })),
      ],
    ],
    [
      micro !== undefined,
      transports.toReversed().map(({ name, place, legacy }) => ({
        ...{ type: 'virtio-mmio', bus: SYSTEM, outputs: { 'sysbus-irq': 1 } },
        properties: { 'force-legacy': bool(legacy) },
        ...{ mmio: [[place.base, place.size]] as const, buses: [name] },
      })),
    ],
    [
      micro !== undefined && (config.acpi ?? true),
      [
        {
          ...{
            type: 'acpi-ged-x86',
            bus: SYSTEM,
            outputs: { 'sysbus-irq': 1 },
            properties: { 'ged-event': uint32(ged.powerButton) },
          },
          mmio: [
            [ged.events, ged.eventBytes],
            [ged.registers, ged.registerBytes],
          ],
        },
      ],
    ],
  ];
  return rows.flatMap(([there, chips]) => (there ? chips : []));
}
