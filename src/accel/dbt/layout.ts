// Where things lie in the shared memory of a machine that runs on the translator.

import { PLUG_GRANULE, SLOT_TABLE_BYTES } from '../../bits/slot-table.ts';
import {
  BLOCK_ENTRIES,
  BLOCK_ENTRY_BYTES,
  JUMP_ENTRIES,
  JUMP_ENTRY_BYTES,
  PIECE_ENTRIES,
  PIECE_ENTRY_BYTES,
  STATE_BYTES,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
} from '../../isa/x86/state.ts';
import { isWide } from '../../wasm/module.ts';
import { LOW_RAM_MAX, type MemoryLayout, plugBaseOf } from '../accel.ts';
import { doorbellsLayout } from '../kvm/doorbells.ts';
import { holdingsLayout } from '../kvm/holdings.ts';
import { regionsLayout } from '../kvm/regions.ts';

/** Entries of the shadow stack are return addresses of 8 bytes. */
export const SHADOW_BYTES = 512;
/** Most regions of a vCPU, ways out of one that remember their target, and bytes of each of these. */
export const REGIONS_MAX = 4096;
export const REGION_SITES = 32;
export const SITE_BYTES = 64;
/** Most cells of a region, and bytes of one. */
export const REGION_CELLS = 64;
export const CELL_BYTES = 32;

/** Offsets in a vCPU's private area: each part lies behind the one before. */
const tlbs = Math.ceil(STATE_BYTES / 4096) * 4096;
const mailbox = tlbs + 4 * TLB_ENTRIES * TLB_ENTRY_BYTES;
const exits = mailbox + 4096;
const jumpCache = exits + 4096;
const blocks = jumpCache + JUMP_ENTRIES * JUMP_ENTRY_BYTES;
const pieces = blocks + BLOCK_ENTRIES * BLOCK_ENTRY_BYTES;
const profile = pieces + PIECE_ENTRIES * PIECE_ENTRY_BYTES;
const arrivals = profile + 65536 * 4;
const shadow = arrivals + 8192 * 2;
const sites = shadow + SHADOW_BYTES + SITE_BYTES;
const cells = sites + REGIONS_MAX * REGION_SITES * SITE_BYTES;
export const Area = {
  state: 0,
  tlbs,
  /** Requests from other vCPUs: see mailbox.ts. */
  mailbox,
  /** Counters: see counters.ts. */
  counters: mailbox + 4096 - 512,
  /** Exits of a vCPU on KVM: see kvm/counters.ts. */
  exits,
  jumpCache,
  /** Decoded blocks by guest-physical address: see isa/x86/fetch.ts. */
  blocks,
  /** Which 64 bytes of pages hold decoded code: see isa/x86/memory.ts. */
  pieces,
  /** Executions by handler number (u32 each), where tier 0 was built to count them. */
  profile,
  /** Arrivals at blocks without a region (u16 each, by record): see tier0.ts. */
  arrivals,
  /** The shadow stack of calls between regions, a guard entry first: see chain.ts. */
  shadow,
  /** Ways out of regions, with what is known of their targets: see chain.ts. In front of them is one that never holds anything. */
  sites,
  /** The cells of regions: TLB entries of single instructions, see cells.ts. */
  cells,
  records: cells + REGIONS_MAX * REGION_CELLS * CELL_BYTES,
} as const;

/** Where the first vCPU's area lies in each machine. */
export const VCPU_BASE = 64 << 10;
/** Bytes for pre-decoded records of each vCPU. */
export const RECORD_ARENA = 32 << 20;
const DEVICE_BYTES = 8 << 20;
const MIB = 1 << 20;
/** KVM maps the guest's pages by the host's large ones only where guest-physical addresses and the host's agree below this. */
const LARGE_PAGE = 2 * MIB;

const align = (n: number, to: number): number => Math.ceil(n / to) * to;

export { isWide };

/** Most pages of 64 KiB that V8 takes for a shared memory with 64-bit addresses. */
export const WIDE_PAGES_MAX = 262144;
const GIB4 = 2 ** 32;

/**
 * Lays out a machine of `memory` bytes, `cpus` vCPUs and `extra` bytes for memory slots, with room to plug in `plug` bytes more. The WebAssembly
 * memory has 64-bit addresses where it would not fit otherwise, or where `wide` asks for it; all but guest RAM from 4 GiB up lies in its first
 * 4 GiB. There is room for `alignRam`. Throws where it does not fit.
 */
export function layoutOf(memory: number, cpus: number, extra = 0, wide = false, plug = 0): MemoryLayout {
  const vcpuBase = VCPU_BASE;
  const vcpuBytes = align(Area.records + RECORD_ARENA, 64 << 10);
  const devices = vcpuBase + cpus * vcpuBytes;
  const slots = devices + DEVICE_BYTES;
  const ramLow = Math.min(memory, LOW_RAM_MAX);
  // What is behind it begins at 4 GiB.
  const extraBytes = align(extra, memory > ramLow || plug > 0 ? LARGE_PAGE : 4096);
  const regions = slots + align(SLOT_TABLE_BYTES, 4096);
  const doorbells = regions + align(regionsLayout.size, 4096);
  const holdings = doorbells + align(doorbellsLayout.size, 4096);
  const codeMap = holdings + align(holdingsLayout.size, 4096);
  const ramHigh = memory - ramLow;
  const plugBase = plug > 0 ? plugBaseOf(memory) : 0;
  const guestBytes = ramLow + extraBytes + (plug > 0 ? plugBase - GIB4 + plug : ramHigh);
  const dirtyMap = codeMap + guestBytes / 4096;
  const openMap = dirtyMap + guestBytes / 4096;
  const plugMap = openMap + guestBytes / 4096;
  const ramBase = align(plugMap + guestBytes / PLUG_GRANULE, 64 << 10);
  const ramHighBase = ramBase + ramLow + extraBytes;
  const pages = align(ramBase + LARGE_PAGE + guestBytes, 64 << 10) / 65536;
  if (pages > WIDE_PAGES_MAX) {
    // Each page takes a byte of each of the three maps; what is rounded up comes to 64 KiB twice at the most.
    const all = memory + plug;
    const beside = codeMap + extraBytes + (3 * extraBytes) / 4096 + LARGE_PAGE + (128 << 10);
    const room = (WIDE_PAGES_MAX * 65536 - beside) / (1 + 3 / 4096) - (guestBytes - extraBytes - all);
    throw new Error(
      `Cannot give the guest ${Math.ceil(all / MIB)} MiB of memory${plug > 0 ? ' (maxmem)' : ''}: at most ${Math.floor(room / MIB)} MiB are accepted with ${cpus} vCPUs`,
    );
  }
  if (ramHighBase + LARGE_PAGE > GIB4)
    throw new Error(
      `Cannot give the guest ${cpus} vCPUs with ${Math.ceil(memory / MIB)} MiB of memory: a vCPU takes ${Math.ceil(vcpuBytes / MIB)} MiB of 4 GiB, which devices and guest RAM up to 2 GiB share`,
    );
  return {
    ramBase, ramLow, ramHigh, ramHighBase, plugBase, plugBytes: plug, plugMap, guestBytes, vcpuBase, vcpuBytes, extraBytes, slots, regions, doorbells, holdings, codeMap, dirtyMap, openMap, devices, deviceBytes: DEVICE_BYTES, pages: wide ? Math.max(pages, 65537) : pages,
  }; // biome-ignore format: one object
}

/** The layout in a memory that lies at `address` of the host, with guest RAM where the host's large pages can be the guest's. */
export function alignRam(layout: MemoryLayout, address: bigint): MemoryLayout {
  const by = Number(-(address + BigInt(layout.ramBase)) & BigInt(LARGE_PAGE - 1));
  return { ...layout, ramBase: layout.ramBase + by, ramHighBase: layout.ramHighBase + by };
}

/** A new memory for a machine of this layout. */
export function createMemory(layout: MemoryLayout): WebAssembly.Memory {
  const { pages } = layout;
  if (!isWide(pages)) return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  // TypeScript's declarations do not have the form with an address type yet.
  const wide = { address: 'i64', initial: BigInt(pages), maximum: BigInt(pages), shared: true };
  return new WebAssembly.Memory(wide as never);
}
