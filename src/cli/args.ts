// Options of the `nonroot` commands as a table: the parser and `--help` follow from it. Spelling as POSIX.1-2017 chapter 12
// "Utility Conventions", with GNU long options (`--name VALUE` and `--name=VALUE`).

/** One option. */
export interface Option {
  /** Spellings, the one that errors and `get` use first: `--memory`, `-m`. */
  readonly names: readonly string[];
  /** Placeholder of its value in the help; without it the option is a flag. */
  readonly value?: string;
  readonly help: string;
  /** Why it is known and not accepted yet. */
  readonly refused?: string;
}

/** What a command line held. */
export interface Arguments {
  /** Last value of an option by its first name; '' for a flag. */
  readonly get: (name: string) => string | undefined;
  /** All values of an option that may be given several times. */
  readonly all: (name: string) => readonly string[];
  readonly words: readonly string[];
}

/** A command line that cannot be used: exit code 2. */
export class UsageError extends Error {}

/** `--help` or `-h` is an option of every command. */
export const helpOption: Option = { names: ['--help', '-h'], help: 'show this help' };

/**
 * Reads a command line.
 * @throws UsageError for options that are unknown, refused, or lack or have a value, and for more words than `most`
 */
export function parseArguments(options: readonly Option[], most: number, argv: readonly string[]): Arguments {
  const known = new Map([...options, helpOption].flatMap((o) => o.names.map((name) => [name, o] as const)));
  const values = new Map<string, string[]>();
  const add = (name: string, value: string): void => void values.set(name, [...(values.get(name) ?? []), value]);
  const words: string[] = [];
  let ended = false;
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!;
    if (ended || !arg.startsWith('-') || arg === '-') {
      words.push(arg);
      continue;
    }
    if (arg === '--') {
      ended = true;
      continue;
    }
    const equals = arg.startsWith('--') ? arg.indexOf('=') : -1;
    const name = equals < 0 ? arg : arg.slice(0, equals);
    const option = known.get(name);
    if (!option) throw new UsageError(`Cannot use option ${name}: accepted are ${options.map((o) => o.names[0]).join(' ')}`);
    const [first] = option.names;
    if (option.value === undefined) {
      if (equals >= 0) throw new UsageError(`Cannot use ${arg}: ${name} takes no value`);
      add(first!, '');
    } else {
      const value = equals >= 0 ? arg.slice(equals + 1) : argv[++i];
      if (value === undefined) throw new UsageError(`Cannot use ${name}: its value ${option.value} is missing`);
      add(first!, value);
    }
    if (option.refused) throw new UsageError(`Cannot use ${name}: ${option.refused}`);
  }
  if (words.length > most) {
    const accepted = most === 0 ? 'no words are' : most === 1 ? 'one word is' : `${most} words are`;
    throw new UsageError(`Cannot use "${words[most]}": ${accepted} accepted here besides options`);
  }
  return { get: (name) => values.get(name)?.at(-1), all: (name) => values.get(name) ?? [], words };
}

/** The lines of the help that list options; those that are refused are not there. */
export function describeOptions(options: readonly Option[]): string {
  const rows = [...options, helpOption]
    .filter((o) => !o.refused)
    .map((o) => {
      const names = [...o.names].sort((a, b) => a.length - b.length).join(', ');
      return [o.value === undefined ? names : `${names} ${o.value}`, o.help] as const;
    });
  return columns(rows);
}

/** Two columns, the right one wrapped to 80 characters; a long left one has its own line. */
export function columns(rows: readonly (readonly [string, string])[]): string {
  const LEFT = 24;
  const WIDTH = 80;
  const lines: string[] = [];
  for (const [left, right] of rows) {
    const wrapped: string[] = [];
    let line = '';
    for (const word of right.split(' ')) {
      if (line && LEFT + line.length + 1 + word.length > WIDTH) {
        wrapped.push(line);
        line = word;
      } else line = line ? `${line} ${word}` : word;
    }
    wrapped.push(line);
    const first = `  ${left}`;
    if (first.length + 2 > LEFT) lines.push(first);
    else lines.push(first.padEnd(LEFT) + wrapped.shift());
    for (const more of wrapped) lines.push(' '.repeat(LEFT) + more);
  }
  return lines.join('\n');
}
