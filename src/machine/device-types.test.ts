import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allDeviceTypes, findDeviceType } from './device-types.ts';

test('a type is found by its name and its aliases, and no two have the same', () => {
  const names = new Set<string>();
  for (const type of allDeviceTypes())
    for (const name of [type.name, ...(type.aliases ?? [])]) {
      assert.equal(findDeviceType(name), type, name);
      assert.ok(!names.has(name), name);
      names.add(name);
    }
});

test('what only looks like a type is none', () => {
  for (const name of ['', 'usb', 'virtio-blk', 'ide-', 'isa-serial2', 'toString'])
    assert.equal(findDeviceType(name), undefined, name);
});
