import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { Lock, lockLayout } from './lock.ts';
import { AddressSpace, type BadAccess, type Handler, spaceLayout } from './space.ts';

/** A space, and a second thread's view of the same one. */
function spaces(size: number) {
  const arena = new Arena(new SharedArrayBuffer(1024));
  const lockWords = arena.alloc(lockLayout);
  const shared = arena.alloc(spaceLayout);
  const bad: BadAccess[] = [];
  const make = (id: number) =>
    new AddressSpace({ name: 'test', size, lock: new Lock(lockWords, id), shared, trace: (b) => bad.push(b) });
  return { a: make(1), b: make(2), bad };
}

function recorder(max?: 1 | 2 | 4): Handler & { log: string[] } {
  const log: string[] = [];
  return {
    ...(max === undefined ? {} : { max }),
    log,
    read(offset, size) {
      log.push(`r${size}@${offset}`);
      return offset + 0x10;
    },
    write(offset, size, value) {
      log.push(`w${size}@${offset}=${value.toString(16)}`);
    },
  };
}

test('accesses reach the device with its own offsets', () => {
  for (const size of [0x1_0000, 2 ** 40]) {
    const { a } = spaces(size);
    const d = recorder();
    a.map(0x3f8, 8, d, 'uart');
    assert.equal(a.read(0x3fd, 1), 0x15);
    a.write(0x3f8, 4, -1);
    assert.deepEqual(d.log, ['r1@5', 'w4@0=ffffffff']);
  }
});

test('unmapped reads give all ones, unmapped writes vanish, and both are traced', () => {
  const { a, bad } = spaces(2 ** 52);
  assert.equal(a.read(2 ** 51, 2), 0xffff);
  assert.equal(a.read64(0xfee0_0000), 0xffff_ffff_ffff_ffffn);
  a.write(0x1000, 4, 5);
  assert.deepEqual(bad.at(-1), { space: 'test', kind: 'write', address: 0x1000, size: 4, value: 5 });
  assert.equal(bad.length, 4);
});

test('an access that is wider than the device takes is split, low part first', () => {
  const { a } = spaces(0x1_0000);
  const d = recorder(1);
  a.map(0x70, 2, d, 'rtc');
  a.write(0x70, 2, 0x1234);
  assert.deepEqual(d.log, ['w1@0=34', 'w1@1=12']);
  assert.equal(a.read(0x71, 2), 0xff11);
});

test('eight bytes are two accesses unless the device takes them as one', () => {
  const { a } = spaces(2 ** 32);
  const d = recorder();
  a.map(0x1000, 16, d, 'narrow');
  a.map(0x2000, 16, { max: 8, read: () => 0, write: () => {}, read64: () => 7n << 40n }, 'wide');
  assert.equal(a.read64(0x1000), 0x0000_0014_0000_0010n);
  a.write64(0x1008, 0x1122_3344_5566_7788n);
  assert.deepEqual(d.log.slice(2), ['w4@8=55667788', 'w4@12=11223344']);
  assert.equal(a.read64(0x2008), 7n << 40n);
});

test('fixed ranges that overlap or leave the space are refused by name', () => {
  const { a } = spaces(0x1_0000);
  a.map(0x60, 1, recorder(), 'i8042');
  assert.throws(() => a.map(0x5f, 2, recorder(), 'other'), /Cannot map other at 0x5f\+0x2: i8042 is at 0x60\+0x1/);
  assert.throws(() => a.map(0xffff, 2, recorder(), 'end'), /0x10000 addresses/);
  a.unmap(0x60);
  a.map(0x5f, 2, recorder(), 'other');
  assert.throws(() => a.unmap(0x60), /no device/);
});

test('a range that one thread moves is moved for the others, and gives way to fixed ones', () => {
  const { a, b } = spaces(2 ** 40);
  const bar = new SharedArrayBuffer(8);
  const base = new Float64Array(bar);
  const d = recorder();
  for (const s of [a, b]) {
    s.map(0xfec0_0000, 0x1000, recorder(), 'ioapic');
    s.movable((map) => map({ base: base[0]!, length: 0x100, name: 'bar', handler: d }));
  }
  base[0] = 0xe000_0000;
  a.changed();
  assert.equal(b.find(0xe000_0010)?.name, 'bar');
  base[0] = 0xfec0_0800;
  b.changed();
  assert.equal(a.find(0xe000_0010), undefined);
  assert.equal(a.find(0xfec0_0810)?.name, 'ioapic');
});
