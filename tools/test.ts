// Runs every check and test of the project: what `npm test` and continuous integration run. Checks come first, then the unit tests, two
// files at a time, then the tests that boot guests or compare with the host's CPU, one at a time. The last lines are the counts.
// Usage: npm test [-- PATTERN...]    only test files whose path contains a PATTERN (a regular expression)

import { once } from 'node:events';
import { globSync } from 'node:fs';
import { dirname, sep } from 'node:path';
import { Readable } from 'node:stream';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

type TestEvent = {
  readonly type: string;
  readonly data: { readonly nesting?: number; readonly file?: string; readonly message?: string };
};

/** Files that run together: how many at a time, and the longest that one of them may take, in milliseconds. */
type Phase = { readonly files: readonly string[]; readonly concurrency: number; readonly timeout: number };

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const COUNT = /^(tests|suites|pass|fail|cancelled|skipped|todo) (\d+)$/;
const CHECKS = ['tools/checks.test.ts', 'layers.test.ts'];
const isSlow = (file: string): boolean => /^test\/(e2e|native|kvm)\//.test(file) || file.endsWith('.guest.test.ts');

/** Test files by phase. Throws where a pattern is no regular expression. */
function phases(patterns: readonly string[]): Phase[] {
  const wanted = patterns.map((p) => new RegExp(p));
  const all = globSync(['*.test.ts', '{src,test,tools,bench,bin}/**/*.test.ts'], { cwd: root })
    .map((file) => file.replaceAll(sep, '/'))
    .filter((file) => wanted.length === 0 || wanted.some((w) => w.test(file)))
    .sort();
  return [
    { files: all.filter((f) => CHECKS.includes(f)), concurrency: 1, timeout: 300_000 },
    { files: all.filter((f) => !CHECKS.includes(f) && !isSlow(f)), concurrency: 2, timeout: 300_000 },
    { files: all.filter(isSlow), concurrency: 1, timeout: 600_000 },
  ].filter((phase) => phase.files.length > 0);
}

const totals = new Map<string, number>();
const stop = new AbortController();

/** The events of all phases as one run: the counts that end each phase are added up and left out. */
async function* events(list: readonly Phase[]): AsyncGenerator<TestEvent> {
  for (const { files, concurrency, timeout } of list) {
    if (stop.signal.aborted) return;
    const stream = run({ cwd: root, files: [...files].map((f) => `${root}/${f}`), concurrency, timeout, signal: stop.signal });
    for await (const event of stream as AsyncIterable<TestEvent>) {
      const { nesting, file, message } = event.data ?? {};
      if (event.type === 'test:summary' && file === undefined) continue;
      if (event.type === 'test:diagnostic' && nesting === 0) {
        const count = COUNT.exec(message ?? '');
        if (count) totals.set(count[1], (totals.get(count[1]) ?? 0) + Number(count[2]));
        if (count || message?.startsWith('duration_ms')) continue;
      }
      yield event;
    }
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop.abort());
const start = performance.now();
const list = phases(process.argv.slice(2));
const output = Readable.from(events(list)).compose(spec);
output.pipe(process.stdout, { end: false });
await once(output, 'end');
const seconds = (performance.now() - start) / 1000;
process.stdout.write(
  `${[...totals].map(([name, n]) => `ℹ ${name} ${n}`).join('\n')}\nℹ duration_ms ${(seconds * 1000).toFixed(0)}\n`,
);
const count = (name: string): number => totals.get(name) ?? 0;
if (count('tests') === 0) process.stderr.write('Cannot run tests: no test file matches\n');
process.exitCode = count('tests') === 0 || count('fail') > 0 || count('cancelled') > 0 || stop.signal.aborted ? 1 : 0;
