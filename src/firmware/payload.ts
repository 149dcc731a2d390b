// The compressed kernel inside a bzImage: Linux Documentation/arch/x86/boot.rst, fields payload_offset and payload_length,
// and the magic numbers of lib/decompress.c. Decompressing it outside of the guest saves the guest the time.

import { isElf } from './elf.ts';
import { decompressLz4Legacy } from './lz4.ts';
import { parseSetupHeader } from './setup-header.ts';

export type PayloadFormat = 'gzip' | 'bzip2' | 'lzma' | 'xz' | 'lzo' | 'lz4' | 'zstd';

/** A decompressor of the host: all of `bytes`, which expand to `size` bytes; undefined when it does not know the format. */
export type Decompress = (format: PayloadFormat, bytes: Uint8Array, size: number) => Uint8Array | undefined;

const magics: readonly (readonly [PayloadFormat, readonly number[]])[] = [
  ['gzip', [0x1f, 0x8b]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['lzma', [0x5d, 0x00, 0x00]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['lzo', [0x89, 0x4c, 0x5a, 0x4f]],
  ['lz4', [0x02, 0x21, 0x4c, 0x18]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
];

/** Refuse to expand to more than this: a kernel has some 50 MiB, a hostile file could claim 4 GiB. */
const MAX_SIZE = 512 << 20;

export const payloadFormat = (bytes: Uint8Array): PayloadFormat | undefined =>
  magics.find(([, magic]) => magic.every((byte, i) => bytes[i] === byte))?.[0];

/**
 * The ELF vmlinux that a bzImage holds, with whatever the build appended to it (relocations); undefined when the payload's
 * place or format is not known, or when it holds no ELF file: then the guest's own decompressor has to run.
 * LZ4 is decompressed here, everything else by `decompress`.
 * @throws on a file that is no bzImage, and on a payload that is damaged
 */
export const extractVmlinux = (bzImage: Uint8Array, decompress?: Decompress): Uint8Array | undefined => {
  const header = parseSetupHeader(bzImage);
  const payload = header.payload;
  if (!payload) return undefined;
  const bytes = bzImage.subarray(payload.offset, payload.offset + payload.length);
  const format = payloadFormat(bytes);
  if (!format) return isElf(bytes) ? bytes : undefined;
  const size = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(bytes.length - 4, true);
  if (size === 0 || size > MAX_SIZE) return undefined;
  // gzip's own trailer is the size; for every other format the kernel's build appends it.
  const data = format === 'gzip' ? bytes : bytes.subarray(0, bytes.length - 4);
  const vmlinux = format === 'lz4' ? decompressLz4Legacy(data, size) : decompress?.(format, data, size);
  return vmlinux && isElf(vmlinux) ? vmlinux : undefined;
};
