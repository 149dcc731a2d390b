import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { Timers, timersLayout } from './clock.ts';
import { limited } from './events.ts';
import { fanOut, SharedLine } from './irq.ts';
import { Lock, lockLayout } from './lock.ts';
import { Ram } from './memory.ts';
import { MsrSpace } from './msr.ts';

test('a shared line is high while any source is, and a fan-out drives all its wires', () => {
  const seen: number[] = [];
  const line = new SharedLine(new Uint32Array(1), 0, fanOut({ set: (l) => seen.push(l) }, { set: (l) => seen.push(l + 10) }));
  const [a, b] = [line.source(0), line.source(31)];
  a.set(1);
  b.set(1);
  a.set(0);
  b.set(0);
  assert.deepEqual(seen, [1, 11, 1, 11, 1, 11, 0, 10]);
});

test('timers give the earliest time and tick only what is due', () => {
  const timers = new Timers(timersLayout.view(new SharedArrayBuffer(64), 0));
  const ticked: number[] = [];
  for (const at of [30, 10, Number.POSITIVE_INFINITY]) timers.add({ next: () => at, tick: () => ticked.push(at) });
  assert.equal(timers.next(), 10);
  timers.tick(20);
  assert.deepEqual(ticked, [10]);
  const before = timers.signal[0]!;
  timers.changed();
  assert.notEqual(timers.signal[0], before);
});

test('RAM ends where its ranges end', () => {
  const ram = new Ram(new SharedArrayBuffer(8192), [
    { gpa: 0, length: 4096, offset: 4096 },
    { gpa: 0x1_0000_0000, length: 4096, offset: 0 },
  ]);
  ram.write64(8, 0x1122_3344_5566_7788n);
  assert.equal(ram.read32(12), 0x1122_3344);
  assert.equal(ram.read16(4095), 0xffff);
  ram.write8(0x1_0000_0000, 9);
  assert.equal(ram.slice(0x1_0000_0000, 1)?.[0], 9);
  assert.equal(ram.slice(4000, 97), undefined);
  assert.equal(ram.read64(1 << 20), 0xffff_ffff_ffff_ffffn);
});

test('MSRs that no device serves are refused', () => {
  const lock = new Lock(new Arena(new ArrayBuffer(64)).alloc(lockLayout), 1);
  const msrs = new MsrSpace(lock);
  msrs.map(0x800, 0x83f, { read: (n) => (lock.held ? BigInt(n) : undefined), write: (_, v) => v === 1n });
  assert.equal(msrs.read(0x802), 0x802n);
  assert.equal(msrs.write(0x802, 1n), true);
  assert.equal(msrs.write(0x802, 2n), false);
  assert.equal(msrs.read(0x840), undefined);
  assert.equal(msrs.write(0x7ff, 1n), false);
  assert.throws(() => msrs.map(0x83f, 0x900, { read: () => 0n, write: () => true }), /are taken/);
});

test('reports are limited per second and what was left out is counted', () => {
  let now = 0;
  const seen: string[] = [];
  const report = limited((_, m) => seen.push(m), { now: () => now }, 2);
  for (let i = 0; i < 5; i++) report('x', String(i));
  now = 2e9;
  report('x', 'later');
  assert.deepEqual(seen, ['0', '1', '3 more messages were left out', 'later']);
});

test('a guest that makes mistakes for days fills no disk', () => {
  let now = 0;
  let characters = 0;
  const report = limited((_, m) => (characters += m.length), { now: () => now });
  const day = 24 * 3600;
  for (; now < day * 1e9; now += 0.05e9) report('x', 'x'.repeat(10_000));
  assert.ok(characters < 24 * 1000 * 1100, `${characters} characters a day`);
});
