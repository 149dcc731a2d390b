// Serves disks to one NBD client. NBD "The NBD protocol" (doc/proto.md), sections "Newstyle negotiation" and "Transmission".

import type { BlockDevice } from '../block.ts';
import * as p from './protocol.ts';

export interface NbdExport {
  readonly name: string;
  readonly description: string;
  readonly writable: boolean;
  readonly disk: BlockDevice;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const MAX_OPTION = 64 << 10;
/** Requests under way of one client. */
const MAX_ACTIVE = 16;
const ALLOCATION_ID = 1;

/** Serves `stream` until it ends; never rejects. `exports` is asked whenever a client names one. */
export async function serveNbd(
  stream: p.NbdStream,
  exports: () => readonly NbdExport[],
  chosen: (e: NbdExport) => void = () => {},
): Promise<void> {
  const session = new Session(stream, exports);
  try {
    const found = await session.negotiate();
    if (found) {
      chosen(found);
      await session.transmit(found);
    }
  } catch {
    // A client that went or broke the protocol loses its connection.
  } finally {
    stream.close();
  }
}

class Session {
  readonly #stream: p.NbdStream;
  readonly #exports: () => readonly NbdExport[];
  readonly #taker: p.Taker;
  #structured = false;
  /** The export for which the client asked where data is. */
  #allocation: string | undefined;
  #active = 0;
  #wake: (() => void) | undefined;

  constructor(stream: p.NbdStream, exports: () => readonly NbdExport[]) {
    this.#stream = stream;
    this.#exports = exports;
    this.#taker = new p.Taker(stream);
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
    let wanted = code === p.option.listMeta && count === 0;
    for (let n = 0; n < count; n++) {
      const query = string();
      if (query === undefined) return this.#answer(code, p.reply.invalid);
      if (query === p.ALLOCATION || (query === 'base:' && code === p.option.listMeta)) wanted = true;
    }
    if (name === undefined || !this.#structured) return this.#answer(code, p.reply.invalid);
    if (!this.#find(name)) return this.#answer(code, p.reply.unknown);
    if (code === p.option.setMeta) this.#allocation = wanted ? name : undefined;
    if (wanted) await this.#answer(code, p.reply.meta, p.pack([4, ALLOCATION_ID], encoder.encode(p.ALLOCATION)));
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
        else if (type === command.status && this.#allocation === e.name && length > 0) {
          const extent = await disk.extent(offset, length);
          kind = p.chunk.status;
          body = p.pack([4, ALLOCATION_ID], [4, extent.length], [4, extent.kind === 'zero' ? 3 : 0]);
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
    await this.#stream.write(p.pack([4, p.magic.structured], [2, 1], [2, kind], [8, cookie], [4, body.length], body));
  }
}
