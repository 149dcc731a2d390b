import assert from 'node:assert/strict';
import { test } from 'node:test';
import { globMatches, isAuthorized } from './authz.ts';
import { Objects } from './qom/user-objects.ts';

test('the first rule of a list that a name fits decides, else its policy; what is no such object lets nobody in', () => {
  const objects = new Objects();
  objects.add({ id: 'one', 'qom-type': 'authz-simple', identity: 'fred' });
  objects.add({
    ...{ id: 'list', 'qom-type': 'authz-list', policy: 'allow' },
    rules: [
      { match: 'C=GB,*,CN=bob', policy: 'allow', format: 'glob' },
      { match: 'C=GB,*', policy: 'deny', format: 'glob' },
      { match: 'f*', policy: 'deny' },
    ],
  });
  objects.add({ id: 'nobody', 'qom-type': 'authz-list' });
  objects.add({ id: 'io', 'qom-type': 'iothread' });
  const allowed = (id: string, ...names: string[]) => names.map((name) => isAuthorized(objects, id, name));
  assert.deepEqual(allowed('one', 'fred', 'Fred', ''), [true, false, false]);
  assert.deepEqual(allowed('list', 'C=GB,O=x,CN=bob', 'C=GB,O=x,CN=eve', 'f*', 'fred'), [true, false, false, true]);
  assert.deepEqual([...allowed('nobody', 'fred'), ...allowed('io', 'fred'), ...allowed('gone', 'fred')], [false, false, false]);
  for (const rules of [[{ match: 'x' }], [{ match: 'x', policy: 'maybe' }], 'x'])
    assert.throws(() => objects.add({ id: 'bad', 'qom-type': 'authz-list', rules }), /rules|policy/);
  assert.throws(() => objects.add({ id: 'bad', 'qom-type': 'authz-simple' }), /Parameter 'identity' is missing/);
});

test('patterns have stars and question marks, and take no long time', () => {
  const yes = [['*', ''], ['a*c', 'abbc'], ['a?c', 'abc'], ['**b', 'aab'], ['*a*b*', 'xaxbx'], ['', '']] as const; // biome-ignore format: one list
  const no = [['a', ''], ['a?', 'a'], ['*b', 'ba'], ['a*b', 'ac'], ['', 'a'], ['?', '']] as const; // biome-ignore format: one list
  for (const [pattern, text] of yes) assert.ok(globMatches(pattern, text), `${pattern} ${text}`);
  for (const [pattern, text] of no) assert.ok(!globMatches(pattern, text), `${pattern} ${text}`);
  const start = performance.now();
  assert.equal(globMatches(`${'*a'.repeat(50)}b`, 'a'.repeat(20_000)), false);
  assert.ok(performance.now() - start < 5000);
});
