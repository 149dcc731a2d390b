import assert from 'node:assert/strict';
import { test } from 'node:test';
import { updateContext } from './context.ts';
import * as st from './state.ts';
import { Ctx, S } from './state.ts';
import { TestMachine } from './test-machine.ts';

const SMAP = 1n << 21n;
const OSFXSR = 0x200n;

function machine(): TestMachine {
  const m = new TestMachine();
  m.set(st.cr4, OSFXSR);
  return m;
}
function context(m: TestMachine): number {
  m.run(updateContext);
  return (m.get(st.ctx) as number) & ~Ctx.limited;
}

test('a code segment that ends below 4 GiB limits branches, but not in 64-bit code', () => {
  const m = machine();
  const limited = (): boolean => {
    m.run(updateContext);
    return ((m.get(st.ctx) as number) & Ctx.limited) !== 0;
  };
  m.set(st.segLimit[S.cs]!, 0xffff);
  assert.equal(limited(), true);
  m.set(st.segLimit[S.cs]!, -1);
  assert.equal(limited(), false);
  m.set(st.segLimit[S.cs]!, 0xffff);
  m.set(st.cr0, 1n);
  m.set(st.efer, 0x500n);
  m.set(st.segAttr[S.cs]!, 0x2093);
  assert.equal(limited(), false);
});

test('segments are flat where CS begins at 0 and DS, ES and SS are writable data up to 4 GiB', () => {
  const m = machine();
  m.set(st.cr0, 1n);
  const segments = [S.cs, S.ds, S.es, S.ss];
  for (const n of segments) {
    m.set(st.segBase[n]!, 0n);
    m.set(st.segLimit[n]!, -1);
    m.set(st.segAttr[n]!, n === S.cs ? 0xc09b : 0xc093);
  }
  const flat = (): boolean => (context(m) & Ctx.flat) !== 0;
  assert.equal(flat(), true);
  const unless = (slot: (typeof st.segBase)[number] | (typeof st.segAttr)[number], value: bigint | number): void => {
    const before = m.get(slot);
    m.set(slot, value);
    assert.equal(flat(), false, `${slot.name} ${value}`);
    m.set(slot, before);
    assert.equal(flat(), true);
  };
  for (const n of segments) unless(st.segBase[n]!, 0x1000n);
  for (const n of [S.ds, S.es, S.ss]) {
    unless(st.segLimit[n]!, 0x7fffffff);
    // Read-only, expand-down, code, not present, unusable.
    for (const attr of [0xc091, 0xc097, 0xc09b, 0xc013, 0x10000]) unless(st.segAttr[n]!, attr);
  }
  // A stack pointer of 16 bits; virtual-8086 mode; 64-bit code.
  unless(st.segAttr[S.ss]!, 0x8093);
  unless(st.sysFlags, 1 << 17);
  m.set(st.efer, 0x500n);
  unless(st.segAttr[S.cs]!, 0xa09b);
  m.set(st.cr0, 0n);
  assert.equal(flat(), false);
});

test('the context names the mode and the code size', () => {
  const m = machine();
  assert.equal(context(m), 0);
  m.set(st.segAttr[S.cs]!, 0x4093);
  assert.equal(context(m), Ctx.big);
  m.set(st.cr0, 1n);
  assert.equal(context(m), Ctx.big | Ctx.protected);
  m.set(st.segAttr[S.cs]!, 0x2093);
  assert.equal(context(m), Ctx.protected, 'L counts in IA-32e mode only');
  m.set(st.efer, 0x500n);
  assert.equal(context(m), Ctx.long | Ctx.protected);
  m.set(st.segAttr[S.cs]!, 0x4093);
  assert.equal(context(m), Ctx.big | Ctx.protected);
  m.set(st.efer, 0n);
  m.set(st.segAttr[S.cs]!, 0xf3);
  m.set(st.sysFlags, 1 << 17);
  m.set(st.cpl, 3);
  assert.equal(context(m), Ctx.protected | Ctx.v86 | Ctx.user);
});

test('floating point is looked at with TS, EM or without OSFXSR', () => {
  for (const [cr0, cr4, trap] of [[0n, OSFXSR, 0], [8n, OSFXSR, 1], [4n, OSFXSR, 1], [2n, OSFXSR, 0], [0n, 0n, 1]] as const) {
    const m = machine();
    m.set(st.cr0, cr0);
    m.set(st.cr4, cr4);
    assert.equal(context(m) & Ctx.fpTrap, trap ? Ctx.fpTrap : 0, `CR0 ${cr0} CR4 ${cr4}`);
  }
}); // biome-ignore format: tuples

test('single stepping is TF or an enabled instruction breakpoint', () => {
  const m = machine();
  assert.equal(context(m) & Ctx.step, 0);
  m.set(st.sysFlags, 0x100);
  assert.equal(context(m) & Ctx.step, Ctx.step);
  m.set(st.sysFlags, 0);
  for (const [dr7, step] of [[0x401, 1], [0x480, 1], [0x10401, 0], [0x30402, 0], [0x10404, 1], [0xf0400, 0]]) {
    m.set(st.dr[7]!, BigInt(dr7!));
    assert.equal((context(m) & Ctx.step) !== 0, step === 1, dr7!.toString(16));
  }
}); // biome-ignore format: pairs

test('the current TLB follows CPL, SMAP and RFLAGS.AC', () => {
  const m = machine();
  const current = (cpl: number, cr4: bigint, flags: number): number => {
    m.set(st.cpl, cpl);
    m.set(st.cr4, cr4);
    m.set(st.sysFlags, flags);
    context(m);
    assert.equal(m.get(st.tlbSystem), m.get(st.tlbs[0]!));
    return st.tlbs.findIndex((slot) => m.get(slot) === m.get(st.tlb));
  };
  assert.equal(current(0, 0n, 0), 1);
  assert.equal(current(0, SMAP, 0), 0);
  assert.equal(current(2, SMAP, 0), 0);
  assert.equal(current(0, SMAP, 1 << 18), 1);
  assert.equal(current(3, SMAP, 1 << 18), 2);
  assert.equal(current(3, 0n, 0), 2);
});

test('the stack mask is that of SS, and whole in 64-bit code', () => {
  const m = machine();
  const mask = (): bigint => {
    context(m);
    return m.u64(st.spMask);
  };
  assert.equal(mask(), 0xffffn);
  m.set(st.segAttr[S.ss]!, 0x4093);
  assert.equal(mask(), 0xffffffffn);
  m.set(st.efer, 0x500n);
  assert.equal(mask(), 0xffffffffn);
  m.set(st.segAttr[S.cs]!, 0xa09b);
  assert.equal(mask(), 0xffffffffffffffffn);
});
