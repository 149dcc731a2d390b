// The thread of one tap device: waits for frames and posts as many as have come. Ends with the pipe that tells it so.

import { readSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { libc } from './libc.ts';

export interface TapWork {
  readonly fd: number;
  /** The end of a pipe whose other end is closed when the thread is to end. */
  readonly ended: number;
  /** Bytes before each frame that are none of it. */
  readonly header: number;
  /** Posts that the receiver has not read. */
  readonly gate: Int32Array;
  /** Bytes of the longest read. */
  readonly size: number;
}
export interface TapFrames {
  /** Frames, one after another. */
  readonly bytes: Uint8Array;
  readonly lengths: readonly number[];
}

const { fd, ended, header, gate, size } = workerData as TapWork;
const c = libc()!;
/** Posts that may wait for the receiver, and bytes in one, about. */
const AHEAD = 8;
const POST = 65_536;

const buffer = new Uint8Array(POST + size);
for (;;) {
  let waiting = Atomics.load(gate, 0);
  while (waiting >= AHEAD) {
    Atomics.wait(gate, 0, waiting, 1000);
    waiting = Atomics.load(gate, 0);
  }
  const [, over] = c.readable([fd, ended], -1);
  if (over === true) break;
  const lengths: number[] = [];
  let length = 0;
  try {
    // This is the only reader, so what poll says is still true when it reads.
    while (length < POST && c.readable([fd], 0)[0] === true) {
      const got = readSync(fd, buffer, length, size, null);
      if (got <= header) continue;
      buffer.copyWithin(length, length + header, length + got);
      lengths.push(got - header);
      length += got - header;
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // EIO: the device is down, which poll tells as well; EBADFD: it was deleted.
    if (code !== 'EAGAIN' && code !== 'EINTR' && code !== 'EIO') break;
    if (code === 'EIO') Atomics.wait(gate, 0, Atomics.load(gate, 0), 100);
  }
  if (lengths.length === 0) continue;
  Atomics.add(gate, 0, 1);
  parentPort!.postMessage({ bytes: buffer.slice(0, length), lengths } satisfies TapFrames);
}
