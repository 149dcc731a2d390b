// Compression of saved machines, by Node's own zstd (RFC 8878), at its fastest level.

import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { Packer } from '../../machine/snapshot/format.ts';

export const zstd: Packer = {
  pack: (bytes) => zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: 1 } }),
  unpack: (bytes, limit) => zstdDecompressSync(bytes, { maxOutputLength: limit }),
};
