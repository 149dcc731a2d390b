import assert from 'node:assert/strict';
import { test } from 'node:test';
import { I8042 } from './i8042.ts';
import { keyBytes, toSet1 } from './scancodes.ts';
import { testBoard, wire } from './testing.ts';

function controller() {
  const board = testBoard();
  const [keyboardIrq, auxIrq] = [wire(), wire()];
  const calls: string[] = [];
  const d = new I8042({ ...board, keyboardIrq, auxIrq, reset: () => calls.push('reset'), a20: (o) => calls.push(`a20 ${o}`) });
  d.reset();
  d.map(board.ports);
  const cmd = (...v: number[]) => board.out(0x64, ...v);
  const data = (...v: number[]) => board.out(0x60, ...v);
  const status = () => board.in(0x64);
  /** All bytes that wait. */
  const all = () => {
    const bytes: number[] = [];
    while (status() & 1) bytes.push(board.in(0x60));
    return bytes;
  };
  const aux = (...v: number[]) => {
    for (const b of v) {
      cmd(0xd4);
      data(b);
    }
    return all();
  };
  return { d, keyboardIrq, auxIrq, calls, cmd, data, status, all, aux };
}

test('the probe of a kernel finds a controller that works', () => {
  const { cmd, data, all, status } = controller();
  cmd(0xaa);
  assert.deepEqual(all(), [0x55]);
  cmd(0x20);
  assert.deepEqual(all(), [0x47]);
  cmd(0x60);
  data(0x43);
  cmd(0x20);
  assert.deepEqual(all(), [0x43]);
  cmd(0xab);
  assert.deepEqual(all(), [0]);
  cmd(0xa9);
  assert.deepEqual(all(), [0]);
  cmd(0xd3);
  data(0x5a);
  assert.equal(status() & 0x21, 0x21, 'the loop through the auxiliary port');
  assert.deepEqual(all(), [0x5a]);
});

test('keys come translated into set 1, or in set 2, each byte with an interrupt', () => {
  const { d, keyboardIrq, all, cmd, data } = controller();
  d.key(0x1e, true);
  assert.equal(keyboardIrq.level, 1);
  d.key(0x1e, false);
  d.key(0xcb, true);
  d.key(0xcb, false);
  assert.deepEqual(all(), [0x1e, 0x9e, 0xe0, 0x4b, 0xe0, 0xcb]);
  assert.equal(keyboardIrq.level, 0);
  assert.equal(keyboardIrq.edges, 6);
  cmd(0x60);
  data(0x03);
  d.key(0x1e, true);
  d.key(0x1e, false);
  d.key(0x41, true);
  assert.deepEqual(all(), [0x1c, 0xf0, 0x1c, 0x83]);
});

test('every key translates back into its own number', () => {
  for (let key = 1; key < 0x59; key++) {
    const bytes = keyBytes(key, true, 2);
    if (key === 0x55 || bytes.length === 0) continue;
    assert.deepEqual(bytes.map(toSet1), [key], key.toString(16));
    assert.deepEqual(
      keyBytes(key | 0x80, true, 2).map(toSet1),
      key === 0x46 ? [0xe1, 0x1d, 0x45, 0xe1, 0xf0, 0x1d, 0xf0, 0x45] : [0xe0, key],
    );
  }
});

test('the keyboard answers its commands', () => {
  const { data, all, d } = controller();
  data(0xff);
  assert.deepEqual(all(), [0xfa, 0xaa]);
  data(0xf2);
  assert.deepEqual(all(), [0xfa, 0xab, 0x41], 'the identification is translated too');
  data(0xed, 5);
  assert.deepEqual(all(), [0xfa, 0xfa]);
  assert.equal(d.keyboard.leds, 5);
  data(0xee);
  assert.deepEqual(all(), [0xee]);
  data(0xf0, 0);
  assert.deepEqual(all(), [0xfa, 0xfa, 0x41]);
  data(0xf5);
  assert.deepEqual(all(), [0xfa]);
  assert.equal(d.key(0x1e, true), false);
  data(0xf4, 0x12);
  assert.deepEqual(all(), [0xfa, 0xfe]);
  data(0xfe);
  assert.deepEqual(all(), [0xfa]);
  assert.equal(d.key(0x1e, true), true);
});

test('a disabled port holds its bytes back', () => {
  const { d, cmd, status, all } = controller();
  cmd(0xad);
  d.key(0x1e, true);
  assert.equal(status() & 1, 0);
  cmd(0xae);
  assert.deepEqual(all(), [0x1e]);
});

test('a full keyboard refuses keys and still answers', () => {
  const { d, cmd, data, all } = controller();
  cmd(0xad);
  let taken = 0;
  while (d.key(0x1e, true)) taken++;
  assert.ok(taken > 10 && taken < 64);
  data(0xee);
  assert.equal(all().at(-1), 0xee);
});

test('the mouse identifies itself, and with the rates 200, 100, 80 has a wheel', () => {
  const { aux } = controller();
  assert.deepEqual(aux(0xff), [0xfa, 0xaa, 0]);
  assert.deepEqual(aux(0xf2), [0xfa, 0]);
  aux(0xf3, 200, 0xf3, 100, 0xf3, 80);
  assert.deepEqual(aux(0xf2), [0xfa, 3]);
  aux(0xf3, 200, 0xf3, 200, 0xf3, 80);
  assert.deepEqual(aux(0xf2), [0xfa, 4]);
});

test('movement comes in packets, right and up positive, large ones in several', () => {
  const { d, aux, auxIrq, all } = controller();
  assert.equal(d.move(1, 1, 0, 0), false, 'nobody listens');
  aux(0xf4);
  const before = auxIrq.edges;
  d.move(5, 3, 0, 1);
  assert.deepEqual(all(), [0x29, 5, 0xfd]);
  assert.equal(auxIrq.edges - before, 3);
  d.move(300, 0, 0, 0);
  assert.deepEqual(all(), [8, 255, 0, 8, 45, 0]);
  d.move(0, 0, 0, 0);
  assert.deepEqual(all(), []);
});

test('the wheel has a byte of its own', () => {
  const { d, aux, all } = controller();
  aux(0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf4);
  d.move(0, 0, -1, 4);
  assert.deepEqual(all(), [0x0c, 0, 0, 0xff]);
});

test('status and remote mode of the mouse', () => {
  const { d, aux } = controller();
  aux(0xe8, 3, 0xf3, 60, 0xe7, 0xf0);
  assert.deepEqual(aux(0xe9), [0xfa, 0x50, 3, 60]);
  d.move(2, 0, 0, 0);
  assert.deepEqual(aux(0xeb), [0xfa, 8, 2, 0]);
  assert.deepEqual(aux(0xee, 0x55), [0xfa, 0x55]);
  assert.deepEqual(aux(0xec), [0xfa]);
});

test('the output port moves A20 and resets', () => {
  const { cmd, data, calls, all } = controller();
  cmd(0xd1);
  data(0xdd);
  cmd(0xd0);
  assert.equal(all()[0]! & 2, 0);
  cmd(0xd1);
  data(0xdf);
  cmd(0xfe);
  cmd(0xff);
  assert.deepEqual(calls, ['a20 false', 'a20 true', 'reset']);
});
