// Backup of a running guest's disks into images: `<domainbackup>`, push mode (libvirt 9.0, formatbackup).
import { attribute, child, children, element, kept, leaf, oneOf, required, string, type Value } from '../../domain/codec.ts';
import type { Disk } from '../../domain/model/disk.ts';
import { formatXml, parseRoot } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon } from '../daemon.ts';
import { operationInvalid } from '../errors.ts';
import { jobType } from './block-jobs.ts';
import { addNodes, formatNode, makeImage, nextNode, nodeSize, removeNodes } from './block-nodes.ts';
import { parseCheckpoint } from './checkpoint-model.ts';
import { findCheckpoint, keepCheckpoint, planCheckpoint } from './checkpoints.ts';
import type { BlockJob, Guest, Job } from './guest.ts';
import { jobDone, operation } from './save.ts';

const backupDisk = element('disk', {
  name: required('name', string),
  backup: attribute('backup', oneOf('yes', 'no')),
  type: attribute('type', oneOf('file', 'block')),
  backupmode: attribute('backupmode', oneOf('full', 'incremental')),
  incremental: attribute('incremental', string),
  driver: child(element('driver', { type: attribute('type', string) })),
  target: child(element('target', { file: attribute('file', string), dev: attribute('dev', string) })),
});
const root = element('domainbackup', {
  mode: attribute('mode', oneOf('push', 'pull')),
  incremental: leaf('incremental', string),
  server: kept('server'),
  disks: child(element('disks', { disks: children(backupDisk) })),
});
type Backup = Value<typeof root>;

const reuseFlag = 1;

interface Part {
  readonly disk: Disk;
  readonly index: number;
  readonly path: string;
  readonly job: BlockJob;
  readonly bitmap: string | undefined;
}

export async function beginBackup(
  daemon: Daemon,
  guest: Guest,
  xml: string,
  checkpointXml: string | undefined,
  flags: number,
): Promise<void> {
  const wanted = root.parse(parseRoot(xml, 'domainbackup', 'domain_backup'));
  if (wanted.mode === 'pull') throw libvirtError('configUnsupported', 'qemu', 'pull mode backup is not supported');
  await guest.lock.run('DomainBackupBegin', async () => {
    const run = guest.live();
    if (guest.job) throw operationInvalid('another job is active');
    const point = checkpointXml === undefined ? undefined : planCheckpoint(daemon, guest, parseCheckpoint(checkpointXml));
    const parts: Part[] = [];
    const shown: NonNullable<Backup['disks']>['disks'] = [];
    try {
      for (const disk of run.domain.devices.disks) {
        const own = wanted.disks?.disks.find((one) => one.name === disk.target?.dev);
        const skip = !disk.source || disk.readonly === true || (wanted.disks !== undefined && !own) || own?.backup === 'no';
        if (skip) {
          shown.push({ name: disk.target?.dev ?? '', backup: 'no' });
          continue;
        }
        const path = own?.target?.file ?? own?.target?.dev ?? `${disk.source!.file}.backup`;
        const format = own?.driver?.type ?? 'qcow2';
        const size = await nodeSize(guest, formatNode(disk.source!.index!));
        await makeImage(daemon, { path, format, size }, (flags & reuseFlag) !== 0);
        const index = nextNode(run);
        const source = { file: path, hosts: [], seclabels: [], index };
        await addNodes(guest, { ...disk, type: 'file', source, driver: { ...disk.driver, type: format }, backingStore: {} });
        const since = own?.incremental ?? wanted.incremental;
        if (since !== undefined) findCheckpoint(guest, since);
        const job: BlockJob = {
          id: `backup-${disk.target!.dev}-${formatNode(disk.source!.index!)}`,
          disk: disk.target!.dev!,
          type: jobType.backup,
          bandwidth: 0,
          ready: false,
          finish: () => removeNodes(guest, [{ index }]),
          done: Promise.withResolvers<void>(),
        };
        parts.push({ disk, index, path, job, bitmap: since });
        shown.push({ name: disk.target!.dev!, backup: 'yes', type: 'file', driver: { type: format }, target: { file: path } });
      }
      for (const part of parts) run.blockJobs.set(part.job.id, part.job);
      const actions = parts.map(({ disk, index, job, bitmap }) => ({
        type: 'blockdev-backup',
        data: {
          device: formatNode(disk.source!.index!),
          'job-id': job.id,
          target: formatNode(index),
          sync: bitmap === undefined ? 'full' : 'bitmap',
          ...(bitmap !== undefined && { bitmap, 'bitmap-mode': 'never' }),
          'auto-finalize': true,
          'auto-dismiss': false,
        },
      }));
      await guest.qmp('transaction', { actions: [...(point?.actions ?? []), ...actions] as never });
    } catch (error) {
      for (const { index, job, path } of parts) {
        run.blockJobs.delete(job.id);
        await removeNodes(guest, [{ index }]);
        if ((flags & reuseFlag) === 0) await daemon.host.files.remove(path);
      }
      throw error;
    }
    if (point) await keepCheckpoint(daemon, guest, point.checkpoint);
    guest.backup = formatXml(root.format({ ...wanted, mode: 'push', disks: { disks: shown } }));
    const job = backupJob(daemon, guest, parts);
    guest.job = job;
    void Promise.all(parts.map((part) => part.job.done.promise)).then(() => {
      if (guest.job !== job) return;
      guest.job = undefined;
      guest.backup = undefined;
      jobDone(daemon, guest, job, []);
    });
  });
}

function backupJob(daemon: Daemon, guest: Guest, parts: readonly Part[]): Job {
  return {
    operation: operation.backup,
    startedMs: daemon.host.now(),
    abort: async () => {
      for (const { job } of parts) {
        job.ending = 'abort';
        await guest.qmp('block-job-cancel', { device: job.id }).catch(() => {});
      }
    },
    progress: async () => {
      const jobs = await guest.qmp('query-block-jobs');
      let [total, processed] = [0, 0];
      for (const one of Array.isArray(jobs) ? (jobs as { device?: string; len?: number; offset?: number }[]) : []) {
        if (!parts.some((part) => part.job.id === one.device)) continue;
        total += Number(one.len ?? 0);
        processed += Number(one.offset ?? 0);
      }
      return { total, remaining: total - processed, processed };
    },
  };
}
