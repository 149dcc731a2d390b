// Control and debug registers: what may be written, what a write changes (Intel SDM volume 3, sections 2.5, 4.1, 4.10.4, 10.8.5
// and 18.2).

import type { Value } from '../../ir/ir.ts';
import { updateContext } from './context.ts';
import { updateWatch } from './debug.ts';
import type { Emit } from './emit.ts';
import { pointerAt, reservedInAddress, reservedInPointer } from './mmu.ts';
import { tprRead, tprWrite } from './outside.ts';
import * as st from './state.ts';
import { Ctx, GuestDebug, S, X } from './state.ts';
import { sub } from './sub.ts';
import { flushAll, flushNonGlobal } from './tlb.ts';

export const CR0 = {
  pe: 1,
  mp: 2,
  em: 4,
  ts: 8,
  et: 0x10,
  ne: 0x20,
  wp: 0x10000,
  am: 0x40000,
  nw: 1 << 29,
  cd: 1 << 30,
  pg: 1 << 31,
} as const;
const CR0_BITS = CR0.pe | CR0.mp | CR0.em | CR0.ts | CR0.ne | CR0.wp | CR0.am | CR0.nw | CR0.cd | CR0.pg;
export const CR4 = {
  vme: 1, pvi: 2, tsd: 4, de: 8, pse: 0x10, pae: 0x20, mce: 0x40, pge: 0x80, pce: 0x100, osfxsr: 0x200, osxmmexcpt: 0x400,
  umip: 0x800, la57: 0x1000, fsgsbase: 1 << 16, pcide: 1 << 17, osxsave: 1 << 18, smep: 1 << 20, smap: 1 << 21, pke: 1 << 22, pks: 1 << 24,
} as const; // biome-ignore format: a table
const CR4_BITS = Object.values(CR4).reduce((a, b) => a | b, 0);
export const EFER = { sce: 1, lme: 0x100, lma: 0x400, nxe: 0x800 } as const;

const has = (c: Emit, value: Value, bits: number): Value => c.b.ne(c.b.and(value, c.b.i32(bits)), c.b.i32(0));
const low = (c: Emit, slot: typeof st.cr0): Value => c.b.wrap(c.get(slot));

/** #GP(0) where CR4.UMIP keeps SGDT, SIDT, SLDT, SMSW and STR from CPL 1 to 3. */
export function checkUmip(c: Emit): void {
  c.gpIf(c.b.and(has(c, low(c, st.cr4), CR4.umip), c.b.ne(c.get(st.cpl), c.b.i32(0))));
}

/** Loads the four page-directory-pointer-table entries of PAE paging. #GP(0), and they stay, where one is present with a reserved bit set. */
const checkPointers = sub('checkPointers', ['i64'], null, { faults: true }, (c, cr3) => {
  const b = c.b;
  const table = b.and(cr3, b.i64(0xffffffe0n));
  const entries = st.pointers.map((_, i) => pointerAt(c, b.add(table, b.i64(8 * i))));
  for (const entry of entries) {
    const reserved = b.ne(b.and(entry, reservedInPointer(c)), b.i64(0));
    c.gpIf(b.and(reserved, b.and(b.wrap(entry), b.i32(1))));
  }
  st.pointers.forEach((slot, i) => c.set(slot, entries[i]!));
  b.ret();
});

/** Writes CR0 with all checks. Raises #GP(0). */
export const writeCr0 = sub('writeCr0', ['i64'], null, { faults: true }, (c, value) => {
  const b = c.b;
  c.gpIf(b.ne(b.shru(value, b.i64(32)), b.i64(0)));
  const v = b.or(b.and(b.wrap(value), b.i32(CR0_BITS)), b.i32(CR0.et));
  const paging = has(c, v, CR0.pg);
  c.gpIf(b.and(paging, b.eqz(has(c, v, CR0.pe))));
  c.gpIf(b.and(has(c, v, CR0.nw), b.eqz(has(c, v, CR0.cd))));
  const changed = b.xor(v, low(c, st.cr0));
  b.if(has(c, changed, CR0.pg), () => {
    const cr4 = low(c, st.cr4);
    const efer = c.get(st.efer);
    b.if(
      paging,
      () =>
        b.if(
          has(c, b.wrap(efer), EFER.lme),
          () => {
            c.gpIf(b.eqz(has(c, cr4, CR4.pae)));
            c.gpIf(has(c, c.get(st.segAttr[S.cs]), 1 << 13));
            c.set(st.efer, b.or(efer, b.i64(EFER.lma)));
          },
          () => b.if(has(c, cr4, CR4.pae), () => c.do(checkPointers, c.get(st.cr3))),
        ),
      () => {
        c.gpIf(has(c, c.get(st.ctx), Ctx.long));
        c.gpIf(has(c, cr4, CR4.pcide));
        c.set(st.efer, b.and(efer, b.i64(~EFER.lma)));
      },
    );
  });
  const pae = b.and(has(c, low(c, st.cr4), CR4.pae), b.eqz(has(c, low(c, st.efer), EFER.lma)));
  const caching = b.and(has(c, changed, CR0.cd | CR0.nw), b.eqz(has(c, changed, CR0.pg)));
  b.if(b.and(b.and(caching, paging), pae), () => c.do(checkPointers, c.get(st.cr3)));
  c.set(st.cr0, b.extu(v));
  // Without paging before and after, addresses are what they were: firmware and boot loaders change between real and protected mode for each call.
  b.if(b.or(has(c, changed, CR0.pg), b.and(paging, has(c, changed, CR0.wp))), () => c.do(flushAll));
  c.do(updateContext);
  b.ret();
});

/** Writes CR3. With CR4.PCIDE and bit 63 set, what the TLBs hold of the same PCID stays. Raises #GP(0). */
export const writeCr3 = sub('writeCr3', ['i64'], null, { faults: true }, (c, value) => {
  const b = c.b;
  const long = has(c, low(c, st.efer), EFER.lma);
  const keep = b.and(has(c, low(c, st.cr4), CR4.pcide), b.wrap(b.shru(value, b.i64(63))));
  const v = b.and(value, b.select(keep, b.i64((1n << 63n) - 1n), b.i64(-1)));
  b.if(
    long,
    () => c.gpIf(b.ne(b.and(v, reservedInAddress(c)), b.i64(0))),
    () => {
      const pae = b.and(has(c, low(c, st.cr4), CR4.pae), has(c, low(c, st.cr0), CR0.pg));
      b.if(pae, () => c.do(checkPointers, v));
    },
  );
  const samePcid = b.eqz(b.and(b.xor(b.wrap(c.get(st.cr3)), b.wrap(v)), b.i32(0xfff)));
  c.set(st.cr3, v);
  b.if(b.eqz(b.and(keep, samePcid)), () => c.do(flushNonGlobal));
  b.ret();
});

/** Writes CR4 with all checks. Raises #GP(0). */
export const writeCr4 = sub('writeCr4', ['i64'], null, { faults: true }, (c, value) => {
  const b = c.b;
  c.gpIf(b.ne(b.and(value, b.or(b.i64(~CR4_BITS), b.extu(c.get(st.cr4Absent)))), b.i64(0)));
  const v = b.wrap(value);
  const changed = b.xor(v, low(c, st.cr4));
  const set = b.and(changed, v);
  const long = has(c, low(c, st.efer), EFER.lma);
  c.gpIf(b.and(long, b.or(b.eqz(has(c, v, CR4.pae)), has(c, changed, CR4.la57))));
  const badPcid = b.or(b.eqz(long), has(c, low(c, st.cr3), 0xfff));
  c.gpIf(b.and(has(c, set, CR4.pcide), badPcid));
  const paePaging = b.and(b.and(has(c, low(c, st.cr0), CR0.pg), b.eqz(long)), has(c, v, CR4.pae));
  b.if(b.and(paePaging, has(c, changed, CR4.pae | CR4.pse | CR4.pge | CR4.smep)), () => c.do(checkPointers, c.get(st.cr3)));
  c.set(st.cr4, value);
  b.if(has(c, changed, CR4.pse | CR4.pae | CR4.pge | CR4.pcide | CR4.smep | CR4.smap | CR4.pke | CR4.pks), () => c.do(flushAll));
  c.do(updateContext);
  b.ret();
});

/** Writes PKRU (i32); the TLBs hold rights by it. */
export const writePkru = sub('writePkru', ['i32'], null, {}, (c, value) => {
  const b = c.b;
  b.if(b.ne(value, c.get(st.pkru)), () => {
    c.set(st.pkru, value);
    c.do(flushAll);
  });
  b.ret();
});

/** Control register `index` (i32). Raises #UD for a number that is none. */
export const readControl = sub('readControl', ['i32'], 'i64', { faults: true }, (c, index) => {
  const b = c.b;
  for (const [n, slot] of [[0, st.cr0], [2, st.cr2], [3, st.cr3], [4, st.cr4]] as const) {
    b.if(b.eq(index, b.i32(n)), () => b.ret(c.get(slot)));
  } // biome-ignore format: pairs
  b.if(b.ne(index, b.i32(8)), () => c.ud());
  b.ret(b.extu(c.call(tprRead)));
});

/** Writes control register `index`. Raises #UD and #GP(0). */
export const writeControl = sub('writeControl', ['i32', 'i64'], null, { faults: true }, (c, index, value) => {
  const b = c.b;
  const when = (n: number, write: () => void): void => {
    b.if(b.eq(index, b.i32(n)), () => {
      write();
      b.ret();
    });
  };
  when(3, () => c.do(writeCr3, value));
  when(0, () => c.do(writeCr0, value));
  when(4, () => c.do(writeCr4, value));
  when(2, () => c.set(st.cr2, value));
  when(8, () => {
    c.gpIf(b.gtu(value, b.i64(15)));
    c.do(tprWrite, b.wrap(value));
  });
  c.ud();
});

const DR6_FIXED = 0xffff0ff0;
const DR6_BITS = 0xe00f;
const DR6_BD = 1n << 13n;
const DR7_FIXED = 0x400;
const DR7_BITS = 0xffff23ff;
const DR7_GD = 1 << 13;

/** The number of the debug register that `index` names: 4 and 5 are 6 and 7 without CR4.DE. Raises #UD, and #DB with DR7.GD. */
function debugNumber(c: Emit, index: Value): Value {
  const b = c.b;
  const alias = b.eq(b.and(index, b.i32(~1)), b.i32(4));
  b.if(b.or(b.gtu(index, b.i32(7)), b.and(alias, has(c, low(c, st.cr4), CR4.de))), () => c.ud());
  b.if(has(c, low(c, st.dr[7]), DR7_GD), () => {
    c.set(st.dr[6], b.or(c.get(st.dr[6]), b.i64(DR6_BD)));
    c.set(st.dr[7], b.and(c.get(st.dr[7]), b.i64(~DR7_GD)));
    c.do(updateContext);
    c.raise(X.db);
  });
  return b.add(index, b.shl(alias, b.i32(1)));
}

const debugSlot = (c: Emit, n: Value): Value => c.b.add(c.b.env, c.b.shl(n, c.b.i32(3)));

/** Debug register `index` (i32). Raises #UD and #DB. */
export const readDebug = sub('readDebug', ['i32'], 'i64', { faults: true }, (c, index) => {
  c.b.ret(c.b.raw('i64', debugSlot(c, debugNumber(c, index)), st.dr[0].offset));
});

/** Writes debug register `index`. Raises #UD, #DB, and #GP(0) for bits above 31 of DR6 and DR7. */
export const writeDebug = sub('writeDebug', ['i32', 'i64'], null, { faults: true }, (c, index, value) => {
  const b = c.b;
  const n = debugNumber(c, index);
  b.if(b.and(c.get(st.guestDebug), b.i32(GuestDebug.registers)), () => b.ret());
  b.if(b.ltu(n, b.i32(4)), () => {
    b.setRaw('i64', debugSlot(c, n), value, st.dr[0].offset);
    b.if(c.get(st.watch), () => c.do(flushAll));
    b.ret();
  });
  c.gpIf(b.ne(b.shru(value, b.i64(32)), b.i64(0)));
  b.if(
    b.eq(n, b.i32(6)),
    () => c.set(st.dr[6], b.or(b.and(value, b.i64(DR6_BITS)), b.i64(DR6_FIXED))),
    () => {
      c.set(st.dr[7], b.or(b.and(value, b.i64(DR7_BITS)), b.i64(DR7_FIXED)));
      c.do(updateWatch);
    },
  );
  c.do(updateContext);
  b.ret();
});
