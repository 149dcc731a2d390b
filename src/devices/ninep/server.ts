// A 9P2000.L server over one folder: fids, and one function for each message. The Linux kernel's client is its user
// (`fs/9p`, `include/net/9p/9p.h`). What the guest sends is checked here; what it may reach is the folder's to hold.
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
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from './folder.ts';
import { HEADER, MessageReader, MessageWriter, type Qid, ShortMessage, Type } from './message.ts';

/** Largest message, and most fids of a client. */
const MSIZE_MAX = 1 << 20;
const MSIZE_MIN = 4096;
const FIDS = 65536;
const NAMES = 16;

const AT_REMOVEDIR = 0x200;
/** All fields that `getattr` can fill in but generation and data version. */
const BASIC = 0x7ffn;
const NS = 1_000_000_000n;

interface Fid {
  node: FolderNode;
  /** Who has attached. */
  uid: number;
  file: OpenNode | undefined;
  isFolder: boolean;
  entries: readonly FolderEntry[] | undefined;
}

/** `read` is what a Tread reads directly into the answer's place. */
type Handler = (r: MessageReader, w: MessageWriter) => Promise<void>;

const fail = (errno: number): never => {
  throw new FolderError(errno);
};
const qidOf = (s: NodeStat): Qid => ({
  type: (s.mode & S_IFMT) === S_IFDIR ? 0x80 : (s.mode & S_IFMT) === S_IFLNK ? 2 : 0,
  version: Number(s.mtime & 0xffff_ffffn) ^ Number(s.size & 0xffff_ffffn),
  path: s.ino ^ (s.dev << 48n),
});
const version32 = (q: Qid): Qid => ({ ...q, version: q.version >>> 0, path: BigInt.asUintN(64, q.path) });

/** Linux's number of a device, as stat(2) has it. */
const deviceNumber = (major: number, minor: number): bigint =>
  BigInt((minor & 0xff) | ((major & 0xfff) << 8)) | (BigInt(minor >>> 8) << 20n) | (BigInt(major >>> 12) << 44n);

/** A plain name of an entry. */
function plain(name: string): string {
  if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0')) fail(Errno.EINVAL);
  if (name.length > 255) fail(Errno.ENAMETOOLONG);
  return name;
}

export class NinepServer {
  readonly #folder: Folder;
  readonly #fids = new Map<number, Fid>();
  #root: FolderNode | undefined;
  #msize = MSIZE_MIN;
  readonly #handlers: Readonly<Record<number, Handler>>;

  constructor(folder: Folder) {
    this.#folder = folder;
    this.#handlers = this.#table();
  }

  /** Answers one message; the answer is at most as long as was agreed. Never rejects. */
  async answer(message: Uint8Array): Promise<Uint8Array> {
    const view = new DataView(message.buffer, message.byteOffset, message.length);
    const [type, tag] = message.length >= HEADER ? [message[4]!, view.getUint16(5, true)] : [0, 0xffff];
    const w = new MessageWriter()
      .u32(0)
      .u8(type + 1)
      .u16(tag);
    try {
      const handler = this.#handlers[type] ?? fail(Errno.EOPNOTSUPP);
      await handler(new MessageReader(message), w);
      return finish(w);
    } catch (error) {
      const errno = error instanceof FolderError ? error.errno : error instanceof ShortMessage ? Errno.EPROTO : Errno.EIO;
      return finish(new MessageWriter().u32(0).u8(Type.error).u16(tag).u32(errno));
    }
  }
  /** Forgets the client. */
  async reset(): Promise<void> {
    const files = [...this.#fids.values()].map((fid) => fid.file);
    this.#fids.clear();
    await Promise.all(files.map((file) => file?.close().catch(() => {})));
  }
  /** Fids that are open, for tests of the limit. */
  get size(): number {
    return this.#fids.size;
  }

  #fid(n: number): Fid {
    return this.#fids.get(n) ?? fail(Errno.EBADF);
  }
  #add(n: number, node: FolderNode, isFolder: boolean, uid: number): void {
    if (this.#fids.has(n)) fail(Errno.EBADF);
    if (this.#fids.size >= FIDS) fail(Errno.EMFILE);
    this.#fids.set(n, { node, uid, file: undefined, isFolder, entries: undefined });
  }
  /** Gives a fid the file that was opened for it, unless it has gone or been opened by another request meanwhile. */
  async #take(n: number, fid: Fid, file: OpenNode): Promise<void> {
    if (this.#fids.get(n) === fid && !fid.file) {
      fid.file = file;
      return;
    }
    await file.close();
    fail(Errno.EBADF);
  }
  #open(n: number): OpenNode {
    return this.#fid(n).file ?? fail(Errno.EBADF);
  }
  #writable(): void {
    if (this.#folder.readOnly) fail(Errno.EROFS);
  }

  #table(): Readonly<Record<number, Handler>> {
    return {
      [Type.version]: async (r, w) => {
        const msize = Math.min(r.u32(), MSIZE_MAX);
        const wanted = r.text();
        await this.reset();
        if (msize < MSIZE_MIN) fail(Errno.EINVAL);
        this.#msize = msize;
        w.u32(msize).text(wanted === '9P2000.L' ? wanted : 'unknown');
      },
      [Type.auth]: async () => fail(Errno.EOPNOTSUPP),
      [Type.attach]: async (r, w) => {
        const fid = r.u32();
        r.u32();
        r.text();
        r.text();
        const uid = r.u32();
        this.#root ??= await this.#folder.root();
        this.#add(fid, this.#root, true, uid);
        w.qid(version32(qidOf(await this.#root.stat())));
      },
      [Type.flush]: async () => {},
      [Type.walk]: async (r, w) => {
        const from = this.#fid(r.u32());
        const to = r.u32();
        const count = r.u16();
        if (count > NAMES) fail(Errno.EINVAL);
        const names = Array.from({ length: count }, () => r.text());
        let node = from.node;
        const qids: Qid[] = [];
        let isFolder = from.isFolder;
        for (const [n, name] of names.entries()) {
          try {
            node = name === '..' ? node.parent : await node.child(plain(name));
            const s = await node.stat();
            isFolder = (s.mode & S_IFMT) === S_IFDIR;
            qids.push(version32(qidOf(s)));
          } catch (error) {
            // Only the first name's failure is an error; later ones end the walk.
            if (n === 0) throw error;
            break;
          }
        }
        if (qids.length === names.length) {
          const same = this.#fids.get(to);
          if (same === from && same.file === undefined) Object.assign(same, { node, isFolder, entries: undefined });
          else this.#add(to, node, isFolder, from.uid);
        }
        w.u16(qids.length);
        for (const q of qids) w.qid(q);
      },
      [Type.clunk]: async (r) => {
        const n = r.u32();
        const { file } = this.#fid(n);
        this.#fids.delete(n);
        await file?.close();
      },
      [Type.remove]: async (r) => {
        const n = r.u32();
        const { node, file, isFolder } = this.#fid(n);
        this.#fids.delete(n);
        await file?.close();
        this.#writable();
        if (node === node.parent) fail(Errno.EPERM);
        await node.parent.unlink(node.name, isFolder);
      },
      [Type.getattr]: async (r, w) => {
        const s = await this.#fid(r.u32()).node.stat();
        w.u64(BASIC)
          .qid(version32(qidOf(s)))
          .u32(s.mode)
          .u32(s.uid)
          .u32(s.gid)
          .u64(s.nlink)
          .u64(s.rdev)
          .u64(s.size);
        w.u64(s.blksize).u64(s.blocks);
        for (const t of [s.atime, s.mtime, s.ctime, 0n]) w.u64(t / NS).u64(t % NS);
        w.u64(0n).u64(0n);
      },
      [Type.setattr]: async (r) => {
        const { node } = this.#fid(r.u32());
        const valid = r.u32();
        const [mode, uid, gid, size] = [r.u32(), r.u32(), r.u32(), r.number()];
        const [as, an, ms, mn] = [r.number(), r.number(), r.number(), r.number()];
        this.#writable();
        const has = (bit: number): boolean => (valid & (1 << bit)) !== 0;
        const time = (changed: number, given: number, s: number, ns: number) =>
          has(changed) ? (has(given) ? s + ns / 1e9 : ('now' as const)) : undefined;
        await node.change({
          mode: has(0) ? mode & 0o7777 : undefined,
          uid: has(1) ? uid : undefined,
          gid: has(2) ? gid : undefined,
          size: has(3) ? size : undefined,
          atime: time(4, 7, as, an),
          mtime: time(5, 8, ms, mn),
        });
      },
      [Type.lopen]: async (r, w) => {
        const n = r.u32();
        const fid = this.#fid(n);
        const flags = r.u32();
        if (fid.file) fail(Errno.EBADF);
        if (flags & (O_WRITE | O_TRUNC)) this.#writable();
        const s = await fid.node.stat();
        await this.#take(n, fid, await fid.node.open(flags & ~O_CREAT));
        w.qid(version32(qidOf(s))).u32(0);
      },
      [Type.lcreate]: async (r, w) => {
        const n = r.u32();
        const fid = this.#fid(n);
        const [name, flags, mode, gid] = [plain(r.text()), r.u32(), r.u32(), r.u32()];
        if (fid.file) fail(Errno.EBADF);
        this.#writable();
        const made = await fid.node.create(name, flags, mode & 0o7777, { uid: fid.uid, gid });
        await this.#take(n, fid, made.file);
        Object.assign(fid, { node: made.node, isFolder: false, entries: undefined });
        w.qid(version32(qidOf(await made.node.stat()))).u32(0);
      },
      [Type.read]: async (r, w) => {
        const [file, offset, count] = [this.#open(r.u32()), r.number(), r.u32()];
        const into = new Uint8Array(Math.min(count, this.#msize - HEADER - 4));
        const n = await file.read(offset, into);
        w.u32(n).bytes(into.subarray(0, n));
      },
      [Type.write]: async (r, w) => {
        const [file, offset, count] = [this.#open(r.u32()), r.number(), r.u32()];
        this.#writable();
        w.u32(await file.write(offset, r.bytes(count)));
      },
      [Type.fsync]: async (r) => {
        const fid = this.#fid(r.u32());
        const dataOnly = r.at + 4 <= HEADER + 8 ? r.u32() !== 0 : false;
        await fid.file?.sync(dataOnly);
      },
      [Type.readdir]: async (r, w) => {
        const fid = this.#fid(r.u32());
        const [offset, count] = [r.number(), Math.min(r.u32(), this.#msize - HEADER - 4)];
        if (!fid.isFolder) fail(Errno.ENOTDIR);
        if (offset === 0) fid.entries = undefined;
        fid.entries ??= await fid.node.entries();
        const list = new MessageWriter();
        for (let n = offset; n < fid.entries.length; n++) {
          const { name, ino, type } = fid.entries[n]!;
          const one = new MessageWriter();
          one.qid({ type: type === 4 ? 0x80 : type === 10 ? 2 : 0, version: 0, path: ino });
          one
            .u64(BigInt(n + 1))
            .u8(type)
            .text(name);
          if (list.length + one.length > count) break;
          list.bytes(one.result());
        }
        w.u32(list.length).bytes(list.result());
      },
      [Type.readlink]: async (r, w) => {
        w.text(await this.#fid(r.u32()).node.readLink());
      },
      [Type.symlink]: async (r, w) => {
        const [{ node, uid }, name, target, gid] = [this.#fid(r.u32()), plain(r.text()), r.text(), r.u32()];
        this.#writable();
        w.qid(version32(qidOf(await (await node.makeLink(name, target, { uid, gid })).stat())));
      },
      [Type.mknod]: async (r, w) => {
        const [{ node, uid }, name, mode] = [this.#fid(r.u32()), plain(r.text()), r.u32()];
        const [major, minor, gid] = [r.u32(), r.u32(), r.u32()];
        this.#writable();
        const owner = { uid, gid };
        if ((mode & S_IFMT) !== S_IFREG && (mode & S_IFMT) !== 0) {
          const made = await node.makeSpecial(name, mode & 0xffff, deviceNumber(major, minor), owner);
          w.qid(version32(qidOf(await made.stat())));
          return;
        }
        const made = await node.create(name, O_CREAT | 0o200 | 1, mode & 0o7777, owner);
        await made.file.close();
        w.qid(version32(qidOf(await made.node.stat())));
      },
      [Type.mkdir]: async (r, w) => {
        const [{ node, uid }, name, mode, gid] = [this.#fid(r.u32()), plain(r.text()), r.u32(), r.u32()];
        this.#writable();
        w.qid(version32(qidOf(await (await node.makeFolder(name, mode & 0o7777, { uid, gid })).stat())));
      },
      [Type.link]: async (r) => {
        const [{ node }, target, name] = [this.#fid(r.u32()), this.#fid(r.u32()), plain(r.text())];
        this.#writable();
        await node.hardLink(name, target.node);
      },
      [Type.rename]: async (r) => {
        const [{ node }, to, name] = [this.#fid(r.u32()), this.#fid(r.u32()), plain(r.text())];
        this.#writable();
        if (node === node.parent) fail(Errno.EPERM);
        await node.parent.rename(node.name, to.node, name);
      },
      [Type.renameat]: async (r) => {
        const [from, name, to, toName] = [this.#fid(r.u32()), plain(r.text()), this.#fid(r.u32()), plain(r.text())];
        this.#writable();
        await from.node.rename(name, to.node, toName);
      },
      [Type.unlinkat]: async (r) => {
        const [{ node }, name, flags] = [this.#fid(r.u32()), plain(r.text()), r.u32()];
        this.#writable();
        await node.unlink(name, (flags & AT_REMOVEDIR) !== 0);
      },
      [Type.statfs]: async (r, w) => {
        const s = await this.#fid(r.u32()).node.statistics();
        w.u32(s.type).u32(s.bsize).u64(s.blocks).u64(s.bfree).u64(s.bavail).u64(s.files).u64(s.ffree).u64(0n).u32(255);
      },
      // Guests keep locks among themselves: there is one guest.
      [Type.lock]: async (r, w) => {
        this.#fid(r.u32());
        w.u8(0);
      },
      [Type.getlock]: async (r, w) => {
        this.#fid(r.u32());
        r.u8();
        const [start, length, process, client] = [r.u64(), r.u64(), r.u32(), r.text()];
        w.u8(2).u64(start).u64(length).u32(process).text(client);
      },
    };
  }
}

function finish(w: MessageWriter): Uint8Array {
  const bytes = w.result();
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, bytes.length, true);
  return bytes;
}
