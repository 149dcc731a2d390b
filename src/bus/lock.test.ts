import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Arena } from '../bits/arena.ts';
import { struct } from '../bits/struct.ts';
import { Lock, lockLayout } from './lock.ts';
import { Ring, ringLayout } from './ring.ts';

const counter = struct({ plain: ['i32', 1] });
const rounds = 20_000;
const total = 100_000;

function board(buffer: SharedArrayBuffer, id: number) {
  const arena = new Arena(buffer);
  return {
    lock: new Lock(arena.alloc(lockLayout), id),
    count: arena.alloc(counter),
    ring: new Ring(arena.alloc(ringLayout(256))),
  };
}

if (!isMainThread) {
  const { buffer, id, job } = workerData as { buffer: SharedArrayBuffer; id: number; job: 'count' | 'send' };
  const { lock, count, ring } = board(buffer, id);
  if (job === 'count') for (let i = 0; i < rounds; i++) lock.run(() => count.plain[0]!++);
  else {
    const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
    for (let sent = 0; sent < total; ) {
      const seen = Atomics.load(ring.signal, 0);
      const n = ring.write(bytes.subarray(sent % 100));
      sent += n;
      if (n === 0) Atomics.wait(ring.signal, 0, seen);
    }
  }
  parentPort?.postMessage('done');
} else {
  const start = (buffer: SharedArrayBuffer, id: number, job: string) =>
    new Promise((resolve, reject) => {
      const w = new Worker(new URL(import.meta.url), { workerData: { buffer, id, job } });
      w.once('message', resolve);
      w.once('error', reject);
    });

  test('two workers that count under the lock lose no count', async () => {
    const buffer = new SharedArrayBuffer(4096);
    await Promise.all([start(buffer, 1, 'count'), start(buffer, 2, 'count')]);
    const { count, lock } = board(buffer, 3);
    assert.equal(count.plain[0], 2 * rounds);
    assert.equal(lock.owner, 0);
  });

  test('a thread that takes the lock twice is told so instead of hanging', () => {
    const { lock } = board(new SharedArrayBuffer(4096), 1);
    lock.acquire();
    assert.throws(() => lock.acquire(), /already holds it/);
    lock.release();
    assert.equal(
      lock.run(() => lock.held),
      true,
    );
    assert.equal(lock.held, false);
  });

  test('a ring carries every byte in order between two threads', async () => {
    const buffer = new SharedArrayBuffer(4096);
    const { ring } = board(buffer, 1);
    const done = start(buffer, 2, 'send');
    let got = 0;
    while (got < total) {
      const seen = Atomics.load(ring.signal, 0);
      const bytes = ring.read(37);
      for (const b of bytes) if (b !== got++ % 100) assert.fail(`byte ${got - 1} is ${b}`);
      if (bytes.length === 0) Atomics.wait(ring.signal, 0, seen);
    }
    await done;
    assert.equal(ring.available, 0);
  });

  test('a ring takes what fits and says how much that was', () => {
    const ring = new Ring(ringLayout(4).view(new ArrayBuffer(64), 0));
    assert.equal(ring.write(Uint8Array.of(1, 2, 3)), 3);
    assert.deepEqual([...ring.read(2)], [1, 2]);
    assert.equal(ring.write(Uint8Array.of(4, 5, 6, 7)), 3);
    assert.equal(ring.push(9), false);
    assert.equal(ring.shift(), 3);
    assert.equal(ring.push(8), true);
    assert.deepEqual([...ring.read()], [4, 5, 6, 8]);
    assert.equal(ring.shift(), -1);
    assert.throws(() => ringLayout(3), /power of two/);
  });
}
