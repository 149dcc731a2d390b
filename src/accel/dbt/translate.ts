// From a vCPU's wishes for regions to one WebAssembly module that holds them: plain data in, plain data out, so that it may happen on
// another thread. The wish carries the answers to all questions that finding the region asks, so that both threads find the same.

import type { Callee } from '../../ir/ir.ts';
import type { Tables } from '../../isa/x86/table.ts';
import type { MemoryImport } from '../../wasm/module.ts';
import type { Handlers } from './handlers.ts';
import type { KeptRegion } from './kept.ts';
import type { Library } from './library.ts';
import { findRegion, REACH, type Reach, type Region, type RegionSource } from './region.ts';
import { buildRegions } from './tier2.ts';

/** A region that a vCPU wants. Pages are numbers relative to the entry's, places are offsets from the entry's page. */
export interface RegionWish {
  /** Tells it from others that were for the same place in the table. */
  readonly number: number;
  /** Place in the table. */
  readonly index: number;
  readonly name: string;
  readonly ctx: number;
  readonly reach: Reach;
  readonly entry: number;
  /** Known pages and the host addresses of their bytes. */
  readonly pages: readonly (readonly [number, number])[];
  /** Places that branches have been taken to; null: all. */
  readonly met: readonly number[] | null;
  /** Where indirect jumps went. */
  readonly seen: readonly (readonly [number, readonly number[]])[];
  /** Where it hands over to other regions. */
  readonly stops: readonly number[];
  /** Places of accesses that hop between pages; and of those that share no look with others. */
  readonly hashed: readonly number[];
  readonly apart: readonly number[];
  readonly hopping: readonly number[];
}

/** One region of a module. */
export interface RegionMade {
  readonly number: number;
  readonly index: number;
  /** Places of the indirect jumps behind each way out. */
  readonly sites: readonly (readonly number[])[];
  /** Places of the accesses behind each cell. */
  readonly cells: readonly (readonly number[])[];
}

/** A module of regions: exports `r` and the index of each; imports host functions and subroutines by name. */
export interface RegionBatch {
  readonly regions: readonly RegionMade[];
  /** Wishes that came to nothing: number and place in the table. */
  readonly failed: readonly (readonly [number, number])[];
  readonly hosts: readonly string[];
  readonly imports: readonly string[];
}

/** Who translates regions for a vCPU, some time later. */
export interface RegionMaker {
  wish(wish: RegionWish): void;
  /** The next module that is ready, if there is one. */
  receive(): { readonly batch: RegionBatch; readonly module: WebAssembly.Module | null } | undefined;
}

/** Where what a source was asked goes. */
export interface Questions {
  readonly pages: Map<number, number>;
  readonly met: Set<number>;
  readonly seen: Map<number, readonly number[]>;
  readonly stops: Set<number>;
}

/** A source that notes what it is asked; `host` gives the host address of a page. */
export function noted(source: RegionSource, host: (n: number) => number, notes: Questions): RegionSource {
  return {
    ctx: source.ctx,
    reach: source.reach,
    entry: source.entry,
    page: (n) => {
      const page = source.page(n);
      if (page) notes.pages.set(n, host(n));
      return page;
    },
    met: (place) => {
      const met = source.met(place);
      if (met) notes.met.add(place);
      return met;
    },
    seen: (place) => {
      const places = source.seen(place);
      if (places.length > 0) notes.seen.set(place, places);
      return places;
    },
    stops: (place) => {
      const stops = source.stops(place);
      if (stops) notes.stops.add(place);
      return stops;
    },
  };
}

/** What translation needs that is the same for all regions. */
export interface Translation {
  readonly tables: Tables;
  readonly handlers: Handlers;
  readonly library: Library;
  /** Subroutines that the main module exports. */
  readonly available: ReadonlySet<string>;
  readonly memory: MemoryImport;
  /** Host address of the vCPU's state: regions are made for one. */
  readonly env: number;
}

/** A region that was translated, as it may be kept: without its module. */
export type Translated = Omit<KeptRegion, 'module'>;

const joined = (parts: readonly Uint8Array[]): Uint8Array => {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};

/** Translates wishes into a module; `translated` has what is kept of the regions. `bytes` is the machine's memory. The code is null where all came to nothing. */
export function translate(
  t: Translation,
  wishes: readonly RegionWish[],
  bytes: Uint8Array,
): { batch: RegionBatch; code: Uint8Array<ArrayBuffer> | null; translated: () => readonly Translated[] } {
  const found: { wish: RegionWish; region: Region; page: RegionSource['page'] }[] = [];
  const failed: [number, number][] = [];
  // A place that was given up and wished for again counts with its last wish.
  const latest = new Map(wishes.map((wish) => [wish.index, wish]));
  for (const wish of wishes) {
    if (latest.get(wish.index) !== wish) {
      failed.push([wish.number, wish.index]);
      continue;
    }
    const pages = new Map(wish.pages);
    const met = wish.met && new Set(wish.met);
    const seen = new Map(wish.seen);
    const stops = new Set(wish.stops);
    // The guest may write to them meanwhile: what is translated is what they held at one time.
    const copies = new Map<number, Uint8Array>();
    const page = (n: number): Uint8Array | undefined => {
      const host = pages.get(n);
      let copy = copies.get(n);
      if (host !== undefined && !copy) {
        copy = bytes.slice(host, host + 4096);
        copies.set(n, copy);
      }
      return copy;
    };
    const region = findRegion(t.tables, t.handlers, {
      ctx: wish.ctx,
      reach: wish.reach,
      entry: wish.entry,
      page,
      met: (place) => met === null || met.has(place),
      seen: (place) => seen.get(place) ?? [],
      stops: (place) => stops.has(place),
    });
    if (region) found.push({ wish, region, page });
    else failed.push([wish.number, wish.index]);
  }
  if (found.length === 0) return { batch: { regions: [], failed, hosts: [], imports: [] }, code: null, translated: () => [] };
  const built = buildRegions(
    t.library,
    found.map(({ wish, region }) => {
      const [hashed, apart, hopping] = [wish.hashed, wish.apart, wish.hopping].map((places) => new Set(places));
      return { region, name: wish.name, index: wish.index, hashed, apart, hopping };
    }),
    t.available,
    t.memory,
    t.env,
  );
  const names = (list: readonly Callee[]): string[] => list.map((c) => c.name);
  return {
    batch: {
      regions: found.map(({ wish }, i) => ({
        number: wish.number,
        index: wish.index,
        sites: built.sites[i],
        cells: built.cells[i],
      })),
      failed,
      hosts: names(built.hosts),
      imports: names(built.imports),
    },
    code: built.bytes,
    translated: () =>
      found.map(({ wish, region, page }, i) => ({
        index: wish.index,
        ctx: wish.ctx,
        entry: wish.entry,
        reach: wish.reach,
        grows: region.limited && wish.reach.instructions < REACH.hot.instructions,
        instructions: region.instructions,
        stops: wish.stops,
        sites: built.sites[i],
        cells: built.cells[i],
        ranges: region.ranges,
        code: joined(region.ranges.map(([n, from, to]) => page(n)!.subarray(from, to))),
      })),
  };
}
