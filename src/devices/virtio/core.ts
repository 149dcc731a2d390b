// A virtio device without its transport: features, status, queues, configuration, and the I/O side's way to take and give requests.
// Virtual I/O Device (VIRTIO) 1.2, chapters 2 and 3.
import type { Arena } from '../../bits/arena.ts';
import type { BellWords, Doorbell } from '../../bus/doorbell.ts';
import type { Report } from '../../bus/events.ts';
import type { Lock } from '../../bus/lock.ts';
import type { GuestMemory } from '../../bus/memory.ts';
import type { Chain } from './chain.ts';
import { type RingKind, Virtqueue } from './queue.ts';
import { Feature, NO_VECTOR, Status, type VirtioState, virtioLayout } from './state.ts';

/** What a kind of device is, whatever its transport. */
export interface VirtioModel {
  /** The kind's number (chapter 5). */
  readonly id: number;
  /** Entries of each queue, powers of two up to 1,024. */
  readonly queues: readonly number[];
  /** Feature bits of the kind; may depend on shared state. */
  readonly features: bigint;
  /** Bits that legacy drivers are offered beside; those that they must not see. */
  readonly legacyFeatures?: bigint;
  readonly hiddenFromLegacy?: bigint;
  readonly config: VirtioConfig;
  /**
   * Carries out a request at the doorbell, on the thread of the vCPU that rang; how many bytes were written into the chain, -1 where it is left to the
   * I/O side. With the board's lock held.
   */
  readonly atOnce?: ((chain: Chain, queue: number) => number) | undefined;
  /**
   * True while `atOnce` may carry requests out: notifications then have to reach the thread of the vCPU. The same on every thread; whoever changes it calls
   * `VirtioCore.atOnceChanged`. With the board's lock held.
   */
  readonly servesAtOnce?: (() => boolean) | undefined;
  /** The driver's status changed, at the latest to 0 by a reset. With the board's lock held. */
  statusChanged?(status: number): void;
}
/** The kind's configuration space. With the board's lock held. */
export interface VirtioConfig {
  /** Bytes. */
  readonly length: number;
  /** One byte. */
  read(offset: number): number;
  write?(offset: number, byte: number): void;
}

/** Common options of all virtio devices, with QEMU's names and defaults. */
export interface VirtioOptions {
  readonly indirect_desc: boolean;
  readonly event_idx: boolean;
  readonly notify_on_empty: boolean;
  readonly any_layout: boolean;
  readonly packed: boolean;
  readonly queue_reset: boolean;
}

/** How a transport interrupts. With the board's lock held. */
export interface VirtioInterrupt {
  queue(vector: number): void;
  config(vector: number): void;
  /** The interrupt status register was cleared. */
  acknowledged(): void;
}

export interface VirtioCoreOptions {
  readonly arena: Arena;
  readonly name: string;
  readonly model: VirtioModel;
  readonly options: VirtioOptions;
  readonly memory: GuestMemory;
  readonly lock: Lock;
  readonly bell: Doorbell;
  readonly report: Report;
  /** Called when `bells` gives others than before. With the board's lock held. */
  readonly bellsChanged?: () => void;
}

/** Requests taken at one go: how long the lock is held at most. */
const BATCH = 32;
/** Requests of a queue that are served in one turn of the I/O thread: a full queue. A driver that adds more meanwhile waits for the next. */
const TURN = 1024;
/** Requests of one notification that are carried out at the doorbell, and bytes after which no more are: how long the lock is held. */
const AT_ONCE = { requests: 8, bytes: 1 << 20 } as const;

export class VirtioCore {
  readonly s: VirtioState;
  readonly model: VirtioModel;
  readonly name: string;
  readonly lock: Lock;
  readonly memory: GuestMemory;
  readonly report: Report;
  readonly queues: readonly Virtqueue[];
  /** What is offered beside the kind's own. */
  readonly #options: bigint;
  readonly #bell: Doorbell;
  readonly #bellsChanged: () => void;
  #interrupt: VirtioInterrupt = { queue: () => {}, config: () => {}, acknowledged: () => {} };

  constructor(o: VirtioCoreOptions) {
    const { model, options } = o;
    this.model = model;
    this.name = o.name;
    this.memory = o.memory;
    this.lock = o.lock;
    this.report = o.report;
    this.#bell = o.bell;
    this.#bellsChanged = o.bellsChanged ?? (() => {});
    this.s = o.arena.alloc(virtioLayout(model.queues.length), o.name);
    this.queues = this.s.queue.map((q) => new Virtqueue(q, o.memory, this.s.fence));
    this.#options =
      Feature.version1 |
      (options.indirect_desc ? Feature.indirect : 0n) |
      (options.event_idx ? Feature.eventIndex : 0n) |
      (options.packed ? Feature.packed : 0n) |
      (options.queue_reset ? Feature.ringReset : 0n) |
      (options.any_layout ? Feature.anyLayout : 0n) |
      (options.notify_on_empty ? Feature.notifyOnEmpty : 0n);
  }
  attach(interrupt: VirtioInterrupt): void {
    this.#interrupt = interrupt;
  }

  /** Power-on state. With the board's lock held, as all up to the I/O side's methods. */
  reset(): void {
    const { s } = this;
    const rang = this.ready;
    s.status = 0;
    s.configGeneration = 0;
    s.configVector = NO_VECTOR;
    s.queueSelect = s.deviceFeatureSelect = s.driverFeatureSelect = 0;
    s.accepted.fill(0);
    Atomics.store(s.isr, 0, 0);
    Atomics.add(s.epoch, 0, 1);
    this.queues.forEach((q, n) => this.resetQueue(n, q));
    this.#interrupt.acknowledged();
    this.model.statusChanged?.(0);
    this.#bell.ring();
    if (rang) this.#bellsChanged();
  }
  resetQueue(n: number, queue: Virtqueue = this.queues[n]!): void {
    queue.reset(this.model.queues[n]!);
    queue.s.vector = NO_VECTOR;
  }

  // -- registers

  /** 32 bits of what is offered; `select` counts words. */
  offered(select: number, legacy = false): number {
    if (select > 1) return 0;
    let all = this.#options | this.model.features;
    if (legacy) all = (all & ~(this.model.hiddenFromLegacy ?? 0n) & 0xffff_ffffn) | (this.model.legacyFeatures ?? 0n);
    else all &= ~(Feature.notifyOnEmpty | Feature.anyLayout);
    return Number((all >> BigInt(32 * select)) & 0xffff_ffffn);
  }
  /** What was agreed, 64 bits. */
  get features(): bigint {
    return BigInt(this.s.accepted[0]!) | (BigInt(this.s.accepted[1]!) << 32n);
  }
  has(feature: bigint): boolean {
    return (this.features & feature) !== 0n;
  }
  /** The driver's word of features. Ignored once they are agreed. */
  accept(select: number, value: number, legacy = false): void {
    if (select > 1 || (!legacy && this.s.status & Status.featuresOk)) return;
    this.s.accepted[select] = (value & this.offered(select, legacy)) >>> 0;
  }
  /** The status register: not 0 while requests of before a reset are under way. */
  get status(): number {
    return this.s.status === 0 && Atomics.load(this.s.inFlight, 0) > 0 ? Status.acknowledge : this.s.status;
  }
  setStatus(value: number, legacy = false): void {
    const { s } = this;
    if (value === 0) {
      if (s.status !== 0 || legacy) this.reset();
      return;
    }
    const before = s.status;
    // A driver that does without VIRTIO_F_VERSION_1 speaks the legacy interface only.
    if (value & Status.featuresOk && !legacy && !this.has(Feature.version1)) value &= ~Status.featuresOk;
    s.status = (value & ~Status.needsReset) | (before & Status.needsReset);
    if (s.status !== before) {
      this.model.statusChanged?.(s.status);
      if (s.status & Status.driverOk) this.#look();
      if ((s.status ^ before) & Status.driverOk) this.#bellsChanged();
    }
  }
  get selected(): Virtqueue | undefined {
    return this.queues[this.s.queueSelect];
  }
  /** The driver's notification of queue `n`. From any thread, with or without the lock. */
  kick(n: number): void {
    const q = this.queues[n];
    if (!q || q.s.enabled === 0) return;
    // What the I/O side has under way is not overtaken one by one: done together, it costs one interrupt.
    const { atOnce } = this.model;
    const alone = atOnce && Atomics.load(q.s.kicked, 0) === 0 && this.inFlight === 0 && this.lock.held;
    if (alone && this.#atOnce(n, q, atOnce)) return;
    if (Atomics.exchange(q.s.kicked, 0, 1) === 0) this.#bell.ring();
  }
  /** True when all that waits in a queue is done. */
  #atOnce(n: number, queue: Virtqueue, carry: (chain: Chain, queue: number) => number): boolean {
    if (!this.ready) return true;
    const { kind, epoch } = this;
    const done: [Chain, number][] = [];
    let all = false;
    let bytes = 0;
    try {
      while (done.length < AT_ONCE.requests && bytes < AT_ONCE.bytes) {
        const chain = queue.take(kind, epoch);
        if (!chain) break;
        const written = carry(chain, n);
        if (written < 0) {
          queue.untake(kind, chain);
          break;
        }
        done.push([chain, written]);
        bytes += written;
      }
      // The I/O side is not woken for a queue in which nothing is left: the next request would find it at work.
      all = queue.empty(kind) && !queue.listen(kind);
    } catch (error) {
      this.#broken(n, error);
      all = true;
    }
    this.#give(n, done);
    return all;
  }
  /** Queues whose notification only rings, and what it rings; none until the driver is at work, and none while requests are carried out at the doorbell. */
  bells(): readonly { readonly queue: number; readonly words: BellWords }[] {
    if (!this.ready || this.model.servesAtOnce?.()) return [];
    return this.queues.flatMap(({ s }, queue) => (s.enabled === 0 ? [] : [{ queue, words: this.#bell.words(s.kicked) }]));
  }
  /** What the kind's `servesAtOnce` tells is another thing than before. With the board's lock held. */
  atOnceChanged(): void {
    this.#bellsChanged();
    // An accelerator that rang may have taken a notification that it will not pass on any more.
    this.#look();
  }
  configRead(offset: number, size: number): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--)
      value = value * 256 + (offset + i < this.model.config.length ? this.model.config.read(offset + i) & 0xff : 0);
    return value;
  }
  configWrite(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++)
      if (offset + i < this.model.config.length) this.model.config.write?.(offset + i, (value >>> (8 * i)) & 0xff);
  }
  /** The interrupt status, which its reading clears. */
  takeIsr(): number {
    const isr = Atomics.exchange(this.s.isr, 0, 0);
    this.#interrupt.acknowledged();
    return isr;
  }

  /** Takes bits of the interrupt status away, which its reading does not. */
  clearIsr(bits: number): void {
    if ((Atomics.and(this.s.isr, 0, ~bits) & ~bits) === 0) this.#interrupt.acknowledged();
  }
  /** The legacy interface's way to say where the selected queue is: all of it in one piece (section 2.7.2). */
  setLegacyQueue(address: number, align: number): void {
    const s = this.selected?.s;
    if (!s) return;
    s.desc = address;
    s.driver = s.desc + 16 * s.size;
    s.device = Math.ceil((s.driver + 4 + 2 * s.size + 2) / align) * align;
    s.enabled = 1;
  }

  // -- for the device's kind

  /** Its configuration changed: tells the driver. With the board's lock held. */
  configChanged(): void {
    const { s } = this;
    s.configGeneration = (s.configGeneration + 1) & 0xff;
    if (!(s.status & Status.driverOk)) return;
    Atomics.or(s.isr, 0, 3);
    this.#interrupt.config(s.configVector);
  }
  /** What rings were agreed to. */
  get kind(): RingKind {
    const f = this.features;
    return {
      packed: (f & Feature.packed) !== 0n,
      eventIndex: (f & Feature.eventIndex) !== 0n,
      indirect: (f & Feature.indirect) !== 0n,
    };
  }
  /** Whether the driver is at work. */
  get ready(): boolean {
    return (this.s.status & (Status.driverOk | Status.needsReset)) === Status.driverOk;
  }
  get epoch(): number {
    return Atomics.load(this.s.epoch, 0);
  }

  // -- the I/O side; without the lock

  /** Sets what is done when the driver notified queue `n`. */
  readonly #served: (((n: number) => void) | undefined)[] = [];
  serve(n: number, work: (n: number) => void): void {
    this.#served[n] = work;
    this.#bell.heard = () => this.#hear();
  }
  /** Called when the device was reset, before anything of the new time is served. */
  onReset: (() => void) | undefined;
  #heardEpoch = -1;
  #hear(): void {
    if (this.#heardEpoch !== this.epoch) {
      this.#heardEpoch = this.epoch;
      this.onReset?.();
    }
    for (let n = 0; n < this.queues.length; n++) {
      if (Atomics.exchange(this.queues[n]!.s.kicked, 0, 0) === 0) continue;
      this.#serving = n;
      this.#left = TURN;
      this.#served[n]?.(n);
      this.#serving = -1;
    }
  }
  /** The queue that is served at this moment, -1 for none, and requests that it may still take. */
  #serving = -1;
  #left = 0;
  #held = false;
  /** The machine is held: no request is taken until `release`, so that guest memory stands still. */
  hold(): void {
    this.#held = true;
  }
  /** The machine goes on, or its state was put in from elsewhere: whatever waits in the queues is looked at. */
  release(): void {
    this.#held = false;
    this.#look();
  }
  /** Has the I/O side look at all queues. */
  #look(): void {
    for (const q of this.queues) Atomics.store(q.s.kicked, 0, 1);
    this.#bell.ring();
  }
  /**
   * Requests of queue `n`, up to `max`. When there are fewer, the driver is asked to notify for the next one; who got `max` has to come
   * again. A queue that has had its turn is empty until its next one.
   */
  take(n: number, max = BATCH): Chain[] {
    const chains: Chain[] = [];
    if (this.#held) return chains;
    if (n === this.#serving && this.#left <= 0) {
      this.kick(n);
      return chains;
    }
    const queue = this.queues[n]!;
    this.lock.run(() => {
      if (!this.ready) return;
      const { kind, epoch } = this;
      try {
        while (chains.length < max) {
          const chain = queue.take(kind, epoch);
          if (chain) chains.push(chain);
          else if (!queue.listen(kind)) break;
        }
      } catch (error) {
        this.#broken(n, error);
      }
      Atomics.add(this.s.inFlight, 0, chains.length);
    });
    if (n === this.#serving) this.#left -= chains.length;
    return chains;
  }
  /** Puts chains, the last ones that were taken, back. */
  untake(n: number, chains: readonly Chain[]): void {
    if (chains.length === 0) return;
    this.lock.run(() => {
      Atomics.sub(this.s.inFlight, 0, chains.length);
      for (const chain of chains.toReversed()) if (chain.epoch === this.epoch) this.queues[n]!.untake(this.kind, chain);
    });
  }
  /** Gives chains back, each with the number of bytes that were written into it; the driver sees all of them at once. */
  give(n: number, done: readonly (readonly [Chain, number])[]): void {
    if (done.length === 0) return;
    this.lock.run(() => {
      Atomics.sub(this.s.inFlight, 0, done.length);
      this.#give(n, done);
    });
  }
  #give(n: number, done: readonly (readonly [Chain, number])[]): void {
    const { s, kind, epoch } = this;
    const queue = this.queues[n]!;
    if (queue.s.enabled === 0 || !this.ready) return;
    // What was asked for before a reset is forgotten.
    const now = done.filter(([chain]) => chain.epoch === epoch);
    if (now.length === 0) return;
    queue.give(kind, now);
    const wants = queue.wantsInterrupt(kind) || (this.has(Feature.notifyOnEmpty) && queue.empty(kind));
    if (!wants) return;
    Atomics.or(s.isr, 0, 1);
    this.#interrupt.queue(queue.s.vector);
  }
  /** The driver broke the rules of queue `n`: nothing goes on until it resets the device. With the board's lock held. */
  #broken(n: number, error: unknown): void {
    const { s } = this;
    this.report(this.name, `queue ${n}: ${error instanceof Error ? error.message : String(error)}`);
    s.status |= Status.needsReset;
    if (this.has(Feature.version1)) {
      Atomics.or(s.isr, 0, 2);
      this.#interrupt.config(s.configVector);
    }
  }
  /** As a ring error, for requests that cannot be understood at all. */
  fail(n: number, what: string): void {
    this.lock.run(() => this.#broken(n, new Error(what)));
  }
  /** Requests that were taken and not given back. */
  get inFlight(): number {
    return Atomics.load(this.s.inFlight, 0);
  }
}
