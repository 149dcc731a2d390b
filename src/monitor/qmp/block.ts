// QMP commands about the block graph: nodes, places, media, queries. QEMU 7.2, qapi/block-core.json, qapi/block.json.

import { createQcow2 } from '../../disk/qcow2/create.ts';
import { Qcow2Image } from '../../disk/qcow2/image.ts';
import { QmpError } from '../../rpc/qmp/error.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import { any, array, bool, enumeration, int, object, optional, str, uint64, union } from '../../rpc/qmp/schema.ts';
import { nodeInfo, qdev, statsInfo } from '../block/info.ts';
import { blockdevOptions, blockdevRef, fileOptions } from '../block/options.ts';
import { type Limits, limitNames, limitsFault, noLimits } from '../block/throttle.ts';
import type { Emulator } from '../emulator.ts';
import { action, type QmpTable, query, unionAction } from './row.ts';

const limitMembers = Object.fromEntries(limitNames.map((n) => [n, int]));
const moreLimits = Object.fromEntries(
  limitNames.flatMap((n) => [
    [`${n}_max`, optional(int)],
    [`${n}_max_length`, optional(int)],
  ]),
);

/** A place by the older `device` or the newer `id`. */
const place = (e: Emulator, o: { readonly device?: string | undefined; readonly id?: string | undefined }) => {
  const name = o.id ?? o.device;
  if (name === undefined) throw new QmpError("Need exactly one of 'device' and 'id'");
  return e.blocks.backend(name);
};

/** Opens or closes the tray of a drive with removable media. */
function moveTray(
  e: Emulator,
  o: { readonly device?: string | undefined; readonly id?: string | undefined },
  open: boolean,
): void {
  const b = place(e, o);
  if (!b.removable) throw new QmpError(`Device '${o.id ?? o.device}' is not removable`);
  if (b.trayOpen === open) return;
  b.trayOpen = open;
  e.emit('DEVICE_TRAY_MOVED', { device: b.id, id: qdev(b), 'tray-open': open });
}

async function createNode(e: Emulator, o: Readonly<Record<string, unknown>>): Promise<void> {
  if (o['driver'] === 'file') {
    const made = await e.host.disks.open(String(o['filename']), { readOnly: false, create: true });
    try {
      await made.truncate(Number(o['size']));
    } finally {
      await made.close();
    }
    return;
  }
  if (typeof o['file'] !== 'string') throw new QmpError('blockdev-create: file must name a node');
  const node = e.blocks.get(o['file']);
  const { protocol } = node;
  if (!protocol) throw new QmpError(`'${node.name}' is no file`);
  await protocol.access(true);
  if (o['driver'] === 'raw') return protocol.truncate(Number(o['size']));
  await createQcow2(protocol, {
    size: Number(o['size']),
    ...(o['version'] === undefined ? {} : { version: o['version'] === 'v2' ? 2 : 3 }),
    ...(o['cluster-size'] === undefined ? {} : { clusterSize: Number(o['cluster-size']) }),
    ...(o['refcount-bits'] === undefined ? {} : { refcountBits: Number(o['refcount-bits']) }),
    lazyRefcounts: o['lazy-refcounts'] === true,
    ...(o['compression-type'] === undefined ? {} : { compression: o['compression-type'] as 'zlib' | 'zstd' }),
    ...(o['backing-file'] === undefined ? {} : { backing: String(o['backing-file']) }),
    ...(o['backing-fmt'] === undefined ? {} : { backingFormat: String(o['backing-fmt']) }),
  });
}

const createOptions = union('BlockdevCreateOptions', {}, 'driver', {
  file: { filename: str, size: int },
  raw: { file: blockdevRef, size: int },
  qcow2: {
    file: blockdevRef,
    size: int,
    version: optional(enumeration('BlockdevQcow2Version', ['v2', 'v3'])),
    'backing-file': optional(str),
    'backing-fmt': optional(enumeration('BlockdevDriver', ['raw', 'qcow2'])),
    'cluster-size': optional(int),
    'lazy-refcounts': optional(bool),
    'refcount-bits': optional(int),
    'compression-type': optional(enumeration('Qcow2CompressionType', ['zlib', 'zstd'])),
  },
});

export const blockCommands: QmpTable = {
  'blockdev-add': unionAction(blockdevOptions, async (e, o) => {
    await e.blocks.add(o as unknown as Json);
  }),
  'blockdev-reopen': action({ options: array(blockdevOptions) }, async (e, { options }) => {
    for (const o of options) await e.blocks.reopen(o as unknown as Json);
  }),
  'blockdev-del': action({ 'node-name': str }, (e, o) => e.blocks.remove(o['node-name'])),
  'blockdev-create': action({ 'job-id': str, options: createOptions }, (e, { 'job-id': id, options }) => {
    e.jobs.start({ id, type: 'create', autoDismiss: false, run: () => createNode(e, options) });
  }),
  block_resize: action({ device: optional(str), 'node-name': optional(str), size: int }, async (e, o) => {
    const node = e.blocks.nodeOf(o['node-name'] ?? o.device ?? '');
    if (o.size < 0) throw new QmpError("Parameter 'size' expects a >0 size");
    if (o.size % 512 !== 0) throw new QmpError('size must be a multiple of 512');
    const { format } = node;
    if (!format || node.readOnly) throw new QmpError(`Node '${node.name}' cannot be resized`);
    await node.disk.drained(async () => {
      await format.resize(o.size);
    });
    for (const bitmap of node.bitmaps.values()) bitmap.resize(o.size);
    for (const b of e.blocks.backends) if (b.node === node) b.changed?.();
  }),
  block_set_io_throttle: action(
    { device: optional(str), id: optional(str), ...limitMembers, ...moreLimits, iops_size: optional(int), group: optional(str) },
    (e, o) => {
      const given: Readonly<Record<string, unknown>> = o;
      const b = place(e, { device: given['device'] as string | undefined, id: given['id'] as string | undefined });
      const limits: Record<string, unknown> = { ...noLimits };
      for (const name of Object.keys(noLimits)) if (given[name] !== undefined) limits[name] = given[name];
      const fault = limitsFault(limits as unknown as Limits);
      if (fault !== undefined) throw new QmpError(fault);
      e.blocks.setLimits(b, limits as unknown as Limits);
    },
  ),
  'block-set-write-threshold': action({ 'node-name': str, 'write-threshold': uint64 }, (e, o) => {
    const node = e.blocks.find(o['node-name']);
    if (!node) throw new QmpError(`Device '${o['node-name']}' not found`);
    node.threshold.at = Number(o['write-threshold']);
  }),
  'blockdev-open-tray': action({ device: optional(str), id: optional(str), force: optional(bool) }, (e, o) =>
    moveTray(e, o, true),
  ),
  'blockdev-close-tray': action({ device: optional(str), id: optional(str) }, (e, o) => moveTray(e, o, false)),
  'blockdev-remove-medium': action({ id: str }, (e, o) => {
    const b = place(e, o);
    if (!b.removable) throw new QmpError(`Device '${o.id}' is not removable`);
    if (!b.trayOpen) throw new QmpError(`Tray of device '${o.id}' is not open`);
    b.put(undefined);
  }),
  'blockdev-insert-medium': action({ id: str, 'node-name': str }, (e, o) => {
    const b = place(e, o);
    if (!b.removable) throw new QmpError(`Device '${o.id}' is not removable`);
    if (!b.trayOpen) throw new QmpError(`Tray of device '${o.id}' is not open`);
    if (b.node) throw new QmpError(`There already is a medium in device '${o.id}'`);
    const node = e.blocks.get(o['node-name']);
    if (e.blocks.backends.some((x) => x.node === node && x.user !== undefined))
      throw new QmpError(`Node '${node.name}' is already in use`);
    b.put(node);
  }),
  'blockdev-change-medium': action(
    {
      device: optional(str),
      id: optional(str),
      filename: str,
      format: optional(str),
      force: optional(bool),
      'read-only-mode': optional(enumeration('BlockdevChangeReadOnlyMode', ['retain', 'read-only', 'read-write'])),
    },
    async (e, o) => {
      const b = place(e, o);
      if (!b.removable) throw new QmpError(`Device '${o.id ?? o.device}' is not removable`);
      const readOnly = o['read-only-mode'] === 'read-write' ? false : o['read-only-mode'] === 'read-only' || b.readOnly;
      const node = await e.blocks.addFile(fileOptions(o.filename), o.format, readOnly);
      moveTray(e, o, true);
      const old = b.node;
      b.put(node);
      if (old?.implicit) await e.blocks.remove(old.name).catch(() => {});
      moveTray(e, o, false);
    },
  ),
  eject: action({ device: optional(str), id: optional(str), force: optional(bool) }, (e, o) => {
    const b = place(e, o);
    moveTray(e, o, true);
    b.put(undefined);
  }),
  'query-block': query({}, array(any), async (e) =>
    Promise.all(
      e.blocks.backends
        .filter((b) => b.user !== undefined || b.id !== '')
        .map(async (b) => ({
          device: b.id,
          ...(b.user === undefined ? {} : { qdev: qdev(b) }),
          type: 'unknown',
          locked: false,
          // A place that no device uses may be given to any.
          removable: b.removable || b.user === undefined,
          ...(b.removable ? { tray_open: b.trayOpen } : {}),
          'io-status': 'ok',
          ...(b.node ? { inserted: await nodeInfo(e.blocks, b.node, b, false) } : {}),
        })),
    ),
  ),
  'query-named-block-nodes': query({ flat: optional(bool) }, array(any), (e, { flat }) =>
    Promise.all(
      [...e.blocks.list()].reverse().map((node) =>
        nodeInfo(
          e.blocks,
          node,
          e.blocks.backends.find((b) => b.node === node && b.user !== undefined),
          flat === true,
        ),
      ),
    ),
  ),
  'query-blockstats': query({ 'query-nodes': optional(bool) }, array(any), (e, o) =>
    o['query-nodes'] === true
      ? [...e.blocks.list()].reverse().map((node) => statsInfo(node, undefined))
      : e.blocks.backends.filter((b) => b.user !== undefined || b.id !== '').map((b) => statsInfo(b.node, b)),
  ),
  'blockdev-snapshot-internal-sync': action({ device: str, name: str }, async (e, o) => {
    const node = e.blocks.nodeOf(o.device);
    if (!(node.format instanceof Qcow2Image)) throw new QmpError(`Node '${node.name}' does not support internal snapshots`);
    if (node.format.snapshots.some((s) => s.name === o.name))
      throw new QmpError(`Snapshot with name '${o.name}' already exists on device '${o.device}'`);
    const { seconds, microseconds } = e.host.now();
    await node.format.createSnapshot({ name: o.name, seconds, nanoseconds: microseconds * 1000 });
  }),
  'blockdev-snapshot-delete-internal-sync': query(
    { device: str, id: optional(str), name: optional(str) },
    object('SnapshotInfo', {
      id: str,
      name: str,
      'vm-state-size': int,
      'date-sec': int,
      'date-nsec': int,
      'vm-clock-sec': int,
      'vm-clock-nsec': int,
    }),
    async (e, o) => {
      const node = e.blocks.nodeOf(o.device);
      if (!(node.format instanceof Qcow2Image)) throw new QmpError(`Node '${node.name}' does not support internal snapshots`);
      const s = node.format.snapshots.find(
        (x) => (o.id === undefined || x.id === o.id) && (o.name === undefined || x.name === o.name),
      );
      if (!s)
        throw new QmpError(
          `Snapshot with id '${o.id ?? '(null)'}' and name '${o.name ?? '(null)'}' does not exist on device '${o.device}'`,
        );
      await node.format.deleteSnapshot(s.id);
      return {
        id: s.id,
        name: s.name,
        'vm-state-size': s.vmStateSize,
        'date-sec': s.seconds,
        'date-nsec': s.nanoseconds,
        'vm-clock-sec': 0,
        'vm-clock-nsec': 0,
      };
    },
  ),
  'change-backing-file': action({ device: str, 'image-node-name': str, 'backing-file': str }, (e, o) => {
    const node = e.blocks.get(o['image-node-name']);
    return e.blocks.rename(node, o['backing-file'], node.backing?.options.driver);
  }),
};
