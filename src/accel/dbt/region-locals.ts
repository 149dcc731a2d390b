// What a region keeps in locals: general registers, flags and the like, which are loaded where they are read first, and stored where the region is left or
// calls what may look at them (kept-slots.ts).

import type { Callee, Stmt } from '../../ir/ir.ts';
import { accesses, type Type } from '../../ir/ops.ts';
import * as st from '../../isa/x86/state.ts';
import type { Lower } from '../../wasm/lower.ts';
import { RIGHTS } from './groups.ts';
import { copyOf, type HeldAt, heldAt, nestedSlots, nothingHeld } from './kept-slots.ts';
import { ANY_SLOT, type Library } from './library.ts';
import type { RegionBlock } from './region.ts';
import type { Part } from './region-ir.ts';

/** Slots that a region keeps in locals: general registers, flags, vector registers, the address of the TLB, the key of cells. */
export const KEPT = new Map<number, Type>([
  ...st.gpr.map((s): [number, Type] => [s.offset, 'i64']),
  ...[st.fZ, st.fN].map((s): [number, Type] => [s.offset, 'i64']),
  ...[st.fC, st.fO, st.fA].map((s): [number, Type] => [s.offset, 'i32']),
  ...[...st.xmm, ...st.ymmHigh].map((s): [number, Type] => [s.offset, 'v128']),
  [st.tlb.offset, 'i32'],
  [st.cellKey.offset, 'i64'],
]);

/** What a region keeps in locals, and how it comes there and back. */
export class RegionLocals {
  readonly #l: Lower;
  readonly #library: Library;
  /** Kept slots that are used in the region. */
  readonly #used: ReadonlySet<number>;
  readonly #locals = new Map<number, number>();
  /** Of these, but for what accesses go by: what is held at the beginning of each block, and here. */
  readonly #heldAt: ReadonlyMap<RegionBlock, HeldAt>;
  #held = nothingHeld();
  /** Local with a bit for each slot that was written where the region is left by a way that many share; and the sets that ways have named. */
  readonly #mask: number;
  readonly #bits = new Map<number, bigint>();
  readonly #masks: ReadonlySet<number>[] = [];

  constructor(
    l: Lower,
    library: Library,
    blocks: readonly RegionBlock[],
    bodies: ReadonlyMap<RegionBlock, readonly Part[]>,
    used: ReadonlySet<number>,
  ) {
    this.#l = l;
    this.#library = library;
    this.#used = used;
    this.#mask = l.local('i64');
    for (const offset of used) {
      this.#bits.set(offset, 1n << BigInt(this.#bits.size));
      this.#locals.set(offset, l.local(KEPT.get(offset)!));
    }
    this.#heldAt = heldAt(blocks, bodies, new Set([...used].filter((offset) => !RIGHTS.has(offset))));
  }

  /** The local of a slot; undefined where it is in the state. */
  of(offset: number): number | undefined {
    return this.#locals.get(offset);
  }
  #move(offsets: Iterable<number>, toState: boolean): void {
    const l = this.#l;
    for (const offset of offsets) {
      const access = accesses[KEPT.get(offset) as 'i64'];
      l.env();
      if (toState) {
        l.localGet(this.#locals.get(offset)!);
        l.memory(access.store, offset);
      } else {
        l.memory(access.load, offset);
        l.localSet(this.#locals.get(offset)!);
      }
    }
  }
  /** Loads slots that are not in their locals yet. */
  #hold(offsets: Iterable<number>): void {
    const { valid } = this.#held;
    const missing = [...offsets].filter((o) => !valid.has(o));
    this.#move(missing, false);
    for (const offset of missing) valid.add(offset);
  }
  /** The state has all: what locals hold counts for nothing from here on. */
  letGo(): void {
    this.#forget(this.#held.valid);
    this.#held = nothingHeld();
  }
  /** For V8, which would keep what these locals hold for ways out that look at the mask first. */
  #forget(offsets: Iterable<number>): void {
    const l = this.#l;
    for (const offset of offsets) {
      const type = KEPT.get(offset)!;
      if (type === 'i64') l.i64(0n);
      else if (type === 'i32') l.i32(0);
      else l.op(0xfd, 0x0c, ...new Uint8Array(16));
      l.localSet(this.#locals.get(offset)!);
    }
  }
  /** Loads what accesses go by: it is in its locals all the time, and the state has it, too. */
  loadRights(): void {
    this.#move(
      [...this.#used].filter((offset) => RIGHTS.has(offset)),
      false,
    );
  }
  /** Runs `body`, which emits a way off the straight one: what is held is here as it was before. */
  off(body: () => void): void {
    this.beside(() => {
      this.#held = copyOf(this.#held);
      body();
    });
  }
  /** Runs `body`, which emits other blocks: what is held is here as it was before. */
  beside(body: () => void): void {
    const held = this.#held;
    body();
    this.#held = held;
  }
  /** At the beginning of a block, with all there that is held there. */
  begin(b: RegionBlock): void {
    const at = this.#heldAt.get(b)!;
    this.#held = copyOf(at);
    if (b.merge || b.header) this.#forget(at.stale);
  }
  /** Loads what is held at the beginning of a block and is not in its locals yet. */
  holdFor(b: RegionBlock): void {
    this.#hold(this.#heldAt.get(b)!.valid);
  }
  /** What is read or written on some ways of this code only is there on all of them. */
  holdNested(code: readonly Stmt[]): void {
    this.#hold([...nestedSlots(code)].filter((o) => this.#locals.has(o) && !RIGHTS.has(o)));
  }
  /** Before a slot is read. */
  reads(offset: number): void {
    if (this.#locals.has(offset) && !RIGHTS.has(offset)) this.#hold([offset]);
  }
  /** After a kept slot was written. */
  written(offset: number): void {
    // A look that misses goes by the state.
    if (RIGHTS.has(offset)) return this.#move([offset], true);
    this.#held.valid.add(offset);
    this.#held.dirty.add(offset);
  }
  beforeCall(c: Callee): void {
    this.#move(
      this.#touched(c).filter((o) => this.#held.dirty.has(o)),
      true,
    );
  }
  afterCall(c: Callee): void {
    this.#move(
      this.#touched(c).filter((o) => RIGHTS.has(o) || this.#held.valid.has(o)),
      false,
    );
  }
  /** Stores what was written. */
  store(): void {
    this.#move(this.#held.dirty, true);
  }
  /** Says what was written, for the end of a way that many share (`storeMasked`). */
  name(): void {
    const { dirty } = this.#held;
    this.#l.i64(this.#maskOf(dirty));
    this.#l.localSet(this.#mask);
    this.#masks.push(new Set(dirty));
  }
  #maskOf(offsets: Iterable<number>): bigint {
    let mask = 0n;
    for (const offset of offsets) mask |= this.#bits.get(offset)!;
    return mask;
  }
  /** The way's end: stores what the mask says. */
  storeMasked(): void {
    const l = this.#l;
    for (const offset of this.#used) {
      const ways = this.#masks.filter((dirty) => dirty.has(offset)).length;
      if (ways === 0) continue;
      if (ways < this.#masks.length) {
        l.localGet(this.#mask);
        l.i64(this.#maskOf([offset]));
        l.op(0x83, 0x50, 0x45);
        l.open(0x04);
      }
      this.#move([offset], true);
      if (ways < this.#masks.length) l.close();
    }
  }
  /** Kept slots that a callee may look at. */
  #touched(c: Callee): number[] {
    const slots = this.#library.slotsOf(c);
    if (slots.has(ANY_SLOT)) return [...this.#used];
    // Indexed accesses name the first slot of a family: take the families whole.
    const families = [st.gpr, st.xmm, st.ymmHigh].filter((f) => slots.has(f[0].offset)).flat();
    const all = new Set([...slots, ...families.map((s) => s.offset)]);
    return [...this.#used].filter((o) => all.has(o));
  }
}
