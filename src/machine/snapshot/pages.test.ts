import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { ByteReader, header, Kind, PAGE, type Packer, record, records } from './format.ts';
import { allPages, pageRecords, pagesOf, putPages } from './pages.ts';

const packer: Packer = {
  pack: (b) => zstdCompressSync(b),
  unpack: (b, limit) => zstdDecompressSync(b, { maxOutputLength: limit }),
};
/** Packs on another thread; the first record takes longest. */
let waits = 30;
const slow: Packer = {
  pack: (b) => new Promise((resolve) => setTimeout(() => resolve(zstdCompressSync(b)), (waits -= 10))),
  unpack: packer.unpack,
};
const PAGES = 1400;

/** Memory with zero pages, equal ones, ones that pack well and ones that do not. */
function sample(): Uint8Array {
  const bytes = new Uint8Array(PAGES * PAGE);
  let seed = 1;
  for (let page = 0; page < PAGES; page++) {
    if (page % 5 === 0) continue;
    const at = page * PAGE;
    if (page % 5 === 1) bytes.fill(page % 3, at, at + PAGE);
    else
      for (let i = 0; i < PAGE; i += 4) {
        seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
        bytes[at + i] = seed >>> 24;
      }
  }
  bytes[PAGE * 10 + 4095] = 1;
  return bytes;
}
async function split(chunks: AsyncIterable<Uint8Array>): Promise<{ kind: number; payload: Uint8Array }[]> {
  const all = await Array.fromAsync(chunks);
  return all.map((c) => ({ kind: new DataView(c.buffer).getUint32(0, true), payload: c.subarray(8) }));
}

test('pages come back as they were, packed or not, and zero pages and equal pages take no room', async () => {
  const bytes = sample();
  for (const p of [undefined, packer, slow]) {
    const out = await split(pageRecords(pagesOf(bytes), allPages(pagesOf(bytes)), p ? { packer: p } : {}));
    const back = new Uint8Array(bytes.length);
    for (const { kind, payload } of out) assert.ok(putPages(pagesOf(back), kind, payload, p));
    assert.deepEqual(back, bytes);
    const size = out.reduce((n, r) => n + r.payload.length, 0);
    assert.ok(size < bytes.length * 0.65, `${size} of ${bytes.length} bytes`);
  }
});

test('a page that is sent again replaces what was there, zeros included', async () => {
  const bytes = sample();
  const back = bytes.slice();
  bytes.fill(0, 3 * PAGE, 4 * PAGE);
  bytes[7 * PAGE] = 99;
  for (const { kind, payload } of await split(pageRecords(pagesOf(bytes), [3, 7], { live: true, again: true })))
    putPages(pagesOf(back), kind, payload, undefined);
  assert.deepEqual(back, bytes);
});

test('records that name pages outside memory, or are too short, are refused', () => {
  const memory = pagesOf(new Uint8Array(4 * PAGE));
  const words = (...list: number[]): Uint8Array => new Uint8Array(Uint32Array.from(list).buffer);
  const join = (a: Uint8Array, b: Uint8Array): Uint8Array => Buffer.concat([a, b]);
  assert.throws(() => putPages(memory, Kind.pages, join(words(1, 4), new Uint8Array(PAGE)), undefined), /page 4/);
  assert.throws(() => putPages(memory, Kind.pages, join(words(2, 0, 1), new Uint8Array(PAGE)), undefined), /damaged/);
  assert.throws(() => putPages(memory, Kind.same, words(1, 0, 9), undefined), /page 9/);
  assert.throws(() => putPages(memory, Kind.zero, words(0x7fffffff), undefined), /damaged/);
  assert.throws(() => putPages(memory, Kind.packed, join(words(1, 0), zstdCompressSync(new Uint8Array(64 * PAGE))), packer));
});

test('a stream is read in whatever pieces it comes, and one that ends early or is none is refused', async () => {
  const whole = Buffer.concat([header(), record(Kind.manifest, Uint8Array.of(1, 2, 3)), record(Kind.end)]);
  async function* pieces(bytes: Uint8Array, size: number) {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  }
  const read = async (bytes: Uint8Array, size: number): Promise<string> => {
    const found: string[] = [];
    for await (const { kind, payload } of records(new ByteReader(pieces(bytes, size)))) found.push(`${kind}:${payload.join()}`);
    return found.join(' ');
  };
  for (const size of [1, 7, 1000]) assert.equal(await read(whole, size), '1:1,2,3 7:');
  for (let length = 0; length < whole.length; length++)
    await assert.rejects(read(whole.subarray(0, length), 5), /Cannot restore/);
  await assert.rejects(read(Buffer.from('QEVMxxxxxxxxxxxxxxxx'), 5), /no saved machine/);
  const newer = Uint8Array.from(whole);
  newer[14] = 9;
  await assert.rejects(read(newer, 5), /format 9, accepted is 1/);
});
