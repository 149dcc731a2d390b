// Devices on the ISA bus and without a bus: those for tests of guests.

import { debugExit } from '../../devices/isa-debug-exit.ts';
import { PcTestdev } from '../../devices/pc-testdev.ts';
import { deviceType } from '../device-type.ts';
import { uint32 } from '../properties.ts';

export const isaDebugExit = deviceType({
  name: 'isa-debug-exit',
  bus: 'ISA',
  category: 'Misc',
  description: 'a port that ends the emulator: a write of v exits with (v << 1) | 1',
  hotplug: false,
  properties: { iobase: uint32(0x501), iosize: uint32(2) },
  build(ctx, p) {
    ctx.ports.map(
      p.iobase,
      p.iosize,
      debugExit((code) => ctx.event({ kind: 'exit', code })),
      'isa-debug-exit',
    );
    return { reset: () => {} };
  },
});

export const pcTestdev = deviceType({
  name: 'pc-testdev',
  bus: 'ISA',
  category: 'Misc',
  description: 'the device of unit tests for hypervisors',
  hotplug: false,
  properties: {},
  build(ctx) {
    const irqs = Array.from({ length: 16 }, (_, n) => (n === 2 ? undefined : ctx.isa(n)));
    const device = new PcTestdev({ arena: ctx.arena, irqs, flushPage: ctx.flushPage });
    device.map(ctx.ports, ctx.mmio);
    return device;
  },
});
