import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cable, digest, GuestSocket, noTrouble, pattern, seeded, type Trouble, VirtualClock } from '../testing.ts';
import { TcpConnection, unwrap } from './connection.ts';
import { flag, headerLength, type OutSegment, parseSegment, type Segment, writeSegment } from './segment.ts';

const through = (s: OutSegment): Segment => {
  const b = new Uint8Array(headerLength(s) + (s.payload?.length ?? 0));
  writeSegment(b, 0, 1, 2, s);
  return parseSegment(b)!;
};

/** Two ends over a troubled cable in virtual time; `b` answers the first SYN. */
function pair(trouble: Trouble = noTrouble, seed = 1, window = 1 << 18) {
  const clock = new VirtualClock();
  const random = seeded(seed);
  const [a, b] = [new GuestSocket(), new GuestSocket()];
  const sent: { from: 'a' | 'b'; s: Segment }[] = [];
  const toA = cable<Segment>(clock, random, trouble, (s) => a.connection.input(s), 0.5);
  const toB = cable<Segment>(
    clock,
    random,
    trouble,
    (s) => {
      if (b.connection !== undefined) return b.connection.input(s);
      if (s.flags & flag.syn) b.connection = TcpConnection.accept(optionsB, s);
    },
    0.5,
  );
  const note = (from: 'a' | 'b', to: (s: Segment) => void) => (o: OutSegment) => {
    const s = through(o);
    sent.push({ from, s });
    to(s);
  };
  const optionsB = b.options(clock, 0xffff_fff0, 1460, window, note('b', toA));
  a.connection = TcpConnection.open(a.options(clock, 0x7fff_fff0, 1460, window, note('a', toB)));
  return { clock, a, b, sent };
}

/** Sends all of `data`, keeping at most 128 KiB queued, then ends. */
function pump(s: GuestSocket, data: Uint8Array): void {
  let at = 0;
  const more = (): void => {
    while (at < data.length && s.connection.queued < 1 << 17) {
      s.connection.send(data.subarray(at, at + 20_000));
      at += 20_000;
    }
    if (at >= data.length) s.connection.end();
  };
  s.onWritable = more;
  more();
}

const over = (s: GuestSocket): boolean => s.connection?.state === 'closed' || s.connection?.state === 'timeWait';

test('positions unwrap to the nearest', () => {
  assert.equal(unwrap(5, 2 ** 32 - 10), 2 ** 32 + 5);
  assert.equal(unwrap(0xffff_fff0, 2 ** 33 + 3), 2 ** 33 - 16);
  assert.equal(unwrap(7, 2 ** 35 + 7), 2 ** 35 + 7);
});

for (const [name, trouble] of [
  ['a clean cable', noTrouble],
  ['a cable that loses 2 %', { loss: 0.02, repeat: 0, reorder: 0 }],
  ['a cable that loses, repeats and reorders', { loss: 0.01, repeat: 0.01, reorder: 0.05 }],
  ['a cable that loses a fifth', { loss: 0.2, repeat: 0.1, reorder: 0.2 }],
] as const) {
  test(`bytes arrive complete and in order both ways over ${name}`, () => {
    const size = trouble.loss > 0.1 ? 300_000 : 4 << 20;
    for (const seed of [11, 12, 13]) {
      const { clock, a, b } = pair(trouble, seed);
      const [up, down] = [pattern(size, seed), pattern(size + 77, seed + 1)];
      clock.run(20_000, () => a.log.includes('established') && b.log.includes('established'));
      pump(a, up);
      pump(b, down);
      clock.run(3_000_000, () => over(a) && over(b));
      assert.equal(b.bytes, up.length, `seed ${seed}`);
      assert.equal(a.bytes, down.length, `seed ${seed}`);
      assert.equal(digest(b.received), digest([up]));
      assert.equal(digest(a.received), digest([down]));
      clock.run(30_000);
      assert.deepEqual(
        [a.log, b.log],
        [
          ['established', 'ended', 'done'],
          ['established', 'ended', 'done'],
        ],
        `seed ${seed}`,
      );
    }
  });
}

test('a lost segment is repaired without a time-out', () => {
  const { clock, a, b, sent } = pair();
  clock.run(10);
  const input = b.connection.input.bind(b.connection);
  let dropped = 0;
  b.connection.input = (s) => (s.payload.length > 0 && (++dropped === 3 || dropped === 6) ? undefined : input(s));
  a.connection.send(pattern(60_000, 3));
  const before = clock.now();
  clock.run(150);
  assert.equal(b.bytes, 60_000);
  assert.ok(clock.now() - before <= 150);
  assert.ok(sent.some((x) => x.from === 'b' && x.s.sack.length > 0));
});

test('the loss of the last segments, or of the only acknowledgement, is repaired long before a time-out', () => {
  const { clock, a, b } = pair();
  clock.run(10);
  a.connection.send(pattern(3000, 1));
  clock.run(100);
  const [toB, toA] = [b.connection.input.bind(b.connection), a.connection.input.bind(a.connection)];
  let left = 10;
  b.connection.input = (s) => (--left < 3 && left >= 0 ? undefined : toB(s));
  a.connection.send(pattern(14_600, 2));
  clock.run(60);
  assert.equal(b.bytes, 17_600);
  b.connection.input = toB;
  a.connection.input = () => {};
  a.connection.send(pattern(5000, 3));
  clock.run(2);
  a.connection.input = toA;
  clock.run(60);
  assert.deepEqual([b.bytes, a.connection.queued], [22_600, 0]);
});

test('the side that closes first waits in TIME-WAIT, the other is done at once', () => {
  const { clock, a, b } = pair();
  clock.run(10);
  a.connection.end();
  clock.run(10);
  assert.equal(a.connection.state, 'finWait2');
  assert.equal(b.connection.state, 'closeWait');
  b.connection.send(pattern(5000, 1));
  clock.run(50);
  assert.equal(a.bytes, 5000);
  b.connection.end();
  clock.run(10);
  assert.equal(a.connection.state, 'timeWait');
  assert.equal(b.connection.state, 'closed');
  clock.run(20_000);
  assert.deepEqual(a.log, ['established', 'ended', 'done']);
});

test('both sides closing at once pass through CLOSING to TIME-WAIT', () => {
  const { clock, a, b } = pair();
  clock.run(10);
  a.connection.end();
  b.connection.end();
  clock.run(10);
  assert.deepEqual([a.connection.state, b.connection.state], ['timeWait', 'timeWait']);
  clock.run(20_000);
  assert.deepEqual([a.log.at(-1), b.log.at(-1)], ['done', 'done']);
});

test('both sides opening at once get one connection', () => {
  const clock = new VirtualClock();
  const [a, b] = [new GuestSocket(), new GuestSocket()];
  const toA = cable<Segment>(
    clock,
    () => 0.9,
    noTrouble,
    (s) => a.connection.input(s),
  );
  const toB = cable<Segment>(
    clock,
    () => 0.9,
    noTrouble,
    (s) => b.connection.input(s),
  );
  a.connection = TcpConnection.open(a.options(clock, 1000, 1460, 65_536, (s) => toB(through(s))));
  b.connection = TcpConnection.open(b.options(clock, 2000, 1460, 65_536, (s) => toA(through(s))));
  clock.run(20);
  assert.deepEqual([a.connection.state, b.connection.state], ['established', 'established']);
  pump(a, pattern(10_000, 1));
  pump(b, pattern(10_000, 2));
  clock.run(500);
  assert.deepEqual([a.bytes, b.bytes], [10_000, 10_000]);
});

test('a closed window stops the sender, probes go on, and the rest arrives when it opens, even if the update is lost', () => {
  const { clock, a, b } = pair(noTrouble, 1, 20_000);
  clock.run(10);
  b.reading = false;
  a.connection.send(pattern(100_000, 9));
  clock.run(400_000);
  assert.ok(b.connection.readable >= 19_000 && b.connection.readable <= 20_001, `${b.connection.readable}`);
  assert.equal(a.connection.state, 'established');
  const input = a.connection.input.bind(a.connection);
  a.connection.input = () => {};
  b.reading = true;
  b.read();
  clock.run(1);
  a.connection.input = input;
  clock.run(200_000);
  assert.equal(digest(b.received), digest([pattern(100_000, 9)]));
});

test('a peer that never answers is given up, for an open and for data', () => {
  const silent = pair({ loss: 1, repeat: 0, reorder: 0 });
  silent.clock.run(1_000_000);
  assert.deepEqual(silent.a.log, ['timeout']);
  const { clock, a, b } = pair();
  clock.run(10);
  b.connection.input = () => {};
  a.connection.send(pattern(10, 1));
  clock.run(2_000_000);
  assert.deepEqual(a.log, ['established', 'timeout']);
});

test('an abort resets the peer', () => {
  const { clock, a, b } = pair();
  clock.run(10);
  a.connection.abort();
  clock.run(10);
  assert.deepEqual([a.log, b.log], [['established'], ['established', 'reset']]);
});

test('a reset counts at the next position only; elsewhere in the window it is asked about', () => {
  const { clock, a, b, sent } = pair();
  clock.run(10);
  const last = sent.filter((x) => x.from === 'a').at(-1)!.s;
  b.connection.input({ ...last, seq: last.seq + 100, flags: flag.rst, payload: new Uint8Array(0) });
  assert.equal(b.connection.state, 'established');
  const asked = sent.at(-1)!;
  assert.deepEqual([asked.from, asked.s.flags, asked.s.ack], ['b', flag.ack, last.seq]);
  b.connection.input({ ...last, seq: (last.seq - 1) >>> 0, flags: flag.rst });
  assert.equal(b.connection.state, 'established');
  b.connection.input({ ...last, flags: flag.rst });
  assert.deepEqual([b.connection.state, b.log.at(-1)], ['closed', 'reset']);
  a.connection.discard();
});

test('one-byte segments in any order cost no more memory than the window', () => {
  const { clock, a, b, sent } = pair(noTrouble, 1, 65_536);
  clock.run(10);
  const last = sent.filter((x) => x.from === 'a').at(-1)!.s;
  for (let i = 60_000; i > 0; i -= 2) b.connection.input({ ...last, seq: (last.seq + i) >>> 0, payload: Uint8Array.of(i) });
  assert.ok(b.connection.memory <= 65_536 * 2, `${b.connection.memory}`);
  assert.equal(b.bytes, 0);
  a.connection.discard();
});

test('random segments never throw and never grow the buffers beyond their limits', () => {
  const random = seeded(77);
  const int = (n: number): number => Math.floor(random() * n);
  for (let round = 0; round < 60; round++) {
    const { clock, a, b, sent } = pair(noTrouble, 1, 32_768);
    clock.run(int(3));
    for (let i = 0; i < 300; i++) {
      const base = sent[int(sent.length)].s;
      const s: Segment = {
        ...base,
        seq: (random() < 0.7 ? base.seq + int(40_000) - 2000 : random() * 2 ** 32) >>> 0,
        ack: (random() < 0.7 ? base.ack + int(4000) - 2000 : random() * 2 ** 32) >>> 0,
        flags: random() < 0.5 ? flag.ack : int(64),
        window: int(65_536),
        payload: new Uint8Array(int(2000)),
        mss: int(3),
        sack: [[int(2 ** 31), int(2 ** 31)]],
      };
      (random() < 0.5 ? a : b).connection?.input(s);
      if (random() < 0.2) a.connection.send(new Uint8Array(int(3000)));
      if (random() < 0.02) a.connection.end();
      if (random() < 0.3) clock.run(int(500));
      assert.ok((b.connection?.memory ?? 0) < 200_000);
    }
    clock.run(1_000_000);
  }
});
