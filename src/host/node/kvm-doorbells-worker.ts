// The thread that waits for doorbells which the kernel rings (accel/kvm/doorbells.ts) and passes them on to the I/O thread.

import { threadId, workerData } from 'node:worker_threads';
import type { MemoryLayout } from '../../accel/accel.ts';
import { KvmDoorbells } from '../../accel/kvm/doorbells.ts';
import type { KvmShare } from '../../accel/kvm/vm.ts';
import { kvmHost } from './kvm-native.ts';

export interface DoorbellsWorkerData {
  readonly share: KvmShare;
  readonly memory: SharedArrayBuffer;
  readonly layout: MemoryLayout;
}

const { share, memory, layout } = workerData as DoorbellsWorkerData;
new KvmDoorbells({ host: kvmHost(), share }, memory, layout, threadId + 1).serve();
