import assert from 'node:assert/strict';
import { test } from 'node:test';
import { edgeContext, edgeContextAt } from './canonical.ts';
import { Ctx } from './state.ts';

test('code within 32 MiB of the last canonical address of 48 and of 57 bits, and of the first negative one, is beside the edge', () => {
  const near = 1n << 25n;
  for (const bits of [47n, 56n]) {
    const end = 1n << bits;
    for (const address of [end - 1n, end - near, -end, -end + near - 1n])
      assert.equal(edgeContext(address), Ctx.limited, `${address}`);
    for (const address of [end, end - near - 1n, -end - 1n, -end + near]) assert.equal(edgeContext(address), 0, `${address}`);
  }
  for (const address of [0n, -1n, near, -near, 1n << 32n, 0x7fffn << 32n, -0x80000000n]) assert.equal(edgeContext(address), 0);
});

test('an address in two halves tells the same, whether its lower one is signed or not', () => {
  assert.equal(edgeContextAt(0xfe000000 | 0, 0x7fff), Ctx.limited);
  assert.equal(edgeContextAt(0xfe000000, 0x7fff), Ctx.limited);
  assert.equal(edgeContextAt(0x01ffffff, ~0x7fff), Ctx.limited);
  assert.equal(edgeContextAt(0x02000000, ~0x7fff), 0);
});
