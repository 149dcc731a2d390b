// The device that unit tests of hypervisors talk to. QEMU 7.2, `-device pc-testdev`: scratch ports 0xE0 and 0xE8, page flush 0xE4, interrupt lines 0x2000, memory at 0xFF00_0000.
import type { Arena } from '../bits/arena.ts';
import { ones } from '../bits/fields.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { Handler } from '../bus/space.ts';

const memoryLength = 0x1_0000;

export const testdevLayout = struct({ data: 'u32', memory: ['u8', memoryLength] }, { name: 'pc-testdev', version: 1 });

export interface TestdevOptions {
  readonly arena: Arena;
  /** ISA interrupts by number; those that are absent are not wired. */
  readonly irqs: readonly (IrqLine | undefined)[];
  /** Makes accelerators forget what they know of the page at this guest-physical address. */
  readonly flushPage: (gpa: number) => void;
}

type Map = { map(base: number, length: number, handler: Handler, name: string): void };

export class PcTestdev {
  readonly s: ViewOf<typeof testdevLayout>;
  readonly #o: TestdevOptions;

  constructor(o: TestdevOptions) {
    this.#o = o;
    this.s = o.arena.alloc(testdevLayout);
  }

  reset(): void {
    this.s.data = 0;
    this.s.memory.fill(0);
  }

  map(ports: Map, mmio: Map): void {
    const scratch = (max: 1 | 4): Handler => ({
      max,
      read: (o, size) => ((this.s.data >>> (8 * o)) & ones(size)) >>> 0,
      write: (o, size, v) => {
        this.s.data = ((this.s.data & ~(ones(size) << (8 * o))) | (v << (8 * o))) >>> 0;
      },
    });
    ports.map(0xe0, 4, scratch(4), 'pc-testdev');
    ports.map(0xe8, 4, scratch(1), 'pc-testdev (bytes)');
    ports.map(
      0xe4,
      4,
      {
        read: (_, size) => ones(size),
        write: (_, size, v) => {
          if (size === 4) this.#o.flushPage((v & ~0xfff) >>> 0);
        },
      },
      'pc-testdev (flush)',
    );
    ports.map(
      0x2000,
      24,
      { max: 1, read: () => 0xff, write: (o, _, v) => this.#o.irqs[o]?.set(v === 0 ? 0 : 1) },
      'pc-testdev (lines)',
    );
    mmio.map(
      0xff00_0000,
      memoryLength,
      {
        read: (o, size) => {
          let v = 0;
          for (let i = size - 1; i >= 0; i--) v = v * 256 + this.s.memory[o + i]!;
          return v;
        },
        write: (o, size, v) => {
          for (let i = 0; i < size; i++) this.s.memory[o + i] = v >>> (8 * i);
        },
      },
      'pc-testdev (memory)',
    );
  }
}
