// `-numa`: the guest's NUMA nodes, what memory and vCPUs they have, and how far they are from each other (QEMU 7.2, "System Emulation",
// section "Invocation"; its refusals).

import type { NumaConfig } from '../machine/config.ts';
import { cpuPlace } from '../machine/types/cpu.ts';
import { items } from '../monitor/keyval.ts';
import { topologyOf } from './system-machine-options.ts';
import { Refused, type Settings } from './system-settings.ts';

const MAX_NODES = 128;
const LOCAL = 10;
const REMOTE = 20;

interface Node {
  readonly id: number;
  readonly memory: number;
  readonly memdev?: string;
}

/** What the rows of `-numa` have told so far. */
interface Gathered {
  readonly nodes: Map<number, Node>;
  /** Node of each possible vCPU that was named. */
  readonly cpus: Map<number, number>;
  /** By `source * MAX_NODES + destination`. */
  readonly distances: Map<number, number>;
}

/** One `-numa`: its values by name, and how to refuse it. */
interface Row {
  readonly values: ReadonlyMap<string, readonly string[]>;
  readonly refuse: (why: string) => never;
}

/** A number of a row, at most `most`; undefined where it was not given. */
function numberOf({ values, refuse }: Row, name: string, most: number): number | undefined {
  const text = values.get(name)?.at(-1);
  if (text === undefined) return undefined;
  const n = /^(0x[\da-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
  return n <= most ? n : refuse(`Parameter '${name}' expects a number from 0 to ${most}`);
}

const needed = (row: Row, name: string, most: number): number =>
  numberOf(row, name, most) ?? row.refuse(`Parameter '${name}' is missing`);

function only({ values, refuse }: Row, accepted: readonly string[]): void {
  for (const name of values.keys()) if (!accepted.includes(name)) refuse(`Invalid parameter '${name}'`);
}

function assign({ cpus }: Gathered, { refuse }: Row, cpu: number, node: number): void {
  if ((cpus.get(cpu) ?? node) !== node) refuse(`CPU is already assigned to node-id: ${cpus.get(cpu)}`);
  cpus.set(cpu, node);
}

function addNode(s: Settings, all: Gathered, row: Row): void {
  only(row, ['nodeid', 'cpus', 'mem', 'memdev', 'initiator']);
  const { values, refuse } = row;
  const id = numberOf(row, 'nodeid', Number.MAX_SAFE_INTEGER) ?? all.nodes.size;
  if (id >= MAX_NODES) refuse(`Max number of NUMA nodes reached: ${id}`);
  if (all.nodes.has(id)) refuse(`Duplicate NUMA nodeid: ${id}`);
  if (values.has('initiator'))
    refuse(
      'ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled, enable it with -machine hmat=on before using any of hmat specific options',
    );
  const { maxcpus } = topologyOf(s);
  for (const text of values.get('cpus') ?? []) {
    const range = /^(\d+)(?:-(\d+))?$/.exec(text);
    const first = Number(range?.[1]);
    const last = Number(range?.[2] ?? range?.[1]);
    if (!range || last < first) return refuse("Parameter 'cpus' expects a uint64 value or range");
    if (last >= maxcpus) refuse(`CPU index (${Math.max(first, maxcpus)}) should be smaller than maxcpus (${maxcpus})`);
    for (let cpu = first; cpu <= last; cpu++) assign(all, row, cpu, id);
  }
  const memdev = values.get('memdev')?.at(-1);
  if (values.has('mem'))
    refuse(
      memdev === undefined
        ? 'Parameter -numa node,mem is not supported by this machine type; use -numa node,memdev instead'
        : 'numa configuration should use either mem= or memdev=,mixing both is not allowed',
    );
  if (memdev === undefined) {
    all.nodes.set(id, { id, memory: 0 });
    return;
  }
  const object = s.objects.find((o) => o['id'] === memdev);
  if (!object || !String(object['qom-type']).startsWith('memory-backend-'))
    return refuse(`memdev=${memdev}: there is no memory back-end of that id`);
  all.nodes.set(id, { id, memory: Number(object['size']), memdev });
}

function addDistance(all: Gathered, row: Row): void {
  only(row, ['src', 'dst', 'val']);
  const src = needed(row, 'src', 0xffff);
  const dst = needed(row, 'dst', 0xffff);
  const val = needed(row, 'val', 255);
  for (const id of [src, dst])
    if (id >= MAX_NODES)
      row.refuse(`Parameter '${id === src ? 'src' : 'dst'}' expects an integer between 0 and ${MAX_NODES - 1}`);
  if (!all.nodes.has(src) || !all.nodes.has(dst))
    row.refuse("Source/Destination NUMA node is missing. Please use '-numa node' option to declare it first.");
  if (val < LOCAL) row.refuse(`NUMA distance (${val}) is invalid, it shouldn't be less than ${LOCAL}.`);
  if (src === dst && val !== LOCAL) row.refuse(`Local distance of node ${src} should be ${LOCAL}.`);
  all.distances.set(src * MAX_NODES + dst, val);
}

function addCpus(s: Settings, all: Gathered, row: Row): void {
  const places = ['socket-id', 'core-id', 'thread-id'] as const;
  only(row, ['node-id', 'die-id', ...places]);
  if (!row.values.has('node-id')) row.refuse('Missing mandatory node-id property');
  const node = needed(row, 'node-id', Number.MAX_SAFE_INTEGER);
  if (!all.nodes.has(node))
    row.refuse(
      `Invalid node-id=${node}, NUMA node must be defined with -numa node,nodeid=ID before it's used with -numa cpu,node-id=ID`,
    );
  if (row.values.has('die-id')) row.refuse('die-id is not supported');
  const asked = places.map((name) => [name, numberOf(row, name, Number.MAX_SAFE_INTEGER)] as const);
  const { maxcpus, sockets, cores, threads } = topologyOf(s);
  const matching = Array.from({ length: maxcpus }, (_, n) => n).filter((n) => {
    const place = cpuPlace({ cpus: maxcpus, topology: { sockets, cores, threads } }, n);
    return asked.every(([name, id]) => id === undefined || place[name] === id);
  });
  if (matching.length === 0) row.refuse('no match found');
  for (const cpu of matching) assign(all, row, cpu, node);
}

/** Distances of all pairs, row by row; undefined where none was given. */
function matrix({ nodes, distances }: Gathered): number[] | undefined {
  if (distances.size === 0) return undefined;
  const count = nodes.size;
  const given = (src: number, dst: number): number | undefined => distances.get(src * MAX_NODES + dst);
  const pairs = Array.from({ length: count }, (_, src) =>
    Array.from({ length: count - src - 1 }, (_, n) => [src, src + 1 + n] as const),
  ).flat();
  for (const [src, dst] of pairs)
    if (given(src, dst) === undefined && given(dst, src) === undefined)
      throw new Refused(
        `The distance between node ${src} and ${dst} is missing, at least one distance value between each nodes should be provided.`,
      );
  const differ = pairs.some(([src, dst]) => (given(src, dst) ?? given(dst, src)) !== (given(dst, src) ?? given(src, dst)));
  if (differ && pairs.some(([src, dst]) => given(src, dst) === undefined || given(dst, src) === undefined))
    throw new Refused(
      'At least one asymmetrical pair of distances is given, please provide distances for both directions of all node pairs.',
    );
  return Array.from({ length: count * count }, (_, n) => {
    const [src, dst] = [Math.floor(n / count), n % count];
    return src === dst ? LOCAL : (given(src, dst) ?? given(dst, src) ?? REMOTE);
  });
}

/** The node of each possible vCPU: by sockets in turn where no `-numa` names one; node 0, with a warning, of those that are left over. */
function cpuNodes(s: Settings, { nodes, cpus }: Gathered): number[] {
  const { maxcpus, sockets, cores, threads } = topologyOf(s);
  const place = (n: number) => cpuPlace({ cpus: maxcpus, topology: { sockets, cores, threads } }, n);
  const all = Array.from({ length: maxcpus }, (_, n) => n);
  if (cpus.size === 0) return all.map((n) => place(n)['socket-id'] % nodes.size);
  const left = all.filter((n) => !cpus.has(n));
  if (left.length > 0) {
    const texts = left.map(
      (n) => `CPU ${n} [${(['socket-id', 'core-id', 'thread-id'] as const).map((id) => `${id}: ${place(n)[id]}`).join(', ')}]`,
    );
    s.warnings.push(`CPU(s) not present in any NUMA nodes: ${texts.join(', ')}; node 0 has them`);
  }
  return all.map((n) => cpus.get(n) ?? 0);
}

/**
 * What `-numa` tells, once the memory's size, the objects and the topology are known; undefined without it and without `-m maxmem=`.
 * @throws Refused
 */
export function numaOf(s: Settings): NumaConfig | undefined {
  // With room for modules all that is there is one node, so that the guest is told where they may come.
  if (s.numa.length === 0)
    return s.memoryHotplug && { nodes: [s.memory], cpus: new Array<number>(topologyOf(s).maxcpus).fill(0) };
  if (s.machine.board !== 'pc' && s.machine.board !== 'q35')
    throw new Refused(`-numa ${s.numa[0]}: not supported with ${s.machine.name}; accepted with pc and q35`);
  const all: Gathered = { nodes: new Map(), cpus: new Map(), distances: new Map() };
  for (const text of s.numa) {
    const values = new Map<string, string[]>();
    for (const [n, { key, value }] of items(text).entries()) {
      const [name, v] = value === undefined ? (n === 0 ? ['type', key] : [key, 'on']) : [key, value];
      values.set(name, [...(values.get(name) ?? []), v]);
    }
    const type = values.get('type')?.at(-1);
    values.delete('type');
    const row: Row = {
      values,
      refuse: (why) => {
        throw new Refused(`-numa ${text}: ${why}`);
      },
    };
    if (type === 'node') addNode(s, all, row);
    else if (type === 'dist') addDistance(all, row);
    else if (type === 'cpu') addCpus(s, all, row);
    else
      row.refuse(type === undefined ? "Parameter 'type' is missing" : `type ${type}: not supported; accepted: node, dist, cpu`);
  }
  if (all.nodes.size === 0) return undefined;
  const last = Math.max(...all.nodes.keys());
  for (let id = last; id >= 0; id--) if (!all.nodes.has(id)) throw new Refused(`numa: Node ID missing: ${id}`);
  const nodes = [...all.nodes.values()].sort((a, b) => a.id - b.id);
  const used = nodes.flatMap(({ memdev }) => memdev ?? []);
  const twice = used.find((id, n) => used.indexOf(id) !== n);
  if (twice !== undefined) throw new Refused(`memory backend ${twice} can't be used multiple times.`);
  const sum = nodes.reduce((total, { memory }) => total + memory, 0);
  if (sum !== s.memory)
    throw new Refused(`total memory for NUMA nodes (0x${sum.toString(16)}) should equal RAM size (0x${s.memory.toString(16)})`);
  if (s.machineProperties.has('memory-backend'))
    throw new Refused("'-machine memory-backend' and '-numa memdev' properties are mutually exclusive");
  const distances = matrix(all);
  return { nodes: nodes.map(({ memory }) => memory), cpus: cpuNodes(s, all), ...(distances ? { distances } : {}) };
}
