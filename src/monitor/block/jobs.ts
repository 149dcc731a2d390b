// Jobs: long work that monitors start, watch, hold and end. QEMU 7.2 "QEMU QMP Reference Manual", qapi/job.json; the block jobs'
// older events and commands are of qapi/block-core.json.

import { QmpError } from '../../rpc/qmp/error.ts';
import type { Timers } from '../../rpc/transport.ts';

export type JobStatus =
  | 'undefined'
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';
export type JobType =
  | 'commit'
  | 'stream'
  | 'mirror'
  | 'backup'
  | 'create'
  | 'snapshot-load'
  | 'snapshot-save'
  | 'snapshot-delete';

export interface JobOptions {
  readonly id: string;
  readonly type: JobType;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
  /** Bytes per second; 0 for all that can be had. */
  readonly speed?: number | undefined;
  /** The work. It calls `point` often; what it returns is done last, when the job is finalized. */
  readonly run: (job: Job) => Promise<(() => Promise<void>) | void>;
  /** Whatever happened: lets go of what the job held. */
  readonly clean?: () => void | Promise<void>;
}

/** Thrown out of `point` when the job is cancelled. */
class Cancelled extends Error {}

export interface JobHost {
  readonly timers: Timers;
  readonly emit: (name: string, data: object) => void;
  /** Forgets it. */
  readonly gone: (job: Job) => void;
}

export class Job {
  readonly id: string;
  readonly type: JobType;
  status: JobStatus = 'undefined';
  /** Bytes that are done, of those that there are. */
  offset = 0;
  length = 0;
  speed: number;
  error: string | undefined;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  isReady = false;
  readonly #o: JobOptions;
  readonly #host: JobHost;
  #paused = false;
  #cancelled = false;
  #completing = false;
  #finalize: (() => void) | undefined;
  #wake: (() => void)[] = [];
  /** Bytes that were done beyond what the speed allows. */
  #debt = 0;

  constructor(o: JobOptions, host: JobHost) {
    this.#o = o;
    this.#host = host;
    this.id = o.id;
    this.type = o.type;
    this.autoFinalize = o.autoFinalize ?? true;
    this.autoDismiss = o.autoDismiss ?? true;
    this.speed = o.speed ?? 0;
  }
  get isBlockJob(): boolean {
    return ['commit', 'stream', 'mirror', 'backup'].includes(this.type);
  }
  get paused(): boolean {
    return this.#paused;
  }
  get completing(): boolean {
    return this.#completing;
  }
  #set(status: JobStatus): void {
    this.status = status;
    this.#host.emit('JOB_STATUS_CHANGE', { id: this.id, status });
  }
  #event(name: string, more: object = {}): void {
    if (!this.isBlockJob) return;
    this.#host.emit(name, {
      type: this.type,
      device: this.id,
      len: this.length,
      offset: this.offset,
      speed: this.speed,
      ...more,
    });
  }

  /** Does the work; resolves when it has concluded. */
  async start(): Promise<void> {
    this.#set('created');
    this.#set('running');
    try {
      const last = await this.#o.run(this);
      this.#set('waiting');
      this.#set('pending');
      if (!this.autoFinalize) {
        if (this.isBlockJob) this.#host.emit('BLOCK_JOB_PENDING', { type: this.type, id: this.id });
        await new Promise<void>((resolve) => (this.#finalize = resolve));
        if (this.#cancelled) throw new Cancelled();
      }
      await last?.();
      this.#event('BLOCK_JOB_COMPLETED');
    } catch (error) {
      const cancelled = error instanceof Cancelled;
      if (!cancelled) this.error = error instanceof Error ? error.message : String(error);
      this.#set('aborting');
      if (cancelled) this.#event('BLOCK_JOB_CANCELLED');
      else this.#event('BLOCK_JOB_COMPLETED', { error: this.error });
    }
    await this.#o.clean?.();
    this.#set('concluded');
    if (this.autoDismiss) this.dismiss();
  }

  // -- for the work

  /** Between pieces of the work: waits while the job is held or too fast. @throws when it is cancelled */
  async point(bytes = 0): Promise<void> {
    if (this.#cancelled) throw new Cancelled();
    if (this.#paused) {
      const before = this.status;
      this.#set(before === 'ready' ? 'standby' : 'paused');
      while (this.#paused && !this.#cancelled) await this.changed();
      this.#set(before);
      if (this.#cancelled) throw new Cancelled();
    }
    if (this.speed > 0) {
      this.#debt += bytes;
      // Waits in slices, so that a cancel is heard.
      while (this.#debt > this.speed / 10 && !this.#cancelled) {
        await new Promise<void>((resolve) => void this.#host.timers.after(100, resolve));
        this.#debt = Math.max(0, this.#debt - this.speed / 10);
      }
    } else await new Promise<void>((resolve) => void this.#host.timers.after(0, resolve));
  }
  /** Everything is alike now; the job goes on following until it is told to complete. */
  ready(): void {
    if (this.isReady) return;
    this.isReady = true;
    this.#set('ready');
    this.#event('BLOCK_JOB_READY');
  }
  /** Resolves when somebody asks something of the job, or `nudge` was called. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }
  nudge(): void {
    const wake = this.#wake;
    this.#wake = [];
    for (const f of wake) f();
  }

  // -- for monitors

  pause(): void {
    this.#only('pause', ['created', 'running', 'ready', 'standby', 'paused']);
    this.#paused = true;
    this.nudge();
  }
  resume(): void {
    this.#only('resume', ['created', 'running', 'ready', 'standby', 'paused']);
    this.#paused = false;
    this.nudge();
  }
  cancel(): void {
    this.#only('cancel', ['created', 'running', 'paused', 'ready', 'standby', 'waiting', 'pending']);
    this.#cancelled = true;
    this.#finalize?.();
    this.nudge();
  }
  complete(): void {
    if (!['ready', 'standby'].includes(this.status)) throw this.#wrong('complete');
    if (this.#paused) throw new QmpError(`Job '${this.id}' is paused`);
    this.#completing = true;
    this.nudge();
  }
  /** Ends without the last step: a mirror that is ready leaves its copy as it is. */
  finishHere(): void {
    this.#detached = true;
    this.#completing = true;
    this.nudge();
  }
  #detached = false;
  get detached(): boolean {
    return this.#detached;
  }
  finalize(): void {
    if (this.status !== 'pending' || !this.#finalize) throw this.#wrong('finalize');
    this.#finalize();
  }
  dismiss(): void {
    if (this.status !== 'concluded') throw this.#wrong('dismiss');
    this.#set('null');
    this.#host.gone(this);
  }
  #only(verb: string, states: readonly JobStatus[]): void {
    if (!states.includes(this.status)) throw this.#wrong(verb);
  }
  #wrong(verb: string): QmpError {
    return new QmpError(`Job '${this.id}' in state '${this.status}' cannot accept command verb '${verb}'`);
  }
}

export class Jobs {
  readonly #all = new Map<string, Job>();
  readonly #timers: Timers;
  readonly #emit: (name: string, data: object) => void;

  constructor(timers: Timers, emit: (name: string, data: object) => void) {
    this.#timers = timers;
    this.#emit = emit;
  }
  /** Starts a job. @throws QmpError where the id is taken */
  start(o: JobOptions): Job {
    if (!/^[A-Za-z][\w.-]*$/.test(o.id)) throw new QmpError(`Invalid job ID '${o.id}'`);
    if (this.#all.has(o.id)) throw new QmpError(`Job ID '${o.id}' already in use`);
    const job = new Job(o, { timers: this.#timers, emit: this.#emit, gone: (j) => this.#all.delete(j.id) });
    this.#all.set(o.id, job);
    void job.start();
    return job;
  }
  list(): readonly Job[] {
    return [...this.#all.values()];
  }
  /** @throws QmpError */
  get(id: string): Job {
    const found = this.#all.get(id);
    if (!found) throw new QmpError('Job not found');
    return found;
  }
  /** @throws QmpError of the older commands' class */
  blockJob(id: string): Job {
    const found = this.#all.get(id);
    if (!found?.isBlockJob) throw new QmpError(`Block job '${id}' not found`, 'DeviceNotActive');
    return found;
  }
}
