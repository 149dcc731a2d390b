// Back-ends by name: what a machine's devices are connected to on the host. They live on the I/O thread only; devices look them up there.

import type { Folder } from '../devices/ninep/folder.ts';
import type { BlockDevice } from '../disk/block.ts';
import { Displays } from '../display/displays.ts';
import { InputRouter } from '../display/input.ts';
import type { NetBackend } from '../net/backend.ts';

/** Things of one kind by name. */
export class Registry<T> {
  /** What they are, for errors. */
  readonly kind: string;
  readonly #items = new Map<string, T>();

  constructor(kind: string) {
    this.kind = kind;
  }
  /** @throws Error where the name is taken */
  add(name: string, item: T): void {
    if (this.#items.has(name)) throw new Error(`Cannot add ${this.kind} '${name}': the name is taken`);
    this.#items.set(name, item);
  }
  /** @throws Error where there is none of that name */
  get(name: string): T {
    const found = this.#items.get(name);
    if (found === undefined) throw new Error(`Cannot find ${this.kind} '${name}'`);
    return found;
  }
  find(name: string): T | undefined {
    return this.#items.get(name);
  }
  remove(name: string): void {
    this.#items.delete(name);
  }
  entries(): readonly (readonly [string, T])[] {
    return [...this.#items];
  }
}

/** A block device under the name that `drive=` takes: a `-drive`'s id or a block node's name. */
export interface Drive {
  /** What is read and written; block jobs and media changes put another one here. Undefined: no medium. */
  device: BlockDevice | undefined;
  readonly readOnly: boolean;
  /** Writes return after they are on stable storage (cache.direct and writeback off: `writethrough`). */
  readonly writeThrough: boolean;
  /** Guests' discards reach the image. */
  readonly discard: boolean;
  readonly detectZeroes?: 'off' | 'on' | 'unmap';
  /** Failing requests end in an error for the guest, stop the machine, or count as done. */
  readonly onReadError?: 'report' | 'stop' | 'ignore';
  readonly onWriteError?: 'report' | 'stop' | 'ignore' | 'enospc';
  /** QEMU's `device`, `node-name` in events and queries. */
  readonly id: string;
  readonly nodeName?: string;
  /** What `-drive if=virtio,serial=` and the like say of the device. */
  readonly serial?: string;
  /** Path of the device that uses it; set by the device. */
  user?: string;
  /** Called by the block layer when size or medium changed; set by the device. */
  changed?: () => void;
  /** Makes the device tell by `countReads` what it has read past `device`; set by the device. */
  settle?: () => void;
  /** Operations, bytes and nanoseconds since the last call. */
  countReads?(operations: number, bytes: number, ns: number): void;
}

/** What a serial device is to its character back-end. */
export interface CharFront {
  /** Takes bytes; the back-end sends no more while a returned promise is pending. */
  receive(bytes: Uint8Array): void | Promise<void>;
  /** The other side has come or gone. */
  opened(open: boolean): void;
  /** A break condition on the line. */
  sendBreak?(): void;
}
/** A character back-end: QEMU's `-chardev`. One front end at a time. */
export interface CharBackend {
  /** @throws Error where another front end has it */
  connect(front: CharFront): void;
  disconnect(): void;
  /** Sends bytes; no more should come while a returned promise is pending. */
  write(bytes: Uint8Array): void | Promise<void>;
  /** Whether the other side is there. */
  readonly isOpen: boolean;
  /** The guest has opened or closed its end. */
  guestOpened?(open: boolean): void;
}

/** A memory back-end that is a device's. */
export interface MemoryBackend {
  /** What it holds when the machine is made. */
  readonly bytes: Uint8Array;
  /** Keeps bytes that have changed; absent where they go with the machine. */
  readonly save?: (offset: number, bytes: Uint8Array) => Promise<void>;
}

/** Random numbers for the guest: `-object rng-random`, `rng-builtin`. */
export interface RngBackend {
  /** `count` random bytes. */
  bytes(count: number): Promise<Uint8Array>;
}

/** A network back-end under the name that `netdev=` takes. */
export interface Netdev {
  /** QEMU's type: `user`, `socket`, `stream`, `hubport`, … */
  readonly kind: string;
  readonly port: NetBackend;
  /** Path of the device that uses it; set by the device. */
  user?: string | undefined;
  /** Plugs the cable in or out (`set_link`); set by the device. */
  setLink?: ((up: boolean) => void) | undefined;
}

export interface Backends {
  /** What display devices show, and the way of input to devices. */
  readonly displays: Displays;
  readonly input: InputRouter;
  readonly drives: Registry<Drive>;
  readonly netdevs: Registry<Netdev>;
  readonly chardevs: Registry<CharBackend>;
  readonly rngs: Registry<RngBackend>;
  readonly memories: Registry<MemoryBackend>;
  /** Folders of the host: QEMU's `-fsdev`. */
  readonly fsdevs: Registry<Folder>;
}

export const noBackends = (): Backends => ({
  displays: new Displays(),
  input: new InputRouter(),
  drives: new Registry('drive'),
  netdevs: new Registry('netdev'),
  chardevs: new Registry('chardev'),
  rngs: new Registry('rng object'),
  memories: new Registry('memory back-end'),
  fsdevs: new Registry('fsdev'),
});
