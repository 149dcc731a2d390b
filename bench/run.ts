// Runs the benchmarks: every contestant in turn, round after round, then medians and ratios. All of them together write RESULTS.md.
// `guests` is the suite of guest programs: the words behind it are names of its programs, or amd64 or i386.
// Usage: npm run bench [-- [--rounds N] [--scale X] [--quick] [--cold] [--v86] NAMES | guests [PROGRAMS]]

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem, type } from 'node:os';
import { parseArgs } from 'node:util';
import { boot } from './boot.ts';
import { disks } from './disks.ts';
import { settings } from './guest.ts';
import { io } from './io.ts';
import { loop } from './loop.ts';
import { type Benchmark, median, type Sample, versionOf } from './measure.ts';
import { sha256 } from './sha256.ts';
import { guests, programs, runSuite } from './suite.ts';

const all: readonly Benchmark[] = [boot, loop, sha256, io, disks];
const peers: Readonly<Record<string, string | undefined>> = { qemu: versionOf('qemu-system-x86_64', '-version') };

/** One table row for each metric: contestants' medians with the range, and how they compare. */
function rowsOf(bench: Benchmark, samples: ReadonlyMap<string, Sample[]>): string[] {
  const cell = (name: string, metric: string, digits: number): string => {
    const values = (samples.get(name) ?? []).flatMap((s) => (metric in s ? [s[metric]] : []));
    if (values.length === 0) return '';
    return `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)}–${Math.max(...values).toFixed(digits)})`;
  };
  const middle = (name: string, metric: string): number =>
    median((samples.get(name) ?? []).flatMap((s) => (metric in s ? [s[metric]] : [])));
  return bench.metrics.map(({ name, unit, digits }) => {
    const ratio = middle('nonroot', name) / middle('qemu', name);
    return `| ${bench.name}: ${bench.about} | ${unit} | ${cell('nonroot', name, digits)} | ${cell('qemu', name, digits)} | ${Number.isNaN(ratio) ? '' : ratio.toFixed(2)} |`;
  });
}

const USAGE = 'npm run bench [-- [--rounds N] [--scale X] [--quick] [--v86] NAMES | guests [PROGRAMS]]';
/** One line about what was asked for, and no more. */
function refuse(why: string): never {
  console.error(`${why}; usage: ${USAGE}`);
  process.exit(2);
}
const options = {
  rounds: { type: 'string' },
  scale: { type: 'string' },
  quick: { type: 'boolean', default: false },
  cold: { type: 'boolean', default: false },
  v86: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;
function asked(): ReturnType<typeof parseArgs<{ options: typeof options; allowPositionals: true }>> {
  try {
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    return refuse((error as Error).message.split(/\. |\n/)[0]!);
  }
}
const { values, positionals } = asked();
if (values.help) {
  console.log(`Usage: ${USAGE}\nBenchmarks: ${all.map((b) => b.name).join(', ')}`);
  process.exit();
}
settings.cold = values.cold;
const rounds = Number(values.rounds ?? (values.quick ? 1 : 3));
const scale = Number(values.scale ?? (values.quick ? 1 : 3));
if (!Number.isInteger(rounds) || rounds < 1) refuse(`Cannot run ${values.rounds} rounds: a positive number is accepted`);
if (!(scale > 0)) refuse(`Cannot scale the work by ${values.scale}: a positive number is accepted`);

const machine = `${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${type()} ${release()}, Node ${process.version}`;
const FILE = new URL('RESULTS.md', import.meta.url);
/** Puts a section into RESULTS.md in place of the one with this title. */
function writeSection(title: string, body: string): void {
  const old = existsSync(FILE) ? readFileSync(FILE, 'utf8') : '';
  const sections = old.split(/^(?=## )/m).filter((s) => s.startsWith('## ') && !s.startsWith(`## ${title}\n`));
  const all = [...sections, `## ${title}\n\n${body.trim()}\n`].map((s) => s.trim()).sort();
  writeFileSync(FILE, `# Measured\n\n${all.join('\n\n')}\n`);
}

if (positionals[0] === 'guests') {
  const words = positionals.slice(1);
  const chosen = guests.filter((g) => words.includes(g.name));
  const names = words.filter((w) => !guests.some((g) => g.name === w));
  const strange = names.filter((name) => !programs().includes(name));
  if (strange.length > 0)
    refuse(`Cannot run program ${strange.join(', ')}: accepted are ${programs().join(', ')}, amd64 and i386`);
  for (const guest of chosen.length > 0 ? chosen : guests) {
    const result = await runSuite(guest, { names, rounds, scale, v86: values.v86, log: (line) => console.error(line) });
    const about = `Times inside the guest in milliseconds, medians of ${rounds} rounds in turn, work of scale ${scale}; 512 MiB, one vCPU, \`-cpu max\`, \`mitigations=off\`; ratios below 1: ours is faster.`;
    console.log(result);
    if (names.length === 0 && !values.quick && !values.cold)
      writeSection(`Guest programs, ${guest.name}`, `${machine}.\n${about}\n${result}`);
  }
  process.exit();
}

const unknown = positionals.filter((name) => !all.some((b) => b.name === name));
if (unknown.length > 0) refuse(`Cannot run benchmark ${unknown.join(', ')}: accepted are ${all.map((b) => b.name).join(', ')}`);
const chosen = all.filter((b) => positionals.length === 0 || positionals.includes(b.name));

const results = new Map(chosen.map((b) => [b, new Map<string, Sample[]>()]));
for (let round = 1; round <= rounds; round++) {
  for (const bench of chosen) {
    const contestants = Object.entries(bench.contestants).filter(([name]) => name === 'nonroot' || peers[name] !== undefined);
    // Whoever comes first has a colder machine: take turns.
    if (round % 2 === 0) contestants.reverse();
    for (const [name, run] of contestants) {
      const sample = await run();
      const list = results.get(bench)!;
      list.set(name, [...(list.get(name) ?? []), sample]);
      const text = bench.metrics.flatMap((m) => (m.name in sample ? [`${sample[m.name].toFixed(m.digits)} ${m.unit}`] : []));
      console.error(`${round}/${rounds} ${bench.name} ${name}: ${text.join(', ')}`);
    }
  }
}

const text = `${machine}, ${peers['qemu'] ?? 'no QEMU'}.
Medians of ${rounds} rounds in turn, the range in brackets; ratio: ours over QEMU's. Same kernel, initramfs, command line, memory and vCPUs; \`mitigations=off\`; \`-accel tcg -cpu max\`.

| what | unit | nonroot | QEMU TCG | ratio |
|---|---|---:|---:|---:|
${chosen.flatMap((b) => rowsOf(b, results.get(b)!)).join('\n')}
`;
console.log(text);
if (chosen.length === all.length && !values.cold) writeSection('Boot and engine', text);
