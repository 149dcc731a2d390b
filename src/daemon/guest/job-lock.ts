// One change of a domain at a time: the others wait their turn, and give up with libvirt's error after half a minute.
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Timers } from '../../rpc/transport.ts';

const waitMs = 30_000;

export class JobLock {
  readonly #timers: Timers;
  readonly #queue: (() => void)[] = [];
  #owner: string | undefined;

  constructor(timers: Timers) {
    this.#timers = timers;
  }
  /** What runs at this moment. */
  get owner(): string | undefined {
    return this.#owner;
  }
  /** Runs `action` when nothing else does. @throws {LibvirtError} when that takes too long. */
  async run<T>(name: string, action: () => Promise<T>): Promise<T> {
    if (this.#owner !== undefined) await this.#turn();
    this.#owner = name;
    try {
      return await action();
    } finally {
      this.#owner = undefined;
      this.#queue.shift()?.();
    }
  }
  #turn(): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = (): void => {
        cancel();
        // Nobody else may slip in before the one that was woken.
        this.#owner = 'next';
        resolve();
      };
      const cancel = this.#timers.after(waitMs, () => {
        const at = this.#queue.indexOf(go);
        if (at >= 0) this.#queue.splice(at, 1);
        const holder = `(held by monitor=remoteDispatch${this.#owner})`;
        reject(libvirtError('operationTimeout', 'qemu', `cannot acquire state change lock ${holder}`));
      });
      this.#queue.push(go);
    });
  }
}
