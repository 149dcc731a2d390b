import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../bits/arena.ts';
import { struct } from '../bits/struct.ts';
import { Timers, timersLayout } from '../bus/clock.ts';
import { Bells, bellsLayout } from '../bus/doorbell.ts';
import { Lock, lockLayout } from '../bus/lock.ts';
import { Ram } from '../bus/memory.ts';
import { MemorySlots } from '../bus/slots.ts';
import { AddressSpace, spaceLayout } from '../bus/space.ts';
import { PciFunction } from '../devices/pci-function.ts';
import { PciHost } from '../devices/pci-host.ts';
import { noBackends } from './backends.ts';
import type { PciBus } from './buses.ts';
import { DeviceTree } from './device-tree.ts';
import { deviceType, type IoServices } from './device-type.ts';
import { named, uint16 } from './properties.ts';

const stateLayout = struct({ value: 'u32', room: ['u8', 1000] }, { name: 'sample', version: 1 });

/** A port whose value starts at `start`; its I/O side counts what is heard. */
const sample = deviceType({
  name: 'sample',
  aliases: ['sample-alias'],
  bus: 'PCI',
  category: 'Misc',
  description: 'for tests',
  properties: { start: uint16(7), drive: named('drive') },
  build(ctx, p) {
    const s = ctx.arena.alloc(stateLayout, ctx.name);
    const bell = ctx.doorbell();
    const f = new PciFunction({ arena: ctx.arena, name: ctx.name, vendor: 1, device: 2, classCode: 0 });
    ctx.plug(f);
    ctx.ports.map(p.start, 4, { read: () => s.value, write: () => bell.ring() }, ctx.name);
    return {
      reset() {
        s.value = p.start;
        f.reset();
      },
      io(services) {
        if (p.drive !== undefined) services.backends.drives.get(p.drive);
        bell.heard = () => s.value++;
        return {};
      },
    };
  },
});

/** Two threads' trees over one memory. */
function trees() {
  const buffer = new SharedArrayBuffer(1 << 16);
  const make = (id: number) => {
    const arena = new Arena(buffer, 0, 4096);
    const lock = new Lock(arena.alloc(lockLayout), id);
    const ports = new AddressSpace({ name: 'ports', size: 65536, lock, shared: arena.alloc(spaceLayout) });
    const bells = new Bells(arena.alloc(bellsLayout));
    const memory = new Ram(buffer, []);
    const timers = new Timers(arena.alloc(timersLayout));
    const slots = new MemorySlots(
      buffer,
      {
        ramBase: 0,
        ramLow: 0,
        ramHigh: 0,
        guestBytes: 0,
        plugBase: 0,
        plugBytes: 0,
        plugMap: 0,
        extraBytes: 0,
        codeMap: 0,
        slots: 4096,
      },
      () => {},
    );
    const mmio = new AddressSpace({ name: 'mmio', size: 2 ** 40, lock, shared: arena.alloc(spaceLayout) });
    const pciPorts = new AddressSpace({ name: 'pci ports', size: 65536, lock, shared: arena.alloc(spaceLayout) });
    const host = new PciHost({ arena, ports: pciPorts, mmio: [mmio], pirqs: [] });
    const services = {
      cpus: 1, ram: 0, memdev: () => undefined, firmwareFile: () => {}, dma: undefined, cmos: () => {}, memory, slots, buffer, lock, timers, clock: { now: () => 0 }, wall: { epochSeconds: () => 0 }, report: () => {}, isa: () => ({ set: () => {} }),
      msi: () => {}, retime: () => {}, event: () => {}, notify: () => {}, rom: () => undefined, pci: host, ioThread: true, flushPage: () => {}, bellsChanged: () => {},
    }; // biome-ignore format: one object
    const tree = new DeviceTree({
      services,
      type: (driver) => ([sample.name, ...(sample.aliases ?? [])].includes(driver) ? sample : undefined),
      buffer,
      start: 8192,
      end: 1 << 16,
      ports: [ports],
      mmio: [],
      timers,
      bells,
    });
    const functions: (PciFunction | undefined)[] = [];
    const bus: PciBus = {
      kind: 'PCI',
      name: 'pcie.0',
      express: true,
      root: true,
      freeSlot: () => [1, 2, 3].find((n) => functions[n] === undefined) ?? -1,
      add(f, slot) {
        if (functions[slot]) throw new Error(`Cannot add ${f.name} at ${slot}: the place is taken`);
        functions[slot] = f;
        return () => {
          functions[slot] = undefined;
        };
      },
    };
    tree.addBus(bus);
    const io: IoServices = {
      backends: noBackends(), lock, memory, report: () => {}, notify: () => {}, stop: () => {}, release: () => {}, random: async (n) => new Uint8Array(n), now: () => 0,
      after: () => ({ cancel: () => {} }),
    }; // biome-ignore format: one object
    return { tree, ports, bells, slots: functions, io };
  };
  return { a: make(1), b: make(2) };
}

test('every thread that plugs the same devices reaches the same state', () => {
  const { a, b } = trees();
  a.tree.plug({ driver: 'sample', id: 'x', start: '0x10' }, { io: a.io });
  a.tree.plug({ driver: 'sample-alias', start: 0x20, addr: '3' }, { io: a.io });
  b.tree.plug({ driver: 'sample', id: 'x', start: '0x10' });
  b.tree.plug({ driver: 'sample-alias', start: 0x20, addr: '3' });
  assert.equal(b.ports.read(0x10, 4), 0x10);
  assert.deepEqual(
    b.tree.list().map((d) => [d.path, d.place?.slot]),
    [
      ['/machine/peripheral/x', 1],
      ['/machine/peripheral-anon/device[0]', 3],
    ],
  );
  b.ports.write(0x20, 4, 1);
  b.ports.write(0x20, 4, 1);
  a.bells.hear();
  assert.equal(b.ports.read(0x20, 4), 0x21, 'rings that were not heard yet are one');
});

test('what cannot be used is refused by name, and nothing is left of it', () => {
  const { a } = trees();
  const plug = (config: Record<string, unknown>) => () => a.tree.plug({ driver: 'sample', ...config }, { io: a.io });
  assert.throws(plug({ driver: 'nothing' }), /'nothing' is not a valid device model name/);
  assert.throws(plug({ colour: 1 }), /Cannot set property 'sample.colour': there is no such property/);
  assert.throws(plug({ start: 'many' }), /Cannot set property 'sample.start' to "many": accepted: a number from 0 to 65535/);
  assert.throws(plug({ bus: 'pci.7' }), /Bus 'pci.7' not found/);
  assert.throws(plug({ drive: 'd0' }), /Cannot find drive 'd0'/);
  assert.throws(plug({ addr: '20' }), /Cannot set property 'sample.addr'/);
  assert.deepEqual([a.tree.list().length, a.slots.filter(Boolean).length, a.ports.regions().length], [0, 0, 0]);
  a.tree.plug({ driver: 'sample', id: 'x' });
  assert.throws(plug({ id: 'x', start: 100 }), /Duplicate device ID 'x'/);
});

test('devices that come and go for long need no more memory than those that are there', () => {
  const { a } = trees();
  for (let n = 0; n < 500; n++) {
    a.tree.plug({ driver: 'sample', id: `d${n}`, start: 8 * (n % 4) }, { io: a.io });
    if (n > 1) a.tree.unplug(`d${n - 2}`);
  }
  assert.equal(a.tree.list().length, 2);
  assert.throws(() => a.tree.unplug('d0'), /Device 'd0' not found/);
});

test('saved state of devices comes back', () => {
  const { a } = trees();
  a.tree.plug({ driver: 'sample', id: 'x', start: 16 }, { io: a.io });
  const saved = a.tree.save();
  a.ports.write(16, 4, 0);
  a.bells.hear();
  assert.equal(a.ports.read(16, 4), 17);
  a.tree.restore(saved);
  assert.equal(a.ports.read(16, 4), 16);
});
