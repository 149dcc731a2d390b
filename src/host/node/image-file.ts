// A file of the host as loaders read it: straight into the guest's memory, which saves a copy of a large kernel and the pages behind it.

import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import type { ImageFile } from '../../firmware/target.ts';
import { nativeFiles } from './file-native.ts';

/** Zeros of this many bytes become a hole, which costs neither time nor memory later. */
const HOLE = 64 << 10;

/**
 * A host file, to be closed. Throws Node's error where it cannot be opened. With `unchanged` it must hold what it held when it was opened: reading throws one
 * line where it was written to since. (Another file may take its name.)
 */
export function openImageFile(path: string, unchanged = false): Required<ImageFile> {
  const fd = openSync(path, 'r');
  const shorter = (): Error => new Error(`Cannot read ${path}: it became shorter meanwhile`);
  const state = (): string => {
    const { size, mtimeNs } = fstatSync(fd, { bigint: true });
    return `${size} ${mtimeNs}`;
  };
  const before = unchanged ? state() : '';
  const read = (start: number, place: Uint8Array): void => {
    for (let done = 0; done < place.length; ) {
      const count = readSync(fd, place, done, place.length - done, start + done);
      if (count === 0) throw shorter();
      done += count;
    }
  };
  const copy = (start: number, place: Uint8Array, zeroed = false): void => {
    if (unchanged && state() !== before) throw new Error(`Cannot read ${path}: it was written to meanwhile`);
    const native = zeroed ? nativeFiles() : undefined;
    if (!native) return read(start, place);
    const end = start + place.length;
    if (end > fstatSync(fd).size) throw shorter();
    for (let at = start; at < end; ) {
      const from = native.nextData(fd, at, end) ?? at;
      if (from >= end) return;
      const to = Math.min(end, native.nextHole(fd, from) ?? end);
      read(from, place.subarray(from - start, to - start));
      at = to;
    }
  };
  return {
    length: fstatSync(fd).size,
    bytes(start, end) {
      const bytes = new Uint8Array(end - start);
      copy(start, bytes);
      return bytes;
    },
    copy,
    close: () => closeSync(fd),
  };
}

/** Writes a file anew, with holes for long runs of zeros; one without a `head` in front is flushed. */
export function writeSparse(path: string, bytes: Uint8Array, head?: Uint8Array): void {
  const zeros = new Uint8Array(HOLE);
  const fd = openSync(path, 'w', 0o666);
  try {
    const place = head?.length ?? 0;
    ftruncateSync(fd, place + bytes.length);
    for (let done = 0; head && done < head.length; ) done += writeSync(fd, head, done);
    for (let at = 0; at < bytes.length; ) {
      let end = at;
      const isHole = (n: number): boolean => Buffer.compare(bytes.subarray(n, n + HOLE), zeros) === 0;
      while (end < bytes.length && !isHole(end)) end += HOLE;
      const data = bytes.subarray(at, end);
      for (let done = 0; done < data.length; ) done += writeSync(fd, data, done, data.length - done, place + at + done);
      while (end < bytes.length && isHole(end)) end += HOLE;
      at = end;
    }
    if (!head) fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
