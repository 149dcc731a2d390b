// What the daemon needs of the host that it runs on: files, processes, sockets, terminals, facts. host/node implements it.
import type { DiskHost } from '../disk/open.ts';
import type { ScramDerivation } from '../rpc/scram.ts';
import type { ByteDuplex, Timers } from '../rpc/transport.ts';

export type FileKind = 'file' | 'directory' | 'block' | 'character' | 'socket' | 'other';

export interface FileStatus {
  readonly kind: FileKind;
  /** Of a device `major:minor`, otherwise `0:0`. */
  readonly device: string;
  /** Bytes; of a block device what it holds. */
  readonly size: number;
  /** Bytes that it takes on its file system. */
  readonly allocated: number;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970 with nine digits after the point. */
  readonly accessed: string;
  readonly modified: string;
  readonly changed: string;
  readonly born: string;
}

export type FileMode = 'read' | 'write' | 'create';

/** An open file of the host. */
export interface OpenFile {
  /** Up to `length` bytes at `offset`; fewer only at the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  truncate(size: number): Promise<void>;
  size(): Promise<number>;
  /** Waits until the storage has it. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface Files {
  /** Undefined for a file that is not there. */
  read(path: string): Promise<string | undefined>;
  /** Replaces the file at once: after a crash it holds the old or the new text, and all of it. */
  write(path: string, text: string | Uint8Array, mode?: number): Promise<void>;
  /** Removes a file, or nothing. */
  remove(path: string): Promise<void>;
  /** Removes a directory with all in it, or nothing. */
  removeTree(path: string): Promise<void>;
  removeDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Names in a directory, in order; none when it is not there. */
  list(path: string): Promise<readonly string[]>;
  makeDirectory(path: string, mode?: number): Promise<void>;
  status(path: string): Promise<FileStatus | undefined>;
  open(path: string, mode: FileMode | 'createNew'): Promise<OpenFile>;
  /** An open file as a descriptor, for somebody else; `close` gives up ours. */
  descriptor(path: string, mode: FileMode): Promise<{ readonly fd: number; close(): void }>;
  /** Makes a symbolic link, in the place of one that is there. */
  link(target: string, path: string): Promise<void>;
  space(path: string): Promise<{ readonly capacity: number; readonly available: number }>;
  /** Sets what is given. */
  change(path: string, what: { readonly mode?: number; readonly uid?: number; readonly gid?: number }): Promise<void>;
  /** The path without symbolic links; undefined when it is not there. */
  real(path: string): Promise<string | undefined>;
}

/** A process by its number and the moment of its start, which tells it from a later one with the same number. */
export interface ProcessId {
  readonly pid: number;
  readonly started: string;
}

export interface ProcessUsage {
  /** Nanoseconds. */
  readonly user: number;
  readonly system: number;
  /** KiB. */
  readonly resident: number;
  readonly cpu: number;
}

export interface Spawn {
  readonly path: string;
  readonly args: readonly string[];
  /** The whole environment. */
  readonly environment: Readonly<Record<string, string>>;
  /** Standard output and error are appended to it. */
  readonly log: string;
  readonly directory: string;
  readonly user?: { readonly uid: number; readonly gid: number };
}

export interface Processes {
  /** Starts a program in a session of its own, which outlives this one. @throws when it cannot be executed. */
  spawn(what: Spawn): Promise<ProcessId>;
  /** Runs a program to its end. */
  run(path: string, args: readonly string[], input?: string): Promise<{ code: number; out: string; err: string }>;
  /** A program whose input and output are a connection. */
  pipe(path: string, args: readonly string[]): { readonly duplex: ByteDuplex; readonly ended: Promise<string> };
  alive(process: ProcessId): boolean;
  kill(process: ProcessId, signal: 'SIGTERM' | 'SIGKILL'): void;
  /** Resolves when the process is gone, true, or after `ms`, false. */
  gone(process: ProcessId, ms: number): Promise<boolean>;
  /** Of a process or of one of its threads; undefined when it is gone. */
  usage(pid: number, thread?: number): ProcessUsage | undefined;
  /** Nanoseconds that a thread has waited for a CPU. */
  delay(pid: number, thread: number): number;
  /** Processes whose command line holds the text. */
  find(text: string): readonly ProcessId[];
  affinity(thread: number): readonly number[];
  /** False when the host does not allow it. */
  setAffinity(thread: number, cpus: readonly number[]): Promise<boolean>;
}

/** Who is at the other end of a connection. */
export interface ClientInfo {
  readonly transport: 'unix' | 'tcp' | 'tls';
  /** Address and port, for people. */
  readonly address: string;
  readonly readOnly: boolean;
  /** The distinguished name of a TLS client's certificate. */
  readonly distinguishedName?: string;
}

export interface Listener {
  readonly port: number;
  close(): void;
}

export interface TlsFiles {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

export interface Sockets {
  connect(path: string): Promise<ByteDuplex>;
  connectTcp(host: string, port: number, tls?: TlsFiles): Promise<ByteDuplex>;
  /** A connected stream as a descriptor, for somebody else; `close` gives up ours. */
  connectFd(
    to: { readonly path: string } | { readonly host: string; readonly port: number },
  ): Promise<{ readonly fd: number; close(): void }>;
  /** Listens on a unix socket; a stale one is replaced, one in use is refused. */
  listen(path: string, mode: number, accept: (duplex: ByteDuplex) => void): Promise<Listener>;
  listenTcp(
    host: string,
    port: number,
    accept: (duplex: ByteDuplex, client: ClientInfo) => void,
    tls?: TlsFiles,
  ): Promise<Listener>;
  /** A TCP port from `from` to `to` on which nobody listens and that was not handed out before it was asked for again. */
  freePort(from: number, to: number, taken: ReadonlySet<number>): Promise<number | undefined>;
  /** A connection to a terminal that another process has made. */
  terminal(path: string): Promise<ByteDuplex>;
  /** Takes a name for this process alone, until it ends. False when another has it. */
  claim(name: string): Promise<boolean>;
}

export interface CpuTimes {
  /** Nanoseconds. */
  readonly user: number;
  readonly kernel: number;
  readonly idle: number;
  readonly iowait: number;
}

/** What the processor says of itself. */
export interface CpuIdentity {
  /** The registers that CPUID answers with, as unsigned numbers. */
  cpuid(leaf: number, subleaf?: number): Readonly<Record<'eax' | 'ebx' | 'ecx' | 'edx', number>>;
  /** Undefined when the host does not let us read it. */
  msr(index: number): bigint | undefined;
  /** Of the time-stamp counter, in Hz, where KVM tells it. */
  readonly tsc?: { readonly frequency: number; readonly scaling: boolean };
}

/** Memory and CPUs that belong together. */
export interface HostCell {
  readonly id: number;
  /** KiB. */
  readonly memory: number;
  readonly free: number;
  /** Pages larger than the smallest, by their size in KiB. */
  readonly hugePages: readonly { readonly size: number; readonly count: number; readonly free: number }[];
  readonly distances: readonly { readonly id: number; readonly value: number }[];
  readonly cpus: readonly number[];
}

export interface HostCache {
  readonly id: number;
  readonly level: number;
  readonly type: 'both' | 'code' | 'data';
  /** KiB. */
  readonly size: number;
  /** As the kernel lists them: `0-3`. */
  readonly cpus: string;
}

export interface HostFacts {
  readonly arch: string;
  readonly uid: number;
  readonly hostname: string;
  /** Of the machine, from its firmware or made up once. */
  readonly uuid: string | undefined;
  readonly cpu: {
    readonly vendor: string;
    readonly family: number;
    readonly model: number;
    readonly stepping: number;
    readonly microcode: number;
    readonly mhz: number;
    readonly flags: readonly string[];
    readonly addressBits: number;
  };
  /** Undefined where programs cannot ask. */
  readonly identity: () => CpuIdentity | undefined;
  readonly topology: {
    readonly sockets: number;
    readonly dies: number;
    readonly cores: number;
    readonly threads: number;
  };
  readonly cpus: readonly {
    readonly id: number;
    readonly socket: number;
    readonly die: number;
    readonly core: number;
    /** Threads of the same core, as the kernel lists them. */
    readonly siblings: string;
    readonly online: boolean;
  }[];
  /** At least one, which has everything where the host tells of none. */
  readonly cells: () => readonly HostCell[];
  /** Of the third level and above. */
  readonly caches: () => readonly HostCache[];
  /** KiB; name by name as /proc/meminfo has it. */
  memory(): Readonly<Record<string, number>>;
  /** Of one CPU, or of all. */
  cpuTimes(cpu?: number): CpuTimes | undefined;
  readonly interfaces: () => Promise<readonly HostInterface[]>;
  readonly disks: () => Promise<readonly HostDisk[]>;
  readonly pci: () => Promise<readonly HostPci[]>;
  /** Receive and send counters of a network device. */
  readonly counters: (device: string) => Promise<readonly number[] | undefined>;
}

export interface HostInterface {
  readonly name: string;
  readonly mac: string;
  readonly up: boolean;
  readonly mtu: number;
  readonly speed?: number;
  readonly addresses: readonly { readonly family: 'ipv4' | 'ipv6'; readonly address: string; readonly prefix: number }[];
}
export interface HostDisk {
  readonly name: string;
  readonly size: number;
  readonly sectorSize: number;
}
export interface HostPci {
  readonly address: string;
  readonly class: number;
  readonly vendor: number;
  readonly device: number;
  readonly driver?: string;
}

export interface DaemonHost {
  readonly files: Files;
  readonly processes: Processes;
  readonly sockets: Sockets;
  readonly timers: Timers;
  readonly facts: HostFacts;
  readonly crypto: ScramDerivation;
  readonly disks: DiskHost;
  /** Milliseconds since 1970. */
  now(): number;
  /** One line for whoever runs the daemon. */
  log(line: string): void;
}

/** Resolves after `ms`. */
export const wait = (host: Pick<DaemonHost, 'timers'>, ms: number): Promise<void> =>
  new Promise((resolve) => host.timers.after(ms, resolve));
