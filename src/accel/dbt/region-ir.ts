// The IR of a region's blocks: each instruction by its row, flags as pending operands where they live.

import { Builder } from '../../ir/builder.ts';
import type { Stmt } from '../../ir/ir.ts';
import { FlagBit, FlagState, RegionEmit } from '../../isa/x86/region-emit.ts';
import { emitRow, variantOf } from '../../isa/x86/static.ts';
import { liveAfter, liveBefore, type RegionBlock } from './region.ts';

/** One instruction: its code, and what settles the flags where it is left half-way. */
export interface Part {
  readonly place: number;
  readonly code: readonly Stmt[];
  readonly aside: readonly Stmt[];
  /** It may write guest memory. */
  readonly stores: boolean;
}

/** IR of each instruction of a block. */
export function translateBlock(b: RegionBlock, ctx: number): Part[] {
  const builder = new Builder();
  const flags = new FlagState((place) => b.edges.get(place)?.live ?? b.called ?? FlagBit.all);
  const after: number[] = [];
  let m = liveAfter(b);
  for (let n = b.steps.length - 1; n >= 0; n--) {
    after[n] = m;
    m = liveBefore(b.steps[n].handler, m);
  }
  const parts: Part[] = [];
  for (const [n, { insn, handler, place }] of b.steps.entries()) {
    const last = n === b.steps.length - 1;
    const dead = handler.writes !== 0 && (handler.writes & after[n]) === 0;
    const c = new RegionEmit(variantOf(insn, ctx, !dead), insn, place, builder, flags, ctx);
    // What writes flags only sometimes, or may end without saying so, must find the flags in their slots: those that anybody reads again.
    const conditional = !dead && (handler.writes & ~handler.kills) !== 0;
    const odd = [...handler.leaves].some((how) => how !== 'branch' && how !== 'jump' && how !== 'fault');
    if (handler.sharesFlags || odd || (conditional && handler.faults)) c.settle();
    else if (conditional) c.settle(liveBefore(handler, after[n]));
    const aside = handler.faults ? c.settlement() : [];
    // A store may change the very code that is running: the next instruction then comes from tier 0.
    c.stores = handler.stores;
    c.direct = handler.leaves.has('repeat') || handler.leaves.has('next');
    if (last) c.guesses = b.guesses;
    emitRow(c);
    if (handler.stores && !builder.ended) c.stopIfChanged();
    // What always faults (division by a constant zero, say) ends the block here.
    const ended = builder.ended;
    if (last && b.fall !== null && !ended) c.settle(b.edges.get(b.fall)?.live ?? FlagBit.all);
    parts.push({ place, code: builder.take(), aside, stores: handler.stores });
    if (ended) break;
  }
  return parts;
}
