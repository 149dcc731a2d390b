// The thread of a hostile test: runs what it is told in a rig of its own, so that a guest that the engine cannot leave is found by the
// thread that waits for the answer.

import assert from 'node:assert/strict';
import { parentPort } from 'node:worker_threads';
import { createEngine } from '../../src/accel/dbt/dbt.ts';
import { guests } from './guests.ts';
import { type Mode, prepare } from './random-code.ts';
import { prepareProgram } from './random-programs.ts';
import { Rig, type Tier } from './rig.ts';

/** What to run: a guest of guests.ts by name (on vCPU `cpu`), random code or a random program by seed. */
export type Job = { readonly tier: Tier } & (
  | { readonly kind: 'guest'; readonly name: string; readonly cpu: number }
  | { readonly kind: 'code'; readonly mode: Mode; readonly seed: number }
  | { readonly kind: 'program'; readonly seed: number }
);

const engine = createEngine();
const modules = new Map<string, WebAssembly.Module>();
const rigs = new Map<string, Rig>();

function run(job: Job): void {
  const cpu = job.kind === 'guest' ? job.cpu : 0;
  const key = `${job.tier} ${cpu}`;
  const rig = rigs.get(key) ?? new Rig(job.tier, engine, modules, cpu);
  // Kept for the next job only where this one ends well.
  rigs.delete(key);
  try {
    if (job.kind === 'guest') {
      const guest = guests.find((g) => g.name === job.name)!;
      rig.reset();
      guest.prepare(rig);
      const outcome = rig.run(guest.run);
      if (guest.ends) assert.equal(outcome, guest.ends, `it ended at ${rig.get('rip').toString(16)}`);
      guest.then?.(rig);
    } else if (job.kind === 'code') {
      prepare(rig, job.mode, job.seed);
      rig.run(job.tier === 'off' ? { turns: 8, slice: 3000 } : { turns: 3, slice: 300 });
    } else {
      prepareProgram(rig, job.seed);
      rig.run({ turns: 30, slice: 3000 });
    }
    rig.check();
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.stack : error}\nconsole: ${JSON.stringify(rig.console)}`);
  }
  rigs.set(key, rig);
}

parentPort!.on('message', (job: Job) => {
  try {
    run(job);
    parentPort!.postMessage(null);
  } catch (error) {
    parentPort!.postMessage(error instanceof Error ? error.message : String(error));
  }
});
