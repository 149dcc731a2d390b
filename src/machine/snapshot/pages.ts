// Pages of a machine's memory on their way into a saved state and out of it: zero pages are skipped, equal ones are sent once, the rest is
// packed where the host can.

import { Kind, numbers, PAGE, PAGES_MAX, type Packer, readNumbers, record } from './format.ts';

/** Everything from guest RAM on that is saved, as whole pages. */
export interface Pages {
  readonly bytes: Uint8Array;
  readonly count: number;
}

export const pagesOf = (bytes: Uint8Array): Pages => ({ bytes, count: bytes.length / PAGE });

/** 32 bits of a page's contents; 0 only for a page of zeros, nearly always. */
function hash(words: Int32Array, page: number): number {
  let h = 0;
  let any = 0;
  const at = page * (PAGE / 4);
  for (let i = at; i < at + PAGE / 4; i++) {
    const w = words[i]!;
    any |= w;
    h = Math.imul(h ^ w, 0x9e3779b1) ^ (h >>> 15);
  }
  return any === 0 ? 0 : h | 1;
}

/** Equal contents. */
function equal(words: Int32Array, a: number, b: number): boolean {
  const [at, other] = [a * (PAGE / 4), b * (PAGE / 4)];
  for (let i = 0; i < PAGE / 4; i++) if (words[at + i] !== words[other + i]) return false;
  return true;
}

export interface PageOptions {
  readonly packer?: Packer;
  /** Pages that were sent before: zero ones among them have to be named. */
  readonly again?: boolean;
  /** Another record of the same page may follow while the guest runs: equal pages can't be referred to. */
  readonly live?: boolean;
}

/** Records that are being packed while pages are looked at. */
const AHEAD = 4;

/** Records for the pages that `wanted` gives, in order. */
export async function* pageRecords(
  memory: Pages,
  wanted: Iterable<number>,
  o: PageOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const words = new Int32Array(memory.bytes.buffer, memory.bytes.byteOffset, memory.bytes.length >> 2);
  const seen = new Map<number, number>();
  let batch: number[] = [];
  let same: number[] = [];
  let zero: number[] = [];
  /** Records in order, the first ones perhaps not packed yet. */
  const queue: (Uint8Array | Promise<Uint8Array>)[] = [];
  const pack = async (list: Uint8Array, bytes: Uint8Array, packer: Packer): Promise<Uint8Array> => {
    const packed = await packer.pack(bytes);
    return packed.length < bytes.length ? record(Kind.packed, list, packed) : record(Kind.pages, list, bytes);
  };
  const flush = (): void => {
    if (batch.length > 0) {
      const bytes = new Uint8Array(batch.length * PAGE);
      batch.forEach((page, i) => bytes.set(memory.bytes.subarray(page * PAGE, (page + 1) * PAGE), i * PAGE));
      const list = numbers(batch);
      const made = o.packer ? pack(list, bytes, o.packer) : record(Kind.pages, list, bytes);
      // Whoever takes it from the queue hears of a failure; it may come before that.
      if (made instanceof Promise) made.catch(() => {});
      queue.push(made);
      batch = [];
    }
    // What refers to a page comes after it.
    if (same.length > 0) queue.push(record(Kind.same, pairs(same)));
    if (zero.length > 0) queue.push(record(Kind.zero, numbers(zero)));
    same = [];
    zero = [];
  };
  for (const page of wanted) {
    const h = hash(words, page);
    if (h === 0) {
      if (!o.again || zero.push(page) < PAGES_MAX) continue;
      flush();
    } else {
      const twin = o.live ? undefined : seen.get(h);
      if (twin !== undefined && equal(words, twin, page)) {
        if (same.push(page, twin) === 2 * PAGES_MAX) flush();
      } else {
        seen.set(h, page);
        if (batch.push(page) === PAGES_MAX) flush();
      }
    }
    while (queue.length > AHEAD) yield queue.shift()!;
  }
  flush();
  for (const made of queue) yield made;
}

function pairs(list: readonly number[]): Uint8Array {
  const bytes = numbers(list);
  new DataView(bytes.buffer).setUint32(0, list.length / 2, true);
  return bytes;
}

/** All page numbers. */
export function* allPages(memory: Pages): Generator<number> {
  for (let page = 0; page < memory.count; page++) yield page;
}

/** Puts a record's pages into memory; false for a record that is not about pages. Throws, for one that is damaged. */
export function putPages(memory: Pages, kind: number, payload: Uint8Array, packer: Packer | undefined): boolean {
  const check = (page: number): number => {
    if (page >= memory.count)
      throw new Error(`Cannot restore a machine: page ${page} of the saved state, this machine has ${memory.count}`);
    return page * PAGE;
  };
  switch (kind) {
    case Kind.pages:
    case Kind.packed: {
      const { list, rest } = readNumbers(payload, 1, PAGES_MAX);
      let bytes = payload.subarray(rest);
      if (kind === Kind.packed) {
        if (!packer) throw new Error('Cannot restore a machine: its pages are compressed, which this host cannot undo');
        bytes = packer.unpack(bytes, list.length * PAGE);
      }
      if (bytes.length !== list.length * PAGE) throw new Error('Cannot restore a machine: a record of pages is damaged');
      list.forEach((page, i) => memory.bytes.set(bytes.subarray(i * PAGE, (i + 1) * PAGE), check(page)));
      return true;
    }
    case Kind.same: {
      const { list } = readNumbers(payload, 2, PAGES_MAX);
      for (let i = 0; i < list.length; i += 2) {
        const from = check(list[i + 1]!);
        memory.bytes.copyWithin(check(list[i]!), from, from + PAGE);
      }
      return true;
    }
    case Kind.zero: {
      for (const page of readNumbers(payload, 1, PAGES_MAX).list) memory.bytes.fill(0, check(page), check(page) + PAGE);
      return true;
    }
    default:
      return false;
  }
}
