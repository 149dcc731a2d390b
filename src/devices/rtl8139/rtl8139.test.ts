import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ram } from '../../bus/memory.ts';
import { testBoard, wire } from '../testing.ts';
import { cause, RTL8139_BAR, Rtl8139 } from './controller.ts';
import { crc32, Rtl8139Io } from './io.ts';

const RAM = 1 << 20;
const BASE = 0xf000_0000;
const MAC = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

function rig() {
  const b = testBoard();
  const bytes = new Uint8Array(new SharedArrayBuffer(RAM));
  const memory = new Ram(bytes.buffer, [{ gpa: 0, length: RAM, offset: 0 }]);
  const view = new DataView(bytes.buffer);
  const irq = wire();
  const sent: Uint8Array[] = [];
  const port = { send: (f: Uint8Array) => void sent.push(f.slice()), receive: (_: Uint8Array): void => {} };
  let io: Rtl8139Io | undefined;
  const ring = (): void => queueMicrotask(() => io?.serve());
  const d = new Rtl8139({ arena: b.arena, name: 'r', mac: MAC, clock: b.clock, ring, wire: (l) => irq.set(l) });
  b.mmio.map(BASE, RTL8139_BAR, d.handler, 'rtl8139');
  b.lock.run(() => d.reset());
  io = new Rtl8139Io(d, { lock: b.lock, memory, port, master: () => true, again: ring });
  const read = (at: number, size = 1): number => b.mmio.read(BASE + at, size);
  const write = (at: number, value: number, size = 1): void => b.mmio.write(BASE + at, size, value >>> 0);
  const settle = (): Promise<void> => new Promise((r) => setImmediate(r));
  return { b, bytes, view, irq, sent, port, d, read, write, settle };
}
const frame = (n: number, to: readonly number[] = MAC): Uint8Array =>
  Uint8Array.from({ length: n }, (_, i) => (i < 6 ? to[i]! : i * 3));

test('registers after power-on are QEMU’s, and the EEPROM is read over its wires', () => {
  const { read, write } = rig();
  assert.deepEqual([0, 1, 2, 3, 4, 5].map((n) => read(n)), MAC); // biome-ignore format: one line
  assert.deepEqual([read(0x10, 4), read(0x38, 2), read(0x40, 4), read(0x60, 2)], [0x2000, 0xfff0, 0x7480_0000, 0x0f]);
  assert.deepEqual([0x62, 0x64, 0x66, 0x68, 0x6a, 0x74].map((at) => read(at, 2)), [0x1000, 0x782d, 0x05e1, 0x05e1, 1, 0x340]); // biome-ignore format: one line
  assert.deepEqual([0x52, 0x58, 0x59, 0x5b, 0x5e].map((at) => read(at)), [0x0c, 0xd0, 0x01, 1, 0x20]); // biome-ignore format: one line
  write(0x50, 0xc0);
  for (const at of [0x52, 0x59, 0x5a, 0xd8]) write(at, 0xff);
  assert.deepEqual([0x52, 0x59, 0x5a, 0xd8].map((at) => read(at)), [0xff, 0x71, 0xf5, 0x7f]); // biome-ignore format: one line
  const word = (n: number): number => {
    const bit = (v: number): number => {
      write(0x50, 0x88 | v);
      write(0x50, 0x8c | v);
      return read(0x50) & 1;
    };
    write(0x50, 0x80);
    write(0x50, 0x88);
    for (let i = 8; i >= 0; i--) bit((((0b110 << 6) | n) >>> i) & 1 ? 2 : 0);
    let value = 0;
    for (let i = 0; i < 16; i++) value = (value << 1) | bit(0);
    write(0x50, 0);
    return value;
  };
  assert.deepEqual([0, 7, 8, 9].map(word), [0x8129, 0x5452, 0x1200, 0x5634]);
});

test('in mode C, four descriptors send in turn, and frames come into one ring that goes round', async () => {
  const { bytes, view, sent, port, read, write, settle, irq } = rig();
  write(0x37, 0x0c);
  write(0x3c, cause.txOk | cause.rxOk, 2);
  for (let n = 0; n < 4; n++) {
    bytes.set(frame(60 + n), 0x8000 + 0x800 * n);
    write(0x20 + 4 * n, 0x8000 + 0x800 * n, 4);
    write(0x10 + 4 * n, 60 + n, 4);
  }
  await settle();
  assert.deepEqual(sent, [60, 61, 62, 63].map((n) => frame(n))); // biome-ignore format: one line
  assert.equal(read(0x10, 4) & 0xa000, 0xa000, 'sent, and the driver’s');
  assert.equal(irq.level, 1);
  write(0x3e, 0xffff, 2);
  assert.equal(irq.level, 0);
  write(0x30, 0x4_0000, 4);
  write(0x44, 0x0a, 4);
  port.receive(frame(100));
  assert.deepEqual([view.getUint16(0x4_0000, true), view.getUint16(0x4_0002, true)], [0x4001, 104]);
  assert.deepEqual(bytes.slice(0x4_0004, 0x4_0068), frame(100));
  port.receive(frame(100, [2, 0, 0, 0, 0, 1]));
  port.receive(frame(60, [255, 255, 255, 255, 255, 255]));
  assert.equal(view.getUint16(0x4_0000 + 108, true), 0x2001, 'the one before was not for us');
  assert.equal(read(0x37) & 1, 0);
  // Read it all, then fill the ring: what does not fit waits.
  write(0x38, read(0x3a, 2) - 16, 2);
  assert.equal(read(0x37) & 1, 1);
  for (let n = 0; n < 9; n++) port.receive(frame(1000));
  assert.ok(read(0x3e, 2) & cause.rxOverflow);
  const full = read(0x3a, 2);
  write(0x38, full - 16, 2);
  await settle();
  assert.notEqual(read(0x3a, 2), full, 'the one that waited has come, over the ring’s end');
});

test('in mode C+, rings of descriptors carry frames with checksums, segments and tags', async () => {
  const { bytes, view, sent, port, write, settle } = rig();
  write(0xe0, 0x43, 2);
  write(0x20, 0x1000, 4);
  write(0xe4, 0x2000, 4);
  write(0x44, 0x0a, 4);
  write(0x37, 0x0c);
  view.setUint32(0x2000, (0xc000_0000 | 1536) >>> 0, true);
  view.setUint32(0x2008, 0x1_0000, true);
  const tag = frame(100);
  tag.set([0x81, 0, 0x20, 5], 12);
  port.receive(tag);
  assert.equal(view.getUint32(0x2000, true), (0x4000_0000 | 0x3000_0000 | (1 << 25) | 100) >>> 0);
  assert.equal(view.getUint32(0x2004, true), 0x1_0520);
  // A TCP packet of 2,000 bytes in two descriptors, to be cut at 1,000.
  const p = new Uint8Array(54 + 2000);
  p.set([...MAC, ...MAC, 8, 0, 0x45, 0, 0x08, 0x1c, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
  p.set([0x50, 0x18], 46);
  for (let i = 54; i < p.length; i++) p[i] = i * 7;
  bytes.set(p, 0x8000);
  view.setUint32(0x1000, (0x8000_0000 | 0x2000_0000 | (1 << 27) | (1000 << 16) | 54) >>> 0, true);
  view.setUint32(0x1008, 0x8000, true);
  view.setUint32(0x1010, (0x8000_0000 | 0x5000_0000 | (1 << 27) | (1000 << 16) | 2000) >>> 0, true);
  view.setUint32(0x1018, 0x8036, true);
  write(0xd9, 0x40);
  await settle();
  assert.deepEqual(sent.map((f) => f.length), [1054, 1054]); // biome-ignore format: one line
  for (const f of sent) {
    let sum = 6 + f.length - 34;
    for (let i = 26; i < f.length; i += 2) sum += (f[i]! << 8) | f[i + 1]!;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    assert.equal(sum, 0xffff, 'its checksum is right');
  }
  assert.equal(view.getUint32(0x1000, true) >>> 31, 0);
});

test('the hash of multicast addresses is Ethernet’s', () => {
  assert.equal(crc32(Uint8Array.of(0x01, 0x00, 0x5e, 0x00, 0x00, 0x01)) >>> 26, 0x1f);
});

test('whatever a guest writes into rings and registers, nothing throws or runs without end', async () => {
  const { bytes, port, write, read, settle } = rig();
  let x = 777;
  const next = (n: number): number => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((x / 2 ** 32) * n);
  };
  for (let round = 0; round < 200; round++) {
    for (let i = 0; i < 256; i++) bytes[0x1000 * (1 + next(3)) + next(256)] = next(256);
    for (let n = 0; n < 16; n++) {
      const size = [1, 2, 4][next(3)]!;
      const at = next(RTL8139_BAR / size) * size;
      write(at, next(3) ? next(256) : next(2 ** (8 * size)), size);
      read(at, size);
    }
    if (next(2)) {
      write(0xe0, next(128), 2);
      write(0x37, 0x0c);
      write(0x44, next(2 ** 14), 4);
      for (const at of [0x20, 0x28, 0xe4, 0x30]) write(at, 0x1000 * (1 + next(3)), 4);
      write(0xd9, 0xc0);
    }
    for (let n = next(6); n > 0; n--) port.receive(frame(14 + next(1600), next(2) ? MAC : [255, 255, 255, 255, 255, 255]));
    await settle();
  }
});
