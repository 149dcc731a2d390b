// What happens on the daemon, told to every open page: samples of all guests each second, and life-cycle events as they come.

import type { RpcClient } from '../../rpc/client.ts';
import { domainEventIds } from '../../rpc/libvirt/events.ts';
import { remote } from '../../rpc/libvirt/programs.ts';
import type { Push } from '../../web/api.ts';
import { samples } from './web-guests.ts';
import type { WebChannel } from './web-socket.ts';

const periodMs = 1000;
const lifecycle = ['defined', 'deleted', 'started', 'paused', 'resumed', 'stopped', 'shut down', 'suspended', 'crashed'];

export class Watch {
  readonly #connect: () => Promise<RpcClient>;
  readonly #channels = new Set<WebChannel>();
  /** Channels whose last sample has not gone out yet. */
  readonly #busy = new Set<WebChannel>();
  #running = false;
  #closed = false;
  #wake: () => void = () => {};

  constructor(connect: () => Promise<RpcClient>) {
    this.#connect = connect;
  }
  /** Tells this page too, until it is closed. */
  add(channel: WebChannel): void {
    this.#channels.add(channel);
    void channel.closed.then(() => this.#channels.delete(channel));
    this.#wake();
    if (!this.#running) void this.#run();
  }
  close(): void {
    this.#closed = true;
    this.#wake();
  }

  #tell(push: Push): void {
    const text = JSON.stringify(push);
    for (const channel of this.#channels) {
      // A page that reads slowly misses samples, but no event.
      if (push.kind === 'guests' && this.#busy.has(channel)) continue;
      this.#busy.add(channel);
      void channel.send(text).then(() => this.#busy.delete(channel));
    }
  }
  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, periodMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
  async #run(): Promise<void> {
    this.#running = true;
    while (this.#channels.size > 0 && !this.#closed) {
      try {
        await this.#follow();
      } catch (error) {
        this.#tell({ kind: 'lost', text: (error as Error).message });
        await this.#pause();
      }
    }
    this.#running = false;
  }
  /** Samples and events over one connection, until nobody looks. @throws when the connection is lost */
  async #follow(): Promise<void> {
    const client = await this.#connect();
    try {
      client.on(remote, 'domainEventCallbackLifecycle', ({ msg }) => {
        this.#tell({ kind: 'event', at: Date.now(), name: msg.dom.name, text: lifecycle[msg.event] ?? `event ${msg.event}` });
        // Its effect is to be seen at once.
        this.#wake();
      });
      client.on(remote, 'domainEventCallbackReboot', ({ msg }) => {
        this.#tell({ kind: 'event', at: Date.now(), name: msg.dom.name, text: 'rebooted' });
      });
      for (const eventId of [domainEventIds.lifecycle, domainEventIds.reboot])
        await client.call(remote, 'connectDomainEventCallbackRegisterAny', { eventId, dom: undefined });
      while (this.#channels.size > 0 && !this.#closed) {
        this.#tell({ kind: 'guests', at: Date.now(), guests: await samples(client) });
        await this.#pause();
      }
    } finally {
      client.close();
    }
  }
}
