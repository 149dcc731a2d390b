// Takes rights from this process for good: a seccomp filter on all its threads, and Landlock rules under which it starts anew.
// Linux: Documentation/userspace-api/{seccomp_filter,landlock}.rst, include/uapi/linux/landlock.h.

import { closeSync, constants, fstatSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Access, Grant, Sandbox } from '../../cli/sandbox.ts';
import { loadKoffi } from './koffi.ts';
import { filterProgram, isProcessor, type Processor, type Refusal, refusals, rings } from './seccomp.ts';

type Func = (...args: unknown[]) => number;
interface Koffi {
  load(path: string): { func(signature: string): Func };
  address(view: Uint8Array): bigint;
  errno(): number;
}

const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_SET_MODE_FILTER = 1;
const SECCOMP_FILTER_FLAG_TSYNC = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const O_PATH = 0o10000000;
/** Numbers of system calls that libc has no functions for; the last three are the same on all processors. */
const SECCOMP = { x64: 317, arm64: 277 } as const;
const LANDLOCK_CREATE_RULESET = 444;
const LANDLOCK_ADD_RULE = 445;
const LANDLOCK_RESTRICT_SELF = 446;
const LANDLOCK_CREATE_RULESET_VERSION = 1;
const LANDLOCK_RULE_PATH_BENEATH = 1;

interface Calls {
  readonly processor: Processor;
  readonly koffi: Koffi;
  readonly syscall: Func;
  readonly prctl: Func;
  readonly fcntl: Func;
  readonly execve: Func;
}

/** Throws Error, with the reason, where this process cannot make such calls. */
function calls(): Calls {
  if (process.platform !== 'linux') throw new Error(`this system is ${process.platform}, accepted is Linux`);
  const processor = process.arch;
  if (!isProcessor(processor)) throw new Error(`this processor is ${processor}, accepted are x64 and arm64`);
  let koffi: Koffi;
  try {
    koffi = loadKoffi<Koffi>();
  } catch (error) {
    throw new Error(`the package koffi does not load here (${(error as Error).message.split('\n')[0]})`);
  }
  const c = koffi.load('libc.so.6');
  return {
    processor,
    koffi,
    syscall: c.func('int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f)'),
    prctl: c.func('int prctl(int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d)'),
    fcntl: c.func('int fcntl(int fd, int command, int64_t argument)'),
    execve: c.func('int execve(const char *path, const char **argv, const char **envp)'),
  };
}

function cannot(what: string, why: unknown): Error {
  return new Error(`Cannot confine the process (${what}): ${why instanceof Error ? why.message : String(why)}`);
}

/**
 * True where libuv has made rings (io_uring): it made them when this process started, does not do without them then, and what goes
 * through them no filter sees. It makes none where the kernel says that there is no such thing.
 */
function hasRings(): boolean {
  if (process.platform !== 'linux') return false;
  return readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[io_uring]';
    } catch {
      return false;
    }
  });
}

/** A filter for this thread, or with the flag for all. */
function install(list: readonly Refusal[], flags: number, { processor, koffi, syscall, prctl }: Calls): void {
  const program = filterProgram(list, processor);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) throw new Error(`the kernel has no no_new_privs (error ${koffi.errno()})`);
  // struct sock_fprog: instructions, and where they are.
  const description = new BigUint64Array([BigInt(program.length / 8), koffi.address(program)]);
  const at = koffi.address(new Uint8Array(description.buffer));
  const got = Number(syscall(SECCOMP[processor], SECCOMP_SET_MODE_FILTER, flags, at, 0, 0, 0));
  if (got > 0) throw new Error(`thread ${got} has a filter of its own`);
  if (got < 0)
    throw new Error(`the kernel refuses the filter (error ${koffi.errno()}); accepted is Linux 3.17 or newer with seccomp`);
}

/**
 * Installs the filter on every thread of the process; those to come inherit it. There is no way back.
 * @throws Error, one line, where it cannot be installed
 */
export function confine(kept: Sandbox): void {
  try {
    const all = calls();
    if (hasRings()) throw new Error('it has io_uring rings, through which calls would not be seen');
    install(refusals(kept, process.pid), SECCOMP_FILTER_FLAG_TSYNC, all);
  } catch (error) {
    throw cannot('seccomp', error);
  }
}

// LANDLOCK_ACCESS_FS_*, by the version of the interface that brought them.
const EXECUTE = 1n << 0n;
const WRITE_FILE = 1n << 1n;
const READ_FILE = 1n << 2n;
const READ_DIR = 1n << 3n;
const MAKE_SOCK = 1n << 9n;
const TRUNCATE = 1n << 14n;
const IOCTL_DEV = 1n << 15n;
/** All rights of version n at index n. */
const versions = [0n, (1n << 13n) - 1n, (1n << 14n) - 1n, (1n << 15n) - 1n, (1n << 15n) - 1n, (1n << 16n) - 1n] as const;
/** What a rule about a file, not a folder, may have. */
const OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

const rights: Readonly<Record<Access, bigint>> = {
  read: READ_FILE | READ_DIR,
  write: READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV,
  run: READ_FILE | READ_DIR | EXECUTE,
  create: READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV,
  socket: MAKE_SOCK,
  folder: versions.at(-1)!,
};

/** Names the descriptor on which a process in the background says that it is ready. */
export const READY = 'NONROOT_READY_FD';
/** Says how the process has been started by `restart`. */
const MARK = 'NONROOT_CONFINED';

/** Begins the name of a variable of a file that came as a descriptor: its number follows, and the value is "read:PATH" or "write:PATH". */
const HELD = 'NONROOT_FILE_';

/** A file that was opened before the process was confined. */
export interface HeldFile {
  readonly path: string;
  readonly fd: number;
  readonly write: boolean;
}

/**
 * Opens a file or block device for what it is granted for: for reading always, since readers and the writer of an image have descriptors of their
 * own (and locks). Undefined where it is neither, or cannot be opened: then who opens it by its path is told why.
 */
function hold({ path, access }: Grant): HeldFile[] | undefined {
  const held: HeldFile[] = [];
  try {
    for (const write of access === 'write' ? [false, true] : [false]) {
      const fd = openSync(path, (write ? constants.O_RDWR : constants.O_RDONLY) | constants.O_NONBLOCK | constants.O_NOCTTY);
      held.push({ path, fd, write });
      const status = fstatSync(fd);
      if (!status.isFile() && !status.isBlockDevice()) throw new Error('it is neither a file nor a block device');
    }
    return held;
  } catch {
    for (const { fd } of held) closeSync(fd);
    return undefined;
  }
}

/** The files that came with `restart`, which are this process's from here on and not those of programs that it starts. */
export function heldFiles(): HeldFile[] {
  const files = Object.entries(process.env).flatMap(([name, value]): HeldFile[] => {
    const fd = name.startsWith(HELD) ? Number(name.slice(HELD.length)) : undefined;
    if (fd === undefined) return [];
    delete process.env[name];
    const [, access, path] = /^(read|write):(.*)$/s.exec(value ?? '') ?? [];
    return path === undefined ? [] : [{ path, fd, write: access === 'write' }];
  });
  if (files.length > 0) {
    const { fcntl } = calls();
    for (const { fd } of files) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  return files;
}

/** Descriptors that the command line names. */
export const namedDescriptors = (): number[] =>
  process.argv.flatMap((text) => [...text.matchAll(/(?:^|[,{"])"?(?:fd|vhostfd)"?[:=]"?(\d+)/g)].map((m) => Number(m[1])));

/**
 * The start without rings at once, before the program is loaded, where the command line asks for nothing else; what cannot be done is
 * told later.
 */
export function restartEarly(words: readonly string[]): void {
  const at = words.findIndex((w) => /^--?sandbox$/.test(w));
  const inBackground = process.env[READY] !== undefined;
  if (at < 0 || process.env[MARK] !== undefined || (words.some((w) => /^--?daemonize$/.test(w)) && !inBackground)) return;
  if (!/^(on|enable=on)(,|$)/.test(words[at + 1] ?? '') || words[at + 1]!.includes('files=')) return;
  try {
    restart(undefined);
  } catch {}
}

/** Whether this start only finds out which files the next one is confined to. */
export function restartsLater(words: readonly string[]): boolean {
  const asked = words[words.findIndex((w) => /^--?sandbox$/.test(w)) + 1] ?? '';
  return process.env[MARK] === undefined && /^(on|enable=on)(,|$)/.test(asked) && /(^|,)files=deny(,|$)/.test(asked);
}

/** Whether a program that confines itself has yet to start anew. */
export const startsAgain = (): boolean => process.env[MARK] === undefined;

/** True in the process that `restart` has started. Throws where its rules do not hold. */
export function isRestarted(): boolean {
  const mark = process.env[MARK];
  if (mark === undefined) return false;
  delete process.env[MARK];
  if (mark === 'files' && canList('/')) throw cannot('files', `${MARK} is set, but the process is not confined`);
  return true;
}

function canList(folder: string): boolean {
  try {
    readdirSync(folder);
    return true;
  } catch {
    return false;
  }
}

/** Whether the kernel confines processes to files (Linux 5.13 and newer, where it is switched on). */
export function hasLandlock(): boolean {
  try {
    return landlockVersion(calls()) >= 1;
  } catch {
    return false;
  }
}
const landlockVersion = ({ syscall }: Calls): number =>
  Number(syscall(LANDLOCK_CREATE_RULESET, 0, 0, LANDLOCK_CREATE_RULESET_VERSION, 0, 0, 0));

/** Rules under which this thread, and what it executes, reaches `grants` and nothing else. Paths that are not there are left out. */
function restrict(grants: readonly Grant[], all: Calls): void {
  const { koffi, syscall, prctl } = all;
  const version = landlockVersion(all);
  if (version < 1)
    throw new Error(`the kernel has no Landlock (error ${koffi.errno()}); accepted is Linux 5.13 or newer with it`);
  const handled = versions[Math.min(version, versions.length - 1)]!;
  const attributes = new BigUint64Array([handled]);
  const ruleset = Number(
    syscall(LANDLOCK_CREATE_RULESET, koffi.address(new Uint8Array(attributes.buffer)), attributes.byteLength, 0, 0, 0, 0),
  );
  if (ruleset < 0) throw new Error(`the kernel refuses the rules (error ${koffi.errno()})`);
  for (const { path, access } of grants) {
    let fd: number;
    try {
      fd = openSync(access === 'socket' ? dirname(path) : path, O_PATH);
    } catch {
      continue;
    }
    const allowed = rights[access] & handled & (fstatSync(fd).isDirectory() ? -1n : OF_FILES);
    // struct landlock_path_beneath_attr, packed: 8 bytes of rights, 4 of the descriptor.
    const rule = new DataView(new ArrayBuffer(12));
    rule.setBigUint64(0, allowed, true);
    rule.setInt32(8, fd, true);
    const at = koffi.address(new Uint8Array(rule.buffer));
    const failed = Number(syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, at, 0, 0, 0)) < 0;
    closeSync(fd);
    if (failed) throw new Error(`the kernel refuses a rule about ${path} (error ${koffi.errno()})`);
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) throw new Error(`the kernel has no no_new_privs (error ${koffi.errno()})`);
  if (Number(syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0, 0, 0, 0, 0)) < 0)
    throw new Error(`the kernel does not take the rules (error ${koffi.errno()})`);
}

/**
 * Starts this program anew, with the same number and arguments, without rings (io_uring) and, where `grants` are given, so that it reaches nothing
 * else: rules of Landlock hold for the thread that makes them and what it starts, and Node has made its threads long ago. Descriptors
 * that the command line names stay open, and so do files that `grants` has as held. Does not return.
 * @throws Error, one line, where it cannot be done
 */
export function restart(grants: readonly Grant[] | undefined): never {
  try {
    const all = calls();
    const { koffi, fcntl, execve } = all;
    const held = (grants ?? []).map((grant) => (grant.held ? hold(grant) : undefined));
    const files = held.flatMap((list) => list ?? []);
    if (grants) restrict(grants.filter((_, n) => !held[n]), all); // biome-ignore format: one line
    // What this thread executes is filtered like it.
    install(rings, 0, all);
    const ready = process.env[READY];
    for (const fd of [0, 1, 2, ...namedDescriptors(), ...(ready ? [Number(ready)] : []), ...files.map((f) => f.fd)])
      fcntl(fd, F_SETFD, 0);
    const others = Object.entries(process.env).filter(([name]) => !name.startsWith(HELD));
    const named = files.map(({ path, fd, write }) => [`${HELD}${fd}`, `${write ? 'write' : 'read'}:${path}`] as const);
    const env = { ...Object.fromEntries([...others, ...named]), [MARK]: grants ? 'files' : 'rings' };
    const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
    execve(process.execPath, [...words, null], [...Object.entries(env).map(([k, v]) => `${k}=${v}`), null]);
    throw new Error(`the program cannot be started again (error ${koffi.errno()})`);
  } catch (error) {
    throw cannot(grants ? 'files' : 'seccomp', error);
  }
}
