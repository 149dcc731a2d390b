// A folder whose files have the guest's owner, mode and kind in a place of their own: QEMU's security models `mapped-xattr` and
// `mapped-file` ("System Emulation", `-fsdev local`). The host's files belong to whoever runs the emulator; links, devices, pipes and
// sockets of the guest are regular files there. What QEMU has written is read, and the other way round.

import {
  Errno,
  type Folder,
  type FolderEntry,
  FolderError,
  type FolderNode,
  type FolderStatistics,
  type NodeChange,
  type NodeStat,
  O_EXCL,
  O_TRUNC,
  type OpenNode,
  type Owner,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from './folder.ts';

/** What is kept of a file; what is undefined is the host file's. */
interface Attributes {
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly mode?: number | undefined;
  readonly rdev?: bigint | undefined;
}
const KEYS = ['uid', 'gid', 'mode', 'rdev'] as const;

/** Where attributes are kept, and what has to happen to them with the files. */
interface Store {
  read(node: FolderNode): Promise<Attributes>;
  write(node: FolderNode, change: Attributes): Promise<void>;
  /** Before an entry goes. */
  removing(folder: FolderNode, name: string, isFolder: boolean): Promise<void>;
  renamed(folder: FolderNode, name: string, to: FolderNode, toName: string): Promise<void>;
  linked(folder: FolderNode, name: string, target: FolderNode): Promise<void>;
}

export interface MappedOptions {
  readonly store: 'xattr' | 'file';
  /** Modes of the host's files and folders. */
  readonly fileMode: number;
  readonly folderMode: number;
}

const METADATA = '.virtfs_metadata';
const METADATA_ROOT = '.virtfs_metadata_root';
const O_RDONLY = 0;
const O_WRONLY = 1;
/** Longest target of a link, and most that is read of attributes. */
const PATH_MAX = 4096;

const unless = (errno: number) => (error: unknown) => {
  if (!(error instanceof FolderError && error.errno === errno)) throw error;
  return undefined;
};

async function contents(node: FolderNode): Promise<Uint8Array> {
  const file = await node.open(O_RDONLY);
  try {
    const bytes = new Uint8Array(PATH_MAX);
    return bytes.subarray(0, await file.read(0, bytes));
  } finally {
    await file.close();
  }
}
async function put(folder: FolderNode, name: string, flags: number, mode: number, bytes: Uint8Array): Promise<FolderNode> {
  const { node, file } = await folder.create(name, O_WRONLY | flags, mode);
  try {
    await file.write(0, bytes);
  } finally {
    await file.close();
  }
  return node;
}

/** In extended attributes `user.virtfs.uid`, `.gid`, `.mode` (four bytes) and `.rdev` (eight), little-endian. */
const inXattrs: Store = {
  async read(node) {
    const value = async (key: string): Promise<bigint | undefined> => {
      const bytes = await node.attribute(`user.virtfs.${key}`).catch(unless(Errno.EOPNOTSUPP));
      if (bytes === undefined || (bytes.length !== 4 && bytes.length !== 8)) return undefined;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      return bytes.length === 4 ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true);
    };
    // Links of the host cannot have attributes of users.
    if (((await node.stat()).mode & S_IFMT) === S_IFLNK) return {};
    const small = async (key: string): Promise<number | undefined> => {
      const found = await value(key);
      return found === undefined ? undefined : Number(BigInt.asUintN(32, found));
    };
    return { uid: await small('uid'), gid: await small('gid'), mode: await small('mode'), rdev: await value('rdev') };
  },
  async write(node, change) {
    for (const key of KEYS) {
      const value = change[key];
      if (value === undefined) continue;
      const bytes = new Uint8Array(key === 'rdev' ? 8 : 4);
      const view = new DataView(bytes.buffer);
      if (typeof value === 'bigint') view.setBigUint64(0, value, true);
      else view.setUint32(0, value, true);
      await node.setAttribute(`user.virtfs.${key}`, bytes);
    }
  },
  removing: async () => {},
  renamed: async () => {},
  linked: async () => {},
};

/** In files `.virtfs_metadata/NAME` beside the files, lines of `virtfs.uid=1000`. */
const inFiles: Store = {
  async read(node) {
    const at = await place(node, false);
    const file = await at?.folder.child(at.name).catch(unless(Errno.ENOENT));
    if (file === undefined) return {};
    const found: Record<string, bigint> = {};
    for (const [, key, value] of new TextDecoder().decode(await contents(file)).matchAll(/^virtfs\.(\w+)=(\d{1,19})$/gm))
      found[key!] = BigInt(value!);
    const small = (v: bigint | undefined): number | undefined => (v === undefined ? undefined : Number(BigInt.asUintN(32, v)));
    const { uid, gid, mode, rdev } = found;
    return { uid: small(uid), gid: small(gid), mode: small(mode), rdev };
  },
  async write(node, change) {
    const all = { ...(await this.read(node)), ...Object.fromEntries(Object.entries(change).filter(([, v]) => v !== undefined)) };
    const at = (await place(node, true))!;
    const lines = KEYS.flatMap((key) => {
      const value = (all as Attributes)[key];
      return value === undefined ? [] : [`virtfs.${key}=${value}\n`];
    });
    await put(at.folder, at.name, O_TRUNC, 0o600, new TextEncoder().encode(lines.join('')));
  },
  async removing(folder, name, isFolder) {
    if (isFolder) {
      const inner = await folder.child(name);
      const own = await inner.child(METADATA).catch(unless(Errno.ENOENT));
      if (own) {
        // Those of files that the host has removed.
        const left = (await inner.entries()).map((e) => e.name).filter((n) => n !== '.' && n !== '..' && n !== METADATA);
        if (left.length > 0) throw new FolderError(Errno.ENOTEMPTY);
        for (const e of await own.entries())
          if (e.name !== '.' && e.name !== '..') await own.unlink(e.name, false).catch(unless(Errno.ENOENT));
        await inner.unlink(METADATA, true);
      }
    }
    const metadata = await folder.child(METADATA).catch(unless(Errno.ENOENT));
    await metadata?.unlink(name, false).catch(unless(Errno.ENOENT));
  },
  async renamed(folder, name, to, toName) {
    const from = await folder.child(METADATA).catch(unless(Errno.ENOENT));
    const had = await from?.child(name).catch(unless(Errno.ENOENT));
    if (from && had) await from.rename(name, await metadataOf(to), toName);
    else {
      // What was there before has left its own.
      const target = await to.child(METADATA).catch(unless(Errno.ENOENT));
      await target?.unlink(toName, false).catch(unless(Errno.ENOENT));
    }
  },
  async linked(folder, name, target) {
    const at = await place(target, false);
    const file = await at?.folder.child(at.name).catch(unless(Errno.ENOENT));
    if (file) await (await metadataOf(folder)).hardLink(name, file);
  },
};
async function metadataOf(folder: FolderNode): Promise<FolderNode> {
  return (
    (await folder.child(METADATA).catch(unless(Errno.ENOENT))) ??
    (await folder.makeFolder(METADATA, 0o700).catch(() => folder.child(METADATA)))
  );
}
/** Where the attributes of a file are; undefined where its folder has none and none is to be made. */
async function place(node: FolderNode, make: boolean): Promise<{ folder: FolderNode; name: string } | undefined> {
  const { parent } = node;
  if (parent === node) return { folder: node, name: METADATA_ROOT };
  const folder = make ? await metadataOf(parent) : await parent.child(METADATA).catch(unless(Errno.ENOENT));
  return folder && { folder, name: node.name };
}

/** The folder `inner` as its guest sees it. */
export function mappedFolder(inner: Folder, options: MappedOptions): Folder {
  const store = options.store === 'xattr' ? inXattrs : inFiles;
  const known = new WeakMap<FolderNode, FolderNode>();
  const wrap = (node: FolderNode): FolderNode => {
    let found = known.get(node);
    if (!found) known.set(node, (found = new MappedNode(node, store, options, wrap)));
    return found;
  };
  return { path: inner.path, readOnly: inner.readOnly, root: async () => wrap(await inner.root()), close: () => inner.close() };
}

class MappedNode implements FolderNode {
  readonly #inner: FolderNode;
  readonly #store: Store;
  readonly #options: MappedOptions;
  readonly #wrap: (node: FolderNode) => FolderNode;

  constructor(inner: FolderNode, store: Store, options: MappedOptions, wrap: (node: FolderNode) => FolderNode) {
    this.#inner = inner;
    this.#store = store;
    this.#options = options;
    this.#wrap = wrap;
  }
  get parent(): FolderNode {
    return this.#wrap(this.#inner.parent);
  }
  get name(): string {
    return this.#inner.name;
  }

  /** The names of the attributes' own files are nobody's. */
  #free(name: string): string {
    if (this.#store === inFiles && (name === METADATA || name === METADATA_ROOT)) throw new FolderError(Errno.EINVAL);
    return name;
  }
  async child(name: string): Promise<FolderNode> {
    return this.#wrap(await this.#inner.child(this.#free(name)));
  }
  async stat(): Promise<NodeStat> {
    const s = await this.#inner.stat();
    const { uid, gid, mode, rdev } = await this.#store.read(this.#inner);
    return { ...s, uid: uid ?? s.uid, gid: gid ?? s.gid, mode: mode ?? s.mode, rdev: rdev ?? s.rdev };
  }
  async change(change: NodeChange): Promise<void> {
    const { uid, gid, mode, ...rest } = change;
    if (Object.values(rest).some((v) => v !== undefined)) await this.#inner.change(rest);
    if (uid === undefined && gid === undefined && mode === undefined) return;
    const kind = mode === undefined ? 0 : (await this.stat()).mode & S_IFMT;
    await this.#store.write(this.#inner, { uid, gid, mode: mode === undefined ? undefined : kind | mode });
  }
  async open(flags: number): Promise<OpenNode> {
    const kind = (await this.stat()).mode & S_IFMT;
    if (kind !== S_IFREG && kind !== S_IFDIR) throw new FolderError(kind === S_IFLNK ? Errno.ELOOP : Errno.EACCES);
    return this.#inner.open(flags);
  }
  /** Gives a file that was just made its attributes, or takes it away again. */
  async #made<T>(node: FolderNode, a: Attributes, result: T): Promise<T> {
    try {
      await this.#store.write(node, a);
      return result;
    } catch (error) {
      await this.#inner.unlink(node.name, ((a.mode ?? 0) & S_IFMT) === S_IFDIR).catch(() => {});
      throw error;
    }
  }
  async create(name: string, flags: number, mode: number, owner?: Owner): Promise<{ node: FolderNode; file: OpenNode }> {
    const there = await this.#inner.child(this.#free(name)).catch(unless(Errno.ENOENT));
    if (there) {
      if (flags & O_EXCL) throw new FolderError(Errno.EEXIST);
      const node = this.#wrap(there);
      return { node, file: await node.open(flags) };
    }
    const { node, file } = await this.#inner.create(name, flags | O_EXCL, this.#options.fileMode);
    try {
      return await this.#made(node, { ...owner, mode: S_IFREG | mode }, { node: this.#wrap(node), file });
    } catch (error) {
      await file.close();
      throw error;
    }
  }
  async #special(name: string, a: Attributes, bytes: Uint8Array): Promise<FolderNode> {
    const node = await put(this.#inner, this.#free(name), O_EXCL, this.#options.fileMode, bytes);
    return this.#made(node, a, this.#wrap(node));
  }
  makeSpecial(name: string, mode: number, rdev: bigint, owner: Owner): Promise<FolderNode> {
    return this.#special(name, { ...owner, mode, rdev }, new Uint8Array(0));
  }
  async makeLink(name: string, target: string, owner?: Owner): Promise<FolderNode> {
    const bytes = new TextEncoder().encode(target);
    if (bytes.length >= PATH_MAX) throw new FolderError(Errno.ENAMETOOLONG);
    return this.#special(name, { ...owner, mode: S_IFLNK | 0o777 }, bytes);
  }
  async makeFolder(name: string, mode: number, owner?: Owner): Promise<FolderNode> {
    const node = await this.#inner.makeFolder(this.#free(name), this.#options.folderMode);
    return this.#made(node, { ...owner, mode: S_IFDIR | mode }, this.#wrap(node));
  }
  async entries(): Promise<readonly FolderEntry[]> {
    // What a regular file is to the guest its attributes say; the guest asks.
    return (await this.#inner.entries())
      .filter(({ name }) => this.#store !== inFiles || (name !== METADATA && name !== METADATA_ROOT))
      .map((e) => (e.type === 8 ? { ...e, type: 0 } : e));
  }
  async readLink(): Promise<string> {
    if (((await this.#inner.stat()).mode & S_IFMT) === S_IFLNK) throw new FolderError(Errno.ELOOP);
    if (((await this.stat()).mode & S_IFMT) !== S_IFLNK) throw new FolderError(Errno.EINVAL);
    return new TextDecoder().decode(await contents(this.#inner));
  }
  async hardLink(name: string, target: FolderNode): Promise<void> {
    const from = (target as MappedNode).#inner;
    await this.#inner.hardLink(this.#free(name), from);
    await this.#store.linked(this.#inner, name, from);
  }
  async rename(name: string, to: FolderNode, toName: string): Promise<void> {
    const target = to as MappedNode;
    const [from, into] = [this.#free(name), target.#free(toName)];
    const replaced = await target.#inner.child(into).catch(unless(Errno.ENOENT));
    // A folder that only holds attributes is empty to the guest.
    if (replaced && ((await replaced.stat()).mode & S_IFMT) === S_IFDIR) await this.#store.removing(target.#inner, into, true);
    await this.#inner.rename(from, target.#inner, into);
    await this.#store.renamed(this.#inner, from, target.#inner, into);
  }
  async unlink(name: string, folder: boolean): Promise<void> {
    const node = await this.#inner.child(this.#free(name));
    if (((await node.stat()).mode & S_IFMT) === S_IFDIR ? !folder : folder)
      throw new FolderError(folder ? Errno.ENOTDIR : Errno.EISDIR);
    await this.#store.removing(this.#inner, name, folder);
    await this.#inner.unlink(name, folder);
  }
  attribute(name: string): Promise<Uint8Array | undefined> {
    return this.#inner.attribute(name);
  }
  setAttribute(name: string, value: Uint8Array): Promise<void> {
    return this.#inner.setAttribute(name, value);
  }
  statistics(): Promise<FolderStatistics> {
    return this.#inner.statistics();
  }
}
