// Limits of guests by control groups, where this host lets us make them: what is set is what the kernel says.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { rootOf } from '../../src/daemon/cgroups.ts';
import { Client, idleGuest, until, uuidOf } from './client.ts';
import { missing, realEmulator, TestDaemon } from './daemon-process.ts';

const read = (path: string): string => readFileSync(path, 'utf8').trim();

const mounts = `25 1 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
26 1 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 1 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw`;

test('the hierarchy of a controller is found in both versions', () => {
  const own = '4:memory:/box/one\n3:cpu,cpuacct:/\n0::/elsewhere';
  const controllers = new Map([['/sys/fs/cgroup/unified', 'io pids']]);
  assert.deepEqual(rootOf('memory', mounts, own, controllers), {
    version: 1,
    mount: '/sys/fs/cgroup/memory',
    path: '/sys/fs/cgroup/memory/box/one/machine',
  });
  assert.equal(rootOf('cpu', mounts, own, controllers)?.path, '/sys/fs/cgroup/cpu/machine');
  assert.equal(rootOf('io', mounts, own, controllers)?.version, 2);
  assert.equal(rootOf('io', mounts, own, new Map()), undefined);
});

function groupsOf(controller: 'cpu' | 'memory' | 'io'): string | undefined {
  const unified = '/sys/fs/cgroup/cgroup.controllers';
  const controllers = new Map(existsSync(unified) ? [['/sys/fs/cgroup', read(unified)]] : []);
  return rootOf(controller, read('/proc/self/mountinfo'), read('/proc/self/cgroup'), controllers)?.path;
}
function noGroups(): string | false {
  for (const controller of ['cpu', 'memory'] as const) {
    const path = groupsOf(controller);
    if (path === undefined || !existsSync(dirname(path))) return `this host has no control group of ${controller}`;
    // Version 1 alone says its limits under these names.
    if (existsSync(join(dirname(path), 'cgroup.controllers'))) return 'control groups of version 2';
    try {
      mkdirSync(`${path}/nonroot-try`, { recursive: true });
      rmdirSync(`${path}/nonroot-try`);
    } catch (error) {
      return `no control groups may be made here: ${(error as Error).message}`;
    }
  }
  return false;
}

/** A disk of this host, with its number. */
function blockDevice(): readonly [path: string, number: string] | undefined {
  for (const name of existsSync('/sys/block') ? readdirSync('/sys/block') : [])
    if (existsSync(`/dev/${name}`) && existsSync(`/sys/block/${name}/device`))
      return [`/dev/${name}`, read(`/sys/block/${name}/dev`)];
  return undefined;
}
const noDevice = (): string | false =>
  blockDevice() === undefined || groupsOf('io') === undefined ? 'this host has no disk, or no control group for it' : false;

describe('limits by control groups', { skip: missing('virsh', realEmulator) || noGroups(), timeout: 120_000 }, () => {
  const daemon = new TestDaemon();
  let client: Client;
  const own = (controller: 'cpu' | 'memory' | 'io'): string => {
    const path = groupsOf(controller)!;
    const found = readdirSync(path).find((name) => name.endsWith('-limited.nonroot'));
    return join(path, found ?? 'none');
  };
  before(async () => {
    await daemon.start();
    client = await Client.connect(daemon.uri);
    const tuned = '<cputune><shares>300</shares></cputune></domain>';
    const dom = await client.define(idleGuest('limited', uuidOf(1)).replace('</domain>', tuned));
    await client.start(dom);
  });
  after(async () => {
    client?.close();
    await daemon.close();
  });
  const run = async (...words: readonly string[]): Promise<void> => {
    const { code, out } = await daemon.virsh(...words);
    assert.equal(code, 0, out);
  };

  test('a definition limits its guest from the start', () => {
    assert.equal(read(`${own('cpu')}/cpu.shares`), '300');
  });
  test('limits of a running guest are the kernel’s at once, thread by thread', async () => {
    await run('schedinfo', 'limited', '--set', 'cpu_shares=512', '--live');
    await run('schedinfo', 'limited', '--set', 'vcpu_quota=50000', '--live');
    await run('memtune', 'limited', '--hard-limit', '200M', '--live');
    assert.equal(read(`${own('cpu')}/cpu.shares`), '512');
    assert.equal(read(`${own('cpu')}/vcpu0/cpu.cfs_quota_us`), '50000');
    assert.equal(read(`${own('cpu')}/vcpu0/tasks`).split('\n').length, 1);
    assert.equal(read(`${own('memory')}/memory.limit_in_bytes`), String(200 << 20));
    await run('memtune', 'limited', '--hard-limit', '300M', '--swap-hard-limit', '400M', '--live');
    assert.equal(read(`${own('memory')}/memory.limit_in_bytes`), String(300 << 20));
  });
  test('limits on a device of the host come, change and go', { skip: noDevice() }, async () => {
    const [path, number] = blockDevice()!;
    const now = (file: string): string => read(`${own('io')}/blkio.throttle.${file}_device`);
    await run(
      'blkiotune',
      'limited',
      '--device-read-bytes-sec',
      `${path},1048576`,
      '--device-write-iops-sec',
      `${path},50`,
      '--live',
    );
    assert.deepEqual([now('read_bps'), now('write_iops')], [`${number} 1048576`, `${number} 50`]);
    await run('blkiotune', 'limited', '--device-read-bytes-sec', `${path},2097152`, '--live');
    assert.deepEqual([now('read_bps'), now('write_iops')], [`${number} 2097152`, `${number} 50`]);
    assert.match((await daemon.virsh('blkiotune', 'limited')).out, new RegExp(`device_read_bytes_sec: ${path},2097152`));
    await run('blkiotune', 'limited', '--device-read-bytes-sec', `${path},0`, '--device-write-iops-sec', `${path},0`, '--live');
    assert.deepEqual([now('read_bps'), now('write_iops')], ['', '']);
    const { code, out } = await daemon.virsh('blkiotune', 'limited', '--device-read-bytes-sec', '/dev/null,5', '--live');
    assert.match(out, /Path '\/dev\/null' must identify a block device/);
    assert.equal(code, 1);
    assert.doesNotMatch((await daemon.virsh('dumpxml', 'limited')).out, /<device>/);
  });
  test('what the kernel refuses is said, and nothing has changed', async () => {
    const { code, out } = await daemon.virsh('schedinfo', 'limited', '--set', 'vcpu_quota=1', '--live');
    assert.equal(code, 1);
    assert.match(out, /Unable to write to '.*cfs_quota_us': Invalid argument/);
    const { out: shown } = await daemon.virsh('schedinfo', 'limited', '--live');
    assert.match(shown, /vcpu_quota +: 50000/);
  });
  test('the groups go with the guest', async () => {
    await run('destroy', 'limited');
    await until('no group is left', () => !existsSync(own('cpu')) && !existsSync(own('memory')), 10_000);
  });
});
