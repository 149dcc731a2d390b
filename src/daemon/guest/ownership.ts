// Emulators that run as another user (`user` in nonrootd.conf): what a guest uses is that user's while it runs, and its owner's again afterwards.
// A file that the user can use as it is keeps its owner. libvirt does the same by `dynamic_ownership`.
import type { Domain } from '../../domain/domain.ts';
import type { Disk } from '../../domain/model/disk.ts';
import type { Daemon } from '../daemon.ts';
import { systemError } from '../errors.ts';
import type { Guest, Run } from './guest.ts';

/** A file that was handed over, with whose it was. */
export interface Owned {
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
}

interface Use {
  readonly path: string;
  readonly write: boolean;
}

/** The files of a disk and of what lies below it, which is read only. */
function usesOfDisk(disk: Disk): Use[] {
  const uses: Use[] = [];
  const add = (source: { file?: string; dev?: string } | undefined, write: boolean): void => {
    const path = source?.file ?? source?.dev;
    if (path !== undefined) uses.push({ path, write });
  };
  add(disk.source, disk.readonly !== true);
  for (let store = disk.backingStore; store !== undefined; store = store.backingStore) add(store.source, false);
  return uses;
}

function usesOf(domain: Domain): Use[] {
  const { os, devices } = domain;
  const read = [os.kernel, os.initrd, os.dtb, os.loader?.path].flatMap((path) =>
    path === undefined ? [] : [{ path, write: false }],
  );
  const nvram = os.nvram?.path === undefined ? [] : [{ path: os.nvram.path, write: true }];
  return [...read, ...nvram, ...devices.disks.flatMap(usesOfDisk)];
}

async function handOver(daemon: Daemon, run: Pick<Run, 'owned'>, uses: readonly Use[]): Promise<void> {
  const { user } = daemon.options;
  const { files } = daemon.host;
  if (!user) return;
  for (const { path, write } of uses) {
    const status = await files.status(path);
    if (!status || (status.kind !== 'file' && status.kind !== 'block')) continue;
    const bits = status.uid === user.uid ? status.mode >> 6 : status.gid === user.gid ? status.mode >> 3 : status.mode;
    const needed = write ? 6 : 4;
    if ((bits & needed) === needed) continue;
    try {
      await files.change(path, user);
    } catch (error) {
      throw systemError('qemu', `unable to set user and group to '${user.uid}:${user.gid}' on '${path}'`, error);
    }
    if (!run.owned.some((one) => one.path === path)) run.owned.push({ path, uid: status.uid, gid: status.gid });
  }
}

/** @throws {LibvirtError} when a file cannot be given away */
export const handOverDomain = (daemon: Daemon, run: Pick<Run, 'owned'>, domain: Domain): Promise<void> =>
  handOver(daemon, run, usesOf(domain));
export const handOverDisk = (daemon: Daemon, run: Pick<Run, 'owned'>, disk: Disk): Promise<void> =>
  handOver(daemon, run, usesOfDisk(disk));

/** Gives files back, but for those that another guest uses: it gives them back when it ends. */
export async function handBack(daemon: Daemon, owned: readonly Owned[], except: Guest | undefined): Promise<void> {
  for (const one of owned) {
    const heir = daemon.guests.all.find(
      (guest) => guest !== except && guest.run && usesOf(guest.run.domain).some((use) => use.path === one.path),
    );
    if (heir) {
      if (!heir.run!.owned.some((other) => other.path === one.path)) heir.run!.owned.push(one);
    } else await daemon.host.files.change(one.path, one).catch(() => {});
  }
}
