import assert from 'node:assert/strict';
import { test } from 'node:test';
import { updateContext } from './context.ts';
import { deliverPending, singleStep, stepBegin } from './exceptions.ts';
import * as st from './state.ts';
import { X } from './state.ts';
import { HANDLER, Sel, System } from './test-system.ts';

const CODE = 0x20000n;
const DR6 = 0xffff0ff0n;
const dr6 = (s: System): bigint => s.m.get(st.dr[6]!) as bigint;

const pendingVector = (s: System): number | null => s.m.pending?.vector ?? null;

/** One instruction as a single-stepping tier runs it. */
function stepped(s: System): void {
  s.m.call(stepBegin, s.m.rip);
  if (!s.m.pending) s.m.step();
  if (!s.m.pending) s.m.call(singleStep);
}

test('TF traps after the instruction, with BS in DR6 and RF clear in the saved flags', () => {
  const s = new System('long', 3, [0xf9, 0xf8]); // stc; clc
  s.vector(X.db);
  s.m.flags = 0x302;
  stepped(s);
  assert.deepEqual(s.m.pending, { vector: X.db, error: -1 });
  assert.equal(dr6(s), DR6 | 0x4000n);
  s.m.call(deliverPending);
  assert.deepEqual(s.where, [Sel.long0, HANDLER + 16, 0]);
  assert.deepEqual(s.stack(8, 3), [Number(CODE) + 1, Sel.long3, 0x303]);
  assert.equal(s.m.flags & 0x100, 0);
  stepped(s);
  assert.notEqual(pendingVector(s), X.db);
});

test('POPF that sets TF traps after the next instruction, one that clears it traps at once', () => {
  const s = new System('long', 0, [0x9d, 0xf8, 0x9d]); // popf; clc; popf
  s.push(8, 0x102, 2);
  stepped(s);
  assert.equal(pendingVector(s), null);
  stepped(s);
  assert.equal(pendingVector(s), X.db);
  s.m.clearPending();
  stepped(s);
  assert.equal(pendingVector(s), X.db);
  assert.equal(s.m.flags & 0x100, 0);
});

test('INT n under TF enters the handler without a trap', () => {
  const s = new System('long', 0, [0xcd, 0x30]);
  s.vector(0x30);
  s.m.flags = 0x102;
  stepped(s);
  assert.equal(pendingVector(s), null);
  assert.equal(Number(s.m.rip), HANDLER + 0x300);
});

test('MOV SS holds the trap off', () => {
  const s = new System('long', 0, [0x8e, 0xd0]); // mov ss, eax
  s.m.setReg(0, Sel.data0);
  s.m.flags = 0x102;
  stepped(s);
  assert.equal(pendingVector(s), null);
  assert.equal(s.m.get(st.shadow), st.Shadow.stack);
});

test('an instruction breakpoint is a fault before it, once: RF lets it pass', () => {
  const s = new System('long', 0, [0xf9]);
  s.vector(X.db);
  s.m.set(st.dr[1]!, CODE);
  s.m.set(st.dr[7]!, 0x404n);
  s.m.call(updateContext);
  assert.equal((s.m.get(st.ctx) as number) & st.Ctx.step, st.Ctx.step);
  stepped(s);
  assert.equal(pendingVector(s), X.db);
  assert.equal(dr6(s), DR6 | 2n);
  assert.equal(s.m.rip, CODE);
  s.m.set(st.exc, 0);
  s.m.flags = 0x10002;
  stepped(s);
  assert.equal(pendingVector(s), null);
  assert.equal(s.m.flags, 3);
});

test('delivering #DB clears DR7.GD', () => {
  const s = new System('long', 0);
  s.vector(X.db);
  s.m.set(st.dr[7]!, 0x2400n);
  s.raise(X.db);
  s.m.call(deliverPending);
  assert.equal(s.m.get(st.dr[7]!), 0x400n);
});

test('a breakpoint that is not enabled, or of another kind, does nothing', () => {
  const s = new System('long', 0, [0xf9]);
  s.m.set(st.dr[0]!, CODE);
  for (const dr7 of [0x400n, 0x10401n, 0x408n]) {
    s.m.set(st.dr[7]!, dr7);
    s.m.rip = CODE;
    stepped(s);
    assert.equal(pendingVector(s), null);
  }
});
