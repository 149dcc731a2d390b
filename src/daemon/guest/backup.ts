// Backup of a running guest's disks: `<domainbackup>` (libvirt 9.0, formatbackup). In push mode the emulator writes images; in pull mode it
// serves the disks as they were at the beginning over NBD, with what changed since a checkpoint as a bitmap, until the job is aborted.
import { attribute, child, children, element, leaf, oneOf, required, string, unsigned, type Value } from '../../domain/codec.ts';
import type { Disk } from '../../domain/model/disk.ts';
import { formatXml, parseRoot } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { operationInvalid } from '../errors.ts';
import { jobType } from './block-jobs.ts';
import { addNodes, formatNode, makeImage, nextNode, nodeSize, removeNodes } from './block-nodes.ts';
import { type Checkpoint, parseCheckpoint } from './checkpoint-model.ts';
import { findCheckpoint, keepCheckpoint, planCheckpoint } from './checkpoints.ts';
import type { BackupState, BlockJob, Guest, Job, Run } from './guest.ts';
import { jobDone, operation } from './save.ts';
import { saveStatus } from './status.ts';

const backupDisk = element('disk', {
  name: required('name', string),
  backup: attribute('backup', oneOf('yes', 'no')),
  type: attribute('type', oneOf('file', 'block')),
  backupmode: attribute('backupmode', oneOf('full', 'incremental')),
  incremental: attribute('incremental', string),
  driver: child(element('driver', { type: attribute('type', string) })),
  exportname: attribute('exportname', string),
  exportbitmap: attribute('exportbitmap', string),
  scratch: child(element('scratch', { file: attribute('file', string), dev: attribute('dev', string) })),
  target: child(element('target', { file: attribute('file', string), dev: attribute('dev', string) })),
});
const root = element('domainbackup', {
  mode: attribute('mode', oneOf('push', 'pull')),
  incremental: leaf('incremental', string),
  server: child(
    element('server', {
      transport: attribute('transport', oneOf('tcp', 'unix')),
      name: attribute('name', string),
      port: attribute('port', unsigned),
      socket: attribute('socket', string),
      tls: attribute('tls', oneOf('yes', 'no')),
    }),
  ),
  disks: child(element('disks', { disks: children(backupDisk) })),
});
type Backup = Value<typeof root>;

const reuseFlag = 1;
/** libvirt's name of the emulator's object. */
const tlsObject = 'objlibvirt_backup_tls0';

interface Part {
  readonly disk: Disk;
  readonly index: number;
  readonly path: string;
  readonly job: BlockJob;
  readonly bitmap: string | undefined;
  /** In pull mode: the name of the export, and of the bitmap that it shows. */
  readonly exportName: string;
  readonly exportBitmap: string;
}

type Server =
  | { readonly type: 'unix'; readonly data: { readonly path: string } }
  | { readonly type: 'inet'; readonly data: { readonly host: string; readonly port: string } };

/** Where the emulator serves in pull mode. */
function serverOf({ server }: Backup): Server {
  if (!server) throw libvirtError('xmlError', 'domain', 'backup server element is missing');
  if (server.transport === 'unix') {
    if (server.socket === undefined || !server.socket.startsWith('/'))
      throw libvirtError('xmlError', 'domain', `backup socket path '${server.socket ?? ''}' must be absolute`);
    return { type: 'unix', data: { path: server.socket } };
  }
  return { type: 'inet', data: { host: server.name ?? 'localhost', port: String(server.port ?? 10809) } };
}

export async function beginBackup(
  daemon: Daemon,
  guest: Guest,
  xml: string,
  checkpointXml: string | undefined,
  flags: number,
): Promise<void> {
  const wanted = root.parse(parseRoot(xml, 'domainbackup', 'domain_backup'));
  const pull = wanted.mode === 'pull';
  const server = pull ? serverOf(wanted) : undefined;
  const tls = pull && wanted.server?.tls === 'yes' ? tlsObject : undefined;
  await guest.lock.run('DomainBackupBegin', async () => {
    if (!guest.active) {
      throw libvirtError('operationUnsupported', 'qemu', 'cannot perform disk backup for inactive domain');
    }
    const run = guest.live();
    if (guest.job) throw operationInvalid('another job is active');
    const point = checkpointXml === undefined ? undefined : planCheckpoint(daemon, guest, parseCheckpoint(checkpointXml));
    const parts: Part[] = [];
    const state = {
      xml: '',
      startedMs: daemon.host.now(),
      pull,
      tls,
      jobs: [] as string[],
      bitmaps: [] as BackupState['bitmaps'],
      link: linkTo(run, server),
    };
    const shown: NonNullable<Backup['disks']>['disks'] = [];
    let serving = false;
    let started = false;
    try {
      for (const disk of run.domain.devices.disks) {
        const own = wanted.disks?.disks.find((one) => one.name === disk.target?.dev);
        const skip = !disk.source || disk.readonly === true || (wanted.disks !== undefined && !own) || own?.backup === 'no';
        if (skip) {
          shown.push({ name: disk.target?.dev ?? '', backup: 'no' });
          continue;
        }
        const dev = disk.target!.dev!;
        const given = pull ? own?.scratch : own?.target;
        const path = given?.file ?? given?.dev ?? `${disk.source!.file}.${point?.checkpoint.name ?? 'backup'}`;
        // What the guest overwrites is kept in an image over the disk.
        const format = pull ? 'qcow2' : (own?.driver?.type ?? 'qcow2');
        const size = await nodeSize(guest, formatNode(disk.source!.index!));
        await makeImage(daemon, { path, format, size }, (flags & reuseFlag) !== 0);
        const index = nextNode(run);
        const source = { file: path, hosts: [], seclabels: [], index };
        const since = own?.incremental ?? wanted.incremental;
        const bitmap = since === undefined ? undefined : bitmapOf(findCheckpoint(guest, since), dev);
        const image: Disk = { ...disk, type: 'file', source, driver: { ...disk.driver, type: format }, backingStore: {} };
        await addNodes(guest, image, pull ? formatNode(disk.source!.index!) : undefined);
        const job: BlockJob = {
          id: `backup-${disk.target!.dev}-${formatNode(disk.source!.index!)}`,
          disk: disk.target!.dev!,
          type: jobType.backup,
          bandwidth: 0,
          ready: false,
          plan: { kind: 'backup', index, scratch: pull && (flags & reuseFlag) === 0 ? path : undefined },
          done: Promise.withResolvers<void>(),
        };
        const exportName = own?.exportname ?? dev;
        const exportBitmap = own?.exportbitmap ?? `backup-${dev}`;
        parts.push({ disk, index, path, job, bitmap, exportName, exportBitmap });
        const kind = { name: dev, backup: 'yes', type: 'file', driver: { type: format } } as const;
        shown.push(pull ? { ...kind, exportname: exportName, scratch: { file: path } } : { ...kind, target: { file: path } });
      }
      for (const part of parts) run.blockJobs.set(part.job.id, part.job);
      state.jobs = parts.map((part) => part.job.id);
      state.xml = formatXml(root.format({ ...wanted, mode: pull ? 'pull' : 'push', disks: { disks: shown } }));
      const actions = parts.flatMap(({ disk, index, job, bitmap, exportBitmap }) => {
        const node = formatNode(disk.source!.index!);
        // The bitmap that is shown stands still while the checkpoint's goes on.
        const frozen =
          !pull || bitmap === undefined
            ? []
            : [
                { type: 'block-dirty-bitmap-add', data: { node, name: exportBitmap, persistent: false, disabled: true } },
                { type: 'block-dirty-bitmap-merge', data: { node, target: exportBitmap, bitmaps: [bitmap] } },
              ];
        const sync = pull ? 'none' : bitmap === undefined ? 'full' : 'bitmap';
        const data = {
          device: node,
          'job-id': job.id,
          target: formatNode(index),
          sync,
          ...(sync === 'bitmap' && { bitmap, 'bitmap-mode': 'never' }),
          'auto-finalize': true,
          'auto-dismiss': false,
        };
        return [...frozen, { type: 'blockdev-backup', data }];
      });
      if (tls !== undefined) {
        const creds = { dir: daemon.options.backupTls, endpoint: 'server', 'verify-peer': true };
        await guest.qmp('object-add', { 'qom-type': 'tls-creds-x509', id: tls, ...creds });
      }
      serving = server !== undefined;
      if (server) await serve(daemon, guest, server, tls);
      state.bitmaps = parts.flatMap(({ disk, bitmap, exportBitmap }) =>
        !pull || bitmap === undefined ? [] : [{ node: formatNode(disk.source!.index!), name: exportBitmap }],
      );
      // A daemon that is killed from here on ends what is begun, or goes on with it.
      guest.backup = state;
      await saveStatus(daemon.host, daemon.paths.run, guest);
      await guest.qmp('transaction', { actions: [...(point?.actions ?? []), ...actions] as never });
      started = true;
      for (const { index, bitmap, exportName, exportBitmap } of pull ? parts : []) {
        await guest.qmp('block-export-add', {
          type: 'nbd',
          id: `libvirt-nbd-libvirt-${index}-format`,
          'node-name': formatNode(index),
          writable: false,
          name: exportName,
          ...(bitmap !== undefined && { bitmaps: [exportBitmap] }),
        });
      }
    } catch (error) {
      if (serving) await endServing(daemon, guest, state);
      guest.backup = undefined;
      for (const { index, job, path } of parts) {
        if (started) {
          job.ending = 'abort';
          await guest.qmp('block-job-cancel', { device: job.id }).catch(() => {});
          await job.done.promise;
          continue;
        }
        run.blockJobs.delete(job.id);
        await removeNodes(guest, [{ index }]);
        if ((flags & reuseFlag) === 0) await daemon.host.files.remove(path);
      }
      throw error;
    }
    if (point) await keepCheckpoint(daemon, guest, point.checkpoint);
    await saveStatus(daemon.host, daemon.paths.run, guest);
    follow(daemon, guest, run, state);
  });
}

/** Makes the backup the guest's job, for as long as one of its disks is under way. */
function follow(daemon: Daemon, guest: Guest, run: Run, backup: BackupState): void {
  let serving = backup.pull;
  const stopServing = async (): Promise<void> => {
    if (serving && !run.stopped) await endServing(daemon, guest, backup);
    serving = false;
  };
  const job = backupJob(daemon, guest, run, backup, stopServing);
  guest.job = job;
  const done = backup.jobs.map((id) => run.blockJobs.get(id)?.done.promise);
  void Promise.all(done).then(async () => {
    if (guest.job !== job) return;
    // One that ended by itself leaves its server behind.
    await stopServing();
    guest.job = undefined;
    guest.backup = undefined;
    jobDone(daemon, guest, job, []);
    await saveStatus(daemon.host, daemon.paths.run, guest);
  });
}

/** A daemon that was started again goes on with a backup, or cleans up after one whose jobs have ended. */
export async function resumeBackup(daemon: Daemon, guest: Guest, run: Run, backup: BackupState): Promise<void> {
  if (!backup.jobs.some((id) => run.blockJobs.has(id))) {
    if (backup.pull) await endServing(daemon, guest, backup);
    guest.backup = undefined;
    return saveStatus(daemon.host, daemon.paths.run, guest);
  }
  guest.backup = backup;
  follow(daemon, guest, run, backup);
}

/** The name of a checkpoint's bitmap of a disk. @throws {LibvirtError} where the disk has none */
function bitmapOf(checkpoint: Checkpoint, dev: string): string {
  const disk = checkpoint.disks?.disks.find((one) => one.name === dev);
  if (disk?.checkpoint !== 'bitmap')
    throw operationInvalid(`checkpoint '${checkpoint.name}' does not have a bitmap of disk '${dev}'`);
  return disk.bitmap ?? checkpoint.name!;
}

/** The place that a client was told where the emulator itself makes no sockets elsewhere. */
const linkTo = (run: Run, server: Server | undefined): string | undefined =>
  server?.type === 'unix' && run.confined ? server.data.path : undefined;

async function serve(daemon: Daemon, guest: Guest, server: Server, tls: string | undefined): Promise<void> {
  const run = guest.live();
  const link = linkTo(run, server);
  const path = `${run.directory}/backup.sock`;
  const addr = link === undefined ? server : { type: 'unix', data: { path } };
  await guest.qmp('nbd-server-start', { addr: addr as Json, ...(tls !== undefined && { 'tls-creds': tls }) });
  if (link !== undefined) await daemon.host.files.link(path, link);
}

/** Ends the server of pull mode, and what its exports showed. */
async function endServing(daemon: Daemon, guest: Guest, { bitmaps, tls, link }: BackupState): Promise<void> {
  await guest.qmp('nbd-server-stop').catch(() => {});
  if (link !== undefined) await daemon.host.files.remove(link).catch(() => {});
  for (const data of bitmaps) await guest.qmp('block-dirty-bitmap-remove', { ...data }).catch(() => {});
  if (tls !== undefined) await guest.qmp('object-del', { id: tls }).catch(() => {});
}

function backupJob(daemon: Daemon, guest: Guest, run: Run, backup: BackupState, stopServing: () => Promise<void>): Job {
  return {
    operation: operation.backup,
    startedMs: backup.startedMs,
    abort: async () => {
      await stopServing();
      for (const job of backup.jobs.map((id) => run.blockJobs.get(id))) {
        if (!job) continue;
        job.ending = 'abort';
        await saveStatus(daemon.host, daemon.paths.run, guest);
        await guest.qmp('block-job-cancel', { device: job.id }).catch(() => {});
      }
    },
    progress: async () => {
      const jobs = await guest.qmp('query-block-jobs');
      let [total, processed] = [0, 0];
      for (const one of Array.isArray(jobs) ? (jobs as { device?: string; len?: number; offset?: number }[]) : []) {
        if (!backup.jobs.includes(String(one.device))) continue;
        total += Number(one.len ?? 0);
        processed += Number(one.offset ?? 0);
      }
      return { total, remaining: total - processed, processed };
    },
  };
}
