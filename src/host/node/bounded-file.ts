// An output file of bounded size: what does not fit any more is kept in `PATH.0`, `PATH.1` and so on, the newest first, as virtlogd names them.
// Contents are copied, not files renamed: a confined emulator may not make any, and whoever reads the file keeps on reading it.

import { constants } from 'node:fs';
import { copyFile, type FileHandle, open } from 'node:fs/promises';
import type { FileLimit } from '../../chardev/options.ts';

const NEWLINE = 10;
/** So many bytes that wait to be written are no reason for the guest to wait. */
const PATIENCE = 65_536;

export class BoundedFile {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #limit: FileLimit;
  #size: number;
  #waiting = 0;
  #last: Promise<void> = Promise.resolve();

  private constructor(path: string, file: FileHandle, limit: FileLimit, size: number) {
    this.#path = path;
    this.#file = file;
    this.#limit = limit;
    this.#size = size;
  }

  /** Opens, or rejects with the reason. What is no regular file has no limit. */
  static async open(path: string, append: boolean, limit: FileLimit): Promise<BoundedFile> {
    const fresh = append ? 0 : constants.O_TRUNC;
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | fresh, 0o666);
    const status = await file.stat();
    return new BoundedFile(path, file, status.isFile() ? limit : { ...limit, size: Number.POSITIVE_INFINITY }, status.size);
  }

  /** Takes all bytes; a promise that is pending asks for patience. */
  write(bytes: Uint8Array): void | Promise<void> {
    const kept = bytes.slice();
    this.#waiting += kept.length;
    // A full disk drops what the guest says; it does not end the guest.
    this.#last = this.#last
      .then(() => this.#put(kept))
      .catch(() => {})
      .then(() => {
        this.#waiting -= kept.length;
      });
    if (this.#waiting > PATIENCE) return this.#last;
  }

  /** All that was taken is in the file. */
  get written(): Promise<void> {
    return this.#last;
  }

  close(): void {
    void this.#last.then(() => this.#file.close()).catch(() => {});
  }

  async #put(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const left = this.#limit.size - this.#size;
      let end = bytes.length;
      if (end - at > left) {
        // A file ends with a line where these bytes have an end of one.
        const line = left > 0 ? bytes.lastIndexOf(NEWLINE, at + left - 1) : -1;
        end = line >= at ? line + 1 : at + Math.max(left, 0);
        await this.#write(bytes.subarray(at, end));
        await this.#roll();
      } else await this.#write(bytes.subarray(at, end));
      at = end;
    }
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const { bytesWritten } = await this.#file.write(bytes, at);
      at += bytesWritten;
      this.#size += bytesWritten;
    }
  }

  /** A copy that fails is one that is not there; the file begins anew in any case. */
  async #roll(): Promise<void> {
    for (let n = this.#limit.backups - 1; n >= 0; n--)
      await copyFile(n === 0 ? this.#path : `${this.#path}.${n - 1}`, `${this.#path}.${n}`).catch(() => {});
    await this.#file.truncate(0);
    this.#size = 0;
  }
}
