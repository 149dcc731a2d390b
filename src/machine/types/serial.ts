// Serial ports as devices: QEMU's `isa-serial`, a 16550A with a character device behind it.

import { comPorts, Uart } from '../../devices/uart.ts';
import type { CharBackend } from '../backends.ts';
import { deviceType, type IoServices, type IoSide } from '../device-type.ts';
import { named, uint32 } from '../properties.ts';

const UNSET = 0xffff_ffff;

export const isaSerial = deviceType({
  name: 'isa-serial',
  bus: 'ISA',
  category: 'Input',
  description: 'serial port (16550A)',
  parents: ['isa-device'],
  hotplug: false,
  properties: {
    index: uint32(0, 'COM1 is 0, COM4 is 3'),
    iobase: uint32(UNSET),
    irq: uint32(UNSET),
    chardev: named('chardev'),
  },
  build(ctx, p) {
    const usual = comPorts[p.index];
    if (!usual) throw new Error(`Max. supported number of ISA serial ports is ${comPorts.length}.`);
    const irq = p.irq === UNSET ? usual.irq : p.irq;
    const uart = new Uart({ arena: ctx.arena, instance: ctx.name, irq: ctx.isa(irq), report: ctx.report });
    const iobase = p.iobase === UNSET ? usual.base : p.iobase;
    ctx.ports.map(iobase, 8, uart.handler, 'serial');
    return {
      reset: () => uart.reset(),
      chosen: { iobase, irq },
      ...(p.chardev === undefined ? {} : { io: (io: IoServices) => connect(uart, io, io.backends.chardevs.get(p.chardev!)) }),
    };
  },
});

/** Carries a port's bytes between its rings and the character device, no faster than either side takes them. */
function connect(uart: Uart, { lock }: IoServices, chardev: CharBackend): IoSide {
  let open = true;
  const wait = async (word: Int32Array, seen: number, ms: number): Promise<void> => {
    const waiting = Atomics.waitAsync(word, 0, seen, ms);
    if (waiting.async) await waiting.value;
  };
  chardev.connect({
    async receive(bytes) {
      for (let left = bytes; left.length > 0 && open; ) {
        const seen = Atomics.load(uart.input.signal, 0);
        const taken = lock.run(() => uart.receive(left));
        left = left.subarray(taken);
        if (left.length > 0) await wait(uart.input.signal, seen, 20);
      }
    },
    opened: () => {},
    sendBreak: () => lock.run(() => uart.receiveBreak()),
  });
  const drain = async (): Promise<void> => {
    while (uart.output.available > 0) {
      const bytes = uart.output.read();
      lock.run(() => uart.drained());
      await chardev.write(bytes);
    }
  };
  let draining = Promise.resolve();
  const drainNext = (): Promise<void> => (draining = draining.then(drain));
  void (async () => {
    while (open) {
      const seen = Atomics.load(uart.output.signal, 0);
      await drainNext();
      await wait(uart.output.signal, seen, 1000);
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
