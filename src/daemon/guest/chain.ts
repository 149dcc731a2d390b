// The backing chain of a disk, read from the images' headers, as `<backingStore>` has it.
import { backingPath, probe } from '../../disk/open.ts';
import { readHeader } from '../../disk/qcow2/image.ts';
import type { Domain } from '../../domain/domain.ts';
import type { BackingStore, Disk } from '../../domain/model/disk.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { reasonOf } from '../errors.ts';
import type { DaemonHost } from '../host.ts';

const maxDepth = 200;

const fileSource = (file: string) => ({ file, hosts: [], seclabels: [] });

/** What lies below an image. A raw image ends the chain. @throws {LibvirtError} when a file can't be read. */
export async function backingChain(host: DaemonHost, path: string, format: string, depth = 0): Promise<BackingStore> {
  if (format !== 'qcow2') return {};
  if (depth > maxDepth) throw libvirtError('internalError', 'storage', `backing chain of '${path}' is too deep`);
  const file = await host.disks.open(path, { readOnly: true, share: true });
  let below: string | undefined;
  let belowFormat: string | undefined;
  try {
    const header = await readHeader(file);
    below = header.backing === undefined ? undefined : backingPath(host.disks, path, header.backing);
    belowFormat = header.backingFormat;
  } finally {
    await file.close();
  }
  if (below === undefined) return {};
  await checkReadable(host, below);
  if (belowFormat === undefined) belowFormat = await formatOfFile(host, below);
  return {
    type: 'file',
    format: { type: belowFormat },
    source: fileSource(below),
    backingStore: await backingChain(host, below, belowFormat, depth + 1),
  };
}

export async function formatOfFile(host: DaemonHost, path: string): Promise<string> {
  const file = await host.disks.open(path, { readOnly: true, share: true });
  try {
    return await probe(file);
  } finally {
    await file.close();
  }
}

async function checkReadable(host: DaemonHost, path: string): Promise<void> {
  try {
    const status = await host.files.status(path);
    if (status === undefined) throw Object.assign(new Error('missing'), { code: 'ENOENT' });
  } catch (error) {
    throw libvirtError('systemError', 'storage', `Cannot access storage file '${path}': ${reasonOf(error)}`);
  }
}

/** Fills in what lies below a disk of the running definition. */
export async function findChain(host: DaemonHost, disk: Disk): Promise<void> {
  const path = disk.type === 'file' ? disk.source?.file : disk.type === 'block' ? disk.source?.dev : undefined;
  if (path === undefined) return;
  await checkReadable(host, path);
  if (disk.backingStore !== undefined) return;
  const chain = await backingChain(host, path, disk.driver?.type ?? 'raw');
  disk.backingStore = chain;
}

/** Fills in the chains of all disks; drops media that may be missing. */
export async function findChains(host: DaemonHost, domain: Domain): Promise<void> {
  for (const disk of domain.devices.disks) {
    try {
      await findChain(host, disk);
    } catch (error) {
      if (disk.source?.startupPolicy !== 'optional') throw error;
      delete disk.source;
    }
  }
}
