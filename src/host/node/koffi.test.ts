import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadKoffi } from './koffi.ts';

/** Whether there is a binary for this platform. */
function loads(): boolean {
  try {
    loadKoffi();
    return true;
  } catch {
    return false;
  }
}

test('a process that ends, or ends its threads, while these load koffi ends well', {
  skip: !loads() && 'koffi does not load here',
  timeout: 120_000,
}, () => {
  const from = JSON.stringify(join(import.meta.dirname, 'koffi.ts'));
  const gate = JSON.stringify(join(import.meta.dirname, 'native-gate.ts'));
  const program = `
    import { Worker } from 'node:worker_threads';
    import { endThreads } from ${gate};
    const work = "import { workerData } from 'node:worker_threads'; const { loadKoffi } = await import(workerData); loadKoffi();";
    const ms = Number(process.argv[1]);
    const workers = Array.from({ length: 10 })
      .map(() => new Worker(work, { eval: true, workerData: ${from} }));
    setTimeout(async () => {
      if (ms % 2) await endThreads(workers);
      process.exit(7);
    }, ms);`;
  for (let ms = 40; ms < 280; ms += 9) {
    const argv = ['--input-type=module', '-e', program, '--', String(ms)];
    const { status, signal, stderr } = spawnSync(process.execPath, argv, { encoding: 'utf8', timeout: 60_000 });
    assert.equal(status, 7, `after ${ms} ms: ${signal} ${stderr.slice(0, 500)}`);
  }
});
