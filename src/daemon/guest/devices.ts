// Devices of a running guest that come, go and change: the QMP behind attach, detach and update (libvirt 9.0's sequences).
import { plugPlan } from '../../domain/command-line/plug.ts';
import { attachDevice, type Device, detachDevice, findDevice, parseDevice, replaceDevice } from '../../domain/device.ts';
import type { Domain } from '../../domain/domain.ts';
import { type Disk, diskSourceName, hasSource } from '../../domain/model/disk.ts';
import type { NetworkInterface } from '../../domain/model/interface.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon } from '../daemon.ts';
import { operationInvalid } from '../errors.ts';
import { addNodes, levelsOf, nextNode, removeNodes } from './block-nodes.ts';
import { findChain } from './chain.ts';
import type { Guest, Run } from './guest.ts';
import { commandContext } from './launch.ts';
import { applyIoTune } from './tune.ts';

/** How long an emulator may take to let a device go before the answer is given without it. */
const removalMs = 5000;

const aliasOf = (device: Device): string => ('alias' in device.value ? (device.value.alias?.name ?? '') : '');

/** Numbers for the block nodes of a disk and all below it. */
function numberNodes(run: Run, disk: Disk): void {
  if (!disk.source) return;
  disk.source.index = nextNode(run);
  if (disk.driver?.type === 'raw') disk.backingStore ??= {};
  for (let store = disk.backingStore; store?.type !== undefined; store = store.backingStore) store.index = nextNode(run);
}

/** Plugs a device in and adds it to the running definition. The caller holds the lock. */
export async function attachLive(daemon: Daemon, guest: Guest, device: Device): Promise<void> {
  const run = guest.live();
  if (device.element === 'hostdev')
    throw libvirtError('configUnsupported', 'qemu', 'host devices are not supported on this host');
  if (device.element === 'disk') {
    const { target } = device.value;
    if (device.value.device === 'cdrom' || device.value.device === 'floppy') {
      const drive = run.domain.devices.disks.find((one) => one.target?.dev === target?.dev);
      if (!drive) throw libvirtError('operationUnsupported', 'qemu', `cdrom/floppy device hotplug isn't supported`);
      await changeMedium(daemon, guest, run, drive, device.value, false);
      return;
    }
  }
  const random = (length: number): Uint8Array => daemon.host.crypto.random(length);
  if (device.element === 'interface') await daemon.networks.attach(guest, device.value);
  try {
    await attachPrepared(daemon, guest, run, device, random);
  } catch (error) {
    if (device.element === 'interface') await daemon.networks.detached(guest, device.value);
    throw error;
  }
  daemon.events.domain(19, guest.ref, { devAlias: aliasOf(device) });
}

async function attachPrepared(
  daemon: Daemon,
  guest: Guest,
  run: Run,
  device: Device,
  random: (length: number) => Uint8Array,
): Promise<void> {
  attachDevice(run.domain, device, true, random);
  const undo: (() => Promise<unknown>)[] = [];
  try {
    if (device.element === 'disk') {
      await daemon.pools.resolveVolumes({ ...run.domain, devices: { ...run.domain.devices, disks: [device.value] } });
      await findChain(daemon.host, device.value);
      await run.admit(device.value);
      numberNodes(run, device.value);
    }
    const context = await commandContext(daemon, run.domain, run.directory, run.monitorPath);
    const plan = plugPlan(run.domain, device, context);
    for (const step of plan.steps) {
      await guest.qmpText(step.command, step.arguments);
      const back = step.undo;
      if (back) undo.push(() => guest.qmp(back.command, back.arguments));
    }
    if (device.element === 'disk' && device.value.iotune) await applyIoTune(guest, device.value);
    if (device.element === 'interface' && device.value.link?.state === 'down') {
      await guest.qmp('set_link', { name: aliasOf(device), up: false });
    }
  } catch (error) {
    for (const back of undo.reverse()) await back().catch(() => {});
    detachDevice(run.domain, device);
    throw error;
  }
}

/** Waits for the guest to let a device go. True when it has; false when it was told and has not said so yet. */
export async function removeDevice(daemon: Daemon, guest: Guest, run: Run, alias: string): Promise<boolean> {
  const gone = Promise.withResolvers<boolean | undefined>();
  run.removals.set(alias, gone.resolve);
  const stop = daemon.host.timers.after(removalMs, () => gone.resolve(undefined));
  try {
    await guest.qmp('device_del', { id: alias });
    const done = await gone.promise;
    if (done === false) {
      throw libvirtError('operationFailed', 'qemu', 'the guest refused to let the device go');
    }
    return done === true;
  } finally {
    stop();
    run.removals.delete(alias);
  }
}

/** Unplugs a device; without `wait` the answer comes at once and the event later. The caller holds the lock. */
export async function detachLive(daemon: Daemon, guest: Guest, device: Device): Promise<void> {
  const run = guest.live();
  const alias = aliasOf(device);
  if (device.element === 'disk') {
    if ([...run.blockJobs.values()].some((one) => one.disk === (device.value as Disk).target?.dev)) {
      throw operationInvalid(`disk '${(device.value as Disk).target?.dev}' already in active block job`);
    }
    if (device.value.target?.bus === 'ide' || device.value.target?.bus === 'fdc' || device.value.target?.bus === 'sata') {
      throw libvirtError('operationUnsupported', 'qemu', 'This type of disk cannot be hot unplugged');
    }
  }
  if (!(await removeDevice(daemon, guest, run, alias))) {
    // The guest lets it go later, or never; what is below it goes then.
    void afterRemoval(daemon, guest, run, device, alias);
    return;
  }
  await deviceGone(daemon, guest, run, device, alias);
}

function afterRemoval(daemon: Daemon, guest: Guest, run: Run, device: Device, alias: string): void {
  run.removals.set(alias, (done) => {
    run.removals.delete(alias);
    if (done && !run.stopped) void deviceGone(daemon, guest, run, device, alias).catch(() => {});
  });
}

async function deviceGone(daemon: Daemon, guest: Guest, run: Run, device: Device, alias: string): Promise<void> {
  if (device.element === 'disk') await removeNodes(guest, levelsOf(device.value));
  else if (device.element === 'interface') {
    await guest.qmp('netdev_del', { id: `host${alias}` }).catch(() => {});
    await daemon.networks.detached(guest, device.value);
  } else if (device.element === 'rng') await guest.qmp('object-del', { id: `obj${alias}` }).catch(() => {});
  else if (device.element === 'memory') await guest.qmp('object-del', { id: `mem${alias}` }).catch(() => {});
  detachDevice(run.domain, device);
  daemon.events.domain(15, guest.ref, { devAlias: alias });
}

const driveAliasOf = (disk: Disk): string => disk.alias?.name ?? '';

/** A guest that resets its drive closes the tray that was just opened; then it is opened again. */
const trayAttempts = 5;

/** Opens the tray, takes out what is in it, puts in the node of that number if any, closes it. */
async function exchange(guest: Guest, id: string, full: boolean, index: number | undefined, force: boolean): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await guest.qmp('blockdev-open-tray', { id, force });
      if (full && attempt === 1) await guest.qmp('blockdev-remove-medium', { id });
      if (index !== undefined) await guest.qmp('blockdev-insert-medium', { id, 'node-name': `libvirt-${index}-format` });
      break;
    } catch (error) {
      const closed = error instanceof Error && /[Tt]ray.*not open/.test(error.message);
      if (closed && attempt < trayAttempts) continue;
      await guest.qmp('blockdev-close-tray', { id }).catch(() => {});
      throw error;
    }
  }
  await guest.qmp('blockdev-close-tray', { id });
}

/** Puts another medium into a drive, or none. */
async function changeMedium(daemon: Daemon, guest: Guest, run: Run, drive: Disk, wanted: Disk, force: boolean): Promise<void> {
  const id = driveAliasOf(drive);
  const before = diskSourceName(drive);
  const old = hasSource(drive) ? levelsOf(drive) : [];
  const fresh: Disk = {
    ...drive,
    type: wanted.type,
    driver: { ...drive.driver, ...wanted.driver, type: wanted.driver?.type ?? 'raw' },
  };
  delete fresh.source;
  delete fresh.backingStore;
  if (hasSource(wanted) && wanted.source) {
    fresh.source = { ...wanted.source };
    await daemon.pools.resolveVolumes({ ...run.domain, devices: { ...run.domain.devices, disks: [fresh] } });
    await findChain(daemon.host, fresh);
    numberNodes(run, fresh);
  }
  if (fresh.source) await addNodes(guest, fresh);
  try {
    await exchange(guest, id, drive.source !== undefined, fresh.source?.index, force);
  } catch (error) {
    if (fresh.source) await removeNodes(guest, [{ index: fresh.source.index! }]);
    throw error;
  }
  await removeNodes(guest, old);
  if (fresh.source) {
    drive.source = fresh.source;
    drive.type = fresh.type;
    drive.driver = fresh.driver!;
    if (fresh.backingStore) drive.backingStore = fresh.backingStore;
    else delete drive.backingStore;
  } else {
    delete drive.source;
    delete drive.backingStore;
    if (drive.driver) delete drive.driver.type;
  }
  daemon.events.domain(9, guest.ref, { oldSrcPath: before, newSrcPath: diskSourceName(fresh), devAlias: id, reason: 0 });
}

async function updateInterface(guest: Guest, card: NetworkInterface, wanted: NetworkInterface): Promise<void> {
  if (wanted.model && wanted.model.type !== card.model?.type) {
    throw libvirtError(
      'operationUnsupported',
      'qemu',
      `cannot modify network device model from ${card.model?.type} to ${wanted.model.type}`,
    );
  }
  const [before, after] = [card.link?.state ?? 'up', wanted.link?.state ?? 'up'];
  if (before !== after) await guest.qmp('set_link', { name: card.alias?.name, up: after === 'up' });
  if (wanted.link) card.link = wanted.link;
  else delete card.link;
}

/** Changes a device of the running guest into what the document says. */
export async function updateLive(daemon: Daemon, guest: Guest, wanted: Device, force: boolean): Promise<void> {
  const run = guest.live();
  const device = findDevice(run.domain, wanted);
  switch (device.element) {
    case 'disk': {
      const next = wanted.value as Disk;
      const removable = device.value.device === 'cdrom' || device.value.device === 'floppy';
      if (removable) await changeMedium(daemon, guest, run, device.value, next, force);
      else if (diskSourceName(device.value) !== diskSourceName(next)) {
        throw libvirtError('operationUnsupported', 'qemu', `cannot modify field 'source' of the disk`);
      }
      if (next.iotune) {
        device.value.iotune = next.iotune;
        await applyIoTune(guest, device.value);
      }
      return;
    }
    case 'interface':
      return updateInterface(guest, device.value, wanted.value as NetworkInterface);
    case 'graphics': {
      const next = wanted.value as typeof device.value;
      if (next.passwd === undefined) return;
      await guest.qmp('set_password', { protocol: device.value.type, password: next.passwd });
      device.value.passwd = next.passwd;
      return;
    }
    default:
      throw libvirtError('operationUnsupported', 'qemu', `live update of device '${device.element}' is not supported`);
  }
}

/** The same in a definition that does not run. */
export function attachConfig(domain: Domain, device: Device, random: (length: number) => Uint8Array): void {
  if (device.element === 'disk') {
    const dev = device.value.target?.dev;
    if (domain.devices.disks.some((one) => one.target?.dev === dev)) {
      throw libvirtError('operationInvalid', 'qemu', `target ${dev} already exists`);
    }
  }
  attachDevice(domain, device, false, random);
}

export function detachConfig(domain: Domain, wanted: Device): void {
  detachDevice(domain, findDevice(domain, wanted));
}

export function updateConfig(domain: Domain, wanted: Device): void {
  const device = findDevice(domain, wanted);
  const value = wanted.value as { alias?: unknown; address?: unknown };
  const old = device.value as { address?: unknown };
  value.address ??= old.address;
  replaceDevice(domain, device, wanted);
}

/** A device's document, with libvirt's word for one that is missing. */
export function deviceOf(xml: string): Device {
  return parseDevice(xml);
}

/** A device by its alias. @throws {LibvirtError} 99 */
export function deviceByAlias(domain: Domain, alias: string): Device {
  const names: Readonly<Record<string, Device['element']>> = {
    ...{
      disks: 'disk',
      interfaces: 'interface',
      controllers: 'controller',
      rngs: 'rng',
      inputs: 'input',
      filesystems: 'filesystem',
    },
    ...{ watchdogs: 'watchdog', channels: 'channel', hostdevs: 'hostdev', redirdevs: 'redirdev', serials: 'serial' },
  };
  for (const [list, element] of Object.entries(names)) {
    const found = (domain.devices[list as 'disks'] as readonly { alias?: { name: string } }[]).find(
      (one) => one.alias?.name === alias,
    );
    if (found) return { element, value: found } as Device;
  }
  throw libvirtError('internalError', 'qemu', `no device found with alias ${alias}`);
}
