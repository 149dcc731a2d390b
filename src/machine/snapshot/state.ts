// Everything of a machine that is not memory, as sections: devices, vCPUs, memory slots; and the manifest that says what machine it was.

import type { MemoryLayout } from '../../accel/accel.ts';
import { readSlot, writeSlot } from '../../accel/slots.ts';
import type { Section } from '../../bits/arena.ts';
import { LOW_PAGES, LowPage, READ_ONLY, SLOTS_MAX, Slot, SlotTable } from '../../bits/slot-table.ts';
import { STAYS } from '../../isa/x86/reset.ts';
import { stateSlots, xcr0 } from '../../isa/x86/state.ts';
import type { Board } from '../board.ts';
import { TSC_KHZ } from '../config.ts';
import type { DeviceConfig } from '../device-type.ts';
import { physicalBitsOf } from '../tables.ts';

/** What must be the same in the machine that takes the state over, and when it was. */
export interface Manifest {
  readonly memory: number;
  readonly extra: number;
  readonly cpus: number;
  /** vCPUs that are there; all when left out. */
  readonly present?: readonly number[];
  readonly machine: string;
  readonly cpuModel: string;
  /** Width of physical addresses; the model's where this is left out. */
  readonly physicalBits?: number;
  /** It has system management mode; it has not when this is left out. */
  readonly smm?: boolean;
  readonly tscKhz: number;
  /** What the guest has turned on in XCR0, of all vCPUs, in hexadecimal digits. */
  readonly xcr0?: string;
  /** ns of the guest's clock. */
  readonly clock: number;
  /** Devices beside the board's, in order, those added later among them. */
  readonly devices: readonly DeviceConfig[];
}

const VCPU_VERSION = 1;
const SLOTS_VERSION = 1;

export function manifestOf(board: Board, buffer: ArrayBufferLike, layout: MemoryLayout): Manifest {
  const { config } = board;
  const view = new DataView(buffer);
  const used = board.cpus
    .list()
    .reduce((all, n) => all | view.getBigUint64(layout.vcpuBase + n * layout.vcpuBytes + xcr0.offset, true), 0n);
  return {
    memory: config.memory,
    extra: layout.extraBytes,
    cpus: config.cpus,
    present: board.cpus.list(),
    machine: config.machine ?? 'bare',
    cpuModel: config.cpuModel,
    physicalBits: physicalBitsOf(config),
    smm: config.smm === true,
    tscKhz: config.tscKhz ?? TSC_KHZ,
    xcr0: used.toString(16),
    clock: board.clock.now(),
    devices: board.devices.list().map((d) => d.config),
  };
}

/** Throws, saying what differs, where the state of that machine does not fit this one. */
export function checkManifest(saved: Manifest, board: Board, buffer: ArrayBufferLike, layout: MemoryLayout): void {
  const here = manifestOf(board, buffer, layout);
  for (const key of ['memory', 'extra', 'cpus', 'machine', 'cpuModel', 'tscKhz'] as const) {
    if (saved[key] !== here[key])
      throw new Error(`Cannot restore a machine with ${key} ${saved[key]}: this one has ${key} ${here[key]}`);
  }
  const width = saved.physicalBits ?? physicalBitsOf({ cpuModel: saved.cpuModel });
  if (width !== here.physicalBits)
    throw new Error(
      `Cannot restore a machine whose physical addresses have ${width} bits: this one's have ${here.physicalBits}; with -cpu …,host-phys-bits=off both have the model's`,
    );
  if ((saved.smm ?? false) !== here.smm)
    throw new Error(`Cannot restore a machine with smm ${saved.smm ? 'on' : 'off'}: this one has it ${here.smm ? 'on' : 'off'}`);
  const there = (saved.present ?? Array.from({ length: saved.cpus }, (_, n) => n)).join(', ');
  const present = board.cpus.list().join(', ');
  if (there !== present) throw new Error(`Cannot restore a machine with the vCPUs ${there}: this one has ${present}`);
}

/** Sections of all state but memory. The machine stands still, with the state of its vCPUs in their slots. */
export function saveSections(board: Board, buffer: ArrayBufferLike, layout: MemoryLayout): Section[] {
  const view = new DataView(buffer);
  const vcpus = board.cpus.list().map((n) => ({
    name: `vcpu/${n}`,
    version: VCPU_VERSION,
    bytes: vcpuState(view, layout.vcpuBase + n * layout.vcpuBytes),
  }));
  return [...board.lock.run(() => board.save()), slotTable(view, layout), ...vcpus];
}

/**
 * Puts sections back. Returns the state of each vCPU by its number, for `putVcpu` once nobody else touches its slots.
 * Throws, with nothing changed, where a section is missing, unknown, or of another version or size.
 */
export function restoreSections(
  sections: readonly Section[],
  board: Board,
  buffer: ArrayBufferLike,
  layout: MemoryLayout,
): ReadonlyMap<number, Uint8Array> {
  const view = new DataView(buffer);
  const own = (s: Section): boolean => s.name.startsWith('vcpu/') || s.name === 'slots';
  const vcpus = new Map(board.cpus.list().map((n) => [n, need(sections, `vcpu/${n}`, VCPU_VERSION).bytes]));
  for (const state of vcpus.values()) readVcpu(state);
  const slots = need(sections, 'slots', SLOTS_VERSION);
  if (slots.bytes.length !== TABLE_BYTES) throw new Error('Cannot restore slots: the section is damaged');
  board.lock.run(() => {
    board.restore(sections.filter((s) => !own(s)));
    restoreTable(view, layout, slots.bytes);
    board.slots.changed();
  });
  return vcpus;
}

/** Puts a vCPU's state into its slots at `env`. Whoever runs it is told by `sync` then. */
export function putVcpu(view: DataView, env: number, state: Uint8Array): void {
  for (const [name, value] of readVcpu(state)) {
    const slot = stateSlots[name]!;
    writeSlot(view, env + slot.offset, slot.access, value);
  }
}

function need(sections: readonly Section[], name: string, version: number): Section {
  const s = sections.find((s) => s.name === name);
  if (!s) throw new Error(`Cannot restore ${name}: the saved state has no such section`);
  if (s.version !== version) throw new Error(`Cannot restore ${name}: version ${s.version}, accepted is ${version}`);
  return s;
}

// -- vCPUs: slots by name, as text, so that their order and places are free to change

function vcpuState(view: DataView, env: number): Uint8Array {
  const state: Record<string, string> = {};
  for (const slot of Object.values(stateSlots)) {
    if (STAYS.has(slot.name)) continue;
    const value = readSlot(view, env + slot.offset, slot.access);
    if (value !== 0n) state[slot.name] = value.toString(16);
  }
  return new TextEncoder().encode(JSON.stringify(state));
}

function readVcpu(bytes: Uint8Array): [string, bigint][] {
  const state = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, string>;
  const unknown = Object.keys(state).find((name) => !stateSlots[name] || STAYS.has(name));
  if (unknown !== undefined) throw new Error(`Cannot restore a vCPU: there is no state of the name ${unknown}`);
  const given = Object.entries(state).map(([name, text]): [string, bigint] => [name, BigInt(`0x${text}`)]);
  // What is not named is zero, which it need not be after a reset.
  const rest = Object.keys(stateSlots).filter((name) => !STAYS.has(name) && !(name in state));
  return [...rest.map((name): [string, bigint] => [name, 0n]), ...given];
}

// -- memory slots, with host addresses counted from the start of RAM

const TABLE_BYTES = LOW_PAGES * 4 + SLOTS_MAX * 24;
/** The bus and plain RAM, which are no addresses. */
const BUS = 0xffff_ffff;
const RAM = 0xffff_fffe;

function slotTable(view: DataView, { slots, ramBase }: MemoryLayout): Section {
  const bytes = new Uint8Array(TABLE_BYTES);
  const d = new DataView(bytes.buffer);
  for (let page = 0; page < LOW_PAGES; page++) {
    const entry = view.getInt32(slots + SlotTable.low + 4 * page, true);
    d.setUint32(4 * page, entry === LowPage.bus ? BUS : entry === LowPage.ram ? RAM : (entry >>> 0) - ramBase, true);
  }
  for (let n = 0; n < SLOTS_MAX; n++) {
    const from = slots + SlotTable.entries + n * Slot.bytes;
    const to = LOW_PAGES * 4 + 24 * n;
    d.setBigInt64(to, view.getBigInt64(from + Slot.gpa, true), true);
    d.setBigInt64(to + 8, view.getBigInt64(from + Slot.length, true), true);
    d.setUint32(to + 16, view.getUint32(from + Slot.host, true) - ramBase, true);
  }
  return { name: 'slots', version: SLOTS_VERSION, bytes };
}

function restoreTable(view: DataView, layout: MemoryLayout, bytes: Uint8Array): void {
  const { slots, ramBase, guestBytes } = layout;
  const d = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const inside = (offset: number, length: number): boolean => {
    const at = offset - (offset & READ_ONLY);
    return at % 4096 === 0 && length >= 0 && length % 4096 === 0 && at + length <= guestBytes;
  };
  for (let page = 0; page < LOW_PAGES; page++) {
    const entry = d.getUint32(4 * page, true);
    if (entry !== BUS && entry !== RAM && !inside(entry, 4096))
      throw new Error('Cannot restore slots: a page lies outside memory');
    const value = entry === BUS ? LowPage.bus : entry === RAM ? LowPage.ram : (entry + ramBase) | 0;
    view.setInt32(slots + SlotTable.low + 4 * page, value, true);
  }
  let count = 0;
  for (let n = 0; n < SLOTS_MAX; n++) {
    const from = LOW_PAGES * 4 + 24 * n;
    const to = slots + SlotTable.entries + n * Slot.bytes;
    const length = Number(d.getBigInt64(from + 8, true));
    const host = d.getUint32(from + 16, true);
    if (length !== 0 && !inside(host, length)) throw new Error('Cannot restore slots: a slot lies outside memory');
    view.setBigInt64(to + Slot.gpa, d.getBigInt64(from, true), true);
    view.setBigInt64(to + Slot.length, BigInt(length), true);
    view.setUint32(to + Slot.host, length === 0 ? 0 : host + ramBase, true);
    if (length !== 0) count = n + 1;
  }
  const counter = slots + SlotTable.count;
  view.setInt32(counter, Math.max(count, view.getInt32(counter, true)), true);
}
