// `info qtree`: the machine's buses with its chips and devices, the newest first, as QEMU 7.2 prints them.

import { type PciFunction, pci } from '../../devices/pci-function.ts';
import type { AnyBus } from '../../machine/buses.ts';
import type { Chip } from '../../machine/chip.ts';
import { busProperties, type Plugged, propertiesOf, propertyOf } from '../../machine/device-tree.ts';
import type { PropertyTable } from '../../machine/properties.ts';
import type { RunningMachine } from '../../machine/running.ts';
import { className } from '../pci.ts';

interface Place {
  readonly bus: number;
  readonly slot: number;
  readonly fn: number;
  readonly f: PciFunction;
}

const hex = (n: number, digits: number): string => (n < 0 ? 'f'.repeat(16) : n.toString(16).padStart(digits, '0'));

/** Bytes with the largest unit that divides them. */
function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; n >= 1024 && n % 1024 === 0 && unit < units.length - 1; unit++) n /= 1024;
  return `${n} ${units[unit]}`;
}

/** A property's value. */
function shown(value: unknown, type: string): string {
  if (value === undefined) return '""';
  if (Array.isArray(value)) return `"${value.map((b) => Number(b).toString(16).padStart(2, '0')).join(':')}"`;
  if (typeof value === 'number') {
    if (type === 'size') return `${value} (${bytes(value)})`;
    return /^u?int/.test(type) ? `${value} (0x${BigInt.asUintN(64, BigInt(value)).toString(16)})` : String(value);
  }
  return typeof value === 'string' ? `"${value}"` : String(value);
}

/** Where the functions are. */
function places({ board }: RunningMachine): ReadonlyMap<PciFunction, Place> {
  const rows = board.pci.buses().flatMap(({ bridge, functions }) => {
    const bus = bridge?.read(pci.secondary, 1) ?? 0;
    return functions.map((p): [PciFunction, Place] => [p.f, { bus, ...p }]);
  });
  return new Map(rows);
}

/** Class, identity and base address registers of a function. */
function functionLines({ bus, slot, fn, f }: Place): string[] {
  const id = (at: number): string => hex(f.read(at, 2), 4);
  return [
    `class ${className(f)}, addr ${hex(bus, 2)}:${hex(slot, 2)}.${fn}, pci id ${id(0)}:${id(2)} (sub ${id(0x2c)}:${id(0x2e)})`,
    ...f.bars.map((bar) => {
      const at = f.barAddress(bar);
      const end = at < 0 ? bar.size - 2 : at + bar.size - 1;
      return `bar ${bar.index}: ${bar.kind === 'io' ? 'i/o' : 'mem'} at 0x${hex(at, 1)} [0x${hex(end, 1)}]`;
    }),
  ];
}

export function deviceTree(machine: RunningMachine): string {
  const { devices, board } = machine;
  const at = places(machine);
  const lines: string[] = [];
  const owned = new Set(board.chips.flatMap((c) => c.buses ?? []));

  const bus = (name: string, kind: string, indent: string): void => {
    lines.push(`${indent}bus: ${name}`, `${indent}  type ${kind}`);
    for (const d of devices
      .list()
      .filter((x) => x.bus.name === name)
      .toReversed())
      device(d, `${indent}  `);
    for (const c of board.chips.filter((x) => x.bus === name).toReversed()) chip(c, `${indent}  `);
  };
  const values = (table: PropertyTable, given: (name: string) => unknown, place: Place | undefined, indent: string): void => {
    const multifunction = place && (place.f.read(0x0e, 1) & 0x80) !== 0;
    for (const [name, p] of Object.entries(table)) {
      const value = name === 'multifunction' && multifunction !== undefined ? multifunction : given(name);
      // QEMU prints the place, not what was asked for.
      const text = name === 'addr' && place ? `${hex(place.slot, 2)}.${place.fn}` : shown(value, p.type);
      lines.push(`${indent}${name} = ${text}`);
    }
  };
  const device = (d: Plugged, indent: string): void => {
    const inner = `${indent}  `;
    const place = [...at.values()].find((p) => p.f === d.f);
    lines.push(`${indent}dev: ${d.type.name}, id "${d.id ?? ''}"`);
    values(propertiesOf(d.type), (name) => propertyOf(d, name), place, inner);
    if (place) lines.push(...functionLines(place).map((l) => inner + l));
    for (const b of d.buses.toReversed()) bus(b.name, kindOf(b), inner);
  };
  const chip = (c: Chip, indent: string): void => {
    const inner = `${indent}  `;
    const place = c.f && at.get(c.f);
    lines.push(`${indent}dev: ${c.type}, id ""`);
    for (const [name, n] of Object.entries(c.inputs ?? {})) lines.push(`${inner}gpio-in "${name}" ${n}`);
    for (const [name, n] of Object.entries(c.outputs ?? {})) lines.push(`${inner}gpio-out "${name}" ${n}`);
    const table = { ...c.properties, ...(c.f ? busProperties['PCI'] : {}) };
    values(table, (name) => table[name]!.default, place, inner);
    for (const [base, length] of c.mmio ?? []) lines.push(`${inner}mmio ${hex(base, 16)}/${hex(length, 16)}`);
    if (place) lines.push(...functionLines(place).map((l) => inner + l));
    for (const b of devices.buses.filter((x) => c.buses?.includes(x.name))) bus(b.name, kindOf(b), inner);
    if (c.ownBus) bus(c.ownBus.name, c.ownBus.kind, inner);
  };
  // vCPUs and modules of memory are on no bus that QEMU shows.
  const tops = devices.buses.filter((b) => b.kind !== 'CPU' && b.kind !== 'memory' && !owned.has(b.name));
  for (const b of tops.toSorted((a, b) => Number(b.kind === 'System') - Number(a.kind === 'System'))) bus(b.name, kindOf(b), '');
  return lines.join('\n');
}

/** QEMU's name of a bus' type. */
const kindOf = (b: AnyBus): string => {
  if (b.kind === 'virtio-bus') return 'virtio-mmio-bus';
  return b.kind === 'PCI' && b.express ? 'PCIE' : b.kind;
};
