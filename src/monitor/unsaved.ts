// What keeps a machine from being saved or migrated: devices whose state is with the host.

import type { RunningMachine } from '../machine/running.ts';
import { QmpError } from '../rpc/qmp/error.ts';

/** One line for each device that cannot be saved now: QEMU's `blocked-reasons`. */
export const blockedReasons = (machine: RunningMachine): readonly string[] =>
  machine.devices.list().flatMap((d) => d.io?.unsaved?.() ?? []);

/** @throws QmpError where a device of the machine cannot be saved now */
export function refuseUnsaved(machine: RunningMachine): void {
  const [reason] = blockedReasons(machine);
  if (reason !== undefined) throw new QmpError(reason);
}
