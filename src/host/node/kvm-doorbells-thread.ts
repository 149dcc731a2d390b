// Starts and ends the thread that waits for doorbells which the kernel rings.

import { Worker } from 'node:worker_threads';
import type { DoorbellsWorkerData } from './kvm-doorbells-worker.ts';
import type { KvmThread } from './kvm-thread.ts';
import { sibling } from './sibling.ts';

/** The worker's file has the extension of this one: `.ts` in a clone, `.js` in the package. */
const WORKER = sibling('kvm-doorbells-worker', import.meta.url);

/** Starts it where the machine has such doorbells; what comes back ends it. It does not keep the process alive. */
export function waitForDoorbells(
  { vm, doorbells }: Pick<KvmThread, 'vm' | 'doorbells'>,
  data: Omit<DoorbellsWorkerData, 'share'>,
  failed: (message: string) => void,
): () => Promise<void> {
  if (vm.share.waits === undefined) return async () => {};
  doorbells.open();
  const worker = new Worker(WORKER, { workerData: { ...data, share: vm.share } satisfies DoorbellsWorkerData, stdin: false });
  worker.unref();
  const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  worker.on('error', (error) => failed(error instanceof Error ? (error.stack ?? error.message) : String(error)));
  return async () => {
    doorbells.close();
    worker.ref();
    await ended;
  };
}
