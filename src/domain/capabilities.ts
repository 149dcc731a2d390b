// `<capabilities>`: what the host is and which guests it can run (libvirt 9.0, formatcaps).
import type { EmulatorInfo } from './emulator.ts';
import { formatXml, newElement, type XmlElement, type XmlNode } from './xml.ts';

export interface HostCpu {
  arch: string;
  model?: string;
  vendor?: string;
  microcode?: number;
  signature?: { family: number; model: number; stepping: number };
  /** Frequency in Hz. */
  tsc?: { frequency: number; scaling: boolean };
  topology: { sockets: number; dies: number; cores: number; threads: number };
  physicalAddressBits?: number;
  features: readonly string[];
  /** In KiB, the smallest first. */
  pageSizes: readonly number[];
}

export interface HostCell {
  id: number;
  /** In KiB. */
  memory: number;
  pages: readonly { size: number; count: number }[];
  distances: readonly { id: number; value: number }[];
  cpus: readonly { id: number; socket: number; die: number; core: number; siblings: string }[];
}

export interface HostCache {
  id: number;
  level: number;
  type: string;
  /** In KiB. */
  size: number;
  cpus: string;
}

export interface HostInfo {
  uuid: string;
  cpu: HostCpu;
  /** `suspend_mem`, `suspend_disk`, `suspend_hybrid`. */
  powerManagement: readonly string[];
  iommu: boolean;
  migrationTransports: readonly string[];
  cells: readonly HostCell[];
  caches: readonly HostCache[];
  securityModels: readonly { model: string; doi: string; labels: readonly { type: string; label: string }[] }[];
}

/** A kind of guest: an emulator with the accelerators that it offers. */
export interface GuestInfo {
  emulator: EmulatorInfo;
  wordSize: 32 | 64;
  domainTypes: readonly ('qemu' | 'kvm')[];
  /** PAE can be chosen, as on 32-bit x86. */
  pae?: boolean;
  acpi: boolean;
}

const el = (name: string, attributes: Record<string, string | number | undefined> = {}, ...nodes: XmlNode[]): XmlElement =>
  newElement(
    name,
    Object.fromEntries(Object.entries(attributes).flatMap(([key, value]) => (value === undefined ? [] : [[key, String(value)]]))),
    nodes,
  );

function cpuElement(cpu: HostCpu): XmlElement {
  const parts: XmlElement[] = [el('arch', {}, cpu.arch)];
  if (cpu.model !== undefined) parts.push(el('model', {}, cpu.model));
  if (cpu.vendor !== undefined) parts.push(el('vendor', {}, cpu.vendor));
  if (cpu.microcode !== undefined) parts.push(el('microcode', { version: cpu.microcode }));
  if (cpu.signature) parts.push(el('signature', { ...cpu.signature }));
  if (cpu.tsc) {
    parts.push(el('counter', { name: 'tsc', frequency: cpu.tsc.frequency, scaling: cpu.tsc.scaling ? 'yes' : 'no' }));
  }
  parts.push(el('topology', { ...cpu.topology }));
  if (cpu.physicalAddressBits !== undefined) parts.push(el('maxphysaddr', { mode: 'emulate', bits: cpu.physicalAddressBits }));
  parts.push(...cpu.features.map((name) => el('feature', { name })));
  parts.push(...cpu.pageSizes.map((size) => el('pages', { unit: 'KiB', size })));
  return el('cpu', {}, ...parts);
}

function cellElement(cell: HostCell): XmlElement {
  const cpus = cell.cpus.map((cpu) =>
    el('cpu', { id: cpu.id, socket_id: cpu.socket, die_id: cpu.die, core_id: cpu.core, siblings: cpu.siblings }),
  );
  return el(
    'cell',
    { id: cell.id },
    el('memory', { unit: 'KiB' }, String(cell.memory)),
    ...cell.pages.map((page) => el('pages', { unit: 'KiB', size: page.size }, String(page.count))),
    el('distances', {}, ...cell.distances.map((one) => el('sibling', { ...one }))),
    el('cpus', { num: cpus.length }, ...cpus),
  );
}

/** In the largest unit of which it is a multiple. */
function bankElement({ id, level, type, size, cpus }: HostCache): XmlElement {
  const units = ['KiB', 'MiB', 'GiB'];
  let [amount, unit] = [size, 0];
  while (amount > 0 && amount % 1024 === 0 && unit < units.length - 1) [amount, unit] = [amount / 1024, unit + 1];
  return el('bank', { id, level, type, size: amount, unit: units[unit], cpus });
}

function hostElement(host: HostInfo): XmlElement {
  const transports = host.migrationTransports.map((name) => el('uri_transport', {}, name));
  const parts: XmlElement[] = [
    el('uuid', {}, host.uuid),
    cpuElement(host.cpu),
    el('power_management', {}, ...host.powerManagement.map((name) => el(name))),
    el('iommu', { support: host.iommu ? 'yes' : 'no' }),
    el('migration_features', {}, el('live'), el('uri_transports', {}, ...transports)),
    el('topology', {}, el('cells', { num: host.cells.length }, ...host.cells.map(cellElement))),
  ];
  if (host.caches.length > 0) parts.push(el('cache', {}, ...host.caches.map(bankElement)));
  for (const { model, doi, labels } of host.securityModels) {
    const baselabels = labels.map(({ type, label }) => el('baselabel', { type }, label));
    parts.push(el('secmodel', {}, el('model', {}, model), el('doi', {}, doi), ...baselabels));
  }
  return el('host', {}, ...parts);
}

function guestElement(guest: GuestInfo): XmlElement {
  const { emulator } = guest;
  const machines = emulator.machines.flatMap((machine) => {
    const common = { maxCpus: machine.maxCpus, deprecated: machine.deprecated ? 'yes' : undefined };
    const named = el('machine', common, machine.name);
    return machine.alias === undefined ? [named] : [named, el('machine', { canonical: machine.name, ...common }, machine.alias)];
  });
  const features: XmlElement[] = [
    ...(guest.pae ? [el('pae'), el('nonpae')] : []),
    ...(guest.acpi ? [el('acpi', { default: 'on', toggle: 'yes' }), el('apic', { default: 'on', toggle: 'no' })] : []),
    el('cpuselection'),
    el('deviceboot'),
    el('disksnapshot', { default: 'on', toggle: 'no' }),
  ];
  return el(
    'guest',
    {},
    el('os_type', {}, 'hvm'),
    el(
      'arch',
      { name: emulator.arch },
      el('wordsize', {}, String(guest.wordSize)),
      el('emulator', {}, emulator.path),
      ...machines,
      ...guest.domainTypes.map((type) => el('domain', { type })),
    ),
    el('features', {}, ...features),
  );
}

/** The document that `connectGetCapabilities` answers. */
export function formatCapabilities(host: HostInfo, guests: readonly GuestInfo[]): string {
  const parts = [hostElement(host), ...guests.map(guestElement)].map((part) => `${formatXml(part, '  ')}\n`);
  return `<capabilities>\n\n${parts.join('')}</capabilities>\n`;
}
