// Firmware images by name, as data: the Debian packages that have them, where these install them, and how they are taken out.

import { type Decompress, readDeb } from './deb.ts';

export interface FirmwarePackage {
  readonly name: string;
  /** Folders below the root that hold images. */
  readonly folders: readonly string[];
  /** Names of the images. */
  readonly files: RegExp;
}

export const firmwarePackages: readonly FirmwarePackage[] = [
  { name: 'seabios', folders: ['usr/share/seabios'], files: /^(bios|bios-256k|bios-microvm|vgabios-[\w-]+)\.bin$/ },
  { name: 'ovmf', folders: ['usr/share/OVMF', 'usr/share/ovmf'], files: /^OVMF[\w.]*\.fd$/ },
  { name: 'ipxe-qemu', folders: ['usr/lib/ipxe/qemu'], files: /^(efi|pxe)-[\w-]+\.rom$/ },
  { name: 'qemu-system-data', folders: ['usr/share/qemu'], files: /^(linuxboot_dma\.bin|qboot\.rom)$/ },
];

/** Folders of the host where packages that are installed have their images. */
export const firmwareFolders: readonly string[] = firmwarePackages.flatMap((p) => p.folders.map((f) => `/${f}`));

/** The package that has an image; undefined for names that none has. */
export const firmwarePackage = (file: string): FirmwarePackage | undefined => firmwarePackages.find((p) => p.files.test(file));

/**
 * The images of a package, by name.
 * @throws Error (rejects) where it cannot be read or holds none
 */
export async function extractFirmware(
  from: FirmwarePackage,
  deb: Uint8Array,
  decompress: Decompress,
): Promise<Record<string, Uint8Array>> {
  const images: Record<string, Uint8Array> = {};
  const links: [string, string][] = [];
  for (const entry of await readDeb(deb, decompress)) {
    const slash = entry.path.lastIndexOf('/');
    const name = entry.path.slice(slash + 1);
    if (!from.folders.includes(entry.path.slice(0, slash)) || !from.files.test(name)) continue;
    if (entry.type === 'file') images[name] = entry.data.slice();
    else if (entry.type === 'symlink' && from.files.test(entry.target)) links.push([name, entry.target]);
  }
  for (const [name, target] of links) {
    const image = images[target];
    if (image) images[name] = image;
  }
  if (Object.keys(images).length === 0) throw new Error(`Cannot take firmware from package ${from.name}: it holds none`);
  return images;
}
