// Delivery of interrupts and exceptions outside IA-32e mode: the real-mode vector table, 16- and 32-bit gates, task gates
// (Intel SDM volume 3, sections 6.12, 7.3, 20.1 and 20.2).

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { packFlags } from './flags.ts';
import { commitFrame, Frame, frameCurrent, frameOn, framePush } from './frame.ts';
import { enterHandler, failGateIf, isSoft, pushedFlags, rejectGateCode, stackFromTss } from './gate.ts';
import { Attr, anyOf, checkStackSegment, descAttr, dpl, EXT, F, failIf, isNull, markAccessed, readDescriptor, setNullSegment, setRealCs, setSegment } from './segments.ts'; // biome-ignore format: one line
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { sub } from './sub.ts';
import { finishTask, switchTask, TaskSource } from './tasks.ts';

const deliverReal = sub('deliverReal', ['i32', 'i32', 'i64'], null, { faults: true }, (c, vector, kind, nextIp) => {
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
  enterHandler(c, b.extu(b.and(entry, b.i32(0xffff))), b.i32(0), b.i32(1), isSoft(c, kind));
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
    enterHandler(c, target, newCpl, b.eqz(b.and(type, b.i32(1))), soft);
    b.ret();
  },
);

/** Delivery outside IA-32e mode: the parameters are those of `deliver`. */
export const deliverLegacy = sub(
  'deliverLegacy',
  ['i32', 'i32', 'i32', 'i64'],
  null,
  { faults: true },
  (c, vector, error, kind, nextIp) => {
    const b = c.b;
    b.if(
      b.wrap(b.and(c.get(st.cr0), b.i64(1))),
      () => c.do(deliverProtected, vector, error, kind, nextIp),
      () => c.do(deliverReal, vector, kind, nextIp),
    );
    b.ret();
  },
);
