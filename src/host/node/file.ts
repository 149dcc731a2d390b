// Files of this host for images (disk/block.ts): positioned reads and writes, fdatasync, holes and QEMU's image locks.
// Node documentation, "File system", class FileHandle.

import { constants } from 'node:fs';
import { type FileHandle, open, realpath, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { type ByteFile, DiskError } from '../../disk/block.ts';
import type { DiskHost, FileOptions } from '../../disk/open.ts';
import { nodeCodec } from './file-codec.ts';
import { type NativeFiles, nativeFiles } from './file-native.ts';

const BLOCK = 512;

/** Files and codecs of this process for `openDisk`. */
export function nodeDiskHost(): DiskHost {
  const native = nativeFiles();
  return {
    codec: nodeCodec,
    open: (path, options) => openFile(path, options, native),
    resolve: (from, name) => (isAbsolute(name) ? name : join(dirname(from), name)),
    async identity(path) {
      const s = await stat(path, { bigint: true }).catch((error: NodeJS.ErrnoException) => fail('open', path, error));
      return s.ino === 0n ? realpath(path) : `${s.dev}:${s.ino}`;
    },
  };
}

/**
 * Opens a file for one writer, or for readers while none writes, among all processes that keep QEMU's locks.
 * @throws DiskError (rejects) with one line
 */
export async function openFile(path: string, options: FileOptions, native = nativeFiles()): Promise<NodeFile> {
  const access = options.readOnly ? constants.O_RDONLY : constants.O_RDWR | (options.create ? constants.O_CREAT : 0);
  const handle = await open(path, access, 0o644).catch((error: NodeJS.ErrnoException) => fail('open', path, error));
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

export class NodeFile implements ByteFile {
  readonly name: string;
  readonly readOnly: boolean;
  readonly #handle: FileHandle;
  readonly #regular: boolean;
  readonly #sync: boolean;
  readonly #native: NativeFiles | undefined;
  /** False after the file system said that it can't. */
  #punches: boolean;

  constructor(
    name: string,
    handle: FileHandle,
    readOnly: boolean,
    regular: boolean,
    sync: boolean,
    native: NativeFiles | undefined,
  ) {
    this.name = name;
    this.#handle = handle;
    this.readOnly = readOnly;
    this.#regular = regular;
    this.#sync = sync;
    this.#native = native;
    this.#punches = native !== undefined && regular;
  }

  async size(): Promise<number> {
    if (!this.#regular && this.#native) return this.#native.end(this.#handle.fd);
    return (await this.#handle.stat()).size;
  }

  async allocated(): Promise<number> {
    return (await this.#handle.stat()).blocks * BLOCK;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    for (let done = 0; done < into.length; ) {
      const { bytesRead } = await this.#handle
        .read(into, done, into.length - done, offset + done)
        .catch((error: NodeJS.ErrnoException) => fail('read', this.name, error));
      if (bytesRead === 0) {
        into.fill(0, done);
        return;
      }
      done += bytesRead;
    }
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    for (let done = 0; done < from.length; ) {
      const { bytesWritten } = await this.#handle
        .write(from, done, from.length - done, offset + done)
        .catch((error: NodeJS.ErrnoException) => fail('write', this.name, error));
      done += bytesWritten;
    }
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

  async close(): Promise<void> {
    await this.#handle.close();
  }
}
