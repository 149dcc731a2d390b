// Disks that go along with a migrating guest: the destination serves its images over NBD, the source mirrors its disks there and lets go when
// the guest stands still. libvirt 9.0's cookie and names, so the other end may be a libvirtd.

import { aliasOf } from '../../domain/aliases.ts';
import type { Domain } from '../../domain/domain.ts';
import type { Disk } from '../../domain/model/disk.ts';
import { childNamed, elementsOf, parseXml, type XmlElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon } from '../daemon.ts';
import { wait } from '../host.ts';
import { jobType } from './block-jobs.ts';
import { formatNode, makeImage, nodeSize } from './block-nodes.ts';
import type { BlockJob, Guest, Run } from './guest.ts';
import { saveStatus } from './status.ts';

/** What the `<nbd>` of a cookie says: the destination's port, the source's disks with their sizes in bytes. */
export interface DiskCookie {
  readonly port: number | undefined;
  readonly disks: ReadonlyMap<string, number>;
}

/** Disks that go along: those that are named, or all that are neither shared nor read-only. */
export function movingDisks(domain: Domain, named: readonly string[] | undefined): Disk[] {
  const all = domain.devices.disks.filter((one) => one.source !== undefined);
  if (named === undefined) return all.filter((one) => !one.shareable && !one.readonly);
  return named.map((dev) => {
    const found = all.find((one) => one.target?.dev === dev);
    if (!found) throw libvirtError('invalidArg', 'qemu', `disk target ${dev} not found`);
    return found;
  });
}

/** The element of the source's cookie: sizes, for images that the destination has to make. */
export async function sizesOf(guest: Guest, disks: readonly Disk[]): Promise<string> {
  const rows: string[] = [];
  for (const disk of disks) {
    const capacity = await nodeSize(guest, formatNode(disk.source!.index!));
    rows.push(`<disk target='${disk.target!.dev}' capacity='${capacity}'/>`);
  }
  return `<nbd>${rows.join('')}</nbd>`;
}

export function readCookie(cookie: Uint8Array): DiskCookie {
  const text = new TextDecoder().decode(cookie).replaceAll('\0', '');
  let nbd: XmlElement | undefined;
  try {
    nbd = text === '' ? undefined : childNamed(parseXml(text), 'nbd');
  } catch {
    throw libvirtError('internalError', 'qemu', 'the migration cookie is no XML');
  }
  const port = Number(nbd?.attributes['port'] ?? 0);
  const disks = (nbd ? elementsOf(nbd) : []).filter((one) => one.name === 'disk');
  return {
    port: port > 0 ? port : undefined,
    disks: new Map(disks.map((one) => [one.attributes['target'] ?? '', Number(one.attributes['capacity'] ?? 0)])),
  };
}

/** Destination: makes images that are not there. */
export async function makeMissing(daemon: Daemon, disks: readonly Disk[], cookie: DiskCookie): Promise<string[]> {
  const made: string[] = [];
  for (const disk of disks) {
    const path = disk.source?.file;
    const size = cookie.disks.get(disk.target!.dev!);
    if (path === undefined || size === undefined || (await daemon.host.files.status(path)) !== undefined) continue;
    await makeImage(daemon, { path, format: disk.driver?.type ?? 'raw', size }, false);
    made.push(path);
  }
  return made;
}

const exportName = (disk: Disk): string => `drive-${aliasOf(disk)}`;

/** Destination: serves the disks; `tls` names the emulator's credentials. */
export async function serveDisks(
  guest: Guest,
  disks: readonly Disk[],
  at: { readonly host: string; readonly port: number; readonly tls: string | undefined },
): Promise<void> {
  const addr = { type: 'inet', data: { host: at.host, port: String(at.port) } };
  await guest.qmp('nbd-server-start', { addr, ...(at.tls !== undefined && { 'tls-creds': at.tls }) });
  for (const disk of disks) {
    const node = formatNode(disk.source!.index!);
    await guest.qmp('block-export-add', {
      type: 'nbd',
      id: `libvirt-nbd-${node}`,
      'node-name': node,
      writable: true,
      name: exportName(disk),
    });
  }
}

/** A disk on its way. */
interface Mirror {
  readonly job: BlockJob;
  readonly nodes: readonly string[];
}

const removeAll = async (guest: Guest, nodes: readonly string[]): Promise<void> => {
  for (const node of nodes) await guest.qmp('blockdev-del', { 'node-name': node }).catch(() => {});
};

/** Source: mirrors the disks and returns once they are alike. Ends what it began where it fails. */
export async function mirrorDisks(
  daemon: Daemon,
  guest: Guest,
  run: Run,
  disks: readonly Disk[],
  o: {
    readonly host: string;
    readonly port: number;
    readonly shallow: boolean;
    readonly speed: bigint;
    /** The emulator's credentials, and the name in the destination's certificate. */
    readonly tls: { readonly creds: string; readonly hostname: string } | undefined;
  },
): Promise<Mirror[]> {
  const mirrors: Mirror[] = [];
  try {
    for (const disk of disks) {
      const dev = disk.target!.dev!;
      const [storage, format] = [`migration-${dev}-storage`, `migration-${dev}-format`];
      const job: BlockJob = {
        id: exportName(disk),
        disk: dev,
        type: jobType.copy,
        bandwidth: 0,
        ready: false,
        silent: true,
        plan: { kind: 'migration', nodes: [format, storage] },
        ended: (ok) => {
          if (!ok && job.ending === undefined) failed.add(job);
        },
        done: Promise.withResolvers<void>(),
      };
      const server = { type: 'inet', host: o.host, port: String(o.port) };
      const name = exportName(disk);
      const tls = o.tls && { 'tls-creds': o.tls.creds, ...(o.tls.hostname !== o.host && { 'tls-hostname': o.tls.hostname }) };
      await guest.qmp('blockdev-add', { driver: 'nbd', 'node-name': storage, server, export: name, ...tls, discard: 'unmap' });
      try {
        await guest.qmp('blockdev-add', { driver: 'raw', 'node-name': format, file: storage, discard: 'unmap' });
        run.blockJobs.set(job.id, job);
        await saveStatus(daemon.host, daemon.paths.run, guest);
        await guest.qmp('blockdev-mirror', {
          'job-id': job.id,
          device: formatNode(disk.source!.index!),
          target: format,
          sync: o.shallow ? 'top' : 'full',
          ...(o.speed > 0n && { speed: o.speed }),
          'auto-finalize': true,
          'auto-dismiss': false,
        });
      } catch (error) {
        run.blockJobs.delete(job.id);
        await removeAll(guest, [format, storage]);
        throw error;
      }
      mirrors.push({ job, nodes: [format, storage] });
    }
    while (mirrors.some(({ job }) => !job.ready)) {
      const gone = mirrors.find(({ job }) => failed.has(job) || !run.blockJobs.has(job.id));
      if (gone || run.stopped) {
        throw libvirtError('operationFailed', 'qemu', `migration of disk ${gone?.job.disk ?? ''} failed`);
      }
      await wait(daemon.host, 50);
    }
    return mirrors;
  } catch (error) {
    await endMirrors(guest, mirrors, true);
    throw error;
  }
}

/** Jobs that have ended by themselves. */
const failed = new WeakSet<BlockJob>();

/**
 * Source: lets go of the copies. Those that are ready become whole first: the guest stands still. With `force`, they stay as they are.
 * @throws {LibvirtError} where a copy has not become whole
 */
export async function endMirrors(guest: Guest, mirrors: readonly Mirror[], force: boolean): Promise<void> {
  const open = mirrors.filter(({ job }) => guest.run?.blockJobs.has(job.id));
  for (const { job } of open) {
    if (force) job.ending = 'abort';
    await guest.qmp('block-job-cancel', { device: job.id, ...(force && { force: true }) }).catch(() => {});
  }
  await Promise.all(open.map(({ job }) => job.done.promise));
  const lost = force ? undefined : mirrors.find(({ job }) => failed.has(job));
  if (lost) throw libvirtError('operationFailed', 'qemu', `migration of disk ${lost.job.disk} failed`);
}
