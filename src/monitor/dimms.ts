// Modules of memory as monitors make and tell of them. QEMU 7.2, qapi/machine.json, and its refusals.

import type { Plugged } from '../machine/device-tree.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { DIMM, type DimmSpace, placeDimm } from '../machine/dimms.ts';
import { readProperties } from '../machine/properties.ts';
import { dimm } from '../machine/types/dimm.ts';
import { QmpError } from '../rpc/qmp/error.ts';
import type { Emulator } from './emulator.ts';

/** A module in full. */
export interface DimmInfo {
  readonly id?: string;
  readonly addr: number;
  readonly slot: number;
  readonly node: number;
  readonly size: number;
  readonly memdev: string;
}

const infoOf = (id: string | undefined, values: Readonly<Record<string, unknown>>): DimmInfo => {
  const number = (name: string): number => Number(values[name]);
  return {
    ...(id === undefined ? {} : { id }),
    addr: number('addr'), slot: number('slot'), node: number('node'), size: number('size'), memdev: String(values['memdev']),
  }; // biome-ignore format: short
};

/** Modules among a machine's devices, in their order. */
export const dimmsOf = (devices: readonly Plugged[]): readonly (DimmInfo & Pick<Plugged, 'hotplugged'>)[] =>
  devices.filter((d) => d.type.name === DIMM).map((d) => ({ ...infoOf(d.id, d.values), hotplugged: d.hotplugged }));

/** Modules among devices that are to be made. */
export const dimmsAsked = (devices: readonly DeviceConfig[]): readonly DimmInfo[] =>
  devices.filter((d) => d.driver === DIMM).map((d) => infoOf(d.id, d));

/**
 * A module with its place, and the size that its back-end has; other devices as they are. `sizeOf` knows the back-ends.
 * @throws QmpError
 */
export function withPlace(
  config: DeviceConfig,
  space: DimmSpace | undefined,
  others: readonly DimmInfo[],
  sizeOf: (memdev: string) => number | undefined,
): DeviceConfig {
  if (config.driver !== DIMM) return config;
  const { driver, id, bus: _, ...given } = config;
  if (given['size'] !== undefined) throw new QmpError("Property 'pc-dimm.size' is not writable");
  try {
    const values = readProperties(driver, dimm.properties, given);
    if (values['memdev'] === undefined) throw new QmpError("'memdev' property must be set");
    const wish = infoOf(id, values);
    const size = sizeOf(wish.memdev);
    if (size === undefined) throw new QmpError(`Device '${wish.memdev}' not found`, 'DeviceNotFound');
    if (others.some((o) => o.memdev === wish.memdev)) throw new QmpError(`can't use already busy memdev: ${wish.memdev}`);
    const { node, addr, slot } = placeDimm(space, others, { ...wish, size });
    return { driver, ...(id === undefined ? {} : { id }), memdev: wish.memdev, node, addr, slot, size };
  } catch (error) {
    throw error instanceof QmpError ? error : new QmpError((error as Error).message);
  }
}

/** Bytes of all modules of a machine, or of one node. */
export const pluggedBytes = ({ machine }: Pick<Emulator, 'machine'>, node?: number): number =>
  dimmsOf(machine?.devices.list() ?? [])
    .filter((d) => node === undefined || d.node === node)
    .reduce((sum, d) => sum + d.size, 0);
