// SMRAM as host bridges guard it: the window of the VGA, and TSEG at the end of low RAM. Intel 440FX datasheet (290549), section
// 3.2.20; Intel 3 Series Express Chipset datasheet (316966), sections 5.1.22 and 5.1.23; QEMU adds the size of an extended TSEG in
// 0x50. High SMRAM (H_SMRAME), and QEMU's SMRAM at the first SMBASE (0x9C), are not there.
import type { Arena } from '../bits/arena.ts';
import { Smram } from '../bits/slot-table.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { MemorySlots } from '../bus/slots.ts';
import type { PciFunction } from './pci-function.ts';

export const smramLayout = struct({ control: 'u8', tseg: 'u8' }, { name: 'smram', version: 1 });

/** Registers of the q35 host bridge; the i440FX has the first at 0x72. */
const at = { extendedTseg: 0x50, control: 0x9d, tseg: 0x9e } as const;
const i440fxControl = 0x72;
const control = { open: 0x40, closed: 0x20, lock: 0x10, enable: 8, initial: 2 } as const;
const tsegEnable = 1;
/** MiB of TSEG by its field; the last one is QEMU's extended size. */
const tsegSizes = [1, 2, 8] as const;
/** Bytes that TSEG may have, with an extended one of so many MiB. */
export const tsegBytes = (extendedTseg: number): number[] => [...tsegSizes, extendedTseg].map((mib) => mib * 2 ** 20);
const MIB = 1 << 20;

export interface SmramOptions {
  readonly arena: Arena;
  readonly slots: MemorySlots;
  /** MiB of the extended TSEG; 0 for none. */
  readonly extendedTseg?: number;
  /** Bytes of RAM below 4 GiB. */
  readonly ramLow: number;
}

export class SmramControl {
  readonly s: ViewOf<typeof smramLayout>;
  readonly #o: SmramOptions;
  readonly #f: PciFunction;
  readonly #q35: boolean;

  /** Adds the registers to a host bridge that is being built. */
  constructor(f: PciFunction, kind: 'q35' | 'i440fx', o: SmramOptions) {
    this.#o = o;
    this.#f = f;
    this.#q35 = kind === 'q35';
    this.s = o.arena.alloc(smramLayout);
    const first = this.#q35 ? at.control : i440fxControl;
    f.preset(first, [control.initial]);
    f.writable(first, [control.open | control.closed | control.lock | control.enable]);
    if (this.#q35) {
      f.preset(at.tseg, [0x38]);
      f.writable(at.tseg, [0x07]);
      if (o.extendedTseg) f.writable(at.extendedTseg, [0xff, 0xff]);
    }
    f.onWrite((offset, size) => {
      const meets = (register: number, bytes = 1): boolean => offset < register + bytes && offset + size > register;
      if (meets(first)) this.#written(f.read(first, 1), this.s.tseg);
      if (!this.#q35) return;
      if (meets(at.tseg)) this.#written(this.s.control, f.read(at.tseg, 1));
      if (o.extendedTseg && meets(at.extendedTseg, 2) && f.read(at.extendedTseg, 2) === 0xffff)
        f.poke(at.extendedTseg, 2, o.extendedTseg);
    });
  }

  /** Power-on state; memory follows. */
  reset(): void {
    Object.assign(this.s, { control: control.initial, tseg: 0x38 });
    this.apply();
  }

  /** Once locked, nothing changes until the next reset but the bit that closes it for data. */
  #written(wanted: number, tseg: number): void {
    const s = this.s;
    if (s.control & control.lock) s.control = (s.control & ~control.closed) | (wanted & control.closed);
    else {
      // The i440FX of QEMU has no lock.
      const locks = this.#q35 && (wanted & control.lock) !== 0;
      s.control = locks ? wanted & ~control.open : wanted & ~(this.#q35 ? 0 : control.lock);
      s.tseg = tseg;
    }
    this.#f.poke(this.#q35 ? at.control : i440fxControl, 1, s.control);
    if (this.#q35) this.#f.poke(at.tseg, 1, s.tseg);
    this.apply();
  }

  /** Makes memory what the registers say. With the board's lock held, or while the machine stands still. */
  apply(): void {
    const { s } = this;
    const { slots, ramLow, extendedTseg = 0 } = this.#o;
    const enabled = (s.control & control.enable) !== 0;
    const size = enabled && this.#q35 && s.tseg & tsegEnable ? (tsegSizes[(s.tseg >>> 1) & 3] ?? extendedTseg) * MIB : 0;
    const flags = (s.control & control.open ? Smram.open : 0) | (enabled ? Smram.low : 0);
    slots.smram(flags, Math.min(size, ramLow));
  }
}
