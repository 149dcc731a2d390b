// A driver's side of virtqueues for tests: rings in a small guest memory, split or packed, and a core without a transport.
import { Arena } from '../../bits/arena.ts';
import { Bells, bellsLayout, doorbellLayout } from '../../bus/doorbell.ts';
import { Lock, lockLayout } from '../../bus/lock.ts';
import { Ram } from '../../bus/memory.ts';
import { VirtioCore, type VirtioModel } from './core.ts';
import { Feature, Status } from './state.ts';

export const RAM_BYTES = 1 << 20;
const RAM_AT = 1 << 20;

export interface TestOptions {
  readonly packed?: boolean;
  readonly eventIndex?: boolean;
  readonly features?: bigint;
}

/** One device of `model`, its driver set up with queues of the model's sizes. Data may lie from `data` on. */
export function virtioRig(model: VirtioModel, o: TestOptions = {}) {
  const buffer = new SharedArrayBuffer(RAM_AT + RAM_BYTES);
  const arena = new Arena(buffer, 0, RAM_AT);
  const lock = new Lock(arena.alloc(lockLayout), 1);
  const memory = new Ram(buffer, [{ gpa: 0, length: RAM_BYTES, offset: RAM_AT }]);
  const bells = new Bells(arena.alloc(bellsLayout));
  const reports: string[] = [];
  const interrupts = { queue: 0, config: 0 };
  /** How often the core said that its `bells` are others. */
  const counts = { told: 0 };
  const core = new VirtioCore({
    arena, name: 'test', model, memory, lock, bell: bells.add(arena.alloc(doorbellLayout, 'test')),
    options: { indirect_desc: true, event_idx: true, notify_on_empty: true, any_layout: true, packed: true, queue_reset: true },
    report: (_, text) => reports.push(text), bellsChanged: () => counts.told++,
  }); // biome-ignore format: one object
  core.attach({ queue: () => interrupts.queue++, config: () => interrupts.config++, acknowledged: () => {} });
  const bytes = new Uint8Array(buffer, RAM_AT, RAM_BYTES);
  const view = new DataView(buffer, RAM_AT, RAM_BYTES);

  /** Descriptors, driver area and device area of queue n, 16 KiB each queue. */
  const areas = (n: number) => ({ desc: 0x4000 * n, driver: 0x4000 * n + 0x2000, device: 0x4000 * n + 0x3000 });
  const start = (): void => {
    lock.run(() => {
      core.reset();
      core.setStatus(Status.acknowledge | Status.driver);
      const features =
        Feature.version1 |
        Feature.indirect |
        (o.packed ? Feature.packed : 0n) |
        (o.eventIndex ? Feature.eventIndex : 0n) |
        (o.features ?? 0n);
      core.accept(0, Number(features & 0xffff_ffffn));
      core.accept(1, Number(features >> 32n));
      core.setStatus(core.status | Status.featuresOk);
      for (const [n, queue] of core.queues.entries()) Object.assign(queue.s, { ...areas(n), enabled: 1 });
      core.setStatus(core.status | Status.driverOk);
    });
  };
  bytes.fill(0);
  start();
  counts.told = 0;
  return {
    get told() {
      return counts.told;
    },
    arena,
    core,
    lock,
    memory,
    bells,
    bytes,
    view,
    areas,
    reports,
    interrupts,
    start,
    data: 0x4000 * model.queues.length,
  };
}
export type VirtioRig = ReturnType<typeof virtioRig>;

/** A piece of a request. */
export interface TestPiece {
  readonly gpa: number;
  readonly length: number;
  readonly write?: boolean;
}

/** The driver of queue `n`: adds requests and takes what was used. */
export class TestQueue {
  readonly #rig: VirtioRig;
  readonly #n: number;
  readonly #packed: boolean;
  readonly #size: number;
  #next = 0;
  #used = 0;
  #wrap = 1;
  #usedWrap = 1;
  /** Descriptors of each request by its id. */
  readonly #lengths = new Map<number, number>();

  constructor(rig: VirtioRig, n: number, packed: boolean) {
    this.#rig = rig;
    this.#n = n;
    this.#packed = packed;
    this.#size = rig.core.queues[n]!.s.size;
  }

  /** Adds a request, in a table of its own at `table` where given; its id. */
  add(pieces: readonly TestPiece[], table?: number): number {
    const { view } = this.#rig;
    const { desc, driver } = this.#rig.areas(this.#n);
    const list = table === undefined ? pieces : [{ gpa: table, length: 16 * pieces.length }];
    if (table !== undefined) {
      for (const [i, p] of pieces.entries()) {
        const more = i + 1 < pieces.length;
        this.#descriptor(table + 16 * i, p, this.#packed ? [0, p.write ? 2 : 0] : [(p.write ? 2 : 0) | (more ? 1 : 0), i + 1]);
      }
    }
    const id = this.#next;
    this.#lengths.set(id, list.length);
    if (!this.#packed) {
      const head = (this.#next * 8) % this.#size;
      for (const [i, p] of list.entries()) {
        const flags = (p.write ? 2 : 0) | (i + 1 < list.length ? 1 : 0) | (table === undefined ? 0 : 4);
        this.#descriptor(desc + 16 * ((head + i) % this.#size), p, [flags, (head + i + 1) % this.#size]);
      }
      view.setUint16(driver + 4 + 2 * (this.#next % this.#size), head, true);
      this.#next = (this.#next + 1) & 0xffff;
      view.setUint16(driver + 2, this.#next, true);
      return head;
    }
    for (const [i, p] of list.entries()) {
      const flags =
        (p.write ? 2 : 0) | (i + 1 < list.length ? 1 : 0) | (table === undefined ? 0 : 4) | (this.#wrap ? 0x80 : 0x8000);
      this.#descriptor(desc + 16 * this.#next, p, [id, flags]);
      if (++this.#next === this.#size) {
        this.#next = 0;
        this.#wrap ^= 1;
      }
    }
    return id;
  }
  #descriptor(at: number, p: TestPiece, [a, b]: readonly number[]): void {
    const { view } = this.#rig;
    view.setBigUint64(at, BigInt(p.gpa), true);
    view.setUint32(at + 8, p.length, true);
    view.setUint16(at + 12, a!, true);
    view.setUint16(at + 14, b!, true);
  }

  /** What was given back since the last call: ids with the bytes written. */
  used(): (readonly [id: number, written: number])[] {
    const { view } = this.#rig;
    const { desc, device } = this.#rig.areas(this.#n);
    const out: (readonly [number, number])[] = [];
    if (!this.#packed) {
      for (const end = view.getUint16(device + 2, true); this.#used !== end; this.#used = (this.#used + 1) & 0xffff) {
        const at = device + 4 + 8 * (this.#used % this.#size);
        out.push([view.getUint32(at, true), view.getUint32(at + 4, true)]);
      }
      return out;
    }
    for (;;) {
      const at = desc + 16 * this.#used;
      const flags = view.getUint16(at + 14, true);
      const done = ((flags & 0x80) !== 0) === (this.#usedWrap !== 0) && ((flags & 0x8000) !== 0) === (this.#usedWrap !== 0);
      if (!done) return out;
      const id = view.getUint16(at + 12, true);
      out.push([id, view.getUint32(at + 8, true)]);
      this.#used += this.#lengths.get(id)!;
      if (this.#used >= this.#size) {
        this.#used -= this.#size;
        this.#usedWrap ^= 1;
      }
    }
  }
}
