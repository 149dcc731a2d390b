// What x86 semantics are written in: the IR builder plus x86's vocabulary of registers, flags, stack and exceptions.
// Subroutines get an `Emit`; instruction rows get an `InsnEmit`, which adds the operands of the decoded instruction.

import { Builder } from '../../ir/builder.ts';
import type { Callee, Slot, Value, Var } from '../../ir/ir.ts';
import type { AccessName, Type } from '../../ir/ops.ts';
import { isCanonical } from './canonical.ts';
import * as st from './state.ts';
import { X } from './state.ts';

export type Size = 8 | 16 | 32 | 64;
/** Condition codes in encoding order. */
export const CONDITIONS = ['o', 'no', 'b', 'ae', 'z', 'nz', 'be', 'a', 's', 'ns', 'p', 'np', 'l', 'ge', 'le', 'g'] as const;

/** The access that moves `size` bits as an unsigned i32 (up to 32 bits) or an i64. */
export const accessOf: Readonly<Record<Size, AccessName>> = { 8: 'i32.8u', 16: 'i32.16u', 32: 'i32', 64: 'i64' };
/** The IR type of an operand of `size` bits: 8- and 16-bit values are zero-extended i32. */
export const typeOf = (size: Size): Type => (size === 64 ? 'i64' : 'i32');

export class Emit {
  readonly b: Builder;
  /** False where nothing can read the arithmetic flags that this instruction writes: flag setters then emit nothing. */
  readonly flagsLive: boolean = true;
  /** True in 64-bit code, false in every other mode; undefined where it is not known until run time (subroutines). */
  readonly long: boolean | undefined = undefined;

  constructor(b: Builder = new Builder()) {
    this.b = b;
  }

  get(slot: Slot): Value {
    return this.b.get(slot);
  }
  set(slot: Slot, value: Value): void {
    this.b.set(slot, value);
  }
  call(callee: Callee, ...args: Value[]): Value {
    return this.b.call(callee, ...args);
  }
  do(callee: Callee, ...args: Value[]): void {
    this.b.do(callee, ...args);
  }

  // -- general registers by fixed number

  /** Register `n` as an operand of `size` bits (8: the low byte). */
  reg(n: number, size: Size = 64): Value {
    const v = this.b.get(st.gpr[n]);
    return size === 64 ? v : this.truncate(this.b.wrap(v), size);
  }
  /** Writes register `n`: 32 bits clear the upper half, 8 and 16 bits keep the rest. */
  setReg(n: number, size: Size, value: Value): void {
    const b = this.b;
    const slot = st.gpr[n];
    if (size === 64) b.set(slot, value);
    else if (size === 32) b.set(slot, b.extu(value));
    else {
      const mask = size === 8 ? 0xff : 0xffff;
      b.set(slot, b.or(b.and(b.get(slot), b.i64(~mask)), b.extu(b.and(value, b.i32(mask)))));
    }
  }
  /** An i32 cut to 8 or 16 bits, zero-extended. Wider sizes pass. */
  truncate(value: Value, size: Size): Value {
    if (size >= 32) return value;
    return this.b.and(value, this.b.i32(size === 8 ? 0xff : 0xffff));
  }
  /** An operand value of `size` bits sign-extended to i64. */
  signed64(value: Value, size: Size): Value {
    const b = this.b;
    if (size === 64) return value;
    if (size === 32) return b.exts(value);
    return b.exts(this.signed32(value, size));
  }
  /** An operand value of 8, 16 or 32 bits sign-extended to i32. */
  signed32(value: Value, size: Size): Value {
    if (size === 8) return this.b.op('i32.extend8_s', value);
    if (size === 16) return this.b.op('i32.extend16_s', value);
    return value;
  }
  /** The sign bit of an operand value, as i32 0 or 1. */
  signBit(value: Value, size: Size): Value {
    const b = this.b;
    if (size === 64) return b.wrap(b.shru(value, b.i64(63)));
    return b.and(b.shru(value, b.i32(size - 1)), b.i32(1));
  }

  // -- guest memory by operand size

  /** Reads `size` bits at the linear address, as i32 (zero-extended) or i64. */
  load(addr: Value, size: Size, options: { system?: boolean; forWrite?: boolean } = {}): Value {
    return this.b.load(accessOf[size], addr, { space: options.system ? 'system' : 'current', forWrite: options.forWrite });
  }
  store(addr: Value, size: Size, value: Value, options: { system?: boolean } = {}): void {
    this.b.store(accessOf[size], addr, value, options.system ? { space: 'system' } : {});
  }

  // -- arithmetic flags; `size` is the operation's size, `r` its result cut to that size

  /** ZF, SF and PF from a result. */
  setZNP(size: Size, r: Value): void {
    if (!this.flagsLive) return;
    const v = this.signed64(r, size);
    this.set(st.fZ, v);
    this.set(st.fN, v);
  }
  /** CF: an i32 of 0 or 1. */
  setC(value: Value): void {
    if (this.flagsLive) this.set(st.fC, value);
  }
  /** OF: an i32 of 0 or 1. */
  setO(value: Value): void {
    if (this.flagsLive) this.set(st.fO, this.b.neg(value));
  }
  /** AF: an i32 of 0 or 1. */
  setA(value: Value): void {
    if (this.flagsLive) this.set(st.fA, this.b.shl(value, this.b.i32(4)));
  }
  /** ZF alone: an i32 of 0 or 1. */
  setZ(value: Value): void {
    if (this.flagsLive) this.set(st.fZ, this.b.extu(this.b.xor(value, this.b.i32(1))));
  }
  /** OF from a value whose operand-size sign bit is the flag. */
  #overflow(size: Size, v: Value): void {
    const b = this.b;
    if (size === 64) this.set(st.fO, b.wrap(b.shru(v, b.i64(32))));
    else this.set(st.fO, size === 32 ? v : b.shl(v, b.i32(32 - size)));
  }
  /** All six flags of a + b + carry in, given the carry out. */
  flagsAdd(size: Size, x: Value, y: Value, r: Value, carry: Value): void {
    if (!this.flagsLive) return;
    const b = this.b;
    const xr = b.xor(x, r);
    this.setZNP(size, r);
    this.set(st.fC, carry);
    this.#overflow(size, b.and(xr, b.xor(y, r)));
    this.set(st.fA, b.wrap(b.xor(xr, y)));
  }
  /** All six flags of x - y - borrow in, given the borrow out. */
  flagsSub(size: Size, x: Value, y: Value, r: Value, borrow: Value): void {
    if (!this.flagsLive) return;
    const b = this.b;
    const xy = b.xor(x, y);
    this.setZNP(size, r);
    this.set(st.fC, borrow);
    this.#overflow(size, b.and(xy, b.xor(x, r)));
    this.set(st.fA, b.wrap(b.xor(xy, r)));
  }
  /** Flags of AND, OR, XOR, TEST: CF, OF and AF are cleared. */
  flagsLogic(size: Size, r: Value): void {
    if (!this.flagsLive) return;
    this.setZNP(size, r);
    const zero = this.b.i32(0);
    this.set(st.fC, zero);
    this.set(st.fO, zero);
    this.set(st.fA, zero);
  }
  cf(): Value {
    return this.get(st.fC);
  }
  zf(): Value {
    return this.b.eqz(this.get(st.fZ));
  }
  sf(): Value {
    return this.b.lts(this.get(st.fN), this.b.i64(0));
  }
  of(): Value {
    return this.b.lts(this.get(st.fO), this.b.i32(0));
  }
  pf(): Value {
    const b = this.b;
    const low = b.and(b.wrap(this.get(st.fN)), b.i32(0xff));
    return b.and(b.not(b.popcnt(low)), b.i32(1));
  }
  af(): Value {
    return this.b.and(this.b.shru(this.get(st.fA), this.b.i32(4)), this.b.i32(1));
  }
  /** Condition `code` (0–15 in encoding order) as i32 0 or 1. */
  cond(code: number): Value {
    const b = this.b;
    const positive = (): Value => {
      switch (code >> 1) {
        case 0:
          return this.of();
        case 1:
          return this.cf();
        case 2:
          return this.zf();
        case 3:
          return b.or(this.cf(), this.zf());
        case 4:
          return this.sf();
        case 5:
          return this.pf();
        case 6:
          return b.xor(this.sf(), this.of());
        default:
          return b.or(this.zf(), b.xor(this.sf(), this.of()));
      }
    };
    return code & 1 ? b.eqz(positive()) : positive();
  }
  /** RFLAGS as the guest sees it, an i32 (bit 1 set). */
  rflags(): Value {
    const b = this.b;
    const at = (v: Value, bit: number): Value => b.shl(v, b.i32(bit));
    let v = b.or(this.get(st.sysFlags), b.i32(2));
    v = b.or(v, this.cf());
    v = b.or(v, at(this.pf(), 2));
    v = b.or(v, b.and(this.get(st.fA), b.i32(0x10)));
    v = b.or(v, at(this.zf(), 6));
    v = b.or(v, at(this.sf(), 7));
    return b.or(v, at(this.of(), 11));
  }
  /** Sets the arithmetic flags chosen by `mask` (a constant over bits 0, 2, 4, 6, 7, 11) from an RFLAGS image (i32). */
  setArithmeticFlags(image: Value, mask = 0x8d5): void {
    const b = this.b;
    const bit = (n: number): Value => b.and(b.shru(image, b.i32(n)), b.i32(1));
    if (mask & 1) this.set(st.fC, bit(0));
    if (mask & 0x10) this.set(st.fA, image);
    if (mask & 0x40) this.set(st.fZ, b.extu(b.xor(bit(6), b.i32(1))));
    if (mask & 0x80) {
      // The low byte carries PF: even parity is byte 0.
      const parity = mask & 4 ? bit(2) : this.pf();
      const low = b.extu(b.xor(parity, b.i32(1)));
      this.set(st.fN, b.or(b.shl(b.extu(bit(7)), b.i64(63)), low));
    }
    if (mask & 0x800) this.set(st.fO, b.neg(bit(11)));
  }

  // -- leaving

  /** Raises exception `vector`, with an error code (i32) where the exception has one. Nothing after it happens. */
  raise(vector: number, error?: Value): void {
    this.set(st.excError, error ?? this.b.i32(-1));
    this.set(st.exc, this.b.i32(vector + 1));
    this.b.leave('fault');
  }
  raiseIf(cond: Value, vector: number, error?: Value): void {
    this.b.if(cond, () => this.raise(vector, error));
  }
  /** #GP(error), error code 0 unless given. */
  gp(error: Value = this.b.i32(0)): void {
    this.raise(X.gp, error);
  }
  gpIf(cond: Value, error?: Value): void {
    this.b.if(cond, () => this.gp(error));
  }
  ud(): void {
    this.raise(X.ud);
  }
  /** A two-way value by branching, for arms that are dear or may fault. */
  choose(type: Type, cond: Value, then: () => Value, otherwise: () => Value): Value {
    return this.b.choose(type, cond, then, otherwise);
  }
  variable(initial: Value): Var {
    return this.b.variable(initial);
  }
}

/** #UD where the CPU model lacks an instruction (a bit of `Absent`). */
export const requires = (c: Emit, bit: number): void => c.raiseIf(c.b.and(c.get(st.absent), c.b.i32(bit)), X.ud);

/** How a row writes an operand: opaque to the row, resolved by the tier. */
export interface Operand {
  /** Bits, or 0 for an operand without a size (an address). */
  readonly bits: number;
  readonly isMemory: boolean;
  /** Where the operand comes from in the encoding. */
  readonly from: OperandSource;
  /** The number of a fixed register. */
  readonly fixed: number;
  /** It stands for one 128-bit half of an operand: see rows/vex.ts. */
  readonly half?: { read(access: VecAccess): Value; write(access: VecAccess, value: Value, zero: boolean): void; imm?(): Value };
}

/** `rm`: ModRM.rm; `reg`: ModRM.reg; `op`: low bits of the opcode; `fixed`: a named register; `vvvv`: VEX.vvvv; `is4`: bits 7–4 of an immediate. */
export type OperandSource = 'rm' | 'reg' | 'op' | 'fixed' | 'imm' | 'imm2' | 'rel' | 'moffs' | 'one' | 'vvvv' | 'is4';

/** What is read or written as part of a vector register or memory operand. */
export type VecAccess = 'v128' | 'i64' | 'i32' | 'f64' | 'f32' | 'i32.8u' | 'i32.16u';

/** The context of one instruction: what a row's `emit` receives. */
export abstract class InsnEmit extends Emit {
  /** Operand size of a row whose operands follow it: 16, 32 or 64. */
  abstract readonly size: Size;
  /** Address size: 16, 32 or 64. */
  abstract readonly addressSize: Size;
  /** The code segment has a limit that near branches are held against. */
  abstract readonly limited: boolean;
  /** VEX.L: the row works on 256 bits. */
  abstract readonly wide: boolean;
  /** REP prefix: 0 none, 2 REPNE (F2), 3 REP/REPE (F3). */
  abstract readonly rep: 0 | 2 | 3;
  /** True with a LOCK prefix (rows that do not allow it never see it), and for XCHG with memory. */
  abstract readonly lock: boolean;

  /** Reads an integer operand: register, memory or immediate (sign-extended to the operand's size). */
  abstract read(o: Operand): Value;
  /** Writes an integer operand. */
  abstract write(o: Operand, value: Value): void;
  /** Offset of a memory operand in its segment, cut to the address size, as i64 (what LEA gives). */
  abstract effective(o: Operand): Value;
  /** Linear address of a memory operand, as i64, after the segment's checks for `bytes` bytes. `extra` is added to the offset. */
  abstract linear(o: Operand, bytes: number, write: boolean, extra?: Value): Value;
  /** Whether offsets in segment `n`, or in the memory operand's, need neither check nor base: `Ctx.flat`, and DS, ES or SS. */
  abstract flatIn(n?: number): boolean;
  /** Linear address of `offset` (i64, already cut to its address size) in a fixed segment. */
  abstract linearIn(segment: number, offset: Value, bytes: number, write: boolean): Value;
  /** Linear address of `offset` in the data segment of a string or XLAT instruction: DS or its override. */
  abstract linearData(offset: Value, bytes: number, write: boolean): Value;
  /** Number of the register that an operand names, as an i32, for segment, control, debug and x87 registers. */
  abstract index(o: Operand): Value;
  /** The same where it is known when the instruction is decoded, else undefined. */
  abstract fixedIndex(o: Operand): number | undefined;
  /** An immediate as i32, whatever its size. */
  abstract imm(o: Operand): Value;
  /** Address of the next instruction (offset in CS, i64). */
  abstract nextIp(): Value;
  /** Address of this instruction (offset in CS, i64). */
  abstract thisIp(): Value;
  /** Near jump to the relative operand, fixed at decoding. */
  abstract branch(o: Operand): void;
  /** Absolute target of the relative operand (offset in CS, i64). */
  abstract branchTarget(o: Operand): Value;

  /** Low `bits` of an SSE register or memory operand as a value of type: 32 → f32 or i32, 64 → f64 or i64, 128 → v128. */
  abstract readVec(o: Operand, access: VecAccess): Value;
  /**
   * Writes an SSE register or memory operand. In a register, a value narrower than 128 bits replaces the low bits and keeps
   * the rest, or clears it with `zero`.
   */
  abstract writeVec(o: Operand, access: 'v128' | 'i64' | 'i32' | 'f64' | 'f32', value: Value, zero?: boolean): void;

  /** Of a gather: the vector of indices, and log2 of its scale as i64. `effective` then gives base and displacement alone, not cut. */
  abstract vectorIndex(): { low: Value; high: Value; scale: Value };
  /** An offset cut to the address size. */
  abstract cutAddress(offset: Value): Value;
  /** One 128-bit half of an AVX register or memory operand. */
  abstract readHalf(o: Operand, half: 0 | 1): Value;
  /** Writes an AVX register: both halves, or zero for the upper one; or 16 or 32 bytes of memory. */
  abstract writeHalves(o: Operand, low: Value, high: Value | null): void;

  /**
   * Reads, computes and writes one operand: atomically on memory with LOCK. `compute` may run more than once at run time and
   * must not set flags or registers; gives [old, new].
   */
  update(o: Operand, compute: (old: Value) => Value): [Value, Value] {
    const b = this.b;
    if (!o.isMemory) {
      const old = this.read(o);
      const result = compute(old);
      this.write(o, result);
      return [old, result];
    }
    const size = o.bits as Size;
    const access = accessOf[size];
    const addr = this.linear(o, size / 8, true);
    if (!this.lock) {
      const old = b.load(access, addr, { forWrite: true });
      const result = compute(old);
      b.store(access, addr, result);
      return [old, result];
    }
    const old = b.variable(b.load(access, addr, { forWrite: true }));
    const result = b.variable(b.int(typeOf(size), 0));
    b.loop((again) => {
      const expected = b.getVar(old);
      b.setVar(result, compute(expected));
      const found = b.cmpxchg(access, addr, expected, b.getVar(result));
      b.setVar(old, found);
      b.br(again, b.ne(found, expected));
    });
    return [b.getVar(old), b.getVar(result)];
  }

  // -- stack

  /** Linear address of the stack offset `sp` for an access of `bytes`. */
  stackAddress(sp: Value, bytes: number, write: boolean): Value {
    return this.long ? sp : this.linearIn(st.S.ss, sp, bytes, write);
  }
  /** Stack pointer plus `delta`, cut to the stack's address size. */
  stackPointer(delta: number): Value {
    const b = this.b;
    const sp = this.reg(st.R.rsp);
    if (this.long) return b.add(sp, b.i64(delta));
    return b.and(b.add(sp, b.i64(delta)), this.get(st.spMask));
  }
  /** Writes the stack pointer, keeping what lies above the stack's address size. */
  setStackPointer(sp: Value): void {
    const b = this.b;
    if (this.long) return this.setReg(st.R.rsp, 64, sp);
    const mask = this.get(st.spMask);
    this.setReg(st.R.rsp, 64, b.or(b.and(this.reg(st.R.rsp), b.not(mask)), b.and(sp, mask)));
  }
  /** Pushes an operand of `size` bits. */
  push(value: Value, size: Size): void {
    const sp = this.stackPointer(-size / 8);
    this.store(this.stackAddress(sp, size / 8, true), size, value);
    this.setStackPointer(sp);
  }
  /** Reads the top of the stack; the pointer moves only when `done` is called, so that the rest may fault before. */
  pop(size: Size): { value: Value; done: () => void } {
    const sp = this.stackPointer(0);
    const value = this.load(this.stackAddress(sp, size / 8, false), size);
    return { value, done: () => this.setStackPointer(this.stackPointer(size / 8)) };
  }

  // -- leaving

  /**
   * #GP(0) unless `target` (i64) of a near branch in 64-bit code is canonical: the branch has not happened then. `sooner` emits what raises
   * exceptions before that one; it runs only where the target may not be canonical.
   */
  checkTarget(target: Value, sooner?: () => void): void {
    const b = this.b;
    // Whatever the paging, those of 48 bits are.
    b.if(b.ne(b.shru(b.add(target, b.i64(1n << 47n)), b.i64(48)), b.i64(0)), () => {
      sooner?.();
      this.gpIf(b.eqz(isCanonical(this, target)));
    });
  }
  /** Near jump to a computed offset in CS (i64, cut by the caller). */
  jump(target: Value): void {
    this.b.leave('jump', target);
  }
  /** The instruction is complete, but code fetch or translation may have changed. */
  resync(): void {
    this.b.leave('resync');
  }
  /** The instruction is complete and the host must act: see `Exit`. */
  exit(reason: number): void {
    this.b.leave('exit', null, reason);
  }
  /** #GP(0) unless CPL is 0. */
  privileged(): void {
    this.gpIf(this.b.ne(this.get(st.cpl), this.b.i32(0)));
  }
}
