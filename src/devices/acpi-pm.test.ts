import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AcpiPm } from './acpi-pm.ts';
import { debugExit } from './isa-debug-exit.ts';
import { PcTestdev } from './pc-testdev.ts';
import { ResetPorts } from './reset.ts';
import { testBoard, wire } from './testing.ts';

function pm(timerBits: 24 | 32 = 32) {
  const board = testBoard();
  const sci = wire();
  const calls: string[] = [];
  const device = new AcpiPm({
    ...board,
    sci,
    powerOff: () => calls.push('off'),
    suspend: () => calls.push('suspend'),
    timerBits,
  });
  device.reset();
  device.map(board.ports, true);
  return { ...board, device, sci, calls };
}

test('ACPI is enabled at once by the SMI command, and only by it', () => {
  const { ports, out } = pm();
  ports.write(0x604, 2, 1);
  assert.equal(ports.read(0x604, 2), 0);
  out(0xb2, 2);
  assert.equal(ports.read(0x604, 2), 1);
  out(0xb2, 3);
  assert.equal(ports.read(0x604, 2), 0);
});

test('the power button raises the SCI until its status is cleared', () => {
  const { ports, device, sci, out } = pm();
  out(0xb2, 2);
  ports.write(0x602, 2, 0x120);
  device.powerButton();
  assert.equal(sci.level, 1);
  assert.equal(ports.read(0x600, 2), 0x100);
  ports.write(0x601, 1, 1);
  assert.equal(sci.level, 0);
});

test('soft-off and suspension call the board', () => {
  const { ports, calls } = pm();
  ports.write(0x604, 2, 0x2000);
  ports.write(0x604, 2, 0x2400);
  ports.write(0x604, 2, 0x3c00);
  assert.deepEqual(calls, ['off', 'suspend']);
});

test('the timer counts 3.579545 MHz in its width', () => {
  const { ports, time } = pm(24);
  assert.equal(ports.read(0x608, 4), 3_579_545);
  time.ns = 10e9;
  assert.equal(ports.read(0x608, 4), 35_795_450 % 2 ** 24);
});

test('a carry of the timer interrupts when that is enabled', () => {
  const { ports, time, device, sci, out } = pm(24);
  out(0xb2, 2);
  assert.equal(device.next(), Number.POSITIVE_INFINITY);
  ports.write(0x602, 2, 1);
  const at = device.next();
  assert.ok(Math.abs(at - (2 ** 23 / 3_579_545) * 1e9) < 2);
  time.ns = at;
  device.tick(at);
  assert.equal(sci.level, 1);
  ports.write(0x600, 2, 1);
  assert.equal(sci.level, 0);
  assert.ok(device.next() > at + 2e9);
});

test('general-purpose events raise the SCI where they are enabled', () => {
  const { ports, device, sci, out } = pm();
  out(0xb2, 2);
  device.gpe(9);
  assert.equal(sci.level, 0);
  ports.write(0x628, 2, 0x200);
  assert.equal(sci.level, 1);
  assert.equal(ports.read(0x620, 2), 0x200);
  ports.write(0x620, 2, 0x200);
  assert.equal(sci.level, 0);
});

test('a reset is asked for by 0xCF9 and by port 0x92; A20 is told when it moves', () => {
  const board = testBoard();
  const calls: string[] = [];
  const r = new ResetPorts({ ...board, reset: () => calls.push('reset'), a20: (open) => calls.push(`a20 ${open}`) });
  r.reset();
  r.map(board.ports, true);
  board.out(0xcf9, 2, 6);
  board.out(0x92, 2);
  board.out(0x92, 0, 3);
  assert.deepEqual(calls, ['reset', 'a20 false', 'a20 true', 'reset']);
  board.out(0x80, 0x55);
  assert.equal(board.in(0x80), 0x55);
});

test('the debug exit makes an odd code of what is written', () => {
  const board = testBoard();
  const codes: number[] = [];
  board.ports.map(
    0xf4,
    4,
    debugExit((c) => codes.push(c)),
    'isa-debug-exit',
  );
  board.out(0xf4, 0x10);
  board.ports.write(0xf4, 4, 0);
  assert.deepEqual(codes, [0x21, 1]);
});

test('the test device keeps scratch data, raises lines and flushes pages', () => {
  const board = testBoard();
  const irq = wire();
  const flushed: number[] = [];
  const d = new PcTestdev({
    ...board,
    irqs: Array.from({ length: 16 }, (_, n) => (n === 5 ? irq : undefined)),
    flushPage: (g) => flushed.push(g),
  });
  d.reset();
  d.map(board.ports, board.mmio);
  board.ports.write(0xe0, 4, 0x1234_5678);
  assert.equal(board.ports.read(0xe9, 2), 0x3456);
  board.out(0xe2, 0xff);
  assert.equal(board.ports.read(0xe0, 4), 0x12ff_5678);
  board.out(0x2005, 1);
  board.out(0x2017, 1);
  assert.equal(irq.level, 1);
  board.ports.write(0xe4, 4, 0x8765_4321);
  assert.deepEqual(flushed, [0x8765_4000]);
  board.mmio.write64(0xff00_0008, 0x1122_3344_5566_7788n);
  assert.equal(board.mmio.read(0xff00_000c, 2), 0x3344);
});
