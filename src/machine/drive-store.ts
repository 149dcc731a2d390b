// A drive as disk controllers use it: with the policy for errors, and with a stop of the machine that holds what failed.

import type { MediumStore } from '../devices/scsi/plan.ts';
import type { BlockDevice } from '../disk/block.ts';
import type { Drive } from './backends.ts';
import type { IoServices } from './device-type.ts';
import type { DirectPlaces } from './direct-reads.ts';

/** What is done about errors: QEMU's `rerror` and `werror`. */
export interface DrivePolicy {
  readonly onRead: 'report' | 'ignore' | 'stop';
  readonly onWrite: 'report' | 'ignore' | 'stop' | 'enospc';
}

/** Values of the properties `rerror` and `werror`, completed from the drive. */
export const drivePolicy = (
  drive: Drive,
  rerror: 'auto' | 'report' | 'ignore' | 'stop' = 'auto',
  werror: 'auto' | 'report' | 'ignore' | 'stop' | 'enospc' = 'auto',
): DrivePolicy => ({
  onRead: rerror === 'auto' ? (drive.onReadError ?? 'report') : rerror,
  onWrite: werror === 'auto' ? (drive.onWriteError ?? 'enospc') : werror,
});

export class DriveStore implements MediumStore {
  readonly drive: Drive;
  readonly #services: IoServices;
  readonly #policy: DrivePolicy;
  readonly #places: DirectPlaces | undefined;
  /** Requests that wait for the machine to go on. */
  #held: { readonly again: () => void; readonly drop: (error: Error) => void }[] = [];
  #watchers: (() => void)[] = [];

  /** `places`: the device reads at its doorbell what lies where reads were. */
  constructor(drive: Drive, services: IoServices, policy: DrivePolicy, places?: DirectPlaces) {
    this.drive = drive;
    this.#services = services;
    this.#policy = policy;
    this.#places = places;
  }

  /** Itself while a medium is in the drive. */
  get inserted(): DriveStore | undefined {
    return this.drive.device === undefined ? undefined : this;
  }
  get size(): number {
    return this.drive.device?.size ?? 0;
  }
  get readOnly(): boolean {
    return this.drive.readOnly || this.drive.device?.readOnly === true;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#try('read', (d) => d.read(offset, into));
    this.#places?.tell(offset, into.length);
  }
  async write(offset: number, from: Uint8Array): Promise<void> {
    await this.#try('write', (d) => d.write(offset, from));
    if (this.drive.writeThrough) await this.flush();
  }
  flush(): Promise<void> {
    return this.#try('write', (d) => (this.readOnly ? Promise.resolve() : d.flush()));
  }
  discard(offset: number, length: number): Promise<void> {
    return this.drive.discard ? this.#try('write', (d) => d.discard(offset, length)) : Promise.resolve();
  }
  writeZeroes(offset: number, length: number): Promise<void> {
    return this.#try('write', (d) => d.writeZeroes(offset, length));
  }

  /** Tries again what a stop of the machine has held. */
  resumed(): void {
    const held = this.#held;
    this.#held = [];
    for (const { again } of held) again();
  }
  /** Drops it: the machine is reset, and whoever asked is gone. Such requests fail without a word. */
  reset(): void {
    const held = this.#held;
    this.#held = [];
    for (const { drop } of held) drop(new Error('Cannot go on: the machine was reset'));
  }
  /** Resolves when `work` does, or once a request of it is held. */
  async drained(work: Promise<unknown> | undefined): Promise<void> {
    if (work === undefined || this.#held.length > 0) return;
    await Promise.race([work, new Promise<void>((resolve) => this.#watchers.push(resolve))]);
  }

  async #try(operation: 'read' | 'write', action: (device: BlockDevice) => Promise<void>): Promise<void> {
    for (;;) {
      try {
        const { device } = this.drive;
        if (!device) throw new Error(`Cannot ${operation} ${this.drive.id}: it has no medium`);
        return await action(device);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        const nospace = /no space is left/i.test(reason);
        const policy = operation === 'write' ? this.#policy.onWrite : this.#policy.onRead;
        const what = policy === 'enospc' ? (nospace ? 'stop' : 'report') : policy;
        const { id, nodeName } = this.drive;
        this.#services.report(id, reason);
        this.#services.notify('BLOCK_IO_ERROR', {
          ...{ device: id, ...(nodeName === undefined ? {} : { 'node-name': nodeName }) },
          ...{ operation, action: what, nospace, reason },
        });
        if (what === 'ignore') return;
        if (what === 'report') throw error;
        this.#services.stop();
        await new Promise<void>((again, drop) => {
          this.#held.push({ again, drop });
          for (const watcher of this.#watchers.splice(0)) watcher();
        });
      }
    }
  }
}
