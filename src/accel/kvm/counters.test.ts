import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXIT_COUNTER_BYTES, ExitCounters, exitText } from './counters.ts';

test('exits are counted all, and timed the first one by one and then by samples that stand for as many', () => {
  const buffer = new SharedArrayBuffer(64 + EXIT_COUNTER_BYTES);
  const counters = new ExitCounters(buffer, 64);
  for (let n = 0; n < 1000; n++) {
    const weight = counters.count('io');
    if (weight > 0) counters.took('io', 50 * weight);
  }
  counters.count('assist');
  const seen = new ExitCounters(buffer, 64).read();
  assert.deepEqual(Object.keys(seen).sort(), ['assist', 'io']);
  assert.equal(seen.io?.exits, 1000);
  assert.ok(Math.abs(seen.io!.ns - 1000 * 50) <= 16 * 50, String(seen.io!.ns));
  assert.match(exitText(seen), /^ +1001 exits\n +1000 io, 0\.0 ms outside of the guest\n +1 assist, /);
});
