// Places of modules, and refusals in the words of QEMU 7.2, which was asked the same by QMP.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dimmSpace, placeDimm } from './dimms.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const any = { addr: 0, slot: -1, node: 0 };

test('a module gets the first slot and address that are free', () => {
  const space = { slots: 3, base: 4 * GIB, bytes: 2 * GIB, nodes: 1 };
  const at = (offset: number, size: number, slot: number) => ({ addr: 4 * GIB + offset * MIB, size: size * MIB, slot, node: 0 });
  const place = (others: readonly ReturnType<typeof at>[], size: number) => {
    const { addr, slot } = placeDimm(space, others, { ...any, size: size * MIB });
    return [(addr - 4 * GIB) / MIB, slot];
  };
  assert.deepEqual(place([], 128), [0, 0]);
  assert.deepEqual(place([at(0, 128, 0)], 256), [128, 1]);
  // The hole is too small for it.
  assert.deepEqual(place([at(0, 128, 2), at(256, 128, 0)], 256), [384, 1]);
  assert.deepEqual(place([at(0, 128, 2), at(256, 128, 0)], 128), [128, 1]);
  assert.throws(() => place([at(512, 1024, 0)], 1024), /memory fragmented/);
  assert.throws(() => place([at(0, 2, 0), at(2, 2, 1), at(4, 2, 2)], 2), /^Error: no free slots available$/);
});

test('memory comes at the next GiB behind what the machine has', () => {
  const base = (memory: number) => dimmSpace({ memory, memoryHotplug: { slots: 1, bytes: GIB } })?.base;
  assert.deepEqual([base(512 * MIB), base(2 * GIB), base(2 * GIB + MIB), base(3 * GIB)], [4 * GIB, 4 * GIB, 5 * GIB, 5 * GIB]);
  assert.equal(dimmSpace({ memory: GIB }), undefined);
});

test('what cannot be is refused as QEMU does', () => {
  const space = { slots: 2, base: 4 * GIB, bytes: 512 * MIB, nodes: 1 };
  const there = [{ addr: 4 * GIB, size: 128 * MIB, slot: 0, node: 0, id: 'd' }];
  const refusal = (wish: object) => {
    try {
      return placeDimm(space, there, { ...any, size: 128 * MIB, ...wish });
    } catch (error) {
      return (error as Error).message;
    }
  };
  assert.throws(
    () => placeDimm(undefined, [], { ...any, size: MIB }),
    /no slots where allocated, please specify the 'slots' option/,
  );
  assert.equal(refusal({ size: 129 * MIB }), 'backend memory size must be multiple of 0x200000');
  assert.equal(
    refusal({ size: GIB }),
    'not enough space, currently 0x8000000 in use of total space for memory devices 0x20000000',
  );
  assert.equal(refusal({ slot: 7 }), 'invalid slot number 7, valid range is [0-1]');
  assert.equal(refusal({ slot: -2 }), 'invalid slot number -2, valid range is [0-1]');
  assert.equal(refusal({ slot: 0 }), 'slot 0 is busy');
  assert.equal(refusal({ node: 3 }), "'DIMM property node has value 3' which exceeds the number of numa nodes: 1");
  assert.equal(refusal({ addr: 4 * GIB + 4096 }), 'address must be aligned to 0x200000 bytes');
  assert.equal(refusal({ addr: 4 * GIB + 64 * MIB }), "address range conflicts with memory device id='d'");
  for (const addr of [2 * MIB, 4 * GIB + 448 * MIB, 2 ** 52]) assert.match(String(refusal({ addr })), /^can't add memory device/);
});
