// One option of `nonroot-system-x86_64`: a row of its tables. The parser, `-help` and `query-command-line-options` follow from it.

import type { OptionInfo } from '../monitor/emulator.ts';
import { columns } from './args.ts';
import type { Settings } from './system-settings.ts';

type Parameter = OptionInfo['parameters'][number];

export interface SystemOption {
  readonly names: readonly string[];
  /** Placeholder of its value in the help; without it the option is a flag. */
  readonly value?: string;
  readonly help: string;
  /** The name under which monitors know its properties, and these: `query-command-line-options`. */
  readonly group?: string;
  readonly parameters?: readonly Parameter[];
  /** Its effect. Text is printed in place of running anything. */
  readonly apply: (s: Settings, value: string) => string | undefined;
}

/** An option without text to print. */
export const does =
  (effect: (s: Settings, value: string) => void) =>
  (s: Settings, value: string): undefined => {
    effect(s, value);
  };

/** Parameters by type: `string: 'a b', boolean: 'c'`. */
export const parameters = (types: Readonly<Partial<Record<Parameter['type'], string>>>): readonly Parameter[] =>
  Object.entries(types).flatMap(([type, names]) => names.split(' ').map((name) => ({ name, type: type as Parameter['type'] })));

export const list = (title: string, rows: readonly (readonly [string, string])[]): string => `${title}:\n${columns(rows)}\n`;
export const isHelp = (text: string): boolean => text === 'help' || text === '?';
