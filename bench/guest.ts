// The guest that all contestants run: the default image with an overlay, and QEMU's command line for it.

import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openImage } from '../src/host/node/fetch-image.ts';
import { concatenate } from '../src/images/initramfs.ts';

export const MEMORY_MIB = 512;

/** Files and command line of a guest; `remove` deletes what was written for it. */
export type Guest = { readonly kernel: string; readonly initrd: string; readonly append: string; readonly remove: () => void };

/** An image (the default one) with `overlay` behind its initramfs. On a busy host the test of the timer ends a guest of QEMU's in a panic: not done. */
export async function prepareGuest(overlay: Uint8Array, name = 'debian-cloud'): Promise<Guest> {
  const image = await openImage(name);
  const initrd = join(tmpdir(), `nonroot-bench-${randomUUID()}`);
  writeFileSync(initrd, concatenate([readFileSync(image.initrd), overlay]));
  return { kernel: image.kernel, initrd, append: `${image.append} mitigations=off no_timer_check`, remove: () => rmSync(initrd) };
}

/** Whether our emulator is to do without the code that earlier runs have left. */
export const settings = { cold: false };

/**
 * Arguments for QEMU on TCG, and for our emulator (`tcg` is its translator), with the guest's serial port `port` (0 to 3) on the standard output.
 * `program` says whose they are.
 */
export function emulatorArguments(guest: Guest, port: number, program: string): string[] {
  const serial = [0, 1, 2, 3].flatMap((n) => ['-serial', n === port ? 'stdio' : 'null']);
  const machine = [
    '-M',
    'q35',
    '-accel',
    settings.cold && program === OUR_EMULATOR ? 'dbt,cache=off' : 'tcg',
    '-cpu',
    'max',
    '-m',
    String(MEMORY_MIB),
    '-smp',
    '1',
    '-nodefaults',
    '-display',
    'none',
    '-no-reboot',
  ];
  return [...machine, ...serial, '-kernel', guest.kernel, '-initrd', guest.initrd, '-append', guest.append];
}

/** Our emulator, which takes the same arguments. */
export const OUR_EMULATOR = join(import.meta.dirname, '..', 'bin', 'nonroot-system-x86_64');

/** Arguments for this Node to run a program of this folder with the guest. */
export const ourArguments = (program: string, guest: Guest): string[] => [
  join(import.meta.dirname, program),
  guest.kernel,
  guest.initrd,
  guest.append,
];
