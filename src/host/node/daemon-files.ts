// The daemon's files on node:fs; writes that survive a crash. Node documentation, "File system"; rename(2), fsync(2).

import { randomBytes } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import {
  chmod,
  chown,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  statfs,
  symlink,
  unlink,
} from 'node:fs/promises';
import { dirname } from 'node:path';
import type { FileKind, FileStatus, Files, OpenFile } from '../../daemon/host.ts';

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');

/** `action`'s value, or `other` when the file is not there. */
async function ifThere<T, U>(action: Promise<T>, other: U): Promise<T | U> {
  try {
    return await action;
  } catch (error) {
    if (isMissing(error)) return other;
    throw error;
  }
}

/** Makes a new name in a directory last. */
async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function replaceFile(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const temporary = `${path}.new-${randomBytes(6).toString('hex')}`;
  try {
    const handle = await open(temporary, 'wx', mode);
    try {
      await handle.writeFile(content);
      await handle.datasync();
    } finally {
      await handle.close();
    }
    // The new name itself reaches the storage with the file system's next commit, as with libvirtd; until then the old file is there.
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

const kindOf = (s: BigIntStats): FileKind =>
  s.isFile()
    ? 'file'
    : s.isDirectory()
      ? 'directory'
      : s.isBlockDevice()
        ? 'block'
        : s.isCharacterDevice()
          ? 'character'
          : s.isSocket()
            ? 'socket'
            : 'other';

const seconds = (ns: bigint): string => `${ns / 1_000_000_000n}.${String(ns % 1_000_000_000n).padStart(9, '0')}`;

/** Linux' 64-bit device numbers, makedev(3). */
const deviceOf = ({ rdev }: BigIntStats): string =>
  `${((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn)}:${(rdev & 0xffn) | ((rdev >> 12n) & ~0xffn)}`;

const statusOf = (s: BigIntStats): FileStatus => ({
  kind: kindOf(s),
  device: deviceOf(s),
  size: Number(s.size),
  allocated: Number(s.blocks) * 512,
  mode: Number(s.mode) & 0o7777,
  uid: Number(s.uid),
  gid: Number(s.gid),
  accessed: seconds(s.atimeNs),
  modified: seconds(s.mtimeNs),
  changed: seconds(s.ctimeNs),
  born: seconds(s.birthtimeNs),
});

const openFlags = { read: 'r', write: 'r+', create: 'w+', createNew: 'wx+' } as const;

const openFile = (handle: FileHandle): OpenFile => ({
  async read(offset, length) {
    const buffer = Buffer.alloc(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await handle.read(buffer, done, length - done, offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return new Uint8Array(buffer.buffer, buffer.byteOffset, done);
  },
  async write(offset, bytes) {
    let done = 0;
    while (done < bytes.length) done += (await handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  },
  truncate: (size) => handle.truncate(size),
  size: async () => (await handle.stat()).size,
  sync: () => handle.sync(),
  close: () => handle.close(),
});

export const nodeFiles: Files = {
  read: (path) =>
    ifThere(
      open(path, 'r').then(async (handle) => {
        try {
          return await handle.readFile('utf8');
        } catch (error) {
          // What fails on an open file does not say which.
          throw Object.assign(error as Error, { path });
        } finally {
          await handle.close();
        }
      }),
      undefined,
    ),
  write: (path, text, mode = 0o600) => replaceFile(path, text, mode),
  remove: (path) => ifThere(unlink(path), undefined),
  removeTree: (path) => rm(path, { recursive: true, force: true }),
  removeDirectory: (path) => rmdir(path),
  async rename(from, to) {
    await rename(from, to);
    await syncDirectory(dirname(to));
  },
  list: async (path) => (await ifThere(readdir(path), [])).sort(),
  async makeDirectory(path, mode = 0o755) {
    await mkdir(path, { recursive: true, mode });
  },
  status: (path) => ifThere(stat(path, { bigint: true }).then(statusOf), undefined),
  open: async (path, mode) => openFile(await open(path, openFlags[mode], 0o600)),
  async descriptor(path, mode) {
    const handle = await open(path, openFlags[mode], 0o600);
    return { fd: handle.fd, close: () => void handle.close() };
  },
  async link(target, path) {
    if ((await ifThere(lstat(path), undefined))?.isSymbolicLink()) await unlink(path);
    await symlink(target, path);
  },
  async space(path) {
    const { blocks, bavail, bsize } = await statfs(path);
    return { capacity: blocks * bsize, available: bavail * bsize };
  },
  async change(path, { mode, uid, gid }) {
    if (uid !== undefined || gid !== undefined) await chown(path, uid ?? -1, gid ?? -1);
    if (mode !== undefined) await chmod(path, mode);
  },
  real: (path) => ifThere(realpath(path), undefined),
};
