// Accesses that somebody watches: data and port breakpoints of DR7, and alignment checks (Intel SDM volume 3, sections 6.15
// (interrupt 17) and 17.2). The pages of a breakpoint are kept out of the TLBs, so only the slow paths of memory.ts look here.

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { How } from './mmu.ts';
import { stopSoon, watchChanged } from './outside.ts';
import * as st from './state.ts';
import { X } from './state.ts';
import { sub } from './sub.ts';
import { flushAll } from './tlb.ts';

/** Place of the first breakpoint's bit in `stepTrap`. */
const HITS = 8;
/** Fields R/W of a breakpoint in DR7: what it watches. */
const Watch = { execute: 0, write: 1, port: 2, access: 3 } as const;

const field = (c: Emit, i: number): Value => c.b.and(c.b.shru(c.b.wrap(c.get(st.dr[7])), c.b.i32(16 + 4 * i)), c.b.i32(3));

/** Notes the breakpoints of the `kinds` given (a bit for each value of R/W) that `bytes` (i32) from `addr` (i64) touch. */
function note(c: Emit, addr: Value, bytes: Value, kinds: Value): void {
  const b = c.b;
  const watch = c.get(st.watch);
  const dr7 = b.wrap(c.get(st.dr[7]));
  let hits: Value = b.i32(0);
  for (let i = 0; i < 4; i++) {
    // Lengths 1, 2, 8 and 4: the mask is the length less one.
    const length = b.and(b.shru(dr7, b.i32(18 + 4 * i)), b.i32(3));
    const mask = b.extu(b.and(b.shru(b.i32(0x3710), b.shl(length, b.i32(2))), b.i32(7)));
    const first = b.and(c.get(st.dr[i]), b.not(mask));
    const before = b.ltu(b.sub(addr, first), b.add(mask, b.i64(1)));
    const behind = b.ltu(b.sub(first, addr), b.extu(bytes));
    const kind = b.and(b.shru(kinds, field(c, i)), b.shru(watch, b.i32(i)));
    hits = b.or(hits, b.shl(b.and(b.and(kind, b.or(before, behind)), b.i32(1)), b.i32(i + HITS)));
  }
  b.if(hits, () => {
    c.set(st.stepTrap, b.or(c.get(st.stepTrap), hits));
    // A shadow that this instruction does not set itself is over.
    c.set(st.shadow, b.i32(0));
    c.do(stopSoon);
  });
}

const inspectAccess = sub('inspectAccess', ['i64', 'i32'], null, { faults: true }, (c, addr, how) => {
  const b = c.b;
  b.if(b.and(how, b.i32(How.system)), () => b.ret());
  const bytes = b.shl(b.i32(1), b.and(how, b.i32(3)));
  const misaligned = b.and(b.wrap(addr), b.sub(bytes, b.i32(1)));
  b.if(b.and(c.get(st.alignCheck), b.ne(misaligned, b.i32(0))), () => c.raise(X.ac, b.i32(0)));
  const write = (1 << Watch.write) | (1 << Watch.access);
  b.if(c.get(st.watch), () =>
    note(c, addr, bytes, b.select(b.and(how, b.i32(How.write)), b.i32(write), b.i32(1 << Watch.access))),
  );
  b.ret();
});

/** What a slow access to memory begins with: #AC, and breakpoints met, which trap after the instruction. */
export function inspect(c: Emit, addr: Value, how: Value): void {
  c.b.if(c.b.or(c.get(st.alignCheck), c.get(st.watch)), () => c.do(inspectAccess, addr, how));
}

/** Notes breakpoints on the ports that an instruction has used. Parameters: port, bytes. */
export const inspectPort = sub('inspectPort', ['i32', 'i32'], null, {}, (c, port, bytes) => {
  const b = c.b;
  b.if(b.and(b.wrap(c.get(st.cr4)), b.i32(8)), () => note(c, b.extu(port), bytes, b.i32(1 << Watch.port)));
  b.ret();
});

/** Makes `watch` and the TLBs fit a new DR7. */
export const updateWatch = sub('updateWatch', [], null, {}, (c) => {
  const b = c.b;
  const dr7 = b.wrap(c.get(st.dr[7]));
  const old = c.get(st.watch);
  let watch: Value = b.i32(0);
  let loads: Value = b.i32(0);
  for (let i = 0; i < 4; i++) {
    const on = b.ne(b.and(dr7, b.i32(3 << (2 * i))), b.i32(0));
    const kind = field(c, i);
    watch = b.or(watch, b.shl(b.and(on, b.ne(kind, b.i32(Watch.execute))), b.i32(i)));
    loads = b.or(loads, b.and(on, b.eq(kind, b.i32(Watch.access))));
  }
  c.set(st.watch, watch);
  b.if(b.or(old, watch), () => {
    c.do(flushAll);
    c.do(watchChanged, loads);
  });
  b.ret();
});
