// What the prover of emitted code can know of a value, and what two ways that meet leave of it.

/** A number, or an offset from what `base` names, from `lo` to `hi` in steps of `step`; or, with `zero`, the number 0. */
export interface RangeTag {
  readonly kind: 'range';
  /** The start of the vCPU's area, or that of the machine's table of memory slots. */
  readonly base: 'number' | 'env' | 'slots';
  readonly lo: number;
  readonly hi: number;
  readonly step: number;
  readonly zero: boolean;
}
/** A value that a tag is about. */
export interface Known {
  readonly id: number;
}
export type Tag =
  | RangeTag
  /** `lo` to `hi` bytes behind a host address of which `bytes` were checked; or 0, or negative (outside of RAM). */
  | {
      readonly kind: 'host';
      readonly bytes: number;
      readonly lo: number;
      readonly hi: number;
      readonly zero: boolean;
      readonly outside: boolean;
    }
  /** The host address of the guest's address `of`, RAM up to the page's end, plus `from`; `align`: `of` is a multiple of it. */
  | {
      readonly kind: 'page';
      readonly of: Known;
      readonly align: number;
      readonly from: number;
      readonly zero: boolean;
      readonly outside: boolean;
    }
  /** The host address of a page of RAM with bit 0 as a flag; or 0, or (`bus`) -1. */
  | { readonly kind: 'flagged'; readonly zero: boolean; readonly bus: boolean }
  /** A multiple of this power of two. */
  | { readonly kind: 'aligned'; readonly to: number }
  /** The key under which cells hold; never 0. */
  | { readonly kind: 'key' }
  /** What a handler gives: a record, or less than 8. */
  | { readonly kind: 'out' }
  /** A place in the state from the field of a record, and the state's start plus that. */
  | { readonly kind: 'place' | 'register'; readonly field: number }
  /** Where guest-physical 0, or 4 GiB, lies. */
  | { readonly kind: 'ram'; readonly high: boolean }
  /** A map with a byte for each page of RAM, and the address of such a byte. */
  | { readonly kind: 'map'; readonly writable: boolean; readonly zero: boolean }
  | { readonly kind: 'byte'; readonly writable: boolean }
  /** Of memory slots: where one lies; the map of what is plugged in. */
  | { readonly kind: 'slotHost' | 'plugMap' }
  /** A word with the next one of a chain and flags below. */
  | { readonly kind: 'link'; readonly of: 'tlbs' | 'cells' }
  /** A slot that is no pointer, but that code may not set. */
  | { readonly kind: 'other' };

/** Entries of `step` bytes from `from` up to `to`. */
export const within = (base: RangeTag['base'], from: number, to: number, step: number, zero: boolean): RangeTag => ({
  kind: 'range',
  base,
  lo: from,
  hi: to - step,
  step,
  zero,
});

export const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
/** The step of a range; of a single value 0. */
export const stepOf = (r: RangeTag): number => (r.lo === r.hi ? 0 : r.step);

export function sameTag(a: Tag | null, b: Tag | null): boolean {
  if (a === b) return true;
  if (!a || !b || a.kind !== b.kind) return false;
  if (a.kind === 'page' && b.kind === 'page' && a.of.id !== b.of.id) return false;
  for (const k of Object.keys(a) as (keyof typeof a)[]) if (k !== ('of' as never) && a[k] !== (b as typeof a)[k]) return false;
  return a.kind !== 'link' || a.of === (b as typeof a).of;
}
/** The power of two, up to 4096, that all numbers of a range are multiples of. */
export function powerOf(r: RangeTag): number {
  const bits = r.lo | stepOf(r) | 4096;
  return bits & -bits;
}
const isZero = (t: Tag): boolean => t.kind === 'range' && t.base === 'number' && t.lo === 0 && t.hi === 0;
const nullable = (t: Tag): Tag | null => ('zero' in t ? { ...t, zero: true } : null);
/** The same as so many bytes from here. */
const asHost = (t: Tag): (Tag & { kind: 'host' }) | null =>
  t.kind === 'host'
    ? { ...t, bytes: t.bytes - t.hi, lo: 0, hi: 0 }
    : t.kind === 'page' && t.from === 0
      ? { kind: 'host', bytes: Math.min(4096, t.align), lo: 0, hi: 0, zero: t.zero, outside: t.outside }
      : null;

export function mergeTags(a: Tag | null, b: Tag | null): Tag | null {
  if (!a || !b) return null;
  if (sameTag(a, b)) return a;
  if (isZero(a) && !(b.kind === 'range' && b.base === 'number')) return nullable(b);
  if (isZero(b) && !(a.kind === 'range' && a.base === 'number')) return nullable(a);
  if (a.kind === 'range' && b.kind === 'range') {
    if (a.base !== b.base) return null;
    const [lo, hi] = [Math.min(a.lo, b.lo), Math.max(a.hi, b.hi)];
    const step = gcd(gcd(stepOf(a), stepOf(b)), Math.abs(a.lo - b.lo)) || 1;
    return { ...a, lo, hi, step, zero: a.zero || b.zero };
  }
  if (a.kind === 'page' && b.kind === 'page' && a.of.id === b.of.id && a.from === b.from)
    return { ...a, align: Math.min(a.align, b.align), zero: a.zero || b.zero, outside: a.outside || b.outside };
  if (a.kind === 'host' && b.kind === 'host' && a.lo === b.lo && a.hi === b.hi)
    return { ...a, bytes: Math.min(a.bytes, b.bytes), zero: a.zero || b.zero, outside: a.outside || b.outside };
  const [x, y] = [asHost(a), asHost(b)];
  if (x && y) return { ...x, bytes: Math.min(x.bytes, y.bytes), zero: x.zero || y.zero, outside: x.outside || y.outside };
  const aligned = [a, b].map((t) => (t.kind === 'aligned' ? t.to : t.kind === 'range' && t.base === 'number' ? powerOf(t) : 0));
  if (aligned[0]! > 1 && aligned[1]! > 1) return { kind: 'aligned', to: Math.min(...aligned) };
  if (a.kind === 'flagged' && b.kind === 'flagged') return { ...a, zero: a.zero || b.zero, bus: a.bus || b.bus };
  if (a.kind === 'map' && b.kind === 'map' && a.writable === b.writable) return { ...a, zero: true };
  return null;
}
