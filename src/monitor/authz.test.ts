import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Authorization, globMatches } from './authz.ts';
import { Objects } from './qom/user-objects.ts';

function made(files = new Map<string, string>()) {
  const objects = new Objects();
  const log: string[] = [];
  const readText = (path: string): string => {
    const text = files.get(path);
    if (text === undefined) throw new Error('no such file');
    return text;
  };
  const authorization = new Authorization({ objects, readText, log: (text) => log.push(text) });
  objects.onAdd = ({ id, type, values }) => authorization.added(id, type, values);
  return { objects, authorization, log };
}

test('a list in a file is read for each name, or once', () => {
  const list = (name: string): string => JSON.stringify({ rules: [{ match: name, policy: 'allow' }], policy: 'deny' });
  const files = new Map([
    ['/a', list('ann')],
    ['/bad', '{"rules":7}'],
    ['/half', '{'],
  ]);
  const { objects, authorization, log } = made(files);
  objects.add({ id: 'fresh', 'qom-type': 'authz-list-file', filename: '/a' });
  objects.add({ id: 'once', 'qom-type': 'authz-list-file', filename: '/a', refresh: false });
  const who = () => ['fresh', 'once'].map((id) => ['ann', 'bob'].map((name) => authorization.isAuthorized(id, name)));
  assert.deepEqual(who(), [[true, false], [true, false]]); // biome-ignore format: one list
  files.set('/a', list('bob'));
  assert.deepEqual(who(), [[false, true], [true, false]]); // biome-ignore format: one list
  files.delete('/a');
  assert.deepEqual(who(), [[false, false], [true, false]]); // biome-ignore format: one list
  assert.match(log[0]!, /^Cannot read the list of authorizations \/a: no such file$/);
  objects.remove('once');
  assert.equal(authorization.isAuthorized('once', 'ann'), false);
  for (const filename of ['/bad', '/half', '/none'])
    assert.throws(
      () => objects.add({ id: 'x', 'qom-type': 'authz-list-file', filename }),
      /^QmpError|Cannot read the list of authorizations/,
    );
  assert.equal(objects.get('x'), undefined);
});

test('the first rule of a list that a name fits decides, else its policy; what is no such object lets nobody in', () => {
  const { objects, authorization } = made();
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
  const allowed = (id: string, ...names: string[]) => names.map((name) => authorization.isAuthorized(id, name));
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
