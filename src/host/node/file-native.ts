// Linux calls on open files that Node has not: holes, and the image locks that QEMU takes. fallocate(2), lseek(2), fcntl(2)
// "Open file description locks"; QEMU "docs/system/images", section "Disk image file locking". Where koffi or a call is
// missing, holes are not made and locks are not taken.

import { loadKoffi } from './koffi.ts';

export interface NativeFiles {
  /**
   * Reads what the host has in its memory, without waiting for storage, into pieces of shared memory that are one after another in the
   * file. Bytes that were read, from the beginning; 0 when the first are not there; -1 where the file cannot be read so.
   */
  readNow(fd: number, pieces: readonly Uint8Array[], offset: number): number;
  /** Gives whole pages of shared memory back: they read as zeros afterwards. False where the host does not take them. */
  release(bytes: Uint8Array): boolean;
  /** Where shared memory lies in this process. */
  address(bytes: Uint8Array): bigint;
  /** Asks for large pages (2 MiB) behind shared memory, where the host has them: each costs one fault instead of 512. */
  preferLarge(bytes: Uint8Array): void;
  /** Has the host give all pages of shared memory now, as they are. False where it does not (before Linux 5.14). */
  populate(bytes: Uint8Array): boolean;
  /** True when the range was given back and reads as zeros. */
  punch(fd: number, offset: number, length: number): boolean;
  /** The next offset with data; undefined where the file system cannot say, `size` beyond the last. */
  nextData(fd: number, offset: number, size: number): number | undefined;
  /** Where the next hole begins, at the file's end at the latest; undefined where the file system cannot say. */
  nextHole(fd: number, offset: number): number | undefined;
  /** Size of what `fd` is, block devices included. */
  end(fd: number): number;
  /**
   * Takes the locks of a reader or a writer, which end with the last descriptor.
   * @returns the permission that another process holds or denies; undefined when all were had
   */
  lock(fd: number, mode: LockMode): string | undefined;
  /** Gives up the locks of a descriptor that stays open. */
  unlock(fd: number): void;
}
export type LockMode = 'write' | 'read' | 'share';

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;
const MADV_DONTNEED = 4;
const MADV_HUGEPAGE = 14;
const MADV_POPULATE_WRITE = 23;
const EAGAIN = 11;
const EINTR = 4;
const RWF_NOWAIT = 8;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** Bytes 100 + n say "I use permission n", bytes 200 + n "nobody else may". */
const USES = 100;
const DENIES = 200;
const PERMISSION: Readonly<Record<number, string>> = { 0: 'consistent read', 1: 'write', 3: 'resize' };
const LOCKS: Readonly<Record<LockMode, { readonly uses: readonly number[]; readonly denies: readonly number[] }>> = {
  write: { uses: [0, 1, 3], denies: [1, 3] },
  read: { uses: [0], denies: [1, 3] },
  share: { uses: [0], denies: [] },
};

interface Koffi {
  address(value: Uint8Array): bigint;
  load(path: string): { func(signature: string): (...args: unknown[]) => number };
  errno(): number;
}

let bound: NativeFiles | null | undefined;
/** The calls of this Linux host; undefined elsewhere and without koffi. Bound at the first call in each thread. */
export function nativeFiles(): NativeFiles | undefined {
  if (bound === undefined) {
    bound = null;
    try {
      if (process.platform === 'linux') bound = bind(loadKoffi<Koffi>());
    } catch {}
  }
  return bound ?? undefined;
}

/** `readNow` for a thread that may never need it. */
export const readNow: NativeFiles['readNow'] = (fd, pieces, offset) => nativeFiles()?.readNow(fd, pieces, offset) ?? -1;

function bind(koffi: Koffi): NativeFiles {
  const libc = koffi.load('libc.so.6');
  const fallocate = libc.func('int fallocate64(int fd, int mode, int64_t offset, int64_t length)');
  const lseek = libc.func('int64_t lseek64(int fd, int64_t offset, int whence)');
  const fcntl = libc.func('int fcntl64(int fd, int command, void *lock)');

  const madvise = libc.func('int madvise(uintptr_t start, size_t length, int advice)');
  const preadv2 = libc.func('int64_t preadv64v2(int fd, void *pieces, int count, int64_t offset, int flags)');
  // Addresses within shared memory, which does not move, by its buffer.
  const bases = new WeakMap<ArrayBufferLike, bigint>();
  const baseOf = (buffer: ArrayBufferLike): bigint => {
    let base = bases.get(buffer);
    if (base === undefined) {
      base = koffi.address(new Uint8Array(buffer));
      bases.set(buffer, base);
    }
    return base;
  };
  const addressOf = (piece: Uint8Array): bigint => baseOf(piece.buffer) + BigInt(piece.byteOffset);
  /** `struct iovec` of one call, in words. */
  let list = new Uint32Array(256);

  const region = (type: number, at: number): Uint8Array => {
    const lock = new Uint8Array(32);
    const d = new DataView(lock.buffer);
    d.setInt16(0, type, true);
    d.setBigInt64(8, BigInt(at), true);
    d.setBigInt64(16, 1n, true);
    return lock;
  };
  const held = (fd: number, at: number): boolean => {
    const lock = region(F_WRLCK, at);
    return fcntl(fd, F_OFD_GETLK, lock) === 0 && new DataView(lock.buffer).getInt16(0, true) !== F_UNLCK;
  };
  return {
    readNow(fd, pieces, offset) {
      const words = 4 * pieces.length;
      if (list.length < words) list = new Uint32Array(2 * words);
      // Addresses are below 2^53: this is done for each small read, and bigints cost more than the rest of it.
      let base = 0;
      let buffer: ArrayBufferLike | undefined;
      for (let n = 0; n < pieces.length; n++) {
        const piece = pieces[n]!;
        if (piece.buffer !== buffer) {
          buffer = piece.buffer;
          base = Number(baseOf(buffer));
        }
        const address = base + piece.byteOffset;
        list[4 * n] = address % 2 ** 32;
        list[4 * n + 1] = address / 2 ** 32;
        list[4 * n + 2] = piece.length % 2 ** 32;
        list[4 * n + 3] = piece.length / 2 ** 32;
      }
      const count = Number(preadv2(fd, list, pieces.length, offset, RWF_NOWAIT));
      if (count >= 0) return count;
      const error = koffi.errno();
      return error === EAGAIN || error === EINTR ? 0 : -1;
    },
    release(bytes) {
      const start = addressOf(bytes);
      const skip = Number(-start & 4095n);
      const length = Math.floor((bytes.length - skip) / 4096) * 4096;
      return length <= 0 || madvise(start + BigInt(skip), length, MADV_DONTNEED) === 0;
    },
    address: addressOf,
    preferLarge(bytes) {
      const start = addressOf(bytes);
      const skip = Number(-start & 4095n);
      madvise(start + BigInt(skip), bytes.length - skip, MADV_HUGEPAGE);
    },
    populate(bytes) {
      const start = addressOf(bytes) & ~4095n;
      return madvise(start, Number(addressOf(bytes) - start) + bytes.length, MADV_POPULATE_WRITE) === 0;
    },
    punch: (fd, offset, length) => fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) === 0,
    nextData(fd, offset, size) {
      const at = Number(lseek(fd, offset, SEEK_DATA));
      if (at >= 0) return at;
      return koffi.errno() === ENXIO ? size : undefined;
    },
    nextHole(fd, offset) {
      const at = Number(lseek(fd, offset, SEEK_HOLE));
      return at >= 0 ? at : undefined;
    },
    end: (fd) => Number(lseek(fd, 0, SEEK_END)),
    lock(fd, mode) {
      const { uses, denies } = LOCKS[mode];
      for (const n of uses) if (fcntl(fd, F_OFD_SETLK, region(F_RDLCK, USES + n)) !== 0) return undefined;
      for (const n of denies) fcntl(fd, F_OFD_SETLK, region(F_RDLCK, DENIES + n));
      const clash = uses.find((n) => held(fd, DENIES + n)) ?? denies.find((n) => held(fd, USES + n));
      return clash === undefined ? undefined : PERMISSION[clash];
    },
    unlock(fd) {
      for (const n of [0, 1, 3]) for (const at of [USES + n, DENIES + n]) fcntl(fd, F_OFD_SETLK, region(F_UNLCK, at));
    },
  };
}
