import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedLock } from './lock.ts';

test('shared actions run together, one alone waits for them and goes before those that came later', async () => {
  const lock = new SharedLock();
  const log: string[] = [];
  const gates = new Map<string, () => void>();
  const action = (name: string) => async (): Promise<void> => {
    log.push(`+${name}`);
    await new Promise<void>((open) => gates.set(name, open));
    log.push(`-${name}`);
  };
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const all = [
    lock.shared(action('a')),
    lock.shared(action('b')),
    lock.alone(action('c')),
    lock.shared(action('d')),
    lock.alone(action('e')),
  ];
  for (const name of ['a', 'b', 'c', 'd', 'e']) {
    await settle();
    gates.get(name)!();
  }
  await Promise.all(all);
  assert.deepEqual(log, ['+a', '+b', '-a', '-b', '+c', '-c', '+d', '-d', '+e', '-e']);
});

test('an action that fails gives the lock back', async () => {
  const lock = new SharedLock();
  await assert.rejects(
    lock.alone(() => Promise.reject(new Error('no'))),
    /no/,
  );
  await assert.rejects(
    lock.shared(() => Promise.reject(new Error('no'))),
    /no/,
  );
  assert.equal(await lock.alone(async () => 5), 5);
});
