// Threads of this process that are in native code which calls back into JavaScript (native-code.ts): they may not be ended there, for that ends the
// process. What is about to end threads waits until none is in it, and keeps others out.

import { getEnvironmentData, isMainThread, setEnvironmentData, type Worker } from 'node:worker_threads';

const NAME = 'nonroot.native-gate';
/** How many threads are in native code; and for how many reasons none may go there. */
const INSIDE = 0;
const CLOSED = 1;
/** A process that ends waits no longer than this, in ms. */
const PATIENCE = 5000;

/** The words that all threads of the process share: threads are given them when they start. */
const words = (getEnvironmentData(NAME) as unknown as Int32Array<SharedArrayBuffer> | undefined) ?? create();
function create(): Int32Array<SharedArrayBuffer> {
  const made = new Int32Array(new SharedArrayBuffer(8));
  setEnvironmentData(NAME, made);
  return made;
}
// The exit of the process ends its threads wherever they are.
if (isMainThread)
  process.on('exit', () => {
    Atomics.add(words, CLOSED, 1);
    waitUntilOutside();
  });

/** Does what calls into native code; undefined where threads are about to be ended. */
export function inNative<T>(work: () => T): T | undefined {
  if (Atomics.load(words, CLOSED) !== 0) return undefined;
  // Looked at again once it is counted: who closes it counts those inside afterwards.
  Atomics.add(words, INSIDE, 1);
  try {
    return Atomics.load(words, CLOSED) === 0 ? work() : undefined;
  } finally {
    Atomics.sub(words, INSIDE, 1);
    Atomics.notify(words, INSIDE);
  }
}

/** Ends threads: no thread of the process goes into native code until they have ended. */
export async function endThreads(threads: readonly (Worker | undefined)[]): Promise<void> {
  Atomics.add(words, CLOSED, 1);
  try {
    waitUntilOutside();
    await Promise.all(threads.map((t) => t?.terminate()));
  } finally {
    Atomics.sub(words, CLOSED, 1);
  }
}

/** Waits until no thread is in native code. */
function waitUntilOutside(): void {
  const end = Date.now() + PATIENCE;
  for (let n = Atomics.load(words, INSIDE); n > 0 && Date.now() < end; n = Atomics.load(words, INSIDE))
    Atomics.wait(words, INSIDE, n, 100);
}
