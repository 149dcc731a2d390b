// A domain as the daemon holds it: its definition, and while it runs the run with its process and monitor.
import { type Domain, formatDomain, parseDomain } from '../../domain/domain.ts';
import type { Disk } from '../../domain/model/disk.ts';
import type { Snapshot } from '../../domain/snapshot.ts';
import { libvirtError } from '../../rpc/libvirt/errors.ts';
import type { Domain as DomainRef, TypedParam } from '../../rpc/libvirt/types.ts';
import type { AgentClient, QmpClient } from '../../rpc/qmp/client.ts';
import type { Json } from '../../rpc/qmp/json.ts';
import type { Timers } from '../../rpc/transport.ts';
import { notRunning, qmpFailed } from '../errors.ts';
import type { ProcessId } from '../host.ts';
import type { JobPlan } from './block-job-ends.ts';
import type { Checkpoint } from './checkpoint-model.ts';
import { JobLock } from './job-lock.ts';
import type { Owned } from './ownership.ts';
import { type State, shutoffReason, state } from './states.ts';

/** A long operation that clients may watch: save, dump, migration, backup. */
export interface Job {
  readonly operation: number;
  readonly startedMs: number;
  /** Stops it; undefined when it can't be. */
  abort?: () => Promise<void>;
  /** What `query-migrate` or `query-dump` said last. */
  progress: () => Promise<{ total: number; remaining: number; processed: number; extra?: readonly TypedParam[] }>;
}

/** A block job as clients see it. */
export interface BlockJob {
  readonly id: string;
  readonly disk: string;
  /** libvirt's numbers: 1 pull, 2 copy, 3 commit, 4 active commit, 5 backup. */
  readonly type: number;
  bandwidth: number;
  ready: boolean;
  /** Clients are not told of it. */
  readonly silent?: boolean;
  /** What its end changes in the definition. */
  readonly plan: JobPlan;
  /** Whether it ended well, once it is known and until the definition has followed. */
  result?: boolean | undefined;
  /** Its end has been heard. */
  concluding?: boolean;
  /** It has ended, well or not. */
  readonly ended?: (ok: boolean) => void;
  /** Set when a client asked to end it. */
  ending?: 'abort' | 'pivot' | undefined;
  readonly done: PromiseWithResolvers<void>;
}

/** A backup that is under way, as its status file has it. */
export interface BackupState {
  readonly xml: string;
  readonly startedMs: number;
  /** Disks are served over NBD until the job is ended. */
  readonly pull: boolean;
  readonly jobs: readonly string[];
  /** Bitmaps that the exports show, on their nodes. */
  readonly bitmaps: readonly { readonly node: string; readonly name: string }[];
  /** The emulator's credentials. */
  readonly tls: string | undefined;
  /** Where a client finds the emulator's socket, if that is elsewhere. */
  readonly link: string | undefined;
}

/** One life of a guest, from start to stop. */
export interface Run {
  readonly id: number;
  /** The definition as it runs. */
  domain: Domain;
  readonly process: ProcessId;
  readonly monitorPath: string;
  readonly directory: string;
  readonly monitor: QmpClient;
  /** Thread of each vCPU, by its index. */
  threads: ReadonlyMap<number, number>;
  /** Ports that it holds. */
  readonly ports: readonly number[];
  agent: AgentClient | undefined;
  agentConnected: boolean;
  agentTimeout: number;
  readonly blockJobs: Map<string, BlockJob>;
  /** What the next end of the process means; undefined for one that nobody asked for. */
  ending: Ending | undefined;
  /** The guest has powered itself off and waits for its end. */
  poweredOff: boolean;
  /** A reboot was asked for, so power-off means reset. */
  rebooting: boolean;
  stopped: boolean;
  /** Cleaning up after the process, once it has begun. */
  ended: Promise<void> | undefined;
  /** The reason that the next STOP event stands for. */
  pauseReason: number | undefined;
  /** The reason that the next RESUME event stands for. */
  resumeReason: number | undefined;
  /** Listeners for the removal of devices, by alias. */
  readonly removals: Map<string, (done: boolean) => void>;
  /** Consoles in use: closes the stream of the one before. */
  readonly consoles: Map<string, () => void>;
  readonly originalMemory: number;
  /** The emulator reaches its command line's files only, and what else it is given. */
  readonly confined: boolean;
  /** Sends the emulator what a command will open. */
  readonly give: (command: string, args?: Readonly<Record<string, Json | undefined>>) => Promise<void>;
  /** Files that were handed to the emulator's user, with whose they were. */
  readonly owned: Owned[];
  /** Hands over what a disk needs. */
  readonly admit: (disk: Disk) => Promise<void>;
  /** Number of the block node that was named last. */
  lastNode: number;
}

export type Ending = 'destroyed' | 'saved' | 'migrated' | 'failed' | 'fromSnapshot' | 'shutdown' | 'crashed';

export class Guest {
  name: string;
  readonly uuid: string;
  /** The persistent definition; absent for a transient domain. */
  config: Domain | undefined;
  run: Run | undefined;
  autostart = false;
  state: State = state.shutoff;
  reason: number = shutoffReason.unknown;
  /** Since when it is in this state, ms. */
  stateSince = 0;
  managedSave = false;
  /** The definition was changed since the start. */
  updated = false;
  job: Job | undefined;
  lastJob: { readonly type: number; readonly params: readonly TypedParam[] } | undefined;
  readonly snapshots = new Map<string, Snapshot>();
  currentSnapshot: string | undefined;
  readonly checkpoints = new Map<string, Checkpoint>();
  backup: BackupState | undefined;
  migrationDowntime = 300;
  migrationSpeed = 0x7fff_ffff_fffn;
  compressionCache = 67_108_864;
  /** XML of the domain that arrives by migration, until it has come. */
  incoming: { readonly flags: number; readonly finished: PromiseWithResolvers<void> } | undefined;
  readonly lock: JobLock;

  constructor(name: string, uuid: string, timers: Timers) {
    this.name = name;
    this.uuid = uuid;
    this.lock = new JobLock(timers);
  }
  get id(): number {
    return this.run?.id ?? -1;
  }
  get active(): boolean {
    return this.run !== undefined;
  }
  get persistent(): boolean {
    return this.config !== undefined;
  }
  get ref(): DomainRef {
    return { name: this.name, uuid: this.uuid, id: this.id };
  }
  /** The definition in force: of the run while there is one. */
  get current(): Domain {
    return this.run?.domain ?? this.config!;
  }
  set(value: State, reason: number, now: number): void {
    this.state = value;
    this.reason = reason;
    this.stateSince = now;
  }
  /** @throws {LibvirtError} 55 when it does not run. */
  live(): Run {
    if (this.run === undefined) throw notRunning();
    return this.run;
  }
  /** A QMP command of the running guest. @throws {LibvirtError} in libvirt's words. */
  async qmp(command: string, args?: Readonly<Record<string, Json | undefined>>): Promise<Json> {
    const { monitor, give } = this.live();
    await give(command, args);
    try {
      return await monitor.execute(command, args);
    } catch (error) {
      throw qmpFailed(command, error);
    }
  }
  /** A QMP command whose arguments are JSON text already, which may hold 64-bit numbers. */
  qmpText(command: string, text: string): Promise<Json> {
    return this.qmp(command, parseExact(text));
  }
}

/** JSON with integers beyond 2^53 as bigints. */
function parseExact(text: string): Readonly<Record<string, Json>> {
  const quoted = text.replace(/:(\d{16,})(?=[,}])/g, ':"\u0000$1"');
  return JSON.parse(quoted, (_, value: unknown) =>
    typeof value === 'string' && value.startsWith('\u0000') ? BigInt(value.slice(1)) : value,
  ) as Readonly<Record<string, Json>>;
}

/** A definition of its own, with secrets. */
export const copyDomain = (domain: Domain): Domain => parseDomain(formatDomain(domain, { secure: true }));

export const noDomain = (ref: { readonly name: string; readonly uuid: string }) =>
  libvirtError('noDomain', 'qemu', `no domain with matching uuid '${ref.uuid}' (${ref.name})`);
