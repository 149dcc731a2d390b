// The Internet checksum. RFC 1071; pseudo-headers of RFC 9293, section 3.1 (IPv4), and RFC 8200, section 8.1 (IPv6).

/** Sum of 16-bit words of bytes `from` to `to` (exclusive), an odd last byte padded with zero, added to `sum`. Not folded. */
export function sum16(b: Uint8Array, from: number, to: number, sum = 0): number {
  const even = to - ((to - from) & 1);
  let s = sum;
  for (let i = from; i < even; i += 2) s += (b[i] << 8) | b[i + 1];
  return even === to ? s : s + (b[even] << 8);
}

/** The one's complement of the folded sum, 0 to 0xffff. Over data that holds its own checksum: 0 when it is right. */
export function fold(sum: number): number {
  let s = sum;
  while (s > 0xffff) s = (s & 0xffff) + Math.floor(s / 0x1_0000);
  return ~s & 0xffff;
}

/** Sum of the pseudo-header of an upper-layer packet of `length` bytes. The addresses are both of 4 or both of 16 bytes. */
export const pseudoSum = (src: Uint8Array, dst: Uint8Array, protocol: number, length: number): number =>
  sum16(src, 0, src.length, sum16(dst, 0, dst.length, protocol + (length & 0xffff) + (length >>> 16)));
