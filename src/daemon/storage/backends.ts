// Kinds of storage below a pool: a directory, a mounted file system, an LVM volume group (libvirt 9.0's storage backends).

import type { PoolType } from '../../domain/storage.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Daemon } from '../daemon.ts';
import { systemError } from '../errors.ts';
import type { DaemonHost } from '../host.ts';
import { directoryOf } from '../paths.ts';
import type { Pool } from './pools.ts';
import { inspect, type VolumeEntry } from './volumes.ts';

export interface PoolBackend {
  start(pool: Pool): Promise<void>;
  stop(pool: Pool): Promise<void>;
  /** Prepares the storage. Flags: 1 keeps what is there and fails, 2 overwrites. */
  build(pool: Pool, flags: number): Promise<void>;
  /** Removes the storage. */
  remove(pool: Pool): Promise<void>;
  scan(pool: Pool): Promise<VolumeEntry[]>;
  space(pool: Pool): Promise<{ capacity: number; available: number }>;
  /** The path of a new volume. */
  place(pool: Pool, name: string): string;
  /** Makes and deletes volumes that are not files. */
  create?(pool: Pool, name: string, bytes: number): Promise<void>;
  delete?(pool: Pool, volume: VolumeEntry): Promise<void>;
  resize?(pool: Pool, volume: VolumeEntry, bytes: number): Promise<void>;
}

async function run(host: DaemonHost, program: string, args: readonly string[]): Promise<string> {
  let result: { code: number; out: string; err: string };
  try {
    result = await host.processes.run(program, args);
  } catch (error) {
    throw systemError('storage', `Cannot find '${program}' in path`, error);
  }
  if (result.code !== 0) {
    const command = `${program} ${args.join(' ')}`;
    throw libvirtError(
      'internalError',
      'storage',
      `Child process (${command}) unexpected exit status ${result.code}: ${result.err.trim()}`,
    );
  }
  return result.out;
}

function directory(host: DaemonHost): PoolBackend {
  return {
    async start(pool) {
      const status = await host.files.status(pool.path);
      if (status?.kind !== 'directory') {
        const error = Object.assign(new Error(''), { code: status === undefined ? 'ENOENT' : 'ENOTDIR' });
        throw systemError('storage', `cannot open directory '${pool.path}'`, error);
      }
    },
    stop: async () => {},
    async build(pool) {
      const parent = directoryOf(pool.path);
      if ((await host.files.status(parent)) === undefined) await host.files.makeDirectory(parent);
      const mode = Number.parseInt(pool.definition.target?.permissions?.mode ?? '0711', 8);
      await host.files.makeDirectory(pool.path, mode);
    },
    remove: (pool) => host.files.removeDirectory(pool.path),
    async scan(pool) {
      const status = await host.files.status(pool.path);
      if (status === undefined) {
        throw systemError('storage', `cannot open directory '${pool.path}'`, Object.assign(new Error(''), { code: 'ENOENT' }));
      }
      const { target } = pool.definition;
      if (target) {
        target.permissions = {
          mode: `0${status.mode.toString(8).padStart(3, '0')}`,
          owner: String(status.uid),
          group: String(status.gid),
          ...(target.permissions?.label !== undefined && { label: target.permissions.label }),
        };
      }
      const found: VolumeEntry[] = [];
      for (const name of await host.files.list(pool.path)) {
        if (name.startsWith('.')) continue;
        const one = await inspect(host, `${pool.path}/${name}`, name).catch(() => undefined);
        if (one) found.push(one);
      }
      return found;
    },
    space: (pool) => host.files.space(pool.path),
    place: (pool, name) => `${pool.path}/${name}`,
  };
}

/** A file system that is mounted when the pool starts. */
function mounted(host: DaemonHost, network: boolean): PoolBackend {
  const below = directory(host);
  const isMounted = async (pool: Pool): Promise<boolean> => {
    const text = (await host.files.read('/proc/mounts')) ?? '';
    return text.split('\n').some((line) => line.split(' ')[1] === pool.path);
  };
  return {
    ...below,
    async start(pool) {
      await below.start(pool);
      if (await isMounted(pool)) return;
      const { source } = pool.definition;
      const format = source?.format?.type ?? 'auto';
      const what = network ? `${source?.hosts[0]?.name}:${source?.dir?.path}` : source?.devices[0]?.path;
      if (what === undefined) throw libvirtError('internalError', 'storage', 'missing source device');
      const kind = network ? (format === 'auto' ? 'nfs' : format) : format;
      await run(host, 'mount', [...(kind === 'auto' ? [] : ['-t', kind]), what, pool.path]);
    },
    async stop(pool) {
      if (await isMounted(pool)) await run(host, 'umount', [pool.path]);
    },
    async build(pool, flags) {
      await below.build(pool, flags);
      const device = pool.definition.source?.devices[0]?.path;
      const format = pool.definition.source?.format?.type ?? 'auto';
      if (!network && (flags & 2) !== 0 && device !== undefined && format !== 'auto')
        await run(host, 'mkfs', ['-t', format, device]);
    },
  };
}

/** An LVM volume group; its logical volumes are the volumes. lvm(8) */
function logical(host: DaemonHost): PoolBackend {
  const group = (pool: Pool): string => pool.definition.source?.name ?? pool.name;
  return {
    async start(pool) {
      await run(host, 'vgchange', ['-aly', group(pool)]);
    },
    async stop(pool) {
      await run(host, 'vgchange', ['-aln', group(pool)]);
    },
    async build(pool) {
      const devices = (pool.definition.source?.devices ?? []).flatMap((one) => one.path ?? []);
      for (const one of devices) await run(host, 'pvcreate', [one]);
      await run(host, 'vgcreate', [group(pool), ...devices]);
    },
    async remove(pool) {
      await run(host, 'vgremove', ['-f', group(pool)]);
    },
    async scan(pool) {
      const out = await run(host, 'lvs', ['--noheadings', '--units', 'b', '--nosuffix', '-o', 'lv_name', group(pool)]);
      const names = out.split('\n').flatMap((line) => line.trim() || []);
      const found = await Promise.all(names.map((name) => inspect(host, `/dev/${group(pool)}/${name}`, name)));
      return found.filter((one) => one !== undefined);
    },
    async space(pool) {
      const out = await run(host, 'vgs', ['--noheadings', '--units', 'b', '--nosuffix', '-o', 'vg_size,vg_free', group(pool)]);
      const [capacity = 0, available = 0] = out.trim().split(/\s+/).map(Number);
      return { capacity, available };
    },
    place: (pool, name) => `/dev/${group(pool)}/${name}`,
    async create(pool, name, bytes) {
      await run(host, 'lvcreate', ['--name', name, '-L', `${Math.ceil(bytes / 1024)}K`, group(pool)]);
    },
    async delete(_, volume) {
      await run(host, 'lvremove', ['-f', volume.path]);
    },
    async resize(_, volume, bytes) {
      await run(host, 'lvresize', ['-f', '-L', `${Math.ceil(bytes / 1024)}K`, volume.path]);
    },
  };
}

/** @throws {LibvirtError} for kinds of storage that this daemon has not */
export function backendOf({ host }: Pick<Daemon, 'host'>, type: PoolType): PoolBackend {
  switch (type) {
    case 'dir':
      return directory(host);
    case 'fs':
      return mounted(host, false);
    case 'netfs':
      return mounted(host, true);
    case 'logical':
      return logical(host);
    default:
      throw libvirtError('internalError', 'storage', `missing backend for pool type '${type}'`);
  }
}
