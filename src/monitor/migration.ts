// Migration and saved states: the guest's state goes to a stream, or comes from one. What monitors set, start, stop and ask of it.
// QEMU 7.2, qapi/migration.json. The stream is our own (machine/snapshot/format.ts).

import { QmpError } from '../rpc/qmp/error.ts';
import type { Json } from '../rpc/qmp/json.ts';
import type { Emulator } from './emulator.ts';
import { type TlsCredentials, tlsCredentials } from './tls.ts';
import { blockedReasons, refuseUnsaved } from './unsaved.ts';

/** Capabilities that change nothing here or are carried out; switching others on is refused. */
const possible = new Set(['events', 'pause-before-switchover', 'return-path', 'late-block-activate', 'validate-uuid']);

/** Where a migration goes. Everything rejects or throws with one line. */
export interface StateSink {
  /** Resolves when more can be taken. */
  write(bytes: Uint8Array): Promise<void>;
  /** All is on its way. */
  end(): Promise<void>;
  /** Gives up. */
  destroy(): void;
}
/** How long the other side may take to leave the images, ms. */
const DISKS_MS = 10_000;

/** How the host reaches the other side: `tcp:`, `unix:`, `exec:`, `file:`, `fd:`. */
export interface StateStreams {
  /** TLS goes over `tcp:` and `unix:`. */
  sink(uri: string, tls?: TlsCredentials): Promise<StateSink>;
  /** Waits for the other side; `listening` tells that it may come. */
  source(uri: string, listening: () => void, tls?: TlsCredentials): Promise<AsyncIterable<Uint8Array>>;
}

export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'cancelling'
  | 'cancelled'
  | 'active'
  | 'pre-switchover'
  | 'device'
  | 'completed'
  | 'failed';

/** What `query-migrate` tells of memory. */
interface Progress {
  readonly total: number;
  transferred: number;
  remaining: number;
  passes: number;
  readonly start: number;
  setup: number;
  end: number;
  heldAt: number;
  downtime: number;
}

const DOWNTIME_LIMIT = 300;
const MAX_BANDWIDTH = 128 << 20;

export class Migration {
  readonly capabilities = new Set<string>();
  readonly parameters: Record<string, Json> = {};
  /** As it was set last. */
  bitmapMapping: Json | undefined;
  readonly #e: Emulator;
  status: MigrationStatus = 'none';
  #progress: Progress | undefined;
  #error: string | undefined;
  #cancel = false;
  #goOn: (() => void) | undefined;
  #incoming = false;

  constructor(e: Emulator) {
    this.#e = e;
  }

  /** A state is awaited or being taken over. */
  get incoming(): boolean {
    return this.#incoming;
  }

  /** @throws QmpError for one that cannot be on */
  setCapabilities(list: readonly { readonly capability: string; readonly state: boolean }[]): void {
    for (const { capability, state } of list)
      if (state && !possible.has(capability)) throw new QmpError(`Migration capability '${capability}' is not supported`);
    for (const { capability, state } of list) {
      if (state) this.capabilities.add(capability);
      else this.capabilities.delete(capability);
    }
  }

  /** What `query-migrate` tells: nothing before there was one. */
  info(): Json {
    const p = this.#progress;
    const { machine } = this.#e;
    const reasons = machine ? blockedReasons(machine) : [];
    const blocked: { readonly [name: string]: Json } = reasons.length === 0 ? {} : { 'blocked-reasons': [...reasons] };
    if (this.status === 'none' || !p) return this.status === 'none' ? blocked : { status: this.status, ...blocked };
    const now = this.status === 'completed' ? p.end : this.#e.host.clock();
    const ms = (x: number): number => Math.max(0, Math.round(x));
    return {
      status: this.status,
      ...blocked,
      'total-time': ms(now - p.start),
      'setup-time': ms(p.setup),
      ...(this.status === 'completed'
        ? { downtime: ms(p.downtime) }
        : { 'expected-downtime': Number(this.parameters['downtime-limit'] ?? DOWNTIME_LIMIT) }),
      ...(this.#error === undefined ? {} : { 'error-desc': this.#error }),
      ram: {
        total: p.total,
        transferred: p.transferred,
        remaining: this.status === 'completed' ? 0 : p.remaining,
        duplicate: 0,
        skipped: 0,
        normal: Math.floor(p.transferred / 4096),
        'normal-bytes': p.transferred,
        'dirty-pages-rate': 0,
        mbps: now > p.start ? (p.transferred * 8) / 1000 / (now - p.start) : 0,
        'dirty-sync-count': p.passes,
        'postcopy-requests': 0,
        'page-size': 4096,
        'multifd-bytes': 0,
        'pages-per-second': 0,
        'precopy-bytes': p.transferred,
        'downtime-bytes': 0,
        'postcopy-bytes': 0,
        'dirty-sync-missed-zero-copy': 0,
      },
    };
  }

  // -- outgoing

  /** Starts a migration, which goes on by itself. @throws QmpError where one is under way, or nothing can be migrated */
  async start(uri: string): Promise<void> {
    const { machine } = this.#e;
    if (!machine) throw new QmpError('This machine has no state to migrate');
    if (this.#underWay || this.#incoming) throw new QmpError("There's a migration process in progress");
    refuseUnsaved(machine);
    const tls = this.#tls('client');
    if (machine.status !== 'running' && machine.status !== 'paused')
      throw new QmpError(`Cannot migrate a machine that is ${machine.status}: accepted are running and paused`);
    const start = this.#e.host.clock();
    this.#cancel = false;
    this.#error = undefined;
    this.#progress = {
      total: this.#e.config.memory, transferred: 0, remaining: this.#e.config.memory, passes: 0, start, setup: 0, end: 0, heldAt: 0,
      downtime: 0,
    }; // biome-ignore format: one object
    this.#become('setup');
    let sink: StateSink;
    try {
      sink = await this.#e.host.streams.sink(uri, tls);
    } catch (error) {
      this.#fail((error as Error).message);
      throw new QmpError((error as Error).message);
    }
    this.#progress.setup = this.#e.host.clock() - start;
    void this.#run(sink, machine.status === 'running');
  }

  async #run(sink: StateSink, wasRunning: boolean): Promise<void> {
    const p = this.#progress!;
    const machine = this.#e.running;
    const { clock, timers } = this.#e.host;
    this.#become('active');
    try {
      const states = machine.liveState({
        downtime: () => Number(this.parameters['downtime-limit'] ?? DOWNTIME_LIMIT),
        pass: (pass, left) => {
          p.passes = pass;
          p.remaining = left;
          if (this.capabilities.has('events')) this.#e.emit('MIGRATION_PASS', { pass });
        },
        switchover: async () => {
          if (this.capabilities.has('pause-before-switchover')) {
            await machine.pause();
            p.heldAt = clock();
            const asked = new Promise<void>((resolve) => {
              this.#goOn = resolve;
            });
            this.#become('pre-switchover');
            await asked;
            this.#goOn = undefined;
          }
          if (this.#cancel) throw new Error('cancelled');
          this.#become('device');
          p.heldAt ||= clock();
        },
      });
      let seen = 0;
      for await (const chunk of states) {
        if (this.#cancel) throw new Error('cancelled');
        await sink.write(chunk);
        seen += chunk.length;
        p.transferred += chunk.length;
        p.remaining = Math.max(0, p.remaining - chunk.length);
        // Other work of this thread, and the bandwidth that was set.
        const limit = Number(this.parameters['max-bandwidth'] ?? MAX_BANDWIDTH);
        const ahead = limit > 0 ? (seen / limit) * 1000 - (clock() - p.start) : 0;
        await new Promise<void>((resolve) => void timers.after(Math.max(0, ahead), resolve));
      }
      // The other side opens the disks: what images keep in this process's memory has to be in their files.
      await this.#e.blocks.flushAll();
      await this.#e.blocks.inactivate();
      await sink.end();
      p.end = clock();
      p.downtime = p.heldAt ? p.end - p.heldAt : 0;
      this.#e.postMigrate = true;
      this.#become('completed');
    } catch (error) {
      sink.destroy();
      if (this.#cancel) this.#become('cancelled');
      else this.#fail((error as Error).message);
      await this.#e.blocks.activate().catch((failed: Error) => this.#e.host.log(failed.message));
      if (wasRunning && machine.status === 'paused') machine.resume();
    }
  }

  /** Gives up; the guest goes on here. */
  cancel(): void {
    if (!this.#underWay) return;
    this.#cancel = true;
    this.#become('cancelling');
    this.#goOn?.();
  }
  /** Goes on after the pause before the switch. @throws QmpError */
  goOn(state: string): void {
    if (state !== this.status || !this.#goOn) throw new QmpError(`Migration not in expected state: ${this.status}`);
    this.#goOn();
  }

  /** The credentials that the parameters name; undefined for none. @throws QmpError */
  #tls(endpoint: 'client' | 'server'): TlsCredentials | undefined {
    const id = String(this.parameters['tls-creds'] ?? '');
    if (id === '') return undefined;
    const hostname = String(this.parameters['tls-hostname'] ?? '');
    return tlsCredentials(this.#e.objects, id, endpoint, hostname || undefined);
  }

  // -- incoming

  /** The command line has `-incoming`: the machine waits. */
  await(): void {
    this.#incoming = true;
  }
  /**
   * Takes over a machine. Resolves once the other side may come; what follows, events tell.
   * @throws QmpError where none is awaited
   */
  async take(uri: string, then: () => void): Promise<void> {
    const { machine } = this.#e;
    if (!machine || !this.#incoming) throw new QmpError("'-incoming' was not specified on the command line");
    if (this.#underWay) throw new QmpError('The incoming migration has already been started');
    const tls = this.#tls('server');
    this.#become('setup');
    await new Promise<void>((listening, failed) => {
      void (async () => {
        try {
          const chunks = await this.#e.host.streams.source(uri, listening, tls);
          listening();
          this.#become('active');
          await machine.loadState(chunks);
          await this.#takeDisks();
          this.#incoming = false;
          this.#become('completed');
          then();
        } catch (error) {
          this.#fail((error as Error).message);
          this.#e.host.log((error as Error).message);
          failed(new QmpError((error as Error).message));
          // A machine that has half a state can do nothing any more.
          if (this.#incoming) this.#e.quit('host-error');
        }
      })();
    });
  }

  /** Opens the images for writing: the other side leaves them while the last of the state is on its way. */
  async #takeDisks(): Promise<void> {
    const { clock, timers } = this.#e.host;
    for (const end = clock() + DISKS_MS; ; ) {
      try {
        return await this.#e.blocks.activate();
      } catch (error) {
        if (clock() > end || !/another process uses it/.test((error as Error).message)) throw error;
        await new Promise<void>((resolve) => void timers.after(20, resolve));
      }
    }
  }

  get #underWay(): boolean {
    return ['setup', 'active', 'pre-switchover', 'device', 'cancelling'].includes(this.status);
  }
  #fail(message: string): void {
    this.#error = message;
    this.#become('failed');
  }
  #become(status: MigrationStatus): void {
    this.status = status;
    if (this.capabilities.has('events')) this.#e.emit('MIGRATION', { status });
  }
}
