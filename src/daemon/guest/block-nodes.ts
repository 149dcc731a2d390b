// Block nodes of a running guest: levels of a disk's chain, adding and removing them, images for new levels (libvirt 9.0's naming).

import { openDisk } from '../../disk/open.ts';
import { createQcow2 } from '../../disk/qcow2/create.ts';
import { diskNodes } from '../../domain/command-line/storage.ts';
import { type BackingStore, type Disk, type DiskSource, diskSourceName } from '../../domain/model/disk.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import { invalidArgument } from '../errors.ts';
import type { Guest, Run } from './guest.ts';

/** One level of a running disk's chain; 0 is what the guest writes to. */
export interface Level {
  readonly depth: number;
  readonly index: number;
  readonly source: DiskSource;
  readonly format: string;
}

export const formatNode = (index: number): string => `libvirt-${index}-format`;

/** The disk that a client means by target name or source path. @throws {LibvirtError} 8 */
export function findDisk(disks: readonly Disk[], path: string): Disk {
  const found = disks.find((one) => one.target?.dev === path || diskSourceName(one) === path);
  if (found === undefined) throw invalidArgument(`invalid path '${path}' not assigned to domain`);
  return found;
}

/** All levels from the top. */
export function levelsOf(disk: Disk): Level[] {
  if (!disk.source) return [];
  const levels: Level[] = [{ depth: 0, index: disk.source.index ?? 0, source: disk.source, format: disk.driver?.type ?? 'raw' }];
  for (let store = disk.backingStore; store?.type !== undefined && store.source; store = store.backingStore) {
    levels.push({
      depth: levels.length,
      index: store.index ?? store.source.index ?? 0,
      source: store.source,
      format: store.format?.type ?? 'raw',
    });
  }
  return levels;
}

/** The part of a chain below level `depth`. */
export function storeBelow(disk: Disk, depth: number): BackingStore | undefined {
  let store = disk.backingStore;
  for (let i = 0; i < depth && store !== undefined; i++) store = store.backingStore;
  return store;
}

/** A level by its path or by `vda[3]`. @throws {LibvirtError} 8 */
export function findLevel(disk: Disk, name: string): Level {
  const numbered = /^([^[]+)\[(\d+)\]$/.exec(name);
  const found = levelsOf(disk).find((one) =>
    numbered
      ? numbered[1] === disk.target?.dev && one.index === Number(numbered[2])
      : one.source.file === name || one.source.dev === name,
  );
  if (found === undefined) throw invalidArgument(`could not find image '${name}' in chain for '${disk.source?.file}'`);
  return found;
}

export function nextNode(run: Run): number {
  return ++run.lastNode;
}

/** Adds the nodes of one image without those below it; with `backing`, over the node of that name. */
export async function addNodes(guest: Guest, disk: Disk, backing?: string): Promise<void> {
  const done: string[] = [];
  await guest.live().admit(disk);
  try {
    for (const node of diskNodes(disk)) {
      const over = backing !== undefined && node['file'] !== undefined ? { ...node, backing } : node;
      await guest.qmpText('blockdev-add', JSON.stringify(over));
      done.push(String(node['node-name']));
    }
  } catch (error) {
    for (const name of done.reverse()) await guest.qmp('blockdev-del', { 'node-name': name }).catch(() => {});
    throw error;
  }
}

/** Removes the two nodes of each level; what is gone already does not matter. */
export async function removeNodes(guest: Guest, levels: readonly Pick<Level, 'index'>[]): Promise<void> {
  for (const { index } of levels) {
    for (const kind of ['format', 'storage']) {
      await guest.qmp('blockdev-del', { 'node-name': `libvirt-${index}-${kind}` }).catch(() => {});
    }
  }
}

/** What a node's disk holds, in bytes. */
export async function nodeSize(guest: Guest, name: string): Promise<number> {
  const nodes = await guest.qmp('query-named-block-nodes', { flat: true });
  for (const one of Array.isArray(nodes) ? nodes : []) {
    if (!isObject(one) || one['node-name'] !== name || !isObject(one['image'])) continue;
    return Number(one['image']['virtual-size']);
  }
  throw libvirtError('internalError', 'qemu', `failed to find block node '${name}'`);
}

export interface NewImage {
  readonly path: string;
  readonly format: string;
  readonly size: number;
  readonly backing?: { readonly path: string; readonly format: string };
}

/** Makes an image file. What is there is kept with `reuse`, refused without. */
export async function makeImage(daemon: Daemon, image: NewImage, reuse: boolean): Promise<void> {
  const { files, disks } = daemon.host;
  const there = await files.status(image.path);
  if (reuse) {
    if (there === undefined) {
      throw libvirtError('configUnsupported', 'qemu', `missing existing file for disk ${image.path}: No such file or directory`);
    }
    return;
  }
  if (there !== undefined && there.kind !== 'block' && there.size > 0) {
    const detail = `external snapshot file for disk already exists and is not a block device: ${image.path}`;
    throw libvirtError('configUnsupported', 'qemu', detail);
  }
  const file = await disks.open(image.path, { readOnly: false, create: true });
  try {
    if (image.format === 'qcow2') {
      await createQcow2(file, {
        size: image.size,
        ...(image.backing && { backing: image.backing.path, backingFormat: image.backing.format }),
      });
    } else if (image.format === 'raw') await file.truncate(image.size);
    else throw libvirtError('configUnsupported', 'qemu', `image format '${image.format}' can not be created`);
    await file.flush();
  } finally {
    await file.close();
  }
}

/** The persistent definition's disk gets the running one's source and format. */
export async function persistSource(daemon: Daemon, guest: Guest, disk: Disk): Promise<void> {
  if (!guest.config) return;
  await daemon.guests.change(guest, (domain) => {
    const own = domain.devices.disks.find((one) => one.target?.dev === disk.target?.dev);
    if (!own || !disk.source) return;
    const { index: _, ...source } = disk.source;
    own.type = disk.type;
    own.source = source;
    own.driver = { ...own.driver, ...(disk.driver?.type !== undefined && { type: disk.driver.type }) };
    delete own.backingStore;
  });
}

/** The size of a disk image that nobody runs. */
export async function imageSize(daemon: Daemon, path: string, format: string): Promise<number> {
  const disk = await openDisk(daemon.host.disks, path, {
    ...(format === 'raw' || format === 'qcow2' ? { format } : {}),
    readOnly: true,
    share: true,
    backing: false,
  });
  const { size } = disk.device;
  await disk.device.close();
  return size;
}
