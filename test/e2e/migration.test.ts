// Saved machines over QMP, with one boot: live migration of a busy guest to a second process, to a command and back, and snapshots in a
// qcow2 image that are gone back to while it runs and at a start.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { EmulatorProcess } from './emulator.ts';
import { missing, program } from './program.ts';

const skip = await missing('debian-cloud');
const folder = mkdtempSync(join(tmpdir(), 'nonroot-migration-'));
const processes: EmulatorProcess[] = [];
const kept = (e: EmulatorProcess): EmulatorProcess => {
  processes.push(e);
  return e;
};
after(async () => {
  for (const e of processes) await e.quit();
  rmSync(folder, { recursive: true });
});
const EVENTS = { capabilities: [{ capability: 'events', state: true }] };
/** Writes data and its sum again and again, and notes what does not fit. */
const LOAD =
  'while true; do head -c 2000000 /dev/urandom > /tmp/d; sha256sum /tmp/d > /tmp/s; sha256sum -c /tmp/s >/dev/null || echo BAD >> /tmp/bad; echo x >> /tmp/n; done';

test('saved machines', { skip, timeout: 280_000 }, async (t) => {
  const disk = join(folder, 'disk.qcow2');
  const made = await program('nonroot', ['img', 'create', '-f', 'qcow2', disk, '32M']);
  assert.equal(made.code, 0, made.text);
  const first = kept(await EmulatorProcess.linux(folder, 'first', ['-smp', '2']));
  await first.shell();

  await t.test('a busy guest moves to another process, and nothing of it is lost', async (s) => {
    await first.command(`(${LOAD}) & true`);
    const second = kept(await EmulatorProcess.linux(folder, 'second', ['-smp', '2', '-S', '-incoming', 'defer']));
    assert.equal(await second.status(), 'inmigrate');
    for (const e of [first, second]) await e.qmp('migrate-set-capabilities', EVENTS);
    const uri = `unix:${join(folder, 'migrate')}`;
    await second.qmp('migrate-incoming', { uri });
    await first.qmp('migrate', { uri, detach: true });
    await first.event('MIGRATION', 'completed');
    await second.event('MIGRATION', 'completed');
    assert.deepEqual([await first.status(), await second.status()], ['postmigrate', 'paused']);
    const info = (await first.qmp('query-migrate')) as {
      status: string;
      downtime: number;
      ram: { total: number; transferred: number };
    };
    assert.ok(info.status === 'completed' && info.downtime >= 0 && info.ram.transferred < info.ram.total, JSON.stringify(info));
    await first.quit();
    await second.qmp('cont');
    const said = await second.command('sleep 1; kill %1; wc -l < /tmp/n; cat /tmp/bad; nproc');
    assert.match(said, /^\d+\s+cat: can't open '\/tmp\/bad'[^\n]*\s+2/, said);

    await s.test('a migration that cannot be done leaves the guest running', async () => {
      await assert.rejects(second.qmp('migrate', { uri: 'unix:/nonexistent/socket' }), /Cannot connect/);
      await assert.rejects(second.qmp('migrate', { uri: 'rdma:x' }), /accepted are tcp/);
      second.events.length = 0;
      await second.qmp('migrate', { uri: 'exec:head -c 100000 >/dev/null; exit 3', detach: true });
      await second.event('MIGRATION', 'failed');
      await second.until('running again', async () => ((await second.status()) === 'running' ? true : undefined));
      assert.equal(await second.command('echo alive'), 'alive');
    });

    await s.test('a machine goes to a file and comes from it', async () => {
      const file = join(folder, 'saved');
      await second.command('echo kept > /tmp/kept');
      second.events.length = 0;
      await second.qmp('migrate', { uri: `exec:gzip -1 > ${file}`, detach: true });
      await second.event('MIGRATION', 'completed');
      await second.quit();
      const third = kept(await EmulatorProcess.linux(folder, 'third', ['-smp', '2', '-incoming', `exec:gzip -dc ${file}`]));
      await third.until('running', async () => ((await third.status()) === 'running' ? true : undefined));
      assert.equal(await third.command('cat /tmp/kept'), 'kept');
      await third.quit();
    });
  });

  await t.test('snapshots in a disk image: gone back to, listed, deleted, and started from', async () => {
    const drive = ['-drive', `file=${disk},if=virtio,format=qcow2`];
    const vm = kept(await EmulatorProcess.linux(folder, 'disk', drive));
    await vm.shell();
    // What a boot needs was made before the machine was there: a module for each handler costs a boot a tenth of its time.
    const met = /(\d+) modules with handlers that were not made ahead/.exec(await vm.hmp('info jit'));
    assert.ok(Number(met?.[1]) < 100, `${met?.[0]}`);
    await vm.command('mkfs.ext2 /dev/vda >/dev/null 2>&1; mkdir /m; mount /dev/vda /m; echo one > /m/f; sync');
    assert.equal(await vm.hmp('savevm s1'), '');
    // As QEMU 7.2 writes it, column by column.
    const [head, s1] = (await vm.hmp('info snapshots')).split(/\r?\n/).slice(1);
    assert.equal(head, 'ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT');
    assert.match(s1!, /^-- {8}s1 {14} {0,3}[\d.]+ MiB \d{4}-\d\d-\d\d \d\d:\d\d:\d\d 00:\d\d:\d\d\.\d{3}\s*$/);
    assert.equal(await vm.hmp('migrate_set_parameter max-bandwidth 50'), '');
    assert.equal(await vm.hmp('migrate_set_parameter downtime-limit 500'), '');
    assert.match(await vm.hmp('migrate_set_parameter downtime-limit soon'), /Error: Parameter 'downtime-limit' expects/);
    assert.match(await vm.hmp('migrate_set_parameter nonsense 1'), /Error: invalid parameter value: nonsense/);
    assert.equal(await vm.hmp('migrate_set_capability events on'), '');
    assert.match(await vm.hmp('info migrate_capabilities'), /^events: on\r?$/m);
    const parameters = await vm.hmp('info migrate_parameters');
    assert.match(parameters, /^max-bandwidth: 52428800 bytes\/second\r?$/m);
    assert.match(parameters, /^downtime-limit: 500 ms\r?$/m);
    assert.match(await vm.hmp('migrate tcp:127.0.0.1:1'), /Error: Cannot connect/);
    assert.match(await vm.hmp('info migrate'), /^Migration status: failed \(.*\)\r?\ntotal time: \d+ ms/);
    assert.match(await vm.hmp('i /b 0x64'), /^portb\[0x0064\] = 0x[0-9a-f]{2}$/);
    assert.match(await vm.hmp('i /w 0xcf8'), /^portl\[0x0cf8\] = 0x[0-9a-f]{8}$/);
    await vm.command('echo two > /m/f; sync; echo x > /tmp/x');
    assert.match(await vm.hmp('loadvm nope'), /Snapshot 'nope' does not exist/);
    assert.equal(await vm.hmp('loadvm s1'), '');
    assert.match(await vm.command('cat /m/f /tmp/x'), /^one\s+cat: can't open '\/tmp\/x'/);
    await vm.command('echo three > /m/g; sync');
    assert.equal(await vm.hmp('savevm s2'), '');
    await vm.qmp('quit');
    await vm.ended;
    const again = kept(await EmulatorProcess.linux(folder, 'again', [...drive, '-loadvm', 's2']));
    await again.until('running', async () => ((await again.status()) === 'running' ? true : undefined));
    assert.match(await again.command('cat /m/f /m/g'), /^one\s+three$/);
    assert.equal(await again.hmp('delvm s1'), '');
    assert.doesNotMatch(await again.hmp('info snapshots'), /s1/);
    await again.command('umount /m; echo done');
    await again.qmp('quit');
    await again.ended;
    const check = spawnSync('qemu-img', ['check', disk], { encoding: 'utf8' });
    if (!check.error) assert.equal(check.status, 0, check.stdout + check.stderr);
    const listed = await program('nonroot', ['img', 'snapshot', '-l', disk]);
    assert.match(listed.text, /s2/);
  });
});
