// Delivery of interrupts and exceptions: through the gates of IA-32e mode here, through deliver-legacy.ts elsewhere; and INT n
// (Intel SDM volume 3, section 6.14, and 20.3 for virtual-8086 mode extensions; volume 2, INT n).

import { isCanonical } from './canonical.ts';
import { updateContext } from './context.ts';
import { deliverLegacy } from './deliver-legacy.ts';
import { iopl, packFlags, virtualImage } from './flags.ts';
import { commitFrame, frameCurrent, framePush } from './frame.ts';
import { enterHandler, failGateIf, isSoft, Kind, pushedFlags, rejectGateCode, stackFromTss64 } from './gate.ts';
import { Attr, anyOf, descAttr, dpl, EXT, F, failIf, inLongMode, isNull, markAccessed, readDescriptor, setNullSegment, setRealCs, setSegment, withVector } from './segments.ts'; // biome-ignore format: one line
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { sub } from './sub.ts';

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
  enterHandler(c, target, newCpl, b.eqz(b.and(gateAttr, b.i32(1))), isSoft(c, kind));
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
