// Upkeep of the software TLBs and the jump cache: filling, flushing, write protection (Intel SDM volume 3, section 4.10).
//
// An entry is: tag (i64), addend (i32), and a word of four flags and a link. The addend is what makes the page's host address of the low 32
// bits of its linear address: in bytes, and the sum has 32 bits; or in pages of 4 KiB, where host addresses may be beyond 4 GiB. Entries filled from non-global pages form a chain
// through those links, so that a CR3 write visits what was filled since the last one and not three whole tables. An invalid
// entry keeps its place in the chain. PCIDs do not tag entries: the TLBs hold the current PCID's pages and global ones.

import type { Builder } from '../../ir/builder.ts';
import type { Label, Value } from '../../ir/ir.ts';
import type { Emit } from './emit.ts';
import * as st from './state.ts';
import { JUMP_ENTRIES, JUMP_ENTRY_BYTES, TLB_ENTRIES } from './state.ts';
import { sub } from './sub.ts';

/** Flags in an entry's last word; above them is the host address of the next entry of the chain (entries are 16-byte aligned). */
export const TlbFlag = {
  /** The page is global: it survives a CR3 write. */
  global: 1,
  /** A fragment of a page larger than 4 KiB. */
  large: 2,
  /** Stores are allowed and the page is dirty: bit 0 of the tag is set for decoded code only. */
  writable: 4,
  /** The entry is in the chain. */
  chained: 8,
} as const;
const FLAGS = 15;
const ADDEND = 8;
const WORD = 12;
const HASH = 0x9e3779b1;

// -- the jump cache

const GROUPS = 128;
const PLACES = JUMP_ENTRIES / GROUPS;
const GROUP_BYTES = PLACES * JUMP_ENTRY_BYTES;
const HALF_BYTES = (GROUPS / 2) * GROUP_BYTES;
/** Shift of the group's number in a place that `jumpOffset` gives. */
export const JUMP_GROUP_SHIFT = Math.log2(GROUP_BYTES);

/** 1 (i32) for a linear address in the upper half. */
export function inUpperHalf(c: Emit, addr: Value): Value {
  const b = c.b;
  return b.wrap(b.shru(b.add(addr, c.get(st.halves)), b.i64(63)));
}

/** Byte offset in the jump cache of the group of the page that holds `addr`: the upper half of the addresses has the upper groups. */
function jumpGroup(c: Emit, addr: Value): Value {
  const b = c.b;
  const page = b.wrap(b.shru(addr, b.i64(12)));
  const group = b.and(b.xor(page, b.shru(page, b.i32(5))), b.i32(GROUPS / 2 - 1));
  const upper = inUpperHalf(c, addr);
  return b.add(b.mul(group, b.i32(GROUP_BYTES)), b.mul(upper, b.i32(HALF_BYTES)));
}

/** Byte offset in the jump cache of the entry for the linear address `addr` (i64): the entries of a page are contiguous. */
export function jumpIndex(c: Emit, addr: Value): Value {
  const b = c.b;
  const low = b.and(b.wrap(addr), b.i32(0xfff));
  const place = b.and(b.xor(low, b.shru(low, b.i32(5))), b.i32(PLACES - 1));
  return b.add(jumpGroup(c, addr), b.mul(place, b.i32(JUMP_ENTRY_BYTES)));
}

/** Notes that the jump cache's group of `addr` holds something. */
export function noteJump(c: Emit, addr: Value): void {
  const b = c.b;
  // An address of the upper half sets a bit, too: no harm is done.
  const page = b.shru(addr, b.i64(12));
  const group = b.and(b.xor(page, b.shru(page, b.i64(5))), b.i64(GROUPS / 2 - 1));
  c.set(st.jumpGroups, b.or(c.get(st.jumpGroups), b.shl(b.i64(1), group)));
}

/** The same for an address given as its low and high 32 bits; `upper` 1 where it is in the upper half. */
export function jumpOffset(low: number, high: number, upper = high >>> 31): number {
  const page = (low >>> 12) | (high << 20);
  const group = (page ^ (page >>> 5)) & (GROUPS / 2 - 1);
  const place = ((low & 0xfff) ^ ((low & 0xfff) >>> 5)) & (PLACES - 1);
  return group * GROUP_BYTES + upper * HALF_BYTES + place * JUMP_ENTRY_BYTES;
}

// -- pieces

/** Host address of the entry of `addr` in the TLB at `tlb`. */
export function entryOf(b: Builder, tlb: Value, addr: Value): Value {
  const page = b.and(b.wrap(b.shru(addr, b.i64(12))), b.i32(TLB_ENTRIES - 1));
  return b.add(tlb, b.shl(page, b.i32(4)));
}

/** 1 where an entry with this tag holds the page of `addr`. */
export function tagHits(b: Builder, tag: Value, addr: Value): Value {
  return b.ltu(b.xor(tag, addr), b.i64(4096));
}

/** The tag that makes entry number `index` (i32) match nothing. */
function emptyTag(b: Builder, index: Value): Value {
  return b.shl(b.extu(b.xor(index, b.i32(TLB_ENTRIES / 2))), b.i64(12));
}

/** Clears one entry of each TLB where `matches` says so, keeping chain and link. */
function dropMatching(c: Emit, index: Value, matches: (tag: Value) => Value): void {
  const b = c.b;
  const empty = emptyTag(b, index);
  for (const slot of st.tlbs) {
    const entry = b.add(c.get(slot), b.shl(index, b.i32(4)));
    b.if(matches(b.raw('i64', entry)), () => b.setRaw('i64', entry, empty));
  }
}

/** Runs `body` for `count` consecutive values from `first` (i32). */
function forEach(c: Emit, first: Value, count: number, body: (value: Value, again: Label) => void): void {
  const b = c.b;
  const i = b.variable(first);
  const end = b.add(first, b.i32(count));
  b.loop((again) => {
    const now = b.getVar(i);
    body(now, again);
    const next = b.add(now, b.i32(1));
    b.setVar(i, next);
    b.br(again, b.ltu(next, end));
  });
}

/** Host address of the filter word (i32) of the 4 MiB that hold `addr`, less the offset of `largePages`; and the bit in it. */
function largeBit(c: Emit, addr: Value): { word: Value; bit: Value } {
  const b = c.b;
  const hash = b.shru(b.mul(b.wrap(b.shru(addr, b.i64(22))), b.i32(HASH)), b.i32(21));
  return { word: b.add(b.env, b.shl(b.shru(hash, b.i32(5)), b.i32(2))), bit: b.shl(b.i32(1), hash) };
}

/** Filter bit (i64) of the 1 GiB that holds `addr`. */
function hugeBit(c: Emit, addr: Value): Value {
  const b = c.b;
  const hash = b.shru(b.mul(b.wrap(b.shru(addr, b.i64(30))), b.i32(HASH)), b.i32(26));
  return b.shl(b.i64(1), b.extu(hash));
}

/** Remembers that the TLBs hold fragments of the 2 or 4 MiB page (`huge` 0) or 1 GiB page (1) of `addr`. */
export const markLarge = sub('markLarge', ['i64', 'i32'], null, {}, (c, addr, huge) => {
  const b = c.b;
  b.if(
    huge,
    () => c.set(st.hugePages, b.or(c.get(st.hugePages), hugeBit(c, addr))),
    () => {
      const { word, bit } = largeBit(c, addr);
      const offset = st.largePages[0].offset;
      b.setRaw('i32', word, b.or(b.raw('i32', word, offset), bit), offset);
    },
  );
  b.ret();
});

const low32 = (b: Builder, addr: Value): Value => b.and(addr, b.i64(0xffffffffn));
/** The addend (i32) of a page at host address `at` (i64) and linear address `linear`. */
export function addendOf(c: Emit, at: Value, linear: Value): Value {
  const b = c.b;
  return b.wrap(b.shrs(b.sub(at, low32(b, linear)), b.extu(c.get(st.addendShift))));
}
/** Host address (i64) of the linear address `addr` by an entry's addend. */
export function hostOf(c: Emit, addr: Value, addend: Value): Value {
  const b = c.b;
  const shift = c.get(st.addendShift);
  const sum = b.add(low32(b, addr), b.shl(b.exts(addend), b.extu(shift)));
  return b.select(shift, sum, low32(b, sum));
}

/** Writes an entry. `tag`: page | slow bit; `addend`: see `addendOf`; `flags`: `TlbFlag` but `chained`. */
export function putEntry(c: Emit, entry: Value, tag: Value, addend: Value, flags: Value): void {
  const b = c.b;
  b.setRaw('i64', entry, tag);
  b.setRaw('i32', entry, addend, ADDEND);
  const word = b.or(b.and(b.raw('i32', entry, WORD), b.i32(~(FLAGS & ~TlbFlag.chained))), flags);
  b.if(
    b.or(b.and(flags, b.i32(TlbFlag.global)), b.and(word, b.i32(TlbFlag.chained))),
    () => b.setRaw('i32', entry, word, WORD),
    () => {
      // Outside the chain nothing but the flags is there.
      b.setRaw('i32', entry, b.or(flags, b.or(c.get(st.tlbChain), b.i32(TlbFlag.chained))), WORD);
      c.set(st.tlbChain, entry);
    },
  );
}

// -- flushes

/**
 * Of a cell (accel/dbt/cells.ts): places of the key that it holds under (i64) and of its link in the chain (i32): the next one's address with the
 * bit `member`; 0 for one that was filled outside the chain.
 */
export const ChainedCell = { key: 8, link: 24, member: 1 } as const;

/** What single accesses of translated code know of TLB entries holds no more. */
function nextCells(c: Emit): void {
  c.set(st.cellKey, c.b.add(c.get(st.cellKey), c.b.i64(st.CELL_KEY_STEP)));
  c.set(st.cellChain, c.b.i32(0));
  c.set(st.lowerGlobal, c.b.i32(0));
}
/** What they know of non-global pages holds no more. */
function dropCells(c: Emit): void {
  const b = c.b;
  const at = b.variable(c.get(st.cellChain));
  b.block((done) => {
    b.loop((again) => {
      const cell = b.getVar(at);
      b.br(done, b.eqz(cell));
      b.setRaw('i64', cell, b.i64(0), ChainedCell.key);
      b.setVar(at, b.and(b.raw('i32', cell, ChainedCell.link), b.i32(~ChainedCell.member)));
      b.br(again);
    });
  });
  c.set(st.cellChain, b.i32(0));
}
/** Bits of a TLB's host address that tell the TLBs apart, and how far they are moved down into the key of cells. */
const TLB_BITS = { mask: 0x30000, shift: 4 } as const;
/** Accesses go by this TLB from here on. */
export function setTlb(c: Emit, tlb: Value): void {
  const b = c.b;
  const number = b.extu(b.shru(b.and(tlb, b.i32(TLB_BITS.mask)), b.i32(TLB_BITS.shift)));
  c.set(st.tlb, tlb);
  c.set(st.cellKey, b.or(b.and(c.get(st.cellKey), b.i64(-st.CELL_KEY_STEP)), number));
}
/** The epoch behind `epoch`: see `epochs`. */
export const epochAfter = (epoch: number, half: 0 | 1): number => (half === 1 ? (epoch + 2) | 1 : (epoch + 2) | 0 || 2);
/** What was known of code in a half of the addresses (0 lower, 1 upper) is not known any more. */
function nextEpoch(c: Emit, half: 0 | 1): void {
  const b = c.b;
  const next = b.add(c.get(st.epochs[half]), b.i32(2));
  // An odd number is never 0.
  c.set(st.epochs[half], half === 1 ? b.or(next, b.i32(1)) : b.select(next, next, b.i32(2)));
}

/**
 * Empties the three TLBs, global pages included, and the jump cache. A vCPU begins with it: the tables' memory may hold anything
 * before. The tables must be 16-byte aligned, and the bytes of one, or a multiple of them, apart.
 */
export const flushAll = sub('flushAll', [], null, {}, (c) => {
  const b = c.b;
  const none = b.v128(Array.from({ length: 16 }, () => 0));
  const bases = st.tlbs.map((slot) => c.get(slot));
  forEach(c, b.i32(0), TLB_ENTRIES, (i) => {
    const empty = b.lane('i64x2.replace_lane', [0], none, emptyTag(b, i));
    const offset = b.shl(i, b.i32(4));
    for (const base of bases) b.setRaw('v128', b.add(base, offset), empty);
  });
  c.set(st.tlbChain, b.i32(0));
  c.set(st.upperNonGlobal, b.i32(0));
  c.set(st.hugePages, b.i64(0));
  for (const slot of st.largePages) c.set(slot, none);
  c.set(st.jumpGroups, b.i64(0));
  b.fill(c.get(st.jumpCache), b.i32(0), b.i32(JUMP_ENTRIES * JUMP_ENTRY_BYTES));
  nextEpoch(c, 0);
  nextEpoch(c, 1);
  nextCells(c);
  c.set(st.counters[3], b.add(c.get(st.counters[3]), b.i32(1)));
  b.ret();
});

/** Drops what is not global: every chained entry that is not global now, and the jump cache's groups that may depend on it. */
export const flushNonGlobal = sub('flushNonGlobal', [], null, {}, (c) => {
  const b = c.b;
  const base = c.get(st.tlbs[0]);
  const at = b.variable(c.get(st.tlbChain));
  b.block((done) => {
    b.loop((again) => {
      const entry = b.getVar(at);
      b.br(done, b.eqz(entry));
      const word = b.raw('i32', entry, WORD);
      b.if(
        b.and(word, b.i32(TlbFlag.global)),
        () => b.setRaw('i32', entry, b.and(word, b.i32(FLAGS & ~TlbFlag.chained)), WORD),
        () => {
          // Whichever table it is in: they lie as far apart as one is long, or a multiple of that.
          const index = b.and(b.shru(b.sub(entry, base), b.i32(4)), b.i32(TLB_ENTRIES - 1));
          b.setRaw('i64', entry, emptyTag(b, index));
          b.setRaw('i32', entry, b.i32(0), WORD);
        },
      );
      b.setVar(at, b.and(word, b.i32(~FLAGS)));
      b.br(again);
    });
  });
  c.set(st.tlbChain, b.i32(0));
  b.if(
    c.get(st.upperNonGlobal),
    () => b.fill(c.get(st.jumpCache), b.i32(0), b.i32(2 * HALF_BYTES)),
    () => {
      const groups = b.variable(c.get(st.jumpGroups));
      b.block((done) => {
        b.loop((again) => {
          const left = b.getVar(groups);
          b.br(done, b.eqz(left));
          const group = b.mul(b.wrap(b.ctz(left)), b.i32(GROUP_BYTES));
          b.fill(b.add(c.get(st.jumpCache), group), b.i32(0), b.i32(GROUP_BYTES));
          b.setVar(groups, b.and(left, b.sub(left, b.i64(1))));
          b.br(again);
        });
      });
    },
  );
  c.set(st.jumpGroups, b.i64(0));
  nextEpoch(c, 0);
  b.if(c.get(st.upperNonGlobal), () => nextEpoch(c, 1));
  dropCells(c);
  b.ret();
});

/** Drops every entry of the 4 MiB (`huge` 0) or the 1 GiB (1) around `addr`, and the whole jump cache. */
const flushLarge = sub('flushLarge', ['i64', 'i32'], null, {}, (c, addr, huge) => {
  const b = c.b;
  const same =
    (shift: number) =>
    (tag: Value): Value =>
      b.eqz(b.shru(b.xor(tag, addr), b.i64(shift)));
  b.if(
    huge,
    () => forEach(c, b.i32(0), TLB_ENTRIES, (i) => dropMatching(c, i, same(30))),
    () => {
      const first = b.and(b.wrap(b.shru(addr, b.i64(12))), b.i32(TLB_ENTRIES - 1024));
      forEach(c, first, 1024, (i) => dropMatching(c, i, same(22)));
    },
  );
  b.fill(c.get(st.jumpCache), b.i32(0), b.i32(JUMP_ENTRIES * JUMP_ENTRY_BYTES));
  b.ret();
});

/** Drops the page of `addr` (i64 linear), whatever its size and global or not, and the jump cache's entries in it. */
export const flushPage = sub('flushPage', ['i64'], null, {}, (c, addr) => {
  const b = c.b;
  const index = b.and(b.wrap(b.shru(addr, b.i64(12))), b.i32(TLB_ENTRIES - 1));
  dropMatching(c, index, (tag) => tagHits(b, tag, addr));
  b.if(
    inUpperHalf(c, addr),
    () => nextEpoch(c, 1),
    () => nextEpoch(c, 0),
  );
  b.fill(b.add(c.get(st.jumpCache), jumpGroup(c, addr)), b.i32(0), b.i32(GROUP_BYTES));
  const { word, bit } = largeBit(c, addr);
  b.if(b.and(b.raw('i32', word, st.largePages[0].offset), bit), () => c.do(flushLarge, addr, b.i32(0)));
  b.if(b.ne(b.and(c.get(st.hugePages), hugeBit(c, addr)), b.i64(0)), () => c.do(flushLarge, addr, b.i32(1)));
  // Programs' pages are not global: cells that hold the kernel's stay as they are.
  b.if(
    b.or(inUpperHalf(c, addr), c.get(st.lowerGlobal)),
    () => nextCells(c),
    () => dropCells(c),
  );
  c.set(st.counters[2], b.add(c.get(st.counters[2]), b.i32(1)));
  b.ret();
});

/**
 * Makes every later store to one page of RAM take the slow path, because it holds decoded code now. The parameter is the host
 * address (i64) of the page. To be called on each vCPU when the page's byte in `codeMap` stops being zero.
 */
export const protectPage = sub('protectPage', ['i64'], null, {}, (c, page) => {
  const b = c.b;
  const bases = st.tlbs.map((slot) => c.get(slot));
  forEach(c, b.i32(0), TLB_ENTRIES, (i) => {
    const offset = b.shl(i, b.i32(4));
    for (const base of bases) {
      const entry = b.add(base, offset);
      const tag = b.raw('i64', entry);
      const host = hostOf(c, b.and(tag, b.i64(~0xfffn)), b.raw('i32', entry, ADDEND));
      b.if(b.eq(host, page), () => b.setRaw('i64', entry, b.or(tag, b.i64(1))));
    }
  });
  nextCells(c);
  b.ret();
});
