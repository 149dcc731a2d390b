import assert from 'node:assert/strict';
import { test } from 'node:test';
import { progressBar, renderStep } from './progress.ts';

test('a step fits the line at every width and shows its share', () => {
  for (let columns = 1; columns < 120; columns++) {
    for (const step of [
      { label: 'Fetching linux-image', done: 1, total: 3 },
      { label: 'Unpacking', done: 0 },
    ]) {
      assert.ok(renderStep(step, columns).length <= Math.max(0, columns - 1));
    }
  }
  assert.equal(renderStep({ label: 'Fetching', done: 1, total: 2 }, 31), 'Fetching [=====     ]  50%');
  assert.match(renderStep({ label: 'Fetching', done: 9, total: 2 }, 40), /=\] 100%$/);
});

test('nothing is written where there is no terminal', () => {
  const written: string[] = [];
  const bar = progressBar({ write: (text) => written.push(text) });
  bar.report({ label: 'Fetching', done: 1, total: 2 });
  bar.end();
  assert.deepEqual(written, []);
});

test('drawings of one step keep a pause, new steps and the end do not wait, and the line is cleared', () => {
  const written: string[] = [];
  let now = 1000;
  const bar = progressBar({ isTTY: true, columns: 40, write: (text) => written.push(text) }, () => now);
  for (let done = 0; done <= 100; done++, now++) bar.report({ label: 'Fetching', done, total: 100 });
  assert.equal(written.length, 3);
  bar.report({ label: 'Unpacking', done: 0 });
  assert.equal(written.at(-1), '\rUnpacking…\x1b[K');
  bar.end();
  bar.end();
  assert.equal(written.at(-1), '\r\x1b[K');
  assert.equal(written.length, 5);
});
