// The microvm board with Debian's kernel: what the guest sees of it, and that its virtio devices work.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { EmulatorProcess } from './emulator.ts';
import { missing } from './program.ts';

const skip = await missing('debian-cloud');
const folder = mkdtempSync(join(tmpdir(), 'nonroot-microvm-'));
const processes: EmulatorProcess[] = [];
after(async () => {
  for (const e of processes) await e.quit();
  rmSync(folder, { recursive: true });
});
/** Linux jumps to the firmware at once, without trying a keyboard controller for seconds. */
const APPEND = 'console=ttyS0 quiet panic=-1 reboot=b';
const microvm = async (name: string, options: readonly string[]): Promise<EmulatorProcess> => {
  const e = await EmulatorProcess.linux(folder, name, options);
  processes.push(e);
  await e.shell();
  return e;
};

test("Debian's kernel finds the devices of a microvm where QEMU has them", { skip, timeout: 120_000 }, async () => {
  const disk = join(folder, 'disk.raw');
  const data = randomBytes(1 << 20);
  writeFileSync(disk, data);
  const e = await microvm('acpi', [
    ...['-M', 'microvm', '-drive', `if=none,id=d,file=${disk},format=raw`, '-device', 'virtio-blk-device,drive=d'],
    ...['-netdev', 'user,id=n', '-device', 'virtio-net-device,netdev=n', '-device', 'virtio-rng-device,bus=virtio-mmio-bus.0'],
  ]);
  const interrupts = await e.command('grep -E "virtio|ttyS0|ACPI" /proc/interrupts');
  for (const line of [
    /23-fasteoi +virtio0/,
    /22-fasteoi +virtio1/,
    /IO-APIC +0-fasteoi +virtio2/,
    /4-edge +ttyS0/,
    /9-edge +ACPI:Ged/,
  ])
    assert.match(interrupts, line);
  assert.equal(
    await e.command('grep -E "^ *feb.* : LNRO....:..$" /proc/iomem'),
    ['feb00000-feb001ff : LNRO0005:02', 'feb02c00-feb02dff : LNRO0005:01', 'feb02e00-feb02fff : LNRO0005:00'].join('\r\n'),
  );
  assert.match(await e.command('md5sum </dev/vda'), new RegExp(createHash('md5').update(data).digest('hex')));
  await e.command('dd if=/dev/zero of=/dev/vda bs=4k count=4 conv=fsync 2>/dev/null');
  assert.ok(readFileSync(disk).subarray(0, 16384).every((b) => b === 0), 'what was flushed is in the file'); // biome-ignore format: one line
  assert.match(await e.command('udhcpc -i eth0 -q -n -s /etc/udhcpc 2>&1'), /lease of 10\.0\.2\.15 obtained/);
  assert.match(await e.command('head -c 8 /dev/hwrng | wc -c'), /8/);
  await e.qmp('system_powerdown');
  assert.match(await e.command('grep ACPI:Ged /proc/interrupts'), / 1 +IO-APIC/);
  await e.command('(sleep 0.2; poweroff -f) & true');
  assert.equal(await e.ended, 0);
});

test('without ACPI the transports are on the command line, and a reset is found', { skip, timeout: 120_000 }, async () => {
  const more = ['-device', 'virtio-rng-device', '-device', 'virtio-balloon-device', '-no-reboot', '-append', APPEND];
  const e = await microvm('plain', ['-M', 'microvm,acpi=off,rtc=off', ...more]);
  const line = await e.command('cat /proc/cmdline');
  assert.match(line, / virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11$/);
  assert.match(await e.command('cat /proc/interrupts'), /XT-PIC +timer/);
  await e.command('(sleep 0.2; reboot -f) & true');
  assert.equal(await e.ended, 0);
});
