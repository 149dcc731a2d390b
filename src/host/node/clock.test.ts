import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clockDistance } from './clock.ts';

test('threads find the same distance to the common clock, whichever readings they lose their processor between', () => {
  const found = Array.from({ length: 30 }, (_, lost) => {
    let time = 1e9 + lost * 1e6;
    let reading = 0;
    // Every reading takes 50 ns; after one of them the thread waits for 40 ms.
    const read = (): number => {
      time += 50;
      const now = time;
      if (reading++ % 30 === lost) time += 4e7;
      return now;
    };
    return clockDistance(() => read() - 123_456_789, read);
  });
  for (const distance of found) assert.ok(Math.abs(distance - 123_456_789) <= 50, `${found}`);
});
