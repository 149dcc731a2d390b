// Accesses of a region that lie near each other: those whose addresses differ by a constant need one look at the TLB together. A look
// holds in all blocks to which every way leads by it, with nothing on the way that could change what the TLB says.

import type { Stmt, Value } from '../../ir/ir.ts';
import * as st from '../../isa/x86/state.ts';
import { dominates } from './flow.ts';
import type { RegionBlock } from './region.ts';

/** Most bytes from the first to the last byte of a group; and where one of its accesses is in another block, which may not run. */
const SPAN_MAX = 1024;
const SPAN_STACK = 512;
const SPAN_BLOCKS = 64;
const KEY_MAX = 60;
/** Constants from here on are taken as unknown: sums of smaller ones are exact. */
const LARGE = 2 ** 40;

export interface Group {
  /** The access at which the look is taken, and the group's lowest byte relative to its address. */
  readonly first: Stmt;
  lowest: number;
  /** Bytes from the lowest to the end of the highest access. */
  highest: number;
  /** Some access writes. */
  write: boolean;
  /** Where its accesses' instructions are. */
  readonly places: number[];
  /** It has accesses in several blocks. */
  shared: boolean;
  /** Its look is often not served: what it is for then goes access by access. */
  soft: boolean;
  /** It lies on the stack. */
  readonly stack: boolean;
}

/** An access of a group: its place relative to the first access. */
export interface Member {
  readonly group: Group;
  readonly offset: number;
}

/** An address as an unknown and a known part. */
interface Place {
  readonly root: string;
  readonly offset: number;
}

const GPR = new Set(st.gpr.map((s) => s.offset));
/** What decides which pages may be accessed. */
export const RIGHTS: ReadonlySet<number> = new Set([st.tlb.offset, st.cellKey.offset]);
const RSP: number = st.gpr[4].offset;
const RBP: number = st.gpr[5].offset;

/** Bytes from its address that an access asks for. */
const bytesOf = (s: Stmt & { kind: 'load' | 'store' }): number => (s.kind === 'store' ? s.span : s.access.bits / 8);
/** A group of one access. */
export function alone(s: Stmt & { kind: 'load' | 'store' }, place: number, stack = false): Group {
  return { first: s, lowest: 0, highest: bytesOf(s), write: writes(s), places: [place], shared: false, soft: false, stack };
}
/** Whether an access asks for write permission. */
export const writes = (s: Stmt): boolean => s.kind === 'store' || (s.kind === 'load' && s.forWrite);

/** A group that later accesses may join. */
interface Open {
  readonly group: Group;
  /** Known part of its first access's address, and the block of that access. */
  readonly at: number;
  readonly block: RegionBlock;
}
/** What is known at the end of a block: what slots hold (what is not there has not changed since the region was entered), open groups. */
interface Known {
  readonly slots: Map<number, Place>;
  readonly open: Map<string, Open>;
}

type Parts = readonly { readonly code: readonly Stmt[]; readonly place: number }[];

/** Finds the groups of a region, whose blocks are in reverse postorder: every access on a block's straight way is in one. */
class GroupFinder {
  readonly found = new Map<Stmt, Member>();
  readonly #bodies: ReadonlyMap<RegionBlock, Parts>;
  readonly #apart: ReadonlySet<number>;
  /** Outside 64-bit code addresses have 32 bits: values that agree in them are the same. */
  readonly #narrow: boolean;
  readonly #ends = new Map<RegionBlock, Known>();
  /** Slots that each block sets; undefined where it may set any, or change what the TLB says. */
  readonly #sets = new Map<RegionBlock, ReadonlySet<number> | undefined>();
  #block!: RegionBlock;
  #slots = new Map<number, Place>();
  #open = new Map<string, Open>();
  #values = new Map<number, Place>();
  #fresh = 0;

  constructor(bodies: ReadonlyMap<RegionBlock, Parts>, apart: ReadonlySet<number>, narrow: boolean) {
    this.#bodies = bodies;
    this.#apart = apart;
    this.#narrow = narrow;
    for (const [b, parts] of bodies) this.#sets.set(b, setsOf(b, parts));
  }

  block(b: RegionBlock): void {
    this.#block = b;
    const { slots, open } = this.#before(b);
    this.#slots = slots;
    this.#open = open;
    this.#values = new Map();
    for (const { code, place } of this.#bodies.get(b) ?? []) {
      for (const s of code) {
        if (s.kind === 'get') this.#values.set(s.id, s.type === 'i64' ? this.#slot(s.slot.offset) : this.#unknown());
        else if (s.kind === 'set') {
          slots.set(s.slot.offset, s.value.type === 'i64' ? this.#placeOf(s.value) : this.#unknown());
          // Other rights from here on (CLAC, say).
          if (RIGHTS.has(s.slot.offset)) open.clear();
        } else if (s.kind === 'load' || s.kind === 'store') this.#access(s, place);
        else if (s.kind === 'call' || s.kind === 'do') this.#forget();
        else if (s.kind === 'if' || s.kind === 'loop' || s.kind === 'block') this.#touch([s]);
      }
    }
    // It may have been left before all of it had run.
    if (b.steps.some((x) => x.handler.leaves.has('next') || x.handler.leaves.has('repeat'))) this.#forget();
    this.#ends.set(b, { slots, open });
  }

  /** What holds whichever way the block is reached. */
  #before(b: RegionBlock): Known {
    const ways = b.preds.filter((p) => p.order < b.order);
    const ends = ways.map((p) => (p.back === b ? undefined : this.#ends.get(p)));
    // Nothing: the entry, or behind a call of another region.
    if (ends.length === 0 || ends.some((e) => e === undefined)) return this.#nothing();
    const [first, ...rest] = ends as Known[];
    const known: Known = { slots: new Map(first.slots), open: new Map(first.open) };
    for (const other of rest) {
      for (const offset of new Set([...known.slots.keys(), ...other.slots.keys()])) {
        const [x, y] = [known.slots.get(offset) ?? initial(offset), other.slots.get(offset) ?? initial(offset)];
        if (x.root !== y.root || x.offset !== y.offset) known.slots.set(offset, this.#unknown());
      }
      for (const [root, o] of known.open) if (other.open.get(root)?.group !== o.group) known.open.delete(root);
    }
    const loop = b.header ? loopOf(b) : [];
    for (const x of loop) {
      const sets = this.#sets.get(x);
      if (!sets && this.#bodies.has(x)) return this.#nothing();
      for (const offset of sets ?? []) known.slots.set(offset, this.#unknown());
    }
    return known;
  }
  #nothing(): Known {
    return { slots: new Map([...GPR].map((offset) => [offset, this.#unknown()])), open: new Map() };
  }
  #unknown(): Place {
    return { root: `?${this.#fresh++}`, offset: 0 };
  }
  #slot(offset: number): Place {
    return this.#slots.get(offset) ?? initial(offset);
  }
  #forget(): void {
    for (const offset of GPR) this.#slots.set(offset, this.#unknown());
    this.#open.clear();
  }
  #touch(list: readonly Stmt[]): void {
    for (const s of list) {
      if (s.kind === 'set') {
        this.#slots.set(s.slot.offset, this.#unknown());
        if (RIGHTS.has(s.slot.offset)) this.#open.clear();
      } else if (s.kind === 'call' || s.kind === 'do') this.#forget();
      else if (s.kind === 'if') {
        this.#touch(s.then);
        this.#touch(s.else);
      } else if (s.kind === 'loop' || s.kind === 'block') this.#touch(s.body);
    }
  }
  #placeOf(v: Value): Place {
    let p = this.#values.get(v.id);
    if (!p) {
      p = this.#compute(v);
      this.#values.set(v.id, p);
    }
    return p;
  }
  #compute(v: Value): Place {
    if (v.kind === 'const' && typeof v.value === 'bigint') {
      if (this.#narrow) return { root: '', offset: Number(BigInt.asIntN(32, v.value)) };
      const n = Number(v.value);
      return Math.abs(n) < LARGE ? { root: '', offset: n } : { root: `c${v.value}`, offset: 0 };
    }
    if (v.kind === 'const' && typeof v.value === 'number') return { root: '', offset: v.value };
    if (v.kind !== 'pure' || v.lanes.length > 0) return this.#unknown();
    const { name } = v.op;
    if (this.#narrow && same32(v)) return this.#placeOf(v.args[0]);
    const args = v.args.map((a) => this.#placeOf(a));
    if (this.#narrow && (name === 'i64.sub' || name === 'i32.sub') && args[1].root === '')
      return { root: args[0].root, offset: (args[0].offset - args[1].offset) | 0 };
    if (name === 'i64.add' || (this.#narrow && name === 'i32.add')) {
      const roots = args.map((a) => a.root).filter((r) => r !== '');
      const root = roots.sort().join('+');
      const offset = args[0].offset + args[1].offset;
      return root.length > KEY_MAX ? this.#unknown() : { root, offset: this.#narrow ? offset | 0 : offset };
    }
    // What depends on more than the lower 32 bits of its operands is not known.
    if (this.#narrow && !LOWER_BITS.has(name) && v.args.some((a) => a.type !== 'i32')) return this.#unknown();
    const root = `${name}(${args.map((a) => `${a.root}:${a.offset}`).join()})`;
    return root.length > KEY_MAX ? this.#unknown() : { root, offset: 0 };
  }
  /** Whether an address lies in the frame of the function that runs: such pages are written sooner or later. */
  #onStack({ root, offset }: Place): boolean {
    if (root === this.#slot(RSP).root) return true;
    const frame = this.#slot(RBP);
    return root === frame.root && offset < frame.offset;
  }
  #access(s: Stmt & { kind: 'load' | 'store' }, place: number): void {
    if (s.space === 'system') return;
    const where = this.#placeOf(s.addr);
    const apart = this.#apart.has(place);
    const near = this.#open.get(where.root);
    if (near) {
      const { group } = near;
      const distance = this.#narrow ? (where.offset - near.at) | 0 : where.offset - near.at;
      const lowest = Math.min(group.lowest, distance);
      const highest = Math.max(group.highest, distance + bytesOf(s));
      const beyond = near.block !== this.#block;
      const stack = beyond && this.#onStack(where);
      const larger = lowest < group.lowest || highest > group.highest;
      const fits = !larger || highest - lowest <= (beyond ? (stack ? SPAN_STACK : SPAN_BLOCKS) : SPAN_MAX);
      if (fits && (!beyond || stack || group.write || !writes(s))) {
        group.lowest = lowest;
        group.highest = highest;
        group.write ||= writes(s);
        group.shared ||= beyond;
        group.soft ||= apart;
        group.places.push(place);
        this.found.set(s, { group, offset: distance });
        return;
      }
    }
    const group = { ...alone(s, place, this.#onStack(where)), soft: apart };
    this.found.set(s, { group, offset: 0 });
    this.#open.set(where.root, { group, at: where.offset, block: this.#block });
  }
}

/** Operations whose lower 32 bits depend on those of their operands alone. */
const LOWER_BITS = new Set(['i64.sub', 'i64.mul', 'i64.and', 'i64.or', 'i64.xor', 'i64.shl']);
/** Whether a value has the lower 32 bits of its first operand. */
function same32(v: Value & { kind: 'pure' }): boolean {
  const { name } = v.op;
  if (name === 'i32.wrap_i64' || name === 'i64.extend_i32_u' || name === 'i64.extend_i32_s') return true;
  const [, mask] = v.args;
  return name === 'i64.and' && mask.kind === 'const' && mask.value === 0xffffffffn;
}

/** What a slot holds that was not set since the region was entered. */
const initial = (offset: number): Place => ({ root: `s${offset}`, offset: 0 });

/** See `GroupFinder.#sets`. */
function setsOf(b: RegionBlock, parts: Parts): ReadonlySet<number> | undefined {
  if (b.back) return undefined;
  const sets = new Set<number>();
  const all = (list: readonly Stmt[]): boolean =>
    list.every((s) => {
      if (s.kind === 'call' || s.kind === 'do' || (s.kind === 'set' && RIGHTS.has(s.slot.offset))) return false;
      if (s.kind === 'set') sets.add(s.slot.offset);
      if (s.kind === 'if') return all(s.then) && all(s.else);
      return s.kind === 'loop' || s.kind === 'block' ? all(s.body) : true;
    });
  return parts.every(({ code }) => all(code)) ? sets : undefined;
}

/** The blocks of the natural loop at a header. */
export function loopOf(header: RegionBlock): Set<RegionBlock> {
  const loop = new Set([header]);
  const work = header.preds.filter((p) => p.order >= header.order && dominates(header, p));
  for (let b = work.pop(); b; b = work.pop()) {
    if (loop.has(b)) continue;
    loop.add(b);
    work.push(...b.preds);
  }
  return loop;
}

/**
 * The groups of a region's blocks, which are in reverse postorder. Those with accesses of instructions at places in `apart` are soft. `narrow`:
 * addresses have 32 bits.
 */
export function groupsOf(
  blocks: readonly RegionBlock[],
  bodies: ReadonlyMap<RegionBlock, Parts>,
  apart: ReadonlySet<number>,
  narrow: boolean,
): ReadonlyMap<Stmt, Member> {
  const finder = new GroupFinder(bodies, apart, narrow);
  for (const b of blocks) finder.block(b);
  return finder.found;
}
