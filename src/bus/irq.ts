// Interrupt wires: lines with a level, lines that several sources share, and message-signalled interrupts.

/** A wire. Setting the level that it has is harmless. With the board's lock held. */
export interface IrqLine {
  set(level: 0 | 1): void;
}

/** A wire that ends nowhere. */
export const unconnected: IrqLine = { set: () => {} };

/** One wire that drives several. */
export function fanOut(...lines: readonly IrqLine[]): IrqLine {
  return {
    set(level) {
      for (const line of lines) line.set(level);
    },
  };
}

/** Wired-or: `line` is high while any source is. `levels[index]` keeps one bit per source, in shared memory. */
export class SharedLine {
  readonly #levels: Uint32Array | Int32Array;
  readonly #index: number;
  readonly #line: IrqLine;

  constructor(levels: Uint32Array | Int32Array, index: number, line: IrqLine) {
    this.#levels = levels;
    this.#index = index;
    this.#line = line;
  }

  /** The wire of source `n`, 0 to 31. */
  source(n: number): IrqLine {
    return {
      set: (level) => {
        if (level) Atomics.or(this.#levels, this.#index, 1 << n);
        else Atomics.and(this.#levels, this.#index, ~(1 << n));
        this.#line.set(Atomics.load(this.#levels, this.#index) === 0 ? 0 : 1);
      },
    };
  }
}

/** A message-signalled interrupt: a write of `data` (32 bits) to `address` (64 bits, as a number). */
export interface Msi {
  readonly address: number;
  readonly data: number;
}

/** Where messages go. Lock-free: any thread may send. */
export type MsiSink = (address: number, data: number) => void;
