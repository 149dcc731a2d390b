// What the end of a block job means for the definition, as data: it is in the guest's status file, and a daemon that is started again goes on from it.
import type { Disk, DiskSource } from '../../domain/model/disk.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { levelsOf, persistSource, removeNodes, storeBelow } from './block-nodes.ts';
import type { BlockJob, Guest, Run } from './guest.ts';

export type JobPlan =
  /** Levels above the one at this depth are gone; all where there is none. */
  | { readonly kind: 'pull'; readonly keep: number | undefined }
  /** Depths of the levels from which and into which. */
  | { readonly kind: 'commit'; readonly top: number; readonly base: number }
  | {
      readonly kind: 'copy';
      readonly shallow: boolean;
      readonly type: Disk['type'];
      readonly source: DiskSource;
      readonly format: string;
    }
  /** The node with what was kept, and the file to remove with it. */
  | { readonly kind: 'backup'; readonly index: number; readonly scratch: string | undefined }
  /** Part of a migration, with its nodes from the top; `failed` when it has ended by itself. */
  | { readonly kind: 'migration'; readonly nodes: readonly string[] };

export async function finishJob(daemon: Daemon, guest: Guest, run: Run, job: BlockJob, ok: boolean): Promise<void> {
  const { plan } = job;
  if (plan.kind === 'migration') {
    for (const node of plan.nodes) await guest.qmp('blockdev-del', { 'node-name': node }).catch(() => {});
    return;
  }
  if (plan.kind === 'backup') {
    await removeNodes(guest, [plan]);
    if (plan.scratch !== undefined) await daemon.host.files.remove(plan.scratch);
    return;
  }
  const disk = run.domain.devices.disks.find((one) => one.target?.dev === job.disk);
  if (!disk) return;
  if (plan.kind === 'copy') {
    const index = plan.source.index!;
    delete disk.mirror;
    if (!ok || job.ending !== 'pivot') return removeNodes(guest, [{ index }]);
    const levels = levelsOf(disk);
    disk.type = plan.type;
    disk.source = plan.source;
    disk.driver = { ...disk.driver, type: plan.format };
    disk.backingStore = plan.shallow ? (disk.backingStore ?? {}) : {};
    await persistSource(daemon, guest, disk);
    return removeNodes(guest, plan.shallow ? levels.slice(0, 1) : levels);
  }
  if (!ok) return;
  const levels = levelsOf(disk);
  if (plan.kind === 'pull') {
    const { keep } = plan;
    disk.backingStore = keep === undefined ? {} : storeBelow(disk, keep - 1)!;
    return removeNodes(guest, levels.slice(1, keep ?? levels.length));
  }
  const { top, base } = plan;
  if (top === 0 && job.ending !== 'pivot') return;
  const below = levels[base]!;
  if (top === 0) {
    const store = storeBelow(disk, base) ?? {};
    disk.source = { ...below.source, index: below.index };
    disk.driver = { ...disk.driver, type: below.format };
    disk.backingStore = store;
    await persistSource(daemon, guest, disk);
  } else {
    const above = top === 1 ? disk : storeBelow(disk, top - 2)!;
    above.backingStore = storeBelow(disk, base - 1)!;
  }
  await removeNodes(guest, levels.slice(top, base));
}

/** What a status file keeps of a job. */
export interface KeptJob extends Pick<BlockJob, 'id' | 'disk' | 'type' | 'bandwidth' | 'plan'> {
  readonly ending?: BlockJob['ending'];
  readonly result?: boolean;
}
export const keepJob = ({ id, disk, type, bandwidth, plan, ending, result }: BlockJob): KeptJob => ({
  ...{ id, disk, type, bandwidth, plan },
  ...(ending !== undefined && { ending }),
  ...(result !== undefined && { result }),
});

/** Takes up the jobs of a guest that runs on: those that ended while nobody listened end now, those of a migration are given up. */
export async function resumeJobs(
  guest: Guest,
  run: Run,
  kept: readonly KeptJob[],
  event: (id: string, status: string) => Promise<void>,
): Promise<void> {
  // Files of earlier versions have no plans.
  const jobs = kept.filter((one) => one.plan !== undefined);
  if (jobs.length === 0) return;
  const answer = await guest.qmp('query-jobs');
  const statuses = new Map<string, string>();
  for (const one of Array.isArray(answer) ? answer : []) {
    if (isObject(one)) statuses.set(String(one['id']), String(one['status']));
  }
  for (const { plan, result, ...one } of jobs) {
    const silent = plan.kind === 'migration';
    // A job that is not there and has no result was never begun.
    const known = statuses.has(one.id) ? result : (result ?? false);
    run.blockJobs.set(one.id, { ...one, plan, result: known, ready: false, silent, done: Promise.withResolvers<void>() });
  }
  for (const { id, plan } of jobs) {
    const status = statuses.get(id) ?? 'concluded';
    if (status === 'concluded' || status === 'ready') await event(id, status);
    const still = run.blockJobs.get(id);
    if (plan.kind !== 'migration' || !still) continue;
    still.ending = 'abort';
    await guest.qmp('block-job-cancel', { device: id, force: true }).catch(() => {});
  }
}
