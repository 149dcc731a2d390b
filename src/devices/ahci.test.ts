import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../bus/memory.ts';
import { Ahci } from './ahci.ts';
import { readsAtOnce } from './ahci-at-once.ts';
import { AhciIo } from './ahci-io.ts';
import { AtaDevice } from './ata/device.ts';
import { fill } from './scsi/perform.ts';
import { memoryStore } from './scsi/testing.ts';
import { testBoard, wire } from './testing.ts';

const RAM = 1 << 20;
const LIST = 0x1000;
const FIS = 0x2000;
const TABLE = 0x3000;
const BASE = 0xf000_0000;

/** A disk at port 0 and a CD-ROM at port 1, both started. `lies` bytes of the disk are where they can be read at once. */
function rig(lies = 0) {
  const b = testBoard();
  const bytes = new Uint8Array(new SharedArrayBuffer(RAM));
  const memory = new Ram(bytes.buffer, [{ gpa: 0, length: RAM, offset: 0 }]);
  const view = new DataView(bytes.buffer);
  const irq = wire();
  const disk = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i >> 9) ^ (i * 5));
  const cd = Uint8Array.from({ length: 2048 * 64 }, (_, i) => (i >> 11) + i);
  const stores = [memoryStore(disk), memoryStore(cd, true)];
  let io: AhciIo | undefined;
  /** Port 0's PxCMD as whoever hears the bell at once sees it. */
  const heard: number[] = [];
  const ring = (): void => {
    heard.push(ahci.s.ports[0]!.cmd);
    queueMicrotask(() => io?.serve());
  };
  const ahci: Ahci = new Ahci({ arena: b.arena, name: 'ahci', irq, ring, atOnce: (n, bits) => atOnce(n, bits) });
  const atOnce = readsAtOnce(ahci, memory, (n) => ({
    read(offset, length, pieces) {
      const to = offset + length <= lies ? pieces() : undefined;
      if (to) fill(to, [disk, cd][n]!.subarray(offset, offset + length));
      return to !== undefined;
    },
  }));
  for (const n of [0, 1] as const) {
    const kind = n === 0 ? 'disk' : 'cdrom';
    const ids = { model: 'QEMU', serial: `QM${n}`, version: '2.5+', discard: true, ncq: true };
    ahci.devices[n] = new AtaDevice({ arena: b.arena, name: `d${n}`, kind, ...ids, medium: () => stores[n] });
    ahci.devices[n].reset();
    if (ahci.devices[n].packet) ahci.devices[n].packet.s.attention = 0;
  }
  io = new AhciIo({ ahci, lock: b.lock, memory, store: (n) => stores[n] });
  b.mmio.map(BASE, 0x1000, ahci.handler, 'ahci');
  ahci.reset();
  const write = (offset: number, value: number) => b.mmio.write(BASE + offset, 4, value >>> 0);
  const read = (offset: number) => b.mmio.read(BASE + offset, 4);
  const settle = async () => {
    await new Promise((r) => setImmediate(r));
    await io.drain();
  };
  write(0x04, 2);
  for (const n of [0, 1]) {
    const port = 0x100 + 0x80 * n;
    write(port, LIST);
    write(port + 8, FIS);
    write(port + 0x14, 0xffff_ffff);
    write(port + 0x18, 0x11);
  }
  return {
    ...{ bytes, view, ahci, io, irq, disk, cd, write, read, settle, heard },
    /** Puts a command into slot 0 of a port and waits for its end. */
    async command(
      n: number,
      o: {
        command: number;
        feature?: number;
        count?: number;
        lba?: number;
        write?: boolean;
        packet?: number[];
        regions?: [number, number][];
      },
    ) {
      const { command, feature = 0, count = 0, lba = 0, packet, regions = [] } = o;
      view.setUint32(LIST, 5 | (o.write ? 0x40 : 0) | (packet ? 0x20 : 0) | (regions.length << 16), true);
      view.setUint32(LIST + 8, TABLE, true);
      bytes.fill(0, TABLE, TABLE + 0x100);
      bytes.set([0x27, 0x80, command, feature & 0xff, lba & 0xff, (lba >> 8) & 0xff, (lba >> 16) & 0xff, 0x40], TABLE);
      bytes.set([0, 0, 0, feature >> 8, count & 0xff, count >> 8], TABLE + 8);
      bytes.set(packet ?? [], TABLE + 0x40);
      regions.forEach(([gpa, length], i) => {
        view.setUint32(TABLE + 0x80 + 16 * i, gpa, true);
        view.setUint32(TABLE + 0x8c + 16 * i, length - 1, true);
      });
      if (command === 0x60 || command === 0x61) write(0x134 + 0x80 * n, 1);
      write(0x138 + 0x80 * n, 1);
      await settle();
      assert.equal(read(0x138 + 0x80 * n), 0, 'the slot is free again');
      return read(0x120 + 0x80 * n);
    },
  };
}

test('ports show what is there, and commands end in a register FIS and an interrupt', async () => {
  const r = rig();
  assert.deepEqual([r.read(0x128), r.read(0x1a8), r.read(0x228)], [0x113, 0x113, 0]);
  assert.deepEqual([r.read(0x124), r.read(0x1a4)], [0x101, 0xeb14_0101]);
  assert.equal(await r.command(0, { command: 0xec, regions: [[0x8000, 512]] }), 0x50);
  assert.equal(r.view.getUint32(0x8000 + 120, true), 2048);
  assert.equal(r.bytes[FIS + 0x40], 0x34);
  assert.equal(r.bytes[FIS + 0x20], 0x5f);
  assert.equal(r.irq.level, 1);
  r.write(0x110, 0xffff_ffff);
  r.write(0x08, 0xffff_ffff);
  assert.equal(r.irq.level, 0);
  assert.equal((await r.command(0, { command: 0x25, lba: 2048, count: 1, regions: [[0x8000, 512]] })) & 1, 1);
  assert.ok(r.read(0x110) & 0x4000_0000, 'an error is told as such');
});

test('reads and writes go by their region tables, queued or not', async () => {
  const r = rig();
  const regions: [number, number][] = [
    [0x8000, 512],
    [0xa000, 1536],
  ];
  assert.equal(await r.command(0, { command: 0x25, lba: 5, count: 4, regions }), 0x50);
  assert.deepEqual(r.bytes.slice(0x8000, 0x8200), r.disk.slice(2560, 3072));
  assert.deepEqual(r.bytes.slice(0xa000, 0xa600), r.disk.slice(3072, 4608));
  assert.equal(r.view.getUint32(LIST + 4, true), 2048, 'bytes that were moved');
  r.bytes.fill(0x33, 0x8000, 0x8200);
  assert.equal(await r.command(0, { command: 0x61, feature: 1, lba: 9, write: true, regions: [[0x8000, 512]] }), 0x40);
  assert.ok(r.disk.slice(4608, 5120).every((byte) => byte === 0x33));
  assert.equal(r.read(0x134), 0);
  assert.deepEqual([r.bytes[FIS + 0x58], r.bytes[FIS + 0x5c]], [0xa1, 1]);
});

test('queued reads of what lies near are over when they were issued, all else is left to the I/O thread', async () => {
  const r = rig(8192);
  const heads = (slot: number, table: number, regions: number): void => {
    r.view.setUint32(LIST + 32 * slot, 5 | (regions << 16), true);
    r.view.setUint32(LIST + 32 * slot + 8, table, true);
  };
  /** A command for a slot, with one region. */
  const put = (slot: number, command: number, lba: number, sectors: number, gpa: number, room = sectors * 512): void => {
    const table = TABLE + 0x100 * slot;
    heads(slot, table, 1);
    r.bytes.fill(0, table, table + 0x100);
    r.bytes.set([0x27, 0x80, command, sectors, lba & 0xff, lba >> 8, 0, 0x40], table);
    r.bytes.set([0, 0, 0, 0, slot << 3], table + 8);
    r.view.setUint32(table + 0x80, gpa, true);
    r.view.setUint32(table + 0x8c, room - 1, true);
  };
  const issue = (bits: number): number => {
    r.heard.length = 0;
    r.write(0x134, bits);
    r.write(0x138, bits);
    return r.read(0x134);
  };
  put(0, 0x60, 2, 4, 0x8000);
  put(5, 0x60, 8, 8, 0x9000);
  assert.equal(issue(0x21), 0);
  assert.deepEqual([r.read(0x138), r.heard.length, r.irq.level], [0, 0, 1]);
  assert.deepEqual(r.bytes.slice(0x8000, 0x8800), r.disk.slice(1024, 3072));
  assert.deepEqual(r.bytes.slice(0x9000, 0xa000), r.disk.slice(4096, 8192));
  assert.deepEqual([...r.bytes.slice(FIS + 0x58, FIS + 0x60)], [0xa1, 0x40, 0x40, 0, 0x20, 0, 0, 0]);
  // Far away, a write, memory that is too small, and a near one behind: they come by the I/O thread.
  put(1, 0x60, 100, 4, 0x8000);
  put(2, 0x60, 2, 4, 0xa000);
  assert.equal(issue(6), 6);
  assert.equal(r.heard.length, 1);
  await r.settle();
  assert.deepEqual([r.read(0x134), r.read(0x138)], [0, 0]);
  assert.deepEqual(r.bytes.slice(0x8000, 0x8800), r.disk.slice(51200, 53248));
  assert.deepEqual(r.bytes.slice(0xa000, 0xa800), r.disk.slice(1024, 3072));
  put(3, 0x61, 2, 1, 0x8000);
  assert.equal(issue(8), 8);
  await r.settle();
  assert.deepEqual(r.disk.slice(1024, 1536), r.bytes.slice(0x8000, 0x8200));
  put(4, 0x60, 2, 4, 0x8000, 512);
  assert.equal(issue(16), 16);
  await r.settle();
  assert.equal(r.read(0x120) & 1, 1);
});

test('packets reach the CD-ROM', async () => {
  const r = rig();
  const status = await r.command(1, {
    command: 0xa0,
    feature: 1,
    packet: [0x28, 0, 0, 0, 0, 3, 0, 0, 2],
    regions: [[0x8000, 4096]],
  });
  assert.equal(status, 0x50);
  assert.deepEqual(r.bytes.slice(0x8000, 0x9000), r.cd.slice(3 * 2048, 5 * 2048));
  assert.equal(
    await r.command(1, { command: 0xa0, feature: 1, packet: [0x28, 0, 0, 0, 0, 9, 0, 0, 0], regions: [[0x8000, 4096]] }),
    0x50,
  );
  assert.equal((await r.command(1, { command: 0xa0, packet: [0xff] })) & 0xf001, 0x5001);
});

test('a port that is stopped runs until nothing is under way', async () => {
  const r = rig();
  r.write(0x118, 0x10);
  assert.equal(r.read(0x118) & 0xc001, 0xc000);
  await r.settle();
  await r.settle();
  assert.equal(r.read(0x118) & 0x8000, 0);
});

test('no tables and registers make a controller throw or hang', async () => {
  let seed = 20260404;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % n;
  };
  const r = rig();
  for (let i = 0; i < 4000; i++) {
    switch (random(7)) {
      case 0:
        r.write(0x100 + 0x80 * random(3) + 4 * random(16), random(2) ? random(2 ** 24) : random(64));
        break;
      case 1:
        r.read(random(0x400) * 4);
        break;
      case 2:
        r.view.setUint32(LIST + 4 * random(64), random(3) ? random(0x4000) : random(2 ** 24) * 256, true);
        break;
      case 3:
        r.view.setUint32(TABLE + 4 * random(128), random(3) ? random(0x10000) : random(2 ** 24) * 256, true);
        r.bytes.set([0x27, 0x80, [0x25, 0x35, 0x60, 0x61, 0xa0, 0xec, 0x06][random(7)]!], TABLE);
        break;
      case 4:
        r.view.setUint32(LIST + 8, TABLE, true);
        r.write(0x118 + 0x80 * random(2), 0x11);
        r.write(0x138 + 0x80 * random(2), random(16));
        break;
      default:
        if (random(3) === 0) await r.settle();
    }
  }
  await r.settle();
  r.write(0x04, 3);
  assert.equal(r.read(0x128), 0x113);
});

test('a port that is being stopped rings when its register says so, and then says that it has stopped', async () => {
  const { write, read, heard, settle } = rig();
  heard.length = 0;
  write(0x118, 0x10);
  assert.deepEqual(
    heard.map((cmd) => cmd & 0x8001),
    [0x8000],
  );
  await settle();
  assert.equal(read(0x118) & 0x8001, 0);
});

test('reads by DMA and of packets are carried out when they are issued, where their bytes are at hand', async () => {
  const r = rig(1 << 16);
  const run = async (n: number, o: Parameters<typeof r.command>[1]): Promise<boolean> => {
    r.heard.length = 0;
    assert.equal((await r.command(n, o)) & 1, 0);
    assert.equal(
      r.view.getUint32(LIST + 4, true),
      o.regions!.reduce((sum, [, length]) => sum + length, 0),
      'bytes that moved',
    );
    assert.equal(r.bytes[FIS + 0x40], 0x34);
    return r.heard.length === 0;
  };
  const regions: [number, number][] = [
    [0x8000, 1024],
    [0xa000, 3072],
  ];
  for (const command of [0x25, 0xc8, 0x24]) {
    r.bytes.fill(0, 0x8000, 0xb000);
    assert.equal(await run(0, { command, lba: 5, count: 8, regions }), true);
    assert.deepEqual(r.bytes.slice(0x8000, 0x8400), r.disk.slice(2560, 3584));
    assert.deepEqual(r.bytes.slice(0xa000, 0xac00), r.disk.slice(3584, 2560 + 4096));
    assert.equal(await run(0, { command, lba: 200, count: 8, regions }), false, 'not at hand');
    assert.deepEqual(r.bytes.slice(0x8000, 0x8400), r.disk.slice(200 * 512, 202 * 512));
  }
  const packet = [0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0];
  for (const feature of [1, 0]) {
    r.bytes.fill(0, 0x8000, 0xb000);
    assert.equal(await run(1, { command: 0xa0, feature, packet, regions }), true);
    assert.deepEqual(r.bytes.slice(0xa000, 0xac00), r.cd.slice(3 * 2048 + 1024, 5 * 2048));
  }
  r.ahci.devices[1]!.packet!.s.attention = 2;
  assert.equal((await r.command(1, { command: 0xa0, feature: 1, packet, regions })) & 1, 1, 'another medium is told first');
});
