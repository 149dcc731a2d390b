// Disks on the command line: block nodes for each level of the backing chain, then the drive (as libvirt 9.0 composes it for QEMU 7.2).
import { aliasOf } from '../aliases.ts';
import { unsupported } from '../errors.ts';
import type { BackingStore, Disk, DiskSource, StorageType } from '../model/disk.ts';
import { hasSource } from '../model/disk.ts';
import { type Arguments, type Json, type JsonObject, onOffValue, virtioDriverName, virtioProperties } from './arguments.ts';

/** One level of a backing chain with the number in its node names. */
interface Level {
  index: number;
  type: StorageType;
  format: string;
  source: DiskSource;
  readOnly: boolean;
}

const endOfChain = (store: BackingStore | undefined): boolean => store !== undefined && store.type === undefined;

function levelsOf(disk: Disk): { levels: Level[]; closed: boolean } {
  const source = disk.source!;
  const levels: Level[] = [
    {
      index: source.index ?? 0,
      type: disk.type,
      format: disk.driver?.type ?? 'raw',
      source,
      readOnly: disk.readonly === true,
    },
  ];
  let store = disk.backingStore;
  while (store?.type !== undefined && store.source) {
    const { type, index, format } = store;
    levels.push({
      index: index ?? store.source.index ?? 0,
      type,
      format: format?.type ?? 'raw',
      source: store.source,
      readOnly: true,
    });
    store = store.backingStore;
  }
  return { levels, closed: endOfChain(store) };
}

const cacheModes: Readonly<Record<string, { direct: boolean; noFlush: boolean; write: boolean }>> = {
  none: { direct: true, noFlush: false, write: true },
  writeback: { direct: false, noFlush: false, write: true },
  writethrough: { direct: false, noFlush: false, write: false },
  directsync: { direct: true, noFlush: false, write: false },
  unsafe: { direct: false, noFlush: true, write: true },
};

function networkStorage(source: DiskSource): JsonObject {
  const [host] = source.hosts;
  const name = source.name ?? '';
  const { protocol } = source;
  if (source.auth || source.encryption) throw unsupported(`authentication for '${protocol}' disks is not available`);
  const server: JsonObject =
    host?.transport === 'unix'
      ? { type: 'unix', path: host.socket }
      : { type: 'inet', host: host?.name ?? 'localhost', port: host?.port ?? '10809' };
  const ports: Readonly<Record<string, string>> = { http: '80', https: '443', ftp: '21', ftps: '990', tftp: '69' };
  switch (protocol) {
    case 'nbd':
      return { driver: 'nbd', server, export: source.name };
    case 'http':
    case 'https':
    case 'ftp':
    case 'ftps':
    case 'tftp': {
      const path = name.startsWith('/') ? name : `/${name}`;
      const query = source.query === undefined ? '' : `?${source.query}`;
      return { driver: protocol, url: `${protocol}://${host?.name}:${host?.port ?? ports[protocol]}${path}${query}` };
    }
    case 'ssh':
      return { driver: 'ssh', path: name, server: { host: host?.name, port: host?.port ?? '22' } };
    case 'iscsi': {
      const [target, lun] = name.split('/');
      const portal = `${host?.name}:${host?.port ?? '3260'}`;
      return { driver: 'iscsi', portal, target, lun: Number(lun ?? 0), transport: 'tcp' };
    }
    default:
      throw unsupported(`disk protocol '${protocol}' is not supported`);
  }
}

function storage(level: Level, disk: Disk): JsonObject {
  const { source } = level;
  switch (level.type) {
    case 'file':
      return { driver: 'file', filename: source.file };
    case 'block':
      return { driver: disk.device === 'cdrom' ? 'host_cdrom' : 'host_device', filename: source.dev };
    case 'dir':
      return { driver: 'vvfat', dir: source.dir, floppy: disk.device === 'floppy', rw: !level.readOnly };
    case 'network':
      return networkStorage(source);
    case 'volume':
      throw unsupported(`volume '${source.volume}' of pool '${source.pool}' was not looked up before the start`);
    default:
      throw unsupported(`disk type '${level.type}' is not supported`);
  }
}

/** The two nodes of one level: how the bytes are reached, and what format they have. */
function levelNodes(level: Level, disk: Disk, backing: Json | undefined): [JsonObject, JsonObject] {
  const { driver } = disk;
  const mode = cacheModes[driver?.cache ?? 'default'];
  const cache = mode && { direct: mode.direct, 'no-flush': mode.noFlush };
  const name = `libvirt-${level.index}`;
  const host = level.type === 'file' || level.type === 'block';
  return [
    {
      ...storage(level, disk),
      aio: host ? driver?.io : undefined,
      'node-name': `${name}-storage`,
      cache,
      'auto-read-only': true,
      discard: 'unmap',
    },
    {
      'node-name': `${name}-format`,
      'read-only': level.readOnly,
      discard: level.readOnly ? undefined : driver?.discard,
      'detect-zeroes': level.readOnly ? undefined : driver?.detectZeroes,
      cache,
      driver: level.format === 'fat' ? 'raw' : level.format,
      file: `${name}-storage`,
      backing,
    },
  ];
}

/** The `-blockdev` values of a disk, deepest level first; also what `blockdev-add` takes. Empty for an empty drive. */
export function diskNodes(disk: Disk): JsonObject[] {
  if (!hasSource(disk) || !disk.source) return [];
  if (disk.encryption || disk.auth) throw unsupported('encrypted disks and disks with authentication are not supported');
  const { levels, closed } = levelsOf(disk);
  const nodes = levels.flatMap((level, place) => {
    const below = levels[place + 1];
    const ended: Json | undefined = closed && level.format !== 'raw' ? null : undefined;
    return [levelNodes(level, disk, below ? `libvirt-${below.index}-format` : ended)];
  });
  const ordered = nodes.reverse().flat();
  if (disk.driver?.copyOnRead === 'on') {
    const file = `libvirt-${levels[0]!.index}-format`;
    ordered.push({ driver: 'copy-on-read', 'node-name': `libvirt-CoR-${disk.target?.dev}`, file, discard: 'unmap' });
  }
  return ordered;
}

/** The block node that the drive uses. */
export function diskNodeName(disk: Disk): string | undefined {
  if (!hasSource(disk) || !disk.source) return undefined;
  return disk.driver?.copyOnRead === 'on' ? `libvirt-CoR-${disk.target?.dev}` : `libvirt-${disk.source.index ?? 0}-format`;
}

/** Driver and place on its bus. */
function drive(to: Arguments, disk: Disk): { before: JsonObject; place: JsonObject } {
  const { address, driver, target } = disk;
  const cd = disk.device === 'cdrom';
  switch (target?.bus) {
    case 'virtio':
      return {
        before: {
          driver: virtioDriverName('virtio-blk', disk.model),
          iothread: driver?.iothread === undefined ? undefined : `iothread${driver.iothread}`,
          ...virtioProperties(driver),
          ioeventfd: onOffValue(driver?.ioeventfd),
          event_idx: onOffValue(driver?.eventIdx),
          'num-queues': driver?.queues,
          'queue-size': driver?.queueSize,
        },
        place: to.place(disk),
      };
    case 'usb':
      return { before: { driver: 'usb-storage' }, place: to.place(disk) };
    case 'ide':
    case 'sata':
    case 'scsi':
    case 'fdc':
      break;
    default:
      throw unsupported(`disk bus '${target?.bus}' is not supported`);
  }
  if (address?.type !== 'drive') throw unsupported(`disk '${target.dev}' needs a drive address`);
  const { controller, bus, unit } = address;
  if (target.bus === 'fdc') return { before: { driver: 'floppy' }, place: { unit } };
  const host = to.controllerAlias(target.bus, controller);
  if (target.bus === 'ide') return { before: { driver: cd ? 'ide-cd' : 'ide-hd' }, place: { bus: `${host}.${bus}`, unit } };
  if (target.bus === 'sata') return { before: { driver: cd ? 'ide-cd' : 'ide-hd' }, place: { bus: `${host}.${unit}` } };
  const model = to.domain.devices.controllers.find((one) => one.type === 'scsi' && one.index === controller)?.model;
  const id = `drive-${aliasOf(disk)}`;
  const before = { driver: disk.device === 'lun' ? 'scsi-block' : cd ? 'scsi-cd' : 'scsi-hd' };
  const place =
    model === 'lsilogic'
      ? { bus: `${host}.0`, 'scsi-id': unit, device_id: id }
      : { bus: `${host}.0`, channel: bus, 'scsi-id': address.target, lun: unit, device_id: id };
  return { before, place };
}

const wwnNumber = (wwn: string | undefined): number | bigint | undefined =>
  wwn === undefined ? undefined : BigInt(wwn.startsWith('0x') ? wwn : `0x${wwn}`);

/** The properties of the drive; the WWN is a 64-bit number, for which JSON text is written by `driveText`. */
function driveProperties(to: Arguments, disk: Disk, bootIndex: number | undefined): Record<string, Json | bigint | undefined> {
  const { before, place } = drive(to, disk);
  const { driver, blockio, geometry, target } = disk;
  const mode = cacheModes[driver?.cache ?? 'default'];
  const errors = driver?.errorPolicy;
  const policy = (name: string | undefined): string | undefined => (name === 'enospace' ? 'enospc' : name);
  return {
    ...before,
    ...place,
    'share-rw': disk.shareable ? true : undefined,
    drive: diskNodeName(disk),
    id: aliasOf(disk),
    bootindex: bootIndex,
    logical_block_size: blockio?.logicalBlockSize,
    physical_block_size: blockio?.physicalBlockSize,
    discard_granularity: blockio?.discardGranularity,
    wwn: wwnNumber(disk.wwn),
    rotation_rate: target?.rotationRate,
    vendor: disk.vendor,
    product: disk.product,
    removable: onOffValue(target?.removable),
    'write-cache': mode && (mode.write ? 'on' : 'off'),
    cyls: geometry?.cyls,
    heads: geometry?.heads,
    secs: geometry?.secs,
    'bios-chs-trans': geometry?.trans,
    serial: disk.serial,
    werror: policy(errors),
    rerror: policy(driver?.rerrorPolicy ?? (errors === 'enospace' ? undefined : errors)),
  };
}

/** JSON text of properties in which a number may have 64 bits. */
function driveText(properties: Record<string, Json | bigint | undefined>): string {
  const members = Object.entries(properties).flatMap(([key, value]) => {
    if (value === undefined) return [];
    return [`${JSON.stringify(key)}:${typeof value === 'bigint' ? value : JSON.stringify(value)}`];
  });
  return `{${members.join(',')}}`;
}

/** The `-device` value of a disk as JSON text, also for `device_add`. `bootIndex` is its place in the boot order, from 1. */
export const diskDevice = (to: Arguments, disk: Disk, bootIndex?: number): string =>
  driveText(driveProperties(to, disk, bootIndex));

export function addDisks(to: Arguments, bootIndex: (disk: Disk) => number | undefined): void {
  for (const disk of to.domain.devices.disks) {
    for (const node of diskNodes(disk)) to.json('-blockdev', node);
    to.add('-device', diskDevice(to, disk, bootIndex(disk)));
  }
}
