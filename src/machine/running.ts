// A machine as whoever runs it sees it: what it is made of, what can be asked of it, and how it ends. Hosts implement this;
// the command lines, the monitor and the TypeScript API are written against it.

import type { ExitCount, ExitName } from '../accel/kvm/counters.ts';
import type { ImageFile } from '../firmware/target.ts';
import type { Backends } from './backends.ts';
import type { Board } from './board.ts';
import type { MachineConfig, MachineEvent } from './config.ts';
import type { DeviceTree } from './device-tree.ts';
import type { DeviceConfig } from './device-type.ts';
import type { NoticeListener, ShutdownReason } from './notices.ts';
import type { DirtyLog } from './snapshot/stream.ts';

/** What is loaded directly. */
export interface KernelFiles {
  readonly kernel: Uint8Array;
  /** The kernel file's name: the first word of a multiboot kernel's command line. */
  readonly name: string;
  /** Bytes, or a file that is read straight into the guest's memory, at each start. */
  readonly initrd?: Uint8Array | ImageFile;
  readonly append: string;
  /** Says which file of the host the kernel is, as it was when it was read: see `ProgramHost.identity`. */
  readonly identity?: string | undefined;
  /**
   * Reads what of `kernel` is not there yet, where only its beginning (a bzImage's header and setup code) was read.
   * @throws one line where the file is another one meanwhile
   */
  readonly complete?: () => void;
  /** The kernel's decompressed ELF, where the caller has it already; asked for at each start, and closed. */
  readonly vmlinux?: () => ImageFile | undefined;
}

/** Contents of the firmware, of the sizes that the configuration tells. */
export interface FirmwareImages {
  readonly rom?: Uint8Array;
  readonly flash?: readonly FlashImage[];
  /** Expansion ROMs by file name. */
  readonly roms?: ReadonlyMap<string, Uint8Array>;
  /** Files for the firmware by their fw_cfg names. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
}
export interface FlashImage {
  readonly bytes: Uint8Array;
  /** Keeps bytes that the guest has changed; none for flash that is read-only. */
  readonly save?: (offset: number, bytes: Uint8Array) => Promise<void>;
}

/** Everything that a machine is made from. */
export interface MachineSetup {
  readonly config: MachineConfig;
  /** What is started directly; a machine with firmware may do without. */
  readonly files?: KernelFiles;
  readonly firmware?: FirmwareImages;
  /**
   * Takes bytes that the guest sends on serial port n (0–3). While a returned promise is pending, the guest's transmitter on that
   * port is busy: nothing is dropped.
   */
  readonly serial: (port: number, bytes: Uint8Array) => void | Promise<void>;
  /** One line on what a device found, for the log. */
  readonly report: (device: string, message: string) => void;
  /** A reset of the guest ends the machine instead of starting it again. */
  readonly noReboot: boolean;
  /** Asked, after all output was carried, before a reset or triple fault starts the guest again; false ends the machine. */
  readonly mayRestart?: (why: MachineEvent) => boolean;
  /** The guest starts again. */
  readonly restarted?: (why: MachineEvent) => void;
  /** The guest's kernel says that it has crashed, or that another takes over after a crash. */
  readonly panicked?: (what: 'panicked' | 'crashLoaded') => void;
  /** When the guest powers off, the machine stays, stopped, until it is reset or ended. */
  readonly noShutdown?: boolean;
  /** What the devices' back-ends are looked up in, by name. */
  readonly backends?: Backends;
  /** Memory and state come from a saved machine: nothing is loaded until the guest is reset. */
  readonly restored?: boolean;
  /** The machine is to be frozen soon: its memory is put where that costs little. */
  readonly shareable?: boolean;
}

/** How a machine came to its end. */
export type MachineEnd = MachineEvent | { readonly kind: 'quit' } | { readonly kind: 'failed'; readonly message: string };

/** Whether the guest runs. `prelaunch`: not started yet; `suspended`: it sleeps (S3); `shutdown`: powered off and kept by `noShutdown`. */
export type MachineStatus = 'prelaunch' | 'running' | 'paused' | 'suspended' | 'shutdown' | 'ended';

export interface LiveOptions {
  /** ms that the guest may stand still. */
  readonly downtime: () => number;
  /** A pass over memory begins, from 1; `left` is what it has to give, in bytes. */
  readonly pass?: (pass: number, left: number) => void;
  /** Called before the machine is held. */
  readonly switchover?: () => Promise<void> | void;
}

/** One machine. What is asked of a machine that has ended does nothing. */
export interface RunningMachine {
  /** One line on the kernel that was loaded. */
  readonly kernelLine: string;
  readonly status: MachineStatus;
  /** Possible vCPUs; those that are there are `board.cpus`. */
  readonly cpus: number;
  /** Instructions that the vCPUs retired, as far as they are counted; complete once the machine has ended. */
  readonly instructions: number;
  /** Resolves once, when everything that the guest sent was carried and all threads are gone. */
  readonly ended: Promise<MachineEnd>;
  /** The board as the I/O thread sees it; to look at. */
  readonly board: Board;
  /** Does something while all vCPUs stand still; nobody is told, and the guest's clock goes on. */
  hold<T>(action: () => T): Promise<T>;
  /** The devices beside the board's own chips; to look at, change them by `deviceAdd` and `deviceDel`. */
  readonly devices: DeviceTree;
  readonly backends: Backends;
  /** Hears what monitors are told; what it returns ends that. */
  subscribe(listener: NoticeListener): () => void;
  /** Adds a device; the guest may run. Rejects, with nothing changed, for what cannot be used. */
  deviceAdd(config: DeviceConfig): Promise<void>;
  /**
   * Removes a device, by id or path: at once, or, where its bus has the guest let go of it first, at some later time. DEVICE_DELETED
   * tells when it is gone.
   */
  deviceDel(id: string): Promise<void>;
  /** Brings the vCPUs of a machine that was not started before their first instruction, for those who look at their state. */
  prepare(): Promise<void>;
  /** Starts the guest; a second call does nothing. */
  start(): void;
  /** Holds all vCPUs and the guest's clock; resolves when they stand still. */
  pause(): Promise<void>;
  /** Goes on after `pause`; starts a machine that was not started. */
  resume(): void;
  /** The guest's clock, in ns since it was started. */
  clock(): number;
  /** The state of the machine, which must be held, as a stream of bytes: see snapshot/format.ts. */
  saveState(): AsyncIterable<Uint8Array>;
  /**
   * The same while the guest runs on: memory is given again and again until what is left can be given in `downtime` ms at the speed that the
   * taker shows; then the machine is held and the rest is given. It stays held. Ending the iteration early leaves the guest running.
   */
  liveState(o: LiveOptions): AsyncIterable<Uint8Array>;
  /** Begins to note which pages are written; whoever else does so is not disturbed. */
  logDirty(): Promise<DirtyLog>;
  /** Reads the beginning of a saved state, and rejects where this machine, with what runs its vCPUs now, cannot take it over. Nothing is changed. */
  checkState(chunks: AsyncIterable<Uint8Array>): Promise<void>;
  /**
   * Takes over the state that `saveState` of a machine of the same make gave; this one must be held or not started. Rejects for anything else: with
   * nothing changed for what `checkState` refuses, and the machine must not go on after the rest.
   */
  loadState(chunks: AsyncIterable<Uint8Array>): Promise<void>;
  /** What runs the vCPUs now. */
  readonly accel: 'dbt' | 'kvm';
  /** Changes it; the guest may run and does not notice. Rejects, with the guest as it was, where this host has not what is asked for. */
  setAccel(accel: 'dbt' | 'kvm'): Promise<void>;
  /** As the reset button. */
  reset(): void;
  /** Presses the power button: a guest that listens to ACPI shuts down. */
  powerButton(): void;
  /** Ends the sleep of a guest that is `suspended`. */
  wakeup(): void;
  /** Ends the machine at once; `reason` is for monitors. */
  quit(reason?: ShutdownReason): void;
  /** Gives bytes to serial port n (0–3), as fast as the guest takes them. */
  input(port: number, bytes: Uint8Array): void;
  /** A vCPU's state slots (isa/x86/state.ts), to read and write while the guest is held; `stateChanged` tells of writing. */
  vcpuState(cpu: number): DataView;
  stateChanged(): void;
  /** Hears that the guest was stopped by a vCPU that met what a debugger waits for. */
  onDebug(listener: (cpu: number) => void): () => void;
  /** Registers of a vCPU by name, 64 bits each, `rflags` among them. Exact only while the guest is held. */
  registers(cpu: number): Readonly<Record<string, bigint>>;
  /** What the translator has counted on a vCPU, one a line; undefined where there is no translator. */
  counters?(cpu: number): string;
  /** The exits of a vCPU on KVM, by reason; none where it never ran there. */
  exits(cpu: number): Partial<Record<ExitName, ExitCount>>;
}
