// Floating-point operations on numbers, shared by the scalar and the vector meanings (WebAssembly core specification 2.0, 4.3.3).

/** Rounds to the nearest integer, ties to even, keeping the sign of zero. */
export function nearest(a: number): number {
  if (!(Math.abs(a) < 2 ** 52)) return a;
  const r = Math.abs(a) + 2 ** 52 - 2 ** 52;
  return a < 0 || Object.is(a, -0) ? -r : r;
}

/** Floating-point operations that give a float, over exact numbers; the caller rounds. */
export const floating: Readonly<Record<string, (a: number, b: number) => number>> = {
  ceil: Math.ceil,
  floor: Math.floor,
  trunc: Math.trunc,
  nearest,
  sqrt: Math.sqrt,
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  min: (a, b) => Math.min(a, b),
  max: (a, b) => Math.max(a, b),
};

/** Comparisons of floats. */
export const comparing: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  eq: (a, b) => a === b,
  ne: (a, b) => a !== b,
  lt: (a, b) => a < b,
  gt: (a, b) => a > b,
  le: (a, b) => a <= b,
  ge: (a, b) => a >= b,
};

/** `a` cut to an integer of `bits` bits, NaN to 0, out of range to the nearest end. */
export function saturate(a: number, bits: 32 | 64, signed: boolean): bigint {
  if (Number.isNaN(a)) return 0n;
  const low = signed ? -(1n << BigInt(bits - 1)) : 0n;
  const high = (1n << BigInt(signed ? bits - 1 : bits)) - 1n;
  if (a <= Number(low)) return low;
  if (a >= Number(high)) return high;
  return BigInt(Math.trunc(a));
}
