// Decompressed kernels that were used lately: reading one back takes a tenth of the time of decompressing it. A few files in the cache,
// so that who builds kernels all day does not fill it.

import { createHash, randomUUID } from 'node:crypto';
import { closeSync, fstatSync, mkdirSync, openSync, readSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { type ImageFile, inMemory } from '../../firmware/target.ts';
import type { KernelFiles } from '../../machine/running.ts';
import { type Cache, userCache } from './cache.ts';
import { openImageFile, writeSparse } from './image-file.ts';

/** Files; which one a kernel takes depends on its hash. */
const PLACES = 4;
/** A file begins with the identity of the file that the kernel was in, padded with zeros, and the kernel's SHA-256. */
const NAME_BYTES = 224;
const HEAD_BYTES = NAME_BYTES + 32;
/** Bytes of a bzImage that are read at first: its setup code has 256 sectors at most. */
const BEGINNING = 128 << 10;
/** For so long after a file was written to, another write may leave the same time. Milliseconds. */
const SETTLED = 2000;

/** A word for a host file and the state that it is in: another one once it was written to. Undefined where that cannot be told, or it was written to just now. */
export function fileIdentity(path: string): string | undefined {
  try {
    const s = statSync(path, { bigint: true });
    if (!s.isFile() || Date.now() - Number(s.ctimeMs) < SETTLED) return undefined;
    return [s.dev, s.ino, s.size, s.mtimeNs, s.ctimeNs].join(' ');
  } catch {
    return undefined;
  }
}

/**
 * A kernel's file, of which only as much is read as its decompressed form, which is kept, does not have: the beginning, with a bzImage's header. `complete`
 * reads the rest. Undefined for what cannot be told from what it becomes later.
 * @throws Node's error where it cannot be opened or read
 */
export function openKernel(path: string): Pick<KernelFiles, 'kernel' | 'identity' | 'complete'> | undefined {
  // A pipe must not be opened twice.
  const identity = fileIdentity(path);
  if (identity === undefined) return undefined;
  const fd = openSync(path, 'r');
  /** A file that loses its name, or has other rights, holds the same. */
  const written = (): string => {
    const { size, mtimeNs } = fstatSync(fd, { bigint: true });
    return `${size} ${mtimeNs}`;
  };
  const before = written();
  const kernel = new Uint8Array(fstatSync(fd).size);
  let done = 0;
  const read = (end: number): void => {
    while (done < end) {
      const count = readSync(fd, kernel, done, end - done, done);
      if (count === 0) throw new Error(`Cannot read ${path}: it became shorter meanwhile`);
      done += count;
    }
  };
  read(Math.min(BEGINNING, kernel.length));
  const complete = (): void => {
    if (done === kernel.length) return;
    if (written() !== before) throw new Error(`Cannot read ${path}: it was written to meanwhile`);
    read(kernel.length);
    closeSync(fd);
  };
  return { kernel, identity, complete };
}

/** A file without its head. */
const behindHead = ({ length, bytes, copy, close }: Required<ImageFile>): ImageFile => ({
  length: length - HEAD_BYTES,
  bytes: (start, end) => bytes(HEAD_BYTES + start, HEAD_BYTES + end),
  copy: (start, place, zeroed) => copy(HEAD_BYTES + start, place, zeroed),
  close,
});

/**
 * The decompressed form of a kernel: from the cache, else by `make`, whose result is kept. A cache that cannot be read or written costs
 * time only. By the `identity` of its file it is found without reading all of it (`kernel`).
 */
export function keptKernel(
  kernel: () => Uint8Array,
  make: () => Uint8Array | undefined,
  identity?: string,
  cache: Cache = userCache(),
): ImageFile | undefined {
  const folder = join(cache.root, 'kernels');
  const name = Buffer.alloc(NAME_BYTES);
  name.write(identity ?? '', 'latin1');
  const pathOf = (n: number): string => join(folder, `vmlinux-${n}`);
  const find = (path: string, from: number, what: Uint8Array): ImageFile | undefined => {
    try {
      const file = openImageFile(path);
      if (file.length > HEAD_BYTES && Buffer.compare(file.bytes(from, from + what.length), what) === 0) return behindHead(file);
      file.close();
    } catch {
      // It was not there.
    }
    return undefined;
  };
  for (let n = 0; identity !== undefined && n < PLACES; n++) {
    const found = find(pathOf(n), 0, name);
    if (found) return found;
  }
  const hash = createHash('sha256').update(kernel()).digest();
  const path = pathOf(hash[0]! % PLACES);
  const found = find(path, NAME_BYTES, hash);
  if (found) {
    rename(path, name);
    return found;
  }
  const made = make();
  if (!made) return undefined;
  const temporary = `${path}-${randomUUID()}`;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeSparse(temporary, made, Buffer.concat([name, hash]));
    renameSync(temporary, path);
  } catch {
    rmSync(temporary, { force: true });
  }
  return inMemory(made);
}

/** Has a kept kernel be that of another file with the same contents. */
function rename(path: string, name: Uint8Array): void {
  try {
    const fd = openSync(path, 'r+');
    try {
      writeSync(fd, name, 0, name.length, 0);
    } finally {
      closeSync(fd);
    }
  } catch {
    // A cache that is only read.
  }
}
