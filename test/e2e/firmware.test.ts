// Machines that boot through firmware: SeaBIOS starts GRUB from a CD-ROM made by grub-mkrescue, on both boards; GRUB powers off by ACPI.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
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
    return false;
  } catch (error) {
    return `SeaBIOS is not to be had: ${error instanceof Error ? error.message : error}`;
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
