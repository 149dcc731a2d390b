// Checkpoints: named points from which changes of a running guest's disks are counted, as bitmaps in its qcow2 images.
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon } from '../daemon.ts';
import { operationInvalid } from '../errors.ts';
import { formatNode, levelsOf } from './block-nodes.ts';
import { type Checkpoint, formatCheckpoint, parseCheckpoint } from './checkpoint-model.ts';
import { copyDomain, type Guest } from './guest.ts';
import { withoutRun } from './save.ts';

const directoryOf = (daemon: Daemon, guest: Guest): string => `${daemon.paths.lib}/qemu/checkpoint/${guest.name}`;
const redefineFlag = 1;
export const checkpointDelete = { children: 1, metadataOnly: 2, childrenOnly: 4 } as const;

export async function loadCheckpoints(daemon: Daemon, guest: Guest): Promise<void> {
  const directory = directoryOf(daemon, guest);
  for (const file of await daemon.host.files.list(directory)) {
    if (!file.endsWith('.xml')) continue;
    try {
      const checkpoint = parseCheckpoint((await daemon.host.files.read(`${directory}/${file}`)) ?? '');
      guest.checkpoints.set(checkpoint.name!, checkpoint);
    } catch (error) {
      daemon.host.log(`Cannot load ${directory}/${file}: ${(error as Error).message}`);
    }
  }
}

/** @throws {LibvirtError} 103 */
export function findCheckpoint(guest: Guest, name: string): Checkpoint {
  const found = guest.checkpoints.get(name);
  if (!found) throw libvirtError('noDomainCheckpoint', 'qemu', `no domain checkpoint with matching name '${name}'`);
  return found;
}

async function keep(daemon: Daemon, guest: Guest, checkpoint: Checkpoint): Promise<void> {
  await daemon.host.files.makeDirectory(directoryOf(daemon, guest), 0o700);
  await daemon.host.files.write(`${directoryOf(daemon, guest)}/${checkpoint.name}.xml`, formatCheckpoint(checkpoint));
}

/** The checkpoint that has no child: the next one's parent. */
const newest = (guest: Guest): string | undefined => {
  const parents = new Set([...guest.checkpoints.values()].map((one) => one.parent?.name));
  return [...guest.checkpoints.keys()].find((name) => !parents.has(name));
};

/** The document of a checkpoint that is to be, and the actions that make it. */
export function planCheckpoint(daemon: Daemon, guest: Guest, wanted: Checkpoint) {
  const run = guest.live();
  const name = wanted.name ?? String(Math.floor(daemon.host.now() / 1000));
  if (guest.checkpoints.has(name)) throw operationInvalid(`domain checkpoint ${name} already exists`);
  const given = wanted.disks?.disks;
  const disks = run.domain.devices.disks.map((disk) => {
    const dev = disk.target?.dev ?? '';
    const own = given?.find((one) => one.name === dev);
    const able = disk.source !== undefined && disk.readonly !== true && disk.driver?.type === 'qcow2';
    const kind = own?.checkpoint ?? (given !== undefined && !own ? 'no' : able ? 'bitmap' : 'no');
    if (kind === 'bitmap' && disk.driver?.type !== 'qcow2') {
      throw libvirtError(
        'configUnsupported',
        'qemu',
        `checkpoint for disk ${dev} unsupported for storage type ${disk.driver?.type}`,
      );
    }
    return kind === 'bitmap'
      ? { name: dev, checkpoint: 'bitmap' as const, bitmap: own?.bitmap ?? name }
      : { name: dev, checkpoint: 'no' as const };
  });
  const parent = newest(guest);
  const checkpoint: Checkpoint = {
    name,
    ...(wanted.description !== undefined && { description: wanted.description }),
    ...(parent !== undefined && { parent: { name: parent } }),
    creationTime: Math.floor(daemon.host.now() / 1000),
    disks: { disks },
    domain: withoutRun(copyDomain(run.domain)),
  };
  const actions = disks.flatMap((one) => {
    if (one.checkpoint !== 'bitmap') return [];
    const disk = run.domain.devices.disks.find((d) => d.target?.dev === one.name)!;
    const data = { node: formatNode(disk.source!.index!), name: one.bitmap, persistent: true, disabled: false };
    return [{ type: 'block-dirty-bitmap-add', data }];
  });
  return { checkpoint, actions };
}

export async function keepCheckpoint(daemon: Daemon, guest: Guest, checkpoint: Checkpoint): Promise<void> {
  guest.checkpoints.set(checkpoint.name!, checkpoint);
  await keep(daemon, guest, checkpoint);
}

export async function createCheckpoint(daemon: Daemon, guest: Guest, xml: string, flags: number): Promise<string> {
  const wanted = parseCheckpoint(xml);
  return guest.lock.run('DomainCheckpointCreateXML', async () => {
    if ((flags & redefineFlag) !== 0) {
      if (wanted.name === undefined)
        throw libvirtError('xmlError', 'domainCheckpoint', 'a redefined checkpoint must have a name');
      await keepCheckpoint(daemon, guest, wanted);
      return wanted.name;
    }
    if (!guest.run) throw libvirtError('operationUnsupported', 'qemu', 'cannot create checkpoint for inactive domain');
    const { checkpoint, actions } = planCheckpoint(daemon, guest, wanted);
    if (actions.length > 0) await guest.qmp('transaction', { actions });
    await keepCheckpoint(daemon, guest, checkpoint);
    return checkpoint.name!;
  });
}

/** What a copy of a disk needs to go on counting from the same points: it sees all that is written from now on. */
export function bitmapsFor(guest: Guest, dev: string, from: string, to: string) {
  const names = [...guest.checkpoints.values()].flatMap((checkpoint) =>
    (checkpoint.disks?.disks ?? []).flatMap((one) =>
      one.name === dev && one.checkpoint === 'bitmap' ? [one.bitmap ?? checkpoint.name!] : [],
    ),
  );
  return names.flatMap((name) => [
    { type: 'block-dirty-bitmap-add', data: { node: to, name, persistent: true, disabled: false } },
    { type: 'block-dirty-bitmap-merge', data: { node: to, target: name, bitmaps: [{ node: from, name }] } },
  ]);
}

export async function deleteCheckpoint(daemon: Daemon, guest: Guest, name: string, flags: number): Promise<void> {
  await guest.lock.run('DomainCheckpointDelete', async () => {
    const start = findCheckpoint(guest, name);
    const below = (from: string): Checkpoint[] =>
      [...guest.checkpoints.values()].filter((one) => one.parent?.name === from).flatMap((one) => [...below(one.name!), one]);
    const children = flags & (checkpointDelete.children | checkpointDelete.childrenOnly) ? below(name) : [];
    const going = flags & checkpointDelete.childrenOnly ? children : [...children, start];
    for (const one of going) await drop(daemon, guest, one, (flags & checkpointDelete.metadataOnly) !== 0);
  });
}

async function drop(daemon: Daemon, guest: Guest, checkpoint: Checkpoint, metadataOnly: boolean): Promise<void> {
  const children = [...guest.checkpoints.values()].filter((one) => one.parent?.name === checkpoint.name);
  if (!metadataOnly) {
    const run = guest.run;
    if (!run) throw operationInvalid('cannot delete checkpoint for inactive domain');
    const actions = (checkpoint.disks?.disks ?? []).flatMap((one) => {
      const disk = run.domain.devices.disks.find((d) => d.target?.dev === one.name);
      if (one.checkpoint !== 'bitmap' || !disk) return [];
      const node = formatNode(levelsOf(disk)[0]!.index);
      const remove = { type: 'block-dirty-bitmap-remove', data: { node, name: one.bitmap ?? checkpoint.name } };
      // What changed since this one counts for the one before from now on.
      const older = checkpoint.parent?.name;
      const merge =
        older === undefined
          ? []
          : [{ type: 'block-dirty-bitmap-merge', data: { node, target: older, bitmaps: [one.bitmap ?? checkpoint.name] } }];
      return [...merge, remove];
    });
    if (actions.length > 0) await guest.qmp('transaction', { actions: actions as never });
  }
  guest.checkpoints.delete(checkpoint.name!);
  for (const child of children) {
    if (checkpoint.parent) child.parent = checkpoint.parent;
    else delete child.parent;
    await keep(daemon, guest, child);
  }
  await daemon.host.files.remove(`${directoryOf(daemon, guest)}/${checkpoint.name}.xml`);
}
