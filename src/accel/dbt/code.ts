// The decoded code of one vCPU: blocks of records by guest-physical address, and what happens when guest code changes.

import { Decode, decode, Insn } from '../../isa/x86/decode.ts';
import { Link, RECORD_BYTES, Rec, STALE, writeRecord } from '../../isa/x86/record.ts';
import type { Row } from '../../isa/x86/row.ts';
import { gotoRow, tooLongRow, undefinedRow } from '../../isa/x86/rows/pseudo.ts';
import { CONTEXTS, Ctx } from '../../isa/x86/state.ts';
import type { RowInfo, Tables } from '../../isa/x86/table.ts';
import { ALL_FLAGS, type Handler, type Handlers } from './handlers.ts';

/** Most instructions of one block. */
const BLOCK_MAX = 64;
/** Room for records that is kept free until the vCPU is between two blocks: until then it may hold addresses of old records. */
const SPARE = 256 << 10;
/** Most bytes of a write that may leave a block as it is but for its constants. */
const PATCH_MAX = 8;

/** Writes to a page between two changes of its code after which its code is known byte by byte. */
const WRITES_BESIDE = 8;

/** Stale blocks among those in order before they are sorted out. */
const STALE_KEPT = 4096;

/** Most bytes of an instruction that lie on the page behind its first one. */
const TAIL = 14;

/** The pieces of a page, 64 bytes each, that hold code: a bit for each, the lower 32 and the upper. */
type Pieces = [number, number];
/** Adds the pieces of the bytes from `from` to `to` (exclusive). */
function cover(pieces: Pieces, from: number, to: number): void {
  for (let n = from >> 6; n << 6 < to; n++) pieces[n >> 5] |= 1 << (n & 31);
}

/** What is decoded of one page. */
class PageCode {
  /** Blocks that begin in it, by place and context: small integers, which hash fast. */
  readonly places = new Map<number, Block>();
  /** Blocks with code in it. */
  readonly blocks: Block[] = [];
  pieces: Pieces = [0, 0];
  /** Writes since its code changed last; where these are many, a bit for each byte that is code, and the blocks that short writes met, by these. */
  exact: { writes: number; bits: Uint8Array | null; readonly met: Map<number, Block[]> } | null = null;
}

/** One decoded block. */
export interface Block {
  /** Guest-physical address of its first byte, and bytes covered (in its first page, unless it crosses). */
  readonly gpa: number;
  readonly length: number;
  readonly ctx: number;
  /** Host address of its first record, and number of records. */
  readonly record: number;
  readonly count: number;
  /** Where its only instruction crosses into another page: the guest-physical address of that page, else -1. */
  readonly next: number;
  /** The guest has written to its code. */
  stale: boolean;
}

/** A translated region that is entered at a block: its first record runs the region's function instead of its own handler. */
interface Attached {
  readonly block: Block;
  /** Number of the handler that the record had, or -1 while the region is not there yet. */
  handler: number;
  /** Place of the region's function in the table. */
  readonly index: number;
  /** Parts of pages that it was translated from, by page number. */
  readonly ranges: ReadonlyMap<number, readonly (readonly [number, number])[]>;
  /** A copy of the block's records that leaves the region aside. */
  readonly copy: number;
}

/** What the cache needs of its vCPU. */
export interface CodeHost {
  /** Host address of a guest-physical page in RAM, or -1. */
  hostPage(gpa: number): number;
  /** Called before a page is decoded for the first time since its code map byte was last clear. */
  claimPage(gpa: number, host: number): void;
  /** Makes the handlers that are new runnable. */
  install(): void;
  /** Guest-physical address of the page behind the current one (for an instruction that crosses), or -1 with a fault pending. */
  nextPage(): number;
  /** There is not much room left: `flush` is to be called between two blocks. */
  full(): void;
  /** Every record is gone: jump caches must go, too. */
  dropped(): void;
  /** Bytes that are no instruction were met: for the trace. */
  undefined(bytes: Uint8Array): void;
  /** The 64-byte pieces of the page at `gpa` that hold code have changed: one bit each, the lower 32 first. No bits: there is none. */
  pieces(gpa: number, lower: number, upper: number): void;
  /** A region's place in the table is free again. */
  release(index: number): void;
}

export class CodeCache {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #tables: Tables;
  readonly #handlers: Handlers;
  readonly #host: CodeHost;
  readonly #start: number;
  readonly #end: number;
  #next: number;
  /** By page number, and the one that was looked for last. */
  readonly #pages = new Map<number, PageCode>();
  #lastPage = -1;
  #last: PageCode | undefined;
  /** All blocks in the order of their records, with some of those that are stale. */
  #order: Block[] = [];
  #staleInOrder = 0;
  readonly #regions = new Map<number, Attached[]>();
  /** Pages whose blocks may be linked to stale ones. */
  readonly #linked = new Set<number>();
  /** By page: how often its regions were lost to writes, and how many wishes for a region are still refused for it. */
  readonly #losses = new Map<number, { count: number; refuse: number }>();
  readonly #insns = Array.from({ length: BLOCK_MAX }, () => new Insn());
  readonly #patched = new Insn();
  /** A pseudo row's. */
  readonly #extra = new Insn();
  /** Handlers of the block that is being decoded, flags live. */
  readonly #found: Handler[] = [];
  readonly #infos: Readonly<Record<'undefined' | 'tooLong' | 'goto', RowInfo>>;
  /** Counters: blocks and instructions decoded, blocks invalidated, full flushes. */
  readonly stats = { blocks: 0, instructions: 0, invalidated: 0, flushes: 0 };

  constructor(
    memory: SharedArrayBuffer,
    arena: { start: number; end: number },
    tables: Tables,
    handlers: Handlers,
    host: CodeHost,
  ) {
    this.#view = new DataView(memory);
    this.#bytes = new Uint8Array(memory);
    this.#words = new Int32Array(memory);
    this.#tables = tables;
    this.#handlers = handlers;
    this.#host = host;
    this.#start = arena.start;
    this.#end = arena.end;
    this.#next = arena.start;
    const find = (row: Row): RowInfo => tables.rows.find((r) => r.row === row)!;
    this.#infos = { undefined: find(undefinedRow), tooLong: find(tooLongRow), goto: find(gotoRow) };
  }

  /** Where the block that `find` gave may be found again: nowhere, by linear address alone (it crosses pages), by both. */
  kind: 'once' | 'linear' | 'page' = 'once';
  /** The block that `find` has decoded; undefined where there is one of before, or none that may be found again. */
  fresh: Block | undefined;

  /** The first record of the code at guest-physical `gpa` in context `ctx`, decoded when it is new; 0 with a fault pending. Sets `kind`. */
  find(gpa: number, ctx: number): number {
    this.fresh = undefined;
    const known = (ctx & Ctx.step) === 0 ? this.#known(gpa, ctx) : undefined;
    if (known) {
      this.kind = known.next < 0 ? 'page' : 'linear';
      if (known.next < 0) return known.record;
      // The second page may be mapped elsewhere by now.
      const next = this.#host.nextPage();
      if (next === known.next) return known.record;
      this.kind = 'once';
      if (next < 0) return 0;
      this.#invalidate(known);
    }
    return this.#decode(gpa, ctx);
  }

  #known(gpa: number, ctx: number): Block | undefined {
    const page = Math.floor(gpa / 4096);
    return this.#page(page)?.places.get((gpa - page * 4096) * CONTEXTS + ctx);
  }
  #page(page: number): PageCode | undefined {
    if (page !== this.#lastPage) {
      this.#lastPage = page;
      this.#last = this.#pages.get(page);
    }
    return this.#last;
  }
  /** The same, made where there is none. */
  #pageOf(page: number): PageCode {
    const known = this.#page(page);
    if (known) return known;
    this.#last = new PageCode();
    this.#pages.set(page, this.#last);
    return this.#last;
  }
  #decode(gpa: number, ctx: number): number {
    this.kind = 'once';
    const bytes = this.#bytes;
    const page = Math.floor(gpa / 4096) * 4096;
    const offset = gpa - page;
    const host = this.#host.hostPage(page);
    if (host < 0) return this.#single(this.#infos.undefined, offset, ctx);
    this.#makeRoom();
    this.#host.claimPage(page, host);
    const step = (ctx & Ctx.step) !== 0;
    let at = host + offset;
    const end = host + 4096;
    let count = 0;
    let ended = false;
    let crossing = -1;
    let extra: RowInfo | null = null;
    while (count < (step ? 1 : BLOCK_MAX) && !ended) {
      const insn = this.#insns[count];
      let result = decode(this.#tables, bytes, at, end, ctx, insn);
      if (result === Decode.truncated) {
        if (count > 0) break;
        // The first instruction crosses into the next page.
        const next = this.#host.nextPage();
        if (next < 0) return 0;
        const nextHost = this.#host.hostPage(next);
        const joined = new Uint8Array(32);
        const tail = end - at;
        joined.set(bytes.subarray(at, end));
        if (nextHost >= 0) joined.set(bytes.subarray(nextHost, nextHost + 16), tail);
        this.#host.claimPage(next, nextHost);
        crossing = next;
        result = decode(this.#tables, joined, 0, 32, ctx, insn);
      }
      if (result !== Decode.ok) {
        extra = result === Decode.tooLong ? this.#infos.tooLong : this.#infos.undefined;
        if (count === 0) this.#host.undefined(bytes.slice(at, Math.min(at + 15, end)));
        break;
      }
      const handler = this.#handlers.of(insn, ctx);
      this.#found[count] = handler;
      ended = handler.ends;
      at += insn.length;
      count++;
      if (crossing >= 0 || at >= end) break;
    }
    return this.#write(gpa, offset, ctx, count, ended, extra, crossing, step);
  }

  #write(
    gpa: number,
    offset: number,
    ctx: number,
    count: number,
    ended: boolean,
    extra: RowInfo | null,
    next: number,
    step: boolean,
  ): number {
    const long = (ctx & Ctx.long) !== 0;
    const link = step || next >= 0 ? Link.forbidden : 0;
    const record = this.#next;
    // Backwards: which flags can still be read.
    let live = ALL_FLAGS;
    for (let i = count - 1; i >= 0; i--) {
      const insn = this.#insns[i];
      let handler = this.#found[i];
      if (handler.writes !== 0 && (handler.writes & live) === 0) handler = this.#handlers.of(insn, ctx, false);
      // The frame of a fault shows them all.
      live = handler.faults ? ALL_FLAGS : (live & ~handler.kills) | handler.reads;
      this.#found[i] = handler;
    }
    const words = this.#words;
    let place = offset;
    let n = 0;
    // Two in a row that one handler does: the second record keeps its own, for those who come to it alone.
    let paired = false;
    for (; n < count; n++) {
      const insn = this.#insns[n];
      const own = this.#found[n];
      const both: Handler | undefined = paired || n + 1 === count ? undefined : this.#handlers.pairOf(own, this.#found[n + 1]);
      paired = both !== undefined;
      writeRecord(words, (record + n * RECORD_BYTES) >> 2, insn, long, place, (both ?? own).number, n + 1, link);
      place += insn.length;
    }
    if (!ended) {
      // What is no instruction counts as one: a guest that does nothing but #UD uses up its slice, too.
      this.#pseudo(extra ?? this.#infos.goto, record + n * RECORD_BYTES, place, extra ? n + 1 : n, ctx, link);
      n++;
    }
    this.#host.install();
    this.#next = record + n * RECORD_BYTES;
    this.stats.blocks++;
    this.stats.instructions += count;
    // A single-stepped instruction is decoded anew each time.
    if (step) return record;
    // What was not decoded (#UD, too long) may be made code by a write, too.
    const block: Block = { gpa, length: place - offset + (extra ? 15 : 0), ctx, record, count: n, next, stale: false };
    this.#order.push(block);
    this.fresh = block;
    const page = Math.floor(gpa / 4096);
    this.#remember(block, page).places.set((gpa - page * 4096) * CONTEXTS + ctx, block);
    if (next >= 0) this.#remember(block, Math.floor(next / 4096));
    this.kind = next < 0 ? 'page' : 'linear';
    return record;
  }
  #remember(block: Block, page: number): PageCode {
    const code = this.#pageOf(page);
    code.blocks.push(block);
    code.exact = null;
    this.#cover(code.pieces, page, block);
    this.#tell(page, code.pieces);
    return code;
  }
  #cover(pieces: Pieces, page: number, block: Block): void {
    if (block.next === page * 4096) cover(pieces, 0, TAIL);
    else {
      const start = block.gpa - page * 4096;
      cover(pieces, start, Math.min(start + block.length, 4096));
    }
  }
  #tell(page: number, [lower, upper]: Pieces): void {
    this.#host.pieces(page * 4096, lower, upper);
  }
  /** Finds out anew which pieces of a page hold code: some has gone. */
  #recount(page: number): void {
    const code = this.#page(page);
    const pieces: Pieces = [0, 0];
    for (const b of code?.blocks ?? []) this.#cover(pieces, page, b);
    for (const r of this.#regions.get(page) ?? []) for (const [from, to] of r.ranges.get(page) ?? []) cover(pieces, from, to);
    if (code) code.pieces = pieces;
    this.#tell(page, pieces);
  }
  #pseudo(info: RowInfo, at: number, place: number, count: number, ctx: number, link: number): void {
    const insn = this.#extra;
    insn.row = info;
    insn.length = 0;
    insn.size = ctx & Ctx.long ? 64 : 32;
    insn.addressSize = ctx & Ctx.long ? 64 : 32;
    const handler = this.#handlers.of(insn, ctx & ~Ctx.fpTrap);
    writeRecord(this.#words, at >> 2, insn, (ctx & Ctx.long) !== 0, place, handler.number, count, link);
  }
  #makeRoom(): void {
    if (this.#next + (BLOCK_MAX + 2) * RECORD_BYTES > this.#end) this.flush();
    else if (this.#next + SPARE > this.#end) this.#host.full();
  }
  /** A block of one pseudo row, used once. */
  #single(info: RowInfo, offset: number, ctx: number): number {
    this.#makeRoom();
    const record = this.#next;
    this.#next += RECORD_BYTES;
    this.#pseudo(info, record, offset, 1, ctx, Link.forbidden);
    this.#host.install();
    return record;
  }

  /** The block whose first record is at `record`. */
  at(record: number): Block | undefined {
    const order = this.#order;
    let [from, to] = [0, order.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (order[middle]!.record < record) from = middle + 1;
      else to = middle;
    }
    const block = order[from];
    return block?.record === record && !block.stale ? block : undefined;
  }
  /** Whether code that starts at a guest-physical address has been decoded. */
  knows(gpa: number, ctx: number): boolean {
    return this.#known(gpa, ctx) !== undefined;
  }
  /** Whether a region starts at a guest-physical address, or is about to. */
  starts(gpa: number, ctx: number): boolean {
    const block = this.#known(gpa, ctx);
    return block !== undefined && this.#regions.get(Math.floor(gpa / 4096))?.some((a) => a.block === block) === true;
  }
  /** Whether a region may be made for a block: it has none yet but `old`, and its page does not keep changing. */
  suits(block: Block, old = -1): boolean {
    const page = Math.floor(block.gpa / 4096);
    if (block.next >= 0 || this.#known(block.gpa, block.ctx) !== block) return false;
    if (this.#regions.get(page)?.some((a) => a.block === block && a.index !== old)) return false;
    const losses = this.#losses.get(page);
    // A page that keeps changing is tried again, ever more seldom.
    if (losses && losses.refuse > 0) {
      losses.refuse--;
      return false;
    }
    return true;
  }
  /**
   * Reserves the block for a region at `index` of the table, translated from `ranges` by page number. Gives the records that do without
   * it, or 0 where there is no room.
   */
  attach(block: Block, index: number, ranges: Attached['ranges']): number {
    const view = this.#view;
    const bytes = block.count * RECORD_BYTES;
    if (this.#next + bytes + SPARE / 2 > this.#end) {
      this.#host.full();
      return 0;
    }
    const copy = this.#next;
    this.#next += bytes;
    this.#bytes.copyWithin(copy, block.record, block.record + bytes);
    const before = this.#active(block);
    if (before) view.setUint16(copy + Rec.handler, before.handler, true);
    for (let at = copy; at < copy + bytes; at += RECORD_BYTES) {
      if (view.getUint8(at + Rec.link) & Link.branch) {
        view.setInt32(at + Rec.imm, 0, true);
        view.setInt32(at + Rec.far, 0, true);
      }
      view.setUint8(at + Rec.link, view.getUint8(at + Rec.link) | Link.forbidden);
    }
    const attached: Attached = { block, handler: -1, index, ranges, copy };
    for (const [page, parts] of ranges) {
      const list = this.#regions.get(page);
      if (list) list.push(attached);
      else this.#regions.set(page, [attached]);
      const code = this.#pageOf(page);
      code.exact = null;
      for (const [from, to] of parts) cover(code.pieces, from, to);
      this.#tell(page, code.pieces);
    }
    return copy;
  }
  /** The region that a block's first record runs. */
  #active(block: Block): Attached | undefined {
    return this.#regions.get(Math.floor(block.gpa / 4096))?.find((a) => a.block === block && a.handler >= 0);
  }
  /** Its place in the table, or -1. */
  regionOf(block: Block): number {
    return this.#active(block)?.index ?? -1;
  }
  /** Whether a region that is entered elsewhere has the block's code in it. */
  covered(block: Block): boolean {
    const page = Math.floor(block.gpa / 4096);
    const at = block.gpa - page * 4096;
    const regions = this.#regions.get(page) ?? [];
    return regions.some(
      (a) => a.handler >= 0 && a.block.ctx === block.ctx && a.ranges.get(page)?.some(([from, to]) => at >= from && at < to),
    );
  }
  /** Makes the first record of a reserved block run the region. */
  activate(index: number, block: Block): void {
    const a = this.#regions.get(Math.floor(block.gpa / 4096))?.find((x) => x.index === index);
    if (!a) return;
    a.handler = this.#view.getUint16(block.record + Rec.handler, true);
    this.#view.setUint16(block.record + Rec.handler, index, true);
  }
  /** Takes a region away that nobody wrote to. */
  detach(index: number): void {
    for (const list of this.#regions.values()) {
      const a = list.find((x) => x.index === index);
      if (a) return this.#drop(a);
    }
  }
  #drop(a: Attached): void {
    const view = this.#view;
    if (view.getUint16(a.block.record + Rec.handler, true) === a.index)
      view.setUint16(a.block.record + Rec.handler, a.handler, true);
    for (let i = 0; i < a.block.count; i++) view.setUint16(a.copy + i * RECORD_BYTES + Rec.handler, STALE, true);
    for (const page of a.ranges.keys()) {
      const rest = this.#regions.get(page)?.filter((x) => x !== a) ?? [];
      if (rest.length > 0) this.#regions.set(page, rest);
      else this.#regions.delete(page);
      const code = this.#page(page);
      if (code) code.exact = null;
    }
    this.#host.release(a.index);
  }
  /** Detaches the regions of a page that bytes from `from` to `to` (offsets in the page) are part of: whether there were any. */
  #detach(page: number, from: number, to: number): boolean {
    const list = this.#regions.get(page);
    if (!list) return false;
    const hit = (a: Attached): boolean => {
      const start = a.block.gpa - page * 4096;
      return (
        (start < to && start + a.block.length > from) ||
        (a.ranges.get(page)?.some(([first, end]) => from < end && to > first) ?? false)
      );
    };
    const gone = list.filter(hit);
    if (gone.length === 0) return false;
    for (const a of gone) this.#drop(a);
    const count = (this.#losses.get(page)?.count ?? 0) + 1;
    this.#losses.set(page, { count, refuse: count > 4 ? 1 << Math.min(count - 4, 12) : 0 });
    return true;
  }

  /**
   * The guest wrote `length` bytes at `gpa`: blocks that overlap them become stale, records that are running now included. Gives true
   * while other code of the page is left.
   */
  written(gpa: number, length: number): boolean {
    const page = Math.floor(gpa / 4096);
    if (this.#beside(page, gpa - page * 4096, gpa + length - page * 4096)) return this.#unchanged(page);
    const detached = this.#detach(page, gpa - page * 4096, gpa + length - page * 4096);
    const list = this.#page(page)?.blocks ?? [];
    if (list.length === 0) {
      this.#recount(page);
      return this.#regions.has(page);
    }
    if (!detached && length <= PATCH_MAX && this.#patchAll(page, list, gpa, length)) return this.#unchanged(page);
    let kept = 0;
    for (const block of list) {
      const here = gpa < block.gpa + block.length && gpa + length > block.gpa;
      // The end of an instruction that began on another page: its last 14 bytes at most.
      const tail = block.next === page * 4096 && gpa - block.next < TAIL;
      if ((here || tail) && (tail || length > PATCH_MAX || !this.#patch(block, gpa, gpa + length))) this.#invalidate(block);
      else list[kept++] = block;
    }
    // Nothing lies elsewhere than before.
    if (kept === list.length && kept > 0 && !detached) return this.#unchanged(page);
    if (kept < list.length) {
      this.#linked.add(page);
      this.#pageOf(page).exact = null;
    }
    list.length = kept;
    this.#recount(page);
    return kept > 0 || this.#regions.has(page);
  }
  /** Code of the page lies where it did: another page may have taken the place where that is noted. */
  #unchanged(page: number): true {
    this.#tell(page, this.#pageOf(page).pieces);
    return true;
  }
  /** Whether a page has code, none of it from byte `from` to `to`; also no where that is not known. */
  #beside(page: number, from: number, to: number): boolean {
    const code = this.#pageOf(page);
    code.exact ??= { writes: 0, bits: null, met: new Map() };
    const { exact } = code;
    if (!exact.bits) {
      if (++exact.writes < WRITES_BESIDE) return false;
      exact.bits = this.#codeBits(page);
    }
    const { bits } = exact;
    if (bits.length === 0) return false;
    for (let at = from; at < to; at++) if (bits[at >> 3] & (1 << (at & 7))) return false;
    return true;
  }
  /** A bit for each byte of a page that is code; none at all where there is no code. */
  #codeBits(page: number): Uint8Array {
    const blocks = this.#page(page)?.blocks ?? [];
    const regions = this.#regions.get(page) ?? [];
    const bits = new Uint8Array(blocks.length + regions.length > 0 ? 512 : 0);
    const mark = (from: number, to: number): void => {
      for (let at = Math.max(0, from); at < Math.min(to, 4096); at++) bits[at >> 3] |= 1 << (at & 7);
    };
    const markBlock = (block: Block): void => mark(block.gpa - page * 4096, block.gpa - page * 4096 + block.length);
    for (const block of blocks) {
      markBlock(block);
      if (block.next === page * 4096) mark(0, TAIL);
    }
    for (const { block, ranges } of regions) {
      markBlock(block);
      for (const [from, to] of ranges.get(page) ?? []) mark(from, to);
    }
    return bits;
  }
  /** Writes that code takes all the time (a boot loader that patches its call of the BIOS each time): true where all blocks stay, with other constants. */
  #patchAll(page: number, list: readonly Block[], gpa: number, length: number): boolean {
    const exact = this.#page(page)?.exact;
    if (!exact?.bits) return false;
    const key = (gpa - page * 4096) * (PATCH_MAX + 1) + length;
    let met = exact.met.get(key);
    if (!met) {
      const tail = gpa - page * 4096 < TAIL;
      met = list.filter((b) => (gpa < b.gpa + b.length && gpa + length > b.gpa) || (tail && b.next === page * 4096));
      exact.met.set(key, met);
    }
    return met.every((block) => this.#patch(block, gpa, gpa + length));
  }
  /**
   * A few bytes from `from` to `to` of a block were written: where each of the instructions there is of the same kind and length as before, its
   * constants alone have changed, and new records do. False where that is not so.
   */
  #patch(block: Block, from: number, to: number): boolean {
    const view = this.#view;
    const page = Math.floor(block.gpa / 4096) * 4096;
    const host = this.#host.hostPage(page);
    if (block.next >= 0 || host < 0) return false;
    const insn = this.#patched;
    let end = block.gpa;
    for (let n = 0; n < block.count && end < to; n++) {
      const at = block.record + n * RECORD_BYTES;
      const place = view.getUint16(at + Rec.place, true);
      const length = view.getUint8(at + Rec.length);
      end = page + place + length;
      if (end <= from) continue;
      if (decode(this.#tables, this.#bytes, host + place, host + 4096, block.ctx, insn) !== Decode.ok) return false;
      if (insn.length !== length) return false;
      const variant = this.#handlers.list[view.getUint16(at + Rec.handler, true)]?.variant;
      const kinds = [true, false].map((live) => this.#handlers.of(insn, block.ctx, live).variant);
      if (!variant || !kinds.includes(variant)) return false;
      const count = view.getUint8(at + Rec.count);
      const forbidden = view.getUint8(at + Rec.link) & Link.forbidden;
      const handler = view.getUint16(at + Rec.handler, true);
      writeRecord(this.#words, at >> 2, insn, (block.ctx & Ctx.long) !== 0, place, handler, count, forbidden);
    }
    // The rest was no instruction.
    return end >= Math.min(to, block.gpa + block.length);
  }
  /** Records that are stale for a moment: where, what they were, and whether they still stand for their code. */
  readonly #held: { readonly at: number; readonly handler: number; readonly there: () => boolean }[] = [];
  /** Decoded code goes no further than the instruction at `gpa`, which is running, until `resume`. */
  pause(gpa: number): void {
    const view = this.#view;
    const page = Math.floor(gpa / 4096);
    const hold = (at: number, there: () => boolean): void => {
      const handler = view.getUint16(at + Rec.handler, true);
      if (handler === STALE) return;
      this.#held.push({ at, handler, there });
      view.setUint16(at + Rec.handler, STALE, true);
    };
    for (const block of this.#page(page)?.blocks ?? []) {
      if (gpa < block.gpa || gpa >= block.gpa + block.length) continue;
      let n = 0;
      while (n < block.count && view.getUint16(block.record + n * RECORD_BYTES + Rec.place, true) !== gpa % 4096) n++;
      if (++n >= block.count) continue;
      hold(block.record + n * RECORD_BYTES, () => !block.stale);
      for (const a of this.#regions.get(page) ?? [])
        if (a.block === block) hold(a.copy + n * RECORD_BYTES, () => this.#regions.get(page)?.includes(a) ?? false);
    }
  }
  resume(): void {
    for (const { at, handler, there } of this.#held) if (there()) this.#view.setUint16(at + Rec.handler, handler, true);
    this.#held.length = 0;
  }
  #invalidate(block: Block): void {
    for (let i = 0; i < block.count; i++) this.#view.setUint16(block.record + i * RECORD_BYTES + Rec.handler, STALE, true);
    const page = Math.floor(block.gpa / 4096);
    const key = (block.gpa - page * 4096) * CONTEXTS + block.ctx;
    const places = this.#page(page)?.places;
    if (places?.get(key) === block) places.delete(key);
    block.stale = true;
    if (++this.#staleInOrder > STALE_KEPT && this.#staleInOrder * 2 > this.#order.length) {
      this.#order = this.#order.filter((b) => !b.stale);
      this.#staleInOrder = 0;
    }
    this.stats.invalidated++;
  }
  /** Takes back the links to blocks that have become stale. They only cost time: pages that are written to again and again wait for this. */
  tidy(): void {
    if (this.#linked.size === 0) return;
    for (const page of this.#linked) this.#unlink(this.#page(page)?.blocks ?? []);
    this.#linked.clear();
  }
  #unlink(blocks: readonly Block[]): void {
    const view = this.#view;
    for (const block of blocks) {
      for (let at = block.record; at < block.record + block.count * RECORD_BYTES; at += RECORD_BYTES) {
        if (!(view.getUint8(at + Rec.link) & Link.branch)) continue;
        const target = view.getInt32(at + Rec.imm, true);
        if (target !== 0 && view.getUint16(target + Rec.handler, true) === STALE) view.setInt32(at + Rec.imm, 0, true);
      }
    }
  }
  /** Forgets everything. */
  flush(): void {
    for (const a of new Set([...this.#regions.values()].flat())) this.#host.release(a.index);
    this.#pages.clear();
    this.#lastPage = -1;
    this.#last = undefined;
    for (const block of this.#order) block.stale = true;
    this.#order = [];
    this.#staleInOrder = 0;
    this.#regions.clear();
    this.#linked.clear();
    this.#next = this.#start;
    this.stats.flushes++;
    this.#host.dropped();
  }
}
