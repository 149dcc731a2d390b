// Instruction rows: one for each line of Intel's opcode maps (SDM volume 2, appendix A), with its meaning.

import type { InsnEmit, Operand } from './emit.ts';

/** Units of the processor that may be switched off: in this order in `checkFpu`. */
export const units = ['x87', 'mmx', 'sse', 'avx'] as const;
export type Unit = (typeof units)[number];

/** What a row says beyond opcode and operands. */
export interface RowOptions {
  /** Valid in 64-bit code only, or outside it only. */
  readonly mode?: 'long' | 'legacy';
  /** LOCK is accepted with a memory destination. */
  readonly lock?: boolean;
  /** The operand size in 64-bit code is 64 without REX.W (near branches, stack): `d64`; 0x66 still gives 16 unless `f64` forbids. */
  readonly size?: 'd64' | 'f64';
  /** Which unit the row needs: it is checked against CR0.EM, CR0.TS and CR4.OSFXSR (#NM, #UD) before `emit`. */
  readonly fp?: Unit;
  /** REP prefixes repeat (string instructions). Elsewhere F2/F3 are part of the opcode or ignored. */
  readonly rep?: boolean;
  /** The row ends a block: control flow, or a change of what decoding or translation depends on. */
  readonly ends?: boolean;
  /** A near branch: its target lies within the code segment. */
  readonly near?: boolean;
  /** SDM section, where the behaviour surprises. */
  readonly spec?: string;
}

export interface Row {
  /** `0F A3`, `80 /0`, `F3 0F 10`, `0F 01 F8` (whole ModRM), `NP 0F 10`, `66 REX.W 0F 6E`, `B8+r`. */
  readonly opcode: string;
  /** Mnemonic and operands in the codes of the SDM's appendix A: `add Ev,Gv`. */
  readonly asm: string;
  readonly options: RowOptions;
  readonly emit: (c: InsnEmit, ...operands: Operand[]) => void;
}

/**
 * Declares a row. Opcode: optional mandatory prefix (NP none, 66, F2, F3), optional REX.W or REX.W0, opcode bytes, then `/0`–`/7` for
 * a ModRM.reg that is part of the opcode, with `m` or `r` after it for memory or register forms only (`/1m`), `/m` and `/r` for
 * a form without fixed reg, `+r` for a register in the opcode, or a further byte for a fixed ModRM.
 * With a VEX prefix: `VEX.256.66.0F38.W0 18`, where L and W are left out when they do not matter.
 * A row with an empty opcode has no encoding.
 */
export function insn(opcode: string, asm: string, emit: Row['emit']): Row;
export function insn(opcode: string, asm: string, options: RowOptions, emit: Row['emit']): Row;
export function insn(opcode: string, asm: string, a: RowOptions | Row['emit'], b?: Row['emit']): Row {
  return typeof a === 'function' ? { opcode, asm, options: {}, emit: a } : { opcode, asm, options: a, emit: b! };
}
