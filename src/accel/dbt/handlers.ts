// Handlers of tier 0: one for each variant of a row that guest code uses, with what decoding has to know about it.

import { IntMap } from '../../bits/int-map.ts';
import type { LeaveKind, Stmt } from '../../ir/ir.ts';
import { operandsOf, type Variant } from '../../isa/x86/bind.ts';
import type { Insn } from '../../isa/x86/decode.ts';
import { checkFpu } from '../../isa/x86/fpu-check.ts';
import { RecordEmit } from '../../isa/x86/record.ts';
import { units } from '../../isa/x86/row.ts';
import * as st from '../../isa/x86/state.ts';
import { Ctx } from '../../isa/x86/state.ts';
import { checksFpu, isFlat, isLimited, variantOf } from '../../isa/x86/static.ts';
import type { RowInfo } from '../../isa/x86/table.ts';
import { type Library, walk } from './library.ts';

/** Bits of a set of arithmetic flags: one for each slot. */
const FLAG_BITS = new Map([st.fZ, st.fN, st.fC, st.fO, st.fA].map((s, i) => [s.offset, 1 << i]));
export const ALL_FLAGS = 31;

export interface Handler {
  readonly number: number;
  readonly variant: Variant;
  readonly body: readonly Stmt[];
  /** The handler of the next instruction, where this one does both; else null. */
  readonly second: Handler | null;
  /** Arithmetic flags that it reads, that it writes, and that it writes whatever happens. */
  readonly reads: number;
  /** Arithmetic flags that it reads itself (its ways out leave the others to whoever comes next). */
  readonly tested: number;
  readonly writes: number;
  readonly kills: number;
  /** Control never reaches the next instruction by falling through. */
  readonly ends: boolean;
  /** A subroutine that it calls looks at the flags' slots. */
  readonly sharesFlags: boolean;
  /** It may write guest memory. */
  readonly stores: boolean;
  /** It may raise an exception. */
  readonly faults: boolean;
  /** Its code depends on `Variant.flat`. */
  readonly segmented: boolean;
  /** Ways out that it has. */
  readonly leaves: ReadonlySet<LeaveKind>;
}

/** The row's code for a variant, still in its builder. */
function emitted(variant: Variant): RecordEmit {
  const c = new RecordEmit(variant);
  const fp = variant.info.row.options.fp;
  if (fp && variant.fpTrap) c.do(checkFpu, c.b.i32(units.indexOf(fp)));
  variant.info.row.emit(c, ...operandsOf(variant));
  return c;
}

const sizeCode = (bits: number): number => (bits === 16 ? 0 : bits === 32 ? 1 : bits === 64 ? 2 : 3);

/** A number that two variants share only when they are the same. */
export function variantKey(v: Variant): number {
  let key = v.info.index;
  key = key * 4 + sizeCode(v.size);
  key = key * 4 + sizeCode(v.addressSize);
  key = key * 4 + v.rep;
  key = key * 256 + (v.isMemory ? 1 : 0) + (v.lock ? 2 : 0) + (v.long ? 4 : 0) + (v.flagsLive ? 8 : 0) + (v.fpTrap ? 16 : 0);
  return key + (v.wide ? 32 : 0) + (v.limited ? 64 : 0) + (v.flat ? 128 : 0);
}

/** A variant's name for profiles and the list of hot handlers. */
export function variantName(v: Variant): string {
  const parts = [v.info.row.asm, v.size, v.addressSize, v.long ? 'long' : 'legacy'];
  if (v.isMemory) parts.push('mem');
  if (v.lock) parts.push('lock');
  if (v.rep) parts.push(`rep${v.rep}`);
  if (!v.flagsLive) parts.push('noflags');
  if (v.fpTrap) parts.push('fptrap');
  if (v.wide) parts.push('wide');
  if (v.limited) parts.push('limited');
  if (v.flat) parts.push('flat');
  return `${v.info.row.opcode}|${parts.join('|')}`;
}

/** What is known of a handler as plain data: its row by index, and without its code, which is made when somebody asks for it. */
export type HandlerData = Omit<Handler, 'variant' | 'body' | 'second' | 'leaves'> & {
  readonly row: number;
  readonly variant: Omit<Variant, 'info'>;
  readonly leaves: readonly LeaveKind[];
  /** Number of `second`, or -1. */
  readonly second: number;
};

/** A handler of which only its code is not known yet. */
class Adopted implements Handler {
  readonly number: number;
  readonly variant: Variant;
  readonly second: Handler | null;
  readonly reads: number;
  readonly tested: number;
  readonly writes: number;
  readonly kills: number;
  readonly ends: boolean;
  readonly sharesFlags: boolean;
  readonly stores: boolean;
  readonly faults: boolean;
  readonly segmented: boolean;
  readonly leaves: ReadonlySet<LeaveKind>;
  #body: readonly Stmt[] | undefined;

  constructor(known: HandlerData, variant: Variant, second: Handler | null, leaves: ReadonlySet<LeaveKind>) {
    this.number = known.number;
    this.variant = variant;
    this.second = second;
    this.reads = known.reads;
    this.tested = known.tested;
    this.writes = known.writes;
    this.kills = known.kills;
    this.ends = known.ends;
    this.sharesFlags = known.sharesFlags;
    this.stores = known.stores;
    this.faults = known.faults;
    this.segmented = known.segmented;
    this.leaves = leaves;
  }
  get body(): readonly Stmt[] {
    this.#body ??= emitted(this.variant).b.take();
    return this.#body;
  }
}

/** Handlers' numbers have 16 bits. */
const pairKey = (first: Handler, second: Handler): number => first.number | (second.number << 16);

/** The handlers made so far. Numbers are given in order of first use. */
export class Handlers {
  readonly list: Handler[] = [];
  readonly #byKey = new IntMap<Handler>();
  /** Those that do two instructions, by the numbers of the first and the second one's (`pairKey`). */
  readonly #pairs = new IntMap<Handler>();
  readonly #library: Library;
  readonly #base: Handlers | undefined;

  /** With `base`: those that it lacks, for whoever wants to know about instructions that tier 0 has not met. */
  constructor(library: Library, base?: Handlers) {
    this.#base = base;
    this.#library = library;
  }

  /** The handler of a variant, made when it is new. */
  get(v: Variant): Handler {
    const key = variantKey(v);
    let h = this.#byKey.get(key);
    if (h) return h;
    if (!v.flagsLive) {
      // Where no flags are written, one handler serves both.
      const full = this.get({ ...v, flagsLive: true });
      if (full.writes === 0) {
        this.#byKey.set(key, full);
        return full;
      }
    }
    if (v.flat) {
      // Where segments do not matter, one serves both.
      const other = { ...v, flat: false };
      const plain = this.#byKey.get(variantKey(other)) ?? (emitted(v).segmented ? undefined : this.get(other));
      if (plain && !plain.segmented) {
        this.#byKey.set(key, plain);
        return plain;
      }
    }
    h = this.#make(v);
    this.list.push(h);
    this.#byKey.set(key, h);
    return h;
  }
  /** What is known of all of them. */
  data(): HandlerData[] {
    return this.list.map(({ body: _, variant: { info, ...variant }, leaves, second, ...rest }) => {
      return { ...rest, row: info.index, variant, leaves: [...leaves], second: second?.number ?? -1 };
    });
  }
  /** Takes over what `data` gave; `rows` by index. There must be none yet. */
  adopt(data: readonly HandlerData[], rows: readonly RowInfo[]): void {
    const sets = new Map<string, ReadonlySet<LeaveKind>>();
    for (const known of data) {
      const name = known.leaves.join();
      const leaves = sets.get(name) ?? new Set(known.leaves);
      sets.set(name, leaves);
      const variant: Variant = { info: rows[known.row], ...known.variant };
      const h = new Adopted(known, variant, known.second < 0 ? null : this.list[known.second], leaves);
      this.list.push(h);
      // What does two instructions has the variant of the first.
      const key = variantKey(variant);
      if (h.second) this.#setPair(this.#byKey.get(key)!, h.second, h);
      else this.#byKey.set(key, h);
    }
  }
  /** Makes a handler that does two instructions in a row, as `first` and `second` would. */
  pair(first: Handler, second: Handler): void {
    if (this.pairOf(first, second)) return;
    const h: Handler = { ...first, body: first.body, number: this.list.length, second };
    this.list.push(h);
    this.#setPair(first, second, h);
  }
  #setPair(first: Handler, second: Handler, both: Handler): void {
    this.#pairs.set(pairKey(first, second), both);
  }
  /** The handler that does both, if there is one. */
  pairOf(first: Handler, second: Handler): Handler | undefined {
    return this.#pairs.get(pairKey(first, second));
  }
  /** The handler of a decoded instruction; `flagsLive` as in `Variant`. */
  of(insn: Insn, ctx: number, flagsLive = true): Handler {
    // The key of `variantKey`, without a variant: this runs for every instruction that is decoded.
    const { row } = insn;
    let key = row.index;
    key = key * 4 + sizeCode(insn.size);
    key = key * 4 + sizeCode(insn.addressSize);
    key = key * 4 + (row.repeats ? insn.rep : 0);
    const fpTrap = checksFpu(row.fp, ctx);
    key =
      key * 256 +
      (insn.isMemory ? 1 : 0) +
      (insn.lock ? 2 : 0) +
      (ctx & Ctx.long ? 4 : 0) +
      (flagsLive ? 8 : 0) +
      (fpTrap ? 16 : 0) +
      (insn.wide ? 32 : 0) +
      (isLimited(insn, ctx) ? 64 : 0) +
      (isFlat(insn, ctx) ? 128 : 0);
    return (
      this.#byKey.get(key) ?? (this.#base ? this.#base.#byKey.get(key) : undefined) ?? this.get(variantOf(insn, ctx, flagsLive))
    );
  }

  #make(variant: Variant): Handler {
    const c = emitted(variant);
    const ends = c.b.ended;
    const body = c.b.take();
    let reads = 0;
    let tested = 0;
    let writes = 0;
    let faults = false;
    let sharesFlags = false;
    let stores = false;
    const leaves = new Set<LeaveKind>();
    walk(body, (s) => {
      if (s.kind === 'leave') leaves.add(s.how);
      // A subroutine that may fault may store as well: nobody looks inside.
      if (s.kind === 'store' || s.kind === 'rmw' || s.kind === 'cmpxchg' || (s.kind === 'do' && s.callee.faults)) stores = true;
      if (s.kind === 'load' || s.kind === 'store' || s.kind === 'rmw' || s.kind === 'cmpxchg') faults = true;
      else if ((s.kind === 'call' || s.kind === 'do') && s.callee.faults) faults = true;
      if (s.kind === 'get') tested |= FLAG_BITS.get(s.slot.offset) ?? 0;
      else if (s.kind === 'set') writes |= FLAG_BITS.get(s.slot.offset) ?? 0;
      else if ((s.kind === 'call' || s.kind === 'do') && this.#library.touchesFlags(s.callee)) {
        tested = ALL_FLAGS;
        sharesFlags = true;
      } else if (s.kind === 'leave' && s.how !== 'fault' && s.how !== 'next' && s.how !== 'repeat') reads = ALL_FLAGS;
    });
    reads |= tested;
    let kills = 0;
    for (const s of body) if (s.kind === 'set') kills |= FLAG_BITS.get(s.slot.offset) ?? 0;
    // An early `next` may pass by the writes.
    if (leaves.has('next')) kills = 0;
    return {
      number: this.list.length,
      variant,
      body,
      second: null,
      reads,
      tested,
      writes,
      kills,
      ends,
      stores,
      sharesFlags,
      faults: faults || leaves.has('fault'),
      segmented: c.segmented,
      leaves,
    };
  }
}
