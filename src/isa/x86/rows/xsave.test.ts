import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EvalMachine } from '../eval-machine.ts';
import * as st from '../state.ts';
import { R, X } from '../state.ts';
import { xsaveRows } from './xsave.ts';

const CODE = 0x400000;
const AREA = 0x500000;
const FXSAVE = [0x0f, 0xae, 0x03];
const FXRSTOR = [0x0f, 0xae, 0x0b];
const XSAVE = [0x0f, 0xae, 0x23];
const XRSTOR = [0x0f, 0xae, 0x2b];
const XSAVEOPT = [0x0f, 0xae, 0x33];
const XSAVEC = [0x0f, 0xc7, 0x23];
const XRSTORS = [0x0f, 0xc7, 0x1b];

function machine(): EvalMachine {
  const m = new EvalMachine(xsaveRows);
  m.map(CODE, 4096, false);
  m.map(AREA, 8192);
  m.setReg(R.rbx, AREA);
  m.setReg(R.rax, 7);
  m.set(st.xcr0, 7n);
  m.set(st.cr4, (m.get(st.cr4) as bigint) | (1n << 18n));
  return m;
}
/** Runs one instruction; gives the vector of its exception, or null. */
function run(m: EvalMachine, code: readonly number[], wide = true): number | null {
  m.poke(CODE, [...(wide ? [0x48] : []), ...code, ...new Array(12).fill(0x90)]);
  m.rip = CODE;
  m.step();
  const vector = m.pending?.vector ?? null;
  m.clearPending();
  return vector;
}
/** Fills all components with distinct values. */
function fill(m: EvalMachine): void {
  m.set(st.fpCw, 0x27f);
  m.set(st.fpSw, 0x100);
  m.set(st.fpTop, 3);
  m.set(st.fpValid, 0x38);
  m.set(st.fpIp, 0x1234_5678_9abcn);
  m.set(st.fpOpcode, 0x123);
  m.set(st.mxcsr, 0x3f80);
  for (let i = 0; i < 8; i++) {
    m.set(st.fpr[i]!.mant, BigInt(i) << 40n);
    m.set(st.fpr[i]!.exp, BigInt(0x3fff + i));
  }
  for (let i = 0; i < 16; i++) {
    m.set(st.xmm[i]!, new Uint8Array(16).fill(0x10 + i));
    m.set(st.ymmHigh[i]!, new Uint8Array(16).fill(0x80 + i));
  }
}
const slots = [
  st.fpCw, st.fpSw, st.fpTop, st.fpValid, st.fpIp, st.fpDp, st.fpOpcode, st.mxcsr,
  ...st.fpr.flatMap((r) => [r.mant, r.exp]), ...st.xmm, ...st.ymmHigh,
]; // biome-ignore format: one list
const snapshot = (m: EvalMachine): unknown[] => slots.map((s) => m.get(s));
const quad = (m: EvalMachine, offset: number): bigint => new DataView(m.peek(AREA + offset, 8).buffer).getBigUint64(0, true);
const putQuad = (m: EvalMachine, offset: number, value: bigint): void => {
  const v = new DataView(new ArrayBuffer(8));
  v.setBigUint64(0, value, true);
  m.poke(AREA + offset, new Uint8Array(v.buffer));
};

test('FXSAVE lays out x87 registers from the top of stack and FXRSTOR brings all back', () => {
  const m = machine();
  fill(m);
  const before = snapshot(m);
  assert.equal(run(m, FXSAVE), null);
  assert.deepEqual([...m.peek(AREA, 8)], [0x7f, 2, 0, 0x19, 0x38, 0, 0x23, 1]);
  assert.equal(quad(m, 8), 0x1234_5678_9abcn);
  assert.equal(quad(m, 32), 3n << 40n, 'ST(0) is R3');
  assert.equal(quad(m, 40), 0x4002n);
  assert.deepEqual([...m.peek(AREA + 24, 8)], [0x80, 0x3f, 0, 0, 0xff, 0xff, 0, 0]);
  for (const s of slots) if (!st.ymmHigh.includes(s)) m.set(s, s.access.type === 'v128' ? new Uint8Array(16) : 0);
  assert.equal(run(m, FXRSTOR), null);
  assert.deepEqual(snapshot(m), before);
});

test('without REX.W the pointers are 32 bits wide', () => {
  const m = machine();
  fill(m);
  run(m, FXSAVE, false);
  assert.equal(quad(m, 8), 0x5678_9abcn);
});

test('outside 64-bit mode only eight vector registers are touched', () => {
  const m = machine();
  m.protectedMode();
  fill(m);
  run(m, FXSAVE, false);
  assert.equal(m.peek(AREA + 160 + 7 * 16, 1)[0], 0x17);
  assert.equal(m.peek(AREA + 160 + 8 * 16, 1)[0], 0);
  m.set(st.xmm[9]!, new Uint8Array(16).fill(0x77));
  run(m, FXRSTOR, false);
  assert.equal((m.get(st.xmm[9]!) as Uint8Array)[0], 0x77);
});

test('XSAVE writes the requested and enabled components, and keeps the others of the header', () => {
  const m = machine();
  fill(m);
  m.set(st.xcr0, 3n);
  putQuad(m, 512, 4n);
  assert.equal(run(m, XSAVE), null);
  assert.equal(quad(m, 512), 7n);
  assert.equal(m.peek(AREA + 576, 1)[0], 0);
  m.set(st.xcr0, 7n);
  m.setReg(R.rax, 4);
  assert.equal(run(m, XSAVE), null);
  assert.equal(m.peek(AREA + 576 + 15 * 16, 1)[0], 0x8f);
});

test('XRSTOR loads what the header has, initialises what it lacks, and leaves what is not requested', () => {
  const m = machine();
  fill(m);
  run(m, XSAVE);
  const saved = snapshot(m);
  fill(m);
  for (const s of [...st.xmm, ...st.ymmHigh]) m.set(s, new Uint8Array(16).fill(0xee));
  m.set(st.fpCw, 0x37f);
  putQuad(m, 512, 2n);
  m.setReg(R.rax, 6);
  assert.equal(run(m, XRSTOR), null);
  const wanted = [...saved];
  wanted[0] = 0x37f;
  for (let i = 0; i < 16; i++) wanted[slots.length - 16 + i] = new Uint8Array(16);
  assert.deepEqual(snapshot(m), wanted);
});

test('components in their initial state are left out by XSAVEOPT and XSAVEC', () => {
  for (const code of [XSAVEOPT, XSAVEC]) {
    const m = machine();
    m.set(st.xmm[4]!, new Uint8Array(16).fill(1));
    m.poke(AREA, new Uint8Array(512).fill(0xa5));
    assert.equal(run(m, code), null);
    assert.equal(quad(m, 512), 2n);
    assert.equal(m.peek(AREA, 1)[0], 0xa5, 'no x87 state');
    assert.equal(m.peek(AREA + 160 + 64, 1)[0], 1);
    assert.equal(quad(m, 520), code === XSAVEC ? (1n << 63n) | 7n : 0n);
  }
});

test('an area of XSAVEC goes back by XRSTOR and XRSTORS, and its missing SSE state resets MXCSR', () => {
  for (const code of [XRSTOR, XRSTORS]) {
    const m = machine();
    fill(m);
    const before = snapshot(m);
    run(m, XSAVEC);
    for (const s of [...st.xmm, ...st.ymmHigh]) m.set(s, new Uint8Array(16));
    m.set(st.mxcsr, 0x1f80);
    assert.equal(run(m, code), null);
    assert.deepEqual(snapshot(m), before);
    putQuad(m, 512, 5n);
    assert.equal(run(m, code), null);
    assert.equal(m.get(st.mxcsr), 0x1f80);
  }
});

test('malformed areas are #GP and change nothing', () => {
  const cases: [string, readonly number[], (m: EvalMachine) => void][] = [
    ['a component that is not enabled', XRSTOR, (m) => putQuad(m, 512, 8n)],
    ['reserved header bytes', XRSTOR, (m) => putQuad(m, 528, 1n)],
    ['compacted: a component outside the layout', XRSTOR, (m) => putQuad(m, 520, (1n << 63n) | 3n)],
    ['compacted: reserved bytes at the end', XRSTOR, (m) => { putQuad(m, 520, (1n << 63n) | 7n); putQuad(m, 568, 1n); }],
    ['XRSTORS of the standard format', XRSTORS, () => undefined],
    ['reserved bits of MXCSR', XRSTOR, (m) => m.poke(AREA + 26, [1])],
    ['an address that is not a multiple of 64', XRSTOR, (m) => m.setReg(R.rbx, AREA + 32)],
    ['FXRSTOR at an address that is not a multiple of 16', FXRSTOR, (m) => m.setReg(R.rbx, AREA + 8)],
    ['FXRSTOR of reserved bits of MXCSR', FXRSTOR, (m) => m.poke(AREA + 26, [1])],
  ]; // biome-ignore format: a table
  for (const [what, code, spoil] of cases) {
    const m = machine();
    fill(m);
    run(m, XSAVE);
    spoil(m);
    const before = snapshot(m);
    assert.equal(run(m, code), X.gp, what);
    assert.deepEqual(snapshot(m), before, what);
  }
});

test('a page that is missing behind the start of the area is a page fault that changes nothing', () => {
  const m = machine();
  fill(m);
  m.setReg(R.rbx, AREA + 8192 - 64);
  const before = snapshot(m);
  assert.equal(run(m, FXRSTOR), X.pf);
  assert.equal(run(m, FXSAVE), X.pf);
  assert.deepEqual(snapshot(m), before);
  assert.equal(quad(m, 8192 - 64), 0n);
});

test('the family is #UD without CR4.OSXSAVE, #NM with CR0.TS, and its supervisor half #GP above CPL 0', () => {
  const m = machine();
  m.set(st.cr0, (m.get(st.cr0) as bigint) | 8n);
  assert.equal(run(m, XSAVE), X.nm);
  m.set(st.cr4, (m.get(st.cr4) as bigint) & ~(1n << 18n));
  assert.equal(run(m, XSAVE), X.ud);
  const user = machine();
  user.set(st.cpl, 3);
  assert.equal(run(user, XRSTORS), X.gp);
});
