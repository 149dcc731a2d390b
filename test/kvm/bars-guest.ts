// A guest of either emulator inside of the outer guest, from whose disk is read: what bars-inner.ts and reads-inner.ts have in common.

import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';

export type Who = 'nonroot' | 'qemu';
/** Longest wait for a guest, in ms. */
export const LIMIT = 150_000;
/** A block device that the outer script has made. */
const DISK = '/dev/loop0';
await writeFile(DISK, new Uint8Array(64 << 20).fill(7));
const MONITOR = '/tmp/monitor';
const append = (await readFile('/inner/append', 'utf8')).trim();
const words = (accel: string): string[] => [
  ...['-M', 'q35', '-accel', accel, '-cpu', 'max,-xsave', '-smp', '2', '-m', '192', '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
  ...['-serial', 'stdio', '-kernel', '/inner/kernel', '-initrd', '/inner/initrd', '-append', `${append} mitigations=off`],
  ...['-drive', `file=${DISK},format=raw,if=none,id=d`, '-device', 'virtio-blk-pci,drive=d'],
  ...['-monitor', `unix:${MONITOR},server=on,wait=off`],
]; // biome-ignore format: one command
/** As the launcher has it. */
const env = { ...process.env, MALLOC_ARENA_MAX: '2', GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1' };
const programs: Record<Who, readonly string[]> = {
  nonroot: [process.execPath, '--max-semi-space-size=2', 'dist/bin/nonroot-system-x86_64.cjs'],
  qemu: ['/usr/bin/qemu-system-x86_64'],
};
/** Starts one, with further words, which is silent where `silent`. */
export function startGuest(who: Who, accel: string, more: readonly string[] = [], silent = false): ChildProcess {
  const [program, ...args] = programs[who];
  return spawn(program!, [...args, ...words(accel), ...more], { stdio: ['pipe', silent ? 'ignore' : 'pipe', 'inherit'], env });
}
export async function end(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  if (child.exitCode === null && child.signalCode === null) await new Promise((resolve) => child.once('exit', resolve));
  await rm(MONITOR, { force: true });
}

/** What the monitor says to a command, once it has said `all` or `ms` are over; an error's message. */
export const monitor = (command: string, all: RegExp, ms: number): Promise<string> =>
  new Promise((resolve) => {
    let text = '';
    const socket = connect(MONITOR, () => socket.write(`${command}\n`));
    socket.on('data', (bytes) => {
      text += bytes.toString();
      if (all.test(text)) socket.destroy();
    });
    socket.on('error', (error) => resolve(error.message));
    socket.on('close', () => resolve(text));
    setTimeout(() => socket.destroy(), ms);
  });

/** Each thread of a process: its state, processor time in hundredths of a second, system call and the kernel's functions that it is in. */
function threads(pid: number): string {
  const of = (tid: string, name: string): string => {
    try {
      return readFileSync(`/proc/${pid}/task/${tid}/${name}`, 'latin1').trim();
    } catch {
      return '';
    }
  };
  const line = (tid: string): string => {
    const stat = of(tid, 'stat').replace(/^.*\) /, '').split(' ');
    const stack = of(tid, 'stack').replaceAll(/\[<0>\] |\+\S+/g, '').replaceAll('\n', ' < ');
    return `${tid} ${of(tid, 'comm')} ${stat[0]} ${stat[11]}+${stat[12]} call ${of(tid, 'syscall').split(' ')[0]}: ${stack}`;
  }; // biome-ignore format: one line each
  return readdirSync(`/proc/${pid}/task`).map(line).join('; ');
}

/** A guest that was started, as its console shows it. */
export function consoleOf(child: ChildProcess) {
  let out = '';
  child.stdout!.on('data', (bytes: Buffer) => {
    out += bytes.toString('latin1');
  });
  /** Waits for a text until `limit`, a time of `Date.now()`. Where it does not come, the error tells what can be seen of the guest. */
  const until = async (pattern: RegExp, limit: number): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(out);
      if (found) return found;
      if (child.exitCode !== null) throw new Error(`it ended: ${out.slice(-800)}`);
      if (Date.now() > limit) {
        const seen = await monitor('info kvm\ninfo registers -a\ninfo lapic', /never/, 10_000);
        throw new Error(`no ${pattern} in: ${out.slice(-800)}; ${threads(child.pid!)}; ${seen}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  return {
    booted: (limit: number) => until(/root# /, limit),
    /** Reads `count` times `size` (such as 4k) from the disk; MB/s by the guest's own clock, so that the console takes no part. */
    async read(size: string, count: number, limit: number): Promise<number> {
      out = '';
      child.stdin!.write(
        `a=$(cut -d' ' -f1 /proc/uptime); dd if=/dev/vda of=/dev/null bs=${size} count=${count} iflag=direct 2>/dev/null; echo T $a $(cut -d' ' -f1 /proc/uptime) E"ND"\n`,
      );
      const [, from, to] = await until(/T ([\d.]+) ([\d.]+) END/, limit);
      return (count * Number(size.slice(0, -1)) * 1024) / 1e6 / (Number(to) - Number(from));
    },
  };
}
