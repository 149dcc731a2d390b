// Seeded random numbers, and values that are likely to matter: integers at the edges of their ranges, and floating-point numbers
// of every class.

/** A generator of 32-bit numbers from a seed (a multiply-and-xor hash of a counter). Equal seeds give equal sequences. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }
  /** 0 to 2^32 - 1. */
  u32(): number {
    this.#state = (this.#state + 0x9e3779b9) | 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  }
  /** 0 to n - 1. */
  below(n: number): number {
    return Math.floor((this.u32() / 2 ** 32) * n);
  }
  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
  bits(n: number): bigint {
    let v = 0n;
    for (let i = 0; i < n; i += 32) v = (v << 32n) | BigInt(this.u32());
    return BigInt.asUintN(n, v);
  }
}

const INTEGERS = [0n, 1n, 2n, 3n, 7n, 8n, 9n, 0xfn, 0x10n, 0x1fn, 0x20n, 0x3fn, 0x40n, 0x7fn, 0x80n, 0xffn, 0x100n, 0x7fffn, 0x8000n, 0xffffn, 0x10000n,
  0x7fffffffn, 0x80000000n, 0xffffffffn, 0x100000000n, 0x7fffffffffffffffn, 0x8000000000000000n, 0xffffffffffffffffn, 0xfffffffffffffffen,
  0xffffffff80000000n, 0xffffffffffff8000n, 0xffffffffffffff80n, 0x5555555555555555n, 0xaaaaaaaaaaaaaaaan, 0x99n, 0x123456789abcdef0n]; // biome-ignore format: a table

const LOW = INTEGERS.map((v) => Number(BigInt.asIntN(32, v)));

/** 64 bits: an edge value, a small number, or noise. */
export function edgeInteger(r: Random): bigint {
  const kind = r.below(10);
  if (kind < 5) return r.pick(INTEGERS);
  if (kind < 6) return BigInt(r.below(256));
  if (kind < 7) return BigInt.asUintN(64, -BigInt(r.below(256)));
  return r.bits(64);
}

/** Biased exponents that matter for a format: `bias` and the exponent of infinities. */
function exponent(r: Random, bias: number, top: number, significandBits: number): number {
  switch (r.below(12)) {
    case 0:
      return 0;
    case 1:
      return 1 + r.below(3);
    case 2:
      return top;
    case 3:
      return top - 1 - r.below(3);
    case 4:
      return bias + significandBits - 2 + r.below(5);
    case 5:
      return bias + r.pick([7, 14, 15, 16, 30, 31, 32, 33, 61, 62, 63, 64]);
    case 6:
      return 1 + r.below(top - 1);
    default:
      return bias - 2 + r.below(6);
  }
}

/** Significands that matter: few bits at either end, all ones, noise. */
function fraction(r: Random, bits: number): bigint {
  switch (r.below(7)) {
    case 0:
      return 0n;
    case 1:
      return (1n << BigInt(bits)) - 1n;
    case 2:
      return 1n << BigInt(r.below(bits));
    case 3:
      return BigInt(r.below(4));
    case 4:
      return (1n << BigInt(bits)) - 1n - BigInt(r.below(4));
    case 5:
      return (BigInt(r.below(16)) << BigInt(bits)) >> 4n;
    default:
      return r.bits(bits);
  }
}

/** An IEEE number of 32 or 64 bits: zeros, denormals, NaNs, infinities, integers' edges, ordinary numbers. */
export function edgeFloat(r: Random, bits: 32 | 64): bigint {
  const width = bits === 32 ? 23 : 52;
  const top = bits === 32 ? 255 : 2047;
  const e = exponent(r, top >> 1, top, width + 1);
  return (BigInt(r.below(2)) << BigInt(bits - 1)) | (BigInt(e) << BigInt(width)) | fraction(r, width);
}

/** An 80-bit x87 number, unsupported encodings included. */
export function edgeExtended(r: Random): bigint {
  const e = exponent(r, 0x3fff, 0x7fff, 64);
  let significand = fraction(r, 63);
  // The integer bit fits the exponent nearly always: else it is a pseudo-denormal or an unsupported encoding.
  if ((e !== 0) !== r.chance(0.04)) significand |= 1n << 63n;
  return (BigInt(r.below(2)) << 79n) | (BigInt(e) << 64n) | significand;
}

/** The lower 32 bits of an integer as `edgeInteger` gives them. */
function edgeInteger32(r: Random): number {
  const kind = r.below(10);
  if (kind < 5) return r.pick(LOW);
  if (kind < 6) return r.below(256);
  if (kind < 7) return -r.below(256);
  return r.u32();
}

/** An IEEE number of 32 bits, as `edgeFloat` gives them. */
function edgeFloat32(r: Random): number {
  const e = exponent(r, 127, 255, 24);
  return (r.below(2) << 31) | (e << 23) | Number(fraction(r, 23));
}

/** Writes 128 bits: integers' edges in lanes of one width, floats of either width, or noise. */
export function putEdgeVector(r: Random, view: DataView, at: number): void {
  switch (r.below(8)) {
    case 0:
      for (let i = 0; i < 16; i += 8) view.setBigUint64(at + i, edgeInteger(r), true);
      return;
    case 1:
      for (let i = 0; i < 16; i += 4) view.setInt32(at + i, edgeInteger32(r), true);
      return;
    case 2:
      for (let i = 0; i < 16; i += 2) view.setInt16(at + i, edgeInteger32(r), true);
      return;
    case 3:
      for (let i = 0; i < 16; i++) view.setInt8(at + i, edgeInteger32(r));
      return;
    case 4:
    case 5:
      for (let i = 0; i < 16; i += 4) view.setInt32(at + i, edgeFloat32(r), true);
      return;
    case 6:
      for (let i = 0; i < 16; i += 8) view.setBigUint64(at + i, edgeFloat(r, 64), true);
      return;
    default:
      for (let i = 0; i < 16; i += 4) view.setInt32(at + i, r.u32(), true);
  }
}

const vector = new DataView(new ArrayBuffer(16));
/** The same as a number. */
export function edgeVector(r: Random): bigint {
  putEdgeVector(r, vector, 0);
  return vector.getBigUint64(0, true) | (vector.getBigUint64(8, true) << 64n);
}
