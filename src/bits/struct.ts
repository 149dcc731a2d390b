// Fixed little-endian layouts over a shared buffer: one literal gives the offsets, the size and a typed view.
// Fields are aligned to their own size, as the System V ABI, x86-64 supplement, section 3.1.2 aligns a C struct.

/** Kinds of one field. `f64` holds times in ns (`Infinity` is a value like any other); `u64` and `i64` are bigints. */
export type Scalar = 'u8' | 'i8' | 'u16' | 'i16' | 'u32' | 'i32' | 'u64' | 'i64' | 'f64';

/** A scalar, `[kind, count]` for an array, a nested layout, or `[layout, count]`. */
export type Field = Scalar | readonly [Scalar, number] | AnyLayout | readonly [AnyLayout, number];
export type Fields = Readonly<Record<string, Field>>;

/** What a field needs to know of a nested layout, whatever its fields. */
interface AnyLayout {
  readonly size: number;
  readonly align: number;
  view(buffer: ArrayBufferLike, offset: number): object;
}

type ScalarValue<S> = S extends 'u64' | 'i64' ? bigint : number;
type ArrayValue<S> = S extends 'u8'
  ? Uint8Array
  : S extends 'i8'
    ? Int8Array
    : S extends 'u16'
      ? Uint16Array
      : S extends 'i16'
        ? Int16Array
        : S extends 'u32'
          ? Uint32Array
          : S extends 'i32'
            ? Int32Array
            : S extends 'u64'
              ? BigUint64Array
              : S extends 'i64'
                ? BigInt64Array
                : Float64Array;
type ScalarNames<F extends Fields> = { [K in keyof F]: F[K] extends Scalar ? K : never }[keyof F];

/** The object that reads and writes a layout's fields in place. Scalars are properties; arrays are typed arrays over the buffer. */
export type View<F extends Fields> = { -readonly [K in ScalarNames<F>]: ScalarValue<F[K]> } & {
  readonly [K in Exclude<keyof F, ScalarNames<F>>]: F[K] extends readonly [Layout<infer G>, number]
    ? readonly View<G>[]
    : F[K] extends readonly [infer S, number]
      ? ArrayValue<S>
      : F[K] extends Layout<infer G>
        ? View<G>
        : never;
};

/** The view type of a layout value: `type PitState = ViewOf<typeof pitLayout>`. */
export type ViewOf<L> = L extends Layout<infer F> ? View<F> : never;

export interface Layout<F extends Fields> {
  /** What the state belongs to, for snapshots; empty where a layout is only a part of another. */
  readonly name: string;
  /** Of the state's meaning; counted up when a field changes. */
  readonly version: number;
  /** Bytes, a multiple of `align`. */
  readonly size: number;
  readonly align: number;
  readonly offsets: Readonly<Record<keyof F, number>>;
  readonly fields: F;
  /** A view at byte `offset`, which must be a multiple of `align`. Initialises nothing. */
  view(buffer: ArrayBufferLike, offset: number): View<F>;
}

const sizes: Readonly<Record<Scalar, number>> = { u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, u64: 8, i64: 8, f64: 8 };

type Base = { readonly d: DataView };
interface Accessor {
  get(this: Base): number | bigint;
  set(this: Base, v: never): void;
}

/** One closure per field on the view's prototype: V8 inlines it with the offset as a constant. */
const accessor: Readonly<Record<Scalar, (o: number) => Accessor>> = {
  u8: (o) => ({
    get() {
      return this.d.getUint8(o);
    },
    set(v: number) {
      this.d.setUint8(o, v);
    },
  }),
  i8: (o) => ({
    get() {
      return this.d.getInt8(o);
    },
    set(v: number) {
      this.d.setInt8(o, v);
    },
  }),
  u16: (o) => ({
    get() {
      return this.d.getUint16(o, true);
    },
    set(v: number) {
      this.d.setUint16(o, v, true);
    },
  }),
  i16: (o) => ({
    get() {
      return this.d.getInt16(o, true);
    },
    set(v: number) {
      this.d.setInt16(o, v, true);
    },
  }),
  u32: (o) => ({
    get() {
      return this.d.getUint32(o, true);
    },
    set(v: number) {
      this.d.setUint32(o, v, true);
    },
  }),
  i32: (o) => ({
    get() {
      return this.d.getInt32(o, true);
    },
    set(v: number) {
      this.d.setInt32(o, v, true);
    },
  }),
  u64: (o) => ({
    get() {
      return this.d.getBigUint64(o, true);
    },
    set(v: bigint) {
      this.d.setBigUint64(o, v, true);
    },
  }),
  i64: (o) => ({
    get() {
      return this.d.getBigInt64(o, true);
    },
    set(v: bigint) {
      this.d.setBigInt64(o, v, true);
    },
  }),
  f64: (o) => ({
    get() {
      return this.d.getFloat64(o, true);
    },
    set(v: number) {
      this.d.setFloat64(o, v, true);
    },
  }),
};

const arrays: Readonly<Record<Scalar, new (b: ArrayBufferLike, o: number, n: number) => object>> = {
  u8: Uint8Array,
  i8: Int8Array,
  u16: Uint16Array,
  i16: Int16Array,
  u32: Uint32Array,
  i32: Int32Array,
  u64: BigUint64Array,
  i64: BigInt64Array,
  f64: Float64Array,
};

const isScalar = (f: Field): f is Scalar => typeof f === 'string';
const isPair = (f: Field): f is readonly [Scalar | AnyLayout, number] => Array.isArray(f);

function measure(f: Field): { size: number; align: number } {
  if (isScalar(f)) return { size: sizes[f], align: sizes[f] };
  if (!isPair(f)) return f;
  const one = measure(f[0]);
  return { size: one.size * f[1], align: one.align };
}

function compound(f: Exclude<Field, Scalar>, buffer: ArrayBufferLike, at: number): unknown {
  if (!isPair(f)) return f.view(buffer, at);
  const [kind, count] = f;
  if (typeof kind === 'string') return new arrays[kind](buffer, at, count);
  return Array.from({ length: count }, (_, i) => kind.view(buffer, at + i * kind.size));
}

/** The class of a layout's views. */
function viewClass(
  fields: Fields,
  offsets: Readonly<Record<string, number>>,
  size: number,
): new (
  buffer: ArrayBufferLike,
  offset: number,
) => Base {
  const compounds = Object.entries(fields).filter((e): e is [string, Exclude<Field, Scalar>] => !isScalar(e[1]));
  const isTable = (f: Field): boolean => isPair(f) && !isScalar(f[0]);
  const parts = compounds.filter(([, f]) => !isTable(f));
  class StructView {
    readonly d: DataView;
    constructor(buffer: ArrayBufferLike, offset: number) {
      this.d = new DataView(buffer, offset, size);
      for (const [name, f] of parts) {
        Object.defineProperty(this, name, { value: compound(f, buffer, offset + offsets[name]!), enumerable: true });
      }
    }
  }
  // Tables may have hundreds of entries, which not every thread that has a view of them looks at.
  for (const [name, f] of compounds.filter(([, f]) => isTable(f)))
    Object.defineProperty(StructView.prototype, name, {
      get(this: Base) {
        const { buffer, byteOffset } = this.d;
        const value = compound(f, buffer, byteOffset + offsets[name]!);
        Object.defineProperty(this, name, { value, enumerable: true });
        return value;
      },
      enumerable: true,
    });
  for (const [name, f] of Object.entries(fields))
    if (isScalar(f)) Object.defineProperty(StructView.prototype, name, { ...accessor[f](offsets[name]!), enumerable: true });
  return StructView;
}

/**
 * A layout from a literal of field kinds, in order of declaration. `as` names and versions it for snapshots.
 * Fields that threads change at the same time are arrays (`['i32', 1]`), which `Atomics` takes.
 */
export function struct<const F extends Fields>(fields: F, as: { name?: string; version?: number } = {}): Layout<F> {
  const offsets: Record<string, number> = {};
  let end = 0;
  let align = 1;
  for (const [name, f] of Object.entries(fields)) {
    if (name === 'd') throw new Error("Cannot lay out a struct: a field is named 'd', which the view uses itself");
    const m = measure(f);
    const at = Math.ceil(end / m.align) * m.align;
    offsets[name] = at;
    end = at + m.size;
    align = Math.max(align, m.align);
  }
  const size = Math.ceil(end / align) * align;
  // Most layouts of a program are never looked at.
  let views: ReturnType<typeof viewClass> | undefined;

  return {
    name: as.name ?? '',
    version: as.version ?? 1,
    size,
    align,
    offsets: offsets as Record<keyof F, number>,
    fields,
    view(buffer, offset) {
      if (offset % align !== 0) throw new Error(`Cannot view a struct at ${offset}: not a multiple of its alignment ${align}`);
      views ??= viewClass(fields, offsets, size);
      return new views(buffer, offset) as unknown as View<F>;
    },
  };
}
