import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ParallelPort } from './parallel.ts';
import { testBoard, wire } from './testing.ts';

function rig() {
  const b = testBoard();
  const irq = wire();
  const port = new ParallelPort({ arena: b.arena, name: 'p', irq });
  b.ports.map(0x378, 8, port.handler, 'parallel');
  b.lock.run(() => port.reset());
  const send = (byte: number): void => b.out(0x378, byte);
  const control = (value: number): void => b.out(0x37a, value);
  return { ...b, irq, port, send, control, status: () => b.in(0x379) };
}

test('a strobe gives a byte to the printer, which is busy, acknowledges, and is ready again, as in QEMU', () => {
  const { send, control, status, port, in: read } = rig();
  assert.deepEqual([read(0x378), status(), read(0x37a), read(0x37b)], [0xff, 0xd9, 0xcc, 0xff]);
  control(0);
  control(0x0c);
  send(0x41);
  control(0x0d);
  assert.equal(status(), 0x58);
  control(0x0c);
  assert.deepEqual([status(), status(), status()], [0x58, 0x18, 0xd8]);
  assert.deepEqual([...port.output.read()], [0x41]);
  control(0x2c);
  assert.equal(read(0x378), 0xff, 'the bus is open when it reads');
});

test('a printer that has no room stays busy, and nothing is lost', () => {
  const { send, control, status, port } = rig();
  control(0x0c);
  let sent = 0;
  for (let n = 0; n < 6000; n++) {
    const ready = [status(), status(), status()].at(-1)! & 0x80;
    if (!ready) break;
    send(n & 0xff);
    control(0x0d);
    control(0x0c);
    sent++;
  }
  assert.equal(port.output.available, sent);
  assert.equal(sent, port.output.capacity);
  port.output.read(10);
  assert.ok([status(), status(), status()].at(-1)! & 0x80);
});

test('the interrupt comes after a strobe where it is enabled, and a look at the status takes it back', () => {
  const { control, status, irq } = rig();
  control(0x1c);
  control(0x1d);
  control(0x1c);
  assert.equal(irq.level, 1);
  status();
  assert.equal(irq.level, 0);
});
