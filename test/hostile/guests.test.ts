// Guests that mean harm, in one thread each: the host lives, its memory is as it was, and the vCPU is in a state that a CPU can be in.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { guests } from './guests.ts';
import { modes } from './random-code.ts';
import type { Job } from './worker.ts';

/** ms after which a job counts as one that the engine cannot leave. */
const LIMIT = 30_000;

let worker: Worker | null = null;
after(() => worker?.terminate());

/** Runs jobs one after the other; fails with the first that fails. */
async function run(jobs: readonly Job[]): Promise<void> {
  for (const job of jobs) {
    const w = (worker ??= new Worker(new URL('./worker.ts', import.meta.url)));
    let hung: ReturnType<typeof setTimeout> | undefined;
    const answered = once(w, 'message').then(([answer]) => answer as string | null, String);
    w.postMessage(job);
    const failure = await Promise.race([
      answered,
      new Promise<string>((resolve) => {
        hung = setTimeout(() => resolve(`no answer in ${LIMIT} ms`), LIMIT);
      }),
    ]);
    clearTimeout(hung);
    if (failure !== null) {
      worker = null;
      await w.terminate();
    }
    assert.equal(failure, null, `${JSON.stringify(job)}: ${failure}`);
  }
}

const tiers = ['off', 'always'] as const;
for (const tier of tiers) {
  const how = tier === 'off' ? 'interpreted' : 'translated';
  const named = (pattern: RegExp): Job[] =>
    guests.filter((g) => pattern.test(g.name)).map((g) => ({ kind: 'guest', tier, name: g.name, cpu: 0 }));

  test(`hostile guests do no harm (${how})`, () => run(named(/./)));
  test(`the tenth vCPU sees that its code changes (${how})`, () =>
    run(named(/changes (every|an|the)|another mapping/).map((j) => ({ ...j, cpu: 9 }) as Job)));
  test(`random code does no harm (${how})`, () => {
    const seeds = Array.from({ length: tier === 'off' ? 150 : 30 }, (_, seed) => seed);
    return run(seeds.flatMap((seed) => modes.map((mode): Job => ({ kind: 'code', tier, mode, seed }))));
  });
  test(`random programs do no harm (${how})`, () => {
    const seeds = Array.from({ length: tier === 'off' ? 100 : 25 }, (_, seed) => seed);
    return run(seeds.map((seed): Job => ({ kind: 'program', tier, seed })));
  });
}
