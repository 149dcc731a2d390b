import assert from 'node:assert/strict';
import test from 'node:test';
import { Exit } from '../../isa/x86/state.ts';
import { COUNTER_BYTES, Counters, counterNames, countersText } from './counters.ts';
import { Area } from './layout.ts';
import { MAILBOX_BYTES } from './mailbox.ts';

test('counters are seen by whoever looks at the same memory, and each has its line', () => {
  const memory = new SharedArrayBuffer(4096);
  const [mine, other] = [new Counters(memory, 512), new Counters(memory, 512)];
  mine.set('instructions', 2 ** 40);
  mine.add('tsc');
  mine.add('tsc');
  for (const reason of [Exit.budget, Exit.budget, Exit.none]) mine.exit(reason);
  const seen = other.read();
  assert.deepEqual([seen.instructions, seen.tsc, seen.budget, seen.kick], [2 ** 40, 2, 2, 0]);
  assert.match(countersText(seen), /^ +1099511627776 instructions retired$/m);
  assert.equal(countersText(seen).split('\n').length, Object.keys(counterNames).length);
});

test('counters have room between the mailbox and the jump cache', () => {
  assert.ok(Area.counters >= Area.mailbox + MAILBOX_BYTES);
  assert.ok(Area.counters + COUNTER_BYTES <= Area.jumpCache);
});
