// Guest memory of a device's transfer, as a list of pieces: what is no RAM takes no bytes and gives zeros.

import type { GuestMemory } from '../bus/memory.ts';

/** Guest memory of a transfer, piece by piece. */
export class Scatter {
  readonly pieces: Uint8Array[] = [];
  readonly #places: [number, number][] = [];
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }
  /** Adds a range; where it is no RAM, what is written goes nowhere and what is read is zeros. */
  add(gpa: number, length: number): void {
    const whole = this.#memory.slice(gpa, length);
    if (whole) {
      this.pieces.push(whole);
      this.#places.push([gpa, length]);
      return;
    }
    for (let at = gpa; at < gpa + length; ) {
      const n = Math.min(gpa + length - at, 4096 - (at % 4096));
      const piece = this.#memory.slice(at, n);
      this.pieces.push(piece ?? new Uint8Array(n));
      if (piece) this.#places.push([at, n]);
      at += n;
    }
  }
  /** The device has written into the pieces. */
  written(): void {
    for (const [gpa, length] of this.#places) this.#memory.written(gpa, length);
  }
}
