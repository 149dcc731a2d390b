// What goes into the default guest's initramfs: busybox, our /init, and the few files of /etc that programs look for.

import { type CpioEntry, dir, file, symlink, writeCpio } from './cpio.ts';
import { fstab, init, shrc, udhcpc } from './init.sh.ts';

/** Names by which other programs start busybox; inside its own shell every applet is found without one. */
const LINKS = [
  'bin/sh',
  'bin/ash',
  'bin/mount',
  'bin/umount',
  'sbin/modprobe',
  'sbin/poweroff',
  'sbin/reboot',
  'sbin/halt',
  'usr/bin/env',
];

/**
 * The entries of the initramfs, except drivers (modules.ts) and what the host says to one guest (overlay.ts).
 * @param busybox a static busybox with ash, as in Debian's busybox-static
 */
export function initramfsEntries(busybox: Uint8Array): CpioEntry[] {
  const empty = ['proc', 'sys', 'run', 'mnt', 'usr/sbin', 'usr/local/bin', 'usr/local/sbin', 'var', 'lib/modules'];
  return [
    ...empty.map(dir),
    { path: 'tmp', type: 'dir', mode: 0o1777 },
    { path: 'root', type: 'dir', mode: 0o700 },
    // The kernel opens it for PID 1 before devtmpfs is mounted.
    { path: 'dev/console', type: 'char', mode: 0o600, major: 5, minor: 1 },
    { path: 'dev/null', type: 'char', mode: 0o666, major: 1, minor: 3 },
    file('bin/busybox', busybox, 0o755),
    ...LINKS.map((path) => symlink(path, '/bin/busybox')),
    file('init', init, 0o755),
    file('etc/fstab', fstab),
    symlink('etc/mtab', '/proc/self/mounts'),
    file('etc/shrc', shrc),
    file('etc/udhcpc', udhcpc, 0o755),
    file('etc/hostname', 'nonroot\n'),
    file('etc/hosts', '127.0.0.1 localhost nonroot\n::1 localhost nonroot\n'),
    file('etc/passwd', 'root::0:0:root:/root:/bin/sh\nnobody:*:65534:65534:nobody:/:/bin/false\n'),
    file('etc/group', 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n'),
    file('etc/shells', '/bin/sh\n'),
  ];
}

/** The initramfs, uncompressed (unpacking is then one copy): our files, followed by the archive of drivers, if there is one. */
export function buildInitramfs(busybox: Uint8Array, modules?: Uint8Array): Uint8Array<ArrayBuffer> {
  return concatenate([writeCpio(initramfsEntries(busybox)), ...(modules ? [modules] : [])]);
}

/** Archives one after the other, each padded as the kernel accepts them. */
export function concatenate(archives: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const starts: number[] = [];
  let length = 0;
  for (const archive of archives) {
    starts.push(length);
    length += (archive.length + 3) & ~3;
  }
  const out = new Uint8Array(length);
  for (const [index, archive] of archives.entries()) out.set(archive, starts[index]!);
  return out;
}
