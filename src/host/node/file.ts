// Files of this host for images (disk/block.ts): positioned reads and writes, fdatasync, holes and QEMU's image locks.
// Node documentation, "File system", class FileHandle.

import { constants, read, readv, write, writev } from 'node:fs';
import { open, realpath, stat } from 'node:fs/promises';
import { totalmem } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { type ByteFile, DiskError, piecesLength } from '../../disk/block.ts';
import { Leases } from '../../disk/direct.ts';
import { HttpFile, isHttp } from '../../disk/http/file.ts';
import { MemoryBudget } from '../../disk/memory-file.ts';
import type { DiskHost, FileOptions } from '../../disk/open.ts';
import type { AdmittedFiles, Handle } from './admitted.ts';
import { nodeHttp } from './disk-http.ts';
import { diskSockets } from './disk-sockets.ts';
import { nodeCodec } from './file-codec.ts';
import { type NativeFiles, nativeFiles } from './file-native.ts';

const BLOCK = 512;

/** Files and codecs of this process for `openDisk`. `admitted` has what a confined process cannot open by itself. */
export function nodeDiskHost(admitted?: AdmittedFiles): DiskHost {
  const http = nodeHttp();
  return {
    codec: nodeCodec,
    temporary: new MemoryBudget(totalmem() / 2),
    ...(admitted && { forget: (path: string) => admitted.forget(path) }),
    sockets: diskSockets(admitted),
    http,
    open: (path, options) =>
      isHttp(path) ? HttpFile.open(http, { url: path }, options) : openFile(path, options, nativeFiles(), admitted),
    resolve: (from, name) => (isAbsolute(name) ? name : join(dirname(from), name)),
    async identity(path) {
      if (isHttp(path)) return path;
      const s = await stat(path, { bigint: true }).catch((error: NodeJS.ErrnoException) => fail('open', path, error));
      return s.ino === 0n ? realpath(path) : `${s.dev}:${s.ino}`;
    },
  };
}

/**
 * Opens a file for one writer, or for readers while none writes, among all processes that keep QEMU's locks.
 * @throws DiskError (rejects) with one line
 */
export async function openFile(
  path: string,
  options: FileOptions,
  native = nativeFiles(),
  admitted?: AdmittedFiles,
): Promise<NodeFile> {
  const handle = await openHandle(path, options, native, admitted);
  try {
    const s = await handle.stat();
    if (!s.isFile() && !s.isBlockDevice())
      throw new DiskError(`Cannot open ${path}: it is ${s.isDirectory() ? 'a directory' : 'neither a file nor a block device'}`);
    const held = native?.lock(handle.fd, options.readOnly ? (options.share ? 'share' : 'read') : 'write');
    if (held !== undefined) throw new DiskError(`Cannot open ${path}: another process uses it (its "${held}" lock is taken)`);
    return new NodeFile(path, handle, options.readOnly, s.isFile(), options.sync !== false, native);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function openHandle(
  path: string,
  options: FileOptions,
  native: NativeFiles | undefined,
  admitted: AdmittedFiles | undefined,
): Promise<Handle> {
  const access = options.readOnly ? constants.O_RDONLY : constants.O_RDWR | (options.create ? constants.O_CREAT : 0);
  try {
    return await open(path, access, 0o644);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') fail('open', path, error as NodeJS.ErrnoException);
    try {
      const given = admitted?.open(path, !options.readOnly, (fd) => native?.unlock(fd));
      if (given) return given;
    } catch (taken) {
      throw new DiskError(`Cannot open ${path}: ${(taken as Error).message}`);
    }
    fail('open', path, error as NodeJS.ErrnoException);
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
  EROFS: 'its file system is read-only',
  ENOSPC: 'no space is left on its file system',
  EFBIG: 'it would be larger than its file system allows',
};

function fail(what: string, path: string, error: NodeJS.ErrnoException): never {
  throw new DiskError(`Cannot ${what} ${path}: ${reasons[error.code ?? ''] ?? error.message}`);
}

/** Most pieces of one call (IOV_MAX). */
const IOV_MAX = 1024;

function* batches(pieces: readonly Uint8Array[]): Generator<Uint8Array[]> {
  for (let n = 0; n < pieces.length; n += IOV_MAX) yield pieces.slice(n, n + IOV_MAX);
}

export class NodeFile implements ByteFile {
  readonly name: string;
  readonly readOnly: boolean;
  readonly #handle: Handle;
  readonly #fd: number;
  readonly #regular: boolean;
  readonly #sync: boolean;
  readonly #native: NativeFiles | undefined;
  readonly #leases = new Leases();
  /** False after the file system said that it can't. */
  #punches: boolean;
  /** Reads of what the host has in its memory are tried without another thread. */
  #quick: boolean;

  constructor(name: string, handle: Handle, readOnly: boolean, regular: boolean, sync: boolean, native: NativeFiles | undefined) {
    this.name = name;
    this.#handle = handle;
    this.#fd = handle.fd;
    this.readOnly = readOnly;
    this.#regular = regular;
    this.#sync = sync;
    this.#native = native;
    this.#quick = native !== undefined;
    this.#punches = native !== undefined && regular;
  }

  async size(): Promise<number> {
    if (!this.#regular && this.#native) return this.#native.end(this.#handle.fd);
    return (await this.#handle.stat()).size;
  }

  async allocated(): Promise<number> {
    return (await this.#handle.stat()).blocks * BLOCK;
  }

  /** How many bytes the host had in its memory for shared pieces; the rest has to be waited for, on another thread. */
  #now(offset: number, into: readonly Uint8Array[]): number {
    if (!this.#quick || !into.every((p) => p.buffer instanceof SharedArrayBuffer)) return 0;
    const count = this.#native!.readNow(this.#fd, into, offset);
    if (count < 0) this.#quick = false;
    return Math.max(0, count);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    for (let done = this.#now(offset, [into]); done < into.length; ) {
      const count = await this.#call('read', (end) => read(this.#fd, into, done, into.length - done, offset + done, end));
      if (count === 0) {
        into.fill(0, done);
        return;
      }
      done += count;
    }
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    for (let done = 0; done < from.length; )
      done += await this.#call('write', (end) => write(this.#fd, from, done, from.length - done, offset + done, end));
  }

  async readPieces(offset: number, into: readonly Uint8Array[]): Promise<void> {
    for (const list of batches(into)) {
      const length = piecesLength(list);
      let count = this.#now(offset, list);
      if (count === 0) count = await this.#call('read', (end) => readv(this.#fd, list, offset, end));
      // The rest of what came short, one by one: the end of the file, most likely.
      let at = 0;
      for (const piece of list) {
        if (at + piece.length > count) {
          const from = Math.max(0, count - at);
          await this.read(offset + at + from, piece.subarray(from));
        }
        at += piece.length;
      }
      offset += length;
    }
  }

  async writePieces(offset: number, from: readonly Uint8Array[]): Promise<void> {
    for (const list of batches(from)) {
      const length = piecesLength(list);
      const count = await this.#call('write', (end) => writev(this.#fd, list, offset, end));
      let at = 0;
      for (const piece of list) {
        if (at + piece.length > count) {
          const begin = Math.max(0, count - at);
          await this.write(offset + at + begin, piece.subarray(begin));
        }
        at += piece.length;
      }
      offset += length;
    }
  }

  /** One call with a callback, which costs half of one with a promise of Node's own. */
  #call(what: string, start: (end: (error: NodeJS.ErrnoException | null, count: number) => void) => void): Promise<number> {
    return new Promise((resolve, reject) => {
      start((error, count) => {
        if (!error) return resolve(count);
        try {
          fail(what, this.name, error);
        } catch (failure) {
          reject(failure);
        }
      });
    });
  }

  async flush(): Promise<void> {
    if (this.#sync) await this.#handle.datasync().catch((error: NodeJS.ErrnoException) => fail('flush', this.name, error));
  }

  async truncate(size: number): Promise<void> {
    if (!this.#regular) {
      if (size > (await this.size()))
        throw new DiskError(`Cannot resize ${this.name}: it is a block device of ${await this.size()} bytes`);
      return;
    }
    this.#leases.takeBack();
    await this.#handle.truncate(size).catch((error: NodeJS.ErrnoException) => fail('resize', this.name, error));
  }

  async punch(offset: number, length: number): Promise<boolean> {
    if (!this.#punches || length <= 0) return false;
    // A hole cannot lie beyond the end, where everything reads as zeros, but a disk's end may.
    this.#punches = this.#native!.punch(this.#handle.fd, offset, length);
    return this.#punches;
  }

  async nextData(offset: number): Promise<number> {
    const size = await this.size();
    if (offset >= size || !this.#regular) return offset;
    return this.#native?.nextData(this.#handle.fd, offset, size) ?? offset;
  }

  async nextHole(offset: number, end: number): Promise<number> {
    if (!this.#regular) return end;
    return Math.min(end, this.#native?.nextHole(this.#handle.fd, offset) ?? end);
  }

  direct(gone: () => void): number | undefined {
    if (!this.#quick) return undefined;
    this.#leases.add(gone);
    return this.#fd;
  }

  async close(): Promise<void> {
    this.#leases.takeBack();
    await this.#handle.close();
  }
}
