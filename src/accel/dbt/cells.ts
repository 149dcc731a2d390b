// Cells: each access of translated code remembers the page that it touched last, at an address of its own. A cell that hits saves the
// look-up's arithmetic and takes the TLB off the way from one access to the next. It holds while the key is that under which it was filled.
// Accesses near each other share one (groups.ts). Where the page is not to be had (a fault, MMIO, decoded code, another page at the end),
// the region is left and tier 0 runs the instruction.

import type { Value } from '../../ir/ir.ts';
import type { Emit } from '../../isa/x86/emit.ts';
import { place } from '../../isa/x86/memory.ts';
import { How } from '../../isa/x86/mmu.ts';
import * as st from '../../isa/x86/state.ts';
import { host, sub } from '../../isa/x86/sub.ts';
import { ChainedCell, entryOf, hostOf, inUpperHalf, TlbFlag, tagHits } from '../../isa/x86/tlb.ts';

/**
 * Layout of a cell: page (i64), key (i64; never 0 in one that holds), addend (i32), misses (i32), and the next one (i32) of the chain that a CR3
 * write goes through: those filled from pages that are not global.
 */
export const Cell = { page: 0, key: ChainedCell.key, addend: 16, misses: 20, link: ChainedCell.link } as const;
/** Misses of a cell between two reports (a power of two), and how many a look counts for that is not served: tier 0 goes on then for a while. */
export const CELL_MISSES = 1024;
const REFUSED = 128;

/** A look as one word for `cellLook`. */
export const Look = {
  /** Some access of the group writes; its first one does. */
  write: 1,
  firstWrites: 2,
  /** Bytes from the lowest to the end of the highest access, and from the lowest to the first one. */
  bytesShift: 2,
  firstShift: 13,
  mask: 0x7ff,
  /** Its accesses can do without it. */
  soft: 1 << 24,
  /** It is on the stack. */
  stackShift: 25,
} as const;

/** A cell has missed `CELL_MISSES` times since the last report. The parameter is its host address, plus 1 where the stack lay on another page. */
export const manyMisses = host('manyMisses', ['i32'], null);

/** Counts misses of the cell at host address `cell`. */
function miss(c: Emit, cell: Value, times: number, stack = c.b.i32(0)): void {
  const b = c.b;
  const before = b.raw('i32', cell, Cell.misses);
  const now = b.add(before, b.i32(times));
  b.setRaw('i32', cell, now, Cell.misses);
  b.if(b.geu(b.xor(before, now), b.i32(CELL_MISSES)), () => c.do(manyMisses, b.or(cell, stack)));
}

/** Has a cell remember what a TLB entry holds. */
function note(c: Emit, entry: Value, page: Value, addend: Value, addr: Value, cell: Value): void {
  const b = c.b;
  const now = c.get(st.cellKey);
  // One that was filled under this number may be in the chain already, where it stays.
  const fresh = b.ne(b.shru(b.xor(b.raw('i64', cell, Cell.key), now), b.i64(14)), b.i64(0));
  const outside = b.or(fresh, b.eqz(b.raw('i32', cell, Cell.link)));
  b.if(outside, () => {
    b.if(
      b.and(b.raw('i32', entry, 12), b.i32(TlbFlag.global)),
      () => {
        b.setRaw('i32', cell, b.i32(0), Cell.link);
        c.set(st.lowerGlobal, b.or(c.get(st.lowerGlobal), b.xor(inUpperHalf(c, addr), b.i32(1))));
      },
      () => {
        b.setRaw('i32', cell, b.or(c.get(st.cellChain), b.i32(ChainedCell.member)), Cell.link);
        c.set(st.cellChain, cell);
      },
    );
  });
  b.setRaw('i64', cell, page, Cell.page);
  b.setRaw('i64', cell, now, Cell.key);
  b.setRaw('i32', cell, addend, Cell.addend);
}

/** Where the TLB holds the page of the bytes from `addr` to `last`: fills the cell, if there is one, and returns the host address of `addr`. */
function fill(c: Emit, addr: Value, last: Value, write: Value, cell?: Value): void {
  const b = c.b;
  const entry = entryOf(b, c.get(st.tlb), addr);
  const tag = b.raw('i64', entry);
  const page = b.and(tag, b.i64(-4096));
  const slow = b.and(b.and(b.wrap(tag), b.i32(1)), write);
  b.if(b.and(b.eqz(slow), b.and(tagHits(b, page, addr), tagHits(b, page, last))), () => {
    const addend = b.raw('i32', entry, 8);
    if (cell) note(c, entry, page, addend, addr, cell);
    b.ret(hostOf(c, addr, addend));
  });
}

/** What a look is about: the last of its bytes, whether it writes, and how its page is asked for. */
function looked(c: Emit, addr: Value, look: Value): { last: Value; write: Value; ask: () => void } {
  const b = c.b;
  const field = (shift: number): Value => b.extu(b.and(b.shru(look, b.i32(shift)), b.i32(Look.mask)));
  return {
    last: b.sub(b.add(addr, field(Look.bytesShift)), b.i64(1)),
    write: b.and(look, b.i32(Look.write)),
    ask() {
      const how = b.shl(b.and(look, b.i32(Look.firstWrites)), b.i32(Math.log2(How.write / Look.firstWrites)));
      c.call(place, b.add(addr, field(Look.firstShift)), how);
    },
  };
}
/** Nothing serves the look. */
function refuse(c: Emit, look: Value, cell: Value): void {
  const b = c.b;
  b.if(b.eqz(b.and(look, b.i32(Look.soft))), () => miss(c, cell, REFUSED));
  b.ret(b.i64(0));
}
/** Pages that a breakpoint or alignment checks keep out of the TLB stay out, and what lies on two pages is not looked for. */
const askable = (c: Emit, addr: Value, last: Value): Value =>
  c.b.and(c.b.eqz(c.b.or(c.get(st.watch), c.get(st.alignCheck))), tagHits(c.b, c.b.and(addr, c.b.i64(-4096)), last));

/**
 * The cell at `cell` (from the state) has missed: host address (i64) of the group's lowest byte, which is at `addr`; or 0, where its first access
 * has raised something, or tier 0 has to run it. `look`: see there.
 */
export const cellLook = sub('cellLook', ['i64', 'i32', 'i32'], 'i64', { faults: true }, (c, addr, look, cell) => {
  const b = c.b;
  const { last, write, ask } = looked(c, addr, look);
  const at = b.add(b.env, cell);
  miss(c, at, 1, b.and(b.shru(look, b.i32(Look.stackShift)), b.i32(1)));
  fill(c, addr, last, write, at);
  b.if(askable(c, addr, last), () => {
    ask();
    fill(c, addr, last, write, at);
  });
  refuse(c, look, at);
});
/** The same for a look into the TLB that was not served: the cell counts only how often. */
export const pageLook = sub('pageLook', ['i64', 'i32', 'i32'], 'i64', { faults: true }, (c, addr, look, cell) => {
  const b = c.b;
  const { last, write, ask } = looked(c, addr, look);
  b.if(askable(c, addr, last), () => {
    ask();
    fill(c, addr, last, write);
  });
  refuse(c, look, b.add(b.env, cell));
});
