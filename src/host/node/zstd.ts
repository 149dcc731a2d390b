// Compression of saved machines, by Node's own zstd (RFC 8878), at its fastest level.

import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompressSync } from 'node:zlib';
import type { Packer } from '../../machine/snapshot/format.ts';

/** Bytes of output that are asked for at once: Node's default takes many turns for a record of pages. */
const CHUNK = 1 << 18;

export const zstd: Packer = {
  // On threads of libuv, several at once; the machine's own thread looks at further pages meanwhile.
  pack: (bytes) => promisify(zstdCompress)(bytes, { params: { [constants.ZSTD_c_compressionLevel]: 1 }, chunkSize: CHUNK }),
  unpack: (bytes, limit) => zstdDecompressSync(bytes, { maxOutputLength: limit, chunkSize: Math.max(limit, 64) }),
};
