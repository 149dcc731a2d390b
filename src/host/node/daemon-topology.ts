// How CPUs, caches and memory of the host belong together, as sysfs tells it (Linux, Documentation/ABI: sysfs-devices-system-cpu, sysfs-devices-node).

import { readdirSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import type { HostCache, HostCell, HostFacts } from '../../daemon/host.ts';

const CPUS = '/sys/devices/system/cpu';
const NODES = '/sys/devices/system/node';

export function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}
export const names = (path: string): string[] => {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
};

/** The numbers behind a prefix of the names in a directory, in order. */
const numbered = (path: string, prefix: string): number[] =>
  names(path)
    .flatMap((name) => (name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)) ? [name.slice(prefix.length)] : []))
    .map(Number)
    .sort((a, b) => a - b);

/** `0-2,5` as numbers. */
const listed = (text: string): number[] =>
  text.split(',').flatMap((part) => {
    const [first = Number.NaN, last = first] = part.split('-').map(Number);
    return Number.isNaN(first) || part === '' ? [] : Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });

export function cpuList(): HostFacts['cpus'] {
  const list = numbered(CPUS, 'cpu');
  return (list.length > 0 ? list : cpus().map((_, id) => id)).map((id) => {
    const topology = `${CPUS}/cpu${id}/topology`;
    const number = (name: string, otherwise: number): number => Math.max(0, Number(read(`${topology}/${name}`) ?? otherwise));
    return {
      id,
      socket: number('physical_package_id', 0),
      die: number('die_id', 0),
      core: number('core_id', id),
      siblings: read(`${topology}/thread_siblings_list`) ?? String(id),
      online: read(`${CPUS}/cpu${id}/online`) !== '0',
    };
  });
}

/** Sockets of a NUMA node, and what each of them has. */
export function topologyOf(list: HostFacts['cpus']): HostFacts['topology'] {
  const count = (of: (one: HostFacts['cpus'][number]) => string): number => new Set(list.map(of)).size || 1;
  const sockets = count((one) => `${one.socket}`);
  const dies = count((one) => `${one.socket} ${one.die}`);
  const cores = count((one) => `${one.socket} ${one.die} ${one.core}`);
  return {
    sockets: Math.max(1, Math.floor(sockets / (numbered(NODES, 'node').length || 1))),
    dies: Math.max(1, Math.floor(dies / sockets)),
    cores: Math.max(1, Math.floor(cores / dies)),
    threads: Math.max(1, Math.floor(list.length / cores)),
  };
}

function hugePages(directory: string): HostCell['hugePages'] {
  return names(directory)
    .flatMap((name) => {
      const size = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1] ?? 0);
      const number = (what: string): number => Number(read(`${directory}/${name}/${what}`) ?? 0);
      return size > 0 ? [{ size, count: number('nr_hugepages'), free: number('free_hugepages') }] : [];
    })
    .sort((a, b) => a.size - b.size);
}

/** NUMA nodes; `memory` is what /proc/meminfo says, for a kernel that knows of no nodes. */
export function cells(list: HostFacts['cpus'], memory: Readonly<Record<string, number>>): HostCell[] {
  const ids = numbered(NODES, 'node');
  if (ids.length === 0) {
    return [
      {
        id: 0,
        memory: memory['MemTotal'] ?? 0,
        free: memory['MemFree'] ?? 0,
        hugePages: hugePages('/sys/kernel/mm/hugepages'),
        distances: [],
        cpus: list.map((one) => one.id),
      },
    ];
  }
  return ids.map((id) => {
    const at = `${NODES}/node${id}`;
    const text = read(`${at}/meminfo`) ?? '';
    const amount = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(text)?.[1] ?? 0);
    const distances = (read(`${at}/distance`) ?? '').split(/\s+/).filter(Boolean).map(Number);
    return {
      id,
      memory: amount('MemTotal'),
      free: amount('MemFree'),
      hugePages: hugePages(`${at}/hugepages`),
      distances: distances.map((value, index) => ({ id: ids[index] ?? index, value })),
      cpus: listed(read(`${at}/cpulist`) ?? ''),
    };
  });
}

const cacheTypes: Readonly<Record<string, HostCache['type']>> = { Unified: 'both', Instruction: 'code', Data: 'data' };
const FIRST_LEVEL = 3;

export function caches(list: HostFacts['cpus']): HostCache[] {
  const found = new Map<string, HostCache>();
  for (const { id: cpu } of list.filter((one) => one.online)) {
    const at = `${CPUS}/cpu${cpu}/cache`;
    for (const index of numbered(at, 'index')) {
      const value = (name: string): string => read(`${at}/index${index}/${name}`) ?? '';
      const [level, id, type] = [Number(value('level')), value('id'), cacheTypes[value('type')]];
      if (level < FIRST_LEVEL || id === '' || type === undefined) continue;
      const [, amount = '0', unit = 'K'] = /^(\d+)([KMG]?)/.exec(value('size')) ?? [];
      const size = Number(amount) * ({ M: 1024, G: 1024 * 1024 }[unit] ?? 1);
      found.set(`${level} ${type} ${id}`, { id: Number(id), level, type, size, cpus: value('shared_cpu_list') });
    }
  }
  return [...found.values()].sort((a, b) => a.level - b.level || a.type.localeCompare(b.type) || a.id - b.id);
}
