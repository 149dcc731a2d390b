// Memory that comes and goes while Linux runs.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { EmulatorProcess } from './emulator.ts';

const folder = mkdtempSync(join(tmpdir(), 'nonroot-memory-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const MIB = 2 ** 20;
/** MiB that the guest has, whatever the kernel says meanwhile. */
const total = async (e: EmulatorProcess): Promise<number> =>
  Number(/has (\d+) MiB/.exec(await e.command(`awk '/MemTotal/ { print "h""as", int($2 / 1024), "MiB" }' /proc/meminfo`))?.[1]);
/** Brings the block of memory at a multiple of 128 MiB into use. */
const online = (block: number): string => {
  const state = `/sys/devices/system/memory/memory${block}/state`;
  return `until [ -e ${state} ]; do sleep 0.1; done; grep -q online ${state} || echo online_movable > ${state}; cat ${state}`;
};

for (const machine of ['pc', 'q35'])
  test(`${machine}: Linux takes memory that is added, works in it, and lets it go`, { timeout: 240_000 }, async () => {
    const e = await EmulatorProcess.linux(folder, machine, [
      ...['-M', machine, '-m', '256,slots=3,maxmem=1G', '-object', 'memory-backend-ram,id=m0,size=128M'],
      ...['-device', 'pc-dimm,id=d0,memdev=m0,slot=1'],
    ]);
    try {
      await e.shell();
      // What is there at the start lies at 4 GiB, the 32nd block.
      assert.match(await e.command(online(32)), /online/);
      const before = await total(e);
      await e.qmp('object-add', { 'qom-type': 'memory-backend-ram', id: 'm1', size: 256 * MIB });
      await e.qmp('device_add', { driver: 'pc-dimm', id: 'd1', memdev: 'm1' });
      assert.match(await e.command(online(33)), /online/);
      assert.match(await e.command(online(34)), /online/);
      assert.equal((await total(e)) - before, 256);
      const modules = (await e.qmp('query-memory-devices')) as { data: Record<string, unknown> }[];
      assert.deepEqual(
        modules.map(({ data: { id, addr, slot, hotplugged } }) => [id, addr, slot, hotplugged]),
        [
          ['d0', 2 ** 32, 1, false],
          ['d1', 2 ** 32 + 128 * MIB, 0, true],
        ],
      );
      // User pages go to movable memory first, which is what came.
      const fill =
        'mkdir -p /t; mount -t tmpfs -o size=400m none /t; dd if=/dev/urandom of=/t/a bs=1M count=60 2>/dev/null; cp /t/a /t/b';
      assert.match(await e.command(`${fill}; cmp /t/a /t/b && echo sa""me`), /same/);
      assert.match(await e.command('cp /bin/busybox /t/; /t/busybox echo ru""ns; rm -r /t/*; umount /t'), /runs/);
      await assert.rejects(e.qmp('object-del', { id: 'm1' }), /in use/);
      await e.qmp('device_del', { id: 'd1' });
      await e.event('DEVICE_DELETED');
      assert.equal(await total(e), before);
      await e.qmp('object-del', { id: 'm1' });
      // Nothing is there any more, and what comes there next is empty.
      assert.match(
        String(await e.qmp('human-monitor-command', { 'command-line': 'xp /1xg 0x108000000' })),
        /Cannot access memory|f{16}/,
      );
      await e.qmp('object-add', { 'qom-type': 'memory-backend-ram', id: 'm2', size: 128 * MIB });
      await e.qmp('device_add', { driver: 'pc-dimm', id: 'd2', memdev: 'm2' });
      assert.match(await e.command(online(33)), /online/);
      // A restart finds all that is there.
      await e.qmp('system_reset');
      e.console = '';
      await e.shell();
      for (const block of [32, 33]) assert.match(await e.command(online(block)), /online/);
      assert.equal(await total(e), before + 128);
    } finally {
      await e.quit();
    }
  });
