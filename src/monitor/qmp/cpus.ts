// QMP commands about vCPUs and memory. QEMU 7.2, qapi/machine.json, qapi/machine-target.json.

import { exitNames } from '../../accel/kvm/counters.ts';
import { cpuPlace, cpuTypeName } from '../../machine/types/cpu.ts';
import { array, bool, enumeration, int, object, optional, str, uint64, union } from '../../rpc/qmp/schema.ts';
import { dimmsOf, pluggedBytes } from '../dimms.ts';
import { dirtyRateModes } from '../dirty-rate.ts';
import type { Emulator } from '../emulator.ts';
import { action, type QmpTable, query } from './row.ts';

const place = object('CpuInstanceProperties', {
  'node-id': optional(int),
  'socket-id': optional(int),
  'die-id': optional(int),
  'core-id': optional(int),
  'thread-id': optional(int),
});
const dirtyRateMode = enumeration('DirtyRateMeasureMode', dirtyRateModes);
const cpuInfo = object('CpuInfoFast', {
  'cpu-index': int,
  'qom-path': str,
  'thread-id': int,
  props: optional(place),
  target: enumeration('SysEmuTarget', ['x86_64']),
});
const hotpluggable = object('HotpluggableCPU', { type: str, 'vcpus-count': int, props: place, 'qom-path': optional(str) });
const memoryDevice = union('MemoryDeviceInfo', {}, 'type', {
  dimm: {
    data: object('PCDIMMDeviceInfo', {
      id: optional(str),
      addr: int,
      size: int,
      slot: int,
      node: int,
      memdev: str,
      hotplugged: bool,
      hotpluggable: bool,
    }),
  },
});
const memdev = object('Memdev', {
  id: optional(str),
  size: int,
  merge: bool,
  dump: bool,
  prealloc: bool,
  share: bool,
  reserve: optional(bool),
  'host-nodes': array(int),
  policy: enumeration('HostMemPolicy', ['default', 'preferred', 'bind', 'interleave']),
});

/** The object that vCPU n is. */
const cpuPath = ({ machine }: Emulator, n: number): string =>
  machine?.board.cpus.bus?.path(n) ?? `/machine/unattached/device[${n}]`;
const provider = enumeration('StatsProvider', ['kvm']);
const statsTarget = enumeration('StatsTarget', ['vm', 'vcpu']);
const statsSchemaValue = object('StatsSchemaValue', {
  name: str,
  type: enumeration('StatsType', ['cumulative', 'instant', 'peak', 'linear-histogram', 'log2-histogram']),
  unit: optional(enumeration('StatsUnit', ['bytes', 'seconds', 'cycles'])),
  base: optional(int),
  exponent: int,
  'bucket-size': optional(int),
});
/** Statistics of an exit reason: how many, and nanoseconds until the vCPU went back. */
const exitsOf = (name: string): string => `${name}_exits`;
const timeOf = (name: string): string => `${name}_time`;

const range = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));

export const cpuCommands: QmpTable = {
  'query-cpus-fast': query({}, array(cpuInfo), async (e) => {
    if (!e.machine) return [];
    const threads = await e.host.threads();
    const { cpus, config } = e.machine.board;
    return cpus.list().map((n) => ({
      'cpu-index': n,
      'qom-path': cpuPath(e, n),
      'thread-id': threads.get(n) ?? e.host.pid,
      props: cpuPlace(config, n),
      target: 'x86_64' as const,
    }));
  }),
  'query-hotpluggable-cpus': query({}, array(hotpluggable), (e) => {
    if (!e.machine) return [];
    const { cpus, config } = e.machine.board;
    return range(config.cpus, (n) => ({
      type: cpuTypeName(config),
      'vcpus-count': 1,
      props: cpuPlace(config, n),
      ...(cpus.has(n) ? { 'qom-path': cpuPath(e, n) } : {}),
    })).reverse();
  }),
  'query-memory-size-summary': query({}, object('MemoryInfo', { 'base-memory': int, 'plugged-memory': optional(int) }), (e) => ({
    'base-memory': e.config.memory,
    'plugged-memory': pluggedBytes(e),
  })),
  'query-memory-devices': query({}, array(memoryDevice), (e) =>
    dimmsOf(e.machine?.devices.list() ?? []).map(({ memdev: backend, ...data }) => ({
      type: 'dimm' as const,
      data: { ...data, memdev: `/objects/${backend}`, hotpluggable: true },
    })),
  ),
  'query-memdev': query({}, array(memdev), (e) => {
    const made = e.objects.list().filter((o) => e.types.is(o.type, 'memory-backend'));
    const own = e.config.machine.ramId;
    const all =
      made.length > 0 || own === undefined
        ? made.map((o) => ({ id: o.id, v: o.values }))
        : [{ id: own, v: { size: e.config.memory } }];
    return all.map(({ id, v }) => {
      const values: Readonly<Record<string, unknown>> = v;
      return {
        id,
        size: Number(values['size']),
        merge: values['merge'] !== false,
        dump: values['dump'] !== false,
        prealloc: values['prealloc'] === true,
        share: values['share'] === true,
        reserve: values['reserve'] !== false,
        'host-nodes': [],
        policy: 'default' as const,
      };
    });
  }),
  'query-iothreads': query(
    {},
    array(
      object('IOThreadInfo', {
        id: str,
        'thread-id': int,
        'poll-max-ns': int,
        'poll-grow': int,
        'poll-shrink': int,
        'aio-max-batch': int,
      }),
    ),
    (e) =>
      e.objects.list('iothread').map(({ id, values }) => ({
        id,
        // All back-ends are served by the process's one I/O thread.
        'thread-id': e.host.pid,
        'poll-max-ns': Number(values['poll-max-ns'] ?? 32768),
        'poll-grow': Number(values['poll-grow'] ?? 0),
        'poll-shrink': Number(values['poll-shrink'] ?? 0),
        'aio-max-batch': Number(values['aio-max-batch'] ?? 0),
      })),
  ),
  'calc-dirty-rate': action(
    { 'calc-time': int, 'sample-pages': optional(int), mode: optional(dirtyRateMode) },
    (e, { 'calc-time': seconds, 'sample-pages': samples, mode }) => e.dirtyRate.start(seconds, mode, samples),
  ),
  'query-dirty-rate': query(
    {},
    object('DirtyRateInfo', {
      'dirty-rate': optional(int),
      status: enumeration('DirtyRateStatus', ['unstarted', 'measuring', 'measured']),
      'start-time': int,
      'calc-time': int,
      'sample-pages': int,
      mode: dirtyRateMode,
    }),
    (e) => e.dirtyRate.info(),
  ),
  'query-stats-schemas': query(
    { provider: optional(provider) },
    array(object('StatsSchema', { provider, target: statsTarget, stats: array(statsSchemaValue) })),
    (e) =>
      e.machine?.accel === 'kvm'
        ? [
            {
              provider: 'kvm' as const,
              target: 'vcpu' as const,
              stats: exitNames.flatMap((name) => [
                { name: exitsOf(name), type: 'cumulative' as const, base: 10, exponent: 0 },
                { name: timeOf(name), type: 'cumulative' as const, unit: 'seconds' as const, base: 10, exponent: -9 },
              ]),
            },
          ]
        : [],
  ),
  'query-stats': query(
    {
      target: statsTarget,
      vcpus: optional(array(str)),
      providers: optional(array(object('StatsRequest', { provider, names: optional(array(str)) }))),
    },
    array(
      object('StatsResult', { provider, 'qom-path': optional(str), stats: array(object('Stats', { name: str, value: uint64 })) }),
    ),
    (e, { target, vcpus, providers }) => {
      const { machine } = e;
      const asked = providers?.find((p) => p.provider === 'kvm');
      if (machine?.accel !== 'kvm' || target !== 'vcpu' || (providers && !asked)) return [];
      return machine.board.cpus
        .list()
        .filter((n) => !vcpus || vcpus.includes(cpuPath(e, n)))
        .map((n) => ({
          provider: 'kvm' as const,
          'qom-path': cpuPath(e, n),
          stats: Object.entries(machine.exits(n))
            .flatMap(([name, { exits, ns }]) => [
              { name: exitsOf(name), value: BigInt(exits) },
              { name: timeOf(name), value: BigInt(Math.round(ns)) },
            ])
            .filter(({ name }) => !asked?.names || asked.names.includes(name)),
        }));
    },
  ),
};
