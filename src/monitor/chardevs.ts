// The character devices of an emulator by id, and the byte streams that monitors make of them.

import { type Chardev, type CharHost, type CharPort, type MuxActions, openChardev } from '../chardev/chardev.ts';
import type { CharOptions } from '../chardev/options.ts';
import type { CharBackend, Registry } from '../machine/backends.ts';
import { QmpError } from '../rpc/qmp/error.ts';
import type { ByteDuplex } from '../rpc/transport.ts';

export class Chardevs {
  readonly #host: CharHost;
  readonly #mux: MuxActions;
  readonly #all = new Map<string, Chardev>();

  readonly #registry: Registry<CharBackend>;

  /** `registry`: where devices look them up. */
  constructor(host: CharHost, mux: MuxActions, registry: Registry<CharBackend>) {
    this.#registry = registry;
    this.#host = host;
    this.#mux = mux;
  }
  /** @throws QmpError (rejects) where the id is taken or it cannot be opened */
  async add(id: string, options: CharOptions): Promise<Chardev> {
    if (this.#all.has(id)) throw new QmpError(`Chardev with id '${id}' already exists`);
    const made = await openChardev(id, options, this.#host, this.#mux);
    this.#all.set(id, made);
    this.#registry.add(id, asBackend(made));
    return made;
  }
  get(id: string): Chardev | undefined {
    return this.#all.get(id);
  }
  list(): readonly Chardev[] {
    return [...this.#all.values()];
  }
  /** @throws QmpError for one that is in use */
  remove(id: string): void {
    const found = this.#all.get(id);
    if (!found) throw new QmpError(`Chardev '${id}' not found`);
    if (found.used) throw new QmpError(`Chardev '${id}' is busy`);
    found.close();
    this.#all.delete(id);
    this.#registry.remove(id);
  }
  closeAll(): void {
    for (const device of this.#all.values()) device.close();
  }
}

/** A character device as a machine's devices know it. */
export function asBackend(chardev: Chardev): CharBackend {
  let port: CharPort | undefined;
  return {
    connect(front) {
      port = chardev.take({
        receive: (bytes) => front.receive(bytes),
        connected: (is) => front.opened(is),
        break: () => front.sendBreak?.(),
      });
    },
    disconnect() {
      port?.release();
      port = undefined;
      chardev.guestOpen = true;
    },
    guestOpened(open) {
      chardev.guestOpen = open;
    },
    write: (bytes) => chardev.backend.write(bytes),
    get isOpen() {
      return chardev.backend.connected;
    },
  };
}

/** One connection of a monitor's character device as the protocol wants it. */
export interface Connection extends ByteDuplex {
  readonly port: CharPort;
}

/**
 * Makes a byte stream of each connection to a character device, for as long as it is there, and gives it to `serve`.
 * @throws Error when the device is in use
 */
export function onConnections(chardev: Chardev, serve: (connection: Connection) => void): CharPort {
  let current: Stream | undefined;
  const port: CharPort = chardev.take({
    receive: (bytes) => current?.push(bytes),
    connected(is) {
      current?.end();
      current = is ? new Stream(() => port) : undefined;
      const now = current;
      // The port is there when `take` has returned.
      if (now) void Promise.resolve().then(() => serve(now));
    },
  });
  return port;
}

/** Pieces that may wait before the sender is held back. */
const AHEAD = 16;

class Stream implements Connection {
  readonly #port: () => CharPort;
  readonly #chunks: Uint8Array[] = [];
  #wake: (() => void) | undefined;
  #taken: (() => void) | undefined;
  #ended = false;

  constructor(port: () => CharPort) {
    this.#port = port;
  }
  get port(): CharPort {
    return this.#port();
  }
  push(bytes: Uint8Array): void | Promise<void> {
    this.#chunks.push(bytes);
    this.#wake?.();
    if (this.#chunks.length > AHEAD) return new Promise<void>((resolve) => (this.#taken = resolve));
  }
  end(): void {
    this.#ended = true;
    this.#wake?.();
    this.#taken?.();
  }
  readonly input: AsyncIterable<Uint8Array> = { [Symbol.asyncIterator]: () => this.#iterate() };
  async *#iterate(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk) {
        if (this.#chunks.length <= AHEAD / 2) this.#taken?.();
        yield chunk;
      } else if (this.#ended) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
  write(bytes: Uint8Array): void | Promise<void> {
    if (!this.#ended) return this.port.write(bytes);
  }
  close(): void {
    this.end();
  }
}
