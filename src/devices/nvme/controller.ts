// An NVMe controller as processors see it: registers, doorbells, interrupts. Commands are carried out by the I/O thread, see io.ts.
// NVM Express Base Specification 1.4, chapter 3.

import type { Arena } from '../../bits/arena.ts';
import { struct, type ViewOf } from '../../bits/struct.ts';
import type { Report } from '../../bus/events.ts';
import type { Handler } from '../../bus/space.ts';
import { ASYNC_MAX } from './identify.ts';

/** Most I/O queues of each kind, and entries of one. */
export const IO_QUEUES_MAX = 64;
export const ENTRIES_MAX = 2048;
/** Commands that are under way or whose answers wait: no more are taken. */
export const WAITING_MAX = 4096;
export const PAGE = 4096;
/** Bytes of the register BAR: registers, then doorbells. */
export const NVME_BAR = 0x4000;
const DOORBELLS = 0x1000;

/** One submission queue with the completion queue of the same number, which need not belong together. */
export const nvmeQueueLayout = struct({
  sqBase: 'f64',
  cqBase: 'f64',
  /** Entries; 0 where there is no such queue. */
  sqSize: 'u32',
  cqSize: 'u32',
  sqHead: 'u32',
  sqTail: 'u32',
  cqHead: 'u32',
  cqTail: 'u32',
  /** Number of the completion queue that a submission queue reports to. */
  cqOf: 'u16',
  vector: 'u16',
  phase: 'u8',
  interrupts: 'u8',
});
export const nvmeLayout = struct(
  {
    cc: 'u32',
    csts: 'u32',
    masked: 'u32',
    aqa: 'u32',
    asq: ['u32', 2],
    acq: ['u32', 2],
    /** Counted up when all that is under way is dropped. */
    epoch: 'u32',
    /** The I/O thread is to make everything safe and say so in CSTS.SHST. */
    shutdown: 'u8',
    /** The controller was disabled: it is not ready any more once nothing is under way. */
    stopping: 'u8',
    writeCache: 'u8',
    /** Features: temperature threshold, error recovery, arbitration, interrupt coalescing, asynchronous events, power state. */
    features: ['u32', 32],
    queues: [nvmeQueueLayout, IO_QUEUES_MAX + 1],
    /** Answers that found their completion queue full, three words each: queue and identifier of the command, status, result. */
    waiting: 'u32',
    answers: ['u32', 3 * WAITING_MAX],
    /** Identifiers of requests for asynchronous events, which are answered when there is one: never, as nothing happens to this controller. */
    asyncs: 'u32',
    async: ['u32', ASYNC_MAX],
  },
  { name: 'nvme', version: 2 },
);
export type NvmeState = ViewOf<typeof nvmeLayout>;
export type NvmeQueue = ViewOf<typeof nvmeQueueLayout>;

const csts = { ready: 1, fatal: 2, shutdownDone: 8, shutdownMask: 0xc } as const;
const cc = { enable: 1 } as const;
/** Contiguous queues, 7.5 s, NVM command set, pages of 4 KiB. */
const CAP = [(ENTRIES_MAX - 1) | (1 << 16) | (15 << 24), 1 << 5] as const;
const VERSION = 0x0001_0400;

export interface NvmeOptions {
  readonly arena: Arena;
  readonly name: string;
  /** Wakes the I/O thread. */
  readonly ring: () => void;
  /** The level of the INTx wire; ignored while MSI-X is on. */
  readonly wire: (level: 0 | 1) => void;
  /** Carries out what can be at once of a submission queue; true where nothing is left for the I/O thread. */
  readonly atOnce?: ((queue: number) => boolean) | undefined;
  /** Sends an MSI-X vector; false where MSI-X is off. */
  readonly notify: (vector: number) => boolean;
  readonly report?: Report;
}

export class Nvme {
  readonly s: NvmeState;
  readonly #o: NvmeOptions;

  constructor(o: NvmeOptions) {
    this.#o = o;
    this.s = o.arena.alloc(nvmeLayout, o.name);
  }

  reset(): void {
    const { s } = this;
    Object.assign(s, { cc: 0, masked: 0, aqa: 0, shutdown: 0, writeCache: 1 });
    s.asq.fill(0);
    s.acq.fill(0);
    s.features.fill(0);
    // Temperature threshold: 70 °C.
    s.features[4] = 343;
    this.#drop();
    Object.assign(s, { csts: 0, stopping: 0 });
  }

  /** Nothing of what was asked counts any more; data that is on its way still comes. */
  #drop(): void {
    const { s } = this;
    s.epoch++;
    s.waiting = 0;
    s.asyncs = 0;
    for (const q of s.queues) Object.assign(q, { sqSize: 0, cqSize: 0, sqHead: 0, sqTail: 0, cqHead: 0, cqTail: 0 });
    this.#o.wire(0);
  }

  #disable(): void {
    this.#drop();
    this.s.stopping = 1;
    this.#o.ring();
  }

  /** Nothing is under way after `stopping` was seen. With the board's lock held. */
  stopped(): void {
    const { s } = this;
    if (!s.stopping) return;
    s.stopping = 0;
    s.csts &= ~csts.ready;
    if (s.cc & cc.enable) this.#enable();
  }

  #enable(): void {
    const { s } = this;
    if (s.stopping) return;
    const sqSize = (s.aqa & 0xfff) + 1;
    const cqSize = ((s.aqa >>> 16) & 0xfff) + 1;
    const sqBase = s.asq[1]! * 2 ** 32 + s.asq[0]!;
    const cqBase = s.acq[1]! * 2 ** 32 + s.acq[0]!;
    const pages = (s.cc >>> 7) & 15;
    const sizes = (s.cc >>> 16) & 0xff;
    const set = (s.cc >>> 4) & 7;
    const bad =
      sqSize < 2 || cqSize < 2 || pages !== 0 || sizes !== 0x46 || set !== 0 || sqBase % PAGE !== 0 || cqBase % PAGE !== 0;
    if (bad) {
      this.#o.report?.(
        this.#o.name,
        `cannot be enabled with CC ${hex(s.cc)}, AQA ${hex(s.aqa)}: 4 KiB pages and queues of 2 and more`,
      );
      s.csts |= csts.fatal;
      return;
    }
    Object.assign(s.queues[0]!, { sqBase, sqSize, cqBase, cqSize, cqOf: 0, vector: 0, phase: 1, interrupts: 1 });
    s.csts = csts.ready;
  }

  // ── Interrupts ──

  /** Something is in completion queue `n`. With the board's lock held. */
  raise(n: number): void {
    const q = this.s.queues[n]!;
    if (q.interrupts && !this.#o.notify(q.vector)) this.drive();
  }

  /** Sets the wire as the queues and the mask have it. */
  drive(): void {
    const { s } = this;
    const pending = s.queues.some(
      (q) => q.cqSize > 0 && q.interrupts && q.cqHead !== q.cqTail && !(s.masked & (1 << (q.vector & 31))),
    );
    this.#o.wire(pending ? 1 : 0);
  }

  /** Everything is safe: said after `shutdown` was seen. */
  shutDown(): void {
    this.s.csts = (this.s.csts & ~csts.shutdownMask) | csts.shutdownDone;
  }

  /** The controller cannot go on: it found rings that make no sense. */
  fail(why: string): void {
    this.#o.report?.(this.#o.name, why);
    this.s.csts |= csts.fatal;
  }

  // ── Registers ──

  readonly handler: Handler = {
    max: 4,
    read: (offset, size) => {
      const word = this.#read(offset & ~3);
      return size === 4 ? word : (word >>> (8 * (offset & 3))) & ((1 << (8 * size)) - 1);
    },
    write: (offset, size, value) => {
      // Registers are written as whole words.
      if (size === 4 && offset % 4 === 0) this.#write(offset, value);
      else this.#o.report?.(this.#o.name, `write of ${size} bytes at ${hex(offset)}: registers are written as words`);
    },
  };

  #read(offset: number): number {
    const { s } = this;
    switch (offset) {
      case 0x00:
        return CAP[0] >>> 0;
      case 0x04:
        return CAP[1];
      case 0x08:
        return VERSION;
      case 0x0c:
      case 0x10:
        return s.masked;
      case 0x14:
        return s.cc;
      case 0x1c:
        return s.csts;
      case 0x24:
        return s.aqa;
      case 0x28:
      case 0x2c:
        return s.asq[(offset - 0x28) / 4]!;
      case 0x30:
      case 0x34:
        return s.acq[(offset - 0x30) / 4]!;
      default:
        return 0;
    }
  }

  #write(offset: number, value: number): void {
    const { s } = this;
    switch (offset) {
      case 0x0c:
        s.masked = (s.masked | value) >>> 0;
        this.drive();
        return;
      case 0x10:
        s.masked = (s.masked & ~value) >>> 0;
        this.drive();
        return;
      case 0x14:
        this.#control(value);
        return;
      case 0x24:
        s.aqa = value & 0x0fff_0fff;
        return;
      case 0x28:
        s.asq[0] = value & ~0xfff;
        return;
      case 0x2c:
        s.asq[1] = value;
        return;
      case 0x30:
        s.acq[0] = value & ~0xfff;
        return;
      case 0x34:
        s.acq[1] = value;
        return;
      default:
        if (offset >= DOORBELLS) this.#doorbell((offset - DOORBELLS) >>> 2, value & 0xffff);
    }
  }

  #control(value: number): void {
    const { s } = this;
    const was = s.cc;
    s.cc = value & 0x00ff_fff1;
    if (value & ~was & cc.enable) this.#enable();
    else if (~value & was & cc.enable) this.#disable();
    if ((value >>> 14) & 3 && !((was >>> 14) & 3)) {
      s.shutdown = 1;
      this.#o.ring();
    } else if (!((value >>> 14) & 3) && (was >>> 14) & 3) s.csts &= ~csts.shutdownMask;
  }

  #doorbell(index: number, value: number): void {
    const q = this.s.queues[index >>> 1];
    if (q === undefined || !(this.s.csts & csts.ready) || this.s.stopping) return;
    const completion = (index & 1) !== 0;
    const size = completion ? q.cqSize : q.sqSize;
    if (value >= size) {
      this.#o.report?.(this.#o.name, `doorbell ${index} rung with ${value}: its queue has ${size} entries`);
      return;
    }
    if (completion) {
      q.cqHead = value;
      this.drive();
      // Answers that found no room.
      if (this.s.waiting > 0) this.#o.ring();
    } else {
      q.sqTail = value;
      if (!this.#o.atOnce?.(index >>> 1)) this.#o.ring();
    }
  }
}

const hex = (n: number): string => `0x${n.toString(16)}`;
