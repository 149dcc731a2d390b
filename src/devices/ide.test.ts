import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../bus/memory.ts';
import { AtaDevice } from './ata/device.ts';
import { IdeChannel } from './ide.ts';
import { readsAtOnce } from './ide-at-once.ts';
import { IdeIo } from './ide-io.ts';
import { fill } from './scsi/perform.ts';
import { memoryStore } from './scsi/testing.ts';
import { testBoard, wire } from './testing.ts';

/** A channel with a disk as master and a CD-ROM as slave; with `near`, all of both can be read at once. */
function rigOf(near: boolean) {
  const b = testBoard();
  const ram = new SharedArrayBuffer(1 << 20);
  const memory = new Ram(ram, [{ gpa: 0, length: 1 << 20, offset: 0 }]);
  const irq = wire();
  const disk = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i >> 9) ^ i);
  const cd = Uint8Array.from({ length: 2048 * 64 }, (_, i) => (i >> 11) + i);
  const stores = [memoryStore(disk), memoryStore(cd, true)];
  let io: IdeIo | undefined;
  let rings = 0;
  const ring = (): void => {
    rings++;
    queueMicrotask(() => io?.serve());
  };
  const channel: IdeChannel = new IdeChannel({ arena: b.arena, name: 'ide', irq, ring, atOnce: (what) => near && atOnce(what) });
  const atOnce = readsAtOnce(channel, memory, (unit) => {
    const bytes = [disk, cd][unit]!;
    return {
      has: (offset, length) => offset + length <= bytes.length,
      some: () => true,
      read(offset, length, pieces) {
        const to = offset + length <= bytes.length ? pieces() : undefined;
        if (to) fill(to, bytes.subarray(offset, offset + length));
        return to !== undefined;
      },
    };
  });
  const device = (kind: 'disk' | 'cdrom', n: 0 | 1) =>
    new AtaDevice({
      arena: b.arena,
      name: `d${n}`,
      kind,
      model: kind === 'disk' ? 'QEMU HARDDISK' : 'QEMU DVD-ROM',
      serial: `QM0000${n}`,
      version: '2.5+',
      discard: true,
      ncq: false,
      medium: () => stores[n],
    });
  const drives = [device('disk', 0), device('cdrom', 1)];
  channel.add(0, drives[0]!);
  channel.add(1, drives[1]!);
  io = new IdeIo({ channel, lock: b.lock, memory, store: (n) => stores[n] });
  b.ports.map(0x1f0, 8, channel.commandBlock, 'ide');
  b.ports.map(0x3f6, 1, channel.controlBlock, 'control');
  b.ports.map(0xc000, 8, channel.busMaster, 'bm');
  channel.reset();
  for (const d of drives) d.reset();
  if (drives[1]!.packet) drives[1]!.packet.s.attention = 0;
  const idle = async () => {
    for (let i = 0; i < 1000 && channel.s.status[channel.unit]! & 0x80; i++) await new Promise((r) => setImmediate(r));
    assert.equal(channel.s.status[channel.unit]! & 0x80, 0, 'the drive is busy for ever');
  };
  return {
    ...{ ...b, channel, io, irq, disk, cd, ram: new Uint8Array(ram), drives, idle },
    /** How often the I/O thread was asked since the last time. */
    rings(): number {
      const n = rings;
      rings = 0;
      return n;
    },
    async settle() {
      await new Promise((r) => setImmediate(r));
      await io?.drain();
    },
    /** Issues a command with its registers from 1F2 on. */
    async command(command: number, o: { unit?: number; feature?: number; count?: number; lba?: number; wide?: boolean } = {}) {
      const { unit = 0, feature = 0, count = 0, lba = 0, wide = false } = o;
      b.out(0x1f6, 0xe0 | (unit << 4) | (wide ? 0 : (lba >>> 24) & 15));
      if (wide) {
        b.out(0x1f1, feature >>> 8);
        b.out(0x1f2, count >>> 8);
        for (let i = 0; i < 3; i++) b.out(0x1f3 + i, Math.floor(lba / 2 ** (24 + 8 * i)) & 0xff);
      }
      b.out(0x1f1, feature & 0xff);
      b.out(0x1f2, count & 0xff);
      for (let i = 0; i < 3; i++) b.out(0x1f3 + i, (lba >>> (8 * i)) & 0xff);
      b.out(0x1f7, command);
      await idle();
    },
    /** Reads blocks by PIO until the drive asks for no more. */
    async pioIn(): Promise<number[]> {
      const bytes: number[] = [];
      while (b.in(0x3f6) & 8 && bytes.length < 1 << 20) {
        const word = b.ports.read(0x1f0, 2);
        bytes.push(word & 0xff, word >>> 8);
        await idle();
      }
      return bytes;
    },
    async pioOut(bytes: Uint8Array): Promise<void> {
      for (let i = 0; i < bytes.length; i += 2) {
        b.ports.write(0x1f0, 2, bytes[i]! | (bytes[i + 1]! << 8));
        await idle();
      }
    },
  };
}

for (const near of [false, true]) {
  const rig = () => rigOf(near);
  const how = near ? ', with its reads at once' : '';

  test(`a disk identifies itself, an ATAPI drive shows its signature instead${how}`, async () => {
    const r = rig();
    await r.command(0xec);
    assert.equal(r.irq.level, 1);
    const id = Uint8Array.from(await r.pioIn());
    assert.equal(id.length, 512);
    assert.equal(id.reduce((sum, byte) => sum + byte, 0) & 0xff, 0, 'checksum');
    assert.equal(new DataView(id.buffer).getUint32(120, true), 2048);
    r.in(0x1f7);
    assert.equal(r.irq.level, 0);
    await r.command(0xec, { unit: 1 });
    assert.deepEqual([r.in(0x1f7) & 1, r.in(0x1f1), r.in(0x1f4), r.in(0x1f5)], [1, 4, 0x14, 0xeb]);
  });

  test(`sectors are read and written by PIO, also many and with 48-bit addresses${how}`, async () => {
    const r = rig();
    await r.command(0x20, { lba: 3, count: 2 });
    assert.deepEqual(Uint8Array.from(await r.pioIn()), r.disk.slice(1536, 2560));
    await r.command(0xc4, { lba: 8, count: 33 });
    assert.deepEqual(Uint8Array.from(await r.pioIn()), r.disk.slice(8 * 512, 41 * 512));
    await r.command(0x24, { lba: 100, count: 300, wide: true });
    assert.deepEqual(Uint8Array.from(await r.pioIn()), r.disk.slice(100 * 512, 400 * 512));
    const data = Uint8Array.from({ length: 200 * 512 }, (_, i) => i * 3);
    await r.command(0x30, { lba: 1000, count: 200 });
    await r.pioOut(data);
    assert.equal(r.in(0x1f7) & 0xc9, 0x40);
    assert.deepEqual(r.disk.slice(1000 * 512, 1200 * 512), data);
    await r.command(0x20, { lba: 2047, count: 2 });
    assert.equal(r.in(0x1f7) & 1, 1, 'past the end is an error');
  });

  test(`DMA goes to the regions of the table, and tells of its end${how}`, async () => {
    const r = rig();
    const view = new DataView(r.ram.buffer);
    for (const [i, [address, length]] of [
      [0x5000, 1024],
      [0x8000, 512],
      [0x9001, 512],
    ].entries()) {
      view.setUint32(0x1000 + 8 * i, address!, true);
      view.setUint32(0x1004 + 8 * i, length! | (i === 2 ? 0x8000_0000 : 0), true);
    }
    r.ports.write(0xc004, 4, 0x1000);
    await r.command(0xc8, { lba: 7, count: 4 });
    assert.equal(r.irq.level, 0);
    r.out(0xc000, 9);
    await r.settle();
    assert.deepEqual([r.in(0xc002) & 7, r.irq.level], [4, 1]);
    assert.deepEqual(r.ram.slice(0x5000, 0x5400), r.disk.slice(3584, 4608));
    assert.deepEqual(r.ram.slice(0x8000, 0x8200), r.disk.slice(4608, 5120));
    r.out(0xc000, 0);
    r.out(0xc002, 6);
    r.ram.fill(0x77, 0x5000, 0x5400);
    await r.command(0x35, { lba: 20, count: 2, wide: true });
    r.out(0xc000, 1);
    await r.settle();
    assert.ok(r.disk.slice(20 * 512, 22 * 512).every((byte) => byte === 0x77));
    assert.equal(r.in(0xc002) & 1, 1, 'a table that goes on leaves the bus master active');
  });

  test(`packets are carried by PIO in the pieces that the guest asks for, and by DMA${how}`, async () => {
    const r = rig();
    const packet = (...bytes: number[]) => Uint8Array.from({ length: 12 }, (_, i) => bytes[i] ?? 0);
    await r.command(0xa0, { unit: 1, lba: 0x0800 << 8 });
    assert.deepEqual([r.in(0x3f6) & 8, r.in(0x1f2)], [8, 1]);
    await r.pioOut(packet(0x28, 0, 0, 0, 0, 2, 0, 0, 40));
    assert.deepEqual([r.in(0x1f2), r.in(0x1f4), r.in(0x1f5)], [2, 0, 8]);
    assert.deepEqual(Uint8Array.from(await r.pioIn()), r.cd.slice(2 * 2048, 42 * 2048));
    assert.deepEqual([r.in(0x1f2), r.in(0x1f7)], [3, 0x50]);
    await r.command(0xa0, { unit: 1, lba: 0xffff << 8 });
    await r.pioOut(packet(0x28, 0, 0, 0, 0, 63, 0, 0, 2));
    assert.deepEqual([r.in(0x1f7) & 1, r.in(0x1f1) >> 4], [1, 5]);
    const view = new DataView(r.ram.buffer);
    view.setUint32(0x1000, 0x5000, true);
    view.setUint32(0x1004, 0x8000_0800, true);
    r.ports.write(0xc004, 4, 0x1000);
    await r.command(0xa0, { unit: 1, feature: 1 });
    await r.pioOut(packet(0x28, 0, 0, 0, 0, 1, 0, 0, 1));
    r.out(0xc000, 9);
    await r.settle();
    assert.deepEqual(r.ram.slice(0x5000, 0x5800), r.cd.slice(2048, 4096));
  });

  test(`a packet that waits for the bus master goes on in a machine that takes the state over${how}`, async () => {
    for (const [cdb, expected] of [
      [[0x28, 0, 0, 0, 0, 3, 0, 0, 1], (r: ReturnType<typeof rig>) => r.cd.slice(3 * 2048, 4 * 2048)],
      [[0x25], () => Uint8Array.of(0, 0, 0, 63, 0, 0, 8, 0)],
    ] as const) {
      const first = rig();
      await first.command(0xa0, { unit: 1, feature: 1 });
      await first.pioOut(Uint8Array.from({ length: 12 }, (_, i) => cdb[i] ?? 0));
      await first.settle();
      const r = rig();
      r.arena.restore(first.arena.save());
      new DataView(r.ram.buffer).setUint32(0x1000, 0x5000, true);
      new DataView(r.ram.buffer).setUint32(0x1004, 0x8000_0800, true);
      r.ports.write(0xc004, 4, 0x1000);
      r.out(0xc000, 9);
      await r.settle();
      const data = expected(r);
      assert.deepEqual(r.ram.slice(0x5000, 0x5000 + data.length), data);
      assert.equal(r.in(0x1f7), 0x50);
    }
  });

  test(`a reset in the middle of a transfer is a reset${how}`, async () => {
    const r = rig();
    await r.command(0x20, { lba: 3, count: 200 });
    r.ports.read(0x1f0, 4);
    r.out(0x3f6, 4);
    assert.equal(r.in(0x1f7), 0x90);
    r.out(0x3f6, 0);
    await r.settle();
    assert.deepEqual([r.in(0x1f7), r.in(0x1f2), r.in(0x1f3), r.in(0x1f4)], [0x50, 1, 1, 0]);
  });

  test(`no sequence of accesses makes a channel throw, hang, or leave memory and media${how}`, async () => {
    let seed = 20260202;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return (seed >>> 8) % n;
    };
    const r = rig();
    const interesting = [0x20, 0x24, 0x25, 0x30, 0x35, 0x06, 0xa0, 0xa1, 0xec, 0xc4, 0xc5, 0xc8, 0xca, 0xef, 0xb0, 0x90, 0x08];
    for (let i = 0; i < 20_000; i++) {
      const value = random(2) ? random(256) : random(8);
      const size = [1, 2, 4][random(3)]!;
      switch (random(8)) {
        case 0:
          r.out(0x1f7, random(3) ? interesting[random(interesting.length)]! : value);
          break;
        case 1:
          r.ports.write(0x1f1 + random(6), 1, value);
          break;
        case 2:
          r.ports.write(0x1f0, size, random(65536));
          break;
        case 3:
          r.ports.read(0x1f0 + random(8), size);
          break;
        case 4:
          r.ports.write(0xc000 + random(8), random(2) ? 1 : 4, random(4) ? value : 0xfff8 * random(20));
          break;
        case 5:
          if (random(40) === 0) r.out(0x3f6, value & 6);
          break;
        case 6:
          r.ram[random(1 << 20)] = value;
          break;
        default:
          await new Promise((resolve) => setImmediate(resolve));
      }
    }
    r.out(0x3f6, 4);
    r.out(0x3f6, 0);
    await r.settle();
    await r.idle();
    await r.command(0xec);
    assert.equal((await r.pioIn()).length, 512, `seed 20260202`);
  });
}

test('what can be read at once is, by PIO and DMA, of disks and of packets, and nothing else', async () => {
  const r = rigOf(true);
  const table = new DataView(r.ram.buffer);
  table.setUint32(0x1000, 0x5000, true);
  table.setUint32(0x1004, 0x8000_0000 | 8192, true);
  r.ports.write(0xc004, 4, 0x1000);
  const dma = (): void => {
    r.out(0xc000, 9);
    r.out(0xc000, 0);
  };
  await r.command(0xc8, { lba: 5, count: 16 });
  dma();
  assert.deepEqual(r.ram.slice(0x5000, 0x7000), r.disk.slice(5 * 512, 21 * 512));
  assert.deepEqual([r.in(0xc002) & 7, r.in(0x1f7), r.irq.level], [4, 0x50, 0]);
  await r.command(0x25, { lba: 9, count: 16, wide: true });
  dma();
  assert.deepEqual(r.ram.slice(0x5000, 0x7000), r.disk.slice(9 * 512, 25 * 512));
  await r.command(0x24, { lba: 0, count: 300, wide: true });
  assert.deepEqual(Uint8Array.from(await r.pioIn()), r.disk.slice(0, 300 * 512));
  for (const feature of [0, 1]) {
    await r.command(0xa0, { unit: 1, feature, lba: 0x0800_00 });
    await r.pioOut(Uint8Array.of(0x28, 0, 0, 0, 0, 3, 0, 0, 4, 0, 0, 0));
    if (feature) dma();
    const bytes = feature ? r.ram.slice(0x5000, 0x7000) : Uint8Array.from(await r.pioIn());
    assert.deepEqual(bytes, r.cd.slice(3 * 2048, 7 * 2048));
    assert.equal(r.in(0x1f2) & 7, 3);
  }
  assert.equal(r.rings(), 0);
  await r.command(0xc8, { lba: 2047, count: 2 });
  assert.equal(r.in(0x1f7) & 1, 1, 'past the end is an error');
  assert.equal(r.rings(), 1);
});
