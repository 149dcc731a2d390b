// Snapshots of the whole machine inside its qcow2 images: savevm, loadvm, delvm, `info snapshots`. QEMU 7.2 "System Emulation", section
// "VM snapshots"; qapi/migration.json, snapshot-save.

import { Qcow2Image } from '../disk/qcow2/image.ts';
import type { Snapshot } from '../disk/qcow2/snapshot-table.ts';
import { QmpError } from '../rpc/qmp/error.ts';
import type { BlockNode } from './block/node.ts';
import type { Emulator } from './emulator.ts';
import { refuseUnsaved } from './unsaved.ts';

/** Bytes that are gathered before they are written into an image. */
const CHUNK = 4 << 20;

/** An image that takes part. */
interface Disk {
  readonly node: BlockNode;
  readonly image: Qcow2Image;
}

/**
 * The images of all disks that the guest may write, or those of the nodes that are named.
 * @throws QmpError where one of them can't have snapshots, or there is none
 */
function disksOf(e: Emulator, names?: readonly string[]): Disk[] {
  const nodes =
    names?.map((name) => e.blocks.get(name)) ??
    e.blocks.backends.flatMap((b) => (b.node !== undefined && !b.readOnly && !b.node.disk.readOnly ? [b.node] : []));
  const disks = [...new Set(nodes)].map((node) => {
    if (!(node.format instanceof Qcow2Image))
      throw new QmpError(`Device '${node.name}' is writable but does not support snapshots`);
    return { node, image: node.format };
  });
  if (disks.length === 0) throw new QmpError('No block device can accept snapshots');
  return disks;
}

const named = (image: Qcow2Image, tag: string): Snapshot | undefined =>
  image.snapshots.find((s) => s.name === tag || s.id === tag);

/** Saves machine and disks as `tag`; a snapshot of that name is replaced. The guest stands still meanwhile. */
export async function saveSnapshot(
  e: Emulator,
  tag: string | undefined,
  vmState?: string,
  devices?: readonly string[],
): Promise<void> {
  const disks = disksOf(e, devices);
  const home = vmState === undefined ? disks[0]! : disks.find((d) => d.node.name === vmState);
  if (!home) throw new QmpError(`vmstate block device '${vmState}' does not exist`);
  const { machine } = e;
  if (!machine) throw new QmpError('This machine has no state to save');
  refuseUnsaved(machine);
  const { seconds, microseconds } = e.host.now();
  const name = tag ?? `vm-${seconds}`;
  const wasRunning = machine.status === 'running';
  if (wasRunning) await machine.pause();
  try {
    for (const { node } of disks) await node.disk.flush();
    for (const { image } of disks) if (named(image, name)) await image.deleteSnapshot(name);
    const size = await writeState(home.image, machine.saveState());
    const details = { name, seconds, nanoseconds: microseconds * 1000, guestTime: BigInt(Math.floor(machine.clock())) };
    for (const disk of disks) {
      await disk.node.disk.drained(async () => {
        await disk.image.createSnapshot({ ...details, ...(disk === home ? { vmStateSize: size } : {}) });
      });
    }
  } catch (error) {
    throw error instanceof QmpError ? error : new QmpError(`Error while saving the machine: ${(error as Error).message}`);
  } finally {
    if (wasRunning) machine.resume();
  }
}

/** Goes back to `tag`; the guest runs on if it ran. */
export async function loadSnapshot(e: Emulator, tag: string, vmState?: string, devices?: readonly string[]): Promise<void> {
  const disks = disksOf(e, devices);
  const { machine } = e;
  if (!machine) throw new QmpError('This machine has no state to load');
  for (const { image, node } of disks) {
    if (!named(image, tag)) throw new QmpError(`Snapshot '${tag}' does not exist in one or more devices (${node.name})`);
  }
  const home = disks.find((d) => (vmState === undefined || d.node.name === vmState) && named(d.image, tag)!.vmStateSize > 0);
  if (!home) throw new QmpError(`Snapshot '${tag}' holds no state of a machine`);
  const size = named(home.image, tag)!.vmStateSize;
  try {
    await machine.checkState(readState(await home.image.atSnapshot(tag), size));
  } catch (error) {
    throw new QmpError(`Error while loading the machine, which goes on as it was: ${(error as Error).message}`);
  }
  const wasRunning = machine.status === 'running';
  if (wasRunning) await machine.pause();
  try {
    for (const { image, node } of disks) await node.disk.drained(async () => image.applySnapshot(tag));
    await machine.loadState(readState(home.image, size));
  } catch (error) {
    // Half of another machine can't go on: it stays as it is until it is reset.
    throw error instanceof QmpError ? error : new QmpError(`Error while loading the machine: ${(error as Error).message}`);
  }
  if (wasRunning) machine.resume();
}

/** @throws QmpError (rejects) where a disk has none of that name */
export async function deleteSnapshot(e: Emulator, tag: string, devices?: readonly string[]): Promise<void> {
  const having = disksOf(e, devices).filter(({ image }) => named(image, tag));
  if (having.length === 0) throw new QmpError(`Snapshot '${tag}' does not exist`);
  for (const { image, node } of having) await node.disk.drained(async () => image.deleteSnapshot(tag));
}

/** Snapshots of the machine, by the first disk. */
export function listSnapshots(e: Emulator): readonly Snapshot[] {
  return disksOf(e)[0]!.image.snapshots.filter((s) => s.vmStateSize > 0);
}

async function writeState(image: Qcow2Image, chunks: AsyncIterable<Uint8Array>): Promise<number> {
  const buffer = new Uint8Array(CHUNK);
  let at = 0;
  let fill = 0;
  const flush = async (): Promise<void> => {
    await image.writeVmState(at, buffer.subarray(0, fill));
    at += fill;
    fill = 0;
  };
  for await (const chunk of chunks) {
    for (let done = 0; done < chunk.length; ) {
      const n = Math.min(chunk.length - done, CHUNK - fill);
      buffer.set(chunk.subarray(done, done + n), fill);
      done += n;
      fill += n;
      if (fill === CHUNK) await flush();
    }
  }
  if (fill > 0) await flush();
  return at;
}

async function* readState(image: Qcow2Image, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < size; at += CHUNK) {
    const bytes = new Uint8Array(Math.min(CHUNK, size - at));
    await image.readVmState(at, bytes);
    yield bytes;
  }
}
