// A file that an NBD server has. NBD "The NBD protocol" (doc/proto.md), sections "Newstyle negotiation" and "Transmission".

import { type ByteFile, DiskError } from '../block.ts';
import * as p from './protocol.ts';

const text = new TextEncoder();
/** Bytes of one request; servers take at least 32 MiB. */
const PIECE = 4 << 20;
const DATA_LIMIT = p.MAX_REQUEST + 8;

interface Pending {
  readonly into: Uint8Array | undefined;
  readonly offset: number;
  readonly resolve: (extent: { readonly length: number; readonly flags: number } | undefined) => void;
  readonly reject: (error: Error) => void;
  extent: { readonly length: number; readonly flags: number } | undefined;
  failed: number;
  /** Bytes of `into` that have come. */
  got: number;
}

export class NbdFile implements ByteFile {
  readonly name: string;
  readOnly = false;
  #stream: p.NbdStream;
  #taker: p.Taker;
  readonly #pending = new Map<number, Pending>();
  #size = 0;
  #flags = 0;
  #structured = false;
  #allocation = false;
  #cookie = 1;
  #broken: string | undefined;

  private constructor(name: string, stream: p.NbdStream) {
    this.name = name;
    this.#stream = stream;
    this.#taker = new p.Taker(stream);
  }

  /** Opens an export. @throws DiskError (rejects) with one line */
  static async open(
    sockets: p.NbdSockets,
    address: p.NbdAddress,
    exported: string,
    o: { readonly readOnly: boolean; readonly tls?: p.NbdTls | undefined },
  ): Promise<NbdFile> {
    const name = p.nbdUri(address, exported);
    const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error));
    const stream = await sockets.connect(address).catch((error: unknown) => {
      throw new DiskError(`Cannot open ${name}: ${reason(error)}`);
    });
    const file = new NbdFile(name, stream);
    try {
      await file.#greet();
      if (o.tls) await file.#secure(sockets, o.tls);
      await file.#negotiate(exported);
      if (!o.readOnly && file.#flags & p.flag.readOnly) throw new DiskError('the export is read-only');
    } catch (error) {
      file.#stream.close();
      throw new DiskError(`Cannot open ${name}: ${reason(error)}`);
    }
    file.readOnly = o.readOnly;
    void file.#receive();
    return file;
  }

  async #greet(): Promise<void> {
    const hello = p.viewOf(await this.#taker.take(18));
    if (hello.getBigUint64(0) !== p.magic.hello) throw new DiskError('no NBD server answers there');
    if (hello.getBigUint64(8) !== p.magic.option || !(hello.getUint16(16) & 1))
      throw new DiskError('the server speaks an old protocol, accepted is fixed newstyle');
    await this.#stream.write(p.pack([4, hello.getUint16(16) & 3]));
  }
  async #secure(sockets: p.NbdSockets, tls: p.NbdTls): Promise<void> {
    if (!sockets.secure) throw new DiskError('this host has no TLS');
    const answer = await this.#option(p.option.startTls, new Uint8Array(0));
    if (answer !== p.reply.ack) throw new DiskError('the server has no TLS');
    await this.#taker.leave();
    this.#stream = await sockets.secure(this.#stream, 'client', tls);
    this.#taker = new p.Taker(this.#stream);
  }
  async #negotiate(exported: string): Promise<void> {
    const label = text.encode(exported);
    const context = text.encode(p.ALLOCATION);
    this.#structured = (await this.#option(p.option.structured, new Uint8Array(0))) === p.reply.ack;
    if (this.#structured)
      await this.#option(p.option.setMeta, p.pack([4, label.length], label, [4, 1], [4, context.length], context), (type) => {
        if (type === p.reply.meta) this.#allocation = true;
      });
    let known = false;
    const end = await this.#option(p.option.go, p.pack([4, label.length], label, [2, 0]), (type, data) => {
      const view = p.viewOf(data);
      if (type !== p.reply.info || data.length < 12 || view.getUint16(0) !== 0) return;
      const size = view.getBigUint64(2);
      if (size > BigInt(Number.MAX_SAFE_INTEGER))
        throw new DiskError(`the export has ${size} bytes, accepted are fewer than 2^53`);
      this.#size = Number(size);
      this.#flags = view.getUint16(10);
      known = true;
    });
    if (end === p.reply.tlsRequired) throw new DiskError('the server takes clients under TLS alone (tls-creds)');
    if (end === p.reply.unknown) throw new DiskError(`the server has no export '${exported}'`);
    if (end !== p.reply.ack || !known) throw new DiskError(`the server refused the export (0x${end.toString(16)})`);
  }
  /** Sends an option; resolves with what ended its answers. */
  async #option(code: number, data: Uint8Array, hear?: (type: number, data: Uint8Array) => void): Promise<number> {
    await this.#stream.write(p.pack([8, p.magic.option], [4, code], [4, data.length], data));
    for (let n = 0; n < 1000; n++) {
      const head = p.viewOf(await this.#taker.take(20));
      const [type, length] = [head.getUint32(12), head.getUint32(16)];
      if (head.getBigUint64(0) !== p.magic.optionReply || head.getUint32(8) !== code || length > 65_536)
        throw new DiskError('the server broke the protocol');
      const body = await this.#taker.take(length);
      if (type === p.reply.ack || type >= 2 ** 31) return type;
      hear?.(type, body);
    }
    throw new DiskError('the server broke the protocol');
  }

  /** The connection is lost; all that is asked fails. */
  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  // -- requests

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const kind = p.viewOf(await this.#taker.take(4)).getUint32(0);
        if (kind === p.magic.simple) await this.#simple();
        else if (kind === p.magic.structured && this.#structured) await this.#chunk();
        else throw new DiskError('the server broke the protocol');
      }
    } catch (error) {
      this.#broken = error instanceof Error ? error.message : String(error);
      this.#stream.close();
      for (const waiting of this.#pending.values()) waiting.reject(new DiskError(`Cannot use ${this.name}: ${this.#broken}`));
      this.#pending.clear();
    }
  }
  #of(cookie: bigint): Pending {
    const found = this.#pending.get(Number(cookie));
    if (!found) throw new DiskError('the server answered what was not asked');
    return found;
  }
  #end(cookie: bigint, request: Pending): void {
    this.#pending.delete(Number(cookie));
    if (request.failed === 0 && request.into && request.got !== request.into.length) {
      request.reject(new DiskError(`Cannot use ${this.name}: the server left out a part of what was asked`));
      throw new DiskError('the server broke the protocol');
    }
    if (request.failed === 0) return request.resolve(request.extent);
    const why =
      request.failed === p.errno.noSpace ? 'no space is left at the server' : `the server reports error ${request.failed}`;
    request.reject(new DiskError(`Cannot use ${this.name}: ${why}`));
  }
  async #simple(): Promise<void> {
    const head = p.viewOf(await this.#taker.take(12));
    const cookie = head.getBigUint64(4);
    const request = this.#of(cookie);
    request.failed = head.getUint32(0);
    if (request.failed === 0 && request.into) {
      request.into.set(await this.#taker.take(request.into.length));
      request.got = request.into.length;
    }
    this.#end(cookie, request);
  }
  async #chunk(): Promise<void> {
    const head = p.viewOf(await this.#taker.take(16));
    const [flags, type, cookie, length] = [head.getUint16(0), head.getUint16(2), head.getBigUint64(4), head.getUint32(12)];
    const request = this.#of(cookie);
    if (length > DATA_LIMIT) throw new DiskError('the server broke the protocol');
    const body = await this.#taker.take(length);
    const view = p.viewOf(body);
    const { into } = request;
    if (type === p.chunk.data || type === p.chunk.hole) {
      if (length < (type === p.chunk.hole ? 12 : 8)) throw new DiskError('the server broke the protocol');
      const at = Number(view.getBigUint64(0)) - request.offset;
      const count = type === p.chunk.hole ? view.getUint32(8) : length - 8;
      if (!into || at < 0 || at + count > into.length) throw new DiskError('the server sent what was not asked');
      request.got += count;
      if (type === p.chunk.hole) into.fill(0, at, at + count);
      else into.set(body.subarray(8), at);
    } else if (type === p.chunk.status) {
      if (length < 12 || view.getUint32(4) === 0) throw new DiskError('the server broke the protocol');
      request.extent = { length: view.getUint32(4), flags: view.getUint32(8) };
    } else if (type >= 0x8000) {
      request.failed = (length >= 4 ? view.getUint32(0) : 0) || p.errno.io;
    } else if (type !== p.chunk.none) throw new DiskError('the server broke the protocol');
    if (flags & 1) this.#end(cookie, request);
  }
  #request(
    type: number,
    offset: number,
    length: number,
    data?: Uint8Array,
    into?: Uint8Array,
    flags = 0,
  ): Promise<{ readonly length: number; readonly flags: number } | undefined> {
    if (this.#broken !== undefined) return Promise.reject(new DiskError(`Cannot use ${this.name}: ${this.#broken}`));
    const cookie = this.#cookie++;
    return new Promise((resolve, reject) => {
      this.#pending.set(cookie, { into, offset, resolve, reject, extent: undefined, failed: 0, got: 0 });
      const head = p.pack([4, p.magic.request], [2, flags], [2, type], [8, cookie], [8, offset], [4, length]);
      // A transport that breaks ends the reader too, which tells all who wait.
      void Promise.resolve(this.#stream.write(data ? p.pack(head, data) : head)).catch(() => {});
    });
  }

  async size(): Promise<number> {
    return this.#size;
  }
  async allocated(): Promise<number> {
    return this.#size;
  }
  async read(offset: number, into: Uint8Array): Promise<void> {
    const end = Math.max(0, Math.min(into.length, this.#size - offset));
    into.fill(0, end);
    for (let at = 0; at < end; at += PIECE) {
      const part = into.subarray(at, Math.min(end, at + PIECE));
      await this.#request(p.command.read, offset + at, part.length, undefined, part);
    }
  }
  async write(offset: number, from: Uint8Array): Promise<void> {
    if (offset + from.length > this.#size)
      throw new DiskError(`Cannot write ${this.name}: its ${this.#size} bytes cannot become more`);
    for (let at = 0; at < from.length; at += PIECE) {
      const part = from.subarray(at, at + PIECE);
      await this.#request(p.command.write, offset + at, part.length, part);
    }
  }
  async flush(): Promise<void> {
    if (this.#flags & p.flag.flush && !this.readOnly) await this.#request(p.command.flush, 0, 0);
  }
  async truncate(size: number): Promise<void> {
    if (size > this.#size) throw new DiskError(`Cannot resize ${this.name}: its ${this.#size} bytes cannot become more`);
  }
  async punch(offset: number, length: number): Promise<boolean> {
    if (!(this.#flags & p.flag.zeroes)) return false;
    const end = Math.min(this.#size, offset + length);
    for (let at = offset; at < end; at += 1 << 30) await this.#request(p.command.zeroes, at, Math.min(1 << 30, end - at));
    return true;
  }
  async nextData(offset: number): Promise<number> {
    while (this.#allocation && offset < this.#size) {
      const length = Math.min(1 << 30, this.#size - offset);
      const extent = await this.#request(p.command.status, offset, length, undefined, undefined, 8);
      if (!extent || !(extent.flags & 2)) return offset;
      offset = Math.min(this.#size, offset + extent.length);
    }
    return offset;
  }
  async nextHole(offset: number, end: number): Promise<number> {
    if (!this.#allocation) return end;
    while (offset < end) {
      const extent = await this.#request(p.command.status, offset, Math.min(1 << 30, end - offset), undefined, undefined, 8);
      if (!extent || extent.flags & 2) return offset;
      offset += extent.length;
    }
    return end;
  }
  async close(): Promise<void> {
    if (this.#broken !== undefined) return;
    this.#broken = 'it is closed';
    const bye = p.pack([4, p.magic.request], [2, 0], [2, p.command.disconnect], [8, 0], [8, 0], [4, 0]);
    await Promise.resolve(this.#stream.write(bye)).catch(() => {});
    this.#stream.close();
  }
}
