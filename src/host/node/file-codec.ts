// The Node host's codecs for compressed clusters (disk/codec.ts): Node documentation, "Zlib", raw deflate and Zstandard.

import { promisify } from 'node:util';
import { constants, deflateRaw, inflateRaw, zstdCompress, zstdDecompress } from 'node:zlib';
import { type Codec, zstdFrameLength } from '../../disk/codec.ts';

export const nodeCodec: Codec = {
  compress: (type, bytes) =>
    type === 'zlib'
      ? promisify<Uint8Array, object, Uint8Array>(deflateRaw)(bytes, { windowBits: 12 })
      : promisify<Uint8Array, Uint8Array>(zstdCompress)(bytes),
  async expand(type, bytes, size) {
    // A stream that is cut gives what it had; the caller knows how much it needs.
    if (type === 'zlib')
      return promisify<Uint8Array, object, Uint8Array>(inflateRaw)(bytes, {
        maxOutputLength: size,
        finishFlush: constants.Z_SYNC_FLUSH,
      });
    const length = zstdFrameLength(bytes);
    if (length === undefined) throw new Error('it is not a Zstandard frame');
    return promisify<Uint8Array, object, Uint8Array>(zstdDecompress)(bytes.subarray(0, length), { maxOutputLength: size });
  },
};
