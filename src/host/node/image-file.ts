// A file of the host as loaders read it: straight into the guest's memory, which saves a copy of a large kernel and the pages behind it.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { ImageFile } from '../../firmware/target.ts';

/** A host file, to be closed. Throws Node's error where it cannot be opened. */
export function openImageFile(path: string): Required<ImageFile> {
  const fd = openSync(path, 'r');
  const copy = (start: number, place: Uint8Array): void => {
    for (let done = 0; done < place.length; ) {
      const count = readSync(fd, place, done, place.length - done, start + done);
      if (count === 0) throw new Error(`Cannot read ${path}: it became shorter meanwhile`);
      done += count;
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
