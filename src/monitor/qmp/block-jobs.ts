// QMP commands that start block jobs and steer jobs. QEMU 7.2, qapi/job.json, qapi/block-core.json.

import { QmpError } from '../../rpc/qmp/error.ts';
import { array, bool, enumeration, int, object, optional, str } from '../../rpc/qmp/schema.ts';
import { backup, commitBelow, mirror, stream } from '../block/copy-jobs.ts';
import type { JobOptions } from '../block/jobs.ts';
import type { BlockNode } from '../block/node.ts';
import type { Emulator } from '../emulator.ts';
import { jobType } from './events.ts';
import { action, type QmpTable, query } from './row.ts';

const common = {
  'job-id': optional(str),
  speed: optional(int),
  'auto-finalize': optional(bool),
  'auto-dismiss': optional(bool),
} as const;
const onError = enumeration('BlockdevOnError', ['report', 'ignore', 'enospc', 'stop', 'auto']);
const syncMode = enumeration('MirrorSyncMode', ['top', 'full', 'none', 'incremental', 'bitmap']);

interface Common {
  readonly 'job-id'?: string | undefined;
  readonly speed?: number | undefined;
  readonly 'auto-finalize'?: boolean | undefined;
  readonly 'auto-dismiss'?: boolean | undefined;
}
/** Starts a job that holds these nodes. */
export function startJob(
  e: Emulator,
  o: Common,
  device: string,
  nodes: readonly BlockNode[],
  job: Pick<JobOptions, 'type' | 'run' | 'clean'>,
): void {
  const hold = (by: number): void => {
    for (const node of nodes) e.blocks.holders.set(node, (e.blocks.holders.get(node) ?? 0) + by);
  };
  e.jobs.start({
    id: o['job-id'] ?? device,
    speed: o.speed,
    autoFinalize: o['auto-finalize'],
    autoDismiss: o['auto-dismiss'],
    ...job,
    clean: async () => {
      hold(-1);
      await job.clean?.();
    },
  });
  hold(1);
}

/** A node of the chain below `node`, by node name or file name. */
function below(e: Emulator, node: BlockNode, name: string | undefined, file: string | undefined): BlockNode | undefined {
  if (name === undefined && file === undefined) return undefined;
  const found = e.blocks.chain(node).find((n) => (name === undefined ? n.filename === file : n.name === name));
  if (!found) throw new QmpError(`Can't find '${name ?? file}' in the backing chain`);
  return found;
}

export const backupMembers = {
  ...common,
  device: str,
  target: str,
  sync: syncMode,
  compress: optional(bool),
  bitmap: optional(str),
  'bitmap-mode': optional(enumeration('BitmapSyncMode', ['on-success', 'never', 'always'])),
  'on-source-error': optional(onError),
  'on-target-error': optional(onError),
  'filter-node-name': optional(str),
} as const;

export interface BackupArguments extends Common {
  readonly device: string;
  readonly target: string;
  readonly sync: 'top' | 'full' | 'none' | 'incremental' | 'bitmap';
  readonly compress?: boolean | undefined;
  readonly bitmap?: string | undefined;
  readonly 'bitmap-mode'?: 'on-success' | 'never' | 'always' | undefined;
}
/** `blockdev-backup`, also as a part of a transaction: the copy is of this moment. */
export function startBackup(e: Emulator, o: BackupArguments): void {
  const source = e.blocks.nodeOf(o.device);
  const target = e.blocks.get(o.target);
  if (o.compress) throw new QmpError('Compression is not supported for this drive');
  const bitmap = o.bitmap === undefined ? undefined : source.bitmaps.get(o.bitmap);
  if (o.bitmap !== undefined && !bitmap) throw new QmpError(`Bitmap '${o.bitmap}' could not be found`);
  if ((o.sync === 'incremental' || o.sync === 'bitmap') && !bitmap)
    throw new QmpError(`must provide a valid bitmap name for '${o.sync}' sync mode`);
  const { run, clean } = backup({ graph: e.blocks, source, target, sync: o.sync, bitmap, bitmapMode: o['bitmap-mode'] });
  let ok = false;
  startJob(e, o, o.device, [source, target], {
    type: 'backup',
    run: async (job) => {
      await run(job);
      ok = true;
    },
    clean: () => clean(!ok),
  });
}

const jobInfo = object('JobInfo', {
  id: str,
  type: jobType,
  status: str,
  'current-progress': int,
  'total-progress': int,
  error: optional(str),
});
const blockJobInfo = object('BlockJobInfo', {
  type: jobType,
  device: str,
  len: int,
  offset: int,
  busy: bool,
  paused: bool,
  speed: int,
  'io-status': str,
  ready: bool,
  status: str,
  'auto-finalize': bool,
  'auto-dismiss': bool,
  error: optional(str),
});

export const blockJobCommands: QmpTable = {
  'blockdev-mirror': action(
    {
      ...common,
      device: str,
      target: str,
      replaces: optional(str),
      sync: syncMode,
      granularity: optional(int),
      'buf-size': optional(int),
      'on-source-error': optional(onError),
      'on-target-error': optional(onError),
      'filter-node-name': optional(str),
      'copy-mode': optional(enumeration('MirrorCopyMode', ['background', 'write-blocking'])),
    },
    async (e, o) => {
      const source = e.blocks.nodeOf(o.device);
      const target = e.blocks.get(o.target);
      if (target.disk.size < source.disk.size) throw new QmpError(`Target '${target.name}' is smaller than the source`);
      await e.blocks.access(target, true);
      const chain = o.sync === 'full' ? undefined : o.sync === 'top' ? [source] : [];
      const replaces = o.replaces === undefined ? undefined : e.blocks.get(o.replaces);
      startJob(e, o, o.device, [source, target], {
        type: 'mirror',
        run: mirror({ graph: e.blocks, source, target, nodes: chain, granularity: o.granularity, replaces }),
      });
    },
  ),
  'block-commit': action(
    {
      ...common,
      device: str,
      'base-node': optional(str),
      base: optional(str),
      'top-node': optional(str),
      top: optional(str),
      'backing-file': optional(str),
      'on-error': optional(onError),
      'filter-node-name': optional(str),
    },
    async (e, o) => {
      const root = e.blocks.nodeOf(o.device);
      const chain = e.blocks.chain(root);
      const top = below(e, root, o['top-node'], o.top) ?? root;
      const base = below(e, root, o['base-node'], o.base) ?? chain.at(-1)!;
      if (chain.indexOf(base) <= chain.indexOf(top))
        throw new QmpError(`'${base.name}' is not in the backing chain of '${top.name}'`);
      const overlay = chain[chain.indexOf(top) - 1];
      if (overlay) {
        startJob(e, o, o.device, [top, base], {
          type: 'commit',
          run: commitBelow({ graph: e.blocks, overlay, top, base, backingFile: o['backing-file'] }),
        });
        return;
      }
      if (base.disk.size < top.disk.size) {
        await e.blocks.access(base, true);
        await base.format?.resize(top.disk.size);
      }
      await e.blocks.access(base, true);
      startJob(e, o, o.device, [top, base], {
        type: 'commit',
        run: mirror({ graph: e.blocks, source: top, target: base, nodes: chain.slice(0, chain.indexOf(base)) }),
      });
    },
    { features: [] },
  ),
  'block-stream': action(
    {
      ...common,
      device: str,
      base: optional(str),
      'base-node': optional(str),
      'backing-file': optional(str),
      bottom: optional(str),
      'on-error': optional(onError),
      'filter-node-name': optional(str),
    },
    (e, o) => {
      const node = e.blocks.nodeOf(o.device);
      const base = o.bottom === undefined ? below(e, node, o['base-node'], o.base) : below(e, node, o.bottom, undefined)?.backing;
      startJob(e, o, o.device, [node], {
        type: 'stream',
        run: stream({ graph: e.blocks, node, base, backingFile: o['backing-file'] }),
      });
    },
  ),
  'blockdev-backup': action(backupMembers, (e, o) => startBackup(e, o)),
  'query-jobs': query({}, array(jobInfo), (e) =>
    e.jobs.list().map((j) => ({
      id: j.id,
      type: j.type,
      status: j.status,
      'current-progress': j.offset,
      'total-progress': j.length,
      ...(j.error === undefined ? {} : { error: j.error }),
    })),
  ),
  'query-block-jobs': query({}, array(blockJobInfo), (e) =>
    e.jobs
      .list()
      .filter((j) => j.isBlockJob)
      .map((j) => ({
        type: j.type,
        device: j.id,
        len: j.length,
        offset: j.offset,
        busy: j.status === 'running',
        paused: j.paused,
        speed: j.speed,
        'io-status': 'ok',
        ready: j.isReady,
        status: j.status,
        'auto-finalize': j.autoFinalize,
        'auto-dismiss': j.autoDismiss,
        ...(j.error === undefined ? {} : { error: j.error }),
      })),
  ),
  'job-pause': action({ id: str }, (e, { id }) => e.jobs.get(id).pause()),
  'job-resume': action({ id: str }, (e, { id }) => e.jobs.get(id).resume()),
  'job-cancel': action({ id: str }, (e, { id }) => e.jobs.get(id).cancel()),
  'job-complete': action({ id: str }, (e, { id }) => e.jobs.get(id).complete()),
  'job-finalize': action({ id: str }, (e, { id }) => e.jobs.get(id).finalize()),
  'job-dismiss': action({ id: str }, (e, { id }) => e.jobs.get(id).dismiss()),
  'block-job-set-speed': action({ device: str, speed: int }, (e, { device, speed }) => {
    if (speed < 0) throw new QmpError("Parameter 'speed' expects a non-negative value");
    e.jobs.blockJob(device).speed = speed;
  }),
  'block-job-cancel': action({ device: str, force: optional(bool) }, (e, { device, force }) => {
    const job = e.jobs.blockJob(device);
    // A mirror that is ready keeps its copy when it is ended without force.
    if (job.isReady && force !== true && (job.type === 'mirror' || job.type === 'commit')) job.finishHere();
    else job.cancel();
  }),
  'block-job-pause': action({ device: str }, (e, { device }) => e.jobs.blockJob(device).pause()),
  'block-job-resume': action({ device: str }, (e, { device }) => e.jobs.blockJob(device).resume()),
  'block-job-complete': action({ device: str }, (e, { device }) => e.jobs.blockJob(device).complete()),
  'block-job-finalize': action({ id: str }, (e, { id }) => e.jobs.blockJob(id).finalize()),
  'block-job-dismiss': action({ id: str }, (e, { id }) => e.jobs.blockJob(id).dismiss()),
};
