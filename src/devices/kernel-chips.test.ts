import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { Lock, lockLayout } from '../bus/lock.ts';
import { AddressSpace, spaceLayout } from '../bus/space.ts';
import { ApicBus } from './apic-bus.ts';
import { Ioapic } from './ioapic.ts';
import {
  kernelIoapicLayout,
  kernelPicLayout,
  kernelPitLayout,
  loadIoapic,
  loadPic,
  loadPit,
  saveIoapic,
  savePic,
  savePit,
} from './kernel-chips.ts';
import { Pic } from './pic.ts';
import { Pit } from './pit.ts';

/** A board of the three chips; its clock is `time.now` ns. */
function chips(time: { now: number }) {
  const arena = new Arena(new SharedArrayBuffer(1 << 20), 0, 1 << 20);
  const lock = new Lock(arena.alloc(lockLayout), 1);
  const ports = new AddressSpace({ name: 'ports', size: 0x10000, lock, shared: arena.alloc(spaceLayout) });
  const edges: number[] = [];
  const ioapic = new Ioapic({ arena, bus: new ApicBus() });
  const pic = new Pic({ arena, int: { set: () => {} } });
  const pit = new Pit({
    arena,
    clock: { now: () => time.now },
    irq: { set: (level) => void (level && edges.push(time.now)) },
  });
  pic.map(ports);
  pit.map(ports);
  for (const chip of [ioapic, pic, pit]) chip.reset();
  const out = (port: number, ...values: number[]): void => {
    for (const v of values) ports.write(port, 1, v);
  };
  return { ports, ioapic, pic, pit, edges, out };
}

test('structures have the sizes of the kernel headers', () => {
  assert.deepEqual([kernelPicLayout.size, kernelIoapicLayout.size, kernelPitLayout.size], [16, 216, 112]);
});

test('a pair of 8259As goes to the kernel and to another board: in the middle of its initialisation, with requests and in service', () => {
  const a = chips({ now: 0 });
  a.out(0x20, 0x11);
  a.out(0x21, 0x20, 4, 1, 0xa4);
  a.out(0xa0, 0x11);
  a.out(0xa1, 0x28);
  a.out(0x4d1, 0x0c);
  a.pic.irq(0).set(1);
  a.pic.irq(4).set(1);
  assert.equal(a.pic.acknowledge(), 0x20);
  const [first, second] = [savePic(a.pic, 0), savePic(a.pic, 1)];
  const k = kernelPicLayout.view(first.buffer, 0);
  assert.deepEqual([k.irr, k.imr, k.isr, k.irqBase, k.initState, k.elcrMask], [0x10, 0xa4, 1, 0x20, 0, 0xf8]);
  assert.deepEqual([kernelPicLayout.view(second.buffer, 0).initState, kernelPicLayout.view(second.buffer, 0).elcr], [2, 0x0c]);
  const b = chips({ now: 0 });
  loadPic(b.pic, 0, first);
  loadPic(b.pic, 1, second);
  assert.deepEqual([savePic(b.pic, 0), savePic(b.pic, 1)], [first, second]);
  assert.deepEqual([b.pic.chip(0).isr, b.pic.chip(0).irr, b.pic.chip(1).icw], [1, 0x10, 3]);
  // The second one's initialisation goes on: ICW3, ICW4, mask.
  b.out(0xa1, 2, 1, 0xfe);
  assert.deepEqual([b.pic.chip(1).icw, b.pic.chip(1).imr, b.pic.chip(1).base], [0, 0xfe, 0x28]);
});

test('an I/O APIC goes to the kernel and to another board', () => {
  const a = chips({ now: 0 });
  a.ioapic.s.select = 0x15;
  a.ioapic.s.id = 0x0300_0000;
  a.ioapic.s.low[2] = 0x930;
  a.ioapic.s.high[2] = 0x0200_0000;
  a.ioapic.s.low[20] = 0xe041;
  const bytes = saveIoapic(a.ioapic);
  const k = kernelIoapicLayout.view(bytes.buffer, 0);
  assert.deepEqual([k.base, k.id, k.entries[4], k.entries[5], k.entries[40]], [0xfec00000n, 3, 0x930, 0x0200_0000, 0xe041]);
  const b = chips({ now: 0 });
  loadIoapic(b.ioapic, bytes);
  assert.deepEqual([b.ioapic.s.select, b.ioapic.s.id, [...b.ioapic.s.low], [...b.ioapic.s.high]], [0x15, 0x0300_0000, [...a.ioapic.s.low], [...a.ioapic.s.high]]);
}); // biome-ignore format: lists in lines

test('a PIT goes to the kernel, whose clock is another one, and to another board, between two bytes of a count', () => {
  const time = { now: 1e9 };
  const a = chips(time);
  assert.equal(kernelPitLayout.view(savePit(a.pit, 0n, false).buffer, 0).channels[0]!.mode, 0xff, 'never programmed');
  a.out(0x43, 0x34);
  a.out(0x40, 0x9c, 0x2e);
  time.now += 3e6;
  a.out(0x43, 0x00);
  const low = a.ports.read(0x40, 1);
  a.out(0x43, 0xb6);
  a.out(0x42, 0x34);
  const bytes = savePit(a.pit, 5_000_000_000n, true);
  const k = kernelPitLayout.view(bytes.buffer, 0);
  const [c0, , c2] = k.channels;
  assert.deepEqual([c0!.count, c0!.mode, c0!.rwMode, c0!.countLoadTime, k.flags], [11932, 2, 3, 6_000_000_000n, 1]);
  assert.deepEqual([c0!.countLatched, c2!.writeState, c2!.writeLatch], [2, 4, 0x34], 'the second byte is next');
  // There the guest's time is another one.
  const later = { now: 2e9 };
  const b = chips(later);
  loadPit(b.pit, bytes, 4_000_000_000n, later.now);
  const high = b.ports.read(0x40, 1);
  assert.equal((high << 8) | low, 11932 - Math.floor((3e6 * 1_193_182) / 1e9));
  // Its periods go on from where the count began.
  const period = (11932 * 1e9) / 1_193_182;
  assert.ok(Math.abs(b.pit.next() - (2e9 + period)) < 1000, `${b.pit.next()}`);
  later.now += period + 1000;
  b.pit.tick(later.now);
  assert.deepEqual(b.edges, [later.now]);
  b.out(0x42, 0x12);
  assert.equal(b.pit.s.channels[2]!.count, 0x1234);
});

test('wires of chips that are elsewhere lead there, and the board keeps their levels', () => {
  const told: string[] = [];
  const remote = {
    pic: (n: number, level: number) => void told.push(`pic ${n} ${level}`),
    pin: (n: number, level: number) => void told.push(`pin ${n} ${level}`),
    cutTimer: () => {},
  };
  const arena = new Arena(new SharedArrayBuffer(1 << 20), 0, 1 << 20);
  const bus = new ApicBus({ msi: () => true, routes: () => {}, chips: remote });
  const ioapic = new Ioapic({ arena, bus });
  const pic = new Pic({ arena, int: { set: () => assert.fail('the board interrupts') }, remote: () => remote });
  ioapic.pin(20).set(1);
  pic.irq(9).set(1);
  pic.irq(4).set(0);
  assert.deepEqual(told, ['pin 20 1', 'pic 9 1', 'pic 4 0']);
  assert.deepEqual([ioapic.s.levels, pic.chip(1).lines], [1 << 20, 2]);
});
