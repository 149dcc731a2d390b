// Memory that a machine needs beside guest RAM: firmware and what devices keep.

import type { MachineConfig } from './config.ts';
import { firmwareBytes } from './rom.ts';

/** Bytes for memory slots. Throws for firmware that cannot be mapped. */
export function extraBytes(config: MachineConfig): number {
  return config.firmware === undefined ? 0 : firmwareBytes(config.firmware);
}
