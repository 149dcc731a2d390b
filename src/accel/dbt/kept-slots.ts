// Which slots of the state a region has in locals at the beginning of each of its blocks. A slot is in its local once it was read or written there; until
// then the state has it, and so it has after a call of another region. Where ways meet, a slot is in its local if one of them may have written it, or if
// it is read behind and one of them has it there: the others load it on the way. What was written is stored where the region is left.

import type { Stmt } from '../../ir/ir.ts';
import type { RegionBlock } from './region.ts';

/** Slots (by offset) that are in their locals, and those of them that the state may not know. */
export interface Held {
  readonly valid: Set<number>;
  readonly dirty: Set<number>;
}
/** And those that some ways hold without need. */
export interface HeldAt extends Held {
  readonly stale: ReadonlySet<number>;
}
export const nothingHeld = (): Held => ({ valid: new Set(), dirty: new Set() });
export const copyOf = ({ valid, dirty }: Held): Held => ({ valid: new Set(valid), dirty: new Set(dirty) });

type Bodies = ReadonlyMap<RegionBlock, readonly { readonly code: readonly Stmt[] }[]>;

/** How a list ends, where it leaves the straight way for good. */
export function leaveOf(list: readonly Stmt[]): (Stmt & { kind: 'leave' }) | undefined {
  const last = list.at(-1);
  return last?.kind === 'leave' ? last : undefined;
}
const arms = (s: Stmt): readonly (readonly Stmt[])[] =>
  s.kind === 'if' ? [s.then, s.else] : s.kind === 'loop' || s.kind === 'block' ? [s.body] : [];

/** Slots that code reads or writes on some of the ways through it. */
export function nestedSlots(code: readonly Stmt[]): Set<number> {
  const slots = new Set<number>();
  const inside = (list: readonly Stmt[]): void => {
    for (const s of list) {
      if (s.kind === 'get' || s.kind === 'set') slots.add(s.slot.offset);
      below(s);
    }
  };
  const below = (s: Stmt): void => {
    for (const arm of arms(s)) if (!leaveOf(arm)) inside(arm);
  };
  for (const s of code) below(s);
  return slots;
}

/** What a block asks of the slots in `kept`: read before it writes them, written for certain, written perhaps, and that only where it branches to a place. */
interface Needs {
  readonly reads: Set<number>;
  readonly sets: Set<number>;
  readonly writes: Set<number>;
  readonly branches: Map<number, Set<number>>;
}
function needsOf(parts: readonly { readonly code: readonly Stmt[] }[], kept: ReadonlySet<number>): Needs {
  const needs: Needs = { reads: new Set(), sets: new Set(), writes: new Set(), branches: new Map() };
  const { reads, sets, branches } = needs;
  const writesIn = (list: readonly Stmt[], into: Set<number>): void => {
    for (const s of list) {
      if (s.kind === 'set' && kept.has(s.slot.offset)) into.add(s.slot.offset);
      for (const arm of arms(s)) {
        const leave = leaveOf(arm);
        let to = into;
        if (leave?.how === 'branch') {
          to = branches.get(leave.reason) ?? new Set();
          branches.set(leave.reason, to);
        }
        writesIn(arm, to);
      }
    }
  };
  for (const { code } of parts) {
    for (const offset of nestedSlots(code)) if (kept.has(offset) && !sets.has(offset)) reads.add(offset);
    for (const s of code) {
      if (s.kind === 'get' && kept.has(s.slot.offset) && !sets.has(s.slot.offset)) reads.add(s.slot.offset);
      if (s.kind === 'set' && kept.has(s.slot.offset)) sets.add(s.slot.offset);
    }
    writesIn(code, needs.writes);
  }
  return needs;
}

/** Adds to `set`; whether anything was new. */
function addAll(set: Set<number>, more: Iterable<number>): boolean {
  const before = set.size;
  for (const x of more) set.add(x);
  return set.size > before;
}

/** What is held at the beginning of each block of a region, which are in reverse postorder, of the slots in `kept`. */
export function heldAt(blocks: readonly RegionBlock[], bodies: Bodies, kept: ReadonlySet<number>): Map<RegionBlock, HeldAt> {
  const needs = new Map(blocks.map((b) => [b, needsOf(bodies.get(b) ?? [], kept)]));
  const live = new Map(blocks.map((b) => [b, new Set(needs.get(b)!.reads)]));
  const there = new Map(blocks.map((b) => [b, nothingHeld()]));
  const goesTo = (p: RegionBlock, b: RegionBlock): boolean =>
    p.back !== b || [...p.edges.values()].includes(b) || p.dispatch === b;
  for (let changed = true; changed; ) {
    changed = false;
    for (const b of blocks) {
      const { valid, dirty } = there.get(b)!;
      for (const p of b.preds) {
        // Behind a call the state has all.
        if (!goesTo(p, b)) continue;
        const [before, { reads, writes, branches }] = [there.get(p)!, needs.get(p)!];
        const onWay = [...p.edges].filter(([, to]) => to === b).flatMap(([place]) => [...(branches.get(place) ?? [])]);
        for (const more of [before.valid, reads, writes, onWay]) changed = addAll(valid, more) || changed;
        for (const more of [before.dirty, writes, onWay]) changed = addAll(dirty, more) || changed;
      }
    }
    for (const b of blocks.toReversed())
      for (const p of b.preds) {
        if (!goesTo(p, b)) continue;
        const { sets } = needs.get(p)!;
        const more = [...live.get(b)!].filter((offset) => !sets.has(offset));
        changed = addAll(live.get(p)!, more) || changed;
      }
  }
  return new Map(
    blocks.map((b) => {
      const { valid, dirty } = there.get(b)!;
      const needed = new Set([...valid].filter((x) => dirty.has(x) || live.get(b)!.has(x)));
      return [b, { valid: needed, dirty, stale: new Set([...valid].filter((x) => !needed.has(x))) }];
    }),
  );
}
