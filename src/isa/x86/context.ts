// What decoding and memory accesses depend on besides the instruction's bytes, derived from the control registers, the
// privilege level and the flags (Intel SDM volume 3, sections 2.2, 2.5, 4.6 and 18.2).

import type { Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import { leaveSoon } from './outside.ts';
import * as st from './state.ts';
import { Ctx, S, Trap } from './state.ts';
import { sub } from './sub.ts';
import { setTlb } from './tlb.ts';

const CR0_EM_TS = 0xc;
const CR0_AM = 18;
const CR4_OSFXSR = 9;
const CR4_SMAP = 21;
const EFER_LMA = 10;

/** In a segment's `attr`: usable, present, writable data that expands up. */
export const PLAIN = { mask: 0x1009e, value: 0x92 } as const;

/** Bit `n` of an i32 moved to where `ctx` has it (`to` is one of `Ctx`). */
function bitTo(c: Emit, value: Value, n: number, to: number): Value {
  const b = c.b;
  return b.shl(b.and(b.shru(value, b.i32(n)), b.i32(1)), b.i32(Math.log2(to)));
}

/** 1 where DR7 enables an instruction breakpoint: L or G of a pair set and its R/W field 0. */
function codeBreakpoints(c: Emit, dr7: Value): Value {
  const b = c.b;
  let any: Value = b.i32(0);
  for (let i = 0; i < 4; i++) {
    const enabled = b.ne(b.and(dr7, b.i32(3 << (2 * i))), b.i32(0));
    any = b.or(any, b.and(enabled, b.eqz(b.and(dr7, b.i32(3 << (16 + 4 * i))))));
  }
  return any;
}

/** 1 where the segments are flat as `Ctx.flat` has it, outside 64-bit code. */
function flatSegments(c: Emit): Value {
  const b = c.b;
  const data = [S.ds, S.es, S.ss].map((n) => {
    // Present data that is writable and does not expand down; the limit says what it may.
    const plain = b.eq(b.and(c.get(st.segAttr[n]), b.i32(PLAIN.mask)), b.i32(PLAIN.value));
    const whole = b.eq(c.get(st.segLimit[n]), b.i32(-1));
    return b.and(b.and(plain, whole), b.eqz(c.get(st.segBase[n])));
  });
  const stack = b.ne(b.and(c.get(st.segAttr[S.ss]), b.i32(1 << 14)), b.i32(0));
  return [b.eqz(c.get(st.segBase[S.cs])), stack, ...data].reduce((x, y) => b.and(x, y));
}

/** Host address of the TLB for explicit accesses at CPL 0 to 2: user pages are open without SMAP or with RFLAGS.AC. */
function supervisorTlb(c: Emit, open: Value): Value {
  return c.b.select(open, c.get(st.tlbs[1]), c.get(st.tlbs[0]));
}

/** Makes `tlb` fit a new RFLAGS.AC at CPL 0 to 2 (STAC and CLAC, where nothing else changes). */
export function selectSupervisorTlb(c: Emit, ac: 0 | 1): void {
  const b = c.b;
  if (ac) setTlb(c, c.get(st.tlbs[1]));
  else setTlb(c, supervisorTlb(c, b.eqz(b.and(b.wrap(c.get(st.cr4)), b.i32(1 << CR4_SMAP)))));
}

/**
 * Recomputes `ctx`, `tlb` and `spMask`. To be called after any change of CR0, CR4, EFER, CPL, CS, DS, ES, SS, RFLAGS.VM/AC/TF or DR7
 * and before the next access or instruction that depends on it.
 */
export const updateContext = sub('updateContext', [], null, {}, (c) => {
  const b = c.b;
  b.if(c.get(st.pmSplit), () => c.do(leaveSoon));
  const cr0 = b.wrap(c.get(st.cr0));
  const cr4 = b.wrap(c.get(st.cr4));
  const cs = c.get(st.segAttr[S.cs]);
  const flags = c.get(st.sysFlags);
  const user = b.eq(c.get(st.cpl), b.i32(3));
  const long = b.and(b.and(b.shru(b.wrap(c.get(st.efer)), b.i32(EFER_LMA)), b.shru(cs, b.i32(13))), b.i32(1));

  const noFloat = b.or(b.ne(b.and(cr0, b.i32(CR0_EM_TS)), b.i32(0)), b.eqz(b.and(cr4, b.i32(1 << CR4_OSFXSR))));
  const dr7 = b.wrap(c.get(st.dr[7]));
  const breakpoints = b.choose(
    'i32',
    b.and(dr7, b.i32(0xff)),
    () => codeBreakpoints(c, dr7),
    () => b.i32(0),
  );
  const held = b.or(b.ne(b.and(c.get(st.stepTrap), b.i32(Trap.hits)), b.i32(0)), c.get(st.oneStep));
  const step = b.or(b.or(b.and(b.shru(flags, b.i32(8)), b.i32(1)), breakpoints), held);

  let ctx = long;
  ctx = b.or(ctx, b.and(bitTo(c, cs, 14, Ctx.big), b.shl(b.xor(long, b.i32(1)), b.i32(1))));
  ctx = b.or(ctx, bitTo(c, cr0, 0, Ctx.protected));
  ctx = b.or(ctx, bitTo(c, flags, 17, Ctx.v86));
  ctx = b.or(ctx, b.shl(user, b.i32(Math.log2(Ctx.user))));
  ctx = b.or(ctx, b.shl(noFloat, b.i32(Math.log2(Ctx.fpTrap))));
  const avx = b.and(b.eq(b.and(b.wrap(c.get(st.xcr0)), b.i32(6)), b.i32(6)), bitTo(c, cr4, 18, 1));
  ctx = b.or(ctx, b.shl(b.and(avx, b.xor(bitTo(c, cr0, 3, 1), b.i32(1))), b.i32(Math.log2(Ctx.avx))));
  const short = b.and(b.xor(long, b.i32(1)), b.ne(c.get(st.segLimit[S.cs]), b.i32(-1)));
  ctx = b.or(ctx, b.shl(short, b.i32(Math.log2(Ctx.limited))));
  const segmented = b.and(b.and(cr0, b.i32(1)), b.eqz(b.or(long, b.and(flags, b.i32(1 << 17)))));
  const flat = b.choose(
    'i32',
    segmented,
    () => flatSegments(c),
    () => b.i32(0),
  );
  ctx = b.or(ctx, b.shl(flat, b.i32(Math.log2(Ctx.flat))));
  ctx = b.or(ctx, bitTo(c, c.get(st.smm), 0, Ctx.smm));
  c.set(st.ctx, b.or(ctx, b.shl(step, b.i32(Math.log2(Ctx.step)))));

  const aligned = b.and(b.and(b.and(b.shru(cr0, b.i32(CR0_AM)), b.shru(flags, b.i32(18))), user), b.i32(1));
  c.set(st.alignCheck, aligned);
  const open = b.or(b.eqz(b.and(cr4, b.i32(1 << CR4_SMAP))), b.and(b.shru(flags, b.i32(18)), b.i32(1)));
  setTlb(c, b.select(user, b.select(aligned, c.get(st.tlbNone), c.get(st.tlbs[2])), supervisorTlb(c, open)));
  c.set(st.tlbSystem, c.get(st.tlbs[0]));

  const ia32e = b.and(b.shru(b.wrap(c.get(st.efer)), b.i32(EFER_LMA)), b.i32(1));
  c.set(st.halves, b.select(ia32e, b.i64(0), b.i64(st.NARROW_HALF)));

  const big = b.and(c.get(st.segAttr[S.ss]), b.i32(1 << 14));
  c.set(st.spMask, b.select(long, b.i64(-1), b.select(big, b.i64(0xffffffffn), b.i64(0xffff))));
  b.ret();
});
