// Which accelerator a machine gets: the first of a list that can be used, as QEMU's -accel has it. KVM by choice must be good as well as
// there; KVM that is asked for alone is used as it is.

import type { MachineConfig } from '../machine/config.ts';

/** What a look at KVM on this host found: see accel/kvm/probe.ts. */
export interface KvmFinding {
  /** A machine can be made. */
  readonly usable: boolean;
  /** Why it is not to be used by choice; undefined where it is good. */
  readonly why: string | undefined;
  readonly tscKhz: number;
  readonly tscControl: boolean;
  readonly vendor?: string;
  readonly physicalBits?: number;
}

export type AccelChoice = Pick<MachineConfig, 'accel' | 'tscKhz' | 'hostVendor' | 'hostPhysicalBits'> & {
  /** Why an earlier one of the list was passed over. */
  readonly note?: string;
};

/** Names that are accepted; `tcg` is the translator under the name that scripts know. */
export const accelNames = ['dbt', 'tcg', 'kvm'] as const;
/** What `auto` stands for. */
export const AUTO: readonly string[] = ['kvm', 'dbt'];

/**
 * The first of `names` that this host has. `probe` is told whether KVM is to be tried out: not where it is used as it is.
 * @throws Error, one line, where it has none of them
 */
export function chooseAccel(names: readonly string[], probe: (trial: boolean) => KvmFinding): AccelChoice {
  let note: string | undefined;
  for (const name of names) {
    if (name === 'dbt' || name === 'tcg') return { accel: 'dbt', ...(note ? { note } : {}) };
    if (name !== 'kvm') throw new Error(`Cannot use accelerator ${name}: accepted are ${accelNames.join(', ')}`);
    const alone = names.length === 1;
    const found = probe(!alone);
    if (found.why === undefined || (found.usable && alone)) {
      return {
        accel: 'kvm',
        ...(found.tscControl || found.tscKhz === 0 ? {} : { tscKhz: found.tscKhz }),
        ...(found.vendor === undefined ? {} : { hostVendor: found.vendor }),
        ...(found.physicalBits === undefined ? {} : { hostPhysicalBits: found.physicalBits }),
      };
    }
    note = found.why;
  }
  throw new Error(note ?? 'Cannot choose an accelerator: none was named');
}
