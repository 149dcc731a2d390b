// The PHY of a gigabit card behind MDIC: IEEE 802.3 clause 22; Marvell 88E1000 and, with pages, 88E1149.

/** Registers of clause 22 that do something. */
const register = { control: 0, status: 1, id1: 2, id2: 3, partner: 5, status1000: 10 } as const;
const linkBits = 0x24;
const REGISTERS = 32;

/** A kind of PHY: what its registers are after a reset, by page, and what only it has. */
export interface PhyModel {
  readonly initial: Readonly<Record<number, number>>;
  readonly readOnly: readonly number[];
  /** The register that chooses the page of registers 16 and up. */
  readonly pageSelect?: number;
  /** Pages that there are, with what registers of pages other than 0 start with. */
  readonly pages?: Readonly<Record<number, Readonly<Record<number, number>>>>;
  /** A register of page 0 and its bits that tell of the link besides status. */
  readonly real: readonly [register: number, bits: number];
}

/** Words of state that a model takes. */
export const phyWords = (model: PhyModel): number => REGISTERS * (1 + Math.max(0, ...Object.keys(model.pages ?? {}).map(Number)));

export const m88e1000: PhyModel = {
  initial: {
    ...{ 0: 0x1140, 1: 0x7949, 2: 0x0141, 3: 0x0c20, 4: 0x0de1, 5: 0x41e1, 9: 0x0e00, 10: 0x3c00, 16: 0x0360, 17: 0xac00 },
  },
  readOnly: [1, 2, 3, 5, 10, 17],
  real: [17, 0x0400],
};
/** The PHY inside of the 82574 (82574 Data Sheet, chapter 9). */
export const bm82574: PhyModel = {
  initial: {
    ...{ 0: 0x1140, 1: 0x7949, 2: 0x0141, 3: 0x0cb1, 4: 0x0de1, 5: 0x07e0, 6: 0x0004, 7: 0x2001, 9: 0x0f00, 10: 0x3c00 },
    ...{ 15: 0x3000, 16: 0x3360, 17: 0xa800 },
  },
  readOnly: [1, 2, 3, 5, 6, 8, 10, 15, 17, 19, 21],
  pageSelect: 22,
  pages: { 1: {}, 2: { 16: 0x0088, 21: 0x1046 }, 3: { 18: 0x4005 }, 4: {}, 5: {}, 6: {} },
  real: [17, 0x0408],
};

export class Phy {
  readonly #words: Uint16Array;
  readonly #model: PhyModel;
  /** Negotiation was asked for: it is over at once. */
  readonly #negotiated: () => void;

  constructor(words: Uint16Array, model: PhyModel, negotiated: () => void) {
    this.#words = words;
    this.#model = model;
    this.#negotiated = negotiated;
  }
  reset(): void {
    this.#words.fill(0);
    for (const [at, value] of Object.entries(this.#model.initial)) this.#words[Number(at)] = value;
    for (const [page, rows] of Object.entries(this.#model.pages ?? {}))
      for (const [at, value] of Object.entries(rows)) this.#words[REGISTERS * Number(page) + Number(at)] = value;
  }
  link(up: boolean): void {
    const [real, bits] = this.#model.real;
    for (const [at, mask] of [[register.status, linkBits], [real, bits]] as const)
      this.#words[at] = up ? this.#words[at]! | mask : this.#words[at]! & ~mask; // biome-ignore format: two pairs
  }
  /** Where a register is; registers below 16 and the one that chooses are on every page. */
  #at(n: number): number {
    const { pageSelect, pages } = this.#model;
    if (pageSelect === undefined || n < 16 || n === pageSelect) return n;
    const page = this.#words[pageSelect]! & 0xff;
    return pages?.[page] ? REGISTERS * page + n : n;
  }
  read(n: number): number {
    return this.#words[this.#at(n)]!;
  }
  write(n: number, value: number): void {
    const at = this.#at(n);
    if (this.#model.readOnly.includes(at)) return;
    if (at !== register.control) {
      this.#words[at] = value;
      return;
    }
    // Reset and the start of negotiation read as done.
    const [reset, restart] = [0x8000, 0x0200];
    this.#words[register.control] = value & ~(reset | restart);
    if (value & (reset | restart)) this.#negotiated();
  }
  /** A command of MDIC (8254x SDM, section 13.4.6) and what reads there afterwards. */
  manage(value: number): number {
    const [write, read] = [1, 2];
    const [ready, failed] = [1 << 28, 1 << 30];
    const operation = (value >>> 26) & 3;
    const at = (value >>> 16) & 31;
    let result = value;
    if (((value >>> 21) & 31) !== 1) result |= failed;
    else if (operation === read) result = (value & ~0xffff) | this.read(at);
    else if (operation === write) this.write(at, value & 0xffff);
    return (result | ready) >>> 0;
  }
}
