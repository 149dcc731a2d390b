// The ACPI and SMBIOS tables and the memory map of the q35-like board.

import { buildAcpi, linkAcpi } from '../firmware/acpi/build.ts';
import { comPorts, q35Intx } from '../firmware/acpi/config.ts';
import { buildE820, E820_RESERVED, type MemoryRange } from '../firmware/e820.ts';
import { buildSmbios, linkSmbios } from '../firmware/smbios.ts';
import type { MachineConfig } from './config.ts';

/** The ECAM window, 256 MiB. */
const ECAM = { base: 0xb000_0000, size: 0x1000_0000 };

/** ACPI tables linked for `base`; the RSDP is first. */
export function acpiTables(config: MachineConfig, base: number, room: number): Uint8Array {
  const image = buildAcpi({
    cpus: Array.from({ length: config.cpus }, (_, n) => n),
    pci: {
      mmconfig: { base: ECAM.base },
      memory: [
        { base: 0xc000_0000, size: 0xfec0_0000 - 0xc000_0000 },
        { base: 2 ** 38, size: 2 ** 38 },
      ],
      intx: q35Intx,
      isaBridge: 0x1f0000,
    },
    hpet: config.hpet ?? true,
    serial: comPorts.filter((_, n) => config.serial?.includes(n) ?? true),
    rtc: true,
    ps2: true,
  });
  return linkAcpi(image, base, room);
}

/** SMBIOS tables linked for `base`. */
export function smbiosTables(config: MachineConfig, low: number, above: number, base: number, room: number): Uint8Array {
  return linkSmbios(
    buildSmbios({
      sockets: 1,
      coresPerSocket: config.cpus,
      threadsPerCore: 1,
      cpuModel: config.cpuModel,
      ramBelow4G: low,
      ramAbove4G: above,
      ...(config.uuid === undefined ? {} : { system: { uuid: config.uuid } }),
    }),
    base,
    room,
  );
}

/** What the firmware tells of memory. */
export function memoryMap(ramBelow4G: number, ramAbove4G: number): MemoryRange[] {
  return buildE820({ ramBelow4G, ramAbove4G, reserved: [{ start: ECAM.base, size: ECAM.size, type: E820_RESERVED }] });
}
