// A Debian guest that boots from its disk by firmware, and is used over ssh through a host forward.

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcp } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { sha256 } from '../../src/host/node/cache.ts';
import type { DebianDisk } from './debian-disk.ts';
import { EmulatorProcess } from './emulator.ts';

/** Where the disk hangs, and the board that this takes. `d` is the drive. */
export const controllers = {
  virtio: ['-M', 'q35', '-device', 'virtio-blk-pci,drive=d,bootindex=1'],
  ahci: ['-M', 'q35', '-device', 'ide-hd,drive=d,bus=ide.0,bootindex=1'],
  ide: ['-M', 'pc', '-device', 'ide-hd,drive=d,bus=ide.0,bootindex=1'],
  nvme: ['-M', 'q35', '-device', 'nvme,drive=d,serial=1,bootindex=1'],
} as const;
export type Controller = keyof typeof controllers;
export type Firmware = 'seabios' | 'ovmf';
const OVMF = '/usr/share/OVMF';

/** A port of this host that nobody listens at. */
async function freePort(): Promise<number> {
  const server = createTcp().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export interface BootOptions {
  readonly controller: Controller;
  readonly firmware: Firmware;
  /** A folder for the guest's overlay, variables and sockets. */
  readonly folder: string;
  /** The network card. */
  readonly card?: string;
  readonly more?: readonly string[];
  /** Milliseconds until sshd must answer. */
  readonly limit?: number;
}

export class DebianGuest {
  readonly vm: EmulatorProcess;
  readonly overlay: string;
  readonly #disk: DebianDisk;
  readonly #port: number;
  private constructor(vm: EmulatorProcess, overlay: string, disk: DebianDisk, port: number) {
    this.vm = vm;
    this.overlay = overlay;
    this.#disk = disk;
    this.#port = port;
  }

  /** Starts a machine with an overlay of the disk. */
  static async start(disk: DebianDisk, o: BootOptions): Promise<DebianGuest> {
    const name = `${o.controller}-${o.firmware}`;
    const overlay = join(o.folder, `${name}.qcow2`);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', disk.image, overlay]);
    const port = await freePort();
    const args = [...controllers[o.controller], '-m', '512', '-cpu', 'max', '-nodefaults', '-display', 'none', '-vga', 'std'];
    args.push('-serial', 'stdio', '-drive', `file=${overlay},if=none,id=d,format=qcow2`);
    args.push('-netdev', `user,id=n,hostfwd=tcp:127.0.0.1:${port}-:22`, '-device', `${o.card ?? 'virtio-net-pci'},netdev=n`);
    if (o.firmware === 'ovmf') {
      const vars = join(o.folder, `${name}.fd`);
      execFileSync('cp', [`${OVMF}/OVMF_VARS_4M.fd`, vars]);
      args.push('-drive', `if=pflash,format=raw,readonly=on,file=${OVMF}/OVMF_CODE_4M.fd`);
      args.push('-drive', `if=pflash,format=raw,file=${vars}`);
    }
    const vm = await EmulatorProcess.start(o.folder, name, [...args, ...(o.more ?? [])]);
    return new DebianGuest(vm, overlay, disk, port);
  }

  /** Waits until sshd lets root in. */
  async up(limit = 300_000): Promise<void> {
    await this.vm.until('a login prompt', () => (/debian-disk login:/.test(this.vm.console) ? true : undefined), limit);
    const end = Date.now() + limit;
    for (;;) {
      const r = await this.ssh('true', 120_000).catch((error: Error) => error);
      if (typeof r === 'string') return;
      assert.ok(Date.now() < end, `sshd does not let us in: ${r.message}\n${this.vm.console.slice(-2000)}`);
      await sleep(500);
    }
  }

  /** What a command prints in the guest. Rejects where it fails. */
  ssh(command: string, timeout = 600_000): Promise<string> {
    const quiet = [
      'UserKnownHostsFile=/dev/null',
      'StrictHostKeyChecking=no',
      'LogLevel=ERROR',
      'ConnectTimeout=120',
      'BatchMode=yes',
    ];
    const args = [...quiet.flatMap((q) => ['-o', q]), '-i', this.#disk.key, '-p', String(this.#port), 'root@127.0.0.1', command];
    return new Promise((resolve, reject) => {
      execFile('ssh', args, { timeout, maxBuffer: 1 << 24 }, (error, stdout, stderr) => {
        if (error) reject(new Error(`${command}: ${error.code ?? error.signal}\n${stdout}${stderr}`));
        else resolve(stdout);
      });
    });
  }

  /** Shuts the guest down by itself; the image is then without errors. */
  async off(limit = 600_000): Promise<void> {
    await this.ssh('systemctl poweroff').catch(() => '');
    await this.vm.until('the end', () => (this.vm.child.exitCode === null ? undefined : true), limit);
    assert.equal(this.vm.child.exitCode, 0);
    execFileSync('qemu-img', ['check', '-q', this.overlay]);
  }
}

/** A mirror of one package, served on this host's loopback: a flat repository (sources.list(5)). */
export async function serveMirror(folder: string): Promise<{ readonly port: number; readonly asked: string[]; close(): void }> {
  const root = join(folder, 'package');
  mkdirSync(join(root, 'DEBIAN'), { recursive: true });
  mkdirSync(join(root, 'usr/bin'), { recursive: true });
  const control = [
    'Package: from-the-host',
    'Version: 1.0',
    'Architecture: all',
    'Maintainer: test <test@example.org>',
    'Description: a test',
    '',
  ];
  writeFileSync(join(root, 'DEBIAN/control'), control.join('\n'));
  writeFileSync(join(root, 'usr/bin/from-the-host'), '#!/bin/sh\necho installed from the host\n', { mode: 0o755 });
  execFileSync('dpkg-deb', ['--root-owner-group', '-b', root, join(folder, 'p.deb')], { stdio: 'ignore' });
  const deb = execFileSync('cat', [join(folder, 'p.deb')]);
  const packages = Buffer.from(
    [...control.slice(0, -1), 'Filename: ./p.deb', `Size: ${deb.length}`, `SHA256: ${sha256(deb)}`, ''].join('\n'),
  );
  const files: Record<string, Buffer> = { '/Packages': packages, '/Packages.gz': gzipSync(packages), '/p.deb': deb };
  const sums = ['/Packages', '/Packages.gz'].map((f) => ` ${sha256(files[f]!)} ${files[f]!.length} ${f.slice(1)}`);
  files['/Release'] = Buffer.from(`Date: ${new Date().toUTCString()}\nSHA256:\n${sums.join('\n')}\n`);
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url!.replace('/./', '/');
    asked.push(path);
    const file = files[path];
    if (!file) response.writeHead(404);
    response.end(file);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, asked, close: () => server.close() };
}

/** Uses a guest as a user would: its services, its root, an address by DHCP, packages from the mirror. */
export async function useDebian(guest: DebianGuest, mirrorPort: number): Promise<void> {
  const state = await guest.ssh(
    'systemctl is-system-running --wait; systemctl --failed --no-legend; findmnt -no FSTYPE,OPTIONS /',
  );
  assert.match(state, /^running\next4 +rw,/, state);
  assert.match(
    await guest.ssh('ip -4 -br address show scope global; ip route'),
    / UP +10\.0\.2\.15\/24.*\ndefault via 10\.0\.2\.2 .*proto dhcp/s,
  );
  await guest.ssh(
    `rm -f /etc/apt/sources.list; echo "deb [trusted=yes] http://10.0.2.2:${mirrorPort}/ ./" >/etc/apt/sources.list`,
  );
  await guest.ssh('apt-get -q update');
  await guest.ssh('DEBIAN_FRONTEND=noninteractive apt-get -qy install from-the-host');
  assert.equal(await guest.ssh('from-the-host'), 'installed from the host\n');
  const written = await guest.ssh('dd if=/dev/urandom of=/root/file bs=1M count=32 conv=fsync 2>/dev/null; sha256sum /root/file');
  assert.equal(await guest.ssh('echo 3 >/proc/sys/vm/drop_caches; sha256sum /root/file'), written);
}
