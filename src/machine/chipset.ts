// The chipsets of PC boards: PCI host with its own functions, interrupt routing, the attribute map of the first MiB.

import type { Arena } from '../bits/arena.ts';
import { fanOut, type IrqLine } from '../bus/irq.ts';
import type { Lock } from '../bus/lock.ts';
import type { MemorySlots } from '../bus/slots.ts';
import { AddressSpace, type Handler, spaceLayout } from '../bus/space.ts';
import { AcpiHotplug } from '../devices/acpi-hotplug.ts';
import { type AcpiPm, acpiPm } from '../devices/acpi-pm.ts';
import { fdcPort } from '../devices/fdc.ts';
import type { FwCfgFile } from '../devices/fw-cfg.ts';
import { apmEnable, i440fxBridge, i440fxPirq, Piix3, piix4Pm } from '../devices/i440fx.ts';
import { applyPam, type LowRom, PAM_COUNT, pamRegister } from '../devices/pam.ts';
import { type PciFunction, pci } from '../devices/pci-function.ts';
import { PciHost } from '../devices/pci-host.ts';
import { hostBridge, IsaBridge } from '../devices/q35.ts';
import { eeproms, ich9Smbus, Smbus } from '../devices/smbus.ts';
import { SmiFeatures } from '../devices/smi.ts';
import type { PciBus } from './buses.ts';
import type { Chip } from './chip.ts';
import type { MachineConfig, MachineKind } from './config.ts';
import type { DeviceConfig } from './device-type.ts';
import { bool, uint8, uint16 } from './properties.ts';

/** General-purpose events of the `pc` board, as in its ACPI tables. */
export const PIIX4_GPE = { base: 0xafe0, length: 4 } as const;

/** Devices that boards have besides their chipsets; a machine whose board was not named has none, and starts faster. */
const boardDevices: Readonly<Record<MachineKind | 'bare', readonly DeviceConfig[]>> = {
  bare: [],
  pc: [
    { driver: 'piix3-ide', bus: 'pci.0', addr: '1.1' },
    { driver: 'isa-fdc', bus: 'isa.0' },
  ],
  q35: [{ driver: 'ich9-ahci', bus: 'pcie.0', addr: '1f.2', multifunction: true }],
  microvm: [],
};

/** What a configuration's board has of them: a controller of its own stands in place of the board's at the same ports. */
export function boardDevicesOf({ machine, devices = [], sata = true }: MachineConfig): readonly DeviceConfig[] {
  const own = devices.some((d) => d.driver === 'isa-fdc' && (d['iobase'] === undefined || Number(d['iobase']) === fdcPort));
  const left = new Set([...(own ? ['isa-fdc'] : []), ...(sata ? [] : ['ich9-ahci'])]);
  return boardDevices[machine ?? 'bare'].filter((d) => !left.has(d.driver));
}

const i2c = { name: 'i2c', kind: 'i2c-bus' } as const;
const memoryModules: readonly Chip[] = Array.from({ length: eeproms.count }, (_, n) => ({
  type: 'smbus-eeprom',
  bus: i2c.name,
  properties: { address: uint8(eeproms.first + n) },
}));

export interface ChipsetOptions {
  readonly arena: Arena;
  readonly ports: AddressSpace;
  /** Every vCPU's space. */
  readonly mmio: readonly AddressSpace[];
  readonly slots: MemorySlots;
  readonly acpi: AcpiPm;
  /** Port 0xCF9. */
  readonly resetControl: Handler;
  /** ISA interrupt n at PIC and I/O APIC, at the PIC alone, and pin n of the I/O APIC. */
  readonly isa: (n: number) => IrqLine;
  readonly pic: (n: number) => IrqLine;
  readonly pin: (n: number) => IrqLine;
  /** ROM that shows below 1 MiB; without firmware all is RAM there, and registers are preset as firmware would leave them. */
  readonly rom: LowRom | undefined;
  readonly firmware: boolean;
  /** Interrupts all vCPUs that are there, or the running one, for system management; none where there is no such mode. */
  readonly smi: ((all: boolean) => void) | undefined;
  /** MiB of the extended TSEG (q35), and bytes of RAM below 4 GiB. */
  readonly extendedTseg: number;
  readonly ramLow: number;
  /** Asks for what is in the slots of the root bus to be removed, by the paths of its devices. */
  readonly eject: (paths: readonly string[]) => void;
  readonly lock: Lock;
  /** q35 has its SMBus. */
  readonly smbus: boolean;
}

export interface Chipset {
  readonly host: PciHost;
  /** None where the board has no PCI. */
  readonly bus: PciBus | undefined;
  /** Host bridge and functions, for monitors; the order is that in which they were made. */
  readonly chips: readonly Chip[];
  /** Interrupt line register of a PIRQ, for boards without firmware. */
  interruptLine(pirq: number): number;
  /** Where the guest has put the power management registers. */
  pmBase(): number;
  /** Slots whose devices come and go by ACPI; none where boards have other ways. */
  readonly hotplugSlots?: () => readonly number[];
  /** Files of fw_cfg. */
  readonly files?: ReadonlyMap<string, FwCfgFile>;
  /** A command of the APM port. */
  apm(): void;
  /** Why no vCPU can be added now. */
  readonly refusesCpus?: () => string | undefined;
  /** Registers after power-on; memory follows. With the board's lock held. */
  /** `wakes`: after a sleep the attribute map stays, as QEMU's does over any reset; SeaBIOS goes on in the RAM that it has made of its ROM. */
  reset(wakes?: boolean): void;
  /** Registers were put back: so is memory. */
  restored?(): void;
}

const pciBus = (host: PciHost, name: string, express: boolean): PciBus => ({
  kind: 'PCI',
  name,
  express,
  root: true,
  add(f, slot, fn) {
    host.add(f, slot, fn);
    return () => host.remove(f);
  },
  freeSlot: () => host.freeSlot(),
});

/** The attribute map as the registers of the host bridge have it. */
const mapper = (o: ChipsetOptions) => (register: (n: number) => number) => {
  if (o.firmware) applyPam(o.slots, register, o.rom);
};

/** ICH9 behind the q35 host bridge: PCI Express with ECAM, eight PIRQs at pins 16 to 23 of the I/O APIC. */
export function q35Chipset(o: ChipsetOptions): Chipset {
  const { arena, ports, mmio } = o;
  const preset = !o.firmware;
  const host: PciHost = new PciHost({
    arena,
    ports,
    mmio,
    pirqs: Array.from({ length: 8 }, (_, p) => fanOut(o.pin(16 + p), { set: (level) => bridge.pirq(p).set(level) })),
    resetControl: o.resetControl,
  });
  const { f: mch, smram } = hostBridge(arena, host, mmio[0]!, preset, mapper(o), o);
  const features = new SmiFeatures(arena);
  const bridge: IsaBridge = new IsaBridge({ arena, host, ports, pm: o.acpi, pic: o.pic, preset });
  // The first vCPU's space maps ECAM by itself; the others show the same window.
  for (const space of mmio.slice(1)) {
    space.movable((map) => {
      const window = mmio[0]!.regions().find((r) => r.name === 'pcie-mmcfg-mmio');
      if (window) map(window);
    });
  }
  const smbus = o.smbus ? ich9Smbus(arena, host) : undefined;
  const root = 'pcie.0';
  return {
    chips: [
      { type: 'q35-pcihost', bus: 'main-system-bus', buses: [root] },
      { type: 'mch', bus: root, f: mch, properties: { 'extended-tseg-mbytes': uint16(o.extendedTseg) } },
      { type: 'ICH9-LPC', bus: root, f: bridge.f, buses: ['isa.0'] },
      ...(smbus ? [{ type: 'ICH9-SMB', bus: root, f: smbus.f, ownBus: i2c }, ...memoryModules] : []),
    ],
    host,
    bus: pciBus(host, root, true),
    interruptLine: (pirq) => 10 + (pirq & 1),
    pmBase: () => bridge.f.read(0x40, 2) & 0xff80 || acpiPm.base,
    ...(o.smi ? { files: new Map(features.files()) } : {}),
    apm() {
      if (o.acpi.apmInterrupts) o.smi?.(features.broadcast);
    },
    // Firmware would have to be told by an SMI, which it has not asked for.
    refusesCpus: () => (features.broadcast ? 'firmware has taken over the SMIs of all vCPUs, and a new one has none' : undefined),
    reset(wakes) {
      smbus?.reset();
      features.reset();
      resetHost(o, host, mch, pamRegister.q35, wakes);
      smram?.reset();
    },
    restored: () => smram?.apply(),
  };
}

/** No PCI at all: a host that nobody sees. */
export function noChipset({ arena, lock }: ChipsetOptions): Chipset {
  const nowhere = new AddressSpace({ name: 'no pci', size: 0x10000, lock, shared: arena.alloc(spaceLayout, 'no pci') });
  const host = new PciHost({ arena, ports: nowhere, mmio: [], pirqs: [] });
  return { host, bus: undefined, chips: [], interruptLine: () => 0, pmBase: () => 0, apm: () => {}, reset: () => host.reset() };
}

/** PIIX3 and PIIX4 behind the i440FX host bridge: four PIRQs that go to ISA interrupts. */
export function pcChipset(o: ChipsetOptions): Chipset {
  const { arena, ports, mmio } = o;
  const preset = !o.firmware;
  const host: PciHost = new PciHost({
    arena,
    ports,
    mmio,
    pirqs: Array.from({ length: 4 }, (_, p) => ({ set: (level: 0 | 1) => bridge.pirq(p).set(level) })),
    pirqOf: i440fxPirq,
    resetControl: o.resetControl,
  });
  const { f: northbridge, smram } = i440fxBridge(arena, host, mapper(o), o);
  const bridge: Piix3 = new Piix3({ arena, host, isa: o.isa, preset });
  const smbus = new Smbus(arena);
  const power = piix4Pm({ arena, host, ports, pm: o.acpi, smbus: smbus.handler, preset, smm: o.smi !== undefined });
  o.acpi.mapGpe(ports, PIIX4_GPE.base);
  /** Paths of what may go, by slot. */
  const paths = new Map<PciFunction, { readonly slot: number; readonly path: string }>();
  const inSlot = (slot: number): string[] => [...paths.values()].filter((p) => p.slot === slot).map((p) => p.path);
  // What the chipset and devices without hot-plug have stays: all slots but theirs.
  const slots = (): number[] =>
    Array.from({ length: 32 }, (_, n) => n).filter((n) => host.functions().every((p) => p.slot !== n) || inSlot(n).length > 0);
  const hotplug = new AcpiHotplug({
    arena,
    gpe: (n) => o.acpi.gpe(n),
    removable: () => slots().reduce((bits, n) => bits + 2 ** n, 0),
    eject: (slot) => o.eject(inSlot(slot)),
  });
  hotplug.map(ports);
  const root = 'pci.0';
  const bus: PciBus = {
    ...pciBus(host, root, false),
    add(f, slot, fn, path, removable = false) {
      host.add(f, slot, fn);
      if (removable && path !== undefined) paths.set(f, { slot, path });
      return () => {
        host.remove(f);
        paths.delete(f);
      };
    },
    plugged: (slot) => o.lock.run(() => hotplug.plugged(slot)),
    requestUnplug({ path }) {
      const found = [...paths.values()].find((p) => p.path === path);
      if (found) o.lock.run(() => hotplug.request(found.slot));
    },
  };
  return {
    host,
    bus,
    chips: [
      { type: 'i440FX-pcihost', bus: 'main-system-bus', buses: [root] },
      { type: 'i440FX', bus: root, f: northbridge },
      { type: 'PIIX3', bus: root, f: bridge.f, buses: ['isa.0'] },
      {
        ...{ type: 'PIIX4_PM', bus: root, f: power, ownBus: i2c },
        properties: { 'smm-enabled': bool(o.smi !== undefined) },
      },
      ...memoryModules,
    ],
    hotplugSlots: slots,
    interruptLine: (pirq) => [10, 10, 11, 11][pirq]!,
    pmBase: () => power.read(0x40, 2) & 0xffc0 || acpiPm.base,
    apm() {
      if (power.read(apmEnable.register, 1) & apmEnable.bit) o.smi?.(false);
    },
    restored: () => smram.apply(),
    reset(wakes) {
      smbus.reset();
      hotplug.reset();
      resetHost(o, host, northbridge, pamRegister.i440fx, wakes);
      smram.reset();
      // The power management function's interrupt is the SCI.
      power.poke(pci.interruptLine, 1, acpiPm.sci);
    },
  };
}

function resetHost(o: ChipsetOptions, host: PciHost, bridge: PciFunction, pam: number, wakes = false): void {
  const map = Array.from({ length: PAM_COUNT }, (_, n) => bridge.read(pam + n, 1));
  host.reset();
  if (wakes) for (const [n, value] of map.entries()) bridge.poke(pam + n, 1, value);
  mapper(o)((n) => bridge.read(pam + n, 1));
}
