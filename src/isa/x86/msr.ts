// Model-specific registers that live in the vCPU's state: where each is, what may be written to it (Intel SDM volume 4, chapter 2,
// and volume 3, sections 12.11 and 18.17; AMD APM volume 2, appendix A). All others are asked of the host.

import type { Slot, Value } from '../../ir/ir.ts';
import { fitsBase } from './canonical.ts';
import { CR0, EFER } from './control.ts';
import type { Emit } from './emit.ts';
import { reservedInAddress } from './mmu.ts';
import { rdmsr, tsc, tscChanged, wrmsr } from './outside.ts';
import * as st from './state.ts';
import { Absent, S } from './state.ts';
import { sub } from './sub.ts';
import { flushAll } from './tlb.ts';

/** Registers from `first` to `last`. `index` is the register's number; `write` may raise #GP(0). */
interface Range {
  readonly first: number;
  readonly last: number;
  readonly read: (c: Emit, index: Value) => Value;
  readonly write: (c: Emit, value: Value, index: Value) => void;
}

type Check = (c: Emit, value: Value) => void;
const anything: Check = () => {};
const refuseBits =
  (mask: bigint): Check =>
  (c, value) =>
    c.gpIf(c.b.ne(c.b.and(value, c.b.i64(mask)), c.b.i64(0)));
const upper = refuseBits(~0xffffffffn);
const canonical: Check = (c, value) => c.gpIf(c.b.eqz(fitsBase(c, value)));

/** Every byte of `value` that `mask` keeps must be a memory type: 0, 1, 4, 5, 6, or with `uncached` 7 as well. */
function checkTypes(c: Emit, value: Value, mask: bigint, uncached: boolean): void {
  const b = c.b;
  const ones = 0x0101010101010101n & mask;
  const at = (bit: number): Value => b.and(b.shru(value, b.i64(bit)), b.i64(ones));
  let bad = b.and(value, b.i64(0xf8f8f8f8f8f8f8f8n & mask));
  bad = b.or(bad, b.and(at(1), b.not(at(2))));
  if (!uncached) bad = b.or(bad, b.and(b.and(at(0), at(1)), at(2)));
  c.gpIf(b.ne(bad, b.i64(0)));
}

/** A register kept in a slot. */
const kept = (first: number, slot: Slot, check: Check = anything): Range => ({
  first,
  last: first,
  read: (c) => c.get(slot),
  write: (c, value) => {
    check(c, value);
    c.set(slot, value);
  },
});
/** Consecutive registers in consecutive slots. */
const array = (first: number, slots: readonly Slot[], check: (c: Emit, value: Value, index: Value) => void): Range => {
  const place = (c: Emit, index: Value): Value => c.b.add(c.b.env, c.b.shl(c.b.sub(index, c.b.i32(first)), c.b.i32(3)));
  return {
    first,
    last: first + slots.length - 1,
    read: (c, index) => c.b.raw('i64', place(c, index), slots[0]!.offset),
    write: (c, value, index) => {
      check(c, value, index);
      c.b.setRaw('i64', place(c, index), value, slots[0]!.offset);
    },
  };
};
/** Registers that always read as one value; writes are refused, or have no effect. */
const constant = (first: number, value: bigint, writable: boolean, last = first): Range => ({
  first,
  last,
  read: (c) => c.b.i64(value),
  write: (c) => {
    if (!writable) c.gp();
  },
});

/** A register that is none where all of `features` are absent. */
const offeredBy = (features: number, range: Range): Range => {
  const refuse = (c: Emit): void => c.gpIf(c.b.eq(c.b.and(c.get(st.absent), c.b.i32(features)), c.b.i32(features)));
  return {
    ...range,
    read(c, index) {
      refuse(c);
      return range.read(c, index);
    },
    write(c, value, index) {
      refuse(c);
      range.write(c, value, index);
    },
  };
};

const FIXED_TYPES: Check = (c, value) => checkTypes(c, value, (1n << 64n) - 1n, false);
/** Base registers (even) hold a type, mask registers (odd) a valid bit. */
function checkVariable(c: Emit, value: Value, index: Value): void {
  const b = c.b;
  c.gpIf(b.ne(b.and(value, reservedInAddress(c)), b.i64(0)));
  b.if(
    b.and(index, b.i32(1)),
    () => refuseBits(0x7ffn)(c, value),
    () => {
      refuseBits(0xf00n)(c, value);
      checkTypes(c, value, 0xffn, false);
    },
  );
}

const writeEfer = sub('writeEfer', ['i64'], null, { faults: true }, (c, value) => {
  const b = c.b;
  const settable = EFER.sce | EFER.lme | EFER.nxe;
  refuseBits(~BigInt(settable | EFER.lma))(c, value);
  const absent = c.get(st.absent);
  const refused = [[Absent.syscall, EFER.sce], [Absent.lm, EFER.lme], [Absent.nx, EFER.nxe]] as const; // biome-ignore format: pairs
  for (const [feature, bit] of refused)
    c.gpIf(b.and(b.ne(b.and(absent, b.i32(feature)), b.i32(0)), b.ne(b.and(b.wrap(value), b.i32(bit)), b.i32(0))));
  const old = c.get(st.efer);
  const changed = b.wrap(b.xor(old, value));
  const paging = b.and(b.wrap(c.get(st.cr0)), b.i32(CR0.pg));
  c.gpIf(b.and(b.ne(paging, b.i32(0)), b.ne(b.and(changed, b.i32(EFER.lme)), b.i32(0))));
  c.set(st.efer, b.or(b.and(value, b.i64(settable)), b.and(old, b.i64(EFER.lma))));
  b.if(b.and(changed, b.i32(EFER.nxe)), () => c.do(flushAll));
  b.ret();
});

const tscRange: Range = {
  first: 0x10,
  last: 0x10,
  read: (c) => c.b.add(c.b.op('i64.trunc_sat_f64_s', c.call(tsc)), c.get(st.tscOffset)),
  write: (c, value) => {
    const b = c.b;
    const offset = b.sub(value, b.op('i64.trunc_sat_f64_s', c.call(tsc)));
    c.set(st.tscAdjust, b.add(c.get(st.tscAdjust), b.sub(offset, c.get(st.tscOffset))));
    c.set(st.tscOffset, offset);
    c.do(tscChanged);
  },
};
const tscAdjustRange: Range = {
  first: 0x3b,
  last: 0x3b,
  read: (c) => c.get(st.tscAdjust),
  write: (c, value) => {
    const b = c.b;
    c.set(st.tscOffset, b.add(c.get(st.tscOffset), b.sub(value, c.get(st.tscAdjust))));
    c.set(st.tscAdjust, value);
    c.do(tscChanged);
  },
};

/** Machine-check controls take all ones or zero. */
function allOrNothing(c: Emit, value: Value): void {
  const b = c.b;
  c.gpIf(b.and(b.ne(value, b.i64(0)), b.ne(value, b.i64(-1))));
}
/** A bank's control may lack two bits, as with KVM: systems leave out what early K8s (10, Linux in bank 4) and others (0) report wrongly. */
const LEFT_OUT = 0x401;
const BANKS = 10;
/** Four registers for each bank: control, status (which takes zero), address and miscellaneous information (which take anything). */
const machineCheck: Range = {
  first: 0x400,
  last: 0x400 + 4 * BANKS - 1,
  read(c, index) {
    const b = c.b;
    const kind = b.and(index, b.i32(3));
    const about = b.and(kind, b.i32(2));
    return b.select(
      about,
      b.raw('i64', aboutOf(c, index), st.mcAbout[0].offset),
      b.select(kind, b.i64(0), b.raw('i64', bankOf(c, index), st.mcCtl[0].offset)),
    );
  },
  write(c, value, index) {
    const b = c.b;
    b.if(b.and(index, b.i32(2)), () => {
      b.setRaw('i64', aboutOf(c, index), value, st.mcAbout[0].offset);
      b.ret();
    });
    b.if(
      b.and(index, b.i32(1)),
      () => c.gpIf(b.ne(value, b.i64(0))),
      () => {
        allOrNothing(c, b.select(b.eqz(value), value, b.or(value, b.i64(LEFT_OUT))));
        b.setRaw('i64', bankOf(c, index), value, st.mcCtl[0].offset);
      },
    );
  },
};
const bankOf = (c: Emit, index: Value): Value => {
  const b = c.b;
  return b.add(b.env, b.shl(b.shru(b.sub(index, b.i32(0x400)), b.i32(2)), b.i32(3)));
};

/** The same for address and miscellaneous information, two slots for each bank. */
const aboutOf = (c: Emit, index: Value): Value => {
  const b = c.b;
  return b.add(bankOf(c, index), b.add(b.sub(bankOf(c, index), b.env), b.shl(b.and(index, b.i32(1)), b.i32(3))));
};

/** All ranges by ascending number. */
const ranges: readonly Range[] = [
  tscRange,
  offeredBy(Absent['tsc-adjust'], tscAdjustRange),
  // Microcode revision: software writes 0, runs CPUID, and reads.
  constant(0x8b, 1n << 32n, true),
  // Eight variable ranges, fixed ranges, write combining.
  constant(0xfe, 0x508n, false),
  kept(0x174, st.sysenterCs),
  kept(0x175, st.sysenterEsp, canonical),
  kept(0x176, st.sysenterEip, canonical),
  // Machine check: ten banks that never report anything.
  constant(0x179, 0x0100_010an, false),
  constant(0x17a, 0n, true),
  kept(0x17b, st.mcgCtl, allOrNothing),
  kept(0x1a0, st.miscEnable),
  kept(0x1d9, st.debugCtl, refuseBits(~0x3n)),
  array(0x200, st.mtrrVariable, checkVariable),
  array(0x250, st.mtrrFixed.slice(0, 1), FIXED_TYPES),
  array(0x258, st.mtrrFixed.slice(1, 3), FIXED_TYPES),
  array(0x268, st.mtrrFixed.slice(3), FIXED_TYPES),
  kept(0x277, st.pat, (c, value) => checkTypes(c, value, (1n << 64n) - 1n, true)),
  kept(0x2ff, st.mtrrDefault, (c, value) => {
    refuseBits(~0xcffn)(c, value);
    checkTypes(c, value, 0xffn, false);
  }),
  machineCheck,
  // IA32_PKRS.
  offeredBy(Absent.pks, {
    first: 0x6e1,
    last: 0x6e1,
    read: (c) => c.b.extu(c.get(st.pkrs)),
    write(c, value) {
      upper(c, value);
      c.set(st.pkrs, c.b.wrap(value));
      c.do(flushAll);
    },
  }),
  // IA32_XSS: there are no supervisor components.
  offeredBy(Absent.xsaves, {
    first: 0xda0,
    last: 0xda0,
    read: (c) => c.b.i64(0),
    write: (c, value) => c.gpIf(c.b.ne(value, c.b.i64(0))),
  }),
  { first: 0xc0000080, last: 0xc0000080, read: (c) => c.get(st.efer), write: (c, value) => c.do(writeEfer, value) },
  offeredBy(Absent.syscall, kept(0xc0000081, st.star)),
  offeredBy(Absent.lm, kept(0xc0000082, st.lstar, canonical)),
  offeredBy(Absent.lm, kept(0xc0000083, st.cstar, canonical)),
  offeredBy(Absent.lm, kept(0xc0000084, st.sfmask, upper)),
  offeredBy(Absent.lm, kept(0xc0000100, st.segBase[S.fs]!, canonical)),
  offeredBy(Absent.lm, kept(0xc0000101, st.segBase[S.gs]!, canonical)),
  offeredBy(Absent.lm, kept(0xc0000102, st.kernelGsBase, canonical)),
  offeredBy(Absent.rdtscp | Absent.rdpid, kept(0xc0000103, st.tscAux, upper)),
  // AMD's SYSCFG and interrupt pending message: nothing is enabled.
  constant(0xc0010010, 0n, true),
  kept(0xc0010015, st.hwcr),
  constant(0xc0010055, 0n, true),
  kept(0xc0011029, st.deCfg),
];

/** Runs `found` for the range of `index`, by nested tests; falls through where there is none. */
function dispatch(c: Emit, index: Value, list: readonly Range[], found: (r: Range) => void): void {
  const b = c.b;
  const half = list.length >> 1;
  const range = list[half]!;
  if (list.length > 1) {
    b.if(
      b.ltu(index, b.i32(range.first)),
      () => dispatch(c, index, list.slice(0, half), found),
      () => dispatch(c, index, list.slice(half), found),
    );
    return;
  }
  const { first, last } = range;
  const inside = first === last ? b.eq(index, b.i32(first)) : b.leu(b.sub(index, b.i32(first)), b.i32(last - first));
  b.if(inside, () => found(range));
}

/** Value of register `index` (i32). Raises #GP(0) where there is none. */
export const readMsr = sub('readMsr', ['i32'], 'i64', { faults: true }, (c, index) => {
  const b = c.b;
  dispatch(c, index, ranges, (r) => b.ret(r.read(c, index)));
  b.ret(c.call(rdmsr, index));
});

/** Writes register `index` (i32). Raises #GP(0) where there is none or the value is refused. */
export const writeMsr = sub('writeMsr', ['i32', 'i64'], null, { faults: true }, (c, index, value) => {
  dispatch(c, index, ranges, (r) => {
    r.write(c, value, index);
    c.b.ret();
  });
  c.do(wrmsr, index, value);
  c.b.ret();
});

/** Values after reset of the registers above that are not zero. */
export const msrReset: readonly (readonly [Slot, bigint])[] = [
  [st.pat, 0x0007_0406_0007_0406n],
  [st.miscEnable, 1n],
];
