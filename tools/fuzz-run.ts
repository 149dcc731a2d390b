// What tools/fuzz.ts does.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { allRows } from '../src/isa/x86/rows/all.ts';
import { buildTables } from '../src/isa/x86/table.ts';
import { fuzzBoard } from '../test/hostile/board-fuzz.ts';
import { fuzzGdbEmulator } from '../test/hostile/gdb-fuzz.ts';
import { fuzzNbdClient, fuzzNbdServer } from '../test/hostile/nbd-fuzz.ts';
import { fuzzNet } from '../test/hostile/net-fuzz.ts';
import { watchRegions } from '../test/hostile/proving.ts';
import { fuzzRfb } from '../test/hostile/rfb-fuzz.ts';
import { effects, formatCase, formatEffects, parseCase } from '../test/native/case.ts';
import { compareMany, compareOne, report } from '../test/native/compare.ts';
import { Evaluator, type Runner } from '../test/native/evaluator.ts';
import { Generator } from '../test/native/generate.ts';
import { hostHas, hostIsAmd, openNative } from '../test/native/native.ts';
import { Translator } from '../test/native/tier.ts';
import { cannotBuild } from '../test/units/build.ts';
import { fuzzSystem, systemKinds } from '../test/units/random.ts';

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '20000' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    rows: { type: 'string' },
    tiers: { type: 'string', default: 'eval' },
    failures: { type: 'string', default: '20' },
    mode: { type: 'string' },
    loop: { type: 'string' },
    case: { type: 'string', multiple: true },
    board: { type: 'string' },
    system: { type: 'string' },
    peer: { type: 'string' },
    protocol: { type: 'string' },
    undefined: { type: 'string', default: '0' },
    prove: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
if (values.help) {
  const head = readFileSync(join(import.meta.dirname, 'fuzz.ts'), 'utf8').split(/^import /m)[0]!;
  console.log(head.replace(/^\/\/ ?/gm, '').trim());
  process.exit();
}
if (values.board !== undefined) {
  if (values.board !== 'pc' && values.board !== 'q35') {
    console.error(`Cannot use --board ${values.board}: accepted are pc and q35`);
    process.exit(2);
  }
  const first = Number(values.seed);
  for (let n = 0; n < Number(values.cases); n++) await fuzzBoard(values.board, first + n, 30_000);
  console.log(`${values.board}: seeds ${first} to ${first + Number(values.cases) - 1}, no failure`);
  process.exit();
}
if (values.system !== undefined) {
  const kind = systemKinds.find((k) => k === values.system);
  const reason = kind ? cannotBuild() : `--system ${values.system}: accepted are ${systemKinds.join(', ')}`;
  if (!kind || reason) {
    console.error(`Cannot run random cases in ring 0: ${reason}`);
    process.exit(2);
  }
  const found = await fuzzSystem(kind, Number(values.seed), Number(values.cases), values.peer);
  for (const line of found) console.log(line);
  console.log(`${kind}: ${values.cases} cases from seed ${values.seed}, ${found.length} failures`);
  process.exit(found.length > 0 ? 1 : 0);
}
const protocols: Readonly<Record<string, (seed: number) => Promise<void>>> = {
  net: (seed) => fuzzNet(seed, 6000),
  rfb: (seed) => fuzzRfb(seed, 60),
  gdb: (seed) => fuzzGdbEmulator(seed, 60),
  'nbd-server': (seed) => fuzzNbdServer(seed, 40),
  'nbd-client': (seed) => fuzzNbdClient(seed, 20),
};
if (values.protocol !== undefined) {
  const fuzz = protocols[values.protocol];
  if (!fuzz) {
    console.error(`Cannot use --protocol ${values.protocol}: accepted are ${Object.keys(protocols).join(', ')}`);
    process.exit(2);
  }
  const first = Number(values.seed);
  let failed = 0;
  for (let seed = first; seed < first + Number(values.cases); seed++)
    await fuzz(seed).catch((error: unknown) => {
      failed++;
      console.log(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`);
    });
  console.log(`${values.protocol}: seeds ${first} to ${first + Number(values.cases) - 1}, ${failed} failures`);
  process.exit(failed > 0 ? 1 : 0);
}
const native = openNative();
if (typeof native === 'string') {
  console.error(`Cannot compare with the host: ${native}`);
  process.exit(1);
}
// With tier2: what is translated is proven to touch nothing but the guest and its vCPU.
const proofs = { modules: 0, accesses: 0, unproven: new Map<string, number>() };
if (values.prove) {
  watchRegions((_, proof) => {
    proofs.modules++;
    proofs.accesses += proof.proven.state + proof.proven.guest;
    for (const { what } of proof.unproven) proofs.unproven.set(what, (proofs.unproven.get(what) ?? 0) + 1);
  });
}
const tables = buildTables(allRows);
const tiers: Readonly<Record<string, () => Runner>> = {
  eval: () => new Evaluator(tables),
  tier0: () => new Translator(),
  tier2: () => new Translator('tier2'),
  'tier0 wide': () => new Translator('tier0 wide'),
  'tier2 wide': () => new Translator('tier2 wide'),
};
const runners: Runner[] = [];
for (const name of values.tiers.split(',')) {
  const make = tiers[name];
  if (!make) throw new Error(`Cannot run tier ${name}: accepted are ${Object.keys(tiers).join(', ')}`);
  runners.push(make());
}
// Cases come to tier 2 through tier 0.
for (const r of [...runners]) {
  if (!(r instanceof Translator) || !r.name.startsWith('tier2')) continue;
  const { first } = r;
  const at = runners.findIndex((one) => one.name === first.name);
  if (at >= 0) runners.splice(at, 1);
  runners.push(first);
}
if (values.case) {
  const mask = Number.parseInt(values.undefined, 16);
  for (const text of values.case) {
    const one = parseCase(text);
    const [expected] = native.run([one]);
    console.log(
      `  ['${formatCase(one)}',\n   '${formatEffects(effects(one, expected!, mask))}'${mask ? `, 0x${mask.toString(16)}` : ''}],`,
    );
    for (const r of runners) for (const d of compareOne(one, expected!, r, mask)) console.log(`${r.name}: host ${d}`);
  }
  process.exit();
}
const seed = Number(values.seed);
const modes = native.modes.filter((m) => values.mode === undefined || String(m) === values.mode);
if (modes.length === 0) {
  console.error(`Cannot run code of ${values.mode} bits on this host: its kernel lets programs run ${native.modes.join(', ')}`);
  process.exit(2);
}
const generator = new Generator(tables, seed, {
  amd: hostIsAmd,
  has: hostHas,
  modes,
  ...(values.loop ? { loop: Number(values.loop) } : {}),
  ...(values.rows ? { pattern: new RegExp(values.rows) } : {}),
});
const start = performance.now();
const failures = compareMany(native, runners, generator, Number(values.cases), 5000);
const seconds = (performance.now() - start) / 1000;
console.log(`seed ${seed}: ${values.cases} cases, ${failures.length} failures, ${seconds.toFixed(1)} s`);
if (values.prove) {
  console.log(`proven: ${proofs.accesses} accesses in ${proofs.modules} modules of regions`);
  for (const [what, times] of proofs.unproven) console.log(`not proven, ${times} times: ${what}`);
}
// One of each kind: the last row of the sequence and the names that differ.
const seen = new Set<string>();
for (const f of failures) {
  const key = `${f.runner} ${f.generated.rows.length === 1 ? f.generated.rows[0]!.row.asm : 'sequence'} ${f.differences.map((d) => d.split(':')[0]).join()}`;
  if (seen.has(key) || seen.size >= Number(values.failures)) continue;
  seen.add(key);
  console.log(report(native, runners.find((r) => r.name === f.runner)!, f));
}
process.exitCode = failures.length > 0 || proofs.unproven.size > 0 ? 1 : 0;
