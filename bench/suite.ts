// The guest programs of guests/suite: built by the host's C compiler, run by each contestant in one boot, timed inside the guest.

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cached, sha256, userCache } from '../src/host/node/cache.ts';
import { file, writeCpio } from '../src/images/cpio.ts';
import { concatenate } from '../src/images/initramfs.ts';
import { execOverlay } from '../src/images/overlay.ts';
import { emulatorArguments, OUR_EMULATOR, prepareGuest } from './guest.ts';
import { median, versionOf, watch } from './measure.ts';
import { runV86, v86Version } from './v86.ts';

/** Bits of the guest's mode, image, and QEMU's program for it. */
export type Guest = { readonly name: string; readonly bits: 32 | 64; readonly image: string; readonly qemu: string };
export const guests: readonly Guest[] = [
  { name: 'amd64', bits: 64, image: 'debian-cloud', qemu: 'qemu-system-x86_64' },
  { name: 'i386', bits: 32, image: 'debian-i386', qemu: 'qemu-system-i386' },
];

/** A program's time in milliseconds (NaN where it failed) and its result. */
type Result = { readonly class: string; readonly ms: number; readonly sum: string };
type Results = ReadonlyMap<string, Result>;
/** All that a round of a contestant told. */
type Contestant = {
  readonly name: string;
  readonly version: string;
  run(guest: Guest, command: string, overlay: Uint8Array): Promise<string>;
};

const FOLDER = join(import.meta.dirname, 'guests', 'suite');
const PLACE = '/usr/bin/suite';
const LIMIT = 1_200_000;

/** Names of the suite's programs, from the rows in its sources. */
export const programs = (): string[] =>
  readdirSync(FOLDER)
    .sort()
    .flatMap((name) => [...readFileSync(join(FOLDER, name), 'utf8').matchAll(/^ {4}\{"(\w+)", "/gm)].map((m) => m[1]));

/** The suite as a static program, from the cache where it was built before; throws what the compiler says. */
async function build(bits: 32 | 64): Promise<string> {
  const sources = readdirSync(FOLDER).sort();
  const compiler = process.env['CC'] ?? 'cc';
  const version = versionOf(compiler, '--version');
  if (version === undefined) throw new Error(`there is no C compiler (${compiler})`);
  const flags = [`-m${bits}`, '-O2', '-static', '-msse2', '-mfpmath=sse'];
  const texts = sources.map((name) => readFileSync(join(FOLDER, name)));
  const key = sha256(version, ...flags, ...texts).slice(0, 32);
  return cached(userCache(), `suite-${key}`, () => {
    const out = `/tmp/nonroot-suite-${process.pid}`;
    const inputs = sources.filter((name) => name.endsWith('.c')).map((name) => join(FOLDER, name));
    const { status, stderr } = spawnSync(compiler, [...flags, '-o', out, ...inputs], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`${compiler} -m${bits} cannot build static programs: ${stderr.trim().split('\n')[0]}`);
    return readFileSync(out);
  });
}

async function boot(program: string, guest: Guest, overlay: Uint8Array): Promise<string> {
  const files = await prepareGuest(overlay, guest.image);
  const child = watch(program, emulatorArguments(files, 1, program), LIMIT);
  try {
    await child.said('end\n');
    return child.text;
  } finally {
    await child.stop();
    files.remove();
  }
}

/** Who can run here. The first is ours; the second, where it is there, is who the ratios are against. */
function contestants(guest: Guest, withV86: boolean): Contestant[] {
  const list: Contestant[] = [
    { name: 'nonroot', version: process.version, run: (g, _, overlay) => boot(OUR_EMULATOR, g, overlay) },
  ];
  const qemu = versionOf(guest.qemu, '-version');
  if (qemu) list.push({ name: 'qemu', version: qemu, run: (g, _, overlay) => boot(g.qemu, g, overlay) });
  if (withV86 && guest.bits === 32)
    list.push({ name: 'v86', version: v86Version(), run: (g, _, overlay) => runV86(g.image, overlay, LIMIT) });
  return list;
}

function parse(text: string): Results {
  const rows = new Map<string, Result>();
  for (const line of text.split('\n')) {
    const [name, group, ns, sum] = line.trim().split('|');
    if (sum !== undefined) rows.set(name, { class: group, ms: Number(ns) < 0 ? NaN : Number(ns) / 1e6, sum });
  }
  return rows;
}

const geometric = (values: readonly number[]): number => Math.exp(values.reduce((a, v) => a + Math.log(v), 0) / values.length);
const number = (v: number): string => (Number.isFinite(v) ? v.toFixed(v < 10 ? 2 : v < 100 ? 1 : 0) : '');

/** What to run: names of programs (none: all), how many rounds, how much work (1: about 0.3 s each on QEMU), whether v86 takes part. */
export type SuiteOptions = {
  readonly names: readonly string[];
  readonly rounds: number;
  readonly scale: number;
  readonly v86: boolean;
  readonly log: (text: string) => void;
};

/** Runs the suite in a guest with all contestants; the table as Markdown, or why there is none. */
export async function runSuite(guest: Guest, options: SuiteOptions): Promise<string> {
  let program: string;
  try {
    program = await build(guest.bits);
  } catch (error) {
    return `Skipped: ${(error as Error).message}.\n`;
  }
  const command = `${PLACE} ${options.scale} ${options.names.join(' ')}; echo end`;
  const overlay = concatenate([execOverlay({ command }), writeCpio([file(PLACE.slice(1), readFileSync(program), 0o755)])]);
  const all = contestants(guest, options.v86);
  const rounds = new Map<string, Results[]>(all.map((c) => [c.name, []]));
  for (let round = 0; round < options.rounds; round++) {
    for (const c of round % 2 ? all.toReversed() : all) {
      const start = performance.now();
      rounds.get(c.name)!.push(parse(await c.run(guest, command, overlay)));
      options.log(`${round + 1}/${options.rounds} ${guest.name} ${c.name}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
    }
  }
  return table(all, rounds);
}

function table(all: readonly Contestant[], rounds: ReadonlyMap<string, readonly Results[]>): string {
  const [ours, ...others] = all.map((c) => c.name);
  const of = (contestant: string, name: string): Result[] => rounds.get(contestant)!.flatMap((r) => r.get(name) ?? []);
  const ms = (contestant: string, name: string): number => median(of(contestant, name).map((r) => r.ms));
  const names = [
    ...new Map(all.flatMap((c) => rounds.get(c.name)!.flatMap((r) => [...r].map(([name, { class: group }]) => [name, group])))),
  ];
  const lines = [
    `| program | ${[ours, ...others].map((n) => `${n} ms`).join(' | ')} | ${others.map((n) => `/ ${n}`).join(' | ')} |`,
    `|---|${'---:|'.repeat(1 + 2 * others.length)}`,
  ];
  const ratios = new Map<string, Map<string, number[]>>();
  for (const [name, group] of names) {
    const sums = new Set(all.flatMap((c) => of(c.name, name).flatMap((r) => (Number.isNaN(r.ms) ? [] : [r.sum]))));
    const against = others.map((other) => ms(ours, name) / ms(other, name));
    for (const [i, ratio] of against.entries()) {
      if (!Number.isFinite(ratio)) continue;
      const groups = ratios.get(others[i]) ?? new Map<string, number[]>();
      ratios.set(others[i], groups.set(group, [...(groups.get(group) ?? []), ratio]));
    }
    const wrong = sums.size > 1 ? ' (results differ!)' : '';
    lines.push(
      `| ${name}${wrong} | ${all.map((c) => number(ms(c.name, name))).join(' | ')} | ${against.map(number).join(' | ')} |`,
    );
  }
  const summary = (label: string, values: (other: string) => readonly number[]): void => {
    lines.push(
      `| **${label}** | ${'|'.repeat(all.length)} ${others.map((o) => (values(o).length ? number(geometric(values(o))) : '')).join(' | ')} |`,
    );
  };
  for (const group of new Set(names.map(([, g]) => g))) summary(group, (other) => ratios.get(other)?.get(group) ?? []);
  summary('geometric mean of all', (other) => [...(ratios.get(other)?.values() ?? [])].flat());
  return `${all.map((c) => `${c.name}: ${c.version}`).join('; ')}.\n\n${lines.join('\n')}\n`;
}
