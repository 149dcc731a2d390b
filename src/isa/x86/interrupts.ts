// Delivery of interrupts and exceptions through the IDT or the real-mode vector table: gates, stack switches, error codes
// (Intel SDM volume 3, chapter 6, and sections 20.1, 20.2 and 20.3 for real and virtual-8086 mode; volume 2, INT n).

import type { Value } from '../../ir/ir.ts';
import { updateContext } from './context.ts';
import type { Emit } from './emit.ts';
import { iopl, packFlags, virtualImage } from './flags.ts';
import { commitFrame, Frame, frameCurrent, frameOn, framePush } from './frame.ts';
import { Attr, anyOf, checkStackSegment, descAttr, dpl, EXT, F, fail, failIf, inLongMode, isCanonical, isNull, markAccessed, readDescriptor, setNullSegment, setRealCs, setSegment, withVector } from './segments.ts'; // biome-ignore format: one line
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { sub } from './sub.ts';
import { finishTask, switchTask, TaskSource } from './tasks.ts';

/** What causes a delivery: a hardware exception, an external interrupt or NMI, INT n, INT3 or INTO, INT1. */
export const Kind = { exception: 0, external: 1, soft: 2, breakpoint: 3, int1: 4 } as const;

const isSoft = (c: Emit, kind: Value): Value => c.b.eq(c.b.and(kind, c.b.i32(6)), c.b.i32(2));

/** Raises `vector` (a constant) with the error code of IDT entry `entry`. */
function failGateIf(c: Emit, cond: Value, vector: number, entry: Value, ext: Value): void {
  const b = c.b;
  c.raiseIf(cond, vector, b.or(b.or(b.shl(entry, b.i32(3)), b.i32(2)), b.shru(ext, b.i32(8))));
}

/** RFLAGS to be pushed: a fault sets RF, so that its instruction breakpoint does not strike again; traps and aborts do not. */
function pushedFlags(c: Emit, vector: Value, kind: Value): Value {
  const b = c.b;
  const noFault = (1 << X.db) | (1 << X.df) | (1 << X.mc);
  const fault = b.and(b.eqz(kind), b.eqz(b.and(b.shru(b.i32(noFault), vector), b.i32(1))));
  return b.or(c.call(packFlags), b.shl(fault, b.i32(16)));
}

/** Enters a handler: flags, privilege and what was held off. `interruptGate` (i32) clears IF. */
function enterHandler(c: Emit, ip: Value, level: Value, interruptGate: Value): void {
  const b = c.b;
  const cleared = b.or(b.i32(F.tf | F.nt | F.rf | F.vm), b.select(interruptGate, b.i32(F.if), b.i32(0)));
  c.set(st.sysFlags, b.and(c.get(st.sysFlags), b.not(cleared)));
  c.set(st.rip, ip);
  c.set(st.cpl, level);
  c.set(st.shadow, b.i32(0));
  c.set(st.stepTrap, b.i32(0));
  c.do(updateContext);
}

/** Raises what is wrong with a gate's code segment. */
const rejectGateCode = sub('rejectGateCode', ['i32', 'i32', 'i32'], null, { faults: true }, (c, selector, attr, how) => {
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

const deliverReal = sub('deliverReal', ['i32', 'i64'], null, { faults: true }, (c, vector, nextIp) => {
  const b = c.b;
  const at = b.shl(vector, b.i32(2));
  failGateIf(c, b.gtu(b.or(at, b.i32(3)), c.get(st.idtLimit)), X.gp, vector, b.i32(0));
  const entry = c.load(b.add(c.get(st.idtBase), b.extu(at)), 32, { system: true });
  c.do(frameCurrent, b.i32(2));
  c.do(framePush, b.extu(c.call(packFlags)));
  c.do(framePush, b.extu(c.get(st.segSelector[S.cs])));
  c.do(framePush, nextIp);
  commitFrame(c);
  setRealCs(c, b.shru(entry, b.i32(16)));
  c.set(st.sysFlags, b.and(c.get(st.sysFlags), b.i32(~F.ac)));
  // NT is kept here, unlike in protected mode.
  const nt = b.and(c.get(st.sysFlags), b.i32(F.nt));
  enterHandler(c, b.extu(b.and(entry, b.i32(0xffff))), b.i32(0), b.i32(1));
  c.set(st.sysFlags, b.or(c.get(st.sysFlags), nt));
  b.ret();
});

/** Pushes the error code unless it is -1. */
function pushError(c: Emit, error: Value): void {
  c.b.if(c.b.ne(error, c.b.i32(-1)), () => c.do(framePush, c.b.extu(error)));
}

/** Through a task gate: the error code goes onto the new task's stack. */
const deliverTask = sub(
  'deliverTask',
  ['i32', 'i32', 'i32', 'i64'],
  null,
  { faults: true },
  (c, selector, error, ext, nextIp) => {
    const b = c.b;
    c.do(switchTask, selector, b.i32(TaskSource.call), ext, nextIp);
    b.if(b.ne(error, b.i32(-1)), () => {
      const bytes = b.select(b.and(c.get(st.segAttr[S.tr]), b.i32(8)), b.i32(4), b.i32(2));
      c.do(frameCurrent, b.or(bytes, b.shl(b.shru(ext, b.i32(8)), b.i32(16))));
      c.do(framePush, b.extu(error));
      commitFrame(c);
    });
    finishTask(c);
    c.set(st.shadow, b.i32(0));
    c.set(st.stepTrap, b.i32(0));
    b.ret();
  },
);

/** Protected mode without IA-32e: 16- and 32-bit gates and task gates, from protected or virtual-8086 code. */
const deliverProtected = sub(
  'deliverProtected',
  ['i32', 'i32', 'i32', 'i64'],
  null,
  { faults: true },
  (c, vector, error, kind, nextIp) => {
    const b = c.b;
    const soft = isSoft(c, kind);
    const ext = b.select(soft, b.i32(0), b.i32(EXT));
    const at = b.shl(vector, b.i32(3));
    failGateIf(c, b.gtu(b.or(at, b.i32(7)), c.get(st.idtLimit)), X.gp, vector, ext);
    const gate = c.load(b.add(c.get(st.idtBase), b.extu(at)), 64, { system: true });
    const gateAttr = descAttr(c, gate);
    const type = b.and(gateAttr, b.i32(0x1f));
    // Types 5, 6, 7, 14 and 15.
    failGateIf(c, b.eqz(b.and(b.shru(b.i32(0xc0e0), type), b.i32(1))), X.gp, vector, ext);
    failGateIf(c, b.geu(type, b.i32(16)), X.gp, vector, ext);
    failGateIf(c, b.and(soft, b.gtu(c.get(st.cpl), dpl(c, gateAttr))), X.gp, vector, ext);
    failGateIf(c, b.eqz(b.and(gateAttr, b.i32(Attr.present))), X.np, vector, ext);
    const selector = b.and(b.wrap(b.shru(gate, b.i64(16))), b.i32(0xffff));
    b.if(b.eq(type, b.i32(5)), () => {
      c.do(deliverTask, selector, error, ext, nextIp);
      b.ret();
    });
    const gp = b.or(ext, b.i32(X.gp));
    failIf(c, isNull(c, selector), gp, b.i32(0));
    const found = c.call(readDescriptor, selector, gp);
    const attr = descAttr(c, found);
    const level = dpl(c, attr);
    const cpl = c.get(st.cpl);
    const needed = Attr.s | Attr.code | Attr.present;
    b.if(b.or(b.ne(b.and(attr, b.i32(needed)), b.i32(needed)), b.gtu(level, cpl)), () =>
      c.do(rejectGateCode, selector, attr, gp),
    );
    const newCpl = b.select(b.and(attr, b.i32(Attr.conforming)), cpl, level);
    const v86 = anyOf(c, c.get(st.sysFlags), F.vm);
    failIf(c, b.and(v86, b.ne(newCpl, b.i32(0))), gp, selector);
    const desc = markAccessed(c, selector, found);
    const wide = b.and(type, b.i32(8));
    const bytes = b.select(wide, b.i32(4), b.i32(2));
    const high = b.select(wide, b.i64(0xffff0000n), b.i64(0));
    const target = b.or(b.and(gate, b.i64(0xffff)), b.and(b.shru(gate, b.i64(32)), high));
    const image = b.extu(pushedFlags(c, vector, kind));
    const error16 = b.shl(b.shru(ext, b.i32(8)), b.i32(16));

    const pushRest = (): void => {
      c.do(framePush, image);
      c.do(framePush, b.extu(c.get(st.segSelector[S.cs])));
      c.do(framePush, nextIp);
      pushError(c, error);
      commitFrame(c);
    };
    b.if(
      b.ltu(newCpl, cpl),
      () => {
        const stack = c.call(stackFromTss, newCpl, ext);
        const ss = b.wrap(b.shru(stack, b.i64(32)));
        const ts = b.or(ext, b.i32(X.ts));
        failIf(c, isNull(c, ss), ts, b.i32(0));
        const ssFound = c.call(readDescriptor, ss, ts);
        checkStackSegment(c, ss, ssFound, newCpl, ts);
        const ssDesc = markAccessed(c, ss, ssFound);
        const error32 = b.or(error16, b.shl(b.and(ss, b.i32(0xfffc)), b.i32(16)));
        c.do(frameOn, ssDesc, b.and(stack, b.i64(0xffffffffn)), b.or(b.or(bytes, b.i32(Frame.system)), error32));
        b.if(v86, () => {
          for (const s of [S.gs, S.fs, S.ds, S.es]) c.do(framePush, b.extu(c.get(st.segSelector[s])));
        });
        c.do(framePush, b.extu(c.get(st.segSelector[S.ss])));
        c.do(framePush, c.reg(R.rsp));
        pushRest();
        setSegment(c, b.i32(S.ss), ss, ssDesc);
        b.if(v86, () => {
          for (const s of [S.gs, S.fs, S.ds, S.es]) setNullSegment(c, b.i32(s), b.i32(0));
        });
      },
      () => {
        const system = b.select(b.eq(cpl, b.i32(3)), b.i32(0), b.i32(Frame.system));
        c.do(frameCurrent, b.or(b.or(bytes, system), error16));
        pushRest();
      },
    );
    setSegment(c, b.i32(S.cs), b.or(b.and(selector, b.i32(0xfffc)), newCpl), desc);
    enterHandler(c, target, newCpl, b.eqz(b.and(type, b.i32(1))));
    b.ret();
  },
);

const deliverLegacy = sub(
  'deliverLegacy',
  ['i32', 'i32', 'i32', 'i64'],
  null,
  { faults: true },
  (c, vector, error, kind, nextIp) => {
    const b = c.b;
    b.if(
      b.wrap(b.and(c.get(st.cr0), b.i64(1))),
      () => c.do(deliverProtected, vector, error, kind, nextIp),
      () => c.do(deliverReal, vector, nextIp),
    );
    b.ret();
  },
);

/**
 * Delivers `vector` (i32) with an error code (i32, -1 for none); `kind` (i32) is one of `Kind`, `nextIp` (i64) the instruction
 * pointer to save. Sets `rip` and the rest of the context of the handler. A fault on the way leaves registers as they were.
 */
export const deliver = sub('deliver', ['i32', 'i32', 'i32', 'i64'], null, { faults: true }, (c, vector, error, kind, nextIp) => {
  const b = c.b;
  b.if(b.eqz(inLongMode(c)), () => {
    c.do(deliverLegacy, vector, error, kind, nextIp);
    b.ret();
  });
  const soft = isSoft(c, kind);
  const ext = b.select(soft, b.i32(0), b.i32(EXT));
  const at = b.shl(vector, b.i32(4));
  failGateIf(c, b.gtu(b.or(at, b.i32(15)), c.get(st.idtLimit)), X.gp, vector, ext);
  const entry = b.add(c.get(st.idtBase), b.extu(at));
  const gate = c.load(entry, 64, { system: true });
  const gateAttr = descAttr(c, gate);
  const cpl = c.get(st.cpl);
  const noGate = b.ne(b.and(gateAttr, b.i32(0x1e)), b.i32(0xe));
  failGateIf(c, b.or(noGate, b.and(soft, b.gtu(cpl, dpl(c, gateAttr)))), X.gp, vector, ext);
  failGateIf(c, b.eqz(b.and(gateAttr, b.i32(Attr.present))), X.np, vector, ext);
  const upper = c.load(b.add(entry, b.i64(8)), 64, { system: true });
  const target = b.or(
    b.or(b.and(gate, b.i64(0xffff)), b.and(b.shru(gate, b.i64(32)), b.i64(0xffff0000n))),
    b.shl(upper, b.i64(32)),
  );

  const selector = b.and(b.wrap(b.shru(gate, b.i64(16))), b.i32(0xffff));
  const gp = b.or(ext, b.i32(X.gp));
  failIf(c, isNull(c, selector), gp, b.i32(0));
  const found = c.call(readDescriptor, selector, gp);
  const attr = descAttr(c, found);
  const level = dpl(c, attr);
  const looked = Attr.s | Attr.code | Attr.present | Attr.long | Attr.big;
  const wrong = b.ne(b.and(attr, b.i32(looked)), b.i32(looked & ~Attr.big));
  b.if(b.or(wrong, b.gtu(level, cpl)), () => c.do(rejectGateCode, selector, attr, gp));
  const newCpl = b.select(b.and(attr, b.i32(Attr.conforming)), cpl, level);
  const desc = markAccessed(c, selector, found);

  const ist = b.and(b.wrap(b.shru(gate, b.i64(32))), b.i32(7));
  const inner = b.ltu(newCpl, cpl);
  const stack = c.choose(
    'i64',
    b.or(inner, ist),
    () => c.call(stackFromTss64, newCpl, ist, ext),
    () => c.reg(R.rsp),
  );
  const top = b.and(stack, b.i64(-16));
  failIf(c, b.eqz(isCanonical(c, b.sub(top, b.i64(48)))), withVector(c, ext, X.ss), b.i32(0));
  failIf(c, b.eqz(isCanonical(c, target)), gp, b.i32(0));
  const image = b.extu(pushedFlags(c, vector, kind));
  const hasError = b.ne(error, b.i32(-1));
  const frame = (system: boolean): void => {
    c.store(b.sub(top, b.i64(8)), 64, b.extu(c.get(st.segSelector[S.ss])), { system });
    c.store(b.sub(top, b.i64(16)), 64, c.reg(R.rsp), { system });
    c.store(b.sub(top, b.i64(24)), 64, image, { system });
    c.store(b.sub(top, b.i64(32)), 64, b.extu(c.get(st.segSelector[S.cs])), { system });
    c.store(b.sub(top, b.i64(40)), 64, nextIp, { system });
    b.if(hasError, () => c.store(b.sub(top, b.i64(48)), 64, b.extu(error), { system }));
  };
  b.if(
    b.eq(newCpl, b.i32(3)),
    () => frame(false),
    () => frame(true),
  );
  c.set(st.gpr[R.rsp], b.sub(top, b.select(hasError, b.i64(48), b.i64(40))));
  b.if(inner, () => setNullSegment(c, b.i32(S.ss), newCpl, newCpl));
  setSegment(c, b.i32(S.cs), b.or(b.and(selector, b.i32(0xfffc)), newCpl), desc);
  enterHandler(c, target, newCpl, b.eqz(b.and(gateAttr, b.i32(1))));
  b.ret();
});

/** Virtual-8086 mode with CR4.VME: 1 where the redirection bitmap sends `vector` to the 8086 program's own handler. */
const redirected = sub('redirected', ['i32'], 'i32', { faults: true }, (c, vector) => {
  const b = c.b;
  b.if(b.eqz(b.and(c.get(st.cr4), b.i64(1))), () => b.ret(b.i32(0)));
  const base = c.get(st.segBase[S.tr]);
  const map = c.load(b.add(base, b.i64(0x66)), 16, { system: true });
  const at = b.add(b.sub(map, b.i32(32)), b.shru(vector, b.i32(3)));
  b.if(b.gtu(at, c.get(st.segLimit[S.tr])), () => b.ret(b.i32(0)));
  const byte = c.load(b.add(base, b.extu(at)), 8, { system: true });
  b.ret(b.eqz(b.and(b.shru(byte, b.and(vector, b.i32(7))), b.i32(1))));
});

/** INT n in virtual-8086 mode: through the 8086 program's vector table, or a gate, or #GP. */
const softInterruptV86 = sub('softInterruptV86', ['i32', 'i64'], null, { faults: true }, (c, vector, nextIp) => {
  const b = c.b;
  const full = b.eq(iopl(c), b.i32(3));
  b.if(b.eqz(c.call(redirected, vector)), () => {
    c.gpIf(b.eqz(full));
    c.do(deliver, vector, b.i32(-1), b.i32(Kind.soft), nextIp);
    b.ret();
  });
  const entry = c.load(b.extu(b.shl(vector, b.i32(2))), 32);
  const flags = c.call(packFlags);
  c.do(frameCurrent, b.i32(2));
  c.do(framePush, b.extu(b.select(full, flags, virtualImage(c, flags))));
  c.do(framePush, b.extu(c.get(st.segSelector[S.cs])));
  c.do(framePush, nextIp);
  commitFrame(c);
  setRealCs(c, b.shru(entry, b.i32(16)));
  const cleared = b.or(b.i32(F.tf), b.select(full, b.i32(F.if), b.i32(F.vif)));
  c.set(st.sysFlags, b.and(c.get(st.sysFlags), b.not(cleared)));
  c.set(st.rip, b.extu(b.and(entry, b.i32(0xffff))));
  c.do(updateContext);
  b.ret();
});

/** INT n: `vector` (i32), `nextIp` (i64) the address after it. */
export const softInterrupt = sub('softInterrupt', ['i32', 'i64'], null, { faults: true }, (c, vector, nextIp) => {
  const b = c.b;
  b.if(
    anyOf(c, c.get(st.sysFlags), F.vm),
    () => c.do(softInterruptV86, vector, nextIp),
    () => c.do(deliver, vector, b.i32(-1), b.i32(Kind.soft), nextIp),
  );
  b.ret();
});
