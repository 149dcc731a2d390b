// File system device: FUSE messages over queues. Virtual I/O Device (VIRTIO) 1.2, section 5.11.
import type { FuseServer } from '../fuse/server.ts';
import type { VirtioCore, VirtioModel } from './core.ts';

/** `tag` is what the guest mounts. The first queue is for what must not wait, the second for all else. */
export function fsModel(tag: string, queueSize: number): VirtioModel {
  const config = new Uint8Array(40);
  config.set(new TextEncoder().encode(tag).subarray(0, 36));
  config[36] = 1;
  return {
    id: 26,
    queues: [queueSize, queueSize],
    features: 0n,
    config: { length: config.length, read: (offset) => config[offset]! },
  };
}

/** Largest request that is looked at. */
const MOST = (1 << 20) + 4096;

export class FsIo {
  readonly #core: VirtioCore;
  readonly #server: FuseServer;
  readonly #active = new Set<Promise<void>>();

  constructor(core: VirtioCore, server: FuseServer) {
    this.#core = core;
    this.#server = server;
    for (const n of [0, 1]) core.serve(n, () => this.#work(n));
    core.onReset = () => this.reset();
  }
  async drain(): Promise<void> {
    await Promise.all(this.#active);
  }
  reset(): void {
    void this.#server.reset();
  }

  #work(n: number): void {
    for (let chains = this.#core.take(n); chains.length > 0; chains = this.#core.take(n)) {
      for (const chain of chains) {
        const work = this.#server.answer(chain.out.bytes(0, Math.min(chain.out.length, MOST))).then((answer) => {
          this.#core.give(n, [[chain, answer ? chain.in.write(0, answer) : 0]]);
        });
        this.#active.add(work);
        void work.finally(() => this.#active.delete(work));
      }
    }
  }
}
