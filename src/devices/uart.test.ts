import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { Uart } from './uart.ts';

function port() {
  const wire = { level: 0, edges: 0 };
  const u = new Uart({
    arena: new Arena(new SharedArrayBuffer(1 << 14)),
    instance: '0',
    irq: {
      set(l) {
        if (l > wire.level) wire.edges++;
        wire.level = l;
      },
    },
  });
  u.reset();
  const r = (o: number) => u.handler.read(o, 1);
  const w = (o: number, v: number) => u.handler.write(o, 1, v);
  w(4, 0xb);
  return { u, r, w, wire };
}
const text = (s: string) => new TextEncoder().encode(s);

test('what the guest writes comes out of the ring', () => {
  const { u, r, w } = port();
  for (const b of text('hi')) w(0, b);
  assert.equal(r(5), 0x60);
  assert.deepEqual([...u.output.read()], [...text('hi')]);
});

test('with DLAB set, offsets 0 and 1 are the divisor', () => {
  const { u, r, w } = port();
  w(3, 0x9b);
  w(0, 0x0c);
  w(1, 0x01);
  assert.deepEqual([r(0), r(1)], [0x0c, 0x01]);
  w(3, 0x1b);
  assert.equal(u.output.available, 0);
  assert.deepEqual(u.line, { baud: 429, bits: 8, stop: 1, parity: 'even', breaking: false });
});

test('received characters come in order, through the FIFO, without overrun', () => {
  const { u, r, w } = port();
  w(2, 1);
  const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
  assert.equal(u.receive(bytes), 100);
  const got = [];
  while (r(5) & 1) got.push(r(0));
  assert.deepEqual(got, [...bytes]);
  assert.equal(r(5) & 2, 0);
});

test('receive takes what the input ring holds and no more', () => {
  const { u } = port();
  assert.equal(u.receive(new Uint8Array(5000)), 4096);
  assert.equal(u.receive(new Uint8Array(10)), 1, 'one went on into the receive register');
});

test('interrupts come in the order of their priorities, each with its identification', () => {
  const { u, r, w, wire } = port();
  w(2, 0xc1);
  w(1, 0xf);
  assert.equal(wire.level, 1);
  u.receive(text('a'));
  u.receiveBreak();
  u.setModem(0xa0);
  assert.equal(r(2), 0xcc, 'below the trigger level: character timeout');
  assert.equal(r(5), 0xe1, 'the break belongs to the second character');
  assert.equal(r(0), 0x61);
  assert.equal(r(2), 0xc6);
  assert.equal(r(5), 0xf1);
  assert.equal(r(2), 0xcc);
  assert.equal(r(0), 0);
  assert.equal(r(2), 0xc2);
  assert.equal(r(2), 0xc0, 'reading the transmit cause ended it');
  assert.equal(r(6), 0xa1, 'CTS changed');
  assert.equal(r(2), 0xc1);
  assert.equal(wire.level, 0);
});

test('the trigger level decides between data available and timeout', () => {
  const { u, r, w } = port();
  w(2, 0x41);
  w(1, 1);
  u.receive(text('abc'));
  assert.equal(r(2), 0xcc);
  u.receive(text('d'));
  assert.equal(r(2), 0xc4);
});

test('the transmit interrupt comes when it is enabled, and after each character', () => {
  const { r, w, wire } = port();
  w(1, 2);
  assert.equal(r(2), 2);
  assert.equal(wire.level, 0);
  w(0, 65);
  assert.equal(wire.level, 1);
  const edges = wire.edges;
  w(0, 66);
  assert.equal(wire.edges, edges + 1);
  assert.equal(r(2), 2);
  w(1, 0);
  w(1, 2);
  assert.equal(r(2), 2);
});

test('a full ring makes the transmitter busy and loses nothing', () => {
  const { u, r, w, wire } = port();
  w(1, 2);
  for (let i = 0; i < 4097; i++) w(0, i);
  r(2);
  assert.equal(r(5) & 0x60, 0);
  assert.equal(wire.level, 0);
  const first = u.output.read(10);
  u.drained();
  assert.equal(wire.level, 1);
  assert.equal(r(5) & 0x60, 0x60);
  const rest = u.output.read();
  assert.equal(first.length + rest.length, 4097);
  assert.equal(rest.at(-1), 0);
});

test('who writes a whole FIFO when told that it is empty loses nothing', () => {
  const { u, r, w, wire } = port();
  w(2, 1);
  w(1, 2);
  r(2);
  w(0, 0);
  let sent = 1;
  const burst = (): void => {
    for (let i = 0; i < 16; i++) w(0, sent++ & 255);
  };
  while (r(5) & 0x20) burst();
  // A burst began with room for 15 more bytes, not with less.
  assert.equal(sent, 1 + 16 * 255);
  assert.equal(wire.level, 0);
  const first = u.output.read(5);
  u.drained();
  assert.equal(r(5) & 0x20, 0x20);
  assert.equal(wire.level, 1);
  burst();
  assert.equal(r(5) & 0x20, 0);
  const all = [...first, ...u.output.read()];
  u.drained();
  assert.deepEqual(
    all,
    Array.from({ length: sent }, (_, i) => i & 255),
  );
});

test('loopback sends to itself and crosses the modem lines', () => {
  const { u, r, w } = port();
  r(6);
  w(4, 0x10);
  w(3, 3);
  assert.equal(r(6) & 0xf0, 0);
  w(4, 0x1a);
  assert.equal(r(6), 0x99, 'RTS is CTS, OUT2 is DCD; CTS changed, DCD changed');
  w(0, 0x5a);
  assert.equal(u.output.available, 0);
  assert.equal(r(0), 0x5a);
});

test('OUT2 closes the wire', () => {
  const { u, w, wire } = port();
  w(4, 3);
  w(1, 1);
  u.receive(text('x'));
  assert.equal(wire.level, 0);
  w(4, 0xb);
  assert.equal(wire.level, 1);
});

test('the FIFO shows in IIR only when it is on, and its reset empties it', () => {
  const { u, r, w } = port();
  assert.equal(r(2), 1);
  w(2, 1);
  assert.equal(r(2), 0xc1);
  u.receive(text('abc'));
  w(2, 3);
  assert.equal(r(5) & 1, 0);
  w(7, 0xa5);
  assert.equal(r(7), 0xa5);
});
