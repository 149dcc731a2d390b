// The I/O thread's side of an NVMe controller: takes commands from submission queues, carries them out, answers in completion queues.
// NVM Express Base Specification 1.4, chapters 4 to 6.

import type { Lock } from '../../bus/lock.ts';
import type { GuestMemory } from '../../bus/memory.ts';
import { fill, gather, perform, type ScsiResult } from '../scsi/perform.ts';
import type { MediumStore, ScsiPlan } from '../scsi/plan.ts';
import { ENTRIES_MAX, IO_QUEUES_MAX, type Nvme, PAGE, WAITING_MAX } from './controller.ts';
import {
  ASYNC_MAX,
  effectsLog,
  firmwareLog,
  identifyController,
  identifyNamespace,
  MDTS,
  NSID,
  type NvmeIdentity,
  namespaceDescriptors,
  namespaceList,
  smartLog,
} from './identify.ts';
import { type Answer, headOf, type Posted, prps, put, REFUSED_FLAGS, type Sqe, spanOf } from './queue.ts';

/** Status codes: type in bits 8 to 10; `noRetry` is set for what would fail again. */
const noRetry = 0x4000;
const Sc = {
  ok: 0,
  badOpcode: 0x01 | noRetry,
  badField: 0x02 | noRetry,
  transfer: 0x04,
  aborted: 0x07,
  badNamespace: 0x0b | noRetry,
  badPrp: 0x13 | noRetry,
  lbaRange: 0x80 | noRetry,
  readOnly: 0x182 | noRetry,
  badCq: 0x100 | noRetry,
  badQid: 0x101 | noRetry,
  badSize: 0x102 | noRetry,
  asyncLimit: 0x105 | noRetry,
  badVector: 0x108 | noRetry,
  badLog: 0x109 | noRetry,
  badDeletion: 0x10c | noRetry,
  notChangeable: 0x10e | noRetry,
  writeFault: 0x280,
  readFault: 0x281,
  compare: 0x285 | noRetry,
} as const;

const answer = (status: number, result = 0): Answer => ({ status, result });
const ok = answer(Sc.ok);

export interface NvmeIoOptions {
  readonly nvme: Nvme;
  readonly lock: Lock;
  readonly memory: GuestMemory;
  readonly store: () => MediumStore | undefined;
  readonly identity: Pick<NvmeIdentity, 'serial' | 'model' | 'firmware' | 'blockShift'>;
  readonly vectors: number;
  readonly ioQueues: number;
}

type Handler = (sqe: Sqe) => Answer | undefined | Promise<Answer>;

export class NvmeIo {
  readonly #o: NvmeIoOptions;
  readonly #admin: ReadonlyMap<number, Handler>;
  readonly #commands: ReadonlyMap<number, Handler>;
  readonly #active = new Set<Promise<void>>();
  /** Commands were left in their queues while too many were under way. */
  #held = false;

  constructor(o: NvmeIoOptions) {
    this.#o = o;
    this.#admin = new Map<number, Handler>([
      [0x00, (c) => this.#deleteSq(c)],
      [0x01, (c) => this.#createSq(c)],
      [0x02, (c) => this.#logPage(c)],
      [0x04, (c) => this.#deleteCq(c)],
      [0x05, (c) => this.#createCq(c)],
      [0x06, (c) => this.#identify(c)],
      // Abort: nothing can be found that is not under way already.
      [0x08, () => answer(Sc.ok, 1)],
      [0x09, (c) => this.#setFeatures(c)],
      [0x0a, (c) => this.#getFeatures(c)],
      [0x0c, (c) => this.#asyncEvent(c)],
    ]);
    this.#commands = new Map<number, Handler>([
      [0x00, (c) => this.#flush(c)],
      [0x01, (c) => this.#transfer(c, 'write')],
      [0x02, (c) => this.#transfer(c, 'read')],
      [0x05, (c) => this.#transfer(c, 'compare')],
      [0x08, (c) => this.#writeZeroes(c)],
      [0x09, (c) => this.#dataset(c)],
    ]);
  }

  /** To be called whenever the controller rings. */
  serve(): void {
    const { nvme, lock } = this.#o;
    const shutdown = lock.run(() => {
      const { s } = nvme;
      this.#postWaiting();
      const asked = s.shutdown;
      s.shutdown = 0;
      return asked !== 0;
    });
    if (nvme.s.stopping) {
      void this.drain().then(() => lock.run(() => nvme.stopped()));
      return;
    }
    for (let n = 0; n <= IO_QUEUES_MAX; n++) for (const sqe of this.#take(n)) this.#begin(sqe);
    if (shutdown) void this.#shutDown();
  }

  /** Resolves when nothing is under way. */
  async drain(): Promise<void> {
    while (this.#active.size > 0) await Promise.all(this.#active);
  }

  async #shutDown(): Promise<void> {
    await this.drain();
    await perform({ kind: 'flush' }, this.#o.store(), { in: [], out: [] });
    this.#o.lock.run(() => this.#o.nvme.shutDown());
  }

  #take(n: number): Sqe[] {
    const { nvme, lock, memory } = this.#o;
    return lock.run(() => {
      const { s } = nvme;
      const q = s.queues[n]!;
      const taken: Sqe[] = [];
      const room = WAITING_MAX - s.waiting - this.#active.size;
      for (let i = 0; i < Math.min(q.sqSize, room) && q.sqHead !== q.sqTail; i++) {
        taken.push(headOf(s, memory, n));
        q.sqHead = (q.sqHead + 1) % q.sqSize;
      }
      if (taken.length === room) this.#held = true;
      return taken;
    });
  }

  #begin(sqe: Sqe): void {
    const handler = (sqe.queue === 0 ? this.#admin : this.#commands).get(sqe.opcode);
    const found = !handler ? answer(Sc.badOpcode) : sqe.flags & REFUSED_FLAGS ? answer(Sc.badField) : handler(sqe);
    if (found === undefined) return;
    if (!(found instanceof Promise)) {
      this.#post(sqe, found);
      return;
    }
    const work = found.then((a) => this.#post(sqe, a));
    this.#active.add(work);
    void work.finally(() => {
      this.#active.delete(work);
      if (!this.#held || this.#active.size > 0) return;
      this.#held = false;
      this.serve();
    });
  }

  // ── Completion ──

  #post(sqe: Sqe, a: Answer): void {
    this.#o.lock.run(() => {
      if (!this.#put({ sqe, ...a })) this.#wait({ sqe, ...a });
    });
  }
  #wait({ sqe, status, result = 0 }: Posted): void {
    const { s } = this.#o.nvme;
    s.answers.set([sqe.queue * 0x1_0000 + sqe.id, status, result], 3 * s.waiting++);
  }

  #put(posted: Posted): boolean {
    return put(this.#o.nvme, this.#o.memory, posted);
  }
  #postWaiting(): void {
    const { s } = this.#o.nvme;
    const answers = s.answers.slice(0, 3 * s.waiting);
    s.waiting = 0;
    for (let i = 0; i < answers.length; i += 3) {
      const [what = 0, status = 0, result = 0] = answers.subarray(i, i + 3);
      const posted = { sqe: { queue: what >>> 16, id: what & 0xffff, epoch: s.epoch }, status, result };
      if (!this.#put(posted)) this.#wait(posted);
    }
  }

  // ── Data ──

  /** Data for the host, from `offset` of `bytes`. */
  #send(sqe: Sqe, bytes: Uint8Array, length = bytes.length): Answer {
    const scatter = prps(this.#o.memory, sqe, Math.min(length, 1 << (MDTS + 12)));
    if (!scatter) return answer(Sc.badPrp);
    const data = new Uint8Array(Math.max(length, bytes.length));
    data.set(bytes);
    fill(scatter.pieces, data.subarray(0, length));
    this.#o.lock.run(() => scatter.written());
    return ok;
  }

  get #identity(): NvmeIdentity {
    const { identity, store, nvme } = this.#o;
    const medium = store();
    return {
      ...identity,
      blocks: Math.floor((medium?.size ?? 0) / 2 ** identity.blockShift),
      writeCache: nvme.s.writeCache !== 0,
      readOnly: medium?.readOnly ?? false,
    };
  }

  // ── Admin commands ──

  #createCq(c: Sqe): Answer {
    const { s } = this.#o.nvme;
    const [d10 = 0, d11 = 0] = c.dw;
    const id = d10 & 0xffff;
    const size = (d10 >>> 16) + 1;
    const vector = d11 >>> 16;
    if (id === 0 || id > this.#o.ioQueues || s.queues[id]!.cqSize > 0) return answer(Sc.badQid);
    if (size < 2 || size > ENTRIES_MAX) return answer(Sc.badSize);
    if (c.prp1 % PAGE !== 0 || !(d11 & 1)) return answer(Sc.badPrp);
    if (vector >= this.#o.vectors) return answer(Sc.badVector);
    this.#o.lock.run(() =>
      Object.assign(s.queues[id]!, {
        cqBase: c.prp1,
        cqSize: size,
        cqHead: 0,
        cqTail: 0,
        vector,
        phase: 1,
        interrupts: (d11 >>> 1) & 1,
      }),
    );
    return ok;
  }

  #deleteCq(c: Sqe): Answer {
    const { s } = this.#o.nvme;
    const id = c.dw[0]! & 0xffff;
    const q = s.queues[id];
    if (id === 0 || q === undefined || q.cqSize === 0) return answer(Sc.badQid);
    if (s.queues.some((other) => other.sqSize > 0 && other.cqOf === id)) return answer(Sc.badDeletion);
    this.#o.lock.run(() => {
      q.cqSize = 0;
      this.#o.nvme.drive();
    });
    return ok;
  }

  #createSq(c: Sqe): Answer {
    const { s } = this.#o.nvme;
    const [d10 = 0, d11 = 0] = c.dw;
    const id = d10 & 0xffff;
    const size = (d10 >>> 16) + 1;
    const cqOf = d11 >>> 16;
    if (cqOf === 0 || cqOf > IO_QUEUES_MAX || s.queues[cqOf]!.cqSize === 0) return answer(Sc.badCq);
    if (id === 0 || id > this.#o.ioQueues || s.queues[id]!.sqSize > 0) return answer(Sc.badQid);
    if (size < 2 || size > ENTRIES_MAX) return answer(Sc.badSize);
    if (c.prp1 % PAGE !== 0 || !(d11 & 1)) return answer(Sc.badPrp);
    this.#o.lock.run(() => Object.assign(s.queues[id]!, { sqBase: c.prp1, sqSize: size, sqHead: 0, sqTail: 0, cqOf }));
    return ok;
  }

  async #deleteSq(c: Sqe): Promise<Answer> {
    const { s } = this.#o.nvme;
    const id = c.dw[0]! & 0xffff;
    const q = s.queues[id];
    if (id === 0 || q === undefined || q.sqSize === 0) return answer(Sc.badQid);
    // What was taken from it is answered first. The deletion itself is not among what is waited for.
    await Promise.all([...this.#active]);
    this.#o.lock.run(() => {
      if (c.epoch === s.epoch) q.sqSize = 0;
    });
    return ok;
  }

  #identify(c: Sqe): Answer {
    const empty = new Uint8Array(PAGE);
    switch (c.dw[0]! & 0xff) {
      case 0x00:
        if (c.nsid !== NSID && c.nsid !== 0xffff_ffff) return answer(Sc.badNamespace);
        return this.#send(c, c.nsid === NSID ? identifyNamespace(this.#identity) : empty);
      case 0x01:
        return this.#send(c, identifyController(this.#identity));
      case 0x02:
        return c.nsid >= 0xffff_fffe ? answer(Sc.badNamespace) : this.#send(c, namespaceList(c.nsid));
      case 0x03:
        return c.nsid === NSID ? this.#send(c, namespaceDescriptors()) : answer(Sc.badNamespace);
      default:
        return answer(Sc.badField);
    }
  }

  #logPage(c: Sqe): Answer {
    const [d10 = 0, d11 = 0, d12 = 0, d13 = 0] = c.dw;
    const length = ((d10 >>> 16) + (d11 & 0xffff) * 0x1_0000 + 1) * 4;
    const offset = d13 * 2 ** 32 + d12;
    const pages: Readonly<Record<number, () => Uint8Array>> = {
      1: () => new Uint8Array(64),
      2: smartLog,
      3: () => firmwareLog(this.#o.identity.firmware),
      5: () => effectsLog(this.#admin.keys(), this.#commands.keys(), new Set([1, 8, 9])),
    };
    const log = pages[d10 & 0xff]?.();
    if (!log) return answer(Sc.badLog);
    if (offset % 4 !== 0 || offset >= log.length || length > 1 << (MDTS + 12)) return answer(Sc.badField);
    return this.#send(c, log.subarray(offset), length);
  }

  #getFeatures(c: Sqe): Answer {
    const { s } = this.#o.nvme;
    const [d10 = 0, d11 = 0] = c.dw;
    const id = d10 & 0xff;
    // What of a feature can be done: it is changeable, and not saved.
    if ((d10 >>> 8) & 4) return answer(Sc.ok, this.#changeable(id) ? 4 : 0);
    switch (id) {
      case 6:
        return answer(Sc.ok, s.writeCache);
      case 7:
        return answer(Sc.ok, (this.#o.ioQueues - 1) * 0x1_0001);
      case 9:
        return (d11 & 0xffff) < this.#o.vectors ? answer(Sc.ok, d11 & 0xffff) : answer(Sc.badField);
      case 0x0e:
        return this.#send(c, new Uint8Array(8));
      default:
        return this.#known(id) ? answer(Sc.ok, s.features[id]!) : answer(Sc.badField);
    }
  }

  async #setFeatures(c: Sqe): Promise<Answer> {
    const { s } = this.#o.nvme;
    const [d10 = 0, d11 = 0] = c.dw;
    const id = d10 & 0xff;
    if (d10 & 0x8000_0000) return answer(0x10d | noRetry);
    switch (id) {
      case 6:
        s.writeCache = d11 & 1;
        return s.writeCache ? ok : this.#done(await perform({ kind: 'flush' }, this.#o.store(), { in: [], out: [] }), 'write');
      case 7:
        if ((d11 & 0xffff) === 0xffff || d11 >>> 16 === 0xffff) return answer(Sc.badField);
        return answer(Sc.ok, (this.#o.ioQueues - 1) * 0x1_0001);
      case 9:
        return ok;
      case 0x0e:
        return ok;
      default:
        if (!this.#known(id)) return answer(Sc.badField);
        if (!this.#changeable(id)) return answer(Sc.notChangeable);
        if (id === 2 && (d11 & 31) !== 0) return answer(Sc.badField);
        s.features[id] = d11;
        return ok;
    }
  }

  #known(id: number): boolean {
    return [1, 2, 4, 5, 6, 7, 8, 9, 0x0a, 0x0b, 0x0e].includes(id);
  }
  #changeable(id: number): boolean {
    return this.#known(id) && id !== 9;
  }

  #asyncEvent(c: Sqe): Answer | undefined {
    const { s } = this.#o.nvme;
    if (s.asyncs >= ASYNC_MAX) return answer(Sc.asyncLimit);
    s.async[s.asyncs++] = c.id;
    return undefined;
  }

  // ── I/O commands ──

  /** Where a command is; undefined where that is not on the medium. */
  #span(c: Sqe): ReturnType<typeof spanOf> | undefined {
    const { blocks, blockShift } = this.#identity;
    const span = spanOf(c, blockShift);
    return span.offset + span.length <= blocks * 2 ** blockShift ? span : undefined;
  }

  #done(result: ScsiResult, kind: 'read' | 'write' | 'compare'): Answer {
    if (result.status === 0) return ok;
    if (kind === 'compare' && result.sense?.key === 14) return answer(Sc.compare);
    return answer(kind === 'write' ? Sc.writeFault : Sc.readFault);
  }

  #flush(c: Sqe): Answer | Promise<Answer> {
    if (c.nsid !== NSID && c.nsid !== 0xffff_ffff) return answer(Sc.badNamespace);
    return perform({ kind: 'flush' }, this.#o.store(), { in: [], out: [] }).then((r) => this.#done(r, 'write'));
  }

  #transfer(c: Sqe, kind: 'read' | 'write' | 'compare'): Answer | Promise<Answer> {
    if (c.nsid !== NSID) return answer(Sc.badNamespace);
    const d12 = c.dw[2]!;
    const span = this.#span(c);
    if (!span) return answer(Sc.lbaRange);
    if (span.length > 1 << (MDTS + 12)) return answer(Sc.badField);
    const store = this.#o.store();
    if (kind === 'write' && store?.readOnly) return answer(Sc.readOnly);
    const scatter = prps(this.#o.memory, c, span.length);
    if (!scatter) return answer(Sc.badPrp);
    // FUA is bit 30; without a write cache every write is forced.
    const force = (d12 & 0x4000_0000) !== 0 || this.#o.nvme.s.writeCache === 0;
    const plan: ScsiPlan = kind === 'write' ? { kind, ...span, force } : { kind, ...span };
    return perform(plan, store, { in: scatter.pieces, out: scatter.pieces }).then((result) => {
      if (kind === 'read') this.#o.lock.run(() => scatter.written());
      return this.#done(result, kind);
    });
  }

  #writeZeroes(c: Sqe): Answer | Promise<Answer> {
    if (c.nsid !== NSID) return answer(Sc.badNamespace);
    const d12 = c.dw[2]!;
    const span = this.#span(c);
    if (!span) return answer(Sc.lbaRange);
    const store = this.#o.store();
    if (store?.readOnly) return answer(Sc.readOnly);
    const plan: ScsiPlan = { kind: 'same', ...span, block: 0, discard: (d12 & 0x200_0000) !== 0 };
    return perform(plan, store, { in: [], out: [] }).then((r) => this.#done(r, 'write'));
  }

  #dataset(c: Sqe): Answer | Promise<Answer> {
    if (c.nsid !== NSID) return answer(Sc.badNamespace);
    const [d10 = 0, d11 = 0] = c.dw;
    const count = (d10 & 0xff) + 1;
    const scatter = prps(this.#o.memory, c, 16 * count);
    if (!scatter) return answer(Sc.badPrp);
    // Hints for reading and writing change nothing.
    if (!(d11 & 4)) return ok;
    const store = this.#o.store();
    if (store?.readOnly) return answer(Sc.readOnly);
    const list = gather(scatter.pieces, 16 * count);
    const view = new DataView(list.buffer);
    const { blocks: all, blockShift } = this.#identity;
    const ranges: [number, number][] = [];
    for (let i = 0; i < count; i++) {
      const length = view.getUint32(16 * i + 4, true);
      const lba = Number(view.getBigUint64(16 * i + 8, true));
      if (lba + length > all) return answer(Sc.lbaRange);
      ranges.push([lba * 2 ** blockShift, length * 2 ** blockShift]);
    }
    return perform({ kind: 'discard', ranges }, store, { in: [], out: [] }).then((r) => this.#done(r, 'write'));
  }
}
