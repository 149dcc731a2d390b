// Scheduler, memory, block and NUMA parameters and performance events of a domain. libvirt 9.0's names and answers.
import type { Domain } from '../../domain/domain.ts';
import { childNamed, elementsOf, newElement, type XmlElement } from '../../domain/xml.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { TypedParam } from '../../rpc/libvirt/types.ts';
import type { Controller } from '../cgroups.ts';
import type { Daemon, RemoteHandlers } from '../daemon.ts';
import { invalidArgument, operationInvalid, translateErrors } from '../errors.ts';
import { affects, queried } from './affect.ts';
import { deviceLimitParams, deviceParams, setDeviceLimits } from './block-limits.ts';
import { copyDomain, type Guest } from './guest.ts';
import { applyLimits, cputune, numberIn, unlimited } from './limits.ts';
import { saveStatus } from './status.ts';

const ullong = (field: string, value: bigint): TypedParam => ({ field, value: { type: 'ullong', value } });
const llong = (field: string, value: bigint): TypedParam => ({ field, value: { type: 'llong', value } });
const text = (field: string, value: string): TypedParam => ({ field, value: { type: 'string', value } });

/** `element` with the child `name` holding `value`. */
function withNumber(element: XmlElement | undefined, root: string, name: string, value: bigint, attributes = {}): XmlElement {
  const others = element ? elementsOf(element).filter((one) => one.name !== name) : [];
  const [whole, devices] = [others.filter((one) => one.name !== 'device'), others.filter((one) => one.name === 'device')];
  return newElement(root, element?.attributes ?? {}, [...whole, newElement(name, attributes, [String(value)]), ...devices]);
}

/** Scheduler parameters: name, element of `<cputune>`, default, signed. */
const scheduler = [
  ['cpu_shares', 'shares', 1024n, false],
  ['vcpu_period', 'period', 100_000n, false],
  ['vcpu_quota', 'quota', -1n, true],
  ['emulator_period', 'emulator_period', 100_000n, false],
  ['emulator_quota', 'emulator_quota', -1n, true],
  ['global_period', 'global_period', 100_000n, false],
  ['global_quota', 'global_quota', -1n, true],
  ['iothread_period', 'iothread_period', 100_000n, false],
  ['iothread_quota', 'iothread_quota', -1n, true],
] as const;

/** Of a definition what it says; of a run what is in force. */
function schedulerParams(domain: Domain): TypedParam[] {
  const live = domain.id !== undefined;
  return scheduler.map(([field, element, fallback, signed]) => {
    const value = numberIn(domain.cputune, element) ?? (live ? fallback : 0n);
    return signed ? llong(field, value) : ullong(field, value);
  });
}

const memoryLimits = ['hard_limit', 'soft_limit', 'swap_hard_limit'] as const;
const numaModes = ['strict', 'preferred', 'interleave', 'restrictive'] as const;

/** libvirt's performance events, in its order. */
const perfEvents = [
  ...['cmt', 'mbmt', 'mbml', 'cpu_cycles', 'instructions', 'cache_references', 'cache_misses', 'branch_instructions'],
  ...['branch_misses', 'bus_cycles', 'stalled_cycles_frontend', 'stalled_cycles_backend', 'ref_cpu_cycles', 'cpu_clock'],
  ...['task_clock', 'page_faults', 'context_switches', 'cpu_migrations', 'page_faults_min', 'page_faults_maj'],
  ...['alignment_faults', 'emulation_faults'],
];
export const enabledEvents = (domain: Domain): Set<string> =>
  new Set(
    (domain.perf ? elementsOf(domain.perf) : []).flatMap(({ attributes }) =>
      attributes['enabled'] === 'yes' ? [attributes['name'] ?? ''] : [],
    ),
  );

/** Puts a change into the run, the definition or both; what the host refuses leaves both as they were. */
async function change(
  daemon: Daemon,
  guest: Guest,
  flags: number,
  controller: Controller,
  edit: (domain: Domain) => void,
): Promise<void> {
  const where = affects(guest, flags);
  await guest.lock.run('DomainSetLimits', async () => {
    if (where.live) {
      const run = guest.live();
      const wanted = copyDomain(run.domain);
      edit(wanted);
      await applyLimits(daemon, guest, run, wanted, [controller], run.domain);
      edit(run.domain);
      await saveStatus(daemon.host, daemon.paths.run, guest);
    }
    if (where.config) await daemon.guests.change(guest, edit);
  });
}

async function setScheduler(daemon: Daemon, guest: Guest, params: readonly TypedParam[], flags: number): Promise<void> {
  await change(daemon, guest, flags, 'cpu', (domain) => {
    for (const { field, value } of params) {
      const row = scheduler.find(([name]) => name === field);
      if (!row) throw invalidArgument(`parameter '${field}' not supported`);
      domain.cputune = cputune(elementsOf(withNumber(domain.cputune, 'cputune', row[1], BigInt(value.value as bigint))));
    }
  });
  if (affects(guest, flags).live) {
    const told = params.map((one) => ({ ...one, field: `cputune.${one.field}` }));
    daemon.events.domain(17, guest.ref, { params: told });
  }
}

function setMemory(domain: Domain, params: readonly TypedParam[]): void {
  const given = new Map(params.map((one) => [one.field, BigInt(one.value.value as bigint)]));
  const value = (name: string): bigint | undefined => given.get(name) ?? numberIn(domain.memtune, name);
  const [hard, swap] = [value('hard_limit') ?? unlimited, value('swap_hard_limit') ?? unlimited];
  if (hard > swap && (given.has('hard_limit') || given.has('swap_hard_limit'))) {
    throw invalidArgument('memory hard_limit tunable value must be lower than or equal to swap_hard_limit');
  }
  for (const [field, kib] of given) {
    if (!(memoryLimits as readonly string[]).includes(field)) throw invalidArgument(`parameter '${field}' not supported`);
    domain.memtune = withNumber(domain.memtune, 'memtune', field, kib, { unit: 'KiB' });
  }
  const kept = elementsOf(domain.memtune!).filter((one) => numberIn(domain.memtune, one.name) !== unlimited);
  if (kept.length === 0) delete domain.memtune;
  else domain.memtune = newElement('memtune', {}, kept);
}

function setNuma(domain: Domain, params: readonly TypedParam[]): void {
  const old = domain.numatune && childNamed(domain.numatune, 'memory')?.attributes;
  let [mode, nodeset] = [old?.['mode'] ?? 'strict', old?.['nodeset'] ?? ''];
  for (const { field, value } of params) {
    if (field === 'numa_mode') {
      const found = numaModes[Number(value.value)];
      if (found === undefined) throw invalidArgument(`unsupported numatune mode: '${value.value}'`);
      mode = found;
    } else if (field === 'numa_nodeset') nodeset = String(value.value);
    else throw invalidArgument(`parameter '${field}' not supported`);
  }
  if (nodeset === '') delete domain.numatune;
  else domain.numatune = newElement('numatune', {}, [newElement('memory', { mode, nodeset })]);
}

function setPerf(domain: Domain, params: readonly TypedParam[]): void {
  const states = new Map(
    (domain.perf ? elementsOf(domain.perf) : []).map((one) => [one.attributes['name']!, one.attributes['enabled']!]),
  );
  for (const { field, value } of params) states.set(field, value.value === true ? 'yes' : 'no');
  const rows = perfEvents.filter((name) => states.has(name));
  domain.perf = newElement(
    'perf',
    {},
    rows.map((name) => newElement('event', { name, enabled: states.get(name)! })),
  );
}

export function limitHandlers(daemon: Daemon): RemoteHandlers {
  const { guests } = daemon;
  return translateErrors('qemu', {
    domainGetSchedulerType: ({ dom }) => {
      guests.find(dom);
      return { type: 'posix', nparams: scheduler.length };
    },
    domainGetSchedulerParameters({ dom, nparams }) {
      return { params: schedulerParams(guests.find(dom).current).slice(0, nparams) };
    },
    domainGetSchedulerParametersFlags({ dom, nparams, flags }) {
      return { params: schedulerParams(queried(guests.find(dom), flags & 3)).slice(0, nparams) };
    },
    domainSetSchedulerParameters: async ({ dom, params }) => setScheduler(daemon, guests.find(dom), params, 0),
    domainSetSchedulerParametersFlags: async ({ dom, params, flags }) => setScheduler(daemon, guests.find(dom), params, flags),
    domainGetMemoryParameters({ dom, nparams, flags }) {
      const domain = queried(guests.find(dom), flags & 3);
      if (nparams === 0) return { params: [], nparams: memoryLimits.length };
      const params = memoryLimits.map((name) => ullong(name, numberIn(domain.memtune, name) ?? unlimited));
      return { params, nparams: params.length };
    },
    domainSetMemoryParameters: async ({ dom, params, flags }) =>
      change(daemon, guests.find(dom), flags, 'memory', (domain) => setMemory(domain, params)),
    domainGetBlkioParameters({ dom, nparams, flags }) {
      const domain = queried(guests.find(dom), flags & 3);
      if (nparams === 0) return { params: [], nparams: deviceParams.length + 1 };
      const weight: TypedParam = {
        field: 'weight',
        value: { type: 'uint', value: Number(numberIn(domain.blkiotune, 'weight') ?? (domain.id === undefined ? 0n : 100n)) },
      };
      const params = [weight, ...deviceLimitParams(domain)];
      return { params, nparams: params.length };
    },
    domainSetBlkioParameters: async ({ dom, params, flags }) =>
      change(daemon, guests.find(dom), flags, 'io', (domain) => {
        for (const { field, value } of params) {
          if (deviceParams.includes(field)) {
            setDeviceLimits(domain, field, String(value.value));
            continue;
          }
          if (field !== 'weight') throw invalidArgument(`parameter '${field}' not supported`);
          domain.blkiotune = withNumber(domain.blkiotune, 'blkiotune', 'weight', BigInt(Number(value.value)));
        }
      }),
    domainGetNumaParameters({ dom, nparams, flags }) {
      const domain = queried(guests.find(dom), flags & 3);
      if (nparams === 0) return { params: [], nparams: 2 };
      const memory = domain.numatune && childNamed(domain.numatune, 'memory')?.attributes;
      const mode = Math.max(0, (numaModes as readonly string[]).indexOf(memory?.['mode'] ?? 'strict'));
      const params: TypedParam[] = [
        { field: 'numa_mode', value: { type: 'int', value: mode } },
        text('numa_nodeset', memory?.['nodeset'] ?? ''),
      ];
      return { params, nparams: params.length };
    },
    async domainSetNumaParameters({ dom, params, flags }) {
      const guest = guests.find(dom);
      if (affects(guest, flags).live) throw operationInvalid('cgroup cpuset controller is not mounted');
      await guests.change(guest, (domain) => setNuma(domain, params));
    },
    domainGetLaunchSecurityInfo({ dom }) {
      guests.find(dom);
      return { params: [] };
    },
    domainGetPerfEvents({ dom, flags }) {
      const on = enabledEvents(queried(guests.find(dom), flags & 3));
      return { params: perfEvents.map((field) => ({ field, value: { type: 'boolean' as const, value: on.has(field) } })) };
    },
    async domainSetPerfEvents({ dom, params, flags }) {
      const guest = guests.find(dom);
      const unknown = params.find((one) => !perfEvents.includes(one.field));
      if (unknown) throw libvirtError('argumentUnsupported', 'qemu', `parameter '${unknown.field}' not supported`);
      const on = params.find((one) => one.value.value === true);
      // The daemon has no perf_event_open(2).
      if (affects(guest, flags).live && on) {
        throw libvirtError('argumentUnsupported', 'qemu', `unable to enable host cpu perf event for ${on.field}`);
      }
      if (affects(guest, flags).config) await guests.change(guest, (domain) => setPerf(domain, params));
    },
  } satisfies RemoteHandlers);
}
