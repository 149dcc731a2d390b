// Types of QMP arguments and results as values: each checks what comes and describes itself for query-qmp-schema.
// QEMU "How to use the QAPI code generator", "Client JSON Protocol introspection"; qapi/introspect.json (QEMU 7.2).
import { QmpError } from './error.ts';
import { isObject, type Json } from './json.ts';

/** Gives every type its name in the introspection and collects what they are. */
export interface Describe {
  /** The name of a type that is described once, however often it is used. */
  type(key: object, info: () => { readonly [name: string]: Json }): string;
  array(element: string): string;
  builtin(name: string, jsonType: string): string;
}
export interface Schema<T> {
  /** What an error message calls it. */
  readonly label: string;
  /** The value, checked. `where`: its path. @throws {QmpError} in QEMU's words. */
  check(value: Json, where: string): T;
  describe(d: Describe): string;
  /** A value of the command line, whose numbers and booleans are text, as `check` wants it; what does not fit stays as it is. */
  coerce(value: Json): Json;
}
export type SchemaValue<S> = S extends Schema<infer T> ? T : never;

const wrongType = (where: string, label: string): never => {
  throw new QmpError(`Invalid parameter type for '${where}', expected: ${label}`);
};
const leaf = (where: string): string => where.slice(where.lastIndexOf('.') + 1);

const same = (value: Json): Json => value;
const flag = (value: Json): Json =>
  value === 'on' || value === 'yes' || value === 'true' || value === 'y'
    ? true
    : value === 'off' || value === 'no' || value === 'false' || value === 'n'
      ? false
      : value;
const UNITS = ['', 'k', 'm', 'g', 't', 'p', 'e'];
const numeric = (value: Json): Json => {
  const found = typeof value === 'string' ? /^(-?(?:0x[\da-f]+|\d+))([bkmgtpe]?)$/i.exec(value) : null;
  if (!found) return value;
  const unit = found[2]!.toLowerCase();
  const n = Number(found[1]) * 1024 ** Math.max(UNITS.indexOf(unit), 0);
  return Number.isSafeInteger(n) ? n : BigInt(found[1]!) * 1024n ** BigInt(Math.max(UNITS.indexOf(unit), 0));
};
const builtin = <T>(
  name: string,
  jsonType: string,
  label: string,
  is: (value: Json) => value is Json & T,
  coerce: (value: Json) => Json = same,
): Schema<T> => ({
  label,
  check: (value, where) => (is(value) ? value : wrongType(where, label)),
  describe: (d) => d.builtin(name, jsonType),
  coerce,
});
export const str = builtin<string>('str', 'string', 'string', (v) => typeof v === 'string');
export const bool = builtin<boolean>('bool', 'boolean', 'boolean', (v) => typeof v === 'boolean', flag);
/** An integer of up to 53 bits. */
export const int = builtin<number>(
  'int',
  'int',
  'integer',
  (v): v is number => typeof v === 'number' && Number.isInteger(v),
  numeric,
);
export const nullValue = builtin<null>('null', 'null', 'null', (v) => v === null);
export const any: Schema<Json> = {
  label: 'any',
  check: (value) => value,
  describe: (d) => d.builtin('any', 'value'),
  coerce: same,
};
/** A number with or without a fraction. */
export const number: Schema<number> = {
  label: 'number',
  check: (v, where) => (typeof v === 'number' ? v : typeof v === 'bigint' ? Number(v) : wrongType(where, 'number')),
  describe: (d) => d.builtin('number', 'number'),
  coerce: (v) => (typeof v === 'string' && v !== '' && Number.isFinite(Number(v)) ? Number(v) : v),
};
const wideInt = (min: bigint, max: bigint): Schema<bigint> => ({
  label: 'integer',
  check(v, where) {
    const n = typeof v === 'bigint' ? v : typeof v === 'number' && Number.isInteger(v) ? BigInt(v) : undefined;
    return n === undefined || n < min || n > max ? wrongType(where, 'integer') : n;
  },
  describe: (d) => d.builtin('int', 'int'),
  coerce: numeric,
});
export const int64 = wideInt(-(1n << 63n), (1n << 63n) - 1n);
export const uint64 = wideInt(0n, (1n << 64n) - 1n);

export function enumeration<const V extends readonly string[]>(label: string, values: V): Schema<V[number]> {
  const schema: Schema<V[number]> = {
    label,
    check(value, where) {
      if (typeof value !== 'string') return wrongType(where, 'string');
      if (!values.includes(value)) throw new QmpError(`Parameter '${leaf(where)}' does not accept value '${value}'`);
      return value;
    },
    describe: (d) => d.type(schema, () => ({ 'meta-type': 'enum', members: values.map((name) => ({ name })), values })),
    coerce: same,
  };
  return schema;
}
export const array = <T>(of: Schema<T>): Schema<readonly T[]> => ({
  label: 'array',
  check: (value, where) =>
    Array.isArray(value) ? value.map((v: Json, i) => of.check(v, `${where}[${i}]`)) : wrongType(where, 'array'),
  describe: (d) => d.array(of.describe(d)),
  coerce: (value) => (Array.isArray(value) ? value.map((v: Json) => of.coerce(v)) : value),
});

/** A member that may be left out. */
export interface Optional<T> {
  readonly optional: Schema<T>;
}
export const optional = <T>(schema: Schema<T>): Optional<T> => ({ optional: schema });
type Member = Schema<unknown> | Schema<never> | Optional<unknown> | Optional<never>;
export type Members = Readonly<Record<string, Member>>;
type OptionalNames<M> = { [K in keyof M]: M[K] extends Optional<infer _> ? K : never }[keyof M];
export type MembersValue<M> = { readonly [K in Exclude<keyof M, OptionalNames<M>>]: SchemaValue<M[K]> } & {
  readonly [K in OptionalNames<M>]?: (M[K] extends Optional<infer T> ? T : never) | undefined;
};

const schemaOf = (member: Member): Schema<unknown> => ('optional' in member ? member.optional : member) as Schema<unknown>;
const path = (where: string, name: string): string => (where === '' ? name : `${where}.${name}`);

function checkMembers(members: Members, value: { readonly [name: string]: Json }, where: string): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [name, member] of Object.entries(members)) {
    const inner = Object.hasOwn(value, name) ? value[name] : undefined;
    if (inner !== undefined) out[name] = schemaOf(member).check(inner, path(where, name));
    else if (!('optional' in member)) throw new QmpError(`Parameter '${path(where, name)}' is missing`);
  }
  return out;
}
function refuseOthers(value: { readonly [name: string]: Json }, accepted: Members, where: string): void {
  for (const name of Object.keys(value)) {
    if (!Object.hasOwn(accepted, name)) throw new QmpError(`Parameter '${path(where, name)}' is unexpected`);
  }
}
const coerceMembers = (members: Members, value: Json): Json =>
  isObject(value)
    ? Object.fromEntries(
        Object.entries(value).map(([k, v]) => [k, Object.hasOwn(members, k) ? schemaOf(members[k]!).coerce(v) : v]),
      )
    : value;
const describeMembers = (members: Members, d: Describe): Json[] =>
  Object.entries(members).map(([name, member]) => ({
    name,
    type: schemaOf(member).describe(d),
    ...('optional' in member ? { default: null } : {}),
  }));

export interface ObjectSchema<M extends Members> extends Schema<MembersValue<M>> {
  readonly members: M;
}
/** `features` say in the introspection what the type can do. */
export function object<const M extends Members>(label: string, members: M, features: readonly string[] = []): ObjectSchema<M> {
  const schema: ObjectSchema<M> = {
    label,
    members,
    check(value, where) {
      if (!isObject(value)) return wrongType(where, 'object');
      const out = checkMembers(members, value, where);
      refuseOthers(value, members, where);
      return out as MembersValue<M>;
    },
    describe: (d) =>
      d.type(schema, () => ({
        'meta-type': 'object',
        members: describeMembers(members, d),
        ...(features.length > 0 ? { features } : {}),
      })),
    coerce: (value) => coerceMembers(members, value),
  };
  return schema;
}

type Branches = Readonly<Record<string, Members>>;
type UnionValue<B, Tag extends string, R extends Branches> = {
  [K in keyof R & string]: MembersValue<B> & MembersValue<R[K]> & { readonly [T in Tag]: K };
}[keyof R & string];
/** An object whose member `tag` chooses the members that come on top of `base`'s. */
export function union<const B extends Members, const Tag extends string, const R extends Branches>(
  label: string,
  base: B,
  tag: Tag,
  branches: R,
  features: Readonly<Record<string, readonly string[]>> = {},
): Schema<UnionValue<B, Tag, R>> {
  const tagSchema = enumeration(`${label}Kind`, Object.keys(branches));
  const common: Members = { ...base, [tag]: tagSchema };
  const parts = new Map(
    Object.entries(branches).map(([name, members]) => [name, object(`${label}-${name}`, members, features[name])]),
  );
  const schema: Schema<UnionValue<B, Tag, R>> = {
    label,
    check(value, where) {
      if (!isObject(value)) return wrongType(where, 'object');
      const out = checkMembers(common, value, where);
      const branch = branches[out[tag] as string]!;
      Object.assign(out, checkMembers(branch, value, where));
      refuseOthers(value, { ...common, ...branch }, where);
      return out as UnionValue<B, Tag, R>;
    },
    describe: (d) =>
      d.type(schema, () => ({
        'meta-type': 'object',
        members: describeMembers(common, d),
        tag,
        variants: [...parts].map(([name, part]) => ({ case: name, type: part.describe(d) })),
      })),
    coerce: (value) => (isObject(value) ? coerceMembers({ ...common, ...(branches[String(value[tag])] ?? {}) }, value) : value),
  };
  return schema;
}

type JsonKind = 'string' | 'boolean' | 'number' | 'object' | 'array' | 'null';
const kindOf = (value: Json): JsonKind =>
  value === null
    ? 'null'
    : Array.isArray(value)
      ? 'array'
      : typeof value === 'bigint'
        ? 'number'
        : (typeof value as 'string' | 'boolean' | 'number' | 'object');
/** One of several types, told apart by what kind of JSON the value is. */
export function alternate<const A extends Readonly<Partial<Record<JsonKind, Schema<unknown> | Schema<never>>>>>(
  label: string,
  kinds: A,
): Schema<SchemaValue<A[keyof A]>> {
  const schema: Schema<SchemaValue<A[keyof A]>> = {
    label,
    check(value, where) {
      const inner = (kinds as Partial<Record<JsonKind, Schema<unknown>>>)[kindOf(value)];
      return (inner === undefined ? wrongType(where, label) : inner.check(value, where)) as SchemaValue<A[keyof A]>;
    },
    describe: (d) =>
      d.type(schema, () => ({
        'meta-type': 'alternate',
        members: Object.values(kinds as Record<string, Schema<unknown>>).map((k) => ({ type: k.describe(d) })),
      })),
    // Text is a name where names are accepted; otherwise it is what the one other kind makes of it.
    coerce(value) {
      const all = kinds as Partial<Record<JsonKind, Schema<unknown>>>;
      const fit = all[kindOf(value)];
      if (fit) return fit.coerce(value);
      const made = Object.values(all).map((k) => k.coerce(value));
      return made.find((v) => v !== value) ?? value;
    },
  };
  return schema;
}
