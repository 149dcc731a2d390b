// Reads of a disk behind each controller, timed inside the guest: the same kernel, programs and devices on both emulators.

import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CHANNELS, execOverlay } from '../src/images/overlay.ts';
import { emulatorArguments, OUR_EMULATOR, prepareGuest } from './guest.ts';
import { type Benchmark, type Sample, watch } from './measure.ts';

const OUT = Number(CHANNELS.out.at(-1));
const MIB = 1 << 20;
const DISK = 64 * MIB;
const SMALL_READS = 2000;

interface Controller {
  readonly name: string;
  readonly machine: 'pc' | 'q35';
  readonly append?: string;
  readonly devices: readonly string[];
  readonly disk: string;
}
const controllers: readonly Controller[] = [
  { name: 'ide', machine: 'pc', devices: ['ide-hd,drive=d'], disk: 'sda' },
  { name: 'ahci', machine: 'q35', append: 'libata.force=noncq', devices: ['ide-hd,drive=d'], disk: 'sda' },
  { name: 'scsi', machine: 'q35', devices: ['virtio-scsi-pci', 'scsi-hd,drive=d'], disk: 'sda' },
  { name: 'cdrom', machine: 'pc', devices: ['ide-cd,drive=d'], disk: 'sr0' },
];

/** Each line: a word and seconds. Everything runs once before, so that the code is warm on both. */
const script = (disk: string): string => `
modprobe -a ata_piix ahci virtio_pci virtio_scsi sd_mod sr_mod 2>/dev/null
for i in $(seq 100); do [ -b /dev/${disk} ] && break; sleep 0.1; done
t() { name=$1; shift; "$@" >/dev/null 2>&1; read a _ </proc/uptime; "$@" >/dev/null 2>&1; read b _ </proc/uptime; echo "$name $(awk "BEGIN{print $b-$a}")"; }
t read dd if=/dev/${disk} of=/dev/null bs=1M iflag=direct
t small dd if=/dev/${disk} of=/dev/null bs=4k count=${SMALL_READS} iflag=direct
echo end
`;

async function measureOne(program: string, c: Controller): Promise<Sample> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-bench-controllers-'));
  writeFileSync(join(folder, 'disk'), randomFillSync(Buffer.alloc(DISK)));
  const guest = await prepareGuest(execOverlay({ command: script(c.disk) }), 'debian-amd64');
  const append = c.append === undefined ? guest.append : `${guest.append} ${c.append}`;
  const process = watch(program, [
    ...emulatorArguments({ ...guest, append }, OUT, program).map((argument) => (argument === 'q35' ? c.machine : argument)),
    ...['-drive', `file=${join(folder, 'disk')},format=raw,if=none,id=d`, ...c.devices.flatMap((d) => ['-device', d])],
  ]);
  try {
    await process.said('end\n');
    const seconds = Object.fromEntries([...process.text.matchAll(/^(\w+) ([\d.]+)$/gm)].map(([, name, s]) => [name, Number(s)]));
    return { [`${c.name}-read`]: DISK / MIB / seconds['read']!, [`${c.name}-small`]: SMALL_READS / 1000 / seconds['small']! };
  } finally {
    await process.stop();
    guest.remove();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measure(program: string): Promise<Sample> {
  const all: Record<string, number> = {};
  for (const c of controllers) Object.assign(all, await measureOne(program, c));
  return all;
}

export const disks: Benchmark = {
  name: 'disks',
  about: 'reads of disks behind each controller from inside the guest; more is better',
  metrics: controllers.flatMap(({ name }) => [
    { name: `${name}-read`, unit: `MiB/s read, ${name}`, digits: 0 },
    { name: `${name}-small`, unit: `thousand reads of 4 KiB/s, ${name}`, digits: 1 },
  ]),
  contestants: { nonroot: () => measure(OUR_EMULATOR), qemu: () => measure('qemu-system-x86_64') },
};
