// `info mtree`: address spaces as trees of regions, and as what a vCPU or device finds behind each address (`-f`). The trees are made
// from what the board has at the moment; names and shape are those of QEMU 7.2.

import { Smram, smramWindow } from '../../bits/slot-table.ts';
import type { Region as BusRegion } from '../../bus/space.ts';
import { pamAreas } from '../../devices/pam.ts';
import { command, type PciFunction, pci } from '../../devices/pci-function.ts';
import type { Emulator } from '../emulator.ts';

type Kind = 'ram' | 'rom' | 'romd' | 'i/o';
/** A range of addresses within another one. */
export interface MemoryRegion {
  readonly name: string;
  /** From the beginning of what it is in. */
  readonly base: bigint;
  readonly length: bigint;
  readonly priority: number;
  readonly kind: Kind;
  /** Nothing answers where no part of it does. */
  readonly container?: boolean;
  readonly parts: readonly MemoryRegion[];
  /** Writes to memory that it shows are lost. */
  readonly readOnly?: boolean;
  /** Where it shows nothing, nothing below it is seen either. */
  readonly opaque?: boolean;
  /** It shows another region from an offset on. */
  readonly alias?: { readonly of: MemoryRegion; readonly offset: bigint };
}
interface Space {
  readonly names: readonly string[];
  readonly root: MemoryRegion;
}

const ALL = 1n << 64n;
const GIB4 = 1n << 32n;
const LOW_END = 0x10_0000;

type Shape = Partial<Omit<MemoryRegion, 'name' | 'base' | 'length'>>;
const region = (name: string, base: bigint | number, length: bigint | number, shape: Shape = {}): MemoryRegion => ({
  ...{ name, base: BigInt(base), length: BigInt(length), priority: 0, kind: 'i/o', parts: [] },
  ...shape,
});
const alias = (
  name: string,
  base: bigint | number,
  length: bigint | number,
  of: MemoryRegion,
  offset: bigint | number,
  priority = 0,
): MemoryRegion => region(name, base, length, { priority, kind: of.kind, alias: { of, offset: BigInt(offset) } });
const opaque = (r: MemoryRegion): MemoryRegion => ({ ...r, opaque: true });
const container = (name: string, parts: readonly MemoryRegion[], length = ALL, priority = 0): MemoryRegion =>
  region(name, 0n, length, { priority, parts, container: true });

/** The address spaces of the machine, and what their aliases show. */
export function memorySpaces(e: Emulator): readonly Space[] {
  const { board } = e.running;
  const { slots } = board;
  const mapped = slots.mapped();
  const ramName = e.config.machine.ramId ?? 'ram';
  const { ramLow: low, ramHigh: high } = board.facts;
  const ram = region(ramName, 0, low + high, { kind: 'ram' });

  /** What a device maps: plain memory where a slot is at its place. */
  const ranged = ({ base, length, name }: BusRegion, priority: number): MemoryRegion => {
    const slot = mapped.find((s) => s.gpa === base && s.length === length);
    return region(name, base, length, { priority, kind: slot ? (slot.readOnly ? 'romd' : 'ram') : 'i/o' });
  };
  const mmio = board.mmio[0]!.regions();
  const pages = mapped.filter((s) => !mmio.some((r) => r.base === s.gpa && r.length === s.length));
  const roms = pages.map((s) =>
    region(s.name === 'bios' ? 'pc.bios' : s.name, s.gpa, s.length, { kind: s.readOnly ? 'rom' : 'ram' }),
  );

  // What is on PCI, bridge by bridge.
  const barRanges = (f: PciFunction, io: boolean): MemoryRegion[] =>
    f.bars.flatMap((bar) => {
      const base = f.barAddress(bar);
      if (base < 0 || (bar.kind === 'io') !== io) return [];
      return [ranged({ base, length: bar.size, name: bar.name ?? `${f.name} BAR ${bar.index}`, handler: bar.handler }, 1)];
    });
  const behind = new Map(board.pci.buses().map((b) => [b.bridge, b.functions]));
  const onBus = (bridge: PciFunction | undefined, io: boolean): MemoryRegion[] =>
    (behind.get(bridge) ?? []).flatMap(({ f }) => {
      const rom = io ? undefined : f.romRange();
      return [
        ...barRanges(f, io),
        ...(rom ? [region(`${f.name}.rom`, rom.base, rom.length, { priority: 1, kind: 'rom' })] : []),
        ...(behind.has(f) ? windows(f, io) : []),
      ];
    });
  const windows = (bridge: PciFunction, io: boolean): MemoryRegion[] => {
    const inner = container(io ? 'pci_bridge_io' : 'pci_bridge_pci', onBus(bridge, io), io ? GIB4 : ALL);
    return bridgeWindows(bridge, io).map(({ name, base, end }) => alias(name, base, end - base, inner, base, 1));
  };
  const firmware = roms.find((r) => r.base + r.length === GIB4) ?? lastFlash(mmio.map((r) => ranged(r, 0)));
  const shadow = firmware && (firmware.length < 0x2_0000n ? firmware.length : 0x2_0000n);
  const lowBios =
    firmware && shadow ? [alias('isa-bios', BigInt(LOW_END) - shadow, shadow, firmware, firmware.length - shadow, 1)] : [];
  const bars = new Set(board.pci.buses().flatMap(({ functions }) => functions.flatMap(({ f }) => f.bars.map((b) => b.handler))));
  const isBar = (r: BusRegion): boolean => bars.has(r.handler) || r.name.endsWith('.rom');
  const hasPci = board.pci.functions().length > 0;
  const onPci = mmio.filter((r) => r.bus === 'pci' && !isBar(r)).map((r) => ranged(r, 1));
  const pciMemory = container('pci', [...onPci, ...onBus(undefined, false), ...roms, ...lowBios], ALL, -1);

  // Where RAM, ROM or PCI shows below 1 MiB is in the slots' table.
  const { flags, tseg } = slots.smramState;
  const shown = hasPci
    ? [
        ...(flags & Smram.open
          ? []
          : [opaque(alias('smram-region', smramWindow.base, smramWindow.bytes, pciMemory, smramWindow.base, 1))]),
        ...pamAreas
          .toSorted((a, b) => a[2] - b[2])
          .map(([, , page, count]) => {
            const what = slots.lowPage(page);
            const [at, length] = [page * 4096, count * 4096];
            if (what === 'bus') return opaque(alias('pam-pci', at, length, pciMemory, at, 1));
            if (what === 'ram') return alias('pam-ram', at, length, ram, at, 1);
            return { ...alias('pam-rom', at, length, ram, at, 1), readOnly: true };
          }),
      ]
    : [];
  const own = mmio.filter((r) => r.bus !== 'pci').map((r) => ranged(r, r.name === 'apic-msi' ? 4096 : 0));
  const system = container('system', [
    alias('ram-below-4g', 0, low, ram, 0),
    ...(high > 0 ? [alias('ram-above-4g', GIB4, high, ram, low)] : []),
    ...(hasPci ? [pciMemory, ...shown] : [...roms, ...lowBios]),
    ...own,
  ]);
  const smram = container(
    'smram',
    [
      ...(flags & Smram.low ? [alias('smram-low', smramWindow.base, smramWindow.bytes, ram, smramWindow.base)] : []),
      ...(tseg > 0 ? [alias('tseg', low - tseg, tseg, ram, low - tseg)] : []),
    ],
    GIB4,
  );
  const ports = region('io', 0, 0x1_0000, {
    parts: [
      ...board.ports
        .regions()
        .filter((r) => !isBar(r))
        .map((r) => region(r.name, r.base, r.length)),
      ...onBus(undefined, true),
    ],
  });
  const cpus = board.cpus.list();
  const inSmm = container('memory', [
    ...(board.config.smm ? [alias('smram', 0, GIB4, smram, 0, 1)] : []),
    alias('memory', 0, ALL, system, 0),
  ]);
  const named = new Map([
    ...board.chips.flatMap((c): [PciFunction, string][] => (c.f ? [[c.f, c.type]] : [])),
    ...board.devices.list().flatMap((d): [PciFunction, string][] => (d.f ? [[d.f, d.type.name]] : [])),
  ]);
  return [
    { names: ['memory', ...cpus.map((n) => `cpu-memory-${n}`)], root: system },
    { names: ['I/O'], root: ports },
    { names: cpus.map((n) => `cpu-smm-${n}`), root: inSmm },
    ...board.pci
      .buses()
      .flatMap(({ functions }) => functions)
      .map(({ f }) => ({
        names: [named.get(f) ?? f.name],
        root: container(
          'bus master container',
          f.read(pci.command, 2) & command.master ? [alias('bus master', 0, ALL, system, 0)] : [],
        ),
      })),
  ];
}

/** Flash that ends at 4 GiB. */
const lastFlash = (ranges: readonly MemoryRegion[]): MemoryRegion | undefined => ranges.find((r) => r.base + r.length === GIB4);

/** What a bridge lets through, by its registers (PCI-to-PCI Bridge Architecture Specification 1.2, section 3.2.5). */
function bridgeWindows(bridge: PciFunction, io: boolean): { name: string; base: number; end: number }[] {
  const enabled = bridge.read(pci.command, 2) & (io ? command.io : command.memory);
  if (!enabled) return [];
  const read = (at: number, size: number): number => bridge.read(at, size);
  const [memory, prefetch] = [pci.memoryBase, pci.prefetchBase];
  const all = io
    ? [{ name: 'pci_bridge_io', base: (read(pci.ioBase, 1) & 0xf0) << 8, end: ((read(pci.ioBase + 1, 1) & 0xf0) << 8) + 0x1000 }]
    : [
        { name: 'pci_bridge_mem', base: (read(memory, 2) & 0xfff0) * 2 ** 16, end: ((read(memory + 2, 2) & 0xfff0) + 0x10) * 2 ** 16 },
        {
          name: 'pci_bridge_pref_mem',
          base: (read(prefetch, 2) & 0xfff0) * 2 ** 16 + read(prefetch + 4, 4) * 2 ** 32,
          end: ((read(prefetch + 2, 2) & 0xfff0) + 0x10) * 2 ** 16 + read(prefetch + 8, 4) * 2 ** 32,
        },
      ]; // biome-ignore format: a table of windows
  return all.filter((w) => w.end > w.base);
}

/** What stands behind a range of a space, without gaps that nothing fills. */
export interface FlatRange {
  readonly from: bigint;
  readonly length: bigint;
  readonly of: MemoryRegion;
  /** From the beginning of `of`. */
  readonly offset: bigint;
  readonly kind: Kind;
}

/** The ranges of a tree as they are seen: of those that overlap, the one of the highest priority, and a part before its whole. */
export function flatView(root: MemoryRegion): readonly FlatRange[] {
  const found: (FlatRange & { readonly nothing: boolean })[] = [];
  /** `shift`: the space's address of offset 0 of `of`; `from` and `to` cut it off. */
  const render = (of: MemoryRegion, shift: bigint, from: bigint, to: bigint, readOnly: boolean): void => {
    const start = from > shift ? from : shift;
    const end = to < shift + of.length ? to : shift + of.length;
    if (start >= end) return;
    const only = readOnly || of.kind === 'rom' || of.readOnly === true;
    if (of.alias) {
      const { of: target, offset } = of.alias;
      render(target, shift - offset, start, end, only);
      if (of.opaque) fill(of, shift, start, end, only);
      return;
    }
    for (const part of of.parts.toSorted((a, b) => b.priority - a.priority))
      render(part, shift + part.base, start, end, readOnly);
    if (!of.container) fill(of, shift, start, end, only);
  };
  /** What is left between what was found. */
  const fill = (of: MemoryRegion, shift: bigint, start: bigint, end: bigint, only: boolean): void => {
    let at = start;
    const put = (until: bigint): void => {
      if (until > at)
        found.push({
          ...{ from: at, length: until - at, of, offset: at - shift, kind: only && of.kind === 'ram' ? 'rom' : of.kind },
          nothing: of.opaque ?? false,
        });
    };
    for (const r of found.toSorted((a, b) => (a.from < b.from ? -1 : 1))) {
      if (r.from + r.length <= at || r.from >= end) continue;
      put(r.from);
      at = r.from + r.length;
    }
    put(end);
  };
  render(root, 0n, 0n, root.length, false);
  const sorted = found.filter((r) => !r.nothing).toSorted((a, b) => (a.from < b.from ? -1 : 1));
  const joined: FlatRange[] = [];
  for (const r of sorted) {
    const last = joined.at(-1);
    const goesOn =
      last?.of.name === r.of.name &&
      last.kind === r.kind &&
      last.from + last.length === r.from &&
      last.offset + last.length === r.offset;
    if (goesOn) joined[joined.length - 1] = { ...last, length: last.length + r.length };
    else joined.push(r);
  }
  return joined;
}

const hex = (n: bigint): string => n.toString(16).padStart(16, '0');
const range = (from: bigint, length: bigint): string => `${hex(from)}-${hex(from + length - 1n)}`;

function rows(of: MemoryRegion, at: bigint, indent: string, targets: Set<MemoryRegion>): string[] {
  const line = `${indent}${range(at, of.length)} (prio ${of.priority}, ${of.kind}): `;
  if (of.alias) {
    targets.add(of.alias.of);
    return [`${line}alias ${of.name} @${of.alias.of.name} ${range(of.alias.offset, of.length)}`];
  }
  const parts = of.parts.toSorted((a, b) => (a.base === b.base ? b.priority - a.priority : a.base < b.base ? -1 : 1));
  return [line + of.name, ...parts.flatMap((part) => rows(part, at + part.base, `${indent}  `, targets))];
}

export function treeText(e: Emulator): string {
  const targets = new Set<MemoryRegion>();
  const blocks = memorySpaces(e).map(
    ({ names, root }) => `${names.map((n) => `address-space: ${n}\n`).join('')}${rows(root, 0n, '  ', targets).join('\n')}\n`,
  );
  // A target may have aliases of its own.
  for (const target of targets)
    blocks.push(`memory-region: ${target.name}\n${rows(target, target.base, '  ', targets).join('\n')}\n`);
  return blocks.join('\n');
}

export function flatText(e: Emulator): string {
  const views = new Map<string, { names: string[]; roots: string[] }>();
  for (const { names, root } of memorySpaces(e)) {
    const ranges = flatView(root).map(({ from, length, of, offset, kind }) => {
      const at = offset > 0n ? ` @${hex(offset)}` : '';
      return `  ${range(from, length)} (prio ${of.priority}, ${kind}): ${of.name}${at}`;
    });
    const body = ranges.length > 0 ? ranges.join('\n') : '  No rendered FlatView';
    const view = views.get(body) ?? { names: [], roots: [] };
    view.names.push(...names.map((name) => ` AS "${name}", root: ${root.name}`));
    view.roots.push(root.name);
    views.set(body, view);
  }
  return [...views]
    .map(([body, { names, roots }], n) => {
      const top = body.includes('No rendered') ? '(none)' : roots[0];
      return `FlatView #${n}\n${names.join('\n')}\n Root memory region: ${top}\n${body}\n`;
    })
    .join('\n');
}
