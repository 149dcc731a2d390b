// What the benchmarks share: medians, and child processes that are watched until they say a word.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** One run of one contestant: values by metric. */
export type Sample = Readonly<Record<string, number>>;

/** A metric of a benchmark. */
export type Metric = { readonly name: string; readonly unit: string; readonly digits: number };

/** What is compared. The first contestant is ours; ratios are the others' values over ours. */
export type Benchmark = {
  readonly name: string;
  readonly about: string;
  readonly metrics: readonly Metric[];
  readonly contestants: Readonly<Record<string, () => Promise<Sample>>>;
};

/** The middle value, or the mean of the two middle ones; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** The first line that `program -version` or the like prints; undefined where it cannot run. */
export function versionOf(program: string, ...args: string[]): string | undefined {
  const { status, stdout } = spawnSync(program, args, { encoding: 'utf8' });
  return status === 0 ? stdout.split('\n')[0] : undefined;
}

/** Peak resident memory of a running process in MiB. Linux only. */
export function peakMemory(child: ChildProcess): number {
  const match = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'));
  if (!match) throw new Error(`Cannot read the memory of process ${child.pid}: /proc has no VmHWM`);
  return Number(match[1]) / 1024;
}

/** A process that is being timed. */
export type Watched = {
  readonly child: ChildProcess;
  /** Resolves with the milliseconds since the start once the standard output has held `word`; rejects when the process ends before. */
  said(word: string): Promise<number>;
  /** All that it has said. */
  readonly text: string;
  stop(): Promise<void>;
};

/** Starts a process. Its standard output is read, its errors are shown when it ends too early. */
export function watch(program: string, args: readonly string[], limit = 120_000): Watched {
  const start = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const seen: { at: number; length: number }[] = [];
  let text = '';
  let errors = '';
  let changed = (): void => undefined;
  child.stdout.setEncoding('latin1').on('data', (chunk: string) => {
    text += chunk;
    seen.push({ at: performance.now() - start, length: text.length });
    changed();
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    errors += chunk;
  });
  const ended = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      errors += error.message;
      resolve();
    });
    child.once('close', () => resolve());
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), limit);
  let over = false;
  void ended.then(() => {
    over = true;
    clearTimeout(timer);
    changed();
  });
  return {
    child,
    get text() {
      return text;
    },
    async said(word) {
      for (;;) {
        const at = text.indexOf(word);
        if (at >= 0) return seen.find((s) => s.length >= at + word.length)!.at;
        if (over) throw new Error(`Cannot measure ${program}: it ended before it said "${word}"\n${errors}`);
        await new Promise<void>((resolve) => {
          changed = resolve;
        });
      }
    },
    async stop() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
