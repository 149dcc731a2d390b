// 9P transport: each request is a message in and a message out. Linux `net/9p/trans_virtio.c`; device ID and configuration as in
// Virtual I/O Device (VIRTIO) 1.2, chapter 5, and QEMU 7.2's `virtio-9p`.
import { HEADER } from '../ninep/message.ts';
import type { NinepServer } from '../ninep/server.ts';
import type { VirtioCore, VirtioModel } from './core.ts';

/** `tag` is what the guest mounts. */
export function ninepModel(tag: string): VirtioModel {
  const name = new TextEncoder().encode(tag);
  const config = [name.length & 0xff, name.length >>> 8, ...name];
  return { id: 9, queues: [128], features: 1n, config: { length: config.length, read: (offset) => config[offset]! } };
}

/** Largest request that is looked at. */
const MOST = (1 << 20) + 1024;

export class NinepIo {
  readonly #core: VirtioCore;
  readonly #server: NinepServer;
  readonly #active = new Set<Promise<void>>();

  constructor(core: VirtioCore, server: NinepServer) {
    this.#core = core;
    this.#server = server;
    core.serve(0, () => this.#work());
    core.onReset = () => this.reset();
  }
  async drain(): Promise<void> {
    await Promise.all(this.#active);
  }
  reset(): void {
    void this.#server.reset();
  }

  #work(): void {
    for (let chains = this.#core.take(0); chains.length > 0; chains = this.#core.take(0)) {
      for (const chain of chains) {
        const size = Math.min(chain.out.length, MOST);
        // The message says its own length; what follows in the buffers is not part of it.
        const head = chain.out.bytes(0, Math.min(HEADER, size));
        const length = head.length < 4 ? 0 : new DataView(head.buffer).getUint32(0, true);
        const work = this.#server.answer(chain.out.bytes(0, Math.min(length, size))).then((answer) => {
          this.#core.give(0, [[chain, chain.in.write(0, answer)]]);
        });
        this.#active.add(work);
        void work.finally(() => this.#active.delete(work));
      }
    }
  }
}
