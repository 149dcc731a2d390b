// What `info` shows, as a table. QEMU 7.2 "System Emulation", section "QEMU Monitor".

import { exitText } from '../../accel/kvm/counters.ts';
import { dimmsOf, pluggedBytes } from '../dimms.ts';
import { type Emulator, QEMU_VERSION } from '../emulator.ts';
import type { Cable } from '../netdevs.ts';
import { pciText } from '../pci.ts';
import type { QomNode } from '../qom/tree.ts';
import { blockInfos } from './block.ts';
import { type HmpCommand, HmpError } from './command.ts';
import { displayInfos } from './display.ts';
import { lapicText, picText } from './interrupts.ts';
import { migrateInfos } from './migrate.ts';
import { flatText, treeText } from './mtree.ts';
import { memText, tlbText } from './paging.ts';
import { deviceTree } from './qtree.ts';
import { registerText } from './registers.ts';

/** Does something while the guest stands still; before its start, it stands before its first instruction. */
export async function held<T>(e: Emulator, action: () => T): Promise<T> {
  const { machine } = e;
  if (machine?.status === 'prelaunch') await machine.prepare();
  if (machine?.status !== 'running') return action();
  return machine.hold(action);
}

function objectTree(node: QomNode, path: string, indent = ''): string[] {
  return [
    `${indent}/${path} (${node.type})`,
    ...[...node.children].flatMap(([name, child]) => objectTree(child, name, `${indent}  `)),
  ];
}

export const infos: readonly HmpCommand[] = [
  ...blockInfos,
  ...displayInfos,
  {
    names: ['status'],
    help: 'show the current VM status (running|paused)',
    run: (e) => {
      const { status } = e;
      return `VM status: ${status === 'running' || status === 'paused' ? status : `paused (${status})`}`;
    },
  },
  ...migrateInfos,
  {
    names: ['version'],
    help: 'show the version',
    run: (e) => `${QEMU_VERSION.major}.${QEMU_VERSION.minor}.${QEMU_VERSION.micro}nonroot ${e.config.version}`,
  },
  { names: ['name'], help: "show the guest's name", run: (e) => e.config.name ?? '' },
  { names: ['uuid'], help: 'show the UUID', run: (e) => e.config.uuid ?? '00000000-0000-0000-0000-000000000000' },
  {
    names: ['cpus'],
    help: 'show the vCPUs and their threads',
    run: async (e) => {
      const threads = await e.host.threads();
      return (e.machine?.board.cpus.list() ?? [])
        .map((n) => `${n === e.currentCpu ? '*' : ' '} CPU #${n}: thread_id=${threads.get(n) ?? e.host.pid}`)
        .join('\n');
    },
  },
  {
    names: ['numa'],
    help: 'show NUMA information',
    run: (e) => {
      const { board } = e.running;
      const nodes = board.config.numa?.nodes ?? [];
      return [
        `${nodes.length} nodes`,
        ...nodes.flatMap((size, node) => [
          `node ${node} cpus:${board.cpus
            .list()
            .filter((n) => board.config.numa?.cpus[n] === node)
            .map((n) => ` ${n}`)
            .join('')}`,
          `node ${node} size: ${Math.floor((size + pluggedBytes(e, node)) / 2 ** 20)} MB`,
          `node ${node} plugged: ${Math.floor(pluggedBytes(e, node) / 2 ** 20)} MB`,
        ]),
      ].join('\n');
    },
  },
  {
    names: ['registers'],
    args: '[-a]',
    help: 'show the cpu registers (-a: of all vCPUs)',
    run: (e, { words }) =>
      held(e, () => {
        const all = words[0] === '-a' ? e.running.board.cpus.list() : [e.currentCpu];
        return all.map((n) => registerText(n, e.running.registers(n), false)).join('\n');
      }),
  },
  {
    names: ['chardev'],
    help: 'show the character devices',
    run: (e) =>
      e.chardevs
        .list()
        .map((c) => `${c.id}: filename=${c.backend.filename}`)
        .join('\n'),
  },
  {
    names: ['network'],
    help: 'show the network state',
    run: (e) => networks(e),
  },
  { names: ['qtree'], help: 'show device tree', run: (e) => held(e, () => deviceTree(e.running)) },
  {
    names: ['qom-tree'],
    help: 'show QOM composition tree',
    run: (e) => objectTree(e.tree.find('/machine'), 'machine').join('\n'),
  },
  {
    names: ['mtree'],
    args: '[-f]',
    help: 'show memory tree (-f: dump flat view for address spaces)',
    run: (e, { words }) => held(e, () => (words[0] === '-f' ? flatText(e) : treeText(e))),
  },
  {
    names: ['mem'],
    help: 'show the active virtual memory mappings',
    run: (e) => held(e, () => memText(e.running, e.currentCpu)),
  },
  {
    names: ['tlb'],
    help: 'show virtual to physical memory mappings',
    run: (e) => held(e, () => tlbText(e.running, e.currentCpu)),
  },
  { names: ['pic'], help: 'show PIC state', run: (e) => held(e, () => picText(e.running.board)) },
  {
    names: ['lapic'],
    args: '[apic-id]',
    help: 'show local apic state (apic-id: local apic to read, default is which of current CPU)',
    run: (e, { words }) => {
      const id = Number(words[0] ?? e.running.board.lapics[e.currentCpu]!.id);
      const cpu = e.running.board.lapics.findIndex((lapic) => lapic.id === id);
      if (cpu < 0) throw new HmpError('No local APIC');
      return held(e, () => lapicText(cpu, e.running.board.lapics[cpu]!));
    },
  },
  { names: ['pci'], help: 'show PCI info', run: (e) => pciText(e.running) },
  {
    names: ['jit'],
    help: 'show dynamic compiler info',
    run: (e) =>
      e.running.board.cpus
        .list()
        .map((cpu) => `CPU#${cpu}\n${e.running.counters?.(cpu) ?? 'no translator'}`)
        .join('\n'),
  },
  {
    names: ['kvm'],
    help: 'show KVM information: whether it is used, and the exits of each vCPU',
    run: (e) => {
      const used = e.machine ? e.machine.accel === 'kvm' : e.config.accel === 'kvm';
      const exits = (e.machine?.board.cpus.list() ?? []).map((cpu) => ({ cpu, counts: e.running.exits(cpu) }));
      return [
        `kvm support: ${used ? 'enabled' : e.config.accels.includes('kvm') ? 'disabled' : 'not compiled'}`,
        ...exits
          .filter(({ counts }) => Object.keys(counts).length > 0)
          .map(({ cpu, counts }) => `CPU#${cpu}\n${exitText(counts)}`),
      ].join('\n');
    },
  },
  {
    names: ['memory_size_summary'],
    help: 'show the amount of memory',
    run: (e) => `base memory: ${e.config.memory}\nplugged memory: ${pluggedBytes(e)}`,
  },
  {
    names: ['memory-devices'],
    help: 'show memory devices',
    run: (e) =>
      dimmsOf(e.machine?.devices.list() ?? [])
        .flatMap((d) => [
          `Memory device [dimm]: "${d.id ?? ''}"`,
          `  addr: 0x${d.addr.toString(16)}`,
          `  slot: ${d.slot}`,
          `  node: ${d.node}`,
          `  size: ${d.size}`,
          `  memdev: /objects/${d.memdev}`,
          `  hotplugged: ${d.hotplugged}`,
          '  hotpluggable: true',
        ])
        .join('\n'),
  },
  {
    names: ['iothreads'],
    help: 'show iothreads',
    run: (e) =>
      e.objects
        .list('iothread')
        .map((o) => `${o.id}:\n  thread_id=${e.host.pid}`)
        .join('\n'),
  },
  {
    names: ['balloon'],
    help: 'show balloon information',
    run: (e) => `balloon: actual=${Math.floor(e.balloon().actual() / 2 ** 20)}`,
  },
];

/** Cards with what they are connected to, then the back-ends that none has. A card without a name is its model's nth. */
function networks(e: Emulator): string {
  const counts = new Map<string, number>();
  const left = new Map(e.cables);
  const lines = (e.machine?.devices.list() ?? []).flatMap(({ device, type, id, values }) => {
    if (device.mac === undefined) return [];
    const n = counts.get(type.name) ?? 0;
    counts.set(type.name, n + 1);
    const mac = device.mac.map((b) => b.toString(16).padStart(2, '0')).join(':');
    const cable = left.get(String(values['netdev']));
    if (cable) left.delete(cable.id);
    const card = `${id ?? `${type.name}.${n}`}: index=0,type=nic,model=${type.name},macaddr=${mac}`;
    return cable ? [card, ` \\ ${cableText(cable)}`] : [card];
  });
  return [...lines, ...[...left.values()].map(cableText)].join('\n');
}
const cableText = (cable: Cable): string => `${cable.id}: index=0,type=${cable.type},${cable.info}`;
