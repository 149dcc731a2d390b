import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Bells, bellsLayout, doorbellLayout, ringWords } from './doorbell.ts';

const setUp = (): { bells: Bells; buffer: SharedArrayBuffer; bell: ReturnType<Bells['add']> } => {
  const buffer = new SharedArrayBuffer(64);
  const bells = new Bells(bellsLayout.view(buffer, 0));
  return { buffer, bells, bell: bells.add(doorbellLayout.view(buffer, 4)) };
};
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a bell that is rung again whenever it was heard does not keep the thread that hears from anything else', async () => {
  const { bells, bell } = setUp();
  let heard = 0;
  let over = false;
  bell.heard = () => {
    // As a guest does that rings faster than it is served; without an end this would be one.
    if (++heard === 200_000) over = true;
    if (!over) bell.ring();
  };
  bell.ring();
  const served = bells.serve(turn);
  for (let turns = 0; turns < 20; turns++) await new Promise((resolve) => setTimeout(resolve, 1));
  assert.equal(over, false, 'nothing else had its turn');
  assert.ok(heard > 20, `heard ${heard} times`);
  over = true;
  bells.close();
  await served;
});

test('who serves is told how many bells were heard, and nothing where none was', async () => {
  const { bells, bell, buffer } = setUp();
  const other = bells.add(doorbellLayout.view(buffer, 8));
  const counts: number[] = [];
  bell.ring();
  bell.ring();
  other.ring();
  const served = bells.serve(turn, (count) => {
    counts.push(count);
    if (counts.length === 1) other.ring();
    else bells.close();
  });
  await served;
  assert.deepEqual(counts, [2, 1]);
});

test('who has only the words rings once until the reason was looked at', () => {
  const { bells, buffer, bell } = setUp();
  const kicked = new Int32Array(buffer, 16, 1);
  const words = bell.words(kicked);
  let heard = 0;
  bell.heard = () => heard++;
  assert.deepEqual([ringWords(words), ringWords(words)], [true, false]);
  bells.hear();
  bells.hear();
  assert.equal(heard, 1);
  Atomics.store(kicked, 0, 0);
  assert.equal(ringWords(words), true);
  bells.hear();
  assert.equal(heard, 2);
});
