// Interrupts of the 82574: causes, masks, and the three ways to tell the driver. 82574 Data Sheet, sections 7.4 and 10.2.4.

import { cause as common } from './controller.ts';

/** Causes (section 10.2.4.1): those of older cards, and one for each queue. */
export const cause = {
  ...common,
  rxQueue: [1 << 20, 1 << 21],
  txQueue: [1 << 22, 1 << 23],
  other: 1 << 24,
} as const;
const ASSERTED = 0x8000_0000;
/** What one vector of MSI-X stands for: link, overrun, MDIO, small packets, acknowledgements, management. */
const OTHERS = cause.link | cause.rxOverrun | cause.mdio | (1 << 16) | (1 << 17) | (1 << 18);
/** Causes that can be masked. */
const MASK = 0x01f7_82d7;
/** CTRL_EXT: masks are cleared by reading or clearing ICR, or when a vector of MSI-X is sent. */
const auto = { byRead: 1 << 27, byVector: 1 << 24 } as const;
/** IVAR (section 10.2.4.9): the causes with their vectors, a nibble each. */
const vectors: readonly number[] = [...cause.rxQueue, ...cause.txQueue, cause.other];
export const VECTORS = 5;

export interface InterruptState {
  icr: number;
  ims: number;
  iam: number;
  eiac: number;
  ivar: number;
  ctrlExt: number;
  /** Causes that messages have been sent for. */
  told: number;
}

export interface InterruptWays {
  /** How the driver is told at this moment. */
  mode(): 'wire' | 'msi' | 'msix';
  wire(level: 0 | 1): void;
  msi(): void;
  msix(vector: number): void;
}

/** With the board's lock held. */
export class Interrupts {
  readonly #s: InterruptState;
  readonly #to: InterruptWays;

  constructor(s: InterruptState, to: InterruptWays) {
    this.#s = s;
    this.#to = to;
  }

  raise(causes: number): void {
    this.#s.icr |= causes;
    this.update();
  }
  /**
   * ICR as it reads. Reading clears it where nothing is unmasked or an interrupt is asserted; without MSI-X always, which some drivers take
   * for granted.
   */
  read(): number {
    const s = this.#s;
    const { icr } = s;
    const asserted = (icr & s.ims & ~ASSERTED) !== 0;
    if (s.ims === 0 || asserted || this.#to.mode() !== 'msix') s.icr = 0;
    if (icr & ASSERTED && s.ctrlExt & auto.byRead) {
      s.icr = 0;
      s.ims &= ~s.iam;
    }
    this.update();
    return icr;
  }
  clear(ones: number): void {
    const s = this.#s;
    if (s.icr & ASSERTED && s.ctrlExt & auto.byRead) s.ims &= ~s.iam;
    // Drivers take "other" for all that it stands for.
    s.icr &= ~(ones & cause.other ? ones | OTHERS : ones);
    this.update();
  }
  unmask(causes: number): void {
    this.#s.ims |= causes & MASK;
    this.update();
  }
  mask(causes: number): void {
    this.#s.ims &= ~causes;
    this.update();
  }
  /** Tells the driver what is to be told. */
  update(): void {
    const s = this.#s;
    const mode = this.#to.mode();
    if (mode === 'msix' && s.icr & OTHERS) s.icr |= cause.other;
    s.icr = s.icr & ~ASSERTED ? s.icr | ASSERTED : 0;
    const pending = s.icr & s.ims & ~ASSERTED;
    this.#to.wire(mode === 'wire' && pending !== 0 ? 1 : 0);
    const fresh = pending & ~(s.told & pending);
    s.told = mode === 'wire' ? 0 : pending;
    if (fresh === 0 || mode === 'wire') return;
    if (mode === 'msi') this.#to.msi();
    else this.#vectors(fresh);
  }
  /** Sends the vectors of these causes, and clears what is cleared by that. */
  #vectors(causes: number): void {
    const s = this.#s;
    const valid = 8;
    for (const [n, one] of vectors.entries()) {
      if (!(causes & one)) continue;
      const entry = (s.ivar >>> (4 * n)) & 15;
      if (s.ctrlExt & auto.byVector) s.ims &= ~(s.iam & one);
      const cleared = s.eiac & one;
      s.icr &= ~cleared;
      if (!(s.ctrlExt & auto.byRead)) s.ims &= ~cleared;
      if (entry & valid && (entry & 7) < VECTORS) this.#to.msix(entry & 7);
    }
    s.icr = s.icr & ~ASSERTED ? s.icr | ASSERTED : 0;
    s.told &= s.icr & s.ims;
  }
}
