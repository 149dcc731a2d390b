// XDR codecs as values: what they encode, decode, limit and how the specification writes them. RFC 4506 (May 2006), sections 3 and 4.

/** A value or bytes that a codec refuses; the message names the field. Servers answer it, clients reject the call with it. */
export class XdrError extends Error {}

const utf8 = new TextDecoder('utf-8');
const utf8Encoder = new TextEncoder();
const padding = (length: number): number => -length & 3;

/** Big-endian bytes in units of four, in a buffer that grows. */
export class XdrWriter {
  /** Names of the fields around the one that is written. */
  readonly path: string[] = [];
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #length = 0;

  /** `capacity` in bytes is only a first guess. */
  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }
  get length(): number {
    return this.#length;
  }
  u32(value: number): void {
    const at = this.#grow(4);
    this.#view.setUint32(at, value);
  }
  u64(value: bigint): void {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, value);
  }
  f64(value: number): void {
    const at = this.#grow(8);
    this.#view.setFloat64(at, value);
  }
  /** Bytes and the zeros that fill the last unit. */
  bytes(value: Uint8Array): void {
    const at = this.#grow(value.length + padding(value.length));
    this.#bytes.set(value, at);
  }
  /** Bytes as they are, for what is not XDR: stream data. */
  raw(value: Uint8Array): void {
    const at = this.#grow(value.length);
    this.#bytes.set(value, at);
  }
  /** Overwrites the word at byte `at`. */
  patch(at: number, value: number): void {
    this.#view.setUint32(at, value);
  }
  /** What was written so far; shares the writer's memory. */
  take(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }
  fail(problem: string): never {
    throw new XdrError(`Cannot encode ${this.path.join('.') || 'value'}: ${problem}`);
  }
  #grow(by: number): number {
    const at = this.#length;
    const end = at + by;
    if (end > this.#bytes.length) {
      const bytes = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      bytes.set(this.#bytes);
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer);
    }
    this.#length = end;
    return at;
  }
}

/** Reads what a writer wrote; never past the end. */
export class XdrReader {
  readonly path: string[] = [];
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  get left(): number {
    return this.#bytes.length - this.#at;
  }
  u32(): number {
    return this.#view.getUint32(this.#skip(4));
  }
  i32(): number {
    return this.#view.getInt32(this.#skip(4));
  }
  u64(): bigint {
    return this.#view.getBigUint64(this.#skip(8));
  }
  i64(): bigint {
    return this.#view.getBigInt64(this.#skip(8));
  }
  f64(): number {
    return this.#view.getFloat64(this.#skip(8));
  }
  /** A view of `length` bytes. What fills the last unit is not looked at: C's decoders do not either. */
  bytes(length: number): Uint8Array {
    const at = this.#skip(length + padding(length));
    return this.#bytes.subarray(at, at + length);
  }
  /** A view of all that is left. */
  rest(): Uint8Array {
    return this.#bytes.subarray(this.#skip(this.left));
  }
  /** A count or length, held against `max` and, at `least` bytes for each, against what is left. */
  count(max: number, least: number): number {
    const n = this.u32();
    if (n > max) this.fail(`length ${n}, at most ${max} accepted`);
    if (n * least > this.left) this.fail(`length ${n}, but only ${this.left} bytes are left`);
    return n;
  }
  fail(problem: string): never {
    throw new XdrError(`Cannot decode ${this.path.join('.') || 'value'}: ${problem}`);
  }
  #skip(by: number): number {
    const at = this.#at;
    if (by > this.left) this.fail(`${this.left} bytes are left, ${by} needed`);
    this.#at = at + by;
    return at;
  }
}

export interface Codec<T> {
  /** As RFC 4506 would write the type, for reference pages and comparisons. */
  readonly type: string;
  /** Bytes of the smallest value. */
  readonly least: number;
  /** @throws {XdrError} for a value outside of the type. */
  encode(w: XdrWriter, value: T): void;
  /** @throws {XdrError} for bytes that are no value of the type. */
  decode(r: XdrReader): T;
}
export type ValueOf<C> = C extends Codec<infer T> ? T : never;

/** The encoding of one value. */
export function encode<T>(codec: Codec<T>, value: T): Uint8Array<ArrayBuffer> {
  const w = new XdrWriter();
  codec.encode(w, value);
  return w.take();
}
/** The value that all of `bytes` encode. */
export function decode<T>(codec: Codec<T>, bytes: Uint8Array): T {
  const r = new XdrReader(bytes);
  const value = codec.decode(r);
  if (r.left > 0) r.fail(`${r.left} bytes are left over`);
  return value;
}

const integer = (type: string, min: number, max: number, read: (r: XdrReader) => number): Codec<number> => ({
  type,
  least: 4,
  encode(w, value) {
    if (!Number.isInteger(value) || value < min || value > max) w.fail(`${value}, an integer from ${min} to ${max} accepted`);
    w.u32(value);
  },
  decode(r) {
    const value = read(r);
    if (value < min || value > max) r.fail(`${value}, an integer from ${min} to ${max} accepted`);
    return value;
  },
});
/** Section 4.1. */
export const int = integer('int', -0x8000_0000, 0x7fff_ffff, (r) => r.i32());
/** Section 4.2. */
export const unsigned = integer('unsigned int', 0, 0xffff_ffff, (r) => r.u32());
/** C's smaller types as Sun's XDR library sends them: one unit each. */
export const char = integer('char', -0x80, 0x7f, (r) => (r.i32() << 24) >> 24);
export const unsignedChar = integer('unsigned char', 0, 0xff, (r) => r.u32() & 0xff);
export const unsignedShort = integer('unsigned short', 0, 0xffff, (r) => r.u32() & 0xffff);

const wide = (type: string, min: bigint, max: bigint, read: (r: XdrReader) => bigint): Codec<bigint> => ({
  type,
  least: 8,
  encode(w, value) {
    if (typeof value !== 'bigint' || value < min || value > max) w.fail(`${value}, a bigint from ${min} to ${max} accepted`);
    w.u64(BigInt.asUintN(64, value));
  },
  decode: read,
});
/** Section 4.5. */
export const hyper = wide('hyper', -(1n << 63n), (1n << 63n) - 1n, (r) => r.i64());
export const unsignedHyper = wide('unsigned hyper', 0n, (1n << 64n) - 1n, (r) => r.u64());

/** Section 4.4. Any word but zero decodes as true. */
export const bool: Codec<boolean> = {
  type: 'bool',
  least: 4,
  encode: (w, value) => w.u32(value ? 1 : 0),
  decode: (r) => r.u32() !== 0,
};
/** An int that only says yes (1; decoded from any but 0) or no (0). */
export const flag: Codec<boolean> = { ...bool, type: 'int' };

/** Section 4.7. */
export const double: Codec<number> = {
  type: 'double',
  least: 8,
  encode: (w, value) => w.f64(value),
  decode: (r) => r.f64(),
};

/** Section 4.3: names for the accepted numbers. */
export function enumeration<const M extends Readonly<Record<string, number>>>(members: M): Codec<keyof M & string> {
  const names = new Map<number, keyof M & string>(Object.entries(members).map(([name, n]) => [n, name]));
  return {
    type: 'enum',
    least: 4,
    encode(w, value) {
      const n = members[value];
      if (n === undefined) w.fail(`'${value}', one of ${Object.keys(members).join(', ')} accepted`);
      w.u32(n);
    },
    decode(r) {
      const n = r.i32();
      return names.get(n) ?? r.fail(`${n}, one of ${[...names.keys()].join(', ')} accepted`);
    },
  };
}

/** Section 4.9: exactly `length` bytes. Decoded bytes are a view of the packet's. */
export const opaqueFixed = (length: number): Codec<Uint8Array> => ({
  type: `opaque[${length}]`,
  least: length + padding(length),
  encode(w, value) {
    if (value.length !== length) w.fail(`${value.length} bytes, exactly ${length} accepted`);
    w.bytes(value);
  },
  decode: (r) => r.bytes(length),
});
/** Section 4.10: up to `max` bytes. Decoded bytes are a view of the packet's. */
export const opaque = (max: number): Codec<Uint8Array> => ({
  type: `opaque<${max}>`,
  least: 4,
  encode(w, value) {
    if (value.length > max) w.fail(`${value.length} bytes, at most ${max} accepted`);
    w.u32(value.length);
    w.bytes(value);
  },
  decode: (r) => r.bytes(r.count(max, 1)),
});
/** Section 4.11: up to `max` bytes of UTF-8; what is not UTF-8 decodes as U+FFFD. NUL is refused both ways: it would end a C string. */
export const string = (max: number): Codec<string> => ({
  type: `string<${max}>`,
  least: 4,
  encode(w, value) {
    const bytes = utf8Encoder.encode(value);
    if (bytes.length > max) w.fail(`${bytes.length} bytes, at most ${max} accepted`);
    if (bytes.includes(0)) w.fail('it contains NUL, which ends a C string');
    w.u32(bytes.length);
    w.bytes(bytes);
  },
  decode(r) {
    const bytes = r.bytes(r.count(max, 1));
    if (bytes.includes(0)) r.fail('it contains NUL, which ends a C string');
    // TextDecoder swallows a byte order mark at the front.
    const mark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    return mark ? `\ufeff${utf8.decode(bytes.subarray(3))}` : utf8.decode(bytes);
  },
});

/** Section 4.19. Any word but zero says that the value is there: some clients send 0x01000000. */
export const optional = <T>(codec: Codec<T>): Codec<T | undefined> => ({
  type: `${codec.type}*`,
  least: 4,
  encode(w, value) {
    w.u32(value === undefined ? 0 : 1);
    if (value !== undefined) codec.encode(w, value);
  },
  decode: (r) => (r.u32() === 0 ? undefined : codec.decode(r)),
});

function elements<T>(codec: Codec<T>, w: XdrWriter, values: readonly T[]): void {
  for (let i = 0; i < values.length; i++) {
    w.path.push(`${i}`);
    codec.encode(w, values[i]!);
    w.path.pop();
  }
}
function readElements<T>(codec: Codec<T>, r: XdrReader, count: number): T[] {
  const values: T[] = [];
  for (let i = 0; i < count; i++) {
    r.path.push(`${i}`);
    values.push(codec.decode(r));
    r.path.pop();
  }
  return values;
}
/** Section 4.12: exactly `length` elements. */
export const arrayFixed = <T>(codec: Codec<T>, length: number): Codec<readonly T[]> => ({
  type: `${codec.type}[${length}]`,
  least: codec.least * length,
  encode(w, value) {
    if (value.length !== length) w.fail(`${value.length} elements, exactly ${length} accepted`);
    elements(codec, w, value);
  },
  decode: (r) => readElements(codec, r, length),
});
/** Section 4.13: up to `max` elements. */
export const array = <T>(codec: Codec<T>, max: number): Codec<readonly T[]> => ({
  type: `${codec.type}<${max}>`,
  least: 4,
  encode(w, value) {
    if (value.length > max) w.fail(`${value.length} elements, at most ${max} accepted`);
    w.u32(value.length);
    elements(codec, w, value);
  },
  decode: (r) => readElements(codec, r, r.count(max, Math.max(1, codec.least))),
});

type AnyCodec = Codec<never> | Codec<unknown>;
type StructValue<F> = { readonly [K in keyof F]: ValueOf<F[K]> };
/** Section 4.14: fields in the order of the literal. */
export function struct<const F extends Readonly<Record<string, AnyCodec>>>(fields: F): Codec<StructValue<F>> {
  const list = Object.entries(fields) as [string, Codec<unknown>][];
  return {
    type: `struct { ${list.map(([name, codec]) => `${codec.type} ${name}; `).join('')}}`,
    least: list.reduce((sum, [, codec]) => sum + codec.least, 0),
    encode(w, value) {
      const record = value as Readonly<Record<string, unknown>>;
      for (const [name, codec] of list) {
        w.path.push(name);
        codec.encode(w, record[name]);
        w.path.pop();
      }
    },
    decode(r) {
      const value: Record<string, unknown> = {};
      for (const [name, codec] of list) {
        r.path.push(name);
        value[name] = codec.decode(r);
        r.path.pop();
      }
      return value as StructValue<F>;
    },
  };
}

type Arms = Readonly<Record<string, readonly [number, AnyCodec]>>;
type UnionValue<A extends Arms> = { [K in keyof A & string]: { readonly type: K; readonly value: ValueOf<A[K][1]> } }[keyof A &
  string];
/** Section 4.15 with an int in front: each arm by a name, its number and its codec. */
export function union<const A extends Arms>(arms: A): Codec<UnionValue<A>> {
  const byNumber = new Map(Object.entries(arms).map(([type, [n, codec]]) => [n, { type, codec: codec as Codec<unknown> }]));
  return {
    type: `union { ${[...byNumber].map(([n, arm]) => `case ${n}: ${arm.codec.type}; `).join('')}}`,
    least: 4 + Math.min(...[...byNumber.values()].map((arm) => arm.codec.least)),
    encode(w, { type, value }) {
      const arm = arms[type];
      if (arm === undefined) w.fail(`type '${type}', one of ${Object.keys(arms).join(', ')} accepted`);
      w.u32(arm[0]);
      (arm[1] as Codec<unknown>).encode(w, value);
    },
    decode(r) {
      const n = r.i32();
      const arm = byNumber.get(n);
      if (arm === undefined) return r.fail(`type ${n}, one of ${[...byNumber.keys()].join(', ')} accepted`);
      return { type: arm.type, value: arm.codec.decode(r) } as UnionValue<A>;
    },
  };
}

/** Section 4.16: no bytes. */
export const nothing: Codec<void> = { type: 'void', least: 0, encode: () => {}, decode: () => {} };

/** The same bytes as `codec` under another value type. `write` may throw an XdrError by the writer's `fail`. */
export const mapped = <T, U>(codec: Codec<T>, read: (value: T) => U, write: (value: U, w: XdrWriter) => T): Codec<U> => ({
  type: codec.type,
  least: codec.least,
  encode: (w, value) => codec.encode(w, write(value, w)),
  decode: (r) => read(codec.decode(r)),
});
