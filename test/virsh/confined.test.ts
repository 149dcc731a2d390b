// Emulators of ours under nonrootd reach the files of their guest and no others, whoever speaks to their monitor; what virsh plugs in, copies
// and dumps later they get as descriptors.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hasLandlock } from '../../src/host/node/confine.ts';
import { idleGuest, makeDisk, uuidOf } from './client.ts';
import { missing, ourEmulator, TestDaemon } from './daemon-process.ts';

const skip = missing('virsh', 'qemu-img') || (hasLandlock() ? false : 'this kernel has no Landlock');

describe('a confined emulator of the daemon', { skip, timeout: 600_000 }, () => {
  const daemon = new TestDaemon();
  const at = (name: string): string => join(daemon.directory, name);
  const works = async (...args: string[]): Promise<string> => {
    const { code, out } = await daemon.virsh(...args);
    assert.equal(code, 0, `virsh ${args.join(' ')}: ${out}\n${daemon.said}`);
    return out;
  };
  const monitor = (execute: string, args?: object): Promise<string> =>
    works('qemu-monitor-command', 'one', JSON.stringify({ execute, ...(args && { arguments: args }) }));
  before(async () => {
    await daemon.start();
    for (const name of ['d.qcow2', 'e.qcow2', 'second.qcow2', 'other.qcow2']) makeDisk(at(name), '16M');
    const disk = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${at('d.qcow2')}'/><target dev='vda' bus='virtio'/></disk>`;
    const second = disk.replace('d.qcow2', 'second.qcow2').replace("dev='vda' bus='virtio'", "dev='sda' bus='usb'");
    writeFileSync(at('one.xml'), idleGuest('one', uuidOf(1), disk + second, ourEmulator));
    await works('define', at('one.xml'));
    await works('start', 'one');
  });
  after(() => daemon.close());

  test('opens neither the host’s files nor other guests’, by whatever command', async () => {
    const log = readFileSync(at('state/log/qemu/one.log'), 'utf8');
    assert.match(log, /-sandbox on,\S*files=deny/);
    for (const filename of ['/etc/passwd', '/etc/shadow', at('other.qcow2'), at('state/run/qemu/one.json')])
      assert.match(
        await monitor('blockdev-add', { driver: 'file', filename, 'node-name': 'x', 'read-only': true }),
        /permission denied|no such file/,
        filename,
      );
    for (const [command, args] of [
      ['pmemsave', { val: 0, size: 4096, filename: at('memory') }],
      ['dump-guest-memory', { paging: false, protocol: `file:${at('core')}` }],
      ['chardev-add', { id: 'c', backend: { type: 'file', data: { out: at('console') } } }],
      ['nbd-server-start', { addr: { type: 'unix', data: { path: at('nbd') } } }],
      ['nonroot-admit-file', { path: '/etc/shadow' }],
      ['migrate', { uri: 'exec:touch /tmp/never' }],
    ] as const)
      assert.match(await monitor(command, args), /"error"/, command);
    for (const name of ['memory', 'core', 'console', 'nbd']) assert.ok(!existsSync(at(name)), name);
  });

  test('has no way to a disk of its start any more once it is detached', async () => {
    const read = (): Promise<string> =>
      monitor('blockdev-add', { driver: 'file', filename: at('second.qcow2'), 'node-name': 'x', 'read-only': true });
    assert.match(await read(), /"return"/, 'while the guest has it');
    await monitor('blockdev-del', { 'node-name': 'x' });
    await works('detach-disk', 'one', 'sda');
    assert.match(await read(), /permission denied/);
    await works('attach-disk', 'one', at('second.qcow2'), 'sda', '--targetbus', 'usb', '--subdriver', 'qcow2');
    await works('detach-disk', 'one', 'sda');
    assert.match(await read(), /permission denied/);
  });

  test('gets what is plugged in, put on top, merged and dumped', async () => {
    await works('attach-disk', 'one', at('e.qcow2'), 'vdb', '--subdriver', 'qcow2');
    await works('snapshot-create-as', 'one', 's1', '--disk-only', '--diskspec', `vda,file=${at('over.qcow2')}`);
    await works('blockcommit', 'one', 'vda', '--active', '--pivot');
    assert.match(await works('domblklist', 'one'), /vda +\S+d\.qcow2\n +vdb +\S+\n*/);
    await works('dump', 'one', at('core'), '--memory-only');
    await works('dump', 'one', at('core2'), '--memory-only');
    for (const name of ['core', 'core2']) assert.ok(statSync(at(name)).size > 32 << 20, name);
    await works('detach-disk', 'one', 'vdb');
    await works('managedsave', 'one');
    await works('start', 'one');
    await works('destroy', 'one');
    execFileSync('qemu-img', ['check', '-q', at('d.qcow2')]);
  });
});
