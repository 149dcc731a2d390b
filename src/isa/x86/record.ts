// Pre-decoded records of tier 0: the fields of one instruction in 32 bytes, and the operands of a row read from them.

import type { Value } from '../../ir/ir.ts';
import type { AccessName } from '../../ir/ops.ts';
import { BoundEmit, type BoundOperand, type Variant } from './bind.ts';
import type { Insn } from './decode.ts';
import { accessOf, type Operand, type Size } from './emit.ts';
import type { OperandSpec } from './operand.ts';
import * as st from './state.ts';
import type { RowInfo } from './table.ts';

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
  /**
   * In a relative branch in place of its operands: the record of a target in another page (i32, 0 while unknown), that target's address (i64), for
   * the page of the branch may lie at several, and the epoch of its half of the addresses when it was found (i32).
   */
  far: 4,
  farTarget: 8,
  farEpoch: 16,
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
    if (o.from === 'is4') return this.b.add(this.b.env, this.#field('i32.16u', Rec.imm + 4));
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

const ZERO: number = st.zero.offset;
const offsets = (slots: readonly { readonly offset: number }[]): Uint16Array => Uint16Array.from(slots, (s) => s.offset);
const GPR = offsets(st.gpr);
/** Without REX, 4 to 7 name the second bytes of the first four registers. */
const BYTES = GPR.map((offset, n) => (n >= 4 && n < 8 ? GPR[n - 4] + 1 : offset));
const XMM = offsets(st.xmm);
const MMX = Uint16Array.from({ length: 16 }, (_, n) => st.fpr[n & 7].mant.offset);
const NONE = new Uint16Array(16).fill(ZERO);
const SEGMENTS = offsets(st.segBase);

/** By the offsets of a record's fields of registers: the places in the vCPU's state that `writeRecord` can put there. */
export function recordPlaces(): ReadonlyMap<number, readonly number[]> {
  const listed = (...files: readonly (readonly number[] | Uint16Array)[]): readonly number[] => [
    ...new Set([ZERO, ...files.flatMap((f) => [...f])]),
  ];
  const registers = listed(GPR, BYTES, XMM, MMX);
  return new Map([
    [Rec.rm, registers],
    [Rec.reg, registers],
    [Rec.base, listed(GPR, XMM, [st.pageBase.offset])],
    [Rec.index, listed(GPR, XMM)],
    [Rec.segmentBase, listed(SEGMENTS)],
  ]);
}

/** Where the operand fields of a row's records come from. */
interface Fields {
  readonly row: RowInfo;
  /** State offsets by register number of what ModRM.reg, ModRM.rm (or the opcode) and VEX.vvvv name, with a REX prefix and without; null: nothing. */
  readonly reg: Files | null;
  readonly rm: Files | null;
  /** It has a register in ModRM.rm only where that is no memory. */
  readonly rmOrMemory: boolean;
  readonly vvvv: Uint16Array | null;
  readonly number: 'none' | 'rm' | 'segment' | 'reg';
  readonly immediate: 'plain' | 'relative' | 'second' | 'moffs' | 'is4';
}
type Files = readonly [Uint16Array, Uint16Array];

function filesOf({ cls, width }: OperandSpec): Files {
  if (cls === 'xmm') return [XMM, XMM];
  if (cls === 'mmx') return [MMX, MMX];
  if (cls === 'gpr') return [width === 8 ? BYTES : GPR, GPR];
  return [NONE, NONE];
}
function fieldsOf(row: RowInfo): Fields {
  const { specs } = row;
  const last = (test: (s: OperandSpec) => boolean): OperandSpec | undefined => specs.findLast(test);
  const has = (from: OperandSpec['from']): boolean => specs.some((s) => s.from === from);
  const reg = last((s) => s.from === 'reg');
  const rm = last((s) => s.from === 'rm' || s.from === 'op');
  const vvvv = last((s) => s.from === 'vvvv');
  const named = last((s) => s.cls === 'x87' || s.cls === 'seg' || s.cls === 'control' || s.cls === 'debug')?.cls;
  return {
    row,
    reg: reg ? filesOf(reg) : null,
    rm: rm ? filesOf(rm) : null,
    rmOrMemory: rm?.from === 'rm',
    vvvv: vvvv ? filesOf(vvvv)[1] : null,
    number: named === undefined ? 'none' : named === 'x87' ? 'rm' : named === 'seg' ? 'segment' : 'reg',
    immediate: has('rel') ? 'relative' : has('moffs') ? 'moffs' : has('is4') ? 'is4' : has('imm2') ? 'second' : 'plain',
  };
}
/** By the rows' numbers, which other tables may give to other rows. */
const known: (Fields | undefined)[] = [];
function fieldsFor(row: RowInfo): Fields {
  const found = row.index < known.length ? known[row.index] : undefined;
  if (found?.row === row) return found;
  while (known.length <= row.index) known.push(undefined);
  const made = fieldsOf(row);
  known[row.index] = made;
  return made;
}

/**
 * Writes the record of a decoded instruction at word `at` of `words`, whole: `handler` is its handler's number, `count` the instructions of its
 * block up to it, `link` is added to its bits of `Link`.
 */
export function writeRecord(
  words: Int32Array,
  at: number,
  insn: Insn,
  long: boolean,
  place: number,
  handler: number,
  count: number,
  link: number,
): void {
  const { row, rex, isMemory } = insn;
  const f = fieldsFor(row);
  const plain = rex === 0 ? 0 : 1;
  const vvvv = f.vvvv === null ? ZERO : f.vvvv[insn.vvvv];
  let rm = ZERO;
  if (isMemory && f.vvvv !== null) rm = vvvv;
  else if (f.rm !== null && !(isMemory && f.rmOrMemory)) rm = f.rm[plain][insn.rm];
  const reg = f.reg === null ? ZERO : f.reg[plain][insn.reg];
  let { disp } = insn;
  let base = isMemory ? ZERO : vvvv;
  if (insn.base === 16) {
    base = st.pageBase.offset;
    disp += place + insn.length;
  } else if (insn.base >= 0) base = GPR[insn.base];
  const index = insn.index < 0 ? ZERO : row.vsib ? XMM[insn.index] : GPR[insn.index];
  const { segment } = insn;
  const segmentBase = long && segment < 4 ? ZERO : SEGMENTS[segment];
  const number = f.number === 'none' ? 0 : f.number === 'rm' ? insn.rm & 7 : f.number === 'segment' ? insn.reg & 7 : insn.reg;
  let low = insn.immLow;
  let high = insn.immHigh;
  if (f.immediate === 'relative') {
    high = low;
    low = 0;
    link |= Link.branch;
  } else if (f.immediate === 'second') high = insn.imm2;
  else if (f.immediate === 'is4') high = XMM[(low >> 4) & (long ? 15 : 7)];
  else if (f.immediate === 'moffs') {
    low = insn.disp;
    high = insn.dispHigh;
  }
  words[at] = handler | (insn.length << 16) | (insn.scale << 24);
  words[at + 1] = f.immediate === 'relative' ? 0 : rm | (reg << 16);
  words[at + 2] = base | (index << 16);
  words[at + 3] = segmentBase | (segment << 16) | (number << 24);
  words[at + 4] = disp;
  words[at + 5] = place | (count << 16) | (link << 24);
  words[at + 6] = low;
  words[at + 7] = high;
}
