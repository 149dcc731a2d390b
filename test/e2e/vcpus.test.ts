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
