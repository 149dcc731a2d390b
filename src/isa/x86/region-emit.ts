// Instructions of a translated region: operands are constants, and the arithmetic flags of the last instruction that set all of them are
// kept as the operands of that operation until somebody needs them.

import type { Builder } from '../../ir/builder.ts';
import type { Slot, Stmt, Value } from '../../ir/ir.ts';
import type { Variant } from './bind.ts';
import { PLAIN } from './context.ts';
import type { Insn } from './decode.ts';
import type { Operand, Size } from './emit.ts';
import * as st from './state.ts';
import { Ctx, S } from './state.ts';
import { StaticEmit } from './static.ts';

/** Bits of a set of flags, one for each slot. */
export const FlagBit = { z: 1, n: 2, c: 4, o: 8, a: 16, all: 31 } as const;
const FLAG_OFFSETS = new Set([st.fZ, st.fN, st.fC, st.fO, st.fA].map((s) => s.offset));

/** The operation that last set all flags. */
interface Pending {
  readonly kind: 'add' | 'sub' | 'logic';
  readonly size: Size;
  readonly x: Value;
  readonly y: Value;
  readonly r: Value;
  readonly carry: Value;
}

/** Flags on the way through a block: shared by the contexts of its instructions. */
export class FlagState {
  pending: Pending | null = null;
  /** Flags that may be read at a place of the page (an edge of the region), as `FlagBit`s. */
  readonly liveAt: (place: number) => number;

  constructor(liveAt: (place: number) => number) {
    this.liveAt = liveAt;
  }
}

export class RegionEmit extends StaticEmit {
  readonly #flags: FlagState;
  /** `Ctx.flat`. */
  readonly #flat: boolean;
  #writing = false;

  constructor(variant: Variant, insn: Insn, place: number, b: Builder, flags: FlagState, ctx: number) {
    super(variant, insn, place, b);
    this.#flags = flags;
    this.#flat = (ctx & Ctx.flat) !== 0;
  }

  // -- addresses

  override linear(o: Operand, bytes: number, write: boolean, extra?: Value): Value {
    if (!this.#flat) return super.linear(o, bytes, write, extra);
    const offset = this.effective(o);
    return this.#within(this.insn.segment, extra ? this.cutAddress(this.b.add(offset, extra)) : offset, bytes, write);
  }
  override linearIn(segment: number, offset: Value, bytes: number, write: boolean): Value {
    return this.#flat ? this.#within(segment, offset, bytes, write) : super.linearIn(segment, offset, bytes, write);
  }
  override linearData(offset: Value, bytes: number, write: boolean): Value {
    return this.#flat ? this.#within(this.insn.segment, offset, bytes, write) : super.linearData(offset, bytes, write);
  }
  /** Linear address of an offset where DS, ES and SS are flat: tier 0 runs what is not plain data within the limit. */
  #within(segment: number, offset: Value, bytes: number, write: boolean): Value {
    const b = this.b;
    if (segment === S.ds || segment === S.es || segment === S.ss) return offset;
    if (segment === S.cs) return super.linearIn(segment, offset, bytes, write);
    const plain = b.eq(b.and(this.get(st.segAttr[segment]), b.i32(PLAIN.mask)), b.i32(PLAIN.value));
    const inside = b.leu(b.add(offset, b.i64(bytes - 1)), b.extu(this.get(st.segLimit[segment])));
    b.if(b.eqz(b.and(plain, inside)), () => b.leave('again'));
    return b.and(b.add(this.get(st.segBase[segment]), offset), b.i64(0xffffffffn));
  }

  // -- setting

  override set(slot: Slot, value: Value): void {
    if (!this.#writing && FLAG_OFFSETS.has(slot.offset)) this.settle();
    super.set(slot, value);
  }
  override get(slot: Slot): Value {
    if (FLAG_OFFSETS.has(slot.offset)) this.settle();
    // SS is flat: it has a stack pointer of 32 bits.
    if (slot.offset === st.spMask.offset && this.#flat) return this.b.i64(0xffffffffn);
    return super.get(slot);
  }
  /** Flags go straight to their slots: the row sets them in a loop or behind a condition. */
  direct = false;
  override flagsAdd(size: Size, x: Value, y: Value, r: Value, carry: Value): void {
    if (this.direct) return super.flagsAdd(size, x, y, r, carry);
    this.#flags.pending = this.flagsLive ? { kind: 'add', size, x, y, r, carry } : null;
  }
  override flagsSub(size: Size, x: Value, y: Value, r: Value, carry: Value): void {
    if (this.direct) return super.flagsSub(size, x, y, r, carry);
    this.#flags.pending = this.flagsLive ? { kind: 'sub', size, x, y, r, carry } : null;
  }
  override flagsLogic(size: Size, r: Value): void {
    if (this.direct) return super.flagsLogic(size, r);
    const zero = this.b.i32(0);
    this.#flags.pending = this.flagsLive ? { kind: 'logic', size, x: r, y: r, r, carry: zero } : null;
  }
  /** Writes the pending flags to their slots; `keep` leaves them pending (on a way out of the block). */
  settle(mask: number = FlagBit.all, keep = false): void {
    const p = this.#flags.pending;
    if (!p) return;
    this.#writing = true;
    const b = this.b;
    const wide = this.signed64(p.r, p.size);
    if (mask & FlagBit.z) this.set(st.fZ, wide);
    if (mask & FlagBit.n) this.set(st.fN, wide);
    if (mask & FlagBit.c) this.set(st.fC, p.carry);
    if (mask & FlagBit.o) this.set(st.fO, b.neg(this.#overflow(p)));
    if (mask & FlagBit.a) this.set(st.fA, p.kind === 'logic' ? b.i32(0) : b.wrap(b.xor(b.xor(p.x, p.y), p.r)));
    this.#writing = false;
    if (!keep) this.#flags.pending = null;
  }

  // -- reading

  #overflow(p: Pending): Value {
    const b = this.b;
    if (p.kind === 'logic') return b.i32(0);
    const v = p.kind === 'add' ? b.and(b.xor(p.x, p.r), b.xor(p.y, p.r)) : b.and(b.xor(p.x, p.y), b.xor(p.x, p.r));
    return this.signBit(v, p.size);
  }
  override cf(): Value {
    return this.#flags.pending?.carry ?? super.cf();
  }
  override zf(): Value {
    const p = this.#flags.pending;
    return p ? this.b.eqz(p.r) : super.zf();
  }
  override sf(): Value {
    const p = this.#flags.pending;
    return p ? this.signBit(p.r, p.size) : super.sf();
  }
  override of(): Value {
    const p = this.#flags.pending;
    return p ? this.#overflow(p) : super.of();
  }
  override pf(): Value {
    const p = this.#flags.pending;
    if (!p) return super.pf();
    const b = this.b;
    return b.and(b.not(b.popcnt(b.and(b.wrap(p.r), b.i32(0xff)))), b.i32(1));
  }
  override af(): Value {
    const p = this.#flags.pending;
    if (!p) return super.af();
    const b = this.b;
    if (p.kind === 'logic') return b.i32(0);
    return b.and(b.shru(b.wrap(b.xor(b.xor(p.x, p.y), p.r)), b.i32(4)), b.i32(1));
  }
  /** Conditions after a comparison become comparisons. */
  override cond(code: number): Value {
    const b = this.b;
    const p = this.#flags.pending;
    if (!p) return super.cond(code);
    const flip = (code & 1) !== 0;
    const is = (v: Value): Value => (flip ? b.eqz(v) : v);
    const signed = (v: Value): Value => (p.size >= 32 ? v : this.signed32(v, p.size));
    // A borrow may have gone in (SBB): then only the flags themselves tell.
    const plain =
      p.kind === 'sub' &&
      p.carry.kind === 'pure' &&
      p.carry.op.name.endsWith('.lt_u') &&
      p.carry.args[0] === p.x &&
      p.carry.args[1] === p.y;
    switch (code >> 1) {
      case 1:
        return is(p.carry);
      case 2:
        return plain ? (flip ? b.ne(p.x, p.y) : b.eq(p.x, p.y)) : flip ? b.ne(p.r, b.int(p.r.type, 0)) : b.eqz(p.r);
      case 3:
        if (plain) return flip ? b.gtu(p.x, p.y) : b.leu(p.x, p.y);
        return is(b.or(p.carry, b.eqz(p.r)));
      case 4:
        if (p.size >= 32) return flip ? b.ges(p.r, b.int(p.r.type, 0)) : b.lts(p.r, b.int(p.r.type, 0));
        return is(this.signBit(p.r, p.size));
      case 6:
        if (plain) return flip ? b.ges(signed(p.x), signed(p.y)) : b.lts(signed(p.x), signed(p.y));
        if (p.kind === 'logic') return flip ? b.ges(signed(p.r), b.int(p.r.type, 0)) : b.lts(signed(p.r), b.int(p.r.type, 0));
        return is(b.xor(this.sf(), this.of()));
      case 7:
        if (plain) return flip ? b.gts(signed(p.x), signed(p.y)) : b.les(signed(p.x), signed(p.y));
        if (p.kind === 'logic') return flip ? b.gts(signed(p.r), b.int(p.r.type, 0)) : b.les(signed(p.r), b.int(p.r.type, 0));
        return is(b.or(this.zf(), b.xor(this.sf(), this.of())));
      case 0:
        return is(this.of());
      default:
        return is(this.pf());
    }
  }

  // -- leaving

  /** What a computed jump is compared with first: places of targets that the region knows. */
  guesses: readonly number[] = [];
  /** Statements that put pending flags into their slots, for ways out in the middle of an instruction. */
  settlement(): Stmt[] {
    return this.#flags.pending ? this.b.aside(() => this.settle(FlagBit.all, true)) : [];
  }
  /** Ends the region behind this instruction where a store has changed code that was translated. */
  stopIfChanged(): void {
    this.b.if(this.get(st.codeChanged), () => {
      this.settle(FlagBit.all, true);
      this.b.leave('resync');
    });
  }
  /** The instruction may have written guest memory before it branches. */
  stores = false;
  #stopBefore(target: Value): void {
    if (!this.stores) return;
    this.b.if(this.get(st.codeChanged), () => {
      this.settle(FlagBit.all, true);
      this.b.leave('jump', target, 1);
    });
  }
  override branch(o: Operand): void {
    this.#stopBefore(this.branchTarget(o));
    this.settle(this.#flags.liveAt(this.targetPlace), true);
    super.branch(o);
  }
  override checkTarget(target: Value, sooner?: () => void): void {
    const b = this.b;
    const others = this.guesses.map((place) => b.ne(target, this.ipAt(place)));
    if (others.length === 0) super.checkTarget(target, sooner);
    else
      b.if(
        others.reduce((all, other) => b.and(all, other)),
        () => super.checkTarget(target, sooner),
      );
  }
  override jump(target: Value): void {
    this.#stopBefore(target);
    for (const place of this.guesses) {
      this.b.if(this.b.eq(target, this.ipAt(place)), () => {
        this.settle(this.#flags.liveAt(place), true);
        this.b.leave('branch', target, place);
      });
    }
    this.settle(FlagBit.all, true);
    super.jump(target);
  }
  override resync(): void {
    this.settle(FlagBit.all, true);
    super.resync();
  }
  override exit(reason: number): void {
    this.settle(FlagBit.all, true);
    super.exit(reason);
  }
}
