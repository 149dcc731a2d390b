// Suspend to RAM (S3): of a guest whose kernel was loaded directly, where no firmware is there to wake it, and through firmware.

import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readFirmware } from '../../src/host/node/fetch-firmware.ts';
import { EmulatorProcess } from './emulator.ts';

const OVMF = '/usr/share/OVMF';
const seabios = await readFirmware('bios-256k.bin').then(
  () => false as const,
  (error) => `SeaBIOS is not to be had: ${error}`,
);
const ovmf = existsSync(`${OVMF}/OVMF_CODE_4M.fd`) ? false : `there is no ${OVMF}/OVMF_CODE_4M.fd`;

const folder = mkdtempSync(join(tmpdir(), 'nonroot-sleep-'));
const machines: EmulatorProcess[] = [];
after(async () => {
  for (const m of machines) await m.quit();
  rmSync(folder, { recursive: true });
});

async function start(name: string, args: readonly string[]): Promise<EmulatorProcess> {
  const vm = await EmulatorProcess.linux(folder, name, args);
  machines.push(vm);
  await vm.shell();
  return vm;
}
const count = (vm: EmulatorProcess, event: string): number => vm.events.filter((e) => e.event === event).length;

test('a Linux guest suspends to RAM, and its clock or a monitor wakes it', { timeout: 300_000 }, async () => {
  const disk = join(folder, 'disk.raw');
  writeFileSync(disk, '');
  truncateSync(disk, 4 << 20);
  const vm = await start('s3', ['-smp', '2', '-drive', `file=${disk},format=raw,if=virtio`, '-device', 'virtio-rng-pci']);
  assert.deepEqual(await vm.qmp('query-current-machine'), { 'wakeup-suspend-support': true });
  await assert.rejects(vm.qmp('system_wakeup'), /Unable to wake up: guest is not in suspended state/);
  await vm.command('echo kept > /tmp/kept; echo before > /dev/vda');

  // By the alarm of its clock.
  const slept = await vm.command(
    'a=$(date +%s); echo +3 > /sys/class/rtc/rtc0/wakealarm; echo mem > /sys/power/state && echo woke after $(($(date +%s)-a))',
  );
  // The alarm's seconds begin when the RTC's do: three of them may be little more than two.
  assert.match(slept, /woke after ([2-9]|[1-5]\d)$/m);
  assert.deepEqual([count(vm, 'SUSPEND'), count(vm, 'WAKEUP'), count(vm, 'RESET')], [1, 1, 0]);
  const all =
    'cat /tmp/kept; grep -c ^processor /proc/cpuinfo; echo 3 > /proc/sys/vm/drop_caches; head -n 1 /dev/vda; echo after > /dev/vda; head -c 9 /dev/hwrng | wc -c';
  assert.deepEqual((await vm.command(all)).split('\r\n').slice(-4), ['kept', '2', 'before', '9']);

  // By a monitor. Meanwhile nothing runs, and what wants a guest that does is refused.
  vm.console = '';
  vm.child.stdin!.write('echo mem > /sys/power/state; echo WO"KEN" again\n');
  await vm.until('the sleep', () => (count(vm, 'SUSPEND') === 2 ? true : undefined));
  assert.equal(await vm.status(), 'suspended');
  await vm.qmp('stop');
  await vm.qmp('cont');
  assert.equal(await vm.status(), 'suspended');
  await assert.rejects(vm.qmp('migrate', { uri: `exec:cat > ${join(folder, 'state')}` }));
  await vm.qmp('system_wakeup');
  await vm.until('the guest', () => (/WOKEN again/.test(vm.console) ? true : undefined));
  assert.equal(await vm.status(), 'running');
  assert.equal((await vm.command('head -n 1 /dev/vda')).split('\r\n').at(-1), 'after');

  // A reset ends a sleep, too.
  vm.child.stdin!.write('echo mem > /sys/power/state\n');
  await vm.until('the sleep', () => (count(vm, 'SUSPEND') === 3 ? true : undefined));
  vm.console = '';
  await vm.qmp('system_reset');
  await vm.shell();
  assert.match(await vm.command('ls /tmp/kept'), /No such file/);
  vm.child.stdin!.write('echo mem > /sys/power/state\n');
  await vm.until('the sleep', () => (count(vm, 'SUSPEND') === 4 ? true : undefined));
  await vm.qmp('quit');
  assert.equal(await vm.ended, 0);
});

test('with disable_s3 a guest has no such sleep', { timeout: 120_000 }, async () => {
  const vm = await start('none', ['-global', 'ICH9-LPC.disable_s3=1']);
  assert.deepEqual(await vm.qmp('query-current-machine'), { 'wakeup-suspend-support': false });
  assert.doesNotMatch(await vm.command('cat /sys/power/mem_sleep'), /deep/);
});

const vars = join(folder, 'vars.fd');
if (!ovmf) copyFileSync(`${OVMF}/OVMF_VARS_4M.fd`, vars);
const flash = (file: string, more = ''): string[] => ['-drive', `if=pflash,format=raw${more},file=${file}`];
for (const [firmware, skip, args] of [
  ['SeaBIOS on pc', seabios, ['-M', 'pc', '-bios', 'bios-256k.bin']],
  ['OVMF on q35', ovmf, [...flash(`${OVMF}/OVMF_CODE_4M.fd`, ',readonly=on'), ...flash(vars)]],
] as const) {
  test(`a guest that ${firmware} has started is woken through it`, { skip, timeout: 300_000 }, async () => {
    const vm = await start(firmware.slice(0, 4), [...args, '-smp', '2']);
    await vm.command('echo kept > /tmp/kept');
    assert.match(
      await vm.command('echo +3 > /sys/class/rtc/rtc0/wakealarm; echo mem > /sys/power/state && echo woke'),
      /^woke$/m,
    );
    assert.deepEqual([count(vm, 'SUSPEND'), count(vm, 'WAKEUP'), count(vm, 'RESET')], [1, 1, 0]);
    assert.deepEqual((await vm.command('cat /tmp/kept; grep -c ^processor /proc/cpuinfo')).split('\r\n').slice(-2), [
      'kept',
      '2',
    ]);
  });
}
