// The machine's memory as KVM memory slots: guest RAM, and what the table of memory slots (bits/slot-table.ts) says of the first MiB and of
// RAM-like pages elsewhere. Any thread may bring KVM up to date, under the board's lock; what is installed is kept in shared memory.

import {
  LOW_PAGES,
  LowPage,
  PLUG_GRANULE,
  PLUG_SLOTS_MAX,
  READ_ONLY,
  SLOTS_MAX,
  Slot,
  SlotTable,
  smramAt,
} from '../../bits/slot-table.ts';
import { struct } from '../../bits/struct.ts';
import type { MemoryLayout } from '../accel.ts';
import type { KvmVm } from './vm.ts';

const PAGE = 4096;
/** Page numbers below 1 MiB at which a region always ends, so that a change of one part never takes another away for a moment. */
const isBoundary = (page: number): boolean => page === 0xa0 || page === 0xb0 || (page >= 0xc0 && page % 4 === 0);
/** Parts at the end of the RAM below 4 GiB that may be hidden (`KvmShare.hiding`). */
const PARTS_MAX = 4;
/** More cannot be: pages below 1 MiB one by one, two pieces of RAM and the parts of one, what was plugged in, and the slots. */
const REGIONS_MAX = LOW_PAGES + 2 + PARTS_MAX + SLOTS_MAX + PLUG_SLOTS_MAX;

/** What is installed, by KVM slot; length 0 for a free one. Columns: rows would be an object each, made in each thread that looks. */
export const regionsLayout = struct({
  gpa: ['f64', REGIONS_MAX],
  length: ['f64', REGIONS_MAX],
  host: ['f64', REGIONS_MAX],
  flags: ['u32', REGIONS_MAX],
});

interface Region {
  readonly gpa: number;
  readonly length: number;
  readonly host: number;
  readonly readOnly: boolean;
}
const READONLY_FLAG = 1;
const LOG_FLAG = 2;

/**
 * Regions that the layout and the table ask for, by address. What `hiding` names (`KvmShare.hiding`) are regions apart: to hide some of them takes nothing of
 * the rest away, which other vCPUs may be executing.
 */
export function wantedRegions(view: DataView, layout: MemoryLayout, hiding: readonly number[] = []): Region[] {
  const { ramBase, ramLow, ramHigh, ramHighBase, slots } = layout;
  const regions: Region[] = [];
  const add = (gpa: number, length: number, host: number, readOnly: boolean): void => {
    const last = regions.at(-1);
    const joins =
      last !== undefined &&
      gpa < LOW_PAGES * PAGE &&
      !isBoundary(gpa / PAGE) &&
      last.gpa + last.length === gpa &&
      last.host + last.length === host &&
      last.readOnly === readOnly;
    if (joins) regions[regions.length - 1] = { ...last, length: last.length + length };
    else regions.push({ gpa, length, host, readOnly });
  };
  for (let page = 0; page < LOW_PAGES && page * PAGE < ramLow; page++) {
    // What only system management mode shows, no region does: the translator has vCPUs in it.
    const open = smramAt(view, slots, page * PAGE, false);
    const entry = open ? LowPage.ram : view.getInt32(slots + SlotTable.low + page * 4, true);
    if (entry === LowPage.bus) continue;
    const host = entry === LowPage.ram ? ramBase + page * PAGE : (entry & ~READ_ONLY) >>> 0;
    add(page * PAGE, PAGE, host, entry !== LowPage.ram && (entry & READ_ONLY) !== 0);
  }
  const low = LOW_PAGES * PAGE;
  const shown = ramLow - view.getInt32(slots + SlotTable.tseg, true);
  const ends = [...new Set([...hiding.map((bytes) => ramLow - bytes), shown])].filter((end) => end > low && end <= shown);
  ends
    .sort((a, b) => a - b)
    .forEach((end, n) => {
      const gpa = ends[n - 1] ?? low;
      regions.push({ gpa, length: end - gpa, host: ramBase + gpa, readOnly: false });
    });
  if (ramHigh > 0) regions.push({ gpa: 2 ** 32, length: ramHigh, host: ramHighBase, readOnly: false });
  for (const [gpa, length] of pluggedPieces(view, layout))
    regions.push({ gpa, length, host: ramHighBase + gpa - 2 ** 32, readOnly: false });
  for (let n = 0; n < view.getInt32(slots + SlotTable.count, true); n++) {
    const at = slots + SlotTable.entries + n * Slot.bytes;
    const length = Number(view.getBigInt64(at + Slot.length, true));
    const host = view.getUint32(at + Slot.host, true);
    if (length > 0) {
      const gpa = Number(view.getBigInt64(at + Slot.gpa, true));
      regions.push({ gpa, length, host: (host & ~READ_ONLY) >>> 0, readOnly: (host & READ_ONLY) !== 0 });
    }
  }
  return regions;
}

/** Address and bytes of each piece of memory that was plugged in; neighbours' entries in the map differ. */
function pluggedPieces(view: DataView, { plugBase, plugBytes, plugMap }: MemoryLayout): readonly (readonly [number, number])[] {
  const pieces: [number, number][] = [];
  let before = 0;
  for (let gpa = plugBase; gpa < plugBase + plugBytes; gpa += PLUG_GRANULE) {
    const entry = view.getUint8(plugMap + (gpa - 2 ** 32) / PLUG_GRANULE);
    if (entry !== 0 && entry === before) pieces.at(-1)![1] += PLUG_GRANULE;
    else if (entry !== 0) pieces.push([gpa, PLUG_GRANULE]);
    before = entry;
  }
  return pieces;
}

export class KvmRegions {
  readonly #vm: KvmVm;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #layout: MemoryLayout;
  readonly #s;

  constructor(vm: KvmVm, memory: SharedArrayBuffer, layout: MemoryLayout) {
    this.#vm = vm;
    this.#bytes = new Uint8Array(memory);
    this.#view = new DataView(memory);
    this.#layout = layout;
    this.#s = regionsLayout.view(memory, layout.regions);
  }

  /** Makes KVM's slots what the table says. With the board's lock held, or before any vCPU runs. */
  update(): void {
    const wanted = wantedRegions(this.#view, this.#layout, this.#vm.share.hiding);
    const key = (gpa: number, length: number, host: number, readOnly: boolean): string => `${gpa} ${length} ${host} ${readOnly}`;
    const missing = new Map(wanted.map((r) => [key(r.gpa, r.length, r.host, r.readOnly), r]));
    const { gpa, length, host, flags } = this.#s;
    for (let slot = 0; slot < REGIONS_MAX; slot++) {
      if (length[slot] === 0) continue;
      const readOnly = (flags[slot]! & READONLY_FLAG) !== 0;
      if (missing.delete(key(gpa[slot]!, length[slot]!, host[slot]!, readOnly))) continue;
      this.#vm.setRegion(slot, gpa[slot]!, undefined);
      length[slot] = 0;
    }
    let slot = 0;
    for (const r of missing.values()) {
      while (length[slot] !== 0) slot++;
      this.#set(slot, r, r.readOnly);
      gpa[slot] = r.gpa;
      length[slot] = r.length;
      host[slot] = r.host;
      flags[slot] = (r.readOnly ? READONLY_FLAG : 0) | (this.#log ? LOG_FLAG : 0);
    }
  }
  #log = false;
  #set(slot: number, r: { gpa: number; length: number; host: number }, readonly: boolean): void {
    this.#vm.setRegion(slot, r.gpa, this.#bytes.subarray(r.host, r.host + r.length), { readonly, logDirty: this.#log });
  }

  /** Slots with a region that has all of these flags. */
  #slots(mask: number): number[] {
    const { length, flags } = this.#s;
    return Array.from(length.keys()).filter((slot) => length[slot] !== 0 && (flags[slot]! & mask) === mask);
  }
  /** Has the kernel note which pages are written, or no more. The vCPUs are held. */
  logDirty(on: boolean): void {
    this.#log = on;
    const { gpa, length, host, flags } = this.#s;
    for (const slot of this.#slots(0)) {
      if (((flags[slot]! & LOG_FLAG) !== 0) === on) continue;
      flags[slot] = (flags[slot]! & ~LOG_FLAG) | (on ? LOG_FLAG : 0);
      const region = { gpa: gpa[slot]!, length: length[slot]!, host: host[slot]! };
      this.#set(slot, region, (flags[slot]! & READONLY_FLAG) !== 0);
    }
  }
  /** Page `page` of slot `slot` was written, says a vCPU's dirty ring: puts 0 into the machine's map. */
  written(slot: number, page: number): void {
    const { length, host, flags } = this.#s;
    const bytes = length[slot];
    if (bytes !== undefined && page < bytes / PAGE && (flags[slot]! & LOG_FLAG) !== 0)
      this.#bytes[this.#layout.dirtyMap + (host[slot]! - this.#layout.ramBase) / PAGE + page] = 0;
  }
  /** Puts 0 into `map`, by page from the start of RAM, for each that was written since the last time. */
  takeDirty(map: Uint8Array): void {
    if (this.#vm.share.dirtyRing !== undefined) {
      // The vCPUs have put in what their rings held, as they were held.
      this.#vm.resetDirtyRings();
      return;
    }
    const { length, host } = this.#s;
    for (const slot of this.#slots(LOG_FLAG)) {
      const first = (host[slot]! - this.#layout.ramBase) / PAGE;
      const words = this.#vm.dirtyLog(slot, length[slot]! / PAGE);
      for (let w = 0; w < words.length; w++) {
        for (let bits = words[w]!; bits !== 0; bits &= bits - 1) map[first + w * 32 + 31 - Math.clz32(bits & -bits)] = 0;
      }
    }
  }
}
