// One emulator process as its monitors see it: the machine with its back-ends, what they ask of the host, and the events they hear.

import type { Chardev, CharHost } from '../chardev/chardev.ts';
import { delivery } from '../devices/apic-bus.ts';
import type { DiskHost } from '../disk/open.ts';
import { cpuModel } from '../isa/x86/cpu-model.ts';
import { type Backends, noBackends } from '../machine/backends.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { dimmSpace } from '../machine/dimms.ts';
import type { MachineType } from '../machine/machine-types.ts';
import type { RunningMachine } from '../machine/running.ts';
import { CPU_SUFFIX, cpuTypeName } from '../machine/types/cpu.ts';
import { QmpError } from '../rpc/qmp/error.ts';
import type { Json } from '../rpc/qmp/json.ts';
import { type QmpHandlers, QmpService, type QmpSession, type Timestamp } from '../rpc/qmp/server.ts';
import type { Commands } from '../rpc/qmp/table.ts';
import type { Timers } from '../rpc/transport.ts';
import { Authorization } from './authz.ts';
import { Backend } from './block/backend.ts';
import { Exports } from './block/exports.ts';
import { BlockGraph } from './block/graph.ts';
import { Jobs } from './block/jobs.ts';
import { Chardevs, type Connection } from './chardevs.ts';
import { deviceInfos } from './devices.ts';
import { dimmsOf, withPlace } from './dimms.ts';
import { DirtyRate } from './dirty-rate.ts';
import { DisplayControl, type DisplayHost } from './display.ts';
import type { DumpStatus } from './dump.ts';
import { Fdsets } from './fdsets.ts';
import { Migration, type StateStreams } from './migration.ts';
import { type Cable, type NetdevHost, openNetdev } from './netdevs.ts';
import { pciDevices } from './pci.ts';
import { type QmpEvents, qmpEvents, rateLimits } from './qmp/events.ts';
import type { QmpTable } from './qmp/row.ts';
import { ObjectTree } from './qom/tree.ts';
import { TypeTable } from './qom/types.ts';
import { Objects, type UserObject } from './qom/user-objects.ts';
import { tlsCredentials } from './tls.ts';

/** The QEMU whose behaviour and version this is. */
export const QEMU_VERSION = { major: 7, minor: 2, micro: 0 } as const;

/** What the command line has settled. */
export interface EmulatorConfig {
  /** The package's version. */
  readonly version: string;
  readonly machine: MachineType;
  readonly name?: string | undefined;
  readonly uuid?: string | undefined;
  readonly accel: string;
  /** The accelerators that this process can use. */
  readonly accels: readonly string[];
  readonly cpu: { readonly model: string; readonly text: string };
  readonly topology: {
    readonly cpus: number;
    readonly maxcpus: number;
    readonly sockets: number;
    readonly dies: number;
    readonly cores: number;
    readonly threads: number;
  };
  /** Bytes. */
  readonly memory: number;
  readonly kernel?: { readonly kernel: string; readonly initrd?: string | undefined; readonly append?: string | undefined };
  /** What `-machine` said besides the type, as text. */
  readonly machineProperties: ReadonlyMap<string, string>;
  /** Memory back-ends that the machine's own RAM comes from. */
  readonly boardMemdevs: readonly string[];
  readonly noShutdown: boolean;
  /** What `query-command-line-options` tells. */
  readonly options: readonly OptionInfo[];
}

/** One option of the command line, as monitors tell it. */
export interface OptionInfo {
  readonly option: string;
  readonly parameters: readonly {
    readonly name: string;
    readonly type: 'string' | 'boolean' | 'number' | 'size';
    readonly help?: string;
  }[];
}

/** What monitors ask of the process. */
export interface EmulatorHost {
  readonly pid: number;
  readonly chars: CharHost;
  readonly disks: DiskHost;
  readonly timers: Timers;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
  /** The wall clock. */
  readonly now: () => Timestamp;
  /** Ends descriptors that monitors brought and nobody took. */
  readonly closeFd: (fd: number) => void;
  /** Keeps a descriptor for a path that the process may not open by itself. */
  readonly admit: (path: string, fd: number, write: boolean) => void;
  readonly log: (text: string) => void;
  /** A small file as text. Throws with one line. */
  readonly readText: (path: string) => string;
  /** Random bytes of a device of the host, or of the host's own generator. */
  readonly random: (path: string | undefined) => (count: number) => Promise<Uint8Array>;
  readonly base64: { encode(bytes: Uint8Array): string; decode(text: string): Uint8Array };
  /** The host's names of the vCPUs' threads, by vCPU; empty where it has none. */
  readonly threads: () => Promise<ReadonlyMap<number, number>>;
  readonly streams: StateStreams;
  readonly net: NetdevHost;
  readonly display: DisplayHost;
}

/** What happens at the guest's end, reset, crash and watchdog: `-action`. */
export interface Actions {
  reboot: 'reset' | 'shutdown';
  shutdown: 'poweroff' | 'pause';
  panic: 'pause' | 'shutdown' | 'exit-failure' | 'none';
  watchdog: 'reset' | 'shutdown' | 'poweroff' | 'pause' | 'debug' | 'none' | 'inject-nmi';
}

type EventName = keyof QmpEvents & string;

export class Emulator {
  readonly config: EmulatorConfig;
  readonly host: EmulatorHost;
  readonly chardevs: Chardevs;
  #types: TypeTable | undefined;
  readonly objects: Objects;
  readonly authorization: Authorization;
  readonly tree: ObjectTree;
  readonly qmp: QmpService;
  /** Descriptors that monitors brought, by the names of getfd. */
  readonly fds = new Map<string, number>();
  readonly fdsets = new Fdsets();
  readonly migration: Migration;
  readonly dirtyRate = new DirtyRate(this);
  /** The guest has gone to another process. */
  postMigrate = false;
  readonly dump = { status: 'none' as DumpStatus, completed: 0, total: 0 };
  readonly blocks: BlockGraph;
  readonly jobs: Jobs;
  readonly exports: Exports;
  readonly backends: Backends;
  readonly display: DisplayControl;
  readonly cables = new Map<string, Cable>();
  readonly #connections = new WeakMap<QmpSession, Connection>();
  /** Absent for `-machine none`. */
  machine: RunningMachine | undefined;
  /** Whether `-machine none` "runs". */
  #idle: 'prelaunch' | 'running' | 'paused' = 'prelaunch';
  readonly #held = new Map<string, { data: unknown; again: boolean }>();
  /** Ends the server for gdb that a monitor has started. */
  gdb: (() => void) | undefined;
  /** The guest ran once. */
  #began = false;
  readonly #onQuit: () => void;
  /** The vCPU that the monitor for people looks at. */
  currentCpu = 0;
  /** What `x`, `xp` and `print` show where no format is given: the last one. */
  readonly hmpFormat = { form: 'x', size: 4 };

  constructor(o: {
    readonly config: EmulatorConfig;
    readonly host: EmulatorHost;
    readonly table: QmpTable;
    readonly quit: () => void;
  }) {
    this.config = o.config;
    this.host = o.host;
    this.#onQuit = o.quit;
    this.migration = new Migration(this);
    this.backends = noBackends();
    const { disks, timers, clock } = o.host;
    this.blocks = new BlockGraph({
      host: disks,
      timers,
      clock,
      drives: this.backends.drives,
      secret: (id) => this.secret(id, 'secret'),
      tls: (id, hostname) => tlsCredentials(this.objects, id, 'client', hostname),
      crossed: (node, exceeded, threshold) =>
        this.emit('BLOCK_WRITE_THRESHOLD', { 'node-name': node, 'amount-exceeded': exceeded, 'write-threshold': threshold }),
    });
    this.jobs = new Jobs(timers, (name, data) => this.emit(name as EventName, data));
    this.exports = new Exports(this.blocks, (id) => this.emit('BLOCK_EXPORT_DELETED', { id }));
    this.display = new DisplayControl(this);
    this.objects = new Objects();
    this.authorization = new Authorization({ objects: this.objects, readText: o.host.readText, log: o.host.log });
    this.objects.onAdd = (object) => this.#objectAdded(object);
    this.tree = new ObjectTree(this);
    this.chardevs = new Chardevs(
      o.host.chars,
      { quit: () => this.quit('host-ui'), togglePause: () => void this.togglePause() },
      this.backends.chardevs,
    );
    this.qmp = new QmpService({
      version: { ...QEMU_VERSION, package: `nonroot ${o.config.version}` },
      commands: Object.fromEntries(Object.entries(o.table).map(([name, row]) => [name, row.command])),
      handlers: Object.fromEntries(
        Object.entries(o.table).map(([name, row]) => [
          name,
          (args: never, session: never) => row.run(this, args, session) as never,
        ]),
      ) as unknown as QmpHandlers<Commands>,
      events: qmpEvents as unknown as Record<string, never>,
      now: o.host.now,
      report: (error, name) =>
        o.host.log(`monitor command ${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`),
    }) as unknown as QmpService;
  }

  // -- the machine

  /** The machine, for commands that need one. @throws QmpError for `-machine none` */
  get running(): RunningMachine {
    if (!this.machine) throw new QmpError('This machine has no CPUs and devices');
    return this.machine;
  }
  /** QEMU's run state. */
  get status():
    | 'prelaunch'
    | 'running'
    | 'paused'
    | 'suspended'
    | 'shutdown'
    | 'inmigrate'
    | 'postmigrate'
    | 'guest-panicked'
    | 'io-error' {
    const status = this.machine?.status ?? this.#idle;
    if (status === 'prelaunch' && this.migration.incoming) return 'inmigrate';
    if (status === 'paused' && this.postMigrate) return 'postmigrate';
    if (status === 'paused' && this.#panicked) return 'guest-panicked';
    if (status === 'paused' && this.#ioError) return 'io-error';
    if (status === 'prelaunch' && this.#began) return 'paused';
    return status === 'ended' ? 'shutdown' : status;
  }
  /** Made when it is first asked for: it looks at every type of device. */
  get types(): TypeTable {
    this.#types ??= new TypeTable(this.config.accels, deviceInfos());
    return this.#types;
  }
  async stop(): Promise<void> {
    if (this.status !== 'running') return;
    if (this.machine) {
      await this.machine.pause();
      // Whoever holds a guest may look at its images, or end the process.
      await this.blocks.flushAll().catch(() => {});
      return;
    }
    this.#idle = 'paused';
    this.emit('STOP');
  }
  /** `cont` of a user: the images that another process was to have come back first. Rejects where it has them. */
  async contWithDisks(): Promise<void> {
    if (this.status !== 'inmigrate') await this.blocks.activate();
    this.cont();
  }
  cont(): void {
    const { status } = this;
    if (status === 'running' || status === 'suspended') return;
    this.postMigrate = false;
    this.#panicked = this.#ioError = false;
    if (status === 'shutdown') throw new QmpError('Resetting the Virtual Machine is required');
    if (status === 'inmigrate') {
      this.contAfterIncoming = true;
      return;
    }
    if (this.machine) return this.machine.resume();
    this.#idle = 'running';
    this.emit('RESUME');
  }
  /** The guest is to run once its state has come. */
  contAfterIncoming = false;
  /** Waits for a machine from `uri`, or for `migrate-incoming` where it is undefined. */
  async awaitIncoming(uri: string | undefined, run: boolean): Promise<void> {
    this.contAfterIncoming = run;
    this.migration.await();
    if (uri !== undefined) await this.takeIncoming(uri);
  }
  async takeIncoming(uri: string): Promise<void> {
    await this.migration.take(uri, () => {
      this.#began = true;
      if (this.contAfterIncoming) this.cont();
    });
  }
  reset(): void {
    if (this.machine) this.machine.reset();
    else this.emit('RESET', { guest: false, reason: 'host-qmp-system-reset' });
  }
  /** What runs the vCPUs from now on; a running guest does not notice. */
  async setAccel(accel: 'dbt' | 'kvm'): Promise<void> {
    if (!this.machine) throw new Error('Cannot change the accelerator: there is no machine');
    await this.machine.setAccel(accel);
  }
  /** Ends the sleep of a guest. @throws QmpError where it does not sleep */
  wakeup(): void {
    if (this.status !== 'suspended') throw new QmpError('Unable to wake up: guest is not in suspended state');
    this.running.wakeup();
  }
  powerdown(): void {
    if (this.machine) this.machine.powerButton();
    else this.emit('POWERDOWN');
  }
  /** Takes the machine that was made, and tells monitors what it tells. */
  use(machine: RunningMachine): void {
    this.machine = machine;
    this.#lookAtDrives();
    machine.subscribe((name, data) => {
      if (name === 'RESUME') this.#began = true;
      else if (name === 'BLOCK_IO_ERROR' && 'action' in data && data.action === 'stop') this.#ioError = true;
      this.emit(name, Object.keys(data).length === 0 ? undefined : data);
    });
  }
  readonly actions: Actions = { reboot: 'reset', shutdown: 'poweroff', panic: 'shutdown', watchdog: 'reset' };
  setActions(actions: Partial<Actions>): void {
    for (const [name, value] of Object.entries(actions)) if (value !== undefined) Object.assign(this.actions, { [name]: value });
  }
  #panicked = false;
  /** A request of a drive is held. */
  #ioError = false;
  /** A crash of the guest is to be an error of the process. */
  failed = false;
  /** The guest's kernel has said that it crashed, or that another one takes over: what `-action panic=` says follows. */
  async guestPanicked(what: 'panicked' | 'crashLoaded'): Promise<void> {
    if (what === 'crashLoaded') return this.emit('GUEST_CRASHLOADED', { action: 'run' });
    const { panic, shutdown } = this.actions;
    if (panic === 'none') return this.emit('GUEST_PANICKED', { action: 'run' });
    const pauses = panic === 'pause' || (panic === 'shutdown' && shutdown === 'pause');
    this.emit('GUEST_PANICKED', { action: pauses ? 'pause' : 'poweroff' });
    this.#panicked = true;
    await this.stop();
    if (pauses) return;
    this.failed = panic === 'exit-failure';
    this.quit('guest-panic');
  }
  /** The CPU model's features, each on or off; few by design: libvirt asks for every one. */
  cpuFeatures(): (readonly [string, boolean])[] {
    const [name = '', ...changes] = this.config.cpu.text.split(',');
    const { features } = cpuModel(name, changes);
    return [...features].map((feature) => [feature, true] as const);
  }

  /** The text of a secret object. `what` names it where it cannot be had. */
  secret(id: string, what: string): string {
    const values = this.objects.get(id)?.values;
    const data = values?.['data'];
    if (typeof data !== 'string' || values?.['keyid'] !== undefined)
      throw new Error(`${what}=${id}: accepted is a secret object with data= in plain text or base64`);
    return values?.['format'] === 'base64' ? new TextDecoder().decode(this.host.base64.decode(data)) : data;
  }
  /** A non-maskable interrupt at every vCPU. */
  injectNmi(): void {
    const { lapics, lock } = this.running.board;
    lock.run(() => {
      for (const lapic of lapics) lapic.accept(delivery.nmi, 0, false);
    });
  }
  /** What `query-pci` tells. */
  pci(): Json {
    return [{ bus: 0, devices: pciDevices(this.running) as unknown as Json }];
  }

  // -- devices and back-ends

  /** @throws QmpError (rejects) */
  async deviceAdd(config: DeviceConfig): Promise<void> {
    const cpu = cpuTypeName(this.running.board.config);
    if (config.driver.endsWith(CPU_SUFFIX) && config.driver !== cpu)
      throw new QmpError(`Invalid CPU type, expected cpu type: '${cpu}'`);
    try {
      await this.running.deviceAdd(this.withDimm(this.withDrive(config)));
      this.#lookAtDrives();
    } catch (error) {
      if (error instanceof QmpError) throw error;
      throw new QmpError(error instanceof Error ? error.message : String(error));
    }
  }
  /** What an object starts, with how it ends. */
  #objectAdded({ id, type, values }: UserObject): (() => void) | undefined {
    if (type.startsWith('memory-backend-')) return () => this.#refuseInUse(id);
    if (type.startsWith('authz-')) return this.authorization.added(id, type, values);
    if (type !== 'rng-random' && type !== 'rng-builtin') return undefined;
    const path = type === 'rng-random' ? String(values['filename'] ?? '/dev/urandom') : undefined;
    this.backends.rngs.add(id, { bytes: this.host.random(path) });
    return () => this.backends.rngs.remove(id);
  }
  /** Memory that the machine has cannot go. */
  #refuseInUse(id: string): void {
    const users = this.machine?.devices.list().filter((d) => d.values['memdev'] === id) ?? [];
    if (users.length > 0 || this.config.boardMemdevs.includes(id))
      throw new QmpError(`object '${id}' is in use, can not be deleted`);
  }
  /** A module of memory with its size and place, beside those of the machine. */
  withDimm(config: DeviceConfig): DeviceConfig {
    const { board, devices } = this.running;
    return withPlace(config, dimmSpace(board.config), dimmsOf(devices.list()), (id) => this.memoryBackend(id));
  }
  /** Bytes of the memory back-end `id`, which is not the board's own; undefined where there is none. */
  memoryBackend(id: string): number | undefined {
    const object = this.objects.list().find((o) => o.id === id && this.types.is(o.type, 'memory-backend'));
    if (!object) return undefined;
    if (this.config.boardMemdevs.includes(id)) throw new QmpError(`can't use already busy memdev: ${id}`);
    return Number(object.values['size']);
  }
  /** A drive for removable media is there without one, too: it has a place that is empty. `usb-storage` is what its drive is. */
  withDrive(config: DeviceConfig): DeviceConfig {
    if (config.driver === 'usb-storage') {
      const drive = this.backends.drives.find(String(config['drive']));
      return drive instanceof Backend && drive.cdrom ? { ...config, 'x-cdrom': true } : config;
    }
    if (!/-cd$|^floppy$/.test(config.driver) || config['drive'] !== undefined) return config;
    const name = `#empty-${this.#empty++}`;
    this.blocks.newBackend(name, undefined, { readOnly: config.driver !== 'floppy' });
    return { ...config, drive: name };
  }
  #empty = 0;
  #lookAtDrives(): void {
    for (const device of this.machine?.devices.list() ?? []) {
      const drive = device.values['drive'];
      const found =
        this.blocks.backends.find((b) => b.user === device.path) ??
        (typeof drive === 'string' ? this.backends.drives.find(drive) : undefined);
      if (!(found instanceof Backend)) continue;
      found.user ??= device.path;
      found.removable = /-cd$|floppy/.test(device.type.name) || device.values['x-cdrom'] === true;
      found.virtio = device.type.name.startsWith('virtio-blk');
    }
  }
  async netdevAdd(given: { readonly [name: string]: Json }): Promise<void> {
    if (this.cables.has(String(given['id']))) throw new QmpError(`Duplicate ID '${String(given['id'])}' for netdev`);
    const cable = await openNetdev(given, this.host.net);
    this.cables.set(cable.id, cable);
    this.backends.netdevs.add(cable.id, { kind: cable.type, port: cable });
  }
  netdevDel(id: string): void {
    const cable = this.cables.get(id);
    if (!cable) throw new QmpError(`Device '${id}' not found`, 'DeviceNotFound');
    if (this.backends.netdevs.find(id)?.user !== undefined) throw new QmpError(`Device '${id}' is in use`);
    cable.close();
    this.cables.delete(id);
    this.backends.netdevs.remove(id);
  }
  /** Pulls or plugs the cable of a back-end, or of the device of that name. */
  setLink(name: string, up: boolean): void {
    const device = this.machine?.devices.find(name);
    const netdev = device?.values['netdev'];
    const cable = this.cables.get(typeof netdev === 'string' ? netdev : name);
    if (!cable) throw new QmpError(`Device '${name}' not found`, 'DeviceNotFound');
    cable.up = up;
    this.backends.netdevs.find(cable.id)?.setLink?.(up);
  }
  /** @throws QmpError where the machine has none */
  balloon(): { set(bytes: number): void; actual(): number } {
    const device = this.machine?.devices.list().find((d) => d.io?.balloon);
    if (!device?.io?.balloon) throw new QmpError('No balloon device has been activated', 'DeviceNotActive');
    return device.io.balloon;
  }
  async togglePause(): Promise<void> {
    if (this.status === 'running') await this.stop();
    else this.cont();
  }
  /** Ends the process: SHUTDOWN on every monitor, then the machine. */
  quit(reason: 'host-qmp-quit' | 'host-signal' | 'host-ui' | 'host-error' | 'guest-panic'): void {
    if (this.machine) return this.machine.quit(reason);
    this.emit('SHUTDOWN', { guest: false, reason });
    this.#onQuit();
  }

  // -- events

  /** Sends an event to every monitor; some kinds not more often than once a second. */
  emit(name: EventName, data?: unknown): void {
    const limit = rateLimits[name];
    if (!limit) return this.#send(name, data);
    const key = `${name} ${limit.by === undefined ? '' : String((data as Record<string, unknown>)[limit.by])}`;
    const held = this.#held.get(key);
    if (held) {
      held.data = data;
      held.again = true;
      return;
    }
    this.#send(name, data);
    const wait = (): void => {
      const now = { data: undefined as unknown, again: false };
      this.#held.set(key, now);
      this.host.timers.after(limit.ms, () => {
        this.#held.delete(key);
        if (!now.again) return;
        this.#send(name, now.data);
        wait();
      });
    };
    wait();
  }
  #send(name: EventName, data: unknown): void {
    (this.qmp.emit as (name: string, ...data: unknown[]) => void).call(this.qmp, name, ...(data === undefined ? [] : [data]));
  }

  /** Serves a connection of a monitor until it ends. */
  attach(connection: Connection): void {
    this.#connections.set(this.qmp.attach(connection), connection);
  }
  /** Takes the oldest descriptor that came over a monitor's connection. */
  takeFd(session: QmpSession): number {
    const fd = this.#connections.get(session)?.port.takeFd();
    if (fd === undefined) throw new QmpError('No file descriptor supplied via SCM_RIGHTS');
    return fd;
  }

  /** A character device for use. @throws QmpError */
  chardev(id: string): Chardev {
    const found = this.chardevs.get(id);
    if (!found) throw new QmpError(`Chardev '${id}' not found`, 'DeviceNotFound');
    return found;
  }
}
