// What deliveries through the IDT share in all modes: checks of a gate, the flags pushed, stacks from the TSS, the entry of a handler
// (Intel SDM volume 3, sections 6.12 to 6.14 and 17.3.1.1).

import type { Value } from '../../ir/ir.ts';
import { isCanonical } from './canonical.ts';
import { updateContext } from './context.ts';
import type { Emit } from './emit.ts';
import { packFlags } from './flags.ts';
import { Attr, dpl, F, fail, failIf, withVector } from './segments.ts';
import * as st from './state.ts';
import { S, Trap, X } from './state.ts';
import { sub } from './sub.ts';

/** What causes a delivery: a hardware exception, an external interrupt or NMI, INT n, INT3 or INTO, INT1. */
export const Kind = { exception: 0, external: 1, soft: 2, breakpoint: 3, int1: 4 } as const;

export const isSoft = (c: Emit, kind: Value): Value => c.b.eq(c.b.and(kind, c.b.i32(6)), c.b.i32(2));

/** Raises `vector` (a constant) with the error code of IDT entry `entry`. */
export function failGateIf(c: Emit, cond: Value, vector: number, entry: Value, ext: Value): void {
  const b = c.b;
  c.raiseIf(cond, vector, b.or(b.or(b.shl(entry, b.i32(3)), b.i32(2)), b.shru(ext, b.i32(8))));
}

/** RFLAGS to be pushed: a fault sets RF, so that its instruction breakpoint does not strike again; traps and aborts do not. */
export function pushedFlags(c: Emit, vector: Value, kind: Value): Value {
  const b = c.b;
  const noFault = (1 << X.db) | (1 << X.df) | (1 << X.mc);
  const fault = b.and(b.eqz(kind), b.eqz(b.and(b.shru(b.i32(noFault), vector), b.i32(1))));
  return b.or(c.call(packFlags), b.shl(fault, b.i32(16)));
}

/**
 * Enters a handler: flags, privilege and what was held off. `interruptGate` (i32) clears IF. A data breakpoint that MOV SS has held off
 * strikes at its first instruction after an INT n (`soft`, i32).
 */
export function enterHandler(c: Emit, ip: Value, level: Value, interruptGate: Value, soft: Value): void {
  const b = c.b;
  const cleared = b.or(b.i32(F.tf | F.nt | F.rf | F.vm), b.select(interruptGate, b.i32(F.if), b.i32(0)));
  c.set(st.sysFlags, b.and(c.get(st.sysFlags), b.not(cleared)));
  c.set(st.rip, ip);
  c.set(st.cpl, level);
  c.set(st.shadow, b.i32(0));
  c.set(st.stepTrap, b.and(c.get(st.stepTrap), b.mul(soft, b.i32(Trap.hits))));
  c.do(updateContext);
}

/** Raises what is wrong with a gate's code segment. */
export const rejectGateCode = sub('rejectGateCode', ['i32', 'i32', 'i32'], null, { faults: true }, (c, selector, attr, how) => {
  const b = c.b;
  const code = b.eq(b.and(attr, b.i32(Attr.s | Attr.code)), b.i32(Attr.s | Attr.code));
  failIf(c, b.or(b.eqz(code), b.gtu(dpl(c, attr), c.get(st.cpl))), how, selector);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), withVector(c, how, X.np), selector);
  fail(c, how, selector);
});

/** RSP for `level` or from the interrupt stack table entry `ist` (1–7) of the 64-bit TSS. */
export const stackFromTss64 = sub('stackFromTss64', ['i32', 'i32', 'i32'], 'i64', { faults: true }, (c, level, ist, ext) => {
  const b = c.b;
  const at = b.select(ist, b.add(b.shl(ist, b.i32(3)), b.i32(28)), b.add(b.shl(level, b.i32(3)), b.i32(4)));
  failIf(c, b.gtu(b.add(at, b.i32(7)), c.get(st.segLimit[S.tr])), b.or(ext, b.i32(X.ts)), c.get(st.segSelector[S.tr]));
  const sp = c.load(b.add(c.get(st.segBase[S.tr]), b.extu(at)), 64, { system: true });
  failIf(c, b.eqz(isCanonical(c, sp)), b.or(ext, b.i32(X.ss)), b.i32(0));
  b.ret(sp);
});

/** SS in bits 32–47 and ESP below, for `level`, from the 32- or 16-bit TSS. `ext`: `EXT` or 0. */
export const stackFromTss = sub('stackFromTss', ['i32', 'i32'], 'i64', { faults: true }, (c, level, ext) => {
  const b = c.b;
  const base = c.get(st.segBase[S.tr]);
  const limit = c.get(st.segLimit[S.tr]);
  const how = b.or(ext, b.i32(X.ts));
  b.if(b.and(c.get(st.segAttr[S.tr]), b.i32(8)), () => {
    const at = b.add(b.shl(level, b.i32(3)), b.i32(4));
    failIf(c, b.gtu(b.add(at, b.i32(5)), limit), how, c.get(st.segSelector[S.tr]));
    const esp = b.extu(c.load(b.add(base, b.extu(at)), 32, { system: true }));
    const ss = b.extu(c.load(b.add(base, b.extu(b.add(at, b.i32(4)))), 16, { system: true }));
    b.ret(b.or(b.shl(ss, b.i64(32)), esp));
  });
  const at = b.add(b.shl(level, b.i32(2)), b.i32(2));
  failIf(c, b.gtu(b.add(at, b.i32(3)), limit), how, c.get(st.segSelector[S.tr]));
  const both = c.load(b.add(base, b.extu(at)), 32, { system: true });
  b.ret(b.or(b.shl(b.extu(b.shru(both, b.i32(16))), b.i64(32)), b.extu(b.and(both, b.i32(0xffff)))));
});
