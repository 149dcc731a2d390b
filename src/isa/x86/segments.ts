// Segment registers: descriptors, loading with every check, and the check of a memory operand outside 64-bit code
// (Intel SDM volume 3, chapter 3 and sections 5.1 to 5.6; volume 2, MOV, LLDT, LTR, LAR, LSL, VERR).

import type { Slot, Value } from '../../ir/ir.ts';
import type { AccessName } from '../../ir/ops.ts';
import { PLAIN, updateContext } from './context.ts';
import type { Emit } from './emit.ts';
import * as st from './state.ts';
import { Ctx, S, X } from './state.ts';
import { sub } from './sub.ts';

/** Bits of a segment's `attr`, which are bits 40 to 55 of its descriptor and the mark of an unusable segment. */
export const Attr = { type: 0xf, accessed: 1, writable: 2, readable: 2, conforming: 4, expandDown: 4, code: 8, s: 0x10, present: 0x80, long: 0x2000, big: 0x4000, granular: 0x8000, unusable: 0x10000 } as const; // biome-ignore format: a table
/** Bits of `RFLAGS` outside the arithmetic flags. */
export const F = { tf: 0x100, if: 0x200, df: 0x400, iopl: 0x3000, nt: 0x4000, rf: 0x10000, vm: 0x20000, ac: 0x40000, vif: 0x80000, vip: 0x100000, id: 0x200000 } as const; // biome-ignore format: a table
/** In `access` of `segCheck`: the low 16 bits are the number of bytes, this one is set for a write. */
export const SEG_WRITE = 0x10000;
/** In a `how` of descriptor subroutines: the exception vector, and this bit where the error code has its EXT bit set. */
export const EXT = 0x100;

/** Reads element `index` (i32) of a family of slots that are laid out in order. */
export function getIndexed(c: Emit, access: AccessName, slots: readonly Slot[], index: Value): Value {
  return c.b.raw(access, elementAddress(c, slots, index), slots[0].offset);
}
/** Writes element `index` (i32) of a family of slots. */
export function setIndexed(c: Emit, access: AccessName, slots: readonly Slot[], index: Value, value: Value): void {
  c.b.setRaw(access, elementAddress(c, slots, index), value, slots[0].offset);
}
function elementAddress(c: Emit, slots: readonly Slot[], index: Value): Value {
  const stride = slots[1].offset - slots[0].offset;
  return c.b.add(c.b.env, c.b.mul(index, c.b.i32(stride)));
}

/** 1 where `bits` (a constant mask) of an i32 are not all zero. */
export const anyOf = (c: Emit, value: Value, bits: number): Value => c.b.ne(c.b.and(value, c.b.i32(bits)), c.b.i32(0));
/** Field of an i32: `bits` bits from bit `at`. */
export const field = (c: Emit, value: Value, at: number, bits: number): Value =>
  c.b.and(c.b.shru(value, c.b.i32(at)), c.b.i32(2 ** bits - 1));
/** 1 in 64-bit code. */
export const inLongCode = (c: Emit): Value => c.b.and(c.get(st.ctx), c.b.i32(Ctx.long));
/** 1 while EFER.LMA is set: IA-32e mode. */
export const inLongMode = (c: Emit): Value => c.b.and(c.b.shru(c.b.wrap(c.get(st.efer)), c.b.i32(10)), c.b.i32(1));
/** 1 in protected mode without virtual-8086 mode. */
export const inProtectedMode = (c: Emit): Value =>
  c.b.eq(c.b.and(c.get(st.ctx), c.b.i32(Ctx.protected | Ctx.v86)), c.b.i32(Ctx.protected));

/** Attributes of an 8-byte descriptor. */
export const descAttr = (c: Emit, desc: Value): Value => c.b.and(c.b.wrap(c.b.shru(desc, c.b.i64(40))), c.b.i32(0xf0ff));
/** Base of an 8-byte descriptor, 32 bits zero-extended. */
export function descBase(c: Emit, desc: Value): Value {
  const b = c.b;
  return b.or(b.and(b.shru(desc, b.i64(16)), b.i64(0xffffff)), b.shl(b.shru(desc, b.i64(56)), b.i64(24)));
}
/** Limit of a descriptor in bytes. */
export function descLimit(c: Emit, desc: Value): Value {
  const b = c.b;
  const raw = b.wrap(b.or(b.and(desc, b.i64(0xffff)), b.and(b.shru(desc, b.i64(32)), b.i64(0xf0000))));
  return b.select(b.wrap(b.and(b.shru(desc, b.i64(55)), b.i64(1))), b.or(b.shl(raw, b.i32(12)), b.i32(0xfff)), raw);
}
/** Descriptor privilege level in an `attr`. */
export const dpl = (c: Emit, attr: Value): Value => field(c, attr, 5, 2);
/** Requested privilege level of a selector. */
export const rpl = (c: Emit, selector: Value): Value => c.b.and(selector, c.b.i32(3));
/** 1 for a null selector. */
export const isNull = (c: Emit, selector: Value): Value => c.b.eqz(c.b.and(selector, c.b.i32(0xfffc)));

/** Raises the exception of `how` (vector, `EXT`) with `selector` in its error code. */
export function fail(c: Emit, how: Value, selector: Value): void {
  const b = c.b;
  c.set(st.excError, b.or(b.and(selector, b.i32(0xfffc)), b.and(b.shru(how, b.i32(8)), b.i32(1))));
  c.set(st.exc, b.add(b.and(how, b.i32(0xff)), b.i32(1)));
  b.leave('fault');
}
export function failIf(c: Emit, cond: Value, how: Value, selector: Value): void {
  c.b.if(cond, () => fail(c, how, selector));
}
/** `how` with another vector: keeps the EXT bit. */
export const withVector = (c: Emit, how: Value, vector: number): Value => c.b.or(c.b.and(how, c.b.i32(EXT)), c.b.i32(vector));

/** Linear address of a selector's descriptor in its table; the selector is within the limit. */
export function descriptorAddress(c: Emit, selector: Value): Value {
  const b = c.b;
  const table = b.select(b.and(selector, b.i32(4)), c.get(st.segBase[S.ldtr]), c.get(st.gdtBase));
  return b.add(table, b.extu(b.and(selector, b.i32(0xfff8))));
}
/** 1 where the table has no whole 8-byte descriptor for the selector. */
function outsideTable(c: Emit, selector: Value): Value {
  const b = c.b;
  const local = b.and(selector, b.i32(4));
  const noLdt = b.and(b.shru(c.get(st.segAttr[S.ldtr]), b.i32(16)), b.shru(local, b.i32(2)));
  const limit = b.select(local, c.get(st.segLimit[S.ldtr]), c.get(st.gdtLimit));
  return b.or(b.gtu(b.or(b.and(selector, b.i32(0xfff8)), b.i32(7)), limit), noLdt);
}

/** The 8-byte descriptor of a selector that is not null (`how`: what to raise beyond the table's limit). */
export const readDescriptor = sub('readDescriptor', ['i32', 'i32'], 'i64', { faults: true }, (c, selector, how) => {
  failIf(c, outsideTable(c, selector), how, selector);
  c.b.ret(c.load(descriptorAddress(c, selector), 64, { system: true }));
});

/** Bits 32 to 63 of the base in the upper half of a 16-byte descriptor (IA-32e mode: LDT, TSS, call gate). */
export const readUpperDescriptor = sub('readUpperDescriptor', ['i32', 'i32'], 'i64', { faults: true }, (c, selector, how) => {
  const b = c.b;
  const limit = b.select(b.and(selector, b.i32(4)), c.get(st.segLimit[S.ldtr]), c.get(st.gdtLimit));
  failIf(c, b.gtu(b.add(b.and(selector, b.i32(0xfff8)), b.i32(15)), limit), how, selector);
  const upper = c.load(b.add(descriptorAddress(c, selector), b.i64(8)), 64, { system: true });
  failIf(c, b.wrap(b.and(b.shru(upper, b.i64(40)), b.i64(0x1f))), how, selector);
  b.ret(b.and(upper, b.i64(0xffffffffn)));
});

/** The descriptor, or 0 where the selector is null or outside its table (LAR, LSL, VERR, VERW). */
export const peekDescriptor = sub('peekDescriptor', ['i32'], 'i64', { faults: true }, (c, selector) => {
  const b = c.b;
  b.if(b.or(isNull(c, selector), outsideTable(c, selector)), () => b.ret(b.i64(0)));
  b.ret(c.load(descriptorAddress(c, selector), 64, { system: true }));
});

/** Sets the accessed bit of a code or data descriptor in its table where it is clear; gives the descriptor with it set. */
export function markAccessed(c: Emit, selector: Value, desc: Value): Value {
  const b = c.b;
  b.if(b.eqz(b.wrap(b.and(b.shru(desc, b.i64(40)), b.i64(1)))), () => c.do(setAccessed, selector, desc));
  return b.or(desc, b.i64(1n << 40n));
}
const setAccessed = sub('setAccessed', ['i32', 'i64'], null, { faults: true }, (c, selector, desc) => {
  const b = c.b;
  const access = b.or(b.and(b.wrap(b.shru(desc, b.i64(40))), b.i32(0xff)), b.i32(1));
  c.store(b.add(descriptorAddress(c, selector), b.i64(5)), 8, access, { system: true });
  b.ret();
});

/** Writes the hidden part and the selector of segment register `segment` (i32) from a descriptor, without any check. */
export function setSegment(c: Emit, segment: Value, selector: Value, desc: Value): void {
  setIndexed(c, 'i64', st.segBase, segment, descBase(c, desc));
  setIndexed(c, 'i32', st.segLimit, segment, descLimit(c, desc));
  setIndexed(c, 'i32', st.segAttr, segment, descAttr(c, desc));
  setIndexed(c, 'i32', st.segSelector, segment, selector);
}
/** Makes segment register `segment` unusable, with a null selector. */
export function setNullSegment(c: Emit, segment: Value, selector: Value, privilege: Value = c.b.i32(0)): void {
  const b = c.b;
  setIndexed(c, 'i64', st.segBase, segment, b.i64(0));
  setIndexed(c, 'i32', st.segLimit, segment, b.i32(0));
  setIndexed(c, 'i32', st.segAttr, segment, b.or(b.i32(Attr.unusable), b.shl(privilege, b.i32(5))));
  setIndexed(c, 'i32', st.segSelector, segment, selector);
}
/** Loads a segment register as virtual-8086 mode does. */
export function setV86Segment(c: Emit, segment: Value, selector: Value): void {
  const b = c.b;
  setIndexed(c, 'i64', st.segBase, segment, b.extu(b.shl(selector, b.i32(4))));
  setIndexed(c, 'i32', st.segLimit, segment, b.i32(0xffff));
  setIndexed(c, 'i32', st.segAttr, segment, b.i32(0xf3));
  setIndexed(c, 'i32', st.segSelector, segment, selector);
}
/** Loads CS outside protected mode: the limit stays, the type becomes writable data (which real mode never looks at), CS.D stays. */
export function setRealCs(c: Emit, selector: Value): void {
  const b = c.b;
  const v86 = b.and(c.get(st.ctx), b.i32(Ctx.v86));
  const attr = b.or(b.and(c.get(st.segAttr[S.cs]), b.i32(Attr.big)), b.i32(0x93));
  c.set(st.segAttr[S.cs], b.select(v86, b.i32(0xf3), attr));
  c.set(st.segBase[S.cs], b.extu(b.shl(selector, b.i32(4))));
  c.set(st.segSelector[S.cs], selector);
}

/** Checks a stack segment's selector and descriptor for privilege `level`: writable data, RPL and DPL equal to it, present. `how`: #GP or #TS. */
export function checkStackSegment(c: Emit, selector: Value, desc: Value, level: Value, how: Value): void {
  const b = c.b;
  const attr = descAttr(c, desc);
  const wrong = b.ne(b.and(attr, b.i32(Attr.s | Attr.code | Attr.writable)), b.i32(Attr.s | Attr.writable));
  failIf(c, b.or(wrong, b.or(b.ne(rpl(c, selector), level), b.ne(dpl(c, attr), level))), how, selector);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), withVector(c, how, X.ss), selector);
}
/** Checks the descriptor of a data segment register: readable, privileged enough, present. `how`: #GP or #TS. */
export function checkDataSegment(c: Emit, selector: Value, desc: Value, how: Value): void {
  const b = c.b;
  const attr = descAttr(c, desc);
  const type = b.and(attr, b.i32(Attr.s | Attr.code | Attr.readable));
  const unreadable = b.or(b.eqz(b.and(attr, b.i32(Attr.s))), b.eq(type, b.i32(Attr.s | Attr.code)));
  const conforming = b.eq(b.and(attr, b.i32(Attr.code | Attr.conforming)), b.i32(Attr.code | Attr.conforming));
  const level = dpl(c, attr);
  const low = b.or(b.gtu(rpl(c, selector), level), b.gtu(c.get(st.cpl), level));
  failIf(c, b.or(unreadable, b.and(low, b.eqz(conforming))), how, selector);
  failIf(c, b.eqz(b.and(attr, b.i32(Attr.present))), withVector(c, how, X.np), selector);
}

/**
 * Loads ES, SS, DS, FS or GS in protected mode. `how` is the exception for a wrong selector: #GP, or #TS while a task is switched to.
 * The caller updates the context afterwards.
 */
export const loadProtectedSegment = sub(
  'loadProtectedSegment',
  ['i32', 'i32', 'i32'],
  null,
  { faults: true },
  (c, segment, selector, how) => {
    const b = c.b;
    const stack = b.eq(segment, b.i32(S.ss));
    b.if(isNull(c, selector), () => {
      b.if(stack, () => {
        // 64-bit code below CPL 3 may run with a null SS of its own privilege.
        const level = c.get(st.cpl);
        const allowed = b.and(inLongCode(c), b.and(b.ne(level, b.i32(3)), b.eq(rpl(c, selector), level)));
        failIf(c, b.eqz(allowed), how, b.i32(0));
        setNullSegment(c, segment, selector, level);
        b.ret();
      });
      setNullSegment(c, segment, selector);
      b.ret();
    });
    const desc = c.call(readDescriptor, selector, how);
    b.if(
      stack,
      () => checkStackSegment(c, selector, desc, c.get(st.cpl), how),
      () => checkDataSegment(c, selector, desc, how),
    );
    const marked = markAccessed(c, selector, desc);
    setSegment(c, segment, selector, marked);
    b.ret();
  },
);

/** Loads ES, SS, DS, FS or GS (`segment` i32) with `selector` (i32, 16 bits), as MOV, POP and LDS do in the current mode. */
export const loadSegment = sub('loadSegment', ['i32', 'i32'], null, { faults: true }, (c, segment, selector) => {
  const b = c.b;
  b.if(b.eqz(inProtectedMode(c)), () => {
    // Limit and attributes stay: "unreal mode" depends on it. The context does not depend on the base there.
    setIndexed(c, 'i64', st.segBase, segment, b.extu(b.shl(selector, b.i32(4))));
    setIndexed(c, 'i32', st.segSelector, segment, selector);
    b.ret();
  });
  const base = getIndexed(c, 'i64', st.segBase, segment);
  const limit = getIndexed(c, 'i32', st.segLimit, segment);
  const attr = getIndexed(c, 'i32', st.segAttr, segment);
  c.do(loadProtectedSegment, segment, selector, b.i32(X.gp));
  b.if(b.leu(segment, b.i32(S.ds)), () => {
    // A kernel's entry loads what is there already.
    const moved = b.ne(getIndexed(c, 'i64', st.segBase, segment), base);
    const resized = b.ne(getIndexed(c, 'i32', st.segLimit, segment), limit);
    const kind = b.and(b.xor(getIndexed(c, 'i32', st.segAttr, segment), attr), b.i32(PLAIN.mask | Attr.big));
    b.if(b.or(b.or(moved, resized), kind), () => c.do(updateContext));
  });
  b.ret();
});

/** 1 where `bytes` (i32) from `offset` (i64, 32 bits) lie inside a segment of these attributes and limit. */
export const withinLimit = sub('withinLimit', ['i32', 'i32', 'i64', 'i32'], 'i32', {}, (c, attr, limit, offset, bytes) => {
  const b = c.b;
  const last = b.add(offset, b.extu(b.sub(bytes, b.i32(1))));
  const end = b.extu(limit);
  b.if(b.eq(b.and(attr, b.i32(Attr.s | Attr.code | Attr.expandDown)), b.i32(Attr.s | Attr.expandDown)), () => {
    const top = b.select(b.and(attr, b.i32(Attr.big)), b.i64(0xffffffffn), b.i64(0xffff));
    b.ret(b.and(b.gtu(offset, end), b.leu(last, top)));
  });
  b.ret(b.leu(last, end));
});

const segCheckSlow = sub('segCheckSlow', ['i32', 'i64', 'i32'], 'i64', { faults: true }, (c, segment, offset, access) => {
  const b = c.b;
  const attr = getIndexed(c, 'i32', st.segAttr, segment);
  const type = b.and(attr, b.i32(0xa));
  // Real mode has limits, but no types: code may be written there.
  const typed = b.and(b.shru(c.get(st.ctx), b.i32(Math.log2(Ctx.protected))), b.i32(1));
  const wrongType = b.select(b.and(access, b.i32(SEG_WRITE)), b.ne(type, b.i32(2)), b.eq(type, b.i32(8)));
  const inside = c.call(withinLimit, attr, getIndexed(c, 'i32', st.segLimit, segment), offset, b.and(access, b.i32(0xffff)));
  const bad = b.or(anyOf(c, attr, Attr.unusable), b.or(b.and(typed, wrongType), b.eqz(inside)));
  failIf(c, bad, b.select(b.eq(segment, b.i32(S.ss)), b.i32(X.ss), b.i32(X.gp)), b.i32(0));
  b.ret(b.and(b.add(getIndexed(c, 'i64', st.segBase, segment), offset), b.i64(0xffffffffn)));
});

/**
 * Linear address (i64, 32 bits) of `offset` (i64, already cut to its address size) in segment register `segment` (i32), outside
 * 64-bit code. `access`: number of bytes, plus `SEG_WRITE`. Raises #SS(0) for SS, #GP(0) for the others.
 */
export const segCheck = sub('segCheck', ['i32', 'i64', 'i32'], 'i64', { faults: true }, (c, segment, offset, access) => {
  const b = c.b;
  // Present, writable, expand-up data is nearly every access: one mask and the limit decide.
  const plain = b.eq(b.and(getIndexed(c, 'i32', st.segAttr, segment), b.i32(PLAIN.mask)), b.i32(PLAIN.value));
  const last = b.add(offset, b.extu(b.sub(b.and(access, b.i32(0xffff)), b.i32(1))));
  const inside = b.leu(last, b.extu(getIndexed(c, 'i32', st.segLimit, segment)));
  b.if(b.and(plain, inside), () => b.ret(b.and(b.add(getIndexed(c, 'i64', st.segBase, segment), offset), b.i64(0xffffffffn))));
  b.ret(c.call(segCheckSlow, segment, offset, access));
});
