// Regions of guest code that the translated tier compiles as one function: the blocks of one page that are reached from an entry by
// direct branches, their dominators and loops, and the IR of each block.

import { Builder } from '../../ir/builder.ts';
import type { Stmt } from '../../ir/ir.ts';
import { Decode, decode, Insn } from '../../isa/x86/decode.ts';
import { FlagBit, FlagState, RegionEmit } from '../../isa/x86/region-emit.ts';
import { emitRow, variantOf } from '../../isa/x86/static.ts';
import type { Tables } from '../../isa/x86/table.ts';
import type { Handler, Handlers } from './handlers.ts';

/** Most instructions of a region. */
const REGION_MAX = 500;
const PAGE = 4096;

interface Step {
  readonly place: number;
  readonly insn: Insn;
  readonly handler: Handler;
}

/** A basic block of a region. Places are offsets in the page. */
export interface RegionBlock {
  readonly place: number;
  readonly steps: readonly Step[];
  /** Where control goes by falling off the end; -1 where it never does. */
  readonly fall: number;
  /** Places that it may go to, inside the region or not. */
  readonly targets: readonly number[];
  /** Position in reverse postorder; blocks that are not reached have none and are left out. */
  order: number;
  idom: RegionBlock | null;
  preds: RegionBlock[];
  /** A loop starts here. */
  header: boolean;
  /** Several forward edges meet here. */
  merge: boolean;
  /** Children in the dominator tree that are merges, last first. */
  merges: RegionBlock[];
  /** Flags that may be read from here on. */
  live: number;
  body: readonly { readonly place: number; readonly code: readonly Stmt[] }[];
}

export interface Region {
  readonly entry: RegionBlock;
  /** In reverse postorder. */
  readonly blocks: readonly RegionBlock[];
  readonly byPlace: ReadonlyMap<number, RegionBlock>;
  /** Bytes of the page that it covers: start and end (exclusive) of each block. */
  readonly ranges: readonly (readonly [number, number])[];
  readonly instructions: number;
}

/** Instructions that tier 0 runs: those that run again, stop half-way, or give control to the host. */
function foreign(h: Handler): boolean {
  // Outside 64-bit code, a branch with 16-bit operands cuts its target.
  if (!h.variant.long && h.variant.size === 16 && h.leaves.has('branch')) return true;
  return h.leaves.has('next') || h.leaves.has('repeat') || h.leaves.has('exit') || h.variant.info.row.opcode === '';
}

/** Finds the region at `entry` (offset in the page whose bytes are `page`), or null where there is nothing to gain. */
export function findRegion(tables: Tables, handlers: Handlers, page: Uint8Array, entry: number, ctx: number): Region | null {
  const steps = new Map<number, Step>();
  const leaders = new Set([entry]);
  const work = [entry];
  for (let leader = work.shift(); leader !== undefined; leader = work.shift()) {
    let place: number = leader;
    while (place < PAGE && !steps.has(place) && steps.size < REGION_MAX) {
      const insn = new Insn();
      if (decode(tables, page, place, PAGE, ctx, insn) !== Decode.ok) break;
      const handler = handlers.of(insn, ctx);
      if (foreign(handler)) break;
      steps.set(place, { place, insn, handler });
      const next = place + insn.length;
      if (handler.leaves.has('branch')) {
        const target = next + insn.immLow;
        if (target >= 0 && target < PAGE) {
          leaders.add(target);
          work.push(target);
        }
        if (!handler.ends) leaders.add(next);
      }
      if (handler.ends) break;
      place = next;
    }
  }
  const byPlace = new Map<number, RegionBlock>();
  for (const leader of leaders) {
    const list: Step[] = [];
    const targets: number[] = [];
    let place = leader;
    let fall = leader;
    for (let s = steps.get(place); s; s = steps.get(place)) {
      list.push(s);
      place += s.insn.length;
      fall = s.handler.ends ? -1 : place;
      if (s.handler.leaves.has('branch')) targets.push(place + s.insn.immLow);
      if (s.handler.ends || leaders.has(place)) break;
    }
    if (list.length === 0) continue;
    if (fall >= 0) targets.push(fall);
    byPlace.set(leader, {
      place: leader,
      steps: list,
      fall,
      targets,
      order: -1,
      idom: null,
      preds: [],
      header: false,
      merge: false,
      merges: [],
      live: FlagBit.all,
      body: [],
    });
  }
  const first = byPlace.get(entry);
  if (!first) return null;
  const blocks = orderBlocks(first, byPlace);
  dominate(blocks);
  live(blocks, byPlace);
  for (const b of blocks) b.body = translate(b, byPlace, ctx);
  const ranges = blocks.map((b): [number, number] => {
    const last = b.steps[b.steps.length - 1];
    return [b.place, last.place + last.insn.length];
  });
  return {
    entry: first,
    blocks,
    byPlace: new Map(blocks.map((b) => [b.place, b])),
    ranges,
    instructions: blocks.reduce((n, b) => n + b.steps.length, 0),
  };
}

const successors = (b: RegionBlock, byPlace: ReadonlyMap<number, RegionBlock>): RegionBlock[] =>
  b.targets.map((t) => byPlace.get(t)).filter((s): s is RegionBlock => s !== undefined);

/** Reverse postorder from the entry; sets `order` and `preds`. */
function orderBlocks(entry: RegionBlock, byPlace: ReadonlyMap<number, RegionBlock>): RegionBlock[] {
  const post: RegionBlock[] = [];
  const seen = new Set([entry]);
  const stack: { block: RegionBlock; next: RegionBlock[] }[] = [{ block: entry, next: successors(entry, byPlace) }];
  while (stack.length > 0) {
    const top = stack[stack.length - 1];
    const s = top.next.pop();
    if (!s) {
      post.push(top.block);
      stack.pop();
    } else if (!seen.has(s)) {
      seen.add(s);
      stack.push({ block: s, next: successors(s, byPlace) });
    }
  }
  const blocks = post.reverse();
  blocks.forEach((b, i) => {
    b.order = i;
  });
  for (const b of blocks) for (const s of successors(b, byPlace)) if (!s.preds.includes(b)) s.preds.push(b);
  return blocks;
}

/** True where every way to `b` leads through `a`. */
export function dominates(a: RegionBlock, b: RegionBlock): boolean {
  for (let x: RegionBlock | null = b; x; x = x.idom) if (x === a) return true;
  return false;
}

/** Immediate dominators (K. Cooper, T. Harvey, K. Kennedy, "A Simple, Fast Dominance Algorithm"), loop headers and merges. */
function dominate(blocks: readonly RegionBlock[]): void {
  const meet = (a: RegionBlock, b: RegionBlock): RegionBlock => {
    let [x, y] = [a, b];
    while (x !== y) {
      while (x.order > y.order) x = x.idom!;
      while (y.order > x.order) y = y.idom!;
    }
    return x;
  };
  const entry = blocks[0];
  for (let changed = true; changed; ) {
    changed = false;
    for (const b of blocks) {
      if (b === entry) continue;
      let idom: RegionBlock | null = null;
      for (const p of b.preds) if (p === entry || p.idom) idom = idom ? meet(idom, p) : p;
      if (idom !== b.idom) {
        b.idom = idom;
        changed = true;
      }
    }
  }
  for (const b of blocks) {
    b.header = b.preds.some((p) => p.order >= b.order && dominates(b, p));
    b.merge = b.preds.filter((p) => p.order < b.order).length > 1;
    if (b.merge) b.idom?.merges.push(b);
  }
  for (const b of blocks) b.merges.sort((x, y) => y.order - x.order);
}

/** Which flags may be read from each block's start on. */
function live(blocks: readonly RegionBlock[], byPlace: ReadonlyMap<number, RegionBlock>): void {
  for (const b of blocks) b.live = 0;
  const out = (b: RegionBlock): number =>
    b.targets.reduce((m, t) => m | (byPlace.get(t)?.live ?? FlagBit.all), b.targets.length === 0 ? FlagBit.all : 0);
  for (let changed = true; changed; ) {
    changed = false;
    for (let i = blocks.length - 1; i >= 0; i--) {
      const b = blocks[i];
      let m = out(b);
      for (let n = b.steps.length - 1; n >= 0; n--) m = before(b.steps[n].handler, m);
      if (m !== b.live) {
        b.live = m;
        changed = true;
      }
    }
  }
}
/** Flags that may be read before an instruction, given those after it. A branch of the region reads none itself. */
function before(h: Handler, after: number): number {
  const reads = h.leaves.has('branch') && !h.leaves.has('jump') ? h.tested : h.reads;
  return (after & ~h.kills) | reads;
}

/** IR of each instruction of a block. */
function translate(b: RegionBlock, byPlace: ReadonlyMap<number, RegionBlock>, ctx: number): { place: number; code: Stmt[] }[] {
  const builder = new Builder();
  const liveAt = (place: number): number => byPlace.get(place)?.live ?? FlagBit.all;
  const flags = new FlagState(liveAt);
  const after: number[] = [];
  let m = b.targets.reduce((x, t) => x | liveAt(t), b.targets.length === 0 ? FlagBit.all : 0);
  for (let n = b.steps.length - 1; n >= 0; n--) {
    after[n] = m;
    m = before(b.steps[n].handler, m);
  }
  const body: { place: number; code: Stmt[] }[] = [];
  for (const [n, { insn, handler, place }] of b.steps.entries()) {
    const dead = handler.writes !== 0 && (handler.writes & after[n]) === 0;
    const c = new RegionEmit(variantOf(insn, ctx, !dead), insn, place, builder, flags);
    // What may stop here, or writes flags only sometimes, must find the flags in their slots.
    const conditional = (handler.writes & ~handler.kills) !== 0;
    const branches = handler.leaves.has('branch') && !handler.faults;
    if (handler.faults || handler.sharesFlags || conditional || (handler.leaves.size > 0 && !branches)) c.settle();
    // A store may change the very code that is running: the next instruction then comes from tier 0.
    c.stores = handler.stores;
    emitRow(c);
    if (handler.stores && !builder.ended) c.stopIfChanged();
    // What always faults (division by a constant zero, say) ends the block here.
    const ended = builder.ended;
    if (n === b.steps.length - 1 && b.fall >= 0 && !ended) c.settle(liveAt(b.fall));
    body.push({ place, code: builder.take() });
    if (ended) break;
  }
  return body;
}
