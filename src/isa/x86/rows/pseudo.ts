// Rows that stand for no opcode: what the decoder puts where no instruction can be run (Intel SDM volume 3, section 6.15).

import type { Row } from '../row.ts';
import { insn } from '../row.ts';

/** An encoding that no row claims: #UD. */
export const undefinedRow: Row = insn('', 'undefined', (c) => c.ud());
/** An instruction longer than 15 bytes: #GP(0). */
export const tooLongRow: Row = insn('', 'too_long', (c) => c.gp());
/** The end of a block that goes on in the next one: a branch of displacement 0. */
export const gotoRow: Row = insn('', 'goto Jz', (c, o) => c.branch(o));
/** A record whose code has changed: the place is looked up again. */
export const staleRow: Row = insn('', 'stale', (c) => c.jump(c.thisIp()));

/** `90` without REX.B: not XCHG EAX,EAX, which would clear the upper half of RAX. */
export const nopRow: Row = insn('', 'nop', () => {});

/** All of them, in the order that follows the real rows. */
export const pseudoRows: readonly Row[] = [undefinedRow, tooLongRow, gotoRow, staleRow, nopRow];
