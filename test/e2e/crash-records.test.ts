// What a guest's kernel keeps of its crash: records in `acpi-erst`, whose storage QEMU reads as well, and that QEMU has written.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { EmulatorProcess } from './emulator.ts';

const folder = await mkdtemp(join(tmpdir(), 'nonroot-records-'));
after(() => rm(folder, { recursive: true }));
const QEMU = '/usr/bin/qemu-system-x86_64';
const noQemu = spawnSync(QEMU, ['--version']).status === 0 ? false : 'qemu-system-x86_64 is not there';

const store = [
  ...['-object', `memory-backend-file,id=records,size=128K,mem-path=${join(folder, 'store')},share=on`],
  ...['-device', 'acpi-erst,memdev=records,id=erst'],
];
const SHOW = 'mount -t pstore pstore /sys/fs/pstore; cd /sys/fs/pstore; md5sum *; cd /';

async function boot(name: string, more: readonly string[], program?: string): Promise<EmulatorProcess> {
  const vm = await EmulatorProcess.linux(folder, name, [...store, ...more], 'debian-cloud', program);
  after(() => vm.quit());
  await vm.shell();
  return vm;
}
/** Crashes the guest's kernel, which has its machine reset, and waits for its shell. */
async function crash(vm: EmulatorProcess, word: string): Promise<void> {
  vm.console = '';
  vm.child.stdin!.write(`echo ${word} > /dev/kmsg; echo c > /proc/sysrq-trigger\n`);
  await vm.event('RESET');
  vm.console = '';
  await vm.shell();
}
/** The table's length and number of entries, and each entry with its register's offset in place of its address. */
async function table(vm: EmulatorProcess): Promise<string[]> {
  const text = await vm.command('tail -c +37 /sys/firmware/acpi/tables/ERST | hexdump -v -e \'1/1 "%02x"\'');
  const bytes = text.replaceAll(/[^\da-f]/g, '');
  const entries = bytes.slice(24).match(/.{64}/g) ?? [];
  return [
    bytes.slice(0, 24),
    ...entries.map((e) => `${e.slice(0, 16)} ${Number.parseInt(e.slice(16, 18), 16) & 15} ${e.slice(32)}`),
  ];
}

test('the kernel finds the record of its crash after the reset, QEMU finds it in the file, and records of QEMU are found', {
  timeout: 600_000,
}, async (t) => {
  const ours = await boot('ours', []);
  await crash(ours, 'first-crash');
  const records = (await ours.command(SHOW)).match(/[\da-f]{32} {2}dmesg-erst-\d+/g) ?? [];
  assert.ok(records.length > 0, ours.console);
  assert.match(await ours.command('cat /sys/fs/pstore/*'), /first-crash.*sysrq: Trigger a crash/s);
  const told = await table(ours);
  await ours.quit();
  if (noQemu) return t.skip(noQemu);

  const theirs = await boot('theirs', [], QEMU);
  assert.deepEqual((await theirs.command(SHOW)).match(/[\da-f]{32} {2}dmesg-erst-\d+/g), records);
  assert.deepEqual(await table(theirs), told);
  await theirs.command('rm /sys/fs/pstore/*');
  await crash(theirs, 'second-crash');
  const second = (await theirs.command(SHOW)).match(/[\da-f]{32} {2}dmesg-erst-\d+/g);
  assert.ok(second);
  assert.ok(!second.some((name) => records.some((old) => old === name)));
  await theirs.quit();

  const again = await boot('again', ['-bios', 'bios-256k.bin']);
  assert.deepEqual((await again.command(SHOW)).match(/[\da-f]{32} {2}dmesg-erst-\d+/g), second);
  assert.match(await again.command('cat /sys/fs/pstore/*'), /second-crash/);
  await again.command('rm /sys/fs/pstore/*');
  assert.equal(await again.command('ls /sys/fs/pstore'), '');
  await again.quit();
});
