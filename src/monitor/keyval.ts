// How QEMU writes structured values on its command line: `VALUE,key=value,flag`, a comma in a value doubled, dots in keys for what is
// nested, or JSON. QEMU 7.2 "System Emulation", section "Invocation"; util/keyval.c's grammar in words.

import { isObject, type Json, parseJson } from '../rpc/qmp/json.ts';

/** A command line that is refused; the message begins with the option. Exit code 1, as QEMU. */
export class Refused extends Error {}

/** The items of `a=b,c,d=e`, commas undoubled; `value` is undefined for an item without `=`. */
export function items(text: string): readonly { readonly key: string; readonly value: string | undefined }[] {
  if (text === '') return [];
  return text
    .replaceAll(',,', '\0')
    .split(',')
    .map((item) => {
      const equals = item.indexOf('=');
      const plain = (s: string): string => s.replaceAll('\0', ',');
      return equals < 0
        ? { key: plain(item), value: undefined }
        : { key: item.slice(0, equals), value: plain(item.slice(equals + 1)) };
    });
}

/**
 * The properties of `text`. `implied` is the key of a first item without one; any other item without `=` is a flag: `on`, or, with
 * `no` before it, `off`. A later one of the same key wins.
 */
export function optionMap(text: string, implied = ''): Map<string, string> {
  const map = new Map<string, string>();
  items(text).forEach(({ key, value }, n) => {
    if (value !== undefined) map.set(key, value);
    else if (n === 0 && implied !== '') map.set(implied, key);
    else map.set(key, 'on');
  });
  return map;
}

/**
 * A value of an option that takes JSON as well: `{"driver":…}` or `DRIVER,key=value`. Values of the second form are strings.
 * @throws Refused
 */
export function structured(option: string, text: string, implied: string): { readonly [name: string]: Json } {
  if (!text.startsWith('{')) return nested(option, optionMap(text, implied));
  let value: Json;
  try {
    value = parseJson(text);
  } catch (error) {
    throw new Refused(`${option} ${text}: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!isObject(value)) throw new Refused(`${option} ${text}: accepted is a JSON object`);
  return value;
}

/** Dotted keys as objects, and objects whose keys count from 0 as lists. */
function nested(option: string, map: ReadonlyMap<string, string>): { readonly [name: string]: Json } {
  interface Tree {
    [name: string]: string | Tree;
  }
  const root: Tree = Object.create(null) as Tree;
  for (const [path, value] of map) {
    const parts = path.split('.');
    let at = root;
    for (const part of parts.slice(0, -1)) {
      const next = (at[part] ??= Object.create(null) as Tree);
      if (typeof next === 'string') throw new Refused(`${option} ${path}=${value}: ${part} has a value already`);
      at = next;
    }
    const last = parts.at(-1)!;
    if (typeof at[last] === 'object') throw new Refused(`${option} ${path}=${value}: ${last} has members already`);
    at[last] = value;
  }
  const plain = (tree: Tree): Json => {
    const entries = Object.entries(tree).map(([k, v]) => [k, typeof v === 'string' ? v : plain(v)] as const);
    if (entries.length > 0 && entries.every(([k]) => /^\d+$/.test(k)) && entries.every((_, n) => `${n}` in tree))
      return entries.sort(([a], [b]) => Number(a) - Number(b)).map(([, v]) => v);
    return Object.fromEntries(entries);
  };
  return plain(root) as { readonly [name: string]: Json };
}

/** `on` and its like; undefined for anything else. */
export function parseBool(text: string): boolean | undefined {
  if (['on', 'yes', 'true', 'y'].includes(text)) return true;
  if (['off', 'no', 'false', 'n'].includes(text)) return false;
  return undefined;
}

const UNITS = ['', 'K', 'M', 'G', 'T', 'P', 'E'];
/** A size in bytes: decimal or hexadecimal, with a unit of 1024^n; undefined for anything else. */
export function parseSize(text: string, unit = ''): number | undefined {
  const found = /^(0x[\da-f]+|\d+(?:\.\d+)?)([bkmgtpe]?)$/i.exec(text);
  if (!found) return undefined;
  const letter = (found[2] || unit).toUpperCase();
  return Math.floor(Number(found[1]) * 1024 ** (letter === 'B' ? 0 : UNITS.indexOf(letter)));
}
