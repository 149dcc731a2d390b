// Machines that boot through firmware: SeaBIOS starts GRUB from a CD-ROM made by grub-mkrescue, on both boards; GRUB powers off by ACPI.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readFirmware } from '../../src/host/node/fetch-firmware.ts';
import { program } from './program.ts';

const folder = await mkdtemp(join(tmpdir(), 'nonroot-firmware-'));
after(() => rm(folder, { recursive: true }));
const iso = join(folder, 'grub.iso');

/** Makes the CD-ROM; why it cannot be made here. */
async function make(): Promise<string | false> {
  await mkdir(join(folder, 'root/boot/grub'), { recursive: true });
  const config = ['serial', 'terminal_output serial', 'echo "started from $root"', 'halt'].join('\n');
  await writeFile(join(folder, 'root/boot/grub/grub.cfg'), `${config}\n`);
  const made = spawnSync('grub-mkrescue', ['-o', iso, join(folder, 'root')], { encoding: 'utf8' });
  if (made.error || made.status !== 0)
    return `grub-mkrescue with xorriso and grub-pc-bin is not there: ${made.error ?? made.stderr}`;
  try {
    await readFirmware('bios-256k.bin');
    await readFirmware('efi-rtl8139.rom');
    return false;
  } catch (error) {
    return `SeaBIOS or iPXE is not to be had: ${error instanceof Error ? error.message : error}`;
  }
}
const skip = await make();

for (const machine of ['pc', 'q35']) {
  test(`SeaBIOS boots GRUB from a CD-ROM on ${machine}, and the guest powers off`, { skip }, async () => {
    const args = ['-M', machine, '-m', '64', '-display', 'none', '-monitor', 'none', '-serial', 'stdio', '-cdrom', iso];
    const r = await program('nonroot-system-x86_64', args, { seconds: 60 });
    assert.equal(r.code, 0, r.text);
    assert.match(r.stdout.toString(), /started from (cd|hd)/, r.text);
  });
}

for (const controller of ['qemu-xhci', 'usb-ehci']) {
  test(`SeaBIOS boots GRUB from a CD-ROM on USB behind ${controller}`, { skip }, async () => {
    const drive = [
      '-drive',
      `id=c,if=none,media=cdrom,format=raw,file=${iso}`,
      '-device',
      controller,
      '-device',
      'usb-storage,drive=c',
    ];
    const args = ['-M', 'pc', '-m', '64', '-display', 'none', '-monitor', 'none', '-serial', 'stdio', ...drive];
    const r = await program('nonroot-system-x86_64', args, { seconds: 60 });
    assert.equal(r.code, 0, r.text);
    // SeaBIOS numbers CD-ROMs from 0xE0 on; a disk would be `hd0`.
    assert.match(r.stdout.toString(), /started from hd9[67]/, r.text);
  });
}

/** A boot sector that reads sector 2, sends it to the serial port up to a 0, writes it to sector 3, and ends the emulator with 33. */
const bootSector = [
  0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0x30, 0xf6, 0xbb, 0x00, 0x7e, 0xcd, 0x13, 0x72, 0x21, 0xbe, 0x00, 0x7e,
  0xac, 0x84, 0xc0, 0x74, 0x06, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5, 0xb8, 0x01, 0x03, 0xb9, 0x03, 0x00, 0x31, 0xd2, 0xbb, 0x00, 0x7e, 0xcd, 0x13,
  0xb0, 0x10, 0xba, 0x01, 0x05, 0xee, 0xf4, 0xeb, 0xfd,
]; // biome-ignore format: bytes

test('SeaBIOS boots from a floppy disk, reads it and writes it', { skip }, async () => {
  const image = Buffer.alloc(1440 << 10);
  image.set(bootSector);
  image.set([0x55, 0xaa], 510);
  image.write('started from a floppy disk\n\0', 512);
  const path = join(folder, 'floppy.img');
  await writeFile(path, image);
  const args = [
    '-M',
    'pc',
    '-m',
    '64',
    '-display',
    'none',
    '-monitor',
    'none',
    '-serial',
    'stdio',
    '-device',
    'isa-debug-exit',
    '-fda',
    path,
  ];
  const r = await program('nonroot-system-x86_64', args, { seconds: 60 });
  assert.match(r.stdout.toString(), /started from a floppy disk/, r.text);
  assert.equal(r.code, 33, r.text);
  assert.deepEqual((await readFile(path)).subarray(1024, 1536), image.subarray(512, 1024));
});

/** What a network boots: sends the text behind it to the serial port, and ends the emulator with 33. */
const networkProgram = [
  0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x1b, 0x7c, 0xac, 0x84, 0xc0, 0x74, 0x06, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf5, 0xb0, 0x10, 0xba, 0x01, 0x05, 0xee,
  0xf4, 0xeb, 0xfd,
]; // biome-ignore format: bytes

/** The same for a disk that resets the machine in the end, by port 0xCF9. */
const resettingProgram = [...networkProgram.slice(0, 18), 0xb0, 0x06, 0xba, 0xf9, 0x0c, 0xee, 0xf4, 0xeb, 0xfd];

const quiet = ['-m', '64', '-display', 'none', '-monitor', 'none', '-serial', 'stdio', '-device', 'isa-debug-exit'];

// One image serves cards of either kind of virtio, since firmware reads the card's own identifiers in it.
for (const card of ['rtl8139', 'virtio-net-pci', 'virtio-net-pci-non-transitional']) {
  test(`iPXE in the expansion ROM of a card boots from the user network by DHCP and TFTP: ${card}`, { skip }, async () => {
    const tftp = join(folder, `tftp-${card}`);
    await mkdir(tftp);
    await writeFile(
      join(tftp, 'boot.bin'),
      Buffer.concat([Buffer.from(networkProgram), Buffer.from('started from the network\n\0')]),
    );
    const net = ['-netdev', `user,id=n,tftp=${tftp},bootfile=boot.bin`, '-device', `${card},netdev=n`];
    const r = await program('nonroot-system-x86_64', ['-M', 'pc', ...quiet, '-boot', 'n', ...net], { seconds: 100 });
    assert.match(r.stdout.toString(), /started from the network/, r.text);
    assert.equal(r.code, 33, r.text);
  });
}

/** The file of a disk with a boot sector. */
async function bootable(name: string, code: readonly number[], text: string): Promise<string> {
  const image = Buffer.alloc(1440 << 10);
  image.set(code);
  image.write(`${text}\n\0`, code.length);
  image.set([0x55, 0xaa], 510);
  const path = join(folder, name);
  await writeFile(path, image);
  return path;
}

test('the boot order of once= holds until the first reset; the debug console is at the port that it was given', {
  skip,
}, async () => {
  const floppy = await bootable('once.img', resettingProgram, 'started from the floppy disk');
  const disk = await bootable('always.img', networkProgram, 'started from the hard disk');
  const log = join(folder, 'debug.log');
  const r = await program(
    'nonroot-system-x86_64',
    [
      ...['-M', 'pc', ...quiet, '-boot', 'order=c,once=a', '-drive', `file=${floppy},format=raw,if=floppy`],
      ...['-drive', `file=${disk},format=raw`, '-debugcon', `file:${log}`, '-global', 'isa-debugcon.iobase=0x402'],
    ],
    { seconds: 100 },
  );
  assert.match(r.stdout.toString(), /^started from the floppy disk\s+started from the hard disk\s*$/, r.text);
  assert.equal(r.code, 33, r.text);
  const said = await readFile(log, 'latin1');
  assert.match(said, /^SeaBIOS \(version.*Booting from Floppy.*SeaBIOS \(version.*Booting from Hard Disk/s, said);
});

test('firmware that finds nothing to boot stays so, or begins anew after reboot-timeout=', { skip }, async () => {
  const args = ['-M', 'pc', '-m', '64', '-nodefaults', '-display', 'none', '-no-reboot', '-debugcon', 'stdio'];
  const port = ['-global', 'isa-debugcon.iobase=0x402'];
  const again = await program('nonroot-system-x86_64', [...args, ...port, '-boot', 'reboot-timeout=1000'], { seconds: 60 });
  assert.match(again.stdout.toString(), /No bootable device\. {2}Retrying in 1 seconds\./, again.text);
  assert.equal(again.code, 0, again.text);
  const stays = await program('nonroot-system-x86_64', [...args, ...port], {
    seconds: 60,
    signal: { after: 'No bootable device.\n', name: 'SIGTERM' },
  });
  assert.match(stays.stderr, /terminating on SIGTERM/, stays.text);
});
