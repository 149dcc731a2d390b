// Regions of guest code that the translated tier compiles as one function: the blocks that are reached from an entry by direct branches,
// over page boundaries, with the functions that they call inlined where those are small. A place is an offset from the start of the
// entry's page; it may be negative or beyond that page.

import { Decode, decode, Insn } from '../../isa/x86/decode.ts';
import { FlagBit } from '../../isa/x86/region-emit.ts';
import { nopRow } from '../../isa/x86/rows/pseudo.ts';
import type { Tables } from '../../isa/x86/table.ts';
import { dominate, type FlowNode, orderBlocks } from './flow.ts';
import type { Handler, Handlers } from './handlers.ts';

/** How far a region goes. */
export interface Reach {
  /** Most instructions of it, of a function that is inlined, and most calls deep. */
  readonly instructions: number;
  readonly inlined: number;
  readonly depth: number;
}
/** The first translation is to come soon, and costs little; the second one is for what stays hot. */
export const REACH: Readonly<Record<'warm' | 'hot' | 'block', Reach>> = {
  warm: { instructions: 250, inlined: 30, depth: 1 },
  hot: { instructions: 500, inlined: 120, depth: 4 },
  /** Where every block gets a region: as short as may be, for there are many. */
  block: { instructions: 60, inlined: 0, depth: 0 },
};
/** Most activations of one function in a region, one inside the other. */
const RECURSION_MAX = 3;
/** Most targets of one indirect call that are inlined, and most instructions of one where there are more than two. */
const GUESSES_MAX = 8;
const GUESS_SIZE = 40;
/** Instructions of a function that is inlined one call deeper than others: what position-independent 32-bit code calls for its own address. */
const TINY = 4;
/** Most instructions of a called function that are looked at for flags that it reads. */
const LOOK_AHEAD = 16;
const PAGE = 4096;
/** Pages before and behind the entry's that a region may reach. */
const PAGES_MAX = 1024;

/** Where the translator reads code and what is known about it. */
export interface RegionSource {
  readonly ctx: number;
  readonly reach: Reach;
  /** Place of the entry: an offset in its page. */
  readonly entry: number;
  /** Bytes of the page `n` pages behind the entry's, or undefined where it is not known. */
  page(n: number): Uint8Array | undefined;
  /** Whether a branch to this place has ever been taken. */
  met(place: number): boolean;
  /** Places that the indirect jump or call at `place` went to. */
  seen(place: number): readonly number[];
  /** Whether another region starts here, to which this one hands over. */
  stops(place: number): boolean;
}

export interface Step {
  readonly place: number;
  readonly insn: Insn;
  readonly handler: Handler;
}

/** One activation: the entry's function, or one that is inlined for a call. */
interface Frame {
  readonly parent: Frame | null;
  /** Where it returns to in its parent. */
  readonly back: number;
  readonly depth: number;
  readonly entry: number;
  readonly leaders: Set<number>;
  readonly steps: Map<number, Step>;
  readonly blocks: Map<number, RegionBlock>;
  /** Frames of the calls in it by the call's place and target. */
  readonly calls: Map<number, Frame[]>;
  /** Where its indirect jumps meet, and the places that they go to. */
  dispatch: RegionBlock | null;
  readonly jumps: Set<number>;
}

/**
 * How control leaves a block at its last instruction. `far`: perhaps to another context (privilege, mode, flags), by far jumps, calls and
 * returns, interrupts, system calls.
 */
export type EndKind = 'plain' | 'call' | 'return' | 'indirect' | 'dispatch' | 'far';

/** A basic block of a region. */
export interface RegionBlock extends FlowNode<RegionBlock> {
  readonly frame: Frame;
  readonly place: number;
  readonly steps: readonly Step[];
  readonly end: EndKind;
  /** Where control goes by falling off the end; null where it never does. */
  readonly fall: number | null;
  /** Blocks by the place that a branch names. */
  readonly edges: Map<number, RegionBlock>;
  /** Places of targets that computed jumps are compared with. */
  readonly guesses: readonly number[];
  /** Behind a call that is not inlined: where the called function returns to. */
  back: RegionBlock | null;
  /** Its indirect jump goes by the dispatch block. */
  dispatch: RegionBlock | null;
  /** Successors, once for each edge. */
  readonly next: RegionBlock[];
  /** Control may leave the region here. */
  exits: boolean;
  /** Flags that may be read by the function that it calls, where that is not inlined and called by name; else null. */
  called: number | null;
  /** Flags that may be read from here on. */
  live: number;
}

export interface Region {
  readonly ctx: number;
  readonly entry: RegionBlock;
  /** In reverse postorder. */
  readonly blocks: readonly RegionBlock[];
  /** Parts of pages that it covers: page (relative to the entry's), start and end (exclusive) in it. */
  readonly ranges: readonly (readonly [number, number, number])[];
  readonly instructions: number;
  /** There was more: it is as long as may be, has calls that it does not inline, or jumps and calls whose targets are not known yet. */
  readonly limited: boolean;
  /** Whether a branch to a place has ever been taken. */
  met(place: number): boolean;
}

/** Instructions that tier 0 runs: those that give control to the host, or have no encoding. */
function foreign(h: Handler): boolean {
  // Outside 64-bit code, a branch with 16-bit operands cuts its target.
  if (!h.variant.long && h.variant.size === 16 && (h.leaves.has('branch') || h.leaves.has('jump'))) return true;
  const { row } = h.variant.info;
  return h.leaves.has('exit') || (row.opcode === '' && row !== nopRow);
}
const CALLS = new Set(['E8', 'FF /2']);
const RETURNS = new Set(['C3', 'C2']);
/** A computed near jump. */
const jumps = (h: Handler): boolean => h.variant.info.row.opcode === 'FF /4';
/** How control leaves a block that ends with an instruction. */
function endOf(h: Handler): EndKind {
  const { opcode } = h.variant.info.row;
  if (CALLS.has(opcode)) return 'call';
  if (RETURNS.has(opcode)) return 'return';
  if (jumps(h)) return 'indirect';
  return h.leaves.has('jump') && h.ends ? 'far' : 'plain';
}
/** An instruction that may run again, or end half-way: it is a block of its own. */
const repeats = (h: Handler): boolean => h.leaves.has('repeat') || h.leaves.has('next');

class Finder {
  readonly #tables: Tables;
  readonly #handlers: Handlers;
  readonly #source: RegionSource;
  readonly #reach: Reach;
  readonly #decoded = new Map<number, Step | null>();
  readonly #sizes = new Map<number, number>();
  total = 0;
  /** There is an indirect jump or call whose targets are not known. */
  open = false;
  /** It hands over to other regions. */
  stopped = false;
  /** Functions that a frame jumps to, too large to be followed at once. */
  readonly waiting: [Frame, number][] = [];

  constructor(tables: Tables, handlers: Handlers, source: RegionSource) {
    this.#tables = tables;
    this.#handlers = handlers;
    this.#source = source;
    this.#reach = source.reach;
  }

  /** The instruction at a place, or null where tier 0 must run it or it is not known. */
  step(place: number): Step | null {
    let s = this.#decoded.get(place);
    if (s === undefined) {
      s = this.#decode(place);
      this.#decoded.set(place, s);
    }
    return s;
  }
  #decode(place: number): Step | null {
    const n = Math.floor(place / PAGE);
    if (Math.abs(n) > PAGES_MAX) return null;
    const page = this.#source.page(n);
    if (!page) return null;
    const at = place - n * PAGE;
    const insn = new Insn();
    let result = decode(this.#tables, page, at, PAGE, this.#source.ctx, insn);
    if (result === Decode.truncated) {
      const next = this.#source.page(n + 1);
      if (!next) return null;
      const joined = new Uint8Array(PAGE - at + 16);
      joined.set(page.subarray(at));
      joined.set(next.subarray(0, 16), PAGE - at);
      result = decode(this.#tables, joined, 0, joined.length, this.#source.ctx, insn);
    }
    if (result !== Decode.ok) return null;
    const handler = this.#handlers.of(insn, this.#source.ctx);
    return foreign(handler) ? null : { place, insn, handler };
  }
  opcode(s: Step): string {
    return s.handler.variant.info.row.opcode;
  }
  /** Place of a relative branch's target where one was taken to it. */
  target(s: Step): number | null {
    if (!s.handler.leaves.has('branch')) return null;
    const target = s.place + s.insn.length + s.insn.immLow;
    return this.#source.met(target) && this.step(target) ? target : null;
  }

  /** Instructions of the function at a place, calls left aside; infinite where it has more than `most` or does not return. */
  size(entry: number, most = this.#reach.inlined): number {
    const known = most === this.#reach.inlined ? this.#sizes.get(entry) : undefined;
    if (known !== undefined) return known;
    const seen = new Set<number>();
    const work = [entry];
    let returns = false;
    for (let place = work.pop(); place !== undefined && seen.size <= most; place = work.pop()) {
      for (let s = this.step(place); s && !seen.has(s.place) && seen.size <= most; s = this.step(s.place + s.insn.length)) {
        seen.add(s.place);
        const target = this.target(s);
        const opcode = this.opcode(s);
        // A computed jump goes to another function, which returns for this one.
        if (RETURNS.has(opcode) || jumps(s.handler)) returns = true;
        if (target !== null && !CALLS.has(opcode)) work.push(target);
        if (s.handler.ends && !CALLS.has(opcode)) break;
      }
    }
    const size = returns && seen.size <= most ? seen.size : Number.POSITIVE_INFINITY;
    if (most === this.#reach.inlined) this.#sizes.set(entry, size);
    return size;
  }

  /** Flags that may be read from a place on, as far as a straight look tells. */
  reads(place: number): number {
    let [read, left] = [0, FlagBit.all as number];
    let s = this.step(place);
    for (let n = 0; s && n < LOOK_AHEAD && left !== 0; n++) {
      const { handler } = s;
      read |= left & handler.reads;
      left &= ~handler.kills;
      if (handler.leaves.size > (handler.leaves.has('fault') ? 1 : 0)) break;
      s = this.step(s.place + s.insn.length);
    }
    return read | left;
  }

  frame(parent: Frame | null, entry: number, back: number): Frame {
    return {
      parent,
      back,
      depth: parent ? parent.depth + 1 : 0,
      entry,
      leaders: new Set([entry]),
      steps: new Map(),
      blocks: new Map(),
      calls: new Map(),
      dispatch: null,
      jumps: new Set(),
    };
  }
  /** Follows direct branches from a place of a frame; gives the calls found: place and target. */
  explore(f: Frame, from: number): [Step, number][] {
    const calls: [Step, number][] = [];
    const work = [from];
    const lead = (place: number): void => {
      f.leaders.add(place);
      work.push(place);
    };
    // Inlined functions return into this region, and calls come back to it.
    const stops = (place: number): boolean => {
      if (f.parent || place === this.#source.entry || !this.#source.stops(place)) return false;
      this.stopped = true;
      return true;
    };
    for (let leader = work.shift(); leader !== undefined; leader = work.shift()) {
      for (let place = leader; !f.steps.has(place) && this.total < this.#reach.instructions; ) {
        const s = this.step(place);
        if (!s) break;
        f.steps.set(place, s);
        this.total++;
        const next = place + s.insn.length;
        const { handler } = s;
        const opcode = this.opcode(s);
        const target = this.target(s);
        if (repeats(handler)) {
          f.leaders.add(place);
          f.leaders.add(next);
        }
        if (CALLS.has(opcode)) {
          const targets = target !== null ? [target] : this.#guesses(place);
          for (const t of targets) calls.push([s, t]);
          if (targets.length === 0) this.open = true;
          if (this.#source.met(next)) lead(next);
          break;
        }
        if (handler.leaves.has('branch')) {
          if (target !== null && !stops(target)) lead(target);
          if (!handler.ends) f.leaders.add(next);
        } else if (jumps(handler) && !RETURNS.has(opcode)) {
          const seen = this.#source.seen(place);
          if (seen.length === 0) this.open = true;
          for (const t of seen) {
            if (!this.step(t)) continue;
            // One target alone: a stub, or a call at a function's end. What is large waits until small functions have their place.
            if (seen.length === 1 && this.size(t) > this.#reach.inlined) {
              this.waiting.push([f, t]);
              continue;
            }
            f.jumps.add(t);
            lead(t);
          }
        }
        if (handler.ends || stops(next)) break;
        place = next;
      }
    }
    return calls;
  }
  /** Functions that an indirect call is compared with. */
  #guesses(place: number): number[] {
    const seen = this.#source.seen(place).filter((t) => this.step(t));
    if (seen.length <= 2) return seen;
    return seen.length > GUESSES_MAX || seen.some((t) => this.size(t) > GUESS_SIZE) ? [] : seen;
  }
  /** Whether a call in `f` is to be inlined. */
  inlines(f: Frame, target: number): boolean {
    if (f.depth >= this.#reach.depth) return f.depth === this.#reach.depth && f.depth > 0 && this.size(target, TINY) <= TINY;
    let active = 0;
    for (let x: Frame | null = f; x; x = x.parent) if (x.entry === target) active++;
    if (active >= RECURSION_MAX) return false;
    return this.total + this.size(target) <= this.#reach.instructions;
  }
}

const flow = (): Pick<RegionBlock, 'order' | 'idom' | 'preds' | 'header' | 'alone' | 'merge' | 'merges'> => ({
  order: -1,
  idom: null,
  preds: [],
  header: false,
  alone: false,
  merge: false,
  merges: [],
});

/** Cuts a frame's instructions into blocks. */
function cut(f: Frame): void {
  for (const leader of f.leaders) {
    const list: Step[] = [];
    let place = leader;
    let fall: number | null = leader;
    for (let s = f.steps.get(place); s; s = f.steps.get(place)) {
      list.push(s);
      place += s.insn.length;
      fall = s.handler.ends ? null : place;
      if (s.handler.ends || f.leaders.has(place)) break;
    }
    if (list.length === 0) continue;
    const last = list[list.length - 1];
    const end = endOf(last.handler);
    const guesses =
      end === 'return' && f.parent
        ? [f.back]
        : end === 'call' && !last.handler.leaves.has('branch')
          ? (f.calls.get(last.place) ?? []).map((c) => c.entry)
          : [];
    f.blocks.set(leader, {
      ...flow(),
      frame: f,
      place: leader,
      steps: list,
      end,
      fall,
      edges: new Map(),
      guesses,
      back: null,
      dispatch: null,
      next: [],
      exits: false,
      called: null,
      live: FlagBit.all,
    });
  }
  // Where the region was as long as may be before it came to any of them, they lead out.
  if ([...f.jumps].some((t) => f.blocks.has(t))) {
    f.dispatch = {
      ...flow(),
      frame: f,
      place: f.entry,
      steps: [],
      end: 'dispatch',
      fall: null,
      edges: new Map(),
      guesses: [],
      back: null,
      dispatch: null,
      next: [],
      exits: true,
      called: null,
      live: FlagBit.all,
    };
  }
}

/** Joins the blocks of a frame with each other and with those of the frames around and inside it. */
function join(f: Frame, finder: Finder): void {
  const go = (b: RegionBlock, place: number, to: RegionBlock | undefined): void => {
    if (!to) {
      b.exits = true;
      return;
    }
    b.edges.set(place, to);
    b.next.push(to);
  };
  for (const b of f.blocks.values()) {
    const last = b.steps[b.steps.length - 1];
    const next = last.place + last.insn.length;
    const { leaves } = last.handler;
    if (b.end === 'call') {
      const inlined = f.calls.get(last.place) ?? [];
      for (const c of inlined) go(b, c.entry, c.blocks.get(c.entry));
      if (inlined.length === 0 || !leaves.has('branch')) {
        b.exits = true;
        if (leaves.has('branch')) b.called = finder.reads(next + last.insn.immLow);
        b.back = f.blocks.get(next) ?? null;
        if (b.back) b.next.push(b.back);
      }
    } else if (b.end === 'return') {
      b.exits = true;
      if (f.parent) go(b, f.back, f.parent.blocks.get(f.back));
    } else if (b.end === 'indirect') {
      b.exits = true;
      b.dispatch = f.dispatch;
      if (f.dispatch) b.next.push(f.dispatch);
      else comeBack(b);
    } else {
      if (leaves.has('branch')) go(b, next + last.insn.immLow, f.blocks.get(next + last.insn.immLow));
      if (leaves.has('repeat')) go(b, last.place, f.blocks.get(last.place));
      if (leaves.has('next')) go(b, next, f.blocks.get(next));
      if (leaves.has('resync') || leaves.has('jump')) b.exits = true;
      if (b.fall !== null) go(b, next, f.blocks.get(next));
    }
  }
  if (f.dispatch) {
    for (const t of f.jumps) go(f.dispatch, t, f.blocks.get(t));
    comeBack(f.dispatch);
  }
}
/** Where an inlined function jumps to another one, that one returns to its caller. */
function comeBack(b: RegionBlock): void {
  const { parent, back } = b.frame;
  b.back = parent?.blocks.get(back) ?? null;
  if (b.back) b.next.push(b.back);
}

/** Finds the region at the source's entry, or null where there is nothing to gain. */
export function findRegion(tables: Tables, handlers: Handlers, source: RegionSource): Region | null {
  const finder = new Finder(tables, handlers, source);
  const root = finder.frame(null, source.entry, 0);
  const frames = [root];
  let limited = false;
  const follow = (f: Frame, from: number): void => {
    for (const [s, target] of finder.explore(f, from)) {
      if (!finder.step(target)) continue;
      if (!finder.inlines(f, target)) {
        limited = true;
        continue;
      }
      const inner = finder.frame(f, target, s.place + s.insn.length);
      frames.push(inner);
      f.calls.set(s.place, [...(f.calls.get(s.place) ?? []), inner]);
      // Its instructions count now, so that the calls behind it know what is left.
      finder.total += finder.size(target);
    }
  };
  let done = 0;
  const inline = (): void => {
    for (; done < frames.length; done++) {
      const f = frames[done];
      // What was set aside for it is spent now.
      if (f !== root) finder.total -= finder.size(f.entry);
      follow(f, f.entry);
    }
  };
  inline();
  for (let next = finder.waiting.shift(); next; next = finder.waiting.shift()) {
    const [f, target] = next;
    const left = source.reach.instructions - finder.total;
    if (left > 0 && finder.size(target, left) <= left) {
      f.jumps.add(target);
      f.leaders.add(target);
      follow(f, target);
      inline();
    } else limited = true;
  }
  for (const f of frames) cut(f);
  for (const f of frames) join(f, finder);
  const entry = root.blocks.get(source.entry);
  if (!entry) return null;
  // Two instructions do not pay, unless they lead on: stubs by which programs call shared code, functions of one instruction.
  const alone = entry.steps.length < 3 && entry.next.length === 0 && entry.end === 'plain';
  if (alone) return null;
  const blocks = orderBlocks(entry, (b) => b.next);
  dominate(blocks);
  live(blocks);
  return {
    ctx: source.ctx,
    entry,
    blocks,
    ranges: rangesOf(blocks),
    instructions: blocks.reduce((n, b) => n + b.steps.length, 0),
    limited: limited || finder.open || finder.stopped || finder.total >= source.reach.instructions,
    met: (place) => source.met(place),
  };
}

function rangesOf(blocks: readonly RegionBlock[]): [number, number, number][] {
  const found = new Map<number, [number, number, number]>();
  for (const b of blocks) {
    if (b.steps.length === 0) continue;
    const last = b.steps[b.steps.length - 1];
    const end = last.place + last.insn.length;
    for (let n = Math.floor(b.place / PAGE); n * PAGE < end; n++) {
      const from = Math.max(b.place - n * PAGE, 0);
      const to = Math.min(end - n * PAGE, PAGE);
      found.set(n * PAGE * PAGE + from * PAGE + to, [n, from, to]);
    }
  }
  return [...found.values()];
}

/** Which flags may be read from each block's start on. */
function live(blocks: readonly RegionBlock[]): void {
  for (const b of blocks) b.live = 0;
  for (let changed = true; changed; ) {
    changed = false;
    for (let i = blocks.length - 1; i >= 0; i--) {
      const b = blocks[i];
      let m = liveAfter(b);
      for (let n = b.steps.length - 1; n >= 0; n--) m = liveBefore(b.steps[n].handler, m);
      if (m !== b.live) {
        b.live = m;
        changed = true;
      }
    }
  }
}
/** Flags that may be read behind a block. */
export function liveAfter(b: RegionBlock): number {
  if (b.called !== null) return b.called;
  return b.next.reduce((m, s) => m | s.live, b.exits ? FlagBit.all : 0);
}
/** Flags that may be read before an instruction, given those after it. A branch of the region reads none itself. */
export function liveBefore(h: Handler, after: number): number {
  const leaves = h.leaves.has('branch') || h.leaves.has('jump') || h.leaves.has('repeat');
  return (after & ~h.kills) | (leaves ? h.tested : h.reads);
}
