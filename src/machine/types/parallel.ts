// `isa-parallel`: a parallel port whose printer is a character device.

import { lptPorts, ParallelPort } from '../../devices/parallel.ts';
import { deviceType } from '../device-type.ts';
import { named, uint32 } from '../properties.ts';
import { carryOut } from './printed.ts';

const UNSET = 0xffff_ffff;

export const isaParallel = deviceType({
  name: 'isa-parallel',
  bus: 'ISA',
  category: 'Input',
  description: '',
  parents: ['isa-device', 'device'],
  hotplug: false,
  properties: {
    index: uint32(UNSET, 'LPT1 is 0, LPT3 is 2'),
    iobase: uint32(UNSET),
    irq: uint32(lptPorts[0].irq),
    chardev: named('chardev'),
  },
  build(ctx, p) {
    if (p.chardev === undefined) throw new Error("Can't create parallel device, empty char device");
    const index = p.index === UNSET ? 0 : p.index;
    const usual = lptPorts[index];
    if (!usual) throw new Error(`Max. supported number of parallel ports is ${lptPorts.length}.`);
    const port = new ParallelPort({ arena: ctx.arena, name: ctx.name, irq: ctx.isa(p.irq), report: ctx.report });
    const iobase = p.iobase === UNSET ? usual.base : p.iobase;
    ctx.ports.map(iobase, 8, port.handler, 'parallel');
    return {
      reset: () => port.reset(),
      chosen: { index, iobase },
      io: (services) => carryOut(port.output, services, p.chardev!),
    };
  },
});
