// What the prover of emitted code (prove.ts) knows of memory beside the code: which slots and tables hold pointers, what subroutines take and
// give, and who may write what of a vCPU's area. Each line here is checked where the function is, and relied on where it is called.

import { LOW_PAGES, SLOT_TABLE_BYTES, SLOTS_MAX, Slot, SlotTable } from '../../bits/slot-table.ts';
import { RECORD_BYTES, recordPlaces } from '../../isa/x86/record.ts';
import * as st from '../../isa/x86/state.ts';
import { Area, CELL_BYTES, RECORD_ARENA, REGION_CELLS, REGION_SITES, REGIONS_MAX, SHADOW_BYTES, SITE_BYTES } from './layout.ts';
import { type RangeTag, type Tag, within } from './prove-tags.ts';

const TLB_BYTES = st.TLB_ENTRIES * st.TLB_ENTRY_BYTES;

/** A part of a vCPU's area: offsets of its first byte and behind its last one, and bytes of an entry. */
export interface Part {
  readonly from: number;
  readonly to: number;
  readonly entry: number;
}
const part = (from: number, bytes: number, entry: number): Part => ({ from, to: from + bytes, entry });
export const parts = {
  state: part(Area.state, st.STATE_BYTES, 1),
  tlbs: part(Area.tlbs, 4 * TLB_BYTES, st.TLB_ENTRY_BYTES),
  jumpCache: part(Area.jumpCache, st.JUMP_ENTRIES * st.JUMP_ENTRY_BYTES, st.JUMP_ENTRY_BYTES),
  blocks: part(Area.blocks, st.BLOCK_ENTRIES * st.BLOCK_ENTRY_BYTES, st.BLOCK_ENTRY_BYTES),
  arrivals: part(Area.arrivals, 8192 * 2, 2),
  shadow: part(Area.shadow, SHADOW_BYTES, 8),
  /** With the one in front that never holds anything. */
  sites: part(Area.sites - SITE_BYTES, SITE_BYTES + REGIONS_MAX * REGION_SITES * SITE_BYTES, SITE_BYTES),
  cells: part(Area.cells, REGIONS_MAX * REGION_CELLS * CELL_BYTES, CELL_BYTES),
  records: part(Area.records, RECORD_ARENA, RECORD_BYTES),
} as const;
export type PartName = keyof typeof parts;

/** Bytes below the first vCPU's area: two words of locks, and nothing else. What a pointer that may be 0 leads to then. */
export const LOCK_BYTES = 64 << 10;

const entryOf = (name: PartName, zero = false): RangeTag =>
  within('env', parts[name].from, parts[name].to, parts[name].entry, zero);
export const RECORD = entryOf('records');
export const RECORD_OR_NONE = entryOf('records', true);
export const TLB_ENTRY_OR_NONE = entryOf('tlbs', true);
export const CELL_OR_NONE = entryOf('cells', true);
const at = (offset: number, zero = false): RangeTag => within('env', offset, offset + 1, 1, zero);
/** An entry of the table of memory slots. */
export const SLOT_ENTRY = within('slots', SlotTable.entries, SlotTable.entries + SLOTS_MAX * Slot.bytes, Slot.bytes, false);
export { LOW_PAGES, SLOT_TABLE_BYTES, Slot, SlotTable };

/** Slots of the state that hold pointers or what pointers are made of, and their bytes. `fixed`: code never writes it. */
export interface PointerSlot {
  readonly tag: Tag;
  readonly bytes: number;
  readonly fixed: boolean;
}
const anyTlb = within('env', Area.tlbs, Area.tlbs + 4 * TLB_BYTES, TLB_BYTES, false);
export const pointers: ReadonlyMap<number, PointerSlot> = new Map<number, PointerSlot>([
  ...[st.tlb, st.tlbSystem].map((s) => [s.offset, { tag: anyTlb, bytes: 4, fixed: false }] as const),
  ...[st.tlbNone, ...st.tlbs].map((s) => [s.offset, { tag: anyTlb, bytes: 4, fixed: true }] as const),
  [st.callTop.offset, { tag: within('env', Area.shadow, Area.shadow + SHADOW_BYTES, 8, false), bytes: 4, fixed: false }],
  [st.jumpCache.offset, { tag: at(Area.jumpCache), bytes: 4, fixed: true }],
  [st.blockTable.offset, { tag: at(Area.blocks, true), bytes: 4, fixed: true }],
  [st.codePieces.offset, { tag: at(Area.pieces, true), bytes: 4, fixed: true }],
  [st.cellKey.offset, { tag: { kind: 'key' }, bytes: 8, fixed: false }],
  [st.tlbChain.offset, { tag: TLB_ENTRY_OR_NONE, bytes: 4, fixed: false }],
  [st.cellChain.offset, { tag: CELL_OR_NONE, bytes: 4, fixed: false }],
  [st.storing.offset, { tag: RECORD_OR_NONE, bytes: 4, fixed: false }],
  [st.monitorLine.offset, { tag: { kind: 'host', bytes: 64, lo: 0, hi: 0, zero: true, outside: false }, bytes: 8, fixed: false }],
  [st.slotTable.offset, { tag: within('slots', 0, 1, 1, true), bytes: 4, fixed: true }],
  [st.ramBase.offset, { tag: { kind: 'ram', high: false }, bytes: 4, fixed: true }],
  [st.ramSplit.offset, { tag: { kind: 'ram', high: true }, bytes: 4, fixed: true }],
  [st.ramLow.offset, { tag: { kind: 'other' }, bytes: 4, fixed: true }],
  [st.ramHigh.offset, { tag: { kind: 'other' }, bytes: 8, fixed: true }],
  [st.addendShift.offset, { tag: { kind: 'other' }, bytes: 4, fixed: true }],
  [st.codeMap.offset, { tag: { kind: 'map', writable: false, zero: false }, bytes: 4, fixed: true }],
  [st.dirtyMap.offset, { tag: { kind: 'map', writable: true, zero: true }, bytes: 4, fixed: true }],
  [st.openMap.offset, { tag: { kind: 'map', writable: true, zero: true }, bytes: 4, fixed: true }],
]);

/** Places that the fields of records with these offsets may hold: see isa/x86/record.ts, which writes no others. */
export const places: ReadonlyMap<number, readonly number[]> = recordPlaces();

/** What a subroutine takes in a parameter: a pointer of a kind; or RAM, or what is outside of it, for 1 << the parameter `log2`; a byte of RAM; a page. */
export type Take =
  | { readonly need: 'tag'; readonly tag: Tag }
  | { readonly need: 'piece'; readonly log2: number }
  | { readonly need: 'ram' }
  | { readonly need: 'word' }
  | { readonly need: 'frame' };
/** What it gives: a pointer of a kind; where the guest's address in parameter `of` lies, up to its page's end; as many bytes as a look asks for. */
export type Give =
  | { readonly give: 'tag'; readonly tag: Tag }
  | { readonly give: 'page'; readonly of: number; readonly zero: boolean; readonly outside: boolean }
  | { readonly give: 'sum'; readonly a: number; readonly b: number }
  | { readonly give: 'look'; readonly of: number; readonly look: number };

export interface Contract {
  /** By number of the parameter; the state is 0, where it is one. */
  readonly takes?: Readonly<Record<number, Take>>;
  readonly gives?: Give;
  /** Where an exception is pending it gives 0, and only then. */
  readonly pending?: boolean;
  /** It gives -1 only with an exception pending. */
  readonly fails?: boolean;
  /** It leaves an exception pending. */
  readonly raises?: boolean;
  /** Parts of the area that it may write besides slots of the state. */
  readonly writes?: readonly PartName[];
}
const index = (last: number): Take => ({ need: 'tag', tag: within('number', 0, last + 1, 1, false) });
/** The third parameter is the cell. */
const look: Contract = {
  takes: { 3: { need: 'tag', tag: within('number', parts.cells.from, parts.cells.to, CELL_BYTES, false) } },
  gives: { give: 'look', of: 1, look: 2 },
  writes: ['cells'],
};
const flush: Contract = { writes: ['tlbs', 'jumpCache', 'cells'] };

export const contracts: Readonly<Record<string, Contract>> = {
  // The host's.
  resolve: { gives: { give: 'tag', tag: RECORD_OR_NONE } },
  cas: { takes: { 0: { need: 'word' } } },
  // Memory.
  ramAddress: { gives: { give: 'page', of: 1, zero: true, outside: false } },
  pageAddress: { takes: { 1: { need: 'frame' } }, gives: { give: 'tag', tag: { kind: 'flagged', zero: true, bus: false } } },
  physicalOf: {},
  pageFault: { raises: true },
  walk: { fails: true },
  after: { gives: { give: 'sum', a: 1, b: 2 } },
  place: { gives: { give: 'page', of: 1, zero: false, outside: true }, pending: true, writes: ['tlbs'] },
  tlbFill: {
    gives: { give: 'page', of: 1, zero: false, outside: true },
    pending: true,
    writes: ['tlbs'],
  },
  hostSpan: { gives: { give: 'page', of: 1, zero: true, outside: false } },
  readPlace: { takes: { 1: { need: 'piece', log2: 2 } } },
  writePlace: { takes: { 1: { need: 'piece', log2: 3 } } },
  noteWrite: { takes: { 1: { need: 'ram' } } },
  casWithin: { takes: { 1: { need: 'ram' } } },
  lineDigest: { takes: { 1: { need: 'tag', tag: { kind: 'host', bytes: 64, lo: 0, hi: 0, zero: false, outside: false } } } },
  // TLBs and caches.
  flushAll: flush,
  flushNonGlobal: flush,
  flushPage: flush,
  flushLarge: flush,
  protectPage: flush,
  cellLook: look,
  pageLook: look,
  chainMiss: { takes: { 1: { need: 'tag', tag: entryOf('sites', true) } }, writes: ['sites'] },
  // Code.
  lookup: { gives: { give: 'tag', tag: RECORD_OR_NONE } },
  find: { gives: { give: 'tag', tag: RECORD_OR_NONE }, writes: ['jumpCache'] },
  run: { writes: ['arrivals', 'records'] },
  runLegacy: { writes: ['arrivals', 'records'] },
  // Segments by number.
  segCheck: { takes: { 1: index(15) } },
  segCheckSlow: { takes: { 1: index(15) } },
  loadSegment: { takes: { 1: index(15) } },
  loadProtectedSegment: { takes: { 1: index(15) } },
};
/** A handler that is a function: (state, record) → the next record, or less than 8. */
export const handlerContract: Contract = {
  takes: { 1: { need: 'tag', tag: RECORD } },
  gives: { give: 'tag', tag: { kind: 'out' } },
};
/** A region gives less than 8, or what a region gives that it goes on in. */
export const regionContract: Contract = { gives: { give: 'tag', tag: { kind: 'out' } }, writes: ['shadow', 'sites'] };
