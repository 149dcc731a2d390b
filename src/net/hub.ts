// A learning switch: the isolated network of several guests, in one process or, over streams, of several. IEEE 802.1Q-2018, clauses 7.8 and 8.8 (learning, forwarding).
import { formatMac } from './address.ts';
import { maxFrame, type NetBackend } from './backend.ts';
import type { HostAddress, HostListener, HostSockets } from './host.ts';
import { FramePipe } from './socket.ts';

/** Addresses that are remembered, ms for which they are, and how deep frames may pass through connected switches. */
const limits = { addresses: 1024, age: 300_000, depth: 16, ports: 256 } as const;

export class Hub {
  readonly #now: () => number;
  readonly #ports = new Set<NetBackend>();
  /** Where an address was last seen; in order of the last frame. */
  readonly #addresses = new Map<string, { readonly port: NetBackend; readonly seen: number }>();
  #depth = 0;

  /** `now`: monotonic time in ms. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Ports that are in use. */
  get size(): number {
    return this.#ports.size;
  }

  /** A new port, for a guest's device. Closing it takes it away. */
  port(): NetBackend {
    const port: NetBackend = {
      receive: () => {},
      send: (frame) => this.#forward(port, frame),
      close: () => {
        this.#ports.delete(port);
        for (const [mac, a] of this.#addresses) if (a.port === port) this.#addresses.delete(mac);
      },
    };
    this.#ports.add(port);
    return port;
  }

  /** Plugs in another back-end, such as a user-mode network as the router of all guests here. The result takes it out again, without closing it. */
  attach(backend: NetBackend): () => void {
    const port = this.port();
    port.receive = (frame) => backend.send(frame);
    backend.receive = (frame) => port.send(frame);
    return () => {
      backend.receive = () => {};
      port.close();
    };
  }

  #forward(from: NetBackend, frame: Uint8Array): void {
    if (!this.#ports.has(from) || frame.length < 14 || frame.length > maxFrame) return;
    const now = this.#now();
    if ((frame[6] & 1) === 0) {
      const source = formatMac(frame.subarray(6, 12));
      this.#addresses.delete(source);
      this.#addresses.set(source, { port: from, seen: now });
      if (this.#addresses.size > limits.addresses) this.#addresses.delete(this.#addresses.keys().next().value!);
    }
    // Switches in a ring would pass a broadcast round for ever.
    if (this.#depth >= limits.depth) return;
    this.#depth++;
    try {
      const known = (frame[0] & 1) === 0 ? this.#addresses.get(formatMac(frame.subarray(0, 6))) : undefined;
      if (known !== undefined && now - known.seen <= limits.age) {
        if (known.port !== from) known.port.receive(frame);
        return;
      }
      for (const p of [...this.#ports]) if (p !== from) p.receive(frame);
    } finally {
      this.#depth--;
    }
  }
}

/** Lets emulators plug into `hub` by `-netdev stream` or `-netdev socket,connect=`; closing it unplugs them. Rejects where the host refuses. */
export async function serveHub(hub: Hub, at: HostAddress, host: HostSockets): Promise<HostListener> {
  const unplug = new Set<() => void>();
  const listener = await host.listen(at, (stream) => {
    if (unplug.size >= limits.ports) return undefined;
    const port = hub.port();
    const pipe = new FramePipe(
      (frame) => port.send(frame),
      () => {},
      () => {
        unplug.delete(out);
        port.close();
      },
    );
    const out = (): void => {
      pipe.close();
      port.close();
    };
    unplug.add(out);
    port.receive = (frame) => pipe.send(frame);
    pipe.attach(stream);
    return pipe.events;
  });
  return {
    port: listener.port,
    close() {
      listener.close();
      for (const out of unplug) out();
      unplug.clear();
    },
  };
}
