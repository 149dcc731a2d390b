import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodePacket, type Header, maxMessage, type Packet, PacketError, PacketParser } from './packet.ts';

const head: Header = { program: 0x2000_8086, version: 1, procedure: 66, type: 'call', serial: 1, status: 'ok' };
const packet = (body: Uint8Array, over: Partial<Header> = {}): Uint8Array =>
  encodePacket({ ...head, ...over }, (w) => w.raw(body));
function all(parser: PacketParser): Packet[] {
  const list: Packet[] = [];
  for (let p = parser.next(); p !== undefined; p = parser.next()) list.push(p);
  return list;
}
/** A small generator of numbers, the same for a seed (xorshift32). */
function random(seed: number): (below: number) => number {
  let x = seed;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

test('a packet is its length, six words and the body', () => {
  assert.equal(
    Buffer.from(packet(Uint8Array.of(1, 2, 3, 4), { type: 'stream', status: 'continue', serial: 9 })).toString('hex'),
    '000000202000808600000001000000420000000300000009000000020' + '1020304',
  );
});

test('packets come out whole, whatever the chunks', () => {
  const bodies = [0, 4, 8, 1000, 40_000].map((n) => new Uint8Array(n).fill(n));
  const stream = Buffer.concat(bodies.map((b, i) => packet(b, { serial: i })));
  for (const size of [1, 3, 28, 29, 4096, stream.length]) {
    const parser = new PacketParser();
    const got: Packet[] = [];
    for (let at = 0; at < stream.length; at += size) {
      parser.push(stream.subarray(at, at + size));
      got.push(...all(parser));
    }
    assert.deepEqual(
      got.map((p) => [p.serial, p.body.length, p.body[0] ?? 0]),
      bodies.map((b, i) => [i, b.length, b.length & 0xff]),
    );
  }
});

test('a packet of file descriptors takes its count and the bytes that carry them along', () => {
  const parser = new PacketParser();
  const body = Uint8Array.of(0, 0, 0, 2, 9, 9, 9, 9);
  parser.push(packet(body, { type: 'callWithFds' }));
  assert.equal(parser.next(), undefined);
  parser.push(Uint8Array.of(0, 0));
  parser.push(packet(new Uint8Array(0), { serial: 2 }));
  const [first, second] = all(parser);
  assert.deepEqual([first?.fds, [...first!.body], second?.serial, second?.fds], [2, [9, 9, 9, 9], 2, 0]);
});

test('lengths, types, statuses and counts that can not be are refused', () => {
  const word = (at: number, value: number): Uint8Array => {
    const bytes = packet(new Uint8Array(4), { type: 'callWithFds' });
    new DataView(bytes.buffer).setUint32(at, value);
    return bytes;
  };
  for (const bytes of [word(0, 27), word(0, 0), word(0, maxMessage + 5), word(16, 7), word(24, 3), word(28, 33)]) {
    const parser = new PacketParser();
    parser.push(bytes);
    assert.throws(() => parser.next(), PacketError);
  }
  const small = new PacketParser(100);
  small.push(packet(new Uint8Array(80)));
  assert.throws(() => small.next(), /length 108, 28 to 104 accepted/);
  assert.throws(() => packet(new Uint8Array(maxMessage)), PacketError);
});

test('random bytes are packets or a PacketError, never anything else', () => {
  const seed = 20_260_101;
  const next = random(seed);
  for (let round = 0; round < 2000; round++) {
    const parser = new PacketParser(1 << 16);
    const bytes = packet(new Uint8Array(next(40)), { type: next(2) === 0 ? 'call' : 'callWithFds' });
    for (let i = next(4); i > 0; i--) bytes[next(bytes.length)] = next(256);
    parser.push(bytes.subarray(0, next(bytes.length + 1)));
    try {
      all(parser);
    } catch (error) {
      assert.ok(error instanceof PacketError, `seed ${seed}, round ${round}: ${error}`);
    }
  }
});
