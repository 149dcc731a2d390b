// Chooses the handlers of tier 0's main loops: reads profiles (JSON arrays of { n: name, c: count } and of { a: name, b: name, c: count }
// for two in a row), adds them up, and writes src/accel/dbt/hot.ts with those that cover most executions. What else the profiles have joins those
// that are made ahead, which are kept.
// Usage: node tools/profile-handlers.ts COUNT PAIRS PROFILE...
import { readFileSync, writeFileSync } from 'node:fs';
import { hotHandlers } from '../src/accel/dbt/hot.ts';

const [count, pairCount, ...files] = process.argv.slice(2);
/** What ends a block has nothing behind it. */
const ENDS = new Set(['ret', 'call', 'jmp', 'jmpf', 'iret', 'syscall', 'sysret']);
type Row = { n: string; c: number } | { a: string; b: string; c: number };

const shares = new Map<string, number>();
const pairShares = new Map<string, number>();
for (const file of files) {
  const rows = JSON.parse(readFileSync(file, 'utf8')) as Row[];
  const total = rows.reduce((sum, r) => sum + r.c, 0);
  for (const r of rows) {
    const [key, list] = 'n' in r ? [r.n, shares] : [JSON.stringify([r.a, r.b]), pairShares];
    list.set(key, (list.get(key) ?? 0) + r.c / total);
  }
}
const best = (list: ReadonlyMap<string, number>, most: string): string[] =>
  [...list].sort((a, b) => b[1] - a[1]).slice(0, Number(most)).map(([key]) => key); // biome-ignore format: one line
const text = (name: string): string => `'${name.replaceAll("'", "\\'")}'`;
const isLong = (name: string): boolean => name.split('|')[4] === 'long';

const hottest = (long: boolean): string[] => best(new Map([...shares].filter(([name]) => isLong(name) === long)), count);

function section(long: boolean): string {
  const names = hottest(long);
  const pairs = best(pairShares, '100000')
    .map((key) => JSON.parse(key) as [string, string])
    .filter(([a, b]) => isLong(a) === long && names.includes(a) && names.includes(b))
    .filter(([a]) => !ENDS.has(a.split('|')[1].split(' ')[0]))
    .slice(0, Number(pairCount));
  const prefix = long ? 'long' : 'legacy';
  const lines = pairs.map(([a, b]) => `    [${text(a)}, ${text(b)}],\n`);
  return `  ${prefix}: [\n${names.map((n) => `    ${text(n)},\n`).join('')}  ],\n  ${prefix}Pairs: [\n${lines.join('')}  ],\n`;
}

function cold(): string {
  const hot = new Set([...hottest(true), ...hottest(false)]);
  const names = [...new Set([...hotHandlers.cold, ...shares.keys()])].filter((name) => !hot.has(name));
  return `  cold: [\n${names.map((n) => `    ${text(n)},\n`).join('')}  ],\n`;
}

const path = new URL('../src/accel/dbt/hot.ts', import.meta.url);
const old = readFileSync(path, 'utf8');
const start = old.indexOf('export const hotHandlers');
writeFileSync(
  path,
  `${old.slice(0, start)}export const hotHandlers: HotHandlers = {\n${section(true)}${section(false)}${cold()}};\n`,
);
