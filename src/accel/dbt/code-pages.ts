// Which pages of RAM hold code that a vCPU has decoded, by the page's number from `ramBase`: a count of vCPUs for each page, which all share, and
// the pieces of its pages that one vCPU's code lies in (`Pieces` in isa/x86/memory.ts).

import { Pieces } from '../../isa/x86/memory.ts';
import * as st from '../../isa/x86/state.ts';
import type { MemoryLayout } from '../accel.ts';
import { Area } from './layout.ts';

/** Writes to a page without code after which its stores are fast again. */
const IDLE_WRITES = 16;

/** One vCPU's part of it; `env` is where the vCPU's area begins. */
export class CodePages {
  /** By page: how many vCPUs hold decoded code of it (shared), and whether this one does. */
  readonly #counts: Uint8Array;
  readonly #holds: Uint8Array;
  /** Writes that a page has seen since its last code went. */
  readonly #idle: Uint8Array;
  /** Guest-physical address that pieces of a page were noted for, or -1 for several. */
  readonly #owners = new Map<number, number>();
  readonly #view: DataView;
  readonly #pieces: number;

  constructor(buffer: SharedArrayBuffer, layout: MemoryLayout, env: number) {
    this.#counts = new Uint8Array(buffer, layout.codeMap, layout.guestBytes / 4096);
    this.#holds = new Uint8Array(this.#counts.length);
    this.#idle = new Uint8Array(this.#counts.length);
    this.#view = new DataView(buffer);
    this.#pieces = env + Area.pieces;
  }
  /** The vCPU is about to decode code of a page. True where no vCPU has held any until now, so that stores to it go past those who look. */
  claim(page: number): boolean {
    this.#idle[page] = 0;
    if (this.#holds[page]) return false;
    this.#holds[page] = 1;
    return Atomics.add(this.#counts, page, 1) === 0;
  }
  /** Whether another vCPU holds code of a page. */
  othersHold(page: number): boolean {
    return Atomics.load(this.#counts, page) > this.#holds[page];
  }
  /** This vCPU holds no code of a page any more. */
  drop(page: number): void {
    this.#forget(page);
    if (this.#holds[page]) Atomics.sub(this.#counts, page, 1);
    this.#holds[page] = 0;
  }
  /** Nor of any other. */
  dropAll(): void {
    new Uint8Array(this.#view.buffer).fill(0, this.#pieces, this.#pieces + st.PIECE_ENTRIES * st.PIECE_ENTRY_BYTES);
    this.#owners.clear();
    for (let page = this.#holds.indexOf(1); page >= 0; page = this.#holds.indexOf(1, page)) this.drop(page);
  }
  /** A page was written to that has no code left. Where code is patched, the next comes soon: it is given up when it is written to more often. */
  written(page: number): void {
    if (this.#holds[page] && ++this.#idle[page] >= IDLE_WRITES) this.drop(page);
  }
  /** Notes which pieces of a page, which shows at `gpa`, hold code: two words of a bit for each. */
  note(page: number, gpa: number, lower: number, upper: number): void {
    // A page that shows at two addresses counts as full: nobody adds up what both have.
    const owner = this.#owners.get(page);
    if (owner === undefined) this.#owners.set(page, gpa);
    else if (owner !== gpa) {
      this.#owners.set(page, -1);
      [lower, upper] = [-1, -1];
    }
    if ((lower | upper) === 0) return this.#forget(page);
    const entry = this.#entry(page);
    this.#view.setInt32(entry + Pieces.page, page + 1, true);
    this.#view.setInt32(entry + Pieces.bits, lower, true);
    this.#view.setInt32(entry + Pieces.bits + 4, upper, true);
  }
  #forget(page: number): void {
    const entry = this.#entry(page);
    if (this.#view.getInt32(entry + Pieces.page, true) === page + 1) this.#view.setInt32(entry + Pieces.page, 0, true);
  }
  #entry(page: number): number {
    return this.#pieces + (page & (st.PIECE_ENTRIES - 1)) * st.PIECE_ENTRY_BYTES;
  }
}
