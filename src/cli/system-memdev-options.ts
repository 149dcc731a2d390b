// Memory back-ends that devices name by `memdev=`: which they are, and their contents on the host (QEMU 7.2, "System Emulation", section
// "Invocation", -object memory-backend-file).

import { ERST_STORAGE_MOST, openErstStorage } from '../devices/erst.ts';
import type { ByteFile } from '../disk/block.ts';
import type { Backends } from '../machine/backends.ts';
import { DIMM } from '../machine/dimms.ts';
import type { Json } from '../rpc/qmp/json.ts';
import type { CliHost } from './host.ts';
import { Refused, type Settings } from './system-settings.ts';

type MemoryObject = { readonly [name: string]: Json };

const KIND = 'memory-backend-';

/** Objects whose contents are devices', in the devices' order; those of modules of memory are guest RAM. */
export const memdevsOf = (s: Settings): readonly MemoryObject[] =>
  s.devices.flatMap(({ driver, memdev }) =>
    driver === DIMM ? [] : s.objects.filter((o) => o['id'] === memdev && String(o['qom-type']).startsWith(KIND)),
  );

/** Back-ends of the RAM that the machine starts with. */
export const boardMemdevs = (s: Settings): readonly string[] => [
  ...[s.machineProperties.get('memory-backend') ?? []].flat(),
  ...s.numa.flatMap((text) => /(?:^|,)memdev=([^,]+)/.exec(text)?.[1] ?? []),
];

/**
 * Holds the devices' memory back-ends against the rest of the command line.
 * @throws Refused
 */
export function checkMemdevs(s: Settings): void {
  const used = [...boardMemdevs(s)];
  for (const d of s.devices) {
    if (d.driver !== 'acpi-erst') continue;
    const refuse = (why: string): never => {
      throw new Refused(`-device ${d.driver}: ${why}`);
    };
    const { memdev } = d;
    if (typeof memdev !== 'string') return refuse("'memdev' property is not set");
    const object = memdevsOf(s).find((o) => o['id'] === memdev);
    if (!object) return refuse(`memdev=${memdev}: there is no memory back-end of that id`);
    if (used.includes(memdev)) refuse(`can't use already busy memdev: ${memdev}`);
    used.push(memdev);
    const size = Number(object['size']);
    if (size > ERST_STORAGE_MOST) refuse(`memdev=${memdev}: it has ${size} bytes, accepted are up to ${ERST_STORAGE_MOST}`);
    if (object['readonly'] === true) refuse(`memdev=${memdev}: readonly=on is not supported, records are written to it`);
  }
}

/**
 * Opens what the devices' memory back-ends have on the host, and puts it among `backends`. A storage of error records says what size its records have.
 * @returns the files, to be closed
 * @throws Error (rejects) with one line
 */
export async function openMemdevs(s: Settings, host: Pick<CliHost, 'disks'>, backends: Backends): Promise<readonly ByteFile[]> {
  const files: ByteFile[] = [];
  for (const object of memdevsOf(s)) {
    const id = String(object['id']);
    const bytes = new Uint8Array(Number(object['size']));
    const path = object['mem-path'];
    const file = typeof path === 'string' ? await contents(host, path, bytes, id) : undefined;
    if (file) files.push(file);
    s.devices = s.devices.map((d) => {
      if (d['memdev'] !== id) return d;
      try {
        const slot = openErstStorage(bytes, Number(d['record_size'] ?? 8192));
        return { ...d, record_size: slot };
      } catch (error) {
        throw new Refused(`-device ${d.driver}: ${(error as Error).message}`);
      }
    });
    const shared = object['share'] === true ? file : undefined;
    if (shared) await shared.write(0, bytes);
    backends.memories.add(id, { bytes, ...(shared ? { save: (at, changed) => shared.write(at, changed) } : {}) });
  }
  return files;
}

/** The file behind a back-end; one that is new, or empty, gets the back-end's size. */
async function contents({ disks }: Pick<CliHost, 'disks'>, path: string, bytes: Uint8Array, id: string): Promise<ByteFile> {
  const file = await disks.open(path, { readOnly: false, create: true });
  const size = await file.size();
  if (size > 0 && size < bytes.length) {
    await file.close();
    throw new Refused(
      `-object memory-backend-file,id=${id}: backing store size 0x${size.toString(16)} does not match 'size' option 0x${bytes.length.toString(16)}`,
    );
  }
  if (size === 0) await file.truncate(bytes.length);
  await file.read(0, bytes);
  return file;
}
