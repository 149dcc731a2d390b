// QMP commands that change several nodes at one moment, and those for dirty bitmaps and snapshots that may be parts of them.
// QEMU 7.2, qapi/transaction.json, qapi/block-core.json.

import { createQcow2 } from '../../disk/qcow2/create.ts';
import { Qcow2Image } from '../../disk/qcow2/image.ts';
import { QmpError } from '../../rpc/qmp/error.ts';
import { alternate, array, bool, enumeration, int, object, optional, str, union } from '../../rpc/qmp/schema.ts';
import { Bitmap } from '../block/bitmap.ts';
import { GRANULARITY } from '../block/copy-jobs.ts';
import type { BlockNode } from '../block/node.ts';
import type { Emulator } from '../emulator.ts';
import { backupMembers, startBackup } from './block-jobs.ts';
import { action, type QmpTable } from './row.ts';

const bitmapName = { node: str, name: str } as const;
const bitmapAdd = {
  ...bitmapName,
  granularity: optional(int),
  persistent: optional(bool),
  disabled: optional(bool),
} as const;
const bitmapMerge = {
  node: str,
  target: str,
  bitmaps: array(alternate('BlockDirtyBitmapOrStr', { string: str, object: object('BlockDirtyBitmap', bitmapName) })),
} as const;
const snapshotMembers = { node: str, overlay: str } as const;
const snapshotSync = {
  device: optional(str),
  'node-name': optional(str),
  'snapshot-file': str,
  'snapshot-node-name': optional(str),
  format: optional(str),
  mode: optional(enumeration('NewImageMode', ['existing', 'absolute-paths'])),
} as const;

/** What takes a change back. */
type Undo = () => void | Promise<void>;

function bitmapOf(
  e: Emulator,
  node: string,
  name: string,
  removing = false,
): { readonly at: BlockNode; readonly bitmap: Bitmap } {
  const at = e.blocks.nodeOf(node);
  const bitmap = at.bitmaps.get(name);
  if (!bitmap) throw new QmpError(`Dirty bitmap '${name}' not found`);
  if (bitmap.busy) throw new QmpError(`Bitmap '${name}' is currently in use by another operation and cannot be used`);
  if (bitmap.inconsistent && !removing) throw new QmpError(`Bitmap '${name}' is inconsistent and cannot be used`);
  return { at, bitmap };
}

function addBitmap(
  e: Emulator,
  o: {
    node: string;
    name: string;
    granularity?: number | undefined;
    persistent?: boolean | undefined;
    disabled?: boolean | undefined;
  },
): Undo {
  const node = e.blocks.nodeOf(o.node);
  const granularity = o.granularity ?? GRANULARITY;
  if (o.name === '') throw new QmpError('Bitmap name cannot be empty');
  if (granularity < 512 || (granularity & (granularity - 1)) !== 0)
    throw new QmpError('Granularity must be power of 2 and at least 512');
  const persistent = o.persistent === true;
  if (persistent) {
    if (!(node.format instanceof Qcow2Image))
      throw new QmpError(`Driver '${node.options.driver}' does not support persistent bitmaps: accepted is qcow2`);
    if (node.format.info.compat === '0.10') throw new QmpError('Cannot store dirty bitmaps in qcow2 v2 files');
    if (node.readOnly) throw new QmpError(`Cannot store dirty bitmaps in '${node.name}': it is read-only`);
    if (granularity > 2 ** 31) throw new QmpError('Granularity exceeds maximum (2147483648 bytes)');
    if (new TextEncoder().encode(o.name).length > 1023) throw new QmpError('Bitmap name is too long');
  }
  if (node.bitmaps.has(o.name)) throw new QmpError(`Bitmap already exists: ${o.name}`);
  node.bitmaps.set(
    o.name,
    new Bitmap({ name: o.name, size: node.disk.size, granularity, persistent, enabled: o.disabled !== true }),
  );
  return () => void node.bitmaps.delete(o.name);
}
function removeBitmap(e: Emulator, o: { node: string; name: string }): Undo {
  const { at, bitmap } = bitmapOf(e, o.node, o.name, true);
  at.bitmaps.delete(o.name);
  return () => void at.bitmaps.set(o.name, bitmap);
}
function clearBitmap(e: Emulator, o: { node: string; name: string }): Undo {
  const { bitmap } = bitmapOf(e, o.node, o.name);
  const before = bitmap.copy();
  bitmap.clear();
  return () => bitmap.merge(before);
}
function enableBitmap(e: Emulator, o: { node: string; name: string }, enabled: boolean): Undo {
  const { bitmap } = bitmapOf(e, o.node, o.name);
  const before = bitmap.enabled;
  bitmap.enabled = enabled;
  return () => {
    bitmap.enabled = before;
  };
}
function mergeBitmaps(
  e: Emulator,
  o: { node: string; target: string; bitmaps: readonly (string | { node: string; name: string })[] },
): Undo {
  const { at, bitmap } = bitmapOf(e, o.node, o.target);
  const sources = o.bitmaps.map((b) => (typeof b === 'string' ? bitmapOf(e, o.node, b) : bitmapOf(e, b.node, b.name)).bitmap);
  const before = bitmap.copy();
  for (const source of sources) bitmap.merge(source);
  return () => void at.bitmaps.set(o.target, before);
}

/** Puts an overlay over a node, for everybody above the node. */
async function snapshot(e: Emulator, o: { node: string; overlay: string }): Promise<Undo> {
  const node = e.blocks.nodeOf(o.node);
  const overlay = e.blocks.get(o.overlay);
  if (overlay.backing) throw new QmpError('The overlay already has a backing image');
  if (!(overlay.format instanceof Qcow2Image)) throw new QmpError('The overlay does not support backing images');
  if (e.blocks.users(overlay).length > 0) throw new QmpError('The overlay is already in use');
  await node.disk.drained(async () => {
    await node.disk.below.flush();
    overlay.backing = node;
    e.blocks.replace(node, overlay, [overlay]);
    return overlay.disk;
  });
  return async () => {
    await overlay.disk.drained(async () => {
      overlay.backing = undefined;
      e.blocks.replace(overlay, node);
      return node.disk;
    });
  };
}

async function snapshotWithFile(
  e: Emulator,
  o: {
    device?: string | undefined;
    'node-name'?: string | undefined;
    'snapshot-file': string;
    'snapshot-node-name'?: string | undefined;
    format?: string | undefined;
    mode?: 'existing' | 'absolute-paths' | undefined;
  },
): Promise<Undo> {
  const node = e.blocks.nodeOf(o['node-name'] ?? o.device ?? '');
  if ((o.format ?? 'qcow2') !== 'qcow2')
    throw new QmpError(`Format '${o.format}' is not supported for snapshots; accepted: qcow2`);
  if (o.mode !== 'existing') {
    const file = await e.host.disks.open(o['snapshot-file'], { readOnly: false, create: true });
    try {
      await createQcow2(file, { size: node.disk.size, backing: node.filename, backingFormat: node.options.driver });
    } finally {
      await file.close();
    }
  }
  const overlay = await e.blocks.add({
    driver: 'qcow2',
    'node-name': o['snapshot-node-name'] ?? e.blocks.freshName(),
    file: { driver: 'file', filename: o['snapshot-file'] },
    backing: null,
  });
  try {
    return await snapshot(e, { node: node.name, overlay: overlay.name });
  } catch (error) {
    await e.blocks.remove(overlay.name).catch(() => {});
    throw error;
  }
}

const actions = union('TransactionAction', {}, 'type', {
  abort: { data: object('Abort', {}) },
  'block-dirty-bitmap-add': { data: object('BlockDirtyBitmapAdd', bitmapAdd) },
  'block-dirty-bitmap-remove': { data: object('BlockDirtyBitmap', bitmapName) },
  'block-dirty-bitmap-clear': { data: object('BlockDirtyBitmap', bitmapName) },
  'block-dirty-bitmap-enable': { data: object('BlockDirtyBitmap', bitmapName) },
  'block-dirty-bitmap-disable': { data: object('BlockDirtyBitmap', bitmapName) },
  'block-dirty-bitmap-merge': { data: object('BlockDirtyBitmapMerge', bitmapMerge) },
  'blockdev-backup': { data: object('BlockdevBackup', backupMembers) },
  'blockdev-snapshot': { data: object('BlockdevSnapshot', snapshotMembers) },
  'blockdev-snapshot-sync': { data: object('BlockdevSnapshotSync', snapshotSync) },
});

export const transactionCommands: QmpTable = {
  transaction: action(
    {
      actions: array(actions),
      properties: optional(
        object('TransactionProperties', {
          'completion-mode': optional(enumeration('ActionCompletionMode', ['individual', 'grouped'])),
        }),
      ),
    },
    async (e, o) => {
      if (o.properties?.['completion-mode'] === 'grouped') throw new QmpError("completion-mode 'grouped' is not supported");
      const undo: Undo[] = [];
      try {
        for (const a of o.actions) {
          switch (a.type) {
            case 'abort':
              throw new QmpError('Transaction aborted using Abort action');
            case 'block-dirty-bitmap-add':
              undo.push(addBitmap(e, a.data));
              break;
            case 'block-dirty-bitmap-remove':
              undo.push(removeBitmap(e, a.data));
              break;
            case 'block-dirty-bitmap-clear':
              undo.push(clearBitmap(e, a.data));
              break;
            case 'block-dirty-bitmap-enable':
            case 'block-dirty-bitmap-disable':
              undo.push(enableBitmap(e, a.data, a.type === 'block-dirty-bitmap-enable'));
              break;
            case 'block-dirty-bitmap-merge':
              undo.push(mergeBitmaps(e, a.data));
              break;
            case 'blockdev-backup':
              startBackup(e, a.data);
              undo.push(() => e.jobs.get(a.data['job-id'] ?? a.data.device).cancel());
              break;
            case 'blockdev-snapshot':
              undo.push(await snapshot(e, a.data));
              break;
            case 'blockdev-snapshot-sync':
              undo.push(await snapshotWithFile(e, a.data));
              break;
          }
        }
      } catch (error) {
        for (const back of undo.reverse()) await back();
        throw error;
      }
    },
  ),
  'blockdev-snapshot': action(
    snapshotMembers,
    async (e, o) => {
      await snapshot(e, o);
    },
    { features: ['allow-write-only-overlay'] },
  ),
  'blockdev-snapshot-sync': action(snapshotSync, async (e, o) => {
    await snapshotWithFile(e, o);
  }),
  'block-dirty-bitmap-add': action(bitmapAdd, (e, o) => void addBitmap(e, o)),
  'block-dirty-bitmap-remove': action(bitmapName, (e, o) => void removeBitmap(e, o)),
  'block-dirty-bitmap-clear': action(bitmapName, (e, o) => void clearBitmap(e, o)),
  'block-dirty-bitmap-enable': action(bitmapName, (e, o) => void enableBitmap(e, o, true)),
  'block-dirty-bitmap-disable': action(bitmapName, (e, o) => void enableBitmap(e, o, false)),
  'block-dirty-bitmap-merge': action(bitmapMerge, (e, o) => void mergeBitmaps(e, o)),
};
