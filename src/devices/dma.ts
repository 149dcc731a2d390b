// The two 8237A DMA controllers of a PC with their page registers: channels 0 to 3 move bytes, 5 to 7 words. Intel 8237A data sheet; IBM
// PC AT Technical Reference, "DMA".

import type { Arena } from '../bits/arena.ts';
import { struct, type ViewOf } from '../bits/struct.ts';
import type { GuestMemory } from '../bus/memory.ts';
import type { AddressSpace, Handler } from '../bus/space.ts';

/** Channel of a page register's offset from 0x80; -1 for those of no channel, which are plain bytes. */
const pageChannel = [-1, 2, 3, 1, -1, -1, -1, 0, -1, 6, 7, 5, -1, -1, -1, 4];
/** First ports of the controllers, ports between registers, and the first of their page registers. */
export const dmaControllers = [
  { n: 0, base: 0x00, spacing: 1, pages: 0x80 },
  { n: 1, base: 0xc0, spacing: 2, pages: 0x88 },
] as const;
const mode = { transfer: 0x0c, fromMemory: 0x08, toMemory: 0x04, auto: 0x10, down: 0x20 } as const;

export const dmaLayout = struct(
  {
    baseAddress: ['u16', 8],
    baseCount: ['u16', 8],
    address: ['u16', 8],
    count: ['u16', 8],
    mode: ['u8', 8],
    /** By page register. */
    page: ['u8', 16],
    /** By controller: commands, the flip-flop that chooses the byte, status, mask, requests. */
    command: ['u8', 2],
    second: ['u8', 2],
    status: ['u8', 2],
    mask: ['u8', 2],
  },
  { name: 'dma', version: 1 },
);

/** A channel as its device uses it. With the board's lock held. */
export interface DmaChannel {
  /** Bytes that are left to move; 0 while the channel is masked or moves nothing in that direction. */
  left(direction: 'toMemory' | 'fromMemory'): number;
  /** Moves bytes into or out of memory as far as the channel goes; how many that were. */
  move(direction: 'toMemory' | 'fromMemory', bytes: Uint8Array): number;
}

export class Dma {
  readonly #s: ViewOf<typeof dmaLayout>;
  readonly #memory: GuestMemory;

  constructor(o: { readonly arena: Arena; readonly memory: GuestMemory }) {
    this.#s = o.arena.alloc(dmaLayout);
    this.#memory = o.memory;
  }
  reset(): void {
    const s = this.#s;
    for (const list of [s.baseAddress, s.baseCount, s.address, s.count, s.mode, s.page, s.command, s.second, s.status])
      list.fill(0);
    s.mask.fill(15);
  }
  map(ports: AddressSpace): void {
    for (const { n, base, spacing } of dmaControllers) {
      ports.map(base, 8 * spacing, this.#controller(n, spacing), 'dma-chan');
      ports.map(base + 8 * spacing, 8 * spacing, this.#controller(n, spacing, 8), 'dma-cont');
    }
    const { page } = this.#s;
    const pages: Handler = {
      max: 1,
      read: (offset) => page[offset + 1]!,
      write: (offset, _, value) => {
        page[offset + 1] = value;
      },
    };
    // Port 0x80 is nobody's page: codes of firmware go there.
    ports.map(0x81, 15, pages, 'dma-page');
  }

  /** Registers of a controller from the `first` one on. */
  #controller(n: 0 | 1, spacing: 1 | 2, first = 0): Handler {
    return {
      max: 1,
      read: (offset) => (offset % spacing === 0 ? this.#read(n, first + offset / spacing) : 0xff),
      write: (offset, _, value) => {
        if (offset % spacing === 0) this.#write(n, first + offset / spacing, value);
      },
    };
  }
  /** Which byte comes, and the other one next time. */
  #byte(n: 0 | 1): 0 | 8 {
    const shift = this.#s.second[n] ? 8 : 0;
    this.#s.second[n] = shift ? 0 : 1;
    return shift;
  }
  #read(n: 0 | 1, at: number): number {
    const s = this.#s;
    if (at < 8) {
      const channel = 4 * n + (at >>> 1);
      return ((at & 1 ? s.count : s.address)[channel]! >>> this.#byte(n)) & 0xff;
    }
    if (at === 8) {
      const { [n]: status } = s.status;
      s.status[n] = status! & 0xf0;
      return status!;
    }
    return at === 15 ? s.mask[n]! : 0;
  }
  #write(n: 0 | 1, at: number, value: number): void {
    const s = this.#s;
    if (at < 8) {
      const channel = 4 * n + (at >>> 1);
      const [base, now] = at & 1 ? [s.baseCount, s.count] : [s.baseAddress, s.address];
      const shift = this.#byte(n);
      base[channel] = (base[channel]! & ~(0xff << shift)) | (value << shift);
      now[channel] = base[channel]!;
      return;
    }
    const bit = 1 << (value & 3);
    switch (at) {
      case 8:
        s.command[n] = value;
        return;
      case 10:
        s.mask[n] = value & 4 ? s.mask[n]! | bit : s.mask[n]! & ~bit;
        return;
      case 11:
        s.mode[4 * n + (value & 3)] = value;
        return;
      case 12:
        s.second[n] = 0;
        return;
      case 13:
        Object.assign(s.command, { [n]: 0 });
        s.second[n] = 0;
        s.status[n] = 0;
        s.mask[n] = 15;
        return;
      case 14:
        s.mask[n] = 0;
        return;
      case 15:
        s.mask[n] = value & 15;
    }
  }

  channel(n: 0 | 1 | 2 | 3): DmaChannel {
    const s = this.#s;
    const page = pageChannel.indexOf(n);
    const left: DmaChannel['left'] = (direction) =>
      s.mask[0]! & (1 << n) || (s.mode[n]! & mode.transfer) !== mode[direction] || s.command[0]! & 4 ? 0 : s.count[n]! + 1;
    return {
      left,
      move: (direction, bytes) => {
        const length = Math.min(bytes.length, left(direction));
        const down = (s.mode[n]! & mode.down) !== 0;
        for (let i = 0; i < length; i++) {
          // A channel stays within its 64 KiB.
          const gpa = s.page[page]! * 0x1_0000 + s.address[n]!;
          if (direction === 'toMemory') {
            this.#memory.write8(gpa, bytes[i]!);
          } else bytes[i] = this.#memory.read8(gpa);
          s.address[n] = s.address[n]! + (down ? -1 : 1);
          if (s.count[n] === 0) {
            this.#ended(n);
            return i + 1;
          }
          s.count[n] = s.count[n]! - 1;
        }
        return length;
      },
    };
  }
  /** The last byte of a channel is moved: it begins anew, or is masked. */
  #ended(n: number): void {
    const s = this.#s;
    s.status[0] = s.status[0]! | (1 << n);
    if (s.mode[n]! & mode.auto) {
      s.address[n] = s.baseAddress[n]!;
      s.count[n] = s.baseCount[n]!;
    } else {
      s.count[n] = 0xffff;
      s.mask[0] = s.mask[0]! | (1 << n);
    }
  }
}
