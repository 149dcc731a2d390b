// What the I/O sides of network cards without virtio have in common: the wire, frames that wait for room in the guest's memory, and standing
// still while the machine is held.

import type { Lock } from '../bus/lock.ts';
import type { GuestMemory } from '../bus/memory.ts';

/** What carries the frames: `src/net/backend.ts` has more of it. Whole frames only. */
export interface FramePort {
  send(frame: Uint8Array): void;
  receive: (frame: Uint8Array) => void;
}

export interface CardIoOptions {
  readonly lock: Lock;
  readonly memory: GuestMemory;
  readonly port: FramePort;
  /** The guest lets the card use its memory. */
  readonly master: () => boolean;
  /** Has `serve` called once more, after others' turns. */
  readonly again: () => void;
}

export abstract class CardIo {
  protected readonly lock: Lock;
  protected readonly memory: GuestMemory;
  protected readonly port: FramePort;
  protected readonly master: () => boolean;
  protected readonly again: () => void;
  protected waiting: Uint8Array[] = [];
  protected waitingBytes = 0;
  protected held = false;

  constructor(o: CardIoOptions) {
    this.lock = o.lock;
    this.memory = o.memory;
    this.port = o.port;
    this.master = o.master;
    this.again = o.again;
    o.port.receive = (frame) => this.receive(frame);
  }
  close(): void {
    this.port.receive = () => {};
  }
  /** The machine is held: guest memory stands still until `release`. */
  hold(): void {
    this.held = true;
  }
  release(): void {
    this.held = false;
    this.again();
  }
  /** The driver has something to send, or has made room. */
  abstract serve(): void;
  /** A frame from the network. */
  protected abstract receive(frame: Uint8Array): void;
}
