import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Row } from '../../src/isa/x86/row.ts';
import { allRows } from '../../src/isa/x86/rows/all.ts';
import { buildTables } from '../../src/isa/x86/table.ts';
import { differences, effects, formatCase, formatEffects, parseCase, parseEffects } from './case.ts';
import { compareMany, minimise, report } from './compare.ts';
import { Evaluator, type Runner } from './evaluator.ts';
import { undefinedAfter } from './flags.ts';
import { Generator, isExcluded } from './generate.ts';
import { golden } from './golden.ts';
import { excuses } from './known.ts';
import { hostHas, hostIsAmd, hostLacks, hostLimits, openNative } from './native.ts';
import { Random } from './random.ts';
import { Translator } from './tier.ts';

const SEED = 20260;
const CASES = 4000;

const tables = buildTables(allRows);
const runners: readonly Runner[] = [
  new Evaluator(tables),
  new Translator(),
  new Translator('tier2'),
  new Translator('tier0 wide'),
  new Translator('tier2 wide'),
];
const native = openNative();
const skip = typeof native === 'string' ? native : (hostLimits() ?? false);

for (const runner of runners) {
  test(`${runner.name} does what a processor did in every kept case`, () => {
    for (const [text, expected, undefinedFlags = 0] of golden) {
      const c = parseCase(text);
      assert.deepEqual(differences(parseEffects(expected), effects(c, runner.run(c), undefinedFlags)), [], text);
    }
  });
}

test('the kept cases are what this processor does too', { skip }, () => {
  if (typeof native === 'string') return;
  const usable = golden.filter(([text]) => native.modes.includes(parseCase(text).mode));
  const results = native.run(usable.map(([text]) => parseCase(text)));
  for (const [i, [text, expected, undefinedFlags = 0]] of usable.entries()) {
    const c = parseCase(text);
    const found = effects(c, results[i]!, undefinedFlags);
    if (!hostIsAmd) assert.equal(formatEffects(found), expected, text);
    else {
      // What the kept cases hold of flags that are undefined is Intel's.
      const excused = excuses(c, results[i]!, runners[0]!.run(c));
      const open = differences(parseEffects(expected), found).filter(
        (d) => !/^flags:/.test(d) && !excused.some((e) => e.test(d.split(':')[0]!)),
      );
      assert.deepEqual(open, [], text);
    }
  }
});

test(`${CASES} random cases of seed ${SEED} end as on this processor`, { skip }, (t) => {
  if (typeof native === 'string') return;
  if (hostLacks.length > 0) t.diagnostic(`without what the processor lacks: ${hostLacks.join(', ')}`);
  const generator = new Generator(tables, SEED, { modes: native.modes, amd: hostIsAmd, has: hostHas });
  const failures = compareMany(native, runners, generator, CASES, 5);
  assert.equal(failures.length, 0, failures.map((f) => report(native, runners.find((r) => r.name === f.runner)!, f)).join('\n'));
});

test('a wrong row is found, and its case made small', { skip }, () => {
  if (typeof native === 'string') return;
  // Subtraction that forgets the borrow.
  const wrong = allRows.map((row): Row => {
    if (row.asm !== 'sbb Ev,Gv') return row;
    return { ...row, emit: (c, d, s) => c.write(d!, c.b.sub(c.read(d!), c.read(s!))) };
  });
  const runner = new Evaluator(buildTables(wrong));
  const generator = new Generator(tables, 1, { modes: [64], pattern: / (sbb|add|mov) E/ });
  const [failure] = compareMany(native, [runner], generator, 2000, 1);
  assert.ok(failure);
  const small = minimise(native, runner, failure);
  assert.ok(small.case.code.length <= 15, formatCase(small.case));
  assert.ok(small.differences.length > 0);
  assert.deepEqual(parseCase(formatCase(small.case)), small.case);
});

test('every row is generated or left out for a reason', () => {
  const generator = new Generator(tables, 3);
  const seen = new Set<Row>();
  for (let i = 0; i < 30_000; i++) for (const info of generator.next().rows) seen.add(info.row);
  const missing = tables.rows.filter((i) => i.row.opcode !== '' && !seen.has(i.row) && !isExcluded(i));
  assert.deepEqual(
    missing.map((i) => `${i.row.opcode} ${i.row.asm}`),
    [],
  );
});

test('equal seeds give equal cases', () => {
  const [a, b] = [new Generator(tables, 5), new Generator(tables, 5)];
  for (let i = 0; i < 200; i++) assert.equal(formatCase(a!.next().case), formatCase(b!.next().case));
  assert.notEqual(new Random(1).u32(), new Random(2).u32());
});

test('flags that an instruction leaves undefined are those of the manual', () => {
  assert.equal(undefinedAfter(0, 'mul', 32), 0xd4);
  assert.equal(undefinedAfter(0x10, 'add', 32), 0);
  assert.equal(undefinedAfter(0, 'shl', 32, 1), 0x10);
  assert.equal(undefinedAfter(0, 'shl', 8, 9), 0x811);
  assert.equal(undefinedAfter(0x800, 'sar', 64, 0), 0x800);
});
