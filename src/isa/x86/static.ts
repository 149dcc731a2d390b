// Operands of a row with the decoded instruction's fields as constants: what the translated tier and the evaluator use.

import type { Builder } from '../../ir/builder.ts';
import type { Value } from '../../ir/ir.ts';
import { type AccessName, accesses } from '../../ir/ops.ts';
import { BoundEmit, type BoundOperand, operandsOf, type Variant } from './bind.ts';
import { isLongBranch } from './canonical.ts';
import type { Insn } from './decode.ts';
import type { Operand, Size } from './emit.ts';
import { checkFpu } from './fpu-check.ts';
import { type Unit, units } from './row.ts';
import * as st from './state.ts';
import { Ctx, S } from './state.ts';

/** Whether an instruction of this unit must look whether it may run. */
export const checksFpu = (unit: Unit | undefined, ctx: number): boolean =>
  unit === 'avx' ? (ctx & Ctx.avx) === 0 : unit !== undefined && (ctx & Ctx.fpTrap) !== 0;

/** Segments that are flat under `Ctx.flat`: bits by number. */
const FLAT = (1 << S.es) | (1 << S.ss) | (1 << S.ds);
/** Whether an instruction is `Variant.flat`. */
export const isFlat = (insn: Insn, ctx: number): boolean => (ctx & Ctx.flat) !== 0 && ((FLAT >> insn.segment) & 1) !== 0;

/** Whether an instruction is `Variant.limited`. */
export const isLimited = (insn: Insn, ctx: number): boolean =>
  insn.row.near &&
  (ctx & Ctx.long ? insn.row.relative && ((ctx & Ctx.limited) !== 0 || isLongBranch(insn)) : (ctx & Ctx.limited) !== 0);

/** The variant of its row that a decoded instruction needs. */
export function variantOf(insn: Insn, ctx: number, flagsLive: boolean): Variant {
  const options = insn.row.row.options;
  const fp = options.fp;
  return {
    info: insn.row,
    size: insn.size as Size,
    addressSize: insn.addressSize as Size,
    isMemory: insn.isMemory,
    lock: insn.lock,
    rep: options.rep ? insn.rep : 0,
    long: (ctx & Ctx.long) !== 0,
    flagsLive,
    fpTrap: checksFpu(fp, ctx),
    wide: insn.wide,
    limited: isLimited(insn, ctx),
    flat: isFlat(insn, ctx),
  };
}

/** Reads operands from a decoded instruction. `place` is the instruction's place relative to the slot `pageBase`. */
export class StaticEmit extends BoundEmit {
  readonly insn: Insn;
  readonly place: number;
  #address: Value | null = null;

  constructor(variant: Variant, insn: Insn, place: number, b?: Builder) {
    super(variant, b);
    this.insn = insn;
    this.place = place;
    if (insn.isMemory) this.#address = this.#computeAddress();
  }

  #number(o: BoundOperand): number {
    if (o.from === 'vvvv') return this.insn.vvvv;
    if (o.from === 'is4') return (this.insn.immLow >> 4) & (this.long ? 15 : 7);
    return o.from === 'reg' ? this.insn.reg : this.insn.rm;
  }
  /** Whether an 8-bit operand is one of AH, CH, DH, BH. */
  #high(o: BoundOperand, size: Size): boolean {
    const n = this.#number(o);
    return size === 8 && this.insn.rex === 0 && n >= 4 && n < 8;
  }
  protected override gprRead(o: BoundOperand, size: Size): Value {
    const n = this.#number(o);
    if (!this.#high(o, size)) return this.reg(n, size);
    return this.truncate(this.b.wrap(this.b.shru(this.get(st.gpr[n - 4]), this.b.i64(8))), 8);
  }
  protected override gprWrite(o: BoundOperand, size: Size, value: Value): void {
    const b = this.b;
    const n = this.#number(o);
    if (!this.#high(o, size)) return this.setReg(n, size, value);
    const slot = st.gpr[n - 4];
    b.set(slot, b.or(b.and(b.get(slot), b.i64(~0xff00)), b.shl(b.extu(b.and(value, b.i32(0xff))), b.i64(8))));
  }
  protected override vecRead(o: BoundOperand, access: AccessName): Value {
    const b = this.b;
    const n = this.#number(o);
    if (o.spec.cls === 'mmx') {
      const v = b.get(st.fpr[n & 7].mant);
      if (access === 'i64') return v;
      if (access === 'f64') return b.op('f64.reinterpret_i64', v);
      const low = b.wrap(v);
      return access === 'f32' ? b.op('f32.reinterpret_i32', low) : this.truncate(low, accesses[access].bits as Size);
    }
    const v = b.get(st.xmm[n]);
    switch (access) {
      case 'v128':
        return v;
      case 'i64':
        return b.lane('i64x2.extract_lane', [0], v);
      case 'f64':
        return b.lane('f64x2.extract_lane', [0], v);
      case 'f32':
        return b.lane('f32x4.extract_lane', [0], v);
      case 'i32.8u':
        return b.lane('i8x16.extract_lane_u', [0], v);
      case 'i32.16u':
        return b.lane('i16x8.extract_lane_u', [0], v);
      default:
        return b.lane('i32x4.extract_lane', [0], v);
    }
  }
  protected override vecWrite(o: BoundOperand, access: AccessName, value: Value): void {
    const b = this.b;
    const n = this.#number(o);
    if (o.spec.cls === 'mmx') {
      b.set(st.fpr[n & 7].mant, value);
      b.set(st.fpr[n & 7].exp, b.i64(0xffff));
      return;
    }
    if (access === 'v128') return b.set(st.xmm[n], value);
    const lane = { i64: 'i64x2', i32: 'i32x4', f64: 'f64x2', f32: 'f32x4' }[access as 'i64' | 'i32' | 'f64' | 'f32'];
    b.set(st.xmm[n], b.lane(`${lane}.replace_lane`, [0], b.get(st.xmm[n]), value));
  }
  protected override highRead(o: BoundOperand): Value {
    return this.get(st.ymmHigh[this.#number(o)]);
  }
  protected override highWrite(o: BoundOperand, value: Value): void {
    this.set(st.ymmHigh[this.#number(o)], value);
  }
  override vectorIndex(): { low: Value; high: Value; scale: Value } {
    const n = this.insn.index;
    return { low: this.get(st.xmm[n]), high: this.get(st.ymmHigh[n]), scale: this.b.i64(this.insn.scale) };
  }
  protected override immediate(o: BoundOperand, type: 'i32' | 'i64'): Value {
    const b = this.b;
    if (o.from === 'imm2') return b.int(type, this.insn.imm2 >>> 0);
    if (type === 'i32') return this.#constant(this.insn.immLow, o.bits);
    return b.i64((BigInt(this.insn.immHigh) << 32n) | BigInt(this.insn.immLow >>> 0));
  }
  #constant(value: number, bits: number): Value {
    return this.b.i32(bits === 8 ? value & 0xff : bits === 16 ? value & 0xffff : value);
  }
  #computeAddress(): Value {
    const b = this.b;
    const { insn } = this;
    if (insn.row.specs.some((s) => s.from === 'moffs')) {
      return this.cutAddress(b.i64((BigInt(insn.dispHigh) << 32n) | BigInt(insn.disp >>> 0)));
    }
    let sum: Value;
    if (insn.base === 16) sum = b.add(this.get(st.pageBase), b.i64(BigInt(insn.disp) + BigInt(this.place + insn.length)));
    else {
      sum = insn.base >= 0 ? this.reg(insn.base) : b.i64(0);
      if (insn.index >= 0 && !insn.row.vsib) sum = b.add(sum, b.shl(this.reg(insn.index), b.i64(insn.scale)));
      sum = b.add(sum, b.i64(insn.disp));
    }
    return insn.row.vsib ? sum : this.cutAddress(sum);
  }
  protected override address(): Value {
    if (!this.#address) this.#address = this.#computeAddress();
    return this.#address;
  }
  protected override segmentBase(): Value {
    return this.insn.segment >= 4 ? this.get(st.segBase[this.insn.segment]) : this.b.i64(0);
  }
  protected override segmentNumber(): Value {
    return this.b.i32(this.insn.segment);
  }
  override fixedIndex(operand: Operand): number {
    const o = operand as BoundOperand;
    return o.spec.cls === 'x87' ? this.insn.rm & 7 : o.spec.cls === 'seg' ? this.insn.reg & 7 : this.insn.reg;
  }
  override index(o: Operand): Value {
    return this.b.i32(this.fixedIndex(o));
  }
  /** The instruction pointer at a place. */
  protected ipAt(place: number): Value {
    const b = this.b;
    const ip = b.add(this.get(st.pageBase), b.i64(place));
    return this.long ? ip : b.and(ip, b.i64(0xffffffff));
  }
  override thisIp(): Value {
    return this.ipAt(this.place);
  }
  override nextIp(): Value {
    return this.ipAt(this.place + this.insn.length);
  }
  /** Place of a relative branch's target, relative to `pageBase`. */
  get targetPlace(): number {
    return this.place + this.insn.length + this.insn.immLow;
  }
  override branchTarget(_: Operand): Value {
    const target = this.ipAt(this.targetPlace);
    return this.size === 16 ? this.b.and(target, this.b.i64(0xffff)) : target;
  }
  override branch(o: Operand): void {
    this.b.leave('branch', this.branchTarget(o), this.targetPlace);
  }
}

/** Runs a row's `emit` in a context: the whole meaning of one instruction. */
export function emitRow(c: BoundEmit): void {
  const { variant } = c;
  const fp = variant.info.row.options.fp;
  if (fp && variant.fpTrap) c.do(checkFpu, c.b.i32(units.indexOf(fp)));
  variant.info.row.emit(c, ...operandsOf(variant));
}
