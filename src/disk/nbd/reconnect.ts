// A file of an NBD server whose connection may break: it is made again, and requests wait for it, for a while. QEMU 7.2 "QEMU QMP Reference
// Manual", BlockdevOptionsNbd: reconnect-delay, open-timeout.

import { type ByteFile, DiskError } from '../block.ts';
import type { NbdFile } from './client.ts';

/** ms between attempts: it doubles from the first to the last. */
const FIRST = 100;
const LAST = 5000;

export interface ReconnectOptions {
  /** ms for which requests wait once the connection is lost; then they fail until there is one again. */
  readonly delay: number;
  /** ms for which the first connection is tried. */
  readonly openTimeout: number;
  /** Monotonic, in ms. */
  readonly clock: () => number;
  readonly after: (ms: number, run: () => void) => () => void;
}

export class ReconnectingFile implements ByteFile {
  readonly name: string;
  readonly readOnly: boolean;
  readonly #size: number;
  readonly #open: () => Promise<NbdFile>;
  readonly #o: ReconnectOptions;
  #file: NbdFile;
  /** The attempts that are under way; rejects once requests are not to wait any longer. */
  #coming: Promise<NbdFile> | undefined;
  #closed = false;
  #wake: (() => void) | undefined;

  private constructor(file: NbdFile, size: number, open: () => Promise<NbdFile>, o: ReconnectOptions) {
    this.name = file.name;
    this.readOnly = file.readOnly;
    this.#file = file;
    this.#size = size;
    this.#open = open;
    this.#o = o;
  }
  /** Opens by `open`, which is called again for each attempt. Rejects with what the last one met. */
  static async open(open: () => Promise<NbdFile>, o: ReconnectOptions): Promise<ReconnectingFile> {
    const end = o.clock() + o.openTimeout;
    for (let pause = FIRST; ; pause = Math.min(2 * pause, LAST)) {
      try {
        const file = await open();
        return new ReconnectingFile(file, await file.size(), open, o);
      } catch (error) {
        if (o.clock() + pause > end) throw error;
        await new Promise<void>((resolve) => void o.after(pause, resolve));
      }
    }
  }

  /** Does something with a connection that is there; what a broken one has cut off is done again. */
  async #with<T>(action: (file: NbdFile) => Promise<T>): Promise<T> {
    for (;;) {
      const file = this.#file.isBroken && !this.#closed ? await this.#again() : this.#file;
      try {
        return await action(file);
      } catch (error) {
        if (!file.isBroken || this.#closed) throw error;
      }
    }
  }
  #again(): Promise<NbdFile> {
    this.#coming ??= this.#attempts().finally(() => {
      this.#coming = undefined;
    });
    return this.#coming;
  }
  async #attempts(): Promise<NbdFile> {
    const { clock, after, delay } = this.#o;
    const end = clock() + delay;
    for (let pause = FIRST; ; pause = Math.min(2 * pause, LAST)) {
      try {
        const file = await this.#open();
        if ((await file.size()) !== this.#size) {
          await file.close();
          throw new DiskError(`Cannot use ${this.name}: the export has another size now`);
        }
        if (this.#closed) {
          await file.close();
          throw new DiskError(`Cannot use ${this.name}: it is closed`);
        }
        this.#file = file;
        return file;
      } catch (error) {
        if (this.#closed || clock() >= end) throw error;
        await new Promise<void>((resolve) => {
          const cancel = after(Math.min(pause, Math.max(1, end - clock())), resolve);
          this.#wake = () => {
            cancel();
            resolve();
          };
        });
      }
    }
  }

  async size(): Promise<number> {
    return this.#size;
  }
  async allocated(): Promise<number> {
    return this.#size;
  }
  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#with((f) => f.read(offset, into));
  }
  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#with((f) => f.write(offset, from));
  }
  flush(): Promise<void> {
    return this.#with((f) => f.flush());
  }
  truncate(size: number): Promise<void> {
    return this.#with((f) => f.truncate(size));
  }
  punch(offset: number, length: number): Promise<boolean> {
    return this.#with((f) => f.punch(offset, length));
  }
  nextData(offset: number): Promise<number> {
    return this.#with((f) => f.nextData(offset));
  }
  nextHole(offset: number, end: number): Promise<number> {
    return this.#with((f) => f.nextHole(offset, end));
  }
  async close(): Promise<void> {
    this.#closed = true;
    this.#wake?.();
    await this.#file.close();
  }
}
