// Chooses the handlers of tier 0's main loop: reads profiles (JSON arrays of { n: name, c: count }), adds them up, and writes
// src/accel/dbt/hot.ts with those that cover most executions. Usage: node tools/profile-handlers.ts COUNT PROFILE...
import { readFileSync, writeFileSync } from 'node:fs';

const [count, ...files] = process.argv.slice(2);
const shares = new Map<string, number>();
for (const file of files) {
  const rows = JSON.parse(readFileSync(file, 'utf8')) as { n: string; c: number }[];
  const total = rows.reduce((sum, r) => sum + r.c, 0);
  for (const r of rows) shares.set(r.n, (shares.get(r.n) ?? 0) + r.c / total);
}
const names = [...shares].sort((a, b) => b[1] - a[1]).slice(0, Number(count));
const lines = names.map(([name]) => `  ${JSON.stringify(name).replaceAll("'", "\\'").replace(/^"|"$/g, "'")},`);
writeFileSync(
  new URL('../src/accel/dbt/hot.ts', import.meta.url),
  `// The handlers that tier 0's main loop holds, hottest first: measured over boots and busybox programs, written by
// tools/profile-handlers.ts.

export const hotHandlers: readonly string[] = [
${lines.join('\n')}
];
`,
);
