// `<disk>`: its source in every kind of storage, its driver, its place in the guest (libvirt 9.0, formatdomain "Hard drives, floppy disks, CDROMs").
import {
  allKept,
  attribute,
  type Codec,
  child,
  children,
  type Extra,
  element,
  flag,
  kept,
  lazy,
  leaf,
  oneOf,
  onOff,
  positive,
  refine,
  required,
  string,
  unsigned,
  type Value,
  withDefault,
  yesNo,
} from '../codec.ts';
import { unsupported, xmlError } from '../errors.ts';
import type { XmlElement } from '../xml.ts';
import { deviceInfo, virtioOptions } from './common.ts';

export const storageTypes = ['block', 'file', 'dir', 'network', 'volume', 'nvme', 'vhostuser'] as const;
export type StorageType = (typeof storageTypes)[number];

export const protocols = [
  ...(['nbd', 'rbd', 'sheepdog', 'gluster', 'iscsi', 'http', 'https', 'ftp', 'ftps', 'tftp', 'ssh', 'vxhs', 'nfs'] as const),
] as const;

/** The formats that libvirt names; which of them an emulator opens is the emulator's matter. */
export const formats = [
  ...['none', 'raw', 'dir', 'bochs', 'cloop', 'dmg', 'iso', 'vpc', 'vdi', 'fat', 'vhd', 'ploop', 'cow', 'qcow'],
  ...['qcow2', 'qed', 'vmdk'],
];
const format = {
  parse: (text: string) => (formats.includes(text) ? text : undefined),
  format: (value: string) => value,
};
const formatWording = { invalid: (text: string) => unsupported(`unknown driver format value '${text}'`) };

const host = element('host', {
  name: attribute('name', string),
  port: attribute('port', string),
  transport: attribute('transport', oneOf('tcp', 'unix', 'rdma')),
  socket: attribute('socket', string),
});

const source = element('source', {
  type: attribute('type', string),
  file: attribute('file', string),
  dev: attribute('dev', string),
  dir: attribute('dir', string),
  protocol: attribute('protocol', oneOf(...protocols)),
  name: attribute('name', string),
  query: attribute('query', string),
  tls: attribute('tls', yesNo),
  pool: attribute('pool', string),
  volume: attribute('volume', string),
  mode: attribute('mode', oneOf('host', 'direct')),
  path: attribute('path', string),
  startupPolicy: attribute('startupPolicy', oneOf('mandatory', 'requisite', 'optional')),
  index: attribute('index', unsigned),
  hosts: children(host),
  snapshot: kept('snapshot'),
  config: kept('config'),
  auth: kept('auth'),
  reservations: kept('reservations'),
  address: kept('address'),
  slices: kept('slices'),
  ssl: kept('ssl'),
  cookies: kept('cookies'),
  readahead: kept('readahead'),
  timeout: kept('timeout'),
  encryption: kept('encryption'),
  seclabels: allKept('seclabel'),
});
export type DiskSource = Value<typeof source>;

/** A level of the backing chain; an element without a type ends the chain. */
export interface BackingStore {
  type?: StorageType;
  index?: number;
  format?: { type: string; extra?: Extra };
  source?: DiskSource;
  backingStore?: BackingStore;
  extra?: Extra;
}
const backingStore: Codec<BackingStore> = element('backingStore', {
  type: attribute('type', oneOf(...storageTypes)),
  index: attribute('index', unsigned),
  format: child(element('format', { type: required('type', format, formatWording) })),
  source: child(source),
  backingStore: child(lazy('backingStore', (): Codec<BackingStore> => backingStore)),
});

const driver = element('driver', {
  name: attribute('name', string),
  type: attribute('type', format, formatWording),
  cache: attribute('cache', oneOf('default', 'none', 'writethrough', 'writeback', 'directsync', 'unsafe')),
  errorPolicy: attribute('error_policy', oneOf('stop', 'report', 'ignore', 'enospace')),
  rerrorPolicy: attribute('rerror_policy', oneOf('stop', 'report', 'ignore')),
  io: attribute('io', oneOf('native', 'threads', 'io_uring')),
  ioeventfd: attribute('ioeventfd', onOff),
  eventIdx: attribute('event_idx', onOff),
  copyOnRead: attribute('copy_on_read', onOff),
  discard: attribute('discard', oneOf('unmap', 'ignore')),
  iothread: attribute('iothread', positive),
  detectZeroes: attribute('detect_zeroes', oneOf('off', 'on', 'unmap')),
  queues: attribute('queues', positive),
  queueSize: attribute('queue_size', positive),
  ...virtioOptions,
  metadataCache: kept('metadata_cache'),
});

const target = element('target', {
  dev: attribute('dev', string),
  bus: attribute('bus', oneOf('ide', 'fdc', 'scsi', 'virtio', 'xen', 'usb', 'uml', 'sata', 'sd')),
  tray: attribute('tray', oneOf('open', 'closed')),
  removable: attribute('removable', onOff),
  rotationRate: attribute('rotation_rate', unsigned),
});

const geometry = element('geometry', {
  cyls: required('cyls', unsigned),
  heads: required('heads', unsigned),
  secs: required('secs', unsigned),
  trans: attribute('trans', oneOf('none', 'auto', 'lba')),
});

/** The throttles of `<iotune>` in libvirt's order; each is a number of bytes or operations a second, or a length in seconds. */
const throttles = [
  ...['total_bytes_sec', 'read_bytes_sec', 'write_bytes_sec', 'total_iops_sec', 'read_iops_sec', 'write_iops_sec'],
  ...['total_bytes_sec_max', 'read_bytes_sec_max', 'write_bytes_sec_max', 'total_iops_sec_max', 'read_iops_sec_max'],
  ...['write_iops_sec_max', 'size_iops_sec', 'group_name', 'total_bytes_sec_max_length', 'read_bytes_sec_max_length'],
  ...['write_bytes_sec_max_length', 'total_iops_sec_max_length', 'read_iops_sec_max_length', 'write_iops_sec_max_length'],
] as const;
const iotune = element('iotune', Object.fromEntries(throttles.map((name) => [name, leaf(name, string)])));

/** A world wide name: 16 hexadecimal digits. */
const wwn = {
  parse: (text: string) => (/^(0x)?[0-9a-f]{16}$/i.test(text) ? text : undefined),
  format: (value: string) => value,
};

export const disk = refine(
  element('disk', {
    type: withDefault(attribute('type', oneOf(...storageTypes)), 'file' as const),
    device: withDefault(attribute('device', oneOf('disk', 'cdrom', 'floppy', 'lun')), 'disk' as const),
    model: attribute('model', oneOf('virtio', 'virtio-transitional', 'virtio-non-transitional')),
    rawio: attribute('rawio', yesNo),
    sgio: attribute('sgio', oneOf('filtered', 'unfiltered')),
    snapshot: attribute('snapshot', oneOf('no', 'internal', 'external', 'manual')),
    driver: child(driver),
    auth: kept('auth'),
    source: child(source),
    backingStore: child(backingStore),
    mirror: kept('mirror'),
    backenddomain: kept('backenddomain'),
    geometry: child(geometry),
    blockio: child(
      element('blockio', {
        logicalBlockSize: attribute('logical_block_size', unsigned),
        physicalBlockSize: attribute('physical_block_size', unsigned),
        discardGranularity: attribute('discard_granularity', unsigned),
      }),
    ),
    target: child(target),
    iotune: child(iotune),
    readonly: flag('readonly'),
    shareable: flag('shareable'),
    transient: kept('transient'),
    serial: leaf('serial', string),
    wwn: leaf('wwn', wwn, { invalid: (text) => xmlError(`Malformed wwn: ${text}`) }),
    vendor: leaf('vendor', string),
    product: leaf('product', string),
    encryption: kept('encryption'),
    ...deviceInfo,
  }),
  (value, tree) => {
    checkSource(value.type, value.source, tree);
    return value;
  },
);
export type Disk = Value<typeof disk>;

function checkSource(type: StorageType, given: DiskSource | undefined, tree: XmlElement): void {
  if (type === 'network' && given && given.protocol === undefined) {
    throw xmlError("Missing required attribute 'protocol' in element 'source'");
  }
  if (type === 'volume' && given && (given.pool === undefined || given.volume === undefined)) {
    throw xmlError("'pool' and 'volume' must be specified together for 'pool' type source");
  }
  if (type === 'vhostuser' && !given) throw xmlError(`Missing required element 'source' in element '${tree.name}'`);
}

/** What the disk's source is called: its file, device or directory, the network name, or nothing for an empty drive. */
export function diskSourceName(one: { source?: DiskSource }): string | undefined {
  const given = one.source;
  return given?.file ?? given?.dev ?? given?.dir ?? given?.name ?? given?.volume ?? given?.path;
}

/** Whether there is a medium or file at all; only removable drives may be without. */
export const hasSource = (one: Disk): boolean =>
  diskSourceName(one) !== undefined || (one.type === 'network' && one.source !== undefined) || one.type === 'nvme';

/** The number in a target name: `vda` 0, `sdz` 25, `hdaa` 26; undefined for a name that is not of this form. */
export function diskIndex(dev: string): number | undefined {
  const match = /^(?:fd|hd|sd|vd|xvd|ubd)([a-z]+)\d*$/.exec(dev);
  if (!match) return undefined;
  let index = 0;
  for (const letter of match[1]!) index = index * 26 + letter.charCodeAt(0) - 96;
  return index - 1;
}
