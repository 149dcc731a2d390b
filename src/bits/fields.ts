// Bit fields of 32-bit words, by the manuals' `msb:lsb` notation.

/** Mask of bits `msb` to `lsb`, both 0 to 31, as an unsigned number. */
export const mask = (msb: number, lsb: number): number => ((0xffff_ffff >>> (31 - msb)) & (0xffff_ffff << lsb)) >>> 0;

/** Bits `msb` to `lsb` of `word`, shifted down. */
export const bits = (word: number, msb: number, lsb: number): number => (word & mask(msb, lsb)) >>> lsb;

/** `word` with bits `msb` to `lsb` replaced by the low bits of `value`. */
export const withBits = (word: number, msb: number, lsb: number, value: number): number =>
  ((word & ~mask(msb, lsb)) | ((value << lsb) & mask(msb, lsb))) >>> 0;

/** Position of the highest set bit of a 32-bit word, -1 for zero. */
export const highestBit = (word: number): number => 31 - Math.clz32(word);

/** Position of the lowest set bit of a 32-bit word, -1 for zero. */
export const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);

/** All ones for an access of 1, 2 or 4 bytes. */
export const ones = (size: number): number => (size === 1 ? 0xff : size === 2 ? 0xffff : 0xffff_ffff);
