// Threads for vCPUs. One may be started ahead of its machine: it builds the translator's tables and compiles the main module while this
// thread reads its command line, its own modules and the kernel.

import { type Transferable, Worker } from 'node:worker_threads';
import './native-gate.ts';
import { sibling } from './sibling.ts';
import type { Ahead, VcpuWorkerData } from './vcpu-worker.ts';

const WORKER = sibling('vcpu-worker', import.meta.url);

/** A thread that waits for its machine. */
export interface ThreadAhead {
  readonly worker: Worker;
  readonly gate: Int32Array<SharedArrayBuffer>;
}

/** Starts one. It does not keep the process alive. Where the machine is known to run on KVM, the translator can wait. */
export function threadAhead(ahead: Ahead['ahead'] = 'translator'): ThreadAhead {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(WORKER, { workerData: { ahead, gate } satisfies Ahead, stdin: false });
  worker.unref();
  return { worker, gate };
}

/** A thread with what it runs: `ahead`, or a new one. */
export function vcpuThread(data: VcpuWorkerData, transfer: readonly Transferable[], ahead?: ThreadAhead): Worker {
  if (!ahead) return new Worker(WORKER, { workerData: data, transferList: [...transfer], stdin: false });
  const { worker, gate } = ahead;
  worker.ref();
  worker.postMessage(data, [...transfer]);
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  return worker;
}
