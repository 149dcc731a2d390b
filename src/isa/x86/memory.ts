// Guest memory accesses that the inline TLB check does not serve: misses, page crossings, MMIO, pages of decoded code, misaligned
// atomics (Intel SDM volume 3, sections 4.10.2 and 9.1).
//
// `how` is that of mmu.ts (`How`): log2 of the bytes, write, system. Values are zero-extended to i64.

import type { Value } from '../../ir/ir.ts';
import type { AccessName } from '../../ir/ops.ts';
import { inspect } from './debug.ts';
import type { Emit } from './emit.ts';
import { cas, codeByte, dataTlb, How, noteDirty, noteOpen, OUTSIDE, pageNumber, physicalOf, tlbFill } from './mmu.ts';
import * as st from './state.ts';
import { Ctx, FENCE, PIECE_ENTRIES, PIECE_ENTRY_BYTES, SPLIT_LOCK } from './state.ts';
import { host, sub } from './sub.ts';
import { entryOf, hostOf, TlbFlag, tagHits } from './tlb.ts';

/** Reads `bytes` (1, 2, 4, 8) at a guest-physical address outside RAM; zero-extended. Parameters: gpa, bytes. */
export const mmioRead = host('mmioRead', ['i64', 'i32'], 'i64');
/** Writes the low `bytes` of the value at a guest-physical address outside RAM. Parameters: gpa, value, bytes. */
export const mmioWrite = host('mmioWrite', ['i64', 'i64', 'i32'], null);
/** Tells that RAM bytes in a page with decoded code were written. Parameters: gpa, bytes. */
export const codeWrite = host('codeWrite', ['i64', 'i32'], null);

const sizes: readonly AccessName[] = ['i64.8u', 'i64.16u', 'i64.32u', 'i64'];

/** Runs the arm of log2 size `log2` (i32, 0 to 3), built for each size. */
function bySize(c: Emit, log2: Value, arm: (size: number) => void): void {
  const b = c.b;
  const wide = b.and(log2, b.i32(2));
  const odd = b.and(log2, b.i32(1));
  b.if(
    wide,
    () => b.if(odd, () => arm(3), () => arm(2)),
    () => b.if(odd, () => arm(1), () => arm(0)),
  ); // biome-ignore format: two levels
}

const isOutside = (c: Emit, place: Value): Value => c.b.lts(place, c.b.i64(0));
const gpaOf = (c: Emit, place: Value): Value => c.b.and(place, c.b.i64(~OUTSIDE));
const bytesOf = (c: Emit, how: Value): Value => c.b.shl(c.b.i32(1), c.b.and(how, c.b.i32(3)));
const bytesLeft = (c: Emit, addr: Value): Value => c.b.sub(c.b.i32(4096), c.b.and(c.b.wrap(addr), c.b.i32(0xfff)));

/** The address after `addr` by `n` (i32): 32 bits wide, except for 64-bit code and implicit accesses in IA-32e mode. */
const after = sub('after', ['i64', 'i32', 'i32'], 'i64', {}, (c, addr, n, how) => {
  const b = c.b;
  const sum = b.add(addr, b.extu(n));
  const ia32e = b.ne(b.and(b.wrap(c.get(st.efer)), b.i32(1 << 10)), b.i32(0));
  const implicit = b.and(ia32e, b.ne(b.and(how, b.i32(How.system)), b.i32(0)));
  b.ret(b.select(b.or(b.and(c.get(st.ctx), b.i32(Ctx.long)), implicit), sum, b.and(sum, b.i64(0xffffffffn))));
});

/**
 * The place of `addr`, up to the end of its page, for an access `how`: the host address in RAM, or `OUTSIDE` with the
 * guest-physical address. Raises what the access raises.
 */
export const place = sub('place', ['i64', 'i32'], 'i64', { faults: true }, (c, addr, how) => {
  const b = c.b;
  // The further parts of an access that began below 4 GiB.
  b.if(b.eq(b.shru(addr, b.i64(32)), b.i64(1)), () => {
    const cut = c.call(after, addr, b.i32(0), how);
    b.if(b.ne(cut, addr), () => b.ret(c.call(place, cut, how)));
  });
  const entry = entryOf(b, dataTlb(c, how), addr);
  const tag = b.raw('i64', entry);
  b.if(tagHits(b, tag, addr), () => {
    const at = hostOf(c, addr, b.raw('i32', entry, 8));
    const slow = b.and(b.wrap(tag), b.i32(1));
    b.if(b.eqz(b.and(slow, b.ne(b.and(how, b.i32(How.write)), b.i32(0)))), () => b.ret(at));
    b.if(b.and(b.raw('i32', entry, 12), b.i32(TlbFlag.writable)), () => {
      noteDirty(c, at);
      // Decoded code alone makes it slow, or made it slow once.
      b.if(b.eqz(b.raw('i32.8u', codeByte(c, at))), () => {
        b.setRaw('i64', entry, b.and(tag, b.i64(-2)));
        noteOpen(c, at, b.i32(1));
      });
      b.ret(at);
    });
  });
  b.ret(c.call(tlbFill, addr, how));
});

const readPlace = sub('readPlace', ['i64', 'i32'], 'i64', {}, (c, at, log2) => {
  const b = c.b;
  b.if(isOutside(c, at), () => b.ret(c.call(mmioRead, gpaOf(c, at), b.shl(b.i32(1), log2))));
  bySize(c, log2, (size) => b.ret(b.raw(sizes[size], at)));
  b.ret(b.i64(0));
});

/**
 * Layout of an entry of the table of pieces, which is found by the low bits of a page's number from `ramBase`: that number plus 1 (i32, 0 for
 * none), and one bit for each 64 bytes of the page (i64), set where this vCPU has decoded code.
 */
export const Pieces = { page: 0, bits: 8 } as const;
const PIECE_SHIFT = 6;

/** Tells the host of a write to RAM at host address `at` (i64) where the page holds decoded code, unless it lies beside that. */
export const noteWrite = sub('noteWrite', ['i64', 'i32'], null, {}, (c, at, bytes) => {
  const b = c.b;
  const holders = b.raw('i32.8u', codeByte(c, at));
  b.if(holders, () => {
    const table = c.get(st.codePieces);
    // More than one vCPU has code of the page: all must know. Longer writes come in bulk.
    b.if(b.and(b.ne(table, b.i32(0)), b.and(b.eq(holders, b.i32(1)), b.leu(bytes, b.i32(8)))), () => {
      const page = pageNumber(c, at);
      const place = b.shl(b.and(page, b.i32(PIECE_ENTRIES - 1)), b.i32(Math.log2(PIECE_ENTRY_BYTES)));
      const entry = b.add(table, place);
      b.if(b.eq(b.raw('i32', entry, Pieces.page), b.add(page, b.i32(1))), () => {
        const bits = b.raw('i64', entry, Pieces.bits);
        const bit = (address: Value): Value => b.shl(b.i64(1), b.and(b.shru(address, b.i64(PIECE_SHIFT)), b.i64(63)));
        const both = b.or(bit(at), bit(b.sub(b.add(at, b.extu(bytes)), b.i64(1))));
        b.if(b.eq(b.and(bits, both), b.i64(0)), () => b.ret());
      });
    });
    c.do(codeWrite, c.call(physicalOf, at), bytes);
  });
  b.ret();
});

const writePlace = sub('writePlace', ['i64', 'i64', 'i32'], null, {}, (c, at, value, log2) => {
  const b = c.b;
  const bytes = b.shl(b.i32(1), log2);
  b.if(isOutside(c, at), () => {
    c.do(mmioWrite, gpaOf(c, at), value, bytes);
    b.ret();
  });
  bySize(c, log2, (size) => b.setRaw(sizes[size], at, value));
  c.do(noteWrite, at, bytes);
  b.ret();
});

/** Runs `body` for each byte of an access that crosses a page: `index` (i64) from 0, and the byte's place. */
function forBytes(c: Emit, addr: Value, how: Value, body: (index: Value, at: Value) => void): void {
  const b = c.b;
  const left = bytesLeft(c, addr);
  const first = c.call(place, addr, how);
  // It begins a page, and less than 8 bytes are of it: said again for who proves it.
  const second = b.and(c.call(place, c.call(after, addr, left, how), how), b.i64(-4096));
  const i = b.variable(b.i32(0));
  b.loop((again) => {
    const n = b.getVar(i);
    const at = b.select(b.ltu(n, left), b.add(first, b.extu(n)), b.add(second, b.extu(b.and(b.sub(n, left), b.i32(7)))));
    body(b.extu(n), at);
    const next = b.add(n, b.i32(1));
    b.setVar(i, next);
    b.br(again, b.ltu(next, bytesOf(c, how)));
  });
}

const loadCrossing = sub('loadCrossing', ['i64', 'i32'], 'i64', { faults: true }, (c, addr, how) => {
  const b = c.b;
  const value = b.variable(b.i64(0));
  forBytes(c, addr, how, (index, at) => {
    const byte = c.call(readPlace, at, b.i32(0));
    b.setVar(value, b.or(b.getVar(value), b.shl(byte, b.shl(index, b.i64(3)))));
  });
  b.ret(b.getVar(value));
});

const storeCrossing = sub('storeCrossing', ['i64', 'i64', 'i32'], null, { faults: true }, (c, addr, value, how) => {
  const b = c.b;
  forBytes(c, addr, how, (index, at) => {
    c.do(writePlace, at, b.and(b.shru(value, b.shl(index, b.i64(3))), b.i64(0xff)), b.i32(0));
  });
  b.ret();
});

const crosses = (c: Emit, addr: Value, how: Value): Value => c.b.gtu(bytesOf(c, how), bytesLeft(c, addr));
const asWrite = (c: Emit, how: Value): Value => c.b.or(how, c.b.i32(How.write));
function count(c: Emit): void {
  c.set(st.counters[1], c.b.add(c.get(st.counters[1]), c.b.i32(1)));
}

/** Reads 1 to 8 bytes at a linear address; with `How.write` the access must be writable too. Raises #PF and #GP(0). */
export const loadSlow = sub('loadSlow', ['i64', 'i32'], 'i64', { faults: true }, (c, addr, how) => {
  const b = c.b;
  count(c);
  inspect(c, addr, how);
  b.if(crosses(c, addr, how), () => b.ret(c.call(loadCrossing, addr, how)));
  b.ret(c.call(readPlace, c.call(place, addr, how), b.and(how, b.i32(3))));
});

/** Writes the low 1 to 8 bytes of the value; where it crosses a page, nothing is written unless both allow it. Raises #PF and #GP(0). */
export const storeSlow = sub('storeSlow', ['i64', 'i64', 'i32'], null, { faults: true }, (c, addr, value, how) => {
  const b = c.b;
  count(c);
  const write = asWrite(c, how);
  inspect(c, addr, write);
  b.if(
    crosses(c, addr, how),
    () => c.do(storeCrossing, addr, value, write),
    () => c.do(writePlace, c.call(place, addr, write), value, b.and(how, b.i32(3))),
  );
  b.ret();
});

/** Raises what reading `bytes` bytes (1 and more, over any number of pages) from `addr` would raise, lowest page first. */
export const probeRead = sub('probeRead', ['i64', 'i32', 'i32'], null, { faults: true }, (c, addr, bytes, how) => {
  const b = c.b;
  const at = b.variable(addr);
  const rest = b.variable(bytes);
  b.loop((again) => {
    const here = b.getVar(at);
    c.call(place, here, how);
    const left = bytesLeft(c, here);
    const more = b.getVar(rest);
    b.setVar(at, c.call(after, here, left, how));
    b.setVar(rest, b.sub(more, left));
    b.br(again, b.gtu(more, left));
  });
  b.ret();
});

/** The same for writing. Afterwards stores of the range do not fault. */
export const probeWrite = sub('probeWrite', ['i64', 'i32', 'i32'], null, { faults: true }, (c, addr, bytes, how) => {
  c.do(probeRead, addr, bytes, asWrite(c, how));
  c.b.ret();
});

/** Reads 16 bytes as two times 8. Raises #PF and #GP(0). */
export const loadVectorSlow = sub('loadVectorSlow', ['i64', 'i32'], 'v128', { faults: true }, (c, addr, how) => {
  const b = c.b;
  const eight = b.or(how, b.i32(3));
  const low = c.call(loadSlow, addr, eight);
  const high = c.call(loadSlow, b.add(addr, b.i64(8)), eight);
  b.ret(b.lane('i64x2.replace_lane', [1], b.op('i64x2.splat', low), high));
});
/** Writes 16 bytes as two times 8 where all of `bytes` bytes from there may be written, else nothing. Raises #PF and #GP(0). */
export const storeVectorSlow = sub(
  'storeVectorSlow',
  ['i64', 'v128', 'i32', 'i32'],
  null,
  { faults: true },
  (c, addr, value, bytes, how) => {
    const b = c.b;
    c.do(probeWrite, addr, bytes, how);
    const eight = b.or(how, b.i32(3));
    c.do(storeSlow, addr, b.lane('i64x2.extract_lane', [0], value), eight);
    c.do(storeSlow, b.add(addr, b.i64(8)), b.lane('i64x2.extract_lane', [1], value), eight);
    b.ret();
  },
);

/**
 * Host address (i64) of `addr` where it and the rest of its page may be accessed directly, or 0 (MMIO, or while accesses are watched). Who
 * writes tells `noteWrite`. Raises what an access raises.
 */
export const hostSpan = sub('hostSpan', ['i64', 'i32'], 'i64', { faults: true }, (c, addr, how) => {
  const b = c.b;
  b.if(b.or(c.get(st.watch), c.get(st.alignCheck)), () => b.ret(b.i64(0)));
  const at = c.call(place, addr, how);
  b.ret(b.select(isOutside(c, at), b.i64(0), at));
});

// -- atomics

/**
 * Takes the machine's lock for accesses that span more than 8 aligned bytes: such atomics are atomic among each other. An exception inside
 * lets it go when it is delivered.
 */
export const splitLock = sub('splitLock', [], null, {}, (c) => {
  const b = c.b;
  b.loop((again) => {
    const found = c.call(cas, b.i64(SPLIT_LOCK), b.i64(0), b.i64(1), b.i32(2));
    b.br(again, b.ne(found, b.i64(0)));
  });
  c.set(st.splitHeld, b.i32(1));
  b.ret();
});
export const splitUnlock = sub('splitUnlock', [], null, {}, (c) => {
  const b = c.b;
  c.set(st.splitHeld, b.i32(0));
  c.call(cas, b.i64(SPLIT_LOCK), b.i64(1), b.i64(0), b.i32(2));
  b.ret();
});
/** All stores before are seen by all before any load after. */
export function fence(c: Emit): void {
  const b = c.b;
  c.call(cas, b.i64(FENCE), b.i64(0), b.i64(0), b.i32(2));
}

/** Operator numbers of `rmwSlow`, in bits 8 to 10 of `how`. */
export const RMW = { add: 0, sub: 1, and: 2, or: 3, xor: 4, xchg: 5 } as const;

/** The new value of a read-modify-write. */
const combine = sub('combine', ['i64', 'i64', 'i32'], 'i64', {}, (c, old, value, how) => {
  const b = c.b;
  const op = b.and(b.shru(how, b.i32(8)), b.i32(7));
  const is = (n: number): Value => b.eq(op, b.i32(n));
  let r = b.select(is(RMW.sub), b.sub(old, value), value);
  r = b.select(is(RMW.add), b.add(old, value), r);
  r = b.select(is(RMW.and), b.and(old, value), r);
  r = b.select(is(RMW.or), b.or(old, value), r);
  b.ret(b.select(is(RMW.xor), b.xor(old, value), r));
});

/** `value` cut to the access's bytes. */
function cut(c: Emit, value: Value, how: Value): Value {
  const b = c.b;
  const unused = b.extu(b.sub(b.i32(64), b.shl(bytesOf(c, how), b.i32(3))));
  return b.shru(b.shl(value, unused), unused);
}

/** 1 where the place is RAM and the access lies in 8 aligned bytes: then `casWithin` serves it. */
function casServes(c: Emit, at: Value, how: Value): Value {
  const b = c.b;
  const end = b.add(b.and(b.wrap(at), b.i32(7)), bytesOf(c, how));
  return b.and(b.xor(isOutside(c, at), b.i32(1)), b.leu(end, b.i32(8)));
}

/** `cas` that also serves an address that is not aligned, by way of the 8 aligned bytes around it. */
const casWithin = sub('casWithin', ['i64', 'i64', 'i64', 'i32'], 'i64', {}, (c, ptr, expected, value, how) => {
  const b = c.b;
  b.if(b.eqz(b.and(b.wrap(ptr), b.sub(bytesOf(c, how), b.i32(1)))), () =>
    b.ret(c.call(cas, ptr, expected, value, b.and(how, b.i32(3)))),
  );
  const base = b.and(ptr, b.i64(~7));
  const shift = b.shl(b.and(ptr, b.i64(7)), b.i64(3));
  const mask = b.shl(cut(c, b.i64(-1), how), shift);
  b.loop((again) => {
    const word = b.raw('i64', base);
    const old = b.shru(b.and(word, mask), shift);
    b.if(b.ne(old, expected), () => b.ret(old));
    const merged = b.or(b.and(word, b.not(mask)), b.shl(value, shift));
    b.br(again, b.ne(c.call(cas, base, word, merged, b.i32(3)), word));
    b.ret(old);
  });
});

/**
 * Read-modify-write of 1 to 8 bytes with the operator in bits 8–10 of `how` (`RMW`); gives the old value. Atomic in RAM
 * within 8 aligned bytes, beyond them among its like. Raises #PF and #GP(0).
 */
export const rmwSlow = sub('rmwSlow', ['i64', 'i64', 'i32'], 'i64', { faults: true }, (c, addr, value, how) => {
  const b = c.b;
  count(c);
  const log2 = b.and(how, b.i32(3));
  const write = asWrite(c, how);
  inspect(c, addr, write);
  b.if(crosses(c, addr, how), () => {
    c.do(splitLock);
    const old = c.call(loadCrossing, addr, write);
    c.do(storeCrossing, addr, c.call(combine, old, value, how), write);
    c.do(splitUnlock);
    b.ret(old);
  });
  const at = c.call(place, addr, write);
  const split = b.eqz(casServes(c, at, how));
  b.if(split, () => c.do(splitLock));
  const old = b.variable(c.call(readPlace, at, log2));
  b.if(
    b.eqz(split),
    () => {
      b.loop((again) => {
        const expected = b.getVar(old);
        const found = c.call(casWithin, at, expected, cut(c, c.call(combine, expected, value, how), how), how);
        b.setVar(old, found);
        b.br(again, b.ne(found, expected));
      });
      c.do(noteWrite, at, bytesOf(c, how));
    },
    () => {
      c.do(writePlace, at, c.call(combine, b.getVar(old), value, how), log2);
      c.do(splitUnlock);
    },
  );
  b.ret(b.getVar(old));
});

/** Compare-and-exchange of 1 to 8 bytes; gives the old value. Needs write permission in any case. Raises #PF and #GP(0). */
export const cmpxchgSlow = sub(
  'cmpxchgSlow',
  ['i64', 'i64', 'i64', 'i32'],
  'i64',
  { faults: true },
  (c, addr, expected, value, how) => {
    const b = c.b;
    count(c);
    const log2 = b.and(how, b.i32(3));
    const write = asWrite(c, how);
    inspect(c, addr, write);
    const wanted = cut(c, expected, how);
    b.if(crosses(c, addr, how), () => {
      c.do(splitLock);
      const old = c.call(loadCrossing, addr, write);
      b.if(b.eq(old, wanted), () => c.do(storeCrossing, addr, value, write));
      c.do(splitUnlock);
      b.ret(old);
    });
    const at = c.call(place, addr, write);
    b.if(casServes(c, at, how), () => {
      const found = c.call(casWithin, at, wanted, cut(c, value, how), how);
      b.if(b.eq(found, wanted), () => c.do(noteWrite, at, bytesOf(c, how)));
      b.ret(found);
    });
    c.do(splitLock);
    const old = c.call(readPlace, at, log2);
    b.if(b.eq(old, wanted), () => c.do(writePlace, at, value, log2));
    c.do(splitUnlock);
    b.ret(old);
  },
);
