// Checkpoints and backups of a running guest of our emulator, by virsh: what changed since a checkpoint, over a restart of the guest.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { nodeSockets } from '../../src/host/node/daemon-sockets.ts';
import { makeCertificates, noOpenssl } from '../../src/host/node/tls-testing.ts';
import { QmpClient } from '../../src/rpc/qmp/client.ts';
import { idleGuest, makeDisk, uuidOf } from './client.ts';
import { missing, ourEmulator, TestDaemon } from './daemon-process.ts';

const skip = missing('virsh', 'qemu-img', 'qemu-io');

describe('backup of a guest of our emulator', { skip, timeout: 280_000 }, () => {
  const scratch = new TestDaemon();
  const certificates = noOpenssl ? '' : makeCertificates();
  const daemon = new TestDaemon(['--config', join(scratch.directory, 'conf')], scratch.directory);
  const at = (name: string): string => join(daemon.directory, name);
  const works = async (...args: string[]): Promise<string> => {
    const { code, out } = await daemon.virsh(...args);
    assert.equal(code, 0, `virsh ${args.join(' ')}: ${out}\n${daemon.said}`);
    return out;
  };
  const file = (name: string, text: string): string => {
    writeFileSync(at(name), text);
    return at(name);
  };
  const monitor = (execute: string, args?: object): Promise<string> =>
    works('qemu-monitor-command', 'one', JSON.stringify({ execute, ...(args && { arguments: args }) }));
  /** Writes to the disk of the running guest, as it would itself; the emulator makes sockets in its own folder only. */
  const write = async (...commands: string[]): Promise<void> => {
    const lib = at('state/lib/qemu');
    const own = join(lib, readdirSync(lib).find((name) => name.startsWith('domain-'))!, 'in');
    await monitor('nbd-server-start', { addr: { type: 'unix', data: { path: own } } });
    await monitor('block-export-add', { type: 'nbd', id: 'in', 'node-name': 'libvirt-1-format', writable: true, name: 'in' });
    execFileSync('qemu-io', ['-f', 'raw', ...commands.flatMap((c) => ['-c', c]), `nbd+unix:///in?socket=${own}`]);
    await monitor('nbd-server-stop');
  };
  const same = (a: string, b: string): string => {
    try {
      return execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', '-U', a, b]).toString();
    } catch (error) {
      return String((error as { stdout: Buffer }).stdout);
    }
  };
  /** Until no job is under way. */
  const done = async (): Promise<void> => {
    for (let i = 0; !/None/.test(await works('domjobinfo', 'one')) && i < 200; i++);
  };
  /** The monitor of the guest, for a moment without a daemon. */
  const monitorSocket = (): string => {
    const status = JSON.parse(readFileSync(join(at('state'), 'run/qemu/one.json'), 'utf8')) as { monitorPath: string };
    return status.monitorPath;
  };
  const quit = async (path: string, prefix: string): Promise<void> => {
    const qmp = new QmpClient(await nodeSockets.connect(path));
    await qmp.negotiate();
    const jobs = (await qmp.execute('query-block-jobs')) as { device: string }[];
    await qmp.execute('block-job-cancel', { device: jobs.find((one) => one.device.startsWith(prefix))!.device, force: true });
    for (let i = 0; i < 200; i++) {
      const [job] = (await qmp.execute('query-jobs')) as { status: string }[];
      if (job?.status === 'concluded') break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    qmp.close();
  };
  const checkpoint = (name: string): string => file(`${name}.xml`, `<domaincheckpoint><name>${name}</name></domaincheckpoint>`);
  before(async () => {
    writeFileSync(at('conf'), `backup_tls_x509_cert_dir = "${certificates}"\n`);
    await daemon.start();
    makeDisk(at('d.qcow2'), '32M');
    const disk = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${at('d.qcow2')}'/><target dev='vda' bus='virtio'/></disk>`;
    await works('define', file('one.xml', idleGuest('one', uuidOf(1), disk, ourEmulator)));
    await works('start', 'one');
  });
  after(async () => {
    await daemon.close();
    if (certificates !== '') rmSync(certificates, { recursive: true });
  });
  const restart = async (): Promise<void> => {
    await daemon.kill();
    await daemon.start();
  };

  test('an increment holds what changed since its checkpoint, over a restart of the guest', async () => {
    await write('write -P 1 0 4M');
    const full = `<domainbackup><disks><disk name='vda' type='file'><target file='${at('full')}'/></disk></disks></domainbackup>`;
    await works('backup-begin', 'one', file('full.xml', full), checkpoint('c1'));
    await done();
    await write('write -P 2 8M 64k');
    await works('destroy', 'one', '--graceful');
    assert.match(execFileSync('qemu-img', ['info', at('d.qcow2')]).toString(), /name: c1/);
    execFileSync('qemu-img', ['check', at('d.qcow2')]);
    await works('start', 'one');
    await write('write -P 3 20M 128k');
    const more = `<domainbackup><incremental>c1</incremental><disks><disk name='vda' type='file'><target file='${at('more')}'/></disk></disks></domainbackup>`;
    await works('backup-begin', 'one', file('more.xml', more), checkpoint('c2'));
    await done();
    const map = JSON.parse(execFileSync('qemu-img', ['map', '-U', '--output=json', at('more')]).toString()) as {
      start: number;
      length: number;
      data: boolean;
    }[];
    const held = map.filter((m) => m.data).map((m) => [m.start, m.length]);
    assert.deepEqual(held, [
      [8 << 20, 64 << 10],
      [20 << 20, 128 << 10],
    ]);
    assert.equal(await works('checkpoint-list', 'one', '--name'), 'c1\nc2');
  });

  test('in pull mode the disk is served as it was, with what changed since a checkpoint', async () => {
    await write('write -P 4 16M 64k');
    execFileSync('cp', [at('d.qcow2'), at('then.qcow2')]);
    const pull = `<domainbackup mode='pull'><incremental>c2</incremental><server transport='unix' socket='${at('out')}'/><disks><disk name='vda' type='file'><scratch file='${at('scratch')}'/></disk></disks></domainbackup>`;
    await works('backup-begin', 'one', file('pull.xml', pull), checkpoint('c3'));
    assert.match(await works('backup-dumpxml', 'one'), /exportname='vda'/);
    // The server is in use, so the guest's writes come by a node of their own.
    await monitor('block-export-add', { type: 'nbd', id: 'in', 'node-name': 'libvirt-1-format', writable: true, name: 'in' });
    execFileSync('qemu-io', [
      '-f',
      'raw',
      '-c',
      'write -P 5 16M 1M',
      '-c',
      'write -P 6 0 64k',
      `nbd+unix:///in?socket=${at('out')}`,
    ]);
    await monitor('block-export-del', { id: 'in', mode: 'hard' });
    execFileSync('qemu-img', ['convert', '-O', 'raw', `nbd+unix:///vda?socket=${at('out')}`, at('out.raw')]);
    assert.match(same(at('out.raw'), at('then.qcow2')), /identical/);
    assert.match(same(at('out.raw'), at('d.qcow2')), /mismatch/);
    const image = `driver=nbd,server.type=unix,server.path=${at('out')},export=vda,x-dirty-bitmap=qemu:dirty-bitmap:backup-vda`;
    const map = JSON.parse(execFileSync('qemu-img', ['map', '--output=json', '--image-opts', image]).toString()) as {
      start: number;
      length: number;
      data: boolean;
    }[];
    // QEMU shows what is marked as what is not data.
    assert.deepEqual(
      map.filter((m) => !m.data).map((m) => [m.start, m.length]),
      [[16 << 20, 64 << 10]],
    );
    await works('domjobabort', 'one');
    for (let i = 0; existsSync(at('scratch')) && i < 100; i++) await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual([existsSync(at('scratch')), existsSync(at('out'))], [false, false]);
    assert.doesNotMatch(await monitor('query-named-block-nodes'), /backup-vda/);
  });

  test('in pull mode the disk goes over TLS, and the backup goes on over a restart of the daemon', {
    skip: noOpenssl,
  }, async () => {
    execFileSync('cp', [at('d.qcow2'), at('then.qcow2')]);
    const server = `<server transport='unix' socket='${at('out')}' tls='yes'/>`;
    const pull = `<domainbackup mode='pull'><incremental>c3</incremental>${server}<disks><disk name='vda' type='file'><scratch file='${at('scratch')}'/></disk></disks></domainbackup>`;
    await works('backup-begin', 'one', file('pull.xml', pull));
    await restart();
    assert.match(await works('backup-dumpxml', 'one'), /exportname='vda'/);
    assert.match(await works('domjobinfo', 'one'), /Operation: +Backup/);
    const other = await daemon.virsh('backup-begin', 'one', at('pull.xml'));
    assert.match(other.out, /another job is active/);
    const object = `tls-creds-x509,id=t,dir=${certificates},endpoint=client`;
    const image = `driver=nbd,server.type=unix,server.path=${at('out')},export=vda,tls-creds=t,tls-hostname=there`;
    execFileSync('qemu-img', ['convert', '--object', object, '--image-opts', image, '-O', 'raw', at('out.raw')]);
    assert.match(same(at('out.raw'), at('then.qcow2')), /identical/);
    assert.throws(() => execFileSync('qemu-img', ['info', `nbd+unix:///vda?socket=${at('out')}`], { stdio: 'pipe' }), /TLS/);
    await restart();
    await works('domjobabort', 'one');
    for (let i = 0; existsSync(at('scratch')) && i < 100; i++) await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual([existsSync(at('scratch')), existsSync(at('out'))], [false, false]);
    await done();
    assert.doesNotMatch(await monitor('query-named-block-nodes'), /backup-vda/);
    assert.equal(await monitor('query-jobs').then((text) => JSON.parse(text).return.length), 0);
    assert.equal((await daemon.virsh('backup-dumpxml', 'one')).code, 1);
  });

  test('a copy goes on over a restart of the daemon, and is pivoted to', async () => {
    const copy = ['blockcopy', 'one', 'vda', '--transient-job', '--dest', at('copy.qcow2'), '--format', 'qcow2'];
    await works(...copy);
    await restart();
    for (let i = 0; !/Block Copy: \[100 %\]/.test(await works('blockjob', 'one', 'vda')) && i < 200; i++);
    await works('blockjob', 'one', 'vda', '--pivot');
    assert.match(await works('domblklist', 'one'), /copy\.qcow2/);
    assert.match(await works('dumpxml', 'one', '--inactive'), /copy\.qcow2/);
    await restart();
    assert.match(await works('domblklist', 'one'), /copy\.qcow2/);
    assert.equal(await works('blockjob', 'one', 'vda'), 'No current block job for vda');
  });

  test('a job that ends while no daemon listens ends when one comes', async () => {
    const back = ['blockcopy', 'one', 'vda', '--transient-job', '--dest', at('d2.qcow2'), '--format', 'qcow2'];
    await works(...back, '--bytes', '--bandwidth', '65536');
    const socket = monitorSocket();
    await daemon.kill();
    await quit(socket, 'copy-vda');
    await daemon.start();
    assert.equal(await works('blockjob', 'one', 'vda'), 'No current block job for vda');
    assert.match(await works('domblklist', 'one'), /copy\.qcow2/);
    assert.equal(await monitor('query-jobs').then((text) => JSON.parse(text).return.length), 0);
    assert.doesNotMatch(await monitor('query-named-block-nodes'), /d2\.qcow2/);
  });

  test('checkpoints have gone along with the copy, and what is left is whole', async () => {
    await works('checkpoint-delete', 'one', 'c1', '--children');
    await works('destroy', 'one', '--graceful');
    execFileSync('qemu-img', ['check', at('d.qcow2')]);
    execFileSync('qemu-img', ['check', at('copy.qcow2')]);
    assert.doesNotMatch(execFileSync('qemu-img', ['info', at('copy.qcow2')]).toString(), /name: c/);
  });
});
