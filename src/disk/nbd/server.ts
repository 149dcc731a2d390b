// Serves disks to one NBD client. NBD "The NBD protocol" (doc/proto.md), sections "Newstyle negotiation" and "Transmission".

import type { BlockDevice } from '../block.ts';
import * as p from './protocol.ts';

export interface NbdExport {
  readonly name: string;
  readonly description: string;
  readonly writable: boolean;
  readonly disk: BlockDevice;
  /** Bitmaps that clients may ask for, as `qemu:dirty-bitmap:NAME`. */
  readonly bitmaps?: readonly NbdBitmap[];
}
export interface NbdBitmap {
  readonly name: string;
  /** What a range begins with. */
  run(offset: number, length: number): { readonly dirty: boolean; readonly length: number };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const MAX_OPTION = 64 << 10;
/** Requests under way of one client. */
const MAX_ACTIVE = 16;

/** What a client can ask of the ranges of an export; its number is its place in the list of all of them, from 1. */
interface Context {
  readonly name: string;
  /** Flags and length of what a range begins with. */
  status(offset: number, length: number): Promise<{ readonly flags: number; readonly length: number }>;
}
const contextsOf = ({ disk, bitmaps = [] }: NbdExport): readonly Context[] => [
  {
    name: p.ALLOCATION,
    status: async (offset, length) => {
      const extent = await disk.extent(offset, length);
      return { flags: extent.kind === 'zero' ? 3 : 0, length: extent.length };
    },
  },
  ...bitmaps.map((b) => ({
    name: `${p.DIRTY_BITMAP}${b.name}`,
    status: async (offset: number, length: number) => {
      const run = b.run(offset, length);
      return { flags: run.dirty ? 1 : 0, length: run.length };
    },
  })),
];

/**
 * Serves `stream` until it ends; never rejects. `exports` is asked whenever a client names one. With `secure`, clients are told of nothing before
 * they ask for TLS, which it makes of the connection.
 */
export async function serveNbd(
  stream: p.NbdStream,
  exports: () => readonly NbdExport[],
  chosen: (e: NbdExport) => void = () => {},
  secure?: (stream: p.NbdStream) => Promise<p.NbdStream>,
): Promise<void> {
  const session = new Session(stream, exports, secure);
  try {
    const found = await session.negotiate();
    if (found) {
      chosen(found);
      await session.transmit(found);
    }
  } catch {
    // A client that went or broke the protocol loses its connection.
  } finally {
    session.close();
  }
}

class Session {
  #stream: p.NbdStream;
  readonly #exports: () => readonly NbdExport[];
  #taker: p.Taker;
  /** How TLS is made, until it was. */
  #secure: ((stream: p.NbdStream) => Promise<p.NbdStream>) | undefined;
  #structured = false;
  /** What the client has asked for of an export. */
  #wanted: { readonly name: string; readonly contexts: readonly (readonly [id: number, Context])[] } | undefined;
  #active = 0;
  #wake: (() => void) | undefined;

  constructor(
    stream: p.NbdStream,
    exports: () => readonly NbdExport[],
    secure: ((stream: p.NbdStream) => Promise<p.NbdStream>) | undefined,
  ) {
    this.#secure = secure;
    this.#stream = stream;
    this.#exports = exports;
    this.#taker = new p.Taker(stream);
  }
  close(): void {
    this.#stream.close();
  }
  #flags(e: NbdExport): number {
    const { flag } = p;
    return flag.has | flag.flush | flag.fua | flag.multi | (e.writable ? flag.trim | flag.zeroes : flag.readOnly);
  }
  async #answer(code: number, type: number, data: Uint8Array = new Uint8Array(0)): Promise<void> {
    await this.#stream.write(p.pack([8, p.magic.optionReply], [4, code], [4, type], [4, data.length], data));
  }
  /** The export that the client chose; undefined when it left. */
  async negotiate(): Promise<NbdExport | undefined> {
    await this.#stream.write(p.pack([8, p.magic.hello], [8, p.magic.option], [2, 3]));
    const client = p.viewOf(await this.#taker.take(4)).getUint32(0);
    if (client & ~3) return undefined;
    for (;;) {
      const head = p.viewOf(await this.#taker.take(16));
      const [code, length] = [head.getUint32(8), head.getUint32(12)];
      if (head.getBigUint64(0) !== p.magic.option || length > MAX_OPTION) return undefined;
      const data = await this.#taker.take(length);
      if (this.#secure && code === p.option.startTls && length === 0) {
        const secure = this.#secure;
        this.#secure = undefined;
        await this.#taker.leave();
        await this.#answer(code, p.reply.ack);
        this.#stream = await secure(this.#stream);
        this.#taker = new p.Taker(this.#stream);
        continue;
      }
      if (this.#secure && code !== p.option.abort) {
        // To this one there is no answer but to hang up.
        if (code === p.option.exportName) return undefined;
        await this.#answer(code, p.reply.tlsRequired);
        continue;
      }
      if (code === p.option.exportName) {
        const found = this.#find(decoder.decode(data));
        if (found)
          await this.#stream.write(p.pack([8, found.disk.size], [2, this.#flags(found)], new Uint8Array(client & 2 ? 0 : 124)));
        return found;
      }
      if (code === p.option.abort) {
        await this.#answer(code, p.reply.ack);
        return undefined;
      }
      const found = await this.#option(code, data);
      if (found) return found;
    }
  }
  #find(name: string): NbdExport | undefined {
    return this.#exports().find((e) => e.name === name);
  }
  async #option(code: number, data: Uint8Array): Promise<NbdExport | undefined> {
    const { option, reply } = p;
    if (code === option.structured && data.length === 0) {
      this.#structured = true;
      await this.#answer(code, reply.ack);
    } else if (code === option.list && data.length === 0) {
      for (const e of this.#exports()) {
        const name = encoder.encode(e.name);
        await this.#answer(code, reply.server, p.pack([4, name.length], name, encoder.encode(e.description)));
      }
      await this.#answer(code, reply.ack);
    } else if (code === option.info || code === option.go) {
      const length = data.length >= 6 ? p.viewOf(data).getUint32(0) : MAX_OPTION;
      if (length > data.length - 6) await this.#answer(code, reply.invalid);
      else {
        const found = this.#find(decoder.decode(data.subarray(4, 4 + length)));
        if (!found) await this.#answer(code, reply.unknown);
        else {
          await this.#answer(code, reply.info, p.pack([2, 0], [8, found.disk.size], [2, this.#flags(found)]));
          await this.#answer(code, reply.info, p.pack([2, 3], [4, 1], [4, 4096], [4, p.MAX_REQUEST]));
          await this.#answer(code, reply.ack);
          if (code === option.go) return found;
        }
      }
    } else if (code === option.setMeta || code === option.listMeta) await this.#meta(code, data);
    else await this.#answer(code, reply.unsupported);
    return undefined;
  }
  async #meta(code: number, data: Uint8Array): Promise<void> {
    const view = p.viewOf(data);
    let at = 0;
    const word = (): number => {
      if (at + 4 > data.length) return MAX_OPTION + 1;
      at += 4;
      return view.getUint32(at - 4);
    };
    const string = (): string | undefined => {
      const length = word();
      if (length > data.length - at) return undefined;
      at += length;
      return decoder.decode(data.subarray(at - length, at));
    };
    const name = string();
    const count = word();
    const queries: string[] = [];
    for (let n = 0; n < count; n++) {
      const query = string();
      if (query === undefined) return this.#answer(code, p.reply.invalid);
      queries.push(query);
    }
    if (name === undefined || !this.#structured) return this.#answer(code, p.reply.invalid);
    const found = this.#find(name);
    if (!found) return this.#answer(code, p.reply.unknown);
    // A list may ask for all of a kind, or for all.
    const list = code === p.option.listMeta;
    const asks = (query: string, context: string): boolean =>
      query === context || (list && query.endsWith(':') && context.startsWith(query));
    const contexts = contextsOf(found)
      .map((context, n) => [n + 1, context] as const)
      .filter(([, c]) => (list && count === 0) || queries.some((q) => asks(q, c.name)));
    if (!list) this.#wanted = { name, contexts };
    for (const [id, c] of contexts) await this.#answer(code, p.reply.meta, p.pack([4, list ? 0 : id], encoder.encode(c.name)));
    await this.#answer(code, p.reply.ack);
  }

  async transmit(e: NbdExport): Promise<void> {
    try {
      for (;;) {
        const head = p.viewOf(await this.#taker.take(28));
        if (head.getUint32(0) !== p.magic.request) return;
        const [flags, type, cookie, length] = [head.getUint16(4), head.getUint16(6), head.getBigUint64(8), head.getUint32(24)];
        if (type === p.command.disconnect) return;
        if ((type === p.command.write || type === p.command.read) && length > p.MAX_REQUEST) return;
        const data = type === p.command.write ? await this.#taker.take(length) : undefined;
        while (this.#active >= MAX_ACTIVE) await this.#oneEnds();
        this.#active++;
        void this.#serve(e, flags, type, cookie, Number(head.getBigUint64(16)), length, data)
          .catch(() => this.#stream.close())
          .finally(() => {
            this.#active--;
            this.#wake?.();
          });
      }
    } finally {
      while (this.#active > 0) await this.#oneEnds();
    }
  }
  #oneEnds(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
  async #serve(
    e: NbdExport,
    flags: number,
    type: number,
    cookie: bigint,
    offset: number,
    length: number,
    data: Uint8Array | undefined,
  ): Promise<void> {
    const { disk } = e;
    const { command, errno } = p;
    let failed = 0;
    let kind: number = p.chunk.none;
    let body = new Uint8Array(0);
    const statuses: Uint8Array[] = [];
    const changes = type === command.write || type === command.trim || type === command.zeroes;
    if (changes && !e.writable) failed = errno.perm;
    else if (type !== command.flush && !(offset + length <= disk.size)) failed = changes ? errno.noSpace : errno.invalid;
    else
      try {
        if (type === command.read) {
          body = new Uint8Array(length);
          kind = p.chunk.data;
          await disk.read(offset, body);
        } else if (type === command.write) await disk.write(offset, data!);
        else if (type === command.flush) await disk.flush();
        else if (type === command.trim) await disk.discard(offset, length);
        else if (type === command.zeroes) await disk.writeZeroes(offset, length);
        else if (type === command.status && this.#wanted?.name === e.name && this.#wanted.contexts.length > 0 && length > 0) {
          kind = p.chunk.status;
          for (const [id, context] of this.#wanted.contexts) {
            const run = await context.status(offset, length);
            statuses.push(p.pack([4, id], [4, run.length], [4, run.flags]));
          }
        } else failed = errno.invalid;
        if (failed === 0 && changes && flags & 1) await disk.flush();
      } catch {
        failed = errno.io;
      }
    if (!this.#structured || (type !== command.read && type !== command.status)) {
      const head = p.pack([4, p.magic.simple], [4, failed], [8, cookie]);
      await this.#stream.write(failed === 0 && body.length > 0 ? p.pack(head, body) : head);
      return;
    }
    if (failed !== 0) {
      kind = p.chunk.error;
      body = p.pack([4, failed], [2, 0]);
    } else if (kind === p.chunk.data) body = p.pack([8, offset], body);
    // One chunk for each context; the last one says that it is.
    const chunks = failed === 0 && statuses.length > 0 ? statuses : [body];
    const reply = chunks.map((chunk, n) =>
      p.pack([4, p.magic.structured], [2, n === chunks.length - 1 ? 1 : 0], [2, kind], [8, cookie], [4, chunk.length], chunk),
    );
    await this.#stream.write(p.pack(...reply));
  }
}
