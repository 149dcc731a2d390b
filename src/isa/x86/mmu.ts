// Address translation: the page walk of every paging mode, its permission checks, page faults and the filling of the software
// TLB (Intel SDM volume 3, sections 4.1 to 4.9 and 4.10.2, 4-level and 5-level paging in 4.5).

import { LOW_PAGES, LowPage, PLUG_GRANULE, READ_ONLY, Slot, SlotTable, Smram, smramWindow } from '../../bits/slot-table.ts';
import type { Label, Value } from '../../ir/ir.ts';
import { isCanonical } from './canonical.ts';
import { PHYSICAL_BITS } from './cpu-model.ts';
import type { Emit } from './emit.ts';
import * as st from './state.ts';
import { X } from './state.ts';
import { host, sub } from './sub.ts';
import { addendOf, entryOf, inUpperHalf, markLarge, putEntry, TlbFlag } from './tlb.ts';

/** Bits of `how`, the description of an access: log2 of its bytes in bits 0 and 1, then these. */
export const How = {
  /** It needs write permission. */
  write: 4,
  /** An implicit supervisor access (descriptor tables, TSS), whatever CPL is. */
  system: 8,
  /** An instruction fetch. */
  fetch: 16,
} as const;

/** The widest guest-physical address; the CPU model says how wide it is (`reservedChange`). */
const WIDEST = 52;

/**
 * Compare-and-exchange of 1 << `log2` bytes of host memory at the aligned address `ptr`, sequentially consistent: writes `value`
 * where the memory holds `expected`, and gives what it held (zero-extended). Parameters: ptr, expected, value, log2.
 */
export const cas = host('cas', ['i64', 'i64', 'i64', 'i32'], 'i64');

const P = 1;
const A = 0x20;
const D = 0x40;
const PS = 0x80;
const NX = 1n << 63n;
/** The page number of a table or 4 KiB page. */
const FRAME = (1n << BigInt(WIDEST)) - 0x1000n;
const bitsBetween = (high: number, low: number): bigint => (1n << BigInt(high + 1)) - (1n << BigInt(low));
const RESERVED_LONG = bitsBetween(51, PHYSICAL_BITS);
const RESERVED_PAE = bitsBetween(62, PHYSICAL_BITS);
/** In a PAE page-directory-pointer-table entry, bit 63 included. */
const RESERVED_PDPTE = bitsBetween(63, PHYSICAL_BITS) | 0x1e6n;

/** `reservedChange` for addresses of `bits`, 32 to 52. */
export const reservedChangeOf = (bits: number): bigint => bitsBetween(WIDEST - 1, bits) ^ bitsBetween(WIDEST - 1, PHYSICAL_BITS);
/** Bits of an entry or register that are reserved: `mask`, which has those of addresses of `PHYSICAL_BITS`, as this vCPU's width has them. */
export const reservedBits = (c: Emit, mask: bigint): Value => c.b.xor(c.get(st.reservedChange), c.b.i64(mask));
/** Those of a PAE page-directory-pointer-table entry, and of an address. */
export const reservedInPointer = (c: Emit): Value => reservedBits(c, RESERVED_PDPTE);
export const reservedInAddress = (c: Emit): Value => reservedBits(c, bitsBetween(63, PHYSICAL_BITS));
const CR0_PG = 31;
const CR0_WP = 16;
const CR4 = { pse: 4, pae: 5, pge: 7, la57: 12, smep: 20, smap: 21, pke: 22, pks: 24 } as const;
const EFER_LMA = 10;
const EFER_NXE = 11;
const AC = 18;

/** What a walk gives below the page's address: see `walk`. */
const Walk = { writable: 1, global: 2, large: 4, huge: 8 } as const;

/** Bit `n` of an integer as i32 0 or 1. */
function bit(c: Emit, value: Value, n: number): Value {
  const b = c.b;
  return b.and(b.wrap(value.type === 'i64' ? b.shru(value, b.i64(n)) : b.shru(value, b.i32(n))), b.i32(1));
}

/** Host address of the guest-physical address `gpa` (i64), or 0 where there is no RAM. */
export const ramAddress = sub('ramAddress', ['i64'], 'i64', {}, (c, gpa) => {
  const b = c.b;
  b.if(b.ltu(gpa, b.extu(c.get(st.ramLow))), () => b.ret(b.add(b.extu(c.get(st.ramBase)), gpa)));
  const above = b.sub(gpa, b.i64(0x1_0000_0000n));
  b.if(b.ltu(above, c.get(st.ramHigh)), () => b.ret(b.add(b.extu(c.get(st.ramSplit)), above)));
  const table = c.get(st.slotTable);
  b.if(table, () => {
    b.if(b.ltu(above, b.raw('i64', table, SlotTable.plugSpan)), () => {
      const entry = b.add(b.raw('i32', table, SlotTable.plugMap), b.wrap(b.shru(above, b.i64(Math.log2(PLUG_GRANULE)))));
      b.if(b.raw('i32.8u', entry, 0), () => b.ret(b.add(b.extu(c.get(st.ramSplit)), above)));
    });
  });
  b.ret(b.i64(0));
});

/** Runs `body` with the host address of each slot in use. */
function forSlots(c: Emit, body: (slot: Value) => void): void {
  const b = c.b;
  const table = c.get(st.slotTable);
  b.if(table, () => {
    const left = b.variable(b.raw('i32', table, SlotTable.count));
    const slot = b.variable(b.add(table, b.i32(SlotTable.entries)));
    b.block((done) => {
      b.loop((again) => {
        const n = b.getVar(left);
        b.br(done, b.eqz(n));
        const at = b.getVar(slot);
        body(at);
        b.setVar(left, b.sub(n, b.i32(1)));
        b.setVar(slot, b.add(at, b.i32(Slot.bytes)));
        b.br(again);
      });
    });
  });
}

/** 1 where the RAM at `gpa`, below 1 MiB, shows in place of what is on the bus: SMRAM, open or in system management mode. */
const smramShows = sub('smramShows', ['i64'], 'i32', {}, (c, gpa) => {
  const b = c.b;
  const flags = b.raw('i32', c.get(st.slotTable), SlotTable.smram);
  const shown = b.or(b.i32(Smram.open), b.select(c.get(st.smm), b.i32(Smram.low), b.i32(0)));
  const within = b.ltu(b.sub(gpa, b.i64(smramWindow.base)), b.i64(smramWindow.bytes));
  b.ret(b.and(within, b.ne(b.and(flags, shown), b.i32(0))));
});

/**
 * Host address of the page at the guest-physical address `gpa` (i64, a multiple of 4,096), plus `READ_ONLY` where writes go to the bus;
 * or 0 where everything does.
 */
export const pageAddress = sub('pageAddress', ['i64'], 'i64', {}, (c, gpa) => {
  const b = c.b;
  const table = c.get(st.slotTable);
  b.if(b.and(b.ltu(gpa, b.i64(LOW_PAGES * 4096)), b.ne(table, b.i32(0))), () => {
    const entry = b.raw('i32', b.add(table, b.shl(b.wrap(b.shru(gpa, b.i64(12))), b.i32(2))), SlotTable.low);
    b.if(entry, () => {
      b.if(c.call(smramShows, gpa), () => b.ret(b.add(b.extu(c.get(st.ramBase)), gpa)));
      b.ret(b.select(b.eq(entry, b.i32(LowPage.bus)), b.i64(0), b.extu(entry)));
    });
  });
  const at = c.call(ramAddress, gpa);
  b.if(b.ne(at, b.i64(0)), () => b.ret(at));
  forSlots(c, (slot) => {
    const offset = b.sub(gpa, b.raw('i64', slot, Slot.gpa));
    b.if(b.ltu(offset, b.raw('i64', slot, Slot.length)), () => b.ret(b.add(b.raw('i64.32u', slot, Slot.host), offset)));
  });
  b.ret(b.i64(0));
});

/** Guest-physical address of a host address inside RAM or a memory slot. */
export const physicalOf = sub('physicalOf', ['i64'], 'i64', {}, (c, at) => {
  const b = c.b;
  const offset = b.sub(at, b.extu(c.get(st.ramBase)));
  const above = b.sub(at, b.extu(c.get(st.ramSplit)));
  b.if(b.ges(above, b.i64(0)), () => b.ret(b.add(b.i64(0x1_0000_0000n), above)));
  b.if(b.geu(offset, b.extu(c.get(st.ramLow))), () => {
    forSlots(c, (slot) => {
      const within = b.sub(at, b.and(b.raw('i64.32u', slot, Slot.host), b.i64(~READ_ONLY)));
      b.if(b.ltu(within, b.raw('i64', slot, Slot.length)), () => b.ret(b.add(b.raw('i64', slot, Slot.gpa), within)));
    });
  });
  b.ret(offset);
});

/** Leaves a #PF pending with CR2 = `addr`. `code`: bits 0 (present), 3 (reserved bit) and 5 (protection key) of the error code. */
const pageFault = sub('pageFault', ['i64', 'i32', 'i32'], null, {}, (c, addr, how, code) => {
  const b = c.b;
  const user = b.and(b.eq(c.get(st.cpl), b.i32(3)), b.eqz(b.and(how, b.i32(How.system))));
  const cr4 = c.get(st.cr4);
  const reportsFetch = b.or(b.and(bit(c, cr4, CR4.pae), bit(c, c.get(st.efer), EFER_NXE)), bit(c, cr4, CR4.smep));
  let error = b.or(code, b.shl(bit(c, how, 2), b.i32(1)));
  error = b.or(error, b.shl(user, b.i32(2)));
  error = b.or(error, b.shl(b.and(bit(c, how, 4), reportsFetch), b.i32(4)));
  c.set(st.cr2, addr);
  c.set(st.excError, error);
  c.set(st.exc, b.i32(X.pf + 1));
  b.ret();
});

/** An entry of the page-directory-pointer table of PAE paging at `at` (i64); all ones where there is no RAM. */
export function pointerAt(c: Emit, at: Value): Value {
  const b = c.b;
  const ptr = c.call(ramAddress, at);
  return b.choose(
    'i64',
    b.ne(ptr, b.i64(0)),
    () => b.raw('i64', ptr),
    () => b.i64(-1),
  );
}

/** Loads the four pointers of PAE paging, where it is on, without a look at their reserved bits: those are found by the walk then. */
export const loadPointers = sub('loadPointers', [], null, {}, (c) => {
  const b = c.b;
  const pae = b.and(b.shru(b.wrap(c.get(st.cr4)), b.i32(CR4.pae)), b.xor(bit(c, b.wrap(c.get(st.efer)), EFER_LMA), b.i32(1)));
  b.if(b.and(pae, bit(c, b.wrap(c.get(st.cr0)), CR0_PG)), () => {
    const table = b.and(c.get(st.cr3), b.i64(0xffffffe0n));
    st.pointers.forEach((slot, i) => c.set(slot, pointerAt(c, b.add(table, b.i64(8 * i)))));
  });
  b.ret();
});

/** The walker while it is built: the access, and what the levels have in common. */
interface Walker {
  readonly c: Emit;
  readonly addr: Value;
  readonly fail: (code: number) => void;
  /** Bit 63 where EFER.NXE is clear, so that it is reserved. */
  readonly nxReserved: Value;
  readonly again: Label;
}

interface Entry {
  /** Host address (i64) of the entry, or 0 outside RAM. */
  readonly ptr: Value;
  /** The entry, i64; outside RAM all ones. */
  readonly value: Value;
}

/** Reads the entry for `addr` in a table of `1 << indexBits` entries; faults where it is not present. */
function readEntry(w: Walker, table: Value, shift: number, indexBits: number, bytes: 4 | 8): Entry {
  const b = w.c.b;
  const index = b.and(b.shru(w.addr, b.i64(shift)), b.i64((1 << indexBits) - 1));
  const at = b.add(table, b.shl(index, b.i64(bytes === 8 ? 3 : 2)));
  const ptr = b.choose(
    'i64',
    b.ltu(at, b.extu(w.c.get(st.ramLow))),
    () => b.add(b.extu(w.c.get(st.ramBase)), at),
    () => w.c.call(ramAddress, at),
  );
  const value = b.choose(
    'i64',
    b.ne(ptr, b.i64(0)),
    () => b.raw(bytes === 8 ? 'i64' : 'i64.32u', ptr),
    () => b.i64(bytes === 8 ? -1n : 0xffffffffn),
  );
  b.if(b.eqz(b.and(b.wrap(value), b.i32(P))), () => w.fail(0));
  return { ptr, value };
}

function checkReserved(w: Walker, entry: Entry, mask: Value, nx = true): void {
  const b = w.c.b;
  const reserved = nx ? b.or(w.nxReserved, mask) : mask;
  b.if(b.ne(b.and(entry.value, reserved), b.i64(0)), () => w.fail(9));
}

/** Sets bits of an entry in memory unless they are set; where another vCPU changed the entry meanwhile, walks again. */
function setBits(w: Walker, entry: Entry, bits: Value): void {
  const b = w.c.b;
  const old = b.wrap(entry.value);
  b.if(b.and(b.ne(b.and(old, bits), bits), b.ne(entry.ptr, b.i64(0))), () => {
    const found = w.c.call(cas, entry.ptr, b.extu(old), b.extu(b.or(old, bits)), b.i32(2));
    noteDirty(w.c, entry.ptr);
    b.br(w.again, b.ne(b.wrap(found), old));
  });
}

const accessed = (w: Walker, entry: Entry): void => setBits(w, entry, w.c.b.i32(A));
const isLarge = (w: Walker, entry: Entry): Value => w.c.b.and(w.c.b.wrap(entry.value), w.c.b.i32(PS));

/**
 * Translates `addr` for an access `how`. Gives the guest-physical address of its 4 KiB page, and in the low bits: 1 when stores
 * are allowed and the page is dirty, 2 when it is global, 4 or 8 when it is part of a page of 2 or 4 MiB or of 1 GiB. Gives -1
 * after leaving a #PF or #GP(0) pending. Sets accessed and dirty bits.
 */
const walk = sub('walk', ['i64', 'i32'], 'i64', {}, (c, addr, how) => {
  const b = c.b;
  const cr0 = b.wrap(c.get(st.cr0));
  b.if(b.eqz(bit(c, cr0, CR0_PG)), () => b.ret(b.or(b.and(addr, b.i64(0xfffff000n)), b.i64(Walk.writable))));

  const cr3 = c.get(st.cr3);
  const cr4 = b.wrap(c.get(st.cr4));
  const efer = b.wrap(c.get(st.efer));
  const long = bit(c, efer, EFER_LMA);
  b.if(b.and(long, b.eqz(isCanonical(c, addr))), () => {
    c.set(st.excError, b.i32(0));
    c.set(st.exc, b.i32(X.gp + 1));
    b.if(b.eqz(b.and(how, b.i32(How.system | How.fetch))), () => c.set(st.offLimits, addr));
    b.ret(b.i64(-1));
  });
  const fail = (code: number): void => {
    c.do(pageFault, addr, how, b.i32(code));
    b.ret(b.i64(-1));
  };
  const nxReserved = b.select(bit(c, efer, EFER_NXE), b.i64(0), b.i64(NX));

  // What the mode's part leaves for the common end. `rights` is the AND of all entries with bit 63 inverted.
  const leafPtr = b.variable(b.i64(0));
  const leaf = b.variable(b.i64(0));
  const rights = b.variable(b.i64(0));
  const frame = b.variable(b.i64(0));

  b.loop((again) => {
    const w: Walker = { c, addr, fail, nxReserved, again };
    b.block((found) => {
      const leave = (entry: Entry, allowed: Value, page: Value): void => {
        b.setVar(leafPtr, entry.ptr);
        b.setVar(leaf, entry.value);
        b.setVar(rights, allowed);
        b.setVar(frame, page);
        b.br(found);
      };
      const inverted = (entry: Entry): Value => b.xor(entry.value, b.i64(NX));
      const within = (base: Value, high: number, kind: number): Value =>
        b.or(b.or(base, b.and(addr, b.i64(bitsBetween(high, 12)))), b.i64(kind));

      /** The two lower levels of the 4-level and PAE modes. */
      const lower = (table: Value, allowed: Value | null, reserved: Value): void => {
        const pde = readEntry(w, table, 21, 9, 8);
        checkReserved(w, pde, reserved);
        const both = allowed ? b.and(allowed, inverted(pde)) : inverted(pde);
        b.if(isLarge(w, pde), () => {
          checkReserved(w, pde, b.i64(bitsBetween(20, 13)), false);
          leave(pde, both, within(b.and(pde.value, b.i64(FRAME & ~0x1fffffn)), 20, Walk.large));
        });
        accessed(w, pde);
        const pte = readEntry(w, b.and(pde.value, b.i64(FRAME)), 12, 9, 8);
        checkReserved(w, pte, reserved);
        leave(pte, b.and(both, inverted(pte)), b.and(pte.value, b.i64(FRAME)));
      };

      b.if(long, () => {
        const reserved = reservedBits(c, RESERVED_LONG);
        const inTop = b.or(reserved, b.i64(BigInt(PS)));
        const top = b.variable(b.and(cr3, b.i64(FRAME)));
        const above = b.variable(b.i64(-1));
        b.if(bit(c, cr4, CR4.la57), () => {
          const pml5e = readEntry(w, b.getVar(top), 48, 9, 8);
          checkReserved(w, pml5e, inTop);
          accessed(w, pml5e);
          b.setVar(top, b.and(pml5e.value, b.i64(FRAME)));
          b.setVar(above, inverted(pml5e));
        });
        const pml4e = readEntry(w, b.getVar(top), 39, 9, 8);
        checkReserved(w, pml4e, inTop);
        accessed(w, pml4e);
        const pdpte = readEntry(w, b.and(pml4e.value, b.i64(FRAME)), 30, 9, 8);
        checkReserved(w, pdpte, reserved);
        const both = b.and(b.and(b.getVar(above), inverted(pml4e)), inverted(pdpte));
        b.if(isLarge(w, pdpte), () => {
          checkReserved(w, pdpte, b.i64(bitsBetween(29, 13)), false);
          leave(pdpte, both, within(b.and(pdpte.value, b.i64(FRAME & ~0x3fffffffn)), 29, Walk.huge));
        });
        accessed(w, pdpte);
        lower(b.and(pdpte.value, b.i64(FRAME)), both, reserved);
      });
      b.if(bit(c, cr4, CR4.pae), () => {
        const index = b.and(b.wrap(b.shru(addr, b.i64(30))), b.i32(3));
        const pdpte = { ptr: b.i64(0), value: b.raw('i64', b.add(b.env, b.shl(index, b.i32(3))), st.pointers[0].offset) };
        b.if(b.eqz(b.and(b.wrap(pdpte.value), b.i32(P))), () => w.fail(0));
        checkReserved(w, pdpte, reservedInPointer(c), false);
        lower(b.and(pdpte.value, b.i64(FRAME)), null, reservedBits(c, RESERVED_PAE));
      });
      const pde = readEntry(w, b.and(cr3, b.i64(0xfffff000n)), 22, 10, 4);
      b.if(b.and(bit(c, cr4, CR4.pse), bit(c, pde.value, 7)), () => {
        checkReserved(w, pde, b.i64(1n << 21n), false);
        const upper = b.shl(b.and(pde.value, b.i64(bitsBetween(20, 13))), b.i64(19));
        leave(pde, inverted(pde), within(b.or(upper, b.and(pde.value, b.i64(0xffc00000n))), 21, Walk.large));
      });
      accessed(w, pde);
      const pte = readEntry(w, b.and(pde.value, b.i64(0xfffff000n)), 12, 10, 4);
      leave(pte, b.and(inverted(pde), inverted(pte)), b.and(pte.value, b.i64(0xfffff000n)));
    });

    const system = bit(c, how, 3);
    const write = bit(c, how, 2);
    const fetch = bit(c, how, 4);
    const user = b.and(b.eq(c.get(st.cpl), b.i32(3)), b.xor(system, b.i32(1)));
    const allowed = b.getVar(rights);
    const userPage = bit(c, b.wrap(allowed), 2);
    const mayWrite = b.or(bit(c, b.wrap(allowed), 1), b.xor(b.or(user, bit(c, cr0, CR0_WP)), b.i32(1)));
    // SMAP does not hold back an explicit access with RFLAGS.AC; at CPL 3 a supervisor access is an implicit one.
    const acSet = b.and(bit(c, c.get(st.sysFlags), AC), b.xor(system, b.i32(1)));
    const guarded = b.select(fetch, bit(c, cr4, CR4.smep), b.and(bit(c, cr4, CR4.smap), b.xor(acSet, b.i32(1))));
    let denied = b.select(user, b.xor(userPage, b.i32(1)), b.and(userPage, guarded));
    denied = b.or(denied, b.and(write, b.xor(mayWrite, b.i32(1))));
    denied = b.or(denied, b.and(fetch, b.xor(bit(c, allowed, 63), b.i32(1))));
    // Protection keys count for data in 4-level and 5-level paging: those of user pages always, those of supervisor pages below CPL 3.
    const enabled = b.select(userPage, bit(c, cr4, CR4.pke), b.and(bit(c, cr4, CR4.pks), b.xor(user, b.i32(1))));
    const keyed = b.and(b.and(enabled, long), b.xor(fetch, b.i32(1)));
    const key = b.wrap(b.and(b.shru(b.getVar(leaf), b.i64(58)), b.i64(0x1e)));
    const rightsOfKey = b.and(b.shru(b.select(userPage, c.get(st.pkru), c.get(st.pkrs)), key), b.neg(keyed));
    const keyReadOnly = b.and(bit(c, rightsOfKey, 1), b.or(user, bit(c, cr0, CR0_WP)));
    const byKey = b.or(b.and(rightsOfKey, b.i32(1)), b.and(keyReadOnly, write));
    b.if(b.or(denied, byKey), () => {
      c.do(pageFault, addr, how, b.or(b.i32(1), b.shl(byKey, b.i32(5))));
      b.ret(b.i64(-1));
    });

    const entry: Entry = { ptr: b.getVar(leafPtr), value: b.getVar(leaf) };
    const needed = b.or(b.i32(A), b.select(write, b.i32(D), b.i32(0)));
    setBits(w, entry, needed);
    const dirty = b.shru(b.and(b.or(b.wrap(entry.value), needed), b.i32(D)), b.i32(6));
    const global = b.and(bit(c, entry.value, 8), bit(c, cr4, CR4.pge));
    const open = b.and(mayWrite, b.xor(keyReadOnly, b.i32(1)));
    const low = b.or(b.and(open, dirty), b.shl(global, b.i32(1)));
    b.ret(b.or(b.and(b.getVar(frame), b.i64(bitsBetween(51, 0))), b.extu(low)));
  });
});

/** Guest-physical address for a walk's result and the address walked. */
function joinPage(c: Emit, page: Value, addr: Value): Value {
  const b = c.b;
  return b.or(b.and(page, b.i64(~0xfffn)), b.and(addr, b.i64(0xfff)));
}

/** Guest-physical address of the linear address `addr` for an access `how`. Raises #PF, and #GP(0) for an address not canonical. */
export const translate = sub('translate', ['i64', 'i32'], 'i64', { faults: true }, (c, addr, how) => {
  const page = c.call(walk, addr, how);
  c.b.if(c.b.eq(page, c.b.i64(-1)), () => c.b.leave('fault'));
  c.b.ret(joinPage(c, page, addr));
});

/** Guest-physical address of the instruction byte at `addr`; or -1, with #PF or #GP(0) pending. It does not unwind its caller. */
export const fetchTranslate = sub('fetchTranslate', ['i64'], 'i64', {}, (c, addr) => {
  const b = c.b;
  const page = c.call(walk, addr, b.i32(How.fetch));
  b.if(b.eq(page, b.i64(-1)), () => b.ret(page));
  const kept = bit(c, page, Math.log2(Walk.global));
  b.if(b.and(inUpperHalf(c, addr), b.xor(kept, b.i32(1))), () => c.set(st.upperNonGlobal, b.i32(1)));
  b.ret(joinPage(c, page, addr));
});

/** Set in the place of an access (`tlbFill`, `place` in memory.ts) that is not in RAM; below it is the guest-physical address. */
export const OUTSIDE = 1n << 63n;

/** Number (i32), from `ramBase` on, of the page at host address `at` (i64). */
export function pageNumber(c: Emit, at: Value): Value {
  const b = c.b;
  return b.wrap(b.shru(b.sub(at, b.extu(c.get(st.ramBase))), b.i64(12)));
}

/** Host address of the `codeMap` byte of the page of RAM at host address `at` (i64). */
export function codeByte(c: Emit, at: Value): Value {
  return c.b.add(c.get(st.codeMap), pageNumber(c, at));
}

/** Host address of the `dirtyMap` byte of the page at host address `at` (i64); the map must be there. */
function dirtyByte(c: Emit, at: Value): Value {
  return c.b.add(c.get(st.dirtyMap), pageNumber(c, at));
}

/** Notes that the page at host address `at` is written, where writes are logged. */
export function noteDirty(c: Emit, at: Value): void {
  const b = c.b;
  b.if(c.get(st.dirtyMap), () => {
    const byte = dirtyByte(c, at);
    b.if(b.raw('i32.8u', byte), () => b.setRaw('i32.8u', byte, b.i32(0)));
  });
}

/** 1 where writes to the page at host address `at` are to be noted. */
export function logged(c: Emit, at: Value): Value {
  const b = c.b;
  return b.choose(
    'i32',
    c.get(st.dirtyMap),
    () => b.raw('i32.8u', dirtyByte(c, at)),
    () => b.i32(0),
  );
}

/** The TLB lets stores to the page at host address `at` through, where `when`: who decodes code of it has to look there (`protectPage`). */
export function noteOpen(c: Emit, at: Value, when: Value): void {
  const b = c.b;
  b.if(b.select(when, c.get(st.openMap), b.i32(0)), () => {
    b.setRaw('i32.8u', b.add(c.get(st.openMap), pageNumber(c, at)), b.i32(1));
  });
}

/** Host address of the TLB that serves accesses `how`: the one that holds nothing is never filled. */
export function dataTlb(c: Emit, how: Value): Value {
  const b = c.b;
  const current = b.select(c.get(st.alignCheck), c.get(st.tlbs[2]), c.get(st.tlb));
  return b.select(b.and(how, b.i32(How.system)), c.get(st.tlbSystem), current);
}

/** 1 where a breakpoint of `watch` lies in the page at `linear` (i64), or reaches into it: such pages are not entered in the TLBs. */
const breakpointIn = sub('breakpointIn', ['i64'], 'i32', {}, (c, linear) => {
  const b = c.b;
  const watch = c.get(st.watch);
  b.if(b.eqz(watch), () => b.ret(b.i32(0)));
  let found: Value = b.i32(0);
  for (let i = 0; i < 4; i++) {
    const here = b.ltu(b.sub(c.get(st.dr[i]), linear), b.i64(4096));
    found = b.or(found, b.and(here, b.shru(watch, b.i32(i))));
  }
  b.ret(b.and(found, b.i32(1)));
});

/**
 * Walks for a data access `how` and enters the page in the TLB that such an access uses, unless it is not RAM. Gives the place of
 * `addr`: its host address, or `OUTSIDE` and the guest-physical address. Raises #PF and #GP(0).
 */
export const tlbFill = sub('tlbFill', ['i64', 'i32'], 'i64', { faults: true }, (c, addr, how) => {
  const b = c.b;
  const page = c.call(walk, addr, how);
  b.if(b.eq(page, b.i64(-1)), () => b.leave('fault'));
  c.set(st.counters[0], b.add(c.get(st.counters[0]), b.i32(1)));
  const frame = b.and(page, b.i64(~0xfffn));
  const found = c.call(pageAddress, frame);
  const readOnly = b.and(b.wrap(found), b.i32(READ_ONLY));
  const bus = b.or(b.eqz(found), b.and(readOnly, b.ne(b.and(how, b.i32(How.write)), b.i32(0))));
  b.if(bus, () => b.ret(b.or(joinPage(c, page, addr), b.i64(OUTSIDE))));

  const at = b.and(found, b.i64(~READ_ONLY));
  const low = b.wrap(page);
  const linear = b.and(addr, b.i64(~0xfffn));
  const writable = b.and(b.and(low, b.i32(Walk.writable)), b.xor(readOnly, b.i32(1)));
  b.if(b.and(how, b.i32(How.write)), () => noteDirty(c, at));
  const watched = b.or(b.raw('i32.8u', codeByte(c, at)), logged(c, at));
  const slow = b.or(b.xor(writable, b.i32(1)), b.ne(watched, b.i32(0)));
  noteOpen(c, at, b.eqz(slow));
  const isFragment = b.ne(b.and(low, b.i32(Walk.large | Walk.huge)), b.i32(0));
  let flags = b.mul(writable, b.i32(TlbFlag.writable));
  flags = b.or(flags, b.mul(bit(c, low, 1), b.i32(TlbFlag.global)));
  flags = b.or(flags, b.mul(isFragment, b.i32(TlbFlag.large)));
  b.if(b.eqz(c.call(breakpointIn, linear)), () => {
    putEntry(c, entryOf(b, dataTlb(c, how), addr), b.or(linear, b.extu(slow)), addendOf(c, at, linear), flags);
    b.if(isFragment, () => c.do(markLarge, addr, bit(c, low, 3)));
  });
  b.ret(b.add(at, b.and(addr, b.i64(0xfff))));
});
