// The regions of one vCPU: which code gets one, where they are in the table, what is known of them, and when they go.

import * as st from '../../isa/x86/state.ts';
import { Ctx, S } from '../../isa/x86/state.ts';
import { epochAfter } from '../../isa/x86/tlb.ts';
import { CELL_MISSES } from './cells.ts';
import { REGION_FIRST, SITE_TARGETS, Site } from './chain.ts';
import type { Block, CodeCache } from './code.ts';
import { Handlers } from './handlers.ts';
import { holds, type KeptRegion } from './kept.ts';
import { Area, CELL_BYTES, REGION_CELLS, REGION_SITES, REGIONS_MAX, SITE_BYTES } from './layout.ts';
import { findRegion, REACH, type Reach, type RegionSource } from './region.ts';
import { Kick } from './tier0.ts';
import { noted, type Questions, type RegionBatch, type RegionWish, translate } from './translate.ts';
import type { DbtVm } from './vcpu.ts';

/** Samples of a block before its region is translated; and where the translator has nothing to do (twice as many where it has few wishes). */
const HOT = 10;
const WARM = 3;
const FEW_WISHES = 3;
/** How many times as often a block is sampled before it gets a region where another region has its code already, and how often tier 0 reports it. */
const PATIENCE = 4;
const REPORTS = 16;
/** Samples after which it is translated again, with all that it calls: that takes the time of some ten million instructions. */
const VERY_HOT = 200;
/** Failed checks of a region's pages after which it is given up, so that it is translated anew; another page counts for many. */
const MISMAPPED_MAX = 4000;
/** How often a region is translated anew because more targets are known. */
const RENEWALS_MAX = 6;
/** Most targets of an indirect jump that are remembered. */
const TARGETS_MAX = 64;
/** An access whose cell misses once in fewer instructions than this looks into the TLB instead. */
const FEW = 100;
/** Reports after which a stack access's group looks into the TLB once it is translated anew; and reports in a region after which it is: it costs as much. */
const HOPS_MAX = 4;
const REGION_HOPS_MAX = 256;
/** Most wishes that wait for a translator. */
const WISHES_MAX = 64;

/** What the regions need of their vCPU. */
export interface RegionHost {
  /** Host address of a guest-physical page in RAM, or -1. */
  hostPage(gpa: number): number;
  /** Called before a page's code is read. */
  claimPage(gpa: number, host: number): void;
  /** Guest-physical page of a linear address of code, or -1; nothing is raised. */
  peek(linear: bigint): number;
  /** There is no place left for regions: all code is to go between two blocks. */
  full(): void;
}

/** A region that is there, or wished for. */
interface Made {
  readonly number: number;
  readonly block: Block;
  /** Linear address of its entry's page when it was translated. */
  readonly base: bigint;
  /** Pages that it covers: number relative to the entry's, guest-physical address. */
  readonly pages: ReadonlyMap<number, number>;
  readonly instructions: number;
  /** It may get larger. */
  grows: boolean;
  /** More is known about its code than when it was translated. */
  stale: boolean;
  readonly reach: Reach;
  /** Where it hands over to others. */
  readonly stops: ReadonlySet<number>;
  /** Place in the table of the region that this one takes the place of, or -1. */
  readonly old: number;
  sites: readonly (readonly number[])[];
  cells: readonly (readonly number[])[];
  mismapped: number;
  /** Reports of stack accesses that hop between pages, by cell, and all together. */
  readonly hops: Map<number, number>;
  hopped: number;
}

export class Regions {
  readonly #vm: DbtVm;
  readonly #env: number;
  readonly #view: DataView;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #table: WebAssembly.Table;
  readonly #exports: Readonly<Record<string, unknown>>;
  readonly #hosts: WebAssembly.ModuleImports;
  readonly #code: CodeCache;
  readonly #host: RegionHost;
  /** Regions reach instructions that tier 0 has not met. */
  readonly #handlers: Handlers;
  readonly #heat = new Map<Block, number>();
  /** Samples in tier 0. */
  readonly #slow = new Map<Block, number>();
  readonly #free: number[] = [];
  #next = REGION_FIRST;
  #number = 0;
  #waiting = 0;
  /** By place in the table. */
  readonly #made = new Map<number, Made>();
  /** Where indirect jumps went, by the jump's guest-physical address: distances from it. */
  readonly #targets = new Map<number, Set<number>>();
  readonly #again = new Map<number, Reach>();
  /** Places in the table of regions that others will take the place of. */
  readonly #followed = new Set<number>();
  readonly #renewals = new WeakMap<Block, number>();
  /** How far the first region of a block goes. */
  get #first(): Reach {
    return this.#vm.reach ?? (this.#vm.regions === 'always' ? REACH.hot : REACH.warm);
  }
  /** No region may be made now. */
  forbidden = false;
  /** Counters: regions (of these, from earlier runs) and their instructions, modules, regions translated anew, regions that went, milliseconds of the vCPU's thread spent on them. */
  readonly stats = { made: 0, kept: 0, instructions: 0, modules: 0, renewed: 0, released: 0, ms: 0 };

  constructor(
    vm: DbtVm,
    env: number,
    table: WebAssembly.Table,
    exports: Readonly<Record<string, unknown>>,
    hosts: WebAssembly.ModuleImports,
    code: CodeCache,
    host: RegionHost,
  ) {
    const buffer = vm.memory.buffer;
    this.#vm = vm;
    this.#env = env;
    this.#view = new DataView(buffer);
    this.#words = new Int32Array(buffer);
    this.#bytes = new Uint8Array(buffer);
    this.#table = table;
    this.#exports = exports;
    this.#hosts = hosts;
    this.#code = code;
    this.#host = host;
    this.#handlers = new Handlers(vm.library, vm.handlers);
    // Cells of a vCPU that was here before.
    this.#forgetCells();
  }

  /**
   * Notes a block that runs, once in some 50,000 instructions; translates its region when it was met before. `left`: other regions were left
   * there after they had run for so long, so that it needs none of its own if they have its code.
   */
  sample(block: Block, base: () => bigint, left: boolean): void {
    const heat = count(this.#heat, block);
    if (this.#due(block, heat) && !this.#code.covered(block)) this.translate(block, base());
    else if (!left && count(this.#slow, block) === HOT * PATIENCE && this.#code.regionOf(block) < 0)
      this.translate(block, base());
    if (heat % VERY_HOT === 0) this.#grow(block);
  }
  /**
   * The translator's time is best spent on what is hottest, but not left unused: how often a block is to be met, for one when nothing waits.
   * A kernel that boots has a lot that is hot for a moment, and what is translated costs the vCPU some of its processor's speed.
   */
  #patience(block: Block): number {
    if (this.#waiting >= FEW_WISHES || (block.ctx & Ctx.user) === 0) return 4;
    return this.#waiting === 0 ? 1 : 2;
  }
  /** Whether a block is to be translated after so many samples. */
  #due(block: Block, heat: number): boolean {
    return heat % HOT === 0 || (heat < HOT && heat >= WARM * this.#patience(block));
  }
  /** Tier 0 arrives at a block often. Where a region has its code already, perhaps only until more of what it calls is translated, it waits. */
  arrived(block: Block, base: bigint): void {
    const times = (this.#arrived.get(block) ?? 0) + 1;
    this.#arrived.set(block, times);
    if (times >= REPORTS || (times >= this.#patience(block) && !this.#code.covered(block))) this.translate(block, base);
  }
  readonly #arrived = new WeakMap<Block, number>();
  /** A block that stays hot gets a larger region. */
  #grow(block: Block): void {
    const index = this.#code.regionOf(block);
    const made = this.#made.get(index);
    if (made?.grows) this.#again.set(index, REACH.hot);
  }
  /** Between two runs of the guest: takes what has been translated, and translates anew what is known better now. */
  look(): void {
    if (this.#waiting > 0) {
      for (let ready = this.#vm.maker?.receive(); ready; ready = this.#vm.maker?.receive()) {
        const begin = this.#vm.now();
        this.#take(ready.batch, ready.module);
        this.stats.ms += this.#vm.now() - begin;
      }
    }
    if (this.#again.size === 0) return;
    const again = [...this.#again];
    this.#again.clear();
    for (const [index, reach] of again) {
      const made = this.#made.get(index);
      if (!made || this.#followed.has(index)) continue;
      const { block, base } = made;
      // Ways out that always went to the same place have told nobody.
      const sites = this.#sitesOf(index);
      made.sites.forEach((jumps, n) => {
        if (this.#learn(sites + n * SITE_BYTES, jumps, made)) made.stale = true;
      });
      // The old one runs until the new one is there.
      if (block.ctx === this.#word(st.ctx.offset) && this.#host.peek(base) === made.pages.get(0))
        this.translate(block, base, reach, index);
    }
  }

  /** Makes a region for a block whose page is at linear address `base`, or asks for one. */
  translate(block: Block, base: bigint, reach = this.#first, old = -1): void {
    const vm = this.#vm;
    if (this.forbidden || this.#waiting >= WISHES_MAX || !this.#code.suits(block, old)) return;
    if (old < 0 && this.#takeKept(block, base)) return;
    if (this.#free.length === 0 && !this.#findFree()) {
      this.#host.full();
      return;
    }
    const begin = this.#vm.now();
    const places = new Map<number, number>();
    const notes: Questions = { pages: new Map(), met: new Set(), seen: new Map(), stops: new Set() };
    const source = noted(
      this.#source(block, base, places, reach, this.#made.get(old)),
      (n) => this.#host.hostPage(places.get(n)!),
      notes,
    );
    const region = findRegion(vm.tables, this.#handlers, source);
    if (!region) return;
    const before = this.#made.get(old);
    if (before && !before.stale && before.instructions === region.instructions) {
      // There is no more than it has.
      before.grows = false;
      return;
    }
    const index = this.#free.pop()!;
    const pages = this.#reserve(block, index, region.ranges, places);
    if (!pages) {
      this.#free.push(index);
      return;
    }
    const number = this.#number++;
    this.#made.set(index, {
      number,
      block,
      base,
      pages,
      instructions: region.instructions,
      grows: region.limited && reach !== REACH.hot,
      stale: false,
      reach,
      stops: notes.stops,
      old,
      sites: [],
      cells: [],
      mismapped: 0,
      hops: new Map(),
      hopped: 0,
    });
    if (old >= 0) this.#followed.add(old);
    const linear = BigInt.asUintN(64, base + BigInt(block.gpa % 4096));
    const wish: RegionWish = {
      number,
      index,
      name: `region_${linear.toString(16)}`,
      ctx: block.ctx,
      reach,
      entry: block.gpa % 4096,
      pages: [...notes.pages],
      met: vm.regions === 'always' ? null : [...notes.met],
      seen: [...notes.seen],
      stops: [...notes.stops],
      hashed: placesIn(this.#hashed, pages),
      apart: placesIn(this.#apart, pages),
      hopping: placesIn(this.#hopping, pages),
    };
    if (vm.maker) {
      this.#waiting++;
      vm.maker.wish(wish);
    } else this.#translateHere(wish);
    this.stats.ms += this.#vm.now() - begin;
  }
  /** Finds a place in the table that is free, for `#free`: first those that no region of an earlier run would take. */
  #findFree(): boolean {
    const { kept } = this.#vm;
    while (kept?.takes(this.#next)) this.#next++;
    if (this.#next < REGION_FIRST + REGIONS_MAX) this.#free.push(this.#next++);
    else
      for (let n = 0; kept && n < REGIONS_MAX && this.#free.length === 0; n++) {
        this.#lent = (this.#lent + 1) % REGIONS_MAX;
        const index = REGION_FIRST + this.#lent;
        if (kept.takes(index) && !this.#made.has(index)) this.#free.push(index);
      }
    return this.#free.length > 0;
  }
  #lent = 0;
  /** Reserves a block for a region at `index` that covers parts of these pages: which pages, or undefined where there is no room. */
  #reserve(
    block: Block,
    index: number,
    parts: readonly (readonly [number, number, number])[],
    places: ReadonlyMap<number, number>,
  ): ReadonlyMap<number, number> | undefined {
    const ranges = new Map<number, [number, number][]>();
    const pages = new Map<number, number>([[0, places.get(0)!]]);
    for (const [n, from, to] of parts) {
      const gpa = places.get(n)!;
      pages.set(n, gpa);
      const list = ranges.get(gpa / 4096);
      if (list) list.push([from, to]);
      else ranges.set(gpa / 4096, [[from, to]]);
    }
    const copy = this.#code.attach(block, index, ranges);
    if (copy === 0) return undefined;
    const sites = this.#sitesOf(index);
    this.#bytes.fill(0, sites, sites + REGION_SITES * SITE_BYTES);
    this.#view.setInt32(sites + Site.index, copy, true);
    const cells = this.#env + Area.cells + (index - REGION_FIRST) * REGION_CELLS * CELL_BYTES;
    this.#bytes.fill(0, cells, cells + REGION_CELLS * CELL_BYTES);
    // Those of a place that had no region before are in no chain.
    if (this.#placed.has(index)) this.#forgetCells();
    this.#placed.add(index);
    return pages;
  }
  readonly #placed = new Set<number>();

  /** A block was decoded: it gets its region at once where an earlier run has left one. */
  decoded(block: Block, base: () => bigint): void {
    if (!this.forbidden && this.#vm.kept?.at(block.ctx, block.gpa % 4096) && this.#code.suits(block))
      this.#takeKept(block, base());
  }
  /** Has a block run the region of an earlier run, if there is one for the code as it is. */
  #takeKept(block: Block, base: bigint): boolean {
    const { kept } = this.#vm;
    const list = kept?.at(block.ctx, block.gpa % 4096);
    if (!kept || !list) return false;
    const places = new Map<number, number>();
    const page = (n: number, claim: boolean): Uint8Array | undefined => {
      let gpa = places.get(n);
      if (gpa === undefined) {
        gpa = n === 0 ? block.gpa - (block.gpa % 4096) : this.#unbased ? this.#host.peek(base + BigInt(n) * 4096n) : -1;
        places.set(n, gpa);
      }
      const host = gpa < 0 ? -1 : this.#host.hostPage(gpa);
      if (host < 0) return undefined;
      if (claim) this.#host.claimPage(gpa, host);
      return this.#bytes.subarray(host, host + 4096);
    };
    for (const region of list) {
      if (this.#made.has(region.index) || !holds(region, (n) => page(n, false))) continue;
      const begin = this.#vm.now();
      // Looked at again once nobody writes to it unnoticed.
      const done = holds(region, (n) => page(n, true)) && this.#use(region, block, base, places);
      this.stats.ms += this.#vm.now() - begin;
      if (done) return true;
    }
    return false;
  }
  #use(region: KeptRegion, block: Block, base: bigint, places: ReadonlyMap<number, number>): boolean {
    const { index, instructions, grows, reach, stops, sites, cells } = region;
    const exports = this.#keptExports(region.module);
    const pages = exports && this.#reserve(block, index, region.ranges, places);
    if (!pages) return false;
    const number = this.#number++;
    this.#made.set(index, {
      number, block, base, pages, instructions, grows, stale: false, reach, stops: new Set(stops), old: -1, sites, cells, mismapped: 0, hops: new Map(), hopped: 0,
    }); // biome-ignore format: one object
    this.#table.set(index, exports[`r${index}`]);
    this.#code.activate(index, block);
    this.#vm.kept!.used(region);
    this.stats.made++;
    this.stats.kept++;
    this.stats.instructions += instructions;
    return true;
  }
  /** By number of a module of earlier runs: what it exports; null where it cannot be had. */
  readonly #kept = new Map<number, WebAssembly.Instance['exports'] | null>();
  #keptExports(number: number): WebAssembly.Instance['exports'] | null {
    let exports = this.#kept.get(number);
    if (exports === undefined) {
      const made = this.#vm.kept!.module(number);
      exports = made ? this.#instance(made.module, made) : null;
      this.#kept.set(number, exports);
    }
    return exports;
  }

  #translateHere(wish: RegionWish): void {
    const { tables, library, layout } = this.#vm;
    const handlers = this.#handlers;
    const available = new Set(Object.keys(this.#exports));
    const memory = { initial: layout.pages, maximum: layout.pages };
    this.#waiting++;
    const made = translate({ tables, handlers, library, available, memory, env: this.#env }, [wish], this.#bytes);
    this.#take(made.batch, made.code && new WebAssembly.Module(made.code));
  }
  #instance(
    module: WebAssembly.Module,
    { hosts, imports }: Pick<RegionBatch, 'hosts' | 'imports'>,
  ): WebAssembly.Instance['exports'] {
    const pick = (names: readonly string[], from: Readonly<Record<string, unknown>>): WebAssembly.ModuleImports =>
      Object.fromEntries(names.map((n) => [n, from[n]])) as WebAssembly.ModuleImports;
    const { exports } = new WebAssembly.Instance(module, {
      env: { memory: this.#vm.memory, table: this.#table },
      host: pick(hosts, this.#hosts),
      main: pick(imports, this.#exports),
    });
    this.stats.modules++;
    return exports;
  }
  /** Puts the regions of a module where they belong. */
  #take(batch: RegionBatch, module: WebAssembly.Module | null): void {
    this.#waiting -= batch.regions.length + batch.failed.length;
    for (const [number, index] of batch.failed) if (this.#made.get(index)?.number === number) this.#code.detach(index);
    const live = batch.regions.filter((r) => this.#made.get(r.index)?.number === r.number);
    if (!module || live.length === 0) return;
    const exports = this.#instance(module, batch);
    for (const { index, sites, cells } of live) {
      const made = this.#made.get(index)!;
      made.sites = sites;
      made.cells = cells;
      if (this.#made.get(made.old)?.block === made.block) this.#code.detach(made.old);
      this.#table.set(index, exports[`r${index}`]);
      this.#code.activate(index, made.block);
      this.stats.made++;
      this.stats.instructions += made.instructions;
    }
  }

  /** A region has gone: its place is used again, the function itself lives on until it returns. */
  release(index: number): void {
    this.#table.set(index, null);
    if (!this.#vm.kept?.takes(index)) this.#free.push(index);
    this.#followed.delete(this.#made.get(index)?.old ?? -1);
    this.#made.delete(index);
    this.#followed.delete(index);
    // Nothing is known of where regions go on.
    for (const half of [0, 1] as const) {
      const { offset } = st.epochs[half];
      this.#words[(this.#env + offset) >> 2] = epochAfter(this.#word(offset), half);
    }
    this.stats.released++;
  }

  /** The host function `validateRegion`: see chain.ts. */
  validate(index: number): number {
    const made = this.#made.get(index);
    if (!made) return 0;
    const base = this.#view.getBigInt64(this.#env + st.pageBase.offset, true);
    if (!this.#unbased) return 0;
    for (const [n, gpa] of made.pages) {
      if (n === 0) continue;
      const found = this.#host.peek(base + BigInt(n) * 4096n);
      if (found === gpa) continue;
      // A new process has not touched all pages of its program yet: they will come.
      made.mismapped += found < 0 ? 1 : 20;
      if (made.mismapped >= MISMAPPED_MAX) this.#code.detach(index);
      return 0;
    }
    const site = this.#sitesOf(index);
    this.#view.setBigInt64(site + Site.target, base, true);
    this.#view.setInt32(site + Site.epoch, this.#word(st.epochs[this.#upper(base)].offset), true);
    return 1;
  }
  /** The host function `manyTargets`: see chain.ts. */
  manyTargets(site: number): void {
    const n = Math.floor(((site >>> 0) - (this.#env + Area.sites)) / SITE_BYTES);
    const index = REGION_FIRST + Math.floor(n / REGION_SITES);
    const made = this.#made.get(index);
    const jumps = made?.sites[n % REGION_SITES];
    // Ways that are known now.
    if (made && n % REGION_SITES === 0) return this.#renew(index, made, false);
    if (made && jumps && this.#learn(site, jumps, made)) this.#renew(index, made);
  }
  /** Notes where the indirect jumps behind a site went; whether anything is new. */
  #learn(site: number, jumps: readonly number[], made: Made): boolean {
    const low = Number(made.base & 0xffffffffn);
    const count = Math.min(this.#view.getInt32(site + Site.count, true), SITE_TARGETS);
    let news = false;
    for (const place of jumps) {
      const page = Math.floor(place / 4096);
      const gpa = made.pages.get(page);
      if (gpa === undefined) continue;
      const at = gpa + place - page * 4096;
      let known = this.#targets.get(at);
      if (!known) {
        known = new Set();
        this.#targets.set(at, known);
      }
      for (let i = 0; i < count && known.size < TARGETS_MAX; i++) {
        const distance = (this.#view.getInt32(site + Site.targets + 4 * i, true) - low - place) | 0;
        news ||= !known.has(distance);
        known.add(distance);
      }
    }
    return news;
  }

  /** Accesses that hop between pages, and those whose look with others is often not served, by page number: offsets in the page. */
  readonly #hashed = new Map<number, Set<number>>();
  readonly #apart = new Map<number, Set<number>>();
  /** Those to a stack that is on one page and then on another, as functions are called at other depths. */
  readonly #hopping = new Map<number, Set<number>>();
  /** Since when a cell has missed many times in short, by its host address: instructions retired until then, reports after that. */
  readonly #missed = new Map<number, { since: number; reports: number }>();
  /** The host function `manyMisses`: see cells.ts. The count of instructions may be so many behind. */
  manyMisses(cell: number, instructions: number, behind: number): void {
    if (cell & 1) return this.#hops((cell & ~1) >>> 0);
    const at = cell >>> 0;
    const seen = this.#missed.get(at);
    const enough = seen && ++seen.reports * CELL_MISSES * FEW;
    if (enough === undefined || enough * 4 < instructions - seen!.since) {
      this.#missed.set(at, { since: instructions, reports: 0 });
      return;
    }
    if (enough < instructions - seen!.since + behind) return;
    const { index, made, places } = this.#cellAt(at);
    if (!made || !places) return;
    const pageOf = (place: number): number => (made.pages.get(Math.floor(place / 4096)) ?? -1) / 4096;
    // What does not always lie on one page together need not.
    const soft = places.every((place) => this.#apart.get(pageOf(place))?.has(place & 4095));
    const kind = places.length > 1 && !soft ? this.#apart : this.#hashed;
    remember(kind, places, made.pages);
    this.#renew(index, made);
  }
  /** A cell for the stack has missed often, each time for a moment: counted by itself it looks good, but there are many of them. */
  #hops(cell: number): void {
    const { index, made, places, n } = this.#cellAt(cell);
    if (!made || !places) return;
    const reports = (made.hops.get(n) ?? 0) + 1;
    made.hops.set(n, reports);
    if (reports === HOPS_MAX) remember(this.#hopping, places, made.pages);
    if (++made.hopped % REGION_HOPS_MAX === 0) this.#renew(index, made);
  }
  /** What is behind the cell at a host address: region, and the places of its accesses. */
  #cellAt(at: number): { index: number; n: number; made: Made | undefined; places: readonly number[] | undefined } {
    const cell = Math.floor((at - (this.#env + Area.cells)) / CELL_BYTES);
    const index = REGION_FIRST + Math.floor(cell / REGION_CELLS);
    const n = cell % REGION_CELLS;
    const made = this.#made.get(index);
    return { index, n, made, places: made?.cells[n] };
  }
  /** It is translated anew; where it is not `stale`, only if there is more of it now. */
  #renew(index: number, made: Made, stale = true): void {
    const renewals = this.#renewals.get(made.block) ?? 0;
    if (renewals >= RENEWALS_MAX || this.#followed.has(index)) return;
    this.#renewals.set(made.block, renewals + 1);
    this.stats.renewed++;
    if (stale) made.stale = true;
    this.#again.set(index, this.#again.get(index) ?? made.reach);
    Atomics.or(this.#words, (this.#env + st.kick.offset) >> 2, Kick.now);
  }

  /** What all cells know holds no more: some that were cleared may have been in the chain (see isa/x86/tlb.ts). */
  #forgetCells(): void {
    const at = this.#env + st.cellKey.offset;
    this.#view.setBigInt64(at, this.#view.getBigInt64(at, true) + st.CELL_KEY_STEP, true);
    this.#view.setInt32(this.#env + st.cellChain.offset, 0, true);
  }
  /** 1 for a linear address in the upper half. */
  #upper(linear: bigint): 0 | 1 {
    return BigInt.asIntN(64, linear + this.#view.getBigInt64(this.#env + st.halves.offset, true)) < 0n ? 1 : 0;
  }
  #word(offset: number): number {
    return this.#words[(this.#env + offset) >> 2];
  }
  #sitesOf(index: number): number {
    return this.#env + Area.sites + (index - REGION_FIRST) * REGION_SITES * SITE_BYTES;
  }
  /** Whether offsets in CS are linear addresses. */
  get #unbased(): boolean {
    return (
      (this.#word(st.ctx.offset) & Ctx.long) !== 0 || this.#view.getBigInt64(this.#env + st.segBase[S.cs].offset, true) === 0n
    );
  }
  /** The code around a block whose page is at linear address `base`; guest-physical addresses of pages go to `places`. */
  #source(block: Block, base: bigint, places: Map<number, number>, reach: Reach, old?: Made): RegionSource {
    const always = this.#vm.regions === 'always';
    const flat = this.#unbased;
    const placeOf = (n: number): number => {
      let gpa = places.get(n);
      if (gpa === undefined) {
        gpa = n === 0 ? Math.floor(block.gpa / 4096) * 4096 : flat ? this.#host.peek(base + BigInt(n) * 4096n) : -1;
        places.set(n, gpa);
      }
      return gpa;
    };
    /** Guest-physical address of a place, or -1. */
    const gpaOf = (place: number): number => {
      const n = Math.floor(place / 4096);
      const page = placeOf(n);
      return page < 0 ? -1 : page + place - n * 4096;
    };
    return {
      ctx: block.ctx,
      reach,
      entry: block.gpa % 4096,
      page: (n) => {
        const gpa = placeOf(n);
        const host = gpa < 0 ? -1 : this.#host.hostPage(gpa);
        if (host < 0) return undefined;
        this.#host.claimPage(gpa, host);
        return this.#bytes.subarray(host, host + 4096);
      },
      met: (place) => {
        if (always) return true;
        const gpa = gpaOf(place);
        return gpa >= 0 && this.#code.knows(gpa, block.ctx);
      },
      seen: (place) => {
        const targets = this.#targets.get(gpaOf(place));
        return targets ? [...targets].map((d) => place + d) : [];
      },
      // What stays hot goes on wherever it leads; what is translated anew ends where it did.
      stops: (place) => {
        if (reach !== REACH.warm) return false;
        if (old) return old.stops.has(place);
        const gpa = gpaOf(place);
        return gpa >= 0 && this.#code.starts(gpa, block.ctx);
      },
    };
  }
}

/** Counts a sample. Old counts fade: what is met twice in a long time is not hot. */
function count(samples: Map<Block, number>, block: Block): number {
  const n = (samples.get(block) ?? 0) + 1;
  samples.set(block, n);
  if (samples.size > 4096) samples.clear();
  return n;
}

/** Places of a region on these pages (number relative to the entry's, guest-physical address), of offsets by page. */
function placesIn(known: ReadonlyMap<number, ReadonlySet<number>>, pages: ReadonlyMap<number, number>): number[] {
  return [...pages].flatMap(([n, gpa]) => [...(known.get(gpa / 4096) ?? [])].map((offset) => n * 4096 + offset));
}

/** Notes places of a region on these pages by page number, as offsets in the page. */
function remember(kind: Map<number, Set<number>>, places: readonly number[], pages: ReadonlyMap<number, number>): void {
  for (const place of places) {
    const page = Math.floor(place / 4096);
    const gpa = pages.get(page);
    if (gpa === undefined) continue;
    let known = kind.get(gpa / 4096);
    if (!known) {
      known = new Set();
      kind.set(gpa / 4096, known);
    }
    known.add(place - page * 4096);
  }
}
