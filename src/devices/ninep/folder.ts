// What the 9P server needs of the host: one folder, in which nothing is reached but through it. Implemented in `host/`.

/** Linux error numbers, which 9P2000.L carries. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EBADF: 9,
  EACCES: 13,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  EROFS: 30,
  ENAMETOOLONG: 36,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENODATA: 61,
  EPROTO: 71,
  EOPNOTSUPP: 95,
  ESTALE: 116,
} as const;

// Linux's flags of open files (either bit of `O_WRITE` writes), and kinds of files in modes.
export const O_WRITE = 3;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;

/** An operation that failed, with the guest's error number. */
export class FolderError extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(`error ${errno}`);
    this.errno = errno;
  }
}

export interface NodeStat {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly mode: number;
  readonly nlink: bigint;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: bigint;
  readonly size: bigint;
  readonly blksize: bigint;
  readonly blocks: bigint;
  /** Nanoseconds since 1970. */
  readonly atime: bigint;
  readonly mtime: bigint;
  readonly ctime: bigint;
}
export interface FolderStatistics {
  readonly type: number;
  readonly bsize: number;
  readonly blocks: bigint;
  readonly bfree: bigint;
  readonly bavail: bigint;
  readonly files: bigint;
  readonly ffree: bigint;
}
/** Changes of a node; what is undefined stays. Times in seconds, or `now`. */
export interface NodeChange {
  readonly mode?: number | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly size?: number | undefined;
  readonly atime?: number | 'now' | undefined;
  readonly mtime?: number | 'now' | undefined;
}
/** Who makes a file, in the guest's numbers. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}
/** What an open file can do. */
export interface OpenNode {
  /** Bytes read, fewer at the end. */
  read(offset: number, into: Uint8Array): Promise<number>;
  write(offset: number, from: Uint8Array): Promise<number>;
  sync(dataOnly: boolean): Promise<void>;
  close(): Promise<void>;
}
export interface FolderEntry {
  readonly name: string;
  readonly ino: bigint;
  /** The `DT_` number of its kind. */
  readonly type: number;
}

/** A file, folder or link by the place where it was found. All methods reject with FolderError. */
export interface FolderNode {
  readonly parent: FolderNode;
  /** An entry of this folder; links are not followed. `name` is one plain name. */
  child(name: string): Promise<FolderNode>;
  stat(): Promise<NodeStat>;
  change(change: NodeChange): Promise<void>;
  /** `flags` are Linux's `O_` bits. Regular files and folders only. */
  open(flags: number): Promise<OpenNode>;
  /** Makes a regular file, or opens what is there. */
  create(
    name: string,
    flags: number,
    mode: number,
    owner?: Owner,
  ): Promise<{ readonly node: FolderNode; readonly file: OpenNode }>;
  /** Makes a device, pipe or socket; `mode` has its kind. EPERM where the folder has none. */
  makeSpecial(name: string, mode: number, rdev: bigint, owner: Owner): Promise<FolderNode>;
  entries(): Promise<readonly FolderEntry[]>;
  readLink(): Promise<string>;
  makeFolder(name: string, mode: number, owner?: Owner): Promise<FolderNode>;
  makeLink(name: string, target: string, owner?: Owner): Promise<FolderNode>;
  /** An extended attribute of the host's file; undefined where it has none of that name. */
  attribute(name: string): Promise<Uint8Array | undefined>;
  setAttribute(name: string, value: Uint8Array): Promise<void>;
  hardLink(name: string, target: FolderNode): Promise<void>;
  /** Renames entry `name` of this folder. */
  rename(name: string, to: FolderNode, toName: string): Promise<void>;
  unlink(name: string, folder: boolean): Promise<void>;
  /** Its name in `parent`. */
  readonly name: string;
  statistics(): Promise<FolderStatistics>;
}

/** How a folder of the host is shared. */
export interface FolderOptions {
  readonly readOnly: boolean;
  /** What is made belongs to whom it belongs in the guest: not at all, where the host lets, or it fails. `ignore` when not given. */
  readonly owners?: 'ignore' | 'try' | 'must';
  /** Writes return after they are on stable storage. */
  readonly writeThrough?: boolean;
  /** File systems that are mounted below are not shown. */
  readonly oneDevice?: boolean;
}
export interface Folder {
  /** Where it is on the host. */
  readonly path: string;
  readonly readOnly: boolean;
  root(): Promise<FolderNode>;
  close(): Promise<void>;
}
