// Which slots a region has in locals where: on blocks made by hand, whose code is gets, sets and ways out.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Stmt } from '../../ir/ir.ts';
import { heldAt, leaveOf, nestedSlots } from './kept-slots.ts';
import type { RegionBlock } from './region.ts';

const get = (offset: number): Stmt => ({ kind: 'get', slot: { offset } }) as Stmt;
const set = (offset: number): Stmt => ({ kind: 'set', slot: { offset } }) as Stmt;
const branch = (place: number): Stmt => ({ kind: 'leave', how: 'branch', value: null, reason: place }) as Stmt;
const when = (...then: Stmt[]): Stmt => ({ kind: 'if', then, else: [] }) as unknown as Stmt;

/** Blocks by name, with their code; ways between them as `from to`, a call's as `from>to`. Blocks' places are their numbers. */
function graph(code: Readonly<Record<string, Stmt[]>>, ...ways: string[]) {
  const names = Object.keys(code);
  const blocks = new Map(
    names.map((name) => [name, { preds: [] as unknown[], edges: new Map(), back: null as unknown, dispatch: null }]),
  );
  for (const way of ways) {
    const [from, to] = way.split(/[ >]/) as [string, string];
    const [p, b] = [blocks.get(from)!, blocks.get(to)!];
    b.preds.push(p);
    if (way.includes('>')) p.back = b;
    else p.edges.set(names.indexOf(to), b);
  }
  const list = [...blocks.values()] as unknown as RegionBlock[];
  const held = heldAt(list, new Map(list.map((b, i) => [b, [{ code: code[names[i]!]! }]])), new Set([1, 2, 3]));
  const sorted = (slots: ReadonlySet<number>): number[] => [...slots].sort();
  return (name: string) => {
    const { valid, dirty, stale } = held.get(list[names.indexOf(name)]!)!;
    return { valid: sorted(valid), dirty: sorted(dirty), stale: sorted(stale) };
  };
}

test('what one way has written is held where ways meet, what was only read where it is read again', () => {
  const at = graph({ a: [get(1), get(2)], b: [set(3)], c: [], d: [get(1)] }, 'a b', 'a c', 'b d', 'c d');
  assert.deepEqual(at('a'), { valid: [], dirty: [], stale: [] });
  assert.deepEqual(at('b'), { valid: [1], dirty: [], stale: [2] });
  assert.deepEqual(at('d'), { valid: [1, 3], dirty: [3], stale: [2] });
});

test('a loop has what it reads and writes from its beginning on', () => {
  const at = graph({ a: [], head: [], body: [get(1), set(2)], end: [] }, 'a head', 'head body', 'body head', 'head end');
  assert.deepEqual(at('head'), { valid: [1, 2], dirty: [2], stale: [] });
  assert.deepEqual(at('end'), { valid: [2], dirty: [2], stale: [1] });
});

test('behind a call the state has all', () => {
  const at = graph({ a: [set(1), get(2)], back: [get(1), get(2)] }, 'a>back');
  assert.deepEqual(at('back'), { valid: [], dirty: [], stale: [] });
});

test('what is written on a way out is written on that way alone', () => {
  const at = graph({ a: [when(set(1), branch(1))], there: [], beside: [] }, 'a there', 'a beside');
  assert.deepEqual(at('there').dirty, [1]);
  assert.deepEqual(at('beside').dirty, []);
});

test('code that may be passed by needs its slots before', () => {
  const code = [when(get(1), when(set(2), branch(7))), when(set(3))];
  assert.deepEqual([...nestedSlots(code)], [1, 3]);
  assert.equal(leaveOf([set(1), branch(3)])?.reason, 3);
  assert.equal(leaveOf([branch(3), set(1)]), undefined);
});
