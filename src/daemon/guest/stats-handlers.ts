// Statistics procedures: domstats in all its groups, and the single ones that older clients use.
import { diskSourceName, hasSource } from '../../domain/model/disk.ts';
import type { NetworkInterface } from '../../domain/model/interface.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { TypedParam } from '../../rpc/libvirt/types.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { checkFlags, invalidArgument, translateErrors } from '../errors.ts';
import { findDisk, imageSize, levelsOf } from './block-nodes.ts';
import type { Guest } from './guest.ts';
import { type FlagGroups, wanted } from './list-flags.ts';
import { state } from './states.ts';
import { blockSizes, blockStats, memoryStats } from './stats.ts';

const group = {
  state: 1,
  cpu: 2,
  balloon: 4,
  vcpu: 8,
  interface: 16,
  block: 32,
  perf: 64,
  iothread: 128,
  memory: 256,
  dirtyRate: 512,
} as const;

type Value = TypedParam['value'];
const int = (value: number): Value => ({ type: 'int', value });
const uint = (value: number): Value => ({ type: 'uint', value });
const ullong = (value: number | bigint): Value => ({ type: 'ullong', value: BigInt(value) });
const text = (value: string): Value => ({ type: 'string', value });

class Params {
  readonly list: TypedParam[] = [];
  add(field: string, value: Value): void {
    this.list.push({ field, value });
  }
}

type Collector = (daemon: Daemon, guest: Guest, to: Params, backing: boolean) => void | Promise<void>;

/** Groups in libvirt's order. */
const collectors: readonly (readonly [number, Collector])[] = [
  [
    group.state,
    (_, guest, to) => {
      to.add('state.state', int(guest.state));
      to.add('state.reason', int(guest.reason));
    },
  ],
  [
    group.cpu,
    (daemon, guest, to) => {
      const usage = guest.run && daemon.host.processes.usage(guest.run.process.pid);
      if (!usage) return;
      to.add('cpu.time', ullong(usage.user + usage.system));
      to.add('cpu.user', ullong(usage.user));
      to.add('cpu.system', ullong(usage.system));
      to.add('cpu.cache.monitor.count', uint(0));
      to.add('cpu.haltpoll.success.time', ullong(0));
      to.add('cpu.haltpoll.fail.time', ullong(0));
    },
  ],
  [group.balloon, balloonStats],
  [group.vcpu, vcpuStats],
  [group.interface, interfaceStats],
  [group.block, blockGroup],
  [
    group.iothread,
    async (_, guest, to) => {
      if (!guest.run) return;
      const answer = await guest.qmp('query-iothreads');
      const threads = Array.isArray(answer) ? answer : [];
      if (threads.length === 0) return;
      to.add('iothread.count', uint(threads.length));
      for (const one of threads) {
        if (!isObject(one)) continue;
        const id = String(one['id']).replace('iothread', '');
        to.add(`iothread.${id}.poll-max-ns`, ullong(Number(one['poll-max-ns'] ?? 0)));
        to.add(`iothread.${id}.poll-grow`, uint(Number(one['poll-grow'] ?? 0)));
        to.add(`iothread.${id}.poll-shrink`, uint(Number(one['poll-shrink'] ?? 0)));
      }
    },
  ],
  [
    group.dirtyRate,
    async (_, guest, to) => {
      if (!guest.run) return;
      const answer = await guest.run.monitor.execute('query-dirty-rate').catch(() => undefined);
      if (!isObject(answer)) return;
      const statuses = ['unstarted', 'measuring', 'measured'];
      to.add('dirtyrate.calc_status', int(Math.max(0, statuses.indexOf(String(answer['status'])))));
      to.add('dirtyrate.calc_start_time', { type: 'llong', value: BigInt(Number(answer['start-time'] ?? 0)) });
      to.add('dirtyrate.calc_period', int(Number(answer['calc-time'] ?? 0)));
      if (answer['dirty-rate'] !== undefined) {
        to.add('dirtyrate.megabytes_per_second', { type: 'llong', value: BigInt(Number(answer['dirty-rate'])) });
      }
      to.add('dirtyrate.calc_mode', text(String(answer['mode'] ?? 'page-sampling')));
    },
  ],
];

async function balloonStats(daemon: Daemon, guest: Guest, to: Params): Promise<void> {
  const domain = guest.current;
  if (!guest.run) {
    to.add('balloon.current', ullong(domain.currentMemory ?? domain.memory ?? 0));
    to.add('balloon.maximum', ullong(domain.memory ?? 0));
    return;
  }
  const stats = await memoryStats(daemon, guest);
  const current = stats.find((one) => one.name === 'current');
  to.add('balloon.current', ullong(current?.value ?? 0n));
  to.add('balloon.maximum', ullong(domain.memory ?? 0));
  for (const { name, value } of stats) if (name !== 'current') to.add(`balloon.${name}`, ullong(value));
}

function vcpuStats(daemon: Daemon, guest: Guest, to: Params): void {
  const { vcpu } = guest.current;
  to.add('vcpu.current', uint(vcpu.current ?? vcpu.count));
  to.add('vcpu.maximum', uint(vcpu.count));
  if (!guest.run) return;
  const { pid } = guest.run.process;
  for (const [index, thread] of guest.run.threads) {
    const usage = daemon.host.processes.usage(pid, thread);
    to.add(`vcpu.${index}.state`, int(1));
    to.add(`vcpu.${index}.time`, ullong(usage ? usage.user + usage.system : 0));
    to.add(`vcpu.${index}.wait`, ullong(0));
    to.add(`vcpu.${index}.delay`, ullong(daemon.host.processes.delay(pid, thread)));
  }
}

const counterNames = ['rx.bytes', 'rx.pkts', 'rx.errs', 'rx.drop', 'tx.bytes', 'tx.pkts', 'tx.errs', 'tx.drop'];

async function interfaceStats(daemon: Daemon, guest: Guest, to: Params): Promise<void> {
  if (!guest.run) return;
  const { interfaces } = guest.run.domain.devices;
  to.add('net.count', uint(interfaces.length));
  for (const [index, one] of interfaces.entries()) {
    const dev = one.target?.dev;
    if (dev !== undefined) to.add(`net.${index}.name`, text(dev));
    const counters = await guestCounters(daemon, guest, one);
    if (counters) counterNames.forEach((name, i) => to.add(`net.${index}.${name}`, ullong(counters[i]!)));
  }
}

/** Counters of an interface in libvirt's order, as the guest sees them; undefined where nobody counts. */
async function guestCounters(daemon: Daemon, guest: Guest, one: NetworkInterface): Promise<readonly number[] | undefined> {
  const dev = one.target?.dev;
  if (dev !== undefined) {
    // The guest receives what the host's end sends.
    const counters = await daemon.host.facts.counters(dev);
    return counters && [...counters.slice(4), ...counters.slice(0, 4)];
  }
  if (one.alias === undefined) return undefined;
  // Our emulator counts what goes through networks that have no device of the host.
  const path = `/machine/peripheral/${one.alias.name}`;
  const own = await guest.qmp('qom-get', { path, property: 'x-counters' }).catch(() => undefined);
  if (!isObject(own)) return undefined;
  const [rxBytes, rxPackets, txBytes, txPackets] = ['rx-bytes', 'rx-packets', 'tx-bytes', 'tx-packets'].map((n) =>
    Number(own[n] ?? 0),
  );
  return [rxBytes!, rxPackets!, 0, 0, txBytes!, txPackets!, 0, 0];
}

async function blockGroup(daemon: Daemon, guest: Guest, to: Params, backing: boolean): Promise<void> {
  const { disks } = guest.current.devices;
  const stats = guest.run ? await blockStats(guest, disks) : [];
  const sizes = guest.run ? await blockSizes(guest, disks) : [];
  const levels = disks.map((disk) => (backing && guest.run ? levelsOf(disk) : []));
  to.add('block.count', uint(disks.reduce((sum, _, i) => sum + Math.max(1, levels[i]!.length), 0)));
  let place = 0;
  for (const [i, disk] of disks.entries()) {
    const at = `block.${place++}`;
    to.add(`${at}.name`, text(disk.target?.dev ?? ''));
    const path = diskSourceName(disk);
    if (path !== undefined) to.add(`${at}.path`, text(path));
    if (disk.source?.index !== undefined) to.add(`${at}.backingIndex`, uint(disk.source.index));
    const s = stats[i];
    if (s) {
      to.add(`${at}.rd.reqs`, ullong(s.rdReq));
      to.add(`${at}.rd.bytes`, ullong(s.rdBytes));
      to.add(`${at}.rd.times`, ullong(s.rdTimes));
      to.add(`${at}.wr.reqs`, ullong(s.wrReq));
      to.add(`${at}.wr.bytes`, ullong(s.wrBytes));
      to.add(`${at}.wr.times`, ullong(s.wrTimes));
      to.add(`${at}.fl.reqs`, ullong(s.flReq));
      to.add(`${at}.fl.times`, ullong(s.flTimes));
    }
    if (!hasSource(disk)) continue;
    const size = sizes[i];
    if (size) {
      to.add(`${at}.allocation`, ullong(s?.highest ?? 0));
      to.add(`${at}.capacity`, ullong(size.capacity));
      to.add(`${at}.physical`, ullong(size.allocated));
    } else if (!guest.run) await offlineSizes(daemon, to, at, path, disk.driver?.type ?? 'raw');
    for (const level of levels[i]!.slice(1)) {
      const below = `block.${place++}`;
      to.add(`${below}.name`, text(disk.target?.dev ?? ''));
      if (level.source.file !== undefined) to.add(`${below}.path`, text(level.source.file));
      to.add(`${below}.backingIndex`, uint(level.index));
    }
  }
}

async function offlineSizes(daemon: Daemon, to: Params, at: string, path: string | undefined, format: string): Promise<void> {
  const status = path === undefined ? undefined : await daemon.host.files.status(path);
  if (!status || path === undefined) return;
  const capacity = await imageSize(daemon, path, format).catch(() => status.size);
  to.add(`${at}.allocation`, ullong(status.allocated));
  to.add(`${at}.capacity`, ullong(capacity));
  to.add(`${at}.physical`, ullong(status.size));
}

const listGroups: FlagGroups<Guest> = [
  [
    [1, (g) => g.active],
    [2, (g) => !g.active],
  ],
  [
    [4, (g) => g.persistent],
    [8, (g) => !g.persistent],
  ],
  [
    [16, (g) => g.state === state.running],
    [32, (g) => g.state === state.paused],
    [64, (g) => g.state === state.shutoff],
    [128, (g) => g.state !== state.running && g.state !== state.paused && g.state !== state.shutoff],
  ],
];
const statsFlag = { backing: 0x4000_0000, enforce: 0x8000_0000 } as const;

export function statsHandlers(daemon: Daemon): RemoteHandlers {
  const { guests, host } = daemon;
  const diskOf = (guest: Guest, path: string) => findDisk(guest.current.devices.disks, path);
  return translateErrors('qemu', {
    async connectGetAllDomainStats({ doms, stats, flags }) {
      const asked = doms.length > 0 ? doms.flatMap((one) => guests.byUuid(one.uuid) ?? []) : guests.all;
      const known = collectors.reduce((sum, [bit]) => sum | bit, group.perf | group.memory | 1024);
      const extra = (stats & ~known) >>> 0;
      if (extra !== 0 && (flags & statsFlag.enforce) !== 0) {
        throw libvirtError(
          'argumentUnsupported',
          'qemu',
          `Stats types bits 0x${extra.toString(16)} are not supported by this daemon`,
        );
      }
      const records = [];
      for (const guest of asked.filter((one) => wanted(one, flags, listGroups))) {
        const to = new Params();
        for (const [bit, collect] of collectors) {
          if (stats !== 0 && (stats & bit) === 0) continue;
          // A guest that ends meanwhile has less to tell.
          await Promise.resolve(collect(daemon, guest, to, (flags & statsFlag.backing) !== 0)).catch(() => {});
        }
        records.push({ dom: guest.ref, params: to.list });
      }
      return { records };
    },
    async domainMemoryStats({ dom, maxStats }) {
      const guest = guests.find(dom);
      const order = [6, 0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 7];
      const stats = (await memoryStats(daemon, guest)).toSorted((a, b) => order.indexOf(a.tag) - order.indexOf(b.tag));
      return { stats: stats.slice(0, maxStats).map(({ tag, value }) => ({ tag, value })) };
    },
    async domainBlockStats({ dom, path }) {
      const guest = guests.find(dom);
      guest.live();
      const list = path === '' ? guest.current.devices.disks : [diskOf(guest, path)];
      const stats = await blockStats(guest, list);
      const sum = (pick: (one: (typeof stats)[number]) => number): bigint =>
        BigInt(stats.reduce((all, one) => all + pick(one), 0));
      return {
        readRequests: sum((s) => s.rdReq),
        readBytes: sum((s) => s.rdBytes),
        writeRequests: sum((s) => s.wrReq),
        writeBytes: sum((s) => s.wrBytes),
        errors: -1n,
      };
    },
    async domainBlockStatsFlags({ dom, path, nparams }) {
      const guest = guests.find(dom);
      guest.live();
      const rows = [
        'wr_bytes',
        'wr_operations',
        'rd_bytes',
        'rd_operations',
        'flush_operations',
        'wr_total_times',
        'rd_total_times',
        'flush_total_times',
      ];
      if (nparams === 0) return { params: [], nparams: rows.length };
      const stats = await blockStats(guest, path === '' ? guest.current.devices.disks : [diskOf(guest, path)]);
      const sum = (pick: (one: (typeof stats)[number]) => number): number => stats.reduce((all, one) => all + pick(one), 0);
      const values = [
        sum((s) => s.wrBytes),
        sum((s) => s.wrReq),
        sum((s) => s.rdBytes),
        sum((s) => s.rdReq),
        sum((s) => s.flReq),
        sum((s) => s.wrTimes),
        sum((s) => s.rdTimes),
        sum((s) => s.flTimes),
      ];
      return {
        params: rows.map((field, i) => ({ field, value: { type: 'llong' as const, value: BigInt(values[i]!) } })),
        nparams: rows.length,
      };
    },
    async domainGetBlockInfo({ dom, path, flags }) {
      checkFlags('qemuDomainGetBlockInfo', flags, 0);
      const guest = guests.find(dom);
      const disk = diskOf(guest, path);
      const file = diskSourceName(disk);
      if (file === undefined) throw invalidArgument(`disk '${path}' does not currently have a source assigned`);
      const status = await host.files.status(file);
      if (!status) throw libvirtError('systemError', 'qemu', `cannot stat file '${file}': No such file or directory`);
      if (guest.run) {
        const [stats] = await blockStats(guest, [disk]);
        const [size] = await blockSizes(guest, [disk]);
        const allocation = stats?.highest || status.allocated;
        return { allocation: BigInt(allocation), capacity: BigInt(size?.capacity ?? status.size), physical: BigInt(status.size) };
      }
      const capacity = await imageSize(daemon, file, disk.driver?.type ?? 'raw');
      return { allocation: BigInt(status.allocated), capacity: BigInt(capacity), physical: BigInt(status.size) };
    },
    async domainGetDiskErrors({ dom, maxErrors }) {
      const guest = guests.find(dom);
      const { disks } = guest.live().domain.devices;
      if (maxErrors === 0) return { errors: [], nerrors: disks.length };
      const answer = await guest.qmp('query-block');
      const errors = (Array.isArray(answer) ? answer : []).flatMap((one) => {
        if (!isObject(one)) return [];
        const words = ['ok', 'failed', 'nospace'];
        const error = words.indexOf(String(one['io-status'] ?? 'ok'));
        const disk = disks.find((d) =>
          String(one['qdev'] ?? '')
            .split('/')
            .includes(d.alias?.name ?? ' '),
        );
        return error > 0 && disk?.target?.dev !== undefined ? [{ disk: disk.target.dev, error: error === 1 ? 1 : 2 }] : [];
      });
      return { errors: errors.slice(0, maxErrors), nerrors: errors.length };
    },
    async domainInterfaceStats({ dom, device }) {
      const guest = guests.find(dom);
      const { interfaces } = guest.live().domain.devices;
      const found = interfaces.find((one) => one.target?.dev === device || one.mac?.address === device);
      if (!found) throw invalidArgument(`'${device}' is not a known interface`);
      const counters = await guestCounters(daemon, guest, found);
      if (!counters) throw libvirtError('internalError', 'none', `/proc/net/dev: Interface not found`);
      const [rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped] = counters.map(BigInt) as [
        bigint,
        bigint,
        bigint,
        bigint,
        bigint,
        bigint,
        bigint,
        bigint,
      ];
      return { rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped };
    },
    domainGetVcpus({ dom, maxInfo, mapLength }) {
      const guest = guests.find(dom);
      const { process, threads } = guest.live();
      const list = [...threads].slice(0, maxInfo);
      const info = list.map(([index, thread]) => {
        const usage = host.processes.usage(process.pid, thread);
        return { number: index, state: 1, cpuTime: BigInt(usage ? usage.user + usage.system : 0), cpu: usage?.cpu ?? 0 };
      });
      const cpumaps = new Uint8Array(mapLength * list.length);
      for (const [i, [, thread]] of list.entries()) {
        for (const cpu of host.processes.affinity(thread)) {
          if (cpu >> 3 < mapLength) cpumaps[i * mapLength + (cpu >> 3)]! |= 1 << (cpu & 7);
        }
      }
      return { info, cpumaps };
    },
    domainGetCpuStats({ dom, nparams, startCpu }) {
      const guest = guests.find(dom);
      const { process } = guest.live();
      const usage = host.processes.usage(process.pid);
      if (startCpu !== -1) throw libvirtError('operationInvalid', 'qemu', 'cgroup CPUACCT controller is not mounted');
      const rows = [
        ['cpu_time', usage ? usage.user + usage.system : 0],
        ['user_time', usage?.user ?? 0],
        ['system_time', usage?.system ?? 0],
      ] as const;
      if (nparams === 0) return { params: [], nparams: rows.length };
      return { params: rows.map(([field, value]) => ({ field, value: ullong(value) })), nparams: rows.length };
    },
  } satisfies RemoteHandlers);
}
