import assert from 'node:assert/strict';
import { test } from 'node:test';
import { updateContext } from './context.ts';
import { deliverPending } from './exceptions.ts';
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { descriptor, gate, Sel, STACK_IST, STACK0, STACK3, System, TSS } from './test-system.ts';

const TARGET = 0x24000;
const far32 = (op: number, selector: number, offset = TARGET): number[] => [
  op, offset & 255, (offset >> 8) & 255, (offset >> 16) & 255, (offset >>> 24) & 255, selector & 255, selector >> 8,
]; // biome-ignore format: bytes
const JMP = 0xea;
const CALL = 0x9a;
/** callf/jmpf [rbx] with operand size 64. */
const CALL64 = [0x48, 0xff, 0x1b];
const JMP64 = [0x48, 0xff, 0x2b];

function indirect(code: readonly number[], cpl: 0 | 3, selector: number, offset: bigint | number = TARGET): System {
  const s = new System('long', cpl, code);
  s.write64(0x25000, BigInt(offset));
  s.write16(0x25008, selector);
  s.m.setReg(R.rbx, 0x25000);
  return s;
}

test('real mode: far JMP and CALL set the base and save CS:IP', () => {
  const s = new System('real', 0, [0xea, 0x34, 0x12, 0x00, 0x21]);
  s.m.step();
  assert.deepEqual(s.where, [0x2100, 0x1234, 0]);
  assert.equal(s.m.get(st.segBase[S.cs]!), 0x21000n);
  const t = new System('real', 0, [0x9a, 0x34, 0x12, 0x00, 0x21]);
  t.m.step();
  assert.deepEqual(t.stack(2, 2), [5, 0x2000]);
});

test('switching to protected mode: a far JMP loads the first descriptor', () => {
  const s = new System('real', 0, [0x66, ...far32(JMP, Sel.code0)]);
  s.m.set(st.cr0, 0x11n);
  s.m.call(updateContext);
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, TARGET, 0]);
  assert.equal(s.m.get(st.ctx), st.Ctx.protected | st.Ctx.big);
  assert.equal(s.m.get(st.segLimit[S.cs]!), -1);
});

test('protected mode: far CALL pushes CS and EIP; RPL of the new CS is CPL', () => {
  const s = new System('protected', 3, far32(CALL, Sel.conforming));
  s.m.step();
  assert.deepEqual(s.where, [Sel.conforming | 3, TARGET, 3]);
  assert.deepEqual(s.stack(4, 2), [0x20007, Sel.code3]);
});

test('far JMP refuses what it must with the selector as error code', () => {
  const cases: [number, number, number, ((s: System) => void)?][] = [
    [0, X.gp, 0],
    [0x4000, X.gp, 0x4000],
    [Sel.data0, X.gp, Sel.data0],
    [Sel.code3, X.gp, Sel.code3 & ~3],
    [Sel.code0 | 3, X.gp, Sel.code0],
    [Sel.ldt, X.gp, Sel.ldt],
    [Sel.code0, X.np, Sel.code0, (s) => s.describe(Sel.code0, descriptor(0, 0xfffff, 0x1b, 0xc))],
    [Sel.code0, X.gp, 0, (s) => s.describe(Sel.code0, descriptor(0, 0xfff, 0x9b, 0x4))],
  ];
  for (const [selector, vector, error, spoil] of cases) {
    const s = new System('protected', 0, far32(JMP, selector));
    spoil?.(s);
    assert.equal(s.m.step().outcome.how, 'fault');
    assert.deepEqual(s.m.pending, { vector, error });
    assert.deepEqual(s.where, [Sel.code0, 0x20000, 0]);
  }
});

test('a 32-bit call gate to ring 0 switches stacks and copies parameters in order', () => {
  const s = new System('protected', 3, far32(CALL, Sel.gate | 3, 0x1111));
  s.describe(Sel.gate, gate(Sel.code0, TARGET, 12, 3, 3));
  s.push(4, 0x11, 0x22, 0x33);
  const sp = Number(s.m.reg(R.rsp));
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, TARGET, 0]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK0 - 28));
  assert.deepEqual(s.stack(4, 7), [0x20007, Sel.code3, 0x11, 0x22, 0x33, sp, Sel.data3]);
  assert.equal(s.selector(S.ss), Sel.data0);
});

test('a call gate to ring 1 takes the stack of ring 1', () => {
  const s = new System('protected', 3, far32(CALL, Sel.gate | 3));
  s.describe(Sel.gate, gate(Sel.code1, TARGET, 12, 3, 0));
  s.m.step();
  assert.deepEqual(s.where, [Sel.code1, TARGET, 1]);
  assert.deepEqual([s.selector(S.ss), s.m.reg(R.rsp)], [Sel.data1, BigInt(STACK_IST - 16)]);
});

test('a 16-bit call gate within one level pushes words; JMP through it pushes nothing', () => {
  const s = new System('protected', 0, far32(CALL, Sel.gate));
  s.describe(Sel.gate, gate(Sel.code0, 0x4321, 4, 0));
  s.m.step();
  assert.deepEqual(s.where, [Sel.code0, 0x4321, 0]);
  assert.deepEqual(s.stack(2, 2), [7, Sel.code0]);
  const t = new System('protected', 0, far32(JMP, Sel.gate));
  t.describe(Sel.gate, gate(Sel.code0, TARGET, 12, 0));
  t.m.step();
  assert.deepEqual(t.where, [Sel.code0, TARGET, 0]);
  assert.equal(t.m.reg(R.rsp), BigInt(STACK0 - 0x100));
});

test('a call gate is refused by DPL, presence, target, and for JMP to an inner level', () => {
  const cases: [number, bigint, number, number][] = [
    [CALL, gate(Sel.code0, TARGET, 12, 0), X.gp, Sel.gate],
    [CALL, gate(Sel.code0, TARGET, 12, 3, 0, false), X.np, Sel.gate],
    [CALL, gate(0, TARGET, 12, 3), X.gp, 0],
    [CALL, gate(Sel.data0, TARGET, 12, 3), X.gp, Sel.data0],
    [JMP, gate(Sel.code0, TARGET, 12, 3), X.gp, Sel.code0],
  ];
  for (const [op, g, vector, error] of cases) {
    const s = new System('protected', 3, far32(op, Sel.gate | 3));
    s.describe(Sel.gate, g);
    s.m.step();
    assert.deepEqual(s.m.pending, { vector, error });
  }
});

test('64-bit: far JMP and CALL through memory, to compatibility code as well', () => {
  const s = indirect(CALL64, 0, Sel.long0, 0x2_4000);
  s.m.step();
  assert.deepEqual(s.where, [Sel.long0, TARGET, 0]);
  assert.deepEqual(s.stack(8, 2), [0x20003, Sel.long0]);
  const t = indirect(JMP64, 0, Sel.code0);
  t.m.step();
  assert.deepEqual(t.where, [Sel.code0, TARGET, 0]);
  assert.equal(t.m.get(st.ctx), st.Ctx.protected | st.Ctx.big | st.Ctx.flat);
});

test('64-bit: a call gate of 16 bytes reaches ring 0 with a null SS', () => {
  const s = indirect(CALL64, 3, Sel.gate | 3);
  s.describe(Sel.gate, gate(Sel.long0, TARGET, 12, 3), 0n);
  s.m.step();
  assert.deepEqual(s.where, [Sel.long0, TARGET, 0]);
  assert.deepEqual(s.stack(8, 4), [0x20003, Sel.long3, STACK3 - 0x100, Sel.data3]);
  assert.deepEqual([s.selector(S.ss), s.m.reg(R.rsp)], [0, BigInt(STACK0 - 32)]);
});

test('64-bit: TSS, task gates, non-canonical targets and code with L and D are refused', () => {
  const cases: [number, bigint | number, number, ((s: System) => void)?][] = [
    [Sel.tss2, 0, Sel.tss2],
    [Sel.taskGate, 0, Sel.taskGate, (s) => s.describe(Sel.taskGate, gate(Sel.tss2, 0, 5, 3))],
    [Sel.long0, 0x8000_0000_0000n, 0],
    [Sel.long0, TARGET, Sel.long0, (s) => s.describe(Sel.long0, descriptor(0, 0xfffff, 0x9b, 0xe))],
    [Sel.gate, 0, Sel.code0, (s) => s.describe(Sel.gate, gate(Sel.code0, TARGET, 12, 3), 0n)],
  ];
  for (const [selector, offset, error, spoil] of cases) {
    const s = indirect(JMP64, 0, selector, offset);
    spoil?.(s);
    s.m.step();
    assert.deepEqual(s.m.pending, { vector: X.gp, error });
  }
});

// -- tasks

/** Fills the 32-bit TSS at `at` with a ring-0 task at `TARGET`. */
function task(s: System, at: number, fields: Readonly<Record<number, number>> = {}): void {
  const all: Record<number, number> = {
    32: TARGET, 36: 0x202, 40: 0xa, 44: 0xc, 48: 0xd, 52: 0xb, 56: 0x37000, 60: 5, 64: 6, 68: 7,
    72: Sel.data0, 76: Sel.code0, 80: Sel.data0, 84: Sel.data0, 88: 0, 92: 0, 96: 0, ...fields,
  }; // biome-ignore format: a table
  for (const [offset, value] of Object.entries(all)) s.write32(at + Number(offset), value);
}
const access = (s: System, selector: number): number => s.m.peek(0x10000 + selector + 5, 1)[0]!;

test('JMP to a TSS saves the old task, loads the new one and moves the busy bit', () => {
  const s = new System('protected', 0, far32(JMP, Sel.tss2));
  task(s, 0x13000);
  s.m.setReg(R.rdi, 0x1234);
  s.m.step();
  assert.equal(s.m.pending, null);
  assert.deepEqual(s.where, [Sel.code0, TARGET, 0]);
  assert.deepEqual(
    [0, 1, 2, 3, 4, 5, 6, 7].map((n) => Number(s.m.reg(n))),
    [0xa, 0xc, 0xd, 0xb, 0x37000, 5, 6, 7],
  );
  assert.deepEqual([s.selector(S.tr), access(s, Sel.tss), access(s, Sel.tss2)], [Sel.tss2, 0x89, 0x8b]);
  assert.deepEqual(s.read(TSS + 0x20, 4, 2), [0x20007, 0x202]);
  assert.deepEqual(s.read(TSS + 0x38, 4, 1), [STACK0 - 0x100]);
  assert.deepEqual(s.read(TSS + 0x44, 4, 1), [0x1234]);
  assert.equal((s.m.get(st.cr0) as bigint) & 8n, 8n);
  assert.equal(s.m.get(st.taskFault), 0);
});

test('CALL to a TSS links back, and IRET with NT returns', () => {
  const s = new System('protected', 0, far32(CALL, Sel.tss2));
  task(s, 0x13000);
  s.m.poke(TARGET, [0xcf]);
  s.m.step();
  assert.deepEqual([s.selector(S.tr), access(s, Sel.tss), access(s, Sel.tss2)], [Sel.tss2, 0x8b, 0x8b]);
  assert.equal(s.m.flags, 0x4202);
  assert.deepEqual(s.read(0x13000, 2, 1), [Sel.tss]);
  s.m.step();
  assert.equal(s.m.pending, null);
  assert.deepEqual(s.where, [Sel.code0, 0x20007, 0]);
  assert.deepEqual([s.selector(S.tr), access(s, Sel.tss), access(s, Sel.tss2)], [Sel.tss, 0x8b, 0x89]);
  assert.deepEqual(s.read(0x13020, 4, 2), [TARGET + 1, 0x202]);
  assert.equal(s.m.reg(R.rsp), BigInt(STACK0 - 0x100));
});

test('an exception through a task gate pushes its error code on the new stack', () => {
  const s = new System('protected', 3);
  task(s, 0x13000);
  s.write64(0x11000 + 8 * 8, gate(Sel.tss2, 0, 5));
  s.raise(X.df, 0);
  s.m.call(deliverPending);
  assert.deepEqual(s.where, [Sel.code0, TARGET, 0]);
  assert.deepEqual([s.m.reg(R.rsp), s.stack(4, 1)[0]], [0x36ffcn, 0]);
  assert.equal(s.m.flags & 0x4000, 0x4000);
  assert.deepEqual(s.read(TSS + 0x4c, 4, 1), [Sel.code3]);
});

test('a wrong segment of the new task is #TS in the new task, at its instruction pointer', () => {
  const s = new System('protected', 0, far32(JMP, Sel.tss2));
  task(s, 0x13000, { 80: Sel.data3 });
  s.vector(X.ts);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.ts, error: Sel.data3 & ~3 });
  assert.equal(s.selector(S.tr), Sel.tss2);
  // The tiers set `rip` to the faulting instruction; delivery knows better.
  s.m.rip = 0x20000;
  s.write32(0x13000 + 4, 0x37000);
  s.write32(0x13000 + 8, Sel.data0);
  s.m.set(st.segBase[S.ss]!, 0n);
  s.m.set(st.segAttr[S.ss]!, 0xc093);
  s.m.set(st.segLimit[S.ss]!, -1);
  s.m.call(updateContext);
  s.m.call(deliverPending);
  assert.equal(s.m.pending, null);
  assert.deepEqual(s.stack(4, 3), [Sel.data3 & ~3, TARGET, Sel.code0]);
});

test('a busy TSS, one that is too short, and one that is absent are refused', () => {
  const cases: [bigint, number][] = [
    [descriptor(0x13000, 0x67, 0x8b, 0), X.gp],
    [descriptor(0x13000, 0x66, 0x89, 0), X.ts],
    [descriptor(0x13000, 0x67, 0x09, 0), X.np],
  ];
  for (const [desc, vector] of cases) {
    const s = new System('protected', 0, far32(JMP, Sel.tss2));
    s.describe(Sel.tss2, desc);
    s.m.step();
    assert.deepEqual(s.m.pending, { vector, error: Sel.tss2 });
    assert.equal(s.selector(S.tr), Sel.tss);
  }
});

test('a 16-bit TSS loads 16-bit registers and no FS or GS', () => {
  const s = new System('protected', 0, far32(JMP, Sel.tss16));
  const at = 0x13000;
  [0x4000, 0x202, 1, 2, 3, 4, 0x7000, 5, 6, 7, Sel.data0, Sel.code0, Sel.data0, Sel.data0, 0].forEach((v, i) => {
    s.write16(at + 0x0e + 2 * i, v);
  });
  s.m.setReg(R.rax, 0x55550000);
  s.m.step();
  assert.equal(s.m.pending, null);
  assert.deepEqual(s.where, [Sel.code0, 0x4000, 0]);
  assert.deepEqual([s.m.reg(R.rax), s.m.reg(R.rdi)], [0x55550001n, 7n]);
  assert.equal(s.selector(S.fs), 0);
});

test('the debug trap bit of a TSS raises #DB in the new task, with BT in DR6', () => {
  const s = new System('protected', 0, far32(JMP, Sel.tss2));
  task(s, 0x13000, { 100: 1 });
  s.vector(X.db);
  s.m.step();
  assert.deepEqual(s.m.pending, { vector: X.db, error: -1 });
  assert.equal((s.m.get(st.dr[6]!) as bigint) & 0x8000n, 0x8000n);
  s.m.rip = 0x20000;
  s.m.call(deliverPending);
  assert.deepEqual(s.stack(4, 2), [TARGET, Sel.code0]);
});

test('a task with VM set starts in virtual-8086 mode', () => {
  const s = new System('protected', 0, far32(JMP, Sel.tss2));
  task(s, 0x13000, { 32: 0x12, 36: 0x20202, 76: 0x2000, 80: 0x300, 92: 0x400 });
  s.m.step();
  assert.equal(s.m.pending, null);
  assert.deepEqual(s.where, [0x2000, 0x12, 3]);
  const { v86, user, fpTrap, limited } = st.Ctx;
  assert.deepEqual(
    [s.m.get(st.segBase[S.gs]!), s.m.get(st.ctx)],
    [0x4000n, st.Ctx.protected | v86 | user | fpTrap | limited],
    'CR0.TS is set',
  );
});
