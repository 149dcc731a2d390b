// Files of snapshots: a header, a note, the machine's state, and its memory from a page's start on, with holes for zeros.

import { fstatSync, readSync, writeSync } from 'node:fs';
import { frozenIn } from './frozen-memory.ts';
import type { FrozenMachine } from './machine.ts';

const MAGIC = Buffer.from('NONROOT FROZEN\n\x01');
const HEADER_BYTES = 4096;
/** Longest note and state. */
export const PART_MAX = 64 << 20;

/** Writes a frozen machine, with a note to whoever reads it, to an open file from its start. */
export function writeSnapshot(fd: number, { state, memory }: FrozenMachine, note: string): void {
  const parts = [Buffer.from(note), state];
  const head = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(head);
  const from = Math.ceil((HEADER_BYTES + parts.reduce((n, p) => n + p.length, 0)) / 4096) * 4096;
  [...parts.map((p) => p.length), from, memory.length].forEach((n, i) => head.writeDoubleLE(n, 16 + 8 * i));
  let at = 0;
  for (const part of [head, ...parts]) {
    for (let n = 0; n < part.length; ) n += writeSync(fd, part, n, part.length - n, at + n);
    at += part.length;
  }
  memory.copyTo(fd, from);
}

/**
 * A frozen machine from an open file, which is taken over: memory is read as it is used, so the file must not change. `name` is for messages.
 * @throws Error, one line, for what is no such file
 */
export function readSnapshot(fd: number, name: string): { readonly frozen: FrozenMachine; readonly note: string } {
  const part = (length: number, at: number): Buffer => {
    const bytes = Buffer.alloc(length);
    for (let n = 0; n < length; ) {
      const got = readSync(fd, bytes, n, length - n, at + n);
      if (got <= 0) throw new Error(`Cannot restore ${name}: it is too short`);
      n += got;
    }
    return bytes;
  };
  const { size } = fstatSync(fd);
  const head = size < HEADER_BYTES ? undefined : part(HEADER_BYTES, 0);
  if (!head?.subarray(0, MAGIC.length).equals(MAGIC)) throw new Error(`Cannot restore ${name}: it is no snapshot of a machine`);
  const [noteLength = 0, stateLength = 0, from = 0, length = 0] = [0, 1, 2, 3].map((i) => head.readDoubleLE(16 + 8 * i));
  const fits = [noteLength, stateLength, from, length].every((n) => Number.isSafeInteger(n) && n >= 0);
  if (!fits || noteLength > PART_MAX || stateLength > PART_MAX || from % 4096 !== 0 || length % 4096 !== 0)
    throw new Error(`Cannot restore ${name}: its header is damaged`);
  const note = part(noteLength, HEADER_BYTES).toString();
  const state = part(stateLength, HEADER_BYTES + noteLength);
  return { frozen: { state, memory: frozenIn(fd, from, length, name) }, note };
}
