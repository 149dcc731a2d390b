// Volumes: what an image file is, as `<volume>` says it; making, copying, changing and wiping them through src/disk.
import { copyDisk } from '../../disk/copy.ts';
import { openDisk, probe } from '../../disk/open.ts';
import { createQcow2 } from '../../disk/qcow2/create.ts';
import { readHeader } from '../../disk/qcow2/image.ts';
import type { Volume } from '../../domain/storage.ts';
import { formatXml, newElement, type XmlElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { DaemonHost, FileStatus } from '../host.ts';

/** A volume as the last look at the pool found it. */
export interface VolumeEntry {
  readonly name: string;
  readonly path: string;
  readonly kind: 'file' | 'block' | 'dir';
  readonly format: string;
  readonly capacity: number;
  readonly allocation: number;
  readonly physical: number;
  readonly status: FileStatus;
  readonly backing?: { readonly path: string; readonly format: string; readonly status?: FileStatus | undefined };
  /** Of qcow2 images. */
  readonly compat?: string;
  readonly clusterSize?: number;
  readonly lazyRefcounts?: boolean;
}

/** Formats that are named by their first bytes and not opened. */
async function otherFormat(host: DaemonHost, path: string): Promise<string | undefined> {
  const file = await host.files.open(path, 'read');
  try {
    const start = await file.read(0, 512);
    const text = new TextDecoder('latin1').decode(start);
    if (text.startsWith('KDMV')) return 'vmdk';
    if (text.startsWith('QED\0')) return 'qed';
    if (text.startsWith('conectix')) return 'vpc';
    if (text.slice(0x40, 0x44) === '\x7f\x10\xda\xbe') return 'vdi';
    const iso = new TextDecoder('latin1').decode(await file.read(0x8000, 6));
    return iso.slice(1) === 'CD001' ? 'iso' : undefined;
  } finally {
    await file.close();
  }
}

/** What is at a path. Undefined when it is gone or no volume. */
export async function inspect(host: DaemonHost, path: string, name: string): Promise<VolumeEntry | undefined> {
  const status = await host.files.status(path);
  if (status === undefined) return undefined;
  const common = { name, path, allocation: status.allocated, physical: status.size, status };
  if (status.kind === 'directory') return { ...common, kind: 'dir', format: 'dir', capacity: 0, allocation: 0, physical: 0 };
  if (status.kind !== 'file' && status.kind !== 'block') return undefined;
  const kind = status.kind;
  const raw: VolumeEntry = { ...common, kind, format: 'raw', capacity: status.size };
  const other = await otherFormat(host, path).catch(() => undefined);
  if (other !== undefined) return { ...raw, format: other };
  const file = await host.disks.open(path, { readOnly: true, share: true });
  try {
    if ((await probe(file)) !== 'qcow2') return raw;
    const header = await readHeader(file);
    const backing = header.backing === undefined ? undefined : host.disks.resolve(path, header.backing);
    return {
      ...raw,
      format: 'qcow2',
      capacity: header.size,
      compat: header.version === 2 ? '0.10' : '1.1',
      clusterSize: 2 ** header.clusterBits,
      lazyRefcounts: (header.compatible & 1n) === 1n,
      ...(backing !== undefined && {
        backing: { path: backing, format: header.backingFormat ?? 'raw', status: await host.files.status(backing) },
      }),
    };
  } catch {
    // A damaged image is a volume of bytes.
    return raw;
  } finally {
    await file.close();
  }
}

const text = (name: string, value: string | number): XmlElement => newElement(name, {}, [String(value)]);
const bytes = (name: string, value: number, unit = 'bytes'): XmlElement => newElement(name, { unit }, [String(value)]);

function ownership(status: FileStatus): XmlElement[] {
  return [
    newElement('permissions', {}, [
      text('mode', `0${status.mode.toString(8).padStart(3, '0')}`),
      text('owner', status.uid),
      text('group', status.gid),
    ]),
    newElement('timestamps', {}, [
      text('atime', status.accessed),
      text('mtime', status.modified),
      text('ctime', status.changed),
      // libvirt 9.0 on Linux does not know when a file was made.
      text('btime', 0),
    ]),
  ];
}

/** The document of a volume as libvirt prints it. */
export function volumeXml(one: VolumeEntry): string {
  const format = newElement('format', { type: one.format });
  const features = one.compat === undefined ? [] : qcow2Details(one);
  const parts: XmlElement[] = [
    text('name', one.name),
    text('key', one.path),
    bytes('capacity', one.capacity),
    bytes('allocation', one.allocation),
    ...(one.kind === 'dir' ? [] : [bytes('physical', one.physical)]),
    newElement('target', {}, [text('path', one.path), format, ...ownership(one.status), ...features]),
  ];
  if (one.backing) {
    const { path, format: type, status } = one.backing;
    const below = [text('path', path), newElement('format', { type }), ...(status ? ownership(status) : [])];
    parts.push(newElement('backingStore', {}, below));
  }
  return formatXml(newElement('volume', { type: one.kind }, parts));
}

function qcow2Details(one: VolumeEntry): XmlElement[] {
  const features = newElement('features', {}, one.lazyRefcounts ? [newElement('lazy_refcounts')] : []);
  if (!one.lazyRefcounts) features.nodes.push('\n    ');
  return [text('compat', one.compat!), bytes('clusterSize', one.clusterSize!, 'B'), features];
}

/** Bytes that are written at a time. */
const chunk = 1024 * 1024;

/** Makes the file of a new volume. @throws {LibvirtError} when it is there already */
export async function makeVolume(host: DaemonHost, path: string, volume: Volume, preallocate: boolean): Promise<void> {
  const format = volume.target?.format?.type ?? 'raw';
  if (format !== 'raw' && format !== 'qcow2' && format !== 'dir') {
    throw libvirtError('noSupport', 'storage', `creation of ${format} images is not supported`);
  }
  if (volume.target?.encryption) throw libvirtError('configUnsupported', 'storage', 'encrypted volumes are not supported');
  if ((await host.files.status(path)) !== undefined) {
    throw libvirtError('storageVolExist', 'storage', `'${volume.name}'`);
  }
  const mode = Number.parseInt(volume.target?.permissions?.mode ?? '0600', 8);
  if (format === 'dir') {
    await host.files.makeDirectory(path, mode);
    return;
  }
  try {
    await writeImage(host, path, format, volume, preallocate);
    await host.files.change(path, { mode });
  } catch (error) {
    await host.files.remove(path);
    throw error;
  }
}

async function writeImage(host: DaemonHost, path: string, format: 'raw' | 'qcow2', volume: Volume, full: boolean): Promise<void> {
  let { capacity } = volume;
  const backing = volume.backingStore;
  if (backing?.path !== undefined && capacity === 0) {
    const below = await openDisk(host.disks, backing.path, { readOnly: true, share: true });
    capacity = below.device.size;
    await below.device.close();
  }
  const file = await host.disks.open(path, { readOnly: false, create: true });
  try {
    if (format === 'raw') {
      await file.truncate(capacity);
      if (full) {
        const zeros = new Uint8Array(chunk);
        for (let at = 0; at < capacity; at += chunk) await file.write(at, zeros.subarray(0, Math.min(chunk, capacity - at)));
      }
    } else {
      await createQcow2(file, {
        size: Math.ceil(capacity / 512) * 512,
        version: volume.target?.compat === '0.10' ? 2 : 3,
        ...(volume.target?.clusterSize !== undefined && { clusterSize: volume.target.clusterSize }),
        ...(backing?.path !== undefined && { backing: backing.path, backingFormat: backing.format?.type ?? 'raw' }),
      });
    }
    await file.flush();
  } finally {
    await file.close();
  }
}

/** Fills a new volume with another's contents. */
export async function copyVolume(host: DaemonHost, from: VolumeEntry, to: string): Promise<void> {
  const format = from.format === 'qcow2' ? ('qcow2' as const) : ('raw' as const);
  const source = await openDisk(host.disks, from.path, { format, readOnly: true });
  try {
    const target = await openDisk(host.disks, to);
    try {
      await copyDisk(source.device, target.device, { sparse: 4096, targetIsZero: true });
    } finally {
      await target.device.close();
    }
  } finally {
    await source.device.close();
  }
}

export async function resizeVolume(host: DaemonHost, one: VolumeEntry, capacity: number): Promise<void> {
  if (one.format !== 'qcow2') {
    const file = await host.disks.open(one.path, { readOnly: false });
    await file.truncate(capacity).finally(() => file.close());
    return;
  }
  const disk = await openDisk(host.disks, one.path, { format: 'qcow2' });
  try {
    await disk.qcow2!.resize(capacity);
  } finally {
    await disk.device.close();
  }
}

/** Overwrites a volume's file with zeros. */
export async function wipeVolume(host: DaemonHost, one: VolumeEntry): Promise<void> {
  const file = await host.files.open(one.path, 'write');
  try {
    const zeros = new Uint8Array(chunk);
    for (let at = 0; at < one.physical; at += chunk) await file.write(at, zeros.subarray(0, Math.min(chunk, one.physical - at)));
    await file.sync();
  } finally {
    await file.close();
  }
}
