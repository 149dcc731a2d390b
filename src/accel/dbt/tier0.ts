// The interpreter of tier 0: WebAssembly generated from the rows. Hot handlers are arms of one `br_table` in the main loop; every other
// handler is a function of its own, compiled when it is first met and called through the table.

import type { Callee } from '../../ir/ir.ts';
import type { Type } from '../../ir/ops.ts';
import { updateContext } from '../../isa/x86/context.ts';
import { updateWatch } from '../../isa/x86/debug.ts';
import { interrupt, stepBegin, stepShadow } from '../../isa/x86/exceptions.ts';
import { deliverAll, lookup } from '../../isa/x86/fetch.ts';
import { cmpxchgSlow, loadSlow, loadVectorSlow, rmwSlow, storeSlow, storeVectorSlow } from '../../isa/x86/memory.ts';
import { fetchTranslate, loadPointers, translate } from '../../isa/x86/mmu.ts';
import { Link, RECORD_BYTES, Rec } from '../../isa/x86/record.ts';
import * as st from '../../isa/x86/state.ts';
import { Ctx, Exit, TLB_ENTRIES } from '../../isa/x86/state.ts';
import type { Sub } from '../../isa/x86/sub.ts';
import { flushAll, protectPage } from '../../isa/x86/tlb.ts';
import { Lower, type Target, type TlbLayout } from '../../wasm/lower.ts';
import { type FunctionBody, isWide, type MemoryImport, ModuleBuilder } from '../../wasm/module.ts';
import { cellLook, pageLook } from './cells.ts';
import { chainMiss, pushEpoch, REGION_FIRST, TABLE_ENTRIES } from './chain.ts';
import { type Handler, variantName } from './handlers.ts';
import { Area } from './layout.ts';
import { calleesOf, type Library } from './library.ts';

export const tlbLayout: TlbLayout = {
  current: st.tlb.offset,
  system: st.tlbSystem.offset,
  entries: TLB_ENTRIES,
  pageBits: 12,
  pending: st.exc.offset,
};

export const slowPaths = {
  load: loadSlow,
  store: storeSlow,
  loadVector: loadVectorSlow,
  storeVector: storeVectorSlow,
  rmw: rmwSlow,
  cmpxchg: cmpxchgSlow,
};

/** Subroutines that the host calls by name, or that every module needs. */
const entryPoints: readonly Sub[] = [
  lookup, deliverAll, interrupt, fetchTranslate, translate, protectPage, flushAll, updateContext, updateWatch, stepBegin, stepShadow,
  loadPointers, loadSlow, storeSlow, loadVectorSlow, storeVectorSlow, rmwSlow, cmpxchgSlow, chainMiss, cellLook, pageLook,
]; // biome-ignore format: a list

/**
 * What a handler that is a function of its own returns: the next record, or one of these. `region`: a translated region was left, `rip`,
 * `retired` and a pending exception are in the state. `returned`: to a region only, that called it; the guest has returned to `rip`.
 */
export const Out = { fault: 0, jump: 1, resync: 2, exit: 3, repeat: 4, branch: 5, region: 6, returned: 7 } as const;
const OUTS = 8;

/** Instructions of regions of which one place is noted: a sample of what is hot. */
const SAMPLE = 50_000;

/** Arrivals at a block from afar before it is reported (see regions.ts, which counts reports). */
const ARRIVALS = 7500;
/** Entries of the table of arrivals, two bytes each. */
export const ARRIVAL_ENTRIES = 8192;

/** What a burst of a string instruction counts for in a slice. */
const REPEAT = 64;

/** Bits of the `kick` slot: look at requests and interrupts now; an interrupt waits for IF (and is that bit, so that one operation tells whether it has come). */
export const Kick = { now: 1, waiting: 0x200 } as const;

const zeroOf: Readonly<Record<Type, number[]>> = {
  i32: [0x41, 0],
  i64: [0x42, 0],
  f32: [0x43, 0, 0, 0, 0],
  f64: [0x44, 0, 0, 0, 0, 0, 0, 0, 0],
  v128: [0xfd, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
};

/** Lowering of subroutines. */
function subTarget(index: (c: Callee) => number, result: Type | null, wide: boolean): Target {
  return {
    tlb: tlbLayout,
    wide,
    callee: index,
    slow: slowPaths,
    inlineMemory: true,
    leave(lower, s) {
      if (s.how === 'return') {
        if (s.value) lower.value(s.value);
        lower.op(0x0f);
      } else if (s.how === 'fault') this.fault(lower);
      else throw new Error(`Cannot leave a subroutine by ${s.how}`);
    },
    fault(lower) {
      if (result) lower.op(...zeroOf[result]);
      lower.op(0x0f);
    },
  };
}

/** Emits the code that sets `rip` to pageBase plus the record's place (and length with `after`), cut to 32 bits outside 64-bit code. */
function setRip(l: Lower, rec: number, after: boolean): void {
  l.localGet(0);
  l.localGet(0);
  l.memory(0x29, st.pageBase.offset);
  l.localGet(rec);
  l.memory(0x33, Rec.place);
  l.op(0x7c);
  if (after) {
    l.localGet(rec);
    l.memory(0x31, Rec.length);
    l.op(0x7c);
  }
  // The mask: all ones in 64-bit code, else 32 bits.
  l.i64(-1n);
  l.i64(0xffffffffn);
  l.stateI32(st.ctx.offset);
  l.i32(Ctx.long);
  l.op(0x71, 0x1b, 0x83);
  l.memory(0x37, st.rip.offset);
}

/** Notes the record in local `rec`, from which the host finds the instruction that stores: `rip` is that of a block. */
function noteStoring(l: Lower, rec: number): void {
  l.localGet(0);
  l.localGet(rec);
  l.memory(0x36, st.storing.offset);
}

/** Lowering of a handler that is a function (env, rec) → `Out` or record. */
function functionTarget(index: (c: Callee) => number, wide: boolean): Target {
  const out = (l: Lower, n: number): void => {
    l.i32(n);
    l.op(0x0f);
  };
  return {
    tlb: tlbLayout,
    wide,
    callee: index,
    slow: slowPaths,
    inlineMemory: true,
    storing: (l) => noteStoring(l, 1),
    leave(l, s) {
      switch (s.how) {
        case 'fault':
          return out(l, Out.fault);
        case 'next':
          l.localGet(1);
          l.i32(RECORD_BYTES);
          return l.op(0x6a, 0x0f);
        case 'jump':
        case 'branch':
          l.localGet(0);
          l.value(s.value!);
          l.memory(0x37, st.rip.offset);
          return out(l, s.how === 'jump' ? Out.jump : Out.branch);
        case 'exit':
          l.localGet(0);
          l.i32(s.reason);
          l.memory(0x36, st.exitReason.offset);
          return out(l, Out.exit);
        case 'resync':
          return out(l, Out.resync);
        case 'repeat':
          return out(l, Out.repeat);
        default:
          throw new Error(`Cannot leave an instruction by ${s.how}`);
      }
    },
    fault(l) {
      out(l, Out.fault);
    },
  };
}

/**
 * The main module: all subroutines, the hot handlers, the loop. Imports memory, table and the host functions. With `profile` it counts
 * executions by handler.
 */
export function buildMain(
  library: Library,
  hot: readonly Handler[],
  legacyFrom: number,
  memory: MemoryImport,
  profile = false,
): { bytes: Uint8Array<ArrayBuffer>; hosts: Callee[] } {
  const roots = new Set<Callee>(entryPoints);
  for (const h of hot) for (const c of calleesOf(h.body)) roots.add(c);
  const { subs, hosts } = library.closure(roots);
  const m = new ModuleBuilder(memory, TABLE_ENTRIES);
  const index = new Map<string, number>();
  for (const h of hosts) index.set(h.name, m.import('host', h.name, { params: h.params, result: h.result }));
  const handlerType = m.type({ params: ['i32', 'i32'], result: 'i32' });
  for (const s of subs) index.set(s.name, m.declare(s.name, { params: ['i32', ...s.params], result: s.result }));
  const run = m.declare('run', { params: ['i32', 'i32'], result: 'i32' });
  const runLegacy = m.declare('runLegacy', { params: ['i32', 'i32'], result: 'i32' });
  const of = (c: Callee): number => {
    const n = index.get(c.name);
    if (n === undefined) throw new Error(`Cannot call ${c.name}: it is not in the module`);
    return n;
  };
  const wide = isWide(memory.maximum);
  for (const s of subs) defineSub(m, library, s, of, wide);
  m.define(run, mainLoop(of, hot, 0, legacyFrom, handlerType, wide, profile));
  m.define(runLegacy, mainLoop(of, hot, legacyFrom, hot.length, handlerType, wide, profile));
  m.export('run', run);
  m.export('runLegacy', runLegacy);
  return { bytes: m.finish(), hosts };
}

/** Takes over what a region has retired: from the slice, into the counters, and the place where it was left when a sample is due. `k` is free. */
function countRegion(l: Lower, budget: number, k: number): void {
  l.localGet(budget);
  l.stateI32(st.retired.offset);
  l.stateI32(st.regionShift.offset);
  l.op(0x75);
  l.localTee(k);
  l.op(0x6b);
  l.localSet(budget);
  l.localGet(0);
  l.stateI32(st.spared.offset);
  l.stateI32(st.retired.offset);
  l.op(0x6a);
  l.localGet(k);
  l.op(0x6b);
  l.memory(0x36, st.spared.offset);
  l.localGet(0);
  l.stateI32(st.unnoted.offset);
  l.stateI32(st.retired.offset);
  l.op(0x6a);
  l.localTee(k);
  l.memory(0x36, st.unnoted.offset);
  l.localGet(k);
  l.i32(SAMPLE);
  l.op(0x4a);
  l.open(0x04);
  l.localGet(0);
  l.i32(0);
  l.memory(0x36, st.unnoted.offset);
  l.localGet(0);
  l.stateI32(st.noted.offset);
  l.localTee(k);
  l.i32(st.notes.length - 1);
  l.op(0x71);
  l.i32(3);
  l.op(0x74);
  l.localGet(0);
  l.op(0x6a);
  l.localGet(0);
  l.memory(0x29, st.rip.offset);
  l.memory(0x37, st.notes[0].offset);
  l.localGet(k);
  l.i32(1);
  l.op(0x6a);
  l.memory(0x36, st.noted.offset);
  l.close();
  l.localGet(0);
  l.localGet(0);
  l.memory(0x29, st.inRegions.offset);
  l.stateI32(st.retired.offset);
  l.op(0xac, 0x7c);
  l.memory(0x37, st.inRegions.offset);
  l.localGet(0);
  l.i32(0);
  l.memory(0x36, st.retired.offset);
  l.localGet(0);
  l.stateI32(st.counters[4].offset);
  l.i32(1);
  l.op(0x6a);
  l.memory(0x36, st.counters[4].offset);
}

/**
 * run(env, budget) → what is left of the budget (instructions); the reason is in `exitReason`. It holds the handlers from number `from` to
 * `to` of `all`, those that other loops hold make it leave.
 */
function mainLoop(
  of: (c: Callee) => number,
  all: readonly Handler[],
  from: number,
  to: number,
  handlerType: number,
  wide: boolean,
  profile: boolean,
): FunctionBody {
  const hot = all.slice(from, to);
  const depth = { exit: 0, region: 0, fault: 0, jump: 0, branch: 0, resync: 0, leave: 0, repeat: 0, check: 0, next: 0, top: 0 };
  const target: Target = {
    tlb: tlbLayout,
    wide,
    callee: of,
    slow: slowPaths,
    inlineMemory: true,
    storing: (l) => noteStoring(l, rec),
    leave(l, s) {
      switch (s.how) {
        case 'fault':
          return l.brTo(depth.fault);
        case 'next':
          return l.brTo(depth.next);
        case 'repeat':
          return l.brTo(depth.repeat);
        case 'resync':
          return l.brTo(depth.resync);
        case 'jump':
          l.value(s.value!);
          l.localSet(ip);
          return l.brTo(depth.jump);
        case 'branch':
          // Where the target's record is known, no address is needed.
          l.localGet(rec);
          l.memory(0x28, Rec.imm);
          l.localTee(next);
          l.brTo(depth.branch, true);
          l.value(s.value!);
          l.localSet(ip);
          return l.brTo(depth.branch);
        case 'exit':
          l.localGet(0);
          l.i32(s.reason);
          l.memory(0x36, st.exitReason.offset);
          return l.brTo(depth.leave);
        default:
          throw new Error(`Cannot leave an instruction by ${s.how}`);
      }
    },
    fault(l) {
      l.brTo(depth.fault);
    },
  };
  const l = new Lower(target, ['i32']);
  const budget = 1;
  const rec = l.local('i32');
  const next = l.local('i32');
  const k = l.local('i32');
  const ctx = l.local('i32');
  const ip = l.local('i64');
  const page = l.local('i64');
  const findOrExit = (): void => {
    l.localGet(0);
    l.call(lookup);
    l.localTee(rec);
    l.op(0x45);
    l.brTo(depth.exit, true);
  };
  const retire = (): void => {
    l.localGet(budget);
    l.localGet(rec);
    l.memory(0x2d, Rec.count);
    l.op(0x6b);
    l.localSet(budget);
  };
  /** Counts arrivals by jump at blocks without a region: a block that is met often enough is reported as hot. */
  const arrive = (): void => {
    l.localGet(rec);
    l.memory(0x2f, Rec.handler);
    l.i32(REGION_FIRST);
    l.op(0x49);
    l.open(0x04);
    l.localGet(0);
    l.localGet(rec);
    l.i32(5);
    l.op(0x76);
    l.i32(ARRIVAL_ENTRIES - 1);
    l.op(0x71);
    l.i32(1);
    l.op(0x74, 0x6a);
    l.localTee(k);
    l.localGet(k);
    l.memory(0x2f, Area.arrivals);
    l.i32(1);
    l.op(0x6a);
    l.localTee(next);
    l.memory(0x3b, Area.arrivals);
    l.localGet(next);
    l.i32(ARRIVALS);
    l.op(0x46);
    l.open(0x04);
    setRip(l, rec, false);
    l.localGet(0);
    l.i32(Exit.hot);
    l.memory(0x36, st.exitReason.offset);
    l.brTo(depth.exit);
    l.close();
    l.close();
  };
  /** The epoch of the half in which the linear address `ip` lies. */
  const epochOfIp = (): void => pushEpoch(l, () => l.localGet(ip));
  const storeRip = (): void => {
    l.localGet(0);
    l.localGet(ip);
    l.memory(0x37, st.rip.offset);
  };

  depth.exit = l.depth;
  l.open(0x02);
  findOrExit();
  depth.top = l.depth;
  l.open(0x03);
  const order = ['check', 'region', 'fault', 'jump', 'branch', 'resync', 'leave', 'repeat', 'next'] as const;
  for (const name of order) {
    depth[name] = l.depth;
    l.open(0x02);
  }
  if (profile) {
    l.localGet(0);
    l.localGet(rec);
    l.memory(0x2f, Rec.handler);
    l.i32(2);
    l.op(0x74, 0x6a);
    l.localTee(k);
    l.localGet(k);
    l.memory(0x28, Area.profile);
    l.i32(1);
    l.op(0x6a);
    l.memory(0x36, Area.profile);
  }
  // Dispatch.
  const cold = l.depth;
  l.open(0x02);
  const first = l.depth;
  for (let i = hot.length - 1; i >= 0; i--) l.open(0x02);
  l.localGet(rec);
  l.memory(0x2f, Rec.handler);
  if (from > 0) {
    l.i32(from);
    l.op(0x6b);
  }
  l.op(0x0e);
  l.out.uleb(hot.length);
  for (let i = 0; i < hot.length; i++) l.out.uleb(l.relative(first + hot.length - 1 - i));
  l.out.uleb(l.relative(cold));
  hot.forEach((h) => {
    l.close();
    l.piece(h.body, [rec]);
    if (h.second) {
      l.localGet(rec);
      l.i32(RECORD_BYTES);
      l.op(0x6a);
      l.localSet(rec);
      if (h.stores) {
        // The first may have written to the second.
        l.localGet(rec);
        l.memory(0x2f, Rec.handler);
        l.i32(h.second.number);
        l.op(0x47);
        l.brTo(depth.top, true);
      }
      l.piece(h.second.body, [rec]);
    }
    if (!(h.second ?? h).ends) l.brTo(depth.next);
  });
  l.close(); // cold
  l.localGet(rec);
  l.memory(0x2f, Rec.handler);
  l.localTee(k);
  l.i32(all.length);
  l.op(0x49);
  l.open(0x04);
  if (from > 0) {
    l.localGet(k);
    l.op(0x45);
    l.open(0x04);
    l.piece(all[0].body, [rec]);
    l.close();
  }
  // Another loop's: the mode has changed.
  setRip(l, rec, false);
  l.localGet(0);
  l.i32(Exit.mode);
  l.memory(0x36, st.exitReason.offset);
  l.brTo(depth.exit);
  l.close();
  l.localGet(0);
  l.localGet(rec);
  l.localGet(rec);
  l.memory(0x2f, Rec.handler);
  l.op(0x11);
  l.out.uleb(handlerType);
  l.out.u8(0);
  l.localSet(next);
  {
    // A record: go on there. Else one of `Out`.
    const outs = l.depth;
    l.open(0x02);
    l.localGet(next);
    l.i32(OUTS);
    l.op(0x4f);
    l.open(0x04);
    l.localGet(next);
    l.localSet(rec);
    l.brTo(depth.top);
    l.close();
    // Jump and branch have set `rip`.
    l.localGet(0);
    l.memory(0x29, st.rip.offset);
    l.localSet(ip);
    l.localGet(next);
    l.i32(0);
    l.localSet(next);
    l.op(0x0e);
    l.out.uleb(OUTS);
    const levels = [depth.fault, depth.jump, depth.resync, depth.leave, depth.repeat, depth.branch, depth.region, depth.region];
    for (const level of levels) l.out.uleb(l.relative(level));
    l.out.uleb(l.relative(outs));
    l.close();
    l.op(0x00);
  }
  const close = (): void => l.close();

  close(); // next
  l.localGet(rec);
  l.i32(RECORD_BYTES);
  l.op(0x6a);
  l.localSet(rec);
  l.brTo(depth.top);

  close(); // repeat: the same record again, after a check
  l.localGet(budget);
  l.i32(REPEAT);
  l.op(0x6b);
  l.localSet(budget);
  l.localGet(0);
  l.stateI32(st.repeats.offset);
  l.i32(REPEAT);
  l.op(0x6a);
  l.memory(0x36, st.repeats.offset);
  l.brTo(depth.check);

  close(); // leave: complete, and the host acts
  setRip(l, rec, true);
  retire();
  l.brTo(depth.exit);

  close(); // resync
  setRip(l, rec, true);
  retire();
  findOrExit();
  l.brTo(depth.check);

  close(); // branch: `next` is the target's record, or 0 with the target in `ip`
  retire();
  l.localGet(next);
  l.open(0x04);
  l.localGet(next);
  l.localSet(rec);
  l.brTo(depth.check);
  l.close();
  // A target in another page, which is still where it was when it was found.
  l.localGet(rec);
  l.memory(0x28, Rec.far);
  l.localTee(next);
  l.open(0x04);
  l.localGet(rec);
  l.memory(0x28, Rec.farEpoch);
  epochOfIp();
  l.op(0x46);
  l.localGet(rec);
  l.memory(0x29, Rec.farTarget);
  l.localGet(ip);
  l.op(0x51, 0x71);
  l.open(0x04);
  l.localGet(0);
  l.localGet(ip);
  l.i64(-4096n);
  l.op(0x83);
  l.memory(0x37, st.pageBase.offset);
  l.localGet(next);
  l.localSet(rec);
  l.brTo(depth.check);
  l.close();
  l.close();
  storeRip();
  l.localGet(rec);
  l.localSet(k);
  l.localGet(0);
  l.memory(0x29, st.pageBase.offset);
  l.localSet(page);
  l.stateI32(st.ctx.offset);
  l.localSet(ctx);
  findOrExit();
  // Blocks are linked, unless one of them may not be, or the way there was an exception's.
  l.localGet(ip);
  l.localGet(0);
  l.memory(0x29, st.rip.offset);
  l.op(0x51);
  l.localGet(ctx);
  l.stateI32(st.ctx.offset);
  l.op(0x46, 0x71);
  l.localGet(rec);
  l.memory(0x2d, Rec.link);
  l.localGet(k);
  l.memory(0x2d, Rec.link);
  l.op(0x72);
  l.i32(Link.forbidden);
  l.op(0x71, 0x45, 0x71);
  l.open(0x04);
  l.localGet(page);
  l.localGet(0);
  l.memory(0x29, st.pageBase.offset);
  l.op(0x51);
  l.open(0x04);
  l.localGet(k);
  l.localGet(rec);
  l.memory(0x36, Rec.imm);
  l.brTo(depth.check);
  l.close();
  // Linear addresses are those of the instruction pointer, without a limit.
  l.localGet(ctx);
  l.i32(Ctx.limited);
  l.op(0x71, 0x45);
  l.localGet(ctx);
  l.i32(Ctx.long | Ctx.flat);
  l.op(0x71, 0x45, 0x45, 0x71);
  l.open(0x04);
  l.localGet(k);
  l.localGet(rec);
  l.memory(0x36, Rec.far);
  l.localGet(k);
  l.localGet(ip);
  l.memory(0x37, Rec.farTarget);
  l.localGet(k);
  epochOfIp();
  l.memory(0x36, Rec.farEpoch);
  l.close();
  l.close();
  l.brTo(depth.check);

  close(); // jump
  storeRip();
  retire();
  findOrExit();
  arrive();
  l.brTo(depth.check);

  close(); // fault
  setRip(l, rec, false);
  retire();
  l.localGet(0);
  l.call(deliverAll);
  l.localGet(0);
  l.memory(0x28, st.exitReason.offset);
  l.brTo(depth.exit, true);
  findOrExit();
  l.brTo(depth.check);

  close(); // region
  countRegion(l, budget, k);
  findOrExit();
  arrive();
  l.brTo(depth.check);

  close(); // check: `rec` is the start of a block
  l.localGet(budget);
  l.i32(0);
  l.op(0x4a);
  l.localGet(0);
  l.memory(0x28, st.kick.offset);
  l.op(0x45, 0x71);
  l.brTo(depth.top, true);
  // Something is up. Out of budget: leave.
  setRip(l, rec, false);
  l.localGet(budget);
  l.i32(0);
  l.op(0x4c);
  l.open(0x04);
  l.localGet(0);
  l.i32(Exit.budget);
  l.memory(0x36, st.exitReason.offset);
  l.brTo(depth.exit);
  l.close();
  // Kicked, or an interrupt waits and IF is set now (after the shadow of STI and the like has passed).
  l.stateI32(st.kick.offset);
  l.i32(Kick.now);
  l.op(0x71);
  l.stateI32(st.sysFlags.offset);
  l.i32(9);
  l.op(0x76);
  l.i32(1);
  l.op(0x71);
  l.stateI32(st.shadow.offset);
  l.op(0x45, 0x71, 0x72);
  l.open(0x04);
  l.localGet(0);
  l.i32(Exit.kick);
  l.memory(0x36, st.exitReason.offset);
  l.brTo(depth.exit);
  l.close();
  // An interrupt waits in a shadow: one instruction, then look again.
  l.stateI32(st.sysFlags.offset);
  l.i32(9);
  l.op(0x76);
  l.i32(1);
  l.op(0x71);
  l.open(0x04);
  l.localGet(0);
  l.call(stepShadow);
  findOrExit();
  l.brTo(depth.top);
  l.close();
  l.localGet(0);
  l.i32(0);
  l.memory(0x36, st.shadow.offset);
  l.brTo(depth.top);

  l.close(); // top
  l.close(); // exit
  l.localGet(budget);
  return l.finish();
}

/** A module of handlers that are functions: its bytes, and what it is to be instantiated with and gives. */
export interface HandlerModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly imports: readonly Named[];
  readonly hosts: readonly Named[];
  readonly exports: readonly Named[];
}
export interface Named {
  readonly name: string;
}

/**
 * A module of handlers that are functions: exports `h<number>`, and the subroutines that no earlier module has. The others are imported
 * from `main`. `available` names the subroutines that exist already.
 */
export function buildHandlers(
  library: Library,
  handlers: readonly Handler[],
  available: Readonly<Record<string, unknown>>,
  memory: MemoryImport,
): HandlerModule {
  const roots = new Set<Callee>(Object.values(slowPaths));
  for (const h of handlers) for (const c of calleesOf(h.body)) roots.add(c);
  const { subs, hosts } = library.closure(roots, (s) => s.name in available);
  const imports = subs.filter((s) => s.name in available);
  const exports = subs.filter((s) => !(s.name in available));
  const m = new ModuleBuilder(memory, null);
  const index = new Map<string, number>();
  for (const h of hosts) index.set(h.name, m.import('host', h.name, { params: h.params, result: h.result }));
  for (const s of imports) index.set(s.name, m.import('main', s.name, { params: ['i32', ...s.params], result: s.result }));
  for (const s of exports) index.set(s.name, m.declare(s.name, { params: ['i32', ...s.params], result: s.result }));
  const numbers = handlers.map((h) => m.declare(variantName(h.variant), { params: ['i32', 'i32'], result: 'i32' }));
  const of = (c: Callee): number => index.get(c.name)!;
  const wide = isWide(memory.maximum);
  for (const s of exports) defineSub(m, library, s, of, wide);
  const target = functionTarget(of, wide);
  handlers.forEach((h, i) => {
    const l = new Lower(target, ['i32']);
    l.piece(h.body);
    if (h.ends) l.op(0x00);
    else {
      l.localGet(1);
      l.i32(RECORD_BYTES);
      l.op(0x6a);
    }
    m.define(numbers[i], l.finish());
    m.export(`h${h.number}`, numbers[i]);
  });
  return { bytes: m.finish(), imports, hosts, exports };
}

/** The code of a subroutine. */
export function lowerSub(library: Library, s: Sub, of: (c: Callee) => number, wide: boolean): FunctionBody {
  const lower = new Lower(subTarget(of, s.result, wide), s.params);
  lower.piece(library.get(s).body);
  // The end is not reached where the function has a result.
  if (s.result) lower.op(0x00);
  return lower.finish();
}

function defineSub(m: ModuleBuilder, library: Library, s: Sub, of: (c: Callee) => number, wide: boolean): void {
  m.define(of(s), lowerSub(library, s, of, wide));
  m.export(s.name, of(s));
}
