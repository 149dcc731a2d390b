// A guest of QEMU's that has a real AMD-V to give, emulated: Debian's kernel with kvm_amd, and in its initramfs this project, the Node that
// it brings, and a guest for it to run. What is printed there on the serial port comes back line by line.

import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { stripTypeScriptTypes } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { extractVmlinux } from '../../src/firmware/payload.ts';
import { decompress } from '../../src/host/node/decompress.ts';
import { type Image, openImage, pullImage } from '../../src/host/node/fetch-image.ts';
import { type CpioEntry, dir, file, symlink, writeCpio } from '../../src/images/cpio.ts';
import { concatenate } from '../../src/images/initramfs.ts';

/** The image with KVM's modules: one that was made before the catalog named them is made anew. */
async function outerImage(): Promise<Image> {
  const image = await openImage('debian-amd64');
  return (await readFile(image.initrd)).includes('kvm-amd.ko') ? image : pullImage('debian-amd64');
}

const root = dirname(dirname(import.meta.dirname));
const QEMU = 'qemu-system-x86_64';
export const APP = 'app';
/**
 * The outer guest's processor. Without protection keys: where a processor has them, V8 guards its code with them, and threads that make code
 * at the same time end its process now and then (docs/decisions/014); with the slow processor that is emulated here in most runs.
 */
const CPU = 'max,pku=off';
/** Packages that the project needs when it runs. */
const PACKAGES = ['koffi', '@koromix', 'saxes', 'xmlchars', 'xz-decompress'];

/** Why the outer guest cannot be had here; false when it can. */
export async function whyNot(): Promise<string | false> {
  if (process.arch !== 'x64' || process.platform !== 'linux') return 'the outer guest runs this Linux x86-64 Node';
  const qemu = spawnSync(QEMU, ['--version']);
  if (qemu.error) return `${QEMU} is not installed`;
  try {
    await outerImage();
    await openImage('debian-cloud');
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}

/** The outer guest says this by itself, every 20 s: where not even that comes, it stands still, which it does now and then for the same cause as it ends. */
const ALIVE = 'OUTER-ALIVE';
const STILL_MS = 120_000;

export interface OuterOptions {
  /** For longer it does not run. */
  readonly seconds: number;
  /** Comes into its files, too. */
  readonly more?: readonly CpioEntry[];
  /** QEMU's -cpu, where it is another one. */
  readonly cpu?: string;
  /** Longest time without a line, in seconds, where it may not be silent for as long as it runs. */
  readonly silent?: number;
  /** Further words of its command line, and of its kernel's. */
  readonly words?: readonly string[];
  readonly append?: string;
}

/**
 * What the outer guest's own kernel says when it ends, which it does now and then on the AMD-V that QEMU 7.2 emulates: a processor that has left the inner
 * guest goes on with that one's registers and time-stamp counter in the outer kernel's code (docs/decisions/014).
 */
const DIED =
  /^\[ *\d+\.\d+\] (Kernel panic|BUG: |Oops|traps: PANIC|(double|stack) fault|general protection fault|rcu: INFO: .* stall|watchdog: BUG)/;

/** Seconds of processor time that a process has taken. proc(5), /proc/pid/stat, fields 14 and 15 (hundredths). */
function processorTime(pid: number): number {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
    .slice(11, 13);
  return (Number(user) + Number(system)) / 100;
}

/**
 * Runs `script` (in the project's folder, by /bin/sh) in the outer guest and gives each line of its console, and how many seconds of processor time its QEMU has
 * taken until then; resolves when the script has ended, or with the reason why the outer guest itself has before.
 */
export async function outerGuest(
  script: string,
  line: (text: string, processor: () => number) => void,
  o: OuterOptions,
): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'nonroot-kvm-'));
  try {
    const outer = await outerImage();
    const initrd = join(folder, 'initrd');
    await writeFile(initrd, concatenate([await readFile(outer.initrd), writeCpio(await overlay(script, o.more ?? []))]));
    const append = 'console=ttyS0 quiet mitigations=off nokaslr no5lvl tsc=reliable no_timer_check panic=-1 rdinit=/outer-init';
    const child = spawn(QEMU, [
      ...['-M', 'q35', '-accel', 'tcg,thread=multi', '-smp', '2', '-m', '2000', '-cpu', o.cpu ?? CPU, '-nographic', '-no-reboot', '-nodefaults'],
      ...['-serial', 'stdio', '-kernel', outer.kernel, '-initrd', initrd, '-append', `${append} ${o.append ?? ''}`],
      ...(o.words ?? []),
    ], { stdio: ['ignore', 'pipe', 'inherit'] }); // biome-ignore format: one command
    let why: string | undefined;
    const end = (reason: string, after = 0): void => {
      why ??= reason;
      setTimeout(() => child.kill('SIGKILL'), after);
    };
    const limit = setTimeout(() => end(`it was not over after ${o.seconds} s`), o.seconds * 1000);
    const silence =
      o.silent === undefined ? undefined : setTimeout(() => end(`it said nothing for ${o.silent} s`), o.silent * 1000);
    let still: NodeJS.Timeout | undefined;
    let rest = '';
    let over = false;
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const whole of lines) {
        const text = whole.replace(/\r$/, '');
        if (text === ALIVE) {
          still ??= setTimeout(() => end(`its kernel stood still for ${STILL_MS / 1000} s`), STILL_MS);
          still.refresh();
          continue;
        }
        silence?.refresh();
        over ||= text === 'OUTER-END';
        // With some time to say where.
        if (!over && DIED.test(text)) end(`its kernel ended: ${text}`, 2000);
        line(text, () => processorTime(child.pid!));
      }
    });
    await new Promise<void>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', () => resolve());
    });
    clearTimeout(limit);
    clearTimeout(silence);
    clearTimeout(still);
    // QEMU ends with 0 when its guest resets (-no-reboot): by a triple fault, since its kernel's panics say so and a program of it cannot.
    const ended = `its kernel ended without a word (QEMU: ${child.signalCode ?? child.exitCode})`;
    return over ? undefined : (why ?? ended);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** What QEMU reads when it starts a kernel. */
const FIRMWARE = ['seabios/bios-256k.bin', 'qemu/linuxboot_dma.bin', 'qemu/kvmvapic.bin'];
/** A disk for guests, as /dev/loop0: what the outer guest keeps of it in its memory can be read without waiting, which a file in tmpfs cannot. */
export const DISK = 'truncate -s 64M /tmp/disk && modprobe loop && losetup /dev/loop0 /tmp/disk\n';

/** Both emulators as they are installed, for the outer guest: QEMU with what it reads, and this project's programs, bundled. */
export async function emulators(): Promise<CpioEntry[]> {
  const program = `/usr/bin/${QEMU}`;
  const libraries = [...spawnSync('ldd', [program], { encoding: 'utf8' }).stdout.matchAll(/(\/\S+)/g)].map((m) => m[1]!);
  const paths = [program, ...libraries, ...FIRMWARE.map((name) => `/usr/share/${name}`)];
  const entries = await Promise.all(paths.map(async (path) => file(path.slice(1), await readFile(path), 0o755)));
  const bundled = spawnSync(process.execPath, [join(root, 'tools/bundle.ts')], { stdio: 'inherit' });
  if (bundled.status !== 0) throw new Error('Cannot measure: the programs cannot be bundled');
  return [...entries, ...(await tree(join(root, 'dist'), `${APP}/dist`)).filter((e) => !e.path.endsWith('.map'))];
}

const init = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm
ip link set lo up
modprobe kvm_amd
export HOME=/root PATH=/bin TERM=dumb NO_COLOR=1
cd /${APP}
while sleep 20; do echo ${ALIVE}; done &
sh /outer-script
echo OUTER-END
poweroff -f
`;

/** What the launcher does in a place where Node is already. */
const EMULATOR = `#!/bin/sh
export MALLOC_ARENA_MAX=2 NODE_COMPILE_CACHE=/tmp/compiled
exec node --max-semi-space-size=2 /${APP}/bin/nonroot-system-x86_64.js "$@"
`;

/** Node with its libraries, the project, and the inner guest's kernel and initramfs as /inner/kernel and /inner/initrd. */
async function overlay(script: string, more: readonly CpioEntry[]): Promise<CpioEntry[]> {
  const libraries = spawnSync('ldd', [process.execPath], { encoding: 'utf8' }).stdout;
  const paths = [...libraries.matchAll(/(\/\S+)/g)].map((m) => m[1]!);
  const inner = await openImage('debian-cloud');
  const kernel = await readFile(inner.kernel);
  const modules: CpioEntry[] = [];
  for (const name of PACKAGES) modules.push(...(await tree(join(root, 'node_modules', name), `${APP}/node_modules/${name}`)));
  const folders = new Set<string>();
  const entries = [
    file('outer-init', init, 0o755),
    file('outer-script', script),
    file('bin/node', await readFile(process.execPath), 0o755),
    ...(await Promise.all(paths.map(async (path) => file(path.slice(1), await readFile(path), 0o755)))),
    file('inner/kernel', kernel),
    // Decompressed: the outer guest would take half a minute for it.
    file('inner/vmlinux', extractVmlinux(kernel, decompress) ?? new Uint8Array()),
    file('inner/initrd', await readFile(inner.initrd)),
    file('inner/append', inner.append),
    file(`${APP}/package.json`, await readFile(join(root, 'package.json'))),
    ...(await tree(join(root, 'src'), `${APP}/src`)),
    ...(await tree(join(root, 'bin'), `${APP}/bin`)),
    ...(await tree(import.meta.dirname, `${APP}/test/kvm`)),
    ...(await tree(join(root, 'test/e2e'), `${APP}/test/e2e`)),
    file('bin/nonroot-emulator', EMULATOR, 0o755),
    ...modules,
    ...more,
  ];
  for (const { path } of entries) {
    for (let at = dirname(path); at !== '.'; at = dirname(at)) folders.add(at);
  }
  // Programs share libraries.
  const once = new Map(entries.map((e) => [e.path, e]));
  return [...[...folders].sort().map(dir), ...once.values()];
}

/**
 * Files and links below a folder. Tests stay behind but those of `test/kvm` and the KVM host's. TypeScript comes as JavaScript, as in the
 * package: the outer guest would take longer for the types than for the tests.
 */
export async function tree(from: string, to: string): Promise<CpioEntry[]> {
  const entries: CpioEntry[] = [];
  for (const e of await readdir(from, { recursive: true, withFileTypes: true })) {
    const path = join(e.parentPath, e.name);
    const at = `${to}/${relative(from, path)}`;
    if (e.isSymbolicLink()) entries.push(symlink(at, await readlink(path)));
    else if (!e.isFile() || /\.d\.ts$/.test(path) || (/\.test\.ts$/.test(path) && !path.endsWith('host/node/kvm.test.ts')))
      continue;
    else if (/\.ts$/.test(path)) entries.push(file(at.replace(/ts$/, 'js'), plain(await readFile(path, 'utf8'))));
    else entries.push(file(at, await readFile(path), 0o755));
  }
  return entries;
}

/** A module without its types, which imports others of that kind. */
const plain = (text: string): string => stripTypeScriptTypes(text).replace(/(['"])(\.{1,2}\/[^'"\n]*)\.ts\1/g, '$1$2.js$1');
