// The table of memory slots in a machine's shared memory: what guest-physical pages are apart from plain RAM. Page walks read it, boards write it.

/** Pages of 4 KiB below 1 MiB that have an entry of their own. */
export const LOW_PAGES = 256;
/** Slots above. */
export const SLOTS_MAX = 64;

/** Byte offsets in the table. */
export const SlotTable = {
  /** i32 by page: `LowPage`, or the host address of the page with `READ_ONLY`. */
  low: 0,
  /** i32, counted up by each change: TLBs filled before are stale. */
  generation: 1024,
  /** i32, counted up where a page that holds decoded code changes: decoded code is stale. */
  codeGeneration: 1028,
  /** i32: entries in use. */
  count: 1032,
  /** i32, bits of `Smram`: RAM below 1 MiB that shows in place of what the pages' entries say. */
  smram: 1036,
  /** i32: bytes at the end of the RAM below 4 GiB that show in system management mode alone. */
  tseg: 1040,
  /** i32 host address of the map of memory that was plugged in: a byte for each `PLUG_GRANULE` from 4 GiB up, 0 where there is none. */
  plugMap: 1044,
  /** i64: bytes from 4 GiB up that the map tells of; 0 where memory cannot be plugged in. */
  plugSpan: 1048,
  /** i32, counted up by each change of the map. */
  plugGeneration: 1056,
  /** Entries of 32 bytes: see `Slot`. */
  entries: 2048,
} as const;

/** Byte offsets in an entry. */
export const Slot = {
  /** i64, a multiple of 4,096. */
  gpa: 0,
  /** i64; 0 while the slot is not mapped. */
  length: 8,
  /** i32 host address, a multiple of 4,096, with `READ_ONLY`. */
  host: 16,
  bytes: 32,
} as const;

/** Memory is plugged in by so many bytes at multiples of them (QEMU's alignment of memory back-ends on x86). */
export const PLUG_GRANULE = 2 << 20;
/** Pieces of memory that can be plugged in (QEMU's `ACPI_MAX_RAM_SLOTS`). */
export const PLUG_SLOTS_MAX = 256;

/** Bits of `SlotTable.smram`: the window of the VGA is RAM for all, or in system management mode. */
export const Smram = { open: 1, low: 2 } as const;
/** That window: guest-physical address and bytes. */
export const smramWindow = { base: 0xa_0000, bytes: 0x2_0000 } as const;
const inWindow = (from: number, to: number): boolean => from < smramWindow.base + smramWindow.bytes && to > smramWindow.base;

/** Entries of the first MiB that are no host address. `ram`: as if there were no table; `bus`: nothing but the bus. */
export const LowPage = { ram: 0, bus: -1 } as const;
/** In a host address: writes go to the bus. */
export const READ_ONLY = 1;

export const SLOT_TABLE_BYTES = SlotTable.entries + SLOTS_MAX * Slot.bytes;

/** True where the RAM at `gpa` shows in place of what `slotAt` says: SMRAM, for a vCPU in system management mode or not. */
export function smramAt(view: DataView, table: number, gpa: number, inMode: boolean): boolean {
  if (!inWindow(gpa, gpa + 1)) return false;
  return (view.getInt32(table + SlotTable.smram, true) & (Smram.open | (inMode ? Smram.low : 0))) !== 0;
}

/** True where SMRAM hides some of the RAM from `from` to `to` (guest-physical) from devices; `ramLow` is the RAM below 4 GiB. */
export function smramHides(view: DataView, table: number, ramLow: number, from: number, to: number): boolean {
  const flags = view.getInt32(table + SlotTable.smram, true);
  const tseg = view.getInt32(table + SlotTable.tseg, true);
  if ((flags | tseg) === 0) return false;
  if (from < ramLow && to > ramLow - tseg) return true;
  return flags === Smram.low && inWindow(from, to);
}

/** What the table says of the page at `gpa`: its host address with `READ_ONLY`, -1 for the bus, 0 for nothing. */
export function slotAt(view: DataView, table: number, gpa: number): number {
  if (gpa < LOW_PAGES * 4096) return view.getInt32(table + SlotTable.low + (gpa >>> 12) * 4, true);
  for (let n = view.getInt32(table + SlotTable.count, true); n-- > 0; ) {
    const slot = table + SlotTable.entries + n * Slot.bytes;
    const offset = gpa - Number(view.getBigInt64(slot + Slot.gpa, true));
    if (offset >= 0 && offset < Number(view.getBigInt64(slot + Slot.length, true)))
      return (view.getUint32(slot + Slot.host, true) + offset) | 0;
  }
  return 0;
}

/** True where memory is plugged in at `gpa`. */
export function pluggedAt(view: DataView, table: number, gpa: number): boolean {
  const above = gpa - 2 ** 32;
  if (above < 0 || above >= Number(view.getBigInt64(table + SlotTable.plugSpan, true))) return false;
  return view.getUint8(view.getInt32(table + SlotTable.plugMap, true) + Math.floor(above / PLUG_GRANULE)) !== 0;
}

/** The guest-physical address of a host address in a mapped slot above 1 MiB; -1 where there is none. */
export function slotOf(view: DataView, table: number, host: number): number {
  for (let n = view.getInt32(table + SlotTable.count, true); n-- > 0; ) {
    const slot = table + SlotTable.entries + n * Slot.bytes;
    const offset = host - ((view.getUint32(slot + Slot.host, true) & ~READ_ONLY) >>> 0);
    if (offset >= 0 && offset < Number(view.getBigInt64(slot + Slot.length, true)))
      return Number(view.getBigInt64(slot + Slot.gpa, true)) + offset;
  }
  return -1;
}
