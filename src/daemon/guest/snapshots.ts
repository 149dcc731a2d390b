// Snapshots of a domain: taken while it runs or not, inside of its images or as new ones on top; kept as documents (libvirt 9.0's rules).
import { openDisk } from '../../disk/open.ts';
import { completeDomain } from '../../domain/complete.ts';
import { type Domain, domainElement, formatDomain, parseDomain } from '../../domain/domain.ts';
import { type Disk, diskSourceName, hasSource } from '../../domain/model/disk.ts';
import { formatSnapshot, parseSnapshot, type Snapshot } from '../../domain/snapshot.ts';
import { newElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon } from '../daemon.ts';
import { operationInvalid } from '../errors.ts';
import { addNodes, formatNode, imageSize, makeImage, nextNode, nodeSize, persistSource, removeNodes } from './block-nodes.ts';
import { copyDomain, type Guest, type Run } from './guest.ts';
import { startGuest } from './launch.ts';
import { agentCommand } from './lifecycle.ts';
import { withoutRun, writeImage } from './save.ts';
import { pausedReason, runningReason, shutoffReason, state } from './states.ts';
import { saveStatus } from './status.ts';
import { stopRun } from './stop.ts';

export const createFlag = {
  redefine: 1,
  current: 2,
  noMetadata: 4,
  halt: 8,
  diskOnly: 16,
  reuse: 32,
  quiesce: 64,
  atomic: 128,
  live: 256,
} as const;
export const revertFlag = { running: 1, paused: 2, force: 4 } as const;

type SnapshotDisk = NonNullable<Snapshot['disks']>['disks'][number];

const directoryOf = (daemon: Daemon, guest: Guest): string => `${daemon.paths.lib}/qemu/snapshot/${guest.name}`;
const fileOf = (daemon: Daemon, guest: Guest, name: string): string => `${directoryOf(daemon, guest)}/${name}.xml`;

/** Reads the documents of a domain's snapshots. */
export async function loadSnapshots(daemon: Daemon, guest: Guest): Promise<void> {
  const directory = directoryOf(daemon, guest);
  for (const file of await daemon.host.files.list(directory)) {
    if (!file.endsWith('.xml')) continue;
    try {
      const snapshot = parseSnapshot((await daemon.host.files.read(`${directory}/${file}`)) ?? '');
      if (snapshot.active === '1') guest.currentSnapshot = snapshot.name;
      delete snapshot.active;
      guest.snapshots.set(snapshot.name!, snapshot);
    } catch (error) {
      daemon.host.log(`Cannot load ${directory}/${file}: ${(error as Error).message}`);
    }
  }
}

async function keep(daemon: Daemon, guest: Guest, snapshot: Snapshot): Promise<void> {
  await daemon.host.files.makeDirectory(directoryOf(daemon, guest), 0o700);
  const active = guest.currentSnapshot === snapshot.name ? '1' : '0';
  await daemon.host.files.write(fileOf(daemon, guest, snapshot.name!), formatSnapshot({ ...snapshot, active }));
}

/** Makes another snapshot the current one, or none. */
export async function setCurrent(daemon: Daemon, guest: Guest, name: string | undefined): Promise<void> {
  const before = guest.currentSnapshot;
  guest.currentSnapshot = name;
  for (const one of new Set([before, name])) {
    const snapshot = one === undefined ? undefined : guest.snapshots.get(one);
    if (snapshot) await keep(daemon, guest, snapshot);
  }
}

/** The kind of each disk in the snapshot: what the document says, else what fits the rest. */
function planDisks(domain: Domain, wanted: Snapshot, external: boolean, name: string, live: boolean): SnapshotDisk[] {
  const given = wanted.disks?.disks ?? [];
  for (const one of given) {
    if (!domain.devices.disks.some((disk) => disk.target?.dev === one.name || diskSourceName(disk) === one.name)) {
      throw libvirtError('configUnsupported', 'domainSnapshot', `no disk named '${one.name}'`);
    }
  }
  return domain.devices.disks.map((disk): SnapshotDisk => {
    const dev = disk.target?.dev ?? '';
    const own = given.find((one) => one.name === dev || one.name === diskSourceName(disk));
    const skip = !hasSource(disk) || disk.readonly === true || disk.snapshot === 'no';
    const kind = own?.snapshot ?? (skip ? 'no' : external || own?.source ? 'external' : 'internal');
    if (kind !== 'external') {
      if (kind === 'internal' && disk.driver?.type !== 'qcow2') {
        const detail = live
          ? `internal snapshot for disk ${dev} unsupported for storage type ${disk.driver?.type}`
          : `internal snapshot for disk ${dev} unsupported for storage type ${disk.driver?.type ?? 'raw'}`;
        throw libvirtError('configUnsupported', 'qemu', detail);
      }
      return { name: dev, snapshot: kind };
    }
    const type = own?.driver?.type ?? 'qcow2';
    const file = own?.source?.file ?? defaultOverlay(disk, name);
    return { name: dev, snapshot: 'external', type: 'file', driver: { type }, source: { file } };
  });
}

/** With the memory inside of an image, every disk that the guest writes to must be in the snapshot. */
function checkAllInternal(domain: Domain, plan: readonly SnapshotDisk[]): void {
  const left = plan.find((one) => {
    const disk = domain.devices.disks.find((d) => d.target?.dev === one.name);
    return one.snapshot !== 'internal' && disk !== undefined && hasSource(disk) && disk.readonly !== true;
  });
  if (left) throw libvirtError('configUnsupported', 'domainSnapshot', `disk '${left.name}' must use snapshot mode 'internal'`);
}

/** The image's name with the snapshot's as its ending. */
function defaultOverlay(disk: Disk, name: string): string {
  const path = disk.source?.file;
  if (path === undefined) {
    throw libvirtError(
      'configUnsupported',
      'domainSnapshot',
      `cannot generate external snapshot name for disk '${disk.target?.dev}' without source`,
    );
  }
  const slash = path.lastIndexOf('/');
  const base = path.slice(slash + 1);
  const dot = base.lastIndexOf('.');
  return `${path.slice(0, slash + 1)}${dot > 0 ? base.slice(0, dot) : base}.${name}`;
}

/** Puts new images on top of the disks of a running guest, all at one moment. */
async function overlayLive(daemon: Daemon, guest: Guest, run: Run, plan: readonly SnapshotDisk[], reuse: boolean): Promise<void> {
  const made: { disk: Disk; fresh: Disk; old: number; created: boolean }[] = [];
  const undo = async (): Promise<void> => {
    for (const { fresh, created } of made) {
      await removeNodes(guest, [{ index: fresh.source!.index! }]);
      if (created) await daemon.host.files.remove(fresh.source!.file!);
    }
  };
  try {
    for (const one of plan.filter((p) => p.snapshot === 'external')) {
      const disk = run.domain.devices.disks.find((d) => d.target?.dev === one.name)!;
      if ([...run.blockJobs.values()].some((job) => job.disk === one.name)) {
        throw operationInvalid(`disk '${one.name}' already in active block job`);
      }
      const old = disk.source!.index!;
      const path = one.source!.file!;
      const format = one.driver?.type ?? 'qcow2';
      const backing = { path: disk.source!.file ?? disk.source!.dev!, format: disk.driver?.type ?? 'raw' };
      await makeImage(daemon, { path, format, size: await nodeSize(guest, formatNode(old)), backing }, reuse);
      const index = nextNode(run);
      const source = { file: path, hosts: [], seclabels: [], index };
      const fresh: Disk = { ...disk, type: 'file', source, driver: { ...disk.driver, type: format }, backingStore: {} };
      made.push({ disk, fresh, old, created: !reuse });
      await addNodes(guest, fresh);
    }
    const actions = made.map(({ fresh, old }) => ({
      type: 'blockdev-snapshot',
      data: { node: formatNode(old), overlay: formatNode(fresh.source!.index!) },
    }));
    if (actions.length > 0) await guest.qmp('transaction', { actions });
  } catch (error) {
    await undo();
    throw error;
  }
  for (const { disk, fresh } of made) {
    const below = disk.backingStore;
    disk.backingStore = {
      type: disk.type,
      index: disk.source!.index!,
      format: { type: disk.driver?.type ?? 'raw' },
      source: disk.source!,
      ...(below && { backingStore: below }),
    };
    disk.type = 'file';
    disk.source = fresh.source!;
    disk.driver = fresh.driver!;
    await persistSource(daemon, guest, disk);
  }
}

/** The same for a domain that does not run. */
async function overlayOffline(daemon: Daemon, guest: Guest, plan: readonly SnapshotDisk[], reuse: boolean): Promise<void> {
  const made: string[] = [];
  try {
    for (const one of plan.filter((p) => p.snapshot === 'external')) {
      const disk = guest.config!.devices.disks.find((d) => d.target?.dev === one.name)!;
      const backing = { path: disk.source!.file!, format: disk.driver?.type ?? 'raw' };
      const size = await imageSize(daemon, backing.path, backing.format);
      await makeImage(daemon, { path: one.source!.file!, format: one.driver?.type ?? 'qcow2', size, backing }, reuse);
      if (!reuse) made.push(one.source!.file!);
    }
    await daemon.guests.change(guest, (domain) => {
      for (const one of plan.filter((p) => p.snapshot === 'external')) {
        const disk = domain.devices.disks.find((d) => d.target?.dev === one.name)!;
        disk.type = 'file';
        disk.source = { file: one.source!.file!, hosts: [], seclabels: [] };
        disk.driver = { ...disk.driver, type: one.driver?.type ?? 'qcow2' };
        delete disk.backingStore;
      }
    });
  } catch (error) {
    for (const path of made) await daemon.host.files.remove(path);
    throw error;
  }
}

/** Does something with each image of a domain that does not run; takes it back on those before when one fails. */
async function eachImage(
  daemon: Daemon,
  domain: Domain,
  names: readonly string[],
  action: 'createSnapshot' | 'applySnapshot' | 'deleteSnapshot',
  name: string,
): Promise<void> {
  const done: string[] = [];
  for (const dev of names) {
    const path = domain.devices.disks.find((disk) => disk.target?.dev === dev)?.source?.file;
    if (path === undefined) continue;
    const disk = await openDisk(daemon.host.disks, path, { format: 'qcow2' });
    try {
      if (action === 'createSnapshot') {
        const seconds = Math.floor(daemon.host.now() / 1000);
        await disk.qcow2!.createSnapshot({ name, seconds, nanoseconds: 0 });
      } else await disk.qcow2![action](name);
      done.push(dev);
    } catch (error) {
      await disk.device.close();
      if (action === 'createSnapshot') await eachImage(daemon, domain, done, 'deleteSnapshot', name).catch(() => {});
      throw error;
    }
    await disk.device.close();
  }
}

const internalDisks = (snapshot: Snapshot): string[] =>
  (snapshot.disks?.disks ?? []).flatMap((one) => (one.snapshot === 'internal' ? [one.name] : []));

async function monitorSnapshot(guest: Guest, command: 'savevm' | 'delvm', name: string): Promise<void> {
  const line = `${command} "${name.replace(/[\\"]/g, '\\$&')}"`;
  const said = String(await guest.qmp('human-monitor-command', { 'command-line': line })).trim();
  if (said !== '')
    throw libvirtError('operationFailed', 'qemu', `Failed to ${command === 'savevm' ? 'take' : 'delete'} snapshot: ${said}`);
}

export async function createSnapshot(daemon: Daemon, guest: Guest, xml: string, flags: number): Promise<string> {
  const redefine = (flags & createFlag.redefine) !== 0;
  const wanted = parseSnapshot(xml, { redefine });
  return guest.lock.run('DomainSnapshotCreateXML', async () => {
    if (redefine) return redefineSnapshot(daemon, guest, wanted, flags);
    const name = wanted.name ?? String(Math.floor(daemon.host.now() / 1000));
    if (guest.snapshots.has(name))
      throw libvirtError('operationFailed', 'domainSnapshot', `domain moment ${name} already exists`);
    const { run } = guest;
    const diskOnly = (flags & createFlag.diskOnly) !== 0;
    const memoryFile = wanted.memory?.snapshot === 'external' ? wanted.memory.file : undefined;
    if (memoryFile !== undefined && !run)
      throw operationInvalid('memory state cannot be saved with offline or disk-only snapshot');
    const domain = guest.current;
    const external =
      diskOnly || memoryFile !== undefined || (wanted.disks?.disks.some((one) => one.snapshot === 'external') ?? false);
    const plan = planDisks(domain, wanted, external, name, run !== undefined);
    if (run && !external) checkAllInternal(domain, plan);
    const words: Readonly<Record<number, Snapshot['state']>> = { 1: 'running', 3: 'paused', 5: 'shutoff', 7: 'pmsuspended' };
    const taken: Snapshot = {
      name,
      ...(wanted.description !== undefined && { description: wanted.description }),
      state: run ? (diskOnly ? 'disk-snapshot' : (words[guest.state] ?? 'running')) : 'shutoff',
      ...(guest.currentSnapshot !== undefined && { parent: { name: guest.currentSnapshot } }),
      creationTime: Math.floor(daemon.host.now() / 1000),
      memory:
        memoryFile !== undefined
          ? { snapshot: 'external', file: memoryFile }
          : { snapshot: run && !external ? 'internal' : 'no' },
      disks: { disks: plan },
      domain: withoutRun(copyDomain(domain)),
    };
    if (run && guest.config) {
      const tree = domainElement(guest.config, { secure: true });
      taken.inactiveDomain = newElement('inactiveDomain', tree.attributes, tree.nodes);
    }
    await take(daemon, guest, taken, plan, flags, memoryFile);
    if ((flags & createFlag.noMetadata) === 0) {
      guest.snapshots.set(name, taken);
      await keep(daemon, guest, taken);
      await setCurrent(daemon, guest, name);
    }
    return name;
  });
}

async function take(
  daemon: Daemon,
  guest: Guest,
  taken: Snapshot,
  plan: readonly SnapshotDisk[],
  flags: number,
  memoryFile: string | undefined,
): Promise<void> {
  const { run } = guest;
  const reuse = (flags & createFlag.reuse) !== 0;
  const hasExternal = plan.some((one) => one.snapshot === 'external');
  if (!run) {
    const inside = internalDisks(taken);
    if (inside.length > 0) await eachImage(daemon, guest.config!, inside, 'createSnapshot', taken.name!);
    if (hasExternal) await overlayOffline(daemon, guest, plan, reuse);
    return;
  }
  const halt = (flags & createFlag.halt) !== 0;
  if (!hasExternal && taken.memory?.snapshot !== 'external') {
    if ((flags & createFlag.diskOnly) !== 0) return;
    await pausedWhile(guest, run, halt, () => monitorSnapshot(guest, 'savevm', taken.name!));
  } else if (memoryFile !== undefined) {
    await pausedWhile(guest, run, halt, async (wasRunning) => {
      await writeImage(daemon, guest, run, memoryFile, formatDomain(run.domain, { secure: true }), wasRunning);
      await overlayLive(daemon, guest, run, plan, reuse);
    });
  } else {
    const quiesce = (flags & createFlag.quiesce) !== 0;
    if (quiesce) await agentCommand(daemon, guest, 'guest-fsfreeze-freeze');
    try {
      await overlayLive(daemon, guest, run, plan, reuse);
    } finally {
      if (quiesce) await agentCommand(daemon, guest, 'guest-fsfreeze-thaw').catch(() => {});
    }
  }
  await saveStatus(daemon.host, daemon.paths.run, guest);
  if (halt) await stopRun(daemon, guest, run, 'fromSnapshot');
}

async function pausedWhile(guest: Guest, run: Run, halt: boolean, action: (wasRunning: boolean) => Promise<void>): Promise<void> {
  const wasRunning = guest.state === state.running;
  if (wasRunning) {
    run.pauseReason = pausedReason.snapshot;
    await guest.qmp('stop');
  }
  try {
    await action(wasRunning);
  } finally {
    if (wasRunning && !halt && !run.stopped) await guest.qmp('cont');
  }
}

async function redefineSnapshot(daemon: Daemon, guest: Guest, wanted: Snapshot, flags: number): Promise<string> {
  const name = wanted.name!;
  const old = guest.snapshots.get(name);
  if (!wanted.domain && old?.domain) wanted.domain = old.domain;
  if (wanted.domain && wanted.domain.uuid !== guest.uuid) {
    throw libvirtError('invalidArg', 'domainSnapshot', `definition for snapshot ${name} must use uuid ${guest.uuid}`);
  }
  guest.snapshots.set(name, wanted);
  await keep(daemon, guest, wanted);
  if (flags & createFlag.current) await setCurrent(daemon, guest, name);
  return name;
}

export async function revertSnapshot(daemon: Daemon, guest: Guest, name: string, flags: number): Promise<void> {
  await guest.lock.run('DomainRevertToSnapshot', async () => {
    const snapshot = findSnapshot(guest, name);
    const external =
      snapshot.state === 'disk-snapshot' || (snapshot.disks?.disks.some((one) => one.snapshot === 'external') ?? false);
    if (external) throw libvirtError('configUnsupported', 'qemu', 'revert to external snapshot not supported yet');
    if (!snapshot.domain)
      throw libvirtError('snapshotRevertRisky', 'qemu', `snapshot '${name}' lacks domain '${guest.name}' rollback info`);
    const text = formatDomain(snapshot.domain, { secure: true });
    const parsed = withoutRun(parseDomain(text));
    const domain = completeDomain(parsed, await daemon.guests.context(parsed));
    const wasActive = guest.run;
    const active = snapshot.state === 'running' || snapshot.state === 'paused';
    if (wasActive) await stopRun(daemon, guest, wasActive, 'fromSnapshot');
    if (guest.persistent) {
      const kept = snapshot.inactiveDomain;
      const config = kept ? parseDomain(formatDomain(domain, { secure: true })) : domain;
      guest.config = config;
      await daemon.guests.save(guest);
    }
    if (!active) await eachImage(daemon, domain, internalDisks(snapshot), 'applySnapshot', name);
    if (active || (flags & (revertFlag.running | revertFlag.paused)) !== 0) {
      const paused = (flags & revertFlag.paused) !== 0 || (snapshot.state === 'paused' && (flags & revertFlag.running) === 0);
      if (!daemon.guests.byUuid(guest.uuid)) daemon.guests.add(guest);
      await startGuest(daemon, guest, {
        domain,
        paused,
        ...(active && { loadSnapshot: name }),
        event: 'startedFromSnapshot',
        reason: runningReason.fromSnapshot,
      });
    } else guest.set(state.shutoff, shutoffReason.fromSnapshot, daemon.host.now());
    await setCurrent(daemon, guest, name);
    if (guest.persistent) daemon.guests.lifecycle(guest, 'definedFromSnapshot');
  });
}

/** @throws {LibvirtError} 72 */
export function findSnapshot(guest: Guest, name: string): Snapshot {
  const found = guest.snapshots.get(name);
  if (!found) throw libvirtError('noDomainSnapshot', 'qemu', `no domain snapshot with matching name '${name}'`);
  return found;
}

export const childrenOf = (guest: Guest, name: string): Snapshot[] =>
  [...guest.snapshots.values()].filter((one) => one.parent?.name === name);
export const descendantsOf = (guest: Guest, name: string): Snapshot[] =>
  childrenOf(guest, name).flatMap((one) => [one, ...descendantsOf(guest, one.name!)]);

export const deleteFlag = { children: 1, metadataOnly: 2, childrenOnly: 4 } as const;

export async function deleteSnapshot(daemon: Daemon, guest: Guest, name: string, flags: number): Promise<void> {
  await guest.lock.run('DomainSnapshotDelete', async () => {
    const snapshot = findSnapshot(guest, name);
    const below = flags & (deleteFlag.children | deleteFlag.childrenOnly) ? descendantsOf(guest, name) : [];
    const going = flags & deleteFlag.childrenOnly ? below : [...below, snapshot];
    if ((flags & deleteFlag.metadataOnly) === 0) {
      const external = going.filter((one) => one.disks?.disks.some((disk) => disk.snapshot === 'external')).length;
      if (external > 0) {
        throw libvirtError('configUnsupported', 'qemu', `deletion of ${external} external disk snapshots not supported yet`);
      }
    }
    for (const one of going.toReversed()) await drop(daemon, guest, one, (flags & deleteFlag.metadataOnly) !== 0);
    if (flags & deleteFlag.childrenOnly && below.some((one) => one.name === guest.currentSnapshot))
      await setCurrent(daemon, guest, name);
  });
}

async function drop(daemon: Daemon, guest: Guest, snapshot: Snapshot, metadataOnly: boolean): Promise<void> {
  const name = snapshot.name!;
  if (!metadataOnly) {
    if (guest.run) await monitorSnapshot(guest, 'delvm', name);
    else await eachImage(daemon, guest.config!, internalDisks(snapshot), 'deleteSnapshot', name);
  }
  guest.snapshots.delete(name);
  for (const child of childrenOf(guest, name)) {
    if (snapshot.parent) child.parent = snapshot.parent;
    else delete child.parent;
    await keep(daemon, guest, child);
  }
  await daemon.host.files.remove(fileOf(daemon, guest, name));
  if (guest.currentSnapshot === name) await setCurrent(daemon, guest, snapshot.parent?.name);
}
