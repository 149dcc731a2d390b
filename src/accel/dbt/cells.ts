// Cells: each access of translated code remembers the page that it touched last, at an address of its own. A cell that hits saves the
// look-up's arithmetic and takes the TLB off the way from one access to the next. It holds while the key is that under which it was filled.

import type { Value } from '../../ir/ir.ts';
import type { AccessName } from '../../ir/ops.ts';
import type { Emit } from '../../isa/x86/emit.ts';
import { loadSlow, storeSlow } from '../../isa/x86/memory.ts';
import * as st from '../../isa/x86/state.ts';
import { host, sub } from '../../isa/x86/sub.ts';
import { entryOf, tagHits } from '../../isa/x86/tlb.ts';

/** Layout of a cell: page (i64), key (i64; never 0 in one that was filled), addend (i32), misses (i32). */
export const Cell = { page: 0, key: 8, addend: 16, misses: 20 } as const;
/** Misses of a cell between two reports. */
export const CELL_MISSES = 1024;
/** `how`: log2 of the bytes, and for groups the bytes in bits 8 up; bit 2 asks for writing (memory.ts). */
const WRITE = 4;
/** Bits of the TLB's host address that tell the TLBs apart, and how far they are moved down into the key: bits 12 and 13. */
export const TLB_BITS = { mask: 0x30000, shift: 4 } as const;

/** A cell has missed `CELL_MISSES` times since the last report. The parameter is its host address. */
export const manyMisses = host('manyMisses', ['i32'], null);

const sizes: readonly AccessName[] = ['i64.8u', 'i64.16u', 'i64.32u', 'i64'];

/** The key now. Its low 12 bits are zero. */
function key(c: Emit): Value {
  const b = c.b;
  return b.or(c.get(st.cellKey), b.extu(b.shru(b.and(c.get(st.tlb), b.i32(TLB_BITS.mask)), b.i32(TLB_BITS.shift))));
}

/** Looks the bytes from `addr` to `last` up in the TLB: on a hit fills the cell and gives the host address of `addr`, else 0. */
function fill(c: Emit, addr: Value, last: Value, write: Value, cell: Value): Value {
  const b = c.b;
  const misses = b.add(b.raw('i32', cell, Cell.misses), b.i32(1));
  b.setRaw('i32', cell, misses, Cell.misses);
  b.if(b.eqz(b.and(misses, b.i32(CELL_MISSES - 1))), () => c.do(manyMisses, cell));
  const entry = entryOf(b, c.get(st.tlb), addr);
  const tag = b.raw('i64', entry);
  const page = b.and(tag, b.i64(-4096));
  const slow = b.and(b.and(b.wrap(tag), b.i32(1)), write);
  const hit = b.and(b.eqz(slow), b.and(tagHits(b, page, addr), tagHits(b, page, last)));
  return c.choose(
    'i32',
    hit,
    () => {
      const addend = b.raw('i32', entry, 8);
      b.setRaw('i64', cell, page, Cell.page);
      b.setRaw('i64', cell, key(c), Cell.key);
      b.setRaw('i32', cell, addend, Cell.addend);
      return b.add(b.wrap(addr), addend);
    },
    () => b.i32(0),
  );
}

function bySize(c: Emit, log2: Value, arm: (size: number) => void): void {
  const b = c.b;
  for (let size = 0; size < 3; size++) b.if(b.eq(log2, b.i32(size)), () => arm(size));
  arm(3);
}

const lastOf = (c: Emit, addr: Value, how: Value): Value =>
  c.b.add(addr, c.b.sub(c.b.shl(c.b.i64(1), c.b.extu(c.b.and(how, c.b.i32(3)))), c.b.i64(1)));

/** Reads like `loadSlow`, whose cell has missed. */
export const cellLoad = sub('cellLoad', ['i64', 'i32', 'i32'], 'i64', { faults: true }, (c, addr, how, cell) => {
  const b = c.b;
  const at = fill(c, addr, lastOf(c, addr, how), b.i32(0), b.add(b.env, cell));
  b.if(at, () => bySize(c, b.and(how, b.i32(3)), (size) => b.ret(b.raw(sizes[size], at))));
  b.ret(c.call(loadSlow, addr, how));
});

/** Writes like `storeSlow`, whose cell has missed. */
export const cellStore = sub('cellStore', ['i64', 'i64', 'i32', 'i32'], null, { faults: true }, (c, addr, value, how, cell) => {
  const b = c.b;
  const at = fill(c, addr, lastOf(c, addr, how), b.i32(1), b.add(b.env, cell));
  b.if(at, () =>
    bySize(c, b.and(how, b.i32(3)), (size) => {
      b.setRaw(sizes[size], at, value);
      b.ret();
    }),
  );
  c.do(storeSlow, addr, value, how);
  b.ret();
});

/** Host address of a group's lowest byte, whose cell has missed; 0 where its accesses go one by one. `how`: bytes << 8, or'ed with 4 for writing. */
export const cellGroup = sub('cellGroup', ['i64', 'i32', 'i32'], 'i32', {}, (c, addr, how, cell) => {
  const b = c.b;
  const last = b.add(addr, b.extu(b.sub(b.shru(how, b.i32(8)), b.i32(1))));
  b.ret(fill(c, addr, last, b.ne(b.and(how, b.i32(WRITE)), b.i32(0)), b.add(b.env, cell)));
});
