// What a running guest uses and does: CPU, memory, disks, network; from /proc and the monitor. libvirt 9.0's names and units.
import type { Disk } from '../../domain/model/disk.ts';
import { isObject, type Json } from '../../rpc/qmp/json.ts';
import type { Daemon } from '../daemon.ts';
import type { Guest } from './guest.ts';

/** Nanoseconds of CPU of a guest's process. */
export function cpuTimeOf(daemon: Daemon, guest: Guest): number {
  if (!guest.run) return 0;
  const usage = daemon.host.processes.usage(guest.run.process.pid);
  return usage ? usage.user + usage.system : 0;
}

export interface BlockStats {
  readonly rdReq: number;
  readonly rdBytes: number;
  readonly rdTimes: number;
  readonly wrReq: number;
  readonly wrBytes: number;
  readonly wrTimes: number;
  readonly flReq: number;
  readonly flTimes: number;
  readonly highest: number;
}
const noStats: BlockStats = {
  rdReq: 0,
  rdBytes: 0,
  rdTimes: 0,
  wrReq: 0,
  wrBytes: 0,
  wrTimes: 0,
  flReq: 0,
  flTimes: 0,
  highest: 0,
};

const field = (value: Json | undefined, name: string): Json | undefined => (isObject(value) ? value[name] : undefined);
const list = (value: Json): readonly Json[] => (Array.isArray(value) ? value : []);
const number = (value: Json | undefined): number => Number(value ?? 0);

/** Whether an answer about a drive is about this disk. */
export function isAbout(entry: Json, disk: Disk): boolean {
  const alias = disk.alias?.name ?? '';
  const qdev = String(field(entry, 'qdev') ?? '');
  return qdev === alias || qdev.split('/').includes(alias);
}

/** Counters of each disk, in the order of the definition. */
export async function blockStats(guest: Guest, disks: readonly Disk[]): Promise<BlockStats[]> {
  const drives = list(await guest.qmp('query-blockstats'));
  const nodes = list(await guest.qmp('query-blockstats', { 'query-nodes': true }));
  return disks.map((disk) => {
    const drive = drives.find((one) => isAbout(one, disk));
    const stats = field(drive, 'stats');
    if (stats === undefined) return noStats;
    const index = disk.source?.index;
    const storage = nodes.find((one) => field(one, 'node-name') === `libvirt-${index}-storage`);
    return {
      rdReq: number(field(stats, 'rd_operations')),
      rdBytes: number(field(stats, 'rd_bytes')),
      rdTimes: number(field(stats, 'rd_total_time_ns')),
      wrReq: number(field(stats, 'wr_operations')),
      wrBytes: number(field(stats, 'wr_bytes')),
      wrTimes: number(field(stats, 'wr_total_time_ns')),
      flReq: number(field(stats, 'flush_operations')),
      flTimes: number(field(stats, 'flush_total_time_ns')),
      highest: number(field(field(storage, 'stats') ?? stats, 'wr_highest_offset')),
    };
  });
}

export interface BlockSizes {
  readonly capacity: number;
  readonly allocated: number;
}

/** Sizes of the image of each disk. */
export async function blockSizes(guest: Guest, disks: readonly Disk[]): Promise<(BlockSizes | undefined)[]> {
  const nodes = list(await guest.qmp('query-named-block-nodes', { flat: true }));
  return disks.map((disk) => {
    const node = nodes.find((one) => field(one, 'node-name') === `libvirt-${disk.source?.index}-format`);
    const image = field(node, 'image');
    if (image === undefined) return undefined;
    return { capacity: number(field(image, 'virtual-size')), allocated: number(field(image, 'actual-size')) };
  });
}

/** The balloon's statistics: QEMU's name, libvirt's tag, name in domstats. */
const balloonRows = [
  ['stat-swap-in', 0, 'swap_in', 1024],
  ['stat-swap-out', 1, 'swap_out', 1024],
  ['stat-major-faults', 2, 'major_fault', 1],
  ['stat-minor-faults', 3, 'minor_fault', 1],
  ['stat-free-memory', 4, 'unused', 1024],
  ['stat-total-memory', 5, 'available', 1024],
  ['stat-available-memory', 8, 'usable', 1024],
  ['stat-disk-caches', 10, 'disk_caches', 1024],
  ['stat-htlb-pgalloc', 11, 'hugetlb_pgalloc', 1],
  ['stat-htlb-pgfail', 12, 'hugetlb_pgfail', 1],
] as const;

export interface MemoryStat {
  readonly tag: number;
  readonly name: string;
  readonly value: bigint;
}

/** Memory of a running guest in KiB: the balloon, what the guest reports, the process. */
export async function memoryStats(daemon: Daemon, guest: Guest): Promise<MemoryStat[]> {
  const run = guest.live();
  const balloon = run.domain.devices.memballoons.find((one) => one.model !== 'none');
  const found: MemoryStat[] = [];
  if (balloon) {
    const answer = await run.monitor.execute('query-balloon').catch(() => null);
    const actual = isObject(answer) ? Math.floor(number(answer['actual']) / 1024) : (run.domain.currentMemory ?? 0);
    found.push({ tag: 6, name: 'current', value: BigInt(actual) });
    const path = `/machine/peripheral/${balloon.alias?.name}`;
    const stats = await run.monitor.execute('qom-get', { path, property: 'guest-stats' }).catch(() => null);
    const values = field(stats, 'stats');
    for (const [name, tag, word, unit] of balloonRows) {
      const value = field(values, name);
      if (value === undefined || value === null || BigInt(value as number | bigint) > 1n << 62n || Number(value) < 0) continue;
      found.push({ tag, name: word, value: BigInt(value as number | bigint) / BigInt(unit) });
    }
    found.push({ tag: 9, name: 'last-update', value: BigInt(number(field(stats, 'last-update'))) });
  } else found.push({ tag: 6, name: 'current', value: BigInt(run.domain.currentMemory ?? run.domain.memory ?? 0) });
  const usage = daemon.host.processes.usage(run.process.pid);
  if (usage) found.push({ tag: 7, name: 'rss', value: BigInt(usage.resident) });
  return found;
}
