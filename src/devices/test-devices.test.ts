import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Edu, factorial } from './edu.ts';
import { pciTestdev } from './pci-testdev.ts';
import { testBoard, wire } from './testing.ts';

function educational(mask = 0x0fff_ffffn) {
  const b = testBoard();
  const ram = new Uint8Array(0x1_0000);
  const written: number[] = [];
  const memory = {
    slice: (gpa: number, length: number) => (gpa + length <= ram.length ? ram.subarray(gpa, gpa + length) : undefined),
    written: (gpa: number) => void written.push(gpa),
  };
  let master = true;
  const edu = new Edu({ arena: b.arena, name: 'edu', memory: memory as never, mask, busMaster: () => master, report: () => {} });
  const irq = wire();
  edu.irq = irq;
  edu.reset();
  const write = (at: number, value: number): void => edu.handler.write(at, 4, value);
  return {
    ...{ edu, irq, ram, written, write },
    read: (at: number): number => edu.handler.read(at, 4),
    setMaster: (on: boolean) => {
      master = on;
    },
    /** Moves `count` bytes; registers of 8 bytes come as two words. */
    move(source: number, destination: number, count: number, command: number): void {
      for (const [at, value] of [
        [0x80, source],
        [0x88, destination],
        [0x90, count],
      ] as const) {
        write(at, value >>> 0);
        write(at + 4, 0);
      }
      write(0x98, command);
    },
  };
}

test('the educational device says who it is, inverts, and computes', () => {
  const e = educational();
  assert.equal(e.read(0), 0x0100_00ed);
  e.write(4, 0x1234_5678);
  assert.equal(e.read(4), 0xedcb_a987);
  e.write(8, 10);
  assert.equal(e.read(8), 3_628_800);
  assert.equal(e.irq.level, 0);
  e.write(0x20, 0xff);
  assert.equal(e.read(0x20), 0x80, 'one bit is the guest’s');
  e.write(8, 13);
  assert.equal(e.read(8), 1_932_053_504, '13! modulo 2^32');
  assert.deepEqual([e.irq.level, e.read(0x24)], [1, 1]);
  e.write(0x64, 1);
  assert.deepEqual([e.irq.level, e.read(0x24)], [0, 0]);
  assert.equal(factorial(0), 1);
  assert.equal(factorial(0xffff_ffff), 0, 'at once, however large');
});

test('its interrupts are raised and acknowledged bit by bit', () => {
  const e = educational();
  e.write(0x60, 0x30);
  e.write(0x64, 0x10);
  assert.deepEqual([e.irq.level, e.read(0x24)], [1, 0x20]);
  e.write(0x64, 0xffff_ffff);
  assert.equal(e.irq.level, 0);
});

test('its DMA moves to and fro within its buffer and its mask, and nothing else', () => {
  const e = educational();
  e.ram.set([1, 2, 3, 4], 0x100);
  e.move(0x100, 0x4_0010, 4, 1);
  e.move(0x4_0010, 0x200, 4, 1 | 2 | 4);
  assert.deepEqual([...e.ram.subarray(0x200, 0x204)], [1, 2, 3, 4]);
  assert.deepEqual(e.written, [0x200]);
  assert.deepEqual([e.irq.level, e.read(0x24)], [1, 0x100]);
  assert.equal(e.read(0x98) & 1, 0, 'it is done');
  const before = e.ram.slice();
  for (const [source, destination, count] of [
    [0x4_0000, 0x300, 4097],
    [0x4_0ffd, 0x300, 4],
    [0x3_ffff, 0x300, 4],
    [0, 0x300, 4],
    [0x4_0000, 0x0f00_0000, 4],
  ] as const)
    e.move(source, destination, count, 1 | 2);
  e.write(0x94, 1);
  e.write(0x98, 3);
  e.setMaster(false);
  e.move(0x4_0010, 0x300, 4, 3);
  assert.deepEqual(e.ram, before);
  e.setMaster(true);
  e.move(0x4_0010, 0x1000_0300, 4, 3);
  assert.equal(e.ram[0x300], 1, 'addresses beyond the mask are cut');
  assert.equal(e.read(0xa0), 0);
  assert.equal(e.read(0xf_fffc), 0);
});

test('the PCI test device shows its tests and counts what they ask for', () => {
  const b = testBoard();
  const d = pciTestdev(b.arena, 'test');
  d.reset();
  const word = (at: number): number => d.memory.read(at, 4);
  const name = (): string => {
    let text = '';
    for (let at = 16, c = d.ports.read(at, 1); c !== 0; c = d.ports.read(++at, 1)) text += String.fromCharCode(c);
    return text;
  };
  assert.equal(word(0), 0, 'nothing is chosen');
  for (const [bar, first] of [
    [d.memory, 'mmio'],
    [d.ports, 'portio'],
  ] as const)
    for (const [n, kind] of ['no-eventfd', 'wildcard-eventfd', 'datamatch-eventfd'].entries()) {
      bar.write(0, 1, n);
      assert.equal(name(), `${first}-${kind}`);
      const [offset, data] = [bar.read(4, 4), bar.read(8, 1)];
      assert.equal(bar.read(1, 1), 1);
      for (let i = 0; i < 3; i++) bar.write(offset, 1, data);
      bar.write(offset, 1, data ^ 1);
      bar.write(offset, 2, data);
      bar.write(offset + 1, 1, data);
      assert.equal(bar.read(12, 4), kind === 'wildcard-eventfd' ? 5 : 3);
    }
  d.memory.write(0, 1, 3);
  assert.equal(word(4), 0);
  d.memory.write(0, 1, 0);
  d.ports.write(d.memory.read(4, 4), 1, 0xfa);
  assert.equal(word(12), 0, 'the other BAR does not count');
});
