// The educational PCI device, which teaches drivers: a factorial, interrupts that are raised by hand, DMA from and to a buffer of its own.
// QEMU docs/specs/edu.rst ("EDU device"). What takes time there is done at once here.

import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Report } from '../bus/events.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { GuestMemory } from '../bus/memory.ts';
import { registers, ro, rw, wo } from '../bus/registers.ts';
import type { Handler } from '../bus/space.ts';

/** Bytes of the BAR. */
export const EDU_BYTES = 1 << 20;
const IDENTITY = 0x0100_00ed;
const BUFFER = 0x4_0000;
const BUFFER_BYTES = 4096;
const FACTORIAL_IRQ = 1;
const DMA_IRQ = 0x100;
/** Of the status register: an interrupt when a factorial is there. The bit below says that one is being computed. */
const IRQ_WHEN_DONE = 0x80;
const start = 1;
const toGuest = 2;
const irqAfter = 4;

export const eduLayout = struct(
  {
    ...{ liveness: 'u32', factorial: 'u32', status: 'u32', pending: 'u32' },
    ...{
      source: 'u32',
      sourceHigh: 'u32',
      destination: 'u32',
      destinationHigh: 'u32',
      count: 'u32',
      countHigh: 'u32',
      command: 'u32',
    },
    buffer: ['u8', BUFFER_BYTES],
  },
  { name: 'edu', version: 1 },
);

/** n! modulo 2^32: from 34 on nothing is left, whatever n a guest asks for. */
export function factorial(n: number): number {
  let result = 1;
  for (; n > 1 && result !== 0; n--) result = Math.imul(result, n);
  return result >>> 0;
}

export interface EduOptions {
  readonly arena: Arena;
  readonly name: string;
  readonly memory: GuestMemory;
  /** Addresses that the device reaches: QEMU's `dma_mask`, 28 bits unless told otherwise. */
  readonly mask: bigint;
  readonly busMaster: () => boolean;
  readonly report: Report;
}

export class Edu {
  readonly s: ViewOf<typeof eduLayout>;
  readonly handler: Handler;
  /** Set once the function has its interrupt. */
  irq: IrqLine = { set: () => {} };
  readonly #o: EduOptions;

  constructor(o: EduOptions) {
    this.#o = o;
    this.s = o.arena.alloc(eduLayout, o.name);
    const map = eduRegisters.bind(this, o.report);
    this.handler = {
      max: 4,
      read: (at, size) => (at + size <= eduRegisters.length ? map.read(at, size) : 0),
      write: (at, size, value) => {
        if (at + size <= eduRegisters.length) map.write(at, size, value);
      },
    };
  }
  reset(): void {
    const { s } = this;
    s.buffer.fill(0);
    for (const name of ['liveness', 'factorial', 'status', 'pending', 'command'] as const) s[name] = 0;
    for (const name of ['source', 'destination', 'count'] as const) s[name] = s[`${name}High`] = 0;
  }
  raise(bits: number): void {
    this.s.pending |= bits;
    if (this.s.pending !== 0) this.irq.set(1);
  }
  acknowledge(bits: number): void {
    this.s.pending &= ~bits;
    if (this.s.pending === 0) this.irq.set(0);
  }
  compute(n: number): void {
    this.s.factorial = factorial(n);
    if (this.s.status & IRQ_WHEN_DONE) this.raise(FACTORIAL_IRQ);
  }
  /** Moves up to the whole buffer; what does not lie in it is not moved. */
  transfer(command: number): void {
    const { s } = this;
    s.command = command & ~start;
    if (!(command & start)) return;
    const wide = (low: number, high: number): bigint => (BigInt(high) << 32n) | BigInt(low);
    const [source, destination, count] = [
      wide(s.source, s.sourceHigh),
      wide(s.destination, s.destinationHigh),
      wide(s.count, s.countHigh),
    ];
    const inside = BigInt.asUintN(64, (command & toGuest ? source : destination) - BigInt(BUFFER));
    if (this.#o.busMaster() && count <= BigInt(BUFFER_BYTES) && inside <= BigInt(BUFFER_BYTES) - count) {
      const part = s.buffer.subarray(Number(inside), Number(inside + count));
      const gpa = Number((command & toGuest ? destination : source) & this.#o.mask);
      const there = this.#o.memory.slice(gpa, part.length);
      if (there && command & toGuest) {
        there.set(part);
        this.#o.memory.written(gpa, part.length);
      } else if (there) part.set(there);
    }
    if (command & irqAfter) this.raise(DMA_IRQ);
  }
}

/** Words of four bytes each; those of eight come as two. Writing the low half clears the high one, as a driver of 32 bits expects. */
const pair = (offset: number, name: 'source' | 'destination' | 'count') => [
  rw<Edu>(
    offset,
    4,
    name,
    (d) => d.s[name],
    (d, v) => {
      d.s[name] = v;
      d.s[`${name}High`] = 0;
    },
  ),
  rw<Edu>(
    offset + 4,
    4,
    `${name}, high`,
    (d) => d.s[`${name}High`],
    (d, v) => {
      d.s[`${name}High`] = v;
    },
  ),
];

export const eduRegisters = registers<Edu>('edu', 0xa0, [
  ro(0x00, 4, 'identification', () => IDENTITY),
  rw(
    0x04,
    4,
    'liveness',
    (d) => ~d.s.liveness >>> 0,
    (d, v) => {
      d.s.liveness = v;
    },
  ),
  rw(
    0x08,
    4,
    'factorial',
    (d) => d.s.factorial,
    (d, v) => d.compute(v),
  ),
  rw(
    0x20,
    4,
    'status',
    (d) => d.s.status,
    (d, v) => {
      d.s.status = v & IRQ_WHEN_DONE;
    },
  ),
  ro(0x24, 4, 'interrupt status', (d) => d.s.pending),
  wo(0x60, 4, 'interrupt raise', (d, v) => d.raise(v)),
  wo(0x64, 4, 'interrupt acknowledge', (d, v) => d.acknowledge(v)),
  ...pair(0x80, 'source'),
  ...pair(0x88, 'destination'),
  ...pair(0x90, 'count'),
  rw(
    0x98,
    4,
    'command',
    (d) => d.s.command,
    (d, v) => d.transfer(v),
  ),
]);
