// One row of the monitor for people: QEMU's HMP. Help and dispatch follow from the table. QEMU 7.2 "System Emulation", section "QEMU
// Monitor".

import type { Emulator } from '../emulator.ts';

export interface HmpCommand {
  /** Its name, then its short forms. */
  readonly names: readonly string[];
  /** Its arguments as the help shows them. */
  readonly args?: string;
  readonly help: string;
  /** What it answers, lines without an end; empty for nothing. Errors are shown as `Error: …`. */
  readonly run: (e: Emulator, args: HmpArguments) => string | Promise<string> | void | Promise<void>;
}

/** What stands behind a command's name. */
export interface HmpArguments {
  /** The command's name as it was typed. */
  readonly name: string;
  /** Words; quotes hold one together. */
  readonly words: readonly string[];
  /** Everything as it was typed. */
  readonly text: string;
  /** The part behind the name's slash: `x/4xw`. */
  readonly format: string;
}

/** A mistake of the user's: shown as it is. */
export class HmpError extends Error {}

/** Splits a line at blanks; `"` holds words together, backslash takes the next character as it is. */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quoted = false;
  for (let i = 0; i < line.length; i++) {
    const c = line[i]!;
    if (c === '"') {
      quoted = !quoted;
      word ??= '';
    } else if (c === '\\' && quoted && i + 1 < line.length) word = (word ?? '') + line[++i];
    else if (/\s/.test(c) && !quoted) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + c;
  }
  if (quoted) throw new HmpError('unterminated string literal');
  if (word !== undefined) words.push(word);
  return words;
}

export const hex = (value: bigint | number, digits: number): string => value.toString(16).padStart(digits, '0');

/** The word number `n`, which has to be there. */
export const need = (args: HmpArguments, n: number, name: string): string => {
  const word = args.words[n];
  if (word === undefined) throw new HmpError(`missing parameter ${name}`);
  return word;
};
