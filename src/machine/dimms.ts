// Memory that comes and goes (`-m maxmem=`): where modules lie, the bus that brings and takes them, and what the guest's ACPI is told.
// QEMU 7.2's rules of places and its refusals.

import { plugBaseOf } from '../accel/accel.ts';
import type { Arena } from '../bits/arena.ts';
import { PLUG_GRANULE } from '../bits/slot-table.ts';
import type { Lock } from '../bus/lock.ts';
import type { MemorySlots } from '../bus/slots.ts';
import type { AddressSpace } from '../bus/space.ts';
import type { AcpiPm } from '../devices/acpi-pm.ts';
import { MemoryHotplug, type MemoryModule } from '../devices/memory-hotplug.ts';
import type { MemoryBus } from './buses.ts';
import type { BoardEvent, MachineConfig } from './config.ts';
import type { Notify } from './notices.ts';

/** The device type of modules. */
export const DIMM = 'pc-dimm';

/** A module with its slot. */
export interface Dimm extends MemoryModule {
  readonly slot: number;
  readonly path: string;
}

/** Where modules may lie. */
export interface DimmSpace {
  readonly slots: number;
  /** Guest-physical address, and bytes. */
  readonly base: number;
  readonly bytes: number;
  readonly nodes: number;
}

/** Where modules of a machine may lie; undefined where it takes none. */
export const dimmSpace = (config: Pick<MachineConfig, 'memory' | 'memoryHotplug' | 'numa'>): DimmSpace | undefined =>
  config.memoryHotplug && { ...config.memoryHotplug, base: plugBaseOf(config.memory), nodes: config.numa?.nodes.length ?? 1 };

/** What is asked of a module's place: without an address (0) or slot (-1) the first that is free. */
export interface DimmWish {
  readonly size: number;
  readonly addr: number;
  readonly slot: number;
  readonly node: number;
}

/** Bytes that QEMU sets aside for modules: a GiB more for each slot, so that all of them can be aligned. */
export const setAside = ({ bytes, slots }: NonNullable<MachineConfig['memoryHotplug']>): number => bytes + slots * 2 ** 30;

const hex = (n: number): string => `0x${n.toString(16)}`;

/**
 * The place that a module gets beside `others`.
 * @throws Error in QEMU's words for what cannot be
 */
export function placeDimm(
  space: DimmSpace | undefined,
  others: readonly (MemoryModule & { readonly slot: number; readonly id?: string | undefined })[],
  wish: DimmWish,
): Required<DimmWish> {
  if (!space || space.slots === 0) throw new Error("no slots where allocated, please specify the 'slots' option");
  const { size, node } = wish;
  if (node >= space.nodes)
    throw new Error(`'DIMM property node has value ${node}' which exceeds the number of numa nodes: ${space.nodes}`);
  if (size === 0 || size % PLUG_GRANULE !== 0) throw new Error(`backend memory size must be multiple of ${hex(PLUG_GRANULE)}`);
  const { slots } = space;
  let { slot, addr } = wish;
  if (slot === -1) {
    slot = Array.from({ length: slots }, (_, n) => n).find((n) => !others.some((o) => o.slot === n)) ?? -1;
    if (slot < 0) throw new Error('no free slots available');
  } else if (slot < 0 || slot >= slots) throw new Error(`invalid slot number ${slot}, valid range is [0-${slots - 1}]`);
  else if (others.some((o) => o.slot === slot)) throw new Error(`slot ${slot} is busy`);
  const used = others.reduce((sum, o) => sum + o.size, 0);
  if (used + size > space.bytes)
    throw new Error(`not enough space, currently ${hex(used)} in use of total space for memory devices ${hex(space.bytes)}`);
  const end = space.base + space.bytes;
  const inWay = (at: number) => others.find((o) => at < o.addr + o.size && o.addr < at + size);
  if (addr === 0) {
    addr = space.base;
    for (let other = inWay(addr); other; other = inWay(addr)) addr = other.addr + other.size;
    if (addr + size > end)
      throw new Error('could not find position in guest address space for memory device - memory fragmented due to alignments');
  } else {
    if (addr % PLUG_GRANULE !== 0) throw new Error(`address must be aligned to ${hex(PLUG_GRANULE)} bytes`);
    if (addr < space.base || addr + size > end)
      throw new Error(
        `can't add memory device [${hex(addr)}:${hex(size)}], usable range for memory devices [${hex(space.base)}:${hex(space.bytes)}]`,
      );
    const other = inWay(addr);
    if (other) throw new Error(`address range conflicts with memory device id='${other.id ?? '(unnamed)'}'`);
  }
  return { size, addr, slot, node };
}

/** The modules of a board as one thread sees them: all threads agree while the machine is held. */
export interface Dimms {
  /** Absent where no memory can be plugged in. */
  readonly bus?: MemoryBus;
  list(): readonly Dimm[];
  /** Power-on state. With the board's lock held. */
  reset(): void;
}

export interface DimmsOptions {
  readonly config: MachineConfig;
  readonly arena: Arena;
  readonly ports: AddressSpace;
  readonly acpi: AcpiPm;
  readonly lock: Lock;
  readonly slots: MemorySlots;
  readonly event: (e: BoardEvent) => void;
  readonly notify: Notify;
  /** This is the I/O thread, the one that changes shared state; it zeroes memory that has gone, `clear`. */
  readonly ioThread: boolean;
  readonly clear: (gpa: number, length: number) => void;
}

export function buildDimms(o: DimmsOptions): Dimms {
  const { config, lock, slots } = o;
  const dimms: Dimm[] = [];
  const list = (): readonly Dimm[] => dimms;
  const space = dimmSpace(config);
  if (!space) return { list, reset: () => {} };
  const of = (path: string): Dimm | undefined => dimms.find((d) => d.path === path);
  const inSlot = (slot: number): Dimm | undefined => dimms.find((d) => d.slot === slot);
  const hotplug = new MemoryHotplug({
    arena: o.arena,
    slots: space.slots,
    inSlot,
    gpe: (n) => o.acpi.gpe(n),
    eject: (slot) => {
      const path = inSlot(slot)?.path;
      if (path !== undefined) o.event({ kind: 'eject', path });
    },
    ost: (slot, source, status) => {
      const id = inSlot(slot)?.path.split('/machine/peripheral/')[1];
      o.notify('ACPI_DEVICE_OST', {
        info: { ...(id === undefined ? {} : { device: id }), slot: String(slot), 'slot-type': 'DIMM', source, status },
      });
    },
  });
  hotplug.map(o.ports);
  const bus: MemoryBus = {
    kind: 'memory',
    name: 'dimms',
    add(path, wish) {
      const place = placeDimm(space, dimms, wish);
      const dimm = { ...place, path };
      dimms.push(dimm);
      if (o.ioThread) lock.run(() => slots.plug(place.addr, place.size, place.slot));
      return () => {
        dimms.splice(dimms.indexOf(dimm), 1);
        if (!o.ioThread) return;
        lock.run(() => {
          slots.unplug(place.addr, place.size);
          hotplug.gone(place.slot);
        });
        o.clear(place.addr, place.size);
      };
    },
    plugged(path) {
      const dimm = of(path);
      if (dimm) lock.run(() => hotplug.plugged(dimm.slot));
    },
    requestUnplug({ path }) {
      const dimm = of(path);
      if (dimm) lock.run(() => hotplug.request(dimm.slot));
    },
  };
  return { bus, list, reset: () => hotplug.reset() };
}
