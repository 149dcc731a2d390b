// Threads of this process that are in native code which calls back into JavaScript (native-code.ts), or that load such code (koffi.ts): they may not be
// ended there, for that ends the process. What is about to end threads waits until none is in it, and keeps others out.

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

/** How many times this thread is in native code, one inside the other: who is in it may go on. */
let depth = 0;

/** Does what calls into native code; undefined where threads are about to be ended. */
export function inNative<T>(work: () => T): T | undefined {
  if (depth === 0 && Atomics.load(words, CLOSED) !== 0) return undefined;
  // Looked at again once it is counted: who closes it counts those inside afterwards.
  Atomics.add(words, INSIDE, 1);
  try {
    return depth++ > 0 || Atomics.load(words, CLOSED) === 0 ? work() : undefined;
  } finally {
    depth--;
    Atomics.sub(words, INSIDE, 1);
    Atomics.notify(words, INSIDE);
  }
}

/**
 * Does what calls into native code once that may be: in a thread that is about to be ended it never comes back. The first thread does it in any case: who
 * ends it ends the process.
 */
export function inNativeSoon<T>(work: () => T): T {
  if (isMainThread) return work();
  for (;;) {
    let done = false;
    const result = inNative(() => {
      done = true;
      return work();
    });
    if (done) return result as T;
    // Woken by its end, or after those of others.
    const closed = Atomics.load(words, CLOSED);
    if (closed !== 0) Atomics.wait(words, CLOSED, closed, 100);
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
