// A real libvirtd takes the emulator as <emulator>: it probes it, starts guests on both boards and does with them what virsh offers.
// libvirtd runs in a mount namespace of its own, with folders of the test's; that needs root.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ReadStream } from 'node:tty';
import { openImage } from '../../src/host/node/fetch-image.ts';
import { missing } from '../e2e/program.ts';
import { OURS } from './process.ts';

const absent = ['/usr/sbin/libvirtd', '/usr/bin/virsh', '/usr/bin/unshare', '/usr/bin/nsenter', '/usr/bin/qemu-img'].find(
  (p) => !existsSync(p),
);
const skip =
  absent !== undefined
    ? `${absent} is not installed`
    : process.getuid?.() !== 0
      ? 'libvirtd is started as root'
      : await missing('debian-cloud');

const folder = mkdtempSync(join(tmpdir(), 'nonroot-libvirt-'));
const at = (name: string): string => join(folder, name);
const pidOf = (name: string): number => Number(readFileSync(at(`${name}.pid`), 'utf8'));
/** Folders that libvirtd has compiled in, and what the test puts there. */
const places: readonly (readonly [string, string])[] = [
  ['/var/lib/libvirt', 'varlib'],
  ['/run/libvirt', 'run'],
  ['/etc/libvirt', 'etc'],
  ['/var/cache/libvirt', 'cache'],
  ['/var/log/libvirt', 'log'],
];
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** Something that comes true within a minute. */
async function until(what: string, is: () => boolean): Promise<void> {
  for (let i = 0; i < 600; i++) {
    if (is()) return;
    await sleep(100);
  }
  throw new Error(`Waited in vain: ${what}`);
}
function virsh(...args: string[]): string {
  const r = spawnSync('nsenter', ['-t', String(pidOf('libvirtd')), '-m', '--', 'virsh', '-c', 'qemu:///system', ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  const log = at(`log/qemu/${args[1]}.log`);
  assert.equal(
    r.status,
    0,
    `virsh ${args.join(' ')}\n${r.stdout}${r.stderr}\n${existsSync(log) ? readFileSync(log, 'utf8').slice(-2000) : ''}`,
  );
  return r.stdout.trim();
}

before(async () => {
  if (skip) return;
  for (const [, name] of places) mkdirSync(at(name));
  cpSync('/etc/libvirt', at('etc'), { recursive: true });
  writeFileSync(at('etc/qemu.conf'), 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nstdio_handler = "file"\n');
  writeFileSync(at('etc/libvirtd.conf'), 'auth_unix_rw = "none"\nunix_sock_group = "root"\n');
  const script = [
    'mount --make-rprivate /',
    ...places.map(([path, name]) => `mkdir -p ${path}; mount --bind ${at(name)} ${path}`),
    `/usr/sbin/virtlogd -p ${at('virtlogd.pid')} &`,
    `exec /usr/sbin/libvirtd -p ${at('libvirtd.pid')}`,
  ];
  spawn('unshare', ['-m', 'bash', '-c', script.join('\n')], { detached: true, stdio: 'ignore' }).unref();
  await until('libvirtd listens', () => existsSync(at('run/libvirt-sock')) && existsSync(at('libvirtd.pid')));
});
after(async () => {
  if (!skip && existsSync(at('libvirtd.pid'))) {
    for (const name of ['nr-pc', 'nr-q35'])
      spawnSync('nsenter', ['-t', String(pidOf('libvirtd')), '-m', '--', 'virsh', 'destroy', name], { timeout: 20_000 });
    for (const name of ['libvirtd', 'virtlogd']) if (existsSync(at(`${name}.pid`))) process.kill(pidOf(name), 'SIGTERM');
    await sleep(1000);
  }
  rmSync(folder, { recursive: true, force: true });
});

function domain(name: string, machine: 'pc' | 'q35', image: { kernel: string; initrd: string; append: string }): string {
  const cd = machine === 'pc' ? "dev='hdc' bus='ide'" : "dev='sda' bus='sata'";
  return `<domain type='qemu'><name>${name}</name><maxMemory slots='2' unit='MiB'>1024</maxMemory><memory unit='MiB'>256</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='${machine}'>hvm</type><kernel>${image.kernel}</kernel><initrd>${image.initrd}</initrd><cmdline>${image.append}</cmdline></os>
<features><acpi/><apic/></features><cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model><numa><cell id='0' cpus='0' memory='256' unit='MiB'/></numa></cpu>
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot>
<devices><emulator>${OURS}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${at(`${name}.qcow2`)}'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><target ${cd}/><readonly/></disk>
<controller type='usb' model='${machine === 'pc' ? 'none' : 'qemu-xhci'}'/>
<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>
<serial type='pty'/><console type='pty'/>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<memballoon model='none'/><graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/><video><model type='vga'/></video>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>`;
}

/** The guest's console on its terminal. */
function terminal(path: string): { text(): string; type(line: string): void; close(): void } {
  const fd = openSync(path, 'r+');
  const stream = new ReadStream(fd);
  let text = '';
  stream.on('data', (b: Buffer) => (text += b.toString()));
  stream.on('error', () => {});
  return {
    text: () => text,
    type: (line) => void (stream as unknown as NodeJS.WritableStream).write(`${line}\r`),
    close: () => stream.destroy(),
  };
}

for (const machine of ['pc', 'q35'] as const) {
  test(`a guest on ${machine}: console, power, disks and network hot, snapshots, jobs, screenshot, save, dump`, {
    skip,
    timeout: 300_000,
  }, async () => {
    const name = `nr-${machine}`;
    const { kernel, initrd, append } = await openImage('debian-cloud');
    for (const disk of [name, 'hot']) spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', at(`${disk}.qcow2`), '64M']);
    writeFileSync(at('cd.iso'), '');
    truncateSync(at('cd.iso'), 1 << 20);
    writeFileSync(at('domain.xml'), domain(name, machine, { kernel, initrd, append }));
    virsh('define', at('domain.xml'));
    virsh('start', name);
    const console = terminal(virsh('ttyconsole', name));
    console.type('');
    await until('a shell on the console', () => {
      if (!/a2b/.test(console.text())) console.type('echo a$((1+1))b');
      spawnSync('sleep', ['0.5']);
      return /\ba2b\b/.test(console.text());
    });
    virsh('suspend', name);
    assert.equal(virsh('domstate', name), 'paused');
    virsh('resume', name);
    assert.equal(virsh('domstate', name), 'running');
    virsh('screenshot', name, at('shot.png'));
    assert.equal(readFileSync(at('shot.png')).subarray(1, 4).toString(), 'PNG');
    virsh('send-key', name, 'KEY_A');

    virsh('attach-disk', name, at('hot.qcow2'), 'vdb', '--subdriver', 'qcow2', '--targetbus', 'virtio');
    virsh('detach-disk', name, 'vdb');
    await until('the disk is gone', () => !/vdb/.test(virsh('domblklist', name)));
    writeFileSync(at('dimm.xml'), "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>");
    virsh('attach-device', name, at('dimm.xml'), '--live');
    assert.match(virsh('dumpxml', name), /<address type='dimm' slot='0' base='0x100000000'\/>/);
    console.type('until [ -e /sys/devices/system/memory/memory32 ]; do sleep 0.2; done; echo di""mm-$((2+2))');
    await until('the guest has the memory', () => /dimm-4/.test(console.text()));
    virsh('detach-device', name, at('dimm.xml'), '--live');
    await until('the memory is gone', () => !/model='dimm'/.test(virsh('dumpxml', name)));
    virsh('domif-setlink', name, '52:54:00:11:22:33', 'down');
    virsh('domif-setlink', name, '52:54:00:11:22:33', 'up');
    const cd = machine === 'pc' ? 'hdc' : 'sda';
    virsh('change-media', name, cd, at('cd.iso'), '--insert');
    assert.match(virsh('domblklist', name), /cd\.iso/);
    virsh('change-media', name, cd, '--eject');

    virsh('blkdeviotune', name, 'vda', '--total-iops-sec', '500');
    virsh('blockresize', name, 'vda', '96M');
    assert.match(virsh('domblkinfo', name, 'vda'), /Capacity: +100663296/);
    virsh('snapshot-create-as', name, 's1', '--disk-only', '--diskspec', `vda,file=${at('s1.qcow2')}`, '--no-metadata');
    virsh('blockcommit', name, 'vda', '--active', '--pivot', '--wait');
    rmSync(at('s1.qcow2'));
    virsh('snapshot-create-as', name, 's2', '--disk-only', '--diskspec', `vda,file=${at('s2.qcow2')}`, '--no-metadata');
    virsh('blockpull', name, 'vda', '--wait');
    virsh('blockcopy', name, 'vda', at('copy.qcow2'), '--wait', '--pivot', '--format', 'qcow2', '--transient-job');
    assert.match(virsh('domblklist', name), /copy\.qcow2/);
    virsh('iothreadadd', name, '1');
    virsh('iothreaddel', name, '1');
    virsh('dump', '--memory-only', name, at('core'));
    assert.equal(readFileSync(at('core')).subarray(1, 4).toString(), 'ELF');
    virsh('domstats', name);

    virsh('save', name, at('saved'));
    assert.equal(virsh('domstate', name), 'shut off');
    console.close();
    virsh('restore', at('saved'));
    const again = terminal(virsh('ttyconsole', name));
    again.type('echo back-$((40+2))');
    await until('the guest goes on', () => /back-42/.test(again.text()));
    virsh('reset', name);
    again.type('');
    await until('a shell after the reset', () => {
      again.type('echo c$((1+2))d');
      spawnSync('sleep', ['0.5']);
      return /\bc3d\b/.test(again.text());
    });
    again.type('poweroff');
    await until('the guest is off', () => virsh('domstate', name) === 'shut off');
    again.close();
    virsh('start', name);
    virsh('destroy', name);
    virsh('undefine', name);
    for (const file of ['s2.qcow2', 'copy.qcow2', 'core', 'saved']) rmSync(at(file), { force: true });
  });
}
