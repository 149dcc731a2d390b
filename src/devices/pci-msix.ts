// MSI-X of a PCI function: the capability, the vector table and the pending bits. PCI Local Bus Specification 3.0, section 6.8.2.
import type { Arena } from '../bits/arena.ts';
import { type Layout, struct } from '../bits/struct.ts';
import type { MsiSink } from '../bus/irq.ts';
import type { Handler } from '../bus/space.ts';
import type { PciFunction } from './pci-function.ts';

type MsixFields = { readonly table: readonly ['u32', number]; readonly pending: readonly ['i32', number] };
const msixLayout = (vectors: number): Layout<MsixFields> =>
  struct({ table: ['u32', vectors * 4], pending: ['i32', Math.ceil(vectors / 64) * 2] }, { name: 'msix', version: 1 });

const enable = 0x8000;
const maskAll = 0x4000;

/** Bytes of a BAR that holds table and pending bits of `vectors` vectors. */
export const msixBarSize = (vectors: number): number => Math.max(4096, 2 ** Math.ceil(Math.log2(2 * pendingAt(vectors))));
const pendingAt = (vectors: number): number => Math.max(2048, 2 ** Math.ceil(Math.log2(16 * vectors)));

/** The state comes before the function, as the function's BAR needs the handler: `new Msix`, `new PciFunction`, `attach`. */
export class Msix {
  readonly vectors: number;
  /** What stands behind the BAR: the table at 0, the pending bits at half of it. */
  readonly handler: Handler;
  readonly #table: Uint32Array;
  readonly #pending: Int32Array;
  readonly #send: MsiSink;
  readonly #start: number;
  #f: PciFunction | undefined;
  #at = 0;

  /** `vectors` is 1 to 2,048; `pending` is where the pending bits are where that is not the middle of the BAR. */
  constructor(o: { arena: Arena; name: string; vectors: number; send: MsiSink; pending?: number }) {
    if (!(o.vectors >= 1 && o.vectors <= 2048))
      throw new Error(`Cannot give ${o.name} ${o.vectors} MSI-X vectors: 1 to 2048 are possible`);
    this.vectors = o.vectors;
    this.#send = o.send;
    const s = o.arena.alloc(msixLayout(o.vectors), o.name);
    this.#table = s.table;
    this.#pending = s.pending;
    const start = o.pending ?? pendingAt(o.vectors);
    this.#start = start;
    const word = (offset: number): number => {
      const i = offset >>> 2;
      return (offset < start ? this.#table[i] : this.#pending[i - start / 4]) ?? 0;
    };
    this.handler = {
      read: (offset, size) => (size === 4 ? word(offset) : (word(offset & ~3) >>> (8 * (offset & 3))) & ((1 << (8 * size)) - 1)),
      write: (offset, size, value) => {
        // The specification has whole words only.
        if (size !== 4 || offset >= start || offset >>> 2 >= this.#table.length) return;
        this.#table[offset >>> 2] = value;
        if ((offset & 12) === 12) this.#flush(offset >>> 4);
      },
    };
  }

  /** Adds the capability to `f`, which has `handler` behind BAR `bar`, from `offset` on. Before the function's `reset`. */
  attach(f: PciFunction, bar: number, offset = 0): void {
    this.#f = f;
    const size = this.vectors - 1;
    const le32 = (v: number) => [v & 0xff, (v >>> 8) & 0xff, (v >>> 16) & 0xff, v >>> 24];
    this.#at = f.addCapability(
      0x11,
      [size & 0xff, size >>> 8, ...le32(offset | bar), ...le32((offset + this.#start) | bar)],
      [0, 0xc0],
    );
    f.onWrite((offset, n) => {
      if (offset <= this.#at + 3 && offset + n > this.#at + 2) for (let v = 0; v < this.vectors; v++) this.#flush(v);
    });
  }

  /** All vectors masked, nothing pending. */
  reset(): void {
    this.#table.fill(0);
    for (let v = 0; v < this.vectors; v++) this.#table[4 * v + 3] = 1;
    this.#pending.fill(0);
  }

  /** True when the guest uses MSI-X in place of INTx. */
  get enabled(): boolean {
    return (this.#control & enable) !== 0;
  }

  /** Sends vector `v`, or keeps it while it is masked. False when MSI-X is off or there is no such vector. Lock-free. */
  notify(v: number): boolean {
    if (!this.enabled || v >= this.vectors) return false;
    if (this.#masked(v)) {
      Atomics.or(this.#pending, v >>> 5, 1 << (v & 31));
      // The guest may have unmasked it at this very moment.
      if (!this.#masked(v)) this.#flush(v);
    } else this.#deliver(v);
    return true;
  }

  get #control(): number {
    return this.#f?.read(this.#at + 2, 2) ?? 0;
  }

  #masked(v: number): boolean {
    return (this.#control & maskAll) !== 0 || (this.#table[4 * v + 3]! & 1) !== 0;
  }

  #flush(v: number): void {
    if (!this.enabled || this.#masked(v)) return;
    const bit = 1 << (v & 31);
    if (Atomics.and(this.#pending, v >>> 5, ~bit) & bit) this.#deliver(v);
  }

  #deliver(v: number): void {
    const [low, high, data] = [this.#table[4 * v]!, this.#table[4 * v + 1]!, this.#table[4 * v + 2]!];
    this.#send(high * 2 ** 32 + low, data);
  }
}
