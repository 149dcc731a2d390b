// MSI of a PCI function with one vector: the capability, and the choice between it and the INTx wire. PCI Local Bus Specification 3.0, section 6.8.1.
import type { IrqLine, MsiSink } from '../bus/irq.ts';
import type { PciFunction } from './pci-function.ts';

const enable = 1;
const wide = 0x80;

/** Adds the capability; what comes back is the function's interrupt: a message each time it is raised where MSI is on, else the wire. */
export function addMsi(f: PciFunction, send: MsiSink): IrqLine {
  const writable = [enable, 0, 0xfc, ...new Array<number>(9).fill(0xff)];
  const at = f.addCapability(5, [wide, 0, ...new Array<number>(10).fill(0)], writable);
  return {
    set(level) {
      const on = (f.read(at + 2, 2) & enable) !== 0;
      f.intx.set(on ? 0 : level);
      if (on && level && f.busMaster) send(f.read(at + 8, 4) * 2 ** 32 + f.read(at + 4, 4), f.read(at + 12, 2));
    },
  };
}
