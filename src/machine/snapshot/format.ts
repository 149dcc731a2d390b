// The format of saved machines: records in a row, so that it can be a file, a pipe or a live migration. All numbers are little-endian.
//
//   16 bytes  "NONROOT STATE\n", version (u16)
//   records   kind (u32), length of the payload (u32), payload
//
// Pages are 4,096 bytes and are numbered from the start of guest RAM; memory for devices (video memory, flash) follows RAM. A page that
// no record names is zero; a later record of a page replaces an earlier one.

/** Of the format; a reader takes its own version only. */
export const FORMAT_VERSION = 1;
const MAGIC = 'NONROOT STATE\n';
export const HEADER_BYTES = 16;
export const PAGE = 4096;
/** Pages of one record at most, and bytes of any payload. */
export const PAGES_MAX = 256;
const PAYLOAD_MAX = 64 << 20;

export const Kind = {
  /** JSON: see manifest.ts. First of all. */
  manifest: 1,
  /** Count (u32), that many page numbers (u32), their bytes. */
  pages: 2,
  /** The same, the bytes compressed by zstd. */
  packed: 3,
  /** Count (u32), that many pairs (u32, u32): a page, and the page sent before that it equals. */
  same: 4,
  /** Count (u32), that many numbers (u32) of pages that have become zero. */
  zero: 5,
  /** Length of a JSON text (u32), the text `{name, version}`, the state of one device or vCPU. */
  section: 6,
  /** Length 0. Nothing follows. */
  end: 7,
} as const;

/** Compression of the host. */
export interface Packer {
  /** May work on other threads; the bytes stay as they are until it is done. */
  pack(bytes: Uint8Array): Uint8Array | Promise<Uint8Array>;
  /** Throws for bytes that are not packed ones, or give more than `limit`. */
  unpack(bytes: Uint8Array, limit: number): Uint8Array;
}

export function header(): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  bytes.set(new TextEncoder().encode(MAGIC));
  new DataView(bytes.buffer).setUint16(14, FORMAT_VERSION, true);
  return bytes;
}
/** Throws for anything but the header of this version. */
export function checkHeader(bytes: Uint8Array): void {
  const magic = new TextDecoder().decode(bytes.subarray(0, MAGIC.length));
  if (magic !== MAGIC) throw new Error('Cannot restore a machine: these bytes are no saved machine');
  const version = new DataView(bytes.buffer, bytes.byteOffset).getUint16(14, true);
  if (version !== FORMAT_VERSION)
    throw new Error(`Cannot restore a machine: it was saved in format ${version}, accepted is ${FORMAT_VERSION}`);
}

/** One record. */
export function record(kind: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((n, p) => n + p.length, 0);
  const bytes = new Uint8Array(8 + length);
  const d = new DataView(bytes.buffer);
  d.setUint32(0, kind, true);
  d.setUint32(4, length, true);
  let at = 8;
  for (const p of parts) {
    bytes.set(p, at);
    at += p.length;
  }
  return bytes;
}

/** Numbers with their count before them. */
export function numbers(list: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 + 4 * list.length);
  const d = new DataView(bytes.buffer);
  d.setUint32(0, list.length, true);
  list.forEach((n, i) => d.setUint32(4 + 4 * i, n, true));
  return bytes;
}
/** Reads `count` times `each` numbers; `rest` is where they end. Throws where there are fewer, or more than `most`. */
export function readNumbers(payload: Uint8Array, each: number, most: number): { readonly list: number[]; readonly rest: number } {
  const d = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const count = payload.length >= 4 ? d.getUint32(0, true) : -1;
  const rest = 4 + 4 * each * count;
  if (count < 0 || count > most || rest > payload.length) throw new Error('Cannot restore a machine: a list of pages is damaged');
  return { list: Array.from({ length: each * count }, (_, i) => d.getUint32(4 + 4 * i, true)), rest };
}

/** Takes bytes as they come and gives exactly as many as are asked for. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }
  /** `length` bytes. Rejects where the stream ends before. */
  async take(length: number): Promise<Uint8Array> {
    if (this.#rest.length >= length) {
      const bytes = this.#rest.subarray(0, length);
      this.#rest = this.#rest.subarray(length);
      return bytes;
    }
    const bytes = new Uint8Array(length);
    let at = 0;
    for (;;) {
      const n = Math.min(length - at, this.#rest.length);
      bytes.set(this.#rest.subarray(0, n), at);
      this.#rest = this.#rest.subarray(n);
      at += n;
      if (at === length) return bytes;
      const next = await this.#chunks.next();
      if (next.done) throw new Error('Cannot restore a machine: the saved state ends early');
      this.#rest = next.value;
    }
  }
  /** Tells the source that no more is wanted. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}

/** The records of a stream, up to and with its end. */
export async function* records(reader: ByteReader): AsyncGenerator<{ readonly kind: number; readonly payload: Uint8Array }> {
  checkHeader(await reader.take(HEADER_BYTES));
  for (;;) {
    const head = await reader.take(8);
    const d = new DataView(head.buffer, head.byteOffset);
    const kind = d.getUint32(0, true);
    const length = d.getUint32(4, true);
    if (length > PAYLOAD_MAX)
      throw new Error(`Cannot restore a machine: a record of ${length} bytes, accepted are ${PAYLOAD_MAX}`);
    yield { kind, payload: await reader.take(length) };
    if (kind === Kind.end) return;
  }
}
