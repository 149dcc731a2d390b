// The I/O thread's side of a serial ATA host controller: takes commands from their slots, moves data by their region tables, sends the
// device's answers. Serial ATA AHCI Specification 1.3.1, chapters 4 to 6; Serial ATA 3.0, section 10.3 (FIS types).

import type { Lock } from '../bus/lock.ts';
import type { GuestMemory } from '../bus/memory.ts';
import { AHCI_PORTS, AHCI_SLOTS, type Ahci, type AhciPort, pxCmd, pxIs } from './ahci.ts';
import { type AtaDevice, ataError, ataStatus, type TaskFile, trimRanges } from './ata/device.ts';
import { Scatter } from './scatter.ts';
import { fill, gather, perform, type ScsiResult, sizeOf } from './scsi/perform.ts';
import type { MediumStore, ScsiPlan } from './scsi/plan.ts';

const { ready, seek, error: failed } = ataStatus;
/** Type of a register FIS from the host. */
const H2D = 0x27;
const fis = { d2h: { at: 0x40, type: 0x34 }, pioSetup: { at: 0x20, type: 0x5f }, setBits: { at: 0x58, type: 0xa1 } } as const;
const header = { write: 0x40, atapi: 0x20 } as const;

export interface AhciIoOptions {
  readonly ahci: Ahci;
  readonly lock: Lock;
  readonly memory: GuestMemory;
  readonly store: (port: number) => MediumStore | undefined;
}

interface Job {
  readonly n: number;
  readonly port: AhciPort;
  readonly device: AtaDevice;
  readonly slot: number;
  readonly epoch: number;
  /** Guest-physical addresses of the command's header and table. */
  readonly header: number;
  readonly table: number;
  /** Entries of the region table. */
  readonly regions: number;
  readonly task: TaskFile;
  readonly control: number;
  readonly isCommand: boolean;
  readonly packet: Uint8Array | undefined;
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
        const queued = job.isCommand && (job.task.command === 0x60 || job.task.command === 0x61);
        const work = queued ? this.#queued(job) : (this.#chains[n] = this.#chains[n]!.then(() => this.#command(job)));
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
  #take(n: number): Job[] {
    const { ahci, memory } = this.#o;
    const port = ahci.s.ports[n]!;
    const device = ahci.devices[n];
    const fresh = (port.ci & ~port.taken) >>> 0;
    const running = pxCmd.start | pxCmd.fisReceive;
    if (fresh === 0 || !device || (port.cmd & running) !== running) return [];
    port.taken = (port.taken | fresh) >>> 0;
    const jobs: Job[] = [];
    for (let slot = 0; slot < AHCI_SLOTS; slot++) {
      if (!(fresh & (1 << slot))) continue;
      const at = port.clbu * 2 ** 32 + port.clb + slot * 32;
      const word = memory.read32(at);
      const table = memory.read32(at + 12) * 2 ** 32 + ((memory.read32(at + 8) & ~0x7f) >>> 0);
      const byte = (i: number): number => memory.read8(table + i);
      jobs.push({
        ...{ n, port, device, slot, epoch: port.epoch, header: at, regions: word >>> 16 },
        table,
        isCommand: byte(0) === H2D && (byte(1) & 0x80) !== 0,
        control: byte(0) === H2D ? byte(15) : 0,
        task: {
          command: byte(2),
          feature: byte(3) | (byte(11) << 8),
          lba: (byte(4) | (byte(5) << 8) | (byte(6) << 16)) + (byte(8) | (byte(9) << 8) | (byte(10) << 16)) * 2 ** 24,
          count: byte(12) | (byte(13) << 8),
          device: byte(7),
        },
        packet: word & header.atapi ? Uint8Array.from({ length: 16 }, (_, i) => byte(0x40 + i)) : undefined,
      });
    }
    return jobs;
  }

  /** Runs `f` with the lock held, unless the command was dropped. */
  #now(job: Job, f: () => void): void {
    this.#o.lock.run(() => {
      if (job.port.epoch === job.epoch) f();
    });
  }

  /** Guest memory of the first `wanted` bytes of a command's regions. */
  #regions(job: Job, wanted: number): Scatter {
    const { memory } = this.#o;
    const scatter = new Scatter(memory);
    let left = wanted;
    for (let i = 0; i < job.regions && left > 0; i++) {
      const at = job.table + 0x80 + 16 * i;
      const n = Math.min(left, (memory.read32(at + 12) & 0x3f_ffff) + 1);
      scatter.add(memory.read32(at + 4) * 2 ** 32 + memory.read32(at), n);
      left -= n;
    }
    return scatter;
  }

  // ── Commands that are not queued ──

  async #command(job: Job): Promise<void> {
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
        const scatter = this.#regions(job, plan.data.length);
        const moved = fill(scatter.pieces, plan.data);
        return this.#end(job, { moved, scatter, pio: true });
      }
      case 'flush':
        return this.#finish(job, { kind: 'flush' }, new Scatter(this.#o.memory), false);
      case 'trim': {
        const scatter = this.#regions(job, plan.length);
        const ranges = trimRanges(job.device, gather(scatter.pieces, plan.length));
        if (!ranges) return this.#end(job, { error: ataError.aborted });
        return this.#finish(job, { kind: 'discard', ranges }, scatter, false);
      }
      case 'read':
      case 'write':
        return this.#finish(job, plan, this.#regions(job, plan.length), !plan.dma);
      case 'packet':
        return this.#packet(job, plan.dma);
    }
  }

  async #finish(job: Job, plan: ScsiPlan, scatter: Scatter, pio: boolean): Promise<void> {
    const result = await perform(plan, this.#o.store(job.n), { in: scatter.pieces, out: scatter.pieces });
    const { transferred: moved } = result;
    this.#end(job, { moved, error: errorOf(result), ...(plan.kind === 'read' ? { scatter } : {}), pio });
  }

  async #packet(job: Job, dma: boolean): Promise<void> {
    const { packet: target } = job.device;
    const block = job.packet;
    if (!target || !block) return this.#end(job, { error: ataError.aborted });
    const plan = this.#o.lock.run(() => target.plan(block));
    const wanted = plan.kind === 'in' ? plan.data.length : plan.kind === 'read' || plan.kind === 'out' ? plan.length : 0;
    const scatter = this.#regions(job, wanted);
    const result = await perform(plan, this.#o.store(job.n), { in: scatter.pieces, out: scatter.pieces });
    this.#now(job, () => target.finish(result.sense));
    const error = result.status === 0 ? 0 : ((result.sense?.key ?? 0) << 4) | ataError.aborted;
    const { transferred: moved } = result;
    this.#end(job, { moved, error, count: 3, ...(plan.kind === 'out' ? {} : { scatter }), pio: !dma && moved > 0 });
  }

  /** A FIS that writes the control register: software reset. */
  #controlWrite(job: Job): void {
    const { ahci } = this.#o;
    const { port, n } = job;
    port.ci = (port.ci & ~(1 << job.slot)) >>> 0;
    port.taken = (port.taken & ~(1 << job.slot)) >>> 0;
    if (job.control & 4) port.resetting = 1;
    else if (port.resetting) {
      const { ci, taken } = port;
      ahci.link(n);
      Object.assign(port, { ci, taken });
      this.#registers(job, port.tfd & 0xff, 1, job.device.signature, 1);
    }
  }

  /** The command is over. */
  #end(
    job: Job,
    o: {
      readonly moved?: number;
      readonly error?: number;
      readonly scatter?: Scatter;
      readonly pio?: boolean;
      readonly lba?: number | undefined;
      readonly count?: number | undefined;
      readonly signature?: boolean;
    },
  ): void {
    const { moved = 0, error = 0, signature = false } = o;
    const { memory } = this.#o;
    this.#now(job, () => {
      o.scatter?.written();
      memory.write32(job.header + 4, moved);
      const { port, slot, n, task } = job;
      const wrong = error !== 0 && !(signature && error === 1);
      const status = ready | seek | (wrong ? failed : 0);
      const lba = signature ? job.device.signature : (o.lba ?? task.lba);
      if (o.pio && moved > 0) this.#pioSetup(job, moved, status);
      port.ci = (port.ci & ~(1 << slot)) >>> 0;
      port.taken = (port.taken & ~(1 << slot)) >>> 0;
      this.#registers(
        job,
        signature && job.device.packet && !wrong ? 0 : status,
        error,
        lba,
        signature ? 1 : (o.count ?? task.count),
      );
      if (wrong) this.#o.ahci.raise(n, pxIs.taskFile);
    });
  }

  /** Registers of the device to the host. */
  #registers(job: Job, status: number, error: number, lba: number, count: number): void {
    const { port, n, task } = job;
    port.tfd = (error << 8) | status;
    const at = (i: number): number => Math.floor(lba / 2 ** (8 * i)) & 0xff;
    this.#send(port, fis.d2h, [
      ...[0x40, status, error, at(0), at(1), at(2), task.device, at(3), at(4), at(5), 0],
      ...[count & 0xff, (count >> 8) & 0xff, 0, 0, 0, 0, 0, 0],
    ]);
    this.#o.ahci.raise(n, pxIs.d2h);
  }

  #pioSetup(job: Job, bytes: number, status: number): void {
    const { port, n, task } = job;
    const at = (i: number): number => Math.floor(task.lba / 2 ** (8 * i)) & 0xff;
    this.#send(port, fis.pioSetup, [
      ...[0x60, status, 0, at(0), at(1), at(2), task.device, at(3), at(4), at(5), 0],
      ...[task.count & 0xff, (task.count >> 8) & 0xff, 0, status, bytes & 0xff, (bytes >> 8) & 0xff, 0, 0],
    ]);
    this.#o.ahci.raise(n, pxIs.pioSetup);
  }

  /** Writes a FIS where the port receives them: its type, then `bytes`. */
  #send(port: AhciPort, { at, type }: { readonly at: number; readonly type: number }, bytes: readonly number[]): void {
    if (!(port.cmd & pxCmd.fisReceive)) return;
    const base = port.fbu * 2 ** 32 + port.fb + at;
    [type, ...bytes].forEach((byte, i) => this.#o.memory.write8(base + i, byte));
  }

  // ── Native command queuing ──

  async #queued(job: Job): Promise<void> {
    const { task, device, port, n, slot } = job;
    const tag = task.count >> 3;
    const write = task.command === 0x61;
    const span = device.span(task.lba, task.feature || 0x1_0000);
    this.#now(job, () => {
      // The command is accepted: its slot is free again once the tag is done.
      port.ci = (port.ci & ~(1 << slot)) >>> 0;
      port.taken = (port.taken & ~(1 << slot)) >>> 0;
    });
    const store = this.#o.store(n);
    let result: ScsiResult = { status: 2, sense: { key: 5, asc: 0x21, ascq: 0 }, transferred: 0 };
    const scatter = this.#regions(job, span?.length ?? 0);
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
      const error = errorOf(result);
      const status = ready | (error ? failed : 0);
      port.tfd = (error << 8) | status;
      const bit = tag === slot ? (1 << tag) >>> 0 : 0;
      if (!error) port.sact = (port.sact & ~bit) >>> 0;
      const bits = error ? 0 : bit;
      this.#send(port, fis.setBits, [
        0x40,
        status & 0x77,
        error,
        bits & 0xff,
        (bits >>> 8) & 0xff,
        (bits >>> 16) & 0xff,
        bits >>> 24,
      ]);
      this.#o.ahci.raise(n, error ? pxIs.setBits | pxIs.taskFile : pxIs.setBits);
    });
  }
}

const errorOf = (result: ScsiResult): number =>
  result.status === 0 ? 0 : result.sense?.key === 3 ? ataError.uncorrectable : ataError.aborted;
