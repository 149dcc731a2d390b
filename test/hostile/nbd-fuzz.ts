// Hostile ends of an NBD connection, seeded: a client that bends the protocol at our server, and a server that does so at our client. Nothing
// may throw out of either or wait for ever; the server touches only what is in its disk, and serves the next client.

import assert from 'node:assert/strict';
import type { BlockDevice } from '../../src/disk/block.ts';
import { MemoryFile } from '../../src/disk/memory-file.ts';
import { NbdFile } from '../../src/disk/nbd/client.ts';
import * as p from '../../src/disk/nbd/protocol.ts';
import { type NbdExport, serveNbd } from '../../src/disk/nbd/server.ts';
import { RawImage } from '../../src/disk/raw.ts';
import { Random } from './asm.ts';

const SIZE = 256 << 10;
/** ms that anything may take to end once the other side is gone. */
const LIMIT = 20_000;

/** One direction of a connection in memory. */
class Pipe {
  #held: Uint8Array[] = [];
  #over = false;
  #wake: (() => void) | undefined;
  push(bytes: Uint8Array): void {
    if (!this.#over && bytes.length > 0) this.#held.push(bytes.slice());
    this.#wake?.();
  }
  end(): void {
    this.#over = true;
    this.#wake?.();
  }
  get over(): boolean {
    return this.#over;
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const next = this.#held.shift();
      if (next) yield next;
      else if (this.#over) return;
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
    }
  }
}

/** Two ends; `change` sees what goes to the first one. */
function pair(change: (bytes: Uint8Array) => Uint8Array[] = (b) => [b]): readonly [p.NbdStream, p.NbdStream] {
  const [a, b] = [new Pipe(), new Pipe()];
  const close = (): void => {
    a.end();
    b.end();
  };
  return [
    { input: a, write: (bytes) => b.push(bytes), close },
    {
      input: b,
      write: (bytes) => {
        for (const part of change(bytes)) a.push(part);
      },
      close,
    },
  ];
}

async function within<T>(what: string, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${what} does not end`)), LIMIT);
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** A disk that says when it is touched where it is not. */
async function disk(): Promise<BlockDevice & { readonly wrong: string[] }> {
  const file = new MemoryFile('disk');
  await file.truncate(SIZE);
  const image = await RawImage.open(file);
  const wrong: string[] = [];
  const check = (what: string, offset: number, length: number): void => {
    if (!(offset >= 0 && length >= 0 && offset + length <= SIZE)) wrong.push(`${what} ${offset} ${length}`);
  };
  const watched =
    <A extends readonly unknown[], R>(what: string, f: (offset: number, ...rest: A) => R, length: (...rest: A) => number) =>
    (offset: number, ...rest: A): R => {
      check(what, offset, length(...rest));
      return f(offset, ...rest);
    };
  return {
    ...{ wrong, size: SIZE, readOnly: false },
    read: watched(
      'read',
      (o, into: Uint8Array) => image.read(o, into),
      (into) => into.length,
    ),
    write: watched(
      'write',
      (o, from: Uint8Array) => image.write(o, from),
      (from) => from.length,
    ),
    flush: () => image.flush(),
    discard: watched(
      'discard',
      (o, n: number) => image.discard(o, n),
      (n) => n,
    ),
    writeZeroes: watched(
      'zeroes',
      (o, n: number) => image.writeZeroes(o, n),
      (n) => n,
    ),
    extent: watched(
      'extent',
      (o, n: number) => image.extent(o, n),
      (n) => n,
    ),
    close: () => image.close(),
  } as BlockDevice & { readonly wrong: string[] };
}

const edge = (r: Random): bigint =>
  r.below(2) === 0 ? BigInt(r.below(SIZE)) : r.below(2) === 0 ? BigInt(SIZE - r.below(3)) : r.edgy();

/** What a client sends: the whole way into the transmission, each step of which may be another one. */
function* clientBytes(r: Random): Generator<Uint8Array> {
  yield p.pack([4, r.below(12) === 0 ? r.u32() : r.below(4)]);
  const text = new TextEncoder();
  const name = (): Uint8Array => text.encode(r.pick(['disk', 'disk', 'disk', '', 'none', 'x'.repeat(r.below(5000))]));
  const option = (code: number, data: Uint8Array): Uint8Array =>
    p.pack([8, r.below(60) === 0 ? r.u64() : p.magic.option], [4, code], [4, r.below(30) === 0 ? r.u32() : data.length], data);
  for (let n = r.below(6); n > 0; n--) {
    const label = name();
    const queries: Uint8Array[] = [];
    const count = r.below(4);
    for (let i = 0; i < count; i++) {
      const q = text.encode(r.pick([p.ALLOCATION, 'base:', 'qemu:dirty-bitmap:', 'qemu:dirty-bitmap:b', 'x', '']));
      queries.push(p.pack([4, r.below(20) === 0 ? r.u32() : q.length]), q);
    }
    const length: readonly [4, number] = [4, r.below(15) === 0 ? r.u32() : label.length];
    const noise = new Uint8Array(r.below(40));
    r.fill(noise);
    yield r.pick([
      () => option(p.option.structured, new Uint8Array(r.below(8) === 0 ? 3 : 0)),
      () => option(p.option.setMeta, p.pack(length, label, [4, r.below(10) === 0 ? r.u32() : count], ...queries)),
      () => option(p.option.listMeta, p.pack(length, label, [4, count], ...queries)),
      () => option(p.option.list, new Uint8Array(0)),
      () => option(p.option.info, p.pack(length, label, [2, r.below(3)])),
      () => option(r.below(20), noise),
    ])();
  }
  const label = text.encode('disk');
  if (r.below(8) !== 0) yield option(p.option.go, p.pack([4, label.length], label, [2, 0]));
  else yield option(p.option.exportName, label);
  for (let n = r.below(80); n > 0; n--) {
    const type = r.below(10) === 0 ? r.below(1 << 16) : r.below(8);
    if (type === p.command.disconnect && r.below(8) !== 0) continue;
    const length = r.below(20) === 0 ? r.u32() : r.below(r.below(6) === 0 ? SIZE + 4096 : 8192);
    const head = p.pack(
      [4, r.below(100) === 0 ? r.u32() : p.magic.request],
      [2, r.pick([0, 0, 1, 8, r.below(65_536)])],
      [2, type],
      [8, r.edgy()],
      [8, edge(r)],
      [4, length],
    );
    yield type === p.command.write && length < 1 << 20 ? p.pack(head, new Uint8Array(length)) : head;
  }
}

/** Cuts bytes into pieces as a network does, and damages some. */
function* mangled(parts: Iterable<Uint8Array>, r: Random): Generator<Uint8Array> {
  for (const part of parts) {
    const bytes = part.slice();
    if (r.below(40) === 0 && bytes.length > 0) bytes[r.below(bytes.length)] = r.below(256);
    for (let at = 0; at < bytes.length; ) {
      const length = r.below(3) === 0 ? 1 + r.below(40) : bytes.length;
      yield bytes.subarray(at, at + length);
      at += length;
    }
  }
}

/** A client that bends the protocol. @throws Error with the seed */
export async function fuzzNbdServer(seed: number, connections: number): Promise<void> {
  const r = new Random(seed);
  const device = await disk();
  const bitmap = { name: 'b', run: (_: number, length: number) => ({ dirty: true, length: Math.min(length, 4096) }) };
  const exported: NbdExport = {
    name: 'disk',
    description: 'a disk',
    writable: r.below(4) !== 0,
    disk: device,
    bitmaps: [bitmap],
  };
  try {
    for (let n = 0; n < connections; n++) {
      const [client, server] = pair();
      const served = serveNbd(server, () => [exported]);
      let heard = 0;
      const reads = (async () => {
        for await (const bytes of client.input) heard += bytes.length;
      })();
      for (const bytes of mangled(clientBytes(r), r)) {
        await client.write(bytes);
        if (r.below(10) === 0) await new Promise<void>((resolve) => setImmediate(resolve));
      }
      if (r.below(2) === 0) await new Promise<void>((resolve) => setTimeout(resolve, 1));
      client.close();
      await within('the server', served);
      await reads;
      assert.ok(heard >= 18, 'the server said hello');
      assert.deepEqual(device.wrong, []);
    }
    // The next client is served.
    const [client, server] = pair();
    const served = serveNbd(server, () => [exported]);
    const sockets: p.NbdSockets = { connect: async () => client, listen: () => Promise.reject(new Error('not here')) };
    const file = await within('opening', NbdFile.open(sockets, { path: '/x' }, 'disk', { readOnly: true }));
    const into = new Uint8Array(SIZE);
    await within('a read', file.read(0, into));
    await file.close();
    await within('the server', served);
  } catch (error) {
    throw new Error(`nbd server, seed ${seed}: ${error instanceof Error ? error.stack : error}`);
  }
}

/** A server that bends the protocol: ours, whose bytes are changed on their way. @throws Error with the seed */
export async function fuzzNbdClient(seed: number, connections: number): Promise<void> {
  const r = new Random(seed);
  const device = await disk();
  const exported: NbdExport = { name: 'disk', description: 'a disk', writable: true, disk: device };
  try {
    for (let n = 0; n < connections; n++) {
      const chance = r.pick([3, 10, 40, 200]);
      let over: () => void = () => {};
      const [client, server] = pair((bytes) => {
        const changed = bytes.slice();
        if (r.below(chance) === 0 && changed.length > 0) {
          // Numbers at edges where lengths and offsets are, or any byte.
          if (r.below(2) === 0 && changed.length >= 20)
            new DataView(changed.buffer).setUint32(
              4 * r.below(Math.floor(changed.length / 4)),
              r.pick([0, 1, 12, 0xffff_ffff, 0x8000_0000, r.u32()]),
            );
          else changed[r.below(changed.length)] = r.below(256);
        }
        if (r.below(chance * 4) === 0) queueMicrotask(() => over());
        const cut = r.below(3) === 0 ? 1 + r.below(changed.length) : changed.length;
        const twice = r.below(chance * 4) === 0 ? [changed] : [];
        return r.below(chance * 4) === 0 ? [] : [changed.subarray(0, cut), changed.subarray(cut), ...twice];
      });
      over = () => server.close();
      const served = serveNbd(server, () => [exported]);
      const sockets: p.NbdSockets = { connect: async () => client, listen: () => Promise.reject(new Error('not here')) };
      // A server that leaves something out lets its client wait: the connection ends in time.
      const timer = setTimeout(() => server.close(), 200);
      const file = await within(
        'opening',
        NbdFile.open(sockets, { path: '/x' }, 'disk', { readOnly: false }).catch((e: Error) => e),
      );
      if (file instanceof Error) assert.match(file.message, /^Cannot open nbd\+unix/);
      else {
        const work: Promise<Error | undefined>[] = [];
        for (let m = r.below(30); m > 0; m--) {
          const offset = r.below(SIZE);
          const length = r.below(SIZE - offset);
          const ask: () => Promise<unknown> = r.pick([
            () => file.read(offset, new Uint8Array(length)),
            () => file.write(offset, new Uint8Array(Math.min(length, 9000))),
            () => file.flush(),
            () => file.punch(offset, length),
            () => file.nextData(offset),
          ]);
          work.push(
            ask().then(
              () => undefined,
              (error: Error) => error,
            ),
          );
          if (r.below(4) === 0) await new Promise<void>((resolve) => setImmediate(resolve));
        }
        for (const failure of await within('what was asked', Promise.all(work)))
          if (failure) assert.match(String(failure.message), /^Cannot (use|write) nbd\+unix/);
        await within('closing', file.close());
      }
      clearTimeout(timer);
      server.close();
      await within('the server', served);
    }
  } catch (error) {
    throw new Error(`nbd client, seed ${seed}: ${error instanceof Error ? error.stack : error}`);
  }
}
