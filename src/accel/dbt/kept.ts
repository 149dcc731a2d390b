// Regions of earlier runs, with what the host's compiler made of them. A region is its guest code, not its address: it may be used again wherever
// the same bytes lie at the same offset in a page, in the same context, and its other pages are mapped where they were relative to that one. What is
// in its function beside code is its place in the table (where its sites and cells are), so it takes the same place again.

import type { Reach } from './region.ts';

/** One region of an earlier run. */
export interface KeptRegion {
  /** Place in the table. */
  readonly index: number;
  readonly ctx: number;
  /** Offset of its entry in its page. */
  readonly entry: number;
  readonly reach: Reach;
  readonly grows: boolean;
  readonly instructions: number;
  /** Where it hands over to others. */
  readonly stops: readonly number[];
  /** As in `RegionMade`. */
  readonly sites: readonly (readonly number[])[];
  readonly cells: readonly (readonly number[])[];
  /** Parts of pages that it covers: page relative to the entry's, start and end (exclusive) in it; and their bytes, one after the other. */
  readonly ranges: readonly (readonly [number, number, number])[];
  readonly code: Uint8Array;
  /** Number of its module. */
  readonly module: number;
}

/** A module of them. */
export interface KeptModule {
  readonly module: WebAssembly.Module;
  readonly hosts: readonly string[];
  readonly imports: readonly string[];
}

/** Where regions of earlier runs are. */
export interface KeptRegions {
  /** Those with this context and offset of their entry. */
  at(ctx: number, entry: number): readonly KeptRegion[] | undefined;
  /** Whether a place in the table is one's. */
  takes(index: number): boolean;
  /** A module; undefined where it cannot be had. */
  module(number: number): KeptModule | undefined;
  /** Notes that a region is in use now. */
  used(region: KeptRegion): void;
}

/** Whether pages, by their number relative to the entry's, hold the code of a region. */
export function holds(region: KeptRegion, page: (n: number) => Uint8Array | undefined): boolean {
  const { code } = region;
  let at = 0;
  for (const [n, from, to] of region.ranges) {
    const bytes = page(n);
    if (!bytes) return false;
    for (let i = from; i < to; i++) if (bytes[i] !== code[at++]) return false;
  }
  return true;
}
