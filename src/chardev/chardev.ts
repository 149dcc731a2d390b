// Character devices: bytes to and from the outside on one side, a port of the guest, a monitor or gdb on the other.
// QEMU 7.2 "System Emulation", section "Invocation", "Character device options".

import { consoleKeys } from './keys.ts';
import type { CharOptions } from './options.ts';

/** Who uses a character device. */
export interface CharUser {
  /** Bytes from outside. While a returned promise is pending, no more come. */
  receive(bytes: Uint8Array): void | Promise<void>;
  /** The far side has come or gone; called at once when it is there already. */
  connected?(is: boolean): void;
  /** The user of a multiplexed device has the keyboard now. */
  focus?(is: boolean): void;
  /** A break condition on the line (Ctrl-A b). */
  break?(): void;
}

/** What carries the bytes outside. */
export interface CharBackend {
  /** As `query-chardev` shows it. */
  readonly filename: string;
  readonly connected: boolean;
  /** Takes all bytes; drops them where nobody is connected. A pending promise asks for patience. */
  write(bytes: Uint8Array): void | Promise<void>;
  close(): void;
  /** Takes the oldest file descriptor that came with the bytes (SCM_RIGHTS). */
  takeFd?(): number | undefined;
}

/** What a backend tells. */
export interface CharEvents {
  readonly receive: (bytes: Uint8Array) => void | Promise<void>;
  readonly connected: (is: boolean) => void;
}

/** Opens what needs the host: files, sockets, terminals. Rejects with one line. */
export interface CharHost {
  openChar(id: string, options: CharOptions, events: CharEvents): Promise<CharBackend>;
}

/** A user's end. */
export interface CharPort {
  readonly chardev: Chardev;
  readonly connected: boolean;
  write(bytes: Uint8Array): void | Promise<void>;
  takeFd(): number | undefined;
  release(): void;
}

/** Keys of a multiplexed device that concern the whole emulator. */
export interface MuxActions {
  readonly quit: () => void;
  readonly togglePause: () => void;
}

/** QEMU's MAX_MUX. */
const MAX_USERS = 4;

/** One character device by its id. */
export class Chardev {
  readonly id: string;
  readonly options: CharOptions;
  readonly backend: CharBackend;
  readonly #users: { readonly user: CharUser; readonly last: boolean }[] = [];
  readonly #keys: ((bytes: Uint8Array) => void) | undefined;
  #focus = 0;
  #waiting: (() => void) | undefined;
  #pending: Promise<void> = Promise.resolve();

  /** `openChardev` makes them. */
  constructor(id: string, options: CharOptions, backend: CharBackend, mux: MuxActions | undefined) {
    this.id = id;
    this.options = options;
    this.backend = backend;
    if (options.mux && mux) {
      this.#keys = consoleKeys({
        send: (bytes) => {
          const taken = this.#user?.receive(bytes);
          if (taken) this.#pending = this.#pending.then(() => taken);
        },
        quit: mux.quit,
        help: (lines) => void backend.write(new TextEncoder().encode(`\r\n${lines.join('\r\n')}\r\n`)),
        toggleMonitor: () => this.#turn((this.#focus + 1) % Math.max(this.#users.length, 1)),
        togglePause: mux.togglePause,
        sendBreak: () => this.#user?.break?.(),
      });
    }
  }
  /** Somebody uses it, or all places of a multiplexed one are taken. */
  get busy(): boolean {
    return this.#users.length >= (this.options.mux ? MAX_USERS : 1);
  }
  get used(): boolean {
    return this.#users.length > 0;
  }
  /** Somebody uses it who listens: a port that a guest has not opened does not. */
  get listening(): boolean {
    return this.used && this.guestOpen;
  }
  guestOpen = true;
  get #user(): CharUser | undefined {
    return this.#users[this.#focus]?.user;
  }
  /**
   * Takes it into use. `last`: the keyboard of a multiplexed device goes to others first.
   * @throws Error when it is in use
   */
  take(user: CharUser, last = false): CharPort {
    if (this.busy) throw new Error(`Cannot use character device ${this.id}: it is in use`);
    const entry = { user, last };
    this.#users.push(entry);
    const { backend } = this;
    if (backend.connected) user.connected?.(true);
    if (this.options.mux) {
      const first = this.#users.findIndex((u) => !u.last);
      this.#turn(Math.max(0, first));
    }
    this.#waiting?.();
    this.#waiting = undefined;
    return {
      chardev: this,
      get connected() {
        return backend.connected;
      },
      write: (bytes) => backend.write(bytes),
      takeFd: () => backend.takeFd?.(),
      release: () => {
        const at = this.#users.indexOf(entry);
        if (at < 0) return;
        this.#users.splice(at, 1);
        if (this.#focus >= this.#users.length) this.#focus = 0;
      },
    };
  }
  #turn(to: number): void {
    if (to === this.#focus && this.#users.length > 1) return;
    this.#user?.focus?.(false);
    this.#focus = to;
    this.#user?.focus?.(true);
  }
  /** Bytes from the backend: they wait while nobody is there. */
  receive(bytes: Uint8Array): void | Promise<void> {
    if (this.#users.length === 0)
      return new Promise<void>((resolve) => (this.#waiting = resolve)).then(() => this.receive(bytes));
    if (!this.#keys) return this.#user!.receive(bytes);
    this.#keys(bytes);
    return this.#pending;
  }
  /** A break on the line, from a monitor. */
  sendBreak(): void {
    this.#user?.break?.();
  }
  connected(is: boolean): void {
    for (const { user } of this.#users) user.connected?.(is);
  }
  close(): void {
    this.backend.close();
  }
}

/** Opens a character device. Rejects with one line. */
export async function openChardev(id: string, options: CharOptions, host: CharHost, mux?: MuxActions): Promise<Chardev> {
  let device: Chardev | undefined;
  // What comes before the object is there waits for it.
  let early: { bytes: Uint8Array; done: () => void }[] = [];
  const events: CharEvents = {
    receive: (bytes) => (device ? device.receive(bytes) : new Promise<void>((done) => early.push({ bytes, done }))),
    connected: (is) => device?.connected(is),
  };
  const backend = memoryBackend(options) ?? (await host.openChar(id, options, events));
  device = new Chardev(id, options, backend, mux);
  const waited = early;
  early = [];
  for (const { bytes, done } of waited) void Promise.resolve(device.receive(bytes)).then(done);
  return device;
}

/** Backends that need no host. */
function memoryBackend(options: CharOptions): CharBackend | undefined {
  switch (options.kind) {
    case 'null':
      return { filename: 'null', connected: true, write: () => {}, close: () => {} };
    case 'ringbuf':
      return new RingBackend(options.size);
    case 'stdio':
    case 'file':
    case 'pipe':
    case 'pty':
    case 'udp':
    case 'socket':
      return undefined;
  }
}

/** `-chardev ringbuf`: keeps the newest bytes for `ringbuf-read`. */
export class RingBackend implements CharBackend {
  readonly filename = 'ringbuf';
  readonly connected = true;
  readonly #bytes: Uint8Array;
  #start = 0;
  #length = 0;

  constructor(size: number) {
    this.#bytes = new Uint8Array(size);
  }
  write(bytes: Uint8Array): void {
    const { length } = this.#bytes;
    for (const byte of bytes) {
      this.#bytes[(this.#start + this.#length) % length] = byte;
      if (this.#length < length) this.#length++;
      else this.#start = (this.#start + 1) % length;
    }
  }
  /** Takes the oldest bytes out. */
  read(size: number): Uint8Array {
    const n = Math.min(size, this.#length);
    const out = Uint8Array.from({ length: n }, (_, i) => this.#bytes[(this.#start + i) % this.#bytes.length]!);
    this.#start = (this.#start + n) % this.#bytes.length;
    this.#length -= n;
    return out;
  }
  close(): void {}
}
