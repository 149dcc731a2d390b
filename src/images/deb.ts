// Reader of binary Debian packages: deb(5) "FORMAT" (an ar archive of debian-binary, control.tar and data.tar).

import { readAr } from './ar.ts';
import { readTar, type TarEntry } from './tar.ts';

/** Compression formats that occur inside packages. */
export type Compression = 'xz' | 'zstd' | 'gzip';

/** Decompresses a whole stream. Rejects on damaged input. */
export type Decompress = (format: Compression, bytes: Uint8Array) => Promise<Uint8Array>;

const FORMATS: Readonly<Record<string, Compression | 'none'>> = {
  'data.tar': 'none',
  'data.tar.xz': 'xz',
  'data.tar.zst': 'zstd',
  'data.tar.gz': 'gzip',
};

/**
 * What a package would install, in archive order, with paths relative to the root (`boot/vmlinuz-…`).
 * @throws Error (rejects) when the package is not format 2.x, has no data member or an unknown compression.
 */
export async function readDeb(bytes: Uint8Array, decompress: Decompress): Promise<TarEntry[]> {
  const members = readAr(bytes);
  const version = new TextDecoder().decode(members[0]?.data ?? new Uint8Array(0));
  if (members[0]?.name !== 'debian-binary' || !version.startsWith('2.')) {
    throw new Error(`Cannot read Debian package: format "${version.trim()}", accepted is 2.x`);
  }
  const data = members.find((member) => member.name.startsWith('data.tar'));
  const format = data && FORMATS[data.name];
  if (!data || !format) {
    throw new Error(
      `Cannot read Debian package: its data is "${data?.name ?? 'missing'}", accepted are ${Object.keys(FORMATS).join(', ')}`,
    );
  }
  return [...readTar(format === 'none' ? data.data : await decompress(format, data.data))];
}
