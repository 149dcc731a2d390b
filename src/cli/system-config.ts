// `-readconfig`: sections of a file as options of the command line (QEMU 7.2, docs/config: `[GROUP "ID"]`, then `key = "value"`).

import type { SystemOption } from './system-option.ts';
import { Refused } from './system-settings.ts';

/** Groups whose option has another name. */
const names: Readonly<Record<string, string>> = { 'smp-opts': '-smp', 'boot-opts': '-boot', memory: '-m' };

/**
 * The options that a file stands for.
 * @throws Refused for what is not a section of a known option
 */
export function configOptions(file: string, text: string, options: readonly SystemOption[]): string[] {
  const out: string[] = [];
  let option: string | undefined;
  let items: string[] = [];
  const flush = (): void => {
    if (option !== undefined) out.push(option, items.join(','));
    items = [];
  };
  text.split('\n').forEach((raw, n) => {
    const line = raw.trim();
    const fail = (what: string): never => {
      throw new Refused(`-readconfig ${file}: line ${n + 1}: ${what}`);
    };
    if (line === '' || line.startsWith('#')) return;
    const section = /^\[([\w-]+)(?:\s+"([^"]*)")?\]$/.exec(line);
    if (section) {
      flush();
      const [, group = '', id] = section;
      const name = names[group] ?? `-${group}`;
      if (!options.some((o) => o.group === group && o.value !== undefined)) fail(`[${group}] is not supported`);
      option = name;
      if (id !== undefined) items.push(`id=${id.replaceAll(',', ',,')}`);
      return;
    }
    const setting = /^([\w.-]+)\s*=\s*"(.*)"$/.exec(line);
    if (!setting) fail('accepted are [GROUP "ID"] and key = "value"');
    if (option === undefined) fail('a setting before the first section');
    items.push(`${setting![1]}=${setting![2]!.replaceAll(',', ',,')}`);
  });
  flush();
  return out;
}

/** A command line with the options of the files that it names in their places. */
export async function expandConfigs(
  argv: readonly string[],
  options: readonly SystemOption[],
  read: (path: string) => Promise<Uint8Array>,
): Promise<string[]> {
  const out: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    if (!/^--?readconfig$/.test(word)) {
      out.push(word);
      continue;
    }
    const file = argv[++i];
    if (file === undefined) throw new Refused('-readconfig: its value FILE is missing');
    out.push(...configOptions(file, new TextDecoder().decode(await read(file)), options));
  }
  return out;
}
