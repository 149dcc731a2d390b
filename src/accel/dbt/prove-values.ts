// Values of the prover of emitted code: what their structure and the facts on the way tell of them.

import { Rec } from '../../isa/x86/record.ts';
import * as st from '../../isa/x86/state.ts';
import { effectOf } from '../../wasm/decode.ts';
import { Cell } from './cells.ts';
import { Site } from './chain.ts';
import {
  CELL_OR_NONE,
  LOCK_BYTES,
  LOW_PAGES,
  parts,
  places,
  pointers,
  RECORD,
  RECORD_OR_NONE,
  SLOT_ENTRY,
  Slot,
  SlotTable,
  TLB_ENTRY_OR_NONE,
} from './contracts.ts';
import { gcd, powerOf, type RangeTag, sameTag, stepOf, type Tag } from './prove-tags.ts';

export interface Value {
  readonly id: number;
  readonly op: number;
  readonly args: readonly Value[];
  /** Constant, offset of a load, or 0. */
  readonly imm: bigint;
  /** Of a load: how often memory had been written. */
  readonly epoch: number;
  readonly tag: Tag | null;
  /** Another value with the same lower 12 bits. */
  readonly like?: Value;
}

/** What a condition has told. `a` and `b` are numbers of values, or constants where that is said. */
export interface Fact {
  readonly kind: /** Cell `n` holds for address `a`, `m` bytes; the TLB's entry `a` for address `b`, `m` bytes. */
    | 'cell'
    | 'tlb'
    /** (tag `a` ^ `b`) < 4096. */
    | 'hit'
    /** Not 0; not `n`; not negative. */
    | 'some'
    | 'not'
    | 'inside'
    /** Below `n`; at least `n`; below `b`. */
    | 'below'
    | 'from'
    | 'less'
    /** 1 << `b` bytes from `a` on end with its page. */
    | 'fits'
    /** A record, not less than 8. */
    | 'record'
    /** 0 where an exception is pending, and only then; -1 only with one pending: what was called has given it. */
    | 'pending'
    | 'failing';
  readonly a: number;
  readonly b: number;
  readonly n: number;
  readonly m: number;
  readonly epoch: number;
  /** What `a` is the number of. */
  readonly v: Value;
}
export const keyOf = (f: Fact): string => `${f.kind} ${f.a} ${f.b} ${f.n} ${f.m} ${f.epoch}`;

export interface State {
  locals: Value[];
  stack: Value[];
  facts: Fact[];
  epoch: number;
  /** The memory has addresses of 64 bits. */
  readonly wide: boolean;
  /** What was begun, so that nothing else may come before its end. */
  begun: Begun | null;
  /** An exception is pending. */
  raised: boolean;
}

/** Stores that belong together: `entry` and `cell` are numbers of values, `epoch` is that of the loads that they are taken from. */
export type Begun =
  /** A TLB entry has the tag of a new page: its addend comes next. */
  | { readonly kind: 'entry'; readonly entry: number; readonly page: Value }
  /** A cell has the page of an entry that holds it: the key comes next, then the entry's addend. */
  | {
      readonly kind: 'cell';
      readonly cell: number;
      readonly entry: number;
      readonly epoch: number;
      readonly next: 'key' | 'addend';
    }
  /** On one way only. */
  | { readonly kind: 'parted' };

export const PAGE = 4096;
export const [XOR64, OR64, AND64, ADD64, SUB64, SHL64, SHRS64, SHRU64] = [0x85, 0x84, 0x83, 0x7c, 0x7d, 0x86, 0x87, 0x88];
export const [WRAP, EXTEND_S, EXTEND_U] = [0xa7, 0xac, 0xad];
export const [ADD32, SUB32, AND32, OR32, XOR32, SHL32, SHRU32] = [0x6a, 0x6b, 0x71, 0x72, 0x73, 0x74, 0x76];
export const [LTU32, LTU64, SELECT, CONST32, CONST64] = [0x49, 0x54, 0x1b, 0x41, 0x42];
export const [CONST128, REPLACE_LANE, STORE128] = [0xfd00c, 0xfd01e, 0xfd00b];
/** A state address before it was widened. */
export const narrow = (v: Value): Value => (v.op === EXTEND_U ? v.args[0]! : v);
export const OPAQUE = -1;
export const isConst = (v: Value, n?: bigint): boolean =>
  (v.op === CONST32 || v.op === CONST64) && (n === undefined || BigInt.asUintN(64, v.imm) === BigInt.asUintN(64, n));
/** The other argument where one is this constant. */
export const besides = (v: Value, n: bigint): Value | undefined =>
  isConst(v.args[1]!, n) ? v.args[0]! : isConst(v.args[0]!, n) ? v.args[1]! : undefined;

export const rangeOf = (v: Value): RangeTag | null => (v.tag?.kind === 'range' ? v.tag : null);
/** The range of a number. */
export const numberOf = (v: Value | undefined): RangeTag | null =>
  v?.tag?.kind === 'range' && v.tag.base === 'number' ? v.tag : null;
export const envRange = (v: Value): RangeTag | null => (v.tag?.kind === 'range' && v.tag.base === 'env' ? v.tag : null);
export const isEnv = (v: Value): boolean => {
  const r = envRange(v);
  return r !== null && r.lo === 0 && r.hi === 0 && !r.zero;
};
export const sameRange = (a: RangeTag, b: RangeTag): boolean => sameTag({ ...a, zero: false }, { ...b, zero: false });

/** The power of two that a value is a multiple of, as far as its structure tells: up to 4096. */
export function alignOf(v: Value, depth = 6): number {
  const of = (x: Value): number => alignOf(x, depth - 1);
  if (v.tag?.kind === 'aligned') return v.tag.to;
  if (v.tag?.kind === 'range' && v.tag.base === 'number' && v.op !== CONST32 && v.op !== CONST64) return powerOf(v.tag);
  if (depth === 0) return 1;
  const [x, y] = v.args;
  switch (v.op) {
    case CONST32:
    case CONST64: {
      const low = Number(BigInt.asUintN(12, v.imm));
      return low === 0 ? PAGE : low & -low;
    }
    case AND64:
    case AND32:
      return Math.max(of(x!), of(y!));
    case ADD64:
    case ADD32:
    case SUB64:
    case SUB32:
    case OR64:
    case OR32:
      return Math.min(of(x!), of(y!));
    case SHL64:
    case SHL32:
      return isConst(y!) ? Math.min(PAGE, of(x!) * 2 ** Math.min(12, Number(y!.imm))) : of(x!);
    case SELECT:
      return Math.min(of(x!), of(y!));
    case WRAP:
    case EXTEND_S:
    case EXTEND_U:
      return of(x!);
    default:
      return 1;
  }
}
/** A value with the same lower 12 bits that is made of less. */
export function low(v: Value): Value {
  for (let now = v; ; ) {
    const [x, y] = now.args;
    let next: Value | undefined;
    if (now.like) next = now.like;
    else if (now.op === AND64) {
      if (isConst(y!) && (y!.imm & 0xfffn) === 0xfffn) next = x!;
    } else if (now.op === SELECT) {
      if (low(x!).id === low(y!).id) next = x!;
    } else if (now.op === OR64 || now.op === ADD64 || now.op === SUB64) {
      if (alignOf(y!) === PAGE) next = x!;
      else if (now.op !== SUB64 && alignOf(x!) === PAGE) next = y!;
    }
    if (!next) return now;
    now = next;
  }
}

const isKey = (v: Value): boolean => v.tag?.kind === 'key';

/** What arithmetic tells of its result. */
export function tagOf(op: number, args: readonly Value[], imm: bigint, s: State): Tag | null {
  const ranges = args.map(rangeOf);
  const [x, y] = ranges;
  const [first, second] = args;
  const bounded = (base: RangeTag['base'], lo: number, hi: number, step: number): Tag | null =>
    lo >= 0 && hi < 2 ** 32 ? { kind: 'range', base, lo, hi, step: step || 1, zero: false } : null;
  const numbers = x?.base === 'number' && y?.base === 'number';
  const step = x && y ? gcd(stepOf(x), stepOf(y)) : 1;
  const constant = y && y.base === 'number' && y.lo === y.hi ? y.lo : undefined;
  switch (op) {
    case 0x28:
    case 0x29:
    case 0x2d:
    case 0x2f:
    case 0x31:
    case 0x33:
    case 0x35:
      return loaded(op, first!, Number(imm));
    case EXTEND_U:
      return first!.tag;
    case WRAP: {
      // What a callee gives is cut to 32 bits, but in a memory with 64-bit addresses.
      const { tag } = first!;
      const host = tag?.kind === 'host' || tag?.kind === 'page' || tag?.kind === 'flagged';
      return host && (s.wide || ('outside' in tag && tag.outside)) ? null : tag;
    }
    case ADD64:
    case ADD32: {
      if (op === ADD64 && isKey(first!) && isConst(second!, st.CELL_KEY_STEP)) return { kind: 'key' };
      const sum = addressOf(args, s) ?? addressOf([second!, first!], s);
      if (sum) return sum;
      if (!x || !y || (x.base !== 'number' && y.base !== 'number') || x.zero || y.zero) return null;
      // A constant near 2^32 is one that is taken away.
      const away = (r: RangeTag): RangeTag =>
        op === ADD32 && r.lo === r.hi && r.base === 'number' && r.lo >= 2 ** 31
          ? { ...r, lo: r.lo - 2 ** 32, hi: r.hi - 2 ** 32 }
          : r;
      const [a, b] = [away(x), away(y)];
      const base = x.base === 'number' ? y.base : x.base;
      // Records of a block, and entries of a table that counts them, lie one behind the other; what ends them is taken as given.
      for (const [list, entry] of [[RECORD, parts.records.entry], [SLOT_ENTRY, Slot.bytes]] as const)
        if (b.lo === entry && b.hi === entry && a.base === list.base && a.lo >= list.lo && a.hi <= list.hi && (a.lo - list.lo) % entry === 0 && stepOf(a) % entry === 0)
          return list;
      return bounded(base, a.lo + b.lo, a.hi + b.hi, step);
    } // biome-ignore format: pairs
    case SUB32:
    case SUB64:
      if (!x || !y || x.zero || y.zero || (y.base !== 'number' && y.base !== x.base)) return null;
      return bounded(y.base === 'number' ? x.base : 'number', x.lo - y.hi, x.hi - y.lo, step);
    case 0x6c:
    case 0x7e:
      if (!numbers) return null;
      return bounded('number', x!.lo * y!.lo, x!.hi * y!.hi, constant === undefined ? 1 : stepOf(x!) * constant);
    case AND32:
    case AND64:
      if (op === AND64 && isKey(first!) && isConst(second!, -st.CELL_KEY_STEP)) return { kind: 'key' };
      return masked(args);
    case OR32:
    case OR64:
    case XOR32:
    case XOR64: {
      if (op === OR64 && isKey(first!) && y?.base === 'number' && stepOf(y) % PAGE === 0 && y.lo % PAGE === 0)
        return { kind: 'key' };
      // Of an entry: its neighbour.
      if (op === XOR32 && x && x.base === 'env' && !x.zero && constant !== undefined && (constant & (constant - 1)) === 0) {
        const even = x.lo % constant === 0 && stepOf(x) % constant === 0;
        return even && constant < LOCK_BYTES ? bounded('env', x.lo - (x.lo & constant), x.hi | constant, constant) : null;
      }
      if (!numbers) return null;
      return bounded('number', 0, 2 ** Math.ceil(Math.log2(Math.max(x!.hi, y!.hi) + 1)) - 1, 1);
    }
    case SHL32:
    case SHL64:
      return x?.base === 'number' && constant !== undefined && constant < 32
        ? bounded('number', x.lo * 2 ** constant, x.hi * 2 ** constant, stepOf(x) * 2 ** constant)
        : null;
    case SHRU32:
    case SHRU64: {
      if (constant === undefined) return null;
      const bits = op === SHRU32 ? 32 : 64;
      const by = 2 ** (constant & (bits - 1));
      const whole = x?.base === 'number' && x.lo === 0 && stepOf(x) % by === 0;
      return bounded('number', 0, x?.base === 'number' ? Math.floor(x.hi / by) : 2 ** bits / by - 1, whole ? stepOf(x) / by : 1);
    }
    case 0x70:
      return constant !== undefined && constant > 0 ? bounded('number', 0, constant - 1, 1) : null;
    case 0x7a:
      return bounded('number', 0, s.facts.some((f) => f.kind === 'some' && f.a === first!.id) ? 63 : 64, 1);
    default:
      // Comparisons.
      return (op >= 0x45 && op <= 0x66) || op === 0x50 ? bounded('number', 0, 1, 1) : null;
  }
}
/** What a load gives. */
export function loaded(op: number, from: Value, offset: number): Tag | null {
  const bytes = effectOf(op)!.bytes!;
  const base = rangeOf(from);
  if (base && !base.zero && base.lo === base.hi && base.base === 'env') {
    const slot = pointers.get(base.lo + offset);
    if (slot?.bytes === bytes) return slot.tag.kind === 'other' ? null : slot.tag;
  }
  if (base?.base === 'env') {
    const kept = (part: { from: number; to: number; entry: number }, place: number): boolean =>
      base.lo + offset >= part.from &&
      base.hi + offset < part.to &&
      (base.lo + offset - part.from) % part.entry === place &&
      stepOf(base) % part.entry === 0;
    if (op === 0x28) {
      if (kept(parts.records, Rec.imm) || kept(parts.records, Rec.far) || kept(parts.jumpCache, 12) || kept(parts.blocks, 8))
        return RECORD_OR_NONE;
      if (kept(parts.tlbs, 12)) return { kind: 'link', of: 'tlbs' };
      // The first site of a region holds the records to run where the region may not; other sites' are places in the table.
      if (kept(parts.sites, Site.index)) return { kind: 'out' };
      if (kept(parts.cells, Cell.link)) return { kind: 'link', of: 'cells' };
    }
    if (bytes === 2 && places.has(offset) && kept(parts.records, offset)) return { kind: 'place', field: offset };
    const most = kept(parts.records, Rec.segment) ? 7 : kept(parts.records, Rec.number) ? 15 : 255;
    if (bytes === 1) return { kind: 'range', base: 'number', lo: 0, hi: most, step: 1, zero: false };
  }
  if (base?.base === 'slots') {
    const exact = base.lo === 0 && base.hi === 0;
    if (
      op === 0x28 &&
      base.hi + offset < 4 * LOW_PAGES &&
      alignOf({ ...from, op: OPAQUE, tag: { ...base, base: 'number' } }) >= 4
    )
      return { kind: 'flagged', zero: true, bus: true };
    if (op === 0x35 && sameRange(base, SLOT_ENTRY) && offset === Slot.host) return { kind: 'slotHost' };
    if (op === 0x28 && exact && offset === SlotTable.plugMap) return { kind: 'plugMap' };
  }
  const hi = bytes === 1 ? 255 : bytes === 2 ? 65535 : 0;
  return hi > 0 ? { kind: 'range', base: 'number', lo: 0, hi, step: 1, zero: false } : null;
}
/** What masking leaves. */
export function masked(args: readonly Value[]): Tag | null {
  for (const [v, m] of [args, [...args].reverse()] as const) {
    if (!isConst(m!)) continue;
    const mask = m!.op === CONST32 ? BigInt.asIntN(32, m!.imm) : m!.imm;
    const { tag } = v!;
    if (tag?.kind === 'link' && mask === (tag.of === 'tlbs' ? -16n : -2n))
      return tag.of === 'tlbs' ? TLB_ENTRY_OR_NONE : CELL_OR_NONE;
    if (tag?.kind === 'flagged' && mask === -2n && !tag.bus)
      return { kind: 'host', bytes: PAGE, lo: 0, hi: 0, zero: tag.zero, outside: false };
    // The aligned bytes around an address.
    if (tag?.kind === 'page' && tag.from === 0 && mask < 0n && -mask <= 4096n && (-mask & (-mask - 1n)) === 0n)
      return { kind: 'host', bytes: Number(-mask), lo: 0, hi: 0, zero: tag.zero, outside: tag.outside };
    const r = numberOf(v);
    if (mask >= 0n && mask < 2n ** 32n) {
      const n = Number(mask);
      const hi = r ? Math.min(r.hi, n) : n;
      return { kind: 'range', base: 'number', lo: 0, hi, step: Number(mask & -mask) || 1, zero: false };
    }
  }
  const tops = args.flatMap((v) => numberOf(v)?.hi ?? []);
  return tops.length > 0 ? { kind: 'range', base: 'number', lo: 0, hi: Math.min(...tops), step: 1, zero: false } : null;
}
/** The slot of the state that a value was loaded from. */
export function slotLoad(v: Value): number | undefined {
  if (v.op !== 0x29 && v.op !== 0x28) return undefined;
  return isEnv(narrow(v.args[0]!)) ? Number(v.imm) : undefined;
}
/** The sum of a pointer and something. */
export function addressOf([base, by]: readonly Value[], s: State): Tag | null {
  const host = hostOf([base!, by!], s);
  if (host) return host;
  const { tag } = base!;
  const r = numberOf(by);
  const less = (v: Value, test: (f: Fact) => boolean): boolean =>
    s.facts.some((f) => f.kind === 'less' && f.a === v.id && test(f));
  const isLoad = (id: Value, offset: number): boolean => slotLoad(narrow(id)) === offset;
  switch (tag?.kind) {
    case 'host': {
      const by32 = by!.op === CONST32 ? Number(BigInt.asIntN(32, by!.imm)) : by!.op === CONST64 ? Number(by!.imm) : undefined;
      if (by32 !== undefined && !tag.zero) return { ...tag, lo: tag.lo + by32, hi: tag.hi + by32 };
      if (tag.lo === 0 && tag.hi === 0 && tag.bytes === PAGE && !tag.zero) {
        // A page, and a place in it.
        const within = (by!.op === AND64 || by!.op === AND32) && besides(by!, 0xfffn);
        if (within)
          return { kind: 'page', of: low(within), align: alignOf(low(within)), from: 0, zero: false, outside: tag.outside };
      }
      return r && !tag.zero ? { ...tag, lo: tag.lo + r.lo, hi: tag.hi + r.hi } : null;
    }
    case 'page': {
      if (tag.from === 0 && r && r.lo === r.hi && r.hi < PAGE) return { ...tag, from: r.lo };
      // Less than what is left of the page.
      const n = narrow(by!);
      const left = s.facts.some((f) => f.kind === 'less' && f.a === n.id && pageLeft(f.v.args[1]!)?.id === tag.of.id);
      return left && tag.from === 0 ? { kind: 'host', bytes: 1, lo: 0, hi: 0, zero: tag.zero, outside: tag.outside } : null;
    }
    case 'ram': {
      const page: Tag = { kind: 'page', of: low(by!), align: alignOf(by!), from: 0, zero: false, outside: false };
      const holds = less(by!, (f) => {
        const limit = f.v.args[1]!;
        if (tag.high) return slotLoad(limit) === st.ramHigh.offset || (isPlugSpan(limit) && isPlugged(by!, s));
        return isLoad(limit, st.ramLow.offset) || (isConst(limit) && limit.imm <= BigInt(LOW_PAGES * PAGE));
      });
      return holds ? page : null;
    }
    case 'map': {
      // The number of the page of RAM that a host address is in.
      const shifted = by!.op === WRAP ? by!.args[0]! : undefined;
      const from = shifted?.op === SHRU64 && isConst(shifted.args[1]!, 12n) ? shifted.args[0]! : undefined;
      if (tag.zero || from?.op !== SUB64 || !isLoad(from.args[1]!, st.ramBase.offset)) return null;
      return inRam(seen(from.args[0]!, s)) ? { kind: 'byte', writable: tag.writable } : null;
    }
    case 'plugMap': {
      const shifted =
        by!.op === WRAP && by!.args[0]!.op === SHRU64 && isConst(by!.args[0]!.args[1]!, 21n) ? by!.args[0]!.args[0]! : undefined;
      const holds = shifted && less(shifted, (f) => isPlugSpan(f.v.args[1]!));
      return holds ? { kind: 'byte', writable: false } : null;
    }
    case 'slotHost': {
      const holds =
        by!.op === SUB64 && alignOf(by!.args[0]!) === PAGE && less(by!, (f) => f.v.args[1]!.imm === BigInt(Slot.length));
      return holds ? { kind: 'flagged', zero: false, bus: false } : null;
    }
    case 'place':
      return isEnv(by!) ? { kind: 'register', field: tag.field } : null;
    default:
      return null;
  }
}
export function isSlots(v: Value | undefined): boolean {
  const r = v && rangeOf(narrow(v));
  return r?.base === 'slots' && r.lo === 0 && r.hi === 0;
}
export function isPlugSpan(v: Value): boolean {
  return v.op === 0x29 && v.imm === BigInt(SlotTable.plugSpan) && isSlots(v.args[0]);
}
/** Whether the map of what is plugged in was found to have these bytes above 4 GiB. */
export function isPlugged(above: Value, s: State): boolean {
  return s.facts.some((f) => {
    const entry = f.kind === 'some' && f.v.op === 0x2d ? narrow(f.v.args[0]!) : undefined;
    return (
      entry?.tag?.kind === 'byte' &&
      entry.args.some((a) => a.op === WRAP && a.args[0]!.op === SHRU64 && a.args[0]!.args[0]!.id === above.id)
    );
  });
}
/** The address of which this is the number of bytes to its page's end. */
export function pageLeft(v: Value): Value | undefined {
  if ((v.op !== SUB32 && v.op !== SUB64) || !isConst(v.args[0]!, 4096n)) return undefined;
  const place = v.args[1]!;
  const address = place.op === AND32 || place.op === AND64 ? besides(place, 0xfffn) : undefined;
  return address && low(address.op === WRAP ? address.args[0]! : address);
}
export function inRam(v: Value): boolean {
  const { tag } = v;
  if (tag?.kind === 'page') return !tag.zero && !tag.outside && tag.from === 0;
  return tag?.kind === 'host' && !tag.zero && !tag.outside && tag.lo >= 0 && tag.hi < tag.bytes;
}
/** The host address that adding an addend gives, where what it belongs to was found to hold. */
export function hostOf([wrappedOrNot, plus]: readonly Value[], s: State): Tag | null {
  const wrapped =
    wrappedOrNot!.op === WRAP
      ? wrappedOrNot!
      : wrappedOrNot!.op === EXTEND_U && wrappedOrNot!.args[0]!.op === WRAP
        ? wrappedOrNot!.args[0]!
        : undefined;
  let addend = plus!;
  // In a memory with 64-bit addresses it counts pages.
  if (addend.op === SHL64)
    addend = isConst(addend.args[1]!, 12n) && addend.args[0]!.op === EXTEND_S ? addend.args[0]!.args[0]! : addend;
  if (!wrapped || addend.op !== 0x28) return null;
  const address = wrapped.args[0]!;
  const from = narrow(addend.args[0]!);
  const place = slotLoad(addend);
  let bytes = 0;
  for (const f of s.facts) {
    if (f.epoch !== addend.epoch) continue;
    const holds =
      f.kind === 'cell'
        ? f.a === address.id && place === f.n + Cell.addend
        : f.kind === 'tlb' && f.a === from.id && f.b === address.id && addend.imm === 8n;
    if (holds) bytes = Math.max(bytes, f.m);
  }
  return bytes > 0 ? { kind: 'host', bytes, lo: 0, hi: 0, zero: false, outside: false } : null;
}
/** The same as subroutines write it, which serves both widths of memory. */
export function hostBySelect(a: Value, b: Value, c: Value, s: State): Tag | null {
  if (slotLoad(c) !== st.addendShift.offset || a.op !== ADD64 || b.op !== AND64 || besides(b, 0xffffffffn)?.id !== a.id)
    return null;
  const [address, pages] = a.args;
  const addr = address!.op === AND64 ? besides(address!, 0xffffffffn) : undefined;
  if (
    !addr ||
    pages!.op !== SHL64 ||
    pages!.args[0]!.op !== EXTEND_S ||
    slotLoad(narrow(pages!.args[1]!)) !== st.addendShift.offset
  )
    return null;
  const addend = pages!.args[0]!.args[0]!;
  if (addend.op !== 0x28 || addend.imm !== 8n) return null;
  const entry = narrow(addend.args[0]!);
  if (!s.facts.some((f) => f.kind === 'tlb' && f.a === entry.id && f.b === addr.id && f.epoch === addend.epoch)) return null;
  return { kind: 'page', of: low(addr), align: alignOf(addr), from: 0, zero: false, outside: false };
}
/** The address of which this is the entry in some TLB: the table's base, and the page's number times 16 in it. */
export function entryFor(entry: Value): Value | undefined {
  const range = envRange(entry);
  if (!range || range.zero || range.lo < parts.tlbs.from || range.hi + parts.tlbs.entry > parts.tlbs.to || entry.op !== ADD32)
    return undefined;
  for (const number of entry.args) {
    // Shifted by 8 and masked, or shifted by 12, masked and shifted back.
    const masked = number.op === SHL32 && isConst(number.args[1]!, 4n) ? number.args[0]! : number;
    const [by, mask] = masked === number ? [8n, (st.TLB_ENTRIES - 1) << 4] : [12n, st.TLB_ENTRIES - 1];
    const inner = masked.op === AND32 ? besides(masked, BigInt(mask)) : undefined;
    // Cut to 32 bits before that or behind it.
    const first = inner?.op === WRAP || inner?.op === SHRU32 ? inner.args[0]! : undefined;
    const [cut, shifted] = inner?.op === WRAP ? [inner, first] : [first, inner];
    if (cut?.op !== WRAP || (shifted?.op !== SHRU32 && shifted?.op !== SHRU64) || !isConst(shifted.args[1]!, by)) continue;
    return inner?.op === WRAP ? shifted.args[0]! : cut.args[0]!;
  }
  return undefined;
}
/** Whether bytes from a page's address plus `from` lie in that page. */
export function fitsPage(tag: Tag & { kind: 'page' }, bytes: number, at: number, s: State): boolean {
  if (at < 0) return false;
  if (at + bytes <= Math.min(PAGE, tag.align)) return true;
  if (at !== 0) return false;
  if (bytes === 1) return true;
  for (const f of s.facts) {
    // As many bytes as a size that was compared with the page's end, of which conditions told the bits.
    if (f.kind === 'fits' && f.a === tag.of.id) {
      const bit = (n: number): boolean =>
        s.facts.some(
          (g) =>
            g.kind === 'some' && g.v.op === AND32 && g.v.args.some((x) => x.id === f.b) && besides(g.v, BigInt(n)) !== undefined,
        );
      if (bytes <= (bit(2) ? (bit(1) ? 8 : 4) : bit(1) ? 2 : 1)) return true;
    }
    // One of the elements of which so many end with the page.
    if (f.kind === 'from' && f.n >= 1 && elements(f.v, tag.of.id, Math.log2(bytes))) return true;
  }
  return false;
}
/** Whether `n` elements of 1 << `log2` bytes from the address number `of` end with its page. */
export function elements(n: Value, of: number, log2: number): boolean {
  const left = log2 === 0 ? n : n.op === SHRU64 && isConst(n.args[1]!, BigInt(log2)) ? n.args[0]! : undefined;
  if (left && pageLeft(left)?.id === of) return true;
  return arms(n).some((x) => elements(x, of, log2));
}
/** Both of which a value is the lower one. */
export function arms(v: Value): readonly Value[] {
  if (v.op !== SELECT) return [];
  const [a, b, c] = v.args;
  const lower = (c!.op === LTU64 || c!.op === LTU32) && c!.args[0]!.id === a!.id && c!.args[1]!.id === b!.id;
  return lower ? [a!, b!] : [];
}
/** Whether so many bytes from the address number `of` end with its page. */
export function lengthFits(length: Value, of: number): boolean {
  if (length.op === SHL32 && isConst(length.args[1]!) && length.args[0]!.op === WRAP)
    return elements(length.args[0]!.args[0]!, of, Number(length.args[1]!.imm));
  if (length.op === WRAP) return elements(length.args[0]!, of, 0);
  if (length.op === SUB32) return atMost(length.args[1]!, length.args[0]!) && lengthFits(length.args[0]!, of);
  return arms(length).some((x) => lengthFits(x, of));
}
export function atMost(v: Value, limit: Value): boolean {
  if (v.id === limit.id) return true;
  if (v.op === SUB32 && v.args[0]!.id === limit.id) return atMost(v.args[1]!, limit);
  return arms(v).some((x) => atMost(x, limit));
}
/** The addend of `page` that leads to a page of RAM. */
export function isAddend(v: Value, page: Value): boolean {
  const shifted = v.op === WRAP ? v.args[0]! : undefined;
  if (shifted?.op !== SHRS64 || slotLoad(narrow(shifted.args[1]!)) !== st.addendShift.offset) return false;
  const difference = shifted.args[0]!;
  if (difference.op !== SUB64) return false;
  const { tag } = difference.args[0]!;
  const from = difference.args[1]!;
  const ram = tag?.kind === 'host' && tag.bytes === PAGE && tag.lo === 0 && tag.hi === 0 && !tag.zero && !tag.outside;
  return ram && from.op === AND64 && besides(from, 0xffffffffn)?.id === page.id;
}
/** One of the three tables of TLB entries, or the fourth: they begin at the same place in a table's bytes. */
function isTlb(v: Value): boolean {
  const r = envRange(v);
  const bytes = st.TLB_ENTRIES * st.TLB_ENTRY_BYTES;
  return r !== null && !r.zero && (r.lo - parts.tlbs.from) % bytes === 0 && stepOf(r) % bytes === 0;
}
/** Whether `n` is the number of an entry in its table, or that and a multiple of how many a table has. */
export function isNumberOf(n: Value, entry: Value): boolean {
  if (entry.op === ADD32)
    for (const [table, place] of [entry.args, [...entry.args].reverse()])
      if (place!.op === SHL32 && place!.args[0]!.id === n.id && isConst(place!.args[1]!, 4n) && isTlb(table!)) return true;
  const shifted = n.op === AND32 ? besides(n, BigInt(st.TLB_ENTRIES - 1)) : undefined;
  const place = shifted?.op === SHRU32 && isConst(shifted.args[1]!, 4n) ? shifted.args[0]! : undefined;
  return place?.op === SUB32 && place.args[0]!.id === entry.id && isTlb(place.args[1]!);
}
/** A word of flags below the address of a TLB entry, or 0 in its place. */
export function isLink(v: Value): boolean {
  if (v.tag?.kind === 'link') return v.tag.of === 'tlbs';
  if ((numberOf(v)?.hi ?? 16) < 16) return true;
  const r = envRange(v);
  if (r) return r.lo >= TLB_ENTRY_OR_NONE.lo && r.hi <= TLB_ENTRY_OR_NONE.hi && stepOf(r) % 16 === 0 && (r.lo - TLB_ENTRY_OR_NONE.lo) % 16 === 0;
  for (const [x, y] of [v.args, [...v.args].reverse()]) {
    if (v.op === OR32 && isLink(x!) && (numberOf(y)?.hi ?? 16) < 16) return true;
    // Flags are cleared.
    if (v.op === AND32 && isLink(x!) && isConst(y!) && BigInt.asIntN(32, y!.imm) >= -16n && BigInt.asIntN(32, y!.imm) < 0n) return true;
  }
  return false;
} // biome-ignore format: conditions
/** Whether a number of 64 bits is known to be none below 0. */
export function neverNegative(v: Value): boolean {
  const [x, y] = v.args;
  if (v.op === EXTEND_U) return true;
  if (v.op === CONST64) return v.imm >= 0n;
  if (v.op === AND64) return neverNegative(x!) || neverNegative(y!);
  return (v.op === OR64 || v.op === XOR64) && neverNegative(x!) && neverNegative(y!);
}
export function isChain(v: Value): boolean {
  const chain = besides(v, 1n);
  const r = chain && envRange(chain);
  return r !== undefined && r !== null && sameRange(r, CELL_OR_NONE);
}
export function inJumpCache(v: Value): boolean {
  const r = envRange(narrow(v));
  const p = parts.jumpCache;
  return r !== null && r.lo >= p.from && r.hi + p.entry <= p.to && (r.lo - p.from) % p.entry === 0 && stepOf(r) % p.entry === 0;
}

/** A fact about a value. */
export function fact(kind: Fact['kind'], v: Value, more: Partial<Fact> = {}): Fact {
  return { kind, a: v.id, b: 0, n: 0, m: 0, epoch: 0, ...more, v };
}

/** A value with what facts tell of it here. */
export function seen(v: Value, s: State): Value {
  let { tag } = v;
  const whole = v.op === WRAP || v.op === EXTEND_U ? v.args[0]!.id : v.id;
  if (tag?.kind === 'key' || v.op === CONST32 || v.op === CONST64) return v;
  // Offsets are held against offsets, numbers against numbers.
  const offsets = tag?.kind === 'range' && tag.base !== 'number' ? 1 : 0;
  let [lo, hi] = [0, 2 ** 32 - 1];
  for (const f of s.facts) {
    if (f.a !== v.id && f.a !== whole) continue;
    if (f.kind === 'below' && f.m === offsets) hi = Math.min(hi, f.n - 1);
    else if (f.kind === 'from' && f.a === v.id && offsets === 0) lo = Math.max(lo, f.n);
    else if (tag === null) continue;
    else if (f.kind === 'some' && 'zero' in tag && tag.zero) tag = { ...tag, zero: false };
    else if (f.kind === 'inside' && 'outside' in tag && tag.outside) tag = { ...tag, outside: false };
    else if (f.kind === 'not' && f.n === -1 && tag.kind === 'flagged') tag = { ...tag, bus: false };
    else if (f.kind === 'record' && tag.kind === 'out') tag = RECORD;
  }
  if (tag?.kind === 'range' || (hi < 2 ** 32 - 1 && (tag === null || tag.kind === 'aligned'))) {
    const range =
      tag?.kind === 'range' ? tag : { base: 'number' as const, lo: 0, hi: 2 ** 32 - 1, step: tag?.to ?? 1, zero: false };
    const from = range.lo + Math.max(0, Math.ceil((lo - range.lo) / range.step)) * range.step;
    const to = from + Math.floor((Math.min(hi, range.hi) - from) / range.step) * range.step;
    if ((from !== range.lo || to !== range.hi) && from <= to) tag = { ...range, kind: 'range', lo: from, hi: to };
  }
  return tag === v.tag ? v : { ...v, tag };
}
