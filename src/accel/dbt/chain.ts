// How one region goes on in the next: each way out remembers where it went last (an inline cache), and a shadow stack tells a returning
// function whether its caller, translated code too, waits for it.

import type { Value } from '../../ir/ir.ts';
import type { Emit } from '../../isa/x86/emit.ts';
import { Jump } from '../../isa/x86/fetch.ts';
import { Rec } from '../../isa/x86/record.ts';
import * as st from '../../isa/x86/state.ts';
import { host, sub } from '../../isa/x86/sub.ts';
import { inUpperHalf, jumpIndex } from '../../isa/x86/tlb.ts';
import type { Lower } from '../../wasm/lower.ts';
import { REGIONS_MAX } from './layout.ts';

/** Regions live in the table from here on; below are the handlers. */
export const REGION_FIRST = 0xe000;
export const TABLE_ENTRIES = REGION_FIRST + REGIONS_MAX;

/** Layout of a way out (a site). The first site of a region is its own: page base and epoch that its pages were checked for. */
export const Site = {
  /** i64: the target's instruction pointer; of the first site, the region's page base. */
  target: 0,
  /** i32: the epoch of the target's half when it was found. */
  epoch: 8,
  /** i32: place of the target's region in the table; of the first site, the records to run where the region may not. */
  index: 12,
  /** i32: how often another target was met; of the first site, how often the region was left by a way that was new. */
  misses: 16,
  /** i32: targets noted so far; and the low halves of the last ones. */
  count: 20,
  targets: 24,
  /** i32: of a way out to another context, which notes no targets: the context in which the target was found. */
  ctx: 24,
} as const;
export const SITE_TARGETS = 10;
/** Misses of a site after which the region is translated again, with its targets known: it costs as much as a million of them. */
export const MISSES_MAX = 20_000;
/** Ways out that nobody had taken after which it is: tier 0 runs what comes then. */
export const UNMET_MAX = 4000;

/** Pages of a region behind its entry's are mapped as when it was translated: 1, else 0. The parameter is its place in the table. */
export const validateRegion = host('validateRegion', ['i32'], 'i32');
/** A site has met many targets, or a region was left by ways that are new (its first site). The parameter is its host address. */
export const manyTargets = host('manyTargets', ['i32'], null);

/** The epoch of the half in which an address lies. */
export function epochOf(c: Emit, address: Value): Value {
  const b = c.b;
  const half = b.shl(inUpperHalf(c, address), b.i32(2));
  return b.raw('i32', b.add(b.env, half), st.epochs[0].offset);
}

/**
 * The same in code that is emitted, in two steps: where the epoch is, relative to `EPOCHS`; and the epoch. `address` puts the linear address on the
 * stack; in 64-bit code (`long`) its bit 63 is the half.
 */
export function pushHalf(l: Lower, address: () => void, long = false): void {
  l.env();
  address();
  if (!long) {
    l.env();
    l.memory(0x29, st.halves.offset);
    l.op(0x7c);
  }
  l.i64(63n);
  l.op(0x87, 0xa7);
  l.i32(4);
  l.op(0x71, 0x6a);
}
export const EPOCHS = st.epochs[0].offset;
export function pushEpoch(l: Lower, address: () => void): void {
  pushHalf(l, address);
  l.memory(0x28, EPOCHS);
}

/**
 * The place in the table of the region at `rip` (whose linear address is the same), or 0 where there is none that the jump cache knows;
 * the site (host address, or 0) remembers it. With `profile` the targets are noted.
 */
export const chainMiss = sub('chainMiss', ['i32', 'i32'], 'i32', {}, (c, site, profile) => {
  const b = c.b;
  const ip = c.get(st.rip);
  b.if(b.and(b.ne(site, b.i32(0)), profile), () => {
    const n = b.raw('i32', site, Site.count);
    const at = b.add(site, b.shl(b.remu(n, b.i32(SITE_TARGETS)), b.i32(2)));
    b.setRaw('i32', at, b.wrap(ip), Site.targets);
    b.setRaw('i32', site, b.add(n, b.i32(1)), Site.count);
    const misses = b.add(b.raw('i32', site, Site.misses), b.i32(1));
    b.setRaw('i32', site, misses, Site.misses);
    b.if(b.eq(misses, b.i32(MISSES_MAX)), () => c.do(manyTargets, site));
  });
  const entry = b.add(c.get(st.jumpCache), jumpIndex(c, ip));
  const at = b.select(b.eq(b.raw('i64', entry, Jump.address), ip), entry, b.xor(entry, b.i32(Jump.bytes)));
  b.if(b.and(b.eq(b.raw('i64', at, Jump.address), ip), b.eq(b.raw('i32', at, Jump.ctx), c.get(st.ctx))), () => {
    const handler = b.raw('i32.16u', b.raw('i32', at, Jump.record), Rec.handler);
    b.if(b.geu(handler, b.i32(REGION_FIRST)), () => {
      b.if(site, () => {
        b.setRaw('i64', site, ip, Site.target);
        b.setRaw('i32', site, epochOf(c, ip), Site.epoch);
        b.setRaw('i32', site, handler, Site.index);
      });
      b.ret(handler);
    });
  });
  b.ret(b.i32(0));
});
