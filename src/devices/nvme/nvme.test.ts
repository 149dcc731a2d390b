import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../../bus/memory.ts';
import { fill } from '../scsi/perform.ts';
import { memoryStore } from '../scsi/testing.ts';
import { testBoard, wire } from '../testing.ts';
import { readsAtOnce } from './at-once.ts';
import { Nvme } from './controller.ts';
import { NvmeIo } from './io.ts';

const RAM = 1 << 20;

/** A controller with its admin queues at 0x1000 and 0x2000, enabled. `lies` bytes of the disk are where the doorbell can read them. */
async function rig(lies = 0) {
  const b = testBoard();
  const bytes = new Uint8Array(new SharedArrayBuffer(RAM));
  const memory = new Ram(bytes.buffer, [{ gpa: 0, length: RAM, offset: 0 }]);
  const view = new DataView(bytes.buffer);
  const irq = wire();
  const disk = Uint8Array.from({ length: 1 << 20 }, (_, i) => (i >> 9) ^ (i * 3));
  const store = memoryStore(disk);
  let io: NvmeIo | undefined;
  let rings = 0;
  const nvme: Nvme = new Nvme({
    arena: b.arena,
    name: 'nvme',
    ring: () => {
      rings++;
      queueMicrotask(() => io?.serve());
    },
    atOnce: lies > 0 ? (queue) => atOnce(queue) : undefined,
    wire: (level) => irq.set(level),
    notify: () => false,
  });
  const atOnce = readsAtOnce({ nvme, memory, blockShift: 9 }, (offset, length, pieces) => {
    const to = offset + length <= lies ? pieces() : undefined;
    if (to) fill(to, disk.subarray(offset, offset + length));
    return to !== undefined;
  });
  io = new NvmeIo({
    ...{ nvme, lock: b.lock, memory, store: () => store, vectors: 2, ioQueues: 4 },
    identity: { serial: 'S1', model: 'QEMU NVMe Ctrl', firmware: '1.0', blockShift: 9 },
  });
  b.mmio.map(0xf000_0000, 0x4000, nvme.handler, 'nvme');
  nvme.reset();
  const write = (offset: number, value: number) => b.mmio.write(0xf000_0000 + offset, 4, value);
  const read = (offset: number) => b.mmio.read(0xf000_0000 + offset, 4);
  const settle = async () => {
    await new Promise((r) => setImmediate(r));
    await io.drain();
    await new Promise((r) => setImmediate(r));
  };
  write(0x24, 0x000f_000f);
  write(0x28, 0x1000);
  write(0x30, 0x2000);
  write(0x14, 0x0046_0001);
  assert.equal(read(0x1c), 1);
  const tails = [0, 0, 0];
  const heads = [0, 0, 0];
  const at = (queue: number) => ({ sq: 0x1000 + 0x2000 * queue, cq: 0x2000 + 0x2000 * queue });
  return {
    ...{ b, bytes, view, memory, nvme, io, irq, disk, write, read, settle },
    /** How often the I/O thread was rung for since this was asked. */
    rings: (): number => {
      const since = rings;
      rings = 0;
      return since;
    },
    /** Submits a command and gives its completion: status and result. */
    async command(queue: number, opcode: number, o: { nsid?: number; prp1?: number; prp2?: number; dw?: number[] } = {}) {
      const { sq, cq } = at(queue);
      const place = sq + 64 * tails[queue]!;
      bytes.fill(0, place, place + 64);
      view.setUint32(place, opcode | (0x1234 << 16), true);
      view.setUint32(place + 4, o.nsid ?? 1, true);
      view.setUint32(place + 24, o.prp1 ?? 0, true);
      view.setUint32(place + 32, o.prp2 ?? 0, true);
      (o.dw ?? []).forEach((w, i) => void view.setUint32(place + 40 + 4 * i, w >>> 0, true));
      tails[queue] = (tails[queue]! + 1) % 16;
      write(0x1000 + 8 * queue, tails[queue]!);
      await settle();
      const entry = cq + 16 * heads[queue]!;
      const result = { status: view.getUint16(entry + 14, true) >>> 1, result: view.getUint32(entry, true) };
      assert.equal(view.getUint16(entry + 12, true), 0x1234);
      heads[queue] = (heads[queue]! + 1) % 16;
      write(0x1004 + 8 * queue, heads[queue]!);
      return result;
    },
    async queues(this: { command(q: number, op: number, o?: object): Promise<{ status: number }> }) {
      assert.equal((await this.command(0, 5, { prp1: 0x4000, dw: [0x000f_0001, 3] })).status, 0);
      assert.equal((await this.command(0, 1, { prp1: 0x3000, dw: [0x000f_0001, 0x1_0001] })).status, 0);
    },
  };
}

test('the controller identifies itself and its namespace', async () => {
  const r = await rig();
  assert.equal((await r.command(0, 6, { prp1: 0x8000, dw: [1] })).status, 0);
  assert.equal(String.fromCharCode(...r.bytes.slice(0x8000 + 24, 0x8000 + 38)), 'QEMU NVMe Ctrl');
  assert.equal((await r.command(0, 6, { prp1: 0x8000, dw: [0] })).status, 0);
  assert.equal(r.view.getBigUint64(0x8000, true), 2048n);
  assert.equal((await r.command(0, 6, { prp1: 0x8000, nsid: 2, dw: [0] })).status, 0x400b);
  assert.equal((await r.command(0, 0x7f)).status, 0x4001);
  assert.equal((await r.command(0, 2, { prp1: 0x9000, dw: [0x7f_0002] })).status, 0);
  assert.equal(r.view.getUint16(0x9001, true), 323);
});

test('data is written and read through region pages and lists of them', async () => {
  const r = await rig();
  await r.queues();
  // 20 KiB over five pages, the first one from its middle.
  const list = 0xa000;
  [0x21000, 0x23000, 0x25000, 0x27000, 0x29000].forEach((page, i) => void r.view.setBigUint64(list + 8 * i, BigInt(page), true));
  assert.equal((await r.command(1, 2, { prp1: 0x20800, prp2: list, dw: [8, 0, 39] })).status, 0);
  assert.deepEqual(r.bytes.slice(0x20800, 0x21000), r.disk.slice(4096, 6144));
  assert.deepEqual(r.bytes.slice(0x23000, 0x24000), r.disk.slice(4096 + 2048 + 4096, 4096 + 2048 + 8192));
  assert.equal(r.irq.edges > 0, true);
  r.bytes.fill(0x5a, 0x30000, 0x31000);
  assert.equal((await r.command(1, 1, { prp1: 0x30000, dw: [100, 0, 7] })).status, 0);
  assert.ok(r.disk.slice(51200, 55296).every((byte) => byte === 0x5a));
  assert.equal((await r.command(1, 5, { prp1: 0x30000, dw: [100, 0, 7] })).status, 0);
  assert.equal((await r.command(1, 5, { prp1: 0x30000, dw: [108, 0, 7] })).status, 0x4285);
  assert.equal((await r.command(1, 8, { dw: [100, 0, 3] })).status, 0);
  assert.ok(r.disk.slice(51200, 53248).every((byte) => byte === 0));
  assert.equal((await r.command(1, 2, { prp1: 0x30000, dw: [2047, 0, 1] })).status, 0x4080);
  assert.equal((await r.command(1, 0)).status, 0);
});

test('reads of what lies near are over when the doorbell was rung, others are left to the I/O thread from there on', async () => {
  const r = await rig(8192);
  await r.queues();
  r.rings();
  /** Puts commands into queue 1 and rings once; the status of each entry that is there at once. */
  let [tail, head] = [0, 0];
  const submit = (
    ...commands: readonly { opcode: number; lba: number; blocks: number; prp: number; nsid?: number }[]
  ): number[] => {
    for (const c of commands) {
      const place = 0x3000 + 64 * tail;
      r.bytes.fill(0, place, place + 64);
      r.view.setUint32(place, c.opcode | (0x4321 << 16), true);
      r.view.setUint32(place + 4, c.nsid ?? 1, true);
      r.view.setUint32(place + 24, c.prp, true);
      r.view.setUint32(place + 40, c.lba, true);
      r.view.setUint32(place + 48, c.blocks - 1, true);
      tail = (tail + 1) % 16;
    }
    r.write(0x1008, tail);
    return entries();
  };
  const entries = (): number[] => {
    const found: number[] = [];
    for (; head !== r.nvme.s.queues[1]!.cqTail; head = (head + 1) % 16) {
      assert.equal(r.view.getUint16(0x4000 + 16 * head + 12, true), 0x4321);
      found.push(r.view.getUint16(0x4000 + 16 * head + 14, true) >>> 1);
    }
    r.write(0x100c, head);
    return found;
  };
  const near = { opcode: 2, lba: 2, blocks: 8, prp: 0x20000 };
  r.irq.edges = 0;
  assert.deepEqual(submit(near, { ...near, lba: 8, prp: 0x22000 }), [0, 0]);
  assert.deepEqual(r.bytes.slice(0x20000, 0x21000), r.disk.slice(1024, 5120));
  assert.deepEqual(r.bytes.slice(0x22000, 0x23000), r.disk.slice(4096, 8192));
  assert.equal(r.irq.edges, 1);
  assert.equal(r.rings(), 0);
  await r.settle();
  // A write, and what is behind it; bad addresses; another namespace; far away.
  for (const [commands, later] of [
    [
      [{ ...near, opcode: 1, lba: 2000 }, near],
      [0, 0],
    ],
    [[{ ...near, prp: 0x20002 }], [0x4013]],
    [[{ ...near, nsid: 2 }], [0x400b]],
    [[{ ...near, lba: 100 }], [0]],
    [[{ ...near, lba: 5000 }], [0x4080]],
  ] as const) {
    assert.deepEqual(submit(...commands), []);
    assert.ok(r.rings() > 0);
    await r.settle();
    assert.deepEqual(entries().sort(), [...later].sort());
    await r.settle();
  }
  // No more entries than the completion queue has room for: the rest comes when there is some.
  const many = Array.from({ length: 15 }, () => near);
  r.nvme.s.queues[1]!.cqHead = (r.nvme.s.queues[1]!.cqTail + 5) % 16;
  submit(...many);
  await r.settle();
  for (let n = 0; n < 4; n++, await r.settle()) entries();
  assert.equal(r.nvme.s.queues[1]!.sqHead, tail);
});

test('queues are checked when they are made and taken away', async () => {
  const r = await rig();
  assert.equal((await r.command(0, 1, { prp1: 0x3000, dw: [0x000f_0001, 0x1_0001] })).status, 0x4100);
  assert.equal((await r.command(0, 5, { prp1: 0x4000, dw: [0x000f_0009, 1] })).status, 0x4101);
  assert.equal((await r.command(0, 5, { prp1: 0x4000, dw: [0x0fff_0001, 1] })).status, 0x4102);
  assert.equal((await r.command(0, 5, { prp1: 0x4000, dw: [0x000f_0001, 0x9_0003] })).status, 0x4108);
  await r.queues();
  assert.equal((await r.command(0, 4, { dw: [1] })).status, 0x410c);
  assert.equal((await r.command(0, 0, { dw: [1] })).status, 0);
  assert.equal((await r.command(0, 4, { dw: [1] })).status, 0);
});

test('a controller that is disabled is not ready once nothing is under way', async () => {
  const r = await rig();
  r.write(0x14, 0x0046_0000);
  await r.settle();
  assert.equal(r.read(0x1c) & 1, 0);
  r.write(0x14, 0x0046_4001);
  await r.settle();
  assert.equal(r.read(0x1c) & 0xd, 9, 'shutdown is done, and it was enabled again');
});

test('answers that find their queue full wait, in a machine that takes the state over, too', async () => {
  const first = await rig();
  await first.queues();
  // Forty flushes for a completion queue of sixteen entries, of which fifteen can be full.
  for (let n = 0; n < 40; n += 10) {
    for (let i = 0; i < 10; i++) {
      const place = 0x3000 + 64 * ((n + i) % 16);
      first.bytes.fill(0, place, place + 64);
      first.view.setUint32(place, (n + i) << 16, true);
      first.view.setUint32(place + 4, 1, true);
    }
    first.write(0x1008, (n + 10) % 16);
    await first.settle();
  }
  const r = await rig();
  r.b.arena.restore(first.b.arena.save());
  r.bytes.set(first.bytes);
  const seen: number[] = [];
  let phase = 1;
  for (let head = 0; seen.length < 40; ) {
    const entry = 0x4000 + 16 * head;
    if ((r.view.getUint16(entry + 14, true) & 1) !== phase) break;
    seen.push(r.view.getUint16(entry + 12, true));
    head = (head + 1) % 16;
    if (head === 0) phase ^= 1;
    r.write(0x100c, head);
    await r.settle();
  }
  assert.deepEqual(
    seen.toSorted((a, b) => a - b),
    Array.from({ length: 40 }, (_, i) => i),
  );
});

test('no commands and registers make a controller throw or hang', async () => {
  let seed = 20260303;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % n;
  };
  const r = await rig();
  await r.queues();
  for (let i = 0; i < 3000; i++) {
    const queue = random(2);
    const place = 0x1000 + 0x2000 * queue + 64 * random(16);
    for (let k = 0; k < 16; k++) r.view.setUint32(place + 4 * k, random(3) ? random(64) : random(2 ** 24) * 256, true);
    r.bytes[place] = random(16);
    if (random(2)) r.view.setUint32(place + 4, 1, true);
    switch (random(6)) {
      case 0:
        r.write(random(0x40) * 4, random(2 ** 24));
        break;
      case 1:
        r.read(random(0x1000));
        break;
      case 2:
        if (random(20) === 0) {
          r.write(0x14, 0);
          await r.settle();
          r.write(0x24, 0x000f_000f);
          r.write(0x28, 0x1000);
          r.write(0x30, 0x2000);
          r.write(0x14, 0x0046_0001);
        }
        break;
      default:
        r.write(0x1000 + 4 * random(4), random(16));
        if (random(4) === 0) await r.settle();
    }
  }
  await r.settle();
  assert.equal(r.disk.length, 1 << 20);
});
