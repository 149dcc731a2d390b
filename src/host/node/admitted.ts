// Files that a confined process cannot open by itself any more, by descriptors that a monitor has brought for their paths
// (`nonroot-admit-file`). A descriptor serves any number of openings of its file, and stays until the last block node of that file is removed.

import { closeSync, fdatasync, fstat, ftruncate, type Stats } from 'node:fs';
import { promisify } from 'node:util';

/** What images need of an open file; Node's FileHandle has it. */
export interface Handle {
  readonly fd: number;
  stat(): Promise<Stats>;
  datasync(): Promise<void>;
  truncate(size: number): Promise<void>;
  close(): Promise<void>;
}

interface Admitted {
  readonly fd: number;
  /** Openings at this moment. They share the descriptor's locks, so only readers have company. */
  readers: number;
  writer: boolean;
  /** Somebody has it who does not say when he is done. */
  lent: boolean;
}

const [statOf, syncOf, truncateOf] = [promisify(fstat), promisify(fdatasync), promisify(ftruncate)];

export class AdmittedFiles {
  readonly #files = new Map<string, { read?: Admitted; write?: Admitted }>();

  /** Takes the descriptor over: it is closed with the process, or when one for the same path and purpose takes its place. */
  admit(path: string, fd: number, write: boolean): void {
    const one = this.#files.get(path) ?? {};
    this.#files.set(path, one);
    const kind = write ? 'write' : 'read';
    const old = one[kind];
    one[kind] = { fd, readers: 0, writer: false, lent: false };
    if (old && !old.writer && old.readers === 0) closeSync(old.fd);
  }
  /** A descriptor for the path; undefined where none was brought. */
  get(path: string, write: boolean): number | undefined {
    const one = this.#files.get(path);
    const file = write ? one?.write : (one?.read ?? one?.write);
    if (file) file.lent = true;
    return file?.fd;
  }
  /** Takes a descriptor out, for one who closes it. */
  take(path: string): number | undefined {
    const fd = this.get(path, true);
    if (fd !== undefined) this.#files.delete(path);
    return fd;
  }
  /** Closes what was brought for a path, unless somebody still uses it. */
  forget(path: string): void {
    const one = this.#files.get(path);
    const files = [one?.read, one?.write].filter((f) => f !== undefined);
    if (files.some((f) => f.writer || f.readers > 0 || f.lent)) return;
    this.#files.delete(path);
    for (const { fd } of files) closeSync(fd);
  }
  /**
   * The file opened once more; undefined where no descriptor was brought for it. `unlock` is called when its last opening ends.
   * @throws Error where somebody writes it already, as image locks of two descriptors would
   */
  open(path: string, write: boolean, unlock: (fd: number) => void): Handle | undefined {
    const one = this.#files.get(path);
    const file = write ? one?.write : (one?.read ?? one?.write);
    if (!file) return undefined;
    if (file.writer || (write && file.readers > 0)) throw new Error('this process uses it already');
    if (write) file.writer = true;
    else file.readers++;
    let open = true;
    const replaced = (): boolean => {
      const now = this.#files.get(path);
      return now?.read !== file && now?.write !== file;
    };
    return {
      fd: file.fd,
      stat: () => statOf(file.fd),
      datasync: () => syncOf(file.fd),
      truncate: (size) => truncateOf(file.fd, size),
      async close() {
        if (!open) return;
        open = false;
        if (write) file.writer = false;
        else file.readers--;
        if (file.readers > 0) return;
        unlock(file.fd);
        if (replaced()) closeSync(file.fd);
      },
    };
  }
}
