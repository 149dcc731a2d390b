import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rtc } from './rtc.ts';
import { testBoard, wire } from './testing.ts';

/** 2026-11-23 21:59:58.5 UTC, a Monday, at clock 1 s. */
function rtc(memory = { below4g: 2 ** 27, above4g: 0 }, slew = false) {
  const board = testBoard();
  const irq = wire();
  const start = Date.UTC(2026, 10, 23, 21, 59, 58) / 1000 + 0.5;
  const device = new Rtc({
    ...board,
    wall: { epochSeconds: () => start + (board.time.ns - 1e9) / 1e9 },
    irq,
    memory,
    slew,
  });
  device.reset();
  device.map(board.ports);
  const r = (address: number) => {
    board.out(0x70, address);
    return board.in(0x71);
  };
  const w = (address: number, value: number) => {
    board.out(0x70, address);
    board.out(0x71, value);
  };
  const run = (seconds: number) => {
    const end = board.time.ns + seconds * 1e9;
    while (device.next() <= end) {
      board.time.ns = Math.max(board.time.ns, device.next());
      device.tick(board.time.ns);
    }
    board.time.ns = end;
  };
  return { ...board, device, irq, r, w, run };
}
const time = (r: (a: number) => number) => [0x32, 9, 8, 7, 6, 4, 2, 0].map((a) => r(a).toString(16)).join(' ');

test('the time reads as the wall clock has it, in BCD and 24 hours', () => {
  const { r, run } = rtc();
  assert.equal(time(r), '20 26 11 23 2 21 59 58');
  run(2);
  assert.equal(time(r), '20 26 11 23 2 22 0 0');
});

test('binary and 12 hours are formats of the same time', () => {
  const { r, w } = rtc();
  w(11, 4);
  assert.deepEqual([r(4), r(2), r(0)], [9 | 0x80, 59, 58]);
});

test('a guest sets the time while SET stops it, and it goes on from there', () => {
  const { r, w, run } = rtc();
  w(11, 0x82);
  w(6, 3);
  w(0x32, 0x19);
  w(9, 0x99);
  w(8, 0x12);
  w(7, 0x31);
  w(4, 0x23);
  w(2, 0x59);
  w(0, 0x59);
  run(5);
  assert.equal(time(r), '19 99 12 31 3 23 59 59');
  w(11, 2);
  run(1);
  assert.equal(time(r), '20 0 1 1 7 0 0 0');
});

test('while SET is on registers keep what is written, whatever date that would be meanwhile', () => {
  const { r, w } = rtc();
  w(11, 0x82);
  w(8, 0x01);
  w(7, 0x31);
  w(11, 2);
  w(11, 0x82);
  w(8, 0x02);
  assert.equal(r(7), 0x31);
  w(7, 0x15);
  w(11, 2);
  assert.deepEqual([r(8), r(7)], [0x02, 0x15]);
});

test('SET leaves the phase of the seconds, and the first update is half a second after the reset of the divider', () => {
  const { r, w, run } = rtc();
  w(11, 0x82);
  run(0.4);
  w(11, 2);
  run(0.09);
  assert.equal(r(0), 0x58);
  run(0.02);
  assert.equal(r(0), 0x59);
  w(10, 0x76);
  run(3);
  w(10, 0x26);
  run(0.49);
  assert.equal(r(0), 0x59);
  run(0.02);
  assert.equal(r(0), 0);
});

test('an interrupt that is no longer enabled lets go of the line', () => {
  const { w, run, irq } = rtc();
  w(11, 0x12);
  run(0.6);
  assert.equal(irq.level, 1);
  w(11, 2);
  assert.equal(irq.level, 0);
});

test('periodic interrupts that merged are lost, or with slew follow the reads of register C, 20 of them between two ticks', () => {
  const got = (slew: boolean): number => {
    const { r, w, device, irq, time } = rtc(undefined, slew);
    w(10, 0x26);
    w(11, 0x42);
    // 30 of 1,024 ticks a second pass before the host looks.
    time.ns += (30e9 + 1e6) / 1024;
    device.tick(time.ns);
    let n = 0;
    for (; irq.level === 1; n++) r(12);
    time.ns += 1e9 / 1024;
    device.tick(time.ns);
    for (; irq.level === 1; n++) r(12);
    return n;
  };
  assert.equal(got(false), 2);
  assert.equal(got(true), 31);
});

test('UIP warns of the update', () => {
  const { r, time } = rtc();
  assert.equal(r(10), 0x26);
  time.ns += 0.4999 * 1e9;
  assert.equal(r(10), 0xa6);
});

test('update-ended and alarm interrupts come with their second, and reading C ends them', () => {
  const { r, w, run, irq } = rtc();
  w(11, 0x12);
  run(0.4);
  assert.equal(irq.level, 0);
  run(0.2);
  assert.equal(irq.level, 1);
  assert.equal(r(12), 0xd0, 'the periodic flag is set without an interrupt of its own');
  assert.equal(irq.level, 0);
  w(1, 0x30);
  w(3, 0xff);
  w(5, 0x22);
  w(11, 0x22);
  run(29);
  assert.equal(irq.level, 0);
  run(2.5);
  assert.equal(irq.level, 1);
  assert.equal(r(12), 0xf0);
});

test('the periodic interrupt comes at its rate when each is acknowledged', () => {
  const { r, w, device, irq, time } = rtc();
  w(10, 0x2d);
  w(11, 0x42);
  const begin = time.ns;
  let n = 0;
  while (device.next() <= begin + 2e9) {
    time.ns = device.next();
    device.tick(time.ns);
    if (irq.level) n++;
    assert.equal(r(12) & 0xc0, 0xc0);
  }
  assert.equal(n, 16);
});

test('without interrupts there is no timer, and C still shows what happened', () => {
  const { r, run, device } = rtc();
  assert.equal(device.next(), Number.POSITIVE_INFINITY);
  run(1);
  assert.equal(r(12), 0x50);
  assert.equal(r(12), 0);
});

test('CMOS tells the memory sizes and keeps what is written', () => {
  const { r, w } = rtc({ below4g: 0xc000_0000, above4g: 0x4000_0000 });
  assert.equal(r(0x15) | (r(0x16) << 8), 640);
  assert.equal(r(0x17) | (r(0x18) << 8), 0xffff);
  assert.equal(r(0x34) | (r(0x35) << 8), 0xbf00);
  assert.equal(r(0x5b) | (r(0x5c) << 8) | (r(0x5d) << 16), 0x4000);
  w(15, 0x0a);
  assert.equal(r(15), 0x0a);
  assert.equal(r(13), 0x80);
});
