// Reads a unix socket with the file descriptors that come along, which Node's own reading drops: unix(7) SCM_RIGHTS, recvmsg(2).
// Measured: a thread that blocks in recvmsg costs nothing while idle and hands a request on in 60 µs; polling from the event loop
// costs either latency or a busy loop. See docs/decisions.

import type { Socket } from 'node:net';
import { Worker } from 'node:worker_threads';
import { libc } from './libc.ts';
import { sibling } from './sibling.ts';
import type { FdMessage } from './socket-fds-worker.ts';

const WORKER = sibling('socket-fds-worker', import.meta.url);
const SHUT_RD = 0;

export interface FdReader {
  /** Takes the oldest descriptor that has come. */
  readonly takeFd: () => number | undefined;
}

/**
 * Reads `socket`, which must not have been read before, in its place; writing stays with it. Undefined where the host's calls cannot
 * be made: then the caller reads, without descriptors.
 */
export function readWithFds(
  socket: Socket,
  receive: (bytes: Uint8Array) => void | Promise<void>,
  end: () => void,
): FdReader | undefined {
  const c = libc();
  const handle = (socket as unknown as { _handle?: { fd?: number } })._handle;
  if (!c || handle?.fd === undefined || handle.fd < 0) return undefined;
  const fd = c.dup(handle.fd);
  if (fd < 0) return undefined;
  const fds: number[] = [];
  // A word that holds the reader back while the receiver is busy.
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(WORKER, { workerData: { fd, gate }, stdin: false });
  worker.unref();
  const unblock = (): void => {
    c.shutdown(fd, SHUT_RD);
    Atomics.store(gate, 0, 0);
    Atomics.notify(gate, 0);
  };
  // A thread that blocks in a call keeps the process from ending.
  process.once('exit', unblock);
  let over = false;
  const finish = (): void => {
    if (over) return;
    over = true;
    process.off('exit', unblock);
    unblock();
    void worker.terminate().then(() => c.close(fd));
    for (const left of fds) c.close(left);
    end();
  };
  let last: Promise<void> = Promise.resolve();
  worker.on('message', (m: FdMessage) => {
    if (m.bytes.length === 0) return void last.then(finish);
    fds.push(...m.fds);
    last = last.then(async () => {
      await receive(m.bytes);
      Atomics.sub(gate, 0, 1);
      Atomics.notify(gate, 0);
    });
  });
  worker.on('error', finish);
  socket.on('close', finish);
  return { takeFd: () => fds.shift() };
}
