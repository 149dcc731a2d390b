import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EvalMachine } from './eval-machine.ts';
import { arithmeticRows } from './rows/arithmetic.ts';
import { flowRows } from './rows/flow.ts';
import { moveRows } from './rows/move.ts';
import { shiftRows } from './rows/shift.ts';
import { stringRows } from './rows/string.ts';
import * as st from './state.ts';
import { R, X } from './state.ts';

const rows = [...arithmeticRows, ...moveRows, ...shiftRows, ...flowRows, ...stringRows];
const CODE = 0x400000;

function machine(code: number[]): EvalMachine {
  const m = new EvalMachine(rows);
  m.map(CODE, 4096, false);
  m.map(0x500000, 8192);
  m.poke(CODE, code);
  m.rip = CODE;
  return m;
}

test('instructions run one after the other, flags included', () => {
  const m = machine([0x48, 0x01, 0xd8, 0x0f, 0x92, 0xc1, 0x75, 0xf8]); // add rax, rbx; setb cl; jnz -8
  m.setReg(R.rax, -1n);
  m.setReg(R.rbx, 3n);
  m.setReg(R.rcx, 0x1200n);
  assert.equal(m.step().outcome.how, 'next');
  assert.equal(m.reg(R.rax), 2n);
  assert.equal(m.flags & 0x8d5, 0x11);
  m.step();
  assert.equal(m.reg(R.rcx), 0x1201n);
  assert.equal(m.step().outcome.how, 'branch');
  assert.equal(m.rip, BigInt(CODE));
});

test('flags survive being written and read as an image', () => {
  const m = machine([0x90]);
  for (const image of [0x2, 0x8d7, 0xd5 | 2, 0x46, 0x884 | 2, 0x202, 0x412]) {
    m.flags = image;
    assert.equal(m.flags, image | 2);
  }
});

test('a store to a read-only page and a load beyond the map fault without effect', () => {
  const m = machine([0x89, 0x03, 0x8b, 0x03]); // mov [rbx], eax; mov eax, [rbx]
  m.setReg(R.rbx, CODE + 0x800);
  m.longMode(3);
  assert.equal(m.step().outcome.how, 'fault');
  assert.deepEqual(m.pending, { vector: X.pf, error: 7 });
  assert.equal(m.get(st.cr2), BigInt(CODE + 0x800));
  assert.equal(m.rip, BigInt(CODE));
  m.rip = CODE + 2;
  m.setReg(R.rbx, 0x501ffe);
  m.step();
  assert.deepEqual(m.pending, { vector: X.pf, error: 4 });
  assert.equal(m.get(st.cr2), 0x502000n);
});

test('a repeated string instruction ends with its registers moved on', () => {
  const m = machine([0xf3, 0xa4]); // rep movsb
  m.poke(0x500000, [1, 2, 3, 4, 5]);
  m.setReg(R.rsi, 0x500000);
  m.setReg(R.rdi, 0x501ffd);
  m.setReg(R.rcx, 5);
  m.longMode(3);
  for (let i = 0; i < 3 && m.step().outcome.how === 'repeat'; i++);
  assert.deepEqual(m.pending, { vector: X.pf, error: 6 });
  assert.deepEqual([m.reg(R.rsi), m.reg(R.rdi), m.reg(R.rcx)], [0x500003n, 0x502000n, 2n]);
  assert.deepEqual([...m.peek(0x501ffd, 3)], [1, 2, 3]);
});

test('protected mode works on 32-bit registers through segments', () => {
  const m = machine([0x40, 0x8b, 0x04, 0x18]); // inc eax; mov eax, [eax+ebx]
  m.protectedMode();
  m.poke(0x500004, [0x78, 0x56, 0x34, 0x12]);
  m.setReg(R.rax, 0xffff_ffffn);
  m.setReg(R.rbx, 0x500004);
  m.step();
  assert.equal(m.reg(R.rax), 0n);
  m.step();
  assert.equal(m.reg(R.rax), 0x12345678n);
});

test('with real page tables an access walks them', () => {
  const m = new EvalMachine(rows, { memory: 'paged' });
  m.set(st.cr3, 0x1000n);
  const entry = (at: number, value: number): void => m.memory.setBigInt64(m.ramBase + at, BigInt(value), true);
  entry(0x1000, 0x2007);
  entry(0x2000, 0x3007);
  entry(0x3000, 0x4007);
  entry(0x4000 + 5 * 8, 0x8005);
  m.longMode(3);
  m.poke(0x8000, [0x8b, 0x03, 0x89, 0x03]);
  m.rip = 0x5000;
  m.setReg(R.rbx, 0x5000);
  m.step();
  assert.equal(m.reg(R.rax), 0x0389_038bn);
  assert.equal(m.step().outcome.how, 'fault');
  assert.deepEqual(m.pending, { vector: X.pf, error: 7 });
});
