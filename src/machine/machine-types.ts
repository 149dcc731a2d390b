// The machines that users can name: boards by QEMU's names (QEMU 7.2), from which help, `query-machines` and the object model follow.

import type { MachineKind } from './config.ts';

export interface MachineType {
  readonly name: string;
  readonly alias?: string;
  readonly description: string;
  readonly isDefault?: boolean;
  readonly maxCpus: number;
  /** Name of the memory backend that the machine makes itself. */
  readonly ramId?: string;
  /** vCPUs can be added while it runs. */
  readonly hotpluggableCpus: boolean;
  readonly defaultCpu?: string;
  /** What is built; `none` has no board at all. */
  readonly board: MachineKind | 'none';
}

/** Most vCPUs of a machine: the words that the board sleeps on. */
const MOST = 64;

export const machineTypes: readonly MachineType[] = [
  {
    name: 'pc-q35-7.2',
    alias: 'q35',
    description: 'Standard PC (Q35 + ICH9, 2009)',
    maxCpus: MOST,
    ramId: 'pc.ram',
    hotpluggableCpus: true,
    defaultCpu: 'qemu64',
    board: 'q35',
  },
  {
    name: 'pc-i440fx-7.2',
    alias: 'pc',
    description: 'Standard PC (i440FX + PIIX, 1996)',
    isDefault: true,
    maxCpus: MOST,
    ramId: 'pc.ram',
    hotpluggableCpus: true,
    defaultCpu: 'qemu64',
    board: 'pc',
  },
  {
    name: 'microvm',
    description: 'microvm (i386)',
    maxCpus: MOST,
    ramId: 'microvm.ram',
    hotpluggableCpus: false,
    defaultCpu: 'qemu64',
    board: 'microvm',
  },
  { name: 'none', description: 'empty machine', maxCpus: 1, hotpluggableCpus: false, board: 'none' },
];

/** By name or alias. */
export const findMachine = (name: string): MachineType | undefined =>
  machineTypes.find((m) => m.name === name || m.alias === name);
