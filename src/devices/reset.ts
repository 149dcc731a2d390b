// Ways in which a PC guest resets itself, the A20 gate and the debug port: ports 0xCF9, 0x92 and 0x80. ICH9 datasheet (316972), sections 13.7.2 and 13.7.5.
import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';

export const resetLayout = struct(
  {
    control: 'u8',
    /** Port 0x92: bit 1 is the A20 gate. */
    port92: 'u8',
    /** The last code written to port 0x80. */
    post: 'u8',
  },
  { name: 'reset', version: 1 },
);

export interface ResetOptions {
  readonly arena: Arena;
  readonly reset: () => void;
  /** The A20 gate moved; absent where A20 is always open. */
  readonly a20?: (open: boolean) => void;
}

export class ResetPorts {
  readonly s: ViewOf<typeof resetLayout>;
  /** Port 0xCF9, for `PciHost`, whose address register shares its ports. */
  readonly control: Handler;
  readonly #o: ResetOptions;

  constructor(o: ResetOptions) {
    this.#o = o;
    this.s = o.arena.alloc(resetLayout);
    this.control = {
      max: 1,
      read: () => this.s.control,
      // Bit 1 chooses a full reset, bit 2 going from 0 to 1 does it.
      write: (_, __, v) => {
        const rises = (v & ~this.s.control & 4) !== 0;
        this.s.control = v & 0xe;
        if (rises) o.reset();
      },
    };
  }

  reset(): void {
    this.s.control = 0;
    this.s.port92 = 2;
    this.s.post = 0;
  }

  /** `withControl` maps 0xCF9 too, for boards without PCI. */
  map(ports: AddressSpace, withControl = false): void {
    if (withControl) ports.map(0xcf9, 1, this.control, 'reset-control');
    ports.map(
      0x92,
      1,
      {
        max: 1,
        read: () => this.s.port92,
        write: (_, __, v) => {
          const changed = v ^ this.s.port92;
          this.s.port92 = v & 2;
          if (changed & 2) this.#o.a20?.((v & 2) !== 0);
          if (v & 1) this.#o.reset();
        },
      },
      'port92',
    );
    ports.map(
      0x80,
      1,
      {
        max: 1,
        read: () => this.s.post,
        write: (_, __, v) => {
          this.s.post = v;
        },
      },
      'ioport80',
    );
  }
}
