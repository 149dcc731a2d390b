// Memory that a machine needs beside guest RAM: firmware and what devices keep.

import type { MachineConfig } from './config.ts';
import { propertiesOf, romFile } from './device-tree.ts';
import type { DeviceConfig } from './device-type.ts';
import { findDeviceType } from './device-types.ts';
import { readProperties } from './properties.ts';
import { firmwareBytes } from './rom.ts';

const PAGE = 4096;

/** Bytes for memory slots. Throws for firmware that cannot be mapped. */
export function extraBytes(config: MachineConfig): number {
  const memdevs = Object.values(config.memdevs ?? {}).reduce((sum, bytes) => sum + Math.ceil(bytes / PAGE) * PAGE, 0);
  return (config.firmware === undefined ? 0 : firmwareBytes(config.firmware)) + memdevs + devicesBytes(config);
}

/** Memory of the devices; what is wrong with one of them is found when it is built. */
function devicesBytes(config: MachineConfig): number {
  let bytes = 0;
  for (const { driver, id: _, bus: __, ...given } of config.devices ?? []) {
    const type = findDeviceType(driver);
    if (type?.memory === undefined) continue;
    bytes += Math.ceil(type.memory(readProperties(driver, propertiesOf(type), given)) / PAGE) * PAGE;
  }
  return bytes;
}

/** Files of the expansion ROMs that a machine's devices have. */
export function romFiles(devices: readonly DeviceConfig[]): readonly string[] {
  const files = devices.flatMap(({ driver, id: _, bus: __, ...given }) => {
    const type = findDeviceType(driver);
    const file = type && romFile(type, readProperties(driver, propertiesOf(type), given));
    return file === undefined ? [] : [file];
  });
  return [...new Set(files)];
}

/** Bytes of a ROM BAR for an image. */
export const romSize = (bytes: number): number => 2 ** Math.ceil(Math.log2(Math.max(2048, bytes)));
