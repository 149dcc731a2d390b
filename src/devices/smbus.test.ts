import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Smbus } from './smbus.ts';
import { testBoard, wire } from './testing.ts';

function controller() {
  const { arena } = testBoard();
  const line = wire();
  const smbus = new Smbus(arena, line);
  smbus.reset();
  const { handler } = smbus;
  return {
    smbus,
    line,
    get: (at: number): number => handler.read(at, 1),
    put: (...pairs: (readonly [number, number])[]): void => {
      for (const [at, value] of pairs) handler.write(at, 1, value);
    },
  };
}
const [STATUS, CONTROL, COMMAND, ADDRESS, D0, BLOCK, AUXILIARY] = [0, 2, 3, 4, 5, 7, 13] as const;
const BLOCKS = 5 << 2;
const START = 0x41; // with interrupts

test('a block goes through the buffer, and comes back behind its length', () => {
  const { get, put, line } = controller();
  put([AUXILIARY, 2], [ADDRESS, 0xa2], [COMMAND, 0x10], [D0, 3], [BLOCK, 7], [BLOCK, 8], [BLOCK, 9], [CONTROL, BLOCKS | START]);
  assert.deepEqual([get(STATUS), line.level], [2, 1]);
  put([STATUS, 0xff]);
  assert.equal(line.level, 0);
  put([ADDRESS, 0xa3], [D0, 0], [CONTROL, BLOCKS | START]);
  assert.deepEqual([get(STATUS), get(D0), get(BLOCK), get(BLOCK), get(BLOCK)], [2, 3, 7, 8, 9]);
});

test('a block goes byte by byte, each one asked for by the guest', () => {
  const { get, put } = controller();
  put([ADDRESS, 0xae], [COMMAND, 0], [D0, 2], [BLOCK, 0x11], [CONTROL, BLOCKS | START]);
  assert.equal(get(STATUS), 0x81);
  put([BLOCK, 0x22], [STATUS, 0x80]);
  assert.equal(get(STATUS), 0x81);
  put([STATUS, 0x80]);
  assert.equal(get(STATUS), 2);
  put([STATUS, 0xff], [ADDRESS, 0xaf], [CONTROL, BLOCKS | START]);
  assert.deepEqual([get(STATUS), get(D0), get(BLOCK)], [0x81, 2, 0x11]);
  put([CONTROL, BLOCKS | 0x21], [STATUS, 0x80]);
  assert.deepEqual([get(STATUS), get(BLOCK)], [2, 0x22]);
});

test('nobody answers at other addresses, and a reset empties the EEPROMs', () => {
  const { get, put, smbus } = controller();
  for (const address of [0x00, 0x9f, 0xb1]) {
    put([STATUS, 0xff], [ADDRESS, address], [CONTROL, START]);
    assert.equal(get(STATUS), 4, `0x${address.toString(16)}`);
  }
  put([STATUS, 0xff], [ADDRESS, 0xa0], [COMMAND, 5], [D0, 0x5a], [CONTROL, (2 << 2) | START]);
  const read = (): number => {
    put([STATUS, 0xff], [ADDRESS, 0xa1], [COMMAND, 5], [CONTROL, (2 << 2) | START]);
    return get(D0);
  };
  assert.equal(read(), 0x5a);
  smbus.reset();
  assert.equal(read(), 0);
});

test('no sequence of accesses leaves the buffers', () => {
  const { get, put } = controller();
  let x = 1;
  const random = (n: number): number => {
    x = (Math.imul(x, 1103515245) + 12345) >>> 0;
    return (x >>> 8) % n;
  };
  for (let i = 0; i < 50_000; i++) {
    const at = [STATUS, CONTROL, COMMAND, ADDRESS, D0, 6, BLOCK, AUXILIARY][random(8)]!;
    if (random(3) === 0) assert.ok(get(at) <= 255);
    else put([at, at === ADDRESS ? 0xa0 + random(16) : random(256)]);
  }
});
