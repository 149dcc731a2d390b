// The I/O side of the console device: control messages, and bytes between ports and whoever is behind them.
// Virtual I/O Device (VIRTIO) 1.2, section 5.3.6.
import type { Chain } from './chain.ts';
import {
  CONTROL_RECEIVE,
  CONTROL_TRANSMIT,
  ConsoleFeature,
  type ConsoleState,
  Control,
  decodeControl,
  encodeControl,
  portQueues,
} from './console.ts';
import type { VirtioCore } from './core.ts';

/** What is behind a port. */
export interface PortBack {
  readonly console: boolean;
  /** What the guest finds it by (`/dev/virtio-ports/NAME`). */
  readonly name: string | undefined;
  /** Takes what the guest sent; nothing more comes while a returned promise is pending. */
  write(bytes: Uint8Array): void | Promise<void>;
  /** The guest has opened or closed the port. */
  opened(open: boolean): void;
}

interface Port {
  readonly back: PortBack;
  hostOpen: boolean;
  /** What `back` was told. */
  told: boolean;
  /** Bytes for the guest that have no room yet, and who waits for that. */
  pending: Uint8Array[];
  waiters: (() => void)[];
  sending: boolean;
}
/** Control messages that wait for the driver's buffers; a driver that never gives any gets no more. */
const MESSAGES = 1024;
/** Bytes taken of the guest at once. */
const PIECE = 65536;

export class ConsoleIo {
  readonly #core: VirtioCore;
  readonly #s: ConsoleState;
  readonly #ports = new Map<number, Port>();
  readonly #messages: Uint8Array[] = [];

  constructor(core: VirtioCore, s: ConsoleState, ports: number) {
    this.#core = core;
    this.#s = s;
    core.serve(CONTROL_RECEIVE, () => this.#flushMessages());
    core.serve(CONTROL_TRANSMIT, () => this.#control());
    for (let n = 0; n < ports; n++) {
      core.serve(portQueues(n).receive, () => this.#flush(n));
      core.serve(portQueues(n).transmit, () => void this.#transmit(n));
    }
    core.onReset = () => this.reset();
  }

  /** A device of the bus. */
  add(n: number, back: PortBack): void {
    this.#ports.set(n, { back, hostOpen: false, told: false, pending: [], waiters: [], sending: false });
    if (this.#s.driverReady) this.#say(n, Control.portAdd, 1);
  }
  remove(n: number): void {
    const port = this.#ports.get(n);
    if (!port) return;
    this.#drop(port);
    this.#ports.delete(n);
    this.#s.ready[n] = this.#s.open[n] = 0;
    if (this.#s.driverReady) this.#say(n, Control.portRemove, 1);
  }
  /** Whoever is behind the port has come or gone. */
  setOpen(n: number, open: boolean): void {
    const port = this.#ports.get(n);
    if (!port || port.hostOpen === open) return;
    port.hostOpen = open;
    if (this.#s.ready[n]) this.#say(n, Control.portOpen, open ? 1 : 0);
  }
  /** Bytes for the guest; resolves when all have room. */
  send(n: number, bytes: Uint8Array): void | Promise<void> {
    const port = this.#ports.get(n);
    if (!port || bytes.length === 0) return;
    port.pending.push(bytes.slice());
    this.#flush(n);
    if (port.pending.length > 0) return new Promise((resolve) => port.waiters.push(resolve));
  }
  isOpen(n: number): boolean {
    return this.#guestOpen(n);
  }
  /** The machine goes on, perhaps as another one that was saved: what its guest has opened is told. */
  resumed(n: number): void {
    const port = this.#ports.get(n);
    if (port && this.#core.has(ConsoleFeature.multiport)) this.#tell(port, this.#guestOpen(n));
  }
  /** The device was reset: the guest knows nothing of what was said. */
  reset(): void {
    this.#messages.length = 0;
    for (const [, port] of this.#ports) this.#drop(port);
    for (const [, port] of this.#ports) this.#tell(port, false);
  }

  #tell(port: Port, open: boolean): void {
    if (port.told === open) return;
    port.told = open;
    port.back.opened(open);
  }
  #drop(port: Port): void {
    port.pending = [];
    const waiters = port.waiters;
    port.waiters = [];
    for (const go of waiters) go();
  }
  /** Drivers without ports have port 0 only, and it is open. */
  #guestOpen(n: number): boolean {
    return this.#core.has(ConsoleFeature.multiport) ? this.#s.open[n] !== 0 : n === 0 && this.#core.ready;
  }

  // -- bytes

  #flush(n: number): void {
    const port = this.#ports.get(n);
    if (!port || port.pending.length === 0 || !this.#guestOpen(n)) return;
    const { receive } = portQueues(n);
    const done: (readonly [Chain, number])[] = [];
    while (port.pending.length > 0) {
      const [chain] = this.#core.take(receive, 1);
      if (!chain) break;
      let at = 0;
      while (at < chain.in.length && port.pending.length > 0) {
        const first = port.pending[0]!;
        const put = chain.in.write(at, first);
        at += put;
        if (put === first.length) port.pending.shift();
        else port.pending[0] = first.subarray(put);
      }
      done.push([chain, at]);
    }
    this.#core.give(receive, done);
    if (port.pending.length > 0) return;
    const waiters = port.waiters;
    port.waiters = [];
    for (const go of waiters) go();
  }
  async #transmit(n: number): Promise<void> {
    const port = this.#ports.get(n);
    const { transmit } = portQueues(n);
    if (port?.sending) return;
    if (port) port.sending = true;
    for (;;) {
      const [chain] = this.#core.take(transmit, 1);
      if (!chain) break;
      for (let at = 0; port && at < chain.out.length; at += PIECE) {
        const waits = port.back.write(chain.out.bytes(at, Math.min(PIECE, chain.out.length - at)));
        if (waits) await waits;
      }
      this.#core.give(transmit, [[chain, 0]]);
    }
    if (port) port.sending = false;
  }

  // -- control

  #say(port: number, event: number, value: number, rest?: Uint8Array): void {
    if (this.#messages.length >= MESSAGES) return;
    this.#messages.push(encodeControl({ port, event, value }, rest));
    this.#flushMessages();
  }
  #flushMessages(): void {
    while (this.#messages.length > 0) {
      const [chain] = this.#core.take(CONTROL_RECEIVE, 1);
      if (!chain) return;
      this.#core.give(CONTROL_RECEIVE, [[chain, chain.in.write(0, this.#messages.shift()!)]]);
    }
  }
  #control(): void {
    for (const chain of this.#core.take(CONTROL_TRANSMIT, 64)) {
      const message = decodeControl(chain.out.bytes(0, 8));
      this.#core.give(CONTROL_TRANSMIT, [[chain, 0]]);
      if (message) this.#heard(message.port, message.event, message.value);
    }
  }
  #heard(n: number, event: number, value: number): void {
    if (event === Control.deviceReady) {
      if (value !== 1) return;
      this.#s.driverReady = 1;
      for (const id of [...this.#ports.keys()].sort((a, b) => a - b)) this.#say(id, Control.portAdd, 1);
      return;
    }
    const port = this.#ports.get(n);
    if (!port) return;
    if (event === Control.portReady) {
      if (value !== 1) return;
      this.#s.ready[n] = 1;
      const { console, name } = port.back;
      if (console) this.#say(n, Control.consolePort, 1);
      if (name !== undefined) this.#say(n, Control.portName, 1, new TextEncoder().encode(`${name}\0`));
      if (port.hostOpen) this.#say(n, Control.portOpen, 1);
    } else if (event === Control.portOpen) {
      const open = value !== 0;
      if ((this.#s.open[n] !== 0) === open) return;
      this.#s.open[n] = open ? 1 : 0;
      if (!open) this.#drop(port);
      this.#tell(port, open);
      if (open) this.#flush(n);
    }
  }
}
