// Guests that write their disks while their emulator is killed: on virtio-blk, AHCI and NVMe, raw and qcow2. All that a guest has flushed must
// be in the images, whose qcow2 structure must be right. For tests.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { seeded } from '../../src/bits/testing.ts';
import { openImage } from '../../src/host/node/fetch-image.ts';
import { file, writeCpio } from '../../src/images/cpio.ts';
import { EmulatorProcess } from '../e2e/emulator.ts';

const SECTOR = 512;
const SECTORS = 16_384;
const MOST = 256;
/** Steps that may have been done and whose lines did not come any more. */
const AHEAD = 600;

interface Disk {
  readonly name: string;
  readonly device: string;
  readonly format: 'raw' | 'qcow2';
}
const disks: readonly Disk[] = [
  { name: 'v', device: 'virtio-blk-pci', format: 'raw' },
  { name: 'V', device: 'virtio-blk-pci', format: 'qcow2' },
  { name: 'a', device: 'ide-hd,bus=ide.0', format: 'raw' },
  { name: 'A', device: 'ide-hd,bus=ide.1', format: 'qcow2' },
  { name: 'n', device: 'nvme,serial=n', format: 'raw' },
  { name: 'N', device: 'nvme,serial=N', format: 'qcow2' },
];

/** Each disk is larger than the last one: the guest finds it by that, whatever it calls it. */
const sectorsOf = (d: Disk): number => SECTORS + 2048 * disks.indexOf(d);

/** Builds the writer into an initramfs; why that cannot be done here. */
export async function buildWriter(folder: string): Promise<{ readonly initrd: string } | string> {
  const source = new URL('writer.c', import.meta.url).pathname;
  const binary = join(folder, 'writer');
  if (spawnSync('cc', ['-O1', '-static', '-o', binary, source]).status !== 0)
    return 'a C compiler with a static C library is not there';
  if (spawnSync('qemu-img', ['--version']).status !== 0) return 'qemu-img is not installed';
  const initrd = join(folder, 'initrd');
  const { initrd: plain } = await openImage('debian-amd64');
  writeFileSync(initrd, Buffer.concat([readFileSync(plain), writeCpio([file('writer', readFileSync(binary), 0o755)])]));
  return { initrd };
}

/** What each sector may hold after so many steps that are flushed, as the writer has done them: 0 zeros, -1 anything. */
function allowed(seed: number, flushed: number): (sector: number) => readonly number[] {
  let state = seed;
  const below = (n: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 4) % n;
  };
  const sure = new Int32Array(SECTORS);
  const since = new Map<number, number[]>();
  for (let step = 1; step <= flushed + AHEAD; step++) {
    const count = 1 + below(below(4) === 0 ? MOST : 16);
    const first = below(SECTORS - count);
    const kind = below(16);
    below(4);
    const stamp = kind === 0 ? -1 : kind === 1 ? 0 : step;
    for (let n = first; n < first + count; n++)
      if (step <= flushed) sure[n] = stamp;
      else since.set(n, [...(since.get(n) ?? []), stamp]);
  }
  return (sector) => [sure[sector]!, ...(since.get(sector) ?? [])];
}

/** The number of the last step that the guest has heard to be flushed. */
function lastFlushed(console: string, name: string): number {
  const steps = [...console.matchAll(new RegExp(`^F ${name} (\\d+)\\r?\\n`, 'gm'))].map((m) => Number(m[1]));
  return Math.max(0, ...steps);
}

export interface Killed {
  /** Flushes that the guest has heard of, by disk. */
  readonly flushes: Readonly<Record<string, number>>;
  /** Images with clusters that nobody uses. */
  readonly leaks: number;
}

/** One guest, killed. @throws AssertionError with the seed */
export async function killGuest(initrd: string, folder: string, seed: number): Promise<Killed> {
  const random = seeded(seed);
  const context = `seed ${seed}`;
  const images = join(folder, `images${seed}`);
  mkdirSync(images);
  const args: string[] = ['-initrd', initrd];
  const path = (d: Disk): string => join(images, d.name === d.name.toLowerCase() ? `${d.name}.raw` : `${d.name}.qcow2`);
  const clusters = `cluster_size=${512 << random(8)}`;
  for (const d of disks) {
    const options = d.format === 'qcow2' ? ['-o', clusters] : [];
    execFileSync('qemu-img', ['create', '-q', '-f', d.format, ...options, path(d), String(sectorsOf(d) * SECTOR)]);
    args.push(
      '-drive',
      `file=${path(d)},if=none,id=${d.name},format=${d.format},discard=unmap`,
      '-device',
      `${d.device},drive=${d.name}`,
    );
  }
  const vm = await EmulatorProcess.linux(folder, `k${seed}`, ['-smp', '2', ...args], 'debian-amd64');
  let flushes: Record<string, number>;
  try {
    await vm.shell(180_000);
    await vm.command('find() { for b in /sys/block/*; do [ "$(cat $b/size)" = $1 ] && echo /dev/${b##*/}; done; }');
    const all = disks.map((d) => `test -b "$(find ${sectorsOf(d)})" || echo missing ${d.name}`).join('; ');
    const probe = `modprobe -a nvme ahci sd_mod virtio_blk 2>/dev/null; for i in $(seq 100); do [ -z "$(${all})" ] && break; sleep 0.2; done; ${all}`;
    assert.doesNotMatch(await vm.command(probe), /^missing/m);
    const starts = disks.map(
      (d, n) => `/writer $(find ${sectorsOf(d)}) ${d.name} ${seed * 8 + n + 1}${random(2) ? ' direct' : ''} &`,
    );
    vm.console = '';
    vm.child.stdin!.write(`${starts.join(' ')}\n`);
    await vm.until('a flush on each disk', () =>
      disks.every((d) => lastFlushed(vm.console, d.name) > 0) || /BAD/.test(vm.console) ? true : undefined,
    );
    await sleep(random(3000));
    vm.child.kill('SIGKILL');
    await vm.ended;
    // What was written before it died still comes.
    await sleep(100);
    assert.doesNotMatch(vm.console, /BAD/, `${context}\n${vm.console.slice(-1000)}`);
    flushes = Object.fromEntries(disks.map((d) => [d.name, lastFlushed(vm.console, d.name)]));
  } finally {
    await vm.quit();
  }
  let leaks = 0;
  for (const [n, d] of disks.entries()) {
    let raw = path(d);
    if (d.format === 'qcow2') {
      const check = spawnSync('qemu-img', ['check', path(d)], { encoding: 'utf8' });
      // 3: clusters that nobody uses, which a program that is killed may leave behind.
      assert.ok(
        check.status === 0 || check.status === 3,
        `${context}, disk ${d.name}, ${clusters}\n${check.stdout}${check.stderr}`,
      );
      if (check.status === 3) leaks++;
      raw = join(images, 'converted');
      execFileSync('qemu-img', ['convert', '-O', 'raw', path(d), raw]);
    }
    const bytes = readFileSync(raw);
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const accepted = allowed(seed * 8 + n + 1, flushes[d.name]!);
    for (let sector = 0; sector < SECTORS; sector++) {
      const at = (sector * SECTOR) / 4;
      const found = words[at]!;
      const any = accepted(sector);
      const whole = words.subarray(at, at + SECTOR / 4).every((w, i) => w === (found === 0 ? 0 : i & 1 ? sector : found));
      assert.ok(
        any.includes(-1) || (whole && any.includes(found)),
        `${context}, disk ${d.name}: sector ${sector} holds ${found}${whole ? '' : ' in part'}; accepted are ${any.join(' ')}, ${flushes[d.name]} steps are flushed`,
      );
    }
  }
  rmSync(images, { recursive: true });
  return { flushes, leaks };
}
