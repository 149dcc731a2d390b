// The translated tier: a region as one WebAssembly function with structured control flow (N. Ramsey, "Beyond Relooper", ICFP 2022),
// guest registers and flags in locals, stored where the region is left.

import { Builder } from '../../ir/builder.ts';
import type { Callee, Stmt } from '../../ir/ir.ts';
import { accesses, type Type } from '../../ir/ops.ts';
import { Jump } from '../../isa/x86/fetch.ts';
import { Rec } from '../../isa/x86/record.ts';
import * as st from '../../isa/x86/state.ts';
import type { Sub } from '../../isa/x86/sub.ts';
import { jumpIndex } from '../../isa/x86/tlb.ts';
import { Lower, type Target } from '../../wasm/lower.ts';
import { type FunctionBody, type MemoryImport, ModuleBuilder } from '../../wasm/module.ts';
import { ANY_SLOT, calleesOf, type Library, walk } from './library.ts';
import { dominates, type Region, type RegionBlock } from './region.ts';
import { Out, REGION_FIRST, slowPaths, tlbLayout } from './tier0.ts';

/** Instructions after which a loop looks whether its slice is over. */
const FUEL = 50_000;

/** Slots that a region keeps in locals: general registers, flags, SSE registers. */
const KEPT = new Map<number, Type>([
  ...st.gpr.map((s): [number, Type] => [s.offset, 'i64']),
  ...[st.fZ, st.fN].map((s): [number, Type] => [s.offset, 'i64']),
  ...[st.fC, st.fO, st.fA].map((s): [number, Type] => [s.offset, 'i32']),
  ...st.xmm.map((s): [number, Type] => [s.offset, 'v128']),
  [st.tlb.offset, 'i32'],
]);

/** A module with one region: exports `region`. Subroutines come from `main`; those that it lacks are named in `missing`. */
export function buildRegion(
  library: Library,
  region: Region,
  available: Readonly<Record<string, unknown>>,
  memory: MemoryImport,
  name: string,
  ctx: number,
): { bytes: Uint8Array<ArrayBuffer>; imports: Sub[]; hosts: Callee[] } | null {
  const roots = new Set<Callee>(Object.values(slowPaths));
  for (const b of region.blocks) for (const { code } of b.body) for (const c of calleesOf(code)) roots.add(c);
  const imports = [...roots].filter((c): c is Sub => !c.host);
  // Tier 0 has run the code, so its subroutines are there; a path that it has not run may need more: leave that region alone.
  if (imports.some((s) => !(s.name in available))) return null;
  const hosts = [...roots].filter((c) => c.host);
  const m = new ModuleBuilder(memory, true);
  const index = new Map<string, number>();
  for (const h of hosts) index.set(h.name, m.import('host', h.name, { params: h.params, result: h.result }));
  for (const s of imports) index.set(s.name, m.import('main', s.name, { params: ['i32', ...s.params], result: s.result }));
  const f = m.declare(name, { params: ['i32', 'i32'], result: 'i32' });
  const type = m.type({ params: ['i32', 'i32'], result: 'i32' });
  m.define(
    f,
    lowerRegion(library, region, (c) => index.get(c.name)!, type, ctx),
  );
  m.export('region', f);
  return { bytes: m.finish(), imports, hosts };
}

function lowerRegion(library: Library, region: Region, callee: (c: Callee) => number, type: number, ctx: number): FunctionBody {
  // Which slots are used, and which are written.
  const used = new Set<number>();
  const written = new Set<number>();
  for (const b of region.blocks) {
    for (const { code } of b.body) {
      walk(code, (s) => {
        if (s.kind === 'load' || s.kind === 'store' || s.kind === 'rmw' || s.kind === 'cmpxchg') used.add(st.tlb.offset);
        if ((s.kind === 'get' || s.kind === 'set') && KEPT.has(s.slot.offset)) {
          used.add(s.slot.offset);
          if (s.kind === 'set') written.add(s.slot.offset);
        }
      });
    }
  }
  const locals = new Map<number, number>();
  const move = (l: Lower, offsets: Iterable<number>, toState: boolean): void => {
    for (const offset of offsets) {
      const access = accesses[KEPT.get(offset) as 'i64'];
      l.localGet(0);
      if (toState) {
        l.localGet(locals.get(offset)!);
        l.memory(access.store, offset);
      } else {
        l.memory(access.load, offset);
        l.localSet(locals.get(offset)!);
      }
    }
  };
  /** Kept slots that a callee may look at. */
  const touched = (c: Callee): number[] => {
    const slots = library.slotsOf(c);
    if (slots.has(ANY_SLOT)) return [...used];
    // Indexed accesses name the first slot of a family: take the families whole.
    const families = [st.gpr, st.xmm].filter((f) => slots.has(f[0].offset)).flat();
    const all = new Set([...slots, ...families.map((s) => s.offset)]);
    return [...used].filter((o) => all.has(o));
  };
  let current: RegionBlock = region.entry;
  let place = 0;
  /** Set where everything has been put away. */
  let chaining = false;
  const level = { exit: 0, chain: 0, loops: new Map<RegionBlock, number>(), ends: new Map<RegionBlock, number>() };

  const target: Target = {
    tlb: tlbLayout,
    callee,
    slow: slowPaths,
    inlineMemory: true,
    local: (offset) => (chaining ? undefined : offset === st.pageBase.offset ? pageBase : locals.get(offset)),
    beforeCall: (l, c) =>
      move(
        l,
        touched(c).filter((o) => written.has(o)),
        true,
      ),
    afterCall: (l, c) => move(l, touched(c), false),
    fault(l) {
      leaveAt(l, place);
    },
    leave(l, s) {
      switch (s.how) {
        case 'fault':
          return leaveAt(l, place);
        case 'jump':
          l.value(s.value!);
          l.localSet(rip);
          return l.brTo(level.chain);
        case 'exit':
          // Of `chainCode` only: on in the region whose place in the table is the value.
          l.localGet(0);
          l.i32(0);
          l.value(s.value!);
          l.op(0x13);
          l.out.uleb(type);
          return l.out.u8(0);
        case 'branch':
          return edge(l, s.reason);
        case 'resync':
          return leaveAt(l, place + length());
        default:
          throw new Error(`Cannot leave a region by ${s.how}`);
      }
    },
  };
  const l = new Lower(target, ['i32']);
  const rip = l.local('i64');
  const pageBase = l.local('i64');
  const count = l.local('i32');
  for (const offset of used) locals.set(offset, l.local(KEPT.get(offset)!));
  /** Length of the instruction at `place`. */
  const length = (): number => current.steps.find((s) => s.place === place)!.insn.length;
  const legacy = !region.entry.steps[0].handler.variant.long;

  /** Leaves for a place of the page: with `chain`, straight on in another region where there is one. */
  function leaveAt(l: Lower, at: number, chain = false): void {
    l.localGet(pageBase);
    l.i64(BigInt(at));
    l.op(0x7c);
    if (legacy) {
      l.i64(0xffffffffn);
      l.op(0x83);
    }
    l.localSet(rip);
    l.brTo(chain ? level.chain : level.exit);
  }
  /** Goes from the current block to the one at `to`. */
  function edge(l: Lower, to: number): void {
    const block = region.byPlace.get(to);
    if (!block) return leaveAt(l, to, true);
    if (block.order <= current.order) {
      const loop = dominates(block, current) ? level.loops.get(block) : undefined;
      if (loop === undefined) return leaveAt(l, to, true);
      // A back edge: is the slice over, does somebody want us?
      l.localGet(count);
      l.i32(FUEL);
      l.op(0x4a);
      l.stateI32(st.kick.offset);
      l.op(0x72, 0x45);
      l.brTo(loop, true);
      return leaveAt(l, to);
    }
    if (block.merge) {
      const end = level.ends.get(block);
      return end === undefined ? leaveAt(l, to, true) : l.brTo(end);
    }
    l.nested(() => tree(block));
  }
  function tree(b: RegionBlock): void {
    if (b.header) {
      level.loops.set(b, l.depth);
      l.open(0x03);
    }
    within(b, b.merges);
    if (b.header) {
      l.close();
      l.op(0x00);
      level.loops.delete(b);
    }
  }
  function within(b: RegionBlock, merges: readonly RegionBlock[]): void {
    if (merges.length === 0) return straight(b);
    const [y, ...rest] = merges;
    level.ends.set(y, l.depth);
    l.open(0x02);
    within(b, rest);
    l.close();
    level.ends.delete(y);
    tree(y);
  }
  function straight(b: RegionBlock): void {
    const outer = { current, place };
    current = b;
    l.localGet(count);
    l.i32(b.steps.length);
    l.op(0x6a);
    l.localSet(count);
    l.sequence(
      b.body.map((part) => ({
        code: part.code,
        enter: () => {
          current = b;
          place = part.place;
        },
      })),
    );
    current = b;
    if (b.fall >= 0) edge(l, b.fall);
    current = outer.current;
    place = outer.place;
  }

  l.localGet(0);
  l.memory(0x29, st.pageBase.offset);
  l.localSet(pageBase);
  move(l, used, false);
  level.exit = l.depth;
  l.open(0x02);
  level.chain = l.depth;
  l.open(0x02);
  tree(region.entry);
  l.op(0x00);
  l.close();
  putAway();
  chaining = true;
  if (!legacy) l.piece(chainCode(ctx), []);
  chaining = false;
  l.i32(Out.region);
  l.op(0x0f);
  l.close();
  putAway();
  l.i32(Out.region);
  return l.finish();

  /** Stores what was kept, the instruction pointer, and the instructions retired since tier 0 was left. */
  function putAway(): void {
    move(l, written, true);
    l.localGet(0);
    l.localGet(rip);
    l.memory(0x37, st.rip.offset);
    l.localGet(0);
    l.localGet(count);
    l.stateI32(st.retired.offset);
    l.op(0x6a);
    l.memory(0x36, st.retired.offset);
  }
}

/** In 64-bit code: where the jump cache knows the target and a region starts there, goes on in it, until the slice is over. */
function chainCode(ctx: number): Stmt[] {
  const b = new Builder();
  b.if(b.and(b.lts(b.get(st.retired), b.i32(FUEL)), b.eqz(b.get(st.kick))), () => {
    const ip = b.get(st.rip);
    const entry = b.add(b.get(st.jumpCache), jumpIndex(b, ip));
    const other = b.xor(entry, b.i32(Jump.bytes));
    const at = b.select(b.eq(b.raw('i64', entry, Jump.address), ip), entry, other);
    b.if(b.and(b.eq(b.raw('i64', at, Jump.address), ip), b.eq(b.raw('i32', at, Jump.ctx), b.i32(ctx))), () => {
      const handler = b.raw('i32.16u', b.raw('i32', at, Jump.record), Rec.handler);
      b.if(b.geu(handler, b.i32(REGION_FIRST)), () => {
        b.set(st.pageBase, b.and(ip, b.i64(-4096)));
        b.leave('exit', handler);
      });
    });
  });
  return b.take();
}
