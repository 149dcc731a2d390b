// A guest's limits by control groups: `<cputune>`, `<memtune>` and `<blkiotune>` as the kernel's files (libvirt 9.0, formatdomain).
import type { Domain } from '../../domain/domain.ts';
import { childNamed, newElement, textOf, type XmlElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import { isObject } from '../../rpc/qmp/json.ts';
import type { Controller, Group } from '../cgroups.ts';
import type { Daemon } from '../daemon.ts';
import { systemError } from '../errors.ts';
import { baseName } from '../paths.ts';
import { applyDeviceLimits, limitsDevices } from './block-limits.ts';
import type { Guest, Run } from './guest.ts';

/** libvirt's "no limit", in KiB. */
export const unlimited = 9_007_199_254_740_991n;

export const numberIn = (element: XmlElement | undefined, name: string): bigint | undefined => {
  const found = element && childNamed(element, name);
  const value = found && textOf(found).trim();
  return value !== undefined && /^-?\d+$/.test(value) ? BigInt(value) : undefined;
};

/** Children of `<cputune>` as libvirt orders them; what it does not name comes last. */
const cputuneOrder = [
  ...['shares', 'period', 'quota', 'global_period', 'global_quota', 'emulator_period', 'emulator_quota'],
  ...['iothread_period', 'iothread_quota', 'vcpupin', 'emulatorpin', 'iothreadpin'],
];
const place = ({ name }: XmlElement): number =>
  (cputuneOrder.indexOf(name) + cputuneOrder.length + 1) % (cputuneOrder.length + 1);

export const cputune = (parts: readonly XmlElement[]): XmlElement =>
  newElement(
    'cputune',
    {},
    [...parts].sort((a, b) => place(a) - place(b)),
  );

/** What a host without the controller is told apart by. */
export const absent: Readonly<Record<Controller, readonly [live: string, start: string]>> = {
  cpu: ['cgroup CPU controller is not mounted', 'CPU tuning is not available on this host'],
  memory: ['cgroup memory controller is not mounted', 'Memory cgroup is not available on this host'],
  io: ["blkio cgroup isn't mounted", 'Block I/O tuning is not available on this host'],
};

type Setting = readonly [file: string, value: string];
const periodDefault = 100_000n;

function bandwidth(version: 1 | 2, period: bigint | undefined, quota: bigint | undefined): Setting[] {
  if (period === undefined && quota === undefined) return [];
  const unbounded = quota === undefined || quota <= 0n;
  if (version === 2) return [['cpu.max', `${unbounded ? 'max' : quota} ${period ?? periodDefault}`]];
  return [
    ['cpu.cfs_period_us', String(period ?? periodDefault)],
    ['cpu.cfs_quota_us', unbounded ? '-1' : String(quota)],
  ];
}

/** Names of the groups of threads that have a bandwidth of their own, with the prefix of their elements. */
const parts = [
  ['vcpu', ''],
  ['emulator', 'emulator_'],
  ['iothread', 'iothread_'],
] as const;

const groupName = ({ directory }: Pick<Run, 'directory'>): string => `${baseName(directory)}.nonroot`;

async function group(daemon: Daemon, run: Run, controller: Controller, starting: boolean): Promise<Group> {
  const found = await daemon.cgroups.join(groupName(run), controller, run.process.pid);
  if (found) return found;
  const [live, start] = absent[controller];
  throw libvirtError(starting ? 'configUnsupported' : 'operationInvalid', 'qemu', starting ? start : live);
}

async function put(daemon: Daemon, { path }: Group, settings: readonly Setting[]): Promise<void> {
  for (const [file, value] of settings) {
    try {
      await daemon.cgroups.write(`${path}/${file}`, value);
    } catch (error) {
      throw systemError('qemu', `Unable to write to '${path}/${file}'`, error);
    }
  }
}

async function applyCpu(daemon: Daemon, guest: Guest, run: Run, domain: Domain, starting: boolean): Promise<void> {
  const { cputune } = domain;
  const value = (name: string): bigint | undefined => numberIn(cputune, name);
  const shares = value('shares');
  const whole = [value('global_period'), value('global_quota')] as const;
  const own = parts.map(([name, prefix]) => [name, value(`${prefix}period`), value(`${prefix}quota`)] as const);
  const limited = own.filter(([, period, quota]) => period !== undefined || quota !== undefined);
  if (shares === undefined && whole.every((one) => one === undefined) && limited.length === 0) return;
  const all = await group(daemon, run, 'cpu', starting);
  const weight: Setting[] = shares === undefined ? [] : [[all.version === 1 ? 'cpu.shares' : 'cpu.weight', String(shares)]];
  await put(daemon, all, [...weight, ...bandwidth(all.version, ...whole)]);
  if (limited.length === 0) return;
  // The whole process first, then the threads that have groups of their own leave it.
  const emulator = await daemon.cgroups.part(all, 'emulator', 'cpu', [], run.process.pid);
  const answer = (domain.iothreads ?? 0) > 0 ? await guest.qmp('query-iothreads') : [];
  const iothreads = (Array.isArray(answer) ? answer : []).filter(isObject);
  const threads = [
    ...[...run.threads].map(([index, thread]) => ['vcpu', `vcpu${index}`, thread] as const),
    ...iothreads.map((one) => ['iothread', String(one['id']), Number(one['thread-id'])] as const),
  ];
  const groups = new Map<string, Group[]>([['emulator', [emulator]]]);
  for (const [kind, name, thread] of threads) {
    const made = await daemon.cgroups.part(all, name, 'cpu', [thread]);
    groups.set(kind, [...(groups.get(kind) ?? []), made]);
  }
  for (const [kind, period, quota] of limited) {
    for (const one of groups.get(kind) ?? []) await put(daemon, one, bandwidth(one.version, period, quota));
  }
}

async function applyMemory(daemon: Daemon, run: Run, { memtune }: Domain, starting: boolean): Promise<void> {
  const [hard, soft, swap] = ['hard_limit', 'soft_limit', 'swap_hard_limit'].map((name) => numberIn(memtune, name));
  if (hard === undefined && soft === undefined && swap === undefined) return;
  const to = await group(daemon, run, 'memory', starting);
  const none = to.version === 1 ? '-1' : 'max';
  const bytes = (kib: bigint): string => (kib >= unlimited ? none : String(kib * 1024n));
  const row = (value: bigint | undefined, file: string): Setting[] => (value === undefined ? [] : [[file, bytes(value)]]);
  if (to.version === 2) {
    // Version 2 counts swap by itself, libvirt's limit is both together.
    const more = swap === undefined ? undefined : swap >= unlimited || hard === undefined ? swap : swap - hard;
    await put(daemon, to, [...row(hard, 'memory.max'), ...row(soft, 'memory.high'), ...row(more, 'memory.swap.max')]);
    return;
  }
  const both = [...row(hard, 'memory.limit_in_bytes'), ...row(swap, 'memory.memsw.limit_in_bytes')];
  // The limit with swap may never be below the one without: which goes first depends on what was.
  await put(daemon, to, both).catch(() => put(daemon, to, [...both].reverse()));
  await put(daemon, to, row(soft, 'memory.soft_limit_in_bytes'));
}

async function applyBlock(
  daemon: Daemon,
  run: Run,
  domain: Domain,
  before: Domain | undefined,
  starting: boolean,
): Promise<void> {
  const weight = numberIn(domain.blkiotune, 'weight') ?? 0n;
  const weighed = weight !== 0n && weight !== numberIn(before?.blkiotune, 'weight');
  if (!weighed && !limitsDevices(domain, before)) return;
  const to = await group(daemon, run, 'io', starting);
  if (weighed) await applyWeight(daemon, to, weight);
  await applyDeviceLimits(daemon, to, domain, before);
}

async function applyWeight(daemon: Daemon, to: Group, weight: bigint): Promise<void> {
  const files = to.version === 1 ? ['blkio.weight', 'blkio.bfq.weight'] : ['io.weight', 'io.bfq.weight'];
  for (const file of files) {
    if ((await daemon.cgroups.read(`${to.path}/${file}`)) === undefined) continue;
    return put(daemon, to, [[file, file === 'io.weight' ? `default ${weight}` : String(weight)]]);
  }
  throw libvirtError('configUnsupported', 'qemu', 'blkio device weight is valid only for bfq or cfq scheduler');
}

/**
 * Puts a definition's limits in force, at a start or in place of those that `before` has.
 * @throws {LibvirtError} where the host does not allow them
 */
export async function applyLimits(
  daemon: Daemon,
  guest: Guest,
  run: Run,
  domain: Domain,
  which: readonly Controller[] = ['cpu', 'memory', 'io'],
  before?: Domain,
): Promise<void> {
  const starting = before === undefined;
  if (which.includes('cpu')) await applyCpu(daemon, guest, run, domain, starting);
  if (which.includes('memory')) await applyMemory(daemon, run, domain, starting);
  if (which.includes('io')) await applyBlock(daemon, run, domain, before, starting);
}

export const removeLimits = (daemon: Daemon, run: Pick<Run, 'directory'>): Promise<void> => daemon.cgroups.remove(groupName(run));
