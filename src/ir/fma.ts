// x · y + z with one rounding to the nearest, ties to even, by exact integers: what relaxed_madd is on processors with fused multiply-add.

import { f64Bits } from './datum.ts';

/** A finite number as m · 2^e. */
function split(x: number): { m: bigint; e: number } {
  const bits = f64Bits(x);
  const field = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & ((1n << 52n) - 1n);
  const m = field === 0 ? fraction : fraction | (1n << 52n);
  return { m: bits >> 63n ? -m : m, e: Math.max(field, 1) - 1075 };
}

/** m · 2^e rounded to a float of `precision` bits whose least exponent is `least`; overflows to infinity. */
function round(m: bigint, e: number, precision: number, least: number, greatest: number): number {
  const negative = m < 0n;
  let v = negative ? -m : m;
  let exp = e;
  const drop = Math.max(v.toString(2).length - precision, least - exp);
  if (drop > 0) {
    const n = BigInt(drop);
    const rest = v & ((1n << n) - 1n);
    const half = 1n << (n - 1n);
    v >>= n;
    exp += drop;
    if (rest > half || (rest === half && v & 1n)) v += 1n;
  }
  if (v.toString(2).length - 1 + exp > greatest) return negative ? -Infinity : Infinity;
  // Both factors are exact: v has at most 53 bits, and the result is no finer than the format.
  let r = Number(v);
  for (let left = exp; left !== 0; ) {
    const step = Math.max(-1000, Math.min(1000, left));
    r *= 2 ** step;
    left -= step;
  }
  return negative ? -r : r;
}

/** The fused result for floats of `bits` bits. */
export function fusedMultiplyAdd(bits: 32 | 64, x: number, y: number, z: number): number {
  if (!Number.isFinite(x) || !Number.isFinite(y) || !Number.isFinite(z)) return x * y + z;
  const [a, b, c] = [split(x), split(y), split(z)];
  const product = a.m * b.m;
  if (product === 0n) return x * y + z;
  const e = Math.min(a.e + b.e, c.e);
  const sum = (product << BigInt(a.e + b.e - e)) + (c.m << BigInt(c.e - e));
  if (sum === 0n) return 0;
  return bits === 64 ? round(sum, e, 53, -1074, 1023) : round(sum, e, 24, -149, 127);
}
