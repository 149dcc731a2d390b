// An encoder for ACPI Machine Language: each function returns the bytes of one term, terms nest as arguments.
// ACPI Specification 6.4, chapter 20 "ACPI Machine Language (AML) Specification"; section 20.2 unless said otherwise.

export type Aml = Uint8Array;

export const bytesOf = (...parts: readonly (number | readonly number[] | Uint8Array)[]): Aml => {
  const lists = parts.map((part) => (typeof part === 'number' ? [part] : part));
  const out = new Uint8Array(lists.reduce((sum, list) => sum + list.length, 0));
  let at = 0;
  for (const list of lists) {
    out.set(list, at);
    at += list.length;
  }
  return out;
};

/** `value` in `width` bytes, little-endian. */
export const little = (value: number | bigint, width: 1 | 2 | 4 | 8): Aml => {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes.subarray(0, width);
};

/** PkgLength (20.2.4) in front of `body`; the length counts its own bytes. */
const packaged = (body: Aml): Aml => {
  for (const width of [1, 2, 3, 4] as const) {
    const total = body.length + width;
    if (width === 1 && total < 64) return bytesOf(total, body);
    if (width > 1 && total < 2 ** (4 + 8 * (width - 1))) {
      const lead = ((width - 1) << 6) | (total & 15);
      return bytesOf(lead, little(Math.floor(total / 16), 4).subarray(0, width - 1), body);
    }
  }
  throw new Error(`Cannot encode AML: a package of ${body.length} bytes, accepted are less than 256 MiB`);
};

/** A NameString (20.2.2): segments of up to four characters joined by dots, after `\` or any number of `^`. */
export const path = (text: string): Aml => {
  const prefix = /^(\\|\^*)/.exec(text)?.[0] ?? '';
  const rest = text.slice(prefix.length);
  const segments = rest === '' ? [] : rest.split('.');
  const encoded = segments.map((segment) => {
    if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) {
      throw new Error(`Cannot encode AML name: "${segment}" in "${text}", accepted are 1 to 4 of A–Z, 0–9 and _, no digit first`);
    }
    return ascii(segment.padEnd(4, '_'));
  });
  const count =
    segments.length === 0 ? [0] : segments.length === 1 ? [] : segments.length === 2 ? [0x2e] : [0x2f, segments.length];
  return bytesOf(ascii(prefix), count, ...encoded);
};

export const ascii = (text: string): Aml => Uint8Array.from(text, (c) => c.charCodeAt(0));

/** An integer constant in the shortest form; 0 to 2^64 - 1. */
export const int = (value: number | bigint): Aml => {
  const n = BigInt(value);
  if (n < 0n || n >= 1n << 64n) throw new Error(`Cannot encode AML integer: ${n}, accepted is 0 to 2^64 - 1`);
  if (n < 2n) return bytesOf(Number(n));
  if (n < 1n << 8n) return bytesOf(0x0a, little(n, 1));
  if (n < 1n << 16n) return bytesOf(0x0b, little(n, 2));
  if (n < 1n << 32n) return bytesOf(0x0c, little(n, 4));
  return bytesOf(0x0e, little(n, 8));
};

export const str = (text: string): Aml => bytesOf(0x0d, ascii(text), 0);

/** A compressed EISA identifier such as `PNP0A08` (section 19.3.4 "EISAID"). */
export const eisaId = (id: string): Aml => {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id))
    throw new Error(`Cannot encode EISA id: "${id}", accepted are three letters and four hex digits`);
  const letters = [0, 1, 2].reduce((sum, i) => (sum << 5) | (id.charCodeAt(i) - 0x40), 0);
  const product = Number.parseInt(id.slice(3), 16);
  return bytesOf(0x0c, letters >> 8, letters & 0xff, product >> 8, product & 0xff);
};

/** A _HID or _CID value: an EISA id where it has that form, a string otherwise (`ACPI0007`). */
export const hid = (id: string): Aml => (/^[A-Z]{3}[0-9A-F]{4}$/.test(id) ? eisaId(id) : str(id));

export const buffer = (bytes: Uint8Array): Aml => bytesOf(0x11, packaged(bytesOf(int(bytes.length), bytes)));

/** A UUID in the mixed byte order of ToUUID (section 19.6.142). */
export const uuid = (text: string): Aml => {
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  const digits = text.replaceAll('-', '');
  return buffer(Uint8Array.from(order, (i) => Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16)));
};

export const pkg = (...items: readonly Aml[]): Aml => {
  if (items.length > 255) throw new Error(`Cannot encode AML package: ${items.length} elements, accepted are 255`);
  return bytesOf(0x12, packaged(bytesOf(items.length, ...items)));
};

export const name = (where: string, value: Aml): Aml => bytesOf(0x08, path(where), value);
export const scope = (where: string, ...terms: readonly Aml[]): Aml => bytesOf(0x10, packaged(bytesOf(path(where), ...terms)));
export const device = (where: string, ...terms: readonly Aml[]): Aml =>
  bytesOf(0x5b, 0x82, packaged(bytesOf(path(where), ...terms)));

/** A method with `args` arguments (0 to 7), not serialised. */
export const method = (where: string, args: number, ...terms: readonly Aml[]): Aml =>
  bytesOf(0x14, packaged(bytesOf(path(where), args & 7, ...terms)));

/** One that is not run twice at the same time: it creates names. */
export const serializedMethod = (where: string, args: number, ...terms: readonly Aml[]): Aml =>
  bytesOf(0x14, packaged(bytesOf(path(where), (args & 7) | 8, ...terms)));

export const arg = (n: 0 | 1 | 2 | 3 | 4 | 5 | 6): Aml => bytesOf(0x68 + n);
export const ret = (value: Aml): Aml => bytesOf(0xa4, value);
export const ifThen = (condition: Aml, ...terms: readonly Aml[]): Aml => bytesOf(0xa0, packaged(bytesOf(condition, ...terms)));
export const otherwise = (...terms: readonly Aml[]): Aml => bytesOf(0xa1, packaged(bytesOf(...terms)));
export const equal = (a: Aml, b: Aml): Aml => bytesOf(0x93, a, b);
export const not = (a: Aml): Aml => bytesOf(0x92, a);
export const and = (a: Aml, b: Aml, to: Aml): Aml => bytesOf(0x7b, a, b, to);
export const or = (a: Aml, b: Aml, to: Aml): Aml => bytesOf(0x7d, a, b, to);
export const createQwordField = (from: Aml, offset: number, as: string): Aml => bytesOf(0x8f, from, int(offset), path(as));
export const add = (a: Aml, b: Aml, to: Aml): Aml => bytesOf(0x72, a, b, to);
export const subtract = (a: Aml, b: Aml, to: Aml): Aml => bytesOf(0x74, a, b, to);
/** The value of `a + b`. */
export const plus = (a: Aml, b: Aml): Aml => bytesOf(0x72, a, b, 0);
export const shiftLeft = (a: Aml, b: Aml): Aml => bytesOf(0x79, a, b, 0);
export const less = (a: Aml, b: Aml): Aml => bytesOf(0x95, a, b);
export const createDwordField = (from: Aml, offset: number, as: string): Aml => bytesOf(0x8a, from, int(offset), path(as));

export const store = (value: Aml, to: Aml): Aml => bytesOf(0x70, value, to);
export const notify = (object: Aml, value: Aml): Aml => bytesOf(0x86, object, value);
/** The value of `a & b`. */
export const masked = (a: Aml, b: Aml): Aml => bytesOf(0x7b, a, b, 0);
/** A call of a method that is known to the reader by its name. */
export const call = (where: string, ...values: readonly Aml[]): Aml => bytesOf(path(where), ...values);

/** Local variable `n` of a method. */
export const local = (n: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7): Aml => bytesOf(0x60 + n);
export const whileTrue = (condition: Aml, ...terms: readonly Aml[]): Aml => bytesOf(0xa2, packaged(bytesOf(condition, ...terms)));
/** A mutex of sync level 0, taken without a limit of time, and given back. */
export const mutex = (where: string): Aml => bytesOf(0x5b, 0x01, path(where), 0);
export const acquire = (where: string): Aml => bytesOf(0x5b, 0x23, path(where), 0xff, 0xff);
export const release = (where: string): Aml => bytesOf(0x5b, 0x27, path(where));
/** A part of a region: a name with its bits, or so many bits that have none. */
export type Bits = readonly [name: string, bits: number] | number;
/** Fields over a region from its start, in accesses of `width` bytes; writes leave the other bits at zero. */
export const bitFields = (region: string, width: 1 | 4, parts: readonly Bits[]): Aml => {
  const length = (bits: number): Aml => (bits < 64 ? bytesOf(bits) : bytesOf(0x40 | (bits & 15), bits >> 4));
  const rows = parts.map((p) => (typeof p === 'number' ? bytesOf(0, length(p)) : bytesOf(path(p[0]), length(p[1]))));
  return bytesOf(0x5b, 0x81, packaged(bytesOf(path(region), (width === 1 ? 1 : 3) | 0x40, ...rows)));
};

/** A range of memory (`OperationRegion (where, SystemMemory, base, length)`). */
export const memory = (where: string, base: number, length: number): Aml =>
  bytesOf(0x5b, 0x80, path(where), 0, int(base), int(length));
/** A range of ports (`OperationRegion (where, SystemIO, base, length)`). */
export const ports = (where: string, base: number, length: number): Aml =>
  bytesOf(0x5b, 0x80, path(where), 1, int(base), int(length));
/** Fields of 32 bits over a region, one after another, writes leaving the other bits at zero. */
export const dwordFields = (region: string, ...names: readonly string[]): Aml =>
  bytesOf(0x5b, 0x81, packaged(bytesOf(path(region), 0x43, ...names.map((n) => bytesOf(path(n), 0x20)))));
