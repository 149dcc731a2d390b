// What happens to a pending exception: its class, double and triple faults, the debug trap, and external interrupts
// (Intel SDM volume 3, sections 6.5, 6.7.1, 6.15 (interrupt 8) and 17.2, 17.3).

import type { Value } from '../../ir/ir.ts';
import { updateContext } from './context.ts';
import type { Emit } from './emit.ts';
import { Kind } from './gate.ts';
import { deliver } from './interrupts.ts';
import { splitUnlock } from './memory.ts';
import { usesStack } from './outside.ts';
import { F } from './segments.ts';
import * as st from './state.ts';
import { Exit, SHADOWED_SHIFT, Shadow, Trap, X } from './state.ts';
import { sub } from './sub.ts';

const CONTRIBUTORY = (1 << X.de) | (1 << X.ts) | (1 << X.np) | (1 << X.ss) | (1 << X.gp);
const DR6_BS = 0x4000;
const DR7_GD = 0x2000;

const oneOf = (c: Emit, vector: Value, mask: number): Value => c.b.and(c.b.shru(c.b.i32(mask), vector), c.b.i32(1));

/**
 * Delivers the pending exception (`exc`, `excError`) of the instruction at `rip`. To be called as the outermost step, again as long as
 * `exc` is not zero afterwards: a second exception met on the way is combined with the first. Sets `exitReason` to
 * `Exit.shutdown` on a triple fault.
 */
export const deliverPending = sub('deliverPending', [], null, { faults: true }, (c) => {
  const b = c.b;
  b.if(c.get(st.splitHeld), () => c.do(splitUnlock));
  const second = b.sub(c.get(st.exc), b.i32(1));
  const first = b.sub(c.get(st.excDelivering), b.i32(1));
  const vector = b.variable(second);
  // A stack access to an address that is not canonical.
  b.if(b.ne(c.get(st.offLimits), b.i64(0)), () => {
    b.if(b.eq(second, b.i32(X.gp)), () => b.if(c.call(usesStack, c.get(st.offLimits)), () => b.setVar(vector, b.i32(X.ss))));
    c.set(st.offLimits, b.i64(0));
  });
  const error = b.variable(c.get(st.excError));
  c.set(st.exc, b.i32(0));
  b.if(c.get(st.taskFault), () => {
    c.set(st.rip, c.get(st.taskIp));
    c.set(st.taskFault, b.i32(0));
  });
  b.if(b.ges(first, b.i32(0)), () => {
    const severe = oneOf(c, second, CONTRIBUTORY | (1 << X.pf));
    b.if(b.and(b.eq(first, b.i32(X.df)), severe), () => {
      c.set(st.excDelivering, b.i32(0));
      c.set(st.exitReason, b.i32(Exit.shutdown));
      b.ret();
    });
    const both = b.and(oneOf(c, first, CONTRIBUTORY), oneOf(c, second, CONTRIBUTORY));
    b.if(b.or(both, b.and(b.eq(first, b.i32(X.pf)), severe)), () => {
      b.setVar(vector, b.i32(X.df));
      b.setVar(error, b.i32(0));
    });
  });
  const v = b.getVar(vector);
  // A debugger that waits for it gets it in place of the guest.
  b.if(b.and(oneOf(c, v, (1 << X.db) | (1 << X.bp)), b.shru(c.get(st.guestDebug), v)), () => {
    c.set(st.excDelivering, b.i32(0));
    c.set(st.exitReason, b.i32(Exit.debug));
    b.ret();
  });
  c.set(st.excDelivering, b.add(v, b.i32(1)));
  b.if(b.eq(v, b.i32(X.db)), () => c.set(st.dr[7], b.and(c.get(st.dr[7]), b.i64(~DR7_GD))));
  c.do(deliver, v, b.getVar(error), b.i32(Kind.exception), c.get(st.rip));
  c.set(st.excDelivering, b.i32(0));
  b.ret();
});

/**
 * Sets RF where the vCPU stands between two iterations of a repeated string instruction, so that its instruction breakpoint does not strike
 * again when that goes on after an interrupt or trap (SDM volume 3, 17.3.1.1).
 */
function resumes(c: Emit): void {
  const b = c.b;
  const noted = c.get(st.iterated);
  b.if(b.ne(noted, b.i64(0)), () => {
    const here = b.eq(b.xor(noted, b.i64(-1)), c.get(st.rip));
    c.set(st.sysFlags, b.or(c.get(st.sysFlags), b.select(here, b.i32(F.rf), b.i32(0))));
    c.set(st.iterated, b.i64(0));
  });
}

/**
 * Delivers an external interrupt, or an NMI (vector 2, which blocks further ones until IRET), before the instruction at `rip`.
 * The caller has looked at IF, `shadow` and `nmiBlocked`.
 */
export const interrupt = sub('interrupt', ['i32'], null, { faults: true }, (c, vector) => {
  const b = c.b;
  b.if(b.eq(vector, b.i32(X.nmi)), () => c.set(st.nmiBlocked, b.i32(1)));
  resumes(c);
  c.do(deliver, vector, b.i32(-1), b.i32(Kind.external), c.get(st.rip));
  b.ret();
});

/**
 * Before an instruction of a block decoded with `Ctx.step`: notes RFLAGS.TF for `singleStep`, and raises #DB where DR0–DR3 hold an enabled
 * breakpoint on the instruction at linear address `address` (i64) and RF is clear. Clears RF, which an IRET may set again.
 */
export const stepBegin = sub('stepBegin', ['i64'], null, { faults: true }, (c, address) => {
  const b = c.b;
  resumes(c);
  const flags = c.get(st.sysFlags);
  const held = b.and(c.get(st.stepTrap), b.i32(Trap.hits));
  let trap = b.or(held, b.and(b.shru(flags, b.i32(8)), b.i32(Trap.step)));
  trap = b.or(trap, b.and(b.shru(flags, b.i32(15)), b.i32(Trap.resumed)));
  c.set(st.stepTrap, b.or(trap, b.shl(c.get(st.shadow), b.i32(SHADOWED_SHIFT))));
  c.set(st.shadow, b.i32(0));
  c.set(st.sysFlags, b.and(flags, b.i32(~F.rf)));
  b.if(c.get(st.oneStep), () => {
    c.set(st.oneStep, b.i32(0));
    c.do(updateContext);
  });
  const dr7 = b.wrap(c.get(st.dr[7]));
  b.if(b.or(b.and(flags, b.i32(F.rf)), b.eqz(b.and(dr7, b.i32(0xff)))), () => b.ret());
  let matched: Value = b.i32(0);
  let hit: Value = b.i32(0);
  for (let i = 0; i < 4; i++) {
    const execute = b.eqz(b.and(dr7, b.i32(0xf << (16 + 4 * i))));
    const here = b.and(execute, b.eq(c.get(st.dr[i]), address));
    matched = b.or(matched, b.shl(here, b.i32(i)));
    hit = b.or(hit, b.and(here, b.ne(b.and(dr7, b.i32(3 << (2 * i))), b.i32(0))));
  }
  b.if(hit, () => {
    setDebugStatus(c, b.extu(matched), hit);
    c.set(st.stepTrap, b.i32(0));
    c.raise(X.db);
  });
  b.ret();
});

/** Makes the next block one instruction long, the one in the shadow of STI or MOV SS. */
export const stepShadow = sub('stepShadow', [], null, {}, (c) => {
  c.set(st.oneStep, c.b.i32(1));
  c.do(updateContext);
  c.b.ret();
});

/** After an instruction of such a block, with `rip` at the next one: raises the single-step #DB. */
export const singleStep = sub('singleStep', [], null, { faults: true }, (c) => {
  const b = c.b;
  const armed = b.and(c.get(st.stepTrap), b.i32(Trap.hits | Trap.step));
  c.set(st.stepTrap, b.i32(0));
  b.if(b.eqz(armed), () => b.ret());
  // MOV SS and POP SS hold the traps off as they do interrupts, STI does not; a data breakpoint then strikes after the next instruction.
  b.if(b.eq(c.get(st.shadow), b.i32(Shadow.stack)), () => {
    c.set(st.stepTrap, b.and(armed, b.i32(Trap.hits)));
    c.do(updateContext);
    b.ret();
  });
  const step = b.and(armed, b.i32(1));
  const hits = b.shru(armed, b.i32(8));
  setDebugStatus(c, b.extu(b.or(b.mul(step, b.i32(DR6_BS)), hits)), hits);
  resumes(c);
  c.raise(X.db);
});

/** Sets bits of DR6: where a breakpoint was met, its bits B0–B3 are replaced; the others accumulate. */
function setDebugStatus(c: Emit, bits: Value, hits: Value): void {
  const b = c.b;
  c.set(st.dr[6], b.or(b.and(c.get(st.dr[6]), b.select(hits, b.i64(~0xf), b.i64(-1))), bits));
}
