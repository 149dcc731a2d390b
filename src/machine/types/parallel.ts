// `isa-parallel`: a parallel port whose printer is a character device.

import { lptPorts, ParallelPort } from '../../devices/parallel.ts';
import { deviceType, type IoServices, type IoSide } from '../device-type.ts';
import { named, uint32 } from '../properties.ts';

const UNSET = 0xffff_ffff;
/** ms after which the printer is looked at again. */
const LOOK = 1000;

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
    return { reset: () => port.reset(), chosen: { index, iobase }, io: (services) => connect(port, services, p.chardev!) };
  },
});

/** Carries what is printed to the character device. */
function connect(port: ParallelPort, { backends }: IoServices, name: string): IoSide {
  const chardev = backends.chardevs.get(name);
  chardev.connect({ receive: () => {}, opened: () => {} });
  let open = true;
  const drain = async (): Promise<void> => {
    while (port.output.available > 0) await chardev.write(port.output.read());
  };
  let draining = Promise.resolve();
  const drainNext = (): Promise<void> => (draining = draining.then(drain));
  void (async () => {
    while (open) {
      const seen = Atomics.load(port.output.signal, 0);
      await drainNext();
      const waiting = Atomics.waitAsync(port.output.signal, 0, seen, LOOK);
      if (waiting.async) await waiting.value;
    }
  })();
  return {
    drain: drainNext,
    close: () => {
      open = false;
      chardev.disconnect();
    },
  };
}
