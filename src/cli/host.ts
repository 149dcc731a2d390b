// What the commands need of the host that runs them; host/node implements it, tests bring their own.

import type { Folder, FolderOptions } from '../devices/ninep/folder.ts';
import type { DiskHost } from '../disk/open.ts';
import type { Vnc, VncServer, VncServerOptions } from '../display/vnc.ts';
import type { Report } from '../images/report.ts';
import type { KernelFiles, MachineSetup, RunningMachine } from '../machine/running.ts';
import type { EmulatorHost } from '../monitor/emulator.ts';
import type { NetBackend } from '../net/backend.ts';
import type { RpcClient } from '../rpc/client.ts';
import type { KvmFinding } from './accel.ts';
import type { DaemonSettings } from './daemon.ts';
import type { BarStream } from './progress.ts';
import type { Grant, Sandbox } from './sandbox.ts';
import type { WebSettings } from './web.ts';

/** A kernel and initramfs that are ready to boot. */
export interface BootFiles {
  readonly kernel: Uint8Array;
  readonly name: string;
  readonly initrd?: Uint8Array;
  readonly vmlinux?: KernelFiles['vmlinux'];
  readonly append: string;
}

/** One line of `nonroot images`. */
export interface ImageLine {
  readonly name: string;
  readonly description: string;
  readonly arch: string;
  /** Versions of its packages; undefined when it has to be fetched first. */
  readonly packages?: readonly string[];
}

/** Where a program writes bytes. */
export interface Output {
  readonly isTTY: boolean;
  /** Resolves when more can be taken. After the reader is gone, bytes are dropped and `broken` was called. */
  write(data: Uint8Array | string): Promise<void>;
}

/** The terminal, or the pipe or file, on standard input. */
export interface Input {
  readonly isTTY: boolean;
  /** Takes it: raw mode on a terminal. `close` gives it back. */
  open(listener: InputListener): { readonly close: () => void };
}
export interface TerminalSize {
  readonly rows: number;
  readonly cols: number;
}
export interface InputListener {
  readonly input: (bytes: Uint8Array) => void;
  readonly end?: () => void;
  readonly resize?: (size: TerminalSize) => void;
}

/** Signals that a user or a service manager sends. */
export type HostSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP';

/** What every program needs. */
export interface ProgramHost {
  readonly version: string;
  readonly out: Output;
  readonly err: Output;
  readonly input: Input;
  /** Where the progress bar is drawn. */
  readonly bar: BarStream;
  readonly term: string | undefined;
  /** Where disk images are. */
  readonly disks: DiskHost;
  /** Size of the terminal on standard output. */
  size(): TerminalSize | undefined;
  /**
   * A whole file.
   * @throws Error (rejects) with one line
   */
  readFile(path: string): Promise<Uint8Array>;
  /**
   * A kernel's file, as much of it as is needed at once.
   * @throws Error (rejects) with one line
   */
  readKernel(path: string): Promise<Pick<KernelFiles, 'kernel' | 'identity' | 'complete'>>;
  /**
   * An initramfs, which a regular file is read into the guest's memory from.
   * @throws Error (rejects) with one line
   */
  readInitrd(path: string): Promise<NonNullable<KernelFiles['initrd']>>;
  /** Opens a file for writing from its beginning. */
  writer(path: string): Promise<(data: Uint8Array | string) => Promise<void>>;
  writeFile(path: string, text: string): Promise<void>;
  removeFile(path: string): Promise<void>;
  readonly pid: number;
  /** A path of the host in full. */
  absolute(path: string): string;
  /** Firmware by its name or path: from `folders`, from what is installed, or fetched. */
  firmware(name: string, folders: readonly string[], report: Report): Promise<Uint8Array>;
  /** Starts a VNC server. */
  startVnc(o: VncServerOptions): Promise<VncServer>;
  /** A folder to share. */
  folder(path: string, options: FolderOptions): Promise<Folder>;
  machine(setup: MachineSetup): RunningMachine;
  /** Looks at this host's KVM; for a `trial`, which tells whether it is good, a short program runs on it. */
  kvm(trial: boolean): KvmFinding;
  /** Called on a signal, and (with SIGPIPE) when the reader of standard output is gone. */
  onSignal(listener: (signal: HostSignal | 'SIGPIPE') => void): void;
  /** Takes rights from the process, for good; throws where that cannot be done here. */
  confine(kept: Sandbox): void;
  /**
   * Before `confine`: starts the program anew, without what it could only have been started without. With `files`, it reaches nothing
   * but these and its own. Returns in the process that this has started. Throws where it cannot be done here.
   */
  prepareToConfine(files: (() => Promise<readonly Grant[]>) | undefined): Promise<void>;
  readonly base64: (bytes: Uint8Array) => string;
  readonly fromBase64: (text: string) => Uint8Array;
  /** Milliseconds, monotonic. */
  now(): number;
  after(ms: number, action: () => void): { cancel(): void };
}

/** What `nonroot` and `nonrootd` need besides. */
export interface CliHost extends ProgramHost {
  /** An image by name, fetched when the cache has it not. */
  image(name: string, report: Report): Promise<BootFiles>;
  pull(name: string, report: Report): Promise<ImageLine>;
  images(): Promise<readonly ImageLine[]>;
  /** A connection to a daemon: by its URI, else by NONROOT_URI, else at the usual socket. */
  libvirt(uri: string | undefined): Promise<RpcClient>;
  /** Serves as the management daemon, or starts one in the background; `argv` is what the settings were read from. */
  daemon(settings: DaemonSettings, argv: readonly string[]): Promise<number>;
  /** Serves the page, at this address. */
  web(settings: WebSettings): Promise<{ readonly url: string; close(): Promise<void> }>;
  /** A user-mode network with these `hostfwd=` rules; rejects where the host refuses one. */
  userNet(forwards: readonly string[]): Promise<{ readonly port: NetBackend; close(): Promise<void> }>;
  /** Serves a page that shows a VNC server's display, on this machine. */
  webDisplay(vnc: Vnc): Promise<{ readonly url: string; close(): Promise<void> }>;
}

/** What the emulator's program needs besides. */
export interface SystemHost extends ProgramHost {
  /** Folders and files in which VNC's SASL looks for its settings and users. */
  saslFiles(): readonly string[];
  /** This process is the one that `daemonize` has started. */
  readonly isDaemon: boolean;
  /** Starts this command line again in the background and waits until it is ready; the exit code. */
  daemonize(): Promise<number>;
  /** Everything listens: whoever started a daemon may go on. */
  ready(): void;
  emulator(o: { readonly log: (text: string) => void; readonly namedFd: (name: string) => number | undefined }): EmulatorHost;
}
