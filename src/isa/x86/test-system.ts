// A bench for tests of segments and interrupts: an `EvalMachine` with flat memory, a GDT, an IDT, TSSs and stacks at fixed places.

import { updateContext } from './context.ts';
import { EvalMachine } from './eval-machine.ts';
import { flagRows } from './rows/flags.ts';
import { segmentRows } from './rows/segment.ts';
import { syscallRows } from './rows/syscall.ts';
import { transferRows } from './rows/transfer.ts';
import * as st from './state.ts';
import { R, S } from './state.ts';
import { buildTables } from './table.ts';

export const GDT = 0x10000;
export const IDT = 0x11000;
export const TSS = 0x12000;
export const TSS2 = 0x13000;
export const LDT = 0x14000;
export const CODE = 0x20000;
export const HANDLER = 0x21000;
/** Tops of the stacks: of ring 0 (from the TSS), of ring 3, of IST 1, of a second task. */
export const STACK0 = 0x31000;
export const STACK3 = 0x33000;
export const STACK_IST = 0x35000;
export const STACK2 = 0x37000;

/** Selectors in the GDT. */
export const Sel = {
  code0: 0x08, data0: 0x10, code3: 0x1b, data3: 0x23, long0: 0x28, long3: 0x33, data3long: 0x3b, tss: 0x40, ldt: 0x50, tss2: 0x60,
  conforming: 0x68, code16: 0x70, gate: 0x78, taskGate: 0x88, absent: 0x90, down: 0x98, code1: 0xa1, data1: 0xa9, data16: 0xb0, tss16: 0xb8,
} as const; // biome-ignore format: a table

const tables = buildTables([...segmentRows, ...transferRows, ...syscallRows, ...flagRows]);

/** A descriptor: `access` is its byte 5, `flags` the upper half of byte 6. */
export function descriptor(base: number, limit: number, access: number, flags: number): bigint {
  const l = BigInt(limit);
  const b = BigInt(base);
  return (
    (l & 0xffffn) |
    ((b & 0xffffffn) << 16n) |
    (BigInt(access) << 40n) |
    ((l >> 16n) << 48n) |
    (BigInt(flags) << 52n) |
    ((b >> 24n) << 56n)
  );
}
/** A gate of type `type` (4, 5, 6, 7, 12, 14, 15). `count`: parameters, or IST. */
export function gate(selector: number, offset: number, type: number, dpl = 0, count = 0, present = true): bigint {
  const access = BigInt(type | (dpl << 5) | (present ? 0x80 : 0));
  return (
    BigInt(offset & 0xffff) |
    (BigInt(selector) << 16n) |
    (BigInt(count) << 32n) |
    (access << 40n) |
    (BigInt(offset >>> 16) << 48n)
  );
}

/** Sets a segment register with its hidden part. */
export function segmentRegister(
  m: EvalMachine,
  segment: number,
  selector: number,
  base: bigint,
  limit: number,
  attr: number,
): void {
  m.set(st.segSelector[segment]!, selector);
  m.set(st.segBase[segment]!, base);
  m.set(st.segLimit[segment]!, limit);
  m.set(st.segAttr[segment]!, attr);
}

export type Mode = 'real' | 'protected' | 'long';

export class System {
  readonly m: EvalMachine;
  readonly long: boolean;

  /** A machine in `mode` at privilege `cpl`, in the middle of `code` at `CODE`. Protected mode is 32-bit. */
  constructor(mode: Mode, cpl: 0 | 3, code: readonly number[] = []) {
    const m = new EvalMachine(tables);
    this.m = m;
    this.long = mode === 'long';
    m.map(0, 0x40000);
    m.poke(CODE, code);
    this.#gdt();
    m.set(st.gdtBase, GDT);
    m.set(st.gdtLimit, 0xff);
    m.set(st.idtBase, mode === 'real' ? 0 : IDT);
    m.set(st.idtLimit, mode === 'real' ? 0x3ff : 0xfff);
    if (mode === 'real') m.realMode();
    else if (mode === 'long') m.longMode(cpl);
    else m.protectedMode(cpl);
    m.set(st.cr0, (m.get(st.cr0) as bigint) & ~8n);
    if (mode === 'protected') m.set(st.cr0, (m.get(st.cr0) as bigint) & 0x7fffffffn);
    if (mode !== 'real') this.#registers(cpl);
    m.rip = CODE;
    m.setReg(R.rsp, cpl === 3 ? STACK3 - 0x100 : STACK0 - 0x100);
    m.flags = 0x202;
    if (mode === 'real') {
      segmentRegister(m, S.cs, CODE >> 4, BigInt(CODE), 0xffff, 0x9b);
      m.rip = 0;
      m.setReg(R.rsp, 0x8000);
    }
  }

  /** Enters virtual-8086 mode (from protected mode at CPL 3): CS is `CODE` / 16, the other segments 0x300, SP 0x800, IF set. */
  v86(iopl: 0 | 3, vme = false): void {
    const { m } = this;
    for (const n of [S.es, S.cs, S.ss, S.ds, S.fs, S.gs]) {
      const selector = n === S.cs ? CODE >> 4 : 0x300;
      segmentRegister(m, n, selector, BigInt(selector * 16), 0xffff, 0xf3);
    }
    m.set(st.sysFlags, 0x20200 | (iopl << 12));
    m.set(st.cr4, vme ? 1n : 0n);
    m.call(updateContext);
    m.rip = 0;
    m.setReg(R.rsp, 0x800);
  }

  #gdt(): void {
    this.describe(Sel.code0, descriptor(0, 0xfffff, 0x9b, 0xc));
    this.describe(Sel.data0, descriptor(0, 0xfffff, 0x93, 0xc));
    this.describe(Sel.code3, descriptor(0, 0xfffff, 0xfb, 0xc));
    this.describe(Sel.data3, descriptor(0, 0xfffff, 0xf3, 0xc));
    this.describe(Sel.long0, descriptor(0, 0xfffff, 0x9b, 0xa));
    this.describe(Sel.long3, descriptor(0, 0xfffff, 0xfb, 0xa));
    this.describe(Sel.data3long, descriptor(0, 0xfffff, 0xf3, 0xc));
    this.describe(Sel.tss, descriptor(TSS, 0x1fff, 0x8b, 0));
    this.describe(Sel.ldt, descriptor(LDT, 0x1f, 0x82, 0));
    this.describe(Sel.tss2, descriptor(TSS2, 0x67, 0x89, 0));
    this.describe(Sel.conforming, descriptor(0, 0xfffff, 0x9f, 0xc));
    this.describe(Sel.code16, descriptor(0, 0xfffff, 0x9b, 0x8));
    this.describe(Sel.absent, descriptor(0, 0xfffff, 0x13, 0xc));
    this.describe(Sel.down, descriptor(0, 0xfff, 0x97, 0x4));
    this.describe(Sel.code1, descriptor(0, 0xfffff, 0xbb, 0xc));
    this.describe(Sel.data1, descriptor(0, 0xfffff, 0xb3, 0xc));
    this.describe(Sel.data16, descriptor(0x1000, 0xffff, 0x93, 0x0));
    this.describe(Sel.tss16, descriptor(TSS2, 0x2b, 0x81, 0));
  }
  #registers(cpl: 0 | 3): void {
    const { m } = this;
    m.set(st.segSelector[S.cs]!, this.long ? (cpl ? Sel.long3 : Sel.long0) : cpl ? Sel.code3 : Sel.code0);
    for (const s of [S.ss, S.ds, S.es]) m.set(st.segSelector[s]!, cpl ? Sel.data3 : Sel.data0);
    segmentRegister(m, S.tr, Sel.tss, BigInt(TSS), 0x1fff, 0x8b);
    segmentRegister(m, S.ldtr, 0, 0n, 0, 0x10000);
    if (this.long) {
      this.write64(TSS + 4, BigInt(STACK0));
      this.write64(TSS + 36, BigInt(STACK_IST));
    } else {
      this.write32(TSS + 4, STACK0);
      this.write32(TSS + 8, Sel.data0);
      this.write32(TSS + 12, STACK_IST);
      this.write32(TSS + 16, Sel.data1);
    }
  }

  /** Writes a GDT entry. */
  describe(selector: number, desc: bigint, upper?: bigint): void {
    this.write64(GDT + (selector & ~7), desc);
    if (upper !== undefined) this.write64(GDT + (selector & ~7) + 8, upper);
  }
  /** Sets an IDT entry for the handler at `HANDLER` + 16 * vector: a gate of the mode's own kind unless given. */
  vector(
    n: number,
    options: { type?: number; selector?: number; dpl?: number; ist?: number; present?: boolean; upper?: bigint } = {},
  ): void {
    const { long } = this;
    const selector = options.selector ?? (long ? Sel.long0 : Sel.code0);
    const entry = gate(
      selector,
      HANDLER + 16 * n,
      options.type ?? 14,
      options.dpl ?? 0,
      options.ist ?? 0,
      options.present ?? true,
    );
    const at = IDT + n * (long ? 16 : 8);
    this.write64(at, entry);
    if (long) this.write64(at + 8, options.upper ?? 0n);
  }
  write16(at: number, value: number): void {
    this.m.poke(at, [value & 0xff, (value >> 8) & 0xff]);
  }
  write32(at: number, value: number): void {
    this.write16(at, value);
    this.write16(at + 2, value >>> 16);
  }
  write64(at: number, value: bigint): void {
    this.write32(at, Number(BigInt.asIntN(32, value)));
    this.write32(at + 4, Number(BigInt.asIntN(32, value >> 32n)));
  }
  /** Numbers of `size` bytes from memory, at ascending addresses. */
  read(at: number | bigint, size: 2 | 4 | 8, count: number): number[] {
    const bytes = this.m.peek(at, size * count);
    return Array.from({ length: count }, (_, i) => {
      let v = 0n;
      for (let k = size - 1; k >= 0; k--) v = (v << 8n) | BigInt(bytes[i * size + k]!);
      return Number(v);
    });
  }
  /** Writes numbers of `size` bytes from the current stack pointer up, as if they had been pushed there. */
  push(size: 2 | 4 | 8, ...values: (number | bigint)[]): void {
    const at = this.m.reg(R.rsp) - BigInt(size * values.length);
    values.forEach((v, i) => {
      const bytes = Array.from({ length: size }, (_, k) => Number((BigInt(v) >> BigInt(8 * k)) & 0xffn));
      this.m.poke(at + BigInt(size * i), bytes);
    });
    this.m.setReg(R.rsp, at);
  }
  /** The stack from its pointer up. */
  stack(size: 2 | 4 | 8, count: number): number[] {
    return this.read(this.m.reg(R.rsp), size, count);
  }
  selector(segment: number): number {
    return this.m.get(st.segSelector[segment]!) as number;
  }
  get cpl(): number {
    return this.m.get(st.cpl) as number;
  }
  /** Where the vCPU is: CS, instruction pointer, CPL. */
  get where(): [number, number, number] {
    return [this.selector(S.cs), Number(this.m.rip), this.cpl];
  }
  /** Makes an exception pending, as an instruction at `rip` would. */
  raise(vector: number, error = -1): void {
    this.m.set(st.excError, error);
    this.m.set(st.exc, vector + 1);
  }
}
