// The thread of one unix socket: blocks in recvmsg and posts bytes and descriptors. Ends with the socket.

import { parentPort, workerData } from 'node:worker_threads';
import { libc } from './libc.ts';

/** No bytes: the socket has ended. */
export interface FdMessage {
  readonly bytes: Uint8Array;
  readonly fds: readonly number[];
}

const { fd, gate } = workerData as { fd: number; gate: Int32Array };
const c = libc()!;
/** Pieces that may wait for the receiver. */
const AHEAD = 8;

for (;;) {
  let waiting = Atomics.load(gate, 0);
  while (waiting >= AHEAD) {
    Atomics.wait(gate, 0, waiting, 1000);
    waiting = Atomics.load(gate, 0);
  }
  const m: FdMessage = c.receive(fd, 65536);
  Atomics.add(gate, 0, 1);
  parentPort!.postMessage(m);
  if (m.bytes.length === 0) break;
}
