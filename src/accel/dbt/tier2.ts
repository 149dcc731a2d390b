// The translated tier: a region as one WebAssembly function with structured control flow (N. Ramsey, "Beyond Relooper", ICFP 2022),
// guest registers and flags in locals, stored where the region is left or calls what is not inlined.

import type { Callee, Stmt } from '../../ir/ir.ts';
import { zeroRow } from '../../isa/x86/rows/vex-lanes.ts';
import * as st from '../../isa/x86/state.ts';
import { Ctx } from '../../isa/x86/state.ts';
import type { Sub } from '../../isa/x86/sub.ts';
import { Lower, type NearAccess, type Target } from '../../wasm/lower.ts';
import { type FunctionBody, isWide, type MemoryImport, ModuleBuilder } from '../../wasm/module.ts';
import { Cell, cellLook, Look, pageLook } from './cells.ts';
import { chainMiss, manyTargets, pushEpoch, REGION_FIRST, Site, TABLE_ENTRIES, validateRegion } from './chain.ts';
import { dominates } from './flow.ts';
import { alone, type Group, groupsOf, loopOf, type Member, writes } from './groups.ts';
import { leaveOf } from './kept-slots.ts';
import { Area, CELL_BYTES, REGION_CELLS, SHADOW_BYTES } from './layout.ts';
import { calleesOf, type Library, walk } from './library.ts';
import type { Region, RegionBlock } from './region.ts';
import { type Part, translateBlock } from './region-ir.ts';
import { NO_SITE, RegionLinks } from './region-links.ts';
import { KEPT, RegionLocals } from './region-locals.ts';
import { lowerSub, Out, slowPaths, tlbLayout } from './tier0.ts';

/** Instructions after which a loop looks whether its slice is over and whether somebody wants it: two loads less each time round. */
const POLL = 1000;

/** No instruction pointer ever. */
const NOWHERE = 1n << 62n;

/** Of these, those that pay only in loops: elsewhere the state is as good, and they need not be loaded and stored at the region's ends. */
const IN_LOOPS: ReadonlySet<number> = new Set([...st.xmm, ...st.ymmHigh].map((s) => s.offset));

/** A module of regions. */
export interface RegionModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly imports: readonly Sub[];
  readonly hosts: readonly Callee[];
  /** For each region: places of the indirect jumps and calls behind each of its sites, and of the accesses behind its cells. */
  readonly sites: readonly (readonly (readonly number[])[])[];
  readonly cells: readonly (readonly (readonly number[])[])[];
}

/**
 * A module of regions of the vCPU whose state is at host address `env`, each for place `index` of the table: exports `r` and that number.
 * Subroutines that are `available` are imported from `main`, others are part of the module.
 */
export function buildRegions(
  library: Library,
  regions: readonly {
    readonly region: Region;
    readonly name: string;
    readonly index: number;
    readonly hashed: ReadonlySet<number>;
    readonly apart: ReadonlySet<number>;
    readonly hopping: ReadonlySet<number>;
  }[],
  available: ReadonlySet<string>,
  memory: MemoryImport,
  env: number,
): RegionModule {
  const bodies = regions.map(({ region }) => new Map(region.blocks.map((b) => [b, translateBlock(b, region.ctx)])));
  const roots = new Set<Callee>([...Object.values(slowPaths), chainMiss, manyTargets, validateRegion, cellLook, pageLook]);
  for (const blocks of bodies)
    for (const parts of blocks.values()) for (const { code } of parts) for (const c of calleesOf(code)) roots.add(c);
  const { subs, hosts } = library.closure(roots, (s) => available.has(s.name));
  const imports = subs.filter((s) => available.has(s.name));
  const own = subs.filter((s) => !available.has(s.name));
  const m = new ModuleBuilder(memory, TABLE_ENTRIES);
  const functions = new Map<string, number>();
  for (const h of hosts) functions.set(h.name, m.import('host', h.name, { params: h.params, result: h.result }));
  for (const s of imports) functions.set(s.name, m.import('main', s.name, { params: ['i32', ...s.params], result: s.result }));
  for (const s of own) functions.set(s.name, m.declare(s.name, { params: ['i32', ...s.params], result: s.result }));
  const callee = (c: Callee): number => functions.get(c.name)!;
  const numbers = regions.map(({ name }) => m.declare(name, { params: ['i32', 'i32'], result: 'i32' }));
  const type = m.type({ params: ['i32', 'i32'], result: 'i32' });
  const wide = isWide(memory.maximum);
  for (const s of own) m.define(callee(s), lowerSub(library, s, callee, wide));
  const writers = regions.map(({ region, index, hashed, apart, hopping }, i) => {
    const writer = new RegionWriter(library, region, bodies[i], callee, type, index, hashed, apart, hopping, wide, env);
    m.define(numbers[i], writer.write());
    m.export(`r${index}`, numbers[i]);
    return writer;
  });
  return { bytes: m.finish(), imports, hosts, sites: writers.map((w) => w.sites), cells: writers.map((w) => w.cells) };
}

/** Writes the function of one region. */
class RegionWriter {
  readonly #region: Region;
  readonly #bodies: ReadonlyMap<RegionBlock, readonly Part[]>;
  readonly #callee: (c: Callee) => number;
  readonly #type: number;
  readonly #index: number;
  readonly #l: Lower;
  readonly #legacy: boolean;
  readonly #wide: boolean;
  readonly #env: number;
  /** Kept slots that are used in the region. */
  readonly #used = new Set<number>();
  readonly #locals: RegionLocals;
  readonly #links: RegionLinks;
  readonly #changed: number;
  /** Local that is 1 where a way out was taken that nobody had taken before. */
  readonly #unmet: number;
  #current: RegionBlock;
  #part: Part | null = null;
  readonly #level = {
    cold: 0,
    chain: 0,
    return: 0,
    loops: new Map<RegionBlock, number>(),
    alone: new Map<RegionBlock, number>(),
    ends: new Map<RegionBlock, number>(),
  };
  /** Places of the accesses behind each cell, in the cells' order. */
  readonly cells: (readonly number[])[] = [];
  /** Places of accesses that hop between pages: they look into the TLB. */
  readonly #hashed: ReadonlySet<number>;
  /** Places of accesses to a stack that is now on one page and now on another: their groups look into the TLB. */
  readonly #hopping: ReadonlySet<number>;
  /** Blocks that are in loops. */
  readonly #loops: ReadonlySet<RegionBlock>;
  readonly #looksIntoTlb: boolean;
  /** Kernels serve one task after the other: outside loops an access meets another page each time, and looks into the TLB. */
  readonly #kernel: boolean;
  readonly #groups: ReadonlyMap<Stmt, Member>;
  readonly #groupLocals = new Map<Group, number>();
  /** Local that is 1 where the entry's instruction is left without having run; 0 where there is no such way. */
  #stuck = 0;

  constructor(
    library: Library,
    region: Region,
    bodies: ReadonlyMap<RegionBlock, readonly Part[]>,
    callee: (c: Callee) => number,
    type: number,
    index: number,
    hashed: ReadonlySet<number>,
    apart: ReadonlySet<number>,
    hopping: ReadonlySet<number>,
    wide: boolean,
    env: number,
  ) {
    this.#wide = wide;
    this.#env = env;
    this.#hashed = hashed;
    this.#hopping = hopping;
    this.#legacy = (region.ctx & Ctx.long) === 0;
    this.#groups = groupsOf(region.blocks, bodies, apart, this.#legacy);
    this.#region = region;
    this.#bodies = bodies;
    this.#callee = callee;
    this.#type = type;
    this.#index = index;
    this.#current = region.entry;
    this.#kernel = (region.ctx & Ctx.user) === 0;
    this.#looksIntoTlb = this.#kernel || hashed.size > 0 || hopping.size > 0;
    this.#loops = new Set(region.blocks.flatMap((b) => (b.header ? [...loopOf(b)] : [])));
    this.#findState();
    const l = new Lower(this.#target(), ['i32']);
    this.#l = l;
    const based = this.#legacy && (region.ctx & Ctx.flat) === 0;
    this.#links = new RegionLinks(l, { index, type, legacy: this.#legacy, based });
    this.#changed = l.local('i32');
    this.#unmet = l.local('i32');
    this.#locals = new RegionLocals(l, library, region.blocks, bodies, this.#used);
  }

  /** What the sites are for: places of indirect jumps and calls. */
  get sites(): readonly (readonly number[])[] {
    return this.#links.sites;
  }

  /** Which slots are used. */
  #findState(): void {
    const kept = new Set<number>();
    for (const [b, parts] of this.#bodies) {
      if (!this.#loops.has(b)) continue;
      for (const [n, { code }] of parts.entries()) {
        // It ends a function that has used vectors: what is not used here otherwise it writes to the state at once.
        if (b.steps[n].handler.variant.info.row === zeroRow) continue;
        walk(code, (s) => {
          if ((s.kind === 'get' || s.kind === 'set') && IN_LOOPS.has(s.slot.offset)) kept.add(s.slot.offset);
        });
      }
    }
    for (const parts of this.#bodies.values()) {
      for (const { code, aside } of parts) {
        for (const list of [code, aside]) {
          walk(list, (s) => {
            if (s.kind === 'load' || s.kind === 'store') this.#used.add(st.cellKey.offset);
            if (s.kind === 'rmw' || s.kind === 'cmpxchg' || this.#looksIntoTlb) this.#used.add(st.tlb.offset);
            if (s.kind !== 'get' && s.kind !== 'set') return;
            const { offset } = s.slot;
            if (KEPT.has(offset) && (!IN_LOOPS.has(offset) || kept.has(offset))) this.#used.add(offset);
          });
        }
      }
    }
  }

  // -- memory

  /** A new cell for accesses at these places: its place from the state, or undefined where there is none left or it would not pay. */
  #newCell(places: readonly number[]): number | undefined {
    if (this.cells.length >= REGION_CELLS || places.some((place) => this.#hashed.has(place))) return undefined;
    this.cells.push(places);
    return Area.cells + ((this.#index - REGION_FIRST) * REGION_CELLS + this.cells.length - 1) * CELL_BYTES;
  }
  #near(s: Stmt): NearAccess | undefined {
    if ((s.kind !== 'load' && s.kind !== 'store') || s.space === 'system') return undefined;
    const member = this.#groups.get(s) ?? { group: alone(s, this.#part!.place), offset: 0 };
    const { group } = member;
    const offset = member.offset - group.lowest;
    if (group.first !== s) {
      const local = this.#groupLocals.get(group);
      return local === undefined ? undefined : { local, offset, soft: group.soft, look: null };
    }
    const cell = this.#newCell(group.places);
    if (cell === undefined) return undefined;
    const type = this.#l.addressType;
    const local = group.shared ? this.#l.local(type) : this.#l.hold(type);
    this.#groupLocals.set(group, local);
    const bytes = group.highest - group.lowest;
    const hops = group.stack && group.places.some((place) => this.#hopping.has(place));
    const inTlb = hops || (this.#kernel && !this.#loops.has(this.#current));
    const first =
      (group.write ? Look.write : 0) |
      (writes(s) ? Look.firstWrites : 0) |
      (group.soft ? Look.soft : 0) |
      (group.stack ? 1 << Look.stackShift : 0);
    const word = first | (bytes << Look.bytesShift) | (-group.lowest << Look.firstShift);
    return { local, offset, soft: group.soft, look: { cell, inTlb, lowest: group.lowest, bytes, write: group.write, word } };
  }
  /** The instruction that cannot go on here: tier 0 runs its instruction, or what is pending is delivered. */
  #refuse(): void {
    const { place, aside } = this.#part!;
    this.#l.aside(aside);
    if (place === this.#region.entry.place) {
      this.#stuck ||= this.#l.local('i32');
      this.#l.i32(1);
      this.#l.localSet(this.#stuck);
    }
    this.#leaveAt(place);
  }

  /** A slow store may have changed code that was translated. */
  #lookForChange(): void {
    this.#l.stateI32(st.codeChanged.offset);
    this.#l.localSet(this.#changed);
  }
  #target(): Target {
    const self = this;
    return {
      env: this.#env,
      cells: {
        get key() {
          return self.#locals.of(st.cellKey.offset)!;
        },
        page: Cell.page,
        filled: Cell.key,
        addend: Cell.addend,
        near: (s) => this.#near(s),
        miss: cellLook,
        tlbMiss: pageLook,
        refused: () => this.#locals.off(() => this.#refuse()),
      },
      // What happens on a way that leaves does not happen on the one beside it.
      arm: (list, emit) => (leaveOf(list) ? this.#locals.off(emit) : emit()),
      beforeGet: (_, offset) => this.#locals.reads(offset),
      afterSet: (_, offset) => this.#locals.written(offset),
      tlb: tlbLayout,
      wide: this.#wide,
      callee: this.#callee,
      slow: slowPaths,
      inlineMemory: true,
      local: (offset) => {
        if (offset === st.pageBase.offset) return this.#links.pageBase;
        return offset === st.codeChanged.offset ? this.#changed : this.#locals.of(offset);
      },
      stored: () => this.#lookForChange(),
      beforeCall: (_, c) => this.#locals.beforeCall(c),
      afterCall: (_, c) => {
        this.#locals.afterCall(c);
        // What may fault may store as well.
        if (c.faults) this.#lookForChange();
      },
      fault: () => this.#locals.off(() => this.#fault()),
      leave: (_, s) => this.#locals.off(() => this.#leave(s)),
    };
  }
  #leave(s: Stmt & { kind: 'leave' }): void {
    const l = this.#l;
    switch (s.how) {
      case 'fault':
        return this.#fault();
      case 'again':
        return this.#refuse();
      case 'jump':
        l.value(s.value!);
        l.localSet(this.#links.rip);
        if (s.reason) return this.#leaveShared();
        return this.#jump();
      case 'branch':
        return this.#edge(s.reason);
      case 'repeat':
        return this.#edge(this.#part!.place, true);
      case 'next':
      case 'resync': {
        const { place, insn } = this.#current.steps.find((x) => x.place === this.#part!.place)!;
        if (s.how === 'next') return this.#edge(place + insn.length);
        return this.#leaveAt(place + insn.length);
      }
      default:
        throw new Error(`Cannot leave a region by ${s.how}`);
    }
  }

  // -- ways out

  /** An exception is pending at the instruction of the current part. */
  #fault(): void {
    this.#l.aside(this.#part!.aside);
    this.#leaveAt(this.#part!.place);
  }
  /** Leaves by a way that many share, which stores what was written. */
  #leaveShared(): void {
    this.#locals.name();
    this.#l.brTo(this.#level.cold);
  }
  /** Leaves for tier 0. */
  #leaveAt(place: number): void {
    const l = this.#l;
    const { steps } = this.#current;
    const done = steps.findIndex((x) => x.place === place);
    // The whole block was counted when it was entered.
    if (done >= 0) {
      l.localGet(this.#links.count);
      l.i32(done - steps.length);
      l.op(0x6a);
      l.localSet(this.#links.count);
    }
    this.#links.setRip(place);
    this.#leaveShared();
  }
  /** Goes on where `rip` says, by `level`: in another region if there is one. */
  #goOn(level: number, places: readonly number[], profile: boolean, site = this.#links.newSite(places)): void {
    const l = this.#l;
    this.#locals.store();
    l.i32(site);
    l.localSet(this.#links.site);
    l.i32(profile ? 1 : 0);
    l.localSet(this.#links.profile);
    l.brTo(level);
  }
  /** A computed jump, call or return to `rip`. */
  #jump(): void {
    const b = this.#current;
    const last = b.steps[b.steps.length - 1];
    if (b.end === 'call') return this.#call([last.place]);
    if (b.end === 'return') return this.#goOn(this.#level.return, [], false);
    if (b.end === 'far') return this.#far();
    if (b.end === 'indirect' && b.dispatch) return this.#go(b.dispatch);
    if (b.end === 'indirect' && b.back) return this.#call([last.place]);
    this.#goOn(this.#level.chain, last ? [last.place] : [], last !== undefined);
  }
  /** Goes on at `rip`, perhaps in another context: the site holds for one. */
  #far(): void {
    const l = this.#l;
    // Our caller would not know it again if code in another context returned to it.
    l.stateI32(st.callTop.offset);
    l.i64(NOWHERE);
    l.memory(0x37, 0);
    const site = this.#links.newSite([]);
    if (site === NO_SITE) return this.#goOn(this.#level.chain, [], false, site);
    const field = (load: 0x28 | 0x29, offset: number): void => {
      l.env();
      l.memory(load, site + offset);
    };
    this.#locals.store();
    this.#links.putRip();
    this.#links.checkSlice(() => this.#links.leaveIf());
    this.#links.putPage();
    const found = l.depth;
    l.open(0x02, 0x7f);
    const miss = l.depth;
    l.open(0x02);
    field(0x29, Site.target);
    l.localGet(this.#links.rip);
    l.op(0x52);
    l.brTo(miss, true, false);
    field(0x28, Site.epoch);
    pushEpoch(l, () => l.localGet(this.#links.rip));
    l.op(0x47);
    l.brTo(miss, true, false);
    field(0x28, Site.ctx);
    l.stateI32(st.ctx.offset);
    l.op(0x47);
    l.brTo(miss, true, false);
    field(0x28, Site.index);
    l.brTo(found);
    l.close();
    l.env();
    l.env();
    l.i32(site);
    l.op(0x6a);
    l.i32(0);
    l.call(chainMiss);
    l.localTee(this.#links.site);
    l.open(0x04, 0x40);
    l.env();
    l.stateI32(st.ctx.offset);
    l.memory(0x36, site + Site.ctx);
    l.close();
    l.localGet(this.#links.site);
    l.op(0x45);
    this.#links.leaveIf();
    l.localGet(this.#links.site);
    l.close();
    this.#links.enter();
  }
  /** A call of a function that is not inlined, with `rip` set. */
  #call(places: readonly number[]): void {
    const b = this.#current;
    const l = this.#l;
    const { back } = b;
    const profile = places.length > 0;
    if (!back) return this.#goOn(this.#level.chain, places, profile);
    this.#locals.store();
    this.#links.putRip();
    l.i32(0);
    l.localSet(this.#links.count);
    l.i32(this.#links.newSite(places));
    l.localSet(this.#links.site);
    const index = l.local('i32');
    const top = l.local('i32');
    const out = l.depth;
    l.open(0x02);
    const leave = (): void => l.brTo(out, true, false);
    this.#links.checkSlice(leave);
    l.stateI32(st.callTop.offset);
    l.localTee(top);
    l.env();
    l.i32(Area.shadow + SHADOW_BYTES - 8);
    l.op(0x6a, 0x4f);
    leave();
    this.#links.lookUp(profile, leave);
    l.localSet(index);
    // Push the address that is expected back.
    l.env();
    l.localGet(top);
    l.i32(8);
    l.op(0x6a);
    l.localTee(top);
    l.memory(0x36, st.callTop.offset);
    l.localGet(top);
    this.#links.setRip(back.place);
    l.localGet(this.#links.rip);
    l.memory(0x37, 0);
    l.env();
    l.i32(0);
    l.localGet(index);
    l.op(0x11);
    l.out.uleb(this.#type);
    l.out.u8(0);
    l.localSet(index);
    l.env();
    l.localGet(top);
    l.i32(8);
    l.op(0x6b);
    l.memory(0x36, st.callTop.offset);
    l.localGet(index);
    l.i32(Out.returned);
    l.op(0x47);
    l.open(0x04, 0x40, null, false);
    l.localGet(index);
    l.op(0x0f);
    l.close();
    this.#locals.loadRights();
    this.#locals.off(() => {
      this.#locals.letGo();
      this.#go(back);
    });
    l.close();
    l.i32(Out.region);
    l.op(0x0f);
  }
  // -- control flow

  /** Goes from the current block to the place that a branch names. */
  #edge(to: number, repeats = false): void {
    const b = this.#current;
    const next = b.edges.get(to);
    if (next) return this.#go(next, repeats);
    this.#links.setRip(to);
    const last = b.steps[b.steps.length - 1];
    const beside = last.place + last.insn.length;
    if (b.end === 'call') return this.#call([]);
    // Where nobody has been, nobody is hurried, unless they come often.
    if (to !== beside && !this.#region.met(to)) {
      this.#l.i32(1);
      this.#l.localSet(this.#unmet);
      return this.#leaveShared();
    }
    this.#goOn(this.#level.chain, [], false);
  }
  /** `repeats`: an instruction runs again, which may be interrupted and stopped between any two of its iterations. */
  #go(block: RegionBlock, repeats = false): void {
    const l = this.#l;
    const current = this.#current;
    if (block.order <= current.order) {
      const loops = block === current ? this.#level.alone : this.#level.loops;
      const loop = dominates(block, current) ? loops.get(block) : undefined;
      const there = (): void => {
        if (block.end === 'dispatch') return;
        this.#links.setRip(block.place);
      };
      if (loop === undefined) {
        there();
        return this.#goOn(this.#level.chain, [], false);
      }
      // A back edge: now and then, is the slice over, does somebody want us?
      l.localGet(this.#links.count);
      l.i32(repeats ? 0 : POLL);
      l.op(0x4a);
      l.open(0x04, 0x40, null, false);
      this.#links.putRetired();
      l.i32(0);
      l.localSet(this.#links.count);
      const on = l.depth;
      l.open(0x02);
      const over = l.depth;
      l.open(0x02);
      this.#links.checkWanted(() => l.brTo(over, true, false));
      l.brTo(on);
      l.close();
      there();
      this.#leaveShared();
      l.close();
      l.close();
      this.#locals.holdFor(block);
      return l.brTo(loop);
    }
    if (block.merge) {
      const end = this.#level.ends.get(block);
      if (end !== undefined) {
        this.#locals.holdFor(block);
        return l.brTo(end);
      }
      if (block.end !== 'dispatch') this.#links.setRip(block.place);
      return this.#goOn(this.#level.chain, [], false);
    }
    this.#locals.holdFor(block);
    l.nested(() => this.#tree(block));
  }
  #tree(b: RegionBlock): void {
    const l = this.#l;
    // Loops that begin with the same block stay apart: V8 gives its registers to the inner one.
    const outer = b.header && b.preds.some((p) => p !== b && p.order >= b.order);
    const loop = (loops: Map<RegionBlock, number>, there: boolean, body: () => void): void => {
      if (!there) return body();
      loops.set(b, l.depth);
      l.open(0x03);
      body();
      l.close();
      l.op(0x00);
      loops.delete(b);
    };
    const { loops, alone } = this.#level;
    loop(loops, outer, () => this.#within(b, b.merges, () => loop(alone, b.alone, () => this.#block(b))));
  }
  #block(b: RegionBlock): void {
    this.#at(b, () => (b.end === 'dispatch' ? this.#dispatch(b) : this.#straight(b)));
  }
  /** `body`, and behind it the blocks that it leads to. */
  #within(b: RegionBlock, merges: readonly RegionBlock[], body: () => void): void {
    if (merges.length === 0) return body();
    const l = this.#l;
    const [y, ...rest] = merges;
    this.#level.ends.set(y, l.depth);
    l.open(0x02);
    this.#within(b, rest, body);
    l.close();
    this.#level.ends.delete(y);
    this.#tree(y);
  }
  /** Runs `body`, which emits a block and what it leads to. */
  #at(b: RegionBlock, body: () => void): void {
    const outer = { current: this.#current, part: this.#part };
    this.#locals.beside(() => {
      this.#current = b;
      this.#locals.begin(b);
      body();
    });
    this.#current = outer.current;
    this.#part = outer.part;
  }
  #straight(b: RegionBlock): void {
    const l = this.#l;
    l.localGet(this.#links.count);
    l.i32(b.steps.length);
    l.op(0x6a);
    l.localSet(this.#links.count);
    l.sequence(
      this.#bodies.get(b)!.map((part) => ({
        code: part.code,
        aside: part.aside,
        enter: () => {
          this.#current = b;
          this.#part = part;
          this.#locals.holdNested(part.code);
          if (part.stores) {
            l.i32(0);
            l.localSet(this.#changed);
          }
        },
      })),
    );
    this.#current = b;
    if (b.fall !== null) this.#edge(b.fall);
  }
  /** Goes to the block at `rip`, which was computed. */
  #dispatch(b: RegionBlock): void {
    const l = this.#l;
    const places = [...b.edges.keys()].sort((x, y) => x - y);
    const lowest = places[0];
    const span = places[places.length - 1] - lowest + 1;
    const offset = l.local('i64');
    l.localGet(this.#links.rip);
    l.localGet(this.#links.pageBase);
    l.op(0x7d);
    l.i64(BigInt(lowest));
    l.op(0x7d);
    l.localSet(offset);
    const arm = (place: number): void => {
      this.#locals.off(() => l.nested(() => this.#go(b.edges.get(place)!)));
      this.#current = b;
    };
    if (places.length <= 3 || span > 4096) {
      for (const place of places) {
        l.localGet(offset);
        l.i64(BigInt(place - lowest));
        l.op(0x51);
        l.open(0x04);
        arm(place);
        l.close();
      }
    } else {
      const miss = l.depth;
      l.open(0x02);
      const first = l.depth;
      for (let i = 0; i < places.length; i++) l.open(0x02);
      l.localGet(offset);
      l.i64(BigInt(span));
      l.op(0x5a);
      l.brTo(miss, true, false);
      l.localGet(offset);
      l.op(0xa7, 0x0e);
      l.out.uleb(span);
      // The block of the first place is the innermost one.
      const depthOf = new Map(places.map((place, i) => [place - lowest, l.relative(first + places.length - 1 - i)]));
      for (let i = 0; i < span; i++) l.out.uleb(depthOf.get(i) ?? l.relative(miss));
      l.out.uleb(l.relative(miss));
      for (const place of places) {
        l.close();
        arm(place);
      }
      l.close();
    }
    if (b.back) this.#call(this.#jumpsOf(b));
    else this.#goOn(this.#level.chain, this.#jumpsOf(b), true);
  }
  /** Places of the indirect jumps that meet in a dispatch block. */
  #jumpsOf(b: RegionBlock): number[] {
    return b.preds.map((p) => p.steps[p.steps.length - 1].place);
  }

  write(): FunctionBody {
    const l = this.#l;
    this.#links.begin();
    if (this.#region.ranges.some(([page]) => page !== 0)) this.#links.validate();
    this.#locals.loadRights();
    this.#locals.holdFor(this.#region.entry);
    const stored = l.depth;
    l.open(0x02);
    this.#level.chain = l.depth;
    l.open(0x02);
    this.#level.return = l.depth;
    l.open(0x02);
    this.#level.cold = l.depth;
    l.open(0x02);
    this.#tree(this.#region.entry);
    l.op(0x00);
    l.close(); // cold
    this.#locals.storeMasked();
    this.#links.putRip();
    l.localGet(this.#unmet);
    l.op(0x45);
    l.open(0x04);
    if (this.#stuck !== 0) this.#links.passEntry(this.#stuck);
    l.i32(Out.region);
    l.op(0x0f);
    l.close();
    this.#links.countUnmet();
    l.brTo(stored);
    l.close(); // return
    this.#links.putRip();
    l.stateI32(st.callTop.offset);
    l.memory(0x29, 0);
    l.localGet(this.#links.rip);
    l.op(0x52);
    l.brTo(stored, true);
    // Who calls has looked whether the slice is over.
    this.#links.checkBase(() => l.brTo(stored, true, false));
    l.i32(Out.returned);
    l.op(0x0f);
    l.close(); // chain
    this.#links.putRip();
    l.close(); // stored: the state is in memory
    this.#links.checkSlice(() => this.#links.leaveIf());
    this.#links.lookUp(null, () => this.#links.leaveIf());
    this.#links.enter();
    return l.finish();
  }
}
