// The vCPU's side of the thread that translates its regions: see region-worker.ts.

import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { RegionBatch, RegionMaker } from '../../accel/dbt/translate.ts';
import type { RegionWorkerData } from './region-worker.ts';
import { sibling } from './sibling.ts';

const WORKER = sibling('region-worker', import.meta.url);

/**
 * A translator of its own for a vCPU; the thread starts with the first wish. `main` is the machine's main module, `features` are
 * those of the CPU model: all where it is not said.
 */
export function regionMaker(
  memory: WebAssembly.Memory,
  pages: number,
  main: WebAssembly.Module,
  features?: ReadonlySet<string>,
): RegionMaker & { close(): void } {
  const { port1, port2 } = new MessageChannel();
  const sent = new Int32Array(new SharedArrayBuffer(4));
  let taken = 0;
  let worker: Worker | null = null;
  return {
    wish(wish) {
      if (!worker) {
        const available = WebAssembly.Module.exports(main).map((e) => e.name);
        const data: RegionWorkerData = { memory, pages, available, port: port2, sent, features };
        worker = new Worker(WORKER, { workerData: data, transferList: [port2], stdin: false });
        worker.unref();
      }
      port1.postMessage(wish);
    },
    receive() {
      if (Atomics.load(sent, 0) === taken) return undefined;
      const got = receiveMessageOnPort(port1);
      if (!got) return undefined;
      taken = (taken + 1) | 0;
      return got.message as { batch: RegionBatch; module: WebAssembly.Module | null };
    },
    close() {
      void worker?.terminate();
    },
  };
}
