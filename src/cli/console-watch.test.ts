import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConsoleWatch } from './console-watch.ts';

function watch(...pieces: readonly string[]): ConsoleWatch {
  const w = new ConsoleWatch();
  for (const piece of pieces) w.feed(Buffer.from(piece));
  return w;
}
const PANIC = '[    1.5] Kernel panic - not syncing: VFS: no root\r\n[    1.6] Call Trace:\r\n';

test('a panic is found with its reason, also when it comes in pieces', () => {
  assert.equal(watch('booting\r\n', PANIC.slice(0, 30), PANIC.slice(30)).panic, 'VFS: no root');
  assert.equal(watch('booting\r\n').panic, undefined);
});

test('an old panic in a log that a user prints is none: something else follows', () => {
  assert.equal(watch(PANIC, '~ # ls\r\n').panic, undefined);
});

test('a kernel that stays after its panic is stuck, one that starts again is not', () => {
  assert.equal(watch(PANIC).stuck, false);
  assert.equal(watch(PANIC, '[    1.7] ---[ end Kernel panic - not syncing: VFS: no root ]---\r\n').stuck, true);
});

test('the last lines have no control sequences and no empty lines', () => {
  assert.deepEqual(watch('one\r\n\r\n\x1b[1;31mtwo\x1b[0m\r\n', 'three').tail(2), ['two', 'three']);
});

test('a guest that talks for ever leaves its last lines only', () => {
  const w = watch(...Array.from({ length: 100 }, (_, n) => `${n} ${'.'.repeat(1000)}\n`));
  assert.match(w.tail(1)[0]!, /^99 /);
  assert.ok(w.tail(1000).length < 20);
});
