import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SEG_WRITE, segCheck } from './segments.ts';
import * as st from './state.ts';
import { R, S, X } from './state.ts';
import { descriptor, LDT, Sel, System, segmentRegister } from './test-system.ts';

const check = (s: System, segment: number, offset: number, bytes: number, write = false): unknown => {
  s.m.clearPending();
  const linear = s.m.call(segCheck, segment, BigInt(offset), bytes | (write ? SEG_WRITE : 0));
  return s.m.pending ?? linear;
};
const GP = { vector: X.gp, error: 0 };
const SS = { vector: X.ss, error: 0 };

test('an access inside its segment gives base plus offset, wrapped to 32 bits', () => {
  const s = new System('protected', 0);
  assert.equal(check(s, S.ds, 0xfffffffc, 4), 0xfffffffcn);
  segmentRegister(s.m, S.ds, Sel.data0, 0xffff0000n, 0x1ffff, 0x4093);
  assert.equal(check(s, S.ds, 0x10010, 4, true), 0x10n);
});

test('the limit holds to the last byte: #GP(0), or #SS(0) for the stack', () => {
  const s = new System('protected', 0);
  segmentRegister(s.m, S.es, Sel.data0, 0n, 0xfff, 0x4093);
  segmentRegister(s.m, S.ss, Sel.data0, 0n, 0xfff, 0x4093);
  assert.equal(check(s, S.es, 0xffc, 4), 0xffcn);
  assert.deepEqual(check(s, S.es, 0xffd, 4), GP);
  assert.deepEqual(check(s, S.es, 0xffffffff, 2), GP);
  assert.deepEqual(check(s, S.ss, 0x1000, 1), SS);
});

test('an expand-down segment begins above its limit and ends by its size', () => {
  const s = new System('protected', 0);
  segmentRegister(s.m, S.ds, Sel.down, 0n, 0xfff, 0x4097);
  assert.deepEqual(check(s, S.ds, 0xfff, 1), GP);
  assert.equal(check(s, S.ds, 0x1000, 4, true), 0x1000n);
  assert.equal(check(s, S.ds, 0xfffffffc, 4), 0xfffffffcn);
  segmentRegister(s.m, S.ds, Sel.down, 0n, 0xfff, 0x97);
  assert.equal(check(s, S.ds, 0xfffe, 2), 0xfffen);
  assert.deepEqual(check(s, S.ds, 0xffff, 2), GP);
});

test('types decide: read-only data, execute-only code and null segments', () => {
  const s = new System('protected', 0);
  segmentRegister(s.m, S.ds, Sel.data0, 0n, -1, 0xc091);
  assert.equal(check(s, S.ds, 8, 4), 8n);
  assert.deepEqual(check(s, S.ds, 8, 4, true), GP);
  assert.equal(check(s, S.cs, 8, 4), 8n);
  assert.deepEqual(check(s, S.cs, 8, 4, true), GP);
  segmentRegister(s.m, S.cs, Sel.code0, 0n, -1, 0xc099);
  assert.deepEqual(check(s, S.cs, 8, 4), GP);
  segmentRegister(s.m, S.fs, 0, 0n, 0, 0x10000);
  assert.deepEqual(check(s, S.fs, 0, 1), GP);
});

test('real mode has limits but no types', () => {
  const s = new System('real', 0);
  assert.equal(check(s, S.cs, 4, 2, true), 0x20004n);
  assert.deepEqual(check(s, S.ds, 0xffff, 2), GP);
});

// -- loading

/** MOV of `selector` into segment register `segment`. */
function load(s: System, segment: number, selector: number): unknown {
  s.m.poke(0x20000, [0x8e, 0xc0 | (segment << 3)]);
  s.m.rip = s.m.get(st.segBase[S.cs]!) === 0n ? 0x20000 : 0;
  s.m.setReg(R.rax, selector);
  s.m.step();
  return s.m.pending;
}

test('MOV to a data segment register takes base, limit and type, and marks the descriptor accessed', () => {
  const s = new System('protected', 0);
  s.describe(Sel.data16, descriptor(0x123456, 0x7fff, 0x92, 0));
  assert.equal(load(s, S.es, Sel.data16), null);
  assert.deepEqual(
    [s.selector(S.es), s.m.get(st.segBase[S.es]!), s.m.get(st.segLimit[S.es]!), s.m.get(st.segAttr[S.es]!)],
    [Sel.data16, 0x123456n, 0x7fff, 0x93],
  );
  assert.equal(s.m.peek(0x10000 + Sel.data16 + 5, 1)[0], 0x93);
});

test('a 16-bit stack segment narrows the stack pointer, and interrupts are held off', () => {
  const s = new System('protected', 0);
  assert.equal(load(s, S.ss, Sel.data16), null);
  assert.deepEqual([s.m.get(st.spMask), s.m.get(st.shadow)], [0xffffn, st.Shadow.stack]);
});

test('selectors come from the LDT by their TI bit', () => {
  const s = new System('protected', 0);
  assert.deepEqual(load(s, S.ds, 0x0c), { vector: X.gp, error: 0x0c });
  segmentRegister(s.m, S.ldtr, Sel.ldt, BigInt(LDT), 0x0f, 0x82);
  s.write64(LDT + 8, descriptor(0x7000, 0xff, 0x93, 0));
  assert.equal(load(s, S.ds, 0x0c), null);
  assert.equal(s.m.get(st.segBase[S.ds]!), 0x7000n);
  assert.deepEqual(load(s, S.ds, 0x14), { vector: X.gp, error: 0x14 });
});

test('what may not be loaded is refused with the selector', () => {
  const cases: ['protected' | 'long', 0 | 3, number, number, number, number][] = [
    ['protected', 0, S.ss, 0, X.gp, 0],
    ['protected', 0, S.ss, Sel.data3, X.gp, Sel.data3 & ~3],
    ['protected', 0, S.ss, Sel.code0, X.gp, Sel.code0],
    ['protected', 0, S.ss, Sel.absent, X.ss, Sel.absent],
    ['protected', 0, S.ds, Sel.absent, X.np, Sel.absent],
    ['protected', 0, S.ds, Sel.tss, X.gp, Sel.tss],
    ['protected', 0, S.ds, 0x100, X.gp, 0x100],
    ['protected', 3, S.ds, Sel.data0, X.gp, Sel.data0],
    ['protected', 0, S.ds, Sel.data0 | 3, X.gp, Sel.data0],
    ['long', 3, S.ss, 3, X.gp, 0],
    ['protected', 0, S.cs, Sel.code0, X.ud, -1],
    ['protected', 0, 6, Sel.data0, X.ud, -1],
  ];
  for (const [mode, cpl, segment, selector, vector, error] of cases) {
    assert.deepEqual(load(new System(mode, cpl), segment, selector), { vector, error });
  }
});

test('null selectors make data segments unusable; kernel code of 64 bits may have a null SS', () => {
  const s = new System('long', 0);
  assert.equal(load(s, S.gs, 3), null);
  assert.deepEqual([s.selector(S.gs), s.m.get(st.segAttr[S.gs]!), s.m.get(st.segBase[S.gs]!)], [3, 0x10000, 0n]);
  assert.equal(load(s, S.ss, 0), null);
  assert.equal(s.m.get(st.segAttr[S.ss]!), 0x10000);
  assert.equal(load(s, S.ds, Sel.conforming), null, 'readable conforming code from any level');
});

test('real mode loads change base and selector only', () => {
  const s = new System('real', 0);
  s.m.set(st.segLimit[S.ds]!, -1);
  assert.equal(load(s, S.ds, 0x1234), null);
  assert.deepEqual([s.m.get(st.segBase[S.ds]!), s.m.get(st.segLimit[S.ds]!)], [0x12340n, -1]);
});
