// Jobs over the disks of a running guest: pull, commit, copy; what their end means for the definition (libvirt 9.0, QEMU 7.2's QMP).
import { type Disk, disk as diskCodec } from '../../domain/model/disk.ts';
import { parseRoot } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { invalidArgument, operationInvalid } from '../errors.ts';
import { finishJob, type JobPlan } from './block-job-ends.ts';
import {
  addNodes,
  findDisk,
  findLevel,
  formatNode,
  levelsOf,
  makeImage,
  nextNode,
  nodeSize,
  removeNodes,
} from './block-nodes.ts';
import { bitmapsFor } from './checkpoints.ts';
import type { BlockJob, Guest, Run } from './guest.ts';
import { saveStatus } from './status.ts';

/** libvirt's numbers. */
export const jobType = { pull: 1, copy: 2, commit: 3, activeCommit: 4, backup: 5 } as const;
const jobStatus = { completed: 0, failed: 1, canceled: 2, ready: 3 } as const;

function announce(daemon: Daemon, guest: Guest, job: BlockJob, status: number): void {
  if (job.silent) return;
  const disk = guest.run?.domain.devices.disks.find((one) => one.target?.dev === job.disk);
  const fields = { type: job.type, status };
  daemon.events.domain(8, guest.ref, { path: disk?.source?.file ?? job.disk, ...fields });
  daemon.events.domain(16, guest.ref, { dst: job.disk, ...fields });
}

/** The error of a concluded job. */
async function jobError(guest: Guest, id: string): Promise<string | undefined> {
  const jobs = await guest.qmp('query-jobs');
  const found = (Array.isArray(jobs) ? jobs : []).find((one) => isObject(one) && one['id'] === id);
  return isObject(found) && typeof found['error'] === 'string' ? found['error'] : undefined;
}

/** Follows a job of this run by the status that the emulator reports. */
export async function blockJobEvent(daemon: Daemon, guest: Guest, run: Run, id: string, status: string): Promise<void> {
  const job = run.blockJobs.get(id);
  if (job === undefined || job.concluding) return;
  if (status === 'concluded') job.concluding = true;
  if (status === 'ready' && !job.ready) {
    job.ready = true;
    announce(daemon, guest, job, jobStatus.ready);
  }
  if (status !== 'concluded') return;
  let end: number = jobStatus.failed;
  try {
    const failed = job.result === undefined ? await jobError(guest, id) : undefined;
    const canceled = job.ending === 'abort' || (failed !== undefined && /cancel/i.test(failed));
    job.result ??= !canceled && failed === undefined;
    end = job.result ? jobStatus.completed : canceled ? jobStatus.canceled : jobStatus.failed;
    // Once it is dismissed, nobody but the status file knows how it ended.
    await saveStatus(daemon.host, daemon.paths.run, guest);
    await guest.qmp('job-dismiss', { id }).catch(() => {});
    run.blockJobs.delete(id);
    await finishJob(daemon, guest, run, job, job.result);
    job.ended?.(job.result);
    await saveStatus(daemon.host, daemon.paths.run, guest);
  } finally {
    run.blockJobs.delete(id);
    announce(daemon, guest, job, end);
    job.done.resolve();
  }
}

function newJob(disk: Disk, id: string, type: number, bandwidth: number, plan: JobPlan): BlockJob {
  return { id, disk: disk.target!.dev!, type, bandwidth, ready: false, plan, done: Promise.withResolvers<void>() };
}

/** Puts the job down before the command, because its events come before the answer. */
async function startJob(
  daemon: Daemon,
  guest: Guest,
  job: BlockJob,
  command: string,
  args: Readonly<Record<string, string | number | boolean | undefined>>,
): Promise<void> {
  const { run } = guest;
  const given = Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined)) as Record<string, string>;
  run!.blockJobs.set(job.id, job);
  await saveStatus(daemon.host, daemon.paths.run, guest);
  try {
    await guest.qmp(command, { ...given, 'job-id': job.id, 'auto-finalize': true, 'auto-dismiss': false });
  } catch (error) {
    run!.blockJobs.delete(job.id);
    await saveStatus(daemon.host, daemon.paths.run, guest);
    throw error;
  }
}

function freeDisk(run: Run, path: string): Disk {
  const disk = findDisk(run.domain.devices.disks, path);
  const busy = [...run.blockJobs.values()].find((one) => one.disk === disk.target?.dev);
  if (busy) throw operationInvalid(`disk '${disk.target?.dev}' already in active block job`);
  if (!disk.source) throw libvirtError('configUnsupported', 'qemu', `disk '${disk.target?.dev}' has no source`);
  return disk;
}

/** Bytes a second of what a client gives in MiB/s, or in bytes with the flag. */
export const speedOf = (bandwidth: bigint, bytes: boolean): number => Number(bytes ? bandwidth : bandwidth * 1024n * 1024n);

export async function blockPull(
  daemon: Daemon,
  guest: Guest,
  path: string,
  base: string | undefined,
  speed: number,
): Promise<void> {
  const run = guest.live();
  const disk = freeDisk(run, path);
  const levels = levelsOf(disk);
  const keep = base === undefined ? undefined : findLevel(disk, base);
  if (keep?.depth === 0) throw invalidArgument(`'${base}' is the active layer of disk '${path}'`);
  const top = formatNode(levels[0]!.index);
  const plan: JobPlan = { kind: 'pull', keep: keep?.depth };
  const job = newJob(disk, `pull-${disk.target!.dev}-${top}`, jobType.pull, speed, plan);
  const backing = keep === undefined ? {} : { 'base-node': formatNode(keep.index) };
  await startJob(daemon, guest, job, 'block-stream', { device: top, ...backing, speed: speed || undefined });
}

export interface CommitOptions {
  readonly base: string | undefined;
  readonly top: string | undefined;
  readonly speed: number;
  readonly active: boolean;
  readonly shallow: boolean;
}

export async function blockCommit(daemon: Daemon, guest: Guest, path: string, options: CommitOptions): Promise<void> {
  const run = guest.live();
  const disk = freeDisk(run, path);
  const levels = levelsOf(disk);
  const top = options.top === undefined ? levels[0]! : findLevel(disk, options.top);
  const base =
    options.base !== undefined ? findLevel(disk, options.base) : options.shallow ? levels[top.depth + 1] : levels.at(-1)!;
  if (base === undefined || levels.length === top.depth + 1) {
    throw invalidArgument(`top '${top.source.file}' in chain for '${path}' has no backing file`);
  }
  if (base.depth <= top.depth)
    throw invalidArgument(`base '${base.source.file}' is not below '${top.source.file}' in chain for '${path}'`);
  const activeLayer = top.depth === 0;
  if (activeLayer && !options.active) throw invalidArgument(`commit of '${path}' active layer requires active flag`);
  if (!activeLayer && options.active) throw invalidArgument(`active commit requested but '${top.source.file}' is not active`);
  const type = activeLayer ? jobType.activeCommit : jobType.commit;
  const plan: JobPlan = { kind: 'commit', top: top.depth, base: base.depth };
  const job = newJob(disk, `commit-${disk.target!.dev}-${formatNode(top.index)}`, type, options.speed, plan);
  await startJob(daemon, guest, job, 'block-commit', {
    device: formatNode(levels[0]!.index),
    'top-node': formatNode(top.index),
    'base-node': formatNode(base.index),
    speed: options.speed || undefined,
  });
}

export interface CopyOptions {
  readonly xml: string;
  readonly speed: number;
  readonly shallow: boolean;
  readonly reuse: boolean;
  /** The client accepts that the job is lost with the domain. */
  readonly transient: boolean;
  readonly granularity?: number;
  readonly bufSize?: number;
}

export async function blockCopy(daemon: Daemon, guest: Guest, path: string, options: CopyOptions): Promise<void> {
  const run = guest.live();
  const disk = freeDisk(run, path);
  if (guest.persistent && !options.transient) throw operationInvalid('domain is not transient');
  const wanted = diskCodec.parse(parseRoot(options.xml, 'disk', 'disk_definition'));
  const file = wanted.source?.file ?? wanted.source?.dev;
  if (file === undefined || (wanted.type !== 'file' && wanted.type !== 'block')) {
    throw libvirtError('configUnsupported', 'qemu', 'only local files and devices can be the target of a copy');
  }
  const levels = levelsOf(disk);
  const format = wanted.driver?.type ?? disk.driver?.type ?? 'raw';
  const top = formatNode(levels[0]!.index);
  const size = await nodeSize(guest, top);
  const below = options.shallow ? levels[1] : undefined;
  await makeImage(
    daemon,
    {
      path: file,
      format,
      size,
      ...(below?.source.file !== undefined && { backing: { path: below.source.file, format: below.format } }),
    },
    options.reuse || wanted.type === 'block',
  );
  const index = nextNode(run);
  const source = { ...wanted.source!, index };
  const driver = { ...disk.driver, type: format };
  const alone: Disk = { ...disk, type: wanted.type, source, driver, backingStore: {} };
  await addNodes(guest, alone);
  const plan: JobPlan = { kind: 'copy', shallow: options.shallow, type: wanted.type, source, format };
  const job = newJob(disk, `copy-${disk.target!.dev}-${top}`, jobType.copy, options.speed, plan);
  try {
    await startJob(daemon, guest, job, 'blockdev-mirror', {
      device: top,
      target: formatNode(index),
      sync: options.shallow ? 'top' : 'full',
      speed: options.speed || undefined,
      granularity: options.granularity || undefined,
      'buf-size': options.bufSize || undefined,
    });
  } catch (error) {
    await removeNodes(guest, [{ index }]);
    throw error;
  }
}

export const jobOf = (run: Run, path: string): BlockJob | undefined => {
  const disk = findDisk(run.domain.devices.disks, path);
  return [...run.blockJobs.values()].find((one) => one.disk === disk.target?.dev);
};

/** Ends a job: with `pivot` the guest goes on with the copy or the base. Waits for the end unless `async`. */
export async function blockJobAbort(daemon: Daemon, guest: Guest, path: string, pivot: boolean, async: boolean): Promise<void> {
  const run = guest.live();
  const job = jobOf(run, path);
  if (job === undefined) throw invalidArgument(`disk ${path} does not have an active block job`);
  if (pivot) {
    if (job.type !== jobType.copy && job.type !== jobType.activeCommit) {
      throw operationInvalid(`job type '${job.type === jobType.pull ? 'pull' : 'commit'}' does not support pivot`);
    }
    if (!job.ready) {
      throw libvirtError('blockCopyActive', 'qemu', `block job '${job.id}' not ready for pivot yet`);
    }
    const { plan } = job;
    if (plan.kind === 'copy' && plan.format === 'qcow2') {
      const disk = findDisk(run.domain.devices.disks, path);
      const actions = bitmapsFor(guest, job.disk, formatNode(disk.source!.index!), formatNode(plan.source.index!));
      if (actions.length > 0) await guest.qmp('transaction', { actions: actions as never });
    }
    job.ending = 'pivot';
    await saveStatus(daemon.host, daemon.paths.run, guest);
    await guest.qmp('job-complete', { id: job.id });
  } else {
    // A copy that is ready ends as a finished one: whether it counts is ours to say.
    job.ending = 'abort';
    await saveStatus(daemon.host, daemon.paths.run, guest);
    await guest.qmp('block-job-cancel', { device: job.id });
  }
  if (!async) await job.done.promise;
}

export async function blockJobInfo(
  guest: Guest,
  path: string,
): Promise<{ type: number; bandwidth: bigint; cur: bigint; end: bigint } | undefined> {
  const run = guest.live();
  const job = jobOf(run, path);
  if (job === undefined) return undefined;
  const jobs = await guest.qmp('query-block-jobs');
  const found = (Array.isArray(jobs) ? jobs : []).find((one) => isObject(one) && one['device'] === job.id);
  if (!isObject(found)) return { type: job.type, bandwidth: BigInt(job.bandwidth), cur: 0n, end: 1n };
  let [cur, end] = [Number(found['offset'] ?? 0), Number(found['len'] ?? 0)];
  // Nothing to do is done; and a copy is only at its end when it is ready.
  if (end === 0 && job.ready) [cur, end] = [1, 1];
  else if (cur === end && !job.ready && found['ready'] === false) [cur, end] = [Math.max(0, end - 1), Math.max(1, end)];
  return { type: job.type, bandwidth: BigInt(job.bandwidth), cur: BigInt(cur), end: BigInt(end) };
}

export async function blockJobSpeed(guest: Guest, path: string, speed: number): Promise<void> {
  const job = jobOf(guest.live(), path);
  if (job === undefined) throw invalidArgument(`disk ${path} does not have an active block job`);
  await guest.qmp('block-job-set-speed', { device: job.id, speed });
  job.bandwidth = speed;
}
