import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../bus/memory.ts';
import { Dma } from './dma.ts';
import { Fdc } from './fdc.ts';
import { FdcIo, floppyFormat } from './fdc-io.ts';
import { testBoard, wire } from './testing.ts';

const BYTES = 1440 * 1024;

/** A controller with a 1.44M disk in its first drive, and a DMA controller. */
function rig() {
  const b = testBoard();
  const ram = new Uint8Array(new SharedArrayBuffer(1 << 20));
  const dma = new Dma({ arena: b.arena, memory: new Ram(ram.buffer, [{ gpa: 0, length: ram.length, offset: 0 }]) });
  dma.map(b.ports);
  const irq = wire();
  const disk = Uint8Array.from({ length: BYTES }, (_, i) => (i >>> 9) * 7 + i);
  let io: FdcIo | undefined;
  const fdc = new Fdc({ arena: b.arena, name: 'f', irq, ring: () => queueMicrotask(() => io?.serve()) });
  b.ports.map(0x3f1, 5, fdc.handler, 'fdc');
  b.ports.map(0x3f7, 1, fdc.rateHandler, 'fdc');
  const store = {
    read: async (at: number, into: Uint8Array) => into.set(disk.subarray(at, at + into.length)),
    write: async (at: number, from: Uint8Array) => disk.set(from, at),
  };
  io = new FdcIo(fdc, { lock: b.lock, dma: dma.channel(2), disk: (n) => (n === 0 ? store : undefined) });
  b.lock.run(() => {
    dma.reset();
    fdc.s.drives[0]!.kind = 4;
    fdc.insert(0, { ...floppyFormat(BYTES), readOnly: false });
    fdc.reset();
  });
  /** Sends a command; its result, once there is one. */
  const command = async (...bytes: readonly number[]): Promise<number[]> => {
    for (const byte of bytes) b.out(0x3f5, byte);
    await io.drain();
    await new Promise((r) => setImmediate(r));
    const result: number[] = [];
    while ((b.in(0x3f4) & 0x50) === 0x50) result.push(b.in(0x3f5));
    return result;
  };
  /** Channel 2: `count` bytes at `address`, to memory (4) or from it (8). */
  const channel = (address: number, count: number, way: 4 | 8): void => {
    b.out(0x0a, 6);
    b.out(0x0c, 0);
    b.out(0x0b, 0x42 | way);
    b.out(0x04, address & 0xff, (address >>> 8) & 0xff);
    b.out(0x81, address >>> 16);
    b.out(0x05, (count - 1) & 0xff, (count - 1) >>> 8);
    b.out(0x0a, 2);
  };
  return { ...b, ram, irq, disk, fdc, command, channel };
}

test('out of reset the controller tells of four drives, then has nothing to tell; what it is and was told reads as in QEMU', async () => {
  const { command, out, irq } = rig();
  out(0x3f2, 0);
  out(0x3f2, 0x0c);
  assert.equal(irq.level, 1);
  for (let n = 0; n < 4; n++) assert.deepEqual(await command(8), [0xc0 + n, 0]);
  assert.deepEqual(await command(8), [0x80]);
  assert.equal(irq.level, 0);
  assert.deepEqual(
    [await command(0x10), await command(0x18), await command(0x94), await command(0x14)],
    [[0x90], [0x41], [0x10], [0]],
  );
  assert.deepEqual([await command(3, 0xdf, 2), await command(4, 0), await command(0x1f)], [[], [0x38], [0x80]]);
  assert.deepEqual(
    [await command(7, 0), await command(8), await command(0x0f, 0, 10), await command(8)],
    [[], [0x20, 0], [], [0x20, 10]],
  );
  assert.deepEqual(await command(4, 0), [0x28]);
});

test('sectors come over DMA, over both heads where that is asked for, and go back', async () => {
  const { command, channel, ram, disk, irq } = rig();
  channel(0x1_2000, 1024, 4);
  assert.deepEqual(await command(0xe6, 0, 0, 0, 18, 2, 18, 0x1b, 0xff), [4, 0, 0, 0, 1, 2, 2]);
  assert.equal(irq.edges, 1);
  assert.deepEqual(ram.slice(0x1_2000, 0x1_2400), disk.slice(17 * 512, 19 * 512));
  ram.fill(0xa5, 0x2_0000, 0x2_0200);
  channel(0x2_0000, 512, 8);
  await command(0x0f, 0, 3);
  await command(8);
  assert.deepEqual(await command(0xc5, 0, 3, 0, 5, 2, 18, 0x1b, 0xff), [0, 0, 0, 3, 0, 6, 2]);
  assert.ok(disk.subarray(512 * (3 * 36 + 4), 512 * (3 * 36 + 5)).every((b) => b === 0xa5));
  channel(0x2_0000, 512, 4);
  assert.deepEqual((await command(0xe6, 0, 3, 0, 19, 2, 18, 0x1b, 0xff)).slice(0, 2), [0x40, 4], 'there is no sector 19');
  assert.deepEqual((await command(0xe6, 1, 0, 0, 1, 2, 18, 0x1b, 0xff)).slice(0, 2), [0x41, 1], 'nor a disk in the second drive');
});

test('a disk that is changed is told of until its drive has moved; a protected one is not written', async () => {
  const { command, channel, b, lock, fdc, disk } = { ...rig(), b: 0 };
  assert.equal(fdc.changeLine, 0x80);
  await command(7, 0);
  await command(8);
  assert.equal(fdc.changeLine, 0);
  lock.run(() => fdc.insert(0, { ...floppyFormat(BYTES), readOnly: true }));
  assert.equal(fdc.changeLine, 0x80);
  const before = disk.slice(0, 512);
  channel(0x2_0000, 512, 8);
  assert.deepEqual((await command(0xc5, 0, 0, 0, 1, 2, 18, 0x1b, 0xff)).slice(0, 2), [0x40, 2]);
  assert.deepEqual(disk.slice(0, 512), before);
  assert.equal(b, 0);
});

test('a track is formatted as its marks say', async () => {
  const { command, channel, ram, disk } = rig();
  for (let n = 0; n < 18; n++) ram.set([2, 0, n + 1, 2], 0x3_0000 + 4 * n);
  channel(0x3_0000, 72, 8);
  await command(0x0f, 0, 2);
  await command(8);
  assert.equal((await command(0x4d, 0, 2, 18, 0x54, 0xf6))[0], 0);
  assert.ok(disk.subarray(512 * 72, 512 * 90).every((x) => x === 0xf6));
  assert.notEqual(disk[512 * 90], 0xf6);
});

test('whatever a guest writes to the controllers, nothing throws and nothing runs without end', async () => {
  const { out, in: read, fdc } = rig();
  let x = 99;
  const next = (n: number): number => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((x / 2 ** 32) * n);
  };
  for (let i = 0; i < 6000; i++) {
    if (next(4) === 0) out(next(16), next(256));
    else if (next(6) === 0) out(0x3f2, next(3) ? 0x1c : next(256));
    else out(0x3f5, next(3) ? [6, 0xe6, 0xc5, 0x4d, 0x16, 0x4a, 0, 1, 2, 18][next(10)]! : next(256));
    if (next(3) === 0) read(0x3f1 + next(5));
    if (i % 16 === 0) await new Promise((r) => setImmediate(r));
  }
  assert.ok(fdc.s.length <= 16);
});
