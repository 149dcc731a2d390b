// Operands of instruction rows, as far as all tiers share them: from a variant of a row to the operands that `emit` receives, and
// the operations on them that do not depend on whether the encoding's fields are constants or read from a record.

import type { Builder } from '../../ir/builder.ts';
import type { Slot, Value } from '../../ir/ir.ts';
import { type AccessName, accesses } from '../../ir/ops.ts';
import { InsnEmit, type Operand, type Size, typeOf, type VecAccess } from './emit.ts';
import { bitsOf, type OperandSpec } from './operand.ts';
import { SEG_WRITE, segCheck } from './segments.ts';
import * as st from './state.ts';
import { S, X } from './state.ts';
import type { RowInfo } from './table.ts';

/** What is fixed when the code for a row is made: everything but register numbers, displacements and immediates. */
export interface Variant {
  readonly info: RowInfo;
  readonly size: Size;
  readonly addressSize: Size;
  readonly isMemory: boolean;
  readonly lock: boolean;
  readonly rep: 0 | 2 | 3;
  readonly long: boolean;
  readonly flagsLive: boolean;
  /** The floating-point state must be checked first (`Ctx.fpTrap`). */
  readonly fpTrap: boolean;
  /** VEX.L. */
  readonly wide: boolean;
  /** A near branch under `Ctx.limited`, or a long one in 64-bit code: its target is checked. */
  readonly limited: boolean;
  /** Under `Ctx.flat`, with a memory operand through DS, ES or SS if any: offsets in these are linear addresses. */
  readonly flat: boolean;
}

/** An operand with its description. */
export interface BoundOperand extends Operand {
  readonly spec: OperandSpec;
}

/** The operands of a row in this variant. */
export function operandsOf(v: Variant): BoundOperand[] {
  return v.info.specs.map((spec) => ({
    spec,
    bits: bitsOf(spec.width, v.size),
    isMemory: spec.from === 'moffs' || (spec.from === 'rm' && v.isMemory),
    from: spec.from,
    fixed: spec.fixed,
  }));
}

/** Operand access over a few primitives that each tier implements. */
export abstract class BoundEmit extends InsnEmit {
  readonly variant: Variant;
  override readonly size: Size;
  override readonly addressSize: Size;
  override readonly rep: 0 | 2 | 3;
  override readonly lock: boolean;
  override readonly long: boolean;
  override readonly flagsLive: boolean;
  override readonly wide: boolean;
  override readonly limited: boolean;
  readonly #flat: boolean;
  /** Whether the row's code depends on `Variant.flat`. */
  segmented = false;

  constructor(variant: Variant, b?: Builder) {
    super(b);
    this.variant = variant;
    this.size = variant.size;
    this.addressSize = variant.addressSize;
    this.rep = variant.rep;
    this.lock = variant.lock;
    this.long = variant.long;
    this.flagsLive = variant.flagsLive;
    this.wide = variant.wide;
    this.limited = variant.limited;
    this.#flat = variant.flat;
  }

  // -- what each tier says

  /** Reads a general register operand of `size` bits. */
  protected abstract gprRead(o: BoundOperand, size: Size): Value;
  protected abstract gprWrite(o: BoundOperand, size: Size, value: Value): void;
  /** Reads part of an SSE or MMX register from its low end. */
  protected abstract vecRead(o: BoundOperand, access: AccessName): Value;
  /** Writes the low part of an SSE or MMX register, keeping the rest. */
  protected abstract vecWrite(o: BoundOperand, access: AccessName, value: Value): void;
  /** The upper half of an AVX register. */
  protected abstract highRead(o: BoundOperand): Value;
  protected abstract highWrite(o: BoundOperand, value: Value): void;
  /** The immediate sign- or zero-extended to 64 bits, in type `type`. */
  protected abstract immediate(o: BoundOperand, type: 'i32' | 'i64'): Value;
  /** Base + index * scale + displacement, cut to the address size. */
  protected abstract address(): Value;
  /** Base of the memory operand's segment in 64-bit code. */
  protected abstract segmentBase(): Value;
  /** Number of the memory operand's segment. */
  protected abstract segmentNumber(): Value;

  // -- integer operands

  override read(operand: Operand): Value {
    const o = operand as BoundOperand;
    const size = o.bits as Size;
    if (o.isMemory) return this.load(this.linear(o, size / 8, false), size);
    if (o.spec.cls === 'imm') return o.from === 'one' ? this.b.i32(1) : this.immediate(o, typeOf(size) as 'i32' | 'i64');
    if (o.from === 'fixed') return this.reg(o.fixed, size);
    return this.gprRead(o, size);
  }
  override write(operand: Operand, value: Value): void {
    const o = operand as BoundOperand;
    const size = o.bits as Size;
    if (o.isMemory) this.store(this.linear(o, size / 8, true), size, value);
    else if (o.from === 'fixed') this.setReg(o.fixed, size, value);
    else this.gprWrite(o, size, value);
  }
  override imm(operand: Operand): Value {
    const o = operand as BoundOperand;
    if (o.half?.imm) return o.half.imm();
    return o.from === 'one' ? this.b.i32(1) : this.immediate(o, 'i32');
  }

  // -- addresses

  override flatIn(n?: number): boolean {
    this.segmented ||= !this.long;
    return this.#flat && n !== S.cs && !(n !== undefined && n >= S.fs);
  }
  override effective(_: Operand): Value {
    return this.address();
  }
  override get(slot: Slot): Value {
    // SS is flat: it has a stack pointer of 32 bits.
    if (slot.offset === st.spMask.offset && this.flatIn(S.ss)) return this.b.i64(0xffffffffn);
    return super.get(slot);
  }
  override linear(_: Operand, bytes: number, write: boolean, extra?: Value): Value {
    const b = this.b;
    let offset = this.address();
    if (extra) offset = this.cutAddress(b.add(offset, extra));
    if (this.flatIn()) return offset;
    if (this.long) return b.add(offset, this.segmentBase());
    return this.call(segCheck, this.segmentNumber(), offset, b.i32(bytes | (write ? SEG_WRITE : 0)));
  }
  override linearIn(segment: number, offset: Value, bytes: number, write: boolean): Value {
    const b = this.b;
    if (this.flatIn(segment)) return offset;
    if (this.long) return segment >= S.fs ? b.add(offset, this.get(st.segBase[segment])) : offset;
    return this.call(segCheck, b.i32(segment), offset, b.i32(bytes | (write ? SEG_WRITE : 0)));
  }
  override linearData(offset: Value, bytes: number, write: boolean): Value {
    const b = this.b;
    if (this.flatIn()) return offset;
    if (this.long) return b.add(offset, this.segmentBase());
    return this.call(segCheck, this.segmentNumber(), offset, b.i32(bytes | (write ? SEG_WRITE : 0)));
  }
  /** An offset cut to the address size. */
  override cutAddress(offset: Value): Value {
    if (this.addressSize === 64) return offset;
    return this.b.and(offset, this.b.i64(this.addressSize === 32 ? 0xffffffff : 0xffff));
  }

  // -- vectors

  override readVec(operand: Operand, access: VecAccess): Value {
    const o = operand as BoundOperand;
    if (o.half) return o.half.read(access);
    if (!o.isMemory) return this.vecRead(o, access);
    return this.b.load(access, this.#vecAddress(o, accesses[access].bits / 8, false));
  }
  override writeVec(operand: Operand, access: 'v128' | 'i64' | 'i32' | 'f64' | 'f32', value: Value, zero = false): void {
    const o = operand as BoundOperand;
    const b = this.b;
    if (o.half) return o.half.write(access, value, zero);
    if (o.isMemory) return b.store(access, this.#vecAddress(o, accesses[access].bits / 8, true), value);
    if (o.spec.cls === 'mmx') {
      const whole = access === 'i64' ? value : access === 'i32' ? b.extu(value) : b.op('i64.reinterpret_f64', value);
      return this.vecWrite(o, 'i64', whole);
    }
    if (!zero || access === 'v128') return this.vecWrite(o, access, value);
    const empty = b.v128(new Uint8Array(16));
    const lane = { i64: 'i64x2', i32: 'i32x4', f64: 'f64x2', f32: 'f32x4' }[access];
    this.vecWrite(o, 'v128', b.lane(`${lane}.replace_lane`, [0], empty, value));
  }
  override readHalf(operand: Operand, half: 0 | 1): Value {
    const o = operand as BoundOperand;
    const b = this.b;
    if (o.isMemory) {
      const addr = this.#vecAddress(o, this.wide ? 32 : 16, false);
      return b.load('v128', half ? b.add(addr, b.i64(16)) : addr);
    }
    return half ? this.highRead(o) : this.vecRead(o, 'v128');
  }
  override writeHalves(operand: Operand, low: Value, high: Value | null): void {
    const o = operand as BoundOperand;
    const b = this.b;
    if (!o.isMemory) {
      this.vecWrite(o, 'v128', low);
      return this.highWrite(o, high ?? b.v128(new Uint8Array(16)));
    }
    const addr = this.#vecAddress(o, high ? 32 : 16, true);
    // All or nothing where it reaches into another page.
    b.store('v128', addr, low, high ? { span: 32 } : {});
    if (high) b.store('v128', b.add(addr, b.i64(16)), high);
  }
  #vecAddress(o: BoundOperand, bytes: number, write: boolean): Value {
    const addr = this.linear(o, bytes, write);
    if (o.spec.aligned && bytes >= 16) this.raiseIf(this.b.and(this.b.wrap(addr), this.b.i32(bytes - 1)), X.gp, this.b.i32(0));
    return addr;
  }
}
