// From two Debian packages to the parts of a bootable image: kernel, busybox, drivers, and the initramfs made of the last two.

import type { ImageRow } from './catalog.ts';
import { writeCpio } from './cpio.ts';
import { type Compression, type Decompress, readDeb } from './deb.ts';
import { buildInitramfs } from './initramfs.ts';
import { moduleEntries } from './modules.ts';
import type { TarEntry } from './tar.ts';

/** Files that are kept of an image; the initramfs follows from them. */
export type ImageParts = {
  readonly kernel: Uint8Array;
  readonly busybox: Uint8Array;
  /** A cpio archive of drivers under lib/modules. */
  readonly modules: Uint8Array;
};

/**
 * Takes the parts of an image out of its packages.
 * @throws Error (rejects) when a package has no kernel or no busybox, or cannot be read
 */
export async function extractParts(
  row: Pick<ImageRow, 'modules'>,
  packages: { readonly kernel: Uint8Array; readonly busybox: Uint8Array },
  decompress: Decompress,
): Promise<ImageParts> {
  const tools = await readDeb(packages.busybox, decompress);
  const busybox = tools.find((entry) => entry.type === 'file' && /^(usr\/)?bin\/busybox$/.test(entry.path));
  if (!busybox) throw new Error('Cannot make image: the busybox package holds no bin/busybox');
  const system = await readDeb(packages.kernel, decompress);
  const kernel = system.find((entry) => entry.type === 'file' && /^boot\/vmlinu[xz]-[^/]+$/.test(entry.path));
  if (!kernel) throw new Error('Cannot make image: the kernel package holds no boot/vmlinuz-VERSION');
  const files = new Map(system.filter((entry) => entry.type === 'file').map((entry) => [entry.path, entry]));
  const load = (path: string) => plain(files.get(path)!, decompress);
  const modules = await moduleEntries(files.keys(), row.modules, load);
  // Copies, so that what is kept does not hold the whole unpacked package in memory.
  return { kernel: kernel.data.slice(), busybox: busybox.data.slice(), modules: writeCpio(modules) };
}

/** The bootable pair of an image. */
export function buildImage(parts: ImageParts): { kernel: Uint8Array; initrd: Uint8Array<ArrayBuffer> } {
  return { kernel: parts.kernel, initrd: buildInitramfs(parts.busybox, parts.modules) };
}

const SUFFIXES: Readonly<Record<string, Compression>> = { '.xz': 'xz', '.zst': 'zstd', '.gz': 'gzip' };

async function plain(entry: TarEntry, decompress: Decompress): Promise<Uint8Array> {
  const format = SUFFIXES[/\.(xz|zst|gz)$/.exec(entry.path)?.[0] ?? ''];
  return format ? decompress(format, entry.data) : entry.data;
}
