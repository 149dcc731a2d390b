// A mouse with positions behind VMware's backdoor, as QEMU 7.2 has it: the guest reads words from a queue when the PS/2 mouse tells of something.
// Commands and packets: xf86-input-vmmouse, shared/vmmouse_defs.h.

import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { Doorbell } from '../bus/doorbell.ts';
import { type PortRegisters, portRegisterNames } from '../bus/port-registers.ts';

const WORDS = 1024;
const layout = struct(
  {
    queue: ['u32', WORDS],
    count: 'u32',
    /** 0 in order; `OFF` until the guest asks for its version, and after errors. */
    status: 'u32',
    /** It has taken the pointer over from the PS/2 mouse; with positions, not movements. */
    active: 'u8',
    absolute: 'u8',
  },
  { name: 'vmmouse', version: 1 },
);

export const vmmouseCommand = { data: 39, status: 40, command: 41 } as const;
const order = { disable: 0xf5, readId: 0x4541_4552, relative: 0x4c45_5252, absolute: 0x5342_4152 } as const;
const OFF = 0xffff;
const VERSION = 0x3442_554a;
const PACKET = 4;
/** Words that one command reads. */
const READ_MAX = 6;
/** A flag beside the buttons: the packet tells of a movement. */
const RELATIVE = 0x1_0000;

export interface VmMouseOptions {
  readonly arena: Arena;
  /** Rung when the guest takes the pointer over or gives it back. */
  readonly bell: Doorbell;
}

export class VmMouse {
  readonly s: ViewOf<typeof layout>;
  readonly bell: Doorbell;

  constructor({ arena, bell }: VmMouseOptions) {
    this.s = arena.alloc(layout);
    this.bell = bell;
  }

  reset(): void {
    this.s.count = 0;
    this.#use(false);
    this.s.status = OFF;
  }

  /** A command of the backdoor; what EAX has then. With the board's lock held, as all. */
  call(r: PortRegisters): number {
    const { s } = this;
    switch (r.ecx & 0xffff) {
      case vmmouseCommand.status:
        return ((s.status << 16) | s.count) >>> 0;
      case vmmouseCommand.command:
        this.#order(r.ebx);
        return r.eax;
      case vmmouseCommand.data:
        return this.#read(r);
      default:
        return r.eax;
    }
  }

  #order(what: number): void {
    const { s } = this;
    switch (what) {
      case order.disable:
        s.status = OFF;
        this.#use(false);
        return;
      case order.readId:
        if (s.count < WORDS) s.queue[s.count++] = VERSION;
        s.status = 0;
        return;
      case order.relative:
      case order.absolute:
        this.#use(true, what === order.absolute);
        return;
      default:
    }
  }

  #use(active: boolean, absolute = this.s.absolute !== 0): void {
    const { s } = this;
    if ((s.active !== 0) === active && (s.absolute !== 0) === absolute) return;
    s.active = active ? 1 : 0;
    s.absolute = absolute ? 1 : 0;
    this.bell.ring();
  }

  /** EBX words of the queue, to the registers from EAX on. */
  #read(r: PortRegisters): number {
    const { s } = this;
    const n = r.ebx;
    if (n < 1 || n > READ_MAX || n > s.count) {
      s.status = OFF;
      return r.eax;
    }
    for (let i = 0; i < n; i++) r[portRegisterNames[i]!] = s.queue[i]!;
    s.queue.copyWithin(0, n, s.count);
    s.count -= n;
    return r.eax;
  }

  /**
   * A position (0 to 32767 over the picture) or a movement, counts of the wheel towards the user, and the buttons that are down: left 1, right 2, middle 4.
   * False where there is no room for it.
   */
  move(x: number, y: number, dz: number, buttons: number): boolean {
    const { s } = this;
    if (s.count > WORDS - PACKET) return false;
    const flags = (buttons & 1 ? 0x20 : 0) | (buttons & 2 ? 0x10 : 0) | (buttons & 4 ? 0x08 : 0);
    const packet = s.absolute ? [flags, x << 1, y << 1, dz] : [flags | RELATIVE, x, y, dz];
    s.queue.set(packet, s.count);
    s.count += PACKET;
    return true;
  }
}
