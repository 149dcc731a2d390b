// From one region to the next: the sites that remember where a region is left for, looking for the region there, whether the slice is over or somebody wants
// the thread meanwhile (chain.ts).

import * as st from '../../isa/x86/state.ts';
import type { Lower } from '../../wasm/lower.ts';
import { chainMiss, EPOCHS, manyTargets, pushHalf, REGION_FIRST, Site, UNMET_MAX, validateRegion } from './chain.ts';
import { Area, REGION_SITES, SITE_BYTES } from './layout.ts';
import { Kick, Out } from './tier0.ts';

/** Instructions that regions may run before they give the thread back. */
const FUEL = 50_000;
/** A site that never holds anything. */
export const NO_SITE = Area.sites - SITE_BYTES;

/** The links of one region, and the locals that they go by. */
export class RegionLinks {
  readonly #l: Lower;
  /** The region's place in the table, and the type of its function. */
  readonly #index: number;
  readonly #type: number;
  readonly #legacy: boolean;
  /** The code segment may have another base than 0. */
  readonly #based: boolean;
  /** Where the guest goes on. */
  readonly rip: number;
  /** Linear address of the entry's page. */
  readonly pageBase: number;
  /** Instructions since the count was last stored. */
  readonly count: number;
  /** The site that is looked through, and whether its targets are noted. */
  readonly site: number;
  readonly profile: number;
  /** Where the epoch of the region's half of the addresses is, relative to `EPOCHS`. */
  readonly #half: number;
  /** Instructions retired since tier 0 was left, as they were last stored. */
  readonly retired: number;
  /** What the sites are for; the first one is the region's. */
  readonly sites: number[][] = [[]];

  constructor(l: Lower, o: { readonly index: number; readonly type: number; readonly legacy: boolean; readonly based: boolean }) {
    this.#l = l;
    this.#index = o.index;
    this.#type = o.type;
    this.#legacy = o.legacy;
    this.#based = o.based;
    this.rip = l.local('i64');
    this.pageBase = l.local('i64');
    this.count = l.local('i32');
    this.site = l.local('i32');
    this.profile = l.local('i32');
    this.#half = l.local('i32');
    this.retired = l.local('i32');
  }

  /** At the region's entry. */
  begin(): void {
    const l = this.#l;
    l.env();
    l.memory(0x29, st.pageBase.offset);
    l.localSet(this.pageBase);
    pushHalf(l, () => l.localGet(this.pageBase), !this.#legacy);
    l.localSet(this.#half);
  }
  setRip(place: number): void {
    const l = this.#l;
    l.localGet(this.pageBase);
    l.i64(BigInt(place));
    l.op(0x7c);
    if (this.#legacy) {
      l.i64(0xffffffffn);
      l.op(0x83);
    }
    l.localSet(this.rip);
  }
  /** Offset of a new site from the state, or NO_SITE where there is none left. `places`: the indirect jumps behind it. */
  newSite(places: readonly number[]): number {
    if (this.sites.length >= REGION_SITES) return NO_SITE;
    this.sites.push([...places]);
    return this.#siteAt(this.sites.length - 1);
  }
  #siteAt(n: number): number {
    return Area.sites + ((this.#index - REGION_FIRST) * REGION_SITES + n) * SITE_BYTES;
  }
  /** Goes to tier 0 where what is on the stack says so. */
  leaveIf(): void {
    const l = this.#l;
    l.open(0x04, 0x40, null, false);
    l.i32(Out.region);
    l.op(0x0f);
    l.close();
  }
  /** Goes to the region whose place in the table is on the stack. */
  enter(): void {
    const l = this.#l;
    l.localSet(this.site);
    l.env();
    l.i32(0);
    l.localGet(this.site);
    l.op(0x13);
    l.out.uleb(this.#type);
    l.out.u8(0);
  }
  /** Puts the page of `rip` into the state, where a region looks for its entry's. */
  putPage(): void {
    const l = this.#l;
    l.env();
    l.localGet(this.rip);
    l.i64(-4096n);
    l.op(0x83);
    l.memory(0x37, st.pageBase.offset);
  }
  /** Stores the instruction pointer and the instructions retired since tier 0 was left. */
  putRip(): void {
    const l = this.#l;
    l.env();
    l.localGet(this.rip);
    l.memory(0x37, st.rip.offset);
    this.putRetired();
  }
  putRetired(): void {
    const l = this.#l;
    l.env();
    l.localGet(this.count);
    l.stateI32(st.retired.offset);
    l.op(0x6a);
    l.localTee(this.retired);
    l.memory(0x36, st.retired.offset);
  }
  /** Whether the slice is over or somebody wants us, with the count of instructions just stored: `leave` takes that from the stack. */
  checkWanted(leave: () => void): void {
    const l = this.#l;
    l.localGet(this.retired);
    l.i32(FUEL);
    l.op(0x4a);
    leave();
    l.stateI32(st.kick.offset);
    l.open(0x04, 0x40, null, false);
    // An interrupt that waits for IF does not want us while that is clear.
    l.stateI32(st.kick.offset);
    l.stateI32(st.sysFlags.offset);
    l.i32(Kick.now);
    l.op(0x72, 0x71);
    leave();
    l.close();
  }
  /** The same on the way to another region. */
  checkSlice(leave: () => void): void {
    this.checkWanted(leave);
    this.checkBase(leave);
  }
  /** Regions are found by linear address: with another base than 0 by tier 0 only. */
  checkBase(leave: () => void): void {
    if (!this.#based) return;
    const l = this.#l;
    l.env();
    l.memory(0x29, st.segBase[st.S.cs].offset);
    l.i64(0n);
    l.op(0x52);
    leave();
  }
  /** Finds the region at `rip` through `site`: puts its place in the table on the stack, or 0 for `none`; sets `pageBase` in the state. */
  lookUp(profile: boolean | null, none: () => void): void {
    const l = this.#l;
    const site = (): void => {
      l.env();
      l.localGet(this.site);
      l.op(0x6a);
    };
    this.putPage();
    const found = l.depth;
    l.open(0x02, 0x7f);
    const miss = l.depth;
    l.open(0x02);
    site();
    l.memory(0x29, Site.target);
    l.localGet(this.rip);
    l.op(0x52);
    l.brTo(miss, true, false);
    // One in the other half of the addresses is never found here: its epoch is never the same.
    site();
    l.memory(0x28, Site.epoch);
    this.#epoch();
    l.op(0x47);
    l.brTo(miss, true, false);
    site();
    l.memory(0x28, Site.index);
    l.brTo(found);
    l.close();
    l.env();
    site();
    l.i32(0);
    l.localGet(this.site);
    l.i32(NO_SITE);
    l.op(0x47, 0x1b);
    if (profile === null) l.localGet(this.profile);
    else l.i32(profile ? 1 : 0);
    l.call(chainMiss);
    l.localTee(this.site);
    l.op(0x45);
    none();
    l.localGet(this.site);
    l.close();
  }
  /** Puts the epoch of the region's half of the addresses on the stack. */
  #epoch(): void {
    this.#l.localGet(this.#half);
    this.#l.memory(0x28, EPOCHS);
  }

  /** A way has been taken that nobody had taken when the region was translated: where that happens often, it is translated again. */
  countUnmet(): void {
    const l = this.#l;
    const own = this.#siteAt(0);
    const misses = l.local('i32');
    l.env();
    l.env();
    l.memory(0x28, own + Site.misses);
    l.i32(1);
    l.op(0x6a);
    l.localTee(misses);
    l.memory(0x36, own + Site.misses);
    l.localGet(misses);
    l.i32(UNMET_MAX);
    l.op(0x46);
    l.open(0x04, 0x40, null, false);
    l.env();
    l.i32(own);
    l.op(0x6a);
    l.call(manyTargets);
    l.close();
    l.i32(NO_SITE);
    l.localSet(this.site);
    l.i32(0);
    l.localSet(this.profile);
  }
  /** Where the entry's first instruction could not run here, tier 0 must not come straight back: it runs the entry's records. */
  passEntry(stuck: number): void {
    const l = this.#l;
    l.localGet(stuck);
    l.stateI32(st.exc.offset);
    l.op(0x45, 0x71);
    l.open(0x04, 0x40, null, false);
    l.env();
    l.localGet(this.pageBase);
    l.memory(0x37, st.pageBase.offset);
    l.env();
    l.memory(0x28, this.#siteAt(0) + Site.index);
    l.op(0x0f);
    l.close();
  }
  /** Where the pages behind the entry's are mapped otherwise, tier 0 runs the entry's records. */
  validate(): void {
    const l = this.#l;
    const site = this.#siteAt(0);
    const good = l.depth;
    l.open(0x02);
    const unknown = l.depth;
    l.open(0x02);
    const leave = (): void => l.brTo(unknown, true, false);
    l.env();
    l.memory(0x29, site + Site.target);
    l.localGet(this.pageBase);
    l.op(0x52);
    leave();
    l.env();
    l.memory(0x28, site + Site.epoch);
    this.#epoch();
    l.op(0x47);
    leave();
    this.checkBase(leave);
    l.brTo(good);
    l.close();
    l.i32(this.#index);
    l.call(validateRegion);
    l.brTo(good, true);
    l.env();
    l.memory(0x28, site + Site.index);
    l.op(0x0f);
    l.close();
  }
}
