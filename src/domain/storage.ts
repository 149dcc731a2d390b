// `<pool>` and `<volume>` (libvirt 9.0, formatstorage).
import { allKept, attribute, child, children, element, kept, leaf, oneOf, required, string, type Value } from './codec.ts';
import { uuidField } from './domain.ts';
import { type DefineContext, randomUuid } from './emulator.ts';
import { DomainXmlError, errorCode, unsupported, xmlError } from './errors.ts';
import { formats } from './model/disk.ts';
import { bytesField, checkName, standingOpen } from './model/sizes.ts';
import { formatXml, newElement, parseRoot } from './xml.ts';

export const poolTypes = [
  ...(['dir', 'fs', 'netfs', 'logical', 'disk', 'iscsi', 'iscsi-direct', 'scsi', 'mpath', 'rbd', 'sheepdog'] as const),
  ...(['gluster', 'zfs', 'vstorage'] as const),
] as const;
export type PoolType = (typeof poolTypes)[number];

const permissions = element('permissions', {
  /** Octal, as text: `0711`. */
  mode: leaf('mode', string),
  owner: leaf('owner', string),
  group: leaf('group', string),
  label: leaf('label', string),
});

const poolSource = standingOpen(
  element('source', {
    hosts: children(element('host', { name: attribute('name', string), port: attribute('port', string) })),
    dir: child(element('dir', { path: attribute('path', string) })),
    devices: children(
      element('device', {
        path: attribute('path', string),
        partSeparator: attribute('part_separator', string),
        freeExtents: allKept('freeExtent'),
      }),
    ),
    adapter: kept('adapter'),
    name: leaf('name', string),
    initiator: kept('initiator'),
    auth: kept('auth'),
    format: child(element('format', { type: required('type', string) })),
    vendor: kept('vendor'),
    product: kept('product'),
  }),
);

const pool = element('pool', {
  type: required('type', oneOf(...poolTypes)),
  name: leaf('name', string),
  uuid: uuidField,
  features: kept('features'),
  capacity: bytesField('capacity'),
  allocation: bytesField('allocation'),
  available: bytesField('available'),
  source: child(poolSource),
  target: child(
    element('target', { path: leaf('path', string), permissions: child(permissions), encryption: kept('encryption') }),
  ),
  refresh: kept('refresh'),
});
type PoolDocument = Value<typeof pool>;

/** A pool definition; sizes are in bytes, and come from the daemon. */
export interface StoragePool extends PoolDocument {
  name: string;
}

/** The format of a pool's source where the document names none. */
const defaultFormats: Partial<Record<PoolType, string>> = { fs: 'auto', netfs: 'auto', logical: 'lvm2', disk: 'unknown' };
const needsTarget: readonly PoolType[] = ['dir', 'fs', 'netfs', 'logical', 'disk', 'iscsi', 'scsi', 'mpath', 'vstorage'];
const needsHost: readonly PoolType[] = ['netfs', 'iscsi', 'iscsi-direct', 'gluster'];

/** @throws DomainXmlError with libvirt's code and message. */
export function parsePool(text: string): StoragePool {
  const value = pool.parse(parseRoot(text, 'pool', 'storage_pool_definition'));
  const name = checkName(value.name || value.source?.name, errorCode.xml, 'missing pool source name element');
  const source = value.source ?? poolSource.parse(newElement('source'));
  const format = defaultFormats[value.type];
  if (format !== undefined) source.format ??= { type: format };
  if (needsHost.includes(value.type) && !source.hosts[0]?.name) throw xmlError('missing storage pool source host name');
  if (value.type === 'netfs' && source.dir?.path === undefined) throw xmlError('missing storage pool source path');
  if (value.type === 'logical') source.name ??= name;
  const path = value.target?.path ?? (value.type === 'logical' ? `/dev/${source.name}` : undefined);
  if (needsTarget.includes(value.type) && path === undefined) throw xmlError('missing storage pool target path');
  if (value.target && path !== undefined) value.target.path = tidyPath(path);
  return {
    ...value,
    name,
    source,
    ...(path !== undefined && { target: { ...value.target, path: tidyPath(path) } }),
  };
}

/** A path without double or trailing slashes. */
const tidyPath = (path: string): string => path.replace(/\/+/g, '/').replace(/(.)\/$/, '$1');

/** Fills in what a definition may leave open, in place. */
export function completePool(given: StoragePool, random: DefineContext['random']): StoragePool {
  given.uuid ??= randomUuid(random);
  given.capacity ??= 0;
  given.allocation ??= 0;
  given.available ??= 0;
  return given;
}

/** The pool's XML text as libvirt prints it. */
export const formatPool = (given: StoragePool): string => formatXml(pool.format(given));

const volumeFormat = {
  parse: (text: string) => (formats.includes(text) || text === 'extended' || text.startsWith('linux') ? text : undefined),
  format: (value: string) => value,
};
const format = element('format', {
  type: required('type', volumeFormat, { invalid: (text) => unsupported(`unknown volume format type ${text}`) }),
});
const timestamps = element('timestamps', {
  /** Seconds since 1970 with nanoseconds after the point. */
  atime: leaf('atime', string),
  mtime: leaf('mtime', string),
  ctime: leaf('ctime', string),
  btime: leaf('btime', string),
});

const volume = element('volume', {
  type: attribute('type', oneOf('file', 'block', 'dir', 'network', 'netdir', 'ploop')),
  name: leaf('name', string),
  key: leaf('key', string),
  source: kept('source'),
  capacity: bytesField('capacity'),
  allocation: bytesField('allocation'),
  physical: bytesField('physical'),
  target: child(
    element('target', {
      path: leaf('path', string),
      format: child(format),
      permissions: child(permissions),
      timestamps: child(timestamps),
      encryption: kept('encryption'),
      compat: leaf('compat', string),
      clusterSize: bytesField('clusterSize'),
      nocow: kept('nocow'),
      features: kept('features'),
    }),
  ),
  backingStore: child(
    element('backingStore', {
      path: leaf('path', string),
      format: child(format),
      permissions: child(permissions),
      timestamps: child(timestamps),
    }),
  ),
});
type VolumeDocument = Value<typeof volume>;

/** A volume; sizes are in bytes. */
export interface Volume extends VolumeDocument {
  name: string;
  capacity: number;
}

/** @throws DomainXmlError with libvirt's code and message. */
export function parseVolume(text: string): Volume {
  const value = volume.parse(parseRoot(text, 'volume', 'storage_volume_definition'));
  if (!value.name) throw xmlError('missing volume name element');
  if (value.name.includes('/')) {
    throw new DomainXmlError(errorCode.invalidOperation, `volume name '${value.name}' cannot contain '/'`);
  }
  if (value.capacity === undefined && !value.backingStore) throw xmlError('missing capacity element');
  if (value.backingStore && value.backingStore.path === undefined) throw xmlError('missing backing store path');
  return { ...value, name: value.name, capacity: value.capacity ?? 0 };
}

/** The volume's XML text as libvirt prints it. */
export const formatVolume = (given: Volume): string => formatXml(volume.format(given));

/** The format of a volume's file: `raw` where the document names none. */
export const volumeFormatOf = (given: Volume): string => given.target?.format?.type ?? 'raw';
