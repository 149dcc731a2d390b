import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Hpet, hpetRoutes } from './hpet.ts';
import { testBoard, wire } from './testing.ts';

function hpet(more: { fsb?: boolean; routes?: number } = {}) {
  const board = testBoard();
  const pins = Array.from({ length: 24 }, wire);
  const legacy = [wire(), wire()] as const;
  const messages: number[] = [];
  const device = new Hpet({ ...board, ...more, pin: (n) => pins[n]!, legacy, msi: (a, d) => messages.push(a, d) });
  device.reset();
  device.map(board.mmio);
  const base = 0xfed0_0000;
  const r = (at: number) => board.mmio.read(base + at, 4);
  const w = (at: number, v: number) => board.mmio.write(base + at, 4, v);
  const run = (ns: number) => {
    const end = board.time.ns + ns;
    while (device.next() <= end) {
      board.time.ns = device.next();
      device.tick(board.time.ns);
    }
    board.time.ns = end;
  };
  return { ...board, device, pins, legacy, messages, base, r, w, run };
}

test('the counter counts 10 ns from when it is enabled, and stands while it is not', () => {
  const { mmio, r, w, time, base } = hpet();
  assert.equal(r(4), 10_000_000);
  assert.equal(r(0), 0x8086_a201);
  time.ns += 5000;
  assert.equal(r(0xf0), 0);
  w(0x10, 1);
  time.ns += 5000;
  assert.equal(r(0xf0), 500);
  w(0x10, 0);
  time.ns += 5000;
  assert.equal(r(0xf0), 500);
  mmio.write64(base + 0xf0, 0xffff_ffff_ffff_fff0n);
  w(0x10, 1);
  time.ns += 200;
  assert.equal(mmio.read64(base + 0xf0), 4n);
});

test('a one-shot comparator fires once on its pin', () => {
  const { r, w, run, pins, device } = hpet();
  w(0x10, 1);
  w(0x100, (20 << 9) | 4);
  w(0x108, r(0xf0) + 1000);
  w(0x10c, 0);
  run(9_990);
  assert.equal(pins[20]!.edges, 0);
  run(10);
  assert.equal(pins[20]!.edges, 1);
  assert.equal(device.next(), Number.POSITIVE_INFINITY);
});

test('a periodic timer as Linux sets it up repeats, on interrupt 0 with legacy replacement', () => {
  const { w, run, legacy, device } = hpet();
  const gated = wire();
  const pit = device.gate(gated);
  pit.set(1);
  pit.set(0);
  w(0x10, 3);
  pit.set(1);
  assert.equal(gated.edges, 1, 'the PIT is cut off');
  w(0x100, 0x14c);
  w(0x108, 100_000);
  w(0x108, 100_000);
  run(10e6);
  assert.equal(legacy[0].edges, 10);
});

/** A timer of 1 ms in the mode in which Linux uses it. */
function periodic() {
  const h = hpet();
  h.w(0x10, 3);
  const begin = h.time.ns;
  h.w(0x100, 0x14c);
  h.w(0x108, 100_000);
  h.w(0x108, 100_000);
  return { ...h, begin };
}

test('periods that were missed are made up for, several times as fast, and then the phase is as it was', () => {
  const { run, legacy, device, time, begin } = periodic();
  time.ns = begin + 5.5e6;
  device.tick(time.ns);
  assert.equal(legacy[0].edges, 1, 'one at once');
  run(0.25e6);
  assert.equal(legacy[0].edges, 2, 'the next a quarter of a period later');
  run(1.25e6 - 1);
  assert.equal(legacy[0].edges, 6);
  assert.equal(device.next(), begin + 7e6);
  run(10e6);
  assert.equal(legacy[0].edges, 17 - 1);
});

test('after a long pause the periods that were missed are left out', () => {
  const { legacy, device, time, begin } = periodic();
  time.ns = begin + 20e9 + 0.5e6;
  device.tick(time.ns);
  assert.equal(legacy[0].edges, 1);
  assert.equal(device.next(), begin + 20e9 + 1e6);
});

test('a periodic timer goes on when the host stands still between looking at the clock and serving it', () => {
  const { run, legacy, device, time } = periodic();
  for (const pause of [0.9e6, 1e6, 3.5e6, 999_999]) {
    const seen = device.next() + 0.99e6;
    time.ns = seen + pause;
    device.tick(seen);
    assert.ok(device.next() < time.ns + 1e6, `${pause} ns`);
  }
  const before = legacy[0].edges;
  run(20e6);
  assert.ok(legacy[0].edges - before >= 20);
});

test('whatever the guest reads comes after the matches before it, however late the host serves the timers', () => {
  const { r, w, time, begin, legacy, pins, device } = periodic();
  assert.equal(r(0x108), 100_000);
  time.ns = begin + 5.5e6;
  assert.equal(r(0xf0), 550_000);
  assert.equal(legacy[0].edges, 1, 'the interrupt comes with the look at the counter');
  assert.equal(r(0x108), 600_000, 'the comparator is past the periods whose interrupts are still to come');
  time.ns = begin + 6e6 - 10;
  assert.equal(r(0x108), 600_000);
  time.ns += 10;
  assert.equal(r(0x108), 700_000, 'it goes on in the match');
  // Level-triggered, on pin 16.
  w(0x140, (16 << 9) | 6);
  w(0x148, 700_000);
  w(0x14c, 0);
  time.ns = begin + 7e6 - 10;
  assert.deepEqual([r(0x20), pins[16]!.level], [0, 0]);
  time.ns += 10;
  assert.deepEqual([r(0x20), pins[16]!.level], [4, 1]);
  // Without its interrupt the comparator goes on; with it again, nothing is owed.
  w(0x100, 0x10c & ~4);
  time.ns = begin + 40.5e6;
  assert.equal(r(0x108), 4_100_000);
  const before = legacy[0].edges;
  w(0x100, 0x10c);
  assert.deepEqual([device.next(), legacy[0].edges], [begin + 41e6, before]);
});

test('the halves of a period are written one by one', () => {
  const { mmio, base, r, w } = hpet();
  w(0x100, 0x4c);
  mmio.write64(base + 0x108, 1000n);
  w(0x108, 20);
  w(0x10c, 1);
  w(0xf0, 1000);
  w(0x10, 1);
  assert.equal(r(0x108), 1020, 'the match was at once');
  assert.equal(mmio.read64(base + 0x108), 1020n + (1n << 32n));
});

test('a guest that changes a late timer does not stop it', () => {
  const { w, device, time, begin } = periodic();
  time.ns = begin + 2.5e6;
  w(0x100, 0x14c & ~0x40);
  assert.ok(device.next() <= time.ns);
});

test('a level interrupt stays until its status bit is cleared', () => {
  const { r, w, run, pins } = hpet();
  w(0x10, 1);
  w(0x120, (16 << 9) | 6);
  w(0x128, 50);
  w(0x12c, 0);
  run(1000);
  assert.equal(pins[16]!.level, 1);
  assert.equal(r(0x20), 2);
  w(0x20, 2);
  assert.equal(pins[16]!.level, 0);
});

test('without messages and with other routes a timer says so, and takes no bit for them', () => {
  const { r, w, run, messages, pins } = hpet({ routes: hpetRoutes.pc });
  assert.deepEqual([r(0x100), r(0x104)], [0x30, 4]);
  w(0x100, 0x4004 | (2 << 9));
  assert.equal(r(0x100), 0x34 | (2 << 9));
  w(0x108, 1000);
  w(0x10c, 0);
  w(0x10, 1);
  run(20_000);
  assert.deepEqual([messages, pins[2]!.edges], [[], 1]);
});

test('one shot of 32 bits fires when the counter wraps, too', () => {
  const { w, run, pins } = hpet();
  w(0xf0, 0xffff_ff00);
  w(0x100, 0x104 | (20 << 9));
  w(0x108, 0x100);
  w(0x10, 1);
  run(0x100 * 10 - 10);
  assert.equal(pins[20]!.edges, 0);
  run(10);
  assert.equal(pins[20]!.edges, 1);
  run(0x100 * 10);
  assert.equal(pins[20]!.edges, 2);
});

test('a timer can send messages', () => {
  const { r, w, run, messages } = hpet({ fsb: true });
  assert.equal(r(0x100) & 0x8000, 0x8000);
  w(0x10, 1);
  w(0x140, 0x4004);
  w(0x150, 0x41);
  w(0x154, 0xfee0_1000);
  w(0x148, 10);
  w(0x14c, 0);
  run(200);
  assert.deepEqual(messages, [0xfee0_1000, 0x41]);
});

test('a period of one count cannot keep the host busy', () => {
  const { w, device, time } = hpet();
  w(0x10, 3);
  w(0x100, 0x14c);
  w(0x108, 1);
  w(0x108, 1);
  device.tick(time.ns + 10);
  assert.ok(device.next() >= time.ns + 19_000);
});
