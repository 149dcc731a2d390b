// Waiting for a store to a line of memory (Intel SDM volume 2, MONITOR and MWAIT; volume 3, section 9.10.4).
//
// Stores are not watched. MONITOR keeps a digest of the line, MWAIT leaves to the host where the line still has it, and the host waits a
// bounded time: MWAIT may end for any reason, and software that finds nothing changed waits again.

import type { Value } from '../../../ir/ir.ts';
import { type InsnEmit, requires } from '../emit.ts';
import { hostSpan } from '../memory.ts';
import { insn, type Row } from '../row.ts';
import * as st from '../state.ts';
import { Absent, Exit, R } from '../state.ts';
import { sub } from '../sub.ts';

/** Bytes that are watched; CPUID leaf 5 tells. */
export const MONITOR_LINE = 64;
const FACTOR = 0x9e37_79b9_7f4a_7c15n;

/** A digest of the line at a host address (i64). */
const digest = sub('lineDigest', ['i64'], 'i64', {}, (c, line) => {
  const b = c.b;
  let sum: Value = b.i64(0);
  for (let at = 0; at < MONITOR_LINE; at += 8) sum = b.mul(b.xor(sum, b.raw('i64', line, at)), b.i64(BigInt.asIntN(64, FACTOR)));
  b.ret(sum);
});

/** #UD outside CPL 0, and where the CPU model has neither. */
function check(c: InsnEmit): void {
  requires(c, Absent.monitor);
  c.b.if(c.b.ne(c.get(st.cpl), c.b.i32(0)), () => c.ud());
}

export const monitorRows: readonly Row[] = [
  insn('0F 01 C8', 'monitor', (c) => {
    const b = c.b;
    check(c);
    c.gpIf(b.ne(c.reg(R.rcx, 32), b.i32(0)));
    const offset = c.addressSize === 64 ? c.reg(R.rax) : b.extu(c.reg(R.rax, c.addressSize));
    const at = c.linearData(offset, 1, false);
    c.load(at, 8);
    // Zero outside RAM: then nothing is armed.
    const line = b.and(c.call(hostSpan, at, b.i32(0)), b.i64(-MONITOR_LINE));
    c.set(st.monitorLine, line);
    b.if(b.ne(line, b.i64(0)), () => c.set(st.monitorSum, c.call(digest, line)));
  }),
  // Bit 0 of ECX asks that interrupts end the wait even with IF clear, as they always do here.
  insn('0F 01 C9', 'mwait', { ends: true }, (c) => {
    const b = c.b;
    check(c);
    c.gpIf(b.gtu(c.reg(R.rcx, 32), b.i32(1)));
    const line = c.get(st.monitorLine);
    b.if(b.ne(line, b.i64(0)), () => {
      c.set(st.monitorLine, b.i64(0));
      b.if(b.eq(c.call(digest, line), c.get(st.monitorSum)), () => c.exit(Exit.wait));
    });
    c.resync();
  }),
];
