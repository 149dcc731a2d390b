import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fanOut, type IrqLine } from '../bus/irq.ts';
import type { Handler } from '../bus/space.ts';
import { AcpiPm } from './acpi-pm.ts';
import { PciFunction } from './pci-function.ts';
import { PciHost, pirqOf } from './pci-host.ts';
import { Msix, msixBarSize } from './pci-msix.ts';
import { hostBridge, IsaBridge } from './q35.ts';
import { ResetPorts } from './reset.ts';
import { testBoard, wire } from './testing.ts';

const constant = (v: number): Handler => ({ read: () => v, write: () => {} });

/** A q35 with one function at slot 2: an I/O BAR, a 32-bit and a 64-bit memory BAR, MSI-X. */
function q35(preset = true) {
  const board = testBoard();
  const { arena, ports, mmio } = board;
  const pins = Array.from({ length: 8 }, wire);
  const pic = Array.from({ length: 16 }, wire);
  const resets: number[] = [];
  const reset = new ResetPorts({ arena, reset: () => resets.push(1) });
  const late: { pirq?: (n: number) => IrqLine } = {};
  const host = new PciHost({
    arena,
    ports,
    mmio: [mmio],
    resetControl: reset.control,
    pirqs: pins.map((pin, n) => fanOut(pin, { set: (l) => late.pirq?.(n).set(l) })),
  });
  const pm = new AcpiPm({ ...board, sci: wire(), powerOff: () => {} });
  hostBridge(arena, host, mmio, preset);
  const isa = new IsaBridge({ arena, host, ports, pm, pic: (n) => pic[n]!, preset });
  late.pirq = (n) => isa.pirq(n);
  const messages: string[] = [];
  const msix = new Msix({ arena, name: 'nic', vectors: 3, send: (a, d) => messages.push(`${a.toString(16)}=${d}`) });
  const nic = new PciFunction({
    arena,
    name: 'nic',
    vendor: 0x1af4,
    device: 0x1041,
    classCode: 0x02_0000,
    interruptPin: 1,
    bars: [
      { index: 0, kind: 'io', size: 0x20, handler: constant(0x11) },
      { index: 1, kind: 'mem32', size: msixBarSize(3), handler: msix.handler },
      { index: 4, kind: 'mem64', size: 0x4000, handler: constant(0x44), prefetchable: true },
    ],
  });
  nic.addCapability(0x09, [16, 1, 4, 0]);
  msix.attach(nic, 1);
  host.add(nic, 2);
  host.reset();
  reset.reset();
  pm.reset();
  msix.reset();
  const config = (slot: number, at: number, fn = 0) =>
    ports.write(0xcf8, 4, 0x8000_0000 + slot * 0x800 + fn * 0x100 + (at & 0xfc));
  const r = (slot: number, at: number, size = 4) => {
    config(slot, at);
    return ports.read(0xcfc + (at & 3), size);
  };
  const w = (slot: number, at: number, value: number, size = 4) => {
    config(slot, at);
    ports.write(0xcfc + (at & 3), size, value);
  };
  return { ...board, host, nic, msix, messages, pins, pic, resets, r, w };
}

test('mechanism #1 finds the functions that are there and no others', () => {
  const { r, ports } = q35();
  assert.equal(r(0, 0), 0x29c0_8086);
  assert.equal(r(31, 0), 0x2918_8086);
  assert.equal(r(31, 0x0e, 1), 0x80);
  assert.equal(r(2, 2, 2), 0x1041);
  assert.equal(r(3, 0), 0xffff_ffff);
  ports.write(0xcf8, 4, 0x8001_0000);
  assert.equal(ports.read(0xcfc, 4), 0xffff_ffff, 'bus 1');
  ports.write(0xcf8, 4, 0x1000);
  assert.equal(ports.read(0xcfc, 4), 0xffff_ffff, 'not enabled');
});

test('0xCF9 is the reset control, not part of the address', () => {
  const { out, in: inb, ports, resets } = q35();
  ports.write(0xcf8, 4, 0x8000_1000);
  out(0xcf9, 6);
  assert.deepEqual(resets, [1]);
  assert.equal(inb(0xcf9), 6);
  assert.equal(ports.read(0xcf8, 4), 0x8000_1000);
});

test('ECAM shows the same configuration space, and zeros beyond 256 bytes', () => {
  const { mmio } = q35();
  assert.equal(mmio.read(0xb000_0000 + (2 << 15), 4), 0x1041_1af4);
  assert.equal(mmio.read(0xb000_0000 + (2 << 15) + 0x100, 4), 0);
  assert.equal(mmio.read(0xb010_0000, 4), 0xffff_ffff);
});

test('ECAM and the power management block are where firmware puts them', () => {
  const { mmio, ports, w } = q35(false);
  assert.equal(mmio.find(0xb000_0000), undefined);
  w(0, 0x60, 0xe000_0001);
  assert.equal(mmio.find(0xe000_0000)?.name, 'pcie-mmcfg-mmio');
  assert.equal(ports.find(0x600), undefined);
  w(31, 0x40, 0x601);
  w(31, 0x44, 0x80, 1);
  assert.equal(ports.find(0x608)?.name, 'acpi-pm');
});

test('writing ones to a BAR tells its size', () => {
  const { r, w } = q35();
  for (const [at, size] of [
    [0x10, 0xffff_ffe1],
    [0x14, 0xffff_f000],
    [0x18, 0],
    [0x20, 0xffff_c00c],
    [0x24, 0xffff_ffff],
  ] as const) {
    w(2, at, 0xffff_ffff);
    assert.equal(r(2, at), size);
  }
});

test('BARs answer where they are put, while decoding is on', () => {
  const { w, ports, mmio } = q35();
  w(2, 0x10, 0xc000);
  w(2, 0x20, 0x8000_0000);
  w(2, 0x24, 0x10);
  assert.equal(ports.read(0xc004, 1), 0xff);
  w(2, 4, 3, 2);
  assert.equal(ports.read(0xc004, 1), 0x11);
  assert.equal(mmio.read(0x10_8000_0000, 1), 0x44);
  w(2, 0x20, 0x9000_0000);
  assert.equal(mmio.read(0x10_8000_0000, 1), 0xff);
  assert.equal(mmio.read(0x10_9000_3ffc, 1), 0x44);
  w(2, 4, 0, 2);
  assert.equal(ports.read(0xc004, 1), 0xff);
});

test('read-only registers stay, and capabilities are linked', () => {
  const { r, w } = q35();
  w(2, 0, 0x1234_5678);
  assert.equal(r(2, 0), 0x1041_1af4);
  assert.equal(r(2, 6, 2) & 0x10, 0x10);
  assert.equal(r(2, 0x34, 1), 0x40);
  assert.equal(r(2, 0x40, 2), 0x4809);
  assert.equal(r(2, 0x48, 2), 0x0011);
  assert.equal(r(2, 0x4a, 2), 2);
  w(2, 0x4a, 0xffff, 2);
  assert.equal(r(2, 0x4a, 2), 0xc002);
});

test('assign gives each BAR a place of its own in the windows', () => {
  const { host, nic, r } = q35();
  host.assign({ io: { start: 0xc000, end: 0xd000 }, mem32: { start: 0xe000_0000, end: 0xe000_5000 } }, (pirq) =>
    pirq & 2 ? 11 : 10,
  );
  const at = nic.bars.map((b) => nic.barAddress(b));
  assert.deepEqual(at, [0xc000, 0xe000_4000, 0xe000_0000]);
  assert.equal(r(2, 0x3c, 1), 11);
  assert.equal(nic.busMaster, true);
  const { host: full } = q35();
  assert.throws(
    () => full.assign({ io: { start: 0xc000, end: 0xd000 }, mem32: { start: 0xe000_0000, end: 0xe000_4000 } }, () => 0),
    /Cannot place BAR 1 of nic/,
  );
});

test('INTx reaches its pin and the 8259A, until it is turned off', () => {
  const { nic, pins, pic, r, w } = q35();
  assert.equal(pirqOf(2, 1), 6);
  nic.intx.set(1);
  assert.equal(pins[6]!.level, 1);
  assert.equal(pic[11]!.level, 1);
  assert.equal(r(2, 6, 2) & 8, 8);
  w(31, 0x6a, 0x85, 1);
  assert.equal(pic[11]!.level, 0);
  w(31, 0x6a, 5, 1);
  assert.equal(pic[5]!.level, 1);
  w(2, 4, 0x400, 2);
  assert.equal(pins[6]!.level, 0);
  assert.equal(pic[5]!.level, 0);
  w(2, 4, 0, 2);
  assert.equal(pins[6]!.level, 1);
  nic.intx.set(0);
  assert.equal(pins[6]!.level, 0);
});

test('an MSI-X vector is sent, or waits for its mask', () => {
  const { w, mmio, msix, messages } = q35();
  w(2, 0x14, 0xe000_0000);
  w(2, 4, 6, 2);
  assert.equal(msix.notify(1), false);
  w(2, 0x4a, 0x8000, 2);
  mmio.write(0xe000_0010, 4, 0xfee0_1000);
  mmio.write(0xe000_0018, 4, 0x41);
  assert.equal(msix.notify(1), true);
  assert.equal(mmio.read(0xe000_0800, 4), 2);
  assert.deepEqual(messages, []);
  mmio.write(0xe000_001c, 4, 0);
  assert.deepEqual(messages, ['fee01000=65']);
  assert.equal(mmio.read(0xe000_0800, 4), 0);
  w(2, 0x4a, 0xc000, 2);
  msix.notify(1);
  assert.equal(messages.length, 1);
  w(2, 0x4a, 0x8000, 2);
  assert.equal(messages.length, 2);
  assert.equal(msix.notify(3), false);
});

test('a place that is taken is refused by name', () => {
  const { host, nic, arena } = q35();
  const other = new PciFunction({ arena, name: 'other', vendor: 1, device: 1, classCode: 0 });
  assert.throws(() => host.add(other, 2), /Cannot add other at 2.0: nic is there/);
  assert.equal(host.freeSlot(), 1);
  assert.ok(nic.bars.length === 3);
});

test('an expansion ROM of several models reads with the identifiers of the function, and its sum stays', () => {
  const { nic, mmio, w, host } = q35();
  const rom = new Uint8Array(2048).fill(3);
  rom.set([0x55, 0xaa, 4]);
  rom.set([0x40, 0], 0x18);
  rom.set([...Buffer.from('PCIR'), 0xf4, 0x1a, 0x00, 0x10], 0x40);
  const sum = (bytes: Iterable<number>) => [...bytes].reduce((x, y) => x + y, 0) & 0xff;
  const read = (anyModel: boolean) => {
    nic.setRom(rom, anyModel);
    host.reset();
    w(2, 0x30, 0xe100_0001);
    w(2, 4, 2, 2);
    return Array.from({ length: 2048 }, (_, i) => mmio.read(0xe100_0000 + i, 1));
  };
  assert.deepEqual(read(false), [...rom]);
  const own = read(true);
  assert.equal(mmio.read(0xe100_0044, 4), 0x1041_1af4);
  assert.equal(sum(own), sum(rom));
  assert.deepEqual(own.filter((v, i) => v !== rom[i]).length, 2);
  assert.equal(mmio.read(0xe100_0046, 2), 0x1041);
});
