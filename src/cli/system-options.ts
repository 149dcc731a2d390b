// The command line of `nonroot-system-x86_64` as one table, spelled as QEMU spells it (QEMU 7.2, "System Emulation", section
// "Invocation"): the parser and `-help` follow from it.

import { QEMU_VERSION } from '../monitor/emulator.ts';
import { columns } from './args.ts';
import { charDeviceOptions } from './system-char-options.ts';
import { complete } from './system-complete.ts';
import { deviceOptions } from './system-device-options.ts';
import { displayOptions } from './system-display-options.ts';
import { driveOptions } from './system-drive-options.ts';
import { firmwareOptions } from './system-firmware.ts';
import { fsdevOptions } from './system-fsdev-options.ts';
import { machineOptions } from './system-machine-options.ts';
import type { SystemOption } from './system-option.ts';
import { processOptions } from './system-process-options.ts';
import { defaults, Refused, type Settings } from './system-settings.ts';

/** Every option but -help and -version, which end the reading. */
export const systemOptions: readonly SystemOption[] = [
  ...machineOptions,
  ...firmwareOptions,
  ...deviceOptions,
  ...fsdevOptions,
  ...driveOptions,
  ...charDeviceOptions,
  ...displayOptions,
  ...processOptions,
];

const helpText = (): string => `${versionText('')}usage: nonroot-system-x86_64 [options]

Emulates a PC. Options have QEMU's spelling and meaning; what is not in this list
is refused. Without -nographic or -serial, what the guest says on its serial port
goes nowhere.

${columns([
  ...systemOptions.map((o) => [o.value === undefined ? o.names.join(', ') : `${o.names.join(', ')} ${o.value}`, o.help] as const),
  ['-h, -help', 'show this help'],
  ['-version', 'show the version'],
])}

On this terminal (-nographic, -serial mon:stdio): Ctrl-A x ends, Ctrl-A c is the
monitor, Ctrl-A h helps.
`;

/** Programs look for the version of QEMU that is behaved like; ours is in brackets. */
const versionText = (version: string): string => {
  const { major, minor, micro } = QEMU_VERSION;
  return `QEMU emulator version ${major}.${minor}.${micro} (Nonroot${version === '' ? '' : ` ${version}`})\n`;
};

/** What a command line asks for: text, or a machine. */
export type Asked = { readonly text: string } | { readonly settings: Settings };

/**
 * Reads a command line. Options may begin with one or two hyphens.
 * @throws Refused for everything that is not supported, one line that begins with the option
 */
export function parseSystem(argv: readonly string[], version: string): Asked {
  const known = new Map(systemOptions.flatMap((o) => o.names.map((name) => [name, o] as const)));
  const settings = defaults();
  for (let i = 0; i < argv.length; i++) {
    const given = argv[i]!;
    // A word that is no option is the first disk.
    if (!given.startsWith('-') || given === '-') {
      settings.driveTexts.push(`file=${given.replaceAll(',', ',,')},index=0,media=disk`);
      continue;
    }
    const name = given.startsWith('--') ? given.slice(1) : given;
    if (name === '-h' || name === '-help') return { text: helpText() };
    if (name === '-version') return { text: versionText(version) };
    const option = known.get(name);
    if (!option) throw new Refused(`${name}: not supported`);
    let value = '';
    if (option.value !== undefined) {
      const next = argv[++i];
      if (next === undefined) throw new Refused(`${name}: its value ${option.value} is missing`);
      value = next;
    }
    const text = refusing(`${name} ${value}`.trim(), () => option.apply(settings, value));
    if (text !== undefined) return { text };
  }
  refusing('', () => complete(settings));
  return { settings };
}

/** Errors of whoever reads a value, with the option before them. */
function refusing<T>(option: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof Refused) throw error;
    const text = error instanceof Error ? error.message : String(error);
    throw new Refused(option === '' || text.startsWith('-') ? text : `${option}: ${text}`);
  }
}
