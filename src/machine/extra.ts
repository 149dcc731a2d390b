// Memory that a machine needs beside guest RAM: firmware and what devices keep.

import type { MachineConfig } from './config.ts';
import { propertiesOf } from './device-tree.ts';
import { deviceTypes } from './device-types.ts';
import { readProperties } from './properties.ts';
import { firmwareBytes } from './rom.ts';

const PAGE = 4096;

/** Bytes for memory slots. Throws for firmware that cannot be mapped. */
export function extraBytes(config: MachineConfig): number {
  return (config.firmware === undefined ? 0 : firmwareBytes(config.firmware)) + devicesBytes(config);
}

/** Memory of the devices; what is wrong with one of them is found when it is built. */
function devicesBytes(config: MachineConfig): number {
  let bytes = 0;
  for (const { driver, id: _, bus: __, ...given } of config.devices ?? []) {
    const type = deviceTypes.find((t) => t.name === driver || t.aliases?.includes(driver));
    if (type?.memory === undefined) continue;
    bytes += Math.ceil(type.memory(readProperties(driver, propertiesOf(type), given)) / PAGE) * PAGE;
  }
  return bytes;
}
