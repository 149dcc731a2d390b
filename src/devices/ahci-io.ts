// The I/O thread's side of a serial ATA host controller: takes commands from their slots, moves data by their region tables, sends the
// device's answers. Serial ATA AHCI Specification 1.3.1, chapters 4 to 6; Serial ATA 3.0, section 10.3 (FIS types).

import type { Lock } from '../bus/lock.ts';
import type { GuestMemory } from '../bus/memory.ts';
import { AHCI_PORTS, AHCI_SLOTS, type Ahci, pxCmd } from './ahci.ts';
import {
  type AhciCommand,
  type AhciEnd,
  accept,
  commandAt,
  ended,
  queued,
  queuedDone,
  queuedSectors,
  regionsOf,
  registersOf,
  takes,
} from './ahci-command.ts';
import { ataError, trimRanges } from './ata/device.ts';
import { Scatter } from './scatter.ts';
import { fill, gather, perform, type ScsiResult, sizeOf } from './scsi/perform.ts';
import type { MediumStore, ScsiPlan } from './scsi/plan.ts';

export interface AhciIoOptions {
  readonly ahci: Ahci;
  readonly lock: Lock;
  readonly memory: GuestMemory;
  readonly store: (port: number) => MediumStore | undefined;
}

export class AhciIo {
  readonly #o: AhciIoOptions;
  /** Commands that are not queued, one after another for each port; all that is under way. */
  readonly #chains: Promise<void>[] = Array.from({ length: AHCI_PORTS }, () => Promise.resolve());
  readonly #active = new Set<Promise<void>>();

  constructor(o: AhciIoOptions) {
    this.#o = o;
  }

  /** To be called whenever the controller rings. */
  serve(): void {
    const { ahci, lock } = this.#o;
    const stopping = lock.run(() => ahci.s.ports.some((p) => (p.cmd & (pxCmd.start | pxCmd.running)) === pxCmd.running));
    if (stopping) {
      void this.drain().then(() =>
        lock.run(() => {
          for (let n = 0; n < AHCI_PORTS; n++) ahci.stopped(n);
        }),
      );
    }
    for (let n = 0; n < AHCI_PORTS; n++) {
      const jobs = this.#o.lock.run(() => this.#take(n));
      for (const job of jobs) {
        const { command } = job.task;
        const work =
          job.isCommand && (command === queued.read || command === queued.write)
            ? this.#queued(job)
            : (this.#chains[n] = this.#chains[n]!.then(() => this.#command(job)));
        this.#active.add(work);
        void work.finally(() => this.#active.delete(work));
      }
    }
  }

  /** Resolves when nothing is under way. */
  async drain(): Promise<void> {
    while (this.#active.size > 0) await Promise.all(this.#active);
  }

  /** Commands of a port that were issued and not taken. With the board's lock held. */
  #take(n: number): AhciCommand[] {
    const { ahci, memory } = this.#o;
    const port = ahci.s.ports[n]!;
    const device = ahci.devices[n];
    const fresh = (port.ci & ~port.taken) >>> 0;
    if (fresh === 0 || !device || !takes(port)) return [];
    port.taken = (port.taken | fresh) >>> 0;
    const jobs: AhciCommand[] = [];
    for (let slot = 0; slot < AHCI_SLOTS; slot++) if (fresh & (1 << slot)) jobs.push(commandAt(ahci, memory, n, device, slot));
    return jobs;
  }

  /** Runs `f` with the lock held, unless the command was dropped. */
  #now(job: AhciCommand, f: () => void): void {
    this.#o.lock.run(() => {
      if (job.port.epoch === job.epoch) f();
    });
  }

  // ── Commands that are not queued ──

  async #command(job: AhciCommand): Promise<void> {
    if (!job.isCommand) {
      this.#now(job, () => this.#controlWrite(job));
      return;
    }
    const plan = this.#o.lock.run(() => (job.port.epoch === job.epoch ? job.device.plan(job.task) : undefined));
    if (plan === undefined) return;
    switch (plan.kind) {
      case 'done':
        return this.#end(job, { lba: plan.lba, count: plan.count });
      case 'fail':
        return this.#end(job, { error: plan.error, signature: job.device.showsSignature(job.task.command) });
      case 'signature':
        return this.#end(job, { signature: true, error: 1 });
      case 'in': {
        const scatter = regionsOf(this.#o.memory, job, plan.data.length);
        const moved = fill(scatter.pieces, plan.data);
        return this.#end(job, { moved, scatter, pio: true });
      }
      case 'flush':
        return this.#finish(job, { kind: 'flush' }, new Scatter(this.#o.memory), false);
      case 'trim': {
        const scatter = regionsOf(this.#o.memory, job, plan.length);
        const ranges = trimRanges(job.device, gather(scatter.pieces, plan.length));
        if (!ranges) return this.#end(job, { error: ataError.aborted });
        return this.#finish(job, { kind: 'discard', ranges }, scatter, false);
      }
      case 'read':
      case 'write':
        return this.#finish(job, plan, regionsOf(this.#o.memory, job, plan.length), !plan.dma);
      case 'packet':
        return this.#packet(job, plan.dma);
    }
  }

  async #finish(job: AhciCommand, plan: ScsiPlan, scatter: Scatter, pio: boolean): Promise<void> {
    const result = await perform(plan, this.#o.store(job.n), { in: scatter.pieces, out: scatter.pieces });
    const { transferred: moved } = result;
    this.#end(job, { moved, error: errorOf(result), ...(plan.kind === 'read' ? { scatter } : {}), pio });
  }

  async #packet(job: AhciCommand, dma: boolean): Promise<void> {
    const { packet: target } = job.device;
    const block = job.packet;
    if (!target || !block) return this.#end(job, { error: ataError.aborted });
    const plan = this.#o.lock.run(() => target.plan(block));
    const wanted = plan.kind === 'in' ? plan.data.length : plan.kind === 'read' || plan.kind === 'out' ? plan.length : 0;
    const scatter = regionsOf(this.#o.memory, job, wanted);
    const result = await perform(plan, this.#o.store(job.n), { in: scatter.pieces, out: scatter.pieces });
    this.#now(job, () => target.finish(result.sense));
    const error = result.status === 0 ? 0 : ((result.sense?.key ?? 0) << 4) | ataError.aborted;
    const { transferred: moved } = result;
    this.#end(job, { moved, error, count: 3, ...(plan.kind === 'out' ? {} : { scatter }), pio: !dma && moved > 0 });
  }

  /** A FIS that writes the control register: software reset. */
  #controlWrite(job: AhciCommand): void {
    const { ahci } = this.#o;
    const { port, n } = job;
    accept(job);
    if (job.control & 4) port.resetting = 1;
    else if (port.resetting) {
      const { ci, taken } = port;
      ahci.link(n);
      Object.assign(port, { ci, taken });
      registersOf(ahci, this.#o.memory, job, { status: port.tfd & 0xff, error: 1, lba: job.device.signature, count: 1 });
    }
  }

  /** The command is over. */
  #end(job: AhciCommand, o: AhciEnd): void {
    this.#now(job, () => ended(this.#o.ahci, this.#o.memory, job, o));
  }

  // ── Native command queuing ──

  async #queued(job: AhciCommand): Promise<void> {
    const { task, device, n } = job;
    const write = task.command === queued.write;
    const span = device.span(task.lba, queuedSectors(job));
    this.#now(job, () => accept(job));
    const store = this.#o.store(n);
    let result: ScsiResult = { status: 2, sense: { key: 5, asc: 0x21, ascq: 0 }, transferred: 0 };
    const scatter = regionsOf(this.#o.memory, job, span?.length ?? 0);
    if (span && device.o.ncq && !device.packet && !(write && store?.readOnly)) {
      const force = write && ((task.device & 0x80) !== 0 || device.s.writeCache === 0);
      const plan: ScsiPlan = write ? { kind: 'write', ...span, force } : { kind: 'read', ...span };
      result = await perform(plan, store, { in: scatter.pieces, out: scatter.pieces });
      if (result.status === 0 && sizeOf(scatter.pieces) < span.length) {
        result = { status: 2, sense: { key: 4, asc: 0, ascq: 0 }, transferred: result.transferred };
      }
    }
    this.#now(job, () => {
      if (!write) scatter.written();
      queuedDone(this.#o.ahci, this.#o.memory, job, errorOf(result));
    });
  }
}

const errorOf = (result: ScsiResult): number =>
  result.status === 0 ? 0 : result.sense?.key === 3 ? ataError.uncorrectable : ataError.aborted;
