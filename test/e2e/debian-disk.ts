// A disk with Debian on it, made by debootstrap: GRUB for BIOS and for UEFI on GPT, ext4, systemd, sshd. It is made once, as root, from the
// mirror of this machine's apt (or NONROOT_MIRROR), and kept in the user's cache. No loop device is mounted: mke2fs copies the tree, and
// what grub-install does is done here (GRUB manual 2.06, 4.4 "BIOS installation"; UEFI 2.10, 3.5.1.1 "Removable Media Boot Behavior").

import { execFile } from 'node:child_process';
import { access, mkdir, open, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { scratchDirectory, sha256, userCache } from '../../src/host/node/cache.ts';

const run = promisify(execFile);

const MIB = 1 << 20;
const SECTOR = 512;
/** The partitions' first bytes, and the disk's size. */
const BIOS_BOOT = 1 * MIB;
const ESP = 2 * MIB;
const ROOT = 32 * MIB;
const SIZE = 2048 * MIB;

/** Debian's architectures, with the kernel and the boot loaders of each. */
export type DebianArch = 'amd64' | 'i386';
const BOOT: Readonly<Record<DebianArch, readonly string[]>> = {
  amd64: ['linux-image-amd64', 'grub-pc-bin', 'grub-efi-amd64-bin'],
  i386: ['linux-image-686-pae', 'grub-pc-bin', 'grub-efi-ia32-bin'],
};
/** UEFI's firmware starts what has its own width. */
const EFI: Readonly<Record<DebianArch, { readonly target: string; readonly name: string }>> = {
  amd64: { target: 'x86_64-efi', name: 'bootx64.efi' },
  i386: { target: 'i386-efi', name: 'bootia32.efi' },
};
const PACKAGES = [
  ...['systemd-sysv', 'systemd-resolved', 'udev', 'dbus', 'iproute2', 'openssh-server', 'ca-certificates', 'fio'],
  ...['qemu-guest-agent', 'initramfs-tools', 'zstd'],
];

/** Files of the guest beside what its packages bring. */
const FILES: Readonly<Record<string, string>> = {
  'etc/hostname': 'debian-disk\n',
  'etc/hosts': '127.0.0.1 localhost debian-disk\n',
  'etc/fstab': 'LABEL=root / ext4 errors=remount-ro 0 1\nLABEL=ESP /boot/efi vfat umask=0077,nofail 0 1\n',
  'etc/systemd/network/80-dhcp.network': '[Match]\nType=ether\n\n[Network]\nDHCP=yes\n',
  // A machine that shares its processors with many others is slow, not broken.
  'etc/systemd/system.conf.d/patience.conf': '[Manager]\nDefaultTimeoutStartSec=30min\nDefaultDeviceTimeoutSec=30min\n',
  // Every controller that the disk may hang on, and no more: a small initramfs starts sooner.
  'etc/initramfs-tools/conf.d/modules': 'MODULES=list\n',
  'etc/initramfs-tools/modules': 'virtio_pci\nvirtio_blk\nahci\nata_piix\nata_generic\nsd_mod\nnvme\next4\n',
  'boot/grub/grub.cfg': [
    'serial --unit=0 --speed=115200',
    'terminal_input console serial',
    'terminal_output console serial',
    'set timeout=3',
    'menuentry "Debian GNU/Linux" {',
    '  search --no-floppy --label --set=root root',
    '  linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200',
    '  initrd /initrd.img',
    '}',
    'menuentry "Halt" { halt }',
    '',
  ].join('\n'),
  'boot/grub/embedded.cfg': 'search.fs_label root root\nset prefix=($root)/boot/grub\n',
};
const MODULES = 'normal linux serial terminal echo configfile search search_label part_gpt ext2 fat boot halt reboot test'.split(
  ' ',
);
const scriptOf = ({ target, name }: (typeof EFI)[DebianArch]): string =>
  [
    'set -e',
    'mkdir -p /boot/efi /root/.ssh',
    'chmod 700 /root/.ssh',
    'passwd -d root >/dev/null',
    'update-initramfs -u',
    'systemctl enable systemd-networkd systemd-resolved ssh',
    'systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer',
    `grub-mkimage -O i386-pc -p '(,gpt3)/boot/grub' -o /boot/grub/core.img biosdisk ${MODULES.join(' ')}`,
    `grub-mkimage -O ${target} -c /boot/grub/embedded.cfg -p /boot/grub -o /boot/grub/${name} efi_gop ${MODULES.join(' ')}`,
    `cp -r /usr/lib/grub/i386-pc /usr/lib/grub/${target} /boot/grub/`,
    'apt-get clean',
    'rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/*',
  ].join('\n');
const TOOLS = ['debootstrap', 'unshare', 'parted', 'mkfs.ext4', 'mformat', 'mcopy', 'qemu-img', 'ssh', 'ssh-keygen'];

export interface DebianDisk {
  /** A qcow2 image of 2 GiB; tests write to overlays of it. */
  readonly image: string;
  /** The private key that its root lets in. */
  readonly key: string;
}

/** The disk; a text that says why it cannot be had here. */
export async function debianDisk(arch: DebianArch = 'amd64'): Promise<DebianDisk | string> {
  if (process.getuid?.() !== 0) return 'debootstrap needs root';
  for (const tool of TOOLS) {
    const there = await run('sh', ['-c', `command -v ${tool}`]).then(
      () => true,
      () => false,
    );
    if (!there) return `${tool} is not installed`;
  }
  const cache = userCache();
  const folder = join(
    cache.root,
    'derived',
    `debian-disk-${sha256(JSON.stringify([FILES, scriptOf(EFI[arch]), BOOT[arch], PACKAGES, MODULES])).slice(0, 16)}`,
  );
  const disk = { image: join(folder, 'disk.qcow2'), key: join(folder, 'key') };
  const made = await access(disk.image).then(
    () => true,
    () => false,
  );
  if (made) return disk;
  const mirror = await findMirror();
  if (typeof mirror === 'string') return mirror;
  const scratch = await scratchDirectory(cache);
  try {
    await make(scratch, mirror, arch);
    await mkdir(join(cache.root, 'derived'), { recursive: true });
    await rename(join(scratch, 'out'), folder).catch(async (error: NodeJS.ErrnoException) => {
      // Another process was faster.
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
    return disk;
  } catch (error) {
    return `debootstrap or what follows failed: ${error instanceof Error ? error.message.slice(-1000) : error}`;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

interface Mirror {
  readonly url: string;
  readonly suite: string;
}
async function findMirror(): Promise<Mirror | string> {
  const url = process.env['NONROOT_MIRROR'];
  if (url !== undefined) return { url, suite: process.env['NONROOT_SUITE'] ?? 'bookworm' };
  const targets = await run('apt-get', [
    ...['indextargets', '--format', '$(LABEL) $(COMPONENT) $(SITE) $(CODENAME)', 'Created-By: Packages'],
  ]).catch(() => undefined);
  const line = targets?.stdout.split('\n').find((l) => /^Debian main \S+ \w+$/.test(l));
  if (line === undefined) return "this machine's apt has no sources of Debian";
  const [, , site, suite] = line.split(' ');
  return { url: site!, suite: suite! };
}

async function make(scratch: string, { url, suite }: Mirror, arch: DebianArch): Promise<void> {
  const root = join(scratch, 'root');
  const out = join(scratch, 'out');
  await mkdir(out);
  // In a mount namespace of its own: what debootstrap mounts (proc) goes with it, however it ends.
  const options = [`--arch=${arch}`, '--variant=minbase', `--include=${[...PACKAGES, ...BOOT[arch]].join()}`];
  await run('unshare', ['--mount', 'debootstrap', ...options, suite, root, url], { timeout: 7_200_000, maxBuffer: 16 * MIB });
  for (const [path, text] of Object.entries(FILES)) {
    await mkdir(join(root, path, '..'), { recursive: true });
    await writeFile(join(root, path), text);
  }
  await run('chroot', [root, 'sh', '-c', scriptOf(EFI[arch])], { maxBuffer: 16 * MIB });
  await rm(join(root, 'etc/resolv.conf'), { force: true });
  await symlink('../run/systemd/resolve/stub-resolv.conf', join(root, 'etc/resolv.conf'));
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', join(out, 'key')]);
  await writeFile(join(root, 'root/.ssh/authorized_keys'), await readFile(join(out, 'key.pub')), { mode: 0o600 });
  const raw = join(scratch, 'disk.raw');
  await partition(raw);
  await run('mkfs.ext4', ['-q', '-F', '-L', 'root', '-d', root, '-E', `offset=${ROOT}`, raw, `${(SIZE - ROOT - MIB) / 1024}k`]);
  const esp = ['-i', `${raw}@@${ESP}`];
  await run('mformat', [...esp, '-v', 'ESP', '-T', String((ROOT - ESP) / SECTOR), '-h', '64', '-s', '32', '::']);
  await run('mmd', [...esp, '::/EFI', '::/EFI/BOOT']);
  await run('mcopy', [...esp, join(root, 'boot/grub', EFI[arch].name), `::/EFI/BOOT/${EFI[arch].name.toUpperCase()}`]);
  await installBoot(raw, join(root, 'boot/grub'));
  await run('qemu-img', ['convert', '-O', 'qcow2', raw, join(out, 'disk.qcow2')]);
}

async function partition(raw: string): Promise<void> {
  const file = await open(raw, 'w');
  await file.truncate(SIZE);
  await file.close();
  const parts = [
    ['mkpart', 'bios', BIOS_BOOT, ESP, ['set', '1', 'bios_grub', 'on']],
    ['mkpart', 'esp', ESP, ROOT, ['set', '2', 'esp', 'on']],
    ['mkpart', 'root', ROOT, SIZE - MIB, []],
  ] as const;
  const commands = parts.flatMap(([make, name, from, end, flag]) => [make, name, String(from), String(end - 1), ...flag]);
  await run('parted', ['-s', '-a', 'none', raw, 'unit', 'B', 'mklabel', 'gpt', ...commands]);
}

/** GRUB's boot.img into the first sector, its core.img into the BIOS boot partition; each is told where the next one begins. */
async function installBoot(raw: string, grub: string): Promise<void> {
  const KERNEL_SECTOR = 0x5c;
  const PARTITIONS = 440;
  const BLOCK_LIST = SECTOR - 12;
  const boot = await readFile(join(grub, 'i386-pc/boot.img'));
  const core = await readFile(join(grub, 'core.img'));
  if (core.length > ESP - BIOS_BOOT) throw new Error(`core.img has ${core.length} bytes`);
  boot.writeBigUInt64LE(BigInt(BIOS_BOOT / SECTOR), KERNEL_SECTOR);
  core.writeBigUInt64LE(BigInt(BIOS_BOOT / SECTOR + 1), BLOCK_LIST);
  const file = await open(raw, 'r+');
  await file.write(boot, 0, PARTITIONS, 0);
  await file.write(core, 0, core.length, BIOS_BOOT);
  await file.close();
}
