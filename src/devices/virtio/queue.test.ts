import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seeded } from '../../bits/testing.ts';
import type { VirtioModel } from './core.ts';
import { Status } from './state.ts';
import { RAM_BYTES, TestQueue, virtioRig } from './testing.ts';

const model: VirtioModel = { id: 4, queues: [64], features: 0n, config: { length: 0, read: () => 0 } };
const kinds = [
  { packed: false, eventIndex: false },
  { packed: false, eventIndex: true },
  { packed: true, eventIndex: false },
  { packed: true, eventIndex: true },
];
const named = (k: (typeof kinds)[number]): string => `${k.packed ? 'packed' : 'split'}${k.eventIndex ? ' with event index' : ''}`;

for (const kind of kinds) {
  test(`${named(kind)}: requests go through, in chains, tables and around the ring's end`, () => {
    const rig = virtioRig(model, kind);
    const queue = new TestQueue(rig, 0, kind.packed);
    const { core, bytes, data } = rig;
    for (let round = 0; round < 200; round++) {
      bytes.fill(round & 0xff, data, data + 64);
      const pieces = [
        { gpa: data, length: 40 },
        { gpa: data + 100, length: 24 },
        { gpa: data + 0x1000, length: 30, write: true },
        { gpa: data + 0x2000, length: 50, write: true },
      ];
      const id = queue.add(pieces, round % 3 === 0 ? data + 0x8000 : undefined);
      const [chain, ...more] = core.take(0);
      assert.ok(chain && more.length === 0, `round ${round}: one request`);
      assert.deepEqual([chain.out.length, chain.in.length], [64, 80]);
      assert.equal(chain.out.bytes(0, 40)[39], round & 0xff);
      assert.equal(chain.in.write(20, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)), 12);
      core.give(0, [[chain, 32]]);
      assert.deepEqual(queue.used(), [[id, 32]]);
      assert.deepEqual([...bytes.subarray(data + 0x2000, data + 0x2002)], [11, 12]);
    }
    assert.deepEqual(rig.reports, []);
    assert.ok(rig.interrupts.queue > 0);
    assert.equal(core.inFlight, 0);
  });

  test(`${named(kind)}: what is put back comes again`, () => {
    const rig = virtioRig(model, kind);
    const queue = new TestQueue(rig, 0, kind.packed);
    for (let round = 0; round < 50; round++) {
      for (let n = 0; n < 3; n++) queue.add([{ gpa: rig.data + 64 * n, length: 8, write: true }]);
      const chains = rig.core.take(0);
      assert.equal(chains.length, 3);
      rig.core.untake(0, chains.slice(1));
      rig.core.give(0, [[chains[0]!, 1]]);
      const again = rig.core.take(0);
      assert.deepEqual(
        again.map((c) => c.id),
        chains.slice(1).map((c) => c.id),
      );
      rig.core.give(
        0,
        again.map((c) => [c, 2] as const),
      );
      assert.deepEqual(
        queue.used().map(([, written]) => written),
        [1, 2, 2],
      );
    }
  });
}

test('with event index a driver that asks for one interrupt gets one', () => {
  const rig = virtioRig(model, { eventIndex: true });
  const queue = new TestQueue(rig, 0, false);
  const { view, areas, core } = rig;
  const usedEvent = areas(0).driver + 4 + 2 * 64;
  view.setUint16(usedEvent, 4, true);
  let before = 0;
  for (let n = 0; n < 8; n++) {
    queue.add([{ gpa: rig.data, length: 8, write: true }]);
    core.give(0, [[core.take(0)[0]!, 8]]);
    // The first of a ring always tells: nothing is known of what came before.
    if (n === 0) before = rig.interrupts.queue;
  }
  assert.equal(rig.interrupts.queue - before, 1);
});

test('after a reset, requests of before are forgotten, and the status tells when none is under way', () => {
  const rig = virtioRig(model);
  const queue = new TestQueue(rig, 0, false);
  queue.add([{ gpa: rig.data, length: 8, write: true }]);
  const chains = rig.core.take(0);
  rig.lock.run(() => rig.core.setStatus(0));
  assert.notEqual(rig.core.status, 0);
  rig.bytes.fill(0, 0, rig.data);
  rig.core.give(0, [[chains[0]!, 8]]);
  assert.equal(rig.core.status, 0);
  assert.ok(
    rig.bytes.subarray(0, rig.data).every((b) => b === 0),
    'the old ring was not written',
  );
});

test('a driver that breaks the rules stops its device, is told, and may reset it', () => {
  const broken: readonly [string, (rig: ReturnType<typeof virtioRig>) => void][] = [
    ['a chain that loops', ({ view }) => view.setUint16(14, 0, true)],
    ['a descriptor outside RAM', ({ view }) => view.setBigUint64(0, 1n << 40n, true)],
    ['a descriptor of no bytes', ({ view }) => view.setUint32(8, 0, true)],
    ['a next descriptor that is not there', ({ view }) => view.setUint16(14, 64, true)],
    ['a head that is not there', ({ view, areas }) => view.setUint16(areas(0).driver + 4, 999, true)],
    ['more chains than the ring has', ({ view, areas }) => view.setUint16(areas(0).driver + 2, 100, true)],
    ['a table within a chain', ({ view }) => view.setUint16(12, 5, true)],
  ];
  for (const [what, spoil] of broken) {
    const rig = virtioRig(model);
    const queue = new TestQueue(rig, 0, false);
    queue.add([
      { gpa: rig.data, length: 8 },
      { gpa: rig.data + 64, length: 8, write: true },
    ]);
    rig.view.setUint16(12, 1, true);
    spoil(rig);
    assert.deepEqual(rig.core.take(0), [], what);
    assert.equal(rig.core.status & Status.needsReset, Status.needsReset, what);
    assert.equal(rig.reports.length, 1, what);
    rig.bytes.fill(0);
    rig.start();
    new TestQueue(rig, 0, false).add([{ gpa: rig.data, length: 8, write: true }]);
    assert.equal(rig.core.take(0).length, 1, `${what}: after a reset`);
  }
});

test('whatever is in the rings, nothing throws, nothing goes on for ever and nothing outside RAM is touched', (t) => {
  const seed = Number(process.env['SEED'] ?? 1);
  t.diagnostic(`SEED=${seed}`);
  const random = seeded(seed);
  const words = [0, 1, 2, 4, 5, 6, 7, 16, 63, 64, 65, 0x80, 0x81, 0x8000, 0x8080, 0xffff];
  for (let round = 0; round < 400; round++) {
    const kind = kinds[round % kinds.length]!;
    const rig = virtioRig(model, kind);
    const { view, core } = rig;
    for (let n = 0; n < 300; n++) view.setUint16(2 * random(0x2000), words[random(words.length)]!, true);
    for (let n = 0; n < 64; n++) {
      if (random(3) > 0)
        view.setBigUint64(16 * n, BigInt(random(2) ? random(RAM_BYTES) : random(2 ** 31) * 2 ** random(30)), true);
      view.setUint32(16 * n + 8, random(4) ? random(200) : random(2 ** 32), true);
    }
    for (let n = 0; n < 8; n++) {
      view.setUint16(rig.areas(0).driver + 2, random(80), true);
      const chains = core.take(0);
      for (const chain of chains) {
        chain.out.bytes(0, 100);
        chain.in.write(random(10), new Uint8Array(random(100)));
      }
      core.give(
        0,
        chains.map((c) => [c, c.in.length] as const),
      );
    }
    assert.equal(core.inFlight, 0);
  }
});

test('while the machine is held nothing is taken, and what waited is looked at when it goes on', () => {
  const rig = virtioRig(model);
  const queue = new TestQueue(rig, 0, false);
  let served = 0;
  rig.core.serve(0, () => {
    served += rig.core.take(0).length;
  });
  rig.core.hold();
  queue.add([{ gpa: rig.data, length: 8, write: true }]);
  rig.core.kick(0);
  rig.bells.hear();
  assert.equal(served, 0);
  rig.core.release();
  rig.bells.hear();
  assert.equal(served, 1);
});

test('a driver whose queue is never empty leaves the I/O thread after a turn, and is served on in the next', () => {
  const rig = virtioRig(model);
  const queue = new TestQueue(rig, 0, false);
  const { core, view, areas } = rig;
  for (let n = 0; n < 64; n++) queue.add([{ gpa: rig.data, length: 8 }]);
  let served = 0;
  core.serve(0, () => {
    for (let chains = core.take(0); chains.length > 0; chains = core.take(0)) {
      served += chains.length;
      assert.ok(served < 100_000, 'the turn has no end');
      core.give(0, chains.map((c) => [c, 0] as const));
      // Another vCPU makes all of them available again at once.
      view.setUint16(areas(0).driver + 2, view.getUint16(areas(0).device + 2, true) + 64, true);
    }
  }); // biome-ignore format: one call
  core.kick(0);
  rig.bells.hear();
  const first = served;
  assert.ok(first >= 64 && first < 2000, `${first} requests in a turn`);
  rig.bells.hear();
  assert.ok(served > first, 'the next turn serves on');
  assert.deepEqual(rig.reports, []);
});
