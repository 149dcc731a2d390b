import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { Lock, lockLayout } from '../bus/lock.ts';
import { AddressSpace, spaceLayout } from '../bus/space.ts';
import { Pic } from './pic.ts';

/** A pair that is initialised as Linux does it: vectors 0x30 and 0x38, all unmasked. */
function pair(icw4 = 1) {
  const arena = new Arena(new ArrayBuffer(4096));
  const lock = new Lock(arena.alloc(lockLayout), 1);
  const io = new AddressSpace({ name: 'ports', size: 0x1_0000, lock, shared: arena.alloc(spaceLayout) });
  const out = { level: 0 };
  const pic = new Pic({
    arena,
    int: {
      set: (l) => {
        out.level = l;
      },
    },
  });
  pic.reset();
  pic.map(io);
  const w = (port: number, v: number) => io.write(port, 1, v);
  const r = (port: number) => io.read(port, 1);
  w(0x20, 0x11);
  w(0x21, 0x30);
  w(0x21, 4);
  w(0x21, icw4);
  w(0xa0, 0x11);
  w(0xa1, 0x38);
  w(0xa1, 2);
  w(0xa1, icw4);
  return { pic, w, r, out };
}

test('an edge asks once and is identified by its vector', () => {
  const { pic, w, out } = pair();
  pic.irq(4).set(1);
  assert.equal(out.level, 1);
  assert.equal(pic.acknowledge(), 0x34);
  assert.equal(out.level, 0);
  w(0x20, 0x20);
  assert.equal(out.level, 0, 'the wire that stays high is no new edge');
  pic.irq(4).set(0);
  pic.irq(4).set(1);
  assert.equal(pic.acknowledge(), 0x34);
});

test('the second chip answers for its inputs through the cascade', () => {
  const { pic, w, r } = pair();
  pic.irq(12).set(1);
  assert.equal(pic.acknowledge(), 0x3c);
  w(0x20, 0x0b);
  w(0xa0, 0x0b);
  assert.equal(r(0x20), 4);
  assert.equal(r(0xa0), 0x10);
  w(0xa0, 0x20);
  w(0x20, 0x62);
  assert.equal(r(0x20), 0);
  assert.equal(r(0xa0), 0);
});

test('a higher input interrupts a lower one in service, not the other way', () => {
  const { pic, w, out } = pair();
  pic.irq(3).set(1);
  pic.acknowledge();
  pic.irq(5).set(1);
  assert.equal(out.level, 0);
  pic.irq(1).set(1);
  assert.equal(pic.acknowledge(), 0x31);
  w(0x20, 0x20);
  assert.equal(out.level, 0);
  w(0x20, 0x20);
  assert.equal(pic.acknowledge(), 0x35);
});

test('masked inputs wait', () => {
  const { pic, w, r, out } = pair();
  w(0x21, 0xfe);
  pic.irq(1).set(1);
  assert.equal(out.level, 0);
  assert.equal(r(0x20), 2);
  w(0x21, 0);
  assert.equal(out.level, 1);
});

test('a level input asks until its wire falls, and one that falls in time is spurious', () => {
  const { pic, w, out } = pair();
  w(0x4d0, 0xff);
  w(0x4d0, 0x20);
  pic.irq(5).set(1);
  assert.equal(pic.acknowledge(), 0x35);
  w(0x20, 0x20);
  assert.equal(out.level, 1);
  pic.irq(5).set(0);
  assert.equal(out.level, 0);
  assert.equal(pic.acknowledge(), 0x37);
});

test('ELCR holds the inputs that must be edges', () => {
  const { w, r } = pair();
  w(0x4d0, 0xff);
  w(0x4d1, 0xff);
  assert.equal(r(0x4d0), 0xf8);
  assert.equal(r(0x4d1), 0xde);
});

test('automatic EOI leaves nothing in service', () => {
  const { pic, w, r } = pair(3);
  pic.irq(3).set(1);
  pic.acknowledge();
  w(0x20, 0x0b);
  assert.equal(r(0x20), 0);
});

test('rotation puts the input that was served last', () => {
  const { pic, w } = pair();
  for (const n of [3, 4]) pic.irq(n).set(1);
  assert.equal(pic.acknowledge(), 0x33);
  w(0x20, 0xa0);
  pic.irq(3).set(0);
  pic.irq(3).set(1);
  pic.irq(1).set(1);
  assert.equal(pic.acknowledge(), 0x34);
  w(0x20, 0xc5);
  w(0x20, 0x64);
  pic.irq(7).set(1);
  assert.equal(pic.acknowledge(), 0x37, 'input 6 has the highest priority now');
});

test('special mask mode lets lower inputs through one that is masked in service', () => {
  const { pic, w, out } = pair();
  pic.irq(3).set(1);
  pic.acknowledge();
  pic.irq(6).set(1);
  w(0x21, 8);
  assert.equal(out.level, 0);
  w(0x20, 0x68);
  assert.equal(pic.acknowledge(), 0x36);
});

test('polling acknowledges by a read', () => {
  const { pic, w, r } = pair();
  w(0x20, 0x0c);
  assert.equal(r(0x20), 0);
  pic.irq(6).set(1);
  w(0x20, 0x0c);
  assert.equal(r(0x20), 0x86);
  w(0x20, 0x0b);
  assert.equal(r(0x20), 0x40);
});

test('special fully nested mode takes a second request of the second chip', () => {
  for (const [icw4, nested] of [
    [1, 0],
    [0x11, 1],
  ] as const) {
    const { pic, out } = pair(icw4);
    pic.irq(14).set(1);
    pic.acknowledge();
    pic.irq(8).set(1);
    assert.equal(out.level, nested);
  }
});

test('the cascade is no input', () => {
  assert.throws(() => pair().pic.irq(2), /0 to 15 without 2/);
});
