// String instructions with their REP forms: MOVS, STOS, LODS, SCAS, CMPS (Intel SDM volume 2, and volume 1 section 7.3.9).
// A REP form does a bounded number of iterations and then runs again, so that interrupts get in; registers are kept up to
// date after each iteration, so that a fault in the middle can be resumed.

import type { Value } from '../../../ir/ir.ts';
import { accessOf, type Emit, type InsnEmit, type Size } from '../emit.ts';
import { hostSpan, noteWrite } from '../memory.ts';
import { How } from '../mmu.ts';
import { insn, type Row, type RowOptions } from '../row.ts';
import * as st from '../state.ts';
import { R, S } from '../state.ts';
import { type Sub, sub } from '../sub.ts';
import { entryOf, hostOf, tagHits } from '../tlb.ts';

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
 * or null where only the count decides. `stores` says how many iterations come before the instruction runs again; with it, an interrupt that a store
 * to a device brings comes before the next iteration; none come where it gives 0, for all is done.
 */
function repeat(c: InsnEmit, one: () => Value | null, stores?: () => Value): void {
  const b = c.b;
  if (!c.rep) {
    one();
    return;
  }
  iterates(c);
  b.if(b.eqz(offset(c, R.rcx)), () => b.leave('next'));
  const burst = stores ? stores() : b.i32(BURST);
  b.if(burst, () => oneByOne(c, one, burst, stores !== undefined));
}

/** At most `burst` iterations of `repeat`. */
function oneByOne(c: InsnEmit, one: () => Value | null, burst: Value, stores: boolean): void {
  const b = c.b;
  const left = b.variable(burst);
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
function untilPageEnd(c: Emit, linear: Value, shift: number): Value {
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

const minimum = (c: Emit, x: Value, y: Value): Value => c.b.select(c.b.ltu(x, y), x, y);

const LOG2: Readonly<Record<Size, number>> = { 8: 0, 16: 1, 32: 2, 64: 3 };

/** Bytes after which a move or fill runs the instruction again, so that interrupts get in. */
const LONGEST = 64 << 10;

/** Most bytes of one copy: C libraries move more by REP MOVSB, which takes half as long again where both sides are alike modulo 4 KiB. */
const PIECE = 2048;

/** What `moveRun` and `fillRun` give where a page ends within the first element. */
const SPLIT = -1;

const bySize = (make: (size: Size) => Sub): Readonly<Record<Size, Sub>> => ({
  8: make(8),
  16: make(16),
  32: make(32),
  64: make(64),
});

/** Whether the TLB has the page of `addr` for direct accesses, stores without a further look where `write`; and then its host address. */
function inTlb(c: Emit, addr: Value, write: boolean): { readonly hits: Value; readonly at: () => Value } {
  const b = c.b;
  const entry = entryOf(b, c.get(st.tlb), addr);
  const tag = b.raw('i64', entry);
  const hits = tagHits(b, tag, addr);
  return {
    hits: write ? b.and(hits, b.eqz(b.and(b.wrap(tag), b.i32(1)))) : hits,
    at: () => hostOf(c, addr, b.raw('i32', entry, 8)),
  };
}

/** Runs `body` unless accesses are looked at one by one. */
const unwatched = (c: Emit, body: () => void): void => c.b.if(c.b.eqz(c.b.or(c.get(st.watch), c.get(st.alignCheck))), body);

/** Copies at most a page, both sides of which are apart or go down. */
function copy(c: Emit, to: Value, from: Value, length: Value): void {
  const b = c.b;
  const first = minimum(c, b.i32(PIECE), length);
  b.copy(to, from, first);
  b.if(b.ne(first, length), () => b.copy(b.add(to, b.extu(first)), b.add(from, b.extu(first)), b.sub(length, first)));
}

/**
 * Moves elements forward: from page to page while the TLB has both sides, or in the first page alone; not where the sides overlap so that an
 * element copy would smear. Gives how many were moved, or SPLIT. Parameters: linear addresses from and to, elements.
 */
const moveRun = bySize((size) =>
  sub(`moveRun${size}`, ['i64', 'i64', 'i64'], 'i64', { faults: true }, (c, from, to, count) => {
    const b = c.b;
    const shift = LOG2[size];
    const most = minimum(c, count, b.i64(LONGEST >> shift));
    const left = b.variable(most);
    unwatched(c, () => {
      const source = b.variable(from);
      const target = b.variable(to);
      b.loop((again) => {
        const f = b.getVar(source);
        const t = b.getVar(target);
        const read = inTlb(c, f, false);
        const written = inTlb(c, t, true);
        b.if(b.and(read.hits, written.hits), () => {
          const n = minimum(c, b.getVar(left), minimum(c, untilPageEnd(c, f, shift), untilPageEnd(c, t, shift)));
          const [here, there] = [read.at(), written.at()];
          const length = b.shl(b.wrap(n), b.i32(shift));
          b.if(b.geu(b.sub(there, here), b.extu(length)), () => {
            copy(c, there, here, length);
            b.setVar(source, b.add(f, b.extu(length)));
            b.setVar(target, b.add(t, b.extu(length)));
            const rest = b.sub(b.getVar(left), n);
            b.setVar(left, rest);
            b.br(again, b.and(b.ne(n, b.i64(0)), b.ne(rest, b.i64(0))));
          });
        });
      });
    });
    const moved = b.sub(most, b.getVar(left));
    b.if(b.ne(moved, b.i64(0)), () => b.ret(moved));
    const n = minimum(c, count, minimum(c, untilPageEnd(c, from, shift), untilPageEnd(c, to, shift)));
    b.if(b.ltu(n, b.i64(1)), () => b.ret(b.i64(SPLIT)));
    const here = c.call(hostSpan, from, b.i32(0));
    const there = c.call(hostSpan, to, b.i32(How.write));
    const length = b.shl(b.wrap(n), b.i32(shift));
    const apart = b.geu(b.sub(there, here), b.extu(length));
    b.if(b.and(b.and(b.ne(here, b.i64(0)), b.ne(there, b.i64(0))), apart), () => {
      copy(c, there, here, length);
      c.do(noteWrite, there, length);
      b.ret(n);
    });
    b.ret(b.i64(0));
  }),
);

/** Fills elements forward from a host address up to which `length` bytes may be written. */
function fill(c: Emit, size: Size, at: Value, value: Value, length: Value): void {
  const b = c.b;
  const low = b.and(b.wrap(value), b.i32(0xff));
  const uniform =
    size === 8
      ? b.i32(1)
      : b.eq(
          value,
          size === 64 ? b.mul(b.extu(low), b.i64(0x0101010101010101n)) : c.truncate(b.mul(low, b.i32(0x01010101)), size),
        );
  b.if(
    uniform,
    () => b.fill(at, low, length),
    () => {
      // One element, then what is there already behind itself, until the end.
      b.setRaw(accessOf[size], at, value);
      const done = b.variable(b.i32(size / 8));
      b.loop((again) => {
        // It is below the length: said again for who proves it.
        const there = minimum(c, b.getVar(done), length);
        b.copy(b.add(at, b.extu(there)), at, minimum(c, there, b.sub(length, there)));
        const now = b.shl(there, b.i32(1));
        b.setVar(done, now);
        b.br(again, b.ltu(now, length));
      });
    },
  );
}

/** The same for REP STOS. Parameters: linear address, the element, elements. */
const fillRun = bySize((size) =>
  sub(`fillRun${size}`, ['i64', size === 64 ? 'i64' : 'i32', 'i64'], 'i64', { faults: true }, (c, to, value, count) => {
    const b = c.b;
    const shift = LOG2[size];
    const most = minimum(c, count, b.i64(LONGEST >> shift));
    const left = b.variable(most);
    unwatched(c, () => {
      const target = b.variable(to);
      b.loop((again) => {
        const t = b.getVar(target);
        const written = inTlb(c, t, true);
        b.if(written.hits, () => {
          const n = minimum(c, b.getVar(left), untilPageEnd(c, t, shift));
          b.if(b.gtu(n, b.i64(0)), () => {
            const length = b.shl(b.wrap(n), b.i32(shift));
            fill(c, size, written.at(), value, length);
            b.setVar(target, b.add(t, b.extu(length)));
            const rest = b.sub(b.getVar(left), n);
            b.setVar(left, rest);
            b.br(again, b.ne(rest, b.i64(0)));
          });
        });
      });
    });
    const filled = b.sub(most, b.getVar(left));
    b.if(b.ne(filled, b.i64(0)), () => b.ret(filled));
    const n = minimum(c, count, untilPageEnd(c, to, shift));
    b.if(b.ltu(n, b.i64(1)), () => b.ret(b.i64(SPLIT)));
    const there = c.call(hostSpan, to, b.i32(How.write));
    b.if(b.eq(there, b.i64(0)), () => b.ret(b.i64(0)));
    const length = b.shl(b.wrap(n), b.i32(shift));
    fill(c, size, there, value, length);
    c.do(noteWrite, there, length);
    b.ret(n);
  }),
);

/**
 * Has `run` do many elements at once where nothing asks for one at a time; registers go on by as many. Gives how many elements to do one by
 * one before the next try: none where all are done.
 */
function inBulk(c: InsnEmit, size: Size, registers: readonly number[], run: (count: Value) => Value): Value {
  const b = c.b;
  const burst = b.variable(b.i32(BURST));
  const count = offset(c, R.rcx);
  b.if(b.and(b.and(plain(c), b.gtu(count, b.i64(FEW))), unlimited(c)), () => {
    // An offset of 16 bits begins anew at 64 KiB.
    const until = (n: number): Value => b.shru(b.sub(b.i64(1 << 16), offset(c, n)), b.i64(LOG2[size]));
    const most = c.addressSize === 16 ? registers.reduce((m, n) => minimum(c, m, until(n)), count) : count;
    const n = run(most);
    b.if(b.gts(n, b.i64(0)), () => {
      for (const r of registers) advance(c, r, b.shl(n, b.i64(LOG2[size])));
      advance(c, R.rcx, b.neg(n));
      b.if(b.ne(n, count), () => {
        betweenIterations(c);
        b.leave('repeat');
      });
    });
    b.setVar(burst, b.select(b.lts(n, b.i64(0)), b.i32(2), b.select(b.eqz(n), b.i32(BURST), b.i32(0))));
  });
  return b.getVar(burst);
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
      () =>
        flat
          ? inBulk(c, size, [R.rsi, R.rdi], (n) => {
              const from = c.linearData(offset(c, R.rsi), bytes, false);
              return c.call(moveRun[size], from, c.linearIn(S.es, offset(c, R.rdi), bytes, true), n);
            })
          : b.i32(BURST),
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
      () =>
        inBulk(c, size, [R.rdi], (n) =>
          c.call(fillRun[size], c.linearIn(S.es, offset(c, R.rdi), bytes, true), c.reg(R.rax, size), n),
        ),
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
