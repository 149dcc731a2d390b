// The daemon's processes: emulators that outlive it, tools that it runs, what /proc says of both. proc(5), setsid(2).

import { spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import type { Processes, ProcessId, ProcessUsage, Spawn } from '../../daemon/host.ts';

/** Clock ticks a second: the kernel's ABI has 100 on every machine that Node runs on. */
const ticks = 100;
const pageKib = 4;

function readProc(path: string): string | undefined {
  try {
    return readFileSync(`/proc/${path}`, 'utf8');
  } catch {
    return undefined;
  }
}

/** The fields of a stat file behind the name, which may hold spaces and parentheses; the first is the state. */
function statFields(path: string): readonly string[] | undefined {
  const text = readProc(`${path}/stat`);
  return text?.slice(text.lastIndexOf(')') + 2).split(' ');
}

/** Field numbers behind the name, from proc(5). */
const field = { state: 0, utime: 11, stime: 12, start: 19, rss: 21, cpu: 36 } as const;

function alive({ pid, started }: ProcessId): boolean {
  const fields = statFields(String(pid));
  return fields !== undefined && fields[field.state] !== 'Z' && fields[field.start] === started;
}

const startOf = (pid: number): string => statFields(String(pid))?.[field.start] ?? '';

function usage(pid: number, thread?: number): ProcessUsage | undefined {
  const fields = statFields(thread === undefined ? String(pid) : `${pid}/task/${thread}`);
  if (fields === undefined) return undefined;
  const ns = (at: number): number => (Number(fields[at]) * 1_000_000_000) / ticks;
  return {
    user: ns(field.utime),
    system: ns(field.stime),
    resident: Number(fields[field.rss]) * pageKib,
    cpu: Number(fields[field.cpu]),
  };
}

function start(what: Spawn): Promise<ProcessId> {
  const log = openSync(what.log, 'a', 0o600);
  try {
    const child = spawn(what.path, [...what.args], {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...what.environment },
      cwd: what.directory,
      ...(what.user && { uid: what.user.uid, gid: what.user.gid }),
    });
    child.unref();
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('spawn', () => resolve({ pid: child.pid!, started: startOf(child.pid!) }));
    });
  } finally {
    closeSync(log);
  }
}

function run(path: string, args: readonly string[], input?: string): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(path, [...args], { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, LC_ALL: 'C' } });
    const parts: Record<'out' | 'err', Buffer[]> = { out: [], err: [] };
    child.stdout.on('data', (b: Buffer) => parts.out.push(b));
    child.stderr.on('data', (b: Buffer) => parts.err.push(b));
    child.stdin.on('error', () => {});
    child.stdin.end(input ?? '');
    child.once('error', reject);
    child.once('close', (code) => {
      resolve({ code: code ?? -1, out: Buffer.concat(parts.out).toString(), err: Buffer.concat(parts.err).toString() });
    });
  });
}

/** A list as the kernel writes it: `0-3,7`. */
export const parseCpuList = (text: string): number[] =>
  text
    .trim()
    .split(',')
    .filter((part) => part !== '')
    .flatMap((part) => {
      const [from = 0, to = from] = part.split('-').map(Number);
      return Array.from({ length: to - from + 1 }, (_, i) => from + i);
    });

export const nodeProcesses: Processes = {
  spawn: start,
  run,
  pipe(path, args) {
    const child = spawn(path, [...args], { stdio: ['pipe', 'pipe', 'pipe'], env: { LC_ALL: 'C', PATH: process.env['PATH'] } });
    let err = '';
    child.stderr.on('data', (b: Buffer) => (err += b.toString()));
    const ended = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('close', () => resolve(err));
    });
    child.stdin.on('error', () => {});
    return {
      ended,
      duplex: {
        input: child.stdout,
        write: (bytes) => void child.stdin.write(bytes),
        close() {
          child.stdin.end();
          child.kill('SIGTERM');
        },
      },
    };
  },
  alive,
  kill(which, signal) {
    if (!alive(which)) return;
    try {
      process.kill(which.pid, signal);
    } catch {
      // It ended just now.
    }
  },
  async gone(which, ms) {
    const end = Date.now() + ms;
    for (let pause = 5; alive(which); pause = Math.min(pause * 2, 100)) {
      if (Date.now() >= end) return false;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    return true;
  },
  usage,
  delay: (pid, thread) => Number(readProc(`${pid}/task/${thread}/schedstat`)?.split(' ')[1] ?? 0),
  find(text) {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    return pids.flatMap((name) => {
      if (Number(name) === process.pid || !readProc(`${name}/cmdline`)?.includes(text)) return [];
      const started = startOf(Number(name));
      return started === '' ? [] : [{ pid: Number(name), started }];
    });
  },
  affinity: (thread) => parseCpuList(/^Cpus_allowed_list:\s*(.*)$/m.exec(readProc(`${thread}/status`) ?? '')?.[1] ?? ''),
  async setAffinity(thread, cpus) {
    const { code } = await run('taskset', ['-p', '-c', cpus.join(','), String(thread)]).catch(() => ({ code: 1 }));
    return code === 0;
  },
};
