import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApicBus } from './apic-bus.ts';
import { Ioapic } from './ioapic.ts';
import { Lapic } from './lapic.ts';
import { loadLapicPage, saveLapicPage } from './lapic-page.ts';
import { Pic } from './pic.ts';
import { Pit } from './pit.ts';
import { testBoard } from './testing.ts';
import { Uart } from './uart.ts';

function board() {
  const b = testBoard();
  const bus = new ApicBus();
  const tsc = { tscAt: (ns: number) => BigInt(Math.round(ns)), nsAt: (t: bigint) => Number(t) };
  const ioapic = new Ioapic({ arena: b.arena, bus });
  const cell: { pic?: Pic } = {};
  const lapic = new Lapic({ ...b, bus, cpu: 0, tsc, kick: () => {}, pic: { acknowledge: () => cell.pic!.acknowledge() } });
  const pic = new Pic({ arena: b.arena, int: { set: (l) => lapic.lint(0, l) } });
  cell.pic = pic;
  pic.map(b.ports);
  const pit = new Pit({ ...b, irq: pic.irq(0) });
  pit.map(b.ports);
  const uart = new Uart({ arena: b.arena, instance: '0', irq: pic.irq(4) });
  uart.map(b.ports, 0x3f8);
  for (const d of [ioapic, lapic, pic, pit, uart]) d.reset();
  return { ...b, lapic, ioapic, pic, pit, uart };
}

test('a board goes on in another one from the bytes of its state', () => {
  const a = board();
  a.out(0x20, 0x11);
  a.out(0x21, 0x30, 4, 1);
  a.out(0x43, 0x34);
  a.out(0x40, 0x00, 0x10);
  a.out(0x3fc, 8);
  a.out(0x3f9, 1);
  a.uart.receive(new TextEncoder().encode('abc'));
  const due = a.pit.next();

  const b = board();
  b.arena.restore(a.arena.save());
  assert.equal(b.pit.next(), due);
  assert.equal(b.lapic.pending(), true);
  assert.equal(b.lapic.acknowledge(), 0x34);
  b.out(0x20, 0x20);
  assert.deepEqual([b.in(0x3f8), b.in(0x3f8), b.in(0x3f8)], [...new TextEncoder().encode('abc')]);
  b.time.ns = due;
  b.pit.tick(due);
  assert.equal(b.lapic.acknowledge(), 0x30);
  assert.equal(a.in(0x3f8), 0x61, 'the first board is its own');
});

test("a local APIC goes on in another one from KVM's register page", () => {
  const a = board();
  a.lapic.setSpurious(0x1ff);
  a.lapic.setTaskPriority(0x20);
  a.lapic.setLvt(0, 0x2_0061);
  a.lapic.timer.setDivide(0xb);
  a.lapic.timer.setInitialCount(100_000);
  a.lapic.accept(0, 0x81, true);
  a.lapic.acknowledge();
  a.lapic.accept(0, 0x91, false);
  a.time.ns += 40_000;

  const b = board();
  loadLapicPage(b.lapic, saveLapicPage(a.lapic));
  assert.equal(b.lapic.next() - b.time.ns, 60_000);
  assert.deepEqual(saveLapicPage(b.lapic), saveLapicPage(a.lapic));
  assert.equal(b.lapic.acknowledge(), 0x91);
  assert.throws(() => loadLapicPage(b.lapic, { page: new Uint8Array(4096), deadline: 0n }), /4096 bytes: it has 1024/);
});
