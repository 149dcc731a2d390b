// A bounded set of disjoint ranges of stream positions: what arrived out of order, or what a SACK option reported (RFC 2018).

/** From the first position to the one after the last. */
export type Range = readonly [from: number, to: number];

export class Ranges {
  readonly #max: number;
  /** In order, with gaps between. */
  #list: Range[] = [];

  /** At most `max` ranges are kept. */
  constructor(max: number) {
    this.#max = max;
  }

  get list(): readonly Range[] {
    return this.#list;
  }

  get highest(): number {
    return this.#list.at(-1)?.[1] ?? Number.NEGATIVE_INFINITY;
  }

  /** Positions in all ranges. */
  get total(): number {
    return this.#list.reduce((n, [from, to]) => n + to - from, 0);
  }

  /** Adds `from` to `to`; false, with nothing changed, where that would be one range too many. */
  add(from: number, to: number): boolean {
    if (from >= to) return true;
    const before = this.#list.filter((r) => r[1] < from);
    const after = this.#list.filter((r) => r[0] > to);
    const touched = this.#list.slice(before.length, this.#list.length - after.length);
    if (touched.length === 0 && this.#list.length >= this.#max) return false;
    this.#list = [...before, [Math.min(from, touched[0]?.[0] ?? from), Math.max(to, touched.at(-1)?.[1] ?? to)], ...after];
    return true;
  }

  /** Forgets all below `position`. Gives the end of the range that holds it, or `position` where none does. */
  advance(position: number): number {
    while (this.#list.length > 0 && this.#list[0][1] < position) this.#list.shift();
    const first = this.#list[0];
    if (first === undefined || first[0] > position) return position;
    this.#list.shift();
    return first[1];
  }

  /** The first gap at or after `position` that has a range behind it: from, and to where. */
  gap(position: number): Range | undefined {
    let from = position;
    for (const [a, b] of this.#list) {
      if (from < a) return [from, a];
      from = Math.max(from, b);
    }
    return undefined;
  }

  clear(): void {
    this.#list = [];
  }
}
