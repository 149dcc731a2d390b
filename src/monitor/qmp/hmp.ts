// The QMP command that runs a line of the monitor for people. QEMU 7.2, qapi/misc.json.

import { int, optional, str } from '../../rpc/qmp/schema.ts';
import { runHmp } from '../hmp/commands.ts';
import { type QmpTable, query } from './row.ts';

export const hmpCommands: QmpTable = {
  'human-monitor-command': query(
    { 'command-line': str, 'cpu-index': optional(int) },
    str,
    async (e, { 'command-line': line, 'cpu-index': cpu }) => {
      const before = e.currentCpu;
      if (cpu !== undefined) e.currentCpu = cpu;
      try {
        return await runHmp(e, line);
      } finally {
        e.currentCpu = before;
      }
    },
  ),
};
