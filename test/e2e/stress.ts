// A guest of two vCPUs under Debian's stress-ng: processors, memory, a disk, context switches and signals at once, results verified. For tests.
// Meanwhile the guest's clock is held against the host's, and the memory of the emulator's process is watched.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openImage } from '../../src/host/node/fetch-image.ts';
import { type CpioEntry, dir, file, writeCpio } from '../../src/images/cpio.ts';
import { EmulatorProcess } from './emulator.ts';

const TOOLS = ['stress-ng', 'date'];
const STRESSORS =
  '--cpu 2 --vm 1 --vm-bytes 32M --io 1 --hdd 1 --hdd-bytes 16M --switch 1 --signal 1 --sigfpe 1 --sigsegv 1 --sigq 1';
const DRIFT_MS_PER_MINUTE = 50;
/** Of the process, once it is warm: what the last third of a run may hold more than the third before. */
const GROWTH_MIB = 48;
/** The same of a run that ends while regions still come and heaps find their sizes: 60 MiB were seen in a minute, none in the hour after. */
const WARMING = { seconds: 900, growthMib: 160 } as const;
const LIMIT = 600_000;

/** What is wrong with the host for this test, or an initramfs with the image's and the tools in it. */
export async function stressGuest(folder: string): Promise<{ readonly initrd: string } | string> {
  const files = new Set<string>();
  for (const tool of TOOLS) {
    const path = spawnSync('sh', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).stdout.trim();
    if (path === '') return `${tool} is not installed`;
    files.add(path);
    const libraries = execFileSync('ldd', [path], { encoding: 'utf8' });
    for (const [, library] of libraries.matchAll(/(\/\S+) \(0x/g)) files.add(library!);
  }
  const image = await openImage('debian-cloud').catch((error: Error) => error.message);
  if (typeof image === 'string') return image;
  const folders = new Set<string>();
  for (const path of files)
    for (let at = path.indexOf('/', 1); at > 0; at = path.indexOf('/', at + 1)) folders.add(path.slice(1, at));
  const entries: CpioEntry[] = [
    ...[...folders].map((name) => dir(`tools/${name}`)),
    ...[...files].map((path) => file(`tools/${path.slice(1)}`, readFileSync(path), 0o755)),
  ];
  const initrd = join(folder, 'initrd');
  writeFileSync(initrd, Buffer.concat([readFileSync(image.initrd), writeCpio([dir('tools'), ...entries])]));
  return { initrd };
}

/** Guest time minus host time, in milliseconds: no less than `low`, no more than `high`. */
interface Offset {
  readonly low: number;
  readonly high: number;
}

const hostNow = (): number => performance.now();

/** The narrowest of several readings, each between a question and its answer. */
async function offsetOf(vm: EmulatorProcess, clock: string, readings: number): Promise<Offset> {
  let best: Offset = { low: -Infinity, high: Infinity };
  for (let n = 0; n < readings; n++) {
    const before = hostNow();
    const said = await vm.command(clock, LIMIT);
    const after = hostNow();
    const guest = Number(/(\d+\.\d+)/.exec(said)?.[1]) * 1000;
    assert.ok(guest > 0, `the guest's clock: ${said}`);
    best = { low: Math.max(best.low, guest - after), high: Math.min(best.high, guest - before) };
  }
  return best;
}

/** Resident memory of a process in MiB. */
const residentOf = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

export interface Soaked {
  /** How far the guest's clock certainly ran away from the host's, and at most, in milliseconds a minute. */
  readonly drift: { readonly atLeast: number; readonly atMost: number };
  /** Resident memory in MiB, at equal distances. */
  readonly resident: readonly number[];
  /** stress-ng's last lines. */
  readonly said: string;
}

/** Runs the stressors for so many seconds. Rejects where one fails, the kernel complains, the clock drifts or memory grows. */
export async function soak(initrd: string, folder: string, seconds: number, look?: (line: string) => void): Promise<Soaked> {
  const disk = join(folder, 'disk.raw');
  writeFileSync(disk, '');
  truncateSync(disk, 128 << 20);
  const drive = ['-drive', `file=${disk},if=none,id=d,format=raw`, '-device', 'virtio-blk-pci,drive=d'];
  const vm = await EmulatorProcess.linux(folder, 'soak', ['-smp', '2', '-m', '640', '-initrd', initrd, ...drive]);
  try {
    await vm.shell(3 * LIMIT);
    const inTools = 'LD_LIBRARY_PATH=/tools/lib/x86_64-linux-gnu:/tools/usr/lib/x86_64-linux-gnu';
    const clock = 'chroot /tools /usr/bin/date +%s.%N';
    const set = await vm.command(
      `${inTools}; cd /tools; mkdir -p tmp proc sys dev work; [ -e bin ] || ln -s usr/bin bin; mount -t proc proc proc; mount -t sysfs sys sys; mount -t devtmpfs dev dev; ` +
        'modprobe virtio_blk 2>/dev/null; mke2fs -q /dev/vda 2>&1; mount /dev/vda work 2>&1; grep -c work /proc/mounts; dmesg -n 1',
      LIMIT,
    );
    assert.match(set, /1\s*$/, 'the disk is mounted');
    const source = await vm.command('cat /sys/bus/clocksource/devices/*/current*', LIMIT);
    // A command that came before the shell asked is shown in front of its answer.
    const found = await vm.command('find /tools -name stress-ng | head -n 1', LIMIT);
    const where = /\/tools(\/\S+\/stress-ng)\s*$/.exec(found)?.[1];
    assert.ok(where, found);
    const started = hostNow();
    const first = await offsetOf(vm, clock, 5);
    await vm.command(
      `(chroot /tools ${where} ${STRESSORS} --temp-path /work --verify --oomable --timeout ${seconds} --metrics-brief >/tmp/said 2>&1; echo "ended $?" >>/tmp/said) & true`,
      LIMIT,
    );
    const resident: number[] = [];
    const steps = Math.max(12, Math.round(seconds / 60));
    let low = first.low - first.high;
    let high = first.high - first.low;
    for (let n = 0; n < steps; n++) {
      await sleep((seconds * 1000) / steps);
      resident.push(residentOf(vm.child.pid!));
      if (n % Math.ceil(steps / 12) > 0 && n < steps - 1) continue;
      const now = await offsetOf(vm, clock, 3);
      [low, high] = [now.low - first.high, now.high - first.low];
      look?.(
        `${Math.round((hostNow() - started) / 1000)} s: clock ${low.toFixed(0)} to ${high.toFixed(0)} ms, ${resident.at(-1)!.toFixed(0)} MiB`,
      );
    }
    const said = await vm.until(
      "stress-ng's end",
      async () => {
        const text = await vm.command('tail -n 20 /tmp/said', LIMIT);
        if (!/ended \d+/.test(text)) await sleep(2000);
        return /ended \d+/.test(text) ? text : undefined;
      },
      LIMIT,
    );
    const last = await offsetOf(vm, clock, 5);
    const minutes = (hostNow() - started) / 60_000;
    [low, high] = [last.low - first.high, last.high - first.low];
    const drift = { atLeast: low > 0 ? low / minutes : high < 0 ? -high / minutes : 0, atMost: Math.max(-low, high) / minutes };
    const shown = `${said}\nclock ${source}: ${JSON.stringify(drift)}\nMiB: ${resident.map(Math.round).join(' ')}`;
    look?.(shown);
    assert.match(said, /ended 0/, shown);
    const complaints = await vm.command('dmesg | grep -E "unstable|lockup|stall|hung|BUG:|WARNING|Oops|I/O err"', LIMIT);
    assert.equal(complaints, '', shown);
    assert.ok(drift.atLeast < DRIFT_MS_PER_MINUTE, `the guest's clock drifts\n${shown}`);
    assertFlat(resident, shown, seconds < WARMING.seconds ? WARMING.growthMib : GROWTH_MIB);
    return { drift, resident, said };
  } finally {
    await vm.quit();
  }
}

/** Memory is flat where the highest of the last third is no higher than the highest of the third before, but for `growth` MiB. */
export function assertFlat(resident: readonly number[], shown: string, growth = GROWTH_MIB): void {
  const third = Math.floor(resident.length / 3);
  const middle = Math.max(...resident.slice(third, -third));
  const end = Math.max(...resident.slice(-third));
  assert.ok(end - middle < growth, `memory grew from ${middle} to ${end} MiB\n${shown}`);
}
