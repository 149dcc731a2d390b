// Compares daemons: `node test/virsh/compare.ts [--record] NAME=URI,EMULATOR …`. The first is what the others are held against;
// --record keeps its outcomes as golden.json. NAME=golden stands for what was recorded. Prints a table for docs/virsh.md, and the differences on standard error.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { operations } from './operations.ts';
import { difference, type Outcomes, runScenario } from './scenario.ts';

const record = process.argv.includes('--record');
const targets = process.argv.slice(2).filter((word) => word !== '--record');
const results: { name: string; outcomes: Outcomes }[] = [];
for (const word of targets) {
  const [name = '', rest = ''] = word.split(/=(.*)/s);
  if (rest === 'golden') {
    results.push({ name, outcomes: JSON.parse(readFileSync(new URL('golden.json', import.meta.url), 'utf8')) as Outcomes });
    continue;
  }
  const comma = rest.lastIndexOf(',');
  const directory = mkdtempSync(join(tmpdir(), 'virsh-'));
  const begin = Date.now();
  const outcomes = await runScenario({ uri: rest.slice(0, comma), emulator: rest.slice(comma + 1), directory });
  process.stderr.write(`${name}: ${operations.length} operations in ${((Date.now() - begin) / 1000).toFixed(1)} s\n`);
  results.push({ name, outcomes });
  rmSync(directory, { recursive: true, force: true });
}
const [reference, ...others] = results;
if (record) {
  writeFileSync(new URL('golden.json', import.meta.url), `${JSON.stringify(reference!.outcomes, null, 1)}\n`);
}
const lines = [`| operation | ${results.map((one) => one.name).join(' | ')} |`, `|---|${results.map(() => '---|').join('')}`];
for (const operation of operations) {
  const want = reference!.outcomes[operation.name]!;
  const cells = others.map(({ name, outcomes }) => {
    const wrong = difference(operation, outcomes[operation.name]!, want);
    if (wrong !== undefined) process.stderr.write(`${name}: ${operation.name}: ${wrong.split('\n', 1)[0]}\n`);
    return wrong === undefined ? 'same' : 'differs';
  });
  const first = want.code === 0 ? 'done' : 'refused';
  lines.push(`| ${operation.name} | ${[first, ...cells].join(' | ')} |`);
}
process.stdout.write(`${lines.join('\n')}\n`);
