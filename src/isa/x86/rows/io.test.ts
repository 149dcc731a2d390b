import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as st from '../state.ts';
import { R, S } from '../state.ts';
import { buildTables } from '../table.ts';
import { TestMachine } from '../test-machine.ts';
import { ioRows } from './io.ts';

const tables = buildTables(ioRows);
const GP = { vector: 13, error: 0 };
const ALL = -1n;

function long(): TestMachine {
  const m = new TestMachine();
  m.mode('4-level');
  m.identity(0x87n);
  let next = 0x11223344;
  m.hosts.portIn = (port, bytes) => {
    m.calls.push(['portIn', port!, bytes!]);
    next += 1;
    return bytes === 4 ? next : next & ((1 << (8 * (bytes as number))) - 1);
  };
  return m;
}
function how(m: TestMachine, ...bytes: number[]): string {
  const end = m.exec(tables, ...bytes);
  return end === 'undefined' ? end : end.how;
}

test('IN writes the accumulator at its size, from an immediate port or DX', () => {
  const m = long();
  const rax = m.u64.bind(m, st.gpr[R.rax]!);
  m.set(st.gpr[R.rdx]!, 0x1_03f8n);
  m.set(st.gpr[R.rax]!, ALL);
  how(m, 0xe4, 0xfe);
  assert.equal(rax(), 0xffffffffffffff45n);
  how(m, 0x66, 0xed);
  assert.equal(rax(), 0xffffffffffff3346n);
  how(m, 0xed);
  assert.equal(rax(), 0x11223347n);
  m.set(st.gpr[R.rax]!, ALL);
  how(m, 0x48, 0xe5, 0x80);
  assert.equal(rax(), 0x11223348n);
  assert.deepEqual(m.calls, [['portIn', 0xfe, 1], ['portIn', 0x3f8, 2], ['portIn', 0x3f8, 4], ['portIn', 0x80, 4]]);
}); // biome-ignore format: calls

test('OUT gives the accumulator at its size', () => {
  const m = long();
  m.set(st.gpr[R.rax]!, 0x8877665544332211n);
  m.set(st.gpr[R.rdx]!, 0xffffn);
  how(m, 0xee);
  how(m, 0x66, 0xef);
  how(m, 0xe7, 0x70);
  assert.deepEqual(m.calls, [['portOut', 0xffff, 0x11, 1], ['portOut', 0xffff, 0x2211, 2], ['portOut', 0x70, 0x44332211, 4]]);
}); // biome-ignore format: calls

test('above IOPL the bitmap of the TSS decides, bit by bit', () => {
  const m = long();
  m.set(st.segBase[S.tr]!, 0x5000n);
  m.set(st.segAttr[S.tr]!, 0x8b);
  m.set(st.segLimit[S.tr]!, 0x8b);
  m.write64(0x5060, 0x0068n << 48n);
  m.write64(0x5068, 0xffff_ff3f_efff_ffffn);
  m.privilege(3);
  const allowed = (port: number, ...bytes: number[]): boolean => {
    m.set(st.gpr[R.rdx]!, BigInt(port));
    const end = how(m, ...bytes);
    const e = m.exception();
    if (e) assert.deepEqual(e, GP);
    assert.equal(end === 'fault', e !== null);
    return e === null;
  };
  const bytes = 0xec;
  assert.equal(allowed(28, bytes), true);
  assert.equal(allowed(27, bytes), false);
  assert.equal(allowed(28, 0x66, 0xed), false);
  assert.equal(allowed(38, 0x66, 0xed), true);
  assert.equal(allowed(38, 0xed), false);
  assert.equal(allowed(0x117, bytes), true, 'the last byte before the limit');
  assert.equal(allowed(0x118, bytes), false, 'two bytes are read, the second beyond the limit');
  m.set(st.sysFlags, 0x3000);
  assert.equal(allowed(27, bytes), true);
  m.set(st.sysFlags, 0);
  m.set(st.segAttr[S.tr]!, 0x83);
  assert.equal(allowed(28, bytes), false, 'a 16-bit TSS has no bitmap');
  m.set(st.segAttr[S.tr]!, 0x8b);
  m.set(st.segLimit[S.tr]!, 0x66);
  assert.equal(allowed(28, bytes), false);
});

test('virtual-8086 mode goes by the bitmap even with IOPL 3, real mode needs nothing', () => {
  const m = new TestMachine();
  assert.equal(how(m, 0xec), 'next');
  m.mode('unpaged');
  m.set(st.sysFlags, 0x23000);
  m.privilege(3);
  assert.equal(how(m, 0xec), 'fault');
  m.set(st.sysFlags, 0x3000);
  m.privilege(3);
  m.exception();
  assert.equal(how(m, 0xec), 'next');
});

test('INS and OUTS move one element and step by the direction flag', () => {
  const m = long();
  m.set(st.gpr[R.rdi]!, 0x5000n);
  m.set(st.gpr[R.rdx]!, 0x1f0n);
  how(m, 0x66, 0x6d);
  assert.equal(m.read32(0x5000), 0x3345);
  assert.equal(m.u64(st.gpr[R.rdi]!), 0x5002n);
  m.set(st.sysFlags, 0x400);
  m.set(st.gpr[R.rsi]!, 0x5000n);
  m.write32(0x5000, 0xaabbccdd);
  m.calls.length = 0;
  how(m, 0x6f);
  assert.deepEqual(m.calls, [['portOut', 0x1f0, 0xaabbccdd | 0, 4]]);
  assert.equal(m.u64(st.gpr[R.rsi]!), 0x4ffcn);
}); // biome-ignore format: calls

test('REP runs the instruction again while the count lasts, and not at all for a count of zero', () => {
  const m = long();
  m.set(st.gpr[R.rdi]!, 0x5000n);
  m.set(st.gpr[R.rcx]!, 3n);
  const ends = [how(m, 0xf3, 0x6c), how(m, 0xf3, 0x6c), how(m, 0xf3, 0x6c), how(m, 0xf3, 0x6c)];
  assert.deepEqual(ends, ['repeat', 'repeat', 'next', 'next']);
  assert.equal(m.read32(0x5000), 0x474645);
  assert.deepEqual([m.u64(st.gpr[R.rdi]!), m.u64(st.gpr[R.rcx]!), m.calls.length], [0x5003n, 0n, 3]);
});

test('a REP with a 32-bit address size counts in ECX and uses ESI', () => {
  const m = long();
  m.set(st.gpr[R.rsi]!, 0x7_0000_5000n);
  m.set(st.gpr[R.rcx]!, 0x7_0000_0001n);
  assert.equal(how(m, 0xf3, 0x67, 0x6e), 'next');
  assert.deepEqual([m.u64(st.gpr[R.rsi]!), m.u64(st.gpr[R.rcx]!)], [0x5001n, 0n]);
});

test('INS reads the port only where the store succeeds', () => {
  const m = long();
  m.write64(0x3000, 0x85n);
  m.set(st.gpr[R.rdi]!, 0x5000n);
  assert.equal(how(m, 0x6c), 'fault');
  assert.deepEqual(m.exception(), { vector: 14, error: 3 });
  assert.deepEqual(m.calls, []);
  assert.equal(m.u64(st.gpr[R.rdi]!), 0x5000n);
});
