// Decompressed kernels that were used lately: reading one back takes a tenth of the time of decompressing it. A few files in the cache,
// so that who builds kernels all day does not fill it.

import { createHash, randomUUID } from 'node:crypto';
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ImageFile, inMemory } from '../../firmware/target.ts';
import { type Cache, userCache } from './cache.ts';
import { openImageFile } from './image-file.ts';

/** Files; which one a kernel takes depends on its hash. */
const PLACES = 4;
const HASH_BYTES = 32;

/**
 * The decompressed form of `kernel`: from the cache, else by `make`, whose result is kept. A cache that cannot be read or written costs
 * time only.
 */
export function keptKernel(
  kernel: Uint8Array,
  make: () => Uint8Array | undefined,
  cache: Cache = userCache(),
): ImageFile | undefined {
  const hash = createHash('sha256').update(kernel).digest();
  const folder = join(cache.root, 'kernels');
  const path = join(folder, `vmlinux-${hash[0] % PLACES}`);
  try {
    const { length, bytes, copy, close } = openImageFile(path);
    if (length > HASH_BYTES && hash.equals(bytes(0, HASH_BYTES))) {
      return {
        length: length - HASH_BYTES,
        bytes: (start, end) => bytes(HASH_BYTES + start, HASH_BYTES + end),
        copy: (start, place) => copy(HASH_BYTES + start, place),
        close,
      };
    }
    close();
  } catch {
    // It was not there.
  }
  const made = make();
  if (!made) return undefined;
  const temporary = `${path}-${randomUUID()}`;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileSync(temporary, hash);
    writeFileSync(temporary, made, { flag: 'a' });
    renameSync(temporary, path);
  } catch {
    rmSync(temporary, { force: true });
  }
  return inMemory(made);
}
