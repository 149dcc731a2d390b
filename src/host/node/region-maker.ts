// The vCPU's side of the thread that translates its regions: see region-worker.ts.

import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { RegionBatch, RegionMaker } from '../../accel/dbt/translate.ts';
import type { Kept, LoadedModule } from './kept-code.ts';
import type { RegionWorkerData } from './region-worker.ts';
import { sibling } from './sibling.ts';

/** A machine that ends waits no longer than this. */
const SAVE_MS = 1000;

const WORKER = sibling('region-worker', import.meta.url);

/**
 * A translator of its own for the vCPU whose state is at host address `env`; the thread starts with the first wish, or at once where there are modules of earlier runs for it to load. `main` is the machine's main module, `features` are
 * those of the CPU model: all where it is not said.
 */
export function regionMaker(
  memory: SharedArrayBuffer,
  env: number,
  pages: number,
  main: WebAssembly.Module,
  features?: ReadonlySet<string>,
  keep?: RegionWorkerData['keep'],
  kept?: Kept,
): RegionMaker & { save(): void; close(): void } {
  const { port1, port2 } = new MessageChannel();
  const sent = new Int32Array(new SharedArrayBuffer(4));
  let taken = 0;
  let worker: Worker | null = null;
  function start(): Worker {
    const available = WebAssembly.Module.exports(main).map((e) => e.name);
    const loaded = kept && new MessageChannel();
    const modules = kept?.handOver(() => receiveMessageOnPort(loaded!.port1)?.message as LoadedModule | undefined);
    const ahead = modules && { modules, port: loaded!.port2 };
    const workerData: RegionWorkerData = { memory, env, pages, available, port: port2, sent, features, keep, ahead };
    const made = new Worker(WORKER, { workerData, transferList: ahead ? [port2, ahead.port] : [port2], stdin: false });
    made.unref();
    return made;
  }
  if (kept) worker = start();
  return {
    wish(wish) {
      worker ??= start();
      port1.postMessage(wish);
    },
    receive() {
      if (Atomics.load(sent, 0) === taken) return undefined;
      const got = receiveMessageOnPort(port1);
      if (!got) return undefined;
      taken = (taken + 1) | 0;
      return got.message as { batch: RegionBatch; module: WebAssembly.Module | null };
    },
    /** Waits until what has been made is kept for later runs, for a moment at most. */
    save() {
      if (!worker || !keep) return;
      const done = new Int32Array(new SharedArrayBuffer(4));
      port1.postMessage({ save: done });
      Atomics.wait(done, 0, 0, SAVE_MS);
    },
    close() {
      // It ends by itself: it may be in native code (native-gate.ts).
      if (worker) port1.postMessage({ end: true });
      worker = null;
    },
  };
}
