// NUMA cells of a definition: who has which vCPUs, and the distances between them (libvirt 9.0, formatdomain "Guest NUMA topology", and what
// the daemon answers).
import { DomainXmlError, errorCode, unsupported, xmlError } from './errors.ts';
import { parseVcpuSet } from './model/vcpus.ts';

/** Largest number that a bitmap may name: libvirt's VIR_DOMAIN_CPUMASK_LEN. */
const MOST = 16384;
/** Ranges in one bitmap, so that a document costs little. */
const MOST_PARTS = 2048;
const LOCAL = 10;
const REMOTE = 20;
const LARGEST = 255;

/** The numbers of `0-2,4,^1`, in ascending order. @throws DomainXmlError */
export function parseBitmap(text: string): number[] {
  const found = text.split(',').length > MOST_PARTS ? undefined : parseVcpuSet(text);
  if (!found || (found.at(-1) ?? 0) >= MOST)
    throw new DomainXmlError(errorCode.invalidArgument, `Failed to parse bitmap '${text}'`);
  return found;
}

/** Numbers in ascending order as `0-2,4`. */
export function formatBitmap(numbers: readonly number[]): string {
  const ranges: [number, number][] = [];
  for (const n of numbers) {
    const last = ranges.at(-1);
    if (last?.[1] === n - 1) last[1] = n;
    else ranges.push([n, n]);
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(',');
}

export interface CellSibling {
  id: number;
  value: number;
}

/** What of a cell this module looks at. */
export interface NumaCell {
  id?: number | undefined;
  cpus?: string | undefined;
  distances?: { siblings: CellSibling[] } | undefined;
}

/** The cells in the order of their numbers; bitmaps in their plain form, distances in both directions. @throws DomainXmlError */
export function settleCells<T extends NumaCell>(cells: readonly T[]): T[] {
  const byId = new Map<number, T>();
  const taken = new Map<number, number>();
  for (const [index, one] of cells.entries()) {
    one.id ??= index;
    if (one.id >= cells.length)
      throw xmlError(
        "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting from 0 are not allowed",
      );
    if (byId.has(one.id)) throw xmlError(`Duplicate NUMA cell info for cell id '${one.id}'`);
    byId.set(one.id, one);
    if (one.cpus === undefined) continue;
    const cpus = parseBitmap(one.cpus);
    for (const cpu of cpus) {
      const other = taken.get(cpu);
      if (other !== undefined) throw unsupported(`NUMA cells ${one.id} and ${other} have overlapping vCPU ids`);
      taken.set(cpu, one.id);
    }
    one.cpus = formatBitmap(cpus);
  }
  settleDistances(cells);
  return [...byId.values()].sort((a, b) => a.id! - b.id!);
}

/** A distance holds in the other direction as well unless that has one of its own. */
function settleDistances(cells: readonly NumaCell[]): void {
  const count = cells.length;
  const given = new Map<number, Map<number, number>>();
  /** A cell that has distances is at 10 from itself. */
  const of = (id: number): Map<number, number> => {
    const row = given.get(id) ?? new Map<number, number>([[id, LOCAL]]);
    given.set(id, row);
    return row;
  };
  for (const { id, distances } of cells) {
    for (const sibling of distances?.siblings ?? []) {
      if (sibling.id >= count)
        throw xmlError(`'sibling_id ${sibling.id}' does not refer to a valid cell within NUMA 'cell id ${id}'`);
      if (sibling.value < LOCAL || sibling.value > LARGEST || (sibling.id === id && sibling.value !== LOCAL))
        throw xmlError(`'value ${sibling.value}' is invalid for 'sibling id ${sibling.id}' under NUMA 'cell id ${id}'`);
      of(id!).set(sibling.id, sibling.value);
      const back = of(sibling.id);
      if (!back.has(id!)) back.set(id!, sibling.value);
    }
  }
  for (const one of cells) {
    const row = given.get(one.id!);
    if (row) one.distances = { siblings: [...row].sort(([a], [b]) => a - b).map(([id, value]) => ({ id, value })) };
  }
}

/** Distances of all pairs, where any is given: sources in order, destinations in order. */
export function cellDistances(
  cells: readonly NumaCell[],
): { readonly src: number; readonly dst: number; readonly val: number }[] {
  if (!cells.some(({ distances }) => distances)) return [];
  return cells.flatMap(({ id: src = 0, distances }) =>
    cells.map(({ id: dst = 0 }) => ({
      src,
      dst,
      val: distances?.siblings.find((one) => one.id === dst)?.value ?? (src === dst ? LOCAL : REMOTE),
    })),
  );
}

/** vCPUs of no cell are the first cell's. */
export function completeCells(cells: readonly NumaCell[], vcpus: number): void {
  const [first] = cells;
  if (!first) return;
  const others = new Set(cells.slice(1).flatMap(({ cpus }) => (cpus === undefined ? [] : parseBitmap(cpus))));
  const own = first.cpus === undefined ? [] : parseBitmap(first.cpus);
  const free = Array.from({ length: vcpus }, (_, n) => n).filter((n) => !others.has(n));
  const all = [...new Set([...own, ...free])].sort((a, b) => a - b);
  if (all.length > 0) first.cpus = formatBitmap(all);
}

/** The first number behind the last vCPU of a cell. */
export const cellVcpuEnd = (cells: readonly NumaCell[]): number =>
  Math.max(0, ...cells.map(({ cpus }) => (cpus === undefined ? 0 : (parseBitmap(cpus).at(-1) ?? -1) + 1)));
