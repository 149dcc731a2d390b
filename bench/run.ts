// Runs the benchmarks: every contestant in turn, round after round, then medians and ratios. All of them together write RESULTS.md.
// Usage: npm run bench [-- [--rounds N] NAMES]

import { writeFileSync } from 'node:fs';
import { cpus, release, totalmem, type } from 'node:os';
import { parseArgs } from 'node:util';
import { boot } from './boot.ts';
import { loop } from './loop.ts';
import { type Benchmark, median, type Sample, versionOf } from './measure.ts';
import { sha256 } from './sha256.ts';

const all: readonly Benchmark[] = [boot, loop, sha256];
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

const { values, positionals } = parseArgs({ options: { rounds: { type: 'string', default: '3' } }, allowPositionals: true });
const rounds = Number(values.rounds);
if (!Number.isInteger(rounds) || rounds < 1) throw new Error(`Cannot run ${values.rounds} rounds: a positive number is accepted`);
const unknown = positionals.filter((name) => !all.some((b) => b.name === name));
if (unknown.length > 0)
  throw new Error(`Cannot run benchmark ${unknown.join(', ')}: accepted are ${all.map((b) => b.name).join(', ')}`);
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

const cpu = cpus()[0]?.model ?? 'unknown CPU';
const text = `# Measured

${new Date().toISOString().slice(0, 10)}, ${cpus().length} × ${cpu}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${type()} ${release()}, Node ${process.version}, ${peers['qemu'] ?? 'no QEMU'}.
Medians of ${rounds} rounds in turn, the range in brackets; ratio: ours over QEMU's. Same kernel, initramfs, command line, memory and vCPUs; \`mitigations=off\`; \`-accel tcg -cpu max\`.

| what | unit | nonroot | QEMU TCG | ratio |
|---|---|---:|---:|---:|
${chosen.flatMap((b) => rowsOf(b, results.get(b)!)).join('\n')}
`;
console.log(text);
if (chosen.length === all.length) writeFileSync(new URL('RESULTS.md', import.meta.url), text);
