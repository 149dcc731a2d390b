// The operand codes of rows: where each operand comes from, how wide it is, what kind of register it names.
// The codes are those of Intel SDM volume 2, appendix A.2.

import type { OperandSource } from './emit.ts';
import { R } from './state.ts';

/** Which register file (or none) an operand belongs to. */
export type OperandClass = 'gpr' | 'xmm' | 'mmx' | 'seg' | 'control' | 'debug' | 'x87' | 'imm' | 'mem';

/** Width in bits, or by operand size: v all of it, z at most 32, y 32 or 64. */
export type Width = number | 'v' | 'z' | 'y';

export interface OperandSpec {
  readonly code: string;
  readonly from: OperandSource;
  readonly cls: OperandClass;
  readonly width: Width;
  /** For ModRM.rm operands: which forms are accepted. */
  readonly form: 'both' | 'mem' | 'reg';
  /** Number of a fixed register. */
  readonly fixed: number;
  /** Immediates: bits in the instruction, and the width that they are sign-extended to (else zero-extended). */
  readonly immWidth: Width;
  readonly signed: boolean;
  /** A 128-bit memory operand must be aligned. */
  readonly aligned: boolean;
  /** The index of the memory operand is a vector register. */
  readonly vsib: boolean;
}

const base: OperandSpec = {
  code: '',
  from: 'rm',
  cls: 'gpr',
  width: 0,
  form: 'both',
  fixed: 0,
  immWidth: 0,
  signed: false,
  aligned: false,
  vsib: false,
};
const widths: Readonly<Record<string, Width>> = { b: 8, w: 16, d: 32, q: 64, v: 'v', y: 'y', z: 'z', '': 0, dq: 128 };

const table: Record<string, Partial<OperandSpec>> = {
  M: { cls: 'mem', form: 'mem' },
  Ib: { from: 'imm', cls: 'imm', width: 8, immWidth: 8 },
  Iw: { from: 'imm', cls: 'imm', width: 16, immWidth: 16 },
  Iz: { from: 'imm', cls: 'imm', width: 'v', immWidth: 'z', signed: true },
  Iv: { from: 'imm', cls: 'imm', width: 'v', immWidth: 'v' },
  Ibs: { from: 'imm', cls: 'imm', width: 'v', immWidth: 8, signed: true },
  Jb: { from: 'rel', cls: 'imm', width: 'v', immWidth: 8, signed: true },
  Jz: { from: 'rel', cls: 'imm', width: 'v', immWidth: 'z', signed: true },
  Ob: { from: 'moffs', cls: 'mem', width: 8 },
  Ov: { from: 'moffs', cls: 'mem', width: 'v' },
  Sw: { from: 'reg', cls: 'seg', width: 16 },
  Cy: { from: 'reg', cls: 'control', width: 'y' },
  Dy: { from: 'reg', cls: 'debug', width: 'y' },
  AL: { from: 'fixed', width: 8 },
  AX: { from: 'fixed', width: 16 },
  EAX: { from: 'fixed', width: 32 },
  RAX: { from: 'fixed', width: 64 },
  rAX: { from: 'fixed', width: 'v' },
  CL: { from: 'fixed', width: 8, fixed: R.rcx },
  DX: { from: 'fixed', width: 16, fixed: R.rdx },
  '1': { from: 'one', cls: 'imm', width: 8 },
  STi: { from: 'rm', cls: 'x87', form: 'reg' },
  Vx: { from: 'reg', cls: 'xmm', width: 128 },
  Wx: { cls: 'xmm', width: 128, aligned: true },
  Wu: { cls: 'xmm', width: 128 },
  Wq: { cls: 'xmm', width: 64 },
  Wd: { cls: 'xmm', width: 32 },
  Ww: { cls: 'xmm', width: 16 },
  Wb: { cls: 'xmm', width: 8 },
  Ux: { cls: 'xmm', width: 128, form: 'reg' },
  Mx: { cls: 'xmm', width: 128, form: 'mem', aligned: true },
  Mu: { cls: 'xmm', width: 128, form: 'mem' },
  Hx: { from: 'vvvv', cls: 'xmm', width: 128 },
  Lx: { from: 'is4', cls: 'xmm', width: 128, immWidth: 8 },
  By: { from: 'vvvv', width: 'y' },
  Mvs: { cls: 'mem', form: 'mem', vsib: true },
  Pq: { from: 'reg', cls: 'mmx', width: 64 },
  Qq: { cls: 'mmx', width: 64 },
  Qd: { cls: 'mmx', width: 32 },
  Nq: { cls: 'mmx', width: 64, form: 'reg' },
};
for (const w of ['b', 'w', 'd', 'q', 'v', 'y', 'z']) {
  table[`E${w}`] = { width: widths[w] };
  table[`G${w}`] = { from: 'reg', width: widths[w] };
  table[`Z${w}`] = { from: 'op', width: widths[w] };
  table[`M${w}`] = { cls: 'mem', width: widths[w], form: 'mem' };
  table[`R${w}`] = { width: widths[w], form: 'reg' };
}
table.Mdq = { cls: 'mem', width: 128, form: 'mem' };
const known = new Map(Object.entries(table).map(([code, entry]): [string, OperandSpec] => [code, { ...base, ...entry, code }]));

/** The operands of a row's `asm`. Throws for a code that is not known. */
export function parseOperands(asm: string): OperandSpec[] {
  const space = asm.indexOf(' ');
  if (space < 0) return [];
  const specs: OperandSpec[] = [];
  for (const code of asm.slice(space + 1).split(',')) {
    const spec = known.get(code.trim());
    if (!spec)
      throw new Error(
        `Cannot declare row "${asm}": operand code ${code} is not known, accepted are ${[...known.keys()].join(' ')}`,
      );
    const second = spec.from === 'imm' && specs.some((s) => s.from === 'imm');
    specs.push(second ? { ...spec, from: 'imm2' } : spec);
  }
  return specs;
}

/** Bits of a width under an operand size. `wide` is REX.W. */
export function bitsOf(width: Width, size: number): number {
  if (width === 'v') return size;
  if (width === 'z') return size === 64 ? 32 : size;
  if (width === 'y') return size === 64 ? 64 : 32;
  return width;
}
