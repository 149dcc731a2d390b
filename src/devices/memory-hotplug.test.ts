// What the methods of the DSDT read and write, call by call.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { MemoryHotplug, type MemoryModule } from './memory-hotplug.ts';

test('the ports tell of modules that come and go', () => {
  const told: unknown[] = [];
  const modules = new Map<number, MemoryModule>([[2, { addr: 0x1_4800_0000, size: 0x1_0800_0000, node: 3 }]]);
  const hotplug = new MemoryHotplug({
    arena: new Arena(new SharedArrayBuffer(8192), 0, 8192),
    slots: 4,
    inSlot: (slot) => modules.get(slot),
    gpe: (n) => told.push(['gpe', n]),
    eject: (slot) => told.push(['eject', slot]),
    ost: (...all) => told.push(['ost', ...all]),
  });
  const { read, write } = hotplug.handler;
  const fields = () => [0, 4, 8, 0xc, 0x10, 0x14].map((at) => read(at, 4));
  assert.deepEqual(fields(), [0, 0, 0, 0, 0, 0]);
  hotplug.plugged(2);
  write(0, 4, 2);
  assert.deepEqual(fields(), [0x4800_0000, 1, 0x0800_0000, 1, 3, 3]);
  write(0x14, 1, 2);
  assert.equal(read(0x14, 1), 1);
  write(4, 4, 1);
  write(8, 4, 0);
  hotplug.request(2);
  assert.equal(read(0x14, 1), 5);
  write(0x14, 1, 4);
  write(0x14, 1, 8);
  // An empty slot cannot be ejected, and there is nothing behind the last one.
  write(0, 4, 1);
  write(0x14, 1, 8);
  for (const slot of [4, 0xffff_ffff]) {
    write(0, 4, slot);
    write(8, 4, 0);
    write(0x14, 1, 8);
    assert.deepEqual(fields(), [0, 0, 0, 0, 0, 0]);
  }
  assert.deepEqual(told, [
    ['gpe', 3],
    ['ost', 2, 1, 0],
    ['gpe', 3],
    ['eject', 2],
  ]);
});
