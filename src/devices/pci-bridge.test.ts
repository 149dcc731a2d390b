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
