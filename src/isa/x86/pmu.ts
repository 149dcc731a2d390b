// Performance counters: Intel's architectural performance monitoring, version 2 (SDM volume 3, sections 20.2.1 to 20.2.3), and the four
// counters that every AMD processor has since K7 (AMD APM volume 2, section 13.2.1). They count instructions; a cycle is the time of one.

import type { Slot } from '../../ir/ir.ts';
import * as st from './state.ts';

/** The counters that a processor has. */
export type PmuKind = 'intel' | 'amd';
const vendors: Readonly<Record<string, PmuKind>> = { GenuineIntel: 'intel', AuthenticAMD: 'amd', HygonGenuine: 'amd' };
/** The counters of a CPU model; undefined where it has none. */
export const pmuKind = (model: { readonly vendor: string; readonly pmu: boolean }): PmuKind | undefined =>
  model.pmu ? vendors[model.vendor] : undefined;

export const GENERAL = st.pmCounter.length;
export const FIXED = st.pmFixed.length;
/** Bits of every counter. */
export const COUNTER_BITS = 48;
const MASK = (1n << BigInt(COUNTER_BITS)) - 1n;

/** Event selects (figure 20-6; the same places in AMD's). */
const Select = {
  user: 1n << 16n,
  os: 1n << 17n,
  edge: 1n << 18n,
  interrupt: 1n << 20n,
  enable: 1n << 22n,
  invert: 1n << 23n,
} as const;
const INTEL_SELECT = 0xffffffffn & ~(1n << 21n);
const AMD_SELECT = 0x3_0f_ffff_ffffn & ~((1n << 19n) | (1n << 21n));
/** Each fixed counter's four bits of the control register: OS, user, any thread (not here), interrupt. */
const Fixed = { os: 1n, user: 2n, interrupt: 8n } as const;
const FIXED_CONTROL = 0xbbbn;
const FIXED_SHIFT = 32;
const GLOBAL = (((1n << BigInt(FIXED)) - 1n) << 32n) | ((1n << BigInt(GENERAL)) - 1n);
/** The buffer's and the conditions' bits that clearing may name. */
const CLEARABLE = GLOBAL | (3n << 62n);

/** Registers by number. */
const Msr = {
  counter: 0xc1,
  select: 0x186,
  fixed: 0x309,
  capabilities: 0x345,
  fixedControl: 0x38d,
  status: 0x38e,
  control: 0x38f,
  clear: 0x390,
  full: 0x4c1,
  amdSelect: 0xc001_0000,
  amdCounter: 0xc001_0004,
} as const;
/** Counters are written in their full width through registers of their own. */
const CAPABILITIES = 0x2000n;

/** Instructions and cycles, by event and unit mask: the events that are counted. */
const events: Readonly<Record<PmuKind, ReadonlySet<number>>> = {
  intel: new Set([0x003c, 0x013c, 0x00c0]),
  amd: new Set([0x0076, 0x00c0]),
};

/** Leaf 0xA (SDM volume 2, CPUID): version 2; of the seven architectural events, those of caches and branches are not there. */
export const PMU_LEAF = [2 | (GENERAL << 8) | (COUNTER_BITS << 16) | (7 << 24), 0x78, 0, FIXED | (COUNTER_BITS << 5)] as const;

/** One counter: its slot, its number in the global registers, what it is set up to count. */
interface Counter {
  readonly slot: Slot;
  readonly bit: number;
  /** Whether it counts at CPL 0 to 2, and at CPL 3. */
  readonly os: boolean;
  readonly user: boolean;
  readonly interrupt: boolean;
}

/** A vCPU's performance counters: registers in its state, counted up by whoever knows how many instructions have run. */
export class Pmu {
  readonly kind: PmuKind;
  readonly #view: DataView;
  readonly #env: number;
  #running: readonly Counter[] | undefined;

  constructor(view: DataView, env: number, kind: PmuKind) {
    this.kind = kind;
    this.#view = view;
    this.#env = env;
  }

  /** The state came from elsewhere: a reset, a snapshot. */
  changed(): void {
    this.#running = undefined;
  }

  /** After power-on the general counters are enabled as far as the register over all goes (SDM volume 3, table 9-1). */
  reset(): void {
    this.changed();
    if (this.kind === 'intel') this.#set(st.pmControl, (1n << BigInt(GENERAL)) - 1n);
  }

  /** True where a register is one of these. */
  owns(msr: number): boolean {
    const within = (first: number, count: number): boolean => msr >= first && msr < first + count;
    if (this.kind === 'amd') return within(Msr.amdSelect, 2 * GENERAL);
    return (
      within(Msr.counter, GENERAL) ||
      within(Msr.select, GENERAL) ||
      within(Msr.fixed, FIXED) ||
      within(Msr.full, GENERAL) ||
      within(Msr.fixedControl, 4) ||
      msr === Msr.capabilities
    );
  }

  /** Whether a write is accepted; one that is not raises #GP(0). */
  accepts(msr: number, value: bigint): boolean {
    if (this.kind === 'amd') return true;
    switch (true) {
      case msr >= Msr.full:
      case msr >= Msr.fixed && msr < Msr.fixed + FIXED:
        return (value & ~MASK) === 0n;
      case msr >= Msr.select && msr < Msr.select + GENERAL:
        return (value & ~INTEL_SELECT) === 0n;
      case msr === Msr.fixedControl:
        return (value & ~FIXED_CONTROL) === 0n;
      case msr === Msr.control:
        return (value & ~GLOBAL) === 0n;
      case msr === Msr.clear:
        return (value & ~CLEARABLE) === 0n;
      case msr === Msr.status:
      case msr === Msr.capabilities:
        return false;
      default:
        return true;
    }
  }

  read(msr: number): bigint {
    if (this.kind === 'amd') {
      const at = msr - Msr.amdCounter;
      return this.#get(at >= 0 ? st.pmCounter[at] : st.pmSelect[msr - Msr.amdSelect]);
    }
    if (msr >= Msr.full) return this.#get(st.pmCounter[msr - Msr.full]);
    if (msr >= Msr.select && msr < Msr.select + GENERAL) return this.#get(st.pmSelect[msr - Msr.select]);
    if (msr >= Msr.fixed && msr < Msr.fixed + FIXED) return this.#get(st.pmFixed[msr - Msr.fixed]);
    switch (msr) {
      case Msr.capabilities:
        return CAPABILITIES;
      case Msr.fixedControl:
        return this.#get(st.pmFixedControl);
      case Msr.status:
        return this.#get(st.pmStatus);
      case Msr.control:
        return this.#get(st.pmControl);
      case Msr.clear:
        return 0n;
      default:
        return this.#get(st.pmCounter[msr - Msr.counter]);
    }
  }

  /** A write that is accepted. What has run so far was counted before. */
  write(msr: number, value: bigint): void {
    this.#running = undefined;
    if (this.kind === 'amd') {
      const at = msr - Msr.amdCounter;
      if (at >= 0) this.#set(st.pmCounter[at], value & MASK);
      else this.#set(st.pmSelect[msr - Msr.amdSelect], value & AMD_SELECT);
    } else if (msr >= Msr.full) this.#set(st.pmCounter[msr - Msr.full], value);
    else if (msr >= Msr.select && msr < Msr.select + GENERAL) this.#set(st.pmSelect[msr - Msr.select], value);
    else if (msr >= Msr.fixed && msr < Msr.fixed + FIXED) this.#set(st.pmFixed[msr - Msr.fixed], value);
    else if (msr === Msr.fixedControl) this.#set(st.pmFixedControl, value);
    else if (msr === Msr.control) this.#set(st.pmControl, value);
    else if (msr === Msr.clear) this.#set(st.pmStatus, this.#get(st.pmStatus) & ~value);
    // Of the first registers' writes the lower half counts, with its sign (20.2.8).
    else this.#set(st.pmCounter[msr - Msr.counter], BigInt.asIntN(32, value) & MASK);
    this.#view.setInt32(this.#env + st.pmSplit.offset, this.#counters().some((c) => c.os !== c.user) ? 1 : 0, true);
  }

  /** The counter that RDPMC names by `index` (unsigned); undefined where there is none: #GP(0). */
  counter(index: number): bigint | undefined {
    const fixed = this.kind === 'intel' && index >>> 30 === 1;
    const slot = (fixed ? st.pmFixed : st.pmCounter)[fixed ? index & 0x3fff_ffff : index];
    return slot && this.#get(slot);
  }

  /** Counts `instructions` more, which ran at CPL 3 or below. True where a counter that is to interrupt ran over. */
  advance(instructions: number, user: boolean): boolean {
    let interrupt = false;
    for (const c of this.#counters()) {
      if (!(user ? c.user : c.os)) continue;
      const value = this.#get(c.slot) + BigInt(instructions);
      this.#set(c.slot, value & MASK);
      if (value <= MASK) continue;
      if (this.kind === 'intel') this.#set(st.pmStatus, this.#get(st.pmStatus) | (1n << BigInt(c.bit)));
      interrupt ||= c.interrupt;
    }
    return interrupt;
  }

  /** Instructions until a counter that interrupts runs over; Infinity where none does. */
  left(): number {
    let left = Number.POSITIVE_INFINITY;
    for (const c of this.#counters()) if (c.interrupt) left = Math.min(left, Number(MASK + 1n - this.#get(c.slot)));
    return left;
  }

  /** True while anything is counted. */
  get runs(): boolean {
    return this.#counters().length > 0;
  }

  #counters(): readonly Counter[] {
    this.#running ??= this.#find();
    return this.#running;
  }
  #find(): Counter[] {
    const found: Counter[] = [];
    const intel = this.kind === 'intel';
    const control = intel ? this.#get(st.pmControl) : -1n;
    st.pmCounter.forEach((slot, n) => {
      const select = this.#get(st.pmSelect[n]);
      if ((select & Select.enable) === 0n || ((control >> BigInt(n)) & 1n) === 0n || !this.#counts(select)) return;
      const has = (bit: bigint): boolean => (select & bit) !== 0n;
      found.push({ slot, bit: n, os: has(Select.os), user: has(Select.user), interrupt: has(Select.interrupt) });
    });
    if (!intel) return found;
    const fixed = this.#get(st.pmFixedControl);
    st.pmFixed.forEach((slot, n) => {
      const how = (fixed >> BigInt(4 * n)) & 15n;
      const bit = FIXED_SHIFT + n;
      const [os, user] = [(how & Fixed.os) !== 0n, (how & Fixed.user) !== 0n];
      if ((os || user) && (control >> BigInt(bit)) & 1n)
        found.push({ slot, bit, os, user, interrupt: (how & Fixed.interrupt) !== 0n });
    });
    return found;
  }
  /** Whether each cycle adds one: a counter mask asks for so many events in one cycle, inverted for fewer; there is always one. */
  #counts(select: bigint): boolean {
    const event = Number(select & 0xffffn) | (Number((select >> 32n) & 15n) << 16);
    if (!events[this.kind].has(event) || (select & Select.edge) !== 0n) return false;
    const mask = Number((select >> 24n) & 0xffn);
    return mask === 0 || ((select & Select.invert) !== 0n) === mask > 1;
  }

  #get(slot: Slot): bigint {
    return this.#view.getBigUint64(this.#env + slot.offset, true);
  }
  #set(slot: Slot, value: bigint): void {
    this.#view.setBigUint64(this.#env + slot.offset, value, true);
  }
}
