// The decompressors of the Node host for kernel payloads: zlib's gzip and zstd (Node's zlib documentation, 24 and newer),
// and the core's own xz and LZMA.

import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { decompressLzma } from '../../firmware/lzma.ts';
import type { Decompress } from '../../firmware/payload.ts';
import { decompressXz } from '../../firmware/xz.ts';

/** Expands `bytes` to exactly `size` bytes or throws; undefined for bzip2 and LZO, which the guest has to expand itself. */
export const decompress: Decompress = (format, bytes, size) => {
  switch (format) {
    case 'gzip':
      return gunzipSync(bytes, { maxOutputLength: size });
    case 'zstd':
      return zstdDecompressSync(bytes, { maxOutputLength: size });
    case 'xz':
      return decompressXz(bytes, size);
    case 'lzma':
      return decompressLzma(bytes, size);
    default:
      return undefined;
  }
};
