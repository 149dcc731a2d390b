import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { Lock, lockLayout } from '../bus/lock.ts';
import { AddressSpace, spaceLayout } from '../bus/space.ts';
import { Pit, pitHz } from './pit.ts';

/** `held`: how long the thread is held up each time that it looks at the clock, in ns. */
function timer(held = 0) {
  const arena = new Arena(new ArrayBuffer(4096));
  const lock = new Lock(arena.alloc(lockLayout), 1);
  const io = new AddressSpace({ name: 'ports', size: 0x1_0000, lock, shared: arena.alloc(spaceLayout) });
  const time = { ns: 5000 };
  const wire = { level: 0, edges: 0 };
  const pit = new Pit({
    arena,
    clock: {
      now: () => {
        time.ns += held;
        return time.ns;
      },
    },
    irq: {
      set(l) {
        if (l > wire.level) wire.edges++;
        wire.level = l;
      },
    },
  });
  pit.reset();
  pit.map(io);
  const w = (port: number, ...v: number[]) => {
    for (const b of v) io.write(port, 1, b);
  };
  const r = (port: number) => io.read(port, 1);
  /** Moves on by clock pulses and serves what is due. */
  const pulses = (n: number) => {
    time.ns += (n * 1e9) / pitHz;
    pit.tick(time.ns);
  };
  return { pit, w, r, time, wire, pulses };
}

test('mode 2 gives one edge per period, for as long as it runs', () => {
  const { pit, w, wire, time } = timer();
  w(0x43, 0x34);
  w(0x40, 0xa9, 0x04);
  const before = wire.edges;
  const first = pit.next();
  assert.ok(Math.abs(first - 5000 - (1193 * 1e9) / pitHz) < 1);
  for (let i = 0; i < 10; i++) {
    time.ns = pit.next();
    pit.tick(time.ns);
  }
  assert.equal(wire.edges - before, 10);
  assert.ok(Math.abs(time.ns - 5000 - (10 * 1193 * 1e9) / pitHz) < 10);
});

test('periods that are missed give one edge, and the phase stays', () => {
  const { pit, w, wire, pulses, time } = timer();
  w(0x43, 0x36);
  w(0x40, 0xe8, 0x03);
  const before = wire.edges;
  pulses(5700);
  assert.equal(wire.edges - before, 1);
  assert.ok(Math.abs(pit.next() - (5000 + (6000 * 1e9) / pitHz)) < 10);
  time.ns = pit.next();
  pit.tick(time.ns);
  assert.equal(wire.edges - before, 2);
});

test('mode 0 rises once, at its count', () => {
  const { pit, w, wire, pulses } = timer();
  w(0x43, 0x30);
  w(0x40, 100, 0);
  assert.equal(wire.level, 0);
  pulses(99);
  assert.equal(wire.level, 0);
  pulses(1);
  assert.equal(wire.level, 1);
  assert.equal(pit.next(), Number.POSITIVE_INFINITY);
});

test('mode 4 strobes low for one pulse', () => {
  const { pit, w, pulses } = timer();
  w(0x43, 0x38);
  w(0x40, 10, 0);
  assert.equal(pit.output(0), 1);
  pulses(10);
  assert.equal(pit.output(0), 0);
  pulses(1);
  assert.equal(pit.output(0), 1);
});

test('a latched count stays while the counter runs, low byte first', () => {
  const { w, r, pulses } = timer();
  w(0x43, 0x34);
  w(0x40, 0, 0);
  pulses(0x1234);
  w(0x43, 0x00);
  pulses(500);
  const latched = r(0x40) | (r(0x40) << 8);
  assert.equal(latched, 0x1_0000 - 0x1234);
  const live = r(0x40) | (r(0x40) << 8);
  assert.equal(live, 0x1_0000 - 0x1234 - 500);
});

test('read-back latches status and count together, status first', () => {
  const { w, r, pulses } = timer();
  w(0x43, 0x34);
  w(0x40, 0x00, 0x10);
  pulses(16);
  w(0x43, 0xc2);
  assert.equal(r(0x40), 0xb4);
  assert.equal(r(0x40) | (r(0x40) << 8), 0xff0);
});

test('a channel in BCD counts in decimal', () => {
  const { w, r, pulses } = timer();
  w(0x43, 0x35);
  w(0x40, 0x00, 0x20);
  pulses(1);
  w(0x43, 0);
  assert.equal(r(0x40) | (r(0x40) << 8), 0x1999);
});

test('the calibration loop of kernels sees channel 2 end, by port 0x61', () => {
  const { w, r, pulses } = timer();
  w(0x61, (r(0x61) & ~2) | 1);
  w(0x43, 0xb0);
  w(0x42, 0xff, 0x7f);
  assert.equal(r(0x61) & 0x21, 1);
  pulses(0x7ffe);
  assert.equal(r(0x61) & 0x20, 0);
  pulses(1);
  assert.equal(r(0x61) & 0x20, 0x20);
});

test('channel 2 stands still while its gate is low', () => {
  const { pit, w, r, pulses } = timer();
  w(0x61, 1);
  w(0x43, 0xb0);
  w(0x42, 100, 0);
  pulses(40);
  w(0x61, 0);
  pulses(1000);
  assert.equal(pit.output(2), 0);
  assert.equal(r(0x42), 60);
  r(0x42);
  w(0x61, 1);
  pulses(60);
  assert.equal(pit.output(2), 1);
});

test('a count that is written while a pulse of mode 1 runs waits for the next trigger', () => {
  const { pit, w, r, pulses } = timer();
  w(0x43, 0xb2);
  w(0x42, 100, 0);
  w(0x61, 1);
  pulses(40);
  w(0x42, 10, 0);
  w(0x43, 0xe8);
  assert.equal(r(0x42), 0x72);
  pulses(30);
  assert.equal(pit.output(2), 0);
  pulses(31);
  assert.equal(pit.output(2), 1);
  w(0x61, 0);
  w(0x61, 1);
  pulses(9);
  assert.equal(pit.output(2), 0);
  pulses(1);
  assert.equal(pit.output(2), 1);
});

test('a short count ends, however long the thread is held up while it loads', () => {
  const { pit, w, wire, time } = timer(100_000);
  w(0x43, 0x38);
  for (let i = 0; i < 3; i++) {
    const before = wire.edges;
    w(0x40, 69, 0);
    assert.ok(pit.next() < Number.POSITIVE_INFINITY);
    time.ns += 1e6;
    pit.tick(time.ns);
    assert.equal(wire.edges - before, 1);
  }
});

test('the speaker sounds in mode 3 with both bits set', () => {
  const { pit, w } = timer();
  w(0x43, 0xb6);
  w(0x42, 0xa9, 0x04);
  assert.equal(pit.tone, 0);
  w(0x61, 3);
  assert.ok(Math.abs(pit.tone - 1000.15) < 0.1);
});
