// Small pieces that several documents share: sizes in bytes, names, elements that stand open even when empty.
import type { Codec, Field } from '../codec.ts';
import { DomainXmlError, type ErrorCode, xmlError } from '../errors.ts';
import { newElement, textOf } from '../xml.ts';
import { unitSize } from './common.ts';

/** An element with a size; its value is in bytes, without a unit attribute the text is bytes too. */
export function bytesField(name: string): Field<number | undefined> {
  return {
    take(source) {
      const found = source.children.find((one) => one.name === name);
      if (!found) return undefined;
      source.children = source.children.filter((one) => one.name !== name);
      const text = textOf(found).trim();
      const bytes = Number(text) * unitSize(found.attributes['unit'] ?? 'bytes');
      if (!/^\d+$/.test(text) || !Number.isSafeInteger(bytes)) throw xmlError(`malformed ${name} element`);
      return bytes;
    },
    put(value, out) {
      if (value !== undefined) out.nodes.push(newElement(name, { unit: 'bytes' }, [String(value)]));
    },
  };
}

/** An element that libvirt prints with a closing tag even when there is nothing in it; `indent` is that of its start. */
export const standingOpen = <T>(codec: Codec<T>, indent = '  '): Codec<T> => ({
  ...codec,
  format(value) {
    const tree = codec.format(value);
    if (tree.nodes.length === 0) tree.nodes.push(`\n${indent}`);
    return tree;
  },
});

/** A name that may be used in a path. @throws DomainXmlError with `code` and `missing` when there is none. */
export function checkName(name: string | undefined, code: ErrorCode, missing: string): string {
  if (!name) throw new DomainXmlError(code, missing);
  if (name.includes('/')) throw xmlError(`name ${name} cannot contain '/'`);
  return name;
}
