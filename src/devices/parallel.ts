// A parallel port with a printer that takes each byte at once: data, status, control. IBM PC Technical Reference, "Printer Adapter"; IEEE
// 1284-2000, compatibility mode.

import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import type { IrqLine } from '../bus/irq.ts';
import { registers, ro, rw } from '../bus/registers.ts';
import { Ring, ringLayout } from '../bus/ring.ts';
import type { Handler } from '../bus/space.ts';

/** Ports and interrupts of LPT1 to LPT3. */
export const lptPorts = [{ base: 0x378, irq: 7 }, { base: 0x278, irq: 7 }, { base: 0x3bc, irq: 7 }] as const; // biome-ignore format: one line

/** BUSY and ACK are low when they say so; the time-out bit is EPP's. */
const status = { timeout: 0x01, error: 0x08, online: 0x10, ack: 0x40, ready: 0x80 } as const;
const control = { strobe: 0x01, noReset: 0x04, select: 0x08, interrupt: 0x10, input: 0x20, fixed: 0xc0 } as const;
const RING = 4096;
const IDLE = status.error | status.online | status.ack | status.ready;

export const parallelLayout = struct(
  { data: 'u8', status: 'u8', control: 'u8', pending: 'u8' },
  { name: 'parallel', version: 1 },
);

const map = registers<ParallelPort>('parallel', 8, [
  rw(0, 1, 'DATA', (d) => (d.s.control & control.input ? 0xff : d.s.data), (d, v) => { d.s.data = v; }),
  ro(1, 1, 'STATUS', (d) => d.readStatus()),
  rw(2, 1, 'CONTROL', (d) => d.s.control, (d, v) => d.setControl(v)),
], { empty: 0xff, max: 1 }); // biome-ignore format: one line each

export class ParallelPort {
  readonly s: ViewOf<typeof parallelLayout>;
  readonly handler: Handler;
  /** What the printer was given; its `signal` wakes who empties it. */
  readonly output: Ring;
  readonly #irq: IrqLine;

  constructor(o: { readonly arena: Arena; readonly name: string; readonly irq: IrqLine; readonly report?: Report }) {
    this.s = o.arena.alloc(parallelLayout, o.name);
    this.output = new Ring(o.arena.alloc(ringLayout(RING, { name: 'parallel-output' }), o.name));
    this.#irq = o.irq;
    this.handler = map.bind(this, o.report);
  }
  reset(): void {
    Object.assign(this.s, { data: 0xff, status: IDLE | status.timeout, control: 0xcc, pending: 0 });
    this.#drive();
  }
  #drive(): void {
    this.#irq.set(this.s.pending && this.s.control & control.interrupt ? 1 : 0);
  }
  /** Each look at a printer that has a byte brings it a step on: it acknowledges, then it is ready again, where it has room. */
  readStatus(): number {
    const { s } = this;
    const shown = s.status;
    s.pending = 0;
    if (!(s.status & status.ready) && !(s.control & control.strobe)) {
      if (s.status & status.ack) s.status &= ~status.ack;
      else if (this.output.free > 0) s.status |= status.ack | status.ready;
    }
    this.#drive();
    return shown;
  }
  setControl(value: number): void {
    const { s } = this;
    if (!(value & control.noReset)) s.status = IDLE;
    else if (value & control.select) {
      if (value & control.strobe) {
        s.status &= ~status.ready;
        if (!(s.control & control.strobe)) this.output.push(s.data);
      } else if (s.control & control.interrupt) s.pending = 1;
    }
    s.control = value | control.fixed;
    this.#drive();
  }
}
