// Runs inside the outer guest: boots the same guest by this project's emulator and by QEMU, both on the KVM that is real to them, in turn, and
// reads the same disk, after each was started once without running its guest: files are in memory then, and this project has decompressed the kernel. One line of JSON for each: who, seconds to the shell's prompt, MB/s by size of request. The argument is the round's number: the odd
// ones begin with QEMU.

import { type ChildProcess, spawn } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';

const ROUND = Number(process.argv[2] ?? 0);
/** Longest wait for a guest, in ms. */
const LIMIT = 150_000;
/** A block device that bars.ts has made. */
const DISK = '/dev/loop0';
await writeFile(DISK, new Uint8Array(64 << 20).fill(7));
const MONITOR = '/tmp/monitor';
const append = (await readFile('/inner/append', 'utf8')).trim();
const common = [
  ...['-M', 'q35', '-accel', 'kvm', '-cpu', 'max,-xsave', '-smp', '2', '-m', '192', '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
  ...['-serial', 'stdio', '-kernel', '/inner/kernel', '-initrd', '/inner/initrd', '-append', `${append} mitigations=off`],
  ...['-drive', `file=${DISK},format=raw,if=none,id=d`, '-device', 'virtio-blk-pci,drive=d'],
  ...['-monitor', `unix:${MONITOR},server=on,wait=off`],
]; // biome-ignore format: one command
/** As the launcher has it. */
const env = { ...process.env, MALLOC_ARENA_MAX: '2', GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1' };
const programs: readonly (readonly [string, readonly string[]])[] = [
  ['nonroot', [process.execPath, '--max-semi-space-size=2', 'dist/bin/nonroot-system-x86_64.cjs', ...common]],
  ['qemu', ['/usr/bin/qemu-system-x86_64', ...common]],
];

/** Request sizes, and how many are read: first without counting, so that neither is measured while it compiles or translates what it runs. */
const READS = [['4k', 2000], ['64k', 500]] as const; // biome-ignore format: pairs
const BEFORE = 500;

/** What the monitor says to a command, once it has said `all` or `ms` are over; an error's message. */
const monitor = (command: string, all: RegExp, ms: number): Promise<string> =>
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
const end = async (child: ChildProcess): Promise<void> => {
  child.kill('SIGKILL');
  if (child.exitCode === null && child.signalCode === null) await new Promise((resolve) => child.once('exit', resolve));
  await rm(MONITOR, { force: true });
};

async function startOnce([program, ...args]: readonly string[]): Promise<void> {
  const child = spawn(program!, [...args, '-S'], { stdio: ['pipe', 'ignore', 'inherit'], env });
  const limit = Date.now() + LIMIT;
  while (Date.now() < limit && !/VM status/.test(await monitor('info status', /VM status/, LIMIT)))
    await new Promise((resolve) => setTimeout(resolve, 200));
  await end(child);
}

async function round(who: string, [program, ...args]: readonly string[]): Promise<void> {
  console.log('begins');
  const start = Date.now();
  const child = spawn(program!, args, { stdio: ['pipe', 'pipe', 'inherit'], env });
  let out = '';
  child.stdout.on('data', (bytes: Buffer) => {
    out += bytes.toString('latin1');
  });
  const until = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = pattern.exec(out);
      if (found) return found;
      if (child.exitCode !== null) throw new Error(`it ended: ${out.slice(-800)}`);
      if (Date.now() > start + LIMIT)
        throw new Error(`no ${pattern} in: ${out.slice(-800)}; ${await monitor('info kvm\ninfo registers -a', /never/, 5000)}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  const result: Record<string, number> = {};
  try {
    await until(/root# /);
    result['boot'] = (Date.now() - start) / 1000;
    console.log('booted');
    const read = async (size: string, count: number): Promise<number> => {
      out = '';
      // By the guest's own clock: the console takes no part.
      child.stdin.write(
        `a=$(cut -d' ' -f1 /proc/uptime); dd if=/dev/vda of=/dev/null bs=${size} count=${count} iflag=direct 2>/dev/null; echo T $a $(cut -d' ' -f1 /proc/uptime) E"ND"\n`,
      );
      const [, from, to] = await until(/T ([\d.]+) ([\d.]+) END/);
      return (count * Number(size.slice(0, -1)) * 1024) / 1e6 / (Number(to) - Number(from));
    };
    for (const [size, count] of READS) {
      await read(size, BEFORE);
      result[size] = await read(size, count);
    }
  } finally {
    await end(child);
  }
  console.log(`bar ${JSON.stringify({ who, ...result })}`);
}

for (const [who, command] of ROUND % 2 === 0 ? programs : programs.toReversed()) {
  await startOnce(command);
  await round(who, command).catch((error: Error) => console.log(`bar ${who} failed: ${error.message.replaceAll(/\s+/g, ' ')}`));
}
process.exit(0);
