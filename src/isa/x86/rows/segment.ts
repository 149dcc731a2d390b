// Segment registers and the system segments: MOV, PUSH, POP, LDS and its kin, LLDT, LTR, SLDT, STR, LAR, LSL, VERR, VERW, ARPL (Intel SDM volume 2).

import type { Value } from '../../../ir/ir.ts';
import { fitsBase } from '../canonical.ts';
import type { Emit, InsnEmit, Operand, Size } from '../emit.ts';
import { typeOf } from '../emit.ts';
import { insn, type Row } from '../row.ts';
import { Attr, anyOf, descAttr, descBase, descLimit, dpl, failIf, getIndexed, inLongMode, inProtectedMode, isNull, loadSegment, peekDescriptor, readDescriptor, readUpperDescriptor, rpl, setNullSegment, setSegment } from '../segments.ts'; // biome-ignore format: one line
import * as st from '../state.ts';
import { R, S, Shadow, X } from '../state.ts';
import { sub } from '../sub.ts';

/**
 * Loads a segment register (`segment` i32) and runs `done`; what follows is decoded anew where the context has changed. In 64-bit code it
 * does not.
 */
function loadThen(c: InsnEmit, segment: Value, selector: Value, done: () => void): void {
  const before = c.get(st.ctx);
  c.do(loadSegment, segment, selector);
  done();
  if (!c.long) c.b.if(c.b.ne(c.get(st.ctx), before), () => c.resync());
}

/** #UD in real and virtual-8086 mode. */
const needProtected = (c: Emit): void => c.raiseIf(c.b.eqz(inProtectedMode(c)), X.ud);

const popSegment =
  (segment: number) =>
  (c: InsnEmit): void => {
    const b = c.b;
    const { value } = c.pop(c.size);
    // The stack's width before SS changes counts.
    const mask = c.long ? b.i64(-1) : c.get(st.spMask);
    const old = c.reg(R.rsp);
    const sp = b.or(b.and(old, b.not(mask)), b.and(b.add(old, b.i64(c.size / 8)), mask));
    loadThen(c, b.i32(segment), b.and(b.wrap(value), b.i32(0xffff)), () => {
      c.setReg(R.rsp, 64, sp);
      if (segment === S.ss) c.set(st.shadow, b.i32(Shadow.stack));
    });
  };
const pushSegment =
  (segment: number) =>
  (c: InsnEmit): void => {
    const selector = c.get(st.segSelector[segment]);
    c.push(c.size === 64 ? c.b.extu(selector) : selector, c.size);
  };

/** A far pointer in memory (offset, then selector) into a register and a segment register. */
const loadPointer =
  (segment: number) =>
  (c: InsnEmit, destination: Operand, pointer: Operand): void => {
    const bytes = c.size / 8;
    const address = c.linear(pointer, bytes + 2, false);
    const offset = c.load(address, c.size);
    const selector = c.load(c.b.add(address, c.b.i64(bytes)), 16);
    loadThen(c, c.b.i32(segment), selector, () => c.write(destination, offset));
  };

/** LLDT and LTR: privileged, with a descriptor of 16 bytes in IA-32e mode. */
const loadLdtr = sub('loadLdtr', ['i32'], null, { faults: true }, (c, selector) => {
  const b = c.b;
  const gp = b.i32(X.gp);
  needProtected(c);
  c.gpIf(c.get(st.cpl));
  b.if(isNull(c, selector), () => {
    setNullSegment(c, b.i32(S.ldtr), selector);
    b.ret();
  });
  failIf(c, b.and(selector, b.i32(4)), gp, selector);
  const desc = c.call(readDescriptor, selector, gp);
  const attr = descAttr(c, desc);
  failIf(c, b.ne(b.and(attr, b.i32(0x1f)), b.i32(2)), gp, selector);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), b.i32(X.np), selector);
  const base = systemBase(c, selector, desc);
  setSegment(c, b.i32(S.ldtr), selector, desc);
  c.set(st.segBase[S.ldtr], base);
  b.ret();
});
const loadTr = sub('loadTr', ['i32'], null, { faults: true }, (c, selector) => {
  const b = c.b;
  const gp = b.i32(X.gp);
  needProtected(c);
  c.gpIf(c.get(st.cpl));
  failIf(c, b.or(isNull(c, selector), b.and(selector, b.i32(4))), gp, selector);
  const desc = c.call(readDescriptor, selector, gp);
  const attr = descAttr(c, desc);
  const type = b.and(attr, b.i32(0x1f));
  const available = b.or(b.eq(type, b.i32(9)), b.and(b.eq(type, b.i32(1)), b.eqz(inLongMode(c))));
  failIf(c, b.eqz(available), gp, selector);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), b.i32(X.np), selector);
  const access = b.add(b.add(c.get(st.gdtBase), b.extu(b.and(selector, b.i32(0xfff8)))), b.i64(5));
  const base = systemBase(c, selector, desc);
  c.store(access, 8, b.and(b.or(attr, b.i32(2)), b.i32(0xff)), { system: true });
  setSegment(c, b.i32(S.tr), selector, b.or(desc, b.i64(2n << 40n)));
  c.set(st.segBase[S.tr], base);
  b.ret();
});
/** The base of a system segment, of 64 bits in IA-32e mode: #GP(selector) where it is not canonical. */
function systemBase(c: Emit, selector: Value, desc: Value): Value {
  const b = c.b;
  const low = descBase(c, desc);
  return c.choose(
    'i64',
    inLongMode(c),
    () => {
      const base = b.or(low, b.shl(c.call(readUpperDescriptor, selector, b.i32(X.gp)), b.i64(32)));
      failIf(c, b.eqz(fitsBase(c, base)), b.i32(X.gp), selector);
      return base;
    },
    () => low,
  );
}

/** SLDT and STR. */
const storeSelector =
  (segment: number) =>
  (c: InsnEmit, destination: Operand): void => {
    const b = c.b;
    needProtected(c);
    // CR4.UMIP.
    const hidden = b.wrap(b.and(b.shru(c.get(st.cr4), b.i64(11)), b.i64(1)));
    c.gpIf(b.and(hidden, b.ne(c.get(st.cpl), b.i32(0))));
    writeSelector(c, destination, c.get(st.segSelector[segment]));
  };
/** A selector goes zero-extended into a register, as 16 bits into memory. */
function writeSelector(c: InsnEmit, destination: Operand, selector: Value): void {
  c.write(destination, c.b.fit(typeOf(destination.bits as Size), selector));
}

/** The descriptor if a program of this privilege may see it with LAR (`types` for system segments), else 0. */
const visibleDescriptor = sub(
  'visibleDescriptor',
  ['i32', 'i32', 'i32'],
  'i64',
  { faults: true },
  (c, selector, legacyTypes, longTypes) => {
    const b = c.b;
    const desc = c.call(peekDescriptor, selector);
    const attr = descAttr(c, desc);
    const types = b.select(inLongMode(c), longTypes, legacyTypes);
    const known = b.or(anyOf(c, attr, Attr.s), b.and(b.shru(types, b.and(attr, b.i32(0xf))), b.i32(1)));
    const kind = b.and(attr, b.i32(Attr.s | Attr.code | Attr.conforming));
    const conforming = b.eq(kind, b.i32(Attr.s | Attr.code | Attr.conforming));
    const level = dpl(c, attr);
    const privileged = b.and(b.geu(level, c.get(st.cpl)), b.geu(level, rpl(c, selector)));
    b.ret(b.select(b.and(known, b.or(conforming, privileged)), desc, b.i64(0)));
  },
);
const typeMask = (...types: number[]): number => types.reduce((mask, t) => mask | (1 << t), 0);

/** LAR and LSL: a field of a visible descriptor, with ZF saying whether it was visible. */
const inspect =
  (legacyTypes: number, longTypes: number, field: (c: Emit, desc: Value) => Value) =>
  (c: InsnEmit, destination: Operand, source: Operand): void => {
    const b = c.b;
    needProtected(c);
    const desc = c.call(visibleDescriptor, c.read(source), b.i32(legacyTypes), b.i32(longTypes));
    const seen = b.ne(desc, b.i64(0));
    b.if(seen, () => c.write(destination, b.fit(typeOf(c.size), c.truncate(field(c, desc), c.size))));
    c.setZ(seen);
  };

/** VERR (`writing` 0) and VERW (1): whether the segment may be read or written here. */
const verify = sub('verify', ['i32', 'i32'], 'i32', { faults: true }, (c, selector, writing) => {
  const b = c.b;
  const desc = c.call(visibleDescriptor, selector, b.i32(0), b.i32(0));
  const attr = descAttr(c, desc);
  const data = b.eqz(b.and(attr, b.i32(Attr.code)));
  const second = anyOf(c, attr, Attr.writable);
  b.ret(b.and(anyOf(c, attr, Attr.s), b.select(writing, b.and(data, second), b.or(data, second))));
});
const verifyRow =
  (writing: 0 | 1) =>
  (c: InsnEmit, source: Operand): void => {
    needProtected(c);
    c.setZ(c.call(verify, c.read(source), c.b.i32(writing)));
  };

const segments: readonly (readonly [string, string, number])[] = [
  ['06', '07', S.es],
  ['16', '17', S.ss],
  ['1E', '1F', S.ds],
];

export const segmentRows: readonly Row[] = [
  insn('8C /m', 'mov Mw,Sw', (c, d, s) => {
    c.raiseIf(c.b.gtu(c.index(s), c.b.i32(5)), X.ud);
    c.write(d, getIndexed(c, 'i32', st.segSelector, c.index(s)));
  }),
  insn('8C /r', 'mov Rv,Sw', (c, d, s) => {
    c.raiseIf(c.b.gtu(c.index(s), c.b.i32(5)), X.ud);
    writeSelector(c, d, getIndexed(c, 'i32', st.segSelector, c.index(s)));
  }),
  insn('8E', 'mov Sw,Ew', { ends: true }, (c, d, s) => {
    const b = c.b;
    const n = c.index(d);
    c.raiseIf(b.or(b.eq(n, b.i32(S.cs)), b.gtu(n, b.i32(5))), X.ud);
    loadThen(c, n, c.read(s), () => b.if(b.eq(n, b.i32(S.ss)), () => c.set(st.shadow, b.i32(Shadow.stack))));
  }),
  insn('0E', 'push.cs', { mode: 'legacy' }, pushSegment(S.cs)),
  ...segments.flatMap(([push, pop, n]) => {
    const name = Object.entries(S).find(([, number]) => number === n)![0];
    return [
      insn(push, `push.${name}`, { mode: 'legacy' }, pushSegment(n)),
      insn(pop, `pop.${name}`, { mode: 'legacy', ends: n === S.ss }, popSegment(n)),
    ];
  }),
  insn('0F A0', 'push.fs', { size: 'd64' }, pushSegment(S.fs)),
  insn('0F A1', 'pop.fs', { size: 'd64' }, popSegment(S.fs)),
  insn('0F A8', 'push.gs', { size: 'd64' }, pushSegment(S.gs)),
  insn('0F A9', 'pop.gs', { size: 'd64' }, popSegment(S.gs)),
  insn('C4', 'les Gv,Mv', { mode: 'legacy' }, loadPointer(S.es)),
  insn('C5', 'lds Gv,Mv', { mode: 'legacy' }, loadPointer(S.ds)),
  insn('0F B2', 'lss Gv,Mv', { ends: true }, loadPointer(S.ss)),
  insn('0F B4', 'lfs Gv,Mv', loadPointer(S.fs)),
  insn('0F B5', 'lgs Gv,Mv', loadPointer(S.gs)),
  insn('0F 00 /0m', 'sldt Mw', storeSelector(S.ldtr)),
  insn('0F 00 /0r', 'sldt Rv', storeSelector(S.ldtr)),
  insn('0F 00 /1m', 'str Mw', storeSelector(S.tr)),
  insn('0F 00 /1r', 'str Rv', storeSelector(S.tr)),
  insn('0F 00 /2', 'lldt Ew', (c, s) => c.do(loadLdtr, c.read(s))),
  insn('0F 00 /3', 'ltr Ew', (c, s) => c.do(loadTr, c.read(s))),
  insn('0F 00 /4', 'verr Ew', verifyRow(0)),
  insn('0F 00 /5', 'verw Ew', verifyRow(1)),
  insn(
    '0F 02',
    'lar Gv,Ew',
    inspect(typeMask(1, 2, 3, 4, 5, 9, 11, 12), typeMask(2, 9, 11, 12), (c, desc) => {
      const b = c.b;
      return b.and(b.wrap(b.shru(desc, b.i64(32))), b.i32(0xf0ff00));
    }),
  ),
  insn('0F 03', 'lsl Gv,Ew', inspect(typeMask(1, 2, 3, 9, 11), typeMask(2, 9, 11), descLimit)),
  insn('63', 'arpl Ew,Gw', { mode: 'legacy' }, (c, d, s) => {
    const b = c.b;
    needProtected(c);
    const source = b.and(c.read(s), b.i32(3));
    const old = c.read(d);
    const lower = b.ltu(rpl(c, old), source);
    b.if(lower, () => c.write(d, b.or(b.and(old, b.i32(0xfffc)), source)));
    c.setZ(lower);
  }),
];
