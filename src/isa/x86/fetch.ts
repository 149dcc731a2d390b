// Finding the code at the instruction pointer: through the jump cache, else by the host's decoder; faults of the fetch, debug traps
// and pending exceptions are delivered on the way (Intel SDM volume 3, chapter 6).

import type { Value } from '../../ir/ir.ts';
import { edgeContextOf } from './canonical.ts';
import { deliverPending, singleStep } from './exceptions.ts';
import { fetchTranslate } from './mmu.ts';
import { Rec, STALE } from './record.ts';
import * as st from './state.ts';
import { BLOCK_ENTRIES, BLOCK_ENTRY_BYTES, Ctx, Exit, JUMP_ENTRY_BYTES, S, X } from './state.ts';
import { host, sub } from './sub.ts';
import { jumpIndex, noteJump } from './tlb.ts';

/** Layout of a jump cache entry. Two entries serve one place: the one of `jumpIndex`, and its neighbour (address xor `bytes`). */
export const Jump = { address: 0, ctx: 8, record: 12, bytes: JUMP_ENTRY_BYTES } as const;

/**
 * Layout of an entry of the table of decoded blocks, which is found by guest-physical address, so that it outlives address spaces. Two
 * entries serve one place, as in the jump cache. Blocks that cross into another page are not in it.
 */
export const Known = { key: 0, record: 8, bytes: BLOCK_ENTRY_BYTES } as const;
const KEY_SHIFT = 16;
const KEY_HASH = 0x9e3779b1;
const PLACE_SHIFT = 32 - Math.log2(BLOCK_ENTRIES);

/** The key of the block at `gpa` in context `ctx`, its lower and upper half. */
export const blockKey = (gpa: number, ctx: number): [number, number] => [
  (((gpa % 2 ** 32) | 0) << KEY_SHIFT) | ctx,
  Math.floor(gpa / 2 ** KEY_SHIFT) | 0,
];
/** Byte offset of its entry in the table. */
export function blockOffset(gpa: number, ctx: number): number {
  const low = ((gpa % 2 ** 32) | 0) ^ Math.floor(gpa / 2 ** 32) ^ (ctx << 12);
  return (Math.imul(low, KEY_HASH) >>> PLACE_SHIFT) * BLOCK_ENTRY_BYTES;
}

/**
 * The host decodes the code at the linear address (CS base + `rip`) in the current context and gives its first record, having filled the
 * jump cache where the code may be found again; or 0 with an exception pending.
 */
export const resolve = host('resolve', [], 'i32');

/** The record of the code at `linear`, which the jump cache does not know; or 0 with an exception pending. */
const find = sub('find', ['i64'], 'i32', {}, (c, linear) => {
  const b = c.b;
  const ctx = c.get(st.ctx);
  const table = c.get(st.blockTable);
  b.if(b.or(b.and(ctx, b.i32(Ctx.step)), b.eqz(table)), () => b.ret(c.call(resolve)));
  const gpa = c.call(fetchTranslate, linear);
  b.if(c.get(st.exc), () => b.ret(b.i32(0)));
  // Outside 64-bit code addresses are of 32 bits, and beside no edge.
  const decoded = b.or(ctx, edgeContextOf(c, linear));
  const key = b.or(b.shl(gpa, b.i64(KEY_SHIFT)), b.extu(decoded));
  const low = b.xor(b.xor(b.wrap(gpa), b.wrap(b.shru(gpa, b.i64(32)))), b.shl(decoded, b.i32(12)));
  const place = b.shl(b.shru(b.mul(low, b.i32(KEY_HASH | 0)), b.i32(PLACE_SHIFT)), b.i32(Math.log2(BLOCK_ENTRY_BYTES)));
  const entry = b.add(table, place);
  const at = b.select(b.eq(b.raw('i64', entry, Known.key), key), entry, b.xor(entry, b.i32(Known.bytes)));
  b.if(b.eq(b.raw('i64', at, Known.key), key), () => {
    const rec = b.raw('i32', at, Known.record);
    b.if(b.ne(b.raw('i32.16u', rec, Rec.handler), b.i32(STALE)), () => {
      const jump = b.add(c.get(st.jumpCache), jumpIndex(c, linear));
      // What was here moves next door.
      b.if(b.raw('i32', jump, Jump.record), () => {
        const other = b.xor(jump, b.i32(Jump.bytes));
        b.setRaw('i64', other, b.raw('i64', jump));
        b.setRaw('i64', other, b.raw('i64', jump, 8), 8);
      });
      b.setRaw('i64', jump, linear, Jump.address);
      b.setRaw('i32', jump, ctx, Jump.ctx);
      b.setRaw('i32', jump, rec, Jump.record);
      noteJump(c, linear);
      b.ret(rec);
    });
  });
  b.ret(c.call(resolve));
});

/** Delivers pending exceptions until none is left or the vCPU shuts down. */
export const deliverAll = sub('deliverAll', [], null, {}, (c) => {
  const b = c.b;
  b.loop((again) => {
    b.do(deliverHere);
    b.br(again, b.and(b.ne(c.get(st.exc), b.i32(0)), b.ne(c.get(st.exitReason), b.i32(Exit.shutdown))));
  });
  b.ret();
});

/** `deliverPending`, whose own exceptions stay pending here instead of unwinding the caller. */
const deliverHere = { ...deliverPending, faults: false };
/** `singleStep` likewise. */
const stepHere = { ...singleStep, faults: false };

/** Fetches that fault one after the other before the vCPU is left for a look at the world: a handler may fault as it is fetched, for ever. */
const FAULTS_MAX = 16;

/**
 * Gives the record of the block at `rip` and sets `pageBase`, or 0 where the vCPU must leave (`exitReason`). Takes debug traps and fetch
 * faults on the way.
 */
export const lookup = sub('lookup', [], 'i32', {}, (c) => {
  const b = c.b;
  const left = b.variable(b.i32(FAULTS_MAX));
  b.loop((again) => {
    b.if(c.get(st.stepTrap), () => b.do(stepHere));
    b.if(c.get(st.exc), () => {
      b.do(deliverAll);
      const reason = c.get(st.exitReason);
      b.if(b.or(b.eq(reason, b.i32(Exit.shutdown)), b.eq(reason, b.i32(Exit.debug))), () => b.ret(b.i32(0)));
      const n = b.sub(b.getVar(left), b.i32(1));
      b.setVar(left, n);
      b.if(b.eqz(n), () => {
        c.set(st.exitReason, b.i32(Exit.budget));
        b.ret(b.i32(0));
      });
    });
    const ip = c.get(st.rip);
    const ctx = c.get(st.ctx);
    const sum = b.add(ip, c.get(st.segBase[S.cs]));
    const linear = b.choose(
      'i64',
      b.and(ctx, b.i32(Ctx.long)),
      () => ip,
      () => b.and(sum, b.i64(0xffffffffn)),
    );
    // Code beyond the limit of its segment; near the limit, instructions are decoded one by one, each time.
    b.if(b.and(ctx, b.i32(Ctx.limited)), () => {
      const limit = b.extu(c.get(st.segLimit[S.cs]));
      const base = b.sub(ip, b.and(linear, b.i64(0xfff)));
      b.if(b.gtu(ip, limit), () => {
        c.set(st.excError, b.i32(0));
        c.set(st.exc, b.i32(X.gp + 1));
        b.br(again);
      });
      b.if(b.gtu(b.add(base, b.i64(0xfff)), limit), () => {
        const rec = c.call(resolve);
        b.br(again, b.eqz(rec));
        c.set(st.pageBase, base);
        b.ret(rec);
      });
    });
    const entry = b.add(c.get(st.jumpCache), jumpIndex(c, linear));
    const holds = (at: Value): Value =>
      b.and(b.eq(b.raw('i64', at, Jump.address), linear), b.eq(b.raw('i32', at, Jump.ctx), ctx));
    const found = b.choose(
      'i32',
      holds(entry),
      () => b.raw('i32', entry, Jump.record),
      () => {
        const other = b.xor(entry, b.i32(Jump.bytes));
        return b.choose(
          'i32',
          holds(other),
          () => b.raw('i32', other, Jump.record),
          () => b.i32(0),
        );
      },
    );
    const fresh = b.choose(
      'i32',
      found,
      () => b.ne(b.raw('i32.16u', found, Rec.handler), b.i32(STALE)),
      () => b.i32(0),
    );
    const rec = b.choose(
      'i32',
      fresh,
      () => found,
      () => c.call(find, linear),
    );
    b.br(again, b.eqz(rec));
    c.set(st.pageBase, b.sub(ip, b.and(linear, b.i64(0xfff))));
    b.ret(rec);
  });
});
