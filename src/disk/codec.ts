// What compressed clusters need of the host: raw deflate (RFC 1951) and Zstandard frames (RFC 8878).

/** Names as in qcow2's `compression_type`. */
export type Compression = 'zlib' | 'zstd';

/** The host's codecs. Deflate streams are raw and use a window of at most 4 KiB, the most that QEMU's reader takes. */
export interface Codec {
  compress(type: Compression, bytes: Uint8Array): Promise<Uint8Array>;
  /**
   * Expands the one stream or frame that `bytes` starts with to at most `size` bytes; bytes after it are ignored.
   * Rejects when it is not one, or is longer than `size`.
   */
  expand(type: Compression, bytes: Uint8Array, size: number): Promise<Uint8Array>;
}

/**
 * Length of the Zstandard frame that `bytes` starts with (RFC 8878, section 3.1.1); undefined when there is none or it is cut.
 */
export function zstdFrameLength(bytes: Uint8Array): number | undefined {
  if (bytes.length < 6 || bytes[0] !== 0x28 || bytes[1] !== 0xb5 || bytes[2] !== 0x2f || bytes[3] !== 0xfd) return undefined;
  const descriptor = bytes[4]!;
  const single = (descriptor >> 5) & 1;
  const dictionary = [0, 1, 2, 4][descriptor & 3]!;
  const contentSize = [single, 2, 4, 8][descriptor >> 6]!;
  let at = 5 + (single ? 0 : 1) + dictionary + contentSize;
  for (let last = false; !last; ) {
    if (at + 3 > bytes.length) return undefined;
    const block = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16);
    last = (block & 1) === 1;
    // A block of type 1 (RLE) holds one byte that is repeated.
    at += 3 + (((block >> 1) & 3) === 1 ? 1 : block >> 3);
  }
  at += descriptor & 4 ? 4 : 0;
  return at <= bytes.length ? at : undefined;
}
