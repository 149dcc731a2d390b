// The monitor's commands for people that move the machine to another process, and what `info` shows of that and of snapshots. QEMU 7.2 "System
// Emulation", section "QEMU Monitor"; texts as its monitor writes them.

import type { Emulator } from '../emulator.ts';
import { listSnapshots } from '../machine-snapshots.ts';
import { migrationCapabilities, migrationParameters } from '../qmp/migrate.ts';
import { type HmpArguments, type HmpCommand, HmpError, need } from './command.ts';

const MIB = 2 ** 20;
/** ms between two looks at a migration that is waited for. */
const LOOK = 100;
const OVER = new Set(['none', 'completed', 'failed', 'cancelled']);
const units: Readonly<Record<string, number>> = { b: 1, k: 2 ** 10, m: MIB, g: 2 ** 30, t: 2 ** 40 };

/** Three digits and a unit, as QEMU's lists of images have sizes. */
function sizeText(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const power = Math.min(6, Math.floor(Math.log2(bytes / 1000) / 10) + 1);
  const value = bytes / 2 ** (10 * power);
  return `${Number(value.toPrecision(3))} ${'KMGTPE'[power - 1]}iB`;
}

function snapshots(e: Emulator): string {
  const list = listSnapshots(e);
  if (list.length === 0) return 'There is no snapshot available.';
  const two = (n: number): string => String(n).padStart(2, '0');
  const rows = list.map((s) => {
    const d = new Date(s.seconds * 1000);
    const date = `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
    const ms = Number(s.guestTime / 1_000_000n);
    const seconds = Math.floor(ms / 1000);
    const clock = `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}.${String(ms % 1000).padStart(3, '0')}`;
    // All disks have it, each under a number of its own.
    return ['--', s.name, sizeText(s.vmStateSize), date, clock, s.icount === undefined ? '' : String(s.icount)];
  });
  const line = ([id, tag, size, date, clock, icount]: readonly string[]): string =>
    `${id!.padEnd(10)}${tag!.padEnd(16)}${size!.padStart(9)}${date!.padStart(20)}${clock!.padStart(13)}${icount!.padStart(11)}`;
  const head = line(['ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT']);
  return ['List of snapshots present on all disks:', head, ...rows.map(line)].join('\n');
}

type Numbers = Readonly<Record<string, number>>;

function progress(e: Emulator): string {
  const info = e.migration.info() as Readonly<Record<string, unknown>>;
  const lines: string[] = [];
  if (Array.isArray(info['blocked-reasons']))
    lines.push('Outgoing migration blocked:', ...info['blocked-reasons'].map((r) => `  ${r}`));
  if (info['status'] === undefined) return lines.join('\n');
  const error = info['error-desc'] === undefined ? '' : ` (${info['error-desc']})`;
  lines.push(`Migration status: ${info['status']}${error}`, `total time: ${info['total-time']} ms`);
  for (const [name, key] of [
    ['expected downtime', 'expected-downtime'],
    ['downtime', 'downtime'],
    ['setup', 'setup-time'],
  ] as const)
    if (info[key] !== undefined) lines.push(`${name}: ${info[key]} ms`);
  const ram = info['ram'] as Numbers | undefined;
  const kbytes = (n: number): string => `${Math.floor(n / 1024)} kbytes`;
  if (ram)
    lines.push(
      `transferred ram: ${kbytes(ram['transferred']!)}`,
      `throughput: ${ram['mbps']!.toFixed(2)} mbps`,
      `remaining ram: ${kbytes(ram['remaining']!)}`,
      `total ram: ${kbytes(ram['total']!)}`,
      `duplicate: ${ram['duplicate']} pages`,
      `skipped: ${ram['skipped']} pages`,
      `normal: ${ram['normal']} pages`,
      `normal bytes: ${kbytes(ram['normal-bytes']!)}`,
      `dirty sync count: ${ram['dirty-sync-count']}`,
      `page size: ${kbytes(ram['page-size']!)}`,
      `multifd bytes: ${kbytes(ram['multifd-bytes']!)}`,
      `pages-per-second: ${ram['pages-per-second']}`,
    );
  return lines.join('\n');
}

/** How a parameter is shown: a time, a rate, a name, a plain number. */
function parameterText(name: string, value: unknown): string {
  if (typeof value === 'string') return `${name}: '${value}'`;
  if (name === 'max-bandwidth') return `${name}: ${value} bytes/second`;
  return `${name}: ${value}${/^(downtime-limit|announce-(initial|max|step))$/.test(name) ? ' ms' : ''}`;
}

export const migrateInfos: readonly HmpCommand[] = [
  { names: ['snapshots'], help: 'show the currently saved VM snapshots', run: snapshots },
  { names: ['migrate'], help: 'show migration status', run: progress },
  {
    names: ['migrate_capabilities'],
    help: 'show current migration capabilities',
    run: (e) => migrationCapabilities.map((name) => `${name}: ${e.migration.capabilities.has(name) ? 'on' : 'off'}`).join('\n'),
  },
  {
    names: ['migrate_parameters'],
    help: 'show current migration parameters',
    run: (e) =>
      Object.entries({ ...migrationParameters, ...e.migration.parameters })
        .map(([name, value]) => parameterText(name, value))
        .join('\n'),
  },
];

/** Bytes: a number of MiB, or one with a unit. */
function bytes(text: string): number {
  const [, digits, unit = 'm'] = /^(\d+(?:\.\d+)?)([bkmgt]?)$/i.exec(text) ?? [];
  if (digits === undefined) throw new HmpError(`invalid size '${text}'`);
  return Math.floor(Number(digits) * units[(unit || 'm').toLowerCase()]!);
}

async function migrate(e: Emulator, { words }: HmpArguments): Promise<string> {
  const flags = words.filter((w) => w.startsWith('-'));
  const uri = words.find((w) => !w.startsWith('-'));
  if (uri === undefined) throw new HmpError('migrate: string expected\nTry "help migrate" for more information');
  const other = flags.find((f) => f !== '-d');
  if (other !== undefined) throw new HmpError(`migrate: ${other} is not supported; accepted is -d`);
  await e.migration.start(uri);
  if (flags.includes('-d')) return '';
  while (!OVER.has(e.migration.status)) await new Promise<void>((resolve) => void e.host.timers.after(LOOK, resolve));
  return e.migration.status === 'failed' ? progress(e) : '';
}

export const migrateHmp: readonly HmpCommand[] = [
  {
    names: ['migrate'],
    args: '[-d] uri',
    help: 'migrate to URI (using -d to not wait for completion)',
    run: migrate,
  },
  { names: ['migrate_cancel'], help: 'cancel the current VM migration', run: (e) => e.migration.cancel() },
  {
    names: ['migrate_incoming'],
    args: 'uri',
    help: 'Continue an incoming migration from an -incoming defer',
    run: (e, args) => e.takeIncoming(need(args, 0, 'uri')),
  },
  {
    names: ['migrate_set_capability'],
    args: 'capability state',
    help: 'Enable/Disable the usage of a capability for migration',
    run(e, args) {
      const name = need(args, 0, 'capability');
      const state = need(args, 1, 'state');
      if (!migrationCapabilities.some((c) => c === name)) throw new HmpError(`Error: invalid parameter value: ${name}`);
      if (state !== 'on' && state !== 'off') throw new HmpError(`migrate_set_capability: Expected 'on' or 'off'`);
      e.migration.setCapabilities([{ capability: name, state: state === 'on' }]);
    },
  },
  {
    names: ['migrate_set_parameter'],
    args: 'parameter value',
    help: 'Set the parameter for migration',
    run(e, args) {
      const name = need(args, 0, 'parameter');
      const value = need(args, 1, 'value');
      const known = (migrationParameters as Readonly<Record<string, number | string>>)[name];
      if (known === undefined) throw new HmpError(`Error: invalid parameter value: ${name}`);
      if (typeof known === 'number' && !/bandwidth|size/.test(name) && !/^\d+$/.test(value))
        throw new HmpError(`Error: Parameter '${name}' expects a number`);
      e.migration.parameters[name] =
        typeof known === 'string' ? value : /bandwidth|size/.test(name) ? bytes(value) : Number(value);
    },
  },
];
