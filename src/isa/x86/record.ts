// Pre-decoded records of tier 0: the fields of one instruction in 32 bytes, and the operands of a row read from them.

import type { Value } from '../../ir/ir.ts';
import type { AccessName } from '../../ir/ops.ts';
import { BoundEmit, type BoundOperand, type Variant } from './bind.ts';
import type { Insn } from './decode.ts';
import { accessOf, type Operand, type Size } from './emit.ts';
import type { OperandSpec } from './operand.ts';
import * as st from './state.ts';

/** Bytes of a record, and the places of its fields. Register fields hold byte offsets from the vCPU's state pointer. */
export const RECORD_BYTES = 32;
/** From a vector register to its upper half. */
const HIGH = st.ymmHigh[0].offset - st.xmm[0].offset;
export const Rec = {
  /** u16: number of the handler. */
  handler: 0,
  /** u8: length of the instruction. */
  length: 2,
  /** u8: scale of the index, 0 to 3. */
  scale: 3,
  /** u16: register of ModRM.rm or of the opcode's low bits. */
  rm: 4,
  /** u16: register of ModRM.reg. */
  reg: 6,
  /** u16 each: base, index, and segment base of the memory operand. */
  base: 8,
  index: 10,
  segmentBase: 12,
  /** u8: segment of the memory operand. */
  segment: 14,
  /** u8: number of a segment, control, debug or x87 register operand. */
  number: 15,
  /** i32: displacement. */
  disp: 16,
  /** u16: place of the instruction relative to `pageBase`. */
  place: 20,
  /** u8: instructions of the block up to and including this one. */
  count: 22,
  /** u8: bits of `Link`. */
  link: 23,
  /**
   * i64: immediate; a second immediate takes the upper half. In a relative branch: the record of the target (i32, 0 while
   * unknown), then the displacement (i32).
   */
  imm: 24,
} as const;

/** Number of the handler of records whose code has changed. */
export const STALE = 0;

/** Bits of `Rec.link`. */
export const Link = {
  /** In the first record of a block, and in a branch: never link to or from it. */
  forbidden: 1,
  /** The record is a relative branch: its immediate holds the record of its target. */
  branch: 2,
} as const;

/** Reads operands from the record whose address is parameter 0 of the handler. */
export class RecordEmit extends BoundEmit {
  readonly rec: Value;
  #address: Value | null = null;

  constructor(variant: Variant) {
    super(variant);
    this.rec = this.b.param(0, 'i32');
    // The address is computed first, before the row changes any register.
    if (variant.isMemory && variant.info.row.asm !== '') this.#address = this.#computeAddress();
  }

  #field(access: AccessName, place: number): Value {
    return this.b.raw(access, this.rec, place);
  }
  #slot(place: number): Value {
    return this.b.add(this.b.env, this.#field('i32.16u', place));
  }
  /** VEX.vvvv is where the other form of the instruction has something else: `rm` beside memory, else `base`. */
  #registerField(o: BoundOperand): number {
    if (o.from === 'vvvv') return this.variant.isMemory ? Rec.rm : Rec.base;
    return o.from === 'reg' ? Rec.reg : Rec.rm;
  }
  #vectorSlot(o: BoundOperand): Value {
    if (o.from === 'is4') return this.b.add(this.b.env, this.#field('i32', Rec.imm + 4));
    return this.#slot(this.#registerField(o));
  }
  protected override highRead(o: BoundOperand): Value {
    return this.b.raw('v128', this.#vectorSlot(o), HIGH);
  }
  protected override highWrite(o: BoundOperand, value: Value): void {
    this.b.setRaw('v128', this.#vectorSlot(o), value, HIGH);
  }

  protected override gprRead(o: BoundOperand, size: Size): Value {
    return this.b.raw(accessOf[size], this.#slot(this.#registerField(o)));
  }
  protected override gprWrite(o: BoundOperand, size: Size, value: Value): void {
    const b = this.b;
    const slot = this.#slot(this.#registerField(o));
    if (size === 32) b.setRaw('i64', slot, b.extu(value));
    else b.setRaw(accessOf[size], slot, value);
  }
  protected override vecRead(o: BoundOperand, access: AccessName): Value {
    return this.b.raw(access, this.#vectorSlot(o));
  }
  protected override vecWrite(o: BoundOperand, access: AccessName, value: Value): void {
    const slot = this.#slot(this.#registerField(o));
    this.b.setRaw(access, slot, value);
    if (o.spec.cls === 'mmx') this.b.setRaw('i64', slot, this.b.i64(0xffff), 8);
  }
  protected override immediate(o: BoundOperand, type: 'i32' | 'i64'): Value {
    if (o.from === 'imm2') return this.b.fit(type, this.#field('i32', Rec.imm + 4));
    return this.#field(type, Rec.imm);
  }
  #computeAddress(): Value {
    const b = this.b;
    const base = b.raw('i64', this.#slot(Rec.base));
    const moffs = this.variant.info.specs.some((s) => s.from === 'moffs');
    if (moffs) return this.cutAddress(this.#field('i64', Rec.imm));
    if (this.variant.info.vsib) return b.add(base, this.#field('i64.32s', Rec.disp));
    const index = b.shl(b.raw('i64', this.#slot(Rec.index)), this.#field('i64.8u', Rec.scale));
    return this.cutAddress(b.add(b.add(base, index), this.#field('i64.32s', Rec.disp)));
  }
  protected override address(): Value {
    if (!this.#address) this.#address = this.#computeAddress();
    return this.#address;
  }
  protected override segmentBase(): Value {
    return this.b.raw('i64', this.#slot(Rec.segmentBase));
  }
  protected override segmentNumber(): Value {
    return this.#field('i32.8u', Rec.segment);
  }
  override vectorIndex(): { low: Value; high: Value; scale: Value } {
    const slot = this.#slot(Rec.index);
    return { low: this.b.raw('v128', slot), high: this.b.raw('v128', slot, HIGH), scale: this.#field('i64.8u', Rec.scale) };
  }
  override index(_: Operand): Value {
    return this.#field('i32.8u', Rec.number);
  }
  override fixedIndex(_: Operand): number | undefined {
    return undefined;
  }
  #cutIp(ip: Value): Value {
    return this.long ? ip : this.b.and(ip, this.b.i64(0xffffffff));
  }
  override thisIp(): Value {
    return this.#cutIp(this.b.add(this.get(st.pageBase), this.#field('i64.16u', Rec.place)));
  }
  override nextIp(): Value {
    const b = this.b;
    const place = b.add(this.#field('i64.16u', Rec.place), this.#field('i64.8u', Rec.length));
    return this.#cutIp(b.add(this.get(st.pageBase), place));
  }
  override branchTarget(_: Operand): Value {
    const b = this.b;
    const target = b.add(this.nextIp(), this.#field('i64.32s', Rec.imm + 4));
    if (this.size === 64) return target;
    return b.and(target, b.i64(this.size === 32 ? 0xffffffff : 0xffff));
  }
  override branch(o: Operand): void {
    this.b.leave('branch', this.branchTarget(o));
  }
}

/** State offset of the register that a decoded instruction names for an operand of this kind. */
function registerOffset(spec: OperandSpec, n: number, bits: number, rex: number): number {
  if (spec.cls === 'xmm') return st.xmm[n].offset;
  if (spec.cls === 'mmx') return st.fpr[n & 7].mant.offset;
  if (spec.cls === 'gpr') {
    // Without REX, 4 to 7 name the second bytes of the first four registers.
    if (bits === 8 && rex === 0 && n >= 4 && n < 8) return st.gpr[n - 4].offset + 1;
    return st.gpr[n].offset;
  }
  return st.zero.offset;
}

/** Writes the operand fields of a record for a decoded instruction. `at` is a byte offset in `view`. */
export function writeRecord(view: DataView, at: number, insn: Insn, long: boolean, place: number): void {
  const specs = insn.row.specs;
  let rm: number = st.zero.offset;
  let reg: number = st.zero.offset;
  let number = 0;
  let vvvv = -1;
  let is4 = -1;
  view.setUint8(at + Rec.link, 0);
  let relative = false;
  let second = false;
  let moffs = false;
  for (const s of specs) {
    const bits = s.width === 8 ? 8 : 64;
    if (s.from === 'reg') reg = registerOffset(s, insn.reg, bits, insn.rex);
    else if ((s.from === 'rm' && !insn.isMemory) || s.from === 'op') rm = registerOffset(s, insn.rm, bits, insn.rex);
    else if (s.from === 'rel') relative = true;
    else if (s.from === 'imm2') second = true;
    else if (s.from === 'moffs') moffs = true;
    else if (s.from === 'vvvv') vvvv = registerOffset(s, insn.vvvv, bits, 1);
    else if (s.from === 'is4') is4 = st.xmm[(insn.immLow >> 4) & (long ? 15 : 7)].offset;
    if (s.cls === 'x87') number = insn.rm & 7;
    else if (s.cls === 'seg') number = insn.reg & 7;
    else if (s.cls === 'control' || s.cls === 'debug') number = insn.reg;
  }
  if (vvvv >= 0 && insn.isMemory) rm = vvvv;
  view.setUint8(at + Rec.length, insn.length);
  view.setUint8(at + Rec.scale, insn.scale);
  view.setUint16(at + Rec.rm, rm, true);
  view.setUint16(at + Rec.reg, reg, true);
  let disp = insn.disp;
  let base: number = st.zero.offset;
  if (insn.base === 16) {
    base = st.pageBase.offset;
    disp += place + insn.length;
  } else if (insn.base >= 0) base = st.gpr[insn.base].offset;
  else if (vvvv >= 0 && !insn.isMemory) base = vvvv;
  view.setUint16(at + Rec.base, base, true);
  view.setUint16(at + Rec.index, insn.index >= 0 ? (insn.row.vsib ? st.xmm : st.gpr)[insn.index].offset : st.zero.offset, true);
  const flat = long && insn.segment < 4;
  view.setUint16(at + Rec.segmentBase, flat ? st.zero.offset : st.segBase[insn.segment].offset, true);
  view.setUint8(at + Rec.segment, insn.segment);
  view.setUint8(at + Rec.number, number);
  view.setInt32(at + Rec.disp, disp, true);
  view.setUint16(at + Rec.place, place, true);
  if (relative) {
    view.setInt32(at + Rec.imm, 0, true);
    view.setInt32(at + Rec.imm + 4, insn.immLow, true);
    view.setUint8(at + Rec.link, Link.branch);
  } else if (moffs) {
    view.setInt32(at + Rec.imm, insn.disp, true);
    view.setInt32(at + Rec.imm + 4, insn.dispHigh, true);
  } else {
    view.setInt32(at + Rec.imm, insn.immLow, true);
    view.setInt32(at + Rec.imm + 4, is4 >= 0 ? is4 : second ? insn.imm2 : insn.immHigh, true);
  }
}
