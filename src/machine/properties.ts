// Properties of devices as data: one row gives parsing, checking, the default, the help and what monitors say of it.
// Names and types are QEMU's (QEMU 7.2, "QEMU QMP Reference Manual", `device-list-properties`).

/** One property with values of type T. */
export interface Property<T> {
  /** QEMU's name of the type: `str`, `bool`, `uint16`, `size`, `OnOffAuto`, … */
  readonly type: string;
  readonly description: string;
  readonly default: T;
  /** What is accepted, in words. */
  readonly accepted: string;
  /** The value of a JSON value or of a command line's text; undefined for what is not accepted. */
  parse(value: unknown): T | undefined;
}
export type PropertyTable = Readonly<Record<string, Property<unknown>>>;
/** The values of a table's properties by name. */
export type Values<P extends PropertyTable> = { readonly [K in keyof P]: P[K] extends Property<infer T> ? T : never };

/** Text; undefined when it was not given. */
export const str = (description = ''): Property<string | undefined> => ({
  type: 'str',
  description,
  default: undefined,
  accepted: 'a string',
  parse: (v) => (typeof v === 'string' ? v : typeof v === 'number' ? String(v) : undefined),
});

/** The name of a back-end or object of `kind`, which the device looks up on the I/O thread. */
export const named = (kind: string, description = `ID of a ${kind} to use as a backend`): Property<string | undefined> => ({
  ...str(description),
  accepted: `the name of a ${kind}`,
});

export const bool = (value: boolean, description = 'on/off'): Property<boolean> => ({
  type: 'bool',
  description,
  default: value,
  accepted: 'on or off',
  parse: (v) => {
    if (typeof v === 'boolean') return v;
    if (v === 'on' || v === 'yes' || v === 'true' || v === 'y') return true;
    return v === 'off' || v === 'no' || v === 'false' || v === 'n' ? false : undefined;
  },
});

/** One of a few words. */
export const choice = <const C extends string>(
  accepted: readonly C[],
  value: C,
  type = 'str',
  description = '',
): Property<C> => ({
  type,
  description: description || accepted.join('/'),
  default: value,
  accepted: accepted.join(', '),
  parse: (v) => {
    const word = typeof v === 'boolean' ? (v ? 'on' : 'off') : v;
    return accepted.find((a) => a === word);
  },
});
export const onOffAuto = (value: 'on' | 'off' | 'auto'): Property<'on' | 'off' | 'auto'> =>
  choice(['on', 'off', 'auto'], value, 'OnOffAuto', 'on/off/auto');

/** A whole number from text (decimal or 0x) or JSON. */
export function integer(v: unknown): number | undefined {
  const n = typeof v === 'number' ? v : typeof v === 'string' && /^(0x[\da-f]+|-?\d+)$/i.test(v) ? Number(v) : Number.NaN;
  return Number.isSafeInteger(n) ? n : undefined;
}
const ranged = (type: string, least: number, most: number, value: number, description: string): Property<number> => ({
  type,
  description,
  default: value,
  accepted: `a number from ${least} to ${most}`,
  parse: (v) => {
    const n = integer(v);
    return n !== undefined && n >= least && n <= most ? n : undefined;
  },
});
export const uint8 = (value: number, description = ''): Property<number> => ranged('uint8', 0, 0xff, value, description);
export const uint16 = (value: number, description = ''): Property<number> => ranged('uint16', 0, 0xffff, value, description);
export const uint32 = (value: number, description = ''): Property<number> => ranged('uint32', 0, 0xffff_ffff, value, description);
export const uint64 = (value: number, description = ''): Property<number> =>
  ranged('uint64', 0, Number.MAX_SAFE_INTEGER, value, description);
export const int32 = (value: number, description = ''): Property<number> =>
  ranged('int32', -0x8000_0000, 0x7fff_ffff, value, description);

/** Bytes, with K, M, G or T. */
export const size = (value: number, description = ''): Property<number> => ({
  type: 'size',
  description,
  default: value,
  accepted: 'bytes, or a number with K, M, G or T',
  parse: (v) => {
    const unit = typeof v === 'string' ? /^(\d+(?:\.\d+)?)([kmgt])b?$/i.exec(v) : null;
    if (!unit) return integer(v);
    return Math.floor(Number(unit[1]) * 2 ** (10 * (1 + 'kmgt'.indexOf(unit[2]!.toLowerCase()))));
  },
});

/** An Ethernet address as six bytes; undefined when it was not given. */
export const macaddr = (): Property<readonly number[] | undefined> => ({
  type: 'str',
  description: 'Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56',
  default: undefined,
  accepted: 'an address such as 52:54:00:12:34:56',
  parse: (v) =>
    typeof v === 'string' && /^[\da-f]{2}([:-][\da-f]{2}){5}$/i.test(v)
      ? v.split(/[:-]/).map((b) => Number.parseInt(b, 16))
      : undefined,
});

/**
 * The values that `given` sets in `table`, and the defaults of the others.
 * @throws Error for names that are not in the table and for values that are not accepted
 */
export function readProperties<P extends PropertyTable>(
  owner: string,
  table: P,
  given: Readonly<Record<string, unknown>>,
): Values<P> {
  const values: Record<string, unknown> = Object.fromEntries(Object.entries(table).map(([name, p]) => [name, p.default]));
  for (const [name, value] of Object.entries(given)) {
    const property = Object.hasOwn(table, name) ? table[name] : undefined;
    if (!property) throw new Error(`Cannot set property '${owner}.${name}': there is no such property`);
    const parsed = property.parse(value);
    if (parsed === undefined)
      throw new Error(`Cannot set property '${owner}.${name}' to ${JSON.stringify(value)}: accepted: ${property.accepted}`);
    values[name] = parsed;
  }
  return values as Values<P>;
}
