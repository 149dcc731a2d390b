// Debian from its own disk, a qcow2 image, on every controller and through both firmwares (i386: SeaBIOS); run by hand:
// `node test/e2e/debian.long.ts [PATTERN] [amd64|i386]`, for example `seabios` or `ahci-ovmf`. Prints what each took.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Controller, controllers, DebianGuest, type Firmware, serveMirror, useDebian } from './debian-boot.ts';
import { debianDisk } from './debian-disk.ts';

const arch = process.argv[3] ?? 'amd64';
if (arch !== 'amd64' && arch !== 'i386') {
  console.error(`Cannot start Debian for "${arch}": accepted are amd64 and i386`);
  process.exit(2);
}
const disk = await debianDisk(arch);
if (typeof disk === 'string') {
  console.error(`Cannot make the disk: ${disk}`);
  process.exit(1);
}
const wanted = new RegExp(process.argv[2] ?? '');
const folder = mkdtempSync(join(tmpdir(), 'nonroot-debian-'));
const mirror = await serveMirror(folder);
let failed = 0;
// Debian has no UEFI firmware of 32 bits.
for (const firmware of (arch === 'amd64' ? ['seabios', 'ovmf'] : ['seabios']) as Firmware[])
  for (const controller of Object.keys(controllers) as Controller[]) {
    const name = `${controller}-${firmware}`;
    if (!wanted.test(name)) continue;
    const start = performance.now();
    const seconds = (): string => ((performance.now() - start) / 1000).toFixed(0);
    const guest = await DebianGuest.start(disk, { controller, firmware, folder });
    try {
      await guest.up(3_600_000);
      const up = seconds();
      await useDebian(guest, mirror.port);
      await guest.off();
      console.log(`${name}: ssh after ${up} s, off after ${seconds()} s`);
    } catch (error) {
      failed++;
      console.log(`${name}: FAILED after ${seconds()} s\n${error instanceof Error ? error.message : error}`);
    } finally {
      await guest.vm.quit();
    }
  }
mirror.close();
rmSync(folder, { recursive: true, force: true });
process.exitCode = failed > 0 ? 1 : 0;
