// The TypeScript API: one machine as an object. A host (host/node/api.ts) brings what it needs of the world.

import { concatenate } from '../images/initramfs.ts';
import { sessionOverlay } from '../images/overlay.ts';
import type { Backends } from '../machine/backends.ts';
import type { MachineConfig } from '../machine/config.ts';
import type { DeviceConfig } from '../machine/device-type.ts';
import { parseCpu, parseMemory, tscOf } from '../machine/options.ts';
import type { KernelFiles, MachineEnd, MachineSetup, RunningMachine } from '../machine/running.ts';
import { GuestAgent, withAgent } from './agent.ts';
import { type CommandResult, Commands } from './commands.ts';
import { Console } from './console.ts';

/** What a machine is made of. */
export interface MachineOptions {
  /** Number of vCPUs, 1 to 64; 1 when left out. */
  readonly cpus?: number;
  /** MiB, or text such as `1G`; 512 when left out. */
  readonly memory?: number | string;
  /** CPU model and features, as `-cpu` has them. */
  readonly cpu?: string;
  /** `auto` (KVM where it is good, else the translator), when left out. */
  readonly accel?: 'auto' | 'dbt' | 'kvm';
  /** An image by name; the default one where neither it nor `kernel` is given. */
  readonly image?: string;
  /** A kernel: its path, or its bytes. */
  readonly kernel?: string | Uint8Array;
  readonly initrd?: string | Uint8Array;
  /** Kernel command line; with an image, added to the image's. */
  readonly append?: string;
  readonly disks?: readonly (string | DiskOptions)[];
  /** `user` is a network of the host's sockets, without privileges; `none` when left out. */
  readonly net?: 'none' | 'user';
  /** Ports of this host that lead to the guest's: `8080:80`, `127.0.0.1:5353:53/udp`. */
  readonly publish?: readonly string[];
  /** Folders of this host, as /mnt/NAME in the guest: `DIR` or `DIR:ro`. */
  readonly shares?: readonly string[];
  /**
   * The machine runs in a process of its own that reaches no files but the kernel, disks and shared folders, starts no programs, and has no internet
   * without `net` (Linux with Landlock). So do machines that go on from its snapshots, each in one of its own.
   */
  readonly confine?: boolean;
  /** Hears what devices find wrong with what the guest does. */
  readonly report?: (device: string, message: string) => void;
}
export interface DiskOptions {
  readonly path: string;
  readonly format?: 'raw' | 'qcow2';
  readonly readOnly?: boolean;
  /** Changes are thrown away when the machine is closed. */
  readonly snapshot?: boolean;
}

/** Memory and state of a machine that was held. */
export interface Frozen {
  readonly state: Uint8Array;
  readonly memory: { close(): void };
}
/** A machine of the host. */
export interface HostMachine<F extends Frozen = Frozen> extends RunningMachine {
  freeze(): F;
  thaw(frozen: F): Promise<void>;
}
export interface OpenedDevices {
  readonly devices: readonly DeviceConfig[];
  readonly backends: Backends;
  readonly session: Parameters<typeof sessionOverlay>[0];
  close(): Promise<void>;
}
/** What the API needs of its host. */
export interface ApiHost<F extends Frozen = Frozen> {
  machine(setup: MachineSetup): HostMachine<F>;
  image(name: string | undefined): Promise<KernelFiles & { readonly initrd?: Uint8Array }>;
  readFile(path: string): Promise<Uint8Array>;
  accel(wanted: 'auto' | 'dbt' | 'kvm'): Pick<MachineConfig, 'accel' | 'tscKhz' | 'hostVendor' | 'hostPhysicalBits'>;
  devices(o: MachineOptions, ours: boolean): Promise<OpenedDevices>;
  readonly base64: (bytes: Uint8Array) => string;
  readonly fromBase64: (text: string) => Uint8Array;
  readonly sleep: (ms: number) => Promise<void>;
  /** Writes a frozen machine to a file, and reads it; memory is read as it is used. */
  save(frozen: F, note: string, path: string): Promise<void>;
  load(path: string): Promise<{ readonly frozen: F; readonly note: string }>;
}

/** Events of a machine: it has ended; it starts again. */
export interface MachineEvents {
  exit: (end: MachineEnd) => void;
  reset: () => void;
}

/** Bytes of guest memory. */
export const memoryOf = ({ memory = '512' }: MachineOptions): number =>
  typeof memory === 'number' ? memory * 2 ** 20 : parseMemory(memory);

const CONSOLE = 0;
const APPEND = 'console=ttyS0 quiet panic=-1';

/** A machine as it was at one moment; any number of machines can go on from it. */
export class Snapshot<F extends Frozen = Frozen> {
  readonly frozen: F;
  readonly options: MachineOptions;
  readonly #host: ApiHost<F>;

  constructor(host: ApiHost<F>, frozen: F, options: MachineOptions) {
    this.#host = host;
    this.frozen = frozen;
    this.options = options;
  }
  /** Writes it to a file. Files of the host that the options name are named there, too, and must be there when it is restored. */
  async save(path: string): Promise<void> {
    const plain = (x: string | Uint8Array | undefined): string | undefined => {
      if (x instanceof Uint8Array)
        throw new Error('Cannot save a snapshot of a machine whose kernel was given as bytes: accepted are paths');
      return x;
    };
    const { report: _, ...rest } = this.options;
    const note = { ...rest, kernel: plain(rest.kernel), initrd: plain(rest.initrd) };
    await this.#host.save(this.frozen, JSON.stringify(note), path);
  }
  /** Gives its memory back; machines that went on from it are not touched. */
  close(): void {
    this.frozen.memory.close();
  }
}

/** Throws where two machines of these options would write to one disk. */
export function refuseToFork({ disks }: MachineOptions): void {
  const shared = disks?.find((d) => typeof d === 'string' || !(d.readOnly || d.snapshot));
  if (shared !== undefined)
    throw new Error(
      `Cannot fork a machine that writes to ${typeof shared === 'string' ? shared : shared.path}: accepted are disks with readOnly or snapshot`,
    );
}

/** One machine. It runs from `create` on, until it ends or is closed. */
export class Machine<F extends Frozen = Frozen> {
  readonly console: Console;
  /** Resolves once with how the machine came to its end. */
  readonly ended: Promise<MachineEnd>;
  readonly #host: ApiHost<F>;
  readonly #options: MachineOptions;
  readonly #machine: HostMachine<F>;
  readonly #commands: Commands;
  /** For a guest that is not an image's. */
  readonly #agent: GuestAgent | undefined;
  readonly #listeners: { [E in keyof MachineEvents]: Set<MachineEvents[E]> } = { exit: new Set(), reset: new Set() };

  private constructor(
    host: ApiHost<F>,
    o: MachineOptions,
    files: KernelFiles,
    devices: OpenedDevices,
    agent: GuestAgent | undefined,
    restored: boolean,
  ) {
    this.#host = host;
    this.#options = o;
    this.#agent = agent;
    this.console = new Console((bytes) => this.#machine.input(CONSOLE, bytes));
    this.#commands = new Commands(
      host,
      (port, bytes) => this.#machine.input(port, bytes),
      () => this.#carried(),
    );
    const memory = memoryOf(o);
    const { cpuModel, paravirtual, tscKhz } = parseCpu(o.cpu ?? 'max');
    const accel = host.accel(o.accel ?? 'auto');
    this.#machine = host.machine({
      config: {
        cpus: o.cpus ?? 1, memory, cpuModel, paravirtual, rtcOffset: 0, trace: [], devices: devices.devices, ...accel, ...tscOf(tscKhz, accel.tscKhz),
      },
      files,
      backends: devices.backends,
      serial: (port, bytes) => {
        if (port === CONSOLE) this.console.receive(bytes);
        else this.#commands.receive(port, bytes);
      },
      report: o.report ?? (() => {}),
      noReboot: false,
      restarted: () => {
        this.#commands.restarted();
        this.#agent?.restarted();
        for (const listener of this.#listeners.reset) listener();
      },
      restored,
      shareable: true,
    }); // biome-ignore format: one object
    this.ended = this.#machine.ended.then(async (end) => {
      this.console.end();
      this.#commands.end();
      this.#agent?.end();
      await devices.close();
      for (const listener of this.#listeners.exit) listener(end);
      return end;
    });
  }

  /**
   * Makes a machine and starts it.
   * @throws Error (rejects) with one line for options that can't be used
   */
  static async create<F extends Frozen>(host: ApiHost<F>, o: MachineOptions = {}): Promise<Machine<F>> {
    const machine = await Machine.#make(host, o, false);
    machine.#machine.start();
    return machine;
  }
  /** Makes a machine that goes on from a snapshot, and starts it. */
  static async restore<F extends Frozen>(host: ApiHost<F>, snapshot: Snapshot<F>): Promise<Machine<F>> {
    const machine = await Machine.#make(host, snapshot.options, true);
    try {
      await machine.#machine.thaw(snapshot.frozen);
    } catch (error) {
      await machine.close();
      throw error;
    }
    machine.#commands.goOn();
    machine.#machine.start();
    return machine;
  }
  static async #make<F extends Frozen>(host: ApiHost<F>, o: MachineOptions, restored: boolean): Promise<Machine<F>> {
    if (o.confine) throw new Error('Cannot confine the machine: this host has no processes of their own for machines');
    const image = o.kernel === undefined || o.image !== undefined ? await host.image(o.image) : undefined;
    const bytes = async (file: string | Uint8Array | undefined): Promise<Uint8Array | undefined> =>
      typeof file === 'string' ? host.readFile(file) : file;
    const ours = image !== undefined && o.initrd === undefined;
    const opened = await host.devices(o, ours);
    const agent = ours ? undefined : new GuestAgent(host);
    const devices = agent ? withAgent(opened, agent) : opened;
    try {
      const kernel = (await bytes(o.kernel)) ?? image!.kernel;
      const initrd = (await bytes(o.initrd)) ?? image?.initrd;
      const overlay = ours ? sessionOverlay({ ...devices.session, commands: true }) : undefined;
      const files: KernelFiles = {
        kernel,
        name: typeof o.kernel === 'string' ? o.kernel : (image?.name ?? 'kernel'),
        ...(o.kernel === undefined && image?.vmlinux ? { vmlinux: image.vmlinux } : {}),
        ...(initrd ? { initrd: overlay ? concatenate([initrd, overlay]) : initrd } : {}),
        append: image ? [image.append, o.append ?? ''].join(' ').trim() : (o.append ?? APPEND),
      };
      return new Machine(host, o, files, devices, agent, restored);
    } catch (error) {
      await devices.close();
      throw error;
    }
  }

  /** `running`, `paused`, `ended`, …. */
  get status(): RunningMachine['status'] {
    return this.#machine.status;
  }
  /** What runs the vCPUs. */
  get accel(): 'dbt' | 'kvm' {
    return this.#machine.accel;
  }
  /** Moves the running guest to another accelerator. */
  async setAccel(accel: 'dbt' | 'kvm'): Promise<void> {
    await this.#machine.setAccel(accel);
  }
  /** Resolves when the guest takes commands: an image's userspace is up, or another guest's qemu-guest-agent. */
  get ready(): Promise<void> {
    return (this.#agent ?? this.#commands).ready;
  }
  /**
   * Runs a shell script in a guest of an image, or in one that runs qemu-guest-agent; one at a time, in the order of the calls. Rejects when
   * the machine ends before it, or after `timeout` ms, which ends the script.
   */
  exec(script: string, o: { readonly timeout?: number } = {}): Promise<CommandResult> {
    return this.#agent ? this.#agent.run(script, o) : this.#commands.run(script, o.timeout);
  }
  async pause(): Promise<void> {
    await this.#machine.pause();
  }
  resume(): void {
    this.#machine.resume();
  }
  /** As the reset button. */
  reset(): void {
    this.#machine.reset();
  }
  /** Presses the power button. */
  powerButton(): void {
    this.#machine.powerButton();
  }
  /** The machine as it is at this moment. It stands still for as long as that takes, and goes on. No command may be running. */
  async snapshot(): Promise<Snapshot<F>> {
    if ((this.#agent ?? this.#commands).busy)
      throw new Error('Cannot take a snapshot while a command of `exec` runs: its result would be lost');
    const running = this.#machine.status === 'running';
    if (running) await this.#machine.pause();
    try {
      return new Snapshot(this.#host, this.#machine.freeze(), this.#options);
    } finally {
      if (running) this.#machine.resume();
    }
  }
  /** A second machine that goes on from here. Disks are not copied: they must be read-only or have `snapshot`. */
  async fork(): Promise<Machine<F>> {
    refuseToFork(this.#options);
    const snapshot = await this.snapshot();
    try {
      return await Machine.restore(this.#host, snapshot);
    } finally {
      snapshot.close();
    }
  }
  on<E extends keyof MachineEvents>(event: E, listener: MachineEvents[E]): void {
    this.#listeners[event].add(listener);
  }
  off<E extends keyof MachineEvents>(event: E, listener: MachineEvents[E]): void {
    this.#listeners[event].delete(listener);
  }
  /** Ends the machine at once; resolves when its threads are gone and its disks are closed. */
  async close(): Promise<MachineEnd> {
    this.#machine.quit();
    return this.ended;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** All that the guest has sent on its output channels has been received. */
  async #carried(): Promise<void> {
    const { uarts } = this.#machine.board;
    while (this.#machine.status !== 'ended' && [1, 2].some((n) => uarts[n]!.output.available > 0)) await this.#host.sleep(1);
    await this.#host.sleep(0);
  }
}
