// Devices on the ISA bus and without a bus: those for tests of guests, and the firmware's debug console.

import { DebugConsole, debugConsoleReadback, mapDebugConsole } from '../../devices/debug-console.ts';
import { debugExit } from '../../devices/isa-debug-exit.ts';
import { PcTestdev } from '../../devices/pc-testdev.ts';
import { deviceType, type IoServices } from '../device-type.ts';
import { named, uint32 } from '../properties.ts';
import { carryOut } from './printed.ts';

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

export const isaDebugcon = deviceType({
  name: 'isa-debugcon',
  bus: 'ISA',
  category: 'Misc',
  description: '',
  parents: ['isa-device', 'device'],
  hotplug: false,
  properties: { iobase: uint32(0xe9), chardev: named('chardev'), readback: uint32(debugConsoleReadback) },
  build(ctx, p) {
    if (p.chardev === undefined) throw new Error("Can't create debugcon device, empty char device");
    const device = new DebugConsole({ arena: ctx.arena, name: ctx.name, report: ctx.report });
    mapDebugConsole(ctx.ports, (byte) => device.write(byte), p.iobase, p.readback & 0xff);
    return { reset: () => {}, io: (services: IoServices) => carryOut(device.output, services, p.chardev!) };
  },
});
