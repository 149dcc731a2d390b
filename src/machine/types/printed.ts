// What a port has printed goes to its character device, from a ring in shared memory: printers and the firmware's debug console.

import type { Ring } from '../../bus/ring.ts';
import type { IoServices, IoSide } from '../device-type.ts';

/** ms after which the ring is looked at again. */
const LOOK = 1000;

/** Carries what comes into the ring to the character device `name`. */
export function carryOut(output: Ring, { backends }: IoServices, name: string): IoSide {
  const chardev = backends.chardevs.get(name);
  chardev.connect({ receive: () => {}, opened: () => {} });
  let open = true;
  const drain = async (): Promise<void> => {
    while (output.available > 0) await chardev.write(output.read());
  };
  let draining = Promise.resolve();
  const drainNext = (): Promise<void> => (draining = draining.then(drain));
  void (async () => {
    while (open) {
      const seen = Atomics.load(output.signal, 0);
      await drainNext();
      const waiting = Atomics.waitAsync(output.signal, 0, seen, LOOK);
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
