// vCPUs that come and go while Linux runs.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { EmulatorProcess } from './emulator.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-vcpus-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('Linux takes a vCPU that is added, works on it, and lets it go', { timeout: 120_000 }, async () => {
  const e = await EmulatorProcess.linux(folder, 'vcpus', ['-smp', '1,maxcpus=2']);
  try {
    await e.shell();
    assert.match(await e.command('nproc; cat /sys/devices/system/cpu/possible'), /^1\s+0-1$/);
    type Possible = { type: string; props: Record<string, number>; 'qom-path'?: string };
    const possible = async (): Promise<Possible[]> => (await e.qmp('query-hotpluggable-cpus')) as Possible[];
    const free = (await possible()).find((one) => one['qom-path'] === undefined)!;
    const add = { driver: free.type, id: 'second', ...free.props };
    await assert.rejects(e.qmp('device_add', { ...add, driver: 'qemu64-x86_64-cpu' }), /expected cpu type: 'max-x86_64-cpu'/);
    await assert.rejects(e.qmp('device_add', { ...add, 'core-id': 9 }), /core-id: 9 must be in range/);
    await e.qmp('device_add', add);
    await assert.rejects(e.qmp('device_add', { ...add, id: 'third' }), /CPU\[1\] with APIC ID 1 exists/);
    const cpu = '/sys/devices/system/cpu/cpu1';
    const online = `until [ -e ${cpu}/online ]; do sleep 0.1; done; echo 1 > ${cpu}/online; nproc`;
    assert.match(await e.command(online), /2$/);
    assert.match(await e.command('taskset -c 1 sh -c \'awk "{print \\$39}" /proc/self/stat\''), /1$/);
    assert.equal(((await e.qmp('query-cpus-fast')) as unknown[]).length, 2);
    await e.qmp('device_del', { id: 'second' });
    await e.event('DEVICE_DELETED');
    assert.match(await e.command('nproc; dmesg | grep -c "Eject incomplete"'), /^1\s+0$/);
    assert.ok((await possible()).some((one) => one['qom-path'] === undefined));
    // Once more, over a restart, after which it is there from the start.
    e.events.length = 0;
    await e.qmp('device_add', add);
    await e.qmp('system_reset');
    e.console = '';
    await e.shell();
    assert.match(await e.command('nproc'), /^2$/);
  } finally {
    await e.quit();
  }
});

test('Linux has the NUMA nodes of -numa: memory, vCPUs, distances', { timeout: 120_000 }, async () => {
  const e = await EmulatorProcess.linux(folder, 'numa', [
    ...[
      '-m',
      '384',
      '-smp',
      '3,maxcpus=4',
      '-object',
      'memory-backend-ram,id=a,size=256M',
      '-object',
      'memory-backend-memfd,id=b,size=128M',
    ],
    ...['-numa', 'node,memdev=a,cpus=0-1', '-numa', 'node,memdev=b,cpus=2-3', '-numa', 'dist,src=0,dst=1,val=21'],
  ]);
  try {
    await e.shell();
    const nodes = '/sys/devices/system/node';
    assert.match(
      await e.command(`cat ${nodes}/online ${nodes}/node?/cpulist ${nodes}/node?/distance`),
      /^0-1\s+0-1\s+2\s+10 21\s+21 10$/,
    );
    const total = await e.command(`awk '/MemTotal/ { print $4 }' ${nodes}/node?/meminfo`);
    const [first = 0, second = 0] = total.trim().split(/\s+/).map(Number);
    // What the kernel takes for itself before it counts is of the first node, for the most part.
    assert.ok(first > 150 * 1024 && first <= 256 * 1024, total);
    assert.ok(second > 100 * 1024 && second <= 128 * 1024, total);
    type Possible = { props: Record<string, number>; type: string; 'qom-path'?: string };
    const possible = (await e.qmp('query-hotpluggable-cpus')) as Possible[];
    assert.deepEqual(
      possible.map((one) => one.props['node-id']),
      [1, 1, 0, 0],
    );
    const free = possible.find((one) => one['qom-path'] === undefined)!;
    await assert.rejects(
      e.qmp('device_add', { driver: free.type, ...free.props, 'node-id': 0 }),
      /node-id=0 must match numa node/,
    );
    await e.qmp('device_add', { driver: free.type, id: 'third', ...free.props });
    const cpu = '/sys/devices/system/cpu/cpu3';
    assert.match(
      await e.command(`until [ -e ${cpu}/online ]; do sleep 0.1; done; echo 1 > ${cpu}/online; cat ${nodes}/node1/cpulist`),
      /2-3$/,
    );
    assert.equal(
      String(await e.qmp('human-monitor-command', { 'command-line': 'info numa' }))
        .replaceAll('\r', '')
        .trim(),
      '2 nodes\nnode 0 cpus: 0 1\nnode 0 size: 256 MB\nnode 0 plugged: 0 MB\nnode 1 cpus: 2 3\nnode 1 size: 128 MB\nnode 1 plugged: 0 MB',
    );
    assert.deepEqual(
      ((await e.qmp('query-memdev')) as { id: string; size: number }[]).map(({ id, size }) => [id, size]),
      [
        ['a', 256 * 2 ** 20],
        ['b', 128 * 2 ** 20],
      ],
    );
  } finally {
    await e.quit();
  }
});
