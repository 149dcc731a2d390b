// v86 from npm as a peer for i386 guests: fetched into the cache when asked for, run in a process of its own by guests/v86.ts.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { userCache } from '../src/host/node/cache.ts';
import { prepareGuest } from './guest.ts';
import { watch } from './measure.ts';

const VERSION = '0.5.462';
const folder = join(userCache().root, 'bench', `v86-${VERSION}`);
const place = join(folder, 'node_modules', 'v86');
const FIRMWARE = ['/usr/share/seabios/bios.bin', '/usr/share/seabios/vgabios-stdvga.bin'];

/** Its version, once it is there; installs it where it is not. Throws where that is not possible. */
export function v86Version(): string {
  if (!existsSync(place)) {
    mkdirSync(folder, { recursive: true });
    const args = ['install', '--prefix', folder, '--no-audit', '--no-fund', '--ignore-scripts', `v86@${VERSION}`];
    const { status, stderr } = spawnSync('npm', args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`Cannot fetch v86: npm says ${stderr.trim().split('\n')[0]}`);
  }
  for (const path of FIRMWARE) if (!existsSync(path)) throw new Error(`Cannot run v86: there is no ${path} (package seabios)`);
  return `v86 ${(JSON.parse(readFileSync(join(place, 'package.json'), 'utf8')) as { version: string }).version}`;
}

/** Boots the image with an overlay; what the guest said on its second serial port. */
export async function runV86(image: string, overlay: Uint8Array, limit: number): Promise<string> {
  const guest = await prepareGuest(overlay, image);
  const program = join(import.meta.dirname, 'guests', 'v86.ts');
  const child = watch(process.execPath, [program, place, ...FIRMWARE, guest.kernel, guest.initrd, guest.append], limit);
  try {
    await child.said('end\n');
    return child.text;
  } finally {
    await child.stop();
    guest.remove();
  }
}
