import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { hostEpoch, machineClock } from './clock.ts';

test('threads that read the machine’s clock in turn never see it go back', async () => {
  const epoch = hostEpoch();
  const turn = new Int32Array(new SharedArrayBuffer(4));
  const rounds = 1000;
  // Even turns are this thread's, odd ones the other's.
  const code = `
    const { workerData: { turn, epoch, rounds, url }, parentPort } = require('node:worker_threads');
    import(url).then(({ machineClock }) => {
      const clock = machineClock(epoch);
      const seen = [];
      for (let n = 1; n < 2 * rounds; n += 2) {
        for (let at = Atomics.load(turn, 0); at !== n; at = Atomics.load(turn, 0)) Atomics.wait(turn, 0, at);
        seen.push(clock.now());
        Atomics.store(turn, 0, n + 1);
        Atomics.notify(turn, 0);
      }
      parentPort.postMessage(seen);
    });`;
  const url = new URL('./clock.ts', import.meta.url).href;
  const worker = new Worker(code, { eval: true, workerData: { turn, epoch, rounds, url } });
  const theirs = new Promise<number[]>((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const clock = machineClock(epoch);
  const ours: number[] = [];
  for (let n = 0; n < 2 * rounds; n += 2) {
    for (let at = Atomics.load(turn, 0); at !== n; at = Atomics.load(turn, 0)) {
      const waited = Atomics.waitAsync(turn, 0, at);
      if (waited.async) await waited.value;
    }
    ours.push(clock.now());
    Atomics.store(turn, 0, n + 1);
    Atomics.notify(turn, 0);
  }
  const all = (await theirs).flatMap((t, i) => [ours[i]!, t]);
  for (let i = 1; i < all.length; i++) assert.ok(all[i]! >= all[i - 1]!, `${all[i - 1]} ns, then ${all[i]} ns`);
});

test('the machine’s clock begins with its epoch', () => {
  const before = process.hrtime.bigint();
  const now = machineClock(before).now();
  const most = Number(process.hrtime.bigint() - before);
  assert.ok(now >= 0 && now <= most, `${now} ns`);
});
