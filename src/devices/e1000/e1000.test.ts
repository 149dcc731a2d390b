import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../../bus/memory.ts';
import { testBoard, wire } from '../testing.ts';
import { bufferSize } from './card.ts';
import { cause, E1000, E1000_BAR } from './controller.ts';
import { E1000Io } from './io.ts';

const RAM = 1 << 20;
const BASE = 0xf000_0000;
const TX = 0x1000;
const RX = 0x2000;
const MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/** A card whose frames are kept, with rings of 8 descriptors and buffers of 2 KiB from 0x10000 on. */
function rig() {
  const b = testBoard();
  const bytes = new Uint8Array(new SharedArrayBuffer(RAM));
  const memory = new Ram(bytes.buffer, [{ gpa: 0, length: RAM, offset: 0 }]);
  const view = new DataView(bytes.buffer);
  const irq = wire();
  const sent: Uint8Array[] = [];
  const port = { send: (f: Uint8Array) => void sent.push(f.slice()), receive: (_: Uint8Array): void => {} };
  let io: E1000Io | undefined;
  const ring = (): void => queueMicrotask(() => io?.serve());
  const e = new E1000({ arena: b.arena, name: 'e', mac: MAC, ring, wire: (l) => irq.set(l) });
  b.mmio.map(BASE, E1000_BAR, e.handler, 'e1000');
  b.lock.run(() => e.reset());
  io = new E1000Io(e, { lock: b.lock, memory, port, master: () => true, again: ring });
  const read = (at: number): number => b.mmio.read(BASE + at, 4);
  const write = (at: number, value: number): void => b.mmio.write(BASE + at, 4, value >>> 0);
  const settle = (): Promise<void> => new Promise((r) => setImmediate(r));
  write(0x3800, TX);
  write(0x3808, 128);
  write(0x400, 0x4010a);
  write(0x2800, RX);
  write(0x2808, 128);
  for (let n = 0; n < 8; n++) view.setUint32(RX + 16 * n, 0x1_0000 + 2048 * n, true);
  write(0x100, 0x0400_8002);
  write(0x2818, 7);
  /** Puts descriptors at the transmit ring's tail. */
  const queue = async (list: readonly (readonly [low: number, high: number, command: number, options: number])[]) => {
    let tail = read(0x3818);
    for (const words of list) {
      words.forEach((w, i) => view.setUint32(TX + 16 * tail + 4 * i, w >>> 0, true));
      tail = (tail + 1) % 8;
    }
    write(0x3818, tail);
    await settle();
  };
  return { b, bytes, view, irq, sent, port, e, io, read, write, settle, queue };
}
const frame = (n: number, to: readonly number[] = MAC): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => (i < 6 ? to[i]! : i * 3));

test('a driver finds the address in the EEPROM, bit by bit and by EERD, and its checksum is right', () => {
  const { read, write } = rig();
  const bit = (value: number): number => {
    write(0x10, value);
    write(0x10, value | 1);
    const out = (read(0x10) >>> 3) & 1;
    write(0x10, value);
    return out;
  };
  write(0x10, 0x40);
  assert.ok(read(0x10) & 0x80, 'granted');
  const word = (n: number): number => {
    write(0x10, 0x40);
    write(0x10, 0x42);
    for (let i = 8; i >= 0; i--) bit(0x42 | ((((0b110 << 6) | n) >>> i) & 1 ? 4 : 0));
    let value = 0;
    for (let i = 0; i < 16; i++) value = (value << 1) | bit(0x42);
    write(0x10, 0);
    return value;
  };
  const words = Array.from({ length: 64 }, (_, n) => word(n));
  assert.deepEqual(words.slice(0, 3), [0x5452, 0x1200, 0x5634]);
  assert.equal(words.reduce((a, w) => a + w, 0) & 0xffff, 0xbaba);
  write(0x14, (1 << 8) | 1);
  assert.equal(read(0x14) >>> 16, words[1]);
  assert.deepEqual([read(0x5400), read(0x5404)], [0x1200_5452, 0x8000_5634]);
});

test('the PHY is at address 1, has a link, and says so; another address has none', () => {
  const { read, write, b, e } = rig();
  write(0x20, (2 << 26) | (1 << 21) | (1 << 16));
  assert.ok(read(0x20) & (1 << 28) && (read(0x20) & 0x24) === 0x24);
  write(0x20, (2 << 26) | (2 << 21));
  assert.ok(read(0x20) & (1 << 30));
  assert.ok(read(0x08) & 2);
  write(0xd0, cause.link);
  b.lock.run(() => e.setCable(false));
  assert.equal(read(0x08) & 2, 0);
  assert.equal(read(0xc0), cause.link);
  assert.equal(read(0xc0), 0, 'reading clears');
});

test('packets go out whole from several descriptors, are reported where that is wanted, and raise an interrupt that reading takes back', async () => {
  const { bytes, view, sent, read, write, irq, queue } = rig();
  bytes.set(frame(100), 0x8000);
  write(0xd0, 1);
  const legacy = 1 | 2 | 8;
  await queue([
    [0x8000, 0, 40, 0],
    [0x8028, 0, 60 | (legacy << 24), 0],
  ]);
  assert.deepEqual(sent, [frame(100)]);
  assert.deepEqual([view.getUint8(TX + 12) & 1, view.getUint8(TX + 28) & 1], [0, 1]);
  assert.equal(irq.level, 1);
  assert.equal(read(0xc0) & 3, 3);
  assert.equal(irq.level, 0);
  // A packet whose end is not there yet waits for it.
  await queue([[0x8000, 0, 40, 0]]);
  assert.equal(sent.length, 1);
  await queue([[0x8028, 0, 20 | (legacy << 24), 0]]);
  assert.equal(sent[1]?.length, 60);
  assert.deepEqual([read(0x4080), read(0x4080)], [2, 0], 'packets sent, cleared by reading');
});

/** An IPv4 TCP packet with this payload, its length and checksums as drivers leave them for segmentation. */
function tcp(payload: number, large: boolean): Uint8Array {
  const p = new Uint8Array(54 + payload);
  p.set([...MAC, ...MAC, 8, 0, 0x45, 0]);
  p.set([0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2], 18);
  const v = new DataView(p.buffer);
  v.setUint16(16, large ? 0 : p.length - 14);
  v.setUint32(38, 0xffff_ff00);
  p.set([0x50, 0x19, 1, 0], 46);
  for (let i = 54; i < p.length; i++) p[i] = i * 7;
  let sum = 6 + (large ? 0 : 20 + payload);
  for (let i = 26; i < 34; i += 2) sum += v.getUint16(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  v.setUint16(50, sum);
  return p;
}
/** Both checksums of an IPv4 TCP packet come to all ones. */
function isSummed(p: Uint8Array): boolean {
  const v = new DataView(p.buffer, p.byteOffset);
  const add = (from: number, to: number, start: number): number => {
    let sum = start;
    for (let i = from; i < to; i += 2) sum += i + 1 < to ? v.getUint16(i) : p[i]! << 8;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    return sum;
  };
  const length = p.length - 34;
  return add(14, 34, 0) === 0xffff && add(34, p.length, add(26, 34, 6 + length)) === 0xffff;
}

test('checksums are put in where a context says, and a large packet goes out as segments that are right by themselves', async () => {
  const { bytes, sent, queue } = rig();
  const small = tcp(11, false);
  bytes.set(small, 0x8000);
  const offsets = [14 | (24 << 8) | (33 << 16), 34 | (50 << 8)] as const;
  const data = (length: number, dcmd: number): number => length | (1 << 20) | ((dcmd | 0x20) << 24);
  const both = 3 << 8;
  await queue([
    [...offsets, (0x20 | 3) << 24, 0],
    [0x8000, 0, data(small.length, 1), both],
  ]);
  assert.equal(sent.length, 1);
  assert.ok(isSummed(sent[0]!));
  const large = tcp(4000, true);
  bytes.set(large, 0x9000);
  await queue([
    [...offsets, 4000 | ((0x20 | 4 | 3) << 24), (54 << 8) | (1460 << 16)],
    [0x9000, 0, data(54, 4), both],
    [0x9036, 0, data(4000, 1 | 4 | 8), both],
  ]);
  const parts = sent.slice(1);
  assert.deepEqual(
    parts.map((p) => p.length),
    [1514, 1514, 1134],
  );
  assert.ok(parts.every(isSummed));
  const word = (p: Uint8Array, at: number): number => new DataView(p.buffer, p.byteOffset).getUint32(at);
  assert.deepEqual(
    parts.map((p) => word(p, 38)),
    [0xffff_ff00, 0x4b4, 0xa68],
    'sequence numbers, past their end too',
  );
  assert.deepEqual(
    parts.map((p) => [word(p, 18) >>> 16, p[47]]),
    [
      [0x1234, 0x10],
      [0x1235, 0x10],
      [0x1236, 0x19],
    ],
    'identification, and FIN and PSH on the last one',
  );
  assert.deepEqual(Buffer.concat(parts.map((p) => p.subarray(54))), Buffer.from(large.subarray(54)));
});

test('frames come into as many buffers as they need, what is not wanted does not, and what finds none waits', async () => {
  const { bytes, view, port, read, write, irq, settle } = rig();
  write(0xd0, cause.rxTimer);
  port.receive(frame(30));
  assert.deepEqual([view.getUint16(RX + 8, true), view.getUint8(RX + 12)], [60, 7]);
  assert.deepEqual(bytes.slice(0x1_0000, 0x1_001e), frame(30));
  assert.equal(irq.level, 1);
  assert.equal(read(0xc0) & cause.rxTimer, cause.rxTimer);
  const other = [2, 0, 0, 0, 0, 1];
  const group = [0x33, 0x33, 0, 0, 0, 1];
  for (const to of [other, group]) port.receive(frame(100, to));
  assert.equal(read(0x2810), 1, 'not for us');
  port.receive(frame(100, [255, 255, 255, 255, 255, 255]));
  // The hash of the multicast address's last bytes.
  const hash = ((group[4]! | (group[5]! << 8)) >>> 4) & 0xfff;
  write(0x5200 + 4 * (hash >>> 5), 1 << (hash & 31));
  port.receive(frame(100, group));
  assert.equal(read(0x2810), 3);
  port.receive(frame(1600));
  assert.equal(read(0x2810), 3, 'too long');
  write(0x100, 0x0401_8022);
  port.receive(frame(1600));
  assert.equal(read(0x2810), 5, 'two buffers of 1,024 bytes');
  assert.deepEqual([view.getUint16(RX + 16 * 3 + 8, true), view.getUint8(RX + 16 * 3 + 12)], [1024, 1]);
  assert.deepEqual([view.getUint16(RX + 16 * 4 + 8, true), view.getUint8(RX + 16 * 4 + 12)], [576, 7]);
  port.receive(frame(1600));
  port.receive(frame(80));
  assert.equal(read(0x2810), 7, 'no buffers are left');
  assert.ok(read(0xc0) & cause.rxOverrun);
  write(0x2818, 3);
  await settle();
  assert.equal(read(0x2810), 0, 'what waited has come');
  assert.equal(view.getUint16(RX + 16 * 7 + 8, true), 80);
});

test('a VLAN tag goes into the descriptor and comes out of it where the driver wants that', async () => {
  const { bytes, view, port, sent, read, write, queue } = rig();
  write(0, read(0) | (1 << 30));
  write(0x38, 0x8100);
  const f = frame(100);
  f.set([0x81, 0, 0x20, 5], 12);
  port.receive(f);
  assert.deepEqual([view.getUint16(RX + 8, true), view.getUint8(RX + 12) & 8, view.getUint16(RX + 14, true)], [96, 8, 0x2005]);
  bytes.set(frame(60), 0x8000);
  await queue([[0x8000, 0, 60 | ((1 | 0x40) << 24), 0x2005 << 16]]);
  assert.deepEqual([...sent[0]!.subarray(12, 16)], [0x81, 0, 0x20, 5]);
});

test('buffer sizes are those of the manual', () => {
  assert.deepEqual(
    [0, 1, 2, 3].map((n) => bufferSize(n << 16)),
    [2048, 1024, 512, 256],
  );
  assert.deepEqual(
    [1, 2, 3].map((n) => bufferSize((n << 16) | (1 << 25))),
    [16_384, 8192, 4096],
  );
});

test('whatever a guest writes into rings and registers, nothing throws or runs without end', async () => {
  const { bytes, port, write, read, settle } = rig();
  let x = 12_345;
  const next = (n: number): number => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((x / 2 ** 32) * n);
  };
  for (let round = 0; round < 120; round++) {
    for (let i = 0; i < 128; i++) bytes[(next(2) ? TX : RX) + i] = next(256);
    for (let n = 0; n < 8; n++) {
      const at = [
        0x100,
        0x400,
        0x2800,
        0x2808,
        0x2810,
        0x2818,
        0x3800,
        0x3808,
        0x3810,
        0x3818,
        0,
        0x10,
        0x14,
        0x20,
        4 * next(E1000_BAR / 4),
      ];
      write(at[next(at.length)]!, next(3) === 0 ? next(2 ** 32) : next(256));
      read(4 * next(E1000_BAR / 4));
    }
    if (next(3) === 0) {
      write(0x100, 0x0002_801e);
      write(0x400, 2);
      write(0x2804, 0);
      write(0x3804, 0);
    }
    for (let n = next(6); n > 0; n--) port.receive(frame(14 + next(3000)));
    await settle();
  }
});
