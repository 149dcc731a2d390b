// Which clusters of an image hold metadata, so that a damaged or hostile image cannot have a write go over it.

export type MetadataKind =
  | 'header'
  | 'L1 table'
  | 'refcount table'
  | 'refcount block'
  | 'L2 table'
  | 'snapshot table'
  | 'snapshot L1 table'
  | 'bitmap';

/** Numbers from a sorted array, with additions and removals: 8 bytes each where a Set takes 40. */
class IndexSet {
  #sorted: Float64Array;
  readonly #added = new Set<number>();
  readonly #removed = new Set<number>();

  constructor(values: Float64Array) {
    this.#sorted = values.sort();
  }

  add(value: number): void {
    this.#removed.delete(value);
    this.#added.add(value);
  }

  delete(value: number): void {
    if (!this.#added.delete(value) && this.has(value)) this.#removed.add(value);
  }

  has(value: number): boolean {
    if (this.#added.has(value)) return true;
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#sorted[middle]! < value) low = middle + 1;
      else high = middle;
    }
    return this.#sorted[low] === value && !this.#removed.has(value);
  }
}

interface Range {
  readonly kind: MetadataKind;
  readonly first: number;
  readonly end: number;
}

/** All in clusters, counted from the start of the file. */
export class MetadataMap {
  #ranges: readonly Range[] = [];
  #l2 = new IndexSet(new Float64Array(0));
  #blocks = new IndexSet(new Float64Array(0));

  /** Replaces the ranges of one kind. */
  setRanges(kind: MetadataKind, ranges: readonly (readonly [first: number, count: number])[]): void {
    const kept = this.#ranges.filter((r) => r.kind !== kind);
    this.#ranges = [...kept, ...ranges.map(([first, count]) => ({ kind, first, end: first + count }))];
  }

  /** Replaces the L2 tables or the refcount blocks. */
  setTables(kind: 'L2 table' | 'refcount block', clusters: Float64Array): void {
    if (kind === 'L2 table') this.#l2 = new IndexSet(clusters);
    else this.#blocks = new IndexSet(clusters);
  }

  add(kind: 'L2 table' | 'refcount block', cluster: number): void {
    (kind === 'L2 table' ? this.#l2 : this.#blocks).add(cluster);
  }

  delete(kind: 'L2 table' | 'refcount block', cluster: number): void {
    (kind === 'L2 table' ? this.#l2 : this.#blocks).delete(cluster);
  }

  /** The kind of metadata, other than `except`, that one of `count` clusters from `first` holds. */
  find(first: number, count: number, except?: MetadataKind): MetadataKind | undefined {
    for (const r of this.#ranges) if (r.kind !== except && first < r.end && r.first < first + count) return r.kind;
    for (let c = first; c < first + count; c++) {
      if (except !== 'L2 table' && this.#l2.has(c)) return 'L2 table';
      if (except !== 'refcount block' && this.#blocks.has(c)) return 'refcount block';
    }
    return undefined;
  }
}
