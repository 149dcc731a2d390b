import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PciFunction } from './pci-function.ts';
import { PciHost } from './pci-host.ts';
import { RootPort } from './pcie-port.ts';
import { testBoard, wire } from './testing.ts';

function rig() {
  const b = testBoard();
  const pirqs = Array.from({ length: 8 }, wire);
  const host = new PciHost({ arena: b.arena, ports: b.ports, mmio: [b.mmio], pirqs });
  const make = (name: string, more: object = {}) =>
    new PciFunction({ arena: b.arena, name, vendor: 0x1b36, device: 1, classCode: 0x06_0400, interruptPin: 1, ...more });
  const bridge = make('bridge', { bridge: true });
  host.add(bridge, 3);
  const behind = host.behind(bridge);
  const device = make('device', {
    classCode: 0xff_0000,
    bars: [{ index: 0, kind: 'mem32', size: 0x1000, handler: { read: () => 0x77, write: () => {} } }],
  });
  const config = (bus: number, slot: number, offset: number) => {
    b.ports.write(0xcf8, 4, (0x8000_0000 | (bus << 16) | (slot << 11) | (offset & 0xfc)) >>> 0);
    return b.ports.read(0xcfc, 4);
  };
  const windows = { io: { start: 0xc000, end: 0x10000 }, mem32: { start: 0xc000_0000, end: 0xfec0_0000 } };
  return { b, host, pirqs, bridge, behind, device, make, config, assign: () => host.assign(windows, () => 10) };
}

test('a bus behind a bridge is reached by its number, with windows around its devices', () => {
  const r = rig();
  r.behind.add(r.device, 5, 0);
  r.host.reset();
  assert.equal(r.config(1, 5, 0), 0xffff_ffff, 'no bus has a number yet');
  r.assign();
  assert.equal(r.config(1, 5, 0), 0x0001_1b36);
  assert.equal(r.bridge.read(0x19, 1), 1);
  assert.equal(r.bridge.read(0x20, 4), 0xc010_c000);
  assert.equal(r.b.mmio.read(0xc000_0000, 4), 0x77);
  r.behind.remove(r.device);
  assert.equal(r.config(1, 5, 0), 0xffff_ffff);
  assert.notEqual(r.b.mmio.read(0xc000_0000, 4), 0x77);
});

test('what is behind a bridge is reached within its windows alone, while it passes on', () => {
  const r = rig();
  const byPort = { index: 1, kind: 'io', size: 0x10, handler: { read: () => 0x55, write: () => {} } };
  const wide = { index: 2, kind: 'mem64', prefetchable: true, size: 0x2000, handler: { read: () => 0x33, write: () => {} } };
  const card = r.make('card', {
    classCode: 0xff_0000,
    bars: [{ index: 0, kind: 'mem32', size: 0x1000, handler: { read: () => 0x77, write: () => {} } }, byPort, wide],
  });
  const inner = r.make('inner', { bridge: true });
  r.behind.add(inner, 1, 0);
  const innermost = r.host.behind(inner);
  innermost.add(card, 2, 0);
  r.host.reset();
  card.write(4, 2, 3);
  card.write(0x10, 4, 0xe020_0000);
  card.write(0x14, 4, 0xd000);
  card.write(0x18, 4, 0x0010_0000);
  card.write(0x1c, 4, 4);
  const reached = (): boolean[] => [
    (r.b.mmio.read(0xe020_0000, 4) & 0xff) === 0x77,
    (r.b.ports.read(0xd000, 1) & 0xff) === 0x55,
    (r.b.mmio.read(0x4_0010_0000, 4) & 0xff) === 0x33,
  ];
  assert.deepEqual(reached(), [false, false, false]);
  for (const f of [r.bridge, inner]) {
    f.write(4, 2, 7);
    f.write(0x20, 4, 0xe020_e020);
    f.write(0x1c, 2, 0xd0d0);
    f.write(0x24, 4, 0x0010_0010);
    f.write(0x28, 4, 4);
    f.write(0x2c, 4, 4);
  }
  assert.deepEqual(reached(), [true, true, true]);
  for (const [offset, size, closed, open, lost] of [
    [0x20, 4, 0xe010_e010, 0xe020_e020, 0],
    [0x20, 4, 0xe010_e030, 0xe020_e020, 0],
    [0x1c, 2, 0xc0c0, 0xd0d0, 1],
    [0x30, 4, 0x1_0001, 0, 1],
    [0x2c, 4, 3, 4, 2],
    [0x24, 4, 0x0010_0020, 0x0010_0010, 2],
  ] as const) {
    for (const f of [r.bridge, inner]) {
      f.write(offset, size, closed);
      assert.deepEqual(
        reached(),
        [0, 1, 2].map((n) => n !== lost),
        `${f.name}: ${closed.toString(16)} at ${offset.toString(16)}`,
      );
      f.write(offset, size, open);
    }
  }
  r.bridge.write(4, 2, 4);
  assert.deepEqual(reached(), [false, false, false]);
  inner.write(4, 2, 1);
  r.bridge.write(4, 2, 7);
  assert.deepEqual(reached(), [false, true, false]);
});

test('interrupt pins rotate by slot behind a bridge', () => {
  const r = rig();
  r.behind.add(r.device, 5, 0);
  r.host.reset();
  r.device.intx.set(1);
  // INTA of slot 5 is INTB of the bridge in slot 3: PIRQ (3 + 1) & 3 + 4.
  assert.deepEqual(
    r.pirqs.map((p) => p.level),
    [0, 0, 0, 0, 1, 0, 0, 0],
  );
  r.device.intx.set(0);
  assert.ok(r.pirqs.every((p) => p.level === 0));
});

test('a slot tells of devices that come, and lets go of them when its power is turned off', () => {
  const r = rig();
  const f = r.make('port', { bridge: true });
  let occupied = false;
  let released = 0;
  const irq = wire();
  const port = new RootPort({
    ...{ arena: r.b.arena, name: 'port', f, irq, port: 1, slot: 2, hotplug: true },
    occupied: () => occupied,
    release: () => {
      released++;
    },
  });
  r.host.add(f, 4);
  r.host.reset();
  port.reset();
  const at = f.read(0x34, 1);
  assert.equal(f.read(at, 1), 0x10);
  f.write(at + 0x18, 2, 0x7e9);
  assert.equal(irq.level, 0);
  occupied = true;
  port.changed(true);
  assert.equal(irq.level, 1);
  assert.equal(f.read(at + 0x1a, 2) & 0x149, 0x149);
  assert.equal(f.read(at + 0x12, 2) & 0x2000, 0x2000);
  f.write(at + 0x1a, 2, 0xffff);
  assert.equal(irq.level, 0);
  assert.equal(released, 0, 'power that was off before is no request');
  f.write(at + 0x18, 2, 0x1e9);
  assert.equal(port.press(), true);
  assert.equal(f.read(at + 0x1a, 2) & 1, 1);
  f.write(at + 0x18, 2, 0x7e9);
  assert.equal(released, 1);
  assert.equal(port.press(), false);
});
