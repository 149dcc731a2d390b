import assert from 'node:assert/strict';
import { test } from 'node:test';
import { updateContext } from './context.ts';
import { How, tlbFill } from './mmu.ts';
import * as st from './state.ts';
import { JUMP_ENTRIES, JUMP_ENTRY_BYTES } from './state.ts';
import { sub } from './sub.ts';
import { TestMachine } from './test-machine.ts';
import { flushAll, flushNonGlobal, flushPage, JUMP_GROUP_SHIFT, jumpIndex, jumpOffset, protectPage } from './tlb.ts';

const PGE = 0x80;

/** 4-level paging; the first 2 MiB by 4 KiB pages onto themselves (page 5 global), then 2 MiB pages onto 0, 1 GiB pages from 1 GiB. */
function machine(): TestMachine {
  const m = new TestMachine();
  m.mode('4-level', { cr4: PGE });
  m.write64(0x1000, 0x2007n);
  m.write64(0x2000, 0x3007n);
  m.write64(0x2008, 0x83n);
  m.write64(0x3000, 0x4007n);
  for (let i = 0; i < 512; i++) m.write64(0x4000 + 8 * i, BigInt(i * 4096) | (i === 5 ? 0x103n : 3n));
  for (let i = 1; i < 8; i++) m.write64(0x3000 + 8 * i, 0x83n);
  return m;
}
const fill = (m: TestMachine, addr: bigint, how = 0): void => assert.equal(m.run(tlbFill, addr, how).how, 'return');
function held(m: TestMachine, addr: bigint, n = 1): boolean {
  const at = (m.get(st.tlbs[n]!) as number) + Number((addr >> 12n) & 4095n) * 16;
  return BigInt.asUintN(64, m.memory.getBigUint64(at, true) ^ BigInt.asUintN(64, addr)) < 4096n;
}
/** Puts a record into the jump cache where `addr` has its place; tells later whether it is still there. */
function jump(m: TestMachine, addr: bigint, upper = addr < 0n ? 1 : 0): () => boolean {
  const offset = jumpOffset(Number(BigInt.asIntN(32, addr)), Number(BigInt.asIntN(32, addr >> 32n)), upper);
  const at = (m.get(st.jumpCache) as number) + offset;
  m.memory.setInt32(at + 12, 77, true);
  m.set(st.jumpGroups, (m.get(st.jumpGroups) as bigint) | (1n << BigInt((offset >> JUMP_GROUP_SHIFT) & 63)));
  return () => m.memory.getInt32(at + 12, true) === 77;
}

test('after a full flush no entry matches any address of its place', () => {
  const m = new TestMachine();
  m.set(st.tlbChain, 1);
  m.run(flushAll);
  for (let n = 0; n < 3; n++) {
    for (const i of [0, 1, 0x7ff, 0x800, 0x801, 0xfff]) {
      const at = (m.get(st.tlbs[n]!) as number) + i * 16;
      assert.equal(m.memory.getBigUint64(at, true), BigInt((i ^ 0x800) << 12));
      assert.equal(m.memory.getBigUint64(at + 8, true), 0n);
    }
  }
  assert.equal(m.get(st.tlbChain), 0);
});

test('a full flush empties all TLBs and the jump cache, global pages included', () => {
  const m = machine();
  for (const addr of [0x5000n, 0x6000n]) fill(m, addr);
  fill(m, 0x6000n, How.system);
  const jumps = [jump(m, 0x5123n), jump(m, -1n)];
  m.run(flushAll);
  assert.deepEqual([held(m, 0x5000n), held(m, 0x6000n), held(m, 0x6000n, 0)], [false, false, false]);
  assert.deepEqual(jumps.map((j) => j()), [false, false]);
}); // biome-ignore format: lists

test('a flush of what is not global keeps global pages, in every TLB', () => {
  const m = machine();
  for (let i = 0n; i < 40n; i++) fill(m, i << 12n);
  fill(m, 0x5000n, How.system);
  fill(m, 0x6000n, How.system);
  m.run(flushNonGlobal);
  for (let i = 0n; i < 40n; i++) assert.equal(held(m, i << 12n), i === 5n, `page ${i}`);
  assert.deepEqual([held(m, 0x5000n, 0), held(m, 0x6000n, 0)], [true, false]);
  // Filled again, they are found again by the next flush.
  fill(m, 0x6000n);
  fill(m, 0x7000n);
  m.run(flushNonGlobal);
  assert.deepEqual([held(m, 0x5000n), held(m, 0x6000n), held(m, 0x7000n)], [true, false, false]);
});

test('an entry that turns global, or was dropped, does not break the chain', () => {
  const m = machine();
  fill(m, 0x6000n);
  fill(m, 0x7000n);
  fill(m, 0x8000n);
  m.run(flushPage, 0x8000n);
  m.write64(0x4000 + 8 * 7, 0x7103n);
  fill(m, 0x7000n);
  m.run(flushNonGlobal);
  assert.deepEqual([held(m, 0x6000n), held(m, 0x7000n), held(m, 0x8000n)], [false, true, false]);
  m.write64(0x4000 + 8 * 7, 0x7003n);
  fill(m, 0x7000n);
  fill(m, 0x8000n);
  m.run(flushNonGlobal);
  assert.deepEqual([held(m, 0x7000n), held(m, 0x8000n)], [false, false]);
});

test('without CR4.PGE no page is global', () => {
  const m = machine();
  m.set(st.cr4, 0x220n);
  fill(m, 0x5000n);
  m.run(flushNonGlobal);
  assert.equal(held(m, 0x5000n), false);
});

test('the upper half of the jump cache survives a CR3 write while fetches from there were global', () => {
  const m = machine();
  const [low, high] = [jump(m, 0x401000n), jump(m, -0x7fffff00n)];
  m.run(flushNonGlobal);
  assert.deepEqual([low(), high()], [false, true]);
  m.set(st.upperNonGlobal, 1);
  m.run(flushNonGlobal);
  assert.equal(high(), false);
});

test('outside IA-32e mode the last of the 4 GiB is the upper half', () => {
  const m = machine();
  m.set(st.efer, 0n);
  m.run(updateContext);
  const [low, high] = [jump(m, 0xbffff000n), jump(m, 0xc0000000n, 1)];
  m.run(flushNonGlobal);
  assert.deepEqual([low(), high()], [false, true]);
  m.run(flushPage, 0xc0000000n);
  assert.equal(high(), false);
});

test('flushing a page drops it alone, global or not, and its part of the jump cache', () => {
  const m = machine();
  for (const addr of [0x4000n, 0x5000n, 0x6000n]) fill(m, addr);
  fill(m, 0x5000n, How.system);
  const jumps = [jump(m, 0x5000n), jump(m, 0x5fffn), jump(m, 0x6000n), jump(m, -0x1000n)];
  m.run(flushPage, 0x5678n);
  assert.deepEqual([held(m, 0x4000n), held(m, 0x5000n), held(m, 0x5000n, 0), held(m, 0x6000n)], [true, false, false, true]);
  assert.deepEqual(jumps.map((j) => j()), [false, false, true, true]);
}); // biome-ignore format: lists

test('flushing a page leaves another page in its place alone', () => {
  const m = machine();
  fill(m, 0x5000n);
  m.run(flushPage, 0x1005000n);
  assert.equal(held(m, 0x5000n), true);
});

test('flushing any address of a large page drops all of it', () => {
  const m = machine();
  for (const addr of [0x20_0000n, 0x20_5000n, 0x3f_f000n, 0x60_0000n, 0x4000n]) fill(m, addr);
  const inPage = jump(m, 0x20_5000n);
  m.run(flushPage, 0x30_0000n);
  assert.deepEqual([held(m, 0x20_0000n), held(m, 0x20_5000n), held(m, 0x3f_f000n)], [false, false, false]);
  assert.equal(held(m, 0x60_0000n), true);
  assert.equal(inPage(), false);
});

test('flushing any address of a 4 MiB page drops both halves', () => {
  const m = new TestMachine();
  m.mode('32-bit', { cr4: 0x10 });
  m.write32(0x1000 + 4, 0x83);
  for (const addr of [0x40_5000n, 0x7f_f000n]) fill(m, addr);
  m.run(flushPage, 0x60_0000n);
  assert.deepEqual([held(m, 0x40_5000n), held(m, 0x7f_f000n)], [false, false]);
});

test('flushing any address of a 1 GiB page drops all of it', () => {
  const m = machine();
  for (const addr of [0x4000_5000n, 0x4020_6000n, 0x7fff_7000n, 0x8000n]) fill(m, addr);
  m.run(flushPage, 0x5555_5555n);
  assert.deepEqual(
    [held(m, 0x4000_5000n), held(m, 0x4020_6000n), held(m, 0x7fff_7000n), held(m, 0x8000n)],
    [false, false, false, true],
  );
});

test('a page that comes to hold code loses its fast stores under every address', () => {
  const m = machine();
  m.write64(0x4000 + 8 * 9, 0x5003n);
  for (const addr of [0x5000n, 0x6000n, 0x9000n]) fill(m, addr, How.write);
  const tag = (addr: bigint): bigint => m.memory.getBigUint64((m.get(st.tlbs[1]!) as number) + Number(addr >> 12n) * 16, true);
  assert.equal(tag(0x5000n), 0x5000n);
  m.run(protectPage, BigInt(m.host(0x5000)));
  assert.deepEqual([tag(0x5000n), tag(0x6000n), tag(0x9000n)], [0x5001n, 0x6000n, 0x9001n]);
});

test('a user page is in the user TLB and flushed from there', () => {
  const m = machine();
  for (const at of [0x4030]) m.write64(at, m.read64(at) | 4n);
  m.set(st.cpl, 3);
  m.run(updateContext);
  fill(m, 0x6000n);
  assert.equal(held(m, 0x6000n, 2), true);
  m.run(flushPage, 0x6000n);
  assert.equal(held(m, 0x6000n, 2), false);
});

test('the jump cache index in IR and in TypeScript agree, and the entries of a page are together', () => {
  const m = new TestMachine();
  const probe = sub('probeJumpIndex', ['i64'], 'i32', {}, (c, addr) => c.b.ret(jumpIndex(c, addr)));
  let seed = 12345n;
  for (let i = 0; i < 600; i++) {
    const narrow = i >= 300;
    m.set(st.halves, narrow ? st.NARROW_HALF : 0n);
    seed = BigInt.asUintN(64, seed * 6364136223846793005n + 1442695040888963407n);
    const addr = seed >> BigInt(narrow ? 32 : i % 40);
    const index = m.run(probe, addr).value as number;
    const [low, high] = [Number(BigInt.asIntN(32, addr)), Number(BigInt.asIntN(32, addr >> 32n))];
    const upper = narrow ? Number(addr >= 0xc0000000n) : Number(BigInt.asIntN(64, addr) < 0n);
    assert.equal(jumpOffset(low, high, upper), index);
    assert.ok(index >= 0 && index < JUMP_ENTRIES * JUMP_ENTRY_BYTES && index % JUMP_ENTRY_BYTES === 0);
    assert.equal(index >> 11, (m.run(probe, addr & ~0xfffn).value as number) >> 11);
  }
});

test('counters count misses, page flushes and full flushes', () => {
  const m = machine();
  const before = st.counters.map((s) => m.get(s) as number);
  fill(m, 0x5000n);
  m.run(flushPage, 0x5000n);
  m.run(flushPage, 0x5000n);
  m.run(flushAll);
  const after = st.counters.map((s) => m.get(s) as number);
  assert.deepEqual(after.map((v, i) => v - before[i]!), [1, 0, 2, 1, 0]);
}); // biome-ignore format: lists
