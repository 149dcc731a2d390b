// All QMP commands of the emulator: one table.

import { blockCommands } from './block.ts';
import { blockJobCommands } from './block-jobs.ts';
import { chardevCommands } from './chardev.ts';
import { cpuCommands } from './cpus.ts';
import { deviceCommands } from './device.ts';
import { displayCommands } from './display.ts';
import { hmpCommands } from './hmp.ts';
import { introspectCommands } from './introspect.ts';
import { memoryCommands } from './memory.ts';
import { migrateCommands } from './migrate.ts';
import { nbdCommands } from './nbd.ts';
import { qomCommands } from './qom.ts';
import type { QmpTable } from './row.ts';
import { statusCommands } from './status.ts';
import { transactionCommands } from './transaction.ts';

export const qmpTable: QmpTable = {
  ...statusCommands,
  ...introspectCommands,
  ...cpuCommands,
  ...chardevCommands,
  ...qomCommands,
  ...deviceCommands,
  ...blockCommands,
  ...blockJobCommands,
  ...nbdCommands,
  ...transactionCommands,
  ...hmpCommands,
  ...migrateCommands,
  ...displayCommands,
  ...memoryCommands,
};
