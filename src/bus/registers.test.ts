import assert from 'node:assert/strict';
import { test } from 'node:test';
import { registers, ro, rw, w1c, wo } from './registers.ts';

interface Device {
  match: number;
  raw: number;
  last: number;
  readonly label: string;
}
const device = (): Device => ({ match: 0x1122_3344, raw: 0xff, last: 0, label: 'x' });
const map = registers<Device>('sample', 0x20, [
  rw(0x00, 4, 'match', 'match'),
  w1c(
    0x04,
    2,
    'raw',
    (d) => d.raw,
    (d, v) => {
      d.raw &= ~v;
    },
  ),
  ro(0x06, 1, 'id', () => 0x5a),
  wo(0x07, 1, 'command', (d, v) => {
    d.last = v;
  }),
]);

test('a register is read and written as its row says', () => {
  const d = device();
  const h = map.bind(d);
  assert.equal(h.read(0, 4), 0x1122_3344);
  h.write(0, 4, 0xffff_fffe);
  assert.equal(d.match, 0xffff_fffe);
  h.write(7, 1, 3);
  assert.equal(d.last, 3);
});

test('narrow accesses take a part, wide ones take several', () => {
  const d = device();
  const h = map.bind(d);
  assert.equal(h.read(1, 2), 0x2233);
  h.write(2, 1, 0xaa);
  assert.equal(d.match, 0x11aa_3344);
  assert.equal(h.read(4, 4), 0x005a_00ff);
  h.write(4, 1, 0x0f);
  assert.equal(d.raw, 0xf0);
});

test('bad accesses are reported, not thrown', () => {
  const seen: string[] = [];
  const h = map.bind(device(), (name, message) => seen.push(`${name}: ${message}`));
  assert.equal(h.read(0x10, 2), 0);
  h.write(6, 1, 1);
  assert.equal(h.read(7, 1), 0);
  assert.deepEqual(seen.slice(-2), [
    'sample: write of 1 bytes at 0x6: id is read-only',
    'sample: read of 1 bytes at 0x7: command is write-only',
  ]);
});

test('rows that overlap are refused when the map is made', () => {
  assert.throws(() => registers<Device>('two', 8, [ro(0, 4, 'a', 'raw'), ro(3, 1, 'b', 'raw')]), /b of two: it overlaps a/);
});

test('a misspelled or non-numeric field does not compile', () => {
  // @ts-expect-error there is no such field
  registers<Device>('typo', 8, [ro(0, 4, 'a', 'mach')]);
  // @ts-expect-error label is not a number
  registers<Device>('text', 8, [ro(0, 4, 'a', 'label')]);
  assert.deepEqual(map.list.at(-1), { offset: 7, width: 1, name: 'command', access: 'wo' });
});
