// A folder of this host for a guest (devices/ninep/folder.ts). Every file is reached from an open handle of the folder above it, one
// name at a time and never through a link: `/proc/self/fd/N/NAME` with O_NOFOLLOW is what openat(2) does (proc(5)). So neither `..`,
// nor links, nor somebody who renames folders meanwhile leads out.

import { constants, type Stats } from 'node:fs';
import * as fs from 'node:fs/promises';
import { type FileHandle, open } from 'node:fs/promises';
import {
  Errno,
  type Folder,
  type FolderEntry,
  FolderError,
  type FolderNode,
  type FolderOptions,
  type FolderStatistics,
  type NodeChange,
  type NodeStat,
  type OpenNode,
  type Owner,
  S_IFMT,
} from '../../devices/ninep/folder.ts';
import { libc } from './libc.ts';

const O_PATH = 0o10000000;
const { O_NOFOLLOW, O_CREAT, O_EXCL, O_DIRECTORY, O_NONBLOCK } = constants;
/** Flags of the guest's that reach open(2): access mode, O_EXCL, O_TRUNC, O_APPEND, O_DSYNC and O_SYNC. */
const ALLOWED = 3 | 0o200 | 0o1000 | 0o2000 | 0o10000 | 0o4010000;
/** Handles of files that nobody uses at the moment. */
const HANDLES = 256;
const TYPES: Readonly<Record<number, number>> = {
  9604: 4,
  16807: 8,
  21609: 10,
  4802: 2,
  14406: 6,
  2401: 1,
  26411: 12,
};

/** Does a call; its error is the guest's. */
async function call<T>(action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof FolderError) throw error;
    const { errno, code } = error as NodeJS.ErrnoException;
    throw new FolderError(code !== undefined && errno !== undefined && errno < 0 ? -errno : Errno.EIO);
  }
}

/**
 * Opens a folder to share.
 * @throws Error (rejects) with one line
 */
export async function openFolder(path: string, options: FolderOptions): Promise<Folder> {
  if (process.platform !== 'linux') throw new Error(`Cannot share ${path}: shared folders need Linux's /proc`);
  const handle = await open(path, O_PATH | O_DIRECTORY).catch((error: NodeJS.ErrnoException) => {
    const reasons: Record<string, string> = { ENOENT: 'there is no such folder', ENOTDIR: 'it is not a folder' };
    throw new Error(`Cannot share ${path}: ${reasons[error.code ?? ''] ?? error.message}`);
  });
  const handles = new Handles(options, (await handle.stat({ bigint: true })).dev);
  const root = new Node(handles, undefined, '', handle);
  return {
    path,
    readOnly: options.readOnly,
    root: async () => root,
    close: async () => {
      await handles.close();
      await handle.close();
    },
  };
}

/** Open handles of nodes, the least used ones closed when there are many. */
class Handles {
  readonly options: FolderOptions;
  /** The root's device. */
  readonly device: bigint;
  readonly nodes = new Set<Node>();
  readonly libc = libc();

  constructor(options: FolderOptions, device: bigint) {
    this.options = options;
    this.device = device;
  }
  touch(node: Node): void {
    this.nodes.delete(node);
    this.nodes.add(node);
    if (this.nodes.size <= HANDLES) return;
    for (const old of this.nodes) {
      if (this.nodes.size <= HANDLES) break;
      if (old.users === 0) {
        this.nodes.delete(old);
        void old.release();
      }
    }
  }
  async close(): Promise<void> {
    const all = [...this.nodes];
    this.nodes.clear();
    await Promise.all(all.map((node) => node.release()));
  }
}

class Node implements FolderNode {
  readonly #handles: Handles;
  #parent: Node | undefined;
  #name: string;
  #handle: Promise<FileHandle> | undefined;
  /** Which file it is, once it was seen: a name may come to mean another one. */
  #identity: string | undefined;
  users = 0;

  constructor(handles: Handles, parent: Node | undefined, name: string, handle?: FileHandle) {
    this.#handles = handles;
    this.#parent = parent;
    this.#name = name;
    if (handle) this.#handle = Promise.resolve(handle);
  }
  get parent(): FolderNode {
    return this.#parent ?? this;
  }
  get name(): string {
    return this.#name;
  }

  /** Runs `action` with the handle open. */
  async #with<T>(action: (handle: FileHandle) => Promise<T>): Promise<T> {
    this.users++;
    try {
      this.#handle ??= this.#reopen();
      const handle = await this.#handle.catch((error) => {
        this.#handle = undefined;
        throw error;
      });
      if (this.#parent) this.#handles.touch(this);
      return await action(handle);
    } finally {
      this.users--;
    }
  }
  /** Runs `action` with the path of entry `name` of this folder; its last component must not be followed. */
  at<T>(name: string, action: (path: string) => Promise<T>): Promise<T> {
    return this.#with((handle) => action(`/proc/self/fd/${handle.fd}/${name}`));
  }
  /** Runs `action` with a path that is the file itself. */
  #self<T>(action: (path: string) => Promise<T>): Promise<T> {
    return this.#with((handle) => action(`/proc/self/fd/${handle.fd}`));
  }
  async #reopen(): Promise<FileHandle> {
    const handle = await this.#parent!.at(this.#name, (path) => open(path, O_PATH | O_NOFOLLOW));
    const s = await handle.stat({ bigint: true });
    if (this.#handles.options.oneDevice && s.dev !== this.#handles.device) {
      await handle.close();
      throw new FolderError(Errno.ENODEV);
    }
    const identity = `${s.dev}:${s.ino}`;
    this.#identity ??= identity;
    if (this.#identity !== identity) {
      await handle.close();
      throw new FolderError(Errno.ESTALE);
    }
    return handle;
  }
  async release(): Promise<void> {
    const handle = this.#handle;
    if (!this.#parent) return;
    this.#handle = undefined;
    await handle?.then((h) => h.close()).catch(() => {});
  }

  child(name: string): Promise<FolderNode> {
    return call(async () => {
      const node = new Node(this.#handles, this, name);
      await node.#with(async () => {});
      return node;
    });
  }
  stat(): Promise<NodeStat> {
    return call(() =>
      this.#with(async (handle) => {
        const s = await handle.stat({ bigint: true });
        return {
          dev: s.dev, ino: s.ino, mode: Number(s.mode), nlink: s.nlink, uid: Number(s.uid), gid: Number(s.gid), rdev: s.rdev,
          size: s.size, blksize: s.blksize, blocks: s.blocks, atime: s.atimeNs, mtime: s.mtimeNs, ctime: s.ctimeNs,
        }; // biome-ignore format: one object
      }),
    );
  }
  async #kind(): Promise<number> {
    return this.#with(async (handle) => ((await handle.stat()) as Stats).mode & S_IFMT);
  }

  change(c: NodeChange): Promise<void> {
    return call(async () => {
      // Of a link nothing can be changed without going through it.
      if ((await this.#kind()) === 0o120000) throw new FolderError(Errno.EOPNOTSUPP);
      await this.#self(async (path) => {
        if (c.size !== undefined) {
          if ((await this.#kind()) !== 0o100000) throw new FolderError(Errno.EINVAL);
          await fs.truncate(path, c.size);
        }
        if (c.uid !== undefined || c.gid !== undefined) {
          const s = await fs.stat(path);
          await fs.chown(path, c.uid ?? s.uid, c.gid ?? s.gid);
        }
        if (c.mode !== undefined) await fs.chmod(path, c.mode);
        if (c.atime !== undefined || c.mtime !== undefined) {
          const s = await fs.stat(path);
          const time = (t: number | 'now' | undefined, old: number): number =>
            t === undefined ? old / 1000 : t === 'now' ? Date.now() / 1000 : t;
          await fs.utimes(path, time(c.atime, s.atimeMs), time(c.mtime, s.mtimeMs));
        }
      });
    });
  }

  open(flags: number): Promise<OpenNode> {
    return call(async () => {
      const kind = await this.#kind();
      // Devices and pipes are the host's; what is behind a link is not this file.
      if (kind !== 0o100000 && kind !== 0o040000) throw new FolderError(kind === 0o120000 ? Errno.ELOOP : Errno.EACCES);
      return new OpenFile(
        await this.#self((path) => open(path, (flags & ALLOWED) | O_NONBLOCK)),
        this.#handles.options.writeThrough,
      );
    });
  }
  create(name: string, flags: number, mode: number, owner?: Owner): Promise<{ node: FolderNode; file: OpenNode }> {
    return call(async () => {
      const how = (flags & ALLOWED) | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
      const make = (more: number): Promise<FileHandle> => this.at(name, (path) => open(path, how | more, mode));
      let made = true;
      const handle = await make(O_EXCL).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST' || flags & O_EXCL) throw error;
        made = false;
        return make(0);
      });
      try {
        if (!(await handle.stat()).isFile()) throw new FolderError(Errno.EACCES);
        if (made) await this.#own(owner, handle, mode);
      } catch (error) {
        await handle.close();
        if (made) await this.at(name, (path) => fs.unlink(path)).catch(() => {});
        throw error;
      }
      return { node: new Node(this.#handles, this, name), file: new OpenFile(handle, this.#handles.options.writeThrough) };
    });
  }
  /** Gives what was just made to whom it belongs in the guest, with the guest's mode whatever our umask. */
  async #own(
    owner: Owner | undefined,
    made: { chown(uid: number, gid: number): Promise<void>; chmod(mode: number): Promise<void> },
    mode: number | undefined,
  ): Promise<void> {
    const { owners } = this.#handles.options;
    if (owner === undefined || owners === undefined || owners === 'ignore') return;
    await made.chown(owner.uid, owner.gid).catch((error) => {
      if (owners === 'must') throw error;
    });
    // After the change of owner, which takes set-ID bits away.
    if (mode !== undefined) await made.chmod(mode);
  }
  async makeSpecial(): Promise<FolderNode> {
    throw new FolderError(Errno.EPERM);
  }
  attribute(name: string): Promise<Uint8Array | undefined> {
    return call(() =>
      this.#self(async (path) => {
        const got = this.#handles.libc?.getxattr(path, name, 256) ?? -Errno.EOPNOTSUPP;
        if (got === -Errno.ENODATA) return undefined;
        if (typeof got === 'number') throw new FolderError(-got);
        return got;
      }),
    );
  }
  setAttribute(name: string, value: Uint8Array): Promise<void> {
    return call(() =>
      this.#self(async (path) => {
        const errno = this.#handles.libc?.setxattr(path, name, value) ?? Errno.EOPNOTSUPP;
        if (errno !== 0) throw new FolderError(errno);
      }),
    );
  }
  entries(): Promise<readonly FolderEntry[]> {
    return call(async () => {
      const names = await this.#self((path) => fs.readdir(path));
      const own = await this.stat();
      const above = this.#parent ? await this.#parent.stat() : own;
      const list: FolderEntry[] = [
        { name: '.', ino: own.ino, type: 4 },
        { name: '..', ino: above.ino, type: 4 },
      ];
      for (const name of names) {
        const s = await this.at(name, (path) => fs.lstat(path, { bigint: true })).catch(() => undefined);
        if (s) list.push({ name, ino: s.ino, type: TYPES[Number(s.mode) & S_IFMT] ?? 0 });
      }
      return list;
    });
  }
  readLink(): Promise<string> {
    return call(() =>
      this.#parent ? this.#parent.at(this.#name, (path) => fs.readlink(path)) : Promise.reject(new FolderError(Errno.EINVAL)),
    );
  }
  makeFolder(name: string, mode: number, owner?: Owner): Promise<FolderNode> {
    return call(async () => {
      await this.at(name, (path) => fs.mkdir(path, { mode }));
      const made = (await this.child(name)) as Node;
      await made.#self(async (path) => {
        const own = { chown: (u: number, g: number) => fs.chown(path, u, g), chmod: (m: number) => fs.chmod(path, m) };
        // Should a link have taken its place, its target is not ours.
        if ((await made.#kind()) === 0o040000) await this.#own(owner, own, mode);
      });
      return made;
    });
  }
  makeLink(name: string, target: string, owner?: Owner): Promise<FolderNode> {
    return call(async () => {
      await this.at(name, async (path) => {
        await fs.symlink(target, path);
        await this.#own(owner, { chown: (u, g) => fs.lchown(path, u, g), chmod: async () => {} }, undefined);
      });
      return this.child(name);
    });
  }
  hardLink(name: string, target: FolderNode): Promise<void> {
    return call(async () => {
      const from = target as Node;
      if (!from.#parent) throw new FolderError(Errno.EPERM);
      await from.#parent.at(from.#name, (source) => this.at(name, (path) => fs.link(source, path)));
    });
  }
  rename(name: string, to: FolderNode, toName: string): Promise<void> {
    return call(async () => {
      const target = to as Node;
      await this.at(name, (from) => target.at(toName, (path) => fs.rename(from, path)));
      // Who has the file under its old name finds it under the new one.
      for (const node of this.#handles.nodes) {
        if (node.#parent === this && node.#name === name) {
          node.#parent = target;
          node.#name = toName;
        }
      }
    });
  }
  unlink(name: string, folder: boolean): Promise<void> {
    return call(() => this.at(name, (path) => (folder ? fs.rmdir(path) : fs.unlink(path))));
  }
  statistics(): Promise<FolderStatistics> {
    return call(() =>
      this.#self(async (path) => {
        const s = await fs.statfs(path, { bigint: true });
        return {
          type: 0x01021997, bsize: Number(s.bsize), blocks: s.blocks, bfree: s.bfree, bavail: s.bavail, files: s.files, ffree: s.ffree,
        }; // biome-ignore format: one object
      }),
    );
  }
}

class OpenFile implements OpenNode {
  readonly #handle: FileHandle;
  readonly #writeThrough: boolean;
  constructor(handle: FileHandle, writeThrough = false) {
    this.#handle = handle;
    this.#writeThrough = writeThrough;
  }
  read(offset: number, into: Uint8Array): Promise<number> {
    return call(async () => (await this.#handle.read(into, 0, into.length, offset)).bytesRead);
  }
  write(offset: number, from: Uint8Array): Promise<number> {
    return call(async () => {
      const { bytesWritten } = await this.#handle.write(from, 0, from.length, offset);
      if (this.#writeThrough) await this.#handle.datasync();
      return bytesWritten;
    });
  }
  sync(dataOnly: boolean): Promise<void> {
    return call(() => (dataOnly ? this.#handle.datasync() : this.#handle.sync()));
  }
  close(): Promise<void> {
    return call(() => this.#handle.close());
  }
}
