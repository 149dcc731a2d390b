// Guest memory that several machines share until they write to it: anonymous files of Linux, mapped privately over the memory of each. Taking
// a machine's memory costs one mapping where it lived in such a file from the start; later the pages that it wrote since are copied to a file
// of their own, which lies over the former ones. memfd_create(2), mmap(2), Linux "Documentation/admin-guide/mm/pagemap".

import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { nativeFiles } from './file-native.ts';
import { loadKoffi } from './koffi.ts';

const PAGE = 4096;
/** Bytes that are copied at once. */
const PIECE = 4 << 20;
/** Files and mappings that a machine's memory may consist of; beyond, it is copied into one. */
const FILES_MAX = 32;
const MAPPINGS_MAX = 2048;
/** Runs of written pages that one freezing may add. Pages between them that were not written are copied along where there are more. */
const RUNS_MAX = 256;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
/** F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_WRITE. */
const ALL_SEALS = 15;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_NORESERVE = 0x4000;
const FAILED = 2n ** 64n - 1n;
/** Of the upper half of a pagemap's entry: the page is there, or swapped out; it belongs to a file. */
const PM_PRESENT = 1 << 31;
const PM_SWAP = 1 << 30;
const PM_FILE = 1 << 29;

interface Koffi {
  load(path: string): { func(signature: string): (...args: unknown[]) => unknown };
  address(value: unknown): bigint;
  errno(): number;
}
interface Calls {
  create(name: string): number;
  /** Has the file stay as it is for good, whoever has it. */
  seal(fd: number): void;
  address(bytes: Uint8Array): bigint;
  /** Maps `fd` from `offset` over memory. */
  map(at: bigint, length: number, fd: number, offset: number, flags: number): void;
}

let known: Calls | null | undefined;
/** The calls of this host; null where koffi's binary is missing and memory has to be copied. */
function calls(): Calls | null {
  if (known !== undefined) return known;
  known = null;
  if (process.platform !== 'linux') return known;
  let koffi: Koffi;
  try {
    koffi = loadKoffi<Koffi>();
  } catch {
    return known;
  }
  const c = koffi.load('libc.so.6');
  const memfd = c.func('int memfd_create(const char *name, unsigned int flags)') as (name: string, flags: number) => number;
  const fcntl = c.func('int fcntl(int fd, int command, int64_t argument)');
  const mmap = c.func('void *mmap(uint64_t at, size_t length, int protection, int flags, int fd, int64_t offset)');
  known = {
    create: (name) => memfd(name, MFD_CLOEXEC | MFD_ALLOW_SEALING),
    seal(fd) {
      if (fcntl(fd, F_ADD_SEALS, ALL_SEALS) !== 0) throw new Error(`Cannot seal a copy of memory: error ${koffi.errno()}`);
    },
    address: (bytes) => koffi.address(bytes),
    map(at, length, fd, offset, flags) {
      const got = mmap(at, length, PROT_READ_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd, offset);
      if (koffi.address(got) !== at || at === FAILED)
        throw new Error(`Cannot map ${length >> 10} KiB of guest memory: error ${koffi.errno()}`);
    },
  };
  return known;
}
/** Whether machines can share memory on this host. */
export const sharesMemory = (): boolean => calls() !== null;

/** An open file that several hold. */
class SharedFile {
  readonly fd: number;
  #holders = 0;
  constructor(fd: number) {
    this.fd = fd;
  }
  hold(): void {
    this.#holders++;
  }
  release(): void {
    if (--this.#holders === 0) closeSync(this.fd);
  }
}
/** Pages of memory and where they are. A list of them is in order and leaves out nothing. */
interface Extent {
  readonly page: number;
  readonly count: number;
  readonly file: SharedFile;
  /** Bytes. */
  readonly offset: number;
}
const filesOf = (extents: readonly Extent[]): Set<SharedFile> => new Set(extents.map((e) => e.file));

/** Contents of a guest's memory that do not change any more. */
export interface FrozenMemory {
  readonly length: number;
  readonly contents: Uint8Array | readonly Extent[];
  /** Writes them to a file from `offset`, holes for pages of zeros. */
  copyTo(fd: number, offset: number): void;
  close(): void;
}

/** Memory of a machine that can be frozen, and that takes frozen contents over. */
export class GuestMemory {
  readonly bytes: Uint8Array;
  /** The file that it lives in, until it is frozen first. */
  #own: SharedFile | undefined;
  /** What it is mapped from privately. */
  #from: readonly Extent[] = [];

  /** `shareable`: it lives in an anonymous file from now on, where the host can do that; the bytes are zero. */
  constructor(bytes: Uint8Array, shareable: boolean) {
    this.bytes = bytes;
    const host = shareable ? calls() : null;
    const file = host && anonymous(host);
    if (!host || !file) return;
    ftruncateSync(file.fd, bytes.length);
    host.map(host.address(bytes), bytes.length, file.fd, 0, MAP_SHARED);
    this.#own = file;
  }

  /** The contents as they are; the machine stands still. What it writes from now on is its own. */
  freeze(): FrozenMemory {
    const host = calls();
    if (host && this.#own) {
      const whole = { page: 0, count: this.bytes.length / PAGE, file: this.#own, offset: 0 };
      this.#map(host, [whole]);
      this.#goOnFrom([whole]);
    } else if (!host || this.#from.length === 0 || !this.#addWritten(host)) return copied(this.bytes.slice());
    return frozen(this.#from, this.bytes.length);
  }
  /** Has frozen contents of this length instead of its own. */
  take({ contents, length }: FrozenMemory): void {
    if (length !== this.bytes.length)
      throw new Error(`Cannot give ${length} bytes of memory to a machine that has ${this.bytes.length}`);
    const host = calls();
    if (contents instanceof Uint8Array || !host) {
      this.bytes.set(contents as Uint8Array);
      return;
    }
    this.#map(host, contents);
    this.#goOnFrom(contents);
  }
  /** Zeroes bytes; the machine stands still. What the host gave for them it gets back, where it can take it. */
  clear(start = 0, end = this.bytes.length): void {
    const part = this.bytes.subarray(start, end);
    if (!(this.#anonymous && nativeFiles()?.release(part))) clear(part);
  }
  /** Pages that may not be zero, in order; undefined where that is not known. */
  used(): Iterable<number> | undefined {
    // A file may hold pages that the mapping has not.
    const entries = this.#anonymous ? pagemap(this.bytes) : undefined;
    return entries && usedPages(entries);
  }
  get #anonymous(): boolean {
    return this.#own === undefined && this.#from.length === 0;
  }
  close(): void {
    this.#goOnFrom([]);
  }

  #map(host: Calls, extents: readonly Extent[]): void {
    const base = host.address(this.bytes);
    for (const { page, count, file, offset } of extents)
      host.map(base + BigInt(page * PAGE), count * PAGE, file.fd, offset, MAP_PRIVATE);
  }
  #goOnFrom(extents: readonly Extent[]): void {
    const before = filesOf(this.#from);
    for (const file of filesOf(extents)) file.hold();
    for (const file of before) file.release();
    this.#own?.release();
    this.#own = undefined;
    this.#from = extents;
  }
  /** Moves the pages that were written since they were mapped to a file of their own. False where the host does not tell, or has no room. */
  #addWritten(host: Calls): boolean {
    const { bytes } = this;
    const runs = writtenRuns(bytes);
    if (runs?.length === 0) return true;
    const file = runs && anonymous(host);
    if (!runs || !file) return false;
    try {
      let offset = 0;
      const over: Extent[] = [];
      for (const { page, count } of runs) {
        writeAll(file.fd, bytes.subarray(page * PAGE, (page + count) * PAGE), offset);
        over.push({ page, count, file, offset });
        offset += count * PAGE;
      }
      const all = overlay(this.#from, over);
      if (all.length <= MAPPINGS_MAX && filesOf(all).size <= FILES_MAX) {
        // First the list, then the mappings: where one fails, its pages count as written the next time.
        this.#goOnFrom(all);
        this.#map(host, over);
      } else {
        const one = anonymous(host);
        if (!one) return false;
        copyExtents(all, bytes.length, one.fd, 0);
        const whole = { page: 0, count: bytes.length / PAGE, file: one, offset: 0 };
        this.#goOnFrom([whole]);
        one.release();
        this.#map(host, [whole]);
      }
      return true;
    } finally {
      file.release();
    }
  }
}

/** Memory in a file that `copyTo` has written: pages are read when they are first used. The file must not change meanwhile. */
export function openFrozen(path: string, offset: number, length: number): FrozenMemory {
  const fd = openSync(path, 'r');
  try {
    return frozenIn(fd, offset, length, path);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
/** The same of an open file, which is taken over. `name` is for messages. */
export function frozenIn(fd: number, offset: number, length: number, name: string): FrozenMemory {
  if (fstatSync(fd).size < offset + length) throw new Error(`Cannot use memory in ${name}: the file is too short`);
  if (calls()) return frozen([{ page: 0, count: length / PAGE, file: new SharedFile(fd), offset }], length);
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const n = readSync(fd, bytes, at, length - at, offset + at);
    if (n <= 0) throw new Error(`Cannot use memory in ${name}: it could not be read`);
    at += n;
  }
  closeSync(fd);
  return copied(bytes);
}

/** The file that all of it lies in, and from where on; undefined where it is in several, or in none. */
export function fileOf({ contents }: FrozenMemory): { readonly fd: number; readonly offset: number } | undefined {
  const [first, second] = contents instanceof Uint8Array ? [] : contents;
  return first && !second ? { fd: first.file.fd, offset: first.offset } : undefined;
}
/** An empty anonymous file. @throws Error where this host has none */
export function anonymousFile(): number {
  const fd = calls()?.create('nonroot-snapshot') ?? -1;
  if (fd < 0) throw new Error('Cannot make an anonymous file: this host has none');
  return fd;
}
/**
 * An anonymous file with what is in another one now, which nobody can change any more, whoever may write to that one.
 * @throws Error for more than `most` bytes, or what is no whole number of pages
 */
export function sealedCopy(from: number, most: number): number {
  const host = calls();
  const { size } = fstatSync(from);
  if (size > most || size % PAGE !== 0)
    throw new Error(`Cannot copy ${size} bytes: accepted are whole pages, ${most} bytes at most`);
  const to = anonymousFile();
  try {
    copyExtents([{ page: 0, count: size / PAGE, file: new SharedFile(from), offset: 0 }], size, to, 0);
    host!.seal(to);
    return to;
  } catch (error) {
    closeSync(to);
    throw error;
  }
}

/** An anonymous file that its maker holds. */
function anonymous(host: Calls): SharedFile | undefined {
  const fd = host.create('nonroot-guest');
  if (fd < 0) return undefined;
  const file = new SharedFile(fd);
  file.hold();
  return file;
}
function frozen(extents: readonly Extent[], length: number): FrozenMemory {
  const files = filesOf(extents);
  for (const file of files) file.hold();
  return {
    length,
    contents: extents,
    copyTo: (fd, offset) => copyExtents(extents, length, fd, offset),
    close() {
      for (const file of files) file.release();
      files.clear();
    },
  };
}
function copied(contents: Uint8Array): FrozenMemory {
  return {
    length: contents.length,
    contents,
    copyTo(fd, offset) {
      ftruncateSync(fd, offset + contents.length);
      writeRuns(contents, fd, offset);
    },
    close: () => {},
  };
}

/** Runs of pages that a private mapping has copies of, since they were written. Undefined where the host does not tell. */
function writtenRuns(memory: Uint8Array): { page: number; count: number }[] | undefined {
  const entries = pagemap(memory);
  if (!entries) return undefined;
  let runs: { page: number; count: number }[] = [];
  for (const page of usedPages(entries)) {
    if ((entries[2 * page + 1]! & PM_FILE) !== 0) continue;
    const last = runs.at(-1);
    if (last && last.page + last.count === page) last.count++;
    else runs.push({ page, count: 1 });
  }
  for (let gap = 4; runs.length > RUNS_MAX; gap *= 2) runs = closeGaps(runs, gap);
  return runs;
}
function* usedPages(entries: Uint32Array): Generator<number> {
  for (let i = 1; i < entries.length; i += 2) if ((entries[i]! & (PM_PRESENT | PM_SWAP)) !== 0) yield i >> 1;
}
/** What the kernel says of each page of this memory, 64 bits each. Undefined where the host does not tell. */
function pagemap(memory: Uint8Array): Uint32Array | undefined {
  const host = calls();
  if (!host) return undefined;
  const entries = new Uint32Array((2 * memory.length) / PAGE);
  let fd: number | undefined;
  try {
    fd = openSync('/proc/self/pagemap', 'r');
    const bytes = new Uint8Array(entries.buffer);
    const from = (Number(host.address(memory)) / PAGE) * 8;
    for (let n = 0; n < bytes.length; ) {
      const got = readSync(fd, bytes, n, bytes.length - n, from + n);
      if (got <= 0) return undefined;
      n += got;
    }
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
  return entries;
}
function closeGaps(runs: readonly { page: number; count: number }[], gap: number): { page: number; count: number }[] {
  const joined: { page: number; count: number }[] = [];
  for (const run of runs) {
    const last = joined.at(-1);
    if (last && run.page - (last.page + last.count) <= gap) last.count = run.page + run.count - last.page;
    else joined.push({ ...run });
  }
  return joined;
}

/** `under` with `over` on top; both in order. */
function overlay(under: readonly Extent[], over: readonly Extent[]): Extent[] {
  const all: Extent[] = [];
  let next = 0;
  /** Pages before this one are in the list. */
  let done = 0;
  for (const extent of under) {
    const end = extent.page + extent.count;
    const below = (to: number): void => {
      if (done < to) all.push({ ...extent, page: done, count: to - done, offset: extent.offset + (done - extent.page) * PAGE });
      done = Math.max(done, to);
    };
    for (let top = over[next]; top && top.page < end; top = over[++next]) {
      below(top.page);
      all.push(top);
      done = top.page + top.count;
    }
    below(end);
  }
  return all;
}

/** Copies what is not zero, in files that may have holes. */
function copyExtents(extents: readonly Extent[], length: number, to: number, at: number): void {
  ftruncateSync(to, at + length);
  const native = nativeFiles();
  const piece = new Uint8Array(PIECE);
  for (const { page, count, file, offset } of extents) {
    const end = offset + count * PAGE;
    for (let from = offset; from < end; ) {
      from = native?.nextData(file.fd, from, end) ?? from;
      from -= from % PAGE;
      if (from >= end) break;
      const part = piece.subarray(0, Math.min(piece.length, end - from));
      for (let n = 0; n < part.length; ) {
        const got = readSync(file.fd, part, n, part.length - n, from + n);
        if (got <= 0) throw new Error('Cannot copy the memory of a machine: its file was cut short');
        n += got;
      }
      writeRuns(part, to, at + page * PAGE + from - offset);
      from += part.length;
    }
  }
}

/** Writes pages that are not zero to a file that reads as zeros elsewhere. */
function writeRuns(bytes: Uint8Array, fd: number, offset: number): void {
  const words = wordsOf(bytes);
  const pages = bytes.length / PAGE;
  const empty = (page: number): boolean => isZero(words, page);
  for (let page = 0; page < pages; ) {
    if (empty(page)) {
      page++;
      continue;
    }
    const first = page;
    while (page < pages && !empty(page)) page++;
    writeAll(fd, bytes.subarray(first * PAGE, page * PAGE), offset + first * PAGE);
  }
}
const wordsOf = (bytes: Uint8Array): Int32Array => new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
function isZero(words: Int32Array, page: number): boolean {
  for (let i = page * (PAGE / 4), end = i + PAGE / 4; i < end; i++) if (words[i] !== 0) return false;
  return true;
}
/** Zeroes pages without writing to those that are zero already, so that unused memory stays unused on the host. */
function clear(bytes: Uint8Array): void {
  const words = wordsOf(bytes);
  for (let page = 0; page < bytes.length / PAGE; page++) if (!isZero(words, page)) bytes.fill(0, page * PAGE, (page + 1) * PAGE);
}
function writeAll(fd: number, bytes: Uint8Array, offset: number): void {
  for (let n = 0; n < bytes.length; ) n += writeSync(fd, bytes, n, bytes.length - n, offset + n);
}
