import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { descriptor, Sel, STACK0, STACK3, System, segmentRegister } from './test-system.ts';

const IRETQ = [0x48, 0xcf];
const IRET = [0xcf];
const TARGET = 0x24000;

test('IRETQ to user code restores the whole frame, drops kernel data segments and opens NMIs', () => {
  const s = new System('long', 0, IRETQ);
  segmentRegister(s.m, S.fs, 0, 0x7000n, 0, 0x10000);
  segmentRegister(s.m, S.gs, Sel.data0, 0x9000n, 0xffff_ffff, 0xc93);
  s.m.set(st.nmiBlocked, 1);
  s.push(8, TARGET, Sel.long3, 0x8d5 | 0x40202, STACK3 - 8, Sel.data3long);
  assert.equal(s.m.step().outcome.how, 'jump');
  assert.deepEqual(s.where, [Sel.long3, TARGET, 3]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK3 - 8));
  assert.equal(s.m.flags, 0x8d5 | 0x40202);
  assert.equal(s.selector(S.ss), Sel.data3long);
  assert.deepEqual([s.selector(S.ds), s.m.get(st.segAttr[S.ds]!)], [0, 0x10000]);
  assert.equal(s.m.get(st.segBase[S.fs]!), 0x7000n);
  assert.deepEqual([s.selector(S.gs), s.m.get(st.segAttr[S.gs]!), s.m.get(st.segBase[S.gs]!)], [0, 0x10000, 0x9000n]);
  assert.equal(s.m.get(st.nmiBlocked), 0);
  assert.equal(s.m.get(st.ctx), st.Ctx.long | st.Ctx.protected | st.Ctx.user);
  // CR0.AM and RFLAGS.AC: misaligned accesses raise #AC, and all accesses take the slow path.
  assert.equal(s.m.get(st.alignCheck), 1);
  assert.equal(s.m.get(st.tlb), s.m.get(st.tlbNone));
});

test('IRETQ within the kernel takes RSP and a null SS from the frame', () => {
  const s = new System('long', 0, IRETQ);
  s.push(8, TARGET, Sel.long0, 0x10002, 0x2fff8, 0);
  s.m.step();
  assert.deepEqual(s.where, [Sel.long0, TARGET, 0]);
  assert.equal(s.m.reg(R.rsp), 0x2fff8n);
  assert.equal(s.m.get(st.segAttr[S.ss]!), 0x10000);
  assert.equal(s.m.flags, 2, 'RF is dropped while no breakpoint is enabled');
});

test('IRETQ to compatibility mode cuts RSP to 32 bits', () => {
  const s = new System('long', 0, IRETQ);
  s.push(8, TARGET, Sel.code3, 0x202, 0x1_0003_2000n, Sel.data3);
  s.m.step();
  assert.deepEqual(s.where, [Sel.code3, TARGET, 3]);
  assert.equal(s.m.reg(R.rsp), 0x32000n);
  assert.equal(s.m.get(st.ctx), st.Ctx.big | st.Ctx.protected | st.Ctx.user);
  assert.equal(s.m.get(st.spMask), 0xffffffffn);
});

test('IRETQ refuses wrong frames with the right exception and changes nothing', () => {
  const good = [TARGET, Sel.long3, 0x202, STACK3, Sel.data3long];
  const cases: [Partial<Record<number, number | bigint>>, number, number, ((s: System) => void)?][] = [
    [{ 0: 0x8000_0000_0000n }, X.gp, 0],
    [{ 1: 0 }, X.gp, 0],
    [{ 1: Sel.data0 }, X.gp, Sel.data0],
    [{ 1: Sel.long0 | 3 }, X.gp, Sel.long0],
    [{ 1: 0x2000 }, X.gp, 0x2000],
    [{ 4: 0 }, X.gp, 0],
    [{ 4: Sel.data0 }, X.gp, Sel.data0],
    [{ 4: Sel.code3 }, X.gp, Sel.code3 & ~3],
    [{ 4: Sel.absent }, X.gp, Sel.absent],
    [{}, X.np, Sel.long3 & ~3, (s) => s.describe(Sel.long3, descriptor(0, 0xfffff, 0x7b, 0xa))],
    [{}, X.gp, Sel.long3 & ~3, (s) => s.describe(Sel.long3, descriptor(0, 0xfffff, 0xfb, 0xe))],
    [{}, X.ss, Sel.data3long & ~3, (s) => s.describe(Sel.data3long, descriptor(0, 0xfffff, 0x73, 0xc))],
    [{}, X.gp, 0, (s) => s.m.set(st.sysFlags, 0x4002)],
  ];
  for (const [change, vector, error, spoil] of cases) {
    const s = new System('long', 0, IRETQ);
    s.push(8, ...good.map((v, i) => change[i] ?? v));
    spoil?.(s);
    const sp = s.m.reg(R.rsp);
    assert.equal(s.m.step().outcome.how, 'fault');
    assert.deepEqual(s.m.pending, { vector, error });
    assert.deepEqual([s.where, s.m.reg(R.rsp)], [[Sel.long0, 0x20000, 0], sp]);
  }
});

test('IRET by user code leaves IF and IOPL alone', () => {
  const s = new System('long', 3, IRETQ);
  s.push(8, TARGET, Sel.long3, 0x3002, STACK3, Sel.data3long);
  s.m.step();
  assert.deepEqual(s.where, [Sel.long3, TARGET, 3]);
  assert.equal(s.m.flags, 0x202);
});

test('IRETD in 64-bit code pops five words of 32 bits', () => {
  const s = new System('long', 0, IRET);
  s.push(4, TARGET, Sel.code3, 0x202, STACK3, Sel.data3);
  s.m.step();
  assert.deepEqual(s.where, [Sel.code3, TARGET, 3]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK3));
});

test('protected mode: IRET at one level pops three words, to an outer level five', () => {
  const s = new System('protected', 0, IRET);
  s.push(4, TARGET, Sel.code0, 0x246, 0xdead);
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, TARGET, 0]);
  assert.deepEqual(s.stack(4, 1), [0xdead]);
  assert.equal(s.m.flags, 0x246);

  const t = new System('protected', 0, IRET);
  t.push(4, TARGET, Sel.code3, 0x3202, STACK3, Sel.data3);
  t.m.step();
  assert.deepEqual(t.where, [Sel.code3, TARGET, 3]);
  assert.equal(t.m.reg(R.rsp), BigInt(STACK3));
  assert.deepEqual([t.selector(S.ss), t.selector(S.ds), t.m.get(st.segAttr[S.ds]!)], [Sel.data3, 0, 0x10000]);
  assert.equal(t.m.flags, 0x3202);
});

test('protected mode: IRET beyond the limit of the code segment is #GP(0)', () => {
  const s = new System('protected', 0, IRET);
  s.describe(Sel.code0, descriptor(0, 0x1fff, 0x9b, 4));
  s.push(4, TARGET, Sel.code0, 0x246);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: 0 });
});

test('protected mode: IRET with VM set enters virtual-8086 mode with all segments', () => {
  const s = new System('protected', 0, IRET);
  s.push(4, 0x123, 0x2000, 0x23202, 0xfff0, 0x300, 0x400, 0x500, 0x600, 0x700);
  s.m.step();
  assert.deepEqual(s.where, [0x2000, 0x123, 3]);
  assert.equal(s.m.flags, 0x23202);
  assert.deepEqual(
    [S.ss, S.es, S.ds, S.fs, S.gs].map((n) => s.selector(n)),
    [0x300, 0x400, 0x500, 0x600, 0x700],
  );
  assert.deepEqual(
    [s.m.get(st.segBase[S.gs]!), s.m.get(st.segAttr[S.cs]!), s.m.get(st.segLimit[S.cs]!)],
    [0x7000n, 0xf3, 0xffff],
  );
  assert.equal(s.m.reg(R.rsp), 0xfff0n);
  assert.equal(s.m.get(st.ctx), st.Ctx.protected | st.Ctx.v86 | st.Ctx.user | st.Ctx.limited);
  assert.equal(s.m.get(st.spMask), 0xffffn);
});

test('real mode: IRET pops IP, CS and FLAGS, IOPL and IF included', () => {
  const s = new System('real', 0, IRET);
  s.push(2, 0x1234, 0x2100, 0x3247);
  s.m.step();
  assert.deepEqual(s.where, [0x2100, 0x1234, 0]);
  assert.equal(s.m.flags, 0x3247);
  assert.equal(s.m.reg(R.rsp), 0x8000n);
});

test('far RET within a level drops its parameters; to an outer level it drops them on both stacks', () => {
  const s = new System('protected', 0, [0xca, 8, 0]);
  s.push(4, TARGET, Sel.code0, 1, 2, 3);
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, TARGET, 0]);
  assert.deepEqual(s.stack(4, 1), [3]);

  const t = new System('protected', 0, [0xca, 8, 0]);
  t.push(4, TARGET, Sel.code3, 1, 2, STACK3, Sel.data3);
  t.m.step();
  assert.deepEqual(t.where, [Sel.code3, TARGET, 3]);
  assert.equal(t.m.reg(R.rsp), BigInt(STACK3 + 8));
  assert.equal(t.selector(S.ss), Sel.data3);
});

test('far RET in 64-bit code goes to 64-bit and to compatibility code', () => {
  const s = new System('long', 0, [0x48, 0xcb]);
  s.push(8, TARGET, Sel.long0);
  s.m.step();
  assert.deepEqual(s.where, [Sel.long0, TARGET, 0]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK0 - 0x100));

  const t = new System('long', 0, [0xcb]);
  t.push(4, TARGET, Sel.code3, STACK3, Sel.data3);
  t.m.step();
  assert.deepEqual(t.where, [Sel.code3, TARGET, 3]);
});

test('far RET never goes inwards', () => {
  const s = new System('protected', 3, [0xcb]);
  s.push(4, TARGET, Sel.code0);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.gp, error: Sel.code0 });
});

test('real mode: far RET of 16 and of 32 bits', () => {
  const s = new System('real', 0, [0xcb]);
  s.push(2, 0x1234, 0x2100, 7);
  s.m.step();
  assert.deepEqual(s.where, [0x2100, 0x1234, 0]);
  assert.deepEqual(s.stack(2, 1), [7]);
  const t = new System('real', 0, [0x66, 0xcb]);
  t.push(4, 0x1234, 0x2100);
  t.m.step();
  assert.deepEqual(t.where, [0x2100, 0x1234, 0]);
});
