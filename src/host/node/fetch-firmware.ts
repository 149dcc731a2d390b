// Firmware images: from folders that the user names, from packages that are installed, from the cache, else from Debian's packages.

import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { extractFirmware, type FirmwarePackage, firmwareFolders, firmwarePackage } from '../../images/firmware.ts';
import { NoApt } from './apt.ts';
import { type Cache, imageFile, type Manifest, readManifest, storeImage, userCache } from './cache.ts';
import { type ImageOptions, newest, packageSources } from './fetch-image.ts';
import { decompressPackage } from './unxz.ts';

/** Largest image that is read. */
const MAX = 64 << 20;

/**
 * An image by its file name or path. Names with a slash are paths; others are looked for in `folders`, then where Debian's packages
 * install them; what is not there is fetched.
 * @throws Error (rejects) where it cannot be had
 */
export async function readFirmware(
  name: string,
  folders: readonly string[] = [],
  options: ImageOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  if (name.includes('/')) return read(name);
  // A plain name may be a file of the current directory, as QEMU takes it.
  for (const folder of [...folders, '.', ...firmwareFolders]) {
    const path = join(folder, name);
    const found = await stat(path).catch(() => undefined);
    if (found?.isFile()) return read(path);
  }
  const from = firmwarePackage(name);
  if (!from) throw new Error(`Cannot find firmware ${name}: it is in none of ${[...folders, ...firmwareFolders].join(', ')}`);
  const cache = options.cache ?? userCache();
  const key = `firmware-${from.name}`;
  const kept = await readManifest(cache, key);
  const manifest = kept?.files[name] ? kept : await fetchPackage(from, key, cache, options);
  return read(imageFile(cache, manifest, name));
}

async function read(path: string): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`Cannot read firmware ${path}: ${error.code === 'ENOENT' ? 'there is no such file' : error.message}`);
  });
  if (bytes.length === 0 || bytes.length > MAX)
    throw new Error(`Cannot use firmware ${path}: it has ${bytes.length} bytes, accepted are 1 to ${MAX}`);
  return new Uint8Array(bytes);
}

async function fetchPackage(from: FirmwarePackage, key: string, cache: Cache, options: ImageOptions): Promise<Manifest> {
  const failures: string[] = [];
  for (const source of packageSources(cache, options, 'amd64')) {
    try {
      const { entry, bytes } = await newest(source, from.name);
      options.report?.({ label: `Unpacking ${from.name}`, done: 0 });
      const images = await extractFirmware(from, bytes, decompressPackage);
      return await storeImage(cache, { name: key, packages: [entry], source: source.label }, images);
    } catch (error) {
      failures.push(
        error instanceof NoApt
          ? 'there is no apt on this machine'
          : `${source.label}: ${error instanceof Error ? error.message : error}`,
      );
    } finally {
      await source.close();
    }
  }
  throw new Error(
    `Cannot fetch firmware of package ${from.name}:\n  ${failures.join('\n  ')}\nAccepted instead: the package installed, -L FOLDER, or NONROOT_MIRROR set to the URL of a Debian mirror`,
  );
}
