// The I/O thread's side of an IDE channel: carries out what the task file asks for. ATA/ATAPI-6 (T13/1410D), chapter 9; physical region
// descriptors: Intel "Programming Interface for Bus Master IDE Controller", revision 1.0, section 1.2.

import type { Lock } from '../bus/lock.ts';
import type { GuestMemory } from '../bus/memory.ts';
import { type AtaDevice, type AtaPlan, ataError, ataStatus, trimRanges } from './ata/device.ts';
import { action, bm, IDE_BUFFER, type IdeChannel, phase } from './ide.ts';
import { Scatter } from './scatter.ts';
import { type Buffers, gather, perform, type ScsiResult, sizeOf } from './scsi/perform.ts';
import type { MediumStore, ScsiPlan } from './scsi/plan.ts';

const PRDS_MAX = 8192;
const { ready, seek } = ataStatus;

export interface IdeIoOptions {
  readonly channel: IdeChannel;
  readonly lock: Lock;
  readonly memory: GuestMemory;
  /** What is in a drive. */
  readonly store: (unit: number) => MediumStore | undefined;
}

export class IdeIo {
  readonly #o: IdeIoOptions;
  #working: Promise<void> | undefined;

  constructor(o: IdeIoOptions) {
    this.#o = o;
  }

  /** To be called whenever the channel rings. */
  serve(): void {
    this.#rung = true;
    this.#working ??= this.#serve();
  }
  #rung = false;
  async #serve(): Promise<void> {
    while (this.#rung) {
      this.#rung = false;
      await this.#loop();
    }
    this.#working = undefined;
  }

  /** Resolves when nothing is under way. */
  async drain(): Promise<void> {
    await this.#working;
  }

  async #loop(): Promise<void> {
    const { channel, lock } = this.#o;
    for (;;) {
      const asked = lock.run(() => {
        const { s } = channel;
        const { action: what, epoch } = s;
        s.action = action.none;
        const unit = channel.unit;
        const plan = what === action.command ? this.#plan(unit) : undefined;
        return { what, epoch, unit, plan };
      });
      if (asked.what === action.none) return;
      if (asked.what === action.reset) {
        // Commands are carried out one after another: nothing is under way here.
        lock.run(() => channel.resetDone());
        continue;
      }
      const drive = channel.drives[asked.unit];
      if (!drive) return;
      await this.#run(asked.what, asked.plan, { drive, unit: asked.unit, epoch: asked.epoch });
    }
  }

  #plan(unit: 0 | 1): AtaPlan | undefined {
    const { channel } = this.#o;
    const drive = channel.drives[unit];
    if (!drive) return undefined;
    const plan = drive.plan(channel.taskFile());
    if (drive.showsSignature(channel.s.command)) channel.signature(unit);
    return plan;
  }

  /** Runs `f` with the lock held, unless the command is not the current one any more. */
  #now(job: Job, f: () => void): void {
    const { channel, lock } = this.#o;
    lock.run(() => {
      if (channel.s.epoch === job.epoch) f();
    });
  }

  async #run(what: number, plan: AtaPlan | undefined, job: Job): Promise<void> {
    switch (what) {
      case action.command:
        if (plan) await this.#command(plan, job);
        return;
      case action.refill:
        await this.#refill(job);
        return;
      case action.store:
        await this.#stored(job);
        return;
      case action.packet:
        await this.#packet(job);
        return;
      case action.dma:
        await this.#dma(job);
        return;
      default:
    }
  }

  async #command(plan: AtaPlan, job: Job): Promise<void> {
    const { channel } = this.#o;
    const { s } = channel;
    switch (plan.kind) {
      case 'done':
        this.#now(job, () => {
          if (plan.count !== undefined) s.count[job.unit] = plan.count;
          if (plan.lba !== undefined) channel.setLba(job.unit, plan.lba);
          channel.complete();
        });
        return;
      case 'fail':
        this.#now(job, () => channel.complete(plan.error));
        return;
      case 'signature':
        this.#now(job, () => {
          for (const unit of plan.diagnostic ? ([0, 1] as const) : [job.unit]) channel.signature(unit);
          s.phase = phase.idle;
          if (plan.diagnostic) channel.interrupt();
        });
        return;
      case 'in':
        this.#now(job, () => {
          s.buffer.set(plan.data);
          channel.beginIn(plan.data.length, 512);
        });
        return;
      case 'packet':
        this.#now(job, () => channel.beginPacket());
        return;
      case 'flush':
        await this.#finish(job, { kind: 'flush' }, { in: [], out: [] });
        return;
      case 'trim':
        job.dma = { list: plan.length };
        break;
      case 'read':
      case 'write':
        this.#now(job, () =>
          Object.assign(s, { offset: plan.offset, left: plan.length, block: plan.block, out: plan.kind === 'write' ? 1 : 0 }),
        );
        if (!plan.dma) {
          if (plan.kind === 'read') await this.#refill(job);
          else this.#now(job, () => channel.beginOut(Math.min(s.left, IDE_BUFFER), plan.block, false));
          return;
        }
        break;
      default:
    }
    // The DMA protocol.
    let started = false;
    this.#now(job, () => {
      started = channel.waitForDma();
    });
    if (started) await this.#dma(job);
  }

  #store(job: Job): MediumStore | undefined {
    return this.#o.store(job.unit);
  }

  async #finish(job: Job, plan: ScsiPlan, buffers: Buffers): Promise<void> {
    const result = await perform(plan, this.#store(job), buffers);
    this.#now(job, () => this.#o.channel.complete(errorOf(result)));
  }

  /** The next part of what is read goes to the buffer. */
  async #refill(job: Job): Promise<void> {
    const { channel } = this.#o;
    const { s } = channel;
    const length = Math.min(s.left, IDE_BUFFER);
    const data = new Uint8Array(length);
    const result = await perform({ kind: 'read', offset: s.offset, length }, this.#store(job), { in: [data], out: [] });
    this.#now(job, () => {
      if (result.status !== 0) {
        if (s.packet) this.#packetFailed(job, result);
        else channel.complete(errorOf(result));
        return;
      }
      s.buffer.set(data);
      s.left -= length;
      s.offset += length;
      channel.beginIn(length, s.block);
    });
  }

  /** The guest has filled the buffer. */
  async #stored(job: Job): Promise<void> {
    const { channel } = this.#o;
    const { s } = channel;
    if (s.packet) return this.#packetOut(job);
    const { offset, left } = s;
    const length = Math.min(left, IDE_BUFFER);
    const plan = { kind: 'write', offset, length, force: false } as const;
    let result = await perform(plan, this.#store(job), { in: [], out: [s.buffer.slice(0, length)] });
    const force = (job.drive.s.writeCache === 0 || s.command === 0xce) && left === length;
    if (result.status === 0 && force) result = await perform({ kind: 'flush' }, this.#store(job), { in: [], out: [] });
    this.#now(job, () => {
      if (result.status !== 0) return channel.complete(errorOf(result));
      s.offset += length;
      s.left -= length;
      if (s.left > 0) channel.beginOut(Math.min(s.left, IDE_BUFFER), s.block, true);
      else channel.complete();
    });
  }

  // ── Packets ──

  async #packet(job: Job): Promise<void> {
    const { channel, lock } = this.#o;
    const { s } = channel;
    const { packet } = job.drive;
    if (!packet) return;
    const { plan, dma, limit } = lock.run(() => {
      const limit = channel.packetLimit(job.unit);
      return { plan: packet.plan(s.buffer.slice(0, 12)), dma: (s.feature[job.unit]! & 1) !== 0, limit };
    });
    if (dma && (plan.kind === 'in' || plan.kind === 'read')) {
      job.packet = plan;
      let started = false;
      this.#now(job, () => {
        s.packet = 1;
        started = channel.waitForDma();
        // What waits for the bus master is part of the channel's state: a machine that is saved goes on with it.
        if (plan.kind === 'read') Object.assign(s, { offset: plan.offset, left: plan.length });
        else {
          s.buffer.set(plan.data.subarray(0, IDE_BUFFER));
          Object.assign(s, { end: Math.min(plan.data.length, IDE_BUFFER), left: 0 });
        }
      });
      if (started) await this.#dma(job);
      return;
    }
    if (plan.kind === 'read') {
      this.#now(job, () => Object.assign(s, { offset: plan.offset, left: plan.length, block: limit }));
      return this.#refill(job);
    }
    if (plan.kind === 'in' && plan.data.length > 0) {
      this.#now(job, () => {
        s.buffer.set(plan.data.subarray(0, IDE_BUFFER));
        channel.beginIn(Math.min(plan.data.length, IDE_BUFFER), limit);
      });
      return;
    }
    if (plan.kind === 'out') {
      this.#waiting = plan;
      this.#now(job, () => {
        s.out = 1;
        channel.beginOut(Math.min(plan.length, IDE_BUFFER), limit, true);
      });
      return;
    }
    const result = await perform(plan, this.#store(job), { in: [], out: [] });
    this.#now(job, () => this.#packetDone(job, result));
  }

  /** What a packet waits with for its data: commands of disks, which CD-ROMs do not have. */
  #waiting: ScsiPlan | undefined;

  /** The packet that waited for the bus master. */
  #packetDma(): ScsiPlan {
    const { s } = this.#o.channel;
    return s.left > 0 ? { kind: 'read', offset: s.offset, length: s.left } : { kind: 'in', data: s.buffer.slice(0, s.end) };
  }

  async #packetOut(job: Job): Promise<void> {
    const { s } = this.#o.channel;
    const plan = this.#waiting ?? { kind: 'done' };
    this.#waiting = undefined;
    const result = await perform(plan, this.#store(job), { in: [], out: [s.buffer.slice(0, s.end)] });
    this.#now(job, () => this.#packetDone(job, result));
  }

  #packetDone(job: Job, result: ScsiResult): void {
    if (result.status !== 0) this.#packetFailed(job, result);
    else this.#o.channel.complete();
  }

  /** The sense key is in the error register. With the board's lock held. */
  #packetFailed(job: Job, result: ScsiResult): void {
    job.drive.packet?.finish(result.sense);
    this.#o.channel.complete(((result.sense?.key ?? 0) << 4) | ataError.aborted);
  }

  // ── Bus master ──

  async #dma(job: Job): Promise<void> {
    const { channel, memory } = this.#o;
    const { s } = channel;
    const plan = job.packet ?? (s.packet ? this.#packetDma() : undefined);
    const list = job.dma?.list ?? (s.command === 0x06 && !s.packet ? Math.min(s.count[job.unit]!, 8) * 512 : undefined);
    this.#waiting = undefined;
    const wanted = plan ? (plan.kind === 'in' ? plan.data.length : plan.kind === 'read' ? plan.length : 0) : (list ?? s.left);
    const { scatter, ended } = regions(memory, s.bmTable, wanted);
    const buffers = { in: scatter.pieces, out: scatter.pieces };
    let result: ScsiResult;
    if (plan) result = await perform(plan, this.#store(job), buffers);
    else if (list !== undefined) {
      const ranges = trimRanges(job.drive, gather(scatter.pieces, list));
      result = ranges
        ? await perform({ kind: 'discard', ranges }, this.#store(job), buffers)
        : { status: 2, sense: { key: 5, asc: 0x21, ascq: 0 }, transferred: 0 };
    } else {
      const span = { offset: s.offset, length: s.left };
      const force = s.command === 0x3d || (s.out !== 0 && job.drive.s.writeCache === 0);
      result = await perform(s.out ? { kind: 'write', ...span, force } : { kind: 'read', ...span }, this.#store(job), buffers);
    }
    const short = sizeOf(scatter.pieces) < wanted;
    this.#now(job, () => {
      if (plan || (list === undefined && !s.out)) scatter.written();
      // With a table that is too short the transfer ends, and nothing tells so but the active bit; one that goes on keeps it set.
      if (ended) s.bmStatus &= ~bm.active;
      if (result.status !== 0) {
        s.bmStatus = (s.bmStatus & ~bm.active) | bm.error;
        if (s.packet) this.#packetFailed(job, result);
        else channel.complete(errorOf(result));
      } else if (short) {
        s.phase = phase.idle;
        s.status[job.unit] = ready | seek;
      } else channel.complete();
    });
  }
}

interface Job {
  readonly drive: AtaDevice;
  readonly unit: 0 | 1;
  readonly epoch: number;
  packet?: ScsiPlan;
  dma?: { readonly list: number };
}

const errorOf = (result: ScsiResult): number =>
  result.status === 0 ? 0 : result.sense?.key === 3 ? ataError.uncorrectable : ataError.aborted;

/** The regions of the table at `table`, up to `wanted` bytes; `ended`: the table's last entry was used up. */
export function regions(memory: GuestMemory, table: number, wanted: number): { scatter: Scatter; ended: boolean } {
  const scatter = new Scatter(memory);
  let left = wanted;
  for (let i = 0; i < PRDS_MAX; i++) {
    const gpa = memory.read32(table + 8 * i) & ~1;
    const word = memory.read32(table + 8 * i + 4);
    const size = word & 0xfffe || 0x1_0000;
    const n = Math.min(size, left);
    if (n > 0) scatter.add(gpa >>> 0, n);
    left -= n;
    if (word & 0x8000_0000) return { scatter, ended: n === size || left > 0 };
    if (left === 0) return { scatter, ended: false };
  }
  return { scatter, ended: true };
}
