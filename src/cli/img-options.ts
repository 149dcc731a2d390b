// Command lines, sizes and `-o` lists as qemu-img takes them: "QEMU disk image utility" (docs/tools/qemu-img), sections
// "Synopsis" and "Command Parameters"; getopt_long(3) with options after words.

import { UsageError } from './args.ts';

/** What a command accepts: letters as getopt's (`f:` takes a value), and long names with true where a value follows. */
export interface ImgSyntax {
  readonly short: string;
  readonly long?: Readonly<Record<string, boolean>>;
}

export interface ImgArguments {
  readonly words: readonly string[];
  /** Last value of an option by its letter or long name; '' for a flag. */
  get(name: string): string | undefined;
  /** All values in order. */
  all(name: string): readonly string[];
}

const COMMON: Readonly<Record<string, boolean>> = { help: false };

/** @throws UsageError for options that are unknown, or lack or have a value */
export function parseImgArguments(syntax: ImgSyntax, argv: readonly string[]): ImgArguments {
  const long = { ...COMMON, ...syntax.long };
  const found: { readonly name: string; readonly value: string }[] = [];
  const words: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!;
    if (arg === '--') {
      words.push(...argv.slice(i + 1));
      break;
    }
    if (arg.startsWith('--')) {
      const equals = arg.indexOf('=');
      const name = arg.slice(2, equals < 0 ? undefined : equals);
      if (!Object.hasOwn(long, name)) throw new UsageError(`Cannot use option --${name}: accepted are ${spell(syntax)}`);
      if (!long[name] && equals >= 0) throw new UsageError(`Cannot use ${arg}: --${name} takes no value`);
      const value = equals >= 0 ? arg.slice(equals + 1) : long[name] ? argv[++i] : '';
      if (value === undefined) throw new UsageError(`Cannot use --${name}: its value is missing`);
      found.push({ name, value });
    } else if (arg.startsWith('-') && arg !== '-') {
      for (let j = 1; j < arg.length; j++) {
        const letter = arg[j]!;
        const at = letter === ':' ? -1 : syntax.short.indexOf(letter);
        if (letter === 'h') found.push({ name: 'help', value: '' });
        else if (at < 0) throw new UsageError(`Cannot use option -${letter}: accepted are ${spell(syntax)}`);
        else if (syntax.short[at + 1] === ':') {
          const value = j + 1 < arg.length ? arg.slice(j + 1) : argv[++i];
          if (value === undefined) throw new UsageError(`Cannot use -${letter}: its value is missing`);
          found.push({ name: letter, value });
          break;
        } else found.push({ name: letter, value: '' });
      }
    } else words.push(arg);
  }
  return {
    words,
    get: (name) => found.findLast((f) => f.name === name)?.value,
    all: (name) => found.filter((f) => f.name === name).map((f) => f.value),
  };
}

const spell = (syntax: ImgSyntax): string =>
  [
    ...[...syntax.short].filter((c) => c !== ':').map((c) => `-${c}`),
    ...Object.keys(syntax.long ?? {}).map((n) => `--${n}`),
    '--help',
  ].join(' ');

const SUFFIXES = 'bkmgtpe';

/**
 * Bytes of a size: digits, perhaps a fraction, and a suffix b, k, M, G, T, P or E, in powers of 1024; 0x for hexadecimal.
 * @throws UsageError for what is none, and for 2^53 and more
 */
export function parseSize(text: string): number {
  const match = /^(?:(0[xX][0-9a-fA-F]+)|(\d+(?:\.\d+)?)([bBkKmMgGtTpPeE]?))$/.exec(text);
  const power = match?.[3] ? SUFFIXES.indexOf(match[3].toLowerCase()) : 0;
  const value = match ? Math.ceil(Number(match[1] ?? match[2]) * 1024 ** power) : Number.NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new UsageError(`Cannot use size "${text}": accepted are numbers below 8P with an optional suffix k, M, G, T or P`);
}

/** `name=value,name=value`; a doubled comma stands for one. A name alone is on. */
export function parseList(lists: readonly string[]): Map<string, string> {
  const values = new Map<string, string>();
  for (const list of lists) {
    for (const part of list.replaceAll(',,', '\0').split(',')) {
      if (part === '') continue;
      const equals = part.indexOf('=');
      const name = equals < 0 ? part : part.slice(0, equals);
      values.set(name, equals < 0 ? 'on' : part.slice(equals + 1).replaceAll('\0', ','));
    }
  }
  return values;
}

/** A size for people with three digits: `196 KiB`. */
export function showSize(bytes: number): string {
  // The next unit is taken from 1000 on, so that three digits are enough.
  const unit = bytes < 1 ? 0 : Math.max(0, Math.floor(Math.log2(bytes / (1000 / 1024)) / 10));
  const value = bytes / 1024 ** unit;
  return `${Number(value.toPrecision(3))} ${['', 'K', 'M', 'G', 'T', 'P', 'E'][unit]}${unit ? 'i' : ''}B`;
}
