import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IntMap } from './int-map.ts';

test('an IntMap gives what a Map gives, as it grows and where a key is set twice', () => {
  const ours = new IntMap<{ readonly n: number }>();
  const model = new Map<number, { readonly n: number }>();
  let seed = 1;
  for (let n = 0; n < 20_000; n++) {
    seed = (Math.imul(seed, 1103515245) + 12345) | 0;
    // Few keys in dense runs and many far apart, negative ones too.
    const key = n % 3 === 0 ? (seed >>> 20) % 700 : seed;
    assert.equal(ours.get(key), model.get(key));
    const value = { n };
    ours.set(key, value);
    model.set(key, value);
    assert.equal(ours.get(key), value);
  }
  for (const [key, value] of model) assert.equal(ours.get(key), value);
  assert.equal(new IntMap().get(0), undefined);
});
