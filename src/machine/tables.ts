// The ACPI and SMBIOS tables and the memory map of the boards.

import { acpiHotplug } from '../devices/acpi-hotplug.ts';
import { acpiPm } from '../devices/acpi-pm.ts';
import { ged } from '../devices/ged.ts';
import { memoryHotplug } from '../devices/memory-hotplug.ts';
import { lptPorts } from '../devices/parallel.ts';
import { PVPANIC_PORT } from '../devices/pvpanic.ts';
import { type AcpiImage, buildAcpi, linkAcpi } from '../firmware/acpi/build.ts';
import { type AcpiConfig, comPorts, i440fxIntx, type NumaRange, q35Intx, type Window } from '../firmware/acpi/config.ts';
import { buildE820, E820_RESERVED, type MemoryRange } from '../firmware/e820.ts';
import { buildSmbios, linkSmbios, type SmbiosImage } from '../firmware/smbios.ts';
import { type CpuModel, cpuModel, physicalBitsOn } from '../isa/x86/cpu-model.ts';
import { boardDevicesOf, PIIX4_GPE } from './chipset.ts';
import type { MachineConfig } from './config.ts';
import { cpuPorts } from './cpus.ts';
import { hasIoapic2, microvmParts, type VirtioPlace } from './microvm.ts';

/** The ECAM window, 256 MiB. */
const ECAM = { base: 0xb000_0000, size: 0x1000_0000 };
const IOAPIC = 0xfec0_0000;
const GIB = 2 ** 30;
/** Width of the guest-physical addresses, by the CPU model and the host where that counts. */
export const physicalBitsOf = ({
  cpuModel: text,
  hostPhysicalBits,
}: Pick<MachineConfig, 'cpuModel' | 'hostPhysicalBits'>): number => {
  const [name, ...changes] = text.split(',');
  return physicalBitsOn(cpuModel(name!, changes), hostPhysicalBits);
};

/** What CPUID offers on the vCPUs of a machine. */
export const featuresOf = (config: Pick<MachineConfig, 'cpuModel'>): ReadonlySet<string> => modelOf(config).features;

/** The CPU model with its changes. */
export function modelOf({ cpuModel: text }: Pick<MachineConfig, 'cpuModel'>): CpuModel {
  const [name, ...changes] = text.split(',');
  return cpuModel(name!, changes);
}

/** What the tables say besides the configuration. */
export interface BoardFacts {
  readonly ramLow: number;
  readonly ramHigh: number;
  /** Addresses at which memory may be plugged in. */
  readonly hotplugMemory?: Window;
  /** Ports of the power management block; those of a board without firmware when left out. */
  readonly pmBase?: number;
  /** virtio transports over MMIO that have a device, in the order in which they are told. */
  readonly virtio: readonly VirtioPlace[];
  /** Slots whose devices come and go by ACPI. */
  readonly hotplugSlots?: readonly number[];
  /** vCPUs that are there; all when left out. */
  readonly cpus?: readonly number[];
  /** Registers of the store of error records; left out where there is none, or more than one. */
  readonly errorRecords?: number;
}

/** Where addresses begin that are not memory's, also not when some is plugged in; undefined where none can be. */
export const reservedMemoryEnd = ({ hotplugMemory: at }: BoardFacts): number | undefined =>
  at && Math.ceil((at.base + at.size) / GIB) * GIB;

/** The windows that PCI devices may use. */
export function pciWindows(config: MachineConfig, facts: BoardFacts): readonly [Window, Window] {
  const below = config.machine === 'pc' ? Math.max(facts.ramLow, 0x8000_0000) : ECAM.base + ECAM.size;
  const above = reservedMemoryEnd(facts) ?? Math.ceil((2 ** 32 + facts.ramHigh) / GIB) * GIB;
  return [
    { base: below, size: IOAPIC - below },
    { base: above, size: Math.max(0, 2 ** physicalBitsOf(config) - above) },
  ];
}

/** Whether there are ACPI tables; PC boards always have them. */
export const hasAcpi = (config: MachineConfig): boolean => config.machine !== 'microvm' || (config.acpi ?? true);

/** Whether the guest can suspend to RAM. Firmware that keeps its flash for system management mode was not seen to wake one. */
export const hasSleep = (config: MachineConfig): boolean =>
  config.machine !== 'microvm' && config.firmware?.secure !== true && config.sleep !== false;

/** Whether the HPET is there. */
export const hasHpet = (config: MachineConfig): boolean => config.machine !== 'microvm' && (config.hpet ?? true);

/** The ACPI tables of a microvm: no fixed hardware, no PCI. */
function microvmImage(config: MachineConfig, facts: BoardFacts): AcpiImage {
  return buildAcpi({
    cpus: Array.from({ length: config.cpus }, (_, n) => n),
    reduced: ged,
    secondIoapic: hasIoapic2(config),
    serial: comPorts.filter((_, n) => hasSerial(config, n)),
    rtc: microvmParts(config)!.rtc,
    fwCfg: true,
    virtioMmio: facts.virtio,
  });
}

/** What of ISA's devices that come by `-device` the tables tell of. */
function pcExtras(config: MachineConfig): Pick<AcpiConfig, 'pvpanic' | 'floppy' | 'parallel'> {
  const { devices = [] } = config;
  const panic = devices.find((d) => d.driver === 'pvpanic');
  const printers = devices.filter((d) => d.driver === 'isa-parallel');
  return {
    ...(panic ? { pvpanic: Number(panic['ioport'] ?? PVPANIC_PORT) } : {}),
    floppy: [...boardDevicesOf(config), ...devices].some((d) => d.driver === 'isa-fdc'),
    parallel: printers.map((d, n) => {
      const usual = lptPorts[Number(d['index'] ?? n)] ?? lptPorts[0];
      return { port: Number(d['iobase'] ?? usual.base), irq: Number(d['irq'] ?? usual.irq) };
    }),
  };
}

/** End of the memory below the video window, and where it goes on. */
const LOW_END = 0xa_0000;
const HIGH_START = 0x10_0000;

/** Nodes' memory as guest-physical ranges: they take the RAM in turn, around the hole below 1 MiB and that below 4 GiB. */
function numaRanges(nodes: readonly number[], { ramLow, ramHigh }: BoardFacts): readonly NumaRange[] {
  const parts = [
    { from: 0, base: 0, end: LOW_END },
    { from: HIGH_START, base: HIGH_START, end: ramLow },
    { from: ramLow, base: 2 ** 32, end: ramLow + ramHigh },
  ];
  let start = 0;
  return nodes.flatMap((size, node) => {
    const first = start;
    start += size;
    return parts.flatMap(({ from, base, end }) => {
      const at = Math.max(first, from);
      const bytes = Math.min(start, end) - at;
      return bytes > 0 ? [{ node, base: base + at - from, size: bytes }] : [];
    });
  });
}

/** The ACPI tables of a board. */
export function acpiImage(config: MachineConfig, facts: BoardFacts): AcpiImage {
  if (config.machine === 'microvm') return microvmImage(config, facts);
  const pc = config.machine === 'pc';
  const ports = cpuPorts(config);
  return buildAcpi({
    cpus: Array.from({ length: config.cpus }, (_, n) => n),
    ...(facts.cpus ? { absent: Array.from({ length: config.cpus }, (_, n) => n).filter((n) => !facts.cpus?.includes(n)) } : {}),
    ...(config.numa
      ? { numa: { ...config.numa, nodes: config.numa.nodes.length, memory: numaRanges(config.numa.nodes, facts) } }
      : {}),
    ...(ports === undefined ? {} : { cpuHotplug: ports }),
    ...(config.memoryHotplug && facts.hotplugMemory
      ? { memoryHotplug: { port: memoryHotplug.base, slots: config.memoryHotplug.slots, window: facts.hotplugMemory } }
      : {}),
    pci: {
      ...(pc ? {} : { mmconfig: { base: ECAM.base } }),
      memory: pciWindows(config, facts),
      intx: pc ? i440fxIntx : q35Intx,
      ...(facts.hotplugSlots ? { hotplug: { base: acpiHotplug.base, slots: facts.hotplugSlots } } : {}),
      isaBridge: pc ? 0x1_0000 : 0x1f_0000,
    },
    ...(pc ? { levelIrqs: [5, 10, 11], gpeBase: PIIX4_GPE.base, gpeLength: PIIX4_GPE.length } : {}),
    ...(facts.errorRecords === undefined ? {} : { errorRecords: facts.errorRecords }),
    ...(facts.pmBase === undefined ? {} : { pmBase: facts.pmBase, ...(pc ? {} : { gpeBase: facts.pmBase + 0x20 }) }),
    ...(hasSleep(config) ? { s3: acpiPm.s3 } : {}),
    hpet: hasHpet(config),
    serial: comPorts.filter((_, n) => hasSerial(config, n)),
    ...pcExtras(config),
    rtc: true,
    ps2: true,
    // A guest that is to tell where its note is writes that there.
    fwCfg:
      config.firmware !== undefined ||
      config.fwCfgFiles === true ||
      (config.devices ?? []).some((d) => d.driver === 'vmcoreinfo'),
  });
}

/** ACPI tables linked for `base`; the RSDP is first. */
export function acpiTables(config: MachineConfig, facts: BoardFacts, base: number, room: number): Uint8Array {
  return linkAcpi(acpiImage(config, facts), base, room);
}

/** The SMBIOS structures of a machine. */
export function smbiosImage(config: MachineConfig, facts: BoardFacts): SmbiosImage {
  return buildSmbios({
    sockets: config.topology?.sockets ?? 1,
    coresPerSocket: config.topology?.cores ?? config.cpus,
    threadsPerCore: config.topology?.threads ?? 1,
    cpuModel: config.cpuModel,
    ramBelow4G: facts.ramLow,
    ramAbove4G: facts.ramHigh,
    ...(config.uuid === undefined ? {} : { system: { uuid: config.uuid } }),
  });
}

/** Whether serial port n is there: of the board, or a device. */
const hasSerial = (config: MachineConfig, n: number): boolean =>
  (config.serial?.includes(n) ?? true) ||
  (config.devices ?? []).some((d) => d.driver === 'isa-serial' && Number(d['index'] ?? 0) === n && d['iobase'] === undefined);

/** SMBIOS tables linked for `base`. */
export function smbiosTables(config: MachineConfig, facts: BoardFacts, base: number, room: number): Uint8Array {
  return linkSmbios(smbiosImage(config, facts), base, room);
}

/** What a direct boot tells of memory. */
export function memoryMap(config: MachineConfig, facts: BoardFacts): MemoryRange[] {
  const reserved =
    config.machine === 'pc' || config.machine === 'microvm' ? [] : [{ start: ECAM.base, size: ECAM.size, type: E820_RESERVED }];
  return buildE820({ ramBelow4G: facts.ramLow, ramAbove4G: facts.ramHigh, reserved });
}
