// Threads for vCPUs. One may be started ahead of its machine: it builds the translator's tables and compiles the main module while this
// thread reads its command line, its own modules and the kernel.

import { type Transferable, Worker } from 'node:worker_threads';
import type { Ahead, VcpuWorkerData } from './vcpu-worker.ts';

/** The worker's file has the extension of this one: `.ts` in a clone, `.js` in the package. */
const WORKER = new URL(`./vcpu-worker${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url);

/** A thread that waits for its machine. It does not keep the process alive. Where the machine is known to run on KVM, the translator can wait. */
export function threadAhead(ahead: Ahead['ahead'] = 'translator'): Worker {
  const worker = new Worker(WORKER, { workerData: { ahead } satisfies Ahead, stdin: false });
  worker.unref();
  return worker;
}

/** A thread with what it runs: `ahead`, or a new one. */
export function vcpuThread(data: VcpuWorkerData, transfer: readonly Transferable[], ahead?: Worker): Worker {
  if (!ahead) return new Worker(WORKER, { workerData: data, transferList: [...transfer], stdin: false });
  ahead.ref();
  ahead.postMessage(data, [...transfer]);
  return ahead;
}
