import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from './arena.ts';
import { bits, highestBit, lowestBit, mask, withBits } from './fields.ts';
import { struct } from './struct.ts';

const inner = struct({ mode: 'u8', count: 'u16' });
const layout = struct(
  {
    ier: 'u8',
    divisor: 'u16',
    at: 'f64',
    match: 'u64',
    delta: 'i64',
    fifo: ['u8', 3],
    irr: ['i32', 2],
    channel: [inner, 2],
    one: inner,
  },
  { name: 'sample', version: 3 },
);

test('fields are placed as a C compiler places them', () => {
  assert.deepEqual(layout.offsets, { ier: 0, divisor: 2, at: 8, match: 16, delta: 24, fifo: 32, irr: 36, channel: 44, one: 52 });
  assert.equal(layout.size, 56);
  assert.equal(layout.align, 8);
});

test('a view reads and writes its own bytes, little-endian', () => {
  const buffer = new SharedArrayBuffer(128);
  const v = layout.view(buffer, 64);
  v.ier = 0x1ff;
  v.divisor = 0x1234;
  v.at = Number.POSITIVE_INFINITY;
  v.match = 0xffff_ffff_ffff_fffen;
  v.delta = -2n;
  v.irr[1] = -1;
  v.channel[1]!.count = 0xbeef;
  v.one.mode = 7;
  assert.equal(v.ier, 0xff);
  assert.equal(v.at, Number.POSITIVE_INFINITY);
  assert.equal(v.match, 0xffff_ffff_ffff_fffen);
  assert.equal(v.delta, -2n);
  const bytes = new Uint8Array(buffer);
  assert.deepEqual([...bytes.subarray(64 + 2, 64 + 4)], [0x34, 0x12]);
  assert.deepEqual([...bytes.subarray(64 + 50, 64 + 53)], [0xef, 0xbe, 7]);
  assert.ok(bytes.subarray(0, 64).every((b) => b === 0));
  assert.equal(Atomics.load(v.irr, 1), -1);
  assert.equal(v.channel, v.channel, 'a table is made once');
});

test('two views of one place see each other', () => {
  const buffer = new SharedArrayBuffer(64);
  layout.view(buffer, 0).divisor = 99;
  assert.equal(layout.view(buffer, 0).divisor, 99);
});

test('a misspelled field does not compile', () => {
  const v = layout.view(new ArrayBuffer(64), 0);
  // @ts-expect-error there is no such field
  assert.equal(v.divisr, undefined);
});

test('arenas that allocate in the same order give the same offsets', () => {
  const buffer = new SharedArrayBuffer(4096);
  const [a, b] = [new Arena(buffer, 64, 4096), new Arena(buffer, 64, 4096)];
  a.alloc(inner);
  b.alloc(inner);
  a.alloc(layout).divisor = 5;
  assert.equal(b.alloc(layout).divisor, 5);
  assert.equal(a.used, b.used);
});

test('an arena that is full says how much is free', () => {
  const arena = new Arena(new ArrayBuffer(128), 64, 128);
  arena.alloc(layout);
  assert.throws(() => arena.alloc(layout, 'second'), /Cannot place sample of 56 bytes: 0 of the arena are free/);
});

test('saved state comes back, and another version is refused with nothing changed', () => {
  const arena = new Arena(new ArrayBuffer(256));
  const v = arena.alloc(layout);
  v.divisor = 7;
  const saved = arena.save();
  v.divisor = 8;
  assert.throws(() => arena.restore([{ ...saved[0]!, version: 2 }]), /version 2 of 56 bytes, this machine takes 3 of 56/);
  assert.equal(v.divisor, 8);
  arena.restore(saved);
  assert.equal(v.divisor, 7);
});

test('bit fields follow msb:lsb', () => {
  assert.equal(mask(31, 0), 0xffff_ffff);
  assert.equal(mask(10, 8), 0x700);
  assert.equal(bits(0xdead_beef, 31, 28), 0xd);
  assert.equal(withBits(0xffff_ffff, 10, 8, 2), 0xffff_faff);
  assert.equal(highestBit(0x8000_0001), 31);
  assert.equal(highestBit(0), -1);
  assert.equal(lowestBit(0x8000_0100), 8);
});
