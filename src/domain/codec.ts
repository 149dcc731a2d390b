// Elements as values: a codec is one description of an XML element from which its type, parser and printer follow; what it does not name is kept.
import { xmlError } from './errors.ts';
import { elementsOf, newElement, textOf, type XmlElement } from './xml.ts';

/** How a string in an attribute or an element's text stands for a value. */
export interface Scalar<T> {
  parse(text: string): T | undefined;
  format(value: T): string;
  /** Ends the message about a bad value, for example `Expected integer value`. */
  readonly expected?: string;
}

/** What a codec did not know of an element, kept so that it is written back. */
export interface Extra {
  attributes: Record<string, string>;
  nodes: XmlElement[];
}

/** An element that is being read: fields take what they know, the rest becomes `extra`. */
export interface Source {
  readonly element: XmlElement;
  readonly attributes: Record<string, string>;
  children: XmlElement[];
}

export interface Field<T> {
  take(source: Source): T;
  put(value: T, out: XmlElement): void;
}

export interface Codec<T> {
  readonly name: string;
  parse(element: XmlElement): T;
  format(value: T): XmlElement;
}

type FieldValue<F> = F extends Field<infer T> ? T : never;
type OptionalKey<F> = { [K in keyof F]: undefined extends FieldValue<F[K]> ? K : never }[keyof F];
/** The value of an element with the fields `F`: fields that may be absent are optional properties. */
export type Model<F> = { [K in Exclude<keyof F, OptionalKey<F>>]: FieldValue<F[K]> } & {
  [K in OptionalKey<F>]?: FieldValue<F[K]>;
} & { extra?: Extra };
/** The value type of a codec. */
export type Value<C> = C extends Codec<infer T> ? T : never;

/** Replaces the error of a bad or missing attribute, where libvirt words it differently. */
export interface Wording {
  invalid?: (value: string) => Error;
  missing?: (element: XmlElement) => Error;
}

export const string: Scalar<string> = { parse: (text) => text, format: (value) => value };
export const integer: Scalar<number> = {
  parse: (text) => (/^-?\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined),
  format: String,
  expected: 'Expected integer value',
};
export const unsigned: Scalar<number> = {
  parse: (text) => (/^(0x[0-9a-f]+|\d+)$/i.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined),
  format: String,
  expected: 'Expected non-negative integer value',
};
/** A number from 0 that is printed in hexadecimal with at least `digits` digits. */
export const hex = (digits: number): Scalar<number> => ({
  ...unsigned,
  format: (value) => `0x${value.toString(16).padStart(digits, '0')}`,
});
/** A number from 1. */
export const positive: Scalar<number> = {
  parse: (text) => (/^\d+$/.test(text) && Number(text) > 0 ? Number(text) : undefined),
  format: String,
  expected: 'Expected positive integer value',
};
export const oneOf = <const T extends string>(...values: readonly T[]): Scalar<T> => ({
  parse: (text) => values.find((value) => value === text),
  format: (value) => value,
});
export const yesNo = oneOf('yes', 'no');
export const onOff = oneOf('on', 'off');

function decode<T>(scalar: Scalar<T>, text: string, describe: (expected: string) => Error): T {
  const value = scalar.parse(text);
  if (value === undefined) throw describe(scalar.expected ? ` ${scalar.expected}` : '');
  return value;
}

function takeAttribute(source: Source, name: string): string | undefined {
  const text = source.attributes[name];
  delete source.attributes[name];
  return text;
}

const invalidAttribute = (name: string, element: XmlElement, text: string, expected: string): Error =>
  xmlError(`Invalid value for attribute '${name}' in element '${element.name}': '${text}'.${expected}`);

/** An attribute that may be absent. */
export const attribute = <T>(name: string, scalar: Scalar<T>, wording: Wording = {}): Field<T | undefined> => ({
  take(source) {
    const text = takeAttribute(source, name);
    if (text === undefined) return undefined;
    return decode(scalar, text, (expected) => wording.invalid?.(text) ?? invalidAttribute(name, source.element, text, expected));
  },
  put(value, out) {
    if (value !== undefined) out.attributes[name] = scalar.format(value);
  },
});

/** An attribute without which the element is refused. */
export function required<T>(name: string, scalar: Scalar<T>, wording: Wording = {}): Field<T> {
  const inner = attribute(name, scalar, wording);
  return {
    take(source) {
      const value = inner.take(source);
      if (value !== undefined) return value;
      throw (
        wording.missing?.(source.element) ?? xmlError(`Missing required attribute '${name}' in element '${source.element.name}'`)
      );
    },
    put: (value, out) => inner.put(value, out),
  };
}

/** An attribute that gets `value` when the document does not give it. */
export function withDefault<T>(field: Field<T | undefined>, value: T): Field<T> {
  return { take: (source) => field.take(source) ?? value, put: (given, out) => field.put(given, out) };
}

/** The element's own text; an empty one counts as absent. */
export const content = <T>(scalar: Scalar<T>): Field<T | undefined> => ({
  take(source) {
    const text = textOf(source.element);
    if (text === '') return undefined;
    return decode(scalar, text.trim(), (expected) =>
      xmlError(`Invalid value for element '${source.element.name}': '${text}'.${expected}`),
    );
  },
  put(value, out) {
    if (value !== undefined) out.nodes.push(scalar.format(value));
  },
});

function takeChildren(source: Source, name: string): XmlElement[] {
  const found = source.children.filter((child) => child.name === name);
  if (found.length > 0) source.children = source.children.filter((child) => child.name !== name);
  return found;
}

/** A child element that may be absent; when there are several the first counts, as in libvirt. */
export const child = <T>(codec: Codec<T>): Field<T | undefined> => ({
  take(source) {
    const [first] = takeChildren(source, codec.name);
    return first && codec.parse(first);
  },
  put(value, out) {
    if (value !== undefined) out.nodes.push(codec.format(value));
  },
});

/** All children of one name. */
export const children = <T>(codec: Codec<T>): Field<T[]> => ({
  take: (source) => takeChildren(source, codec.name).map((element) => codec.parse(element)),
  put: (values, out) => void out.nodes.push(...values.map((value) => codec.format(value))),
});

/** A child that holds only text. */
export const leaf = <T>(name: string, scalar: Scalar<T>, wording: Wording = {}): Field<T | undefined> => ({
  take(source) {
    const [first] = takeChildren(source, name);
    if (!first) return undefined;
    const text = textOf(first);
    return decode(
      scalar,
      text,
      (expected) => wording.invalid?.(text) ?? xmlError(`Invalid value for element '${name}': '${text}'.${expected}`),
    );
  },
  put(value, out) {
    if (value !== undefined) out.nodes.push(newElement(name, {}, [scalar.format(value)]));
  },
});

/** A child whose presence is the value. */
export const flag = (name: string): Field<true | undefined> => ({
  take: (source) => (takeChildren(source, name).length > 0 ? true : undefined),
  put(value, out) {
    if (value) out.nodes.push(newElement(name));
  },
});

/** A child that is kept as it is. */
export const kept = (name: string): Field<XmlElement | undefined> => ({
  take: (source) => takeChildren(source, name)[0],
  put(value, out) {
    if (value) out.nodes.push(value);
  },
});

/** All children of one name, kept as they are. */
export const allKept = (name: string): Field<XmlElement[]> => ({
  take: (source) => takeChildren(source, name),
  put: (values, out) => void out.nodes.push(...values),
});

/** An element: its fields in the order in which libvirt prints them. */
export function element<F extends Record<string, Field<unknown>>>(name: string, fields: F): Codec<Model<F>> {
  const entries = Object.entries(fields);
  return {
    name,
    parse(tree) {
      const source: Source = { element: tree, attributes: { ...tree.attributes }, children: elementsOf(tree) };
      const value: Record<string, unknown> = {};
      for (const [key, field] of entries) {
        const part = field.take(source);
        if (part !== undefined) value[key] = part;
      }
      if (Object.keys(source.attributes).length > 0 || source.children.length > 0) {
        value['extra'] = { attributes: source.attributes, nodes: source.children } satisfies Extra;
      }
      return value as Model<F>;
    },
    format(value) {
      const out = newElement(name);
      const given = value as Record<string, unknown> & { extra?: Extra };
      for (const [key, field] of entries) field.put(given[key], out);
      if (given.extra) {
        Object.assign(out.attributes, given.extra.attributes);
        out.nodes.push(...given.extra.nodes);
      }
      return out;
    },
  };
}

/** A codec that refers to itself or to one declared later. */
export const lazy = <T>(name: string, codec: () => Codec<T>): Codec<T> => ({
  name,
  parse: (tree) => codec().parse(tree),
  format: (value) => codec().format(value),
});

/** A codec with its value changed after parsing, for defaults that an element has by itself. */
export const refine = <T>(codec: Codec<T>, change: (value: T, tree: XmlElement) => T): Codec<T> => ({
  ...codec,
  parse: (tree) => change(codec.parse(tree), tree),
});
