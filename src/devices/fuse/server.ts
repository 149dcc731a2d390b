// A FUSE server over one folder: nodes, handles, and one function for each operation. Linux `include/uapi/linux/fuse.h` (protocol 7.31),
// as `virtiofs` speaks it. What the guest sends is checked here; what it may reach is the folder's to hold.
import {
  Errno,
  type Folder,
  type FolderEntry,
  FolderError,
  type FolderNode,
  type NodeStat,
  O_CREAT,
  O_TRUNC,
  O_WRITE,
  type OpenNode,
  type Owner,
  S_IFMT,
  S_IFREG,
} from '../ninep/folder.ts';
import { MessageReader, MessageWriter, ShortMessage } from '../ninep/message.ts';

const Op = {
  lookup: 1, forget: 2, getattr: 3, setattr: 4, readlink: 5, symlink: 6, mknod: 8, mkdir: 9, unlink: 10, rmdir: 11, rename: 12, link: 13,
  open: 14, read: 15, write: 16, statfs: 17, release: 18, fsync: 20, flush: 25, init: 26, opendir: 27, readdir: 28, releasedir: 29,
  fsyncdir: 30, create: 35, interrupt: 36, destroy: 38, batchForget: 42, rename2: 45,
} as const; // biome-ignore format: a table

const IN_HEADER = 40;
const OUT_HEADER = 16;
/** The version that is spoken, and what is agreed: reads in parallel, writes and reads of up to a megabyte. */
const VERSION = { major: 7, minor: 31 } as const;
const FLAGS = 1 | (1 << 5) | (1 << 18) | (1 << 22);
const LARGEST = 1 << 20;
const PAGES = 256;
/** Most nodes and open files that a guest may hold. */
const NODES = 1 << 20;
const FILES = 4096;
/** Seconds for which the guest may believe what it was told. */
const VALID = 1n;

const ENOSYS = 38;
const NS = 1_000_000_000n;

interface Known {
  readonly node: FolderNode;
  readonly key: string;
  lookups: bigint;
}
interface Handle {
  readonly file: OpenNode | undefined;
  readonly node: FolderNode;
  entries: readonly FolderEntry[] | undefined;
}
type Handler = (r: MessageReader, w: MessageWriter, node: FolderNode, owner: Owner) => Promise<void>;

const fail = (errno: number): never => {
  throw new FolderError(errno);
};

/** What is left of a message up to a NUL. */
function text(r: MessageReader): string {
  const bytes: number[] = [];
  for (let byte = r.u8(); byte !== 0; byte = r.u8()) bytes.push(byte);
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
function plain(r: MessageReader): string {
  const name = text(r);
  if (name === '' || name === '.' || name === '..' || name.includes('/')) fail(Errno.EINVAL);
  if (name.length > 255) fail(Errno.ENAMETOOLONG);
  return name;
}
function attributes(w: MessageWriter, s: NodeStat): MessageWriter {
  w.u64(s.ino).u64(s.size).u64(s.blocks);
  for (const t of [s.atime, s.mtime, s.ctime]) w.u64(t / NS);
  for (const t of [s.atime, s.mtime, s.ctime]) w.u32(Number(t % NS));
  return w.u32(s.mode).u32(Number(s.nlink)).u32(s.uid).u32(s.gid).u32(Number(s.rdev)).u32(Number(s.blksize)).u32(0);
}

export class FuseServer {
  readonly #folder: Folder;
  readonly #nodes = new Map<bigint, Known>();
  readonly #ids = new Map<string, bigint>();
  readonly #files = new Map<bigint, Handle>();
  #next = 2n;
  #nextFile = 1n;
  readonly #handlers: Readonly<Record<number, Handler>>;

  constructor(folder: Folder) {
    this.#folder = folder;
    this.#handlers = this.#table();
  }

  /** Answers one message; undefined where none is expected. Never rejects. */
  async answer(message: Uint8Array): Promise<Uint8Array | undefined> {
    if (message.length < IN_HEADER) return undefined;
    const view = new DataView(message.buffer, message.byteOffset, message.length);
    const [op, unique, id] = [view.getUint32(4, true), view.getBigUint64(8, true), view.getBigUint64(16, true)];
    const r = new MessageReader(message, IN_HEADER);
    const finish = (w: MessageWriter, error: number): Uint8Array => {
      const bytes = w.result();
      const out = new DataView(bytes.buffer, bytes.byteOffset);
      out.setUint32(0, bytes.length, true);
      out.setInt32(4, -error, true);
      out.setBigUint64(8, unique, true);
      return bytes;
    };
    const empty = (): MessageWriter => new MessageWriter().u64(0n).u64(0n);
    try {
      if (op === Op.forget) this.#forget(id, r.u64());
      else if (op === Op.batchForget) {
        const count = r.u32();
        r.u32();
        for (let n = 0; n < count; n++) this.#forget(r.u64(), r.u64());
      } else if (op !== Op.interrupt) {
        const handler = this.#handlers[op] ?? fail(ENOSYS);
        const w = empty();
        const free = op === Op.init || op === Op.destroy;
        const owner = { uid: view.getUint32(24, true), gid: view.getUint32(28, true) };
        await handler(r, w, free ? (undefined as unknown as FolderNode) : await this.#node(id), owner);
        return finish(w, 0);
      }
      return undefined;
    } catch (error) {
      if (op === Op.forget || op === Op.batchForget) return undefined;
      return finish(
        empty(),
        error instanceof FolderError ? error.errno : error instanceof ShortMessage ? Errno.EINVAL : Errno.EIO,
      );
    }
  }
  #mounted = false;
  /** A client is there. */
  get mounted(): boolean {
    return this.#mounted;
  }
  /** Forgets the client. */
  async reset(): Promise<void> {
    this.#mounted = false;
    const files = [...this.#files.values()];
    this.#nodes.clear();
    this.#ids.clear();
    this.#files.clear();
    await Promise.all(files.map(({ file }) => file?.close().catch(() => {})));
  }

  // -- nodes and files

  async #node(id: bigint): Promise<FolderNode> {
    return this.#nodes.get(id)?.node ?? (id === 1n ? this.#folder.root() : fail(Errno.ESTALE));
  }
  /** Counts one more look-up of a node, and writes what the guest is told of it. */
  async #entry(w: MessageWriter, node: FolderNode): Promise<void> {
    const s = await node.stat();
    const key = `${s.dev}:${s.ino}`;
    let id = this.#ids.get(key);
    if (id === undefined) {
      if (this.#nodes.size >= NODES) fail(Errno.EMFILE);
      id = this.#next++;
      this.#ids.set(key, id);
      this.#nodes.set(id, { node, key, lookups: 0n });
    }
    this.#nodes.get(id)!.lookups++;
    w.u64(id).u64(0n).u64(VALID).u64(VALID).u32(0).u32(0);
    attributes(w, s);
  }
  #forget(id: bigint, lookups: bigint): void {
    const known = this.#nodes.get(id);
    if (!known) return;
    known.lookups -= lookups;
    if (known.lookups > 0n) return;
    this.#nodes.delete(id);
    this.#ids.delete(known.key);
  }
  #keep(handle: Handle): bigint {
    const id = this.#nextFile++;
    this.#files.set(id, handle);
    return id;
  }
  #room(): void {
    if (this.#files.size >= FILES) fail(Errno.EMFILE);
  }
  #file(id: bigint): OpenNode {
    return this.#files.get(id)?.file ?? fail(Errno.EBADF);
  }
  #writable(): void {
    if (this.#folder.readOnly) fail(Errno.EROFS);
  }
  async #release(id: bigint): Promise<void> {
    const handle = this.#files.get(id);
    this.#files.delete(id);
    await handle?.file?.close();
  }

  #table(): Readonly<Record<number, Handler>> {
    const remove =
      (folder: boolean): Handler =>
      async (r, _, node) => {
        this.#writable();
        await node.unlink(plain(r), folder);
      };
    const rename =
      (flags: boolean): Handler =>
      async (r, _, node) => {
        const to = await this.#node(r.u64());
        // Exchange and no-replace are not offered: the guest's kernel does without.
        if (flags && (r.u32() !== 0 || r.u32() > 0)) fail(Errno.EINVAL);
        const [from, name] = [plain(r), plain(r)];
        this.#writable();
        await node.rename(from, to, name);
      };
    const sync: Handler = async (r) => {
      const [file, flags] = [this.#files.get(r.u64())?.file, r.u32()];
      await file?.sync((flags & 1) !== 0);
    };
    const release: Handler = (r) => this.#release(r.u64());
    return {
      [Op.init]: async (r, w) => {
        const [major, minor, readahead, flags] = [r.u32(), r.u32(), r.u32(), r.u32()];
        if (major < VERSION.major) fail(Errno.EPROTO);
        await this.reset();
        this.#mounted = true;
        w.u32(VERSION.major)
          .u32(Math.min(minor, VERSION.minor))
          .u32(readahead)
          .u32(flags & FLAGS)
          .u16(64)
          .u16(48);
        w.u32(LARGEST).u32(1).u16(PAGES).u16(0).bytes(new Uint8Array(32));
      },
      [Op.destroy]: () => this.reset(),
      [Op.lookup]: async (r, w, node) => this.#entry(w, await node.child(plain(r))),
      [Op.getattr]: async (_, w, node) => {
        const s = await node.stat();
        attributes(w.u64(VALID).u64(0n), s);
      },
      [Op.setattr]: async (r, w, node) => {
        this.#writable();
        const valid = r.u32();
        r.u32();
        r.u64();
        const size = r.number();
        r.u64();
        const [atime, mtime] = [r.number(), r.number()];
        r.u64();
        const [an, mn] = [r.u32(), r.u32()];
        r.u32();
        const mode = r.u32();
        r.u32();
        const [uid, gid] = [r.u32(), r.u32()];
        const time = (set: number, now: number, s: number, ns: number) =>
          valid & now ? ('now' as const) : valid & set ? s + ns / 1e9 : undefined;
        await node.change({
          mode: valid & 1 ? mode & 0o7777 : undefined,
          uid: valid & 2 ? uid : undefined,
          gid: valid & 4 ? gid : undefined,
          size: valid & 8 ? size : undefined,
          atime: time(16, 128, atime, an),
          mtime: time(32, 256, mtime, mn),
        });
        const s = await node.stat();
        attributes(w.u64(VALID).u64(0n), s);
      },
      [Op.readlink]: async (_, w, node) => {
        w.bytes(new TextEncoder().encode(await node.readLink()));
      },
      [Op.symlink]: async (r, w, node, owner) => {
        const [name, target] = [plain(r), text(r)];
        this.#writable();
        await this.#entry(w, await node.makeLink(name, target, owner));
      },
      [Op.mknod]: async (r, w, node, owner) => {
        const [mode, rdev] = [r.u32(), r.u32()];
        r.bytes(8);
        const name = plain(r);
        this.#writable();
        if ((mode & S_IFMT) !== S_IFREG) return this.#entry(w, await node.makeSpecial(name, mode & 0xffff, BigInt(rdev), owner));
        const made = await node.create(name, O_CREAT | 0o200 | 1, mode & 0o7777, owner);
        await made.file.close();
        await this.#entry(w, made.node);
      },
      [Op.mkdir]: async (r, w, node, owner) => {
        const mode = r.u32();
        r.u32();
        const name = plain(r);
        this.#writable();
        await this.#entry(w, await node.makeFolder(name, mode & 0o7777, owner));
      },
      [Op.unlink]: remove(false),
      [Op.rmdir]: remove(true),
      [Op.rename]: rename(false),
      [Op.rename2]: rename(true),
      [Op.link]: async (r, w, node) => {
        const target = await this.#node(r.u64());
        const name = plain(r);
        this.#writable();
        await node.hardLink(name, target);
        await this.#entry(w, target);
      },
      [Op.open]: async (r, w, node) => {
        const flags = r.u32();
        if (flags & (O_WRITE | O_TRUNC)) this.#writable();
        this.#room();
        w.u64(this.#keep({ file: await node.open(flags & ~O_CREAT), node, entries: undefined })).u64(0n);
      },
      [Op.create]: async (r, w, node, owner) => {
        const [flags, mode] = [r.u32(), r.u32()];
        r.u64();
        const name = plain(r);
        this.#writable();
        this.#room();
        const made = await node.create(name, flags, mode & 0o7777, owner);
        await this.#entry(w, made.node).catch(async (error) => {
          await made.file.close();
          throw error;
        });
        w.u64(this.#keep({ file: made.file, node: made.node, entries: undefined })).u64(0n);
      },
      [Op.read]: async (r, w) => {
        const [file, offset, size] = [this.#file(r.u64()), r.number(), Math.min(r.u32(), LARGEST)];
        const into = new Uint8Array(size);
        w.bytes(into.subarray(0, await file.read(offset, into)));
      },
      [Op.write]: async (r, w) => {
        const [file, offset, size] = [this.#file(r.u64()), r.number(), r.u32()];
        this.#writable();
        r.bytes(20);
        w.u32(await file.write(offset, r.bytes(size))).u32(0);
      },
      [Op.flush]: async () => {},
      [Op.fsync]: sync,
      [Op.fsyncdir]: async () => {},
      [Op.release]: release,
      [Op.releasedir]: release,
      [Op.opendir]: async (_, w, node) => {
        this.#room();
        w.u64(this.#keep({ file: undefined, node, entries: undefined })).u64(0n);
      },
      [Op.readdir]: async (r, w) => {
        const [handle, offset, size] = [this.#files.get(r.u64()) ?? fail(Errno.EBADF), r.number(), Math.min(r.u32(), LARGEST)];
        if (offset === 0) handle.entries = undefined;
        handle.entries ??= await handle.node.entries();
        for (let n = offset; n < handle.entries.length; n++) {
          const { name, ino, type } = handle.entries[n]!;
          const bytes = new TextEncoder().encode(name);
          const padded = Math.ceil((24 + bytes.length) / 8) * 8;
          if (w.length - OUT_HEADER + padded > size) break;
          w.u64(ino)
            .u64(BigInt(n + 1))
            .u32(bytes.length)
            .u32(type)
            .bytes(bytes)
            .bytes(new Uint8Array(padded - 24 - bytes.length));
        }
      },
      [Op.statfs]: async (_, w, node) => {
        const s = await node.statistics();
        w.u64(s.blocks).u64(s.bfree).u64(s.bavail).u64(s.files).u64(s.ffree).u32(s.bsize).u32(255).u32(s.bsize);
        w.bytes(new Uint8Array(28));
      },
    };
  }
}
