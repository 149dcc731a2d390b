import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as st from '../state.ts';
import { Exit, R } from '../state.ts';
import { buildTables } from '../table.ts';
import { TestMachine } from '../test-machine.ts';
import { monitorRows } from './monitor.ts';
import { systemRows } from './system.ts';

const tables = buildTables([...systemRows, ...monitorRows]);
const GP = { vector: 13, error: 0 };
const UD = { vector: 6, error: null };
const SMAP = 1 << 21;

function long(cr4 = 0): TestMachine {
  const m = new TestMachine();
  m.mode('4-level', { cr4 });
  m.identity(0x83n);
  return m;
}
function exec(m: TestMachine, ...bytes: number[]): ReturnType<TestMachine['exception']> {
  assert.notEqual(m.exec(tables, ...bytes), 'undefined');
  return m.exception();
}

test('HLT leaves for the host, at CPL 0 only', () => {
  const m = long();
  const end = m.exec(tables, 0xf4);
  assert.ok(end !== 'undefined' && end.how === 'exit' && end.reason === Exit.hlt);
  m.privilege(3);
  assert.deepEqual(exec(m, 0xf4), GP);
});

test('cache instructions that lose data are privileged', () => {
  const m = long();
  for (const op of [0x08, 0x09]) {
    m.privilege(0);
    assert.equal(exec(m, 0x0f, op), null);
    m.privilege(3);
    assert.deepEqual(exec(m, 0x0f, op), GP);
  }
});

test('cache line instructions fault as a read, prefetches never', () => {
  const m = long();
  const absent = [0x04, 0x25, 0x00, 0x00, 0x40, 0x00];
  const rm = (digit: number): number[] => [0x04 | (digit << 3), ...absent.slice(1)];
  for (const bytes of [[0x0f, 0xae, ...rm(7)], [0x66, 0x0f, 0xae, ...rm(7)], [0x66, 0x0f, 0xae, ...rm(6)]]) {
    assert.deepEqual(exec(m, ...bytes), { vector: 14, error: 0 });
  }
  for (let digit = 0; digit < 4; digit++) assert.equal(exec(m, 0x0f, 0x18, ...rm(digit)), null);
  assert.equal(exec(m, 0x0f, 0x0d, ...rm(1)), null);
}); // biome-ignore format: lists

test('fences and PAUSE change nothing', () => {
  const m = long();
  const before = m.memory.buffer.slice(0);
  for (const bytes of [[0x0f, 0xae, 0xe8], [0x0f, 0xae, 0xf0], [0x0f, 0xae, 0xf8], [0xf3, 0x90]]) assert.equal(exec(m, ...bytes), null);
  assert.deepEqual(new Uint8Array(m.memory.buffer), new Uint8Array(before));
}); // biome-ignore format: lists

test('STAC and CLAC set RFLAGS.AC and the TLB that explicit accesses use', () => {
  const m = long(SMAP);
  const current = (): number => st.tlbs.findIndex((slot) => m.get(slot) === m.get(st.tlb));
  assert.equal(current(), 0);
  assert.equal(exec(m, 0x0f, 0x01, 0xcb), null);
  assert.deepEqual([m.get(st.sysFlags), current()], [1 << 18, 1]);
  assert.equal(exec(m, 0x0f, 0x01, 0xca), null);
  assert.deepEqual([m.get(st.sysFlags), current()], [0, 0]);
  const open = long();
  exec(open, 0x0f, 0x01, 0xca);
  assert.equal(open.get(st.tlb), open.get(st.tlbs[1]!));
  m.privilege(3);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xcb), UD);
});

test('random numbers fill the operand and set CF alone', () => {
  const m = long();
  m.hosts.random = () => -2n;
  m.set(st.gpr[R.rcx]!, 0n);
  m.set(st.fO, -1);
  assert.equal(exec(m, 0x66, 0x0f, 0xc7, 0xf1), null);
  assert.equal(m.u64(st.gpr[R.rcx]!), 0xfffen);
  assert.equal(exec(m, 0x0f, 0xc7, 0xf9), null);
  assert.equal(m.u64(st.gpr[R.rcx]!), 0xfffffffen);
  assert.equal(exec(m, 0x48, 0x0f, 0xc7, 0xf1), null);
  assert.equal(m.u64(st.gpr[R.rcx]!), 0xfffffffffffffffen);
  assert.deepEqual([m.get(st.fC), m.get(st.fO), m.get(st.fZ), m.get(st.fN)], [1, 0, 1n, 1n]);
});

test('a hypercall goes to the host, which may refuse it', () => {
  for (const op of [0xc1, 0xd9]) {
    const m = long();
    const end = m.exec(tables, 0x0f, 0x01, op);
    assert.ok(end !== 'undefined' && end.how === 'resync');
    assert.deepEqual(m.calls, [['hypercall']]);
    m.hosts.hypercall = () => {
      m.set(st.exc, 7);
      m.set(st.excError, -1);
      return undefined;
    };
    assert.deepEqual(exec(m, 0x0f, 0x01, op), UD);
  }
});

test('MONITOR reads its address, and both it and MWAIT are for CPL 0', () => {
  const m = long();
  m.set(st.gpr[R.rax]!, 0x5000n);
  assert.equal(exec(m, 0x0f, 0x01, 0xc8), null);
  assert.equal(exec(m, 0x0f, 0x01, 0xc9), null);
  m.set(st.gpr[R.rax]!, 0x400000n);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xc8), { vector: 14, error: 0 });
  m.set(st.gpr[R.rcx]!, 2n);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xc8), GP);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xc9), GP);
  m.privilege(3);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xc8), UD);
  assert.deepEqual(exec(m, 0x0f, 0x01, 0xc9), UD);
});

test('UD0, UD1 and UD2 are undefined on purpose', () => {
  const m = long();
  for (const bytes of [[0x0f, 0x0b], [0x0f, 0xb9, 0xc0], [0x0f, 0xff, 0xc0]]) assert.deepEqual(exec(m, ...bytes), UD);
}); // biome-ignore format: lists
