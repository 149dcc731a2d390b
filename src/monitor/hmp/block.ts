// Commands of the monitor for people about disks. QEMU 7.2's words.

import { qdev } from '../block/info.ts';
import { fileOptions } from '../block/options.ts';
import type { Emulator } from '../emulator.ts';
import { type HmpCommand, HmpError, need } from './command.ts';

function blockText(e: Emulator): string {
  return e.blocks.backends
    .filter((b) => b.user !== undefined || b.id !== '')
    .map((b) => {
      const name = b.id || b.nodeName || qdev(b);
      const { node } = b;
      const lines = [
        node
          ? `${name}: ${node.filename} (${node.options.driver}${node.readOnly ? ', read-only' : ''})`
          : `${name}: [not inserted]`,
      ];
      if (b.user !== undefined) lines.push(`    Attached to:      ${b.virtio ? qdev(b) : b.user}`);
      if (b.removable || b.user === undefined)
        lines.push(`    Removable device: not locked, tray ${b.trayOpen ? 'open' : 'closed'}`);
      if (node) lines.push(`    Cache mode:       ${b.writeThrough ? 'writethrough' : 'writeback'}`);
      if (node?.backing)
        lines.push(`    Backing file:     ${node.backing.filename} (chain depth: ${e.blocks.chain(node).length - 1})`);
      return lines.join('\n');
    })
    .join('\n\n');
}

export const blockInfos: readonly HmpCommand[] = [
  { names: ['block'], help: 'show info of block devices', run: blockText },
  {
    names: ['blockstats'],
    help: 'show block device statistics',
    run: (e) =>
      e.blocks.backends
        .filter((b) => b.user !== undefined || b.id !== '')
        .map((b) => {
          b.settle?.();
          const { id, nodeName } = b;
          const { rd, wr, flush } = b.stats;
          const counts = [
            ['rd_bytes', rd.bytes],
            ['wr_bytes', wr.bytes],
            ['rd_operations', rd.operations],
            ['wr_operations', wr.operations],
            ['flush_operations', flush.operations],
            ['wr_total_time_ns', wr.ns],
            ['rd_total_time_ns', rd.ns],
            ['flush_total_time_ns', flush.ns],
          ] as const;
          return `${id || nodeName}: ${counts.map(([k, v]) => `${k}=${v}`).join(' ')}`;
        })
        .join('\n'),
  },
  {
    names: ['block-jobs'],
    help: 'show progress of ongoing block device operations',
    run: (e) =>
      e.jobs
        .list()
        .filter((j) => j.isBlockJob)
        .map((j) => `Type ${j.type}, device ${j.id}: Completed ${j.offset} of ${j.length} bytes, speed limit ${j.speed} bytes/s`)
        .join('\n') || 'No active jobs',
  },
];

export const blockHmp: readonly HmpCommand[] = [
  {
    names: ['eject'],
    args: '[-f] device',
    help: 'eject a removable medium',
    run(e, { words }) {
      const name = words.filter((w) => w !== '-f')[0];
      if (name === undefined) throw new HmpError('missing parameter device');
      const b = e.blocks.backend(name);
      if (!b.removable) throw new HmpError(`Error: Device '${name}' is not removable`);
      b.put(undefined);
    },
  },
  {
    names: ['change'],
    args: 'device filename [format]',
    help: 'change a removable medium',
    async run(e, args) {
      const b = e.blocks.backend(need(args, 0, 'device'));
      if (!b.removable) throw new HmpError(`Error: Device '${args.words[0]}' is not removable`);
      const node = await e.blocks.addFile(fileOptions(need(args, 1, 'target')), args.words[2], b.readOnly);
      const old = b.node;
      b.put(node);
      if (old?.implicit) await e.blocks.remove(old.name).catch(() => {});
    },
  },
  {
    names: ['block_job_cancel'],
    args: '[-f] device',
    help: 'stop an active background block operation',
    run: (e, { words }) => e.jobs.blockJob(words.filter((w) => w !== '-f')[0] ?? '').cancel(),
  },
  {
    names: ['block_job_complete'],
    args: 'device',
    help: 'stop an active background block operation, pivoting to its target',
    run: (e, args) => e.jobs.blockJob(need(args, 0, 'device')).complete(),
  },
];
