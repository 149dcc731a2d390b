// Guest memory that several machines share until they write to it: an anonymous file of Linux, mapped privately over the memory of each.
// Taking a machine's memory is one mapping where it lived in such a file from the start, else a copy of its pages that are not zero; giving it
// to a machine is one mapping always. memfd_create(2), mmap(2).

import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';

const PAGE = 4096;
/** Pages that are looked at together: a run of them is written by one call. */
const RUN_MAX = 1024;
const MFD_CLOEXEC = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_NORESERVE = 0x4000;
const FAILED = 2n ** 64n - 1n;

interface Koffi {
  load(path: string): { func(signature: string): (...args: unknown[]) => unknown };
  address(value: unknown): bigint;
  errno(): number;
}
interface Calls {
  create(name: string): number;
  /** Maps `fd` from `offset` over the bytes. */
  map(bytes: Uint8Array, fd: number, offset: number, flags: number): void;
}

let known: Calls | null | undefined;
function calls(): Calls | null {
  if (known !== undefined) return known;
  known = null;
  if (process.platform !== 'linux') return known;
  try {
    const koffi = createRequire(import.meta.url)('koffi') as Koffi;
    const c = koffi.load('libc.so.6');
    const memfd = c.func('int memfd_create(const char *name, unsigned flags)') as (name: string, flags: number) => number;
    const mmap = c.func('void *mmap(uint64_t at, size_t length, int protection, int flags, int fd, int64_t offset)');
    known = {
      create: (name) => memfd(name, MFD_CLOEXEC),
      map(bytes, fd, offset, flags) {
        const at = koffi.address(bytes);
        const got = mmap(at, bytes.length, PROT_READ_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd, offset);
        if (koffi.address(got) !== at || at === FAILED)
          throw new Error(`Cannot map ${bytes.length >> 20} MiB of guest memory: error ${koffi.errno()}`);
      },
    };
  } catch {
    // Without koffi's binary, memory is copied.
  }
  return known;
}

/** Contents of a guest's memory that do not change any more. */
export interface FrozenMemory {
  readonly length: number;
  /** Gives them to a machine: bytes at a page's start, of this length, whose contents until now are lost. */
  mapTo(bytes: Uint8Array): void;
  /** Writes them to a file from `offset`, holes for pages of zeros. */
  copyTo(fd: number, offset: number): void;
  close(): void;
}

/** Memory of a machine that can be frozen by one mapping. */
export class GuestMemory {
  readonly bytes: Uint8Array;
  #fd = -1;

  /** `shareable`: it lives in an anonymous file from now on, where the host can do that; the bytes are zero. */
  constructor(bytes: Uint8Array, shareable: boolean) {
    this.bytes = bytes;
    const host = shareable ? calls() : null;
    if (!host) return;
    const fd = host.create('nonroot-guest');
    if (fd < 0) return;
    ftruncateSync(fd, bytes.length);
    host.map(bytes, fd, 0, MAP_SHARED);
    this.#fd = fd;
  }

  /** The contents as they are; the machine stands still. What it writes from now on is its own. */
  freeze(): FrozenMemory {
    const { bytes } = this;
    const host = calls();
    if (this.#fd >= 0 && host) {
      const fd = this.#fd;
      this.#fd = -1;
      host.map(bytes, fd, 0, MAP_PRIVATE);
      return frozen(fd, 0, bytes.length, host);
    }
    const fd = host ? host.create('nonroot-frozen') : -1;
    if (!host || fd < 0) return copied(bytes.slice());
    ftruncateSync(fd, bytes.length);
    writeRuns(bytes, fd, 0);
    host.map(bytes, fd, 0, MAP_PRIVATE);
    return frozen(fd, 0, bytes.length, host);
  }
  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** Memory in a file that `copyTo` has written: pages are read when they are first used. The file must not change meanwhile. */
export function openFrozen(path: string, offset: number, length: number): FrozenMemory {
  const fd = openSync(path, 'r');
  if (fstatSync(fd).size < offset + length) {
    closeSync(fd);
    throw new Error(`Cannot use memory in ${path}: the file is too short`);
  }
  const host = calls();
  if (host) return frozen(fd, offset, length, host);
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const n = readSync(fd, bytes, at, length - at, offset + at);
    if (n <= 0) throw new Error(`Cannot use memory in ${path}: it could not be read`);
    at += n;
  }
  closeSync(fd);
  return copied(bytes);
}

function frozen(fd: number, offset: number, length: number, host: Calls): FrozenMemory {
  return {
    length,
    mapTo(bytes) {
      if (bytes.length !== length) throw new Error(`Cannot give ${length} bytes of memory to a machine that has ${bytes.length}`);
      host.map(bytes, fd, offset, MAP_PRIVATE);
    },
    copyTo(to, at) {
      ftruncateSync(to, at + length);
      const piece = new Uint8Array(RUN_MAX * PAGE);
      for (let from = 0; from < length; from += piece.length) {
        const part = piece.subarray(0, Math.min(piece.length, length - from));
        for (let n = 0; n < part.length; ) n += readSync(fd, part, n, part.length - n, offset + from + n) || part.length;
        writeRuns(part, to, at + from);
      }
    },
    close: () => closeSync(fd),
  };
}
function copied(contents: Uint8Array): FrozenMemory {
  return {
    length: contents.length,
    mapTo: (bytes) => bytes.set(contents),
    copyTo(fd, at) {
      ftruncateSync(fd, at + contents.length);
      writeRuns(contents, fd, at);
    },
    close: () => {},
  };
}

/** Writes pages that are not zero to a file that reads as zeros elsewhere. */
function writeRuns(bytes: Uint8Array, fd: number, offset: number): void {
  const words = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length >> 3);
  const pages = bytes.length / PAGE;
  const empty = (page: number): boolean => {
    // Not-a-number is not zero, so any bit that is set shows; minus zero hides one, which the second look finds.
    for (let i = page * (PAGE / 8), end = i + PAGE / 8; i < end; i++) if (words[i] !== 0 || Object.is(words[i], -0)) return false;
    return true;
  };
  for (let page = 0; page < pages; ) {
    if (empty(page)) {
      page++;
      continue;
    }
    const first = page;
    while (page < pages && page - first < RUN_MAX && !empty(page)) page++;
    for (let at = first * PAGE; at < page * PAGE; ) at += writeSync(fd, bytes, at, page * PAGE - at, offset + at);
  }
}
