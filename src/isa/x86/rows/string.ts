// String instructions with their REP forms: MOVS, STOS, LODS, SCAS, CMPS (Intel SDM volume 2, and volume 1 section 7.3.9).
// A REP form does a bounded number of iterations and then runs again, so that interrupts get in; registers are kept up to
// date after each iteration, so that a fault in the middle can be resumed.

import type { Value } from '../../../ir/ir.ts';
import { accessOf, type InsnEmit, type Size } from '../emit.ts';
import { hostSpan, noteWrite } from '../memory.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import * as st from '../state.ts';
import { R, S } from '../state.ts';

/** Iterations before a REP form looks at interrupts; one that may write to a device looks after each. */
const BURST = 1024;
const DF = 0x400;
/** The bit of `kick` for an interrupt that waits for IF is IF's; bit 0 is for all else. */
const KICKED = 1;
/** Elements that are not worth a bulk operation. */
const FEW = 3;

const options: RowOptions = { rep: true };

/** A register cut to the address size, as an i64 offset. */
const offset = (c: InsnEmit, n: number): Value => (c.addressSize === 64 ? c.reg(n) : c.b.extu(c.reg(n, c.addressSize)));

function advance(c: InsnEmit, n: number, delta: Value): void {
  const b = c.b;
  const sum = b.add(c.reg(n), delta);
  if (c.addressSize === 64) c.setReg(n, 64, sum);
  else c.setReg(n, c.addressSize, c.truncate(b.wrap(sum), c.addressSize));
}

/** +bytes or -bytes by the direction flag. */
const stride = (c: InsnEmit, bytes: number): Value => {
  const b = c.b;
  return b.select(b.and(c.get(st.sysFlags), b.i32(DF)), b.i64(-bytes), b.i64(bytes));
};

/** What interrupts a repeated instruction between its iterations finds that noted: see `resumes` in exceptions.ts. */
export function betweenIterations(c: InsnEmit): void {
  c.set(st.iterated, c.b.xor(c.thisIp(), c.b.i64(-1)));
}
/** It goes on, or begins. */
export function iterates(c: InsnEmit): void {
  c.set(st.iterated, c.b.i64(0));
}

/**
 * Runs `one` once, or under REP while the count lasts. `one` gives the condition (i32) under which a REPE/REPNE form goes on,
 * or null where only the count decides. With `stores` an interrupt that a store to a device brings comes before the next iteration.
 */
function repeat(c: InsnEmit, one: () => Value | null, stores?: { readonly bulk: ((count: Value) => void) | undefined }): void {
  const b = c.b;
  if (!c.rep) {
    one();
    return;
  }
  iterates(c);
  b.if(b.eqz(offset(c, R.rcx)), () => b.leave('next'));
  stores?.bulk?.(offset(c, R.rcx));
  const left = b.variable(b.i32(BURST));
  b.loop((again) => {
    const goOn = one();
    advance(c, R.rcx, b.i64(-1));
    const more = b.ne(offset(c, R.rcx), b.i64(0));
    b.if(goOn ? b.and(more, goOn) : more, () => {
      // A debug trap comes after each iteration.
      b.if(c.get(st.stepTrap), () => {
        betweenIterations(c);
        b.leave('jump', c.thisIp());
      });
      if (stores)
        b.if(c.get(st.kick), () =>
          b.if(b.and(c.get(st.kick), b.or(c.get(st.sysFlags), b.i32(KICKED))), () => {
            c.set(st.shadow, b.i32(0));
            betweenIterations(c);
            b.leave('repeat');
          }),
        );
      const n = b.sub(b.getVar(left), b.i32(1));
      b.setVar(left, n);
      b.br(again, n);
      betweenIterations(c);
      b.leave('repeat');
    });
  });
}

const sizes: readonly [string, Size | 0][] = [
  ['b', 8],
  ['v', 0],
];

const sizeOf = (c: InsnEmit, fixed: Size | 0): Size => fixed || c.size;

/** Elements that fit before the next page boundary of an ascending linear address, as an i64 of at least 0. */
function untilPageEnd(c: InsnEmit, linear: Value, shift: number): Value {
  const b = c.b;
  return b.shru(b.sub(b.i64(4096), b.and(linear, b.i64(4095))), b.i64(shift));
}

/** Whether ES and DS reach the whole address space, so that one check serves many elements. */
function unlimited(c: InsnEmit): Value {
  const b = c.b;
  if (c.long) return b.i32(1);
  const all = b.i32(-1);
  return b.and(b.eq(c.get(st.segLimit[S.es]), all), b.eq(c.get(st.segLimit[S.ds]), all));
}

/** Nothing asks for one element at a time: ascending addresses, no single step. */
const plain = (c: InsnEmit): Value => c.b.eqz(c.b.or(c.b.and(c.get(st.sysFlags), c.b.i32(DF)), c.get(st.stepTrap)));

const minimum = (c: InsnEmit, x: Value, y: Value): Value => c.b.select(c.b.ltu(x, y), x, y);

const LOG2: Readonly<Record<Size, number>> = { 8: 0, 16: 1, 32: 2, 64: 3 };

/** REP MOVS forward, a page at a time, where both sides are plain RAM and do not overlap in a way that an element copy would smear. */
function bulkMove(c: InsnEmit, size: Size): (count: Value) => void {
  return (count) => {
    const b = c.b;
    const bytes = size / 8;
    b.if(b.and(b.and(plain(c), b.gtu(count, b.i64(FEW))), unlimited(c)), () => {
      const from = c.linearData(offset(c, R.rsi), bytes, false);
      const to = c.linearIn(S.es, offset(c, R.rdi), bytes, true);
      const n = minimum(c, count, minimum(c, untilPageEnd(c, from, LOG2[size]), untilPageEnd(c, to, LOG2[size])));
      b.if(b.gtu(n, b.i64(1)), () => {
        const source = c.call(hostSpan, from, b.i32(0));
        const target = c.call(hostSpan, to, b.i32(4));
        const length = b.shl(b.wrap(n), b.i32(LOG2[size]));
        const apart = b.geu(b.sub(target, source), b.extu(length));
        b.if(b.and(b.and(b.ne(source, b.i64(0)), b.ne(target, b.i64(0))), apart), () => {
          b.copy(target, source, length);
          c.do(noteWrite, target, length);
          const step = b.shl(n, b.i64(LOG2[size]));
          advance(c, R.rsi, step);
          advance(c, R.rdi, step);
          advance(c, R.rcx, b.neg(n));
          betweenIterations(c);
          b.leave('repeat');
        });
      });
    });
  };
}

/** REP STOS forward, a page at a time. */
function bulkStore(c: InsnEmit, size: Size): (count: Value) => void {
  return (count) => {
    const b = c.b;
    const bytes = size / 8;
    const value = c.reg(R.rax, size);
    const low = b.and(b.wrap(value), b.i32(0xff));
    const uniform =
      size === 8
        ? b.i32(1)
        : b.eq(
            value,
            size === 64 ? b.mul(b.extu(low), b.i64(0x0101010101010101n)) : c.truncate(b.mul(low, b.i32(0x01010101)), size),
          );
    b.if(b.and(b.and(plain(c), b.gtu(count, b.i64(FEW))), unlimited(c)), () => {
      const to = c.linearIn(S.es, offset(c, R.rdi), bytes, true);
      const n = minimum(c, count, untilPageEnd(c, to, LOG2[size]));
      b.if(b.gtu(n, b.i64(1)), () => {
        const target = c.call(hostSpan, to, b.i32(4));
        b.if(b.ne(target, b.i64(0)), () => {
          const length = b.shl(b.wrap(n), b.i32(LOG2[size]));
          b.if(
            uniform,
            () => b.fill(target, low, length),
            () => {
              // One element, then what is there already behind itself, until the end.
              b.setRaw(accessOf[size], target, value);
              const done = b.variable(b.i32(bytes));
              b.loop((again) => {
                // It is below the length: said again for who proves it.
                const there = minimum(c, b.getVar(done), length);
                b.copy(b.add(target, b.extu(there)), target, minimum(c, there, b.sub(length, there)));
                const now = b.shl(there, b.i32(1));
                b.setVar(done, now);
                b.br(again, b.ltu(now, length));
              });
            },
          );
          c.do(noteWrite, target, length);
          advance(c, R.rdi, b.shl(n, b.i64(LOG2[size])));
          advance(c, R.rcx, b.neg(n));
          betweenIterations(c);
          b.leave('repeat');
        });
      });
    });
  };
}

function movs(fixed: Size | 0): Row['emit'] {
  return (c) => {
    const b = c.b;
    const size = sizeOf(c, fixed);
    const bytes = size / 8;
    const flat = c.addressSize === 64 || !c.long;
    repeat(
      c,
      () => {
        const x = b.load(accessOf[size], c.linearData(offset(c, R.rsi), bytes, false));
        b.store(accessOf[size], c.linearIn(S.es, offset(c, R.rdi), bytes, true), x);
        const d = stride(c, bytes);
        advance(c, R.rsi, d);
        advance(c, R.rdi, d);
        return null;
      },
      { bulk: flat ? bulkMove(c, size) : undefined },
    );
  };
}

function stos(fixed: Size | 0): Row['emit'] {
  return (c) => {
    const size = sizeOf(c, fixed);
    const bytes = size / 8;
    repeat(
      c,
      () => {
        c.store(c.linearIn(S.es, offset(c, R.rdi), bytes, true), size, c.reg(R.rax, size));
        advance(c, R.rdi, stride(c, bytes));
        return null;
      },
      { bulk: bulkStore(c, size) },
    );
  };
}

function lods(fixed: Size | 0): Row['emit'] {
  return (c) => {
    const size = sizeOf(c, fixed);
    repeat(c, () => {
      c.setReg(R.rax, size, c.load(c.linearData(offset(c, R.rsi), size / 8, false), size));
      advance(c, R.rsi, stride(c, size / 8));
      return null;
    });
  };
}

/** Flags of x - y, and the condition under which REPE (3) or REPNE (2) goes on. */
function compare(c: InsnEmit, size: Size, x: Value, y: Value): Value {
  const b = c.b;
  c.flagsSub(size, x, y, c.truncate(b.sub(x, y), size), b.ltu(x, y));
  return c.rep === 3 ? b.eq(x, y) : b.ne(x, y);
}

function scas(fixed: Size | 0): Row['emit'] {
  return (c) => {
    const size = sizeOf(c, fixed);
    repeat(c, () => {
      const y = c.load(c.linearIn(S.es, offset(c, R.rdi), size / 8, false), size);
      advance(c, R.rdi, stride(c, size / 8));
      return compare(c, size, c.reg(R.rax, size), y);
    });
  };
}

function cmps(fixed: Size | 0): Row['emit'] {
  return (c) => {
    const size = sizeOf(c, fixed);
    repeat(c, () => {
      const y = c.load(c.linearIn(S.es, offset(c, R.rdi), size / 8, false), size);
      const x = c.load(c.linearData(offset(c, R.rsi), size / 8, false), size);
      const d = stride(c, size / 8);
      advance(c, R.rsi, d);
      advance(c, R.rdi, d);
      return compare(c, size, x, y);
    });
  };
}

const kinds: readonly [string, number, (fixed: Size | 0) => Row['emit']][] = [
  ['movs', 0xa4, movs],
  ['cmps', 0xa6, cmps],
  ['stos', 0xaa, stos],
  ['lods', 0xac, lods],
  ['scas', 0xae, scas],
];

export const stringRows: readonly Row[] = kinds.flatMap(([name, opcode, make]) =>
  sizes.map(([suffix, fixed], i) => insn((opcode + i).toString(16).toUpperCase(), `${name}${suffix}`, options, make(fixed))),
);
