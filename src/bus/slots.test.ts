import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SLOT_TABLE_BYTES, slotAt, slotOf } from '../bits/slot-table.ts';
import { MemorySlots } from './slots.ts';

const o = {
  ramBase: 0x10000,
  ramLow: 0x10_0000,
  ramHigh: 0,
  guestBytes: 0x10_8000,
  plugBase: 0,
  plugBytes: 0,
  plugMap: 0,
  extraBytes: 0x8000,
  slots: 0,
  codeMap: 0x2000,
} as const;

function slots() {
  const buffer = new SharedArrayBuffer(0x12_0000);
  let changes = 0;
  const make = () => new MemorySlots(buffer, o, () => changes++);
  const view = new DataView(buffer);
  return { a: make(), b: make(), view, codeMap: new Uint8Array(buffer, o.codeMap), changes: () => changes };
}

test('pages of the first MiB are RAM, bus or other bytes', () => {
  const { a, view, changes } = slots();
  assert.equal(slotAt(view, 0, 0xa0000), 0);
  a.low(0xa0, 32, 'bus');
  a.low(0xc0, 2, 0x11_0000, true);
  a.low(0xe0, 1, 'ram', true);
  assert.equal(slotAt(view, 0, 0xbf000), -1);
  assert.equal(slotAt(view, 0, 0xc1000), 0x11_1001);
  assert.equal(slotAt(view, 0, 0xe0000), o.ramBase + 0xe0001);
  assert.equal(changes(), 3);
  a.low(0xa0, 32, 'bus');
  assert.equal(changes(), 3, 'what stays as it was tells nobody');
  a.reset();
  assert.equal(slotAt(view, 0, 0xa0000), 0);
});

test('slots are found from both sides on every thread, and move', () => {
  const { a, b, view } = slots();
  const at = a.alloc('vram', 0x3001);
  assert.equal(at, 0x11_0000);
  assert.equal(b.alloc('vram', 0x3001), at);
  assert.equal(a.alloc('rom', 0x4000), 0x11_4000);
  assert.throws(() => a.alloc('more', 1), /Cannot give more 1 bytes: 0 bytes are left/);
  const [mine, theirs] = [a.slot('vram'), b.slot('vram')];
  mine.map(0xfd00_0000, 0x4000, at);
  assert.equal(slotAt(view, 0, 0xfd00_3000), at + 0x3000);
  assert.equal(slotAt(view, 0, 0xfd00_4000), 0);
  assert.equal(slotOf(view, 0, at + 0x1234), 0xfd00_1234);
  theirs.map(2 ** 40, 0x4000, at, true);
  assert.equal(slotAt(view, 0, 0xfd00_0000), 0);
  assert.equal(slotAt(view, 0, 2 ** 40), at + 1);
  theirs.unmap();
  assert.equal(slotOf(view, 0, at), -1);
  assert.throws(() => mine.map(0x123, 0x1000, at), /only whole pages/);
});

test('decoded code is forgotten only where a page that held some changes', () => {
  const { a, view, codeMap } = slots();
  const generations = () => [view.getInt32(1024, true), view.getInt32(1028, true)];
  const at = a.alloc('flash', 0x1000);
  const slot = a.slot('flash');
  slot.map(0xffff_f000, 0x1000, at);
  assert.deepEqual(generations(), [1, 0]);
  codeMap[(at - o.ramBase) / 4096] = 1;
  slot.unmap();
  assert.deepEqual(generations(), [2, 1]);
  codeMap[0xf0] = 1;
  a.low(0xf0, 1, at, true);
  assert.deepEqual(generations(), [3, 2]);
  assert.ok(SLOT_TABLE_BYTES <= 4096);
});
