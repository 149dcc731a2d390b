// The physical memory map as the BIOS call E820 reports it: ACPI 6.4, section 15.1 "INT 15H, E820H" and table 15.6.

import { GIB4 } from './target.ts';

export const E820_RAM = 1;
export const E820_RESERVED = 2;
export const E820_ACPI = 3;
export const E820_NVS = 4;

export interface MemoryRange {
  readonly start: number;
  readonly size: number;
  /** `E820_RAM`, `E820_RESERVED`, `E820_ACPI` or `E820_NVS`. */
  readonly type: number;
}

export interface MemoryLayout {
  readonly ramBelow4G: number;
  readonly ramAbove4G: number;
  /** Ranges that are not free RAM, inside RAM or outside of it; they may not overlap each other. */
  readonly reserved?: readonly MemoryRange[];
}

/** The EBDA's usual place and the BIOS area, where ACPI and SMBIOS tables are. */
export const pcReserved: readonly MemoryRange[] = [
  { start: 0x9fc00, size: 0x400, type: E820_RESERVED },
  { start: 0xe0000, size: 0x20000, type: E820_RESERVED },
];

/**
 * The map of a PC, sorted, without overlaps: RAM outside the VGA and BIOS hole, minus `pcReserved` and `layout.reserved`.
 * Neighbours of one type stay apart.
 */
export const buildE820 = (layout: MemoryLayout): MemoryRange[] => {
  const reserved = [...pcReserved, ...(layout.reserved ?? [])].filter((r) => r.size > 0).sort((a, b) => a.start - b.start);
  for (const [i, range] of reserved.entries()) {
    const before = reserved[i - 1];
    if (before && before.start + before.size > range.start) {
      throw new Error(
        `Cannot build the memory map: reserved ranges at 0x${before.start.toString(16)} and 0x${range.start.toString(16)} overlap`,
      );
    }
  }
  const ram = [
    { start: 0, end: Math.min(0xa0000, layout.ramBelow4G) },
    { start: 0x100000, end: layout.ramBelow4G },
    { start: GIB4, end: GIB4 + layout.ramAbove4G },
  ];
  const map: MemoryRange[] = [...reserved];
  for (const { start, end } of ram) {
    let from = start;
    for (const hole of reserved) {
      if (hole.start + hole.size <= from || hole.start >= end) continue;
      if (hole.start > from) map.push({ start: from, size: hole.start - from, type: E820_RAM });
      from = hole.start + hole.size;
    }
    if (from < end) map.push({ start: from, size: end - from, type: E820_RAM });
  }
  return map.sort((a, b) => a.start - b.start);
};

/** The map as the 20-byte records of the BIOS call and of Linux's zero page: u64 start, u64 size, u32 type. */
export const encodeE820 = (map: readonly MemoryRange[]): Uint8Array => {
  const bytes = new Uint8Array(map.length * 20);
  const view = new DataView(bytes.buffer);
  for (const [i, range] of map.entries()) {
    view.setBigUint64(i * 20, BigInt(range.start), true);
    view.setBigUint64(i * 20 + 8, BigInt(range.size), true);
    view.setUint32(i * 20 + 16, range.type, true);
  }
  return bytes;
};
