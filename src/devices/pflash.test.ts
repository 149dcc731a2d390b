import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pflash } from './pflash.ts';
import { testBoard } from './testing.ts';

function rig(readOnly = false) {
  const b = testBoard();
  const buffer = new SharedArrayBuffer(1 << 16);
  const maps: string[] = [];
  let changes = 0;
  const flash = new Pflash({
    ...{ arena: b.arena, name: 'flash', buffer, host: 4096, length: 0x8000, base: 0xfff0_0000, readOnly },
    slot: { map: () => void maps.push('map'), unmap: () => void maps.push('unmap') },
    changed: () => {
      changes++;
    },
  });
  flash.bytes.fill(0xaa);
  flash.reset();
  const write = (offset: number, value: number, size = 1) => flash.handler.write(offset, size, value);
  return { flash, maps, write, read: (offset: number, size = 1) => flash.handler.read(offset, size), changes: () => changes };
}

test('firmware finds a flash chip where it looks for one', () => {
  const r = rig();
  r.write(0, 0x50);
  assert.equal(r.read(0), 0xaa);
  r.write(0, 0x70);
  assert.equal(r.read(0), 0, 'the status was cleared');
  r.write(0, 0xff);
  assert.deepEqual(r.maps.slice(-2), ['unmap', 'map']);
  r.write(0, 0x98);
  assert.equal(String.fromCharCode(r.read(0x10), r.read(0x11), r.read(0x12)), 'QRY');
  assert.equal(r.read(0x27), 15);
});

test('bytes are programmed, blocks erased and written through the buffer, and changes are told', () => {
  const r = rig();
  r.write(0x1234, 0x10);
  r.write(0x1234, 0x5a);
  assert.equal(r.read(0x1234), 0x80);
  r.write(0, 0xff);
  assert.equal(r.read(0x1234), 0x5a);
  assert.deepEqual(r.flash.takeDirty(), { from: 0x1234, to: 0x1235 });
  assert.equal(r.flash.takeDirty(), undefined);
  r.write(0x2000, 0x20);
  r.write(0x2000, 0xd0);
  r.write(0, 0xff);
  assert.equal(r.flash.bytes[0x2fff], 0xff);
  r.write(0x2100, 0xe8);
  r.write(0x2100, 3);
  [1, 2, 3, 4].forEach((v, i) => void r.write(0x2100 + i, v));
  r.write(0x2100, 0xd0);
  assert.deepEqual([...r.flash.bytes.slice(0x2100, 0x2105)], [1, 2, 3, 4, 0xff]);
  assert.ok(r.changes() >= 3);
});

test('a chip that is read-only keeps its contents', () => {
  const r = rig(true);
  r.write(0, 0x10);
  r.write(0, 0x5a);
  assert.equal(r.read(0) & 0x10, 0x10);
  r.write(0x1000, 0x20);
  r.write(0x1000, 0xd0);
  r.write(0, 0xff);
  assert.ok(r.flash.bytes.every((byte) => byte === 0xaa));
  assert.equal(r.flash.takeDirty(), undefined);
});

test('no sequence of cycles makes a chip throw or leave its memory', () => {
  let seed = 20260505;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % n;
  };
  const r = rig();
  const commands = [0x10, 0x20, 0x28, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xe8, 0xd0, 0xff, 0x01];
  for (let i = 0; i < 20_000; i++) {
    const size = [1, 2, 4][random(3)]!;
    const offset = random(0x8000 / size) * size;
    if (random(3)) r.write(offset, random(2) ? commands[random(commands.length)]! : random(65536), size);
    else r.read(offset, size);
  }
  r.write(0, 0xff);
  r.flash.reset();
  assert.equal(r.read(0), r.flash.bytes[0]);
});

test('a guarded chip takes commands from those that are trusted alone, and shows others its contents', () => {
  const r = rig();
  let trusted = false;
  const handler = r.flash.guarded(() => trusted);
  handler.write(0x100, 1, 0x40);
  handler.write(0x100, 1, 0x11);
  assert.equal(r.flash.bytes[0x100], 0xaa);
  assert.deepEqual(r.maps, ['map']);
  trusted = true;
  handler.write(0x100, 1, 0x40);
  handler.write(0x100, 1, 0x11);
  assert.equal(r.flash.bytes[0x100], 0x11);
  handler.write(0, 1, 0x70);
  assert.equal(handler.read(0, 1), 0x80);
  trusted = false;
  assert.equal(handler.read(0x100, 1), 0x11);
});
